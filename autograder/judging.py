"""Run the checks of an exercise on one answer."""

import ast
import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache, wraps
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from autograder.chapters import NOT_WRITTEN, Chapter, Check, Exercise
from autograder.diagnosis import diagnose
from autograder.execution.errors import own_line, printable
from autograder.execution.wire import DeadlineError, WireError
from autograder.misconceptions import reference

LIBRARIES = ("faiss", "tokenizers", "transformers")


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
        run_check(chapter, exercise.name, check, answer)
        for check in exercise.checks
    ]


@cache
def checks_of(chapter: Chapter) -> ModuleType:
    """Load the chapter's checks, from wherever the course is called."""
    path = chapter.root / "tests" / f"test_{chapter.name}.py"
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def prepare(chapter: Chapter) -> None:
    """Load the checks and the libraries that they compare answers with.

    A check imports those when it needs them, which can take seconds that are
    not the answer's.
    """
    modules = [checks_of(chapter)]
    modules += [
        m for n, m in sys.modules.items() if n.startswith("contextlab.")
    ]
    for module in modules:
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            if node.module.partition(".")[0] in LIBRARIES:
                with suppress(ImportError):  # the check will say so
                    library = import_module(node.module)
                    for name in node.names:  # some are loaded when asked for
                        getattr(library, name.name, None)


def explain(chapter: Chapter, exercise: Exercise, answer: Any) -> str | None:
    """Return the diagnosis, or None where the probe itself breaks."""
    try:
        said = diagnose(chapter, exercise.name, answer)
    except Exception:
        return None
    return printable(said) or None


def run_check(chapter: Chapter, name: str, check: Check, answer: Any) -> dict:
    """Run one check with the answer in its place.

    Raises:
        WireError: if the answer's process is gone or speaks no sense.
        DeadlineError: if it takes too long.
    """
    module = checks_of(chapter)
    function: Callable[[], None] = getattr(module, check.name)
    message = ""
    try:
        with patch.object(module, name, answer):
            function()
    except (WireError, DeadlineError):
        raise
    except BaseException as error:  # SystemExit, too, is a wrong answer
        message = describe(name, error)
    return check.result(passed=not message, message=message)


@cache
def may_change(chapter: Chapter, name: str, check: Check) -> bool:
    """Say whether the reference changes in place what the check gives it."""
    before: list[tuple[Tensor, Tensor]] = []
    changes = []

    def copy(tensors: list[Tensor]) -> None:
        before[:] = [(tensor, tensor.detach().clone()) for tensor in tensors]

    def compare() -> None:
        changes.extend(not torch.equal(now, then) for now, then in before)

    right = getattr(reference(chapter), name)
    answer = meddled(right, before=copy, after=compare)
    run_check(chapter, name, check, answer)
    return any(changes)


def meddled(
    right: Any,
    before: Callable[[list[Tensor]], None],
    after: Callable[[], None] = lambda: None,
) -> Any:
    """Return an answer whose calls are preceded and followed by our own.

    Args:
        right: a function, or a class: then its public methods.
        before: is given the floating-point tensors among the arguments.
        after: is called when the answer has returned.
    """
    if isinstance(right, type):
        methods = {
            name: meddled(method, before, after)
            for name, method in vars(right).items()
            if inspect.isfunction(method) and not name.startswith("_")
        }
        return type(right.__name__, (right,), methods)

    @wraps(right)
    def answer(*args: Any, **kwargs: Any) -> Any:
        given = tree_leaves((args, kwargs))
        tensors = [x for x in given if isinstance(x, Tensor)]
        before([x for x in tensors if x.is_floating_point()])
        value = right(*args, **kwargs)
        after()
        return value

    return answer


def describe(name: str, error: BaseException) -> str:
    """Put an exception into a sentence, with the student's own line."""
    if isinstance(error, NotImplementedError):
        return f"{name} {NOT_WRITTEN}"
    if isinstance(error, AssertionError) and str(error):
        return printable(str(error))
    text = f"{name} raised {type(error).__name__}: {error}".rstrip(": ")
    line = getattr(error, "line", None) or own_line(error)
    if line:
        text += f" (in the line `{line}`)"
    return printable(text)
