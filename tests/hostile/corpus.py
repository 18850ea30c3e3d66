"""What a case of the corpus is: what it hands in, and what that deserves.

A case is a function that gets the right notebook of a chapter and spoils it,
or writes something else into the student's folder::

    @case(loses="softmax", says="endless loop")
    def never_ends(work):
        \"\"\"An exercise never ends.\"\"\"
        work.within("softmax", "while True: pass")

``python -m tests.hostile`` prints the table of all of them.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent, indent

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from autograder.chapters import find
from autograder.course import Course
from autograder.sample_class import answered, reference_answers
from tests.hostile.traps import Traps

CHAPTER = find("attention")
POINTS = {e.name: e.max_points for e in CHAPTER.exercises}
NAMES = tuple(POINTS)
EVERYTHING = NAMES
NOTHING = ()
# At some calls of softmax: those of its last check, which is worth 2 points.
MASKED = "args[0].isinf().any()"
BUT_MASKED = POINTS["softmax"] - 2


@dataclass
class Work:
    """The right notebook, and the folder that a student hands it in by."""

    course: Course
    student: str
    traps: Traps  # what a spy is after

    def __post_init__(self) -> None:
        self.path = self.course.notebook("submitted", CHAPTER, self.student)
        self.folder = self.path.parent
        self.notebook: NotebookNode = deepcopy(right_notebook(self.course))

    @property
    def cells(self) -> list[NotebookNode]:
        """Return the cells of the notebook, to be changed in place."""
        return self.notebook.cells

    def cell(self, name: str) -> NotebookNode:
        """Return the cell of an exercise or a check."""
        return next(c for c in self.cells if name_of(c) == name)

    def answer(self, name: str, source: str) -> None:
        """Write something else as the answer to an exercise."""
        self.cell(name).source = dedent(source).strip()

    def above(self, name: str, source: str) -> None:
        """Put statements above the right answer, in the same cell."""
        cell = self.cell(name)
        cell.source = dedent(source).strip() + "\n\n\n" + cell.source

    def below(self, name: str, source: str) -> None:
        """Put statements below the right answer, in the same cell."""
        self.cell(name).source += "\n\n\n" + dedent(source).strip()

    def within(self, name: str, body: str, when: str = "True") -> None:
        """Run statements at some calls; where they return, so does it."""
        self.below(
            name,
            f"right_{name} = {name}\n\n\n"
            f"def {name}(*args, **kwargs):\n"
            f"    if {when}:\n"
            f"{indent(dedent(body).strip(), ' ' * 8)}\n"
            f"    return right_{name}(*args, **kwargs)",
        )

    def first(self, source: str) -> None:
        """Put a cell of the student's own above all others."""
        self.cells.insert(0, new_code_cell(dedent(source).strip()))

    def last(self, source: str) -> None:
        """Put a cell of the student's own below all others."""
        self.cells.append(new_code_cell(dedent(source).strip()))

    def text(self) -> str:
        """Return the notebook as it would be written."""
        return json.dumps(self.notebook)  # nbformat would mend it

    def write(self, name: str = "", content: str | bytes = "") -> Path:
        """Hand in a file; by default the notebook, under its own name."""
        path = self.folder / (name or self.path.name)
        content = content or self.text()
        if isinstance(content, str):
            content = content.encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


@dataclass(frozen=True)
class Case:
    """One submission, and what it deserves.

    ``loses`` names the exercises that score 0, ``gets`` the points of those
    that are partly right; all others get full points. Each pattern of
    ``says`` must match something that the person is told.
    """

    theme: str
    student: str
    does: str
    hand_in: Callable[[Work], object]
    loses: tuple[str, ...]
    gets: dict[str, int]
    says: tuple[str, ...]
    by_hand: bool

    @property
    def deserves(self) -> dict[str, int]:
        """Return the points of each exercise."""
        return POINTS | dict.fromkeys(self.loses, 0) | self.gets

    def make(self, course: Course, traps: Traps) -> None:
        """Write into the course what this student hands in."""
        work = Work(course, self.student, traps)
        work.folder.mkdir(parents=True)
        self.hand_in(work)
        if not self.by_hand:
            work.write()


CASES: list[Case] = []


def case(
    *,
    loses: str | tuple[str, ...] = NOTHING,
    gets: dict[str, int] | None = None,
    says: str | tuple[str, ...] = (),
    student: str = "",
    by_hand: bool = False,
) -> Callable[[Callable], Callable]:
    """Add a function to the corpus.

    Args:
        loses: the exercises that get no points.
        gets: the points of exercises that are partly right.
        says: what the person must be told, a few words of each sentence.
        student: a name of its own, where the name is the attack.
        by_hand: it writes all files itself.
    """

    def add(function: Callable[[Work], object]) -> Callable:
        made = Case(
            theme=function.__module__.rpartition(".")[2],
            student=student or function.__name__.replace("_", "-"),
            does=(function.__doc__ or "").strip().partition("\n")[0],
            hand_in=function,
            loses=(loses,) if isinstance(loses, str) else loses,
            gets=gets or {},
            says=(says,) if isinstance(says, str) else says,
            by_hand=by_hand,
        )
        assert made.student not in {other.student for other in CASES}
        CASES.append(made)
        return function

    return add


@cache
def right_notebook(course: Course) -> NotebookNode:
    """Return the released notebook with all answers in it."""
    released = course.notebook("release", CHAPTER)
    return answered(released, reference_answers(CHAPTER))


def name_of(cell: NotebookNode) -> str | None:
    """Return nbgrader's name of a cell."""
    return cell.metadata.get("nbgrader", {}).get("grade_id")
