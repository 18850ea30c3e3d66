"""Shut a submission in: the strongest protection that this machine has.

- ``namespaces``: a private view of the files, of processes and of the
  network, for an unprivileged user; plus all of the following.
- ``landlock``: files by Landlock, system calls by seccomp, and limits.
- ``rlimits``: limits on memory, time, processes and files alone.
- ``none``: nothing (Windows).
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LEVELS = ("none", "rlimits", "landlock", "namespaces")  # weakest first
FLOOR = "landlock"
MiB = 1 << 20
NOBODY = 65_534
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Limits:
    """What one submission may use up."""

    memory: int = 3_072 * MiB  # of one process, and of all, beyond PyTorch
    seconds: int = 60  # of processor time, each process
    processes: int = 48  # with their threads
    file: int = 32 * MiB
    disk: int = 64 * MiB  # all files together, where there are namespaces
    open_files: int = 128


@dataclass(frozen=True)
class View:
    """Which files a submission sees.

    Attributes:
        readable: what it may read: Python, its libraries and contextlab.
        hidden: what it may never read, though it lie in a readable folder.
        scratch: an empty folder to make mount points and files in.
    """

    readable: tuple[Path, ...]
    hidden: tuple[Path, ...]
    scratch: Path

    @classmethod
    def of(cls, root: Path, scratch: Path) -> "View":
        """Return the view of the course in ``root``."""
        system = map(Path, ("/usr", "/lib", "/lib32", "/lib64", "/bin"))
        python = map(Path, (sys.prefix, sys.base_prefix, sys.exec_prefix))
        loader = map(Path, ("/etc/ld.so.cache", "/etc/ld.so.conf"))
        found = [*system, *python, *loader, root / "contextlab"]
        readable = tuple(dict.fromkeys(p for p in found if p.exists()))
        is_shown = any(path in root.parents for path in readable)
        return cls(readable, (root,) if is_shown else (), scratch)


def enclose(
    level: str,
    seen: View,
    limits: Limits,
    task: Callable[[], None],
    wait: Callable[[int], None],
) -> None:
    """Run a task in a process of its own, shut in; return when it ends.

    All that the task has started ends with it. The caller is a fork of the
    warmed process, has one thread and no other children.

    Args:
        level: one of ``LEVELS``.
        seen: the files that the task may see.
        limits: what it may use up.
        task: what to run.
        wait: waits for the end of the process that it is given.
    """
    if level in ("landlock", "namespaces"):  # for Linux alone
        from autograder.execution import landlock, namespaces, seccomp
    if level == "namespaces":
        namespaces.separate()
    elif level == "landlock":
        adopt_orphans()
    settled, settling = os.pipe()
    child = os.fork()
    if child:
        os.close(settling)
        os.read(settled, 1)  # until the child has its own view, or is gone
        os.close(settled)
        wait(child)
        end_children()
        return
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        offer_to_the_oom_killer()
        others = 0
        if level == "namespaces":
            namespaces.settle(seen, limits)
        else:
            others = tasks_of_this_user()
        os.close(settling)
        os.close(settled)
        if level in ("rlimits", "landlock") and os.geteuid() == 0:
            become_nobody()
        restrict(limits, others)
        if level == "landlock":
            landlock.restrict(seen)
        if level in ("landlock", "namespaces"):
            seccomp.restrict(alone=level == "namespaces")
        task()
    finally:
        os._exit(1)


def offer_to_the_oom_killer() -> None:
    """Be the first to go if the machine runs out of memory."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def tasks_of_this_user() -> int:
    """Count the user's threads: the system counts them against the limit."""
    count = 0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid == os.geteuid():
                count += len(os.listdir(path / "task"))
    return count


def become_nobody() -> None:
    """Give up the rights of root."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def adopt_orphans() -> None:
    """Become the parent of what a submission's processes leave behind."""
    from autograder.execution.kernel import PR_SET_CHILD_SUBREAPER, prctl

    prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_children() -> None:
    """Kill all children, and their children as they are adopted."""
    while True:
        for pid in children():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def children() -> list[int]:
    """Return this process's children, where the system tells."""
    try:
        path = Path(f"/proc/self/task/{os.getpid()}/children")
        return [int(pid) for pid in path.read_text().split()]
    except (OSError, ValueError):
        return []


def is_open_to_all(folder: Path) -> bool:
    """Say whether any user may look into a folder."""
    folders = (folder, *folder.parents)
    return all(path.stat().st_mode & 0o001 for path in folders)


def restrict(limits: Limits, others: int = 0) -> None:
    """Set the limits of this process and of all that it will start.

    Args:
        limits: what it may use up.
        others: how many threads count against the limit that are not its own.
    """
    import resource

    mapped = 0
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        mapped = pages * resource.getpagesize()
    wanted = {
        "RLIMIT_AS": mapped + limits.memory,
        "RLIMIT_CPU": limits.seconds,
        "RLIMIT_NPROC": others + limits.processes,
        "RLIMIT_FSIZE": limits.file,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_CORE": 0,
    }
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error is enough
    for name, value in wanted.items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        soft = value
        if kind == resource.RLIMIT_AS:  # what is defined leaves some to use
            soft = min(value, mapped + limits.memory * 2 // 3)
        with contextlib.suppress(OSError, ValueError):  # macOS knows some
            resource.setrlimit(kind, (soft, value))


def lift_memory_limit() -> None:
    """Let an exercise have more than the code that defines it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


@cache
def best_level() -> str:
    """Return the strongest level that works here, by trying.

    The environment variable ``AUTOGRADER_PROTECTION`` names a weaker one.
    """
    wanted = os.environ.get("AUTOGRADER_PROTECTION", LEVELS[-1])
    for level in reversed(LEVELS[: LEVELS.index(wanted) + 1]):
        if problem(level) is None:
            return level
    return LEVELS[0]


@cache
def problem(level: str) -> str | None:
    """Say why a level can't be had on this machine, if it can't."""
    if level == "none":
        return None
    if not hasattr(os, "fork") or sys.platform == "win32":
        return "this system has no fork"
    if level != "namespaces" and os.geteuid() == 0:
        for folder in map(Path, (sys.base_prefix, sys.prefix, ROOT)):
            if not is_open_to_all(folder):
                return (
                    f"root judges as another user, who may not look into "
                    f"{folder}: install Python and the course elsewhere"
                )
    if level == "rlimits":
        return None
    if sys.platform != "linux":
        return "it needs Linux"
    from autograder.execution import landlock, namespaces, seccomp

    if not seccomp.works():
        return "this kernel or processor gives no seccomp filters"
    if level == "landlock" and not landlock.version():
        return "this kernel has no Landlock, or it is switched off"
    if level == "namespaces":
        return namespaces.problem()
    return None
