"""Restrict files, TCP and signals by Landlock: no rights are needed for it.

Source: the kernel's documentation, userspace-api/landlock.
"""

import ctypes
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from autograder.execution import kernel

if TYPE_CHECKING:
    from autograder.execution.sandbox import View

VERSION_FLAG = 1
PATH_BENEATH = 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
READ = EXECUTE | READ_FILE | READ_DIR
DEVICE = READ_FILE | WRITE_FILE
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
# The number of rights on files that each version knows, from version 1.
FILE_RIGHTS = (13, 14, 15, 15, 16)
TCP_BIND_CONNECT = 3  # from version 4
ABSTRACT_SOCKETS_AND_SIGNALS = 3  # from version 6


def version() -> int:
    """Return the version of Landlock that the kernel has, 0 if none."""
    try:
        return kernel.syscall(
            kernel.LANDLOCK_CREATE_RULESET,
            None,
            ctypes.c_size_t(0),
            ctypes.c_uint32(VERSION_FLAG),
        )
    except OSError:
        return 0


def restrict(seen: "View") -> None:
    """Let this process read what may be seen and write its own folder."""
    found = version()
    everything = (1 << FILE_RIGHTS[min(found, len(FILE_RIGHTS)) - 1]) - 1
    network = TCP_BIND_CONNECT if found >= 4 else 0
    scope = ABSTRACT_SOCKETS_AND_SIGNALS if found >= 6 else 0
    size = 24 if found >= 6 else 16 if found >= 4 else 8
    attributes = struct.pack("QQQ", everything, network, scope)[:size]
    ruleset = kernel.syscall(
        kernel.LANDLOCK_CREATE_RULESET,
        attributes,
        ctypes.c_size_t(size),
        ctypes.c_uint32(0),
    )
    for path in seen.readable:
        files = READ if path.is_dir() else READ & ~READ_DIR
        allow(ruleset, path, files)
    for name in DEVICES:
        allow(ruleset, Path(name), DEVICE)
    allow(ruleset, seen.scratch, everything)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.syscall(kernel.LANDLOCK_RESTRICT_SELF, ruleset, ctypes.c_uint32(0))
    os.close(ruleset)
    os.chdir(seen.scratch)


def allow(ruleset: int, path: Path, rights: int) -> None:
    """Allow something below a path."""
    opened = os.open(path, os.O_PATH)
    rule = struct.pack("=Qi", rights, opened)
    kernel.syscall(
        kernel.LANDLOCK_ADD_RULE,
        ruleset,
        PATH_BENEATH,
        rule,
        ctypes.c_uint32(0),
    )
    os.close(opened)
