"""Start the process that submissions are forked from."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from autograder.execution.wire import Channel

ROOT = Path(__file__).resolve().parents[2]
KEPT = (
    "AUTOGRADER_PATIENCE",
    "AUTOGRADER_PROTECTION",
    "LD_LIBRARY_PATH",
    "PATH",
    "SYSTEMROOT",
    "XDG_CACHE_HOME",
)
# A fork copies the tables of all pages, of which huge ones have a hundredth:
# 1.4 ms instead of 6 with PyTorch imported. Linux's C library alone obeys.
HUGE_PAGES = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "PYTHONMALLOC": "malloc",
}


def environment() -> dict[str, str]:
    """Return all that a student's process learns of the environment."""
    kept = {k: v for k, v in os.environ.items() if k in KEPT}
    return (
        kept
        | HUGE_PAGES
        | {
            "CONTEXTLAB_GRADING": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "HOME": "/tmp",
            "LANG": "C.UTF-8",
            "MKL_NUM_THREADS": "1",
            "MPLBACKEND": "agg",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUTF8": "1",
        }
    )


def start_nursery() -> tuple[subprocess.Popen, Channel]:
    """Start the warmed process, and return it and the way to speak to it."""
    here, there = socket.socketpair()
    command = ["-m", "autograder.execution.nursery", str(there.fileno())]
    process = subprocess.Popen(
        [sys.executable, *command, str(ROOT)],
        stdin=subprocess.DEVNULL,
        pass_fds=[there.fileno()],
        env=environment(),
        cwd=ROOT,
        start_new_session=True,
    )
    there.close()
    return process, Channel(here)
