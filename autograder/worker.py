"""Run a submission's code and its checks: ``python -m autograder.worker``.

Each exercise is judged in a fork of its own, so that one that hangs, exits or
changes what others rely on costs itself alone. Where there is no fork, all
exercises share this process.
"""

import json
import os
import select
import signal
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from autograder import judging
from autograder.chapters import Chapter, Exercise, find
from autograder.misconceptions import reference
from autograder.submissions import Answers, read, run


def main(chapter_name: str, path: str, report: str, seconds: str) -> None:
    """Judge every exercise and write a line of JSON for each."""
    torch.set_num_threads(1)
    chapter = find(chapter_name)
    for exercise in chapter.exercises:
        # Whatever the checks import lazily is imported once, before any fork.
        right = getattr(reference(chapter), exercise.name)
        judging.run_checks(chapter, exercise, right)
    with Path(report).open("w", encoding="utf-8") as file:
        answers = run(read(chapter, Path(path)), _namespace(chapter))
        for exercise in chapter.exercises:
            judged = apart(
                lambda e=exercise: judge_exercise(chapter, e, answers),
                lambda why, e=exercise: _failed(e, why),
                float(seconds),
            )
            file.write(json.dumps(judged) + "\n")
            file.flush()
            if not all(check["passed"] for check in judged["checks"]):
                # One bug costs one exercise: later ones get the reference.
                right = getattr(reference(chapter), exercise.name)
                answers.namespace[exercise.name] = right


def judge_exercise(
    chapter: Chapter, exercise: Exercise, answers: Answers
) -> dict:
    """Run the checks of one exercise, and name the mistake if one fails."""
    if exercise.name not in answers.namespace:
        return _failed(exercise, answers.missing(exercise.name))
    answer = answers.namespace[exercise.name]
    checks = judging.run_checks(chapter, exercise, answer)
    diagnosis = None
    if not all(check["passed"] for check in checks):
        diagnosis = judging.explain(chapter, exercise, answer)
    return {"id": exercise.name, "checks": checks, "diagnosis": diagnosis}


def apart(
    task: Callable[[], dict], failed: Callable[[str], dict], seconds: float
) -> dict:
    """Run a task in a fork; say why if it brings nothing back in time."""
    if not hasattr(os, "fork"):
        return task()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "w") as pipe:
            json.dump(task(), pipe)
        os._exit(0)
    os.close(writer)
    text = _read(reader, time.monotonic() + seconds)
    if text is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if text is None:
        return failed(
            f"The checks ran for more than {seconds:g} seconds: is there an "
            "endless loop?"
        )
    try:
        return json.loads(text)
    except ValueError:
        return failed(_ending(os.waitstatus_to_exitcode(status)))


def _read(reader: int, deadline: float) -> bytes | None:
    """Read a pipe to its end, or return None at the deadline."""
    chunks = []
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while (left := deadline - time.monotonic()) > 0:
            if select.select([pipe], [], [], left)[0]:
                chunk = pipe.read(1 << 16)
                if not chunk:
                    return b"".join(chunks)
                chunks.append(chunk)
    return None


def _ending(code: int) -> str:
    if code < 0:
        return f"The checks were ended by {signal.Signals(-code).name}."
    return f"The code ended the process that it ran in (exit status {code})."


def _failed(exercise: Exercise, why: str) -> dict:
    checks = [
        check.result(passed=False, message=why) for check in exercise.checks
    ]
    return {"id": exercise.name, "checks": checks, "diagnosis": None}


def _namespace(chapter: Chapter) -> dict[str, Any]:
    """Make the module that a submission runs in, with what it is given."""
    module = types.ModuleType("submission")
    sys.modules["submission"] = module
    for cell in chapter.for_student().cells:
        if "given" in cell.metadata.get("tags", []):
            exec(cell.source, module.__dict__)
    return module.__dict__


if __name__ == "__main__":
    main(*sys.argv[1:])
