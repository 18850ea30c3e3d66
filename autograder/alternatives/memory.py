"""Right answers of chapter 13 that go another way than the reference."""

import math

import numpy as np
import torch
import torch.nn.functional as F

INF = math.inf


class MemoryOfLists:
    """Keep entries one by one in lists, and sort all scores."""

    def __init__(self, key_width, value_width, dtype=torch.float32):
        self.widths = (key_width, value_width)
        self.dtype = dtype
        self.entries = []

    def __len__(self):
        return len(self.entries)

    def add(self, keys, values):
        """Append the pairs."""
        self.entries += zip(keys.clone(), values.clone(), strict=True)

    def search(self, queries, k, before=None):
        """Score pair by pair."""
        scores = torch.full((len(queries), k), -INF, dtype=self.dtype)
        positions = torch.full((len(queries), k), -1)
        for t, query in enumerate(queries):
            limit = len(self) if before is None else min(before[t], len(self))
            found = [
                (float(self.entries[n][0] @ query), n) for n in range(limit)
            ]
            found.sort(reverse=True)
            for place, (score, n) in enumerate(found[:k]):
                scores[t, place], positions[t, place] = score, n
        return scores, positions

    def fetch(self, positions):
        """Stack what is found at each position."""
        nothing = [torch.zeros(w, dtype=self.dtype) for w in self.widths]
        rows = [
            self.entries[n] if n >= 0 else nothing
            for n in positions.flatten().tolist()
        ]
        stacked = [torch.stack([row[i] for row in rows]) for i in (0, 1)]
        return tuple(x.reshape(*positions.shape, -1) for x in stacked)


class MemoryThatGrows:
    """Keep room for twice as many, and a row of zeros at the end."""

    def __init__(self, key_width, value_width, dtype=torch.float32):
        self.n = 0
        self.room = torch.zeros(2, key_width + value_width, dtype=dtype)
        self.width = key_width

    def __len__(self):
        return self.n

    def add(self, keys, values):
        """Copy the rows into free room."""
        while len(self.room) <= self.n + len(keys):
            self.room = torch.cat([self.room, torch.zeros_like(self.room)])
        self.room[self.n : self.n + len(keys)] = torch.cat([keys, values], 1)
        self.n += len(keys)

    def search(self, queries, k, before=None):
        """Sort stably by numpy."""
        keys = self.room[: self.n, : self.width]
        scores = (queries[:, None] * keys).sum(-1).numpy().copy()
        if before is not None:
            late = np.arange(self.n)[None] >= before.numpy()[:, None]
            scores[late] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        best = torch.from_numpy(np.take_along_axis(scores, order, 1))
        order = torch.from_numpy(order)
        missing = (0, k - best.shape[1])
        best = F.pad(best, missing, value=-INF)
        order = F.pad(order, missing, value=-1)
        return best, torch.where(best == -INF, -1, order)

    def fetch(self, positions):
        """Let -1 lead to the row of zeros."""
        rows = self.room[positions]
        return rows[..., : self.width], rows[..., self.width :]


def attention_with_every_key(
    q, local_k, local_v, memory_k, memory_v, local_mask=None, memory_mask=None
):
    """Give each query the window's keys beside its own."""
    n_queries = q.shape[-2]

    def beside(local, found):
        shape = (*found.shape[:-2], local.shape[-2], local.shape[-1])
        return torch.cat([local[..., None, :, :].expand(shape), found], -2)

    keys, values = beside(local_k, memory_k), beside(local_v, memory_v)
    masks = []
    for mask, n in (
        (local_mask, local_k.shape[-2]),
        (memory_mask, memory_k.shape[-2]),
    ):
        seen = torch.ones(*q.shape[:-2], n_queries, n, dtype=torch.bool)
        masks.append(seen if mask is None else seen & mask)
    mask = torch.cat(masks, -1)
    scores = torch.einsum("...td,...tsd->...ts", q, keys)
    scores = (scores / q.shape[-1] ** 0.5).masked_fill(~mask, -INF)
    weights = scores.softmax(-1).nan_to_num(0.0)
    return torch.einsum("...ts,...tse->...te", weights, values), weights


