"""Lab 08: one more token, with caches that lie in different ways."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from contextlab import figures, scale
from contextlab.scale import drawing
from contextlab.scale.device import DEVICE, DTYPE, HAS_GPU, measure
from contextlab.scale.flash import relative_error

FUNCTIONS = ("kvcache.KVCache", "kvcache.PagedKVCache")
# A layer of Llama 3.1 8B, and a small one for a CPU.
HEADS, KV_HEADS, WIDTH = (32, 8, 128) if HAS_GPU else (4, 2, 16)
LENGTHS = (
    (4_096, 16_384, 65_536, 262_144, 1_048_576) if HAS_GPU else (128, 256)
)
LONGEST_WITHOUT = 262_144  # a million tokens would take half a minute
BLOCK = 16
ANY = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
WITHOUT, RESERVED = "no cache", "room reserved (PyTorch)"
JOINED, PAGES = "KVCache, joined anew", "PagedKVCache"
COLORS = {
    WITHOUT: figures.KEY,
    PAGES: figures.OUTPUT,
    JOINED: figures.QUERY,
    RESERVED: figures.VALUE,
}
Given = tuple[Tensor, Tensor, Tensor]


def run(new_cache: Callable, new_pages: Callable) -> Iterator[dict[str, Any]]:
    """Let one layer read one more token after texts of many lengths.

    Args:
        new_cache: the reader's ``KVCache``.
        new_pages: the reader's ``PagedKVCache``.

    Raises:
        AssertionError: if two ways differ.
    """
    for n in LENGTHS:
        text = tuple(
            draw_numbers(1, heads, n, WIDTH)
            for heads in (HEADS, KV_HEADS, KV_HEADS)
        )
        right = exact(*text)
        for what, make in {
            WITHOUT: without,
            JOINED: partial(joined, new_cache),
            PAGES: partial(paged, new_pages),
            RESERVED: reserved,
        }.items():
            if what == WITHOUT and n > LONGEST_WITHOUT:
                continue
            error = relative_error(make(text)()[:, :, -1:], right)
            assert error < 0.02, f"{what} is wrong at {n}: {error:.1e}"
            yield measure(what, make(text), n=n, error=error)


def draw_numbers(*shape: int) -> Tensor:
    """Return random numbers on the device."""
    return torch.randn(*shape, device=DEVICE, dtype=DTYPE)


def exact(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the output of the last query, in float32."""
    last = q[0, :, -1].unflatten(0, (KV_HEADS, -1)).float()
    outputs = []
    for rows, keys, values in zip(last, k[0], v[0], strict=True):
        weights = (rows @ keys.float().T / math.sqrt(WIDTH)).softmax(-1)
        outputs.append(weights @ values.float())
    return torch.cat(outputs)[None, :, None]


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Attend by PyTorch's kernel, groups of query heads to a key head.

    The kernel is named: of others PyTorch makes a new plan for each length.
    """
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION if HAS_GPU else ANY):
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=causal, enable_gqa=True
        )


def without(text: Given) -> Callable:
    """Read the whole text again."""
    return partial(attend, *text, causal=True)


def joined(new_cache: Callable, text: Given) -> Callable:
    """Add a token to the reader's cache."""
    q, k, v = text
    cache = new_cache()
    cache.update(k[:, :, :-1], v[:, :, :-1])
    return lambda: attend(
        q[:, :, -1:], *cache.update(k[:, :, -1:], v[:, :, -1:])
    )


def paged(new_pages: Callable, text: Given) -> Callable:
    """Add a token to a text in the reader's pages, and join its blocks."""
    q, k, v = text
    n_blocks = k.shape[2] // BLOCK + 100  # room for what the clock adds
    with torch.device(DEVICE):
        pages = new_pages(n_blocks, BLOCK, KV_HEADS, WIDTH, DTYPE)
    name = pages.start()

    def append(part: slice) -> None:
        with torch.device(DEVICE):
            pages.append(name, k[0, :, part], v[0, :, part])

    def step() -> Tensor:
        append(slice(-1, None))
        with torch.device(DEVICE):
            keys, values = pages.read(name)
        return attend(q[:, :, -1:], keys[None], values[None])

    append(slice(None, -1))
    return step


def reserved(text: Given) -> Callable:
    """Write a token where room was left for it."""
    q, k, v = text
    keys, values = k.clone(), v.clone()

    def step() -> Tensor:
        keys[:, :, -1:], values[:, :, -1:] = k[:, :, -1:], v[:, :, -1:]
        return attend(q[:, :, -1:], keys, values)

    return step


def draw(record: scale.Record) -> Figure:
    """Draw time and extra memory; the limit is to read the cache once."""
    fig, (left, right) = drawing.panels(
        record,
        COLORS,
        {"One more token": drawing.TIME, "Extra memory": drawing.MEMORY},
    )
    n, limits = drawing.lengths(record), record["limits"]
    cache = [2 * 2 * x * 8 * 128 for x in n]  # of Llama, on a GPU
    read = [x / limits["copy"] * 1e3 for x in cache]
    drawing.limit(left, "reading the\ncache once", n, read)
    drawing.limit(right, "the cache itself", n, cache)
    return fig
