"""Right answers of chapter 04 that go another way than the reference."""

import math
import statistics

import numpy as np
import torch
from torch import Tensor


def pairs_by_adding_up(n_queries, n_keys, causal=False):
    """Add up how many keys each query has."""
    if not causal:
        return sum(n_keys for _ in range(n_queries))
    if n_queries > n_keys:
        raise ValueError("too many queries")
    return sum(range(n_keys - n_queries + 1, n_keys + 1))


def pairs_by_rectangle_and_triangle(n_queries, n_keys, causal=False):
    """The past is a rectangle; what is new is a triangle."""
    if not causal:
        return n_queries * n_keys
    past = n_keys - n_queries
    if past < 0:
        raise ValueError("too many queries")
    return n_queries * past + math.comb(n_queries + 1, 2)


def bytes_of_an_empty_tensor(
    n_tokens, n_layers=1, n_heads=1, dtype=torch.float32
):
    """Ask PyTorch, with a tensor that has a shape and no memory."""
    shape = (n_layers, n_heads, n_tokens, n_tokens)
    return torch.empty(shape, dtype=dtype, device="meta").nbytes


def bytes_by_bits(n_tokens, n_layers=1, n_heads=1, dtype=torch.float32):
    """Count bits, eight to a byte."""
    bits = torch.finfo(dtype).bits
    return n_tokens * n_tokens * n_heads * n_layers * bits // 8


def flops_by_product(n_queries, n_keys, width, causal=False):
    """Count each product by its own shapes."""
    pairs = n_queries * n_keys
    if causal:
        pairs = (2 * n_keys - n_queries + 1) * n_queries // 2
    scores = 2 * pairs * width
    output = 2 * pairs * width
    return scores + output


def flops_query_by_query(n_queries, n_keys, width, causal=False):
    """Add up what each query costs."""
    past = n_keys - n_queries
    total = 0
    for t in range(n_queries):
        seen = past + t + 1 if causal else n_keys
        total += 4 * seen * width
    return total


def crossover_in_closed_form(d_model, d_hidden, causal=False):
    """Solve the inequality on paper."""
    if causal:
        return 4 * d_model + 2 * d_hidden
    return 2 * d_model + d_hidden + 1


def crossover_by_bisection(d_model, d_hidden, causal=False):
    """Double until attention costs more, then halve the interval."""

    def costs_more(n):
        pairs = n * (n + 1) // 2 if causal else n * n
        weights = 8 * d_model**2 + 4 * d_model * d_hidden
        return 4 * pairs * d_model > n * weights

    high = 1
    while not costs_more(high):
        high *= 2
    low = high // 2  # doesn't cost more, or is 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if costs_more(middle) else (middle, high)
    return high


def exponent_by_polyfit(lengths, costs):
    """Let NumPy fit the line."""
    slope, _ = np.polyfit(np.log2(lengths), np.log2(costs), deg=1)
    return float(slope)


def exponent_by_statistics(lengths, costs):
    """Let the standard library fit the line."""
    x, y = map(math.log10, lengths), map(math.log10, costs)
    return statistics.linear_regression(list(x), list(y)).slope


def exponent_in_float32(lengths, costs):
    """Solve the normal equations with PyTorch's default numbers."""
    x = torch.tensor(lengths).float().log()
    y = torch.tensor(costs).float().log()
    x, y = x - x.mean(), y - y.mean()
    return (x @ y / (x @ x)).item()


def _attend(q, k, v, mask):
    scores = torch.einsum("...td,...sd->...ts", q, k) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1).nan_to_num(0.0) @ v


def chunks_by_split(q, k, v, mask=None, chunk=128):
    """Split queries and mask alike, and write into a given output."""
    if chunk < 1:
        raise ValueError("a chunk has at least one query")
    parts = q.split(chunk, dim=-2)
    masks = [None] * len(parts)
    if mask is not None:
        shape = torch.broadcast_shapes(mask.shape, (q.shape[-2], k.shape[-2]))
        masks = mask.broadcast_to(shape).split(chunk, dim=-2)
    output = q.new_empty(*q.shape[:-1], v.shape[-1])
    start = 0
    for part, rows in zip(parts, masks, strict=True):
        stop = start + part.shape[-2]
        output[..., start:stop, :] = _attend(part, k, v, rows)
        start = stop
    return output


def chunks_of_one_query(q, k, v, mask=None, chunk=128):
    """Attend query by query, whatever the chunk may be."""
    if mask is not None and mask.ndim == 1:
        mask = mask[None]
    outputs = []
    for t in range(q.shape[-2]):
        rows = mask
        if mask is not None and mask.shape[-2] > 1:
            rows = mask[..., t : t + 1, :]
        outputs.append(_attend(q[..., t : t + 1, :], k, v, rows))
    return torch.cat(outputs, -2)


def chunks_with_a_padded_end(q, k, v, mask=None, chunk=128):
    """Pad the queries to whole chunks, and cut the output."""
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    if mask is not None:
        mask = mask.expand(*mask.shape[:-2], n_queries, n_keys)
    outputs = []
    for start in range(0, n_queries, chunk):
        rows = q[..., start : start + chunk, :]
        short = chunk - rows.shape[-2]
        rows = torch.nn.functional.pad(rows, (0, 0, 0, short))
        part = None
        if mask is not None:
            part = mask[..., start : start + chunk, :]
            part = torch.nn.functional.pad(part, (0, 0, 0, short))
        outputs.append(_attend(rows, k, v, part))
    return torch.cat(outputs, dim=-2)[..., :n_queries, :]


def chunks_of_keys_too(q, k, v, mask=None, chunk=128):
    """Chunk the keys as well, and carry maximum and sum along."""
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    if mask is not None:
        mask = mask.expand(*mask.shape[:-2], n_queries, n_keys)

    def one(start):
        rows = slice(start, start + chunk)
        asking = q[..., rows, :]
        peak = asking.new_full((*asking.shape[:-1], 1), -math.inf)
        total, output = torch.zeros_like(peak), 0.0
        for first in range(0, n_keys, chunk):
            keys = slice(first, first + chunk)
            scores = asking @ k[..., keys, :].mT / math.sqrt(q.shape[-1])
            if mask is not None:
                part = mask[..., rows, keys]
                scores = scores.masked_fill(~part, -math.inf)
            higher = torch.maximum(peak, scores.amax(-1, keepdim=True))
            safe = higher.masked_fill(higher == -math.inf, 0.0)
            fade, exps = (peak - safe).exp(), (scores - safe).exp()
            total = total * fade + exps.sum(-1, keepdim=True)
            output = output * fade + exps @ v[..., keys, :]
            peak = higher
        return output / total.masked_fill(total == 0, 1.0)

    done: list[Tensor] = [one(s) for s in range(0, n_queries, chunk)]
    return torch.cat(done, dim=-2)


ALTERNATIVES = {
    "attention_pairs": [pairs_by_adding_up, pairs_by_rectangle_and_triangle],
    "score_bytes": [bytes_of_an_empty_tensor, bytes_by_bits],
    "attention_flops": [flops_by_product, flops_query_by_query],
    "crossover_length": [crossover_in_closed_form, crossover_by_bisection],
    "growth_exponent": [
        exponent_by_polyfit,
        exponent_by_statistics,
        exponent_in_float32,
    ],
    "chunked_attention": [
        chunks_by_split,
        chunks_of_one_query,
        chunks_with_a_padded_end,
        chunks_of_keys_too,
    ],
}
