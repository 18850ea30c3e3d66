"""Small models under masks that can be changed, and what they are trained on.

Two tasks, made on the spot from a seed: in one, a token has to be carried
through many windows; in the other, attention has nothing to do most of the
time.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contextlab.model import LanguageModel
from contextlab.tasks import UNKNOWN

N_LETTERS = 32  # of the tasks' alphabet: ids 0 … 31
BEGIN = 32  # the token that every text of repeats begins with
AGAIN = 33  # "say the last letter once more"


class MaskedBlock(nn.Module):
    """GPT-2's block, with a ``mask`` that says who may attend to whom.

    Attributes:
        mask: boolean, broadcastable to (B, H, T, T), True = may attend; None
            for the causal mask.
        may_refuse: whether each softmax has an additional score of 0 that
            leads nowhere, so that weights may add up to less than one.
    """

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.mask: Tensor | None = None
        self.may_refuse = False
        self.ln_1 = nn.LayerNorm(d_model)
        self.c_attn = nn.Linear(d_model, 3 * d_model)
        self.c_proj = nn.Linear(d_model, d_model)
        self.ln_2 = nn.LayerNorm(d_model)
        self.mlp = nn.Sequential(
            nn.Linear(d_model, 4 * d_model),
            nn.GELU(approximate="tanh"),
            nn.Linear(4 * d_model, d_model),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new stream, (B, T, C), and the weights, (B, H, T, T)."""
        n_tokens = x.shape[1]
        mask = self.mask
        if mask is None:
            mask = torch.ones(n_tokens, n_tokens, dtype=torch.bool).tril()
        q, k, v = (
            part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for part in self.c_attn(self.ln_1(x)).chunk(3, -1)
        )
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        scores.masked_fill_(~mask, -math.inf)
        if self.may_refuse:
            scores = nn.functional.pad(scores, (1, 0))  # a score of 0 in front
        weights = scores.softmax(-1)[..., -n_tokens:]
        heard = (weights @ v).transpose(1, 2).flatten(-2)
        x = x + self.c_proj(heard)
        return x + self.mlp(self.ln_2(x)), weights


def set_masks(model: LanguageModel, masks: Sequence[Tensor | None]) -> None:
    """Give each of a model's ``MaskedBlock``s its mask, the first layer first.

    Raises:
        ValueError: if there are not as many masks as layers.
    """
    for block, mask in zip(model.h, masks, strict=True):
        block.mask = mask


@torch.no_grad()
def token_losses(
    model: LanguageModel, ids: Tensor, targets: Tensor, mask: Tensor | None
) -> Tensor:
    """Return the loss of each prediction while all layers have this mask.

    Args:
        model: of ``MaskedBlock``s; their masks are the causal one afterwards.
        ids: token numbers, shape (B, T).
        targets: what follows each of them, shape (B, T).
        mask: what every layer may see; None for everything before.

    Returns:
        Nats, shape (B, T).
    """
    set_masks(model, [mask] * len(model.h))
    logits, _ = model(ids)
    set_masks(model, [None] * len(model.h))
    return nn.functional.cross_entropy(logits.mT, targets, reduction="none")


def carry_tokens(
    batch: int,
    n_tokens: int,
    *,
    distances: Sequence[int],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw noise with one letter in it, which is asked for at the end.

    Args:
        batch: B, the number of sequences.
        n_tokens: T, the length of each.
        distances: how many positions before the last one the letter may
            stand; each sequence draws one.
        generator: where all the randomness comes from.

    Returns:
        The tokens, shape (B, T): a letter, 0 to 31, among noise, 32 to 63.
        And the targets, shape (B, T): the letter at the last position, and
        ``UNKNOWN`` before it.
    """
    noise = torch.randint(32, 64, (batch, n_tokens), generator=generator)
    letter = torch.randint(32, (batch,), generator=generator)
    drawn = torch.randint(len(distances), (batch,), generator=generator)
    place = n_tokens - 1 - torch.tensor(list(distances))[drawn]
    ids = noise.scatter(1, place[:, None], letter[:, None])
    targets = torch.full_like(ids, UNKNOWN)
    targets[:, -1] = letter
    return ids, targets


def letter_chain() -> Tensor:
    """Return how likely each letter is after each: (32, 32), rows sum to 1."""
    generator = torch.Generator().manual_seed(7)
    table = torch.randn(N_LETTERS, N_LETTERS, generator=generator)
    return (3 * table).softmax(-1)


def echo_tokens(
    batch: int,
    n_tokens: int,
    *,
    generator: torch.Generator,
    share: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Draw letters that follow from the letter before, with a few echoes.

    A sequence begins with ``BEGIN``. Each letter is drawn by
    ``letter_chain()`` from the one before, which a model can know without
    attention. But now and then ``AGAIN`` comes up, and after it the last
    letter is said once more: only then has attention something to find.

    Args:
        batch: B, the number of sequences.
        n_tokens: T, the length of each.
        generator: where all the randomness comes from.
        share: how likely ``AGAIN`` is after a letter.

    Returns:
        The tokens, shape (B, T), and what follows each of them, shape (B, T).
    """
    up_to = letter_chain().cumsum(-1)
    ids = torch.empty(batch, n_tokens + 1, dtype=torch.long)
    ids[:, 0] = BEGIN
    letter = torch.randint(N_LETTERS, (batch,), generator=generator)
    ids[:, 1] = letter
    echo = torch.zeros(batch, dtype=torch.bool)
    for t in range(2, n_tokens + 1):
        lot = torch.rand(batch, 1, generator=generator)
        following = torch.searchsorted(up_to[letter], lot)[:, 0]
        following = following.clamp(max=N_LETTERS - 1)  # sums may end at .999
        following = torch.where(echo, letter, following)
        again = torch.rand(batch, generator=generator) < share
        again &= ~echo
        ids[:, t] = torch.where(again, AGAIN, following)
        letter = torch.where(again, letter, following)
        echo = again
    return ids[:, :-1], ids[:, 1:]
