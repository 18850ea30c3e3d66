"""Lab 10: the chapter's masks by FlexAttention, to a million tokens."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.attention.flex_attention import (
    BlockMask,
    create_mask,
    flex_attention,
)

from contextlab import figures, scale
from contextlab.scale import drawing
from contextlab.scale.device import DEVICE, DTYPE, HAS_GPU, measure
from contextlab.scale.flash import at_rows, relative_error

FUNCTIONS = ("sparse.sliding_window_attention",)
WIDTH = 128
WINDOW = 4_096 if HAS_GPU else 64
STRIDE = WINDOW // 4
BLOCK = 128  # what FlexAttention skips or computes as a whole
LENGTHS = (16_384, 131_072, 1_048_576) if HAS_GPU else (256, 512)
DENSE, SLICES = "dense (PyTorch)", "window, our slices"
COLORS = {
    DENSE: figures.KEY,
    "window and stride": figures.VALUE,
    "window and random blocks": figures.OUTPUT,
    "window and sinks": figures.FAINT,
    "window": figures.QUERY,
    SLICES: figures.INK,
}
Pairs = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def run(window_attention: Callable) -> list[dict[str, Any]]:
    """Time each mask, and check it on some rows; one causal head.

    Args:
        window_attention: the reader's, with q, k, v and a window.

    Raises:
        AssertionError: if a way is wrong.
    """
    rows: list[dict[str, Any]] = []
    for n in LENGTHS:
        q, k, v = torch.randn(3, n, WIDTH, device=DEVICE, dtype=DTYPE)
        batched = [x[None, None] for x in (q, k, v)]
        dense = partial(
            F.scaled_dot_product_attention, *batched, is_causal=True
        )
        ways = {DENSE: (dense, causal)}
        ways[SLICES] = partial(sliced, window_attention, q, k, v), window
        for what, pairs in masks(n).items():
            ways[what] = masked(pairs, batched), pairs
        for what, (call, pairs) in ways.items():
            row = measure(what, call, n=n)
            if "ms" in row:
                got = call().view(n, WIDTH)[at_rows(n)]
                row["error"] = relative_error(got, some_rows(pairs, q, k, v))
                assert row["error"] < 0.02, f"{what} is wrong: {row}"
            rows.append(row)
    return rows


def sliced(attend: Callable, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend by the reader's slices, their masks made on the device."""
    with torch.device(DEVICE):
        return attend(q, k, v, WINDOW)


def masked(pairs: Pairs, qkv: list[Tensor]) -> Callable:
    """Return attention under a mask: by FlexAttention, on a GPU.

    On a CPU, FlexAttention would make the whole matrix, too.
    """
    n = qkv[0].shape[-2]
    if not HAS_GPU:
        mask = create_mask(pairs, None, None, n, n, DEVICE)
        return partial(F.scaled_dot_product_attention, *qkv, attn_mask=mask)
    torch.compiler.reset()  # it stops compiling after some masks
    compiled = torch.compile(flex_attention, dynamic=False)
    return partial(compiled, *qkv, block_mask=block_mask(pairs, n))


def block_mask(pairs: Pairs, n: int) -> BlockMask:
    """Say which blocks of pairs hold some, and which hold nothing else.

    ``create_block_mask`` looks at all n × n pairs at once; this looks at the
    rows of one block at a time.
    """
    none = torch.zeros((), dtype=torch.int32, device=DEVICE)
    at_key = torch.arange(n, dtype=torch.int32, device=DEVICE)
    some, every = [], []
    for at_query in at_key.split(BLOCK):
        last = int(at_query[-1]) + 1  # nobody sees further
        seen = pairs(none, none, at_query[:, None], at_key[:last])
        blocks = F.pad(seen, (0, n - last)).view(BLOCK, -1, BLOCK)
        some.append(blocks.any(2).any(0))
        every.append(blocks.all(2).all(0))
    full = torch.stack(every)
    part = torch.stack(some) & ~full
    listed = []
    for blocks in (part, full):  # how many in each row, and which, first
        order = blocks.int().argsort(dim=1, descending=True, stable=True)
        listed += [blocks.sum(1)[None, None].int(), order[None, None].int()]
    return BlockMask.from_kv_blocks(*listed, BLOCK, pairs, (n, n))


def causal(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """Let a query see itself and what is before it."""
    return k <= q


def window(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """Let a query see the last ``WINDOW`` tokens, itself among them."""
    return (k <= q) & (q - k < WINDOW)


def masks(n: int) -> dict[str, Pairs]:
    """Return the masks of the chapter, as functions of a pair.

    The first 64 tokens are the sinks. Two blocks of the past are drawn at
    random for each block of queries.
    """

    def sinks(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return window(b, h, q, k) | ((k <= q) & (k < 64))

    def stride(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return window(b, h, q, k) | ((k <= q) & ((q - k) % STRIDE == 0))

    n_blocks = -(-n // BLOCK)
    generator = torch.Generator().manual_seed(0)
    lots = torch.rand(n_blocks, 2, generator=generator)
    drawn = (lots * torch.arange(1, n_blocks + 1)[:, None]).long().to(DEVICE)

    def blocks(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        of_q, of_k = q // BLOCK, k // BLOCK
        seen = (drawn[of_q, 0] == of_k) | (drawn[of_q, 1] == of_k)
        return window(b, h, q, k) | ((k <= q) & seen)

    return {
        "window": window,
        "window and sinks": sinks,
        "window and random blocks": blocks,
        "window and stride": stride,
    }


def some_rows(pairs: Pairs, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the exact output of some queries under a mask, in float32."""
    rows = at_rows(len(q))
    at_key = torch.arange(len(k), device=DEVICE)
    none = torch.zeros((), dtype=torch.long, device=DEVICE)
    seen = pairs(none, none, rows[:, None], at_key)
    scores = q[rows].float() @ k.float().T / math.sqrt(WIDTH)
    scores = scores.masked_fill(~seen, -math.inf)
    return scores.softmax(-1) @ v.float()


def draw(record: scale.Record) -> Figure:
    """Draw time and memory against the length, for each mask."""
    fig, (left, right) = drawing.panels(
        record,
        COLORS,
        {"Time": drawing.TIME, "Extra memory": drawing.MEMORY},
    )
    n, limits = drawing.lengths(record), record["limits"]
    # q, k, v are read and the output is written, two bytes a number.
    moved = [4 * x * WIDTH * 2 / limits["copy"] * 1e3 for x in n]
    drawing.limit(left, "reading q, k, v", n, moved)
    drawing.memory_limit(right, record)
    return fig
