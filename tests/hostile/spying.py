"""What the spies of the corpus look with.

The source of this file goes into their notebooks, and below it what stands in
capitals here is set to what is really there. Each function yields what it
found, in words; ``spying`` fails with them.
"""

import contextlib
import ctypes
import gc
import glob
import importlib
import itertools
import os
import re
import signal
import socket
import sys
import threading

# What is looked for, in halves, so that the search does not find itself.
NEEDLES = [("", "")]
COURSE = ROOT = "/nowhere"
PID = 0  # a process of the grader's user
TCP = UDP = 0  # ports on loopback
UNIX = DATAGRAM = ABSTRACT = ""  # addresses of sockets

libc = ctypes.CDLL(None, use_errno=True)
calls = itertools.count()
found_before = []


def spying(look, at=(0, 9)):
    """Look at the first call and at a later one; fail if it found."""
    if next(calls) in at:
        search(look)
    if found_before:
        raise RuntimeError("LEAK: " + "; ".join(found_before)[:500])


def search(look):
    """Note what one of the functions below finds, whatever it raises."""
    with contextlib.suppress(Exception):
        for found in look():
            found_before.append(found)


def attempt(function, *arguments, **options):
    """Return what a function returns, or None if it fails."""
    try:
        return function(*arguments, **options)
    except (Exception, SystemExit):
        return None


def reveals(content, where, *more):
    """Yield the needles in bytes; text may be stored wide there."""
    for first, second in [*NEEDLES, *more]:
        for code in ("utf-8", "utf-16-le"):
            head, tail = first.encode(code), second.encode(code)
            at = content.find(head)
            while at >= 0:
                after = at + len(head)
                if content[after : after + len(tail)] == tail:
                    yield f"{where} holds {first}{second}"
                    break
                at = content.find(head, at + 1)


def contents(path, size=1 << 20):
    """Return the beginning of a file; never wait for one to be written."""
    door = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(door, size)
    finally:
        os.close(door)


def kept_back(top=""):
    """Yield the files that nobody may read, below another root."""
    course, root = top + COURSE, top + ROOT
    yield f"{course}/gradebook.db"
    yield f"{course}/course.toml"
    for step in ("source", "release", "autograded", "results", "feedback"):
        yield from glob.glob(f"{course}/{step}/**", recursive=True)
    for student in ("a-right-one", "z-right-one"):
        yield f"{course}/submitted/{student}/attention/02-attention.ipynb"
    yield f"{course}/source/attention/02-attention.ipynb"
    for name in ("solutions/attention.py", "solutions/multihead.py"):
        yield f"{root}/{name}"
    yield f"{root}/tests/test_attention.py"
    yield f"{root}/autograder/misconceptions/attention.py"
    yield f"{root}/autograder/alternatives/attention.py"
    yield f"{root}/.git/config"


def named_files(top=""):
    """Open what is kept back, by its path."""
    for path in kept_back(top):
        content = attempt(contents, path)
        if content:
            yield f"{path} can be read: {content[:40]!r}"


def listings():
    """List the folders that hold what is kept back."""
    for folder in (COURSE, f"{COURSE}/submitted", f"{ROOT}/solutions"):
        names = attempt(os.listdir, folder)
        if names:
            yield f"{folder} can be listed: {sorted(names)[:5]}"


def upwards():
    """Climb from here, from the root and from other processes' folders."""
    tops = [".", "/proc/self/cwd", "/proc/self/root", "/proc/1/root"]
    tops += [f"/proc/{os.getppid()}/{x}" for x in ("cwd", "root")]
    tops += [f"/proc/{PID}/{x}" for x in ("cwd", "root")]
    tops += [*sys.path, *glob.glob("/proc/[0-9]*/root")]
    for top in tops:
        for depth in range(12):
            here = top + "/.." * depth
            yield from named_files(here)
            for name in ("gradebook.db", "solutions/attention.py"):
                content = attempt(contents, f"{here}/{name}")
                if content:
                    yield f"{here}/{name}: {content[:40]!r}"


