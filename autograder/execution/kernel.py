"""Linux system calls that Python has no function for."""

import ctypes
import os
import platform

MACHINE = platform.machine()
PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
# New calls have one number on all processors.
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
CAPSET = {"x86_64": 126, "aarch64": 91}
MOUNT_SETATTR = 442
LANDLOCK_CREATE_RULESET = 444
LANDLOCK_ADD_RULE = 445
LANDLOCK_RESTRICT_SELF = 446

_libc = ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: object) -> int:
    """Call the kernel.

    Raises:
        OSError: if it says no.
    """
    return checked(_libc.syscall(ctypes.c_long(number), *arguments))


def prctl(option: int, *arguments: object) -> int:
    """Change something about this process."""
    rest = [*arguments, *[0] * (4 - len(arguments))]
    longs = [ctypes.c_ulong(x) if isinstance(x, int) else x for x in rest]
    return checked(_libc.prctl(option, *longs))


def unshare(flags: int) -> None:
    """Give this process namespaces of its own."""
    checked(_libc.unshare(flags))


def mount(
    source: str | None,
    target: str,
    kind: str | None = None,
    flags: int = 0,
    options: str | None = None,
) -> None:
    """Mount a file system."""
    texts = [x.encode() if x else None for x in (source, target, kind)]
    data = options.encode() if options else None
    checked(_libc.mount(*texts, ctypes.c_ulong(flags), data))


def unmount(target: str, flags: int) -> None:
    """Take a file system away."""
    checked(_libc.umount2(target.encode(), flags))


def checked(result: int) -> int:
    """Turn the kernel's no into an exception."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
