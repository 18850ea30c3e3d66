"""Lab 05: a kernel of our own beside PyTorch's, to a million tokens."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from contextlab import figures, scale
from contextlab.scale import drawing
from contextlab.scale.device import DEVICE, DTYPE, HAS_GPU, measure, median

FUNCTIONS = ()  # PyTorch's operators alone would take minutes
WIDTH = 128
# Tokens and heads: fewer heads where one alone keeps the device busy.
SIZES = (
    ((4_096, 16), (16_384, 16), (65_536, 16), (262_144, 4), (1_048_576, 1))
    if HAS_GPU
    else ((512, 2), (1_024, 2))
)
OURS = "our Triton kernel"
PEERS = {
    "PyTorch, flash": SDPBackend.FLASH_ATTENTION,
    "PyTorch, cuDNN": SDPBackend.CUDNN_ATTENTION,
    "PyTorch, matrix kept": SDPBackend.MATH,
}
COLORS = {
    OURS: figures.OUTPUT,
    "PyTorch, flash": figures.QUERY,
    "PyTorch, cuDNN": figures.VALUE,
    "PyTorch, matrix kept": figures.KEY,
}
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def run() -> list[dict[str, Any]]:
    """Check each kernel, then time it; causal, bfloat16, width 128.

    Raises:
        AssertionError: if a kernel is wrong; then nothing is timed.
    """
    ways = kernels()
    check_small(ways)
    rows: list[dict[str, Any]] = []
    over: set[str] = set()
    for n, heads in SIZES:
        q, k, v = torch.randn(
            3, 1, heads, n, WIDTH, device=DEVICE, dtype=DTYPE
        )
        expected = some_rows(q, k, v)
        for what, attend in ways.items():
            if what in over:
                continue
            row = measure(
                what, partial(attend, q, k, v), n=n, heads=heads, width=WIDTH
            )
            if "end" in row:
                over.add(what)
            else:
                got = attend(q, k, v)[..., at_rows(n), :]
                row["error"] = relative_error(got, expected)
                assert row["error"] < 0.02, f"{what} is wrong: {row}"
            rows.append(row)
    return rows


def kernels() -> dict[str, Attention]:
    """Return what can be run here, by name."""
    names = PEERS if HAS_GPU else list(PEERS)[:1]
    ways = {name: partial(by_pytorch, PEERS[name]) for name in names}
    if HAS_GPU:
        from contextlab.scale.flash_triton import flash_attention

        ways = {OURS: lambda q, k, v: flash_attention(q, k, v, True)[0]} | ways
    return ways


def by_pytorch(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend by one of PyTorch's own kernels."""
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def check_small(ways: dict[str, Attention]) -> None:
    """Compare with float64: ragged sizes, and our log-sum-exp.

    Raises:
        AssertionError: if a kernel differs.
    """
    for n in (2, 100, 257):  # cuDNN takes no single key
        q, k, v = torch.randn(3, 2, 3, n, WIDTH, device=DEVICE, dtype=DTYPE)
        scores = q.double() @ k.double().mT / math.sqrt(WIDTH)
        hidden = torch.ones(n, n, device=DEVICE, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, -math.inf)
        expected = scores.softmax(-1) @ v.double()
        for what, attend in ways.items():
            error = relative_error(attend(q, k, v), expected)
            assert error < 0.02, f"{what} is wrong at {n}: {error:.1e}"
    if HAS_GPU:
        check_ours()


def check_ours() -> None:
    """Compare our kernel where PyTorch's causal mask means another thing.

    Raises:
        AssertionError: if it differs.
    """
    from contextlab.scale.flash_triton import flash_attention

    for queries, keys, width, causal in (
        (1, 300, 80, True),
        (70, 300, 80, True),
        (130, 77, 64, False),
        (257, 257, 128, True),
    ):
        q = torch.randn(2, 3, queries, width, device=DEVICE, dtype=DTYPE)
        k, v = torch.randn(2, 2, 3, keys, width, device=DEVICE, dtype=DTYPE)
        scores = q.double() @ k.double().mT / math.sqrt(width)
        if causal:
            row = torch.arange(queries, device=DEVICE) + keys - queries
            hidden = torch.arange(keys, device=DEVICE) > row[:, None]
            scores = scores.masked_fill(hidden, -math.inf)
        out, lse = flash_attention(q, k, v, causal)
        error = relative_error(out, scores.softmax(-1) @ v.double())
        assert error < 0.02, f"wrong at {(queries, keys, width)}: {error:.1e}"
        worst = (lse - scores.logsumexp(-1)).abs().max().item()
        assert worst < 0.01, f"the log-sum-exp is off by {worst:.1e}"


def at_rows(n: int) -> Tensor:
    """Return some queries, among them the first and the last."""
    return torch.linspace(0, n - 1, 33, device=DEVICE).long()


def some_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the exact output of some queries, in float32."""
    rows = at_rows(q.shape[-2])
    found = []
    for head in range(q.shape[1]):
        scores = q[:, head, rows].float() @ k[:, head].float().mT
        scores /= math.sqrt(q.shape[-1])
        at_key = torch.arange(k.shape[-2], device=DEVICE)
        scores.masked_fill_(at_key > rows[:, None], -math.inf)
        found.append(scores.softmax(-1) @ v[:, head].float())
    return torch.stack(found, 1)


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Return the size of the difference, in sizes of what is expected."""
    difference = (got.double() - expected.double()).norm()
    return (difference / expected.double().norm()).item()


def tflops(row: dict[str, Any]) -> float:
    """Return 10¹² operations a second; only pairs that attend are counted."""
    pairs = row["n"] * (row["n"] + 1) / 2
    flops = 4 * pairs * row["width"] * row["heads"]
    return flops / median(row) / 1e9


def draw(record: scale.Record) -> Figure:
    """Draw operations a second and extra memory against the length."""
    fig, (left, right) = drawing.panels(
        record,
        COLORS,
        {"Speed": ("TFLOP/s", tflops), "Extra memory": drawing.MEMORY},
    )
    n, limits = drawing.lengths(record), record["limits"]
    most = limits["matmul"] / 1e12
    drawing.limit(left, "a large matrix product", n, [most] * len(n))
    drawing.memory_limit(right, record)
    left.set(yscale="linear", ylim=(0, most * 1.12))
    return fig
