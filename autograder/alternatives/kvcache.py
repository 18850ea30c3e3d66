"""Right answers of chapter 08 that go another way than the reference."""

import math
from collections import Counter, deque
from fractions import Fraction

import numpy as np
import torch


def bytes_layer_by_layer(
    n_tokens, n_layers, n_heads, width, n_kv_heads=None, batch=1, bits=16
):
    """Add up one layer after the other, in whole bits."""
    if n_heads % (n_kv_heads or n_heads):
        raise ValueError("heads that share nothing evenly")
    total = 0
    for _ in range(n_layers):
        for _ in ("keys", "values"):
            total += batch * n_tokens * (n_kv_heads or n_heads) * width * bits
    whole, rest = divmod(total, 8)
    return whole + (rest > 0)


def bytes_as_a_fraction(
    n_tokens, n_layers, n_heads, width, n_kv_heads=None, batch=1, bits=16
):
    """Share the model's whole width among the groups of query heads."""
    d_model = n_heads * width
    group, rest = divmod(n_heads, n_kv_heads or n_heads)
    if rest:
        raise ValueError("heads are left over")
    a_token = Fraction(2 * n_layers * d_model * bits, 8 * group)
    return math.ceil(a_token * n_tokens * batch)


class ListOfChunks:
    """Keep what was given in lists, and join them when asked."""

    def __init__(self):
        self.chunks = []

    def update(self, k, v):
        """Add a pair."""
        self.chunks.append((k.clone(), v.clone()))
        keys, values = zip(*self.chunks, strict=True)
        return torch.cat(keys, dim=2), torch.cat(values, dim=2)

    def __len__(self):
        """Add up the chunks."""
        return sum(k.size(2) for k, _ in self.chunks)


class DoublingBuffer:
    """Reserve more than is needed, twice as much each time it is full."""

    def __init__(self):
        self.n, self.room = 0, 0

    def _grown(self, old, like):
        b, h, _, d = like.shape
        new = like.new_empty(b, h, self.room, d)
        if self.n:
            new[:, :, : self.n] = old[:, :, : self.n]
        return new

    def update(self, k, v):
        """Write behind what is there."""
        end = self.n + k.shape[2]
        if end > self.room:
            self.room = max(2 * self.room, end)
            self.k = self._grown(getattr(self, "k", None), k)
            self.v = self._grown(getattr(self, "v", None), v)
        self.k[:, :, self.n : end] = k
        self.v[:, :, self.n : end] = v
        self.n = end
        return [self.k[:, :, :end], self.v[:, :, :end]]

    def __len__(self):
        """Return how much is written."""
        return self.n


def decode_prefill_first(model, ids, n_new, caches):
    """Say prefill and decode in so many words."""
    if n_new == 0:
        return ids
    batch, n_prompt = ids.shape
    out = torch.empty(batch, n_prompt + n_new, dtype=torch.long)
    out[:, :n_prompt] = ids
    logits = model(ids, torch.arange(n_prompt), caches)[:, -1]
    for t in range(n_prompt, n_prompt + n_new):
        out[:, t] = torch.max(logits, dim=-1).indices
        if t < n_prompt + n_new - 1:
            logits = model(out[:, t : t + 1], torch.tensor([t]), caches)[:, 0]
    return out


def decode_by_recursion(model, ids, n_new, caches, start=0):
    """Add one token, then the rest."""
    if not n_new:
        return ids
    new = ids[:, start:]
    positions = start + torch.arange(new.shape[1])
    with torch.no_grad():
        logits = model(new, positions, caches)
    best = logits[:, -1].sort(-1, descending=True).indices[:, :1]
    longer = torch.cat((ids, best.to(ids.dtype)), -1)
    return decode_by_recursion(model, longer, n_new - 1, caches, ids.shape[1])


