"""Reference answers for chapter 05, *FlashAttention*."""

import math

import torch
from torch import Tensor


def merge_attention(
    output_a: Tensor, lse_a: Tensor, output_b: Tensor, lse_b: Tensor
) -> tuple[Tensor, Tensor]:
    """Merge what the same queries found among two separate sets of keys.

    A log-sum-exp (LSE) is the natural logarithm of the sum of exp(score)
    over the keys of a set. It says how much that set has to say. Where it is
    minus infinity a set had no key to attend to, and its output is zeros.

    Args:
        output_a: attention to the first set alone, shape (..., T, E).
        lse_a: its log-sum-exp, shape (..., T).
        output_b: attention to the second set alone, shape (..., T, E).
        lse_b: its log-sum-exp, shape (..., T).

    Returns:
        The attention to both sets together, shape (..., T, E), and its
        log-sum-exp, shape (..., T). Where both sets are empty these are zeros
        and minus infinity. An LSE of 10,000 must not overflow.

    Source: Dao et al. 2022, section 3.1.
    """
    ### BEGIN SOLUTION
    larger = torch.maximum(lse_a, lse_b)
    peak = larger.masked_fill(larger == -math.inf, 0.0)
    share_a = (lse_a - peak).exp()
    share_b = (lse_b - peak).exp()
    total = share_a + share_b  # (..., T)
    output = share_a[..., None] * output_a + share_b[..., None] * output_b
    output = output / total.masked_fill(total == 0, 1.0)[..., None]
    return output, peak + total.log()
    ### END SOLUTION


