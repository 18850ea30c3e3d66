"""Judge a submission from outside: the trusted end of the conversation.

Here are the checks, the reference and the verdict. The student's code is in
another process and only ever sees the arguments of its calls.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from torch import nn

from autograder.chapters import ROOT
from autograder.execution.errors import printable
from autograder.execution.host import NAMESPACE
from autograder.execution.launch import environment
from autograder.execution.peer import Peer
from autograder.execution.proxies import SPECIAL
from autograder.execution.wire import (
    Channel,
    DeadlineError,
    GoneError,
    Message,
    PipeChannel,
    WireError,
    well_formed,
)

# On a slow machine, AUTOGRADER_PATIENCE=2 doubles all of these seconds.
PATIENCE = float(os.environ.get("AUTOGRADER_PATIENCE", "1"))
PIECE_SECONDS = 5 * PATIENCE  # one statement outside the checks
PIECES_SECONDS = 30 * PATIENCE  # all of them
CHECK_SECONDS = 10 * PATIENCE
START_SECONDS = 30  # for a new process to begin
END_SECONDS = 3  # for one to end
MOST_NOTES = 10
MOST_FAILURES = 6  # to run the code, each without what has ended it before


class BrokenError(Exception):
    """The machinery itself does not work: nobody is to be given a 0 for it."""


READABLE = {
    "__call__",
    "__len__",
    "__bool__",
    "__getitem__",
    "__contains__",
    "__iter__",
    "__next__",
}
# Whose objects a student's code may read, where a check passes them on.
OURS = ("solutions", "contextlab", "tests")


class TrustedPeer(Peer):
    """The side that has secrets: it lends functions to be called, no more.

    Of an object that is lent, the public names are readable that the
    course's own classes define; of modules, those of the reference.
    """

    obeys = False

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self._broken: BaseException | None = None

    def names(self, name: str) -> Any:
        """Return what the student's code has defined under a name."""
        return self.call(NAMESPACE, "__getitem__", name)

    def define(self, name: str, value: Any) -> None:
        """Put something under a name of the student's code."""
        self.call(NAMESPACE, "__setitem__", name, value)

    def exchange(self, message: Message, blobs: list) -> tuple[Message, list]:
        """Ask, and raise what one of our own functions has raised."""
        answer = super().exchange(message, blobs)
        if self._broken:
            raise self._broken
        return answer

    def _do(
        self, do: str, target: Any, name: str, args: list, kwargs: dict
    ) -> Any:
        if do == "get" and may_read(target, name):
            return getattr(target, name)
        if do == "call" and name in READABLE:
            return SPECIAL[name](target, *args, **kwargs)
        raise AttributeError(f"{name} can't be had from here")

    def may_change(self, module: nn.Module) -> bool:
        """Let a student's code train what it has made itself."""
        return self.shows(module)

    def shows(self, module: nn.Module) -> bool:
        """Show what the reference's modules consist of, and no others."""
        return type(module).__module__.startswith("solutions.")

    def describe_error(self, error: BaseException) -> Message:
        """Keep the words of an assertion, which may hold what is expected."""
        if isinstance(error, AssertionError):
            self._broken = error
            error = AssertionError()
        return super().describe_error(error)


def may_read(target: Any, name: str) -> bool:
    """Say whether a student's code may read an attribute."""
    classes = type(target).__mro__
    own = [c for c in classes if c.__module__.partition(".")[0] in OURS]
    known = name in getattr(target, "__dict__", {})
    known = known or any(name in vars(c) for c in own)
    return bool(own) and known and not name.startswith("_")


class Submission:
    """A submission's processes, from the first to the last.

    Attributes:
        errors: why a name could not be defined, by the name.
        names: the names that are defined.
        notes: sentences about what went wrong outside the exercises.
    """

    def __init__(self, cells: list[Message]) -> None:
        self.cells = cells
        self.errors: dict[str, str] = {}
        self.names: set[str] = set()
        self.notes: list[str] = []
        self.left_out: dict[int, str] = {}
        self.channel: Channel | None = None

    def start(self) -> None:
        """Run the submission's code, without what ends or holds it up.

        Raises:
            GoneError: if too much of it does.
            BrokenError: if no process can be had.
        """
        while True:
            self.channel = self.launch()
            self._wait_for_hello()
            try:
                self._execute()
                return
            except DeadlineError:
                why = f"ran for more than {PIECE_SECONDS:g} seconds"
            except WireError:
                why = "ended the process that it ran in"
            self.stop()
            self._leave_out(why)

    def _leave_out(self, why: str) -> None:
        """Note which piece is not to be run the next time."""
        if not self.running:
            raise GoneError("the code can't even be read")
        number = self.running["number"]
        if len(self.left_out) >= MOST_FAILURES or number in self.left_out:
            raise GoneError("the code ends every process that runs it")
        self.left_out[number] = f"it {why}"
        self._note(self.running, why)

    def _wait_for_hello(self) -> None:
        self.channel.deadline = time.monotonic() + START_SECONDS
        try:
            message, _ = self.channel.receive()
        except (WireError, DeadlineError) as error:
            raise BrokenError(f"no process could be made ({error})") from None
        if "hello" not in message:
            raise BrokenError(f"no process could be made ({message})")

    def _execute(self) -> None:
        """Follow the pieces as they run."""
        channel = self.channel
        self.running: Message = {}
        channel.deadline = time.monotonic() + START_SECONDS
        order = {
            "cells": self.cells,
            "seconds": PIECE_SECONDS,
            "left_out": list(self.left_out.items()),
        }
        channel.send(order)
        end = time.monotonic() + PIECES_SECONDS + START_SECONDS
        while True:
            message, _ = channel.receive()
            with well_formed():
                if "ready" in message:
                    self._take_names(message)
                    return
                number, at = int(message["running"]), str(message["at"])
                line = str(message["line"])
                self.running = {"number": number, "at": at, "line": line}
            # The process stops its own pieces; this is for those that resist.
            soon = time.monotonic() + PIECE_SECONDS * 1.2 + 0.5
            channel.deadline = min(soon, end)

    def _take_names(self, message: Message) -> None:
        errors = dict(message["ready"]).items()
        self.errors = {str(name): printable(why) for name, why in errors}
        self.names = {str(name) for name in message["names"]}
        for place in message["stopped"][:MOST_NOTES]:
            self._note(place, f"ran for more than {PIECE_SECONDS:g} seconds")

    def _note(self, place: Message, why: str) -> None:
        at, line = (printable(place.get(key)) for key in ("at", "line"))
        self.notes.append(f"{at}: `{line}` {why}, and was left out.")

    def launch(self) -> Channel:
        """Start a process that waits for the submission's code."""
        raise NotImplementedError

    def exercise(self) -> TrustedPeer:
        """Return a connection to a process for one exercise."""
        raise NotImplementedError

    def finish(self) -> str:
        """End the exercise's process; say how it had ended, if it had."""
        raise NotImplementedError

    def stop(self) -> None:
        """End all processes of the submission."""
        raise NotImplementedError


