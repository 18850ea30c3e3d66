"""A real text for a small model to read, and its loss place by place.

The text is the documentation that Python itself carries, so nothing is
downloaded; a token is one of its characters.
"""

from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY = 128  # ASCII; the few other characters are left out


def _characters() -> Tensor:
    text = "\n".join(topics[name] for name in sorted(topics))
    return torch.tensor(list(text.encode("ascii", "ignore")))


_TEXT = _characters()
_CUT = len(_TEXT) * 9 // 10
LEARNT, HELD_OUT = _TEXT[:_CUT], _TEXT[_CUT:]  # for training, for measuring


def excerpts(
    text: Tensor, batch: int, n_tokens: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw excerpts that begin anywhere in a text.

    Args:
        text: ``LEARNT`` or ``HELD_OUT``.
        batch: B, the number of excerpts.
        n_tokens: T, the length of each.
        generator: where the randomness comes from.

    Returns:
        The tokens, shape (B, T), and what follows each of them, (B, T).
    """
    last = len(text) - n_tokens
    start = torch.randint(last, (batch, 1), generator=generator)
    read = text[start + torch.arange(n_tokens + 1)]
    return read[:, :-1], read[:, 1:]


@torch.no_grad()
def loss_by_position(
    model: nn.Module, n_tokens: int, *, batch: int = 256, seed: int = 1_000
) -> Tensor:
    """Measure how well a model predicts at each place of a long excerpt.

    Args:
        model: takes tokens of shape (B, T), returns logits and more.
        n_tokens: T, the length of the excerpts of the held-out text.
        batch: how many excerpts.
        seed: other excerpts for another seed.

    Returns:
        Nats a character at each position, shape (T,).
    """
    generator = torch.Generator().manual_seed(seed)
    ids, following = excerpts(HELD_OUT, batch, n_tokens, generator)
    losses = [
        F.cross_entropy(model(x)[0].mT, y, reduction="none")
        for x, y in zip(ids.split(32), following.split(32), strict=True)
    ]
    return torch.cat(losses).mean(0)
