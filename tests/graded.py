"""Make up grades, as they stand in a course folder after grading."""

import json

from autograder.chapters import Chapter
from autograder.course import Course


def put_grades(
    course: Course,
    chapter: Chapter,
    student: str,
    solved: tuple[str, ...] = (),
    *,
    diagnoses: dict[str, str] | None = None,
    problem: str | None = None,
    flags: tuple[str, ...] = (),
    **known: str,
) -> None:
    """Give somebody full points for some exercises and 0 for the others.

    Args:
        course: the course, released.
        chapter: what was handed in.
        student: whose it is.
        solved: the exercises with full points.
        diagnoses: what was found out about others, by exercise.
        problem: why nothing could be graded.
        flags: what was mended.
        known: the student's names and email, for the gradebook.
    """
    folder = course.folder("submitted", chapter, student)
    folder.mkdir(parents=True, exist_ok=True)
    comments = diagnoses or {}
    with course.gradebook() as gradebook:
        gradebook.update_or_create_student(student, **known)
        gradebook.update_or_create_submission(chapter.name, student)
        notebook = gradebook.find_submission_notebook(
            chapter.stem, chapter.name, student
        )
        full = {
            check.name
            for exercise in chapter.exercises
            for check in exercise.checks
            if exercise.name in solved
        }
        for grade in notebook.grades:
            grade.auto_score = grade.max_score if grade.name in full else 0
            grade.needs_manual_grade = False
        for comment in notebook.comments:
            comment.auto_comment = comments.get(comment.name)
        gradebook.db.commit()
    path = course.result(chapter, student)
    path.parent.mkdir(parents=True, exist_ok=True)
    exercises = [
        {"id": e.name, "diagnosis": comments.get(e.name)}
        for e in chapter.exercises
    ]
    result = {
        "problem": problem,
        "flags": list(flags),
        "note": "",
        "exercises": exercises,
    }
    path.write_text(json.dumps(result), encoding="utf-8")
