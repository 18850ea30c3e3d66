"""Lab 12: a state that is scanned in chunks, beside attention."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from contextlab import figures, scale
from contextlab.scale import drawing
from contextlab.scale.device import DEVICE, DTYPE, HAS_GPU, measure
from contextlab.scale.flash import at_rows, relative_error

FUNCTIONS = ("ssm.ssd_chunked",)
HEADS, WIDTH, STATE = (16, 64, 128) if HAS_GPU else (2, 8, 4)
CHUNKS = (256, 1_024)
LENGTHS = (
    (4_096, 16_384, 65_536, 262_144, 1_048_576) if HAS_GPU else (256, 512)
)
ATTENTION = "attention (PyTorch)"
CHUNK = "state space, chunks of {}"
OURS = "state space, our Triton kernels"
COLORS = {
    ATTENTION: figures.KEY,
    OURS: figures.VALUE,
    CHUNK.format(256): figures.QUERY,
    CHUNK.format(1_024): figures.OUTPUT,
}


def run(chunked: Callable) -> Iterator[dict[str, Any]]:
    """Read texts of many lengths at once, as in training, forward.

    The kernels have bfloat16 as attention has it, the chapter's chunks
    float32.

    Args:
        chunked: the reader's ``ssd_chunked``.

    Raises:
        AssertionError: if one differs from the recurrence.
    """
    check(chunked, 1e-3)
    if HAS_GPU:
        check(by_kernels, 0.02)
    for n in LENGTHS:
        given = inputs(n)
        if HAS_GPU:
            yield kernels(n, given, chunked)
        for chunk in CHUNKS:
            call = partial(chunked, *given, chunk)
            yield measure(CHUNK.format(chunk), call, n=n)
        del given, call
        q, k, v = torch.randn(
            3, 1, HEADS, n, WIDTH, device=DEVICE, dtype=DTYPE
        )
        attend = partial(
            F.scaled_dot_product_attention, q, k, v, is_causal=True
        )
        yield measure(ATTENTION, attend, n=n)
        del attend, q, k, v


def kernels(
    n: int, given: tuple[Tensor, ...], chunked: Callable
) -> dict[str, Any]:
    """Compare the kernels with the chapter's chunks, then time them.

    Raises:
        AssertionError: if they differ.
    """
    right = chunked(*given, CHUNKS[-1])[0][:, at_rows(n)]
    x, log_a, b, c = given
    rounded = x.to(DTYPE), log_a, b.to(DTYPE), c.to(DTYPE)
    error = relative_error(by_kernels(*rounded)[0][:, at_rows(n)], right)
    assert error < 0.02, f"the kernels are wrong at {n}: {error:.1e}"
    return measure(OURS, partial(by_kernels, *rounded), n=n, error=error)


def by_kernels(*given: Tensor | int) -> tuple[Tensor, Tensor]:
    """Scan by our Triton kernels; they have a length of chunk of their own."""
    from contextlab.scale.ssm_triton import ssd

    x, log_a, b, c = given[:4]
    return ssd(x.to(DTYPE), log_a, b.to(DTYPE), c.to(DTYPE))


def inputs(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return x, the logarithm of what is kept, b and c; float32.

    Sums of logarithms over a chunk need float32's digits.
    """
    x = torch.randn(1, n, HEADS, WIDTH, device=DEVICE)
    log_a = -0.1 * torch.rand(1, n, HEADS, device=DEVICE)
    b, c = torch.randn(2, 1, n, STATE, device=DEVICE)
    return x, log_a, b, c


def check(scan: Callable, most: float) -> None:
    """Compare with the recurrence, token by token, in float64.

    Args:
        scan: takes x, log_a, b, c and a length of chunks.
        most: the largest relative error.

    Raises:
        AssertionError: if the outputs or the last state differ.
    """
    x, log_a, b, c = (each.double() for each in inputs(150))
    h = torch.zeros(1, HEADS, WIDTH, STATE, device=DEVICE).double()
    right = []
    for t in range(150):
        new = x[:, t, :, :, None] * b[:, t, None, None]
        h = log_a[:, t, :, None, None].exp() * h + new
        right.append((h * c[:, t, None, None]).sum(-1))
    y, last = scan(*(each.float() for each in (x, log_a, b, c)), 64)
    error = relative_error(y, torch.stack(right, 1))
    error = max(error, relative_error(last, h))
    assert error < most, f"the chunked scan is wrong: {error:.1e}"


def draw(record: scale.Record) -> Figure:
    """Draw time and extra memory against the length."""
    fig, (left, right) = drawing.panels(
        record,
        COLORS,
        {"Time": drawing.TIME, "Extra memory": drawing.MEMORY},
    )
    n, limits = drawing.lengths(record), record["limits"]
    # x is read and y is written, 16 heads of 64, two bytes a number.
    moved = [2 * x * 16 * 64 * 2 / limits["copy"] * 1e3 for x in n]
    drawing.limit(left, "reading x,\nwriting y", n, moved)
    drawing.memory_limit(right, record)
    return fig
