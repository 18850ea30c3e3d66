"""Lab 12: a state that is scanned in chunks, beside attention."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from contextlab import figures, scale
from contextlab.scale import drawing
from contextlab.scale.device import DEVICE, DTYPE, HAS_GPU, measure
from contextlab.scale.flash import relative_error

FUNCTIONS = ("ssm.ssd_chunked",)
HEADS, WIDTH, STATE = (16, 64, 128) if HAS_GPU else (2, 8, 4)
CHUNKS = (256, 1_024)
LENGTHS = (
    (4_096, 16_384, 65_536, 262_144, 1_048_576) if HAS_GPU else (256, 512)
)
ATTENTION = "attention (PyTorch)"
CHUNK = "state space, chunks of {}"
COLORS = {
    ATTENTION: figures.KEY,
    CHUNK.format(256): figures.QUERY,
    CHUNK.format(1_024): figures.OUTPUT,
}


def run(chunked: Callable) -> list[dict[str, Any]]:
    """Read texts of many lengths at once, as in training, forward.

    Args:
        chunked: the reader's ``ssd_chunked``.

    Raises:
        AssertionError: if it differs from the recurrence.
    """
    check(chunked)
    rows: list[dict[str, Any]] = []
    for n in LENGTHS:
        q, k, v = torch.randn(
            3, 1, HEADS, n, WIDTH, device=DEVICE, dtype=DTYPE
        )
        attend = partial(
            F.scaled_dot_product_attention, q, k, v, is_causal=True
        )
        rows.append(measure(ATTENTION, attend, n=n))
        del attend, q, k, v
        given = inputs(n)
        for chunk in CHUNKS:
            call = partial(chunked, *given, chunk)
            rows.append(measure(CHUNK.format(chunk), call, n=n))
    return rows


def inputs(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x, the logarithm of what is kept, b and c; float32.

    Sums of logarithms over a chunk need float32's digits.
    """
    x = torch.randn(1, n, HEADS, WIDTH, device=DEVICE)
    log_a = -0.1 * torch.rand(1, n, HEADS, device=DEVICE)
    b, c = torch.randn(2, 1, n, STATE, device=DEVICE)
    return x, log_a, b, c


def check(chunked: Callable) -> None:
    """Compare with the recurrence, token by token, in float64.

    Raises:
        AssertionError: if it differs.
    """
    x, log_a, b, c = (each.double() for each in inputs(150))
    h = torch.zeros(1, HEADS, WIDTH, STATE, device=DEVICE).double()
    right = []
    for t in range(150):
        new = x[:, t, :, :, None] * b[:, t, None, None]
        h = log_a[:, t, :, None, None].exp() * h + new
        right.append((h * c[:, t, None, None]).sum(-1))
    got = chunked(*(each.float() for each in (x, log_a, b, c)), 64)[0]
    error = relative_error(got, torch.stack(right, 1))
    assert error < 1e-3, f"the chunked scan is wrong: {error:.1e}"


def draw(record: scale.Record) -> Figure:
    """Draw time and extra memory against the length."""
    fig, (left, right) = drawing.panels(
        record,
        COLORS,
        {"Time": drawing.TIME, "Extra memory": drawing.MEMORY},
    )
    n, limits = drawing.lengths(record), record["limits"]
    # x is read and y is written, 16 heads of 64, four bytes a number.
    moved = [2 * x * 16 * 64 * 4 / limits["copy"] * 1e3 for x in n]
    drawing.limit(left, "reading x,\nwriting y", n, moved)
    drawing.memory_limit(right, record)
    return fig
