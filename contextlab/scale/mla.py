"""Lab 09: one step of decoding, for what each kind of attention keeps."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from contextlab import figures, scale
from contextlab.scale import drawing
from contextlab.scale.device import (
    DEVICE,
    DTYPE,
    HAS_GPU,
    free_bytes,
    measure,
)
from contextlab.scale.flash import relative_error

FUNCTIONS = ("mla.grouped_query_attention", "mla.absorbed_decode")
# DeepSeek-V2's sizes, and smaller ones for a CPU.
HEADS, WIDTH = (128, 128) if HAS_GPU else (8, 16)
LATENT, ROPE = (512, 64) if HAS_GPU else (32, 8)
GROUPS = 8 if HAS_GPU else 2
FIRST = 16_384 if HAS_GPU else 256
DOUBLINGS = 8 if HAS_GPU else 2
MHA, GQA, MQA = "MHA, ours", "GQA, ours", "MQA, ours"
PEER = "GQA, PyTorch"
NAIVE, ABSORBED = "MLA, keys made anew", "MLA, absorbed"
COLORS = {
    MHA: figures.KEY,
    GQA: figures.QUERY,
    PEER: figures.FAINT,
    MQA: figures.INK,
    NAIVE: figures.VALUE,
    ABSORBED: figures.OUTPUT,
}


def run(grouped: Callable, absorbed: Callable) -> list[dict[str, Any]]:
    """Let one new token read a cache of n, until the memory ends.

    Args:
        grouped: the reader's ``grouped_query_attention``.
        absorbed: the reader's ``absorbed_decode``.

    Raises:
        AssertionError: if a way is wrong.
    """
    check(grouped, absorbed)
    rows: list[dict[str, Any]] = []
    over: set[str] = set()
    for n in (FIRST << doubling for doubling in range(DOUBLINGS)):
        for what, (kept, make) in ways(grouped, absorbed).items():
            n_bytes = n * kept * DTYPE.itemsize
            if what in over:
                continue
            # What comes in has to fit besides what the call makes.
            if n_bytes > 0.95 * free_bytes():
                row = {"what": what, "n": n, "end": "out of memory"}
            else:
                row = measure(what, make(n), n=n, kept=n_bytes)
            if "end" in row:
                over.add(what)
            rows.append(row)
    return rows


def ways(
    grouped: Callable, absorbed: Callable
) -> dict[str, tuple[int, Callable[[int], Callable]]]:
    """Return the numbers kept of a token, and what makes a step of n."""

    def shared(attend: Callable, groups: int, n: int) -> Callable:
        q = draw_numbers(1, HEADS, 1, WIDTH)
        k, v = (draw_numbers(1, groups, n, WIDTH) for _ in "kv")
        return partial(attend, q, k, v)

    def latent(attend: Callable, n: int) -> Callable:
        return partial(attend, *latent_inputs(n))

    by_pytorch = partial(F.scaled_dot_product_attention, enable_gqa=True)
    return {
        MHA: (2 * HEADS * WIDTH, partial(shared, grouped, HEADS)),
        GQA: (2 * GROUPS * WIDTH, partial(shared, grouped, GROUPS)),
        PEER: (2 * GROUPS * WIDTH, partial(shared, by_pytorch, GROUPS)),
        MQA: (2 * WIDTH, partial(shared, grouped, 1)),
        NAIVE: (LATENT + ROPE, partial(latent, naive_decode)),
        ABSORBED: (LATENT + ROPE, partial(latent, absorbed)),
    }


def draw_numbers(*shape: int) -> Tensor:
    """Return random numbers on the device."""
    return torch.randn(*shape, device=DEVICE, dtype=DTYPE)


def latent_inputs(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return one token's queries, a cache of latents, and the weight."""
    q_nope, q_rope = (
        draw_numbers(1, HEADS, WIDTH),
        draw_numbers(1, HEADS, ROPE),
    )
    weight = draw_numbers(HEADS * 2 * WIDTH, LATENT) / math.sqrt(LATENT)
    return q_nope, q_rope, draw_numbers(1, n, LATENT + ROPE), weight


def naive_decode(
    q_nope: Tensor, q_rope: Tensor, cache: Tensor, kv_b: Tensor
) -> Tensor:
    """Make the keys and values of all heads, then attend as usual."""
    latent, rope_key = cache.split([LATENT, ROPE], -1)
    made = (latent @ kv_b.T).unflatten(-1, (HEADS, 2 * WIDTH)).transpose(1, 2)
    k_rope = rope_key[:, None].expand(-1, HEADS, -1, -1)
    k = torch.cat([made[..., :WIDTH], k_rope], -1)
    q = torch.cat([q_nope, q_rope], -1)[:, :, None]
    v = made[..., WIDTH:]
    return F.scaled_dot_product_attention(q, k, v)[:, :, 0]


def check(grouped: Callable, absorbed: Callable) -> None:
    """Compare with PyTorch, at a short length.

    Raises:
        AssertionError: if a way is wrong.
    """
    q = draw_numbers(1, HEADS, 1, WIDTH)
    k, v = (draw_numbers(1, GROUPS, 300, WIDTH) for _ in "kv")
    right = F.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), enable_gqa=True
    )
    assert relative_error(grouped(q, k, v), right) < 0.02, "GQA is wrong"
    given = latent_inputs(300)
    right = naive_decode(*(x.double() for x in given))
    assert relative_error(absorbed(*given), right) < 0.05, "MLA is wrong"


def draw(record: scale.Record) -> Figure:
    """Draw time and what is kept; the limit is to read it once."""
    kept = ("bytes", lambda row: row["kept"])
    fig, (left, right) = drawing.panels(
        record, COLORS, {"One step": drawing.TIME, "Kept in a layer": kept}
    )
    latents = [r for r in record["rows"] if r["what"] == ABSORBED]
    latents = [r for r in latents if "ms" in r]
    read = [r["kept"] / record["limits"]["copy"] * 1e3 for r in latents]
    n = [r["n"] for r in latents]
    drawing.limit(left, "reading the\nlatents once", n, read)
    drawing.memory_limit(right, record)
    return fig
