"""Reference answers for chapter 11, *Ring attention*."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from solutions.flash import merge_attention, online_softmax


def tiles(
    q_positions: Tensor, k_positions: Tensor, causal: bool, size: int = 128
) -> Iterator[tuple[slice, slice, Tensor | None]]:
    """Cut two blocks of tokens into tiles; leave out what is all hidden.

    Args:
        q_positions: where in the text the queries stand, shape (T,).
        k_positions: where the keys stand, shape (S,).
        causal: whether a query sees only its own position and those before.
        size: how many queries, and how many keys, a tile has at most.

    Yields:
        The rows of a tile, its keys, and which pairs are hidden: boolean, of
        the tile's shape, or None if nothing is.
    """
    for top in range(0, len(q_positions), size):
        rows = slice(top, top + size)
        for left in range(0, len(k_positions), size):
            keys = slice(left, left + size)
            hidden = None
            if causal:
                hidden = k_positions[keys] > q_positions[rows, None]
                if hidden.all():
                    continue
            yield rows, keys, hidden


def block_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_positions: Tensor,
    k_positions: Tensor,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Attend to one block of keys, tile by tile, as in chapter 5.

    Args:
        q: queries, shape (..., T, D).
        k: keys of one block, shape (..., S, D).
        v: values of the block, shape (..., S, E).
        q_positions: where in the text the queries stand, shape (T,).
        k_positions: where the keys stand, shape (S,).
        causal: whether a query sees only its own position and those before.

    Returns:
        The output, shape (..., T, E), and the log-sum-exp of each query's
        scores, shape (..., T). A query that sees none of these keys gets
        zeros and minus infinity.
    """
    peak = q.new_full(q.shape[:-1], -math.inf)
    total = torch.zeros_like(peak)
    output = q.new_zeros(*q.shape[:-1], v.shape[-1])
    for rows, keys, hidden in tiles(q_positions, k_positions, causal):
        scores = q[..., rows, :] @ k[..., keys, :].mT / math.sqrt(q.shape[-1])
        if hidden is not None:
            scores = scores.masked_fill(hidden, -math.inf)
        state = (peak[..., rows], total[..., rows], output[..., rows, :])
        state = online_softmax(state, scores, v[..., keys, :])
        peak[..., rows], total[..., rows], output[..., rows, :] = state
    output /= total.masked_fill(total == 0, 1.0)[..., None]
    return output, peak + total.log()


