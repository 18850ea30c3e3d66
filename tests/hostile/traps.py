"""What a spy would find if it could: secrets, listeners, a living process.

The corpus is graded while the traps are set. A spy that reaches one fails
with "LEAK"; what listens notes by itself that somebody came.
"""

import os
import re
import secrets
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from autograder.chapters import ROOT

SECRET = "CONTEXT_WINDOWS_SECRET"  # an environment variable of the grader's
MARK = "hostile-was-here"  # in the name of what a submission leaves behind
HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS\n(.*?)### END HIDDEN", re.DOTALL)
SENTENCE = re.compile(r'"([^"\n{}]{50,})"')
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


def hidden_lines() -> list[str]:
    """Return lines that no student may see: of checks and of mistakes."""
    tests = ROOT.joinpath("tests", "test_attention.py").read_text("utf-8")
    mistakes = ROOT / "autograder" / "misconceptions" / "attention.py"
    regions = "\n".join(HIDDEN.findall(tests))
    lines = {line.strip() for line in regions.splitlines()}
    said = SENTENCE.findall(mistakes.read_text("utf-8"))
    return [*_longest(lines, 2), *_longest(said, 1)]


def _longest(lines: list[str] | set[str], n: int) -> list[str]:
    return sorted(filter(str.isascii, lines), key=len)[-n:]


@dataclass
class Traps:
    """Traps round one run of the grader, as a context manager."""

    folder: Path  # for sockets
    bystander: list[str]  # a command that lives on, as the grader's user
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    visitors: list[str] = field(default_factory=list)
    doors: list[socket.socket] = field(default_factory=list)

    def __enter__(self) -> "Traps":
        self.unix = str(self.folder / "unix.sock")
        self.datagram = str(self.folder / "datagram.sock")
        self.abstract = f"\0{secrets.token_hex(8)}"
        here = "127.0.0.1", 0
        self.tcp = self._listen(socket.AF_INET, here, STREAM)[1]
        self.udp = self._listen(socket.AF_INET, here, DATAGRAM)[1]
        self._listen(socket.AF_UNIX, self.unix, STREAM)
        self._listen(socket.AF_UNIX, self.abstract, STREAM)
        self._listen(socket.AF_UNIX, self.datagram, DATAGRAM)
        for path in (self.unix, self.datagram):
            Path(path).chmod(0o777)
        self.process = subprocess.Popen(self.bystander, env=self.environment)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for door in self.doors:
            door.close()

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables of the grader, with the secret in them."""
        return os.environ | {SECRET: self.secret}

    def sprung(self) -> list[str]:
        """Say which traps were reached."""
        ended = self.process.poll() is not None
        return self.visitors + ["somebody ended a process"] * ended

    def _listen(
        self,
        family: socket.AddressFamily,
        address: tuple[str, int] | str,
        kind: socket.SocketKind,
    ) -> tuple[str, int] | str:
        """Note everybody who comes, and return the address."""
        door = socket.socket(family, kind)
        door.bind(address)
        if kind == STREAM:
            door.listen()
        self.doors.append(door)
        where = door.getsockname()
        Thread(target=self._wait, args=[door, where], daemon=True).start()
        return where

    def _wait(self, door: socket.socket, where: object) -> None:
        while True:
            try:
                if door.type == STREAM:
                    door.accept()[0].close()
                else:
                    door.recv(100)
            except OSError:  # closed: the run is over
                return
            self.visitors.append(f"somebody came by {where}")


def left_behind() -> list[str]:
    """Return the processes that bear the mark of a submission."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = folder.joinpath("comm").read_text().strip()
            words = folder.joinpath("cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            continue
        if name.startswith(MARK[:15]) or MARK.encode() in words:
            found.append(f"{folder.name} {name} {words[:80]!r}")
    return found