class DequeOfTokens:
    """Keep single tokens; the deque forgets by itself."""

    def __init__(self, window, n_sinks=0):
        self.sinks, self.n_sinks = [], n_sinks
        self.recent = deque(maxlen=window)

    def update(self, k, v):
        """Hand out the tokens one by one."""
        for t in range(k.shape[2]):
            one = k[:, :, t : t + 1].clone(), v[:, :, t : t + 1].clone()
            if len(self.sinks) < self.n_sinks:
                self.sinks.append(one)
            else:
                self.recent.append(one)
        kept = self.sinks + list(self.recent)
        keys, values = zip(*kept, strict=True)
        return torch.cat(keys, 2), torch.cat(values, 2)

    def __len__(self):
        """Count what is kept."""
        return len(self.sinks) + len(self.recent)


class RingBuffer:
    """Write each token to slot t % W, and put them in order to read."""

    def __init__(self, window, n_sinks=0):
        self.window, self.n_sinks, self.seen = window, n_sinks, 0

    def update(self, k, v):
        """Overwrite the oldest."""
        if self.seen == 0:
            room = self.n_sinks + self.window
            self.k = torch.zeros(*k.shape[:2], room, k.shape[3], dtype=k.dtype)
            self.v = torch.zeros(*v.shape[:2], room, v.shape[3], dtype=v.dtype)
        for t in range(k.shape[2]):
            slot = self.seen
            if slot >= self.n_sinks:
                slot = self.n_sinks + (slot - self.n_sinks) % self.window
            self.k[:, :, slot], self.v[:, :, slot] = k[:, :, t], v[:, :, t]
            self.seen += 1
        order = list(range(min(self.seen, self.n_sinks)))
        after = max(self.seen - self.n_sinks, 0)
        for t in range(max(after - self.window, 0), after):
            order.append(self.n_sinks + t % self.window)
        return self.k[:, :, order], self.v[:, :, order]

    def __len__(self):
        """Count what is kept."""
        return min(self.seen, self.n_sinks + self.window)


