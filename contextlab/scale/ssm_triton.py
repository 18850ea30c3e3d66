"""Mamba-2's state space as Triton kernels: chapter 12's chunks, on a GPU.

The chapter's loop takes one chunk after another. Only the state has to wait
for what came before; so here three kernels share the work:

1. ``chunk_kernel``, all chunks at once: what a chunk adds to the state.
2. ``pass_kernel``, chunk by chunk: the state before each of them. That is all
   that is sequential, and each number of the state goes its own way.
3. ``output_kernel``, all chunks at once: within the chunk attention without a
   softmax, and what the state before it has to say.

Matrix products take their numbers in the inputs' dtype and sum in float32;
what is kept, and the states, are float32.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

CHUNK = 128  # tokens
STATES = 512  # numbers of a state that one program carries on


@triton.jit
def chunk_kernel(
    x_at, log_a_at, b_at, state_at, total_at, n_tokens, n_chunks,
    H: tl.constexpr, P: tl.constexpr, N: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Compute what one chunk adds to the state of one head, and its decay."""
    chunk = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    t = chunk * CHUNK + tl.arange(0, CHUNK)
    p = tl.arange(0, P)
    n = tl.arange(0, N)
    here = t < n_tokens
    token = batch * n_tokens + t
    log_a = tl.load(log_a_at + token * H + head, here, 0.0)
    left = tl.sum(log_a, 0) - tl.cumsum(log_a, 0)  # from t to the end
    x_tile = x_at + (token[:, None] * H + head) * P + p[None, :]
    x = tl.load(x_tile, here[:, None], 0.0)
    b = tl.load(b_at + token[:, None] * N + n[None, :], here[:, None], 0.0)
    x = (x * tl.exp(left)[:, None]).to(b.dtype)
    new = tl.dot(tl.trans(x), b)  # (P, N)
    place = (batch * n_chunks + chunk) * H + head
    state_tile = state_at + place * P * N + p[:, None] * N + n[None, :]
    tl.store(state_tile, new)
    tl.store(total_at + place, tl.sum(log_a, 0))


@triton.jit
def pass_kernel(
    state_at, total_at, last_at, n_chunks,
    H: tl.constexpr, NUMBERS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Replace what each chunk adds by the state before the chunk."""
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    h = tl.zeros([BLOCK], tl.float32)
    for chunk in tl.range(0, n_chunks, num_stages=4):  # loads come early
        place = (batch * n_chunks + chunk) * H + head
        tile = state_at + place * NUMBERS + at
        new, before = tl.load(tile), h
        h = tl.exp(tl.load(total_at + place)) * h + new
        tl.store(tile, before)  # what stood there is no longer needed
    tl.store(last_at + (batch * H + head) * NUMBERS + at, h)


@triton.jit
def output_kernel(
    x_at, log_a_at, b_at, c_at, state_at, y_at, n_tokens, n_chunks,
    H: tl.constexpr, P: tl.constexpr, N: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Compute the outputs of one chunk of one head."""
    chunk = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    at = tl.arange(0, CHUNK)
    t = chunk * CHUNK + at
    p = tl.arange(0, P)
    n = tl.arange(0, N)
    here = t < n_tokens
    token = batch * n_tokens + t
    of_group = token[:, None] * N + n[None, :]
    b = tl.load(b_at + of_group, here[:, None], 0.0)
    c = tl.load(c_at + of_group, here[:, None], 0.0)
    log_a = tl.load(log_a_at + token * H + head, here, 0.0)
    total = tl.cumsum(log_a, 0)
    span = total[:, None] - total[None, :]  # from s to t
    span = tl.where(at[:, None] >= at[None, :], span, -float("inf"))
    weights = tl.dot(c, tl.trans(b)) * tl.exp(span)  # (CHUNK, CHUNK)
    x_place = (token[:, None] * H + head) * P + p[None, :]
    x = tl.load(x_at + x_place, here[:, None], 0.0)
    place = (batch * n_chunks + chunk) * H + head
    state_tile = state_at + place * P * N + p[:, None] * N + n[None, :]
    h = tl.load(state_tile).to(c.dtype)  # (P, N), before the chunk
    y = tl.dot(c, tl.trans(h)) * tl.exp(total)[:, None]
    y = tl.dot(weights.to(x.dtype), x, y)
    tl.store(y_at + x_place, y.to(x.dtype), here[:, None])


def ssd(
    x: Tensor, log_a: Tensor, b: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the state space by the kernels; as the chapter's ``ssd_chunked``.

    Args:
        x: inputs, shape (B, T, H, P), on a GPU; P a power of two, 16 or more.
        log_a: logarithm of what is kept, ≤ 0, shape (B, T, H).
        b: how an input enters the state, shape (B, T, N), of x's dtype; N a
            power of two, 16 or more.
        c: how the state is read, shape (B, T, N), of x's dtype.

    Returns:
        The outputs, shape (B, T, H, P), of x's dtype, and the state after the
        last token, shape (B, H, P, N), float32.
    """
    x, b, c = (each.contiguous() for each in (x, b, c))
    log_a = log_a.float().contiguous()
    n_batch, n_tokens, heads, width = x.shape
    size = b.shape[-1]
    n_chunks = triton.cdiv(n_tokens, CHUNK)
    states, total, last = (
        torch.empty(shape, dtype=torch.float32, device=x.device)
        for shape in (
            (n_batch, n_chunks, heads, width, size),
            (n_batch, n_chunks, heads),
            (n_batch, heads, width, size),
        )
    )
    y = torch.empty_like(x)
    grid = (n_chunks, heads, n_batch)
    sizes = {"H": heads, "P": width, "N": size, "CHUNK": CHUNK}
    chunk_kernel[grid](x, log_a, b, states, total, n_tokens, n_chunks, **sizes)
    block = min(STATES, width * size)
    pass_kernel[(width * size // block, heads, n_batch)](
        states, total, last, n_chunks,
        H=heads, NUMBERS=width * size, BLOCK=block,
    )  # fmt: skip
    output_kernel[grid](
        x, log_a, b, c, states, y, n_tokens, n_chunks, **sizes, num_warps=8
    )
    return y, last
