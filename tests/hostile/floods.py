"""Submissions that ask for too much: output, memory, processes, disk.

What is asked for is bounded in itself, should nothing else bound it: 200
processes that end after 20 seconds, 30 GiB.
"""

from tests.hostile.corpus import BUT_MASKED, MASKED, NAMES, case
from tests.hostile.traps import MARK

GIB = 1 << 30


@case()
def prints_one_line(work):
    """50 MB are printed in one line."""
    work.within("attention", 'print("x" * 50_000_000)', "args[0].ndim == 2")
    work.first('print("x" * 50_000_000)')


@case()
def prints_many_lines(work):
    """50 MB are printed in 500,000 lines, above an answer and in it."""
    flood = 'for _ in range(500_000):\n    print("x" * 99)'
    work.above("softmax", flood)
    work.within(
        "attention",
        """
        global flooded
        if "flooded" not in globals():
            flooded = True
            for _ in range(500_000):
                print("x" * 99)
        """,
    )


@case(loses="softmax", says="endless loop")
def prints_for_ever(work):
    """An exercise never stops printing."""
    work.within("softmax", 'while True: print("x" * 1000)')


@case(says="ran")
def prints_for_ever_above_the_answer(work):
    """A statement above a right definition never stops printing."""
    work.above("softmax", 'while True:\n    print("x" * 1000)')


@case()
def warns(work):
    """Warnings and logs go to stderr at every call."""
    for name in NAMES:
        work.within(
            name,
            """
            import logging, sys, warnings
            warnings.warn("this is slow")
            logging.error("this is wrong")
            print("this is odd", file=sys.stderr, flush=True)
            """,
        )


@case()
def writes_bytes(work):
    """Bytes that are no text go to the standard files, past Python."""
    work.within(
        "softmax",
        r"""
        import os
        for number in (1, 2):
            try:
                os.write(number, b"\xff\xfe\0\x1b[2J\x1b]0;x\x07" * 100)
            except OSError:
                pass
        """,
    )


@case()
def prints_into_nothing(work):
    """The standard files are closed, or replaced by what is no file."""
    work.first(
        """
        import os, sys
        sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None
        for number in (0, 1, 2):
            os.close(number)
        """
    )


@case(loses="softmax", says="emory")
def takes_memory_at_once(work):
    """30 GiB are asked for in one piece."""
    work.within(
        "softmax",
        f"""
        import torch
        torch.full(({30 * GIB},), 1, dtype=torch.uint8)
        """,
    )


@case(loses="softmax", says="emory")
def takes_memory_in_pieces(work):
    """30 GiB are asked for, megabyte by megabyte."""
    work.within(
        "softmax",
        """
        held = []
        for _ in range(30 * 1024):
            held.append(bytes(1 << 20))
        raise RuntimeError("LEAK: 30 GiB were to be had")
        """,
    )


@case()
def takes_memory_above_the_answer(work):
    """A statement above a right definition asks for 30 GiB."""
    work.above(
        "softmax",
        """
        held = []
        for _ in range(30 * 1024):
            held.append(b"x" * (1 << 20))
        """,
    )


@case()
def hoards_memory(work):
    """Memory that is asked for at first is short for all that follows."""
    work.first(
        """
        held = []
        try:
            for _ in range(30 * 1024):
                held.append(b"x" * (1 << 20))
        except MemoryError:
            held = None
        """
    )


# Whoever asks for memory past the limits asks once, and for 5 GiB at most.
ONCE = """
import os, time
try:
    os.close(os.open("asked", os.O_CREAT | os.O_EXCL))
except OSError:
    raise RuntimeError("asked before")
reader, writer = os.pipe()
"""
COUNT = f"""
os.set_blocking(reader, False)
end, got, most = time.monotonic() + 2, 0, {13 * GIB // 4}
while time.monotonic() < end and got < most:
    try:
        got += os.read(reader, 1)[0] << 25
    except BlockingIOError:
        time.sleep(0.01)
leak = "LEAK: " * (got >= most)
raise RuntimeError(f"{{leak}}{{got}} bytes were to be had")
"""


