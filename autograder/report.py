"""Collect the points of a class."""

from dataclasses import dataclass

from autograder.chapters import Chapter
from autograder.course import Course
from autograder.errors import CourseError


@dataclass(frozen=True)
class Row:
    """One student: points by exercise, or None where nothing is graded."""

    student: str
    points: dict[str, float] | None
    note: str

    @property
    def total(self) -> float:
        """Return the sum of all points."""
        return sum((self.points or {}).values())


@dataclass(frozen=True)
class Grades:
    """The points of a class in one chapter, and the most to be had."""

    chapter: Chapter
    max_points: dict[str, float]
    rows: list[Row]


def grades(course: Course, chapters: list[Chapter]) -> list[Grades]:
    """Return the points of every chapter that somebody has handed in.

    Raises:
        CourseError: if nobody has handed in anything.
    """
    found = [
        _grades(course, chapter)
        for chapter in chapters
        if course.students(chapter)
    ]
    if not found:
        raise CourseError(
            f"nothing was handed in, in {course.root}/submitted; is this the "
            "course folder?"
        )
    return found


def _grades(course: Course, chapter: Chapter) -> Grades:
    exercise_of = {
        check.name: exercise.name
        for exercise in chapter.exercises
        for check in exercise.checks
    }
    max_points = dict.fromkeys((e.name for e in chapter.exercises), 0.0)
    points: dict[str, dict[str, float]] = {}
    with course.gradebook() as gradebook:
        known = {a.name: a for a in gradebook.assignments}
        assignment = known.get(chapter.name)
        for released in assignment.notebooks if assignment else []:
            for cell in released.grade_cells:
                max_points[exercise_of[cell.name]] += cell.max_score
            for handed_in in released.submissions:
                got = dict.fromkeys(max_points, 0.0)
                for one in handed_in.grades:
                    got[exercise_of[one.name]] += one.score
                points[handed_in.student.id] = got
    rows = []
    for student in course.students(chapter):
        result = course.read_result(chapter, student)
        note = result["note"] if result else "not graded yet"
        rows.append(Row(student, points.get(student), note))
    return Grades(chapter, max_points, rows)
