"""Run the checks of an exercise on one answer."""

import traceback
from collections.abc import Callable
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any
from unittest.mock import patch

from autograder.chapters import Chapter, Check, Exercise
from autograder.diagnosis import diagnose
from autograder.submissions import SUBMISSION


def run_checks(
    chapter: Chapter, exercise: Exercise, answer: Any
) -> list[dict]:
    """Run every check of the exercise with the answer in its place.

    Other exercises that a check calls are the reference's: one bug costs one
    exercise.

    Returns:
        For each check its ``name``, ``points``, ``max_points``, ``passed``
        and ``message``, as in ``check --json``.
    """
    return [
        _run(chapter, exercise, check, answer) for check in exercise.checks
    ]


@cache
def checks_of(chapter: Chapter) -> ModuleType:
    """Load the chapter's checks, from wherever the course is called."""
    path = chapter.root / "tests" / f"test_{chapter.name}.py"
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def explain(chapter: Chapter, exercise: Exercise, answer: Any) -> str | None:
    """Return the diagnosis, or None where the probe itself breaks."""
    try:
        return diagnose(chapter, exercise.name, answer)
    except Exception:
        return None


def _run(
    chapter: Chapter, exercise: Exercise, check: Check, answer: Any
) -> dict:
    module = checks_of(chapter)
    function: Callable[[], None] = getattr(module, check.name)
    message = ""
    try:
        with patch.object(module, exercise.name, answer):
            function()
    except BaseException as error:  # SystemExit, too, is a wrong answer
        message = describe(exercise.name, error)
    return check.result(passed=not message, message=message)


def describe(name: str, error: BaseException) -> str:
    """Put an exception into a sentence, with the student's own line."""
    if isinstance(error, NotImplementedError):
        return f"{name} is not written yet."
    if isinstance(error, AssertionError) and str(error):
        return str(error)
    text = f"{name} raised {type(error).__name__}: {error}".rstrip(": ")
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith(SUBMISSION)]
    if own and own[-1].line:
        text += f" (in the line `{own[-1].line.strip()}`)"
    return text
