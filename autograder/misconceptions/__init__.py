"""The named mistakes of each chapter, and how to recognise them.

A chapter's module here has two tables, by exercise:

- ``MISTAKES``: the mistakes that are known to be made, each written as the
  smallest change to the reference answer;
- ``PROBES``: functions that call an answer on inputs drawn from a seed, the
  smallest first, and so tell each mistake from the reference and from every
  other mistake.

Where there are many right answers, ``OPEN`` names the exercises: what the
reference does there is not shown as what should come out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from autograder.chapters import Chapter
from autograder.errors import CourseError
from autograder.excerpts import Module

Call = Callable[[], Any]
Probe = Callable[[Any, int], Iterator[tuple[dict[str, Any], Call]]]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people really give.

    Attributes:
        name: a few words, for the table of mistakes.
        says: the sentence that a good teacher would say to whoever made it.
        change: what to replace in the reference's source, each old text found
            there exactly once; or the wrong answer, written out.
        caught_by: the check that is meant to catch it.
    """

    name: str
    says: str
    change: dict[str, str] | Callable
    caught_by: str


def catalogue(chapter: Chapter) -> ModuleType:
    """Import the chapter's mistakes and probes."""
    return _import("autograder.misconceptions", chapter)


def alternatives(chapter: Chapter) -> dict[str, list[Callable]]:
    """Import the chapter's right answers that are not the reference."""
    return _import("autograder.alternatives", chapter).ALTERNATIVES


def reference(chapter: Chapter) -> ModuleType:
    """Import the chapter's reference answers."""
    return _import("solutions", chapter)


def mistaken(chapter: Chapter, exercise: str, mistake: Mistake) -> Any:
    """Return the function or class that has the mistake in it."""
    if callable(mistake.change):
        return mistake.change
    module = Module(chapter.root / "solutions" / f"{chapter.name}.py")
    code = module.code(exercise)
    changed = code
    for old, new in mistake.change.items():
        if changed.count(old) != 1:
            raise CourseError(
                f"the mistake {mistake.name!r} of {chapter.name}.{exercise} "
                f"replaces {old!r}, which stands {changed.count(old)} times "
                f"in {module.path}; name a text that stands there once"
            )
        changed = changed.replace(old, new)
    namespace: dict[str, Any] = {"__name__": f"mistaken_{chapter.name}"}
    source = module.source.replace(code, changed)
    exec(compile(source, f"<{mistake.name}>", "exec"), namespace)
    return namespace[exercise]


def _import(package: str, chapter: Chapter) -> ModuleType:
    name = f"{package}.{chapter.name}"
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        path = name.replace(".", "/") + ".py"
        raise CourseError(
            f"{path} is missing; every chapter has one"
        ) from None
