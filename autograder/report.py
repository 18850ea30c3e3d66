"""Say how a class did: points, hard exercises, frequent mistakes.

The points are the gradebook's, a teacher's own included; what went wrong is
what ``grade`` wrote down.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import count
from pathlib import Path
from statistics import StatisticsError, correlation, mean, median

from jinja2 import Environment, FileSystemLoader
from nbgrader.api import (
    Assignment,
    BaseCell,
    Grade,
    Gradebook,
    SubmittedAssignment,
    SubmittedNotebook,
)
from sqlalchemy import Select, select

from autograder.chapters import Chapter
from autograder.course import Course
from autograder.errors import CourseError
from autograder.feedback import in_html
from autograder.misconceptions import catalogue

TEMPLATES = Path(__file__).parent / "templates"
MOST_BARS = 16  # of the histogram


@dataclass(frozen=True)
class Row:
    """One student: points by exercise, or None where nothing is graded."""

    student: str
    points: dict[str, float] | None
    note: str = ""
    problem: str = ""
    flags: tuple[str, ...] = ()
    penalty: float = 0.0

    @property
    def total(self) -> float:
        """Return the sum of all points, less what being late costs."""
        return max(0.0, sum((self.points or {}).values()) - self.penalty)

    @property
    def remarks(self) -> list[str]:
        """Say what a teacher should know of it."""
        late = f"late: {self.penalty:g} points off" if self.penalty else ""
        found = [self.problem, self.note, *self.flags, late]
        return [remark for remark in dict.fromkeys(found) if remark]


@dataclass(frozen=True)
class Item:
    """What the class's points say about an exercise.

    Attributes:
        name: the exercise.
        of: the most points to be had.
        difficulty: the mean share of the points, from 0, which nobody got,
            to 1, which everybody got; None if nothing is graded.
        discrimination: the correlation of the exercise's points with the
            rest of the points; None where it is undefined, as when all
            students got the same.
    """

    name: str
    of: float
    difficulty: float | None
    discrimination: float | None


@dataclass(frozen=True)
class Misconception:
    """A mistake that the grader knows by name, and who made it."""

    exercise: str
    name: str
    says: str
    students: tuple[str, ...]


@dataclass(frozen=True)
class Bar:
    """How many students have from ``low`` points up to the next bar's."""

    low: float
    count: int


@dataclass(frozen=True)
class Grades:
    """The points of a class in one chapter, and the most to be had."""

    chapter: Chapter
    max_points: dict[str, float]
    rows: list[Row]
    misconceptions: list[Misconception]

    @property
    def max_total(self) -> float:
        """Return the most points to be had in all exercises."""
        return sum(self.max_points.values())

    @cached_property
    def graded(self) -> list[Row]:
        """Return the rows that have points."""
        return [row for row in self.rows if row.points is not None]

    @cached_property
    def totals(self) -> list[float]:
        """Return each graded student's points."""
        return [row.total for row in self.graded]

    @property
    def mean(self) -> float:
        """Return the mean of the points."""
        return mean(self.totals)

    @property
    def median(self) -> float:
        """Return the points that half of the class has at least."""
        return median(self.totals)

    @cached_property
    def items(self) -> list[Item]:
        """Analyse the exercises, by those who could be graded."""
        rows = [row for row in self.graded if not row.problem]
        return [self._item(name, rows) for name in self.max_points]

    def _item(self, name: str, rows: list[Row]) -> Item:
        of = self.max_points[name]
        got = [row.points[name] for row in rows]
        rest = [sum(row.points.values()) - row.points[name] for row in rows]
        try:
            discrimination = correlation(got, rest)
        except StatisticsError:  # too few, or all the same
            discrimination = None
        difficulty = mean(got) / of if got and of else None
        return Item(name, of, difficulty, discrimination)

    @cached_property
    def distribution(self) -> list[Bar]:
        """Count the students by points; the last bar has full points too.

        The bars are 1, 2, 5, 10, ... points wide, so that there are few.
        """
        widths = (step * 10**n for n in count() for step in (1, 2, 5))
        width = next(w for w in widths if self.max_total / w <= MOST_BARS)
        last = int(self.max_total / width)
        found = Counter(min(int(total / width), last) for total in self.totals)
        return [Bar(n * width, found[n]) for n in range(last + 1)]


