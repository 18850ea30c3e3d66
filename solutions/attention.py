"""Reference answers for chapter 02, *Attention, from the inside*."""

import math

import torch
from torch import Tensor


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Turn scores into weights: non-negative, summing to one along ``dim``.

    A score of minus infinity gets weight 0. Where every score along ``dim``
    is minus infinity there is nothing to choose from: all weights are 0, not
    NaN. Scores of any size are safe: 10,000 must not overflow. ``x`` itself
    is left as it is.

    Build it from ``exp`` and sums: PyTorch's own softmax is not the answer.

    Args:
        x: scores of any shape, floating point.
        dim: the dimension along which the weights sum to one.

    Returns:
        Weights of the shape and dtype of ``x``.

    Source: Vaswani et al. 2017, section 3.2.1; Milakov and Gimelshein 2018,
    algorithm 2 (the safe form).
    """
    ### BEGIN SOLUTION
    peak = x.amax(dim, keepdim=True)
    peak = peak.masked_fill(peak == -math.inf, 0.0)  # -inf - -inf is NaN
    exps = (x - peak).exp()
    total = exps.sum(dim, keepdim=True)
    return exps / total.masked_fill(total == 0, 1.0)
    ### END SOLUTION


def attention_scores(q: Tensor, k: Tensor) -> Tensor:
    """Score how well each query matches each key: q·k / √D.

    Args:
        q: queries, shape (..., T, D).
        k: keys, shape (..., S, D).

    Returns:
        Scores of shape (..., T, S): entry (t, s) belongs to query t and key s.

    Source: Vaswani et al. 2017, equation 1.
    """
    ### BEGIN SOLUTION
    return q @ k.mT / math.sqrt(q.shape[-1])
    ### END SOLUTION


def causal_mask(
    n_queries: int, n_keys: int, device: torch.device | str | None = None
) -> Tensor:
    """Say which keys each query may attend to without seeing the future.

    The queries are the *last* ``n_queries`` of ``n_keys`` positions, as they
    are when a model continues a text that it has read already. A query may
    attend to its own position and to all before it.

    Args:
        n_queries: T, the number of queries, T ≥ 1.
        n_keys: S, the number of keys, S ≥ T.
        device: where the mask is made.

    Returns:
        Boolean mask of shape (T, S): True = may attend.

    Raises:
        ValueError: if there are more queries than keys.
    """
    if n_queries > n_keys:
        raise ValueError(
            f"{n_queries} queries can't be the last of {n_keys} keys"
        )
    ### BEGIN SOLUTION
    keys = torch.arange(n_keys, device=device)
    queries = keys[n_keys - n_queries :]
    return keys <= queries[:, None]
    ### END SOLUTION


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Average the values by how well each query matches each key.

    Args:
        q: queries, shape (..., T, D).
        k: keys, shape (..., S, D).
        v: values, shape (..., S, E); E need not be D.
        mask: boolean, broadcastable to (..., T, S), True = may attend. For q
            of shape (B, H, T, D) a mask (H, T, S) is one for each head. A
            query that may attend to nothing gets an output of zeros.

    Returns:
        The output, shape (..., T, E), and the weights, shape (..., T, S).

    Source: Vaswani et al. 2017, equation 1.
    """
    ### BEGIN SOLUTION
    scores = attention_scores(q, k)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = softmax(scores)
    return weights @ v, weights
    ### END SOLUTION


def attention_backward(
    grad_output: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of attention by hand, without autograd.

    Args:
        grad_output: gradient of the loss by the output, shape (..., T, E).
        q: queries, shape (..., T, D).
        k: keys, shape (..., S, D).
        v: values, shape (..., S, E).
        mask: as in ``attention``.

    Returns:
        The gradients by q, k and v, of the shapes of q, k and v. A query
        that may attend to nothing sends back zeros.

    Source: Dao et al. 2022, appendix B.2.
    """
    ### BEGIN SOLUTION
    _, weights = attention(q, k, v, mask)
    grad_v = weights.mT @ grad_output
    grad_weights = grad_output @ v.mT
    mean = (grad_weights * weights).sum(-1, keepdim=True)
    grad_scores = weights * (grad_weights - mean) / math.sqrt(q.shape[-1])
    return grad_scores @ k, grad_scores.mT @ q, grad_v
    ### END SOLUTION
