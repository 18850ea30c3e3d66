"""FlashAttention as a Triton kernel: chapter 05's loop, on a GPU.

One *program* takes a tile of queries and walks over the tiles of keys, as
``flash_attention`` of the chapter does. All programs run at once. What it
holds (``peak``, ``total``, ``acc`` and a tile of scores) stays in registers
and in the fast memory; nothing of it is ever written to the slow one.

Exponentials are powers of two, which the hardware computes directly:
exp(x) = 2^(x log2 e), and log2 e goes into the scale of the scores.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = math.log2(math.e)
CONFIGS = [
    triton.Config(
        {"BLOCK_Q": queries, "BLOCK_K": keys},
        num_warps=warps,
        num_stages=stages,
    )
    for queries, keys, warps, stages in [
        (128, 64, 4, 3),
        (128, 64, 8, 3),
        (128, 128, 8, 2),
        (128, 128, 8, 3),
        (64, 64, 4, 3),
    ]
]


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


@triton.autotune(CONFIGS, key=["BLOCK_D", "BLOCK_E", "CAUSAL", "n_keys"])
@triton.jit
def attention_kernel(
    q_at, k_at, v_at, out_at, lse_at, n_queries, n_keys, scale,
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
    lse = (peak + tl.log2(total)) * 0.6931471805599453  # ln 2
    tl.store(lse_at + head * n_queries + query, lse, is_query)


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
        q, k, v, out, lse, n_queries, n_keys, LOG2_E / math.sqrt(width),
        *(x.stride(0) for x in (q, k, v, out)),
        *(x.stride(1) for x in (q, k, v, out)), width, width_v,
        CAUSAL=causal,
        BLOCK_D=max(16, triton.next_power_of_2(width)),
        BLOCK_E=max(16, triton.next_power_of_2(width_v)),
    )  # fmt: skip
    shape = (batch, heads, n_queries)
    return out.view(*shape, width_v), lse.view(shape)