class PagesByCounting:
    """Keep no counts: look who uses a block when it matters."""

    def __init__(self, n_blocks, block_size, n_heads, width, dtype=None):
        dtype = dtype or torch.float32
        self.size = block_size
        self.pool = torch.zeros(
            2, n_heads, n_blocks * block_size, width, dtype=dtype
        )
        self.n_blocks = n_blocks
        self.texts = {}  # name: [table, length]
        self.names = 100

    def _users(self):
        return Counter(b for table, _ in self.texts.values() for b in table)

    def start(self):
        """Name a text."""
        self.names += 7
        self.texts[self.names] = [[], 0]
        return self.names

    def n_free(self):
        """Subtract what is used."""
        return self.n_blocks - len(self._users())

    def table(self, text):
        """Return the blocks."""
        return self.texts[text][0][:]

    def append(self, text, k, v):
        """Build the new table first, and write when all is well."""
        users = self._users()
        old, start = self.texts[text]
        free = [b for b in range(self.n_blocks) if b not in users]
        table, copies = old[:], []
        end = start + k.shape[1]
        try:
            if start % self.size and users[table[-1]] > 1:
                copies.append((table[-1], free[0]))
                table[-1] = free.pop(0)
            while len(table) < math.ceil(end / self.size):
                table.append(free.pop(0))
        except IndexError:
            raise MemoryError("no block is left") from None
        for a, b in copies:
            a, b = (slice(i * self.size, (i + 1) * self.size) for i in (a, b))
            self.pool[:, :, b] = self.pool[:, :, a]
        for t in range(start, end):
            slot = table[t // self.size] * self.size + t % self.size
            self.pool[0, :, slot] = k[:, t - start]
            self.pool[1, :, slot] = v[:, t - start]
        self.texts[text] = [table, end]

    def fork(self, text):
        """Copy the table."""
        twin = self.start()
        table, n = self.texts[text]
        self.texts[twin] = [table[:], n]
        return twin

    def free(self, text):
        """Forget the table."""
        self.texts.pop(text)

    def read(self, text):
        """Look every slot up."""
        table, n = self.texts[text]
        slots = [
            table[t // self.size] * self.size + t % self.size for t in range(n)
        ]
        k, v = self.pool[:, :, slots]
        return k, v


class _Block:
    def __init__(self, keys, values):
        self.keys, self.values, self.users = keys, values, 1


class PagesOfObjects:
    """Make each block a list of tokens, and count who holds it."""

    def __init__(
        self, n_blocks, block_size, n_heads, width, dtype=torch.float32
    ):
        self.left, self.size = n_blocks, block_size
        self.none = torch.zeros(n_heads, 0, width, dtype=dtype)
        self.texts = []

    def start(self):
        """Begin a list of blocks."""
        self.texts.append([])
        return len(self.texts) - 1

    def n_free(self):
        """Return what is left."""
        return self.left

    def table(self, text):
        """Number the blocks by their identity."""
        return [id(block) for block in self.texts[text]]

    def append(self, text, k, v):
        """Fill the last block, then new ones."""
        blocks = self.texts[text]
        last = blocks[-1] if blocks else None
        room = self.size - len(last.keys) if last else 0
        copy = room > 0 and last.users > 1
        needed = max(0, math.ceil((k.shape[1] - room) / self.size)) + copy
        if needed > self.left:
            raise MemoryError(needed)
        self.left -= needed
        if copy:
            last.users -= 1
            blocks[-1] = _Block(last.keys[:], last.values[:])
        for key, value in zip(k.unbind(1), v.unbind(1), strict=True):
            if not blocks or len(blocks[-1].keys) == self.size:
                blocks.append(_Block([], []))
            blocks[-1].keys.append(key.clone())
            blocks[-1].values.append(value.clone())

    def fork(self, text):
        """Hold the same blocks."""
        for block in self.texts[text]:
            block.users += 1
        self.texts.append(self.texts[text][:])
        return len(self.texts) - 1

    def free(self, text):
        """Let go of the blocks."""
        for block in self.texts[text]:
            block.users -= 1
            self.left += block.users == 0
        self.texts[text] = None

    def read(self, text):
        """Put all tokens side by side."""
        blocks = self.texts[text]
        keys = [key for block in blocks for key in block.keys]
        values = [value for block in blocks for value in block.values]
        if not keys:
            return self.none, self.none
        return torch.stack(keys, 1), torch.stack(values, 1)


def quantize_to_the_nearest_level(x, bits=4, dim=-1):
    """Write all levels down, and look for the nearest."""
    low, high = x.aminmax(dim=dim, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    levels = [low + n * scale for n in range(2**bits)]
    gaps = torch.stack([(x - level).abs() for level in levels])
    return gaps.argmin(0).to(torch.uint8), scale, low


def quantize_in_numpy(x, bits=4, dim=-1):
    """Do it without PyTorch; equal numbers get a scale of one."""
    a = x.numpy()
    low = a.min(axis=dim, keepdims=True)
    scale = (a.max(axis=dim, keepdims=True) - low) / (2**bits - 1)
    scale = np.where(scale > 0, scale, 1).astype(a.dtype)
    codes = np.floor((a - low) / scale + 0.5)
    codes = np.clip(codes, 0, 2**bits - 1).astype(np.uint8)
    return tuple(torch.from_numpy(y.copy()) for y in (codes, scale, low))


def dequantize_by_addcmul(codes, scale, low):
    """Multiply and add in one."""
    return torch.addcmul(low, codes.to(low.dtype), scale)


def dequantize_by_interpolation(codes, scale, low):
    """Go from the lowest level to the highest by the code's share."""
    high = low + 255 * scale
    return torch.lerp(low, high, codes.to(scale.dtype) / 255)


ALTERNATIVES = {
    "kv_cache_bytes": [bytes_layer_by_layer, bytes_as_a_fraction],
    "KVCache": [ListOfChunks, DoublingBuffer],
    "greedy_decode": [decode_prefill_first, decode_by_recursion],
    "RollingKVCache": [DequeOfTokens, RingBuffer],
    "PagedKVCache": [PagesByCounting, PagesOfObjects],
    "quantize_kv": [quantize_to_the_nearest_level, quantize_in_numpy],
    "dequantize_kv": [dequantize_by_addcmul, dequantize_by_interpolation],
}
