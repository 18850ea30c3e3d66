"""Export the grades for other programs, through nbgrader's export plug-ins.

``python -m autograder export --format canvas`` is
``nbgrader export --exporter autograder.export.CanvasExporter``. Scores are
those after late penalties, a teacher's own included.
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from nbgrader.api import Assignment, Gradebook, Student, SubmittedAssignment
from nbgrader.plugins import ExportPlugin
from sqlalchemy import select
from sqlalchemy.orm import undefer

from autograder.chapters import Chapter
from autograder.course import Course
from autograder.errors import CourseError

Cell = str | float | None
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


class GradesExporter(ExportPlugin):
    """What all formats share; a format says which rows there are."""

    file = "grades.csv"

    def export(self, gradebook: Gradebook) -> None:
        """Write the file ``self.to``, or ``self.file``."""
        path = Path(self.to or self.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(
                [written(cell) for cell in row]
                for row in self.rows(
                    self.chosen_assignments(gradebook),
                    self.chosen_students(gradebook),
                )
            )

    def rows(
        self, assignments: list["Graded"], students: list[Student]
    ) -> Iterator[Iterable[Cell]]:
        """Yield the rows of the file, a header first."""
        raise NotImplementedError

    def chosen_assignments(self, gradebook: Gradebook) -> list["Graded"]:
        """Return the chapters that were asked for, as the book has them."""
        found = [
            assignment
            for assignment in gradebook.assignments
            if not self.assignment or assignment.name in self.assignment
        ]
        found.sort(key=lambda one: [book.name for book in one.notebooks])
        return [Graded(gradebook, assignment) for assignment in found]

    def chosen_students(self, gradebook: Gradebook) -> list[Student]:
        """Return the students that were asked for, in order of their names."""
        only = {str(student) for student in self.student}
        found = gradebook.students
        found.sort(key=lambda s: (s.last_name or "", s.first_name or "", s.id))
        return [one for one in found if not only or one.id in only]


class Graded:
    """A chapter, with what each student got."""

    def __init__(self, gradebook: Gradebook, assignment: Assignment) -> None:
        self.assignment = assignment
        query = (
            select(SubmittedAssignment)
            .where(SubmittedAssignment.assignment_id == assignment.id)
            .options(
                undefer(SubmittedAssignment.score),
                undefer(SubmittedAssignment.late_submission_penalty),
            )
        )
        found = gradebook.db.scalars(query)
        self.submissions = {one.student_id: one for one in found}

    @property
    def name(self) -> str:
        """Return the chapter's name."""
        return self.assignment.name

    def score(self, student: Student) -> float | None:
        """Return the points after penalties, or None without a submission."""
        one = self.submissions.get(student.id)
        if one is None:
            return None
        return round(max(0.0, one.score - one.late_submission_penalty), 2)


class CsvExporter(GradesExporter):
    """A row for each student and chapter; nbgrader's columns, quoted."""

    def rows(
        self, assignments: list[Graded], students: list[Student]
    ) -> Iterator[Iterable[Cell]]:
        """Yield what nbgrader's own exporter writes; no submission is 0."""
        yield (
            "assignment",
            "duedate",
            "timestamp",
            "student_id",
            "last_name",
            "first_name",
            "email",
            "raw_score",
            "late_submission_penalty",
            "score",
            "max_score",
        )
        for graded in assignments:
            for student in students:
                one = graded.submissions.get(student.id)
                yield (
                    graded.name,
                    _time(graded.assignment.duedate),
                    _time(one.timestamp if one else None),
                    student.id,
                    student.last_name,
                    student.first_name,
                    student.email,
                    one.score if one else 0.0,
                    one.late_submission_penalty if one else 0.0,
                    graded.score(student) or 0.0,
                    graded.assignment.max_score,
                )


class CanvasExporter(GradesExporter):
    """What Canvas's gradebook imports; no submission stays empty.

    Canvas finds a student by ``ID``, its own number, else by ``SIS Login
    ID``, and a column by the exact name of an assignment.
    """

    file = "grades-canvas.csv"

    def rows(
        self, assignments: list[Graded], students: list[Student]
    ) -> Iterator[Iterable[Cell]]:
        """Yield a column for each chapter, and first the points possible."""
        about = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
        yield (*about, *(graded.name for graded in assignments))
        possible = (graded.assignment.max_score for graded in assignments)
        yield ("    Points Possible", "", "", "", "", *possible)
        for student in students:
            number = student.lms_user_id or student.id
            names = filter(None, (student.last_name, student.first_name))
            yield (
                ", ".join(names) or student.id,
                number if number.isdecimal() else "",
                "",
                "" if student.id.isdecimal() else student.id,
                "",
                *(graded.score(student) for graded in assignments),
            )


class MoodleExporter(GradesExporter):
    """What Moodle's grade import reads; no submission is ``-``, no grade."""

    file = "grades-moodle.csv"

    def rows(
        self, assignments: list[Graded], students: list[Student]
    ) -> Iterator[Iterable[Cell]]:
        """Yield a column for each chapter; Moodle asks what is what."""
        about = ("First name", "Last name", "ID number", "Email address")
        yield (*about, *(graded.name for graded in assignments))
        for student in students:
            scores = (graded.score(student) for graded in assignments)
            yield (
                student.first_name,
                student.last_name,
                student.id,
                student.email,
                *("-" if score is None else score for score in scores),
            )


FORMATS: dict[str, type[GradesExporter]] = {
    "csv": CsvExporter,
    "canvas": CanvasExporter,
    "moodle": MoodleExporter,
}


def export(
    course: Course, chapters: list[Chapter], name: str, to: Path | None = None
) -> Path:
    """Write the grades of some chapters, in one of ``FORMATS``.

    Returns:
        The file; by default it stands in the course folder.

    Raises:
        CourseError: if none of the chapters is graded.
    """
    exporter = FORMATS[name]()
    path = to or course.root / exporter.file
    exporter.to = str(path)
    with course.gradebook() as gradebook:
        wanted = {chapter.name for chapter in chapters}
        exporter.assignment = [
            assignment.name
            for assignment in gradebook.assignments
            if assignment.name in wanted and assignment.submissions
        ]
        if not exporter.assignment:
            raise CourseError(
                f"nothing is graded in {course.root}; run 'python -m "
                "autograder grade', or name another folder by --course DIR"
            )
        course.update_late_penalties(gradebook)
        exporter.export(gradebook)
    return path


def written(cell: Cell) -> str:
    """Write a cell so that no spreadsheet takes it for a formula."""
    if cell is None:
        return ""
    if isinstance(cell, str):
        risky = cell != "-" and cell.startswith(FORMULA)
        return f"'{cell}" if risky else cell
    return f"{cell:.10g}"


def _time(time: object) -> str:
    return "" if time is None else str(time)
