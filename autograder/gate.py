"""The gate: every known mistake is caught, every right answer passes."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from autograder.chapters import Chapter, Exercise
from autograder.diagnosis import differences, match, outcomes
from autograder.judging import meddled, run_checks
from autograder.misconceptions import (
    Mistake,
    alternatives,
    catalogue,
    mistaken,
    reference,
)

FEWEST_ALTERNATIVES = 2


@dataclass(frozen=True)
class Row:
    """One answer at the gate, and what is wrong with how it was treated."""

    chapter: str
    exercise: str
    answer: str
    right: bool
    caught_by: list[str]
    problems: list[str]


def gate(chapter: Chapter) -> Iterator[Row]:
    """Put the reference, the alternatives and the mistakes to the checks."""
    for exercise in chapter.exercises:
        yield from _right_answers(chapter, exercise)
        for mistake in catalogue(chapter).MISTAKES.get(exercise.name, []):
            yield _mistake(chapter, exercise, mistake)
        yield from _vandal(chapter, exercise)


def _right_answers(chapter: Chapter, exercise: Exercise) -> Iterator[Row]:
    known = alternatives(chapter).get(exercise.name, [])
    answers = [("the reference", getattr(reference(chapter), exercise.name))]
    answers += [(answer.__name__, answer) for answer in known]
    for name, answer in answers:
        results = run_checks(chapter, exercise, answer)
        problems = [
            f"fails {r['name']}: {r['message']}"
            for r in results
            if not r["passed"]
        ]
        if name == "the reference":
            problems += _missing(chapter, exercise, known)
        yield Row(chapter.name, exercise.name, name, True, [], problems)


def _missing(chapter: Chapter, exercise: Exercise, known: list) -> list[str]:
    book = catalogue(chapter)
    problems = []
    if not exercise.checks:
        problems.append("has no check")
    if exercise.name not in book.PROBES:
        problems.append("has no probe")
    if not book.MISTAKES.get(exercise.name):
        problems.append("has no named mistake")
    if len(known) < FEWEST_ALTERNATIVES:
        problems.append(
            f"has {len(known)} alternatives of {FEWEST_ALTERNATIVES}"
        )
    return problems


def _vandal(chapter: Chapter, exercise: Exercise) -> Iterator[Row]:
    """Answer rightly, for inputs that the answer itself has set to zero.

    A check that computes what it expects only afterwards takes it for right.
    """
    touched: list[Tensor] = []

    def vandalise(tensors: list[Tensor]) -> None:
        touched.extend(tensors)
        for tensor in tensors:
            tensor.data.zero_()

    right = getattr(reference(chapter), exercise.name)
    answer = meddled(right, before=vandalise)
    results = run_checks(chapter, exercise, answer)
    if touched:
        caught_by = [r["name"] for r in results if not r["passed"]]
        problems = [] if caught_by else ["passes: expect before you call"]
        name = "sets its inputs to zero"
        yield Row(
            chapter.name, exercise.name, name, False, caught_by, problems
        )


def _mistake(chapter: Chapter, exercise: Exercise, mistake: Mistake) -> Row:
    answer = mistaken(chapter, exercise.name, mistake)
    results = run_checks(chapter, exercise, answer)
    caught_by = [r["name"] for r in results if not r["passed"]]
    caught_by.sort(key=lambda name: name != mistake.caught_by)  # it is first
    problems = []
    if mistake.caught_by not in caught_by:
        problems.append(f"passes {mistake.caught_by}, which was to catch it")
    got = outcomes(catalogue(chapter).PROBES[exercise.name], answer)
    named = match(chapter, exercise.name, got)
    if not differences(chapter, exercise.name, got):
        problems.append("looks like the reference to the probe")
    elif named != [mistake]:
        names = " and ".join(m.name for m in named)
        problems.append(f"is taken for the mistake {names!r}")
    return Row(
        chapter.name, exercise.name, mistake.name, False, caught_by, problems
    )
