"""Reference answers for chapter 08, *The KV cache*."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def kv_cache_bytes(
    n_tokens: int,
    n_layers: int,
    n_heads: int,
    width: int,
    n_kv_heads: int | None = None,
    batch: int = 1,
    bits: int = 16,
) -> int:
    """Return the bytes of the keys and values that a model keeps.

    Args:
        n_tokens: n, the tokens of each text.
        n_layers: how many layers the model has.
        n_heads: H, the query heads of a layer.
        width: D, the width of one head.
        n_kv_heads: the heads of a layer that have keys and values of their
            own, where several query heads share them; None: all H.
        batch: B, how many texts are kept at once.
        bits: of one number; 16 for half precision.

    Returns:
        Bytes, a Python int; a fraction of a byte is rounded up, once, when
        all is added up.

    Raises:
        ValueError: if H is not a multiple of ``n_kv_heads``.

    Source: Pope et al. 2022.
    """
    if n_kv_heads is not None and n_heads % n_kv_heads:
        raise ValueError(
            f"{n_heads} query heads can't share {n_kv_heads} KV heads evenly"
        )
    ### BEGIN SOLUTION
    if n_kv_heads is None:
        n_kv_heads = n_heads
    numbers = 2 * batch * n_tokens * n_layers * n_kv_heads * width
    return (numbers * bits + 7) // 8
    ### END SOLUTION


class KVCache:
    """The keys and values of one layer, for all tokens so far."""

    def __init__(self) -> None:
        """Start without any token."""
        ### BEGIN SOLUTION
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        ### END SOLUTION

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of the next T tokens.

        Args:
            k: their keys, shape (B, H, T, D), T ≥ 1.
            v: their values, shape (B, H, T, E).

        Returns:
            The keys and values of all n tokens so far, the oldest first:
            shapes (B, H, n, D) and (B, H, n, E), of the dtype that was given.
        """
        ### BEGIN SOLUTION
        if self.keys is not None:
            k = torch.cat([self.keys, k], -2)
            v = torch.cat([self.values, v], -2)
        self.keys, self.values = k, v
        return k, v
        ### END SOLUTION

    def __len__(self) -> int:
        """Return n, the number of tokens so far."""
        ### BEGIN SOLUTION
        return 0 if self.keys is None else self.keys.shape[-2]
        ### END SOLUTION


@torch.no_grad()
def greedy_decode(
    model: Callable[[Tensor, Tensor, list], Tensor],
    ids: Tensor,
    n_new: int,
    caches: list[Any],
) -> Tensor:
    """Continue texts by the most likely token, again and again.

    The prompt goes through the model in one call, and every token goes
    through it once at most: its keys and values are in the caches then. The
    last new token does not go through it at all.

    Args:
        model: ``model(ids, positions, caches)`` takes T tokens, shape (B, T),
            and their positions in the text, shape (T,), counted from 0. It
            adds their keys and values to the caches, lets them attend to all
            that is there, and returns logits, shape (B, T, vocabulary): for
            each token, what may follow it.
        ids: the prompts, shape (B, P), P ≥ 1.
        n_new: how many tokens to add; none of them ends the text.
        caches: one for each layer, empty at first. Pass them on as they are.
            A cache may forget tokens, so its length is not a position.

    Returns:
        Prompts and new tokens, shape (B, P + n_new), dtype int64.
    """
    ### BEGIN SOLUTION
    new = ids
    for _ in range(n_new):
        end = ids.shape[1]
        positions = torch.arange(end - new.shape[1], end)
        logits = model(new, positions, caches)
        new = logits[:, -1:].argmax(-1)  # (B, 1)
        ids = torch.cat([ids, new], 1)
    return ids
    ### END SOLUTION


