"""Reference answers for chapter 04, *The quadratic wall*."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from solutions.attention import attention


def attention_pairs(n_queries: int, n_keys: int, causal: bool = False) -> int:
    """Count the pairs of a query and a key that attention scores.

    A query and a key at the same position are a pair like any other. With
    ``causal``, the queries are the *last* ``n_queries`` of ``n_keys``
    positions, and a query is paired with its own position and all before it.

    Compute the number, don't count a mask: for a million tokens it has 10¹²
    entries.

    Args:
        n_queries: T, the number of queries.
        n_keys: S, the number of keys.
        causal: whether the pairs that a causal mask hides are left out.

    Returns:
        The number of pairs, a Python int.

    Raises:
        ValueError: if causal, and there are more queries than keys.
    """
    if causal and n_queries > n_keys:
        raise ValueError(
            f"{n_queries} queries can't be the last of {n_keys} keys"
        )
    ### BEGIN SOLUTION
    pairs = n_queries * n_keys
    if causal:
        pairs -= n_queries * (n_queries - 1) // 2
    return pairs
    ### END SOLUTION


def score_bytes(
    n_tokens: int,
    n_layers: int = 1,
    n_heads: int = 1,
    dtype: torch.dtype = torch.float32,
) -> int:
    """Return the bytes of all score matrices, if all of them are kept.

    Every token is a query and a key. A causal mask changes nothing: what it
    hides has its place in the matrix all the same.

    Args:
        n_tokens: n, the length of the text.
        n_layers: how many layers the model has.
        n_heads: how many heads each layer has.
        dtype: what a score is stored as.

    Returns:
        Bytes, a Python int; neither GB (10⁹ bytes) nor GiB (2³⁰ bytes).
    """
    ### BEGIN SOLUTION
    return n_layers * n_heads * n_tokens**2 * dtype.itemsize
    ### END SOLUTION


def attention_flops(
    n_queries: int, n_keys: int, width: int, causal: bool = False
) -> int:
    """Count the floating-point operations of attention, in one layer.

    What is counted are the two matrix products, QKᵀ and PV, as is usual. A
    multiplication and the addition that follows it are two operations. Only
    pairs that may attend are counted (see ``attention_pairs``).

    Args:
        n_queries: T, the number of queries.
        n_keys: S, the number of keys.
        width: C, the width of all heads together; a value is as wide as a
            query.
        causal: whether the pairs that a causal mask hides are left out.

    Returns:
        The number of operations (FLOPs), a Python int.

    Source: Chowdhery et al. 2022, appendix B: 12LHQT a token, of which the
    forward pass is a third.
    """
    ### BEGIN SOLUTION
    pairs = attention_pairs(n_queries, n_keys, causal)
    return 2 * 2 * pairs * width  # two products, each multiplies and adds
    ### END SOLUTION


def crossover_length(d_model: int, d_hidden: int, causal: bool = False) -> int:
    """Return the shortest text for which attention is most of the work.

    For a text of n tokens, compare ``attention_flops`` with what the same
    layer spends on its weight matrices: the projections to queries, keys,
    values and back (four matrices of C × C) and the two matrices of the MLP
    (C × F and F × C). A token meets each weight once, in a multiplication and
    an addition. Biases, norms and the activation are not counted.

    Args:
        d_model: C, the width of the model and of all its heads together.
        d_hidden: F, the width of the MLP's hidden layer.
        causal: whether the pairs that a causal mask hides are left out.

    Returns:
        The smallest n for which attention costs *more* FLOPs than the weight
        matrices, a Python int.
    """
    ### BEGIN SOLUTION
    n_weights = 4 * d_model**2 + 2 * d_model * d_hidden
    # A token's share: 2 · n_weights against 4 · C · (the mean of its keys).
    mean_keys = n_weights // (2 * d_model)
    return 2 * mean_keys if causal else mean_keys + 1
    ### END SOLUTION


def growth_exponent(lengths: Sequence[float], costs: Sequence[float]) -> float:
    """Fit cost = a · lengthᵇ and return the exponent b.

    On paper where both axes are logarithmic this is a straight line, and b is
    its slope: fit it by least squares, with all points.

    Args:
        lengths: positive numbers, at least two of them different.
        costs: what each length costs, positive numbers; in any unit.

    Returns:
        The exponent b, a Python float.

    Raises:
        ValueError: if there are not as many costs as lengths, fewer than two
            different lengths, or a number that isn't positive.
    """
    if len(lengths) != len(costs):
        raise ValueError(f"{len(lengths)} lengths but {len(costs)} costs")
    if len(set(lengths)) < 2:
        raise ValueError("a slope needs two different lengths")
    if min(*lengths, *costs) <= 0:
        raise ValueError("only positive numbers have a logarithm")
    ### BEGIN SOLUTION
    x = [math.log(n) for n in lengths]
    y = [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    rise = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return rise / sum((a - mean_x) ** 2 for a in x)
    ### END SOLUTION


def chunked_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    chunk: int = 128,
) -> Tensor:
    """Attend exactly, without ever holding a T × S matrix.

    Let ``chunk`` queries at a time attend to all keys, so that no more than
    ``chunk`` × S scores a head exist at once. The last chunk may be smaller.
    Use ``attention``: PyTorch's own is not the answer.

    Args:
        q: queries, shape (..., T, D).
        k: keys, shape (..., S, D).
        v: values, shape (..., S, E).
        mask: boolean, broadcastable to (..., T, S), True = may attend: it may
            have one row for all queries, or one column for all keys. A query
            that may attend to nothing gets an output of zeros.
        chunk: the number of queries that attend at once, at least 1; it need
            not divide T, and may be larger.

    Returns:
        The output, shape (..., T, E), the same as that of ``attention``.

    Raises:
        ValueError: if chunk is smaller than 1.

    Source: Rabe and Staats 2021, without the second level over the keys.
    """
    if chunk < 1:
        raise ValueError(f"a chunk is at least 1 query, not {chunk}")
    ### BEGIN SOLUTION
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    if mask is not None:  # a view with all its rows; nothing is copied
        mask = mask.expand(*mask.shape[:-2], n_queries, n_keys)
    outputs = []
    for start in range(0, n_queries, chunk):
        rows = slice(start, start + chunk)
        part = mask if mask is None else mask[..., rows, :]
        outputs.append(attention(q[..., rows, :], k, v, part)[0])
    return torch.cat(outputs, dim=-2)
    ### END SOLUTION
