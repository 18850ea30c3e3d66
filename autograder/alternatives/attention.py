"""Right answers of chapter 02 that go another way than the reference."""

import math

import torch
import torch.nn.functional as F


def softmax_row_by_row(x, dim=-1):
    """Loop over rows with Python's own floats."""
    rows = x.movedim(dim, -1)
    flat = rows.reshape(-1, rows.shape[-1]).tolist()
    done = []
    for row in flat:
        peak = max(row)
        exps = [0.0 if s == -math.inf else math.exp(s - peak) for s in row]
        total = sum(exps) or 1.0
        done.append([e / total for e in exps])
    out = torch.tensor(done, dtype=x.dtype).reshape(rows.shape)
    return out.movedim(-1, dim)


def softmax_by_logsumexp(x, dim=-1):
    """Subtract the log of the sum, and mend the NaN afterwards."""
    return (x - x.logsumexp(dim, keepdim=True)).exp().nan_to_num(0.0)


def softmax_with_epsilon(x, dim=-1):
    """Guard the division by a number far below rounding that matters."""
    peak = torch.max(x, dim=dim, keepdim=True).values.clamp(min=-1e30)
    exps = torch.exp(x - peak)
    return exps / (exps.sum(dim=dim, keepdim=True) + 1e-9)


def scores_by_einsum(q, k):
    """Name the indices instead of transposing."""
    return torch.einsum("...td,...sd->...ts", q, k) * q.size(-1) ** -0.5


def scores_by_broadcasting(q, k):
    """Multiply every pair out, then sum: T × S × D numbers."""
    pairs = q[..., :, None, :] * k[..., None, :, :]
    return pairs.sum(dim=-1).div(math.sqrt(q.shape[-1]))


def scores_scaled_first(q, k):
    """Scale both sides by the fourth root before they meet."""
    scale = q.shape[-1] ** 0.25
    return torch.matmul(q / scale, k.transpose(-2, -1) / scale)


def causal_mask_by_tril(n_queries, n_keys, device=None):
    """Cut a triangle out of a matrix of ones."""
    if n_keys < n_queries:
        raise ValueError("there are not enough keys")
    ones = torch.ones(n_queries, n_keys, dtype=torch.bool, device=device)
    return ones.tril(diagonal=n_keys - n_queries)


def causal_mask_by_loops(n_queries, n_keys, device=None):
    """Decide pair by pair."""
    past = n_keys - n_queries
    if past < 0:
        raise ValueError(f"{-past} queries have no key")
    rows = [[s <= past + t for s in range(n_keys)] for t in range(n_queries)]
    return torch.tensor(rows, dtype=torch.bool, device=device)


def attention_with_additive_mask(q, k, v, mask=None):
    """Add minus infinity, use PyTorch's softmax and mend the NaN."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device)
        scores = scores + bias.masked_fill(mask.logical_not(), float("-inf"))
    weights = torch.nan_to_num(torch.softmax(scores, dim=-1))
    return torch.matmul(weights, v), weights


def attention_with_where(q, k, v, mask=None):
    """Choose by ``where``, and let PyTorch compute the output."""
    scores = torch.einsum("...id,...jd->...ij", q, k) / math.sqrt(q.size(-1))
    if mask is not None:
        scores = torch.where(mask, scores, -torch.inf)
    peak = scores.max(-1, keepdim=True)[0].nan_to_num(neginf=0.0)
    exps = torch.exp(scores - peak)
    weights = exps / exps.sum(-1, keepdim=True).clamp_min(1e-30)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask), weights


def attention_query_by_query(q, k, v, mask=None):
    """Loop over the queries, as a decoder does."""
    if mask is not None:
        mask = mask.expand(*q.shape[:-1], k.shape[-2])
    outputs, weights = [], []
    for t in range(q.shape[-2]):
        row = (k @ q[..., t, :, None])[..., 0] / q.shape[-1] ** 0.5
        if mask is not None:
            row = row.masked_fill(~mask[..., t, :], -math.inf)
        share = row.softmax(-1).nan_to_num()
        weights.append(share)
        outputs.append((share[..., None] * v).sum(-2))
    return torch.stack(outputs, -2), torch.stack(weights, -2)


def _weights(q, k, mask):
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1).nan_to_num()


def backward_by_jacobian(grad_output, q, k, v, mask=None):
    """Write out the softmax's Jacobian, diag(p) − ppᵀ, for every row."""
    p = _weights(q, k, mask)
    jacobian = torch.diag_embed(p) - p[..., :, None] * p[..., None, :]
    grad_p = torch.einsum("...te,...se->...ts", grad_output, v)
    grad_s = torch.einsum("...tsr,...tr->...ts", jacobian, grad_p)
    grad_s = grad_s / q.shape[-1] ** 0.5
    return (
        torch.einsum("...ts,...sd->...td", grad_s, k),
        torch.einsum("...ts,...td->...sd", grad_s, q),
        torch.einsum("...ts,...te->...se", p, grad_output),
    )


def backward_by_output(grad_output, q, k, v, mask=None):
    """Use rowsum(dO ∘ O) for the mean, as FlashAttention does."""
    p = _weights(q, k, mask)
    mean = (grad_output * (p @ v)).sum(-1, keepdim=True)
    grad_s = p * (grad_output @ v.transpose(-1, -2) - mean)
    scale = q.shape[-1] ** -0.5
    grad_q = scale * (grad_s @ k)
    grad_k = scale * (grad_s.transpose(-1, -2) @ q)
    return grad_q, grad_k, p.transpose(-1, -2) @ grad_output


ALTERNATIVES = {
    "softmax": [
        softmax_row_by_row,
        softmax_by_logsumexp,
        softmax_with_epsilon,
    ],
    "attention_scores": [
        scores_by_einsum,
        scores_by_broadcasting,
        scores_scaled_first,
    ],
    "causal_mask": [causal_mask_by_tril, causal_mask_by_loops],
    "attention": [
        attention_with_additive_mask,
        attention_with_where,
        attention_query_by_query,
    ],
    "attention_backward": [backward_by_jacobian, backward_by_output],
}
