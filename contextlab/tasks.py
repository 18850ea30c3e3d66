"""Tasks that small models are trained on: made on the spot, from a seed."""

from collections.abc import Sequence

import torch
from torch import Tensor

UNKNOWN = -100  # as a target: nothing could know it (PyTorch's ignore_index)


def repeated_tokens(
    batch: int,
    *,
    window: int,
    vocab_size: int,
    periods: Sequence[int],
    generator: torch.Generator,
    anywhere: bool = True,
) -> tuple[Tensor, Tensor]:
    """Draw sequences of random tokens that begin to repeat themselves.

    A sequence runs through fresh tokens, all different, up to some place;
    from there on it goes round and round through the last ``period`` of
    them. Once a token stands there for the second time, the next one can be
    known: it is what followed the first time.

    Args:
        batch: B, the number of sequences.
        window: T, the length of each.
        vocab_size: the number of different tokens, at least ``window``.
        periods: the lengths of a round, one of which each sequence draws.
        generator: where all the randomness comes from.
        anywhere: whether the first round may begin at any position (else it
            begins at position 0), so that position alone gives nothing away.

    Returns:
        The tokens, shape (B, T), and what follows each of them, shape (B, T):
        ``UNKNOWN`` where it can't be known.

    Raises:
        ValueError: if the vocabulary is smaller than the window, or a period
            leaves no room for a second round.
    """
    if vocab_size < window:
        raise ValueError(
            f"{vocab_size} tokens can't fill a window of {window} without "
            "repeats"
        )
    if not 1 < min(periods) <= max(periods) <= window - 2:
        raise ValueError(
            f"a period is between 2 and {window - 2} for a window of {window}"
        )
    drawn = torch.randint(len(periods), (batch, 1), generator=generator)
    period = torch.tensor(list(periods))[drawn]  # (B, 1)
    room = window - 1 - period  # starts that leave something to predict
    start = (torch.rand(batch, 1, generator=generator) * room).long()
    if not anywhere:
        start = torch.zeros_like(start)
    fresh = torch.rand(batch, vocab_size, generator=generator).argsort(-1)

    place = torch.arange(window + 1).expand(batch, -1)  # one to predict
    round_trip = start + (place - start) % period
    tokens = fresh.gather(1, torch.where(place < start, place, round_trip))
    ids, following = tokens[:, :-1], tokens[:, 1:]
    seen_before = place[:, :-1] >= start + period
    return ids, following.where(seen_before, UNKNOWN)
