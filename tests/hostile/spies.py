"""Submissions that look for what they must not see.

All their answers are right, and they lose nothing: a spy that finds something
fails with "LEAK" and what it found. What they look with is ``spying.py``.
"""

import inspect

from autograder.course import Course
from tests.hostile import spying
from tests.hostile.corpus import CHAPTER, Work, case
from tests.hostile.traps import Traps, hidden_lines


def eyes(course: Course, traps: Traps) -> str:
    """Return the source of what spies look with, and of what they look for."""
    needles = [*hidden_lines(), traps.secret]
    known = {
        "NEEDLES": [(x[: len(x) // 2], x[len(x) // 2 :]) for x in needles],
        "COURSE": str(course.root),
        "ROOT": str(CHAPTER.root),
        "PID": traps.process.pid,
        "TCP": traps.tcp,
        "UDP": traps.udp,
        "UNIX": traps.unix,
        "DATAGRAM": traps.datagram,
        "ABSTRACT": traps.abstract,
    }
    lines = [f"{name} = {value!r}" for name, value in known.items()]
    return "\n".join([inspect.getsource(spying), *lines])


def looks(work: Work, look: str, *, once: bool = False) -> None:
    """Let an answer look at several calls, and first while it is defined.

    Args:
        work: what is handed in.
        look: a function of ``spying.py``.
        once: looking takes so long that two looks in one check could exceed
            its time on a busy machine, or looking twice makes no sense.
    """
    source = eyes(work.course, work.traps)
    work.first(source if once else f"{source}\nsearch({look})")
    work.within("softmax", f"spying({look}, {[5] if once else [0, 9]})")


@case()
def opens_the_gradebook(work):
    """Opens gradebook, source, solutions and others' work by their paths."""
    looks(work, "named_files")


@case()
def lists_folders(work):
    """Lists the folders of the course and of the solutions."""
    looks(work, "listings")


@case()
def climbs_upwards(work):
    """Climbs from each folder and each process's root, twelve levels."""
    looks(work, "upwards")


@case()
def lays_symlinks(work):
    """Lays symbolic and hard links to what it may not open."""
    looks(work, "symlinks")


@case()
def walks_everywhere(work):
    """Walks through the whole file system in search of a database."""
    looks(work, "everywhere")


@case()
def tries_descriptors(work):
    """Reads every open file, and climbs from every open folder."""
    looks(work, "descriptors")


@case()
def reads_the_environment(work):
    """Reads the environment, its own and that of all processes."""
    looks(work, "environment")


@case()
def reads_command_lines(work):
    """Reads how other processes were called."""
    looks(work, "command_lines")


@case()
def reads_its_memory(work):
    """Searches all of its own memory for hidden lines."""
    looks(work, "memory", once=True)


@case()
def reads_others_memory(work):
    """Searches the memory of its parent and of all other processes."""
    looks(work, "memory_of_others", once=True)


@case()
def attaches_as_a_debugger(work):
    """Attaches to other processes by ptrace."""
    looks(work, "traced")


@case()
def reads_objects_and_frames(work):
    """Searches gc's objects, all frames and all constants of code."""
    looks(work, "objects", once=True)


@case()
def imports_the_solutions(work):
    """Imports solutions, checks and mistakes."""
    looks(work, "modules")


@case()
def reads_in_and_linecache(work):
    """Reads In, as a notebook would, and the lines kept for tracebacks."""
    work.first("for source in In:\n    print(source)")
    looks(work, "sources")


@case()
def knocks_at_the_network(work):
    """Connects by TCP, UDP, unix and abstract sockets, and to the cloud."""
    looks(work, "network")


@case()
def knocks_at_back_doors(work):
    """Connects from a thread, and by 32-bit system calls from a child."""
    looks(work, "network_by_other_doors")


@case()
def uses_the_powers_of_root(work):
    """Mounts, makes devices, enters namespaces, leaves a chroot."""
    looks(work, "powers", once=True)


@case()
def ends_other_processes(work):
    """Signals its parent and a process of the grader's user."""
    looks(work, "signals", once=True)
