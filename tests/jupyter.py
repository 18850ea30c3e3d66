"""Start Jupyter for a test in a real browser."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

TOKEN = "a-token"
START = 60  # seconds


@contextmanager
def serving(
    application: str, *arguments: str, cwd: Path, scratch: Path, **env: str
) -> Iterator[str]:
    """Run ``jupyter server`` or ``jupyter lab``; yield its address.

    Args:
        application: which of them.
        arguments: what else its command line says.
        cwd: where it is started.
        scratch: a new folder, for its log and its own files.
        env: environment variables, besides this process's.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    scratch.mkdir()
    log = scratch / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyter", application),
                *("--no-browser", "--allow-root", f"--port={port}"),
                "--ServerApp.port_retries=0",
                f"--IdentityProvider.token={TOKEN}",
                *arguments,
            ],
            cwd=cwd,
            env=os.environ | {"JUPYTER_RUNTIME_DIR": str(scratch)} | env,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/api?token={TOKEN}", process, log)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    """Wait until the server answers."""
    until = time.monotonic() + START
    while time.monotonic() < until and process.poll() is None:
        try:
            return urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"Jupyter did not start:\n{log.read_text()}")
