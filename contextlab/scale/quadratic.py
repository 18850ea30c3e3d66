"""Lab 04: attention that keeps its matrix, to the end of the memory."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure

from contextlab import figures, scale
from contextlab.scale import drawing
from contextlab.scale.device import DEVICE, HAS_GPU, free_bytes, measure

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
    fig, (left, right) = drawing.panels(
        record,
        {WHOLE: figures.KEY, CHUNKS: figures.QUERY},
        {"Time": drawing.TIME, "Extra memory": drawing.MEMORY},
    )
    n = [r["n"] for r in record["rows"] if r["what"] == WHOLE and "ms" in r]
    once = [2 * 4 * x**2 / record["limits"]["copy"] * 1e3 for x in n]
    drawing.limit(left, "the matrix, written\nand read once", n, once)
    drawing.memory_limit(right, record)
    for row in record["rows"]:
        if "end" in row:
            for ax in (left, right):
                ax.axvline(row["n"], color=figures.KEY, linestyle=":")
            left.annotate(
                row["end"],
                (row["n"], 0.04),
                xycoords=("data", "axes fraction"),
                ha="right",
                rotation=90,
                color=figures.KEY,
            )
    return fig
