"""A station that runs nothing: ``python -m tests.fake_station grade …``.

It calls the commands with a station in which an exercise passes if a cell
defines it and leaves nothing open. For tests of all that happens around it.
"""

import os
import time
from functools import cache

from autograder import cli, engine
from autograder.chapters import Chapter, Exercise, find
from autograder.submissions import Cell

SECONDS = "FAKE_STATION_SECONDS"  # how long a submission takes, from outside


class FakeStation:
    """Looks at the source and judges at once."""

    def __init__(self, floor: str = "landlock") -> None:
        self.floor = floor

    def judge(self, chapter: str, cells: list[Cell]) -> dict:
        """Return what a station returns."""
        time.sleep(float(os.environ.get(SECONDS, "0")))
        found = _chapter(chapter)
        exercises = [_judge(exercise, cells) for exercise in found.exercises]
        points = sum(exercise["points"] for exercise in exercises)
        return {
            "chapter": chapter,
            "points": points,
            "max_points": found.max_points,
            "exercises": exercises,
            "protection": self.floor,
            "seconds": 0.0,
            "notes": [],
        }

    def close(self) -> None:
        """Do nothing: there is no process."""


@cache
def _chapter(name: str) -> Chapter:
    return find(name)


def _judge(exercise: Exercise, cells: list[Cell]) -> dict:
    found = [c.source for c in cells if f"def {exercise.name}(" in c.source]
    message = ""
    if not found:
        message = f"{exercise.name} is not defined in what was handed in."
    elif "NotImplementedError" in found[-1]:
        message = f"{exercise.name} is not written yet."
    elif "wrong" in found[-1]:
        message = f"{exercise.name} is wrong."
    checks = [
        check.result(passed=not message, message=message)
        for check in exercise.checks
    ]
    return {
        "id": exercise.name,
        "points": sum(check["points"] for check in checks),
        "max_points": exercise.max_points,
        "passed": not message,
        "checks": checks,
        "diagnosis": None,
    }


if __name__ == "__main__":
    engine.Station = FakeStation
    cli.main()
