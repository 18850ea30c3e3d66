"""A private view of files, processes and network, by Linux namespaces.

An ordinary user makes them within a user namespace. Root doesn't need one to
make them, gives up all rights afterwards, and then makes one to have limits
counted apart.
"""

import contextlib
import ctypes
import os
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from autograder.execution import kernel
from autograder.execution.kernel import mount

if TYPE_CHECKING:
    from autograder.execution.sandbox import Limits, View

NEWNS, NEWUTS, NEWIPC = 0x20000, 0x4000000, 0x8000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
APART = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET
RDONLY, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8
BIND, REC, PRIVATE = 4096, 16384, 1 << 18
DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
DEVICES = ("null", "zero", "full", "random", "urandom")
CAPABILITY_VERSION = 0x20080522
LAST_CAPABILITY = 63


def separate() -> None:
    """Leave the namespaces of the machine; the next child is process 1."""
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        kernel.unshare(APART)
    else:
        kernel.unshare(APART | NEWUSER)
        map_user(user, group)
    mount(None, "/", flags=REC | PRIVATE)


def map_user(user: int, group: int) -> None:
    """Be the same user within the new user namespace."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def build_root(seen: "View", limits: "Limits") -> None:
    """Put together a file system of what may be seen, and move into it."""
    root = seen.scratch
    mount("tmpfs", str(root), "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    size = f"size={limits.disk},mode=1777,nr_inodes=4096"
    for name in ("tmp", "dev/shm"):
        (root / name).mkdir(parents=True)
        mount("tmpfs", str(root / name), "tmpfs", NOSUID | NODEV, size)
    for path in seen.readable:
        show(path, root)
    for path in seen.hidden:
        cover(path, root, seen)
    for name in DEVICES:
        (root / "dev" / name).touch()
        mount(f"/dev/{name}", str(root / "dev" / name), flags=BIND)
    (root / "proc").mkdir(exist_ok=True)
    with contextlib.suppress(OSError):  # some containers forbid it
        mount("proc", str(root / "proc"), "proc", NOSUID | NODEV | NOEXEC)
    set_read_only(root, recursive=False)
    os.chdir(root)
    kernel.syscall(kernel.PIVOT_ROOT[kernel.MACHINE], b".", b".")
    kernel.unmount(".", DETACH)
    os.chdir("/tmp")


def show(path: Path, root: Path) -> None:
    """Let a file or folder be seen where it is, read-only."""
    target = root / path.relative_to("/")
    if path.is_symlink():  # /lib is one, to /usr/lib
        if not target.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(os.readlink(path))
        return
    if target.exists():  # a folder above it is shown already
        return
    if path.is_dir():
        target.mkdir(parents=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(str(path), str(target), flags=BIND | REC)
    set_read_only(target, recursive=True)


def cover(path: Path, root: Path, seen: "View") -> None:
    """Hide a folder that lies in one that is shown, but for what is in it."""
    target = root / path.relative_to("/")
    mount("tmpfs", str(target), "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    for inside in seen.readable:
        if path in inside.parents:
            show(inside, root)
    set_read_only(target, recursive=False)


def set_read_only(target: Path, *, recursive: bool) -> None:
    """Let nothing be written below a mount point, nor run as another user."""
    attributes = struct.pack("QQQQ", RDONLY | NOSUID, 0, 0, 0)
    kernel.syscall(
        kernel.MOUNT_SETATTR,
        AT_FDCWD,
        str(target).encode(),
        AT_RECURSIVE if recursive else 0,
        attributes,
        ctypes.c_size_t(len(attributes)),
    )


def settle(seen: "View", limits: "Limits") -> None:
    """Finish as process 1: a root and /proc of its own, and no rights."""
    from autograder.execution.sandbox import NOBODY, become_nobody

    build_root(seen, limits)
    if os.geteuid() == 0:
        become_nobody()
        with contextlib.suppress(OSError):
            kernel.unshare(NEWUSER)
            map_user(NOBODY, NOBODY)
    drop_capabilities()


def drop_capabilities() -> None:
    """Give up what the user namespace has given."""
    for capability in range(LAST_CAPABILITY + 1):
        with contextlib.suppress(OSError):
            kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
    header = struct.pack("Ii", CAPABILITY_VERSION, 0)
    kernel.syscall(kernel.CAPSET[kernel.MACHINE], header, bytes(24))


def problem() -> str | None:
    """Say why this machine lets no namespaces be made, if it doesn't."""
    from autograder.execution.sandbox import ROOT, Limits, View

    if kernel.MACHINE not in kernel.PIVOT_ROOT:
        return f"it was not written for {kernel.MACHINE} processors"
    with TemporaryDirectory() as folder:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                separate()
                build_root(View.of(ROOT, Path(folder)), Limits())
            except OSError as error:
                os.write(writer, str(error).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read().decode()
        os.waitpid(child, 0)
    return f"the kernel refuses them ({said})" if said else None
