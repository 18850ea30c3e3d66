"""Lab 04: attention that keeps its matrix, to the end of the memory."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure

from contextlab import figures, scale
from contextlab.measuring import in_words
from contextlab.scale.device import (
    DEVICE,
    HAS_GPU,
    free_bytes,
    measure,
    median,
)

FUNCTIONS = ("attention.attention", "quadratic.chunked_attention")
WIDTH = 64
WHOLE, CHUNKS = "attention, all at once", "attention, in chunks"
FIRST = 1_024 if HAS_GPU else 512
DOUBLINGS = 9 if HAS_GPU else 4


def run(attention: Callable, chunked: Callable) -> list[dict[str, Any]]:
    """Double the text until the memory ends; then the chunks go on.

    One head, float32, as the chapter has it.

    Args:
        attention: keeps all scores of (n, D) queries and keys.
        chunked: makes the same of them, some rows at a time.
    """
    rows: list[dict[str, Any]] = []
    room = free_bytes()
    for n in (FIRST << doubling for doubling in range(DOUBLINGS)):
        q, k, v = torch.randn(3, n, WIDTH, device=DEVICE)
        if not ended(rows, WHOLE):
            if not HAS_GPU and 3 * 4 * n**2 > room:
                rows.append({"what": WHOLE, "n": n, "end": "our own limit"})
            else:
                call = partial(attention, q, k, v)
                rows.append(measure(WHOLE, call, n=n))
        rows.append(measure(CHUNKS, partial(chunked, q, k, v), n=n))
    return rows


def ended(rows: list[dict[str, Any]], what: str) -> bool:
    """Say whether the memory has ended for one of the ways."""
    return any("end" in row for row in rows if row["what"] == what)


def draw(record: scale.Record) -> Figure:
    """Draw time and memory against the length, with what limits them."""
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(7.6, 4))
    for what, color in ((WHOLE, figures.KEY), (CHUNKS, figures.QUERY)):
        rows = [r for r in record["rows"] if r["what"] == what]
        done = [r for r in rows if "ms" in r]
        lengths = [r["n"] for r in done]
        left.plot(lengths, [median(r) for r in done], "o-", color=color)
        right.plot(
            lengths, [r["bytes"] for r in done], "o-", color=color, label=what
        )
        for row in rows:
            if "end" in row:
                right.axvline(row["n"], color=color, linestyle=":")
                left.axvline(row["n"], color=color, linestyle=":")
                left.annotate(
                    row["end"],
                    (row["n"], 0.96),
                    xycoords=("data", "axes fraction"),
                    ha="right",
                    va="top",
                    rotation=90,
                    color=color,
                )
    _limits(record, left, right)
    left.set(title="Time", ylabel="milliseconds")
    right.set(title="Extra memory", ylabel="bytes")
    for ax in (left, right):
        ax.set(xscale="log", yscale="log", xlabel="tokens")
    fig.legend(loc="outside lower center", ncols=2)
    fig.suptitle(scale.source(record), fontsize=9)
    return fig


def _limits(record: scale.Record, left: Any, right: Any) -> None:
    """Draw the least time that the matrix takes to move, and the memory."""
    lengths = sorted({r["n"] for r in record["rows"] if "ms" in r})
    # The scores are written once and read once, by each of three operators.
    least = [2 * 4 * n**2 / record["limits"]["copy"] * 1e3 for n in lengths]
    left.plot(lengths, least, "--", color=figures.FAINT)
    left.annotate(
        "moving the\nmatrix once",
        (lengths[1], least[1]),
        color=figures.INK,
        va="top",
        fontsize=9,
    )
    memory = record["limits"]["memory"]
    right.axhline(memory, color=figures.FAINT, linestyle="--")
    right.annotate(
        in_words(memory),
        (0.02, memory),
        xycoords=("axes fraction", "data"),
        va="bottom",
        color=figures.INK,
    )
