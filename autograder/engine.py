"""Judge one submission: run its code in a process apart, and report.

This is the seam at which execution can be hardened: ``check`` and ``grade``
know nothing but ``judge``.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from autograder.chapters import Chapter, Exercise
from autograder.submissions import read

TIMEOUT = 120  # seconds for a whole submission
EXERCISE_TIMEOUT = 20  # seconds for the checks of one exercise


def judge(chapter: Chapter, path: Path, timeout: float = TIMEOUT) -> dict:
    """Judge a student's notebook or module.

    Args:
        chapter: the chapter that it answers.
        path: a ``.ipynb`` or a ``.py`` file.
        timeout: seconds after which all that is left counts as failed.

    Returns:
        The dictionary that ``check --json`` prints.

    Raises:
        CourseError: if the file is missing or can't be read.
    """
    expected = chapter.exercises  # what is wrong with the chapter, or
    read(chapter, path)  # with the file, is said before any process starts
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.jsonl")
        command = [
            sys.executable,
            "-m",
            "autograder.worker",
            chapter.name,
            str(path.resolve()),
            str(report),
            str(EXERCISE_TIMEOUT),
        ]
        message = _run(command, timeout)
        lines = report.read_text().splitlines() if report.exists() else []
    judged = [json.loads(line) for line in lines]
    return summarise(chapter, expected, judged, message)


def summarise(
    chapter: Chapter, expected: list[Exercise], done: list[dict], message: str
) -> dict:
    """Add up the exercises; one that was not judged scores 0, and says why."""
    by_id = {exercise["id"]: exercise for exercise in done}
    exercises = []
    for exercise in expected:
        failed = {
            "id": exercise.name,
            "checks": [
                check.result(passed=False, message=message)
                for check in exercise.checks
            ],
            "diagnosis": None,
        }
        judged = by_id.get(exercise.name, failed)
        points = sum(check["points"] for check in judged["checks"])
        exercises.append(
            {
                "id": exercise.name,
                "points": points,
                "max_points": exercise.max_points,
                "passed": points == exercise.max_points,
                "checks": judged["checks"],
                "diagnosis": judged["diagnosis"],
            }
        )
    return {
        "chapter": chapter.name,
        "points": sum(e["points"] for e in exercises),
        "max_points": chapter.max_points,
        "exercises": exercises,
    }


def _run(command: list[str], timeout: float) -> str:
    """Run the worker and say how it ended, should anything be unjudged."""
    environment = os.environ | {
        "CONTEXTLAB_GRADING": "1",
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    try:
        ended = subprocess.run(
            command,
            env=environment,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"Not judged: the code ran for more than {timeout:g} seconds."
    return (
        "Not judged: the code ended the process that it ran in "
        f"(exit status {ended.returncode})."
    )
