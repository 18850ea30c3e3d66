"""How far somebody has come, by the notebooks in a folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autograder import engine
from autograder.chapters import NOT_WRITTEN, Chapter, chapters
from autograder.errors import CourseError


@dataclass(frozen=True)
class Progress:
    """How far somebody has come in a chapter.

    Attributes:
        chapter: the chapter.
        exercises: of ``check --json``, each; none if not begun.
        problem: why the notebook could not be read, if it could not.
    """

    chapter: Chapter
    exercises: list[dict]
    problem: str = ""

    @property
    def done(self) -> int:
        """Return how many exercises are solved."""
        return sum(exercise["passed"] for exercise in self.exercises)

    @property
    def points(self) -> float:
        """Return the points so far."""
        return sum(exercise["points"] for exercise in self.exercises)

    @property
    def next(self) -> str | None:
        """Say what to do next here; None if all is solved."""
        if self.problem:
            return self.problem
        if not self.exercises:
            return f"begin {self.chapter.stem}.ipynb"
        for exercise in self.exercises:
            if not exercise["passed"]:
                return f"{exercise['id']}: {_advice(exercise)}"
        return None


def _advice(exercise: dict) -> str:
    """Say of an exercise that is not solved what is missing."""
    failed = [c["message"] for c in exercise["checks"] if not c["passed"]]
    if all(message.endswith(NOT_WRITTEN) for message in failed):
        return "write it"
    return exercise["diagnosis"] or failed[0]


def notebook(chapter: Chapter, folder: Path) -> Path | None:
    """Return a chapter's notebook, as handed out or as nbgrader fetches it."""
    name = f"{chapter.stem}.ipynb"
    for path in (folder / name, folder / chapter.name / name):
        if path.is_file():
            return path
    return None


def progress(folder: Path) -> Iterator[Progress]:
    """Judge all notebooks of the course in a folder, chapter by chapter.

    Raises:
        CourseError: if there are none.
    """
    found = {chapter: notebook(chapter, folder) for chapter in chapters()}
    if not any(found.values()):
        first = next(iter(found)).stem
        raise CourseError(
            f"{folder} holds no notebook of the course, such as "
            f"{first}.ipynb; name the folder that you work in"
        )
    with engine.Station(floor=engine.LEVELS[0], warm=False) as station:
        for chapter, path in found.items():
            if path is None:
                yield Progress(chapter, [])
                continue
            try:
                judged = engine.judge(chapter, path, station)
            except CourseError as error:
                yield Progress(chapter, [], str(error))
            else:
                yield Progress(chapter, judged["exercises"])
