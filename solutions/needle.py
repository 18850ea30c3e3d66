"""Reference answers for chapter 14, *Needle in a haystack*."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def make_haystack(
    filler: Tensor,
    needle: Tensor,
    question: Tensor,
    n_tokens: int,
    depth: float,
) -> Tensor:
    """Hide a needle in a text of a given length, and ask for it at the end.

    The filler is cut to the room that needle and question leave, R = n_tokens
    - K - Q tokens from its beginning. The needle is put in before token
    round(depth · R) of it: at depth 0 the text begins with the needle, at
    depth 1 the question follows on the needle. Nothing of the three is
    overwritten.

    Args:
        filler: the hay, at least R token numbers, shape (N,).
        needle: shape (K,).
        question: shape (Q,), Q ≥ 1.
        n_tokens: the length of the text.
        depth: from 0, the beginning, to 1, the end.

    Returns:
        The text, shape (n_tokens,).

    Raises:
        ValueError: if needle and question don't fit, the filler is too
            short, or the depth is outside 0 to 1.

    Source: Kamradt 2023.
    """
    ### BEGIN SOLUTION
    room = n_tokens - len(needle) - len(question)
    if not 0 <= room <= len(filler):
        raise ValueError(
            f"{room} tokens of filler are needed, there are {len(filler)}"
        )
    if not 0 <= depth <= 1:
        raise ValueError(f"a depth lies between 0 and 1, not at {depth}")
    place = round(depth * room)
    return torch.cat([filler[:place], needle, filler[place:room], question])
    ### END SOLUTION


def needle_grid(
    model: Callable[[Tensor], Tensor],
    draw: Callable[[int, float, int, torch.Generator], tuple[Tensor, Tensor]],
    lengths: Sequence[int],
    depths: Sequence[float],
    trials: int,
    generator: torch.Generator,
) -> Tensor:
    """Measure the recall of any model, for each length and each depth.

    A needle is found if, after the last token of the text, the most likely
    token is the answer. Every cell of the grid has ``trials`` texts of its
    own, drawn by one call or by several; the generator goes on from cell to
    cell and is never set back. So a second grid with it has other texts.

    Args:
        model: takes tokens, shape (B, T), and returns logits, (B, T, V).
        draw: ``draw(n_tokens, depth, trials, generator)`` returns texts,
            shape (trials, n_tokens), and their answers, shape (trials,).
        lengths: L lengths of texts, in tokens.
        depths: D depths of the needle, from 0 to 1.
        trials: how many texts there are for each cell.
        generator: where all the randomness comes from.

    Returns:
        The share of needles that were found, shape (L, D), float32.
    """
    ### BEGIN SOLUTION
    grid = torch.zeros(len(lengths), len(depths))
    for row, n_tokens in enumerate(lengths):
        for column, depth in enumerate(depths):
            ids, answers = draw(n_tokens, depth, trials, generator)
            said = model(ids)[:, -1].argmax(-1)  # (trials,)
            grid[row, column] = (said == answers).float().mean()
    return grid
    ### END SOLUTION


def attention_mass(weights: Tensor, places: Tensor) -> Tensor:
    """Add up the attention that the last token pays to the needle.

    Args:
        weights: attention weights, shape (B, H, T, S).
        places: the positions of the needle's tokens in each text, whole
            numbers, all different, shape (B, K).

    Returns:
        The sum of the last query's weights on them, shape (B, H).
    """
    ### BEGIN SOLUTION
    last = weights[:, :, -1]  # (B, H, S)
    index = places[:, None].expand(-1, last.shape[1], -1)  # (B, H, K)
    return last.gather(-1, index).sum(-1)
    ### END SOLUTION


def diluted_weight(gap: float, n_keys: int, variance: float = 1.0) -> float:
    """Predict the attention on one key among n, whose score stands out.

    The others have random scores, normally distributed with mean 0. The
    score of the one is Δ. For many others, the sum of their exponentials is
    close to its mean, (n - 1) · exp(variance / 2), so the weight is close to

        e^Δ / (e^Δ + (n - 1) · e^(variance / 2)).

    Args:
        gap: Δ, by how much the one score exceeds the mean of the others; any
            number, also one whose exponential is no longer a float.
        n_keys: n, at least 1.
        variance: of the scores of the others.

    Returns:
        The weight, between 0 and 1; 1 if there are no others.
    """
    ### BEGIN SOLUTION
    if n_keys == 1:
        return 1.0
    behind = math.log(n_keys - 1) + variance / 2 - gap  # of the one
    if behind > 0:
        return math.exp(-behind) / (1 + math.exp(-behind))
    return 1 / (1 + math.exp(behind))
    ### END SOLUTION


def lost_in_the_middle(recall: Tensor, depths: Sequence[float]) -> Tensor:
    """Measure how far recall dips in the middle, below *both* ends.

    A text has three parts: depths below 1/3, depths above 2/3, and the
    middle. The dip is the lower of the two ends' mean recall, minus the mean
    recall of the middle. It is positive for a curve like a U, and not for
    one that only falls, or only rises.

    Args:
        recall: recall for each depth, shape (..., D).
        depths: D depths from 0 to 1, in any order and at any distances.

    Returns:
        The dip, from -1 to 1, shape (...).

    Raises:
        ValueError: if one of the three parts has no depth.

    Source: the effect is Liu et al. 2023's, this number is the course's.
    """
    ### BEGIN SOLUTION
    at = torch.tensor(depths, dtype=torch.float64)
    start, end = at < 1 / 3, at > 2 / 3
    middle = ~(start | end)
    parts = []
    for part in (start, middle, end):
        if not part.any():
            raise ValueError("each third of the text needs a depth")
        parts.append(recall[..., part].mean(-1))
    return torch.minimum(parts[0], parts[2]) - parts[1]
    ### END SOLUTION


def effective_context(
    lengths: Sequence[int],
    scores: Sequence[float],
    threshold: float = 0.856,
) -> int:
    """Say up to which length a model keeps what its window promises.

    It is the longest length whose score, *and that of every shorter length*,
    exceeds the threshold. RULER's threshold is what Llama-2-7B scores at
    4,096 tokens, 85.6 %.

    Args:
        lengths: lengths of texts, in any order, all different.
        scores: the score at each of them, from 0 to 1.
        threshold: what a score has to exceed.

    Returns:
        One of the lengths; 0 if the shortest falls short already.

    Source: Hsieh et al. 2024, section 4.
    """
    ### BEGIN SOLUTION
    effective = 0
    for length, score in sorted(zip(lengths, scores, strict=True)):
        if not score > threshold:
            break
        effective = length
    return effective
    ### END SOLUTION


def multi_needle_recall(
    logits: Tensor, targets: Tensor, unknown: int = -100
) -> tuple[float, float]:
    """Score texts that ask for several needles each, in two ways.

    Args:
        logits: shape (B, T, V).
        targets: the answer where one is asked for, and ``unknown`` where
            not, shape (B, T).
        unknown: what marks a place where nothing is asked.

    Returns:
        The share of all questions that are answered right, by the most
        likely token. And the share of texts in which *every* question is;
        texts that ask nothing don't count.

    Raises:
        ValueError: if nothing is asked at all.

    Source: multi-query needles, Hsieh et al. 2024, section 3.
    """
    ### BEGIN SOLUTION
    asked = targets != unknown  # (B, T)
    if not asked.any():
        raise ValueError("there is no question to score")
    answers = logits.argmax(-1)
    right = answers == targets
    some = asked.any(-1)  # (B,), texts with a question
    complete = (right | ~asked).all(-1)[some]
    return (
        right[asked].double().mean().item(),
        complete.double().mean().item(),
    )
    ### END SOLUTION
