"""Make up a class: what seven students hand in, for every chapter.

Nothing of it is stored: the answers come from the chapter's reference, its
alternatives and its known mistakes.
"""

import inspect
import re
import shutil
from collections.abc import Callable, Iterator
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
GIVE_UP = "raise NotImplementedError"


def sample_class(course: Course, chapters: list[Chapter]) -> None:
    """Release the chapters and hand in the work of seven students.

    What was handed in and graded before stays, if it is still the same.

    Raises:
        CourseError: if real students have handed in something there.
    """
    submitted = course.root / "submitted"
    found = {path.name for path in submitted.glob("*")}
    if others := sorted(found - set(STUDENTS)):
        raise CourseError(
            f"{submitted} holds the work of {', '.join(others)}; name a "
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

    def write(answers: dict[str, str]) -> NotebookNode:
        """Write answers into a fresh copy of the released notebook."""
        notebook = nbformat.read(released, as_version=4)
        for cell in notebook.cells:
            name = cell.metadata.get("nbgrader", {}).get("grade_id")
            cell.source = answers.get(name, cell.source)
        return notebook

    exercises = chapter.exercises
    right = {e.name: reference_answer(chapter, e) for e in exercises}
    half = [e.name for e in exercises[: len(exercises) // 2]]
    yield "right", write({e.name: other_answer(chapter, e) for e in exercises})
    yield "half-right", write({name: right[name] for name in half})
    yield "blank", write({})
    mistaken = islice(mistaken_answers(chapter), N_MISTAKEN)
    for student, wrong in zip(MISTAKEN, mistaken, strict=False):
        yield student, write(right | wrong)
    yield "hostile", sabotage(write(right), write({}), exercises)


def reference_answer(chapter: Chapter, exercise: Exercise) -> str:
    """Return the reference, as a student would have written it."""
    return without_markers(_solutions(chapter).code(exercise.name))


def other_answer(chapter: Chapter, exercise: Exercise) -> str:
    """Return a right answer that is not the reference, helpers and all."""
    answer: Callable = alternatives(chapter)[exercise.name][0]
    module = Module(Path(inspect.getsourcefile(answer)))
    names = [*module.helpers(answer.__name__), answer.__name__]
    imports, _ = module.imports_for(names)
    code = "\n\n\n".join(module.code(name) for name in names)
    own = re.sub(rf"\b{answer.__name__}\b", exercise.name, code)
    return "\n\n\n".join(["\n".join(imports), own] if imports else [own])


def mistaken_answers(chapter: Chapter) -> Iterator[dict[str, str]]:
    """Yield one mistake of each exercise that has one of changed lines."""
    for exercise in chapter.exercises:
        for mistake in catalogue(chapter).MISTAKES.get(exercise.name, []):
            if isinstance(mistake.change, dict):
                code = _solutions(chapter).code(exercise.name)
                for old, new in mistake.change.items():
                    code = code.replace(old, new)
                yield {exercise.name: without_markers(code)}
                break


def sabotage(
    notebook: NotebookNode, blank: NotebookNode, exercises: list[Exercise]
) -> NotebookNode:
    """Flood the output, delete a check, fake another, end the kernel."""
    first, last = exercises[0], exercises[-1]
    deleted, faked = first.checks[0].name, last.checks[0].name
    kept = []
    for cell, stub in zip(notebook.cells, blank.cells, strict=True):
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name == deleted:
            continue
        if name == first.name:
            cell.source = FLOOD + cell.source
        if name == last.name:
            exits = "import os\n\nos._exit(0)"
            cell.source = _indented(stub.source, GIVE_UP, exits)
        if name == faked:
            cell.source = 'print("Passed.")'
        kept.append(cell)
    notebook.cells = kept
    return notebook


def _indented(source: str, old: str, new: str) -> str:
    """Put new lines in the place of an old one, as far to the right."""
    return re.sub(
        rf"^( *){re.escape(old)}$",
        lambda found: "\n".join(
            found[1] + line if line else "" for line in new.splitlines()
        ),
        source,
        flags=re.MULTILINE,
    )


def _solutions(chapter: Chapter) -> Module:
    return Module(chapter.root / "solutions" / f"{chapter.name}.py")
