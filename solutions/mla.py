"""Reference answers for chapter 09, *Sharing and compressing*."""

import math

import torch
from torch import Tensor, nn

from solutions.attention import (
    attention,
    attention_scores,
    causal_mask,
    softmax,
)
from solutions.multihead import merge_heads, split_heads


def grouped_query_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Let groups of neighbouring query heads share one head of keys.

    With H query heads and G heads of keys and values, each of the latter
    serves H / G query heads: heads 0 to H / G - 1 read the first, the next
    H / G the second. G = H is multi-head attention, G = 1 multi-query
    attention.

    The keys and values are read where they lie: make no copy of them for
    each query head.

    Args:
        q: queries, shape (B, H, T, D).
        k: keys, shape (B, G, S, D).
        v: values, shape (B, G, S, E).
        mask: boolean, broadcastable to (B, H, T, S), True = may attend.
            A query that may attend to nothing gets an output of zeros.

    Returns:
        The output, shape (B, H, T, E).

    Raises:
        ValueError: if H is not a multiple of G.

    Source: Ainslie et al. 2023, section 2.2; Shazeer 2019, section 3 (G = 1).
    """
    if q.shape[1] % k.shape[1]:
        raise ValueError(
            f"{q.shape[1]} query heads can't share {k.shape[1]} heads of keys "
            "equally"
        )
    ### BEGIN SOLUTION
    batch, n_heads, n_queries, width = q.shape
    n_shared, n_keys = k.shape[1:3]
    rows = q.reshape(batch, n_shared, -1, width)  # (B, G, H/G · T, D)
    scores = attention_scores(rows, k)
    scores = scores.view(batch, n_heads, n_queries, n_keys)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = softmax(scores).view(batch, n_shared, -1, n_keys)
    return (weights @ v).view(batch, n_heads, n_queries, -1)
    ### END SOLUTION


def mha_to_gqa(weight: Tensor, n_heads: int, n_shared: int) -> Tensor:
    """Merge the key (or value) heads of each group into their mean.

    Args:
        weight: a projection to H heads of width D, side by side, as in the
            ``weight`` of an ``nn.Linear``: shape (H·D, C).
        n_heads: H.
        n_shared: G, how many heads are to be left; H is a multiple of it.

    Returns:
        The projection to G heads, shape (G·D, C). Head g is the mean of the
        heads whose queries will read it: g·H/G to (g + 1)·H/G - 1. ``weight``
        itself is left as it is.

    Raises:
        ValueError: if H is not a multiple of G.

    Source: Ainslie et al. 2023, section 2.1.
    """
    if n_heads % n_shared:
        raise ValueError(f"{n_heads} heads don't make {n_shared} equal groups")
    ### BEGIN SOLUTION
    width = weight.shape[0] // n_heads
    heads = weight.reshape(n_shared, n_heads // n_shared, width, -1)
    return heads.mean(1).flatten(0, 1)
    ### END SOLUTION


def rotate_pairs(x: Tensor, positions: Tensor) -> Tensor:
    """Turn each pair of neighbouring channels by an angle, as RoPE does.

    Pair i, channels 2i and 2i + 1 of R, turns by position · 10,000^(-2i/R).

    Args:
        x: queries or keys, shape (..., T, R), R even.
        positions: where each of the T tokens stands, shape (T,).

    Returns:
        Shape (..., T, R), of the dtype of ``x``.

    Source: Su et al. 2021, equation 15; DeepSeek-AI 2024a, section 2.1.3.
    """
    even = torch.arange(0, x.shape[-1], 2, device=x.device, dtype=x.dtype)
    speeds = 10_000 ** (-even / x.shape[-1])
    angles = positions.to(x.dtype)[:, None] * speeds  # (T, R / 2)
    cos, sin = angles.cos(), angles.sin()
    first, second = x[..., 0::2], x[..., 1::2]
    turned = (first * cos - second * sin, first * sin + second * cos)
    return torch.stack(turned, -1).flatten(-2)


class MultiHeadLatentAttention(nn.Module):
    """Attention that keeps one short vector a token, as DeepSeek-V2's does.

    Every token is compressed into a latent, from which the keys and values of
    all heads are made, and into one RoPE key, which all heads share. The
    layers have the names that they have in the ``transformers`` library.

    Source: DeepSeek-AI 2024a, section 2.1 and appendix C.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        q_latent: int,
        kv_latent: int,
        nope: int,
        rope: int,
        value: int,
    ) -> None:
        """Make the layers; all widths but ``d_model`` are in the paper.

        Args:
            d_model: C.
            n_heads: H.
            q_latent: the width that queries are compressed to.
            kv_latent: the width of the latent.
            nope: the width of a head's keys without a position.
            rope: the width of the RoPE key, even.
            value: the width of a head's values.
        """
        super().__init__()
        self.n_heads = n_heads
        self.nope, self.rope, self.value = nope, rope, value
        self.kv_latent = kv_latent
        self.q_a_proj = nn.Linear(d_model, q_latent, bias=False)
        self.q_a_layernorm = nn.RMSNorm(q_latent, eps=1e-6)
        self.q_b_proj = nn.Linear(
            q_latent, n_heads * (nope + rope), bias=False
        )
        self.kv_a_proj_with_mqa = nn.Linear(
            d_model, kv_latent + rope, bias=False
        )
        self.kv_a_layernorm = nn.RMSNorm(kv_latent, eps=1e-6)
        self.kv_b_proj = nn.Linear(
            kv_latent, n_heads * (nope + value), bias=False
        )
        self.o_proj = nn.Linear(n_heads * value, d_model, bias=False)

    def queries(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Make the queries of every head, in two parts.

        Args:
            x: shape (B, T, C).
            positions: where the tokens of x stand, shape (T,).

        Returns:
            What meets the keys without a position, shape (B, H, T, nope), and
            what meets the RoPE key, rotated, shape (B, H, T, rope).
        """
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        q = split_heads(q, self.n_heads)
        q_nope, q_rope = q.split([self.nope, self.rope], -1)
        return q_nope, rotate_pairs(q_rope, positions)

    def compress(self, x: Tensor, positions: Tensor) -> Tensor:
        """Make what is kept of every token, and nothing else is.

        ``kv_a_proj_with_mqa`` gives the latent and the RoPE key, in this
        order. The latent is normalised by ``kv_a_layernorm``, the RoPE key is
        rotated by ``rotate_pairs``.

        Args:
            x: shape (B, T, C).
            positions: where the tokens of x stand, shape (T,). They need not
                be neighbours.

        Returns:
            The cache, shape (B, T, kv_latent + rope).
        """
        ### BEGIN SOLUTION
        latent, rope_key = self.kv_a_proj_with_mqa(x).split(
            [self.kv_latent, self.rope], -1
        )
        latent = self.kv_a_layernorm(latent)
        return torch.cat([latent, rotate_pairs(rope_key, positions)], -1)
        ### END SOLUTION

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Let every token attend to itself and to those before it.

        ``kv_b_proj`` makes the keys and values of all heads from the latent.
        The heads stand side by side; a head's part is its key, ``nope`` wide,
        and then its value. The queries' two parts and the keys' two parts are
        joined in the same order; the scores are divided by √(nope + rope).

        Args:
            x: a text from position 0 on, shape (B, T, C).

        Returns:
            The output, shape (B, T, C), and the cache of all its tokens,
            shape (B, T, kv_latent + rope).
        """
        ### BEGIN SOLUTION
        positions = torch.arange(x.shape[1], device=x.device)
        q = torch.cat(self.queries(x, positions), -1)
        cache = self.compress(x, positions)
        latents, rope_keys = cache.split([self.kv_latent, self.rope], -1)
        k_nope, v = split_heads(self.kv_b_proj(latents), self.n_heads).split(
            [self.nope, self.value], -1
        )
        k_rope = rope_keys[:, None].expand(-1, self.n_heads, -1, -1)
        k = torch.cat([k_nope, k_rope], -1)  # (B, H, T, nope + rope)
        mask = causal_mask(len(positions), len(positions), x.device)
        output, _ = attention(q, k, v, mask)
        return self.o_proj(merge_heads(output)), cache
        ### END SOLUTION


def absorbed_decode(
    q_nope: Tensor, q_rope: Tensor, cache: Tensor, kv_b: Tensor
) -> Tensor:
    """Let the newest token attend to all tokens, from the latents alone.

    No key and no value of any cached token is made, and the cache isn't
    copied for each head.

    Args:
        q_nope: the token's queries without a position, shape (B, H, N).
        q_rope: its rotated queries, shape (B, H, R).
        cache: latents and RoPE keys of all S tokens, the newest included,
            shape (B, S, L + R), as ``compress`` makes it.
        kv_b: the weight of ``kv_b_proj``, shape (H·(N + E), L): a head's rows
            are N for its key and then E for its value.

    Returns:
        What each head read, before ``o_proj``: shape (B, H, E).

    Source: DeepSeek-AI 2024a, section 2.1.2, "absorbed".
    """
    ### BEGIN SOLUTION
    n_heads, nope = q_nope.shape[1:]
    latents, rope_keys = cache.split(
        [kv_b.shape[1], cache.shape[-1] - kv_b.shape[1]], -1
    )
    per_head = kv_b.unflatten(0, (n_heads, -1))  # (H, N + E, L)
    to_key, to_value = per_head[:, :nope], per_head[:, nope:]
    q_latent = torch.einsum("bhn,hnl->bhl", q_nope, to_key)
    scores = q_latent @ latents.mT + q_rope @ rope_keys.mT  # (B, H, S)
    weights = softmax(scores / math.sqrt(nope + q_rope.shape[-1]))
    read = weights @ latents  # (B, H, L): one latent for each head
    return torch.einsum("bhl,hel->bhe", read, to_value)
    ### END SOLUTION


def mla_cache_bytes(
    n_tokens: int,
    n_layers: int,
    n_heads: int,
    head_width: int,
    kv_latent: int,
    rope: int,
    bytes_per_number: int = 2,
) -> tuple[int, int]:
    """Count the bytes that a text takes in the cache, without MLA and with.

    Args:
        n_tokens: how many tokens are kept.
        n_layers: how many layers keep them.
        n_heads: H; without MLA, each head keeps its own keys and values.
        head_width: the width of a key, and of a value.
        kv_latent: the width of the latent.
        rope: the width of the RoPE key; 0 if there is none.
        bytes_per_number: 2 for float16 and bfloat16, 4 for float32.

    Returns:
        The bytes of multi-head attention and those of multi-head latent
        attention, both exact.

    Source: DeepSeek-AI 2024a, table 1.
    """
    ### BEGIN SOLUTION
    places = n_tokens * n_layers * bytes_per_number
    return places * 2 * n_heads * head_width, places * (kv_latent + rope)
    ### END SOLUTION