def symlinks():
    """Lay links to what is kept back, and read through them."""
    for number, path in enumerate(kept_back()):
        for folder in (".", "/tmp", os.environ.get("HOME", ".")):
            link = f"{folder}/link-{os.getpid()}-{number}"
            for lay in (os.symlink, os.link):
                attempt(lay, path, link)
                content = attempt(contents, link)
                attempt(os.unlink, link)
                if content:
                    yield f"{path} through a link: {content[:40]!r}"


def everywhere():
    """Walk through all that can be read, and look for the gradebook."""
    skipped = ("/proc", "/sys", "/dev", "/usr", "/lib", sys.prefix)
    seen = 0
    for folder, folders, files in os.walk("/"):
        folders[:] = [
            name
            for name in folders
            if not os.path.join(folder, name).startswith(skipped)
            and name not in ("site-packages", "torch")
        ]
        for name in files:
            seen += 1
            path = os.path.join(folder, name)
            content = b""
            if name.endswith((".db", ".py", ".ipynb", ".json", ".toml")):
                content = attempt(contents, path) or b""
            if content.startswith(b"SQLite format 3"):
                yield f"a database: {path}"
            yield from reveals(content, path)
        if seen > 10_000:
            return


def descriptors():
    """Look into every file that is open here, and climb from folders."""
    for number in range(256):
        if attempt(os.fstat, number) is None:
            continue
        head = attempt(os.pread, number, 1 << 20, 0) or b""
        if head.startswith(b"SQLite format 3"):
            yield f"descriptor {number} is a database"
        yield from reveals(head, f"descriptor {number}")
        for path in ("..", "../..", "../../..", COURSE, ROOT):
            door = attempt(os.open, path, os.O_RDONLY, dir_fd=number)
            if door is not None:
                names = attempt(os.listdir, door) or []
                os.close(door)
                if {"gradebook.db", "solutions"} & set(names):
                    yield f"descriptor {number} leads to {names[:5]}"
        waiting = attempt(peek, number) or b""
        yield from reveals(waiting, f"what waits on descriptor {number}")