@case(loses="softmax", says="softmax")
def takes_memory_in_files(work):
    """Two processes ask for memory as many small files without a name."""
    work.within(
        "softmax",
        ONCE
        + """
for _ in range(2):
    if os.fork() == 0:
        try:
            for _ in range(56):
                os.posix_fallocate(os.memfd_create("held"), 0, (1 << 25) - 1)
                os.write(writer, bytes([1]))
            time.sleep(3)
        finally:
            os._exit(0)
"""
        + COUNT,
    )


@case(loses="softmax", says="softmax")
def takes_memory_unseen(work):
    """Memory is shared with a child that holds it and never looks at it."""
    work.within(
        "softmax",
        ONCE
        + """
import mmap
for _ in range(4):
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    shared = mmap.mmap(-1, 1 << 30, flags)
    if os.fork() == 0:
        time.sleep(3)
        os._exit(0)
    shared.close()
    os.write(writer, bytes([32]))
"""
        + COUNT,
    )


@case(loses="softmax", says="softmax")
def takes_memory_in_children(work):
    """Seven children ask for 704 MiB each, and hold them."""
    work.within(
        "softmax",
        ONCE
        + """
for _ in range(7):
    if os.fork() == 0:
        try:
            held = []
            for _ in range(22):
                held.append(b"x" * (1 << 25))
                os.write(writer, bytes([1]))
            time.sleep(3)
        finally:
            os._exit(0)
"""
        + COUNT,
    )


@case(loses="softmax", says="softmax")
def fills_the_disk(work):
    """Files are written wherever they can be, up to 30 GiB."""
    work.within(
        "softmax",
        f"""
        import os
        places = [".", "/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~")]
        size, written, last = 32 << 20, 0, None
        for number in range({30 * GIB} // (32 << 20)):
            for place in list(places):
                try:
                    path = f"{{place}}/{MARK}-{{os.getpid()}}-{{number}}"
                    door = os.open(path, os.O_WRONLY | os.O_CREAT)
                    os.posix_fallocate(door, 0, size)
                    os.close(door)
                    written += size
                except OSError as error:
                    last = error
                    places.remove(place)
            if written > {4 * GIB}:
                raise RuntimeError("LEAK: 4 GiB of files were to be had")
            if not places:
                break
        raise RuntimeError(f"no more files after {{written}} bytes: {{last}}")
        """,
    )


@case(loses="softmax", says="softmax")
def writes_one_huge_file(work):
    """One file grows and grows, past what a file may be."""
    work.within(
        "softmax",
        f"""
        block, written = b"x" * (1 << 20), 0
        with open("{MARK}", "wb") as file:
            while written < {4 * GIB}:
                written += file.write(block)
                file.flush()
        raise RuntimeError("LEAK: a file of 4 GiB was to be had")
        """,
    )


@case()
def opens_many_files(work):
    """Files are opened until there are no more."""
    work.first(
        """
        import os
        held = []
        try:
            for _ in range(100_000):
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            for number in held:
                os.close(number)
        """
    )


@case()
def makes_many_files(work):
    """20,000 files and a path 1,000 folders deep are left behind."""
    work.within(
        "softmax",
        f"""
        import os
        global littered
        if "littered" not in globals():
            littered = True
            try:
                for number in range(20_000):
                    open(f"{MARK}-{{number}}", "w").close()
                for _ in range(1_000):
                    os.mkdir("deep")
                    os.chdir("deep")
            except OSError:
                pass
        """,
    )


@case(gets={"softmax": BUT_MASKED}, says="softmax")
def fork_bomb(work):
    """Processes make processes."""
    work.within(
        "softmax",
        f"""
        import ctypes, os, time
        end = time.monotonic() + 20
        for _ in range(7):  # 128 processes
            try:
                os.fork()
            except OSError:
                pass
        ctypes.CDLL(None).prctl(15, b"{MARK[:15]}", 0, 0, 0)
        while time.monotonic() < end:
            time.sleep(0.1)
        os._exit(0)
        """,
        when=MASKED,
    )


