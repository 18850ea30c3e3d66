"""Submissions that never end, or end too early, or end others."""

from tests.hostile.corpus import BUT_MASKED, EVERYTHING, MASKED, NAMES, case
from tests.hostile.traps import MARK

# What a daemon does that must not outlive its submission: it goes to sleep,
# under a name by which it is found.
DAEMON = f"""
import ctypes, os, sys, time


def fall_asleep():
    os.setsid()
    ctypes.CDLL(None).prctl(15, b"{MARK[:15]}", 0, 0, 0)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        time.sleep(1)
    os._exit(0)


def leave_a_daemon():
    try:
        if os.fork() == 0:
            if os.fork() == 0:
                fall_asleep()
            os._exit(0)
    except OSError:
        pass
"""


@case(loses="softmax", says="endless loop")
def loops(work):
    """An exercise never ends."""
    work.within("softmax", "while True: pass")


@case(loses="softmax", says="endless loop")
def loops_deaf_to_signals(work):
    """A loop ignores all signals and catches all exceptions."""
    work.within(
        "softmax",
        """
        import signal
        for number in range(1, 65):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            try:
                while True: pass
            except BaseException:
                pass
        """,
    )


@case(gets={"softmax": BUT_MASKED}, says="endless loop")
def loops_within_c(work):
    """A loop holds the interpreter inside one C call."""
    work.within(
        "softmax",
        'import re; re.match(r"(a+)+$", "a" * 60 + "b")',
        when=MASKED,
    )


@case(gets={"softmax": BUT_MASKED}, says="endless loop")
def sleeps(work):
    """An exercise sleeps and uses no CPU time."""
    work.within("softmax", "import time; time.sleep(1_000_000)", when=MASKED)


@case(gets={"softmax": BUT_MASKED}, says="endless loop")
def waits_for_itself(work):
    """A lock is taken twice."""
    work.within(
        "softmax",
        """
        import threading
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
        """,
        when=MASKED,
    )


@case(gets={"softmax": BUT_MASKED}, says="endless loop")
def stops_itself(work):
    """SIGSTOP: the process is neither alive nor dead."""
    work.within(
        "softmax",
        """
        import os, signal
        while True:
            os.kill(os.getpid(), signal.SIGSTOP)
        """,
        when=MASKED,
    )


@case(loses="attention", says="attention")
def asks_a_question(work):
    """An exercise waits for somebody to type."""
    work.within("attention", 'input("How much is 2 + 2? ")')


@case(says="ran")
def loops_above_the_answer(work):
    """A statement above a right definition never ends."""
    work.above("softmax", "while True:\n    pass")


@case(says="ran")
def loops_deaf_above_the_answer(work):
    """A statement that never ends catches what should stop it."""
    work.above(
        "softmax",
        """
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
        """,
    )


@case(says="ended the process")
def exits_above_the_answer(work):
    """A statement above a right definition ends the process."""
    work.above("softmax", "import os\nos._exit(0)")