def grades(course: Course, chapters: list[Chapter]) -> list[Grades]:
    """Return the points of every chapter that somebody has handed in.

    Raises:
        CourseError: if nobody has handed in anything.
    """
    found = [chapter for chapter in chapters if course.students(chapter)]
    if not found:
        raise CourseError(
            f"nothing was handed in, in {course.root}/submitted; is this the "
            "course folder?"
        )
    with course.gradebook() as gradebook:
        course.update_late_penalties(gradebook)
        return [_grades(course, gradebook, chapter) for chapter in found]


def _grades(course: Course, gradebook: Gradebook, chapter: Chapter) -> Grades:
    exercise_of = {
        check.name: exercise.name
        for exercise in chapter.exercises
        for check in exercise.checks
    }
    max_points = {e.name: float(e.max_points) for e in chapter.exercises}
    points: dict[str, dict[str, float]] = {}
    for student, check, score in gradebook.db.execute(_scores(chapter)):
        if check not in exercise_of:
            raise CourseError(
                f"{chapter.path} has no check {check} any more, but there are "
                "grades for it; take the change back, or name another folder "
                "by --course DIR"
            )
        got = points.setdefault(student, dict.fromkeys(max_points, 0.0))
        got[exercise_of[check]] += score
    penalties = dict(gradebook.db.execute(_penalties(chapter)).all())
    results = {
        student: course.read_result(chapter, student)
        for student in course.students(chapter)
    }
    rows = [
        Row(
            student,
            points.get(student),
            note=result.get("note") or "",
            problem=result.get("problem") or "",
            flags=tuple(result.get("flags", ())),
            penalty=penalties.get(student, 0.0),
        )
        if result or student in points
        else Row(student, None, note="not graded yet")
        for student, result in results.items()
    ]
    return Grades(chapter, max_points, rows, _mistakes(chapter, results))


def _scores(chapter: Chapter) -> Select:
    """Ask for student, check and score of every grade in a chapter."""
    return (
        select(SubmittedAssignment.student_id, BaseCell.name, Grade.score)
        .select_from(Grade)
        .join(BaseCell, Grade.cell_id == BaseCell.id)
        .join(SubmittedNotebook, Grade.notebook_id == SubmittedNotebook.id)
        .join(SubmittedNotebook.assignment)
        .join(SubmittedAssignment.assignment)
        .where(Assignment.name == chapter.name)
    )


def _penalties(chapter: Chapter) -> Select:
    """Ask for student and late penalty of every submission that has one."""
    penalty = SubmittedAssignment.late_submission_penalty
    return (
        select(SubmittedAssignment.student_id, penalty)
        .join(SubmittedAssignment.assignment)
        .where(Assignment.name == chapter.name, penalty > 0)
    )


def _mistakes(
    chapter: Chapter, results: dict[str, dict]
) -> list[Misconception]:
    """Find the named mistakes in what was written down, frequent ones first.

    A diagnosis is the sentence of a mistake, or the sentences of two.
    """
    diagnoses = [
        (student, exercise["id"], exercise.get("diagnosis") or "")
        for student, result in results.items()
        for exercise in result.get("exercises", ())
    ]
    found = [
        Misconception(
            name,
            mistake.name,
            mistake.says,
            tuple(
                s
                for s, e, says in diagnoses
                if e == name and mistake.says in says
            ),
        )
        for name, mistakes in catalogue(chapter).MISTAKES.items()
        for mistake in mistakes
    ]
    made = [mistake for mistake in found if mistake.students]
    return sorted(made, key=lambda mistake: -len(mistake.students))


def write_page(grades: Grades, path: Path) -> None:
    """Write a page that needs nothing else, neither script nor network."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True
    )
    environment.filters["in_html"] = in_html
    page = environment.get_template("report.html.j2").render(
        grades=grades,
        chapter=grades.chapter,
        today=datetime.now().astimezone(),
        most=max((bar.count for bar in grades.distribution), default=0),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