def peek(number):
    """Return what waits on a socket, and leave it there."""
    copy = os.dup(number)
    try:
        door = socket.socket(fileno=copy)
        return door.recv(1 << 16, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    finally:
        os.close(door.detach() if "door" in locals() else copy)


def environment():
    """Read the variables of this process and of all others."""
    libc.getenv.restype = ctypes.c_char_p
    value = libc.getenv(b"CONTEXT_WINDOWS_" + b"SECRET")
    if value:
        yield f"getenv: {value!r}"
    course = (COURSE[:3], COURSE[3:])
    variables = repr(dict(os.environ)).encode()
    yield from reveals(variables, "os.environ", course)
    for path in [*glob.glob("/proc/[0-9]*/environ"), f"/proc/{PID}/environ"]:
        yield from reveals(attempt(contents, path) or b"", path, course)


def command_lines():
    """Read how other processes were called, and where they are."""
    for path in glob.glob("/proc/[0-9]*"):
        words = attempt(contents, f"{path}/cmdline") or b""
        yield from reveals(words, f"{path}/cmdline", (COURSE[:3], COURSE[3:]))
        for name in ("cwd", "exe", "root"):
            target = attempt(os.readlink, f"{path}/{name}") or ""
            if target.startswith(COURSE):
                yield f"{path}/{name} is {target}"
    words = attempt(contents, f"/proc/{PID}/cmdline")
    if words:
        yield f"somebody else's command can be read: {words!r}"


def memory(pid="self"):
    """Search all memory of a process that is not a library."""
    with open(f"/proc/{pid}/maps") as file:
        regions = file.read().splitlines()
    door = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    for region in regions:
        first, last, mode, name = re.match(
            r"(\w+)-(\w+) (\S+) \S+ \S+ \S+\s*(.*)", region
        ).groups()
        if "r" not in mode or ".so" in name or name.startswith("[v"):
            continue
        at, end = int(first, 16), int(last, 16)
        end = min(end, at + (256 << 20))
        while at < end:
            chunk = attempt(os.pread, door, min(8 << 20, end - at), at)
            if not chunk:
                break
            yield from reveals(chunk, f"memory of {pid} ({name})")
            at += max(len(chunk) - 200, 1) if len(chunk) > 200 else end
    os.close(door)


def memory_of_others():
    """Search the memory of all processes that can be seen."""
    others = [os.getppid(), PID, 1]
    others += [int(x[6:]) for x in glob.glob("/proc/[0-9]*")]
    for pid in dict.fromkeys(others):
        if pid != os.getpid():
            found = attempt(lambda pid=pid: list(memory(pid)))
            yield from found or []


def traced():
    """Attach to other processes as a debugger does."""
    attach, detach = 16, 17
    for pid in (PID, 1):
        if pid != os.getpid() and libc.ptrace(attach, pid, 0, 0) == 0:
            libc.ptrace(detach, pid, 0, 0)
            if pid == PID:
                yield f"the process {pid} can be debugged"


def objects():
    """Search all objects, modules and frames, also what gc has put aside."""
    gc.disable()  # or it would look at all that is unfrozen here
    gc.unfreeze()
    found = gc.get_objects()
    frames = [*sys._current_frames().values(), sys._getframe()]
    while frames[-1].f_back:
        frames.append(frames[-1].f_back)
    for frame in frames:
        found += [frame.f_locals, frame.f_globals, frame.f_code]
    found += gc.get_referents(*found)
    codes = [x for x in found if isinstance(x, type(search.__code__))]
    found += [x for code in codes for x in (*code.co_consts, code.co_names)]
    texts = {x for x in found if type(x) is str}
    data = {x for x in found if type(x) is bytes}
    wide = [text.encode("utf-8", "replace") for text in texts]
    yield from reveals(b"\n".join([*wide, *data]), "an object")


def modules():
    """Import what holds answers, checks or mistakes."""
    sys.path[:0] = [ROOT, "/proc/1/root" + ROOT]
    importlib.invalidate_caches()
    for name in (
        "solutions.attention",
        "solutions.multihead",
        "tests.test_attention",
        "test_attention",
        "autograder.misconceptions.attention",
        "autograder.alternatives.attention",
    ):
        module = sys.modules.get(name) or attempt(
            importlib.import_module, name
        )
        if module and getattr(module, "__file__", None):
            yield f"{name} can be imported"
    del sys.path[:2]


def sources():
    """Read what Python keeps for tracebacks, and In of a notebook."""
    import linecache

    kept = repr({k: v for k, v in linecache.cache.items() if "<" not in k})
    yield from reveals(kept.encode("utf-8", "replace"), "linecache")
    for place in (sys.modules["builtins"], sys.modules["__main__"]):
        for name in ("In", "_ih", "get_ipython"):
            if hasattr(place, name):
                text = repr(getattr(place, name))
                yield from reveals(text.encode("utf-8", "replace"), name)


def network():
    """Knock at every door of this machine, and at its cloud's."""
    tcp = [("127.0.0.1", TCP), ("localhost", TCP), ("169.254.169.254", 80)]
    for address in tcp:
        if attempt(socket.create_connection, address, 0.3):
            yield f"TCP reaches {address}"
    for path in (UNIX, ABSTRACT, f"/proc/{PID}/root{UNIX}"):
        door = attempt(socket.socket, socket.AF_UNIX)
        if door and attempt(lambda d, p: d.connect(p) or 1, door, path):
            yield f"a unix socket reaches {path!r}"
    for address in (("127.0.0.1", UDP), DATAGRAM):
        family = socket.AF_UNIX if address == DATAGRAM else socket.AF_INET
        door = attempt(socket.socket, family, socket.SOCK_DGRAM)
        if door:  # who listens will tell
            attempt(door.sendto, b"hello", address)
    for name in ("AF_VSOCK", "AF_PACKET"):
        family = getattr(socket, name, None)
        door = family and attempt(socket.socket, family, socket.SOCK_DGRAM)
        mine = os.path.realpath("/proc/self/ns/net")
        if door and name == "AF_VSOCK":
            yield f"{name} can be opened, in {mine}"


def network_by_other_doors():
    """Connect by 32-bit system calls, by io_uring, by a second thread."""
    thread = threading.Thread(target=lambda: search(network))
    if attempt(thread.start) is None:
        attempt(thread.join, 5)
    child = attempt(os.fork)
    if child == 0:  # a filter may kill who tries this
        by_32_bits()
        os._exit(0)
    if child:
        os.waitpid(child, 0)
    return iter(())


def by_32_bits():
    """Send to the UDP port as a 32-bit program would (x86-64 only).

    socketcall(102), first socket (1), then connect (3); addresses must lie
    below 4 GiB, so the memory is asked for there.
    """
    import mmap
    import struct

    if os.uname().machine != "x86_64":
        return
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, *[ctypes.c_long] * 5]
    low = libc.mmap(0, 8192, 7, 0x40 | mmap.MAP_PRIVATE | 0x20, -1, 0)
    # push rbx; mov eax, edi; mov ebx, esi; mov ecx, edx; int 0x80; pop; ret
    code = bytes.fromhex("5389f889f389d1cd805bc3")
    ctypes.memmove(low, code, len(code))
    call = ctypes.CFUNCTYPE(*[ctypes.c_int] * 4)(low)
    words = low + 4096
    address = low + 4096 + 64
    packed = struct.pack("=HH4s8x", 2, socket.htons(TCP), b"\x7f\0\0\1")
    ctypes.memmove(address, packed, 16)
    ctypes.memmove(words, struct.pack("=3I", 2, 1, 0), 12)
    door = call(102, 1, words)
    ctypes.memmove(words, struct.pack("=3I", max(door, 0), address, 16), 12)
    if door >= 0:
        call(102, 3, words)