@case(gets={"softmax": BUT_MASKED}, says="softmax")
def fork_bomb_deaf_to_signals(work):
    """Processes leave their session and make others when they are ended."""
    work.within(
        "softmax",
        f"""
        import ctypes, os, signal, time
        for number in (1, 2, 3, 13, 14, 15, 17, 24):
            signal.signal(number, signal.SIG_IGN)
        end = time.monotonic() + 20
        for _ in range(150):
            try:
                if os.fork() == 0:
                    os.setsid()
                    break
            except OSError:
                pass
        ctypes.CDLL(None).prctl(15, b"{MARK[:15]}", 0, 0, 0)
        while time.monotonic() < end:
            time.sleep(0.1)
        os._exit(0)
        """,
        when=MASKED,
    )


@case()
def fork_bomb_above_the_answer(work):
    """A statement above a right definition makes 128 processes."""
    work.above(
        "softmax",
        f"""
        import ctypes, os, time
        if True:
            mine, end = os.getpid(), time.monotonic() + 20
            for _ in range(7):
                try:
                    os.fork()
                except OSError:
                    pass
            if os.getpid() != mine:
                ctypes.CDLL(None).prctl(15, b"{MARK[:15]}", 0, 0, 0)
                while time.monotonic() < end:
                    time.sleep(0.1)
                os._exit(0)
        """,
    )


@case(gets={"softmax": BUT_MASKED}, says="softmax")
def hogs_the_processors(work):
    """Forty processes compute for nothing, each in a session of its own."""
    work.within(
        "softmax",
        """
        import os, time
        end = time.monotonic() + 8
        for _ in range(40):
            try:
                if os.fork() == 0:
                    os.setsid()
                    break
            except OSError:
                pass
        while time.monotonic() < end:
            pass
        os._exit(0)
        """,
        when=MASKED,
    )


@case(gets={"softmax": BUT_MASKED}, says="endless loop")
def thread_bomb(work):
    """200 threads are started, and all of them waited for."""
    work.within(
        "softmax",
        """
        import threading, time
        end = time.monotonic() + 20
        for _ in range(200):
            try:
                threading.Thread(target=time.sleep, args=[20]).start()
            except RuntimeError:
                pass
        while time.monotonic() < end:
            time.sleep(0.1)
        """,
        when=MASKED,
    )


@case(loses="softmax", says="softmax")
def returns_a_huge_tensor(work):
    """A tensor of half a gigabyte is returned."""
    work.answer(
        "softmax",
        """
        import torch

        def softmax(x, dim=-1):
            return torch.zeros(1 << 29, dtype=torch.uint8)
        """,
    )


@case(loses="softmax", says="softmax")
def returns_an_expanded_tensor(work):
    """A tensor of 10^15 entries takes no more memory than one."""
    work.answer(
        "softmax",
        """
        import torch

        def softmax(x, dim=-1):
            return torch.zeros(1, dtype=x.dtype).expand(10**15)
        """,
    )


@case(loses="softmax", says="softmax")
def returns_a_deep_list(work):
    """A list nests 100,000 lists."""
    work.answer(
        "softmax",
        """
        def softmax(x, dim=-1):
            nested = x
            for _ in range(100_000):
                nested = [nested]
            return nested
        """,
    )


@case(loses="attention", says="attention")
def returns_a_list_of_itself(work):
    """A list holds itself, and stands for output and weights."""
    work.answer(
        "attention",
        """
        def attention(q, k, v, mask=None):
            endless = []
            endless.append(endless)
            return endless, endless
        """,
    )


@case(loses="attention_backward", says="attention_backward")
def yields_for_ever(work):
    """A generator of gradients never ends."""
    work.answer(
        "attention_backward",
        """
        def attention_backward(grad_output, q, k, v, mask=None):
            while True:
                yield q
        """,
    )


@case(loses="softmax", says="softmax")
def returns_a_huge_text(work):
    """A string of a hundred million letters, and a number as long."""
    work.answer(
        "softmax",
        """
        def softmax(x, dim=-1):
            return "x" * 100_000_000 if x.ndim == 3 else 1 << 100_000_000
        """,
    )


@case(loses="softmax", says="softmax")
def fills_its_input(work):
    """The input is made to hold a gigabyte."""
    work.within(
        "softmax",
        """
        x = args[0]
        x.resize_(1 << 27)
        """,
    )
