"""The process that holds a student's code.

It is told by the judge what to run, and then, for each exercise, to fork: the
child lends the judge the names that the code has defined, and answers calls
until the judge is done with it.
"""

import contextlib
import os
import signal
import socket
import sys
import time
import types
from typing import Any

from autograder.execution import sandbox
from autograder.execution.peer import Peer
from autograder.execution.pieces import Piece, Runner, statements
from autograder.execution.wire import Channel, GoneError, Message, PipeChannel

NAMESPACE = 0  # the handle of the dictionary of all names
PATIENCE = 0.2  # seconds for a child to end by itself


def run(channel: Channel) -> None:
    """Run a submission, then do what the judge asks for, until it is gone."""
    with contextlib.suppress(GoneError):
        channel.send({"hello": os.getpid()})
        order, _ = channel.receive()
        namespace = execute(order, channel)
        while True:
            order, _ = channel.receive()
            if "here" in order:
                serve(namespace, channel)
                return
            if "fork" in order:
                channel.send({"pid": fork(namespace, channel)})
            else:
                channel.send({"code": end(int(order["end"]))})


def execute(order: Message, channel: Channel) -> dict[str, Any]:
    """Run all pieces of the submission; say which one is being run.

    If one never ends, or ends this process, the judge knows which, and orders
    it to be left out from the next process.
    """
    module = types.ModuleType("submission")
    sys.modules["submission"] = module
    runner = Runner(module.__dict__, float(order["seconds"]))
    left_out = {int(n): why for n, why in order["left_out"]}
    for number, piece in enumerate(pieces(order["cells"])):
        if number in left_out:
            runner.fail(piece, left_out[number])
            continue
        channel.send({"running": number} | piece.place)
        runner.run(piece)
    runner.finish()
    end_others()
    channel.send(
        {
            "ready": runner.errors,
            "names": list(module.__dict__),
            "stopped": [piece.place for piece in runner.stopped],
        }
    )
    return module.__dict__


def pieces(cells: list[Message]) -> list[Piece]:
    """Cut all cells into statements."""
    return [
        piece
        for cell in cells
        for piece in statements(
            str(cell["label"]),
            str(cell["source"]),
            definitions_only=bool(cell["definitions_only"]),
        )
    ]


def fork(namespace: dict[str, Any], channel: Channel) -> int:
    """Start a child that serves the end of a connection that comes next."""
    _, ends, *_ = socket.recv_fds(channel.socket, 1, 1)
    end_others()
    child = os.fork()
    if child:
        os.close(ends[0])
        return child
    try:
        channel.close()
        serve(namespace, Channel(socket.socket(fileno=ends[0])))
    finally:
        os._exit(0)


def serve(namespace: dict[str, Any], channel: Channel) -> None:
    """Answer the judge's calls."""
    sandbox.lift_memory_limit()
    peer = Peer(channel)
    assert peer.handle(namespace) == NAMESPACE
    peer.serve()


def end(child: int) -> int:
    """End a child, and return how it has ended: negative for a signal."""
    until = time.monotonic() + PATIENCE
    try:
        done, status = os.waitpid(child, os.WNOHANG)
        while not done and time.monotonic() < until:
            time.sleep(0.005)
            done, status = os.waitpid(child, os.WNOHANG)
        if not done:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
    except OSError:
        return 0
    return os.waitstatus_to_exitcode(status)


def end_others() -> None:
    """End what earlier code has left running, and forget what has ended."""
    alone = os.getpid() == 1  # of a process namespace, with all that is in it
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        while True:
            if alone:
                os.kill(-1, signal.SIGKILL)
            if not os.waitpid(-1, 0 if alone else os.WNOHANG)[0]:
                return


def silence() -> None:
    """Let what a student's code prints go nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)


def main() -> None:
    """Serve over this process's input and output, where there is no fork."""
    import torch

    torch.set_num_threads(1)
    channel = PipeChannel(
        os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    )
    silence()
    if hasattr(os, "fork"):  # the limits, at least
        sandbox.restrict(sandbox.Limits())
    run(channel)


if __name__ == "__main__":
    main()
