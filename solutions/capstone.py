"""Reference answers for chapter 15, *Design a long-context model*."""

import math

import torch
from torch import Tensor

from contextlab.capstone import Design, Keep


def memory_mask(scores: Tensor, window: int, memory: int) -> Tensor:
    """Say which entries are there for each query, and so may be seen.

    Query t has the window: itself and the window - 1 entries before it. An
    entry that leaves the window goes to the memory, which has room for
    ``memory`` entries and keeps those with the highest scores of all that
    have left so far. What is once thrown away never comes back.

    Args:
        scores: one for each entry, finite, no two alike in a row; any shape
            (..., T).
        window: w ≥ 1.
        memory: M ≥ 0.

    Returns:
        Boolean, shape (..., T, T), True = query t may attend to entry s.
    """
    ### BEGIN SOLUTION
    n = scores.shape[-1]
    places = torch.arange(n)
    back = places[:, None] - places  # from the query to the entry
    left = back >= window
    ranked = scores[..., None, :].masked_fill(~left, -math.inf)
    best = ranked.topk(min(memory, n), -1).indices  # (..., T, M)
    stays = torch.zeros_like(ranked, dtype=torch.bool).scatter(-1, best, True)
    return (stays & left) | ((back >= 0) & (back < window))
    ### END SOLUTION


def kv_bytes_per_token(plan: Design, n_tokens: int, width: int) -> float:
    """Count the bytes that a design keeps of a text, for each of its tokens.

    When the last token has been read, a KV head of a layer holds the window's
    entries and those in the memory: never more than its window and its room
    together, nor more than there are tokens. An entry is a key and a value,
    of ``width`` numbers each. At 16 bits that is all; at fewer, each key and
    each value also has a scale and a lowest number, of 16 bits each.

    Args:
        plan: has ``layers`` and ``n_kv_heads``; every layer has ``window``,
            ``memory`` and ``bits``.
        n_tokens: how long the text is, at least 1.
        width: D, the width of a head.

    Returns:
        Bytes of all layers and KV heads together, divided by ``n_tokens``.
    """
    ### BEGIN SOLUTION
    total = 0.0
    for keep in plan.layers:
        entries = min(n_tokens, keep.window + keep.memory)
        scale = 0 if keep.bits == 16 else 2 * 16
        total += entries * 2 * (width * keep.bits + scale) / 8
    return plan.n_kv_heads * total / n_tokens
    ### END SOLUTION


def flops_per_token(
    plan: Design, n_tokens: int, n_heads: int, width: int, n_weights: int
) -> int:
    """Count the operations that a design needs for the last token of a text.

    A multiplication and an addition are two operations. The token meets each
    weight once. In each layer, each *query* head scores all entries that are
    held for it, and then sums up the values of those that it attends to: the
    window's, and of the memory's as many as are retrieved. The softmax, the
    norms and the rotations are left out.

    Args:
        plan: has ``layers``; every layer has ``window``, ``memory`` and
            ``retrieved``, which is None where the whole memory is attended
            to.
        n_tokens: how long the text is, with the last token.
        n_heads: H, the query heads of a layer.
        width: D, the width of a head.
        n_weights: how many weights there are that tokens are multiplied with.
    """
    ### BEGIN SOLUTION
    attention = 0
    for keep in plan.layers:
        near = min(n_tokens, keep.window)
        far = min(n_tokens - near, keep.memory)
        found = far if keep.retrieved is None else min(far, keep.retrieved)
        attention += (near + far) + (near + found)  # q·k, and weights · v
    return 2 * n_weights + 2 * n_heads * width * attention
    ### END SOLUTION


def importance(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Score the entries of a layer: the highest stay in its memory.

    Positions are not in q and k: they are turned later. The score of entry s
    is asked for when s leaves the window. It may depend on what has been read
    up to then, the tokens up to s + window - 1, and on nothing later.

    Args:
        q: queries, shape (B, H, T, D).
        k: keys, shape (B, G, T, D), G KV heads for all H query heads.
        v: values, shape (B, G, T, D).
        window: w ≥ 1.

    Returns:
        Finite scores, shape (B, G, T). Only their order within a text and a
        KV head counts.
    """
    ### BEGIN SOLUTION
    return k.norm(dim=-1)
    ### END SOLUTION


def design() -> Design:
    """Design a model that remembers as much as it can under the budget.

    Under ``capstone.MOST_BYTES`` of cache for each token of a text, and
    ``capstone.MOST_FLOPS`` for its last token, the exam's recall is to be as
    high as possible.

    Returns:
        A ``Design``, with your ``importance`` if a layer has a memory.
    """
    ### BEGIN SOLUTION
    near = Keep(window=4, bits=4)
    far = Keep(window=4, memory=80, retrieved=8, bits=4)
    return Design((far, near, near, near), 1, "yarn", importance)
    ### END SOLUTION
