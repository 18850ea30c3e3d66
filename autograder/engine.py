"""Judge submissions: the seam between those who ask and how it is done.

``check`` and ``grade`` know nothing but this. A *station* judges: a process
that holds the checks, and beside it those that hold a student's code.
"""

import re
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from autograder.chapters import ROOT, Chapter, Exercise, find
from autograder.errors import CourseError
from autograder.execution.launch import environment
from autograder.execution.wire import GoneError, PipeChannel, WireError
from autograder.submissions import Cell, read

# Weakest first; ``autograder.execution.sandbox`` says what each protects.
LEVELS = ("none", "rlimits", "landlock", "namespaces")
FLOOR = "landlock"
IMPORT = re.compile(r"^(?:import|from) .+$", re.MULTILINE)


class Station:
    """A warmed judge: processes of its own, to be driven by one thread.

    Args:
        floor: the least protection to judge with, one of ``LEVELS``.
        warm: whether more than one submission is to come, for which it pays
            to prepare.
    """

    def __init__(self, floor: str = FLOOR, *, warm: bool = True) -> None:
        self.floor = floor
        self.warm = warm
        self._process: subprocess.Popen | None = None
        self._chapters: dict[str, Chapter] = {}

    def __enter__(self) -> "Station":
        self._start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def judge(self, chapter: str, cells: list[Cell]) -> dict[str, Any]:
        """Judge one submission, whatever it does.

        Args:
            chapter: the name of the chapter.
            cells: what to run, in order, with the code that is given.

        Returns:
            What ``check --json`` prints, and besides: ``protection``, the
            level reached; ``seconds``; ``notes``, sentences about what went
            wrong outside the exercises.

        Raises:
            CourseError: if the chapter is broken, or this machine doesn't
                protect itself as the floor asks for.
        """
        found = self._chapters.setdefault(chapter, find(chapter))
        exercises = found.exercises
        order = {
            "chapter": chapter,
            "floor": self.floor,
            "right": reference(found) if self.warm else [],
            "imports": imports(found),
            "exercises": [asdict(exercise) for exercise in exercises],
            "cells": [asdict(cell) for cell in cells],
        }
        answer = self._ask(order)
        if "broken" in answer:  # once may be chance, as want of memory is
            self.close()
            answer = self._ask(order)
        if "broken" in answer:
            raise CourseError(
                f"nothing can be judged on this machine: {answer['broken']}; "
                "run 'python -m autograder doctor'"
            )
        if "refused" in answer:
            raise CourseError(answer["refused"])
        judged = answer.pop("exercises")
        return summarise(found, exercises, judged) | answer

    def close(self) -> None:
        """End the station's processes."""
        if self._process:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()
        self._process = None

    def _start(self) -> PipeChannel:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "autograder.station"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment(),
                cwd=ROOT,
                start_new_session=True,
            )
        return PipeChannel(self._process.stdout, self._process.stdin)

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Send the order, and return the answer or what is wrong."""
        channel = self._start()
        try:
            channel.send(order)
            return channel.receive()[0]
        except GoneError:
            self.close()
            return {"broken": "the process that judges has ended"}
        except WireError as error:  # nothing was sent
            return {"refused": f"what was handed in is too much: {error}"}


@cache
def reference(chapter: Chapter) -> list[dict[str, Any]]:
    """Return the right answers and what is given, as cells."""
    return [
        asdict(Cell(f"cell {number}", cell.source))
        for number, cell in enumerate(chapter.for_grader().cells)
        if {"exercise", "given"} & set(cell.metadata.get("tags", []))
    ]


@cache
def imports(chapter: Chapter) -> list[str]:
    """Return what the chapter's cells import, to be imported beforehand."""
    found: dict[str, None] = {}
    for cell in chapter.for_student().cells:
        if cell.cell_type == "code":
            found |= dict.fromkeys(IMPORT.findall(cell.source))
    return list(found)


def judge(
    chapter: Chapter, path: Path, station: Station | None = None
) -> dict[str, Any]:
    """Judge a student's notebook or module, on the student's own machine.

    Args:
        chapter: the chapter that it answers.
        path: a ``.ipynb`` or a ``.py`` file.
        station: who judges; by default one for this alone.

    Returns:
        As ``Station.judge``; ``notes`` begin with what was mended.

    Raises:
        CourseError: if the file is missing or can't be read.
    """
    if station is None:
        # It starts while this process reads the chapter and the file.
        with Station(floor=LEVELS[0], warm=False) as station:
            return judge(chapter, path, station)
    chapter.exercises  # noqa: B018 — what is wrong with it is said first
    handed_in = read(chapter, path)
    judged = station.judge(chapter.name, handed_in.cells)
    judged["notes"] = [*handed_in.flags, *judged["notes"]]
    return judged


def verdict(judged: dict[str, Any]) -> dict[str, Any]:
    """Return of a judgement what ``check --json`` promises to print."""
    promised = ("chapter", "points", "max_points", "exercises")
    return {name: judged[name] for name in promised}


def summarise(
    chapter: Chapter, expected: list[Exercise], judged: list[dict]
) -> dict[str, Any]:
    """Add up the points."""
    exercises = []
    for exercise, found in zip(expected, judged, strict=True):
        points = sum(check["points"] for check in found["checks"])
        exercises.append(
            {
                "id": exercise.name,
                "points": points,
                "max_points": exercise.max_points,
                "passed": points == exercise.max_points,
                "checks": found["checks"],
                "diagnosis": found["diagnosis"],
            }
        )
    return {
        "chapter": chapter.name,
        "points": sum(e["points"] for e in exercises),
        "max_points": chapter.max_points,
        "exercises": exercises,
    }
