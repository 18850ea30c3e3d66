"""Name the mistake in a wrong answer, by what it returns."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from autograder.chapters import Chapter
from autograder.execution.proxies import same_bytes
from autograder.execution.wire import DeadlineError, WireError
from autograder.misconceptions import (
    Mistake,
    catalogue,
    mistaken,
    reference,
)

SEEDS = (0, 1)
TOLERANCE = 1e-6
MOST_SHOWN = 200  # characters of a value that is no tensor


@dataclass(frozen=True)
class Outcome:
    """What an answer did with one of the probe's inputs."""

    inputs: dict[str, Any]
    output: Any

    def equals(self, other: "Outcome", to_the_word: bool = False) -> bool:
        """Say whether another answer did the same with the same inputs.

        Args:
            other: what it did.
            to_the_word: whether two exceptions have to say the same.
        """
        if to_the_word and isinstance(self.output, Raised):
            return self.output == other.output
        return same(self.output, other.output)


@dataclass(frozen=True)
class Raised:
    """An exception, as an outcome: two of one type are the same."""

    type: str
    text: str

    def __str__(self) -> str:
        return f"an exception, {self.type}: {self.text}"


def outcomes(probe: Callable, answer: Any) -> list[Outcome]:
    """Run an answer through the probe, on every seed.

    An answer that changes its inputs changes them for itself alone: they are
    copied before it is called, and put back after it.
    """
    found = []
    for seed in SEEDS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for inputs, call in probe(answer, seed):
                before = {name: _copy(value) for name, value in inputs.items()}
                found.append(Outcome(before, _attempt(call)))
                for name, value in inputs.items():
                    _put_back(value, before[name])
    return found


def diagnose(chapter: Chapter, exercise: str, answer: Any) -> str | None:
    """Say in a sentence what is wrong with an answer that failed a check.

    Returns:
        The sentence of the mistake whose outputs are the answer's, or of two
        mistakes that explain it together; else the smallest input that goes
        wrong; None if the probe sees no difference, or an exception first.
    """
    book = catalogue(chapter)
    right = right_outcomes(chapter, exercise)
    got = outcomes(book.PROBES[exercise], answer)
    wrong = differences(chapter, exercise, got)
    if not wrong:
        return None
    if mistakes := match(chapter, exercise, got):
        return " ".join(mistake.says for mistake in mistakes)
    if isinstance(got[wrong[0]].output, Raised):
        return None  # the check's message holds the exception and its line
    if exercise in getattr(book, "OPEN", ()):
        return None  # what the reference does is not what is asked for
    return describe(right[wrong[0]], got[wrong[0]])


def match(
    chapter: Chapter, exercise: str, got: list[Outcome]
) -> list[Mistake]:
    """Return the mistake that has just these outcomes.

    If there is none, return two mistakes of which one or the other gives each
    outcome that is wrong; if there are no such two, nothing. Many mistakes
    end in an exception of one type: where there is nothing else to go by, its
    words have to be the same, too.
    """
    known = known_outcomes(chapter, exercise)
    wrong = set(differences(chapter, exercise, got))
    to_the_word = all(isinstance(got[i].output, Raised) for i in wrong)
    equal = [
        [k.equals(g, to_the_word) for k, g in zip(ks, got, strict=True)]
        for _, ks in known
    ]
    for (mistake, _), hits in zip(known, equal, strict=True):
        if all(hits):
            return [mistake]
    for (a, (one, _)), (b, (other, _)) in combinations(enumerate(known), 2):
        hit = [{i for i in wrong if equal[m][i]} for m in (a, b)]
        if hit[0] | hit[1] == wrong and hit[0] - hit[1] and hit[1] - hit[0]:
            return [one, other]
    return []


@cache
def right_outcomes(chapter: Chapter, exercise: str) -> list[Outcome]:
    """Return what the reference does with the probe's inputs."""
    probe = catalogue(chapter).PROBES[exercise]
    return outcomes(probe, getattr(reference(chapter), exercise))


def differences(
    chapter: Chapter, exercise: str, got: list[Outcome]
) -> list[int]:
    """Return which outcomes are not the reference's, the smallest first."""
    right = right_outcomes(chapter, exercise)
    return [
        place
        for place, (r, g) in enumerate(zip(right, got, strict=True))
        if not r.equals(g)
    ]


