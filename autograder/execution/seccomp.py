"""Refuse system calls that no exercise needs, by a seccomp filter.

Source: the kernel's documentation, userspace-api/seccomp_filter; the numbers
are those of the kernel's syscall tables.
"""

import contextlib
import ctypes
import errno
import os
import struct

from autograder.execution import kernel

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
FILTER_MODE = 2
# Instructions of the kernel's filter machine
LOAD, RETURN = 0x20, 0x06
JUMP_EQUAL, JUMP_GREATER, JUMP_ANY_BIT = 0x15, 0x35, 0x45
ALLOW, KILL, REFUSE = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCHITECTURE = 0, 4  # offsets in the description of a call
ARGUMENT, FLAGS_OF_MMAP = 16, 40  # its first argument, and its fourth
X32 = 0x40000000  # another way to number the calls of x86_64
NEW_NAMESPACES = 0x7E020000  # flags of clone
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
# name: number on x86_64, on aarch64
DENIED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "memfd_create": (319, 279),  # memory that no process seems to hold
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
}
# Without a process namespace other processes of the same user are in reach.
DENIED_AMONG_OTHERS = {
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "socket": (41, 198),
    "setpriority": (141, 140),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122),
    "ioprio_set": (251, 30),
}
MMAP = (9, 222)
MAP_SHARED, MAP_ANONYMOUS = 1, 32
SOCKET = (41, 198)
CLONE = (56, 220)
CLONE3 = (435, 435)
PRLIMIT = (302, 261)


def program(*, alone: bool) -> bytes:
    """Return the filter for this processor.

    Args:
        alone: whether the process is in namespaces of its own.
    """
    own = list(ARCHITECTURES).index(kernel.MACHINE)
    denied = DENIED if alone else DENIED | DENIED_AMONG_OTHERS
    lines = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, ARCHITECTURES[kernel.MACHINE]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
    ]
    if kernel.MACHINE == "x86_64":
        lines += [(JUMP_GREATER, 0, 1, X32), refuse(errno.ENOSYS)]
    for numbers in denied.values():
        lines += [(JUMP_EQUAL, 0, 1, numbers[own]), refuse(errno.EPERM)]
    # The flags of clone3 can't be read here; glibc then takes clone.
    lines += [(JUMP_EQUAL, 0, 1, CLONE3[own]), refuse(errno.ENOSYS)]
    lines += if_called(CLONE[own], [
        (JUMP_ANY_BIT, 0, 1, NEW_NAMESPACES),
        refuse(errno.EPERM),
    ])  # fmt: skip
    lines += if_called(PRLIMIT[own], [
        (JUMP_EQUAL, 1, 0, 0),  # its own limits alone
        refuse(errno.EPERM),
    ])  # fmt: skip
    lines += if_called(MMAP[own], [
        (JUMP_ANY_BIT, 0, 2, MAP_SHARED),
        (JUMP_ANY_BIT, 0, 1, MAP_ANONYMOUS),
        refuse(errno.EPERM),
    ], FLAGS_OF_MMAP)  # fmt: skip
    families = (AF_UNIX, AF_INET, AF_INET6, AF_NETLINK)
    lines += if_called(SOCKET[own], [
        *((JUMP_EQUAL, len(families) - n, 0, family)
          for n, family in enumerate(families)),
        refuse(errno.EAFNOSUPPORT),
    ])  # fmt: skip
    lines.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def if_called(
    number: int, body: list[tuple], argument: int = ARGUMENT
) -> list[tuple]:
    """Look at an argument of a call; allow what the body lets pass."""
    rest = [(LOAD, 0, 0, argument), *body, (RETURN, 0, 0, ALLOW)]
    return [(JUMP_EQUAL, 0, len(rest), number), *rest]


def refuse(error: int) -> tuple[int, int, int, int]:
    """Return the instruction that lets a call fail."""
    return (RETURN, 0, 0, REFUSE | error)


def restrict(*, alone: bool) -> None:
    """Set the filter for this process and all that it will start."""
    code = program(alone=alone)
    buffer = ctypes.create_string_buffer(code)

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    described = Program(len(code) // 8, ctypes.addressof(buffer))
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_SECCOMP, FILTER_MODE, ctypes.byref(described))


def works() -> bool:
    """Say whether a filter can be set, by setting it in a child."""
    if kernel.MACHINE not in ARCHITECTURES:
        return False
    child = os.fork()
    if child == 0:
        with contextlib.suppress(OSError):
            restrict(alone=False)
            os._exit(0)
        os._exit(1)
    return os.waitpid(child, 0)[1] == 0
