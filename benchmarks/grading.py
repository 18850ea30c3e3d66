"""Grade the same class by nbgrader, by otter-grader where installed, by us.

Run it from the root of the repository, on a machine that does nothing else:
python benchmarks/grading.py [--students 24]

All are given the same submissions and the same checks, one after the other:
first a class of one, which shows what it takes to start, then the whole class.
The floor is what no grader of notebooks can do without: the answers and the
checks, executed in a fork of a process that has PyTorch imported already.
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import nbformat
import typer
from rich.console import Console
from rich.table import Table

from autograder.chapters import ROOT, Chapter, find
from autograder.course import Course
from autograder.release import release
from autograder.sample_class import answered, reference_answers
from contextlab.recorded import made_by

Grader = Callable[[Course, Chapter], None]
RECORD = Path(__file__).with_suffix(".json")
PROGRAMS = Path(sys.executable).parent
THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
FLOOR = "the floor: cells in a warm fork"
# An otter test is a function that gets the student's names.
OTTER_TEST = """
OK_FORMAT = False

from otter.test_files import test_case

name = {name!r}
points = {points}


@test_case(points={points})
def check(env):
    exec(compile({source!r}, {name!r}, "exec"), env)
"""


def hand_in(course: Course, chapter: Chapter, students: int) -> None:
    """Release the chapter and hand in the reference for everybody."""
    release(course, [chapter])
    notebook = answered(
        course.notebook("release", chapter), reference_answers(chapter)
    )
    for number in range(students):
        path = course.notebook("submitted", chapter, f"student-{number:03d}")
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)


def by_nbgrader(course: Course, chapter: Chapter) -> None:
    """Grade the class by nbgrader's own command."""
    run([PROGRAMS / "nbgrader", "autograde", chapter.name,
         f"--course-dir={course.root}"])  # fmt: skip


def by_us(workers: int) -> Grader:
    """Return what grades the class by our command."""

    def grade(course: Course, chapter: Chapter) -> None:
        run([sys.executable, "-m", "autograder", "grade", chapter.name,
             "--course", course.root, "--workers", str(workers)])  # fmt: skip

    return grade


def by_otter(course: Course, chapter: Chapter) -> None:
    """Grade the class by ``otter run``, one after the other as it does."""
    folder = course.root / "otter"
    tests = folder / "tests"
    tests.mkdir(parents=True)
    for cell in chapter.for_grader().cells:
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("grade"):
            source = OTTER_TEST.format(
                name=marks.grade_id, points=marks.points, source=cell.source
            )
            (tests / f"{marks.grade_id}.py").write_text(source)
    otter = [sys.executable, "-m", "otter"]
    run([*otter, "generate", "-t", tests, "-o", folder / "all.zip",
         "--no-environment", "--no-requirements"], cwd=folder)  # fmt: skip
    for student in course.students(chapter):
        path = course.notebook("submitted", chapter, student)
        run([*otter, "run", "-a", folder / "all.zip", "-o", folder,
             "--no-logo", path], cwd=folder)  # fmt: skip


def at_the_floor(course: Course, chapter: Chapter) -> None:
    """Execute answers and checks in forks of this process."""
    cells = [
        compile(cell.source, f"<cell {number}>", "exec")
        for number, cell in enumerate(answered_in_full(chapter))
    ]
    for _ in course.students(chapter):
        child = os.fork()
        if child == 0:
            with contextlib.redirect_stdout(None):
                space: dict = {}
                for code in cells:
                    exec(code, space)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, "a cell has failed"


def answered_in_full(chapter: Chapter) -> list:
    """Return the cells of answers, given code and checks, hidden lines too."""
    kinds = {"exercise", "given", "check"}
    return [
        cell
        for cell in chapter.for_grader().cells
        if kinds & set(cell.metadata.get("tags", []))
    ]


def run(command: list, cwd: Path = ROOT) -> None:
    """Run a program; what it prints goes nowhere, unless it fails."""
    ended = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=os.environ | THREADS,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        sys.exit(f"{command} failed:\n{ended.stdout}{ended.stderr}")


def warm(chapter: Chapter) -> None:
    """Import and use, before the floor is measured, what its cells use."""
    import torch

    torch.set_num_threads(1)
    space: dict = {}
    with contextlib.redirect_stdout(None):
        for cell in answered_in_full(chapter):
            exec(compile(cell.source, "<warm>", "exec"), space)


def measure(grade: Grader, chapter: Chapter, students: int) -> float:
    """Return the seconds that a class takes, graded afresh."""
    with TemporaryDirectory() as folder:
        course = Course(Path(folder).resolve())
        hand_in(course, chapter, students)
        start = time.perf_counter()
        grade(course, chapter)
        return time.perf_counter() - start


def compare(chapter: Chapter, students: int) -> Iterator[dict]:
    """Measure all graders in turn; yield a row each, the floor's last."""
    graders: dict[str, Grader] = {
        "nbgrader autograde": by_nbgrader,
        "otter run": by_otter,
        "autograder grade, 1 worker": by_us(1),
        "autograder grade, 2 workers": by_us(2),
        FLOOR: at_the_floor,
    }
    if importlib.util.find_spec("otter") is None:
        del graders["otter run"]
        print("otter-grader is not installed and not measured.")
    for name, grade in graders.items():
        print(f"{name} …", flush=True)
        if name == FLOOR:
            warm(chapter)
        first = measure(grade, chapter, 1)
        whole = measure(grade, chapter, students)
        yield {
            "grader": name,
            "first": round(first, 2),
            "further": round((whole - first) / (students - 1), 3),
            "whole": round(whole, 1),
        }


def main(
    students: Annotated[int, typer.Option(help="Size of the class.")] = 24,
) -> None:
    """Measure all in turn, print the table and record it."""
    chapter = find("attention")
    rows = list(compare(chapter, students))
    for row in rows:
        row["times_nbgrader"] = round(rows[0]["further"] / row["further"], 1)
        row["times_floor"] = round(row["further"] / rows[-1]["further"], 1)
    table = Table(
        "",
        "first, s",
        "each further, s",
        f"all {students}, s",
        "nbgrader / this",
        "this / floor",
    )
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    record = {
        "made": made_by("benchmarks/grading.py"),
        "students": students,
        "exercises": len(chapter.exercises),
        "checks": sum(len(e.checks) for e in chapter.exercises),
        "rows": rows,
    }
    RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
