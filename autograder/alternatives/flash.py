"""Right answers of chapter 05 that go another way than the reference."""

import math

import torch

INF = math.inf


def merge_by_logaddexp(output_a, lse_a, output_b, lse_b):
    """Add in the log domain, and mend the NaN of two empty sets."""
    lse = torch.logaddexp(lse_a, lse_b)
    share_a = (lse_a - lse).exp().nan_to_num(0.0).unsqueeze(-1)
    share_b = (lse_b - lse).exp().nan_to_num(0.0).unsqueeze(-1)
    return output_a * share_a + output_b * share_b, lse


def merge_by_sigmoid(output_a, lse_a, output_b, lse_b):
    """Move from one output towards the other, as PyTorch's ring does."""
    share_b = torch.sigmoid(lse_b - lse_a).nan_to_num(0.0)[..., None]
    output = output_a - share_b * (output_a - output_b)
    return output, torch.stack([lse_a, lse_b]).logsumexp(0)


def merge_as_a_softmax(output_a, lse_a, output_b, lse_b):
    """Treat the two log-sum-exps as the scores of two values."""
    lses = torch.stack([lse_a, lse_b], -1)
    weights = lses.softmax(-1).nan_to_num(0.0)  # (..., T, 2)
    outputs = torch.stack([output_a, output_b], -2)  # (..., T, 2, E)
    return (weights[..., None] * outputs).sum(-2), lses.logsumexp(-1)


def online_softmax_score_by_score(state, scores, values):
    """Take in one score after the other, as the first publication does."""
    peak, total, acc = (x.clone() for x in state)
    for s in range(scores.shape[-1]):
        score = scores[..., s]
        new = torch.where(score > peak, score, peak)
        base = torch.where(new == -INF, torch.zeros_like(new), new)
        old, now = torch.exp(peak - base), torch.exp(score - base)
        total = old * total + now
        value = values[..., s, :].unsqueeze(-2)
        acc = old[..., None] * acc + now[..., None] * value
        peak = new
    return peak, total, acc


def online_softmax_of_two_states(state, scores, values):
    """Make a state of the block alone, then merge two states."""
    peak, total, acc = state
    block_peak = scores.max(-1).values
    exps = torch.exp(scores - block_peak[..., None]).nan_to_num(0.0)
    new = torch.stack([peak, block_peak]).amax(0)
    old = torch.exp(peak - new).nan_to_num(0.0)
    now = torch.exp(block_peak - new).nan_to_num(0.0)
    block_acc = torch.einsum("...ts,...se->...te", exps, values)
    return (
        new,
        old * total + now * exps.sum(-1),
        acc * old[..., None] + block_acc * now[..., None],
    )


def online_softmax_with_finite_minimum(state, scores, values):
    """Start from a number far below every score, and hand −∞ back."""
    peak, total, acc = state
    low = torch.finfo(scores.dtype).min / 4
    base = torch.maximum(peak, scores.amax(-1)).clamp(min=low)
    old = torch.exp(peak - base)
    exps = torch.exp(scores - base[..., None])
    new = torch.where(base > low, base, torch.full_like(base, -INF))
    total = total * old + exps.sum(-1)
    return new, total, torch.matmul(exps, values) + acc * old[..., None]


def _scores(q, k, rows, keys, offset, causal, key_mask):
    """Score a tile; ``rows`` and ``keys`` are ranges."""
    q = q[..., rows.start : rows.stop, :]
    k = k[..., keys.start : keys.stop, :]
    scores = torch.einsum("...td,...sd->...ts", q, k) * q.shape[-1] ** -0.5
    if causal:
        ahead = torch.tensor([[s > t + offset for s in keys] for t in rows])
        scores = torch.where(ahead, -INF, scores)
    if key_mask is not None:
        seen = key_mask[..., keys.start : keys.stop].unsqueeze(-2)
        scores = torch.where(seen, scores, -INF)
    return scores


def _ranges(n, block):
    return [range(i, min(i + block, n)) for i in range(0, n, block)]


def flash_by_merging(
    q, k, v, causal=False, key_mask=None, block_q=64, block_k=64
):
    """Normalise every tile by itself, and merge the tiles by their LSE."""
    offset = k.shape[-2] - q.shape[-2]
    outputs, lses = [], []
    for rows in _ranges(q.shape[-2], block_q):
        output, lse = None, None
        for keys in _ranges(k.shape[-2], block_k):
            scores = _scores(q, k, rows, keys, offset, causal, key_mask)
            weights = scores.softmax(-1).nan_to_num(0.0)
            part = weights @ v[..., keys.start : keys.stop, :]
            part = (part, scores.logsumexp(-1))
            if output is None:
                output, lse = part
            else:
                output, lse = merge_by_logaddexp(output, lse, *part)
        outputs.append(output)
        lses.append(lse)
    return torch.cat(outputs, -2), torch.cat(lses, -1)


def flash_keys_outside(
    q, k, v, causal=False, key_mask=None, block_q=64, block_k=64
):
    """Loop over the keys outside, as the first FlashAttention did."""
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    output = torch.zeros(*q.shape[:-1], v.shape[-1], dtype=q.dtype)
    peak = torch.full(q.shape[:-1], -INF, dtype=q.dtype)
    total = torch.zeros_like(peak)
    for keys in reversed(_ranges(n_keys, block_k)):
        for rows in _ranges(n_queries, block_q):
            t = slice(rows.start, rows.stop)
            scores = _scores(
                q, k, rows, keys, n_keys - n_queries, causal, key_mask
            )
            peak[..., t], total[..., t], output[..., t, :] = (
                online_softmax_with_finite_minimum(
                    (peak[..., t], total[..., t], output[..., t, :]),
                    scores,
                    v[..., keys.start : keys.stop, :],
                )
            )
    output = torch.nan_to_num(output / total[..., None])
    return output, peak + torch.log(total)