@case(says="ended the process")
def dies_in_three_places(work):
    """Statements exit, crash and are killed, in cells of their own."""
    work.first("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    work.above("causal_mask", "import ctypes\nctypes.string_at(0)")
    work.last("import os\nos.abort()")


@case()
def fails_above_every_answer(work):
    """A statement above each right definition fails."""
    for name in NAMES:
        work.above(name, "1 / 0")


@case()
def sys_exit_in_a_cell(work):
    """sys.exit(), quit() and exit() stand in cells of their own."""
    work.first("import sys\nsys.exit(0)")
    work.above("softmax", "quit()")
    work.above("attention", "exit")
    work.last("raise KeyboardInterrupt")


@case(loses="softmax", says="ended the process")
def os_exit(work):
    """os._exit(0) in an exercise."""
    work.within("softmax", "import os; os._exit(0)")


@case(loses="attention", says="SystemExit")
def sys_exit(work):
    """sys.exit(0) in an exercise."""
    work.within("attention", "import sys; sys.exit(0)")


@case(loses="attention", says="attention")
def quits(work):
    """quit() in an exercise."""
    work.within("attention", "quit()")


@case(loses="causal_mask", says="KeyboardInterrupt")
def interrupts(work):
    """An exercise raises KeyboardInterrupt."""
    work.within("causal_mask", "raise KeyboardInterrupt")


@case(loses="causal_mask", says="SIGKILL")
def kills_itself(work):
    """An exercise sends SIGKILL to its own process group."""
    work.within("causal_mask", "import os, signal; os.kill(0, signal.SIGKILL)")


@case(gets={"softmax": BUT_MASKED}, says="SIGSEGV")
def crashes(work):
    """An exercise reads address 0."""
    work.within("softmax", "import ctypes; ctypes.string_at(0)", when=MASKED)


@case(gets={"softmax": BUT_MASKED}, says="SIGABRT")
def aborts(work):
    """An exercise calls abort()."""
    work.within("softmax", "import os; os.abort()", when=MASKED)


@case(loses="attention_scores", says="RecursionError")
def recurses(work):
    """An exercise calls itself for ever."""
    work.answer(
        "attention_scores",
        "def attention_scores(q, k):\n    return attention_scores(q, k)",
    )


@case(loses="attention_scores", says="attention_scores")
def recurses_through_the_stack(work):
    """An exercise lifts the limit and overflows the stack of C."""
    work.within(
        "attention_scores",
        """
        import sys
        sys.setrecursionlimit(10**9)
        nested = []
        for _ in range(1_000_000):
            nested = [nested]
        repr(nested)
        """,
    )


@case(loses="softmax", says="softmax")
def nests_too_deep_to_compile(work):
    """Brackets nest so deep that the compiler fails or crashes."""
    work.answer(
        "softmax",
        "def softmax(x, dim=-1):\n    return " + "(" * 5000 + "x" + ")" * 5000,
    )


@case(says="ended the process")
def crashes_the_compiler(work):
    """Cells of the student's own overflow the stack of the compiler."""
    work.first("x = " + "-" * 500_000 + "1")
    work.first("import sys\nsys.setrecursionlimit(10**9)")
    work.last("x = x" + ".real" * 100_000)


@case(loses=EVERYTHING, says="ends every process")
def ends_in_eight_places(work):
    """Eight statements end the process: so often it is not started anew."""
    for _ in range(8):
        work.first("import os\nos._exit(0)")


@case(loses="softmax", says="softmax")
def raises_what_cannot_be_told(work):
    """The exception's own text never ends, exits or is huge."""
    work.within(
        "softmax",
        """
        class Odd(Exception):
            def __str__(self):
                import os
                os._exit(0)
            __repr__ = __str__
        raise Odd
        """,
    )


@case(loses="softmax", says="softmax")
def raises_a_huge_message(work):
    """The exception's message is 40 MB long."""
    work.within("softmax", 'raise ValueError("x" * 40_000_000)')


@case(loses="softmax", says="softmax")
def raises_odd_characters(work):
    """The exception speaks in terminal codes, surrogates, HTML and markup."""
    work.within(
        "softmax",
        r"""
        raise ValueError(
            "\x1b[2J\x1b]0;owned\x07\ud800\0<script>alert(1)</script>"
            "[bold red]100[/] \u202e"
        )
        """,
    )


@case(gets={"softmax": BUT_MASKED}, says="softmax")
def raises_something_of_its_own(work):
    """A BaseException whose class has a lying name and metaclass."""
    work.within(
        "softmax",
        """
        class Meta(type):
            __name__ = property(lambda self: 1 / 0)
            __subclasscheck__ = __instancecheck__ = lambda *_: True
        class AssertionError(BaseException, metaclass=Meta):
            pass
        raise AssertionError("")
        """,
        when=MASKED,
    )


@case()
def hangs_at_exit(work):
    """Handlers at exit never end, nor do threads and destructors."""
    work.first(
        """
        import atexit, threading, time


        class Clinging:
            def __del__(self):
                time.sleep(1_000_000)


        clinging = Clinging()
        atexit.register(time.sleep, 1_000_000)
        threading.Thread(target=time.sleep, args=[1_000_000]).start()
        """
    )


@case()
def keeps_a_thread_busy(work):
    """A thread of the student's own runs on, printing and importing."""
    work.first(
        """
        import threading, time


        def run():
            end = time.monotonic() + 20
            while time.monotonic() < end:
                import this
                print("still here", flush=True)
                time.sleep(0.001)


        threading.Thread(target=run, daemon=True).start()
        """
    )


@case()
def leaves_a_daemon(work):
    """A daemon sleeps on, and holds all open files, while the answer is."""
    work.first(DAEMON + "\n\nleave_a_daemon()")
    work.within(
        "softmax",
        """
        global left
        if "left" not in globals():
            left = True
            leave_a_daemon()
        """,
    )


@case()
def leaves_a_program(work):
    """A program of its own is started and left in the background."""
    work.within(
        "softmax",
        f"""
        import subprocess, sys
        global started
        program = "import time; time.sleep(20)"
        try:
            if "started" not in globals():
                started = subprocess.Popen(
                    [sys.executable, "-c", program, "{MARK}"],
                    start_new_session=True,
                )
        except OSError:
            pass
        """,
    )


@case()
def answers_from_a_child(work):
    """A child goes on in the place of its parent, at each call."""
    work.within(
        "softmax",
        """
        import os
        if os.fork():
            os._exit(0)
        """,
    )


@case(loses="attention_backward", says="endless loop")
def replaces_the_program(work):
    """The process becomes another program, which sleeps."""
    work.within(
        "attention_backward",
        f"""
        import os, sys
        program = "import time; time.sleep(20)"
        os.execv(sys.executable, [sys.executable, "-c", program, "{MARK}"])
        """,
    )


@case(gets={"softmax": BUT_MASKED}, says="softmax")
def closes_everything(work):
    """An exercise closes every open file."""
    work.within("softmax", "import os; os.closerange(0, 1024)", when=MASKED)


@case(says="ended the process")
def closes_everything_above_the_answer(work):
    """A statement above a right definition closes every open file."""
    work.above("softmax", "import os\nos.closerange(0, 1024)")


@case(loses="softmax", says="endless loop")
def turns_back_the_clock(work):
    """An exercise patches the clocks and alarms, and never ends."""
    work.first(
        """
        import signal, time
        time.monotonic = time.time = time.perf_counter = lambda: 0.0
        signal.setitimer = signal.alarm = lambda *_: 0
        """
    )
    work.within("softmax", "while True: pass")
