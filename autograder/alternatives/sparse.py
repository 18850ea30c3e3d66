"""Right answers of chapter 10 that go another way than the reference."""

import math
import random

import numpy as np
import torch
import torch.nn.functional as F

INF = math.inf


def window_by_triangles(n_queries, n_keys, window, causal=True):
    """Take a band between two triangles."""
    ones = torch.ones(n_queries, n_keys, dtype=torch.bool)
    shift = n_keys - n_queries
    ahead = 0 if causal else window - 1
    return ones.tril(shift + ahead).triu(shift - window + 1)


def window_by_numpy(n_queries, n_keys, window, causal=True):
    """Fill the rows one by one, in NumPy."""
    mask = np.zeros((n_queries, n_keys), dtype=bool)
    for row in range(n_queries):
        at = n_keys - n_queries + row
        end = at + 1 if causal else at + window
        mask[row, max(0, at - window + 1) : end] = True
    return torch.from_numpy(mask)


def global_by_filling(n_queries, n_keys, positions, causal=True):
    """Fill whole rows and columns, and cut the future off."""
    mask = torch.zeros(n_keys, n_keys, dtype=torch.bool)
    for at in positions:
        mask[at, :] = True
        mask[:, at] = True
    if causal:
        mask &= torch.ones_like(mask).tril()
    return mask[n_keys - n_queries :]


def global_pair_by_pair(n_queries, n_keys, positions, causal=True):
    """Ask about every pair of positions."""
    chosen = set(positions)
    return torch.tensor(
        [
            [(t in chosen or s in chosen) and not (causal and s > t)
             for s in range(n_keys)]
            for t in range(n_keys - n_queries, n_keys)
        ],
        dtype=torch.bool,
    )  # fmt: skip


def strided_by_slices(n_queries, n_keys, stride, causal=True):
    """Set every stride-th entry of a row by a slice."""
    mask = torch.zeros(n_queries, n_keys, dtype=torch.bool)
    for row in range(n_queries):
        at = n_keys - n_queries + row
        end = at + 1 if causal else n_keys
        mask[row, at % stride : end : stride] = True
    return mask


def strided_by_rests(n_queries, n_keys, stride, causal=True):
    """Compare what positions leave when divided by the stride."""
    rest = torch.arange(n_keys).remainder(stride)
    mask = torch.eq(rest[-n_queries:].unsqueeze(1), rest.unsqueeze(0))
    if causal:
        mask = mask.logical_and(
            torch.ones(n_queries, n_keys).tril(n_keys - n_queries).bool()
        )
    return mask


def bigbird_by_sampling(n_tokens, block, n_global=1, n_random=1, seed=0):
    """Draw with Python's own generator, block by block."""
    rng = random.Random(seed)
    n_blocks = math.ceil(n_tokens / block)
    mask = torch.zeros(n_tokens, n_tokens, dtype=torch.bool)
    for a in range(n_blocks):
        seen = {a - 1, a, a + 1} | set(range(n_global))
        seen = {b for b in seen if 0 <= b < n_blocks}
        if a < n_global:
            seen = set(range(n_blocks))
        left = sorted(set(range(n_blocks)) - seen)
        seen |= set(rng.sample(left, min(n_random, len(left))))
        for b in seen:
            rows = slice(a * block, (a + 1) * block)
            mask[rows, b * block : (b + 1) * block] = True
    return mask


def bigbird_by_multinomial(n_tokens, block, n_global=1, n_random=1, seed=0):
    """Draw by multinomial among equal chances, and spread by Kronecker."""
    generator = torch.Generator()
    generator.manual_seed(seed)
    n_blocks = (n_tokens + block - 1) // block
    ones = torch.ones(n_blocks, n_blocks, dtype=torch.bool)
    seen = ones.tril(1) & ones.triu(-1)
    seen[:n_global] = True
    seen[:, :n_global] = True
    for row in seen:
        left = (~row).nonzero().flatten()
        n_drawn = min(n_random, len(left))
        if n_drawn:
            chances = torch.ones(len(left))
            drawn = torch.multinomial(chances, n_drawn, generator=generator)
            row[left[drawn]] = True
    tile = torch.ones(block, block)
    return torch.kron(seen.float(), tile)[:n_tokens, :n_tokens] > 0


def window_attention_query_by_query(q, k, v, window):
    """Let each query attend to a slice, by PyTorch's own attention."""
    shift = k.shape[-2] - q.shape[-2]
    outputs = []
    for t in range(q.shape[-2]):
        near = slice(max(0, t + shift - window + 1), t + shift + 1)
        outputs.append(
            F.scaled_dot_product_attention(
                q[..., t : t + 1, :], k[..., near, :], v[..., near, :]
            )
        )
    return torch.cat(outputs, dim=-2)


def window_attention_by_unfolding(q, k, v, window):
    """Look at keys and values through windows, which are views."""
    n_queries = q.shape[-2]
    keys = F.pad(k, (0, 0, window - 1, 0)).unfold(-2, window, 1)
    values = F.pad(v, (0, 0, window - 1, 0)).unfold(-2, window, 1)
    keys = keys[..., -n_queries:, :, :]  # (..., T, D, w)
    values = values[..., -n_queries:, :, :]
    scores = torch.einsum("...td,...tdw->...tw", q, keys)
    scores = scores / math.sqrt(q.shape[-1])
    at = torch.arange(k.shape[-2] - n_queries, k.shape[-2])
    back = torch.arange(window - 1, -1, -1)
    scores = scores.masked_fill(back > at[:, None], -INF)
    weights = scores.softmax(-1)
    return torch.einsum("...tw,...tew->...te", weights, values)


