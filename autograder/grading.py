"""Grade what students handed in, and write down why points were lost.

nbgrader executes a notebook and counts the points: ``score`` is the seam at
which another engine can take its place. Then ``engine.judge`` finds out what
is wrong with each exercise, and its words become nbgrader's comments.
"""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.api import SubmittedNotebook
from nbgrader.converters import Autograde

from autograder.chapters import Chapter
from autograder.course import Course, last_error
from autograder.engine import judge
from autograder.errors import CourseError
from autograder.misconceptions import catalogue

# What nbgrader's log says when it gives up, and what that means.
FAILURES = {
    "DeadKernelError": (
        "the code ended the kernel that it ran in (by os._exit, say, or for "
        "want of memory)"
    ),
    "UnresponsiveKernelError": "a cell ran on and could not be interrupted",
    "Timeout waiting for IOPub": "a cell printed more than could be read",
    "ValidationError|KeyError": (
        "nbgrader's marks in its cells are damaged, as by copying a cell; "
        "the answers belong into a fresh copy of the notebook"
    ),
}
NOT_WRITTEN = "is not written yet."


@dataclass(frozen=True)
class Submission:
    """What one student handed in for one chapter."""

    course: Course
    chapter: Chapter
    student: str

    @property
    def path(self) -> Path:
        """Return where the notebook should be."""
        return self.course.notebook("submitted", self.chapter, self.student)

    @property
    def executed(self) -> Path:
        """Return where nbgrader puts the executed notebook."""
        return self.course.notebook("autograded", self.chapter, self.student)

    def fingerprint(self) -> str:
        """Identify what was handed in and what it is graded against."""
        found = hashlib.sha256()
        source = self.course.notebook("source", self.chapter)
        for path in (source, self.path):
            if path.is_file():
                found.update(path.read_bytes())
        return found.hexdigest()

    def is_graded(self) -> bool:
        """Say whether it was graded and nothing has changed since then."""
        result = self.course.read_result(self.chapter, self.student)
        if result.get("fingerprint") != self.fingerprint():
            return False
        return self.executed.is_file()


def submissions(course: Course, chapters: list[Chapter]) -> list[Submission]:
    """Return all that was handed in for the chapters.

    Raises:
        CourseError: if there is nothing, or if a chapter was not released.
    """
    found = [
        Submission(course, chapter, student)
        for chapter in chapters
        for student in course.students(chapter)
    ]
    if not found:
        name = chapters[0].name if len(chapters) == 1 else "CHAPTER"
        raise CourseError(
            "nothing was handed in; put each student's notebook into "
            f"{course.root}/submitted/STUDENT/{name}/"
        )
    for chapter in dict.fromkeys(submission.chapter for submission in found):
        if not course.notebook("source", chapter).is_file():
            raise CourseError(
                f"{chapter.name} was not released in {course.root}; run "
                f"'python -m autograder release {chapter.name}' first"
            )
    return found


def grade(submission: Submission) -> dict:
    """Grade one submission, whatever it is, and write the result last.

    Returns:
        What is written down: a ``fingerprint``, the ``problem`` if the
        notebook could not be executed, and a ``note`` of what went wrong.
    """
    problem = unreadable(submission.path) or score(submission)
    if problem:
        _keep_readable(submission)
    short = _settle(submission, failed=bool(problem))
    judged = _judge(submission) if short else []
    comments = explain(judged, short, problem)
    _comment(submission, comments)
    result = {
        "fingerprint": submission.fingerprint(),
        "problem": problem,
        "note": problem or note(submission.chapter, judged, short),
    }
    path = submission.course.result(submission.chapter, submission.student)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_text(json.dumps(result, indent=2), encoding="utf-8")
    new.replace(path)
    return result


def unreadable(path: Path) -> str | None:
    """Say why what was handed in can't be executed at all, if it can't."""
    if not path.is_file():
        folder = path.parent
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        return f"{path.name} is missing" + (
            f"; found {', '.join(sorted(names))}" if names else ""
        )
    try:
        nbformat.read(path, as_version=4)
    except Exception as error:
        reason = str(error).partition("\n")[0][:80]
        return f"{path.name} is not a notebook that can be read ({reason})"
    return None


def score(submission: Submission) -> str | None:
    """Execute one submission and write its points into the gradebook.

    Returns:
        None if it was executed, else why it could not be.
    """
    try:
        log = submission.course.convert(
            Autograde, submission.chapter, submission.student
        )
    except Exception as error:  # whatever it is, it costs this one alone
        log = f"{type(error).__name__}: {error}"
    os.environ.pop("NBGRADER_EXECUTION", None)  # left there by an exception
    if log is None:
        return None
    for pattern, meaning in FAILURES.items():
        if re.search(pattern, log):
            return meaning
    return f"nbgrader gave up: {last_error(log)}"