@cache
def known_outcomes(
    chapter: Chapter, exercise: str
) -> list[tuple[Mistake, list[Outcome]]]:
    """Return what each known mistake does with the probe's inputs."""
    book = catalogue(chapter)
    return [
        (
            mistake,
            outcomes(
                book.PROBES[exercise], mistaken(chapter, exercise, mistake)
            ),
        )
        for mistake in book.MISTAKES[exercise]
    ]


def describe(right: Outcome, got: Outcome) -> str:
    """Put the smallest input that goes wrong into a sentence."""
    inputs = ", ".join(f"{n} = {show(v)}" for n, v in right.inputs.items())
    sentence = f"With {inputs}, {contrast(right.output, got.output)}."
    if name := _returned_input(got):
        return f"You return {name} as it was given. {sentence}"
    return sentence


def _returned_input(got: Outcome) -> str | None:
    """Name the input that an answer gives back, alone or as its first."""
    first = got.output
    if isinstance(first, tuple) and first:
        first = first[0]
    if not isinstance(first, Tensor):
        return None
    varied = {
        name: value
        for name, value in got.inputs.items()
        if isinstance(value, Tensor) and value.unique().numel() > 1
    }
    return next((n for n, v in varied.items() if same(v, first)), None)


def contrast(right: Any, got: Any, what: str = "the answer") -> str:
    """Say what something should be and what it is, where the two differ."""
    said = [show(right), show(got)]
    if said[0] != said[1]:
        return f"{what} should be {said[0]}, but is {said[1]}"
    if isinstance(right, tuple | list) and isinstance(got, tuple | list):
        for place, (a, b) in enumerate(zip(right, got, strict=False)):
            if not same(a, b):
                return contrast(a, b, f"part {place} of {what}")
    tensors = isinstance(right, Tensor) and isinstance(got, Tensor)
    if tensors and right.dtype == got.dtype:
        apart = (right.double() - got.double()).abs().nan_to_num(torch.inf)
        at = [int(i) for i in torch.unravel_index(apart.argmax(), apart.shape)]
        said = [f"{x[tuple(at)].item():.10g}" for x in (right, got)]
        return f"entry {at} of {what} should be {said[0]}, but is {said[1]}"
    kinds = [
        x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
        for x in (right, got)
    ]
    return f"{what}, {said[0]}, should be {kinds[0]}, but is {kinds[1]}"


def same(a: Any, b: Any) -> bool:
    """Say whether two outputs are equal, up to rounding; NaN equals NaN."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return (
            a.shape == b.shape
            and a.dtype == b.dtype
            and torch.allclose(a, b, TOLERANCE, TOLERANCE, equal_nan=True)
        )
    if isinstance(a, Raised) and isinstance(b, Raised):
        return a.type == b.type
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if is_number(a) and is_number(b):
        return a == b or abs(a - b) <= TOLERANCE * abs(a)
    return type(a) is type(b) and bool(a == b)


def is_number(value: Any) -> bool:
    """Say whether a value is a whole or a real number, whatever its type."""
    return isinstance(value, Real) and not isinstance(value, bool)


def show(value: Any) -> str:
    """Write a value so that a person can read it: small tensors in full."""
    if isinstance(value, Tensor):
        if value.numel() > 24:
            return f"a tensor of shape {tuple(value.shape)}"
        return _numbers(value.tolist())
    if isinstance(value, tuple | list):
        return "(" + ", ".join(show(v) for v in value) + ")"
    return str(value)[:MOST_SHOWN]


def _numbers(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_numbers(v) for v in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _attempt(call: Callable[[], Any]) -> Any:
    try:
        return _copy(call())
    except (WireError, DeadlineError):
        raise
    except BaseException as error:  # SystemExit is an outcome like others
        return Raised(type(error).__name__, str(error))


def _put_back(value: Any, before: Any) -> None:
    """Give a tensor, or those in a tuple, the numbers that they had."""
    if isinstance(value, Tensor):
        now = value.detach()
        if now.shape == before.shape and not same_bytes(now, before):
            now.copy_(before)
    elif isinstance(value, tuple | list):
        for one, old in zip(value, before, strict=False):
            _put_back(one, old)


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, tuple | list):
        return tuple(_copy(v) for v in value)
    return value