def window_attention_of_two_blocks(q, k, v, window):
    """Give each block of queries its own block of keys and the one before.

    This is how Longformer does it: the text is filled up to whole blocks.
    """
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    shift = n_keys - n_queries
    fill = -n_keys % window
    q = F.pad(q, (0, 0, shift, fill))
    k, v = (F.pad(x, (0, 0, window, fill)) for x in (k, v))
    n_blocks = (n_keys + fill) // window
    q = q.unflatten(-2, (n_blocks, window))
    k, v = (
        torch.cat(
            [x[..., :-1, :, :], x[..., 1:, :, :]], -2
        )  # the block before, and its own
        for x in (y.unflatten(-2, (n_blocks + 1, window)) for y in (k, v))
    )
    scores = q @ k.mT / q.shape[-1] ** 0.5  # (..., blocks, w, 2w)
    back = torch.arange(window)[:, None] + window - torch.arange(2 * window)
    real = torch.arange(2 * window) >= window
    mask = (back >= 0) & (back < window)
    masks = mask.expand(n_blocks, -1, -1).clone()
    masks[0] &= real  # there is nothing before the first block
    weights = scores.masked_fill(~masks, -INF).softmax(-1)
    output = (weights @ v).flatten(-3, -2)
    return output[..., shift:n_keys, :]


def reach_by_indices(masks):
    """Follow who hears whom, row by row."""
    n_tokens = len(masks[0])
    known = [{t} for t in range(n_tokens)]
    for mask in masks:
        known = [
            set(known[t]).union(
                *(known[u] for u in mask[t].nonzero().flatten().tolist())
            )
            for t in range(n_tokens)
        ]
    reach = torch.zeros(n_tokens, n_tokens, dtype=torch.bool)
    for t, tokens in enumerate(known):
        reach[t, list(tokens)] = True
    return reach


def reach_from_the_top(masks):
    """Multiply from the last layer down, in NumPy, with the stream in."""
    layers = [m.numpy() | np.eye(len(m), dtype=bool) for m in masks]
    reach = layers[-1].astype(np.float64)
    for layer in layers[-2::-1]:
        reach = (reach @ layer.astype(np.float64)).clip(max=1.0)
    return torch.from_numpy(reach.astype(bool))


def reach_by_any(masks):
    """Ask for any token in between; no number is multiplied."""
    n_tokens = masks[0].shape[0]
    reach = torch.eye(n_tokens, dtype=torch.bool)
    for mask in masks:
        rows = [
            reach[row].any(0) if row.any() else torch.zeros_like(row)
            for row in mask
        ]
        reach = reach | torch.stack(rows)
    return reach


def layers_by_repeating(n_layers, n_local, n_full, window):
    """Repeat a round often enough, and cut."""
    if n_local + n_full < 1:
        raise ValueError("no layer in a round")
    one_round = [window] * n_local + [None] * n_full
    return (one_round * n_layers)[:n_layers]


def layers_one_by_one(n_layers, n_local, n_full, window):
    """Count down within each round."""
    if n_local + n_full == 0:
        raise ValueError("no layer in a round")
    layers, left = [], (n_local, n_full)
    while len(layers) < n_layers:
        if left == (0, 0):
            left = (n_local, n_full)
        if left[0]:
            layers.append(window)
            left = (left[0] - 1, left[1])
        else:
            layers.append(None)
            left = (0, left[1] - 1)
    return tuple(layers)


def topk_query_by_query(q, k, v, relevance, top_k):
    """Sort each query's past, and attend to the rows that come first."""
    if q.ndim > 2:
        parts = zip(q, k, v, relevance, strict=True)
        return torch.stack([topk_query_by_query(*x, top_k) for x in parts])
    shift = k.shape[0] - q.shape[0]
    outputs = []
    for t in range(q.shape[0]):
        order = relevance[t, : t + shift + 1].argsort(descending=True)
        best = order[:top_k]
        outputs.append(
            F.scaled_dot_product_attention(q[t : t + 1], k[best], v[best])
        )
    return torch.cat(outputs)


def topk_by_gathering(q, k, v, relevance, top_k):
    """Gather flat rows of keys and values, and take the softmax by hand."""
    lead, (t, s) = relevance.shape[:-2], relevance.shape[-2:]
    future = torch.ones(t, s).triu(1 + s - t).bool()
    order = relevance.masked_fill(future, -INF).sort(dim=-1, descending=True)
    top = min(top_k, s)
    picked = order.indices[..., :top].reshape(*lead, t * top, 1)
    seen = order.values[..., :top] > -INF
    keys = k.gather(-2, picked.expand(*lead, -1, k.shape[-1]))
    values = v.gather(-2, picked.expand(*lead, -1, v.shape[-1]))
    keys = keys.view(*lead, t, top, -1)
    values = values.view(*lead, t, top, -1)
    scores = torch.einsum("...td,...tkd->...tk", q, keys)
    scores = torch.where(seen, scores / q.shape[-1] ** 0.5, -INF)
    return torch.einsum("...tk,...tke->...te", scores.softmax(-1), values)


ALTERNATIVES = {
    "sliding_window_mask": [window_by_triangles, window_by_numpy],
    "global_mask": [global_by_filling, global_pair_by_pair],
    "strided_mask": [strided_by_slices, strided_by_rests],
    "bigbird_mask": [bigbird_by_sampling, bigbird_by_multinomial],
    "sliding_window_attention": [
        window_attention_query_by_query,
        window_attention_by_unfolding,
        window_attention_of_two_blocks,
    ],
    "receptive_field": [reach_by_indices, reach_from_the_top, reach_by_any],
    "layer_pattern": [layers_by_repeating, layers_one_by_one],
    "topk_attention": [topk_query_by_query, topk_by_gathering],
}
