"""Reference answers for chapter 10, *Sparse attention*."""

from collections.abc import Sequence

import torch
from torch import Tensor

from solutions.attention import attention


def sliding_window_mask(
    n_queries: int, n_keys: int, window: int, causal: bool = True
) -> Tensor:
    """Let each query attend to the keys near its own position.

    A window of w is the query's own position and the w − 1 before it. Without
    ``causal`` it is also the w − 1 after it, 2w − 1 positions in all. At an
    end of the text a query sees what there is.

    Args:
        n_queries: T; the queries are the last T of S positions.
        n_keys: S.
        window: w, at least 1.
        causal: whether the future is hidden.

    Returns:
        Boolean mask of shape (T, S), True = may attend.

    Source: Mistral's window, as the transformers library counts it; Jiang et
    al. 2023 write of w positions before, without the query's own.
    """
    ### BEGIN SOLUTION
    keys = torch.arange(n_keys)
    queries = keys[n_keys - n_queries :]
    back = queries[:, None] - keys  # how far back a key lies
    if causal:
        return (back >= 0) & (back < window)
    return back.abs() < window
    ### END SOLUTION


def global_mask(
    n_queries: int,
    n_keys: int,
    positions: Sequence[int],
    causal: bool = True,
) -> Tensor:
    """Let a few tokens attend to all, and all attend to them.

    The mask holds the pairs that global tokens add, and nothing else: a pair
    is True if its query *or* its key is global. With ``causal``, the future
    stays hidden all the same.

    Args:
        n_queries: T; the queries are the last T of S positions.
        n_keys: S.
        positions: the positions of the global tokens, each in 0 … S − 1.
        causal: whether the future is hidden.

    Returns:
        Boolean mask of shape (T, S), True = may attend.

    Source: Beltagy et al. 2020, section 3.1.
    """
    ### BEGIN SOLUTION
    is_global = torch.zeros(n_keys, dtype=torch.bool)
    is_global[list(positions)] = True
    first = n_keys - n_queries  # the position of the first query
    mask = is_global[first:, None] | is_global
    return mask.tril(first) if causal else mask
    ### END SOLUTION


def strided_mask(
    n_queries: int, n_keys: int, stride: int, causal: bool = True
) -> Tensor:
    """Let each query attend to every ``stride``-th position, from its own.

    A query sees its own position and those whose distance from it is a
    multiple of the stride; with ``causal``, only those that came before.

    Args:
        n_queries: T; the queries are the last T of S positions.
        n_keys: S.
        stride: at least 1.
        causal: whether the future is hidden.

    Returns:
        Boolean mask of shape (T, S), True = may attend.

    Source: Child et al. 2019, section 4.3: the second head of the strided
    pattern. (Its first head is a sliding window.)
    """
    ### BEGIN SOLUTION
    keys = torch.arange(n_keys)
    queries = keys[n_keys - n_queries :]
    back = queries[:, None] - keys
    mask = back % stride == 0
    return mask & (back >= 0) if causal else mask
    ### END SOLUTION


