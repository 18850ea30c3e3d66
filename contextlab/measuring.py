"""Measure what a call costs: its seconds, and the memory that it holds."""

import time
from collections.abc import Callable

from contextlab.spies import Watch


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """Return the shortest time that a call took.

    Whatever else a machine does makes a call slower, never faster, so the
    shortest of several times is the one that says most about the call.

    Args:
        call: a function without arguments.
        repeats: how often it is called, after a first call that isn't timed.
    """
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the most bytes of new tensors that existed at once.

    They are counted at each of PyTorch's operators, by ``Watch``: the same on
    every machine. What an operator uses within itself isn't seen.

    Args:
        call: a function without arguments.
    """
    with Watch() as seen:
        call()
    return seen.held


def in_words(n_bytes: float) -> str:
    """Write bytes with a unit of powers of 1,024: "64 GiB"."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = 0
    while n_bytes >= 1_024 and power < len(units) - 1:
        n_bytes /= 1_024
        power += 1
    return f"{n_bytes:,.4g} {units[power]}"
