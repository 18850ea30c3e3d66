"""What the device is, what it can do at most, and how long it takes."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import torch

from contextlab.recorded import processor

HAS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if HAS_GPU else "cpu"
# The dtype that a practitioner would use there.
DTYPE = torch.bfloat16 if HAS_GPU else torch.float32


def name() -> str:
    """Name the GPU, or the processor where there is none."""
    return torch.cuda.get_device_name() if HAS_GPU else processor()


def free_bytes() -> int:
    """Return how much memory a lab may fill."""
    if HAS_GPU:
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]
    return 256 << 20  # a laptop that runs out of memory does not say so


def milliseconds(
    call: Callable[[], object], *, repeats: int = 7, at_most: float = 5.0
) -> list[float]:
    """Time a call again and again, after one call that doesn't count.

    Args:
        call: a function without arguments.
        repeats: how often.
        at_most: seconds to spend; one repetition is always made.

    Returns:
        The milliseconds of each repetition, by CUDA's events on a GPU.
    """
    synchronize()
    start = time.perf_counter()
    call()
    synchronize()
    took = time.perf_counter() - start
    repeats = max(1, min(repeats, int(at_most / took)))
    return [once(call) for _ in range(repeats)]


def once(call: Callable[[], object]) -> float:
    """Return the milliseconds of one call."""
    if not HAS_GPU:
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)
    before, after = (torch.cuda.Event(enable_timing=True) for _ in "ab")
    before.record()
    call()
    after.record()
    after.synchronize()
    return before.elapsed_time(after)


def synchronize() -> None:
    """Wait until the device has done what it was asked for."""
    if HAS_GPU:
        torch.cuda.synchronize()


def extra_bytes(call: Callable[[], object]) -> int:
    """Return the most memory that a call held beside its inputs."""
    if not HAS_GPU:
        from contextlab.measuring import peak_bytes

        return peak_bytes(call)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    synchronize()
    return torch.cuda.max_memory_allocated() - before


def measure(
    what: str, call: Callable[[], object], **facts: Any
) -> dict[str, Any]:
    """Return a row: milliseconds and bytes, or that the memory has ended.

    What takes longer than a second is timed once.
    """
    row = {"what": what, **facts}
    times: list[float] = []
    try:
        call()  # what it compiles and tries at first doesn't count
        row["bytes"] = extra_bytes(lambda: times.append(once(call)))
        if times[0] < 1_000:
            times = milliseconds(call, at_most=2.0)
        row["ms"] = [round(ms, 4) for ms in times]
    except (torch.OutOfMemoryError, MemoryError) as error:
        row["end"] = "out of memory"
        del error  # its traceback holds the tensors
    size = f"{facts.get('n', 0):>9,}"
    if "ms" in row:
        print(f"{size}  {what:<28} {median(row):10.3f} ms", flush=True)
    else:
        print(f"{size}  {what:<28} out of memory", flush=True)
    return row


def median(row: dict[str, Any]) -> float:
    """Return the median of a row's repetitions, in milliseconds."""
    return statistics.median(row["ms"])


def limits() -> dict[str, float]:
    """Measure what no kernel can exceed on this device.

    Returns:
        ``copy``, bytes read and written a second; ``matmul``, operations a
        second of a large matrix product; ``memory``, bytes.
    """
    size = 8_192 if HAS_GPU else 1_024
    numbers = (1 << 32 if HAS_GPU else 1 << 26) // DTYPE.itemsize
    a, b = torch.randn(2, size, size, device=DEVICE, dtype=DTYPE)
    x = torch.randn(numbers, device=DEVICE, dtype=DTYPE)
    y = torch.empty_like(x)
    product = statistics.median(milliseconds(lambda: a @ b))
    copy = statistics.median(milliseconds(lambda: y.copy_(x)))
    total = (
        torch.cuda.get_device_properties(0).total_memory
        if HAS_GPU
        else free_bytes()
    )
    return {
        "copy": 2 * x.nbytes / copy * 1e3,
        "matmul": 2 * size**3 / product * 1e3,
        "memory": total,
    }


def made_by() -> dict[str, Any]:
    """Say where, when and with what a result came about."""
    made = {
        "script": "python -m contextlab.scale",
        "device": name(),
        "count": torch.cuda.device_count(),
        "driver": _output("nvidia-smi", "--query-gpu=driver_version"),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": os.environ.get("GIT_COMMIT") or _commit(),
    }
    with suppress(ImportError):
        import triton

        made["triton"] = triton.__version__
    return made


def _commit() -> str | None:
    return _output("git", "rev-parse", "HEAD")


def _output(*command: str) -> str | None:
    """Return the last line that a program prints, or None without it."""
    if command[0] == "nvidia-smi":
        command = (*command, "--format=csv,noheader")
    with suppress(OSError, subprocess.CalledProcessError):
        done = subprocess.run(
            command, capture_output=True, text=True, check=True
        )
        return done.stdout.strip().splitlines()[-1]
    return None
