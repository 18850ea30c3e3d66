"""Make up a class: what seven students hand in, for every chapter.

Nothing of it is stored: the answers come from the chapter's reference, its
alternatives and its known mistakes.
"""

import inspect
import re
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder.chapters import Chapter, Exercise, without_markers
from autograder.course import Course
from autograder.errors import CourseError
from autograder.excerpts import Module
from autograder.misconceptions import alternatives, catalogue
from autograder.release import CellsChangedError, release

N_MISTAKEN = 3
MISTAKEN = [f"mistaken-{n}" for n in range(1, N_MISTAKEN + 1)]
STUDENTS = ["right", "half-right", "blank", *MISTAKEN, "hostile"]
FLOOD = 'for number in range(5_000):\n    print("flood", number)\n\n\n'
END_KERNEL = 'lambda *_, **__: __import__("os")._exit(0)'


def sample_class(course: Course, chapters: list[Chapter]) -> None:
    """Release the chapters and hand in the work of seven students.

    What was handed in and graded before stays, if it is still the same.

    Raises:
        CourseError: if real students have handed in something there.
    """
    if course.settings.database:
        raise CourseError(
            f"{course.root} has its grades in {course.settings.database}; "
            "name a folder of its own for the sample class, by --course DIR"
        )
    if others := sorted(_students(course) - set(STUDENTS)):
        raise CourseError(
            f"{course.root} holds the work of {', '.join(others)}; name a "
            "folder of its own for the sample class, by --course DIR"
        )
    try:
        release(course, chapters)
    except CellsChangedError:  # the sample class is nobody's work
        shutil.rmtree(course.root)
        release(course, chapters)
    for chapter in chapters:
        for student, notebook in notebooks(course, chapter):
            path = course.notebook("submitted", chapter, student)
            path.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(notebook, path)


def notebooks(
    course: Course, chapter: Chapter
) -> Iterator[tuple[str, NotebookNode]]:
    """Yield each student's name and what the student hands in."""
    released = course.notebook("release", chapter)
    exercises = chapter.exercises
    right = reference_answers(chapter)
    half = [e.name for e in exercises[: len(exercises) // 2]]
    yield "right", answered(released, right | other_answers(chapter))
    yield "half-right", answered(released, {n: right[n] for n in half})
    yield "blank", answered(released, {})
    mistaken = islice(mistaken_answers(chapter), N_MISTAKEN)
    for student, wrong in zip(MISTAKEN, mistaken, strict=False):
        yield student, answered(released, right | wrong)
    yield "hostile", sabotaged(answered(released, right), exercises)


def answered(released: Path, answers: dict[str, str]) -> NotebookNode:
    """Write the sources of some cells into a fresh copy of a notebook."""
    notebook = nbformat.read(released, as_version=4)
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.get(name, cell.source)
    return notebook


def reference_answers(chapter: Chapter) -> dict[str, str]:
    """Return the source of each exercise's cell, answered."""
    return {
        cell.metadata.nbgrader.grade_id: without_markers(cell.source)
        for cell in chapter.for_grader().cells
        if cell.metadata.get("nbgrader", {}).get("solution")
    }


def other_answers(chapter: Chapter) -> dict[str, str]:
    """Return right answers that are not the reference, helpers and all.

    An exercise whose alternatives all build on the reference has none.
    """
    found = {}
    for exercise in chapter.exercises:
        for answer in alternatives(chapter).get(exercise.name, []):
            module = Module(Path(inspect.getsourcefile(answer)))
            names = [*module.helpers(answer.__name__), answer.__name__]
            imports, from_solutions = module.imports_for(names)
            if not from_solutions:
                code = "\n\n\n".join(module.code(name) for name in names)
                code = re.sub(rf"\b{answer.__name__}\b", exercise.name, code)
                found[exercise.name] = "\n".join([*imports, "\n", code])
                break
    return found


def mistaken_answers(chapter: Chapter) -> Iterator[dict[str, str]]:
    """Yield one mistake of each exercise that has one of changed lines."""
    module = Module(chapter.root / "solutions" / f"{chapter.name}.py")
    for name, right in reference_answers(chapter).items():
        code = wrong = without_markers(module.code(name))
        for mistake in catalogue(chapter).MISTAKES.get(name, []):
            if isinstance(mistake.change, dict):
                for old, new in mistake.change.items():
                    wrong = wrong.replace(old, new)
                yield {name: right.replace(code, wrong)}
                break


def sabotaged(
    notebook: NotebookNode, exercises: list[Exercise]
) -> NotebookNode:
    """Flood the output, delete a check, fake another, end the kernel."""
    first, last = exercises[0], exercises[-1]
    deleted = first.checks[0].name
    fakes = {
        last.name: f"{last.name} = {END_KERNEL}",
        last.checks[0].name: 'print("Passed.")',
    }
    kept = []
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = fakes.get(name, cell.source)
        if name == first.name:
            cell.source = FLOOD + cell.source
        if name != deleted:
            kept.append(cell)
    notebook.cells = kept
    return notebook


def _students(course: Course) -> set[str]:
    """Return everybody who is known in a course folder."""
    found = {path.name for path in course.root.glob("submitted/*")}
    if course.has_gradebook():
        with course.gradebook() as gradebook:
            found |= {student.id for student in gradebook.students}
    return found