def powers():
    """Use what only root may do, then look again."""
    for name in ("setresuid", "setresgid"):
        attempt(getattr(os, name), 0, 0, 0)
    attempt(libc.unshare, 0x10000000 | 0x00020000)  # user and mount
    for kind in ("mnt", "pid", "net"):
        for pid in (1, PID, os.getppid()):
            door = attempt(os.open, f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
            if door is not None:
                attempt(libc.setns, door, 0)
    yield from named_files()
    for folder in (COURSE, ROOT, "/root", "/tmp", "/work", "/home"):
        libc.umount2(folder.encode(), 2)  # what lies below a cover
    yield from named_files()
    here = f"./jail-{os.getpid()}"
    attempt(os.mkdir, here)
    libc.mount(b"proc", here.encode(), b"proc", 0, None)
    yield from named_files(f"{here}/1/root")
    for device in glob.glob("/sys/class/block/*/dev"):
        numbers = attempt(contents, device) or b"0:0"
        major, minor = map(int, numbers.split(b":"))
        attempt(os.mknod, f"{here}/disk", 0o60644, os.makedev(major, minor))
        if attempt(contents, f"{here}/disk"):
            yield f"the disk {device} can be read"
        attempt(os.unlink, f"{here}/disk")
    by_handle = attempt(handle_of_root)
    if by_handle:
        yield "files can be opened by their handles"
    if attempt(lambda: os.chroot(here) or 1):
        for _ in range(20):
            attempt(os.chdir, "..")
        attempt(os.chroot, ".")
        yield from named_files()


def handle_of_root():
    """Open the root folder of this file system by its number, 2."""
    handle = ctypes.create_string_buffer(
        (8).to_bytes(4, "little")
        + (1).to_bytes(4, "little")
        + (2).to_bytes(4, "little")
        + bytes(4),
        16,
    )
    here = os.open(".", os.O_RDONLY)
    door = libc.open_by_handle_at(here, handle, os.O_RDONLY)
    return door >= 0 and os.listdir(door)


def signals():
    """End the grader, its parents and somebody else."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        attempt(os.kill, PID, number)
        if os.getppid() > 1:
            attempt(os.kill, os.getppid(), number)
    return iter(())
