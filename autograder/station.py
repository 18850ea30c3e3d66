"""A warmed judge: ``python -m autograder.station``, driven over its pipes.

It is two processes. Both have imported PyTorch, once, before they parted. One
is the nursery, from which students' processes are forked; it learns nothing
more. The other imports the checks. It takes one submission after the other and
judges each in a fork of its own: nothing that happens there stays.
"""

import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from autograder.chapters import ROOT, Chapter, Check, Exercise, find
from autograder.execution import sandbox
from autograder.execution.wire import (
    Channel,
    GoneError,
    Message,
    PipeChannel,
)

if TYPE_CHECKING:
    from autograder.outside import Submission

LONGEST = 3_600  # seconds; whatever happens, a trial ends
SLOW = "import torch._dynamo"  # 1.5 s, else spent in many a fork
MOST_MEMORY = 3 << 30  # bytes, for what comes back from a student's code


class Station:
    """The process that judges.

    Args:
        nursery: the way to the nursery; None where there is no fork.
    """

    def __init__(self, nursery: Channel | None) -> None:
        self.nursery = nursery
        self.level = sandbox.best_level()
        self.warmed: set[str] = set()

    def judge(self, order: Message) -> Message:
        """Judge one submission.

        Returns:
            ``exercises``, ``notes``, ``protection`` and ``seconds``; or
            ``refused``, why nothing may be judged on this machine; or
            ``broken``, why nothing can be.
        """
        from autograder.outside import BrokenError

        if problem := too_weak(self.level, order["floor"]):
            return {"refused": problem}
        chapter = find(order["chapter"])
        exercises = [
            Exercise(e["name"], [Check(**check) for check in e["checks"]])
            for e in order["exercises"]
        ]
        try:
            self._warm(chapter, exercises, order)
            start = time.perf_counter()
            found = self._apart(chapter, exercises, order["cells"])
        except BrokenError as error:
            return {"broken": str(error)}
        seconds = round(time.perf_counter() - start, 3)
        return found | {"protection": self.level, "seconds": seconds}

    def _warm(
        self, chapter: Chapter, exercises: list[Exercise], order: Message
    ) -> None:
        """Import and compute now, once, what each fork would do anew."""
        if not order["right"] or chapter.name in self.warmed:
            return
        from autograder import trial
        from autograder.diagnosis import known_outcomes, right_outcomes

        cells = [*order["right"], cell("imports", trial.IMPORTED)]
        modules = trial.rehearse(chapter, exercises, self._submission(cells))
        if self.nursery:
            wanted = [f"import {name}" for name in sorted(modules)]
            self.nursery.send({"warm": [SLOW, *order["imports"], *wanted]})
        for exercise in exercises:
            known_outcomes(chapter, exercise.name)
            right_outcomes(chapter, exercise.name)
        self.warmed.add(chapter.name)

    def _submission(self, cells: list[Message]) -> "Submission":
        from autograder.outside import ForkedSubmission, SpawnedSubmission

        if self.nursery:
            return ForkedSubmission(cells, self.nursery, self.level)
        return SpawnedSubmission(cells)

    def _apart(
        self,
        chapter: Chapter,
        exercises: list[Exercise],
        cells: list[Message],
    ) -> Message:
        """Judge in a fork, or here where there is none."""
        from autograder.outside import BrokenError
        from autograder.trial import judge

        submission = self._submission(cells)
        if self.nursery is None:
            return judge(chapter, exercises, submission)
        reader, writer = os.pipe()
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            try:
                die_with(parent)
                limit_memory()
                try:
                    found = judge(chapter, exercises, submission)
                except Exception as error:  # a fault of ours, not a student's
                    found = {"broken": f"{type(error).__name__}: {error}"}
                PipeChannel(None, os.fdopen(writer, "wb")).send(found)
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            if not select.select([pipe], [], [], LONGEST)[0]:
                os.kill(child, signal.SIGKILL)
            try:
                found, _ = PipeChannel(pipe, None).receive()
            except GoneError:
                found = {"broken": "the judge's process has ended"}
        os.waitpid(child, 0)
        if "broken" in found:
            raise BrokenError(found["broken"])
        return found


def cell(label: str, source: str) -> Message:
    """Return a cell as a submission's host takes it."""
    return {"label": label, "source": source, "definitions_only": False}


def too_weak(level: str, floor: str) -> str | None:
    """Say why this machine may not judge, if it may not."""
    if sandbox.LEVELS.index(level) >= sandbox.LEVELS.index(floor):
        return None
    return (
        f"this machine shuts students' code in by {level!r} alone, and "
        f"{floor!r} is asked for; see 'python -m autograder doctor', or grade "
        "with --unsafe what you trust"
    )


def limit_memory() -> None:
    """Let a trial fail, rather than the machine."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def die_with(parent: int) -> None:
    """End when the process that asks ends, even if it is killed."""
    if sys.platform != "linux":
        return  # there the end of the pipe must do
    from autograder.execution.kernel import PR_SET_PDEATHSIG, prctl

    prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it was killed before
        os._exit(1)


def main() -> None:
    """Import PyTorch, and part.

    When the process that asks is gone, the pipe ends, and so does this.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the grader
    import torch

    torch.set_num_threads(1)
    channel = PipeChannel(
        os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    )
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    if sys.platform != "linux":  # forks are not safe, or not there
        serve(channel, None)
        return
    here, there = map(Channel, socket.socketpair())
    parent = os.getpid()
    if os.fork() == 0:
        die_with(parent)
        here.close()
        serve(channel, there)
        os._exit(0)
    from autograder.execution import nursery

    channel.close()
    there.close()
    nursery.main(here, ROOT)


def serve(channel: PipeChannel, nursery: Channel | None) -> None:
    """Judge what comes in, until nothing comes any more."""
    station = Station(nursery)
    try:
        while True:
            order, _ = channel.receive()
            channel.send(station.judge(order))
    except GoneError:
        return


if __name__ == "__main__":
    main()
