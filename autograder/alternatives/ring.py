"""Right answers of chapter 11 that go another way than the reference."""

import math

import torch

from solutions.ring import block_attention, block_gradients

INF = math.inf


def ring_with_a_running_softmax(
    q, k, v, positions, exchange, world, causal=False
):
    """Carry peak, total and sum along, and divide at the end."""
    peak = torch.full(q.shape[:-1], -INF, dtype=q.dtype)
    total = torch.zeros_like(peak)
    acc = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=q.dtype)
    at = positions
    for step in range(world):
        scores = torch.einsum("...td,...sd->...ts", q, k) * q.shape[-1] ** -0.5
        if causal:
            scores = scores.masked_fill(at > positions[:, None], -INF)
        new = torch.maximum(peak, scores.amax(-1))
        base = torch.where(new == -INF, torch.zeros_like(new), new)
        exps = (scores - base[..., None]).exp()
        factor = (peak - base).exp()
        total = total * factor + exps.sum(-1)
        acc = acc * factor[..., None] + exps @ v
        peak = new
        if step < world - 1:
            k, v, at = exchange(k, v, at)
    return acc / total[..., None], peak + total.log()


def ring_that_sends_before_it_computes(
    q, k, v, positions, exchange, world, causal=False
):
    """Ask for the next block first, in a message of one tensor."""
    width = k.shape[-1]
    message = torch.cat([k, v], -1)
    output = lse = None
    places = positions
    for step in range(world):
        own, own_places = message, places
        if step < world - 1:
            message, places = exchange(message, places)
        part, part_lse = block_attention(
            q,
            own[..., :width],
            own[..., width:],
            positions,
            own_places,
            causal,
        )
        if output is None:
            output, lse = part, part_lse
            continue
        both = torch.logaddexp(lse, part_lse)
        old = (lse - both).exp().nan_to_num(0.0)[..., None]
        now = (part_lse - both).exp().nan_to_num(0.0)[..., None]
        output, lse = old * output + now * part, both
    return output, lse


def ring_that_skips_the_future(
    q, k, v, positions, exchange, world, causal=False
):
    """Send every block on, but compute only where there is something."""
    output = torch.zeros_like(q[..., :1]) * v[..., :1, :]
    lse = torch.full_like(q[..., 0], -INF)
    block = (v, k, positions)
    for step in range(world):
        if step:
            block = exchange(*block)
        v, k, at = block
        if causal and bool(at.min() > positions.max()):
            continue
        part, part_lse = block_attention(q, k, v, positions, at, causal)
        share = torch.sigmoid(part_lse - lse).nan_to_num(0.0)[..., None]
        output = output + share * (part - output)
        lse = torch.stack([lse, part_lse]).logsumexp(0)
    return output, lse


def work_by_searching(positions):
    """Sort the keys, and look up how many stand before each query."""
    world = len(positions)
    rows = []
    for r in range(world):
        row = []
        for step in range(world):
            keys = positions[r - step].sort().values
            row.append(
                torch.searchsorted(keys, positions[r], right=True).sum()
            )
        rows.append(torch.stack(row))
    return torch.stack(rows)


def work_pair_by_pair(positions):
    """Count in plain Python."""
    lists = [p.tolist() for p in positions]
    world = len(lists)
    return torch.tensor(
        [
            [
                sum(
                    1
                    for t in lists[r]
                    for s in lists[(r - i) % world]
                    if s <= t
                )
                for i in range(world)
            ]
            for r in range(world)
        ],
        dtype=torch.int64,
    )


def work_from_the_whole_mask(positions):
    """Make one mask of all ranks, cut it up, and turn each row."""
    world = len(positions)
    text = torch.cat(positions)
    mask = text[None, :] <= text[:, None]
    blocks = mask.unflatten(1, (world, -1)).unflatten(0, (world, -1))
    counts = blocks.sum((1, 3))  # (world, world): by owner of the keys
    owner = torch.arange(world)[:, None] - torch.arange(world)
    return counts.gather(1, owner % world)


