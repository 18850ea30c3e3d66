"""Say what this machine can do, and what to do where it falls short."""

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from autograder.chapters import ROOT, Chapter, chapters
from autograder.engine import FLOOR, Station
from autograder.errors import CourseError
from autograder.execution import sandbox

SECRET = "AUTOGRADER_DOCTOR"  # an environment variable of the grader's
REMEDIES = {
    "namespaces": (
        "on Ubuntu 24.04 or later: sudo sysctl "
        "kernel.apparmor_restrict_unprivileged_userns=0; in a container: "
        "start it with --security-opt seccomp=unconfined"
    ),
    "landlock": "use Linux 5.13 or later, with Landlock among its LSMs",
    "rlimits": "grade on Linux, if need be in a virtual machine",
}
# What a submission tries. It returns what it could do.
PROBE = """
def probe(paths, port, name, pids):
    import os, socket
    done = []

    def attempt(what, action):
        try:
            if action():
                done.append(what)
        except Exception:
            pass

    for path in paths:
        attempt("reads " + path, lambda: open(path, "rb").read(1))
    attempt("appends to " + paths[-1], lambda: open(paths[-1], "a"))
    attempt("opens TCP connections",
            lambda: socket.create_connection(("127.0.0.1", port), 1))
    def send():
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        return udp.sendto(b"x", ("127.0.0.1", port))
    attempt("sends UDP packets", send)
    attempt("reads the grader's environment", lambda: name in os.environ)
    for pid in pids:
        attempt("signals other processes", lambda: os.kill(pid, 0) is None)
    return sorted(set(done))
"""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        what: what was looked at.
        well: whether it is as it should be; None if it is optional.
        says: what was found.
        remedy: what to do, if there is something.
    """

    what: str
    well: bool | None
    says: str
    remedy: str = ""


def examine(judged: list[Chapter]) -> Iterator[Finding]:
    """Look at everything in turn, and judge some chapters' references."""
    yield python()
    yield from protection()
    yield escapes()
    yield from references(judged)
    yield from options()


def python() -> Finding:
    """Look at the interpreter."""
    version = sys.version.partition(" ")[0]
    well = (3, 11) <= sys.version_info[:2] < (3, 14)
    return Finding("Python", well, version, "" if well else "use 3.11 to 3.13")


def protection() -> Iterator[Finding]:
    """Say how students' code is shut in, and why not better."""
    level = sandbox.best_level()
    enough = sandbox.LEVELS.index(level) >= sandbox.LEVELS.index(FLOOR)
    says = f"students' code is shut in by: {level}"
    yield Finding("Protection", enough, says)
    for stronger in sandbox.LEVELS[sandbox.LEVELS.index(level) + 1 :]:
        what, problem = f"… by {stronger}", sandbox.problem(stronger)
        if problem:
            yield Finding(what, None, f"no: {problem}", REMEDIES[stronger])
        else:
            yield Finding(what, None, "not by AUTOGRADER_PROTECTION's wish")


def escapes() -> Finding:
    """Let a submission try what it must not be able to do."""
    from autograder import outside
    from autograder.execution.launch import start_nursery
    from autograder.station import cell

    level = sandbox.best_level()
    if level == "none":
        return Finding("A submission", False, "can do what you can do")
    os.environ[SECRET] = "1"
    process, nursery = start_nursery()
    submission = outside.ForkedSubmission(
        [cell("probe", PROBE)], nursery, level
    )
    try:
        with listener() as port, tempfile.NamedTemporaryFile() as gradebook:
            gradebook.write(b"x")
            gradebook.flush()
            submission.start()
            answers = str(ROOT / "solutions" / f"{chapters()[0].name}.py")
            done = submission.exercise().names("probe")(
                [gradebook.name, answers], port, SECRET, [os.getpid()]
            )
    finally:
        submission.stop()
        nursery.close()
        process.kill()
        process.wait()
        del os.environ[SECRET]
    if done:
        return Finding("A submission", False, "; ".join(map(str, done)))
    says = "has no files but its own, no network, no other process"
    return Finding("A submission", True, says)


@contextmanager
def listener() -> Iterator[int]:
    """Listen on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        threading.Thread(target=_accept, args=[server], daemon=True).start()
        yield server.getsockname()[1]


def _accept(server: socket.socket) -> None:
    with suppress(OSError):
        server.accept()[0].close()


def references(judged: list[Chapter]) -> Iterator[Finding]:
    """See whether the reference answers pass, judged as a student's are."""
    from autograder.submissions import read

    with Station(floor=sandbox.LEVELS[0]) as station:
        for chapter in judged:
            what = f"Chapter {chapter.name}"
            answers = chapter.root / "solutions" / f"{chapter.name}.py"
            start = time.perf_counter()
            try:
                cells = read(chapter, Path(answers)).cells
                judged = station.judge(chapter.name, cells)
            except CourseError as error:
                yield Finding(what, False, str(error))
                continue
            first = time.perf_counter() - start
            points, of = judged["points"], judged["max_points"]
            says = (
                f"the reference gets {points} of {of} points, in "
                f"{judged['seconds']:.2f} s after {first:.1f} s to warm up"
            )
            yield Finding(what, points == of, says)


def options() -> Iterator[Finding]:
    """Look for what is needed by some alone."""
    for package, use in {
        "distributed": "grading on several machines (--cluster)",
        "psycopg": "a gradebook in PostgreSQL",
    }.items():
        found = find_spec(package) is not None
        says = f"{use}: {'installed' if found else 'not installed'}"
        remedy = "" if found else f"pip install {package}"
        yield Finding("Optional", None, says, remedy)
