"""Needles in real text: what small models are trained on and tested by.

The hay is the documentation that Python itself carries, a token a word; words
share 256 numbers. In it stand facts, a key and its value each, and questions:
``ASK``, a key, and then its value. Hay never holds a key, a value or ``ASK``.

``causal_model`` and ``sentences`` let the same test run on any causal model of
the ``transformers`` library, in words.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pydoc_data.topics import topics
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from torch import Tensor

from contextlab import figures
from contextlab.tasks import UNKNOWN
from contextlab.tokens import split_words
from contextlab.training import Batch

WORDS, KEYS, VALUES = 256, 64, 64  # tokens of each kind, in this order
ASK = WORDS + KEYS + VALUES
VOCABULARY = ASK + 1
CHANCE = 1 / VALUES  # of who knows that a value is asked for, and no more
SLOT = 4  # tokens of a lesson that hold one fact, or one question
APART = 16  # tokens of a test for each fact that isn't asked for

# (filler, needle, question, n_tokens, depth) -> the text, shape (n_tokens,)
MakeHaystack = Callable[[Tensor, Tensor, Tensor, int, float], Tensor]
# (n_tokens, depth, trials, generator) -> texts and their answers
Draw = Callable[[int, float, int, torch.Generator], tuple[Tensor, Tensor]]


def documentation() -> str:
    """Return the text that all hay is cut from."""
    return "\n".join(topics[name] for name in sorted(topics))


def _numbered() -> Tensor:
    words = split_words(documentation())
    numbers = {word: zlib.crc32(word.encode()) % WORDS for word in {*words}}
    return torch.tensor([numbers[word] for word in words])


TEXT = _numbered()  # some hundred thousand words


def hay(batch: int, n_tokens: int, generator: torch.Generator) -> Tensor:
    """Cut texts from anywhere in the documentation: (batch, n_tokens)."""
    last = len(TEXT) - n_tokens
    start = torch.randint(last, (batch, 1), generator=generator)
    return TEXT[start + torch.arange(n_tokens)]


def some_of(n: int, batch: int, k: int, generator: torch.Generator) -> Tensor:
    """Draw k different numbers below n for each text: (batch, k)."""
    return torch.rand(batch, n, generator=generator).argsort(-1)[:, :k]


def facts(
    batch: int, k: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw k different keys for each text, and a value for each of them."""
    keys = WORDS + some_of(KEYS, batch, k, generator)
    values = torch.randint(VALUES, (batch, k), generator=generator)
    return keys, WORDS + KEYS + values


