"""Lab 11: one text on several GPUs of a machine, a process for each.

The reader's loop is run as it is. Around it stands what a GPU needs: the
block of keys is attended to by a fused kernel that returns its log-sum-exp,
where the chapter's tiles would take hours, and ``exchange`` can send ahead.
``contextlab/scale/ring_rank.py`` is the process of one rank.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from contextlab import figures, scale, shipping
from contextlab.ring import LOOPBACK, RankError
from contextlab.scale import drawing
from contextlab.scale.device import HAS_GPU, free_bytes, median
from contextlab.scale.flash import tflops

FUNCTIONS = ("ring.ring_attention", "ring.zigzag_split")
GPUS = 2  # and more, if there are more
ALONE = "one GPU (PyTorch)"
ORDER = "ring, in order"
WAITS = "ring, zigzag, sent first"
AHEAD = "ring, zigzag"
PEER = "PyTorch's own ring"
LINK = "a block, sent on"
COLORS = {
    ALONE: figures.KEY,
    ORDER: figures.VALUE,
    WAITS: figures.INK,
    AHEAD: figures.QUERY,
    PEER: figures.OUTPUT,
}
# What runs in one set of processes, and its seconds: PyTorch's ring is an
# experiment of theirs and could break ours.
TURNS = (
    ([LINK, AHEAD, ALONE, ORDER, WAITS], 50.0),
    *([([PEER], 18.0)] if HAS_GPU else []),
)
START = 40.0  # seconds until the first row must have come
# A GPU sends to one other: NVLink's multicast isn't needed, and a shared
# machine may forbid it.
NO_MULTICAST = {
    "NCCL_NVLS_ENABLE": "0",
    "NVSHMEM_DISABLE_NVLS": "1",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1",
}


def world() -> int:
    """Return the number of ranks: all GPUs, or two processes without one."""
    return torch.cuda.device_count() if HAS_GPU else 2


def run(
    ring_attention: Callable, zigzag_split: Callable
) -> Iterator[dict[str, Any]]:
    """Check the ring against exact attention, then time it; causal.

    Args:
        ring_attention: the reader's.
        zigzag_split: the reader's.

    Yields:
        A row for each way and length, as they come.

    Raises:
        RankError: if a rank fails, or a ring is wrong.
    """
    free_bytes()  # gives back what this process has kept of a GPU
    with TemporaryDirectory(ignore_cleanup_errors=True) as place:
        for function in (ring_attention, zigzag_split):
            path = Path(place) / f"{function.__name__}.py"
            path.write_text(shipping.source(function), encoding="utf-8")
        for turn, (ways, seconds) in enumerate(TURNS):
            folder = Path(place) / str(turn)
            folder.mkdir()
            try:
                yield from watch(start(folder, ways, seconds), folder, seconds)
            except RankError as error:
                if ways != [PEER]:
                    raise
                print(error, flush=True)
                end = str(error).strip().splitlines()[-1]
                yield {"what": PEER, "n": 1, "end": end}


def start(
    folder: Path, ways: list[str], seconds: float
) -> list[subprocess.Popen]:
    """Start a process for each rank; it ends when its standard input does."""
    env = {**os.environ, **NO_MULTICAST, "OMP_NUM_THREADS": "1"}
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, os.environ.get("PYTHONPATH", "")]
    env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if sys.platform in LOOPBACK:
        env["GLOO_SOCKET_IFNAME"] = LOOPBACK[sys.platform]
    order = {"ways": ways, "seconds": seconds, "world": world()}
    (folder / "order").write_text(json.dumps(order), encoding="utf-8")
    processes = []
    for rank in range(world()):
        with open(folder / f"{rank}.said", "wb") as said:
            processes.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "contextlab.scale.ring_rank",
                        str(folder),
                        str(rank),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    env=env,
                )
            )
    return processes


def watch(
    processes: list[subprocess.Popen], folder: Path, seconds: float
) -> Iterator[dict[str, Any]]:
    """Yield the rows that rank 0 writes, until all have ended or time is up.

    Raises:
        RankError: if a rank fails; of one that stands still, the rows that
            it has written are kept.
    """
    deadline = time.monotonic() + START
    rows = folder / "rows"
    done = 0
    try:
        while True:
            codes = [process.poll() for process in processes]
            text = rows.read_text(encoding="utf-8") if rows.exists() else ""
            lines = text.split("\n")[:-1]  # what is whole
            if lines and not done:
                deadline = time.monotonic() + seconds + 10
            for line in lines[done:]:
                row = json.loads(line)
                report(row)
                yield row
            done = len(lines)
            if any(codes):
                time.sleep(1)  # let the one that failed first say so, too
                raise RankError(_why(folder, codes))
            if None not in codes:
                return
            if time.monotonic() > deadline:
                if not done:
                    raise RankError(f"no row in {START:.0f} s")
                print("the ring was stopped: time is up", flush=True)
                return
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


def report(row: dict[str, Any]) -> None:
    """Print a row."""
    cost = f"{median(row):10.3f} ms" if "ms" in row else row["end"]
    print(f"{row['n']:>9,}  {row['what']:<28} {cost}", flush=True)


def _why(folder: Path, codes: list[int | None]) -> str:
    """Return what the rank said that failed first."""
    errors = sorted(folder.glob("*.error"), key=lambda x: x.stat().st_mtime_ns)
    if errors:
        rank = errors[0].stem
        text = errors[0].read_text(errors="replace", encoding="utf-8")
    else:
        rank = next(rank for rank, code in enumerate(codes) if code)
        text = f"it ended by itself, with exit code {codes[rank]}"
    said = (folder / f"{rank}.said").read_text(errors="replace")
    return f"{said[-2_000:]}\nrank {rank} failed: {text}"


def bandwidth(record: scale.Record) -> float:
    """Return the bytes a second that a GPU sent, while it got as many."""
    (link,) = (row for row in record["rows"] if row["what"] == LINK)
    return link["sent"] / min(link["ms"]) * 1e3


def hidden(row: dict[str, Any]) -> tuple[float, float]:
    """Return how long blocks travelled, and how long of it ranks computed.

    Both are milliseconds, summed over the ranks of a row's timeline.
    """
    sends = [mark for mark in row["timeline"] if mark[1] == "sends"]
    computes = [mark for mark in row["timeline"] if mark[1] == "computes"]
    beside = sum(
        max(0.0, min(end, until) - max(begin, since))
        for rank, _, begin, end in sends
        for other, _, since, until in computes
        if rank == other
    )
    return sum(end - begin for *_, begin, end in sends), beside


def draw(record: scale.Record) -> Figure:
    """Draw all GPUs' speed, and a GPU's memory, with the limits."""
    fig, (left, right) = drawing.panels(
        record,
        COLORS,
        {"Speed": ("TFLOP/s", tflops), "Held by a GPU": drawing.MEMORY},
    )
    n, most = drawing.lengths(record), record["limits"]["matmul"] / 1e12
    gpus = max(row.get("gpus", 1) for row in record["rows"])
    for count in (1, gpus):
        words = f"matrix products, {count} GPU{'s' * (count > 1)}"
        drawing.limit(left, words, n, [count * most] * len(n))
    left.set(yscale="linear", ylim=(0, gpus * most * 1.12))
    drawing.memory_limit(right, record)
    return fig


def draw_timeline(record: scale.Record, n: int) -> Figure:
    """Draw when each rank computes and when its blocks travel, at a length."""
    rows = [
        row for row in record["rows"] if row["n"] == n and row.get("timeline")
    ]
    fig, axes = plt.subplots(
        len(rows), 1, figsize=(7.2, 0.9 + 1.2 * len(rows)), sharex=True,
        squeeze=False,
    )  # fmt: skip
    colors = {"computes": figures.INK, "sends": figures.KEY}
    for ax, row in zip(axes[:, 0], rows, strict=True):
        for rank, what, begin, end in row["timeline"]:
            sends = what == "sends"
            ax.barh(
                rank + (0.22 if sends else -0.12),
                end - begin,
                0.2 if sends else 0.45,
                begin,
                color=colors[what],
                edgecolor=figures.PAPER,
            )
        ax.set_title(row["what"])
        ax.set(yticks=range(row["gpus"]), ylabel="rank")
        ax.invert_yaxis()
        ax.grid(axis="y", visible=False)
    axes[-1, 0].set_xlabel("milliseconds")
    handles = [plt.Rectangle((0, 0), 1, 1, color=c) for c in colors.values()]
    fig.legend(handles, list(colors), loc="outside lower center", ncols=2)
    fig.suptitle(f"{n:,} tokens, {scale.source(record)}", fontsize=9)
    return fig