class RollingKVCache:
    """The keys and values of the first few tokens and of the last ones.

    It keeps the first ``n_sinks`` tokens of the text for good, and besides
    them the last ``window``. All others are forgotten, also by the memory: a
    slice would keep the whole tensor that it was cut from, a copy doesn't.

    Source: Xiao et al. 2023, section 3.2 (which also counts positions within
    the cache; here a key stays as it came).
    """

    def __init__(self, window: int, n_sinks: int = 0) -> None:
        """Start without any token; ``window`` ≥ 1 and ``n_sinks`` ≥ 0."""
        self.window = window
        self.n_sinks = n_sinks
        ### BEGIN SOLUTION
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        ### END SOLUTION

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of the next T tokens, and forget others.

        Args:
            k: their keys, shape (B, H, T, D); T ≥ 1, and may be larger than
                the window.
            v: their values, shape (B, H, T, E).

        Returns:
            The keys and values that are kept, in the order of the text:
            shapes (B, H, m, D) and (B, H, m, E), where m is the number of
            tokens so far, but ``n_sinks + window`` at most.
        """
        ### BEGIN SOLUTION
        if self.keys is not None:
            k = torch.cat([self.keys, k], -2)
            v = torch.cat([self.values, v], -2)
        gone = k.shape[-2] - self.n_sinks - self.window
        if gone > 0:  # what follows the sinks is the oldest
            first, rest = self.n_sinks, self.n_sinks + gone
            k = torch.cat([k[..., :first, :], k[..., rest:, :]], -2)
            v = torch.cat([v[..., :first, :], v[..., rest:, :]], -2)
        self.keys, self.values = k, v
        return k, v
        ### END SOLUTION

    def __len__(self) -> int:
        """Return m, the number of tokens that are kept."""
        ### BEGIN SOLUTION
        return 0 if self.keys is None else self.keys.shape[-2]
        ### END SOLUTION


class PagedKVCache:
    """Keys and values of many texts, in blocks of one common memory.

    A text has a table: the numbers of its blocks, in order. Its token t is in
    slot t % P of block ``table[t // P]``, where P is the size of a block. A
    text takes a block only when it needs one.

    Texts that began alike share blocks. A shared block is not written to: the
    text that wants to add a token to it takes a copy first (copy-on-write).
    Whoever is left alone with a block may write to it.

    Source: Kwon et al. 2023, section 4.
    """

    def __init__(
        self,
        n_blocks: int,
        block_size: int,
        n_heads: int,
        width: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Reserve the memory for all texts, once."""
        self.block_size = block_size
        shape = (n_blocks, n_heads, block_size, width)
        self.keys = torch.zeros(shape, dtype=dtype)
        self.values = torch.zeros(shape, dtype=dtype)
        self.free_blocks = list(reversed(range(n_blocks)))  # 0 is taken first
        self.users = [0] * n_blocks  # how many texts share each block
        self.tables: dict[int, list[int]] = {}  # by text
        self.lengths: dict[int, int] = {}  # by text, in tokens
        self.n_started = 0

    def start(self) -> int:
        """Begin a text without tokens; return the number that names it."""
        text = self.n_started
        self.n_started += 1
        self.tables[text], self.lengths[text] = [], 0
        return text

    def n_free(self) -> int:
        """Return how many blocks no text uses."""
        return len(self.free_blocks)

    def table(self, text: int) -> list[int]:
        """Return the numbers of the blocks of a text, in order."""
        return list(self.tables[text])

    def take_block(self) -> int:
        """Take a free block, for one text; return its number."""
        block = self.free_blocks.pop()
        self.users[block] = 1
        return block

    def append(self, text: int, k: Tensor, v: Tensor) -> None:
        """Add the keys and values of the next T tokens of a text.

        Args:
            text: which one.
            k: keys, shape (H, T, D), T ≥ 1.
            v: values, shape (H, T, D).

        Raises:
            MemoryError: if there are too few free blocks. Nothing has changed
                then, neither of this text nor of the others.
        """
        ### BEGIN SOLUTION
        size, table = self.block_size, self.tables[text]
        start = self.lengths[text]
        end = start + k.shape[1]
        is_shared = start % size > 0 and self.users[table[-1]] > 1
        needed = -(-end // size) - len(table) + is_shared
        if needed > self.n_free():
            raise MemoryError(f"{needed} blocks needed, {self.n_free()} free")
        if is_shared:
            old, own = table[-1], self.take_block()
            self.keys[own] = self.keys[old]
            self.values[own] = self.values[old]
            self.users[old] -= 1
            table[-1] = own
        while len(table) * size < end:
            table.append(self.take_block())
        t = torch.arange(start, end)
        blocks, slots = torch.tensor(table)[t // size], t % size
        self.keys[blocks, :, slots] = k.transpose(0, 1)  # (T, H, D)
        self.values[blocks, :, slots] = v.transpose(0, 1)
        self.lengths[text] = end
        ### END SOLUTION

    def fork(self, text: int) -> int:
        """Begin a text that has all tokens of another, and share its blocks.

        Returns:
            The number of the new text. No block is taken or copied.
        """
        ### BEGIN SOLUTION
        twin = self.start()
        self.tables[twin] = list(self.tables[text])
        self.lengths[twin] = self.lengths[text]
        for block in self.tables[text]:
            self.users[block] += 1
        return twin
        ### END SOLUTION

    def free(self, text: int) -> None:
        """End a text. A block that nobody uses any more is free again."""
        ### BEGIN SOLUTION
        for block in self.tables.pop(text):
            self.users[block] -= 1
            if self.users[block] == 0:
                self.free_blocks.append(block)
        del self.lengths[text]
        ### END SOLUTION

    def read(self, text: int) -> tuple[Tensor, Tensor]:
        """Return the keys and values of a text of n tokens, in order.

        Returns:
            Shapes (H, n, D) both.
        """
        ### BEGIN SOLUTION
        table, n_tokens = self.tables[text], self.lengths[text]
        k = self.keys[table].transpose(0, 1)  # (H, blocks, P, D)
        v = self.values[table].transpose(0, 1)
        return k.flatten(1, 2)[:, :n_tokens], v.flatten(1, 2)[:, :n_tokens]
        ### END SOLUTION


def quantize_kv(
    x: Tensor, bits: int = 4, dim: int = -1
) -> tuple[Tensor, Tensor, Tensor]:
    """Round numbers to a few evenly spaced ones, group by group.

    The numbers along ``dim`` are a group. Each group has 2^bits levels, the
    lowest at its smallest number, the highest at its largest, and each number
    goes to the level that is nearest to it.

    Args:
        x: keys or values, shape (..., T, D).
        bits: of a code, 1 to 8.
        dim: with -1, the numbers of a token are a group ("per token"); with
            -2, those of a channel ("per channel"); any other dimension of
            x will do, too.

    Returns:
        - the codes 0 to 2^bits - 1, dtype uint8, shape of x;
        - the scale, the distance of two levels, of the shape of x with 1 at
          ``dim``, and of its dtype;
        - low, the lowest level, likewise.

        A number is then within scale / 2 of ``code · scale + low``. A group of
        equal numbers is given back as it was, without NaN.

    Source: Liu et al. 2024.
    """
    if not 1 <= bits <= 8:
        raise ValueError(f"a code has 1 to 8 bits, not {bits}")
    ### BEGIN SOLUTION
    low = x.amin(dim, keepdim=True)
    highest = 2**bits - 1
    scale = (x.amax(dim, keepdim=True) - low) / highest
    divisor = scale.masked_fill(scale == 0, 1.0)
    codes = ((x - low) / divisor).round().clamp(0, highest)
    return codes.to(torch.uint8), scale, low
    ### END SOLUTION


def dequantize_kv(codes: Tensor, scale: Tensor, low: Tensor) -> Tensor:
    """Turn codes into the numbers that they stand for.

    Args:
        codes: dtype uint8, shape (..., T, D).
        scale: the distance of two levels, broadcastable to the codes.
        low: the lowest level, likewise.

    Returns:
        Shape of the codes, dtype of the scale, which may be float16 or
        bfloat16.
    """
    ### BEGIN SOLUTION
    return codes.to(scale.dtype) * scale + low
    ### END SOLUTION