def attention_by_merging(
    q, local_k, local_v, memory_k, memory_v, local_mask=None, memory_mask=None
):
    """Attend to both apart, and merge by the log-sum-exps, as in chapter 5."""
    scale = math.sqrt(q.size(-1))
    scores = [
        torch.einsum("...td,...sd->...ts", q, local_k) / scale,
        torch.einsum("...td,...trd->...tr", q, memory_k) / scale,
    ]
    for n, mask in enumerate((local_mask, memory_mask)):
        if mask is not None:
            scores[n] = torch.where(mask, scores[n], -INF)
    lses = [x.logsumexp(-1, keepdim=True) for x in scores]
    whole = torch.logaddexp(*lses)
    shares = [
        (x - whole).exp().nan_to_num(0.0)  # −∞ − −∞: nothing to see
        for x in scores
    ]
    output = torch.matmul(shares[0], local_v)
    output = output + (shares[1][..., None] * memory_v).sum(-2)
    return output, torch.cat(shares, dim=-1)


def update_token_by_token(memory, norm, keys, values, delta=False):
    """Write one token after the other, all against the old memory."""
    sigma = torch.where(keys > 0, keys + 1, keys.exp())
    new_memory, new_norm = memory.clone(), norm.clone()
    for s in range(keys.shape[-2]):
        feature, value = sigma[..., s, :], values[..., s, :]
        if delta:
            known = (feature[..., None] * memory).sum(-2)
            total = (feature * norm).sum(-1, keepdim=True)
            value = value - (known / total).nan_to_num(0.0, 0.0, 0.0)
        new_memory += feature[..., :, None] * value[..., None, :]
        new_norm += feature
    return new_memory, new_norm


def update_by_einsum(memory, norm, keys, values, delta=False):
    """Name the indices."""
    sigma = F.elu(keys).add(1)
    if delta:
        total = torch.einsum("bhsd,bhd->bhs", sigma, norm)[..., None]
        read = torch.einsum("bhsd,bhde->bhse", sigma, memory)
        values = values - torch.where(total > 0, read / total, 0.0)
    added = torch.einsum("bhsd,bhse->bhde", sigma, values)
    return memory + added, norm + torch.einsum("bhsd->bhd", sigma)


def read_head_by_head(q, memory, norm, local_output, gate):
    """Loop over the heads."""
    outputs = []
    for h in range(q.shape[1]):
        sigma = torch.where(q[:, h] > 0, q[:, h] + 1, q[:, h].exp())
        total = sigma @ norm[:, h, :, None]
        far = (sigma @ memory[:, h] / total).nan_to_num(0.0)
        share = 1 / (1 + math.exp(-float(gate[h])))
        outputs.append(share * far + (1 - share) * local_output[:, h])
    return torch.stack(outputs, 1)


def read_by_lerp(q, memory, norm, local_output, gate):
    """Go from the local output towards the memory's."""
    sigma = F.elu(q) + 1.0
    total = torch.einsum("bhtd,bhd->bht", sigma, norm).clamp_min(1e-30)
    far = torch.einsum("bhtd,bhde->bhte", sigma, memory) / total[..., None]
    share = torch.sigmoid(gate).reshape(1, -1, 1, 1)
    return torch.lerp(local_output, far, share.expand_as(far))


def pattern_by_filling(n_layers, period=8, offset=4):
    """Start with Mamba everywhere."""
    if offset not in range(period):
        raise ValueError(f"no layer {offset} in a period of {period}")
    layers = ["mamba"] * n_layers
    for place in range(offset, n_layers, period):
        layers[place] = "attention"
    return layers


def pattern_by_repeating(n_layers, period=8, offset=4):
    """Write one period, repeat it, cut it off; as a tuple."""
    after = period - offset - 1
    if min(offset, after) < 0:
        raise ValueError("the offset lies outside the period")
    one = ("mamba",) * offset + ("attention",) + ("mamba",) * after
    return (one * (n_layers // period + 1))[:n_layers]


ALTERNATIVES = {
    "VectorMemory": [MemoryOfLists, MemoryThatGrows],
    "memory_attention": [attention_with_every_key, attention_by_merging],
    "infini_update": [update_token_by_token, update_by_einsum],
    "infini_read": [read_head_by_head, read_by_lerp],
    "hybrid_pattern": [pattern_by_filling, pattern_by_repeating],
}
