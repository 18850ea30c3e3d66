"""A task of pure memory: pairs are told, and later one half is asked for."""

import torch
from torch import Tensor

from contextlab.tasks import UNKNOWN

FILLER = 0  # the token that says nothing


def key_value_pairs(
    batch: int,
    n_pairs: int,
    *,
    window: int,
    n_keys: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw texts that tell pairs of tokens, and then ask for all of them.

    A text begins with ``n_pairs`` pairs of a key and its value. In the rest,
    every key comes up once more, somewhere, and is followed by its value
    again: that can be known by whoever has kept the pair. All else is filler.

    Keys are the tokens 1 to ``n_keys``, values the ``n_keys`` after them.

    Args:
        batch: B, the number of texts.
        n_pairs: how many pairs there are to keep.
        window: T, the length of a text.
        n_keys: how many different keys there are, and how many values.
        generator: where all the randomness comes from.

    Returns:
        The tokens, shape (B, T), and what follows each of them, shape (B, T):
        ``UNKNOWN`` but where a key is asked for.

    Raises:
        ValueError: if there are too few keys, or no room to ask for them.

    Source: Arora et al. 2023 (multi-query associative recall).
    """
    if not 1 <= n_pairs <= min(n_keys, window // 4):
        raise ValueError(
            f"between 1 and {min(n_keys, window // 4)} pairs fit {n_keys} "
            f"keys and a window of {window}, not {n_pairs}"
        )

    def shuffled(n: int) -> Tensor:
        order = torch.rand(batch, n, generator=generator).argsort(-1)
        return order[:, :n_pairs]

    keys = 1 + shuffled(n_keys)
    values = 1 + n_keys + shuffled(n_keys)
    asked = shuffled((window - 2 * n_pairs) // 2)  # which place of two tokens
    asked = 2 * n_pairs + 2 * asked
    ids = torch.full((batch, window), FILLER)
    ids[:, : 2 * n_pairs] = torch.stack([keys, values], -1).flatten(1)
    ids.scatter_(1, asked, keys).scatter_(1, asked + 1, values)
    return ids, torch.full_like(ids, UNKNOWN).scatter_(1, asked, values)