def bigbird_mask(
    n_tokens: int,
    block: int,
    n_global: int = 1,
    n_random: int = 1,
    seed: int = 0,
) -> Tensor:
    """Make BigBird's mask of blocks: a window, global and random ones.

    The text is cut into blocks of ``block`` tokens; the last may be shorter.
    Blocks attend to blocks, in both directions:

    - each block to itself and to its neighbours, one on each side;
    - the first ``n_global`` blocks to all, and all to them;
    - every other block to ``n_random`` different blocks, drawn one by one, at
      random and evenly, from those that it doesn't see yet. Each draws for
      itself. If fewer are left, it sees them all. (A random pair goes one way
      only.)

    Args:
        n_tokens: n.
        block: the number of tokens in a block, at least 1.
        n_global: how many blocks are global; 0 for none.
        n_random: how many random blocks a block sees; 0 for none.
        seed: where all the randomness comes from: the same seed, the same
            mask.

    Returns:
        Boolean mask of shape (n, n), True = may attend.

    Source: Zaheer et al. 2020, section 2 and appendix D, the ITC variant.
    """
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(seed)
    n_blocks = -(-n_tokens // block)
    at = torch.arange(n_blocks)
    is_global = at < n_global
    seen = (at[:, None] - at).abs() <= 1
    seen = seen | is_global[:, None] | is_global
    lots = torch.rand(n_blocks, n_blocks, generator=generator)
    lots = lots.masked_fill(seen, 2.0)  # what is seen comes last
    drawn = lots.argsort(-1)[:, :n_random]
    seen = seen.scatter(1, drawn, True)
    of_block = torch.arange(n_tokens) // block
    return seen[of_block][:, of_block]
    ### END SOLUTION


def sliding_window_attention(
    q: Tensor, k: Tensor, v: Tensor, window: int
) -> Tensor:
    """Attend causally within a window, with memory and work linear in T.

    The result is that of ``attention`` under ``sliding_window_mask``. Not
    only the T × S matrix is never made: a query is never scored against a key
    that lies two windows or more away. What stands there makes no
    difference, not even NaN.

    Args:
        q: queries, shape (..., T, D); they are the last T of S positions.
        k: keys, shape (..., S, D), S ≥ T.
        v: values, shape (..., S, E).
        window: w, at least 1: a query sees its own position and the w − 1
            before it.

    Returns:
        The output, shape (..., T, E).
    """
    ### BEGIN SOLUTION
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    offset = n_keys - n_queries
    outputs = []
    for start in range(0, n_queries, window):
        rows = q[..., start : start + window, :]
        end = start + rows.shape[-2] + offset
        first = max(0, start + offset - window + 1)
        keys, values = k[..., first:end, :], v[..., first:end, :]
        mask = sliding_window_mask(rows.shape[-2], end - first, window)
        part, _ = attention(rows, keys, values, mask.to(q.device))
        outputs.append(part)
    return torch.cat(outputs, -2)
    ### END SOLUTION


def receptive_field(masks: Sequence[Tensor]) -> Tensor:
    """Find out which tokens can reach which outputs through several layers.

    A layer adds to the residual stream what its attention finds. So from each
    layer to the next, a token keeps what it had, and hears what its mask
    lets it hear: what those tokens knew *after the layer before*.

    Args:
        masks: one boolean mask of shape (n, n) for each layer, True = may
            attend; the layer that comes first in the model stands first.
            At least one.

    Returns:
        Boolean, shape (n, n): entry (t, s) says whether a change of token s
        can change the output of token t.
    """
    ### BEGIN SOLUTION
    n_tokens = len(masks[0])
    reach = torch.eye(n_tokens, device=masks[0].device)
    for mask in masks:
        heard = mask.to(reach.dtype) @ reach  # (t, s): how many ways
        reach = ((heard + reach) > 0).to(reach.dtype)
    return reach > 0
    ### END SOLUTION


def layer_pattern(
    n_layers: int, n_local: int, n_full: int, window: int
) -> list[int | None]:
    """Say for each layer of a model how far it looks.

    The layers go round and round: first ``n_local`` layers with a window,
    then ``n_full`` layers that see everything, and so on. The last round is
    cut short where the layers end.

    Args:
        n_layers: how many layers the model has.
        n_local: how many layers of a round have a window; 0 for none.
        n_full: how many layers of a round see everything; 0 for none.
        window: the window of a layer that has one.

    Returns:
        A list with an entry for each layer: its window, or None if it sees
        everything.

    Raises:
        ValueError: if a round would have no layer.
    """
    if n_local + n_full < 1:
        raise ValueError("a round needs at least one layer")
    ### BEGIN SOLUTION
    in_round = n_local + n_full
    return [
        window if layer % in_round < n_local else None
        for layer in range(n_layers)
    ]
    ### END SOLUTION


def topk_attention(
    q: Tensor, k: Tensor, v: Tensor, relevance: Tensor, top_k: int
) -> Tensor:
    """Attend causally to the few keys that look most relevant to a query.

    Each query picks, among the keys that it may see, the ``top_k`` of highest
    ``relevance``, and attends to those alone, as usual: by the softmax of
    q·k / √D over the keys that it picked. Relevance decides who is picked,
    and nothing else. A query that may see fewer than ``top_k`` keys picks all
    of those.

    Fetch what was picked, and leave the rest where it lies: if every query
    may see ``top_k`` keys or more, a key that nobody picks makes no
    difference, not even if it and its value are NaN.

    Args:
        q: queries, shape (..., T, D); they are the last T of S positions. A
            query may see its own position and those before.
        k: keys, shape (..., S, D), S ≥ T.
        v: values, shape (..., S, E).
        relevance: shape (..., T, S), of any sign, finite; it need not be
            causal.
        top_k: how many keys a query picks, at least 1; may be larger than S.

    Returns:
        The output, shape (..., T, E).

    Source: DeepSeek-AI 2025, section 2.1, where a small indexer computes
    the relevance.
    """
    ### BEGIN SOLUTION
    n_queries, n_keys = relevance.shape[-2:]
    past = torch.ones(n_queries, n_keys, dtype=torch.bool, device=q.device)
    past = past.tril(n_keys - n_queries)
    relevance = relevance.masked_fill(~past, -torch.inf)
    best, picked = relevance.topk(min(top_k, n_keys))  # (..., T, K)
    keys, values = (
        torch.take_along_dim(x[..., None, :, :], picked[..., None], -2)
        for x in (k, v)
    )  # each query has K keys of its own: (..., T, K, D)
    may_see = best > -torch.inf
    output, _ = attention(q[..., None, :], keys, values, may_see[..., None, :])
    return output[..., 0, :]
    ### END SOLUTION
