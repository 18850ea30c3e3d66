"""Reference answers for chapter 06, *Rotary position embedding*."""

import math

import torch
from torch import Tensor


def inverse_frequencies(width: int, base: float = 10_000.0) -> Tensor:
    """Return how far each hand of the clock turns from token to token.

    Pair i of the channels, counted from 0, turns by base^(-2i / width)
    radians: 1 for the first pair, and less from pair to pair.

    Args:
        width: D, the width of a head, even.
        base: what sets the slowest hand; 10,000 in the first publication.

    Returns:
        Shape (D / 2,), float32, the fastest first.

    Raises:
        ValueError: if the width is odd.

    Source: Su et al. 2021, section 3.2.2 (where i counts from 1).
    """
    if width % 2:
        raise ValueError(f"{width} channels can't be cut into pairs")
    ### BEGIN SOLUTION
    return base ** (-torch.arange(0, width, 2) / width)
    ### END SOLUTION


def rotary_table(inv_freq: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Look up where every hand stands at each of the given positions.

    The angle of pair i at position p is p · inv_freq[i], in radians.

    Args:
        inv_freq: radians a token, shape (D / 2,), float32 or float64.
        positions: any positions, in any order, whole numbers or not, shape
            (..., T). They are not rounded.

    Returns:
        The cosines and the sines of the angles, each of shape
        (..., T, D / 2) and of the dtype of ``inv_freq``.

    Source: Su et al. 2021, section 3.4.2.
    """
    ### BEGIN SOLUTION
    angles = positions[..., None].to(inv_freq) * inv_freq
    return angles.cos(), angles.sin()
    ### END SOLUTION


def apply_rope(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor]:
    """Turn the queries and the keys by the angles of their positions.

    The layout is half-split: channel i of the first half and channel i of
    the second half are a pair (a, b), which becomes
    (a·cos - b·sin, a·sin + b·cos). The inputs are left as they are.

    Args:
        q: queries, shape (..., T, D).
        k: keys at the same positions, shape (..., T, D). They may have fewer
            heads than the queries.
        cos: shape (T, D / 2), or with leading dimensions that broadcast
            against those of q and k.
        sin: as ``cos``.

    Returns:
        The rotated q and the rotated k, of the shapes and dtypes of q and k.
        Gradients come back through them.

    Source: Su et al. 2021, equation 34, in the layout of GPT-NeoX and Llama
    (in the ``transformers`` library).
    """
    ### BEGIN SOLUTION
    rotated = []
    for x in (q, k):
        a, b = x.chunk(2, -1)
        pairs = torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
        rotated.append(pairs.to(x.dtype))  # a float32 table lifts bfloat16
    return rotated[0], rotated[1]
    ### END SOLUTION


def interleaved_to_half(weight: Tensor, n_heads: int) -> Tensor:
    """Reorder a projection so that ``apply_rope`` finds its pairs.

    In the interleaved layout neighbours are pairs: channels 2i and 2i + 1 of
    a head. In the half-split layout they are channels i and i + D / 2. The
    new projection makes the same numbers in another order: first all first
    members of the pairs, then all second members, within each head.

    Args:
        weight: of the layer that makes the queries or the keys of all heads
            side by side, shape (H·D, C); or its bias, shape (H·D,). D is even.
        n_heads: H. A key projection may have fewer than the queries'.

    Returns:
        The same rows (or numbers) in another order; ``weight`` is left as it
        is.

    Raises:
        ValueError: if the rows don't split into heads of an even width.

    Source: the conversion of Meta's Llama weights in ``transformers``.
    """
    if len(weight) % (2 * n_heads):
        raise ValueError(
            f"{len(weight)} rows don't split into pairs of {n_heads} heads"
        )
    ### BEGIN SOLUTION
    heads = weight.unflatten(0, (n_heads, -1, 2))  # (H, D / 2, 2, ...)
    return heads.transpose(1, 2).flatten(0, 2)
    ### END SOLUTION


def alibi_bias(n_heads: int, n_queries: int, n_keys: int) -> Tensor:
    """Return what ALiBi adds to the scores: less and less for far keys.

    Head h, counted from 1, takes 2^(-8h / H) away from a score for every
    step from a query back to a key. The queries are the *last*
    ``n_queries`` of ``n_keys`` positions. The future is hidden.

    Args:
        n_heads: H, a power of two (the authors' code has another rule for
            other numbers).
        n_queries: T, the number of queries.
        n_keys: S, the number of keys, S ≥ T.

    Returns:
        Shape (H, T, S), float32: 0 where a query meets its own position,
        negative before it, minus infinity after it.

    Raises:
        ValueError: if ``n_heads`` is no power of two, or there are more
            queries than keys.

    Source: Press et al. 2022, section 3.
    """
    if n_heads < 1 or n_heads & (n_heads - 1):
        raise ValueError(f"{n_heads} heads are not a power of two")
    if n_queries > n_keys:
        raise ValueError(
            f"{n_queries} queries can't be the last of {n_keys} keys"
        )
    ### BEGIN SOLUTION
    slopes = 2.0 ** (-8 * torch.arange(1, n_heads + 1) / n_heads)
    keys = torch.arange(n_keys)
    queries = keys[n_keys - n_queries :]
    distance = queries[:, None] - keys  # (T, S), negative in the future
    bias = -slopes[:, None, None] * distance
    return bias.masked_fill(distance < 0, -math.inf)
    ### END SOLUTION