def split_by_index(x, world, dim=-2):
    """Compute which tokens each rank gets, and select them."""
    n = x.shape[dim]
    size, rest = divmod(n, 2 * world)
    if rest:
        raise ValueError("the chunks would not be equal")
    parts = []
    for r in range(world):
        front = torch.arange(r * size, (r + 1) * size)
        back = torch.arange(n - (r + 1) * size, n - r * size)
        parts.append(x.index_select(dim, torch.cat([front, back])))
    return tuple(parts)


def split_by_folding(x, world, dim=-2):
    """Fold the text in the middle and lay its chunks side by side."""
    if x.shape[dim] % (2 * world) != 0:
        raise ValueError("the chunks would not be equal")
    tokens = x.movedim(dim, 0).unflatten(0, (2, world, -1))
    folded = torch.stack([tokens[0], tokens[1].flip(0)], 1)
    return [part.flatten(0, 1).movedim(0, dim) for part in folded]


def merge_by_position(parts, dim=-2):
    """Sort the tokens by where they stand."""
    size = parts[0].shape[dim]
    numbers = torch.arange(size * len(parts))
    places = torch.cat(split_by_index(numbers, len(parts), 0))
    return torch.cat(list(parts), dim).index_select(dim, places.argsort())


def merge_one_by_one(parts, dim=-2):
    """Write each half to its place."""
    first = parts[0].movedim(dim, 0)
    size = first.shape[0] // 2
    whole = first.new_empty(2 * size * len(parts), *first.shape[1:])
    n = whole.shape[0]
    for r, part in enumerate(parts):
        part = part.movedim(dim, 0)
        whole[r * size : (r + 1) * size] = part[:size]
        whole[n - (r + 1) * size : n - r * size] = part[size:]
    return whole.movedim(0, dim).contiguous()


def backward_in_one_loop(
    grad_output, q, k, v, output, lse, positions, exchange, world,
    causal=False,
):  # fmt: skip
    """Send all of it in every step, the last included."""
    grad_q = torch.zeros_like(q)
    grad_k, grad_v, at = torch.zeros_like(k), torch.zeros_like(v), positions
    for _ in range(world):
        more = block_gradients(
            grad_output, q, k, v, output, lse, positions, at, causal
        )
        grad_q += more[0]
        grad_k += more[1]
        grad_v += more[2]
        if world > 1:
            k, v, at, grad_k, grad_v = exchange(k, v, at, grad_k, grad_v)
    return grad_q, grad_k, grad_v


def backward_with_whole_weights(
    grad_output, q, k, v, output, lse, positions, exchange, world,
    causal=False,
):  # fmt: skip
    """Write the gradients out, and scale the queries beforehand."""
    scaled = q * q.shape[-1] ** -0.5
    mean = torch.einsum("...te,...te->...t", grad_output, output)[..., None]
    grad_q, at = 0.0, positions
    grads = torch.zeros_like(torch.cat([k, v], -1))
    for step in range(world):
        if step:
            k, v, grads, at = exchange(k, v, grads, at)
        weights = (scaled @ k.mT - lse[..., None]).exp()
        if causal:
            weights = weights.masked_fill(at > positions[:, None], 0.0)
        by_score = weights * (grad_output @ v.mT - mean)
        grad_q = grad_q + by_score @ k * q.shape[-1] ** -0.5
        more = [by_score.mT @ scaled, weights.mT @ grad_output]
        grads = grads + torch.cat(more, -1)
    if world > 1:
        grads = exchange(grads)[0]
    grad_k, grad_v = grads.split([k.shape[-1], v.shape[-1]], -1)
    return grad_q, grad_k, grad_v


ALTERNATIVES = {
    "ring_attention": [
        ring_with_a_running_softmax,
        ring_that_sends_before_it_computes,
        ring_that_skips_the_future,
    ],
    "causal_work": [
        work_by_searching,
        work_pair_by_pair,
        work_from_the_whole_mask,
    ],
    "zigzag_split": [split_by_index, split_by_folding],
    "zigzag_merge": [merge_by_position, merge_one_by_one],
    "ring_attention_backward": [
        backward_in_one_loop,
        backward_with_whole_weights,
    ],
}
