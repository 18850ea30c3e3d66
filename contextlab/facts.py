"""Texts that tell facts and ask for them, and a small model that reads them.

A fact is a name and a number, two tokens in a row. Around the facts stand
tokens that say nothing. The model attends as it is told to: to everything, to
a window, or to a window and a memory.
"""

from collections.abc import Callable

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from contextlab.recorded import HERE
from contextlab.tasks import UNKNOWN

NAMES, NUMBERS, FILLERS = 192, 64, 64  # tokens of each kind, in this order
VOCABULARY = NAMES + NUMBERS + FILLERS
STRIDE = 4  # tokens for each fact: its two, and two that say nothing
CHANCE = 1 / NUMBERS  # of guessing a number

# (layer, q, k, v), each (B, H, T, D), to the output of the same shape
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def tell(order: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Write texts that tell facts in a given order.

    Each text draws its own names and numbers. When a fact is told for the
    second time, its number can be known once its name was read.

    Args:
        order: which fact is told at each place, shape (B, n); facts are
            numbered from 0 to at most 191.
        generator: where all the randomness comes from.

    Returns:
        The tokens, shape (B, 4n), and what follows each of them, of the same
        shape: ``UNKNOWN`` but after a name that was read before.
    """
    batch, n = order.shape
    names = torch.rand(batch, NAMES, generator=generator).argsort(-1)
    numbers = torch.randint(NUMBERS, (batch, NAMES), generator=generator)
    name, number = names.gather(1, order), NAMES + numbers.gather(1, order)
    ids = torch.randint(
        VOCABULARY - FILLERS,
        VOCABULARY,
        (batch, STRIDE * n),
        generator=generator,
    )
    shift = torch.randint(STRIDE - 1, (batch, n), generator=generator)
    place = STRIDE * torch.arange(n) + shift  # of each name
    ids.scatter_(1, place, name).scatter_(1, place + 1, number)
    same = order[:, :, None] == order[:, None, :]  # (B, n, n)
    again = same.tril(-1).any(-1)
    known = number.where(again, torch.full_like(number, UNKNOWN))
    return ids, torch.full_like(ids, UNKNOWN).scatter_(1, place, known)


def lesson(
    batch: int, n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Write texts for training: n places, each fact told twice."""
    twice = torch.rand(batch, n, generator=generator).argsort(-1) // 2
    return tell(twice, generator)


def needle(
    batch: int, n: int, back: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Write texts that ask for a single fact, ``back`` places before.

    All other facts of the n places are told once; the last place asks.

    Returns:
        The tokens up to the name that asks, which is the last of them, shape
        (B, 4n - 3), and the number that should follow, shape (B,).

    Raises:
        ValueError: unless 1 ≤ back < n ≤ 192.
    """
    if not 1 <= back < n <= NAMES:
        raise ValueError(
            f"a needle needs 1 ≤ back < n ≤ {NAMES}, not {back} and {n}"
        )
    order = torch.arange(n).repeat(batch, 1)
    order[:, -1] = n - 1 - back
    ids, targets = tell(order, generator)
    asked = (targets != UNKNOWN).long().argmax(-1)  # (B,)
    # The name stands at one of three places: cut before it, so that all
    # texts end with the question.
    number = targets.gather(1, asked[:, None])[:, 0]
    name = ids.gather(1, asked[:, None])
    return torch.cat([ids[:, : STRIDE * (n - 1)], name], 1), number


class Reader(nn.Module):
    """A small model that reads facts: each layer attends, then thinks.

    A token's queries, keys and values also hear the token before: so a
    number's key can say which name it belongs to. There are no positions
    besides, and so no longest text.
    """

    def __init__(
        self, width: int = 64, n_heads: int = 2, n_layers: int = 2
    ) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.wte = nn.Embedding(VOCABULARY, width)
        self.h = nn.ModuleList(
            nn.ModuleDict(
                {
                    "ln_1": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width, bias=False),
                    "before": nn.Conv1d(
                        3 * width, 3 * width, 2, groups=3 * width, padding=1
                    ),
                    "out": nn.Linear(width, width, bias=False),
                    "ln_2": nn.LayerNorm(width),
                    "mlp": nn.Sequential(
                        nn.Linear(width, 2 * width),
                        nn.GELU(),
                        nn.Linear(2 * width, width),
                    ),
                }
            )
            for _ in range(n_layers)
        )
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, ids: Tensor, attend: Attend) -> Tensor:
        """Predict what follows: tokens (B, T) to logits (B, T, V)."""
        n_tokens = ids.shape[1]
        x = self.wte(ids)
        for number, layer in enumerate(self.h):
            qkv = layer["qkv"](layer["ln_1"](x))
            qkv = layer["before"](qkv.mT)[..., :n_tokens].mT
            heads = qkv.unflatten(-1, (3 * self.n_heads, -1)).transpose(1, 2)
            heard = attend(number, *heads.chunk(3, 1))  # (B, H, T, D)
            x = x + layer["out"](heard.transpose(1, 2).flatten(-2))
            x = x + layer["mlp"](layer["ln_2"](x))
        return self.lm_head(self.ln_f(x))


def trained_reader() -> Reader:
    """Return the reader that benchmarks/needle_memory.py has trained."""
    reader = Reader()
    reader.load_state_dict(load_file(HERE / "needle_memory.safetensors"))
    return reader.eval().requires_grad_(False)