def online_softmax(
    state: tuple[Tensor, Tensor, Tensor], scores: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Take one more block of scores and values into a running softmax.

    The state holds for each query, of all blocks that came before:

    - ``peak``, the largest score, shape (..., T); at first minus infinity;
    - ``total``, the sum of exp(score - peak), shape (..., T); at first 0;
    - ``acc``, the sum of exp(score - peak) times value, shape (..., T, E); at
      first 0.

    As long as a query has met no score but minus infinity, these stay as they
    were at first; none of them may become NaN. What is given is left as it
    is.

    Args:
        state: ``(peak, total, acc)`` before this block.
        scores: scores of this block, shape (..., T, S).
        values: values of this block, shape (..., S, E).

    Returns:
        ``(peak, total, acc)`` with this block taken in.

    Source: Milakov and Gimelshein 2018, algorithm 3; Dao et al. 2022,
    algorithm 1.
    """
    ### BEGIN SOLUTION
    peak, total, acc = state
    new_peak = torch.maximum(peak, scores.amax(-1))
    base = new_peak.masked_fill(new_peak == -math.inf, 0.0)
    rescale = (peak - base).exp()  # from the old peak to the new one
    exps = (scores - base[..., None]).exp()
    total = rescale * total + exps.sum(-1)
    acc = rescale[..., None] * acc + exps @ values
    return new_peak, total, acc
    ### END SOLUTION


def tile_scores(
    q: Tensor,
    k: Tensor,
    first_query: int = 0,
    first_key: int = 0,
    causal: bool = False,
    key_mask: Tensor | None = None,
) -> Tensor:
    """Score a tile of queries against a tile of keys; hidden pairs get -inf.

    Args:
        q: the queries of the tile, shape (..., T, D).
        k: the keys of the tile, shape (..., S, D).
        first_query: the position of the tile's first query *among all keys*.
        first_key: the position of the tile's first key.
        causal: whether a query sees only its own position and those before.
        key_mask: for the tile's keys, boolean, broadcastable to (..., S).

    Returns:
        Scores q·k / √D, shape (..., T, S).
    """
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if causal:
        at_query = first_query + torch.arange(q.shape[-2], device=q.device)
        at_key = first_key + torch.arange(k.shape[-2], device=q.device)
        scores = scores.masked_fill(at_key > at_query[:, None], -math.inf)
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask[..., None, :], -math.inf)
    return scores


def flash_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = False,
    key_mask: Tensor | None = None,
    block_q: int = 64,
    block_k: int = 64,
) -> tuple[Tensor, Tensor]:
    """Compute attention tile by tile, and never hold the T × S scores.

    Work on ``block_q`` queries and ``block_k`` keys at a time. No tensor that
    is made is larger than q, k, v, the output or a tile of scores: not the
    scores of all pairs, and not all scores of some queries either. PyTorch's
    own attention is not the answer.

    Args:
        q: queries, shape (..., T, D); they are the last T of S positions.
        k: keys, shape (..., S, D).
        v: values, shape (..., S, E).
        causal: whether a query sees only its own position and those before.
            If T > S, the first T - S queries see nothing.
        key_mask: boolean, broadcastable to (..., S): True = this key may be
            attended to by every query; False = by none.
        block_q: how many queries a tile has. The last may have fewer.
        block_k: how many keys a tile has. The last may have fewer.

    Returns:
        The output, shape (..., T, E), and the log-sum-exp of the scores of
        each query, natural logarithm, shape (..., T), both of q's dtype. A
        query that sees nothing gets zeros and minus infinity.

    Source: Dao et al. 2022, algorithm 1; Dao 2023, algorithm 1 (the order of
    the loops).
    """
    ### BEGIN SOLUTION
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    output = q.new_empty(*q.shape[:-1], v.shape[-1])
    lse = q.new_empty(q.shape[:-1])
    for top in range(0, n_queries, block_q):
        rows = slice(top, top + block_q)
        q_tile = q[..., rows, :]
        peak = q.new_full(q_tile.shape[:-1], -math.inf)
        total = torch.zeros_like(peak)
        acc = torch.zeros_like(output[..., rows, :])
        for left in range(0, n_keys, block_k):
            keys = slice(left, left + block_k)
            scores = tile_scores(
                q_tile,
                k[..., keys, :],
                top + n_keys - n_queries,
                left,
                causal,
                None if key_mask is None else key_mask[..., keys],
            )
            peak, total, acc = online_softmax(
                (peak, total, acc), scores, v[..., keys, :]
            )
        divisor = total.masked_fill(total == 0, 1.0)
        output[..., rows, :] = acc / divisor[..., None]
        lse[..., rows] = peak + total.log()
    return output, lse
    ### END SOLUTION


def flash_attention_backward(
    grad_output: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    output: Tensor,
    lse: Tensor,
    causal: bool = False,
    key_mask: Tensor | None = None,
    block_q: int = 64,
    block_k: int = 64,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of attention tile by tile, without autograd.

    The weights were not kept: a tile of them is computed again from its
    scores and from ``lse``. The same limit holds as for ``flash_attention``.

    Args:
        grad_output: gradient of the loss by the output, shape (..., T, E).
        q: queries, shape (..., T, D).
        k: keys, shape (..., S, D).
        v: values, shape (..., S, E).
        output: what ``flash_attention`` returned, shape (..., T, E).
        lse: the log-sum-exp that it returned, shape (..., T).
        causal: as in ``flash_attention``.
        key_mask: as in ``flash_attention``.
        block_q: as in ``flash_attention``.
        block_k: as in ``flash_attention``.

    Returns:
        The gradients by q, k and v, of the shapes of q, k and v. A query
        that sees nothing sends back zeros.

    Source: Dao et al. 2022, algorithm 4; Dao 2023, algorithm 2.
    """
    ### BEGIN SOLUTION
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    mean = (grad_output * output).sum(-1)  # of grad_weights, by weight
    finite = lse.masked_fill(lse == -math.inf, 0.0)
    grad_q, grad_k, grad_v = (torch.zeros_like(x) for x in (q, k, v))
    for left in range(0, n_keys, block_k):
        keys = slice(left, left + block_k)
        k_tile, v_tile = k[..., keys, :], v[..., keys, :]
        for top in range(0, n_queries, block_q):
            rows = slice(top, top + block_q)
            q_tile, grad_tile = q[..., rows, :], grad_output[..., rows, :]
            scores = tile_scores(
                q_tile,
                k_tile,
                top + n_keys - n_queries,
                left,
                causal,
                None if key_mask is None else key_mask[..., keys],
            )
            weights = (scores - finite[..., rows, None]).exp()
            grad_weights = grad_tile @ v_tile.mT
            grad_scores = weights * (grad_weights - mean[..., rows, None])
            grad_scores = grad_scores / math.sqrt(q.shape[-1])
            grad_q[..., rows, :] += grad_scores @ k_tile
            grad_k[..., keys, :] += grad_scores.mT @ q_tile
            grad_v[..., keys, :] += weights.mT @ grad_tile
    return grad_q, grad_k, grad_v
    ### END SOLUTION


def hbm_bytes(
    n_queries: int,
    n_keys: int,
    width: int,
    block_q: int,
    bytes_per_number: int = 2,
) -> tuple[int, int]:
    """Count the bytes that attention moves to and from the slow memory.

    For one head, without a mask, where Q, K, V and the output have the same
    width. Every number has the same size.

    *Naive*, three steps, each of which reads what it needs from the slow
    memory and writes what it makes there: the scores from Q and K; the
    weights from the scores; the output from the weights and V.

    *Tiled*: for each tile of ``block_q`` queries, these are read once, all
    keys and all values are read once, and the tile's output and LSE (one
    number a query) are written once. The last tile may have fewer queries;
    it reads all keys and values, too.

    Args:
        n_queries: T.
        n_keys: S.
        width: D.
        block_q: how many queries a tile has.
        bytes_per_number: 2 for float16 and bfloat16, 4 for float32.

    Returns:
        The bytes of the naive and of the tiled computation, both exact.

    Source: Dao et al. 2022, algorithm 0 and theorem 2; Dao 2023, algorithm 1
    (the order of the loops).
    """
    ### BEGIN SOLUTION
    q_or_output = n_queries * width
    k_and_v = 2 * n_keys * width
    scores = n_queries * n_keys
    naive = 2 * q_or_output + k_and_v + 4 * scores
    n_tiles = math.ceil(n_queries / block_q)
    tiled = 2 * q_or_output + n_queries + n_tiles * k_and_v
    return naive * bytes_per_number, tiled * bytes_per_number
    ### END SOLUTION