def ring_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    exchange: Callable[..., tuple[Tensor, ...]],
    world: int,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Attend to a text that lies on several ranks; run by each of them.

    Each rank has a block of n / world tokens: their queries, keys, values
    and positions. Queries stay. Keys, values and their positions go round: a
    rank keeps one block of them at a time, its own at first, and later passes
    on what it has just got. All ranks call ``exchange`` exactly world - 1
    times, even where a causal mask hides a whole block. No rank gathers all
    keys: what it holds doesn't grow with the number of ranks.

    Args:
        q: this rank's queries, shape (..., n / world, D).
        k: its keys, shape (..., n / world, D).
        v: its values, shape (..., n / world, E).
        positions: where in the text its tokens stand, int64, shape
            (n / world,), in any order.
        exchange: ``exchange(a, b, ...)`` sends tensors to the next rank, and
            returns as many that the previous rank has sent, as a tuple. It
            waits until they are here. All ranks send tensors of the same
            shapes and dtypes. What may be sent in one call is as much as a
            block of keys, of values and of positions.
        world: the number of ranks.
        causal: whether a query sees only its own position and those before.

    Returns:
        The attention of this rank's queries to the *whole* text, shape
        (..., n / world, E), and its log-sum-exp, shape (..., n / world). A
        rank's own k, v and positions are left as they are.

    Source: Liu, Zaharia and Abbeel 2023, algorithm 1.
    """
    ### BEGIN SOLUTION
    k_positions = positions
    output, lse = block_attention(q, k, v, positions, positions, causal)
    for _ in range(world - 1):
        k, v, k_positions = exchange(k, v, k_positions)
        part = block_attention(q, k, v, positions, k_positions, causal)
        output, lse = merge_attention(output, lse, *part)
    return output, lse
    ### END SOLUTION


def causal_work(positions: list[Tensor]) -> Tensor:
    """Count the pairs that each rank of a ring scores in each step.

    At step t a rank r has the keys of rank (r - t) mod world: its own at step
    0, then the previous rank's. Under a causal mask only those pairs count
    where the key's position is not larger than the query's.

    Args:
        positions: for each rank, where in the text its tokens stand, int64,
            each of shape (n / world,), in any order.

    Returns:
        The pairs, int64, shape (world, world): a row for each rank, a column
        for each step.
    """
    ### BEGIN SOLUTION
    world = len(positions)
    work = torch.zeros(world, world, dtype=torch.int64)
    for rank, queries in enumerate(positions):
        for step in range(world):
            keys = positions[(rank - step) % world]
            work[rank, step] = (keys <= queries[:, None]).sum()
    return work
    ### END SOLUTION


def zigzag_split(x: Tensor, world: int, dim: int = -2) -> list[Tensor]:
    """Deal a text to the ranks of a ring so that all have the same work.

    Cut the text into 2 · world chunks of the same length. Rank r gets chunk r
    and then, counted from the end, chunk r once more: 2 · world - 1 - r.

    Args:
        x: any tensor that has the n tokens along ``dim``.
        world: the number of ranks.
        dim: the dimension of the tokens.

    Returns:
        For each rank its part, of n / world tokens.

    Raises:
        ValueError: if n is not a multiple of 2 · world.

    Source: the ring-flash-attention library; Grattafiori et al. 2024,
    section 3.3.2.
    """
    ### BEGIN SOLUTION
    if x.shape[dim] % (2 * world):
        raise ValueError(
            f"{x.shape[dim]} tokens don't make {2 * world} equal chunks"
        )
    chunks = x.chunk(2 * world, dim)
    return [
        torch.cat([chunks[rank], chunks[-1 - rank]], dim)
        for rank in range(world)
    ]
    ### END SOLUTION


def zigzag_merge(parts: list[Tensor], dim: int = -2) -> Tensor:
    """Put together what ``zigzag_split`` has dealt.

    Args:
        parts: for each rank its part, as ``zigzag_split`` returns them. Each
            has the same, even number of tokens along ``dim``.
        dim: the dimension of the tokens.

    Returns:
        The whole, with its tokens in the order of the text.
    """
    ### BEGIN SOLUTION
    halves = [part.chunk(2, dim) for part in parts]
    first = [half[0] for half in halves]
    last = [half[1] for half in reversed(halves)]
    return torch.cat([*first, *last], dim)
    ### END SOLUTION


def block_gradients(
    grad_output: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    output: Tensor,
    lse: Tensor,
    q_positions: Tensor,
    k_positions: Tensor,
    causal: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Send gradients back through one block of keys, as in chapter 5.

    Args:
        grad_output: gradient of the loss by the output, shape (..., T, E).
        q: queries, shape (..., T, D).
        k: keys of one block, shape (..., S, D).
        v: values of the block, shape (..., S, E).
        output: the attention to *all* keys, shape (..., T, E).
        lse: its log-sum-exp, shape (..., T).
        q_positions: where in the text the queries stand, shape (T,).
        k_positions: where the keys stand, shape (S,).
        causal: whether a query sees only its own position and those before.

    Returns:
        What these pairs add to the gradients by q, k and v, of the shapes of
        q, k and v.
    """
    mean = (grad_output * output).sum(-1)  # of grad_weights, by weight
    grad_q, grad_k, grad_v = (torch.zeros_like(x) for x in (q, k, v))
    scale = 1 / math.sqrt(q.shape[-1])
    for rows, keys, hidden in tiles(q_positions, k_positions, causal):
        q_tile, grad_tile = q[..., rows, :], grad_output[..., rows, :]
        k_tile, v_tile = k[..., keys, :], v[..., keys, :]
        scores = q_tile @ k_tile.mT * scale
        if hidden is not None:
            scores = scores.masked_fill(hidden, -math.inf)
        weights = (scores - lse[..., rows, None]).exp()
        grad_weights = grad_tile @ v_tile.mT
        grad_scores = weights * (grad_weights - mean[..., rows, None]) * scale
        grad_q[..., rows, :] += grad_scores @ k_tile
        grad_k[..., keys, :] += grad_scores.mT @ q_tile
        grad_v[..., keys, :] += weights.mT @ grad_tile
    return grad_q, grad_k, grad_v


def ring_attention_backward(
    grad_output: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    output: Tensor,
    lse: Tensor,
    positions: Tensor,
    exchange: Callable[..., tuple[Tensor, ...]],
    world: int,
    causal: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of ring attention; run by each rank.

    A rank's queries add something to the gradients of all keys, and of its
    own block's keys all queries hold a part. So the gradients by k and v
    travel with their block, collect what each rank has to add, and come home.
    All ranks call ``exchange`` exactly ``world`` times (never, if there is
    one rank alone); in the last only gradients have to travel.

    Args:
        grad_output: gradient of the loss by this rank's output, shape
            (..., n / world, E).
        q: this rank's queries, shape (..., n / world, D).
        k: its keys, shape (..., n / world, D).
        v: its values, shape (..., n / world, E).
        output: what ``ring_attention`` returned on this rank.
        lse: the log-sum-exp that it returned.
        positions: as in ``ring_attention``.
        exchange: as in ``ring_attention``. What may be sent in one call is as
            much as a block of keys, of values and of positions, and the
            gradients by the keys and the values.
        world: the number of ranks.
        causal: as in ``ring_attention``.

    Returns:
        The gradients by this rank's own q, k and v, of their shapes: of the
        loss summed over all ranks. What is given is left as it is.

    Source: Liu, Zaharia and Abbeel 2023, appendix A.
    """
    ### BEGIN SOLUTION
    k_positions = positions
    grad_q, grad_k, grad_v = block_gradients(
        grad_output, q, k, v, output, lse, positions, positions, causal
    )
    for _ in range(world - 1):
        k, v, k_positions, grad_k, grad_v = exchange(
            k, v, k_positions, grad_k, grad_v
        )
        more_q, more_k, more_v = block_gradients(
            grad_output, q, k, v, output, lse, positions, k_positions, causal
        )
        grad_q = grad_q + more_q
        grad_k, grad_v = grad_k + more_k, grad_v + more_v
    if world > 1:
        grad_k, grad_v = exchange(grad_k, grad_v)  # home
    return grad_q, grad_k, grad_v
    ### END SOLUTION