def flash_skipping_the_future(
    q, k, v, causal=False, key_mask=None, block_q=64, block_k=64
):
    """Leave out every tile in which a causal mask hides all."""
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    offset = n_keys - n_queries
    outputs, lses = [], []
    for rows in _ranges(n_queries, block_q):
        lead = (*q.shape[:-2], len(rows))
        state = (
            torch.full(lead, -INF, dtype=q.dtype),
            torch.zeros(lead, dtype=q.dtype),
            torch.zeros(*lead, v.shape[-1], dtype=q.dtype),
        )
        for keys in _ranges(n_keys, block_k):
            if causal and keys.start > rows[-1] + offset:
                break
            scores = _scores(q, k, rows, keys, offset, causal, key_mask)
            state = online_softmax_of_two_states(
                state, scores, v[..., keys.start : keys.stop, :]
            )
        peak, total, acc = state
        outputs.append(acc / total.clamp(min=1e-30)[..., None])
        lses.append(torch.where(total > 0, peak + total.log(), -INF))
    return torch.cat(outputs, -2), torch.cat(lses, -1)


def backward_queries_outside(
    grad_output, q, k, v, output, lse,
    causal=False, key_mask=None, block_q=64, block_k=64,
):  # fmt: skip
    """Loop over the queries outside, and scale at the very end."""
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    mean = torch.einsum("...te,...te->...t", grad_output, output)
    grad_q, grad_k, grad_v = map(torch.zeros_like, (q, k, v))
    for rows in _ranges(n_queries, block_q):
        t = slice(rows.start, rows.stop)
        for keys in _ranges(n_keys, block_k):
            s = slice(keys.start, keys.stop)
            scores = _scores(
                q, k, rows, keys, n_keys - n_queries, causal, key_mask
            )
            p = torch.exp(scores - lse[..., t, None]).nan_to_num(0.0)
            dp = torch.matmul(grad_output[..., t, :], v[..., s, :].mT)
            ds = p * dp - p * mean[..., t].unsqueeze(-1)
            grad_v[..., s, :] += p.mT @ grad_output[..., t, :]
            grad_q[..., t, :] += ds @ k[..., s, :]
            grad_k[..., s, :] += ds.mT @ q[..., t, :]
    scale = q.shape[-1] ** -0.5
    return grad_q * scale, grad_k * scale, grad_v


def backward_in_two_passes(
    grad_output, q, k, v, output, lse,
    causal=False, key_mask=None, block_q=64, block_k=64,
):  # fmt: skip
    """Make the gradient by q first, then those by k and v, without +=."""
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    mean = (output * grad_output).sum(-1, keepdim=True)

    def tile(rows, keys):
        t, s = slice(rows.start, rows.stop), slice(keys.start, keys.stop)
        scores = _scores(
            q, k, rows, keys, n_keys - n_queries, causal, key_mask
        )
        p = (scores - lse[..., t, None]).exp()
        p = torch.where(scores == -INF, 0.0, p)
        dp = grad_output[..., t, :] @ v[..., s, :].mT
        return p, p * (dp - mean[..., t, :]) / math.sqrt(q.shape[-1])

    all_rows, all_keys = _ranges(n_queries, block_q), _ranges(n_keys, block_k)
    grad_q = [
        sum(tile(rows, keys)[1] @ k[..., keys.start : keys.stop, :]
            for keys in all_keys)
        for rows in all_rows
    ]  # fmt: skip
    grad_k, grad_v = [], []
    for keys in all_keys:
        dk = dv = 0.0
        for rows in all_rows:
            t = slice(rows.start, rows.stop)
            p, ds = tile(rows, keys)
            dk = dk + ds.mT @ q[..., t, :]
            dv = dv + p.mT @ grad_output[..., t, :]
        grad_k.append(dk)
        grad_v.append(dv)
    return torch.cat(grad_q, -2), torch.cat(grad_k, -2), torch.cat(grad_v, -2)


def bytes_step_by_step(n_queries, n_keys, width, block_q, bytes_per_number=2):
    """Walk through the loop and add up what is read and written."""
    q = output = n_queries * width
    k = v = n_keys * width
    pairs = n_queries * n_keys
    naive = (q + k + pairs) + (pairs + pairs) + (pairs + v + output)
    n_tiles, rest = divmod(n_queries, block_q)
    tiled = 0
    for rows in [block_q] * n_tiles + [rest] * (rest > 0):
        tiled += rows * width + k + v + rows * width + rows
    return bytes_per_number * naive, bytes_per_number * tiled


def bytes_in_closed_form(
    n_queries, n_keys, width, block_q, bytes_per_number=2
):
    """Count the tiles by a division that rounds up."""
    n_tiles = -(-n_queries // block_q)
    inputs_and_output = 2 * width * (n_queries + n_keys)
    naive = bytes_per_number * (inputs_and_output + 4 * n_queries * n_keys)
    again = 2 * width * n_keys * (n_tiles - 1)
    tiled = bytes_per_number * (inputs_and_output + again + n_queries)
    return [naive, tiled]


ALTERNATIVES = {
    "merge_attention": [
        merge_by_logaddexp,
        merge_by_sigmoid,
        merge_as_a_softmax,
    ],
    "online_softmax": [
        online_softmax_score_by_score,
        online_softmax_of_two_states,
        online_softmax_with_finite_minimum,
    ],
    "flash_attention": [
        flash_by_merging,
        flash_keys_outside,
        flash_skipping_the_future,
    ],
    "flash_attention_backward": [
        backward_queries_outside,
        backward_in_two_passes,
    ],
    "hbm_bytes": [bytes_step_by_step, bytes_in_closed_form],
}