class ForkedSubmission(Submission):
    """A submission that is forked from the nursery, and forks each exercise.

    Args:
        cells: what to run.
        nursery: the connection to the warmed process.
        level: the protection.
    """

    def __init__(
        self, cells: list[Message], nursery: Channel, level: str
    ) -> None:
        super().__init__(cells)
        self.nursery = nursery
        self.level = level

    def launch(self) -> Channel:
        """Have a process forked; its life hangs on a second connection."""
        here, there = socket.socketpair()
        self.lifeline, far_end = socket.socketpair()
        ends = [there.fileno(), far_end.fileno()]
        try:
            self.nursery.send({"level": self.level})
            socket.send_fds(self.nursery.socket, [b"2"], ends)
        except (WireError, OSError):
            raise BrokenError("the warmed process is gone") from None
        there.close()
        far_end.close()
        return Channel(here)

    def exercise(self) -> TrustedPeer:
        """Fork the process that has run the code, or start it again."""
        for _ in range(2):
            if self.channel is None:
                self.start()
            with suppress(WireError, DeadlineError):
                return self._fork()
            self.stop()
        raise GoneError("the code ends every process that judges it")

    def _fork(self) -> TrustedPeer:
        here, there = socket.socketpair()
        self.channel.deadline = time.monotonic() + START_SECONDS
        self.channel.send({"fork": True})
        socket.send_fds(self.channel.socket, [b"1"], [there.fileno()])
        there.close()
        answer, _ = self.channel.receive()
        with well_formed():
            self.child = int(answer["pid"])
        return TrustedPeer(Channel(here))

    def finish(self) -> str:
        """End the exercise's process; say how it had ended, if it had."""
        try:
            self.channel.deadline = time.monotonic() + END_SECONDS
            self.channel.send({"end": self.child})
            answer, _ = self.channel.receive()
            with well_formed():
                code = int(answer["code"])
        except (AttributeError, WireError, DeadlineError):
            how = self._how_it_ended()
            self.stop()
            return how
        if code < 0:
            with suppress(ValueError):
                return f"ended by {signal.Signals(-code).name}"
        return f"exit status {code}"

    def _how_it_ended(self) -> str:
        """Ask the lifeline, on which nothing else is ever said."""
        with suppress(OSError):
            self.lifeline.settimeout(END_SECONDS / 10)
            if self.lifeline.recv(1):
                return "it took more memory than there is for it"
        return "all of its processes are gone"

    def stop(self) -> None:
        """Cut the lifeline."""
        if self.channel:
            self.channel.close()
            self.lifeline.close()
        self.channel = None


class SpawnedSubmission(Submission):
    """A submission on a system without fork: a new process each exercise."""

    process: subprocess.Popen | None = None

    def launch(self) -> Channel:
        """Start Python anew."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "autograder.execution.host"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
            cwd=ROOT,
        )
        channel = PipeChannel(self.process.stdout, self.process.stdin)
        threading.Thread(
            target=end_at_deadline, args=(self.process, channel), daemon=True
        ).start()
        return channel

    def exercise(self) -> TrustedPeer:
        """Run the code in a process of its own, for one exercise."""
        if self.channel is None:
            self.start()
        channel, self.channel = self.channel, None
        channel.send({"here": True})
        return TrustedPeer(channel)

    def finish(self) -> str:
        """End the exercise's process; say how it had ended, if it had."""
        code = self.process.poll()
        self.stop()
        return "it was ended" if code is None else f"exit status {code}"

    def stop(self) -> None:
        """End the process, if there is one."""
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = self.channel = None


def end_at_deadline(process: subprocess.Popen, channel: PipeChannel) -> None:
    """Kill a process whose channel is waited for beyond its deadline."""
    while process.poll() is None:
        late = channel.deadline and time.monotonic() > channel.deadline
        if late:
            process.kill()
        time.sleep(0.05)
