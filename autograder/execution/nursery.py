"""A warmed process that submissions are forked from.

It has imported PyTorch and what the chapters' notebooks import, and holds no
check, no answer and no submission. It is told what to do over a socket, whose
end is its end.
"""

import contextlib
import gc
import os
import select
import shutil
import signal
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from autograder.execution import host, sandbox
from autograder.execution.sandbox import Limits, View
from autograder.execution.wire import Channel, GoneError, Message

TOO_MUCH = b"memory"  # what the judge is told over the lifeline
EXACT_FROM = 1 << 30  # bytes
TICK = 0.05  # seconds between two looks at a submission's memory


def main(control: Channel, root: Path) -> None:
    """Fork what is asked for, until nobody asks any more."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for children
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the grader
    host.silence()
    folder = Path(tempfile.mkdtemp(prefix="submissions-"))
    folder.chmod(0o711)
    with contextlib.suppress(GoneError):
        while True:
            order, _ = control.receive()
            for statement in order.get("warm", []):
                with contextlib.suppress(Exception):
                    exec(statement, {})
            if "level" in order:
                fork(order, control, View.of(root, folder))
    shutil.rmtree(folder, ignore_errors=True)


def fork(order: Message, control: Channel, seen: View) -> None:
    """Start the submission that the ends of two connections come for."""
    _, ends, *_ = socket.recv_fds(control.socket, 1, 2)
    gc.collect()
    gc.freeze()  # or the children's collections would copy every page
    if os.fork():
        for end in ends:
            os.close(end)
        return
    try:
        control.close()
        supervise(order["level"], *ends, seen)
    finally:
        os._exit(0)


def supervise(level: str, channel: int, lifeline: int, seen: View) -> None:
    """Shut the submission in, and end it when the lifeline is cut."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    limits = Limits()
    if level != "namespaces":  # where each has its own /tmp
        scratch = Path(tempfile.mkdtemp(dir=seen.scratch))
        scratch.chmod(0o777)
        seen = replace(seen, scratch=scratch)

    def task() -> None:
        os.close(lifeline)
        os.environ.update(HOME=os.getcwd(), TMPDIR=os.getcwd())
        tempfile.tempdir = os.getcwd()
        host.run(Channel(socket.socket(fileno=channel)))

    base = resident("self")

    def wait(child: int) -> None:
        os.close(channel)
        most = limits.memory if level == "namespaces" else None
        watch(child, lifeline, base, most)

    try:
        sandbox.enclose(level, seen, limits, task, wait)
    finally:
        if level != "namespaces":
            shutil.rmtree(seen.scratch, ignore_errors=True)


def watch(child: int, lifeline: int, base: int, most: int | None) -> None:
    """Return when the child has ended; see to it that it does.

    Args:
        child: the submission's first process.
        lifeline: ends the submission when it is cut.
        base: the bytes of memory that each process has from the nursery.
        most: the bytes that all may hold besides, if that can be seen.
    """
    while not os.waitpid(child, os.WNOHANG)[0]:
        cut, _, _ = select.select([lifeline], [], [], TICK)
        too_much = most is not None and used(base) > most
        if too_much and not cut:
            with contextlib.suppress(OSError):
                os.write(lifeline, TOO_MUCH)
        if cut or too_much:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return


def used(base: int) -> int:
    """Return the bytes that all processes in view hold, besides the base."""
    with contextlib.suppress(OSError):
        found = [p for p in os.listdir("/proc") if p.isdigit()]
        most = sum(max(0, resident(pid) - base) for pid in found)
        # That counts what two share twice; to be exact takes longer.
        if most > EXACT_FROM:
            return min(most, sum(map(proportional, found)))
        return most
    return 0


def resident(pid: str) -> int:
    """Return the bytes of memory that a process holds."""
    try:
        text = Path(f"/proc/{pid}/statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def proportional(pid: str) -> int:
    """Return the same, but of what several hold only its part."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(text.partition("\nPss:")[2].split()[0]) << 10
    except (OSError, ValueError, IndexError):
        return resident(pid)


if __name__ == "__main__":
    end = socket.socket(fileno=int(sys.argv[1]))
    main(Channel(end), Path(sys.argv[2]))
