"""FlashAttention as Triton kernels: chapter 05's loops, on a GPU.

One *program* takes a tile of queries and walks over the tiles of keys, as
``flash_attention`` of the chapter does. All programs run at once. What it
holds (``peak``, ``total``, ``acc`` and a tile of scores) stays in registers
and in the fast memory; nothing of it is ever written to the slow one.

The way back has two kernels, and each writes only what is its own: one has a
tile of keys and walks over the queries that see it, for their gradients; one
has a tile of queries and walks over its keys. So no two programs ever add to
the same place. Both make the weights again, from the log-sum-exp.

Exponentials are powers of two, which the hardware computes directly:
exp(x) = 2^(x log2 e), and log2 e goes into the scale of the scores.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = math.log2(math.e)
LN_2 = tl.constexpr(math.log(2))


def tiles(*sizes: tuple[int, int, int, int]) -> list[triton.Config]:
    """Return ways to cut the work: queries, keys, warps, stages."""
    if os.environ.get("TRITON_INTERPRET") == "1":  # nothing to choose from
        sizes = ((16, 32, 1, 1),)
    return [
        triton.Config(
            {"BLOCK_Q": queries, "BLOCK_K": keys},
            num_warps=warps,
            num_stages=stages,
        )
        for queries, keys, warps, stages in sizes
    ]


def enough(
    configs: Sequence[triton.Config], given: dict[str, Any], **_: Any
) -> Sequence[triton.Config]:
    """Look for the best way only where that makes a difference."""
    return configs if given["n_keys"] > 2_048 else configs[:1]


def tuned(*sizes: tuple[int, int, int, int]) -> Any:
    """Let a kernel be tried with tiles of several sizes, and keep the best."""
    return triton.autotune(
        tiles(*sizes),
        key=["BLOCK_D", "BLOCK_E", "CAUSAL", "size"],
        prune_configs_by={"early_config_prune": enough},
    )


def size_class(n_keys: int) -> int:
    """Return the power of two for which tiles are chosen: not too large."""
    return min(max(triton.next_power_of_2(n_keys), 16), 32_768)


@triton.jit
def walk(
    acc, total, peak, q, k_at, v_at, first, last, row,
    n_keys, scale, stride_k, stride_v, D: tl.constexpr, E: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    CAUSAL: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """Take the keys from ``first`` to ``last`` into the running softmax.

    ``RAGGED`` tiles hold keys that some query may not see, or none at all.
    """
    d = tl.arange(0, BLOCK_D)
    e = tl.arange(0, BLOCK_E)
    for start in range(first, last, BLOCK_K):
        start = tl.multiple_of(start, BLOCK_K)
        key = start + tl.arange(0, BLOCK_K)
        k_tile = k_at + key[None, :] * stride_k + d[:, None]
        v_tile = v_at + key[:, None] * stride_v + e[None, :]
        if RAGGED:
            is_key = key < n_keys
            k = tl.load(k_tile, (d[:, None] < D) & is_key[None, :], 0.0)
        else:
            k = tl.load(k_tile, d[:, None] < D, 0.0)
        scores = tl.dot(q, k) * scale  # (BLOCK_Q, BLOCK_K)
        if RAGGED:
            seen = is_key[None, :]
            if CAUSAL:
                seen = seen & (key[None, :] <= row[:, None])
            scores = tl.where(seen, scores, -float("inf"))
        new_peak = tl.maximum(peak, tl.max(scores, 1))
        base = tl.where(new_peak == -float("inf"), 0.0, new_peak)
        rescale = tl.exp2(peak - base)
        weights = tl.exp2(scores - base[:, None])
        total = total * rescale + tl.sum(weights, 1)
        acc = acc * rescale[:, None]
        if RAGGED:
            v = tl.load(v_tile, (e[None, :] < E) & is_key[:, None], 0.0)
        else:
            v = tl.load(v_tile, e[None, :] < E, 0.0)
        acc = tl.dot(weights.to(v.dtype), v, acc)
        peak = new_peak
    return acc, total, peak


@tuned(
    (128, 64, 4, 3),
    (128, 64, 8, 3),
    (128, 128, 8, 2),
    (128, 128, 8, 3),
    (64, 64, 4, 3),
)
@triton.jit
def attention_kernel(
    q_at, k_at, v_at, out_at, lse_at, n_queries, n_keys, size, scale,
    head_q, head_k, head_v, head_out, stride_q, stride_k, stride_v,
    stride_out, D: tl.constexpr, E: tl.constexpr,
    CAUSAL: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Compute one tile of queries of one head."""
    head = tl.program_id(1).to(tl.int64)
    # With a causal mask the last tiles are the longest: they begin first.
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    query = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    d = tl.arange(0, BLOCK_D)
    e = tl.arange(0, BLOCK_E)
    is_query = query < n_queries
    q_tile = q_at + head * head_q + query[:, None] * stride_q + d[None, :]
    q = tl.load(q_tile, is_query[:, None] & (d[None, :] < D), 0.0)
    k_at += head * head_k
    v_at += head * head_v
    peak = tl.full([BLOCK_Q], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    acc = tl.zeros([BLOCK_Q, BLOCK_E], tl.float32)
    # The queries are the last of the positions: row is a query's own.
    row = query + n_keys - n_queries
    last = n_keys
    whole = n_keys // BLOCK_K * BLOCK_K  # keys of tiles that all see
    if CAUSAL:
        first_row = tile * BLOCK_Q + n_keys - n_queries
        last = tl.minimum(n_keys, first_row + BLOCK_Q)
        whole = tl.minimum(whole, (first_row + 1) // BLOCK_K * BLOCK_K)
    acc, total, peak = walk(
        acc, total, peak, q, k_at, v_at, 0, whole, row,
        n_keys, scale, stride_k, stride_v, D, E,
        BLOCK_K, BLOCK_D, BLOCK_E, CAUSAL, False,
    )  # fmt: skip
    acc, total, peak = walk(
        acc, total, peak, q, k_at, v_at, whole, last, row,
        n_keys, scale, stride_k, stride_v, D, E,
        BLOCK_K, BLOCK_D, BLOCK_E, CAUSAL, True,
    )  # fmt: skip
    safe = tl.where(total == 0.0, 1.0, total)
    out = (acc / safe[:, None]).to(out_at.dtype.element_ty)
    out_tile = out_at + head * head_out + query[:, None] * stride_out
    tl.store(out_tile + e[None, :], out, is_query[:, None] & (e[None, :] < E))
    lse = (peak + tl.log2(total)) * LN_2
    tl.store(lse_at + head * n_queries + query, lse, is_query)


# ------------------------------------------------------------------ Backward
@triton.jit
def mean_kernel(
    grad_at, out_at, mean_at, n_rows, E: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """Compute grad_output · output of each query: the mean of grad_weights."""
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    e = tl.arange(0, BLOCK_E)
    at = row[:, None] * E + e[None, :]
    here = (row[:, None] < n_rows) & (e[None, :] < E)
    grad = tl.load(grad_at + at, here, 0.0).to(tl.float32)
    out = tl.load(out_at + at, here, 0.0).to(tl.float32)
    tl.store(mean_at + row, tl.sum(grad * out, 1), row < n_rows)


@triton.jit
def walk_queries(
    grad_k, grad_v, k, v, q_at, grad_at, lse_at, mean_at, first, last, key,
    n_queries, n_keys, scale, D: tl.constexpr, E: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """Collect what the queries from ``first`` to ``last`` send to the keys.

    All tiles lie on their side: a row is a key, a column a query.
    """
    d = tl.arange(0, BLOCK_D)
    e = tl.arange(0, BLOCK_E)
    for start in range(first, last, BLOCK_Q):
        start = tl.multiple_of(start, BLOCK_Q)
        query = start + tl.arange(0, BLOCK_Q)
        is_query = query < n_queries
        q_here = is_query[:, None] & (d[None, :] < D)
        q = tl.load(q_at + query[:, None] * D + d[None, :], q_here, 0.0)
        # Where there is no query, weights are 2^(score - infinity) = 0.
        lse = tl.load(lse_at + query, is_query, float("inf")) / LN_2
        scores = tl.dot(k, tl.trans(q)) * scale  # (BLOCK_K, BLOCK_Q)
        weights = tl.exp2(scores - lse[None, :])
        if MASKED:
            row = query + n_keys - n_queries
            seen = key[:, None] <= row[None, :]
            weights = tl.where(seen, weights, 0.0)
        grad_here = is_query[:, None] & (e[None, :] < E)
        grad_tile = grad_at + query[:, None] * E + e[None, :]
        grad = tl.load(grad_tile, grad_here, 0.0)
        grad_v = tl.dot(weights.to(grad.dtype), grad, grad_v)
        mean = tl.load(mean_at + query, is_query, 0.0)
        grad_weights = tl.dot(v, tl.trans(grad))
        grad_scores = weights * (grad_weights - mean[None, :])
        grad_k = tl.dot(grad_scores.to(q.dtype), q, grad_k)
    return grad_k, grad_v


@tuned((64, 128, 8, 2), (64, 64, 4, 2), (32, 128, 8, 3))
@triton.jit
def grad_keys_kernel(
    q_at, k_at, v_at, grad_at, lse_at, mean_at, grad_k_at, grad_v_at,
    n_queries, n_keys, size, scale, D: tl.constexpr, E: tl.constexpr,
    CAUSAL: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Compute the gradients by one tile of keys, and of values, of a head."""
    head = tl.program_id(1).to(tl.int64)
    begin = tl.program_id(0) * BLOCK_K  # the first have the most queries
    key = begin + tl.arange(0, BLOCK_K)
    d = tl.arange(0, BLOCK_D)
    e = tl.arange(0, BLOCK_E)
    k_place = key[:, None] * D + d[None, :] + head * n_keys * D
    v_place = key[:, None] * E + e[None, :] + head * n_keys * E
    k_here = (key[:, None] < n_keys) & (d[None, :] < D)
    v_here = (key[:, None] < n_keys) & (e[None, :] < E)
    k = tl.load(k_at + k_place, k_here, 0.0)
    v = tl.load(v_at + v_place, v_here, 0.0)
    q_at += head * n_queries * D
    grad_at += head * n_queries * E
    lse_at += head * n_queries
    mean_at += head * n_queries
    grad_k = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    grad_v = tl.zeros([BLOCK_K, BLOCK_E], tl.float32)
    whole = 0  # from here on all queries see all keys of the tile
    if CAUSAL:
        before = n_keys - n_queries  # positions that have no query
        first = tl.maximum(begin - before, 0) // BLOCK_Q * BLOCK_Q
        last = tl.maximum(begin + BLOCK_K - before, 0)
        whole = tl.minimum(tl.cdiv(last, BLOCK_Q) * BLOCK_Q, n_queries)
        grad_k, grad_v = walk_queries(
            grad_k, grad_v, k, v, q_at, grad_at, lse_at, mean_at,
            first, whole, key, n_queries, n_keys, scale, D, E,
            BLOCK_Q, BLOCK_D, BLOCK_E, True,
        )  # fmt: skip
    grad_k, grad_v = walk_queries(
        grad_k, grad_v, k, v, q_at, grad_at, lse_at, mean_at,
        whole, n_queries, key, n_queries, n_keys, scale, D, E,
        BLOCK_Q, BLOCK_D, BLOCK_E, False,
    )  # fmt: skip
    grad_k *= scale * LN_2  # the scale of the scores, without log2 e
    tl.store(grad_k_at + k_place, grad_k.to(k.dtype), k_here)
    tl.store(grad_v_at + v_place, grad_v.to(v.dtype), v_here)


@triton.jit
def walk_keys(
    grad_q, q, grad, lse, mean, k_at, v_at, first, last, row,
    n_keys, scale, D: tl.constexpr, E: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    CAUSAL: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """Collect what the keys from ``first`` to ``last`` send to the queries."""
    d = tl.arange(0, BLOCK_D)
    e = tl.arange(0, BLOCK_E)
    for start in range(first, last, BLOCK_K):
        start = tl.multiple_of(start, BLOCK_K)
        key = start + tl.arange(0, BLOCK_K)
        is_key = key < n_keys
        k_here = is_key[:, None] & (d[None, :] < D)
        v_here = is_key[:, None] & (e[None, :] < E)
        k = tl.load(k_at + key[:, None] * D + d[None, :], k_here, 0.0)
        v = tl.load(v_at + key[:, None] * E + e[None, :], v_here, 0.0)
        scores = tl.dot(q, tl.trans(k)) * scale  # (BLOCK_Q, BLOCK_K)
        weights = tl.exp2(scores - lse[:, None])
        if RAGGED:
            seen = is_key[None, :]
            if CAUSAL:
                seen = seen & (key[None, :] <= row[:, None])
            weights = tl.where(seen, weights, 0.0)
        grad_weights = tl.dot(grad, tl.trans(v))
        grad_scores = weights * (grad_weights - mean[:, None])
        grad_q = tl.dot(grad_scores.to(k.dtype), k, grad_q)
    return grad_q


@tuned((128, 64, 8, 2), (64, 64, 4, 2), (128, 64, 8, 3))
@triton.jit
def grad_queries_kernel(
    q_at, k_at, v_at, grad_at, lse_at, mean_at, grad_q_at,
    n_queries, n_keys, size, scale, D: tl.constexpr, E: tl.constexpr,
    CAUSAL: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_E: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Compute the gradients by one tile of queries of one head."""
    head = tl.program_id(1).to(tl.int64)
    tile = tl.num_programs(0) - 1 - tl.program_id(0)  # the longest first
    query = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    d = tl.arange(0, BLOCK_D)
    e = tl.arange(0, BLOCK_E)
    is_query = query < n_queries
    q_here = is_query[:, None] & (d[None, :] < D)
    grad_here = is_query[:, None] & (e[None, :] < E)
    q_place = query[:, None] * D + d[None, :] + head * n_queries * D
    grad_place = query[:, None] * E + e[None, :] + head * n_queries * E
    q = tl.load(q_at + q_place, q_here, 0.0)
    grad = tl.load(grad_at + grad_place, grad_here, 0.0)
    of_head = head * n_queries + query
    lse = tl.load(lse_at + of_head, is_query, float("inf")) / LN_2
    mean = tl.load(mean_at + of_head, is_query, 0.0)
    k_at += head * n_keys * D
    v_at += head * n_keys * E
    grad_q = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    row = query + n_keys - n_queries
    last = n_keys
    whole = n_keys // BLOCK_K * BLOCK_K  # keys of tiles that all see
    if CAUSAL:
        first_row = tile * BLOCK_Q + n_keys - n_queries
        last = tl.minimum(n_keys, first_row + BLOCK_Q)
        whole = tl.minimum(whole, (first_row + 1) // BLOCK_K * BLOCK_K)
    grad_q = walk_keys(
        grad_q, q, grad, lse, mean, k_at, v_at, 0, whole, row,
        n_keys, scale, D, E, BLOCK_K, BLOCK_D, BLOCK_E, CAUSAL, False,
    )  # fmt: skip
    grad_q = walk_keys(
        grad_q, q, grad, lse, mean, k_at, v_at, whole, last, row,
        n_keys, scale, D, E, BLOCK_K, BLOCK_D, BLOCK_E, CAUSAL, True,
    )  # fmt: skip
    grad_q *= scale * LN_2
    tl.store(grad_q_at + q_place, grad_q.to(q.dtype), q_here)


# ------------------------------------------------------------------- From here
def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Attend by the kernel.

    Args:
        q: queries, shape (B, H, T, D), bfloat16 or float16, on a GPU; they
            are the last T of S positions.
        k: keys, shape (B, H, S, D).
        v: values, shape (B, H, S, E).
        causal: whether a query sees only its own position and those before.

    Returns:
        The output, shape (B, H, T, E), and the natural log-sum-exp of the
        scores, shape (B, H, T), float32.

    Raises:
        ValueError: if causal, and there are more queries than keys.
    """
    batch, heads, n_queries, width = q.shape
    n_keys, width_v = v.shape[-2:]
    if causal and n_queries > n_keys:
        raise ValueError(f"{n_queries} queries aren't the last of {n_keys}")
    q, k, v = (x.contiguous().flatten(0, 1) for x in (q, k, v))
    out = q.new_empty(batch * heads, n_queries, width_v)
    lse = q.new_empty(batch * heads, n_queries, dtype=torch.float32)

    def grid(chosen: dict[str, int]) -> tuple[int, int]:
        return triton.cdiv(n_queries, chosen["BLOCK_Q"]), batch * heads

    attention_kernel[grid](
        q, k, v, out, lse, n_queries, n_keys, size_class(n_keys),
        LOG2_E / math.sqrt(width),
        *(x.stride(0) for x in (q, k, v, out)),
        *(x.stride(1) for x in (q, k, v, out)), width, width_v,
        CAUSAL=causal,
        BLOCK_D=max(16, triton.next_power_of_2(width)),
        BLOCK_E=max(16, triton.next_power_of_2(width_v)),
    )  # fmt: skip
    shape = (batch, heads, n_queries)
    return out.view(*shape, width_v), lse.view(shape)


def flash_attention_backward(
    grad_output: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    output: Tensor,
    lse: Tensor,
    causal: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of attention by the kernels.

    Args:
        grad_output: gradient of the loss by the output, shape (B, H, T, E).
        q: as for ``flash_attention``.
        k: likewise.
        v: likewise.
        output: what ``flash_attention`` returned.
        lse: the log-sum-exp that it returned.
        causal: as for ``flash_attention``.

    Returns:
        The gradients by q, k and v, of their shapes and dtype.
    """
    n_queries, width = q.shape[-2:]
    n_keys, width_v = v.shape[-2:]
    given = [x.contiguous() for x in (q, k, v, grad_output)]
    heads = q.shape[0] * q.shape[1]
    grads = [torch.empty_like(x) for x in given[:3]]
    block_d, block_e = (
        max(16, triton.next_power_of_2(x)) for x in (width, width_v)
    )
    mean = torch.empty_like(lse)
    n_rows = heads * n_queries
    mean_kernel[(triton.cdiv(n_rows, 64),)](
        given[3], output.contiguous(), mean, n_rows, width_v,
        BLOCK=64, BLOCK_E=block_e,
    )  # fmt: skip
    sizes = (n_queries, n_keys, size_class(n_keys), LOG2_E / math.sqrt(width))
    constants = {"D": width, "E": width_v, "CAUSAL": causal}
    constants |= {"BLOCK_D": block_d, "BLOCK_E": block_e}
    grad_keys_kernel[
        lambda chosen: (triton.cdiv(n_keys, chosen["BLOCK_K"]), heads)
    ](*given, lse, mean, grads[1], grads[2], *sizes, **constants)
    grad_queries_kernel[
        lambda chosen: (triton.cdiv(n_queries, chosen["BLOCK_Q"]), heads)
    ](*given, lse, mean, grads[0], *sizes, **constants)
    return tuple(grads)