def lesson(
    batch: int,
    n_tokens: int,
    n_facts: int,
    generator: torch.Generator,
    *,
    at_the_end: bool = False,
) -> tuple[Tensor, Tensor]:
    """Write texts that tell facts and ask for each of them once.

    Args:
        batch: B, how many texts.
        n_tokens: T, the length of each, a multiple of 8.
        n_facts: how many facts a text tells.
        generator: where all the randomness comes from.
        at_the_end: whether all facts are told in the first half of the text
            and asked for in the second; else in any order, each after it was
            told.

    Returns:
        The tokens, shape (B, T), and what follows each of them, (B, T):
        ``UNKNOWN`` but after a key that is asked for.

    Raises:
        ValueError: if there is no room for so many facts.
    """
    slots = n_tokens // SLOT
    if not 1 <= n_facts <= min(KEYS, slots // 2):
        raise ValueError(
            f"1 to {min(KEYS, slots // 2)} facts fit {n_tokens} tokens, "
            f"not {n_facts}"
        )
    ids = hay(batch, n_tokens, generator)
    keys, values = facts(batch, n_facts, generator)
    if at_the_end:
        told, asked = (
            some_of(slots // 2, batch, n_facts, generator) for _ in range(2)
        )
        asked = asked + slots // 2
    else:
        drawn = some_of(slots, batch, 2 * n_facts, generator)
        pairs = drawn.unflatten(-1, (n_facts, 2)).sort(-1).values
        told, asked = pairs.unbind(-1)

    def place(slot: Tensor, length: int) -> Tensor:
        room = SLOT - length + 1
        shift = torch.randint(room, slot.shape, generator=generator)
        return SLOT * slot + shift

    told, asked = place(told, 2), place(asked, 3)
    ids.scatter_(1, told, keys).scatter_(1, told + 1, values)
    ids.scatter_(1, asked, ASK)
    ids.scatter_(1, asked + 1, keys).scatter_(1, asked + 2, values)
    targets = torch.full_like(ids, UNKNOWN)
    return ids, targets.scatter_(1, asked + 1, values)


def school(
    steps: int, batch: int, generator: torch.Generator, longest: int = 128
) -> Iterator[Batch]:
    """Give lessons: short texts with few facts at first, then longer ones.

    Begun with longer texts, a state space learns next to nothing in hundreds
    of steps.

    Args:
        steps: how many lessons there are.
        batch: how many texts the last lessons have; the first have more, as
            many tokens.
        generator: where all the randomness comes from.
        longest: the length of the last texts, which tell 10 facts if they
            have 128 tokens.
    """
    for step in range(steps):
        share = step / steps
        parts = 4 if share < 1 / 3 else 2 if share < 7 / 12 else 1
        n_tokens = longest // parts
        n_facts = n_tokens // 12
        if parts > 1:
            n_facts = int(
                torch.randint(1, n_facts + 2, (), generator=generator)
            )
        yield lesson(batch * parts, n_tokens, n_facts, generator)


def haystacks(make_haystack: MakeHaystack) -> Draw:
    """Return what draws texts with one needle among other facts.

    In the hay stands another fact, which is never asked for, in every 16
    tokens. The needle is one more; the question is ``ASK`` and its key.

    Args:
        make_haystack: the reader's, which puts the three together.
    """

    def draw(
        n_tokens: int, depth: float, trials: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        n_facts = n_tokens // APART
        if n_facts >= KEYS:
            raise ValueError(
                f"there are keys for {KEYS * APART - 1} tokens, not {n_tokens}"
            )
        ids = hay(trials, n_tokens, generator)
        keys, values = facts(trials, n_facts + 1, generator)
        shift = torch.randint(
            APART - 1, (trials, n_facts), generator=generator
        )
        told = APART * torch.arange(n_facts) + shift
        ids.scatter_(1, told, keys[:, 1:]).scatter_(1, told + 1, values[:, 1:])
        texts = [
            make_haystack(
                filler,
                torch.stack([key, value]),
                torch.stack([torch.tensor(ASK), key]),
                n_tokens,
                depth,
            )
            for filler, key, value in zip(
                ids, keys[:, 0], values[:, 0], strict=True
            )
        ]
        return torch.stack(texts), values[:, 0]

    return draw


def causal_model(model: Any, batch: int = 8) -> Callable[[Tensor], Tensor]:
    """Make any causal model of ``transformers`` take ids and return logits.

    Args:
        model: the library's model, or the name of one: then its weights are
            downloaded, or read from the disk.
        batch: how many texts it reads at once.
    """
    if isinstance(model, str):
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(model)
    model = model.eval()

    @torch.no_grad()
    def logits(ids: Tensor) -> Tensor:
        parts = ids.to(model.device).split(batch)
        return torch.cat([model(part).logits for part in parts]).cpu()

    return logits


def sentences(
    encode: Callable[[str], Sequence[int]], make_haystack: MakeHaystack
) -> Draw:
    """Return what draws haystacks of words, for any tokenizer.

    The needle is a sentence with one of ten digits, the question its
    beginning: chance is 1 in 10. (A colon stands before the digit, not a
    space, which many tokenizers would take into the digit's token.)

    Args:
        encode: from a text to its tokens, without special tokens.
        make_haystack: the reader's.

    Raises:
        ValueError: if the digits don't differ in the first token that does.
    """
    needles = [
        list(encode(f"\nThe magic number is:{digit}.\n"))
        for digit in range(10)
    ]
    alike = takewhile(lambda at: len({*at}) == 1, zip(*needles, strict=False))
    question = [token for token, *_ in alike]
    answers = [needle[len(question) :][:1] for needle in needles]
    if len({*map(tuple, answers)}) < len(needles):
        raise ValueError("this tokenizer has no token for each digit")
    text = torch.tensor(list(encode(documentation())))

    def draw(
        n_tokens: int, depth: float, trials: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        digits = torch.randint(10, (trials,), generator=generator)
        last = len(text) - n_tokens
        starts = torch.randint(last, (trials,), generator=generator)
        texts = [
            make_haystack(
                text[start : start + n_tokens],
                torch.tensor(needles[digit]),
                torch.tensor(question),
                n_tokens,
                depth,
            )
            for digit, start in zip(
                digits.tolist(), starts.tolist(), strict=True
            )
        ]
        return torch.stack(texts), torch.tensor(answers)[digits, 0]

    return draw


def draw_grid(
    ax: Axes,
    grid: Tensor,
    lengths: Sequence[int],
    depths: Sequence[float],
    *,
    trials: int,
    chance: float = CHANCE,
) -> ScalarMappable:
    """Draw recall by length and depth; a dot marks what may be guessing.

    Args:
        ax: where to draw.
        grid: shape (L, D).
        lengths: L lengths, from the top.
        depths: D depths, from the left.
        trials: how many texts stand behind each cell.
        chance: what a guesser recalls. A cell that isn't two standard errors
            above it gets a dot.

    Returns:
        What ``figure.colorbar`` needs.
    """
    mesh = figures.heatmap(
        ax, grid, [str(n) for n in lengths], [""] * len(depths)
    )
    error = (chance * (1 - chance) / trials) ** 0.5
    for row, column in (grid <= chance + 2 * error).nonzero().tolist():
        ax.plot(column + 0.5, row + 0.5, ".", color=figures.INK, ms=3)
    ends = 0.5, len(depths) - 0.5
    ax.set_xticks(ends, [f"{depths[0]:g}", f"{depths[-1]:g}"])
    ax.set_aspect("auto")
    return mesh