def explain(
    judged: list[dict], short: set[str], problem: str | None
) -> dict[str, str]:
    """Say for each exercise that lost points, why it did.

    Args:
        judged: the exercises as ``engine.judge`` found them.
        short: the exercises that fall short in the gradebook.
        problem: why the notebook as a whole could not be executed.
    """
    comments = dict.fromkeys(short, f"Not graded: {problem}.")
    failed: list[str] = []
    for exercise in judged:
        name = exercise["id"]
        if exercise["passed"]:
            comments[name] = f"`{name}` is right by itself, but " + (
                "the notebook as a whole could not be executed."
                if problem
                else _elsewhere(failed)
            )
        else:
            failed.append(name)
            comments[name] = exercise["diagnosis"] or "\n".join(
                dict.fromkeys(_messages(exercise))
            )
    return {name: text for name, text in comments.items() if name in short}


def note(chapter: Chapter, judged: list[dict], short: set[str]) -> str:
    """Name in a few words what went wrong in each exercise."""
    parts, blank = [], []
    for exercise in judged:
        name = exercise["id"]
        if name not in short:
            continue
        known = catalogue(chapter).MISTAKES.get(name, [])
        says = exercise["diagnosis"] or ""
        named = [m.name for m in known if m.says in says]
        messages = list(_messages(exercise))
        if named:
            parts.append(f"{name}: {' and '.join(named)}")
        elif all(m.endswith(NOT_WRITTEN) for m in messages) and messages:
            blank.append(name)
        elif messages:
            parts.append(f"{name}: {messages[0]}")
    if blank:
        everything = len(blank) == len(chapter.exercises)
        names = "everything" if everything else ", ".join(blank)
        parts.append(f"not written: {names}")
    if short and not parts:
        parts.append(f"right only by itself: {', '.join(sorted(short))}")
    return "; ".join(parts)


def _elsewhere(failed: list[str]) -> str:
    """Say why an exercise that is right loses points in its notebook."""
    if failed:
        names = " and ".join(f"`{name}`" for name in failed)
        return f"here it runs with your own {names}: mend what is wrong there."
    return (
        "its checks fail in your notebook as a whole: choose Kernel → "
        "Restart Kernel and Run All Cells, and see which cell fails."
    )


def _messages(exercise: dict) -> list[str]:
    return [c["message"] for c in exercise["checks"] if not c["passed"]]


def _judge(submission: Submission) -> list[dict]:
    """Return the exercises as the engine judges each by itself."""
    try:
        return judge(submission.chapter, submission.path)["exercises"]
    except Exception:  # unreadable: its problem is known already
        return []


def _settle(submission: Submission, *, failed: bool) -> set[str]:
    """Write 0 where nothing was scored, and all over if grading failed.

    Returns:
        The exercises that fall short of their points.
    """
    with submission.course.gradebook() as gradebook:
        names = submission.chapter.name, submission.student
        gradebook.update_or_create_student(submission.student)
        gradebook.update_or_create_submission(*names)
        notebook = gradebook.find_submission_notebook(
            submission.chapter.stem, *names
        )
        for one in notebook.grades:
            if failed or one.auto_score is None:
                one.auto_score = 0
                one.needs_manual_grade = one.manual_score is not None
        gradebook.db.commit()
        lost = {g.name for g in notebook.grades if g.score < g.max_score}
    return {
        exercise.name
        for exercise in submission.chapter.exercises
        if lost & {check.name for check in exercise.checks}
    }


def _comment(submission: Submission, comments: dict[str, str]) -> None:
    """Write the gradebook's automatic comments; a teacher's own stay."""
    with submission.course.gradebook() as gradebook:
        notebook: SubmittedNotebook = gradebook.find_submission_notebook(
            submission.chapter.stem,
            submission.chapter.name,
            submission.student,
        )
        for comment in notebook.comments:
            comment.auto_comment = comments.get(comment.name)
        gradebook.db.commit()


def _keep_readable(submission: Submission) -> None:
    """Put what can be read of a notebook where the feedback is made from.

    nbgrader keeps nothing of a notebook that it could not execute. The cells
    come without marks and outputs, which may be what is wrong with them.
    """
    cells = []
    if not unreadable(submission.path):
        read = nbformat.read(submission.path, as_version=4)
        kinds = {"code": new_code_cell, "markdown": new_markdown_cell}
        cells = [
            kinds[cell.cell_type](cell.source, id=f"cell-{number}")
            for number, cell in enumerate(read.cells)
            if cell.cell_type in kinds
        ]
    submission.executed.parent.mkdir(parents=True, exist_ok=True)
    submission.executed.unlink(missing_ok=True)
    nbformat.write(new_notebook(cells=cells), submission.executed)
