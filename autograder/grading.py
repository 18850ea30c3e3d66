"""Grade what students handed in, and write down why points were lost.

This process reads what was handed in and writes the grades; it runs nothing
of it. What is judged elsewhere (``autograder.pool``) comes back as points and
sentences. All that is known of one submission is written in one go, its result
file last: a run that is ended at any time is continued by the next one.
"""

import json
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from nbformat import NotebookNode
from nbgrader.api import (
    Assignment,
    BaseCell,
    Comment,
    Grade,
    Gradebook,
    MissingEntry,
    SubmittedAssignment,
)
from sqlalchemy import select

from autograder import pool
from autograder.chapters import NOT_WRITTEN, Chapter
from autograder.course import TIMESTAMP, Course
from autograder.engine import FLOOR
from autograder.errors import CourseError
from autograder.execution.errors import printable
from autograder.intake import MOST_BYTES, find_notebook
from autograder.misconceptions import catalogue
from autograder.submissions import Cell, HandedIn, blank, read

LOCK = ".grading.lock"
EXCHANGE_MARKS = (TIMESTAMP, "submission_secret.txt")
MOST_MARK = 1_000  # bytes
PASSED = "Passed."
FAILED = "Failed"


@dataclass(frozen=True)
class Submission:
    """What one student handed in for one chapter."""

    course: Course
    chapter: Chapter
    student: str

    @property
    def folder(self) -> Path:
        """Return where the notebook should be."""
        return self.course.folder("submitted", self.chapter, self.student)

    @property
    def executed(self) -> Path:
        """Return where nbgrader looks for the graded notebook."""
        return self.course.notebook("autograded", self.chapter, self.student)

    def find(self) -> tuple[Path, list[str]]:
        """Return the notebook, and flags about where it was.

        Raises:
            CourseError: if there is none.
        """
        return find_notebook(self.folder, f"{self.chapter.stem}.ipynb")

    def fingerprint(self) -> str:
        """Identify what was handed in and what it is graded against."""
        found = sha256(pool.version(self.chapter).encode())
        paths = [
            self.course.notebook("source", self.chapter),
            self.folder / TIMESTAMP,
        ]
        try:
            paths.append(self.find()[0])
            for path in filter(Path.is_file, paths):
                size = path.stat().st_size
                found.update(f"{path.name} {size}".encode(errors="replace"))
                found.update(path.read_bytes() if size <= MOST_BYTES else b"")
        except (CourseError, OSError) as error:
            found.update(str(error).encode(errors="replace"))
        return found.hexdigest()

    def result(self) -> dict:
        """Return what was written down of it, or nothing."""
        return self.course.read_result(self.chapter, self.student)

    def is_graded(self) -> bool:
        """Say whether it was graded and nothing has changed since then."""
        graded = self.result().get("fingerprint")
        return (
            graded is not None
            and self.executed.is_file()
            and graded == self.fingerprint()
        )


@dataclass(frozen=True)
class Verdict:
    """How one submission fared, for the table at the end.

    Attributes:
        submission: whose it is.
        result: what was written down; nothing if it is not graded.
        failed: why it is not graded, which is no fault of the student.
    """

    submission: Submission
    result: dict = field(default_factory=dict)
    failed: str = ""


@dataclass
class Batch:
    """What a run of ``grade`` did."""

    total: int
    unchanged: int
    verdicts: list[Verdict] = field(default_factory=list)
    is_interrupted: bool = False

    @property
    def left(self) -> int:
        """Return how many are still to be graded."""
        failed = sum(bool(verdict.failed) for verdict in self.verdicts)
        return self.total - len(self.verdicts) + failed


@dataclass(frozen=True)
class _Taken:
    """A submission that is being judged."""

    submission: Submission
    fingerprint: str
    handed_in: HandedIn
    problem: str | None = None  # why nothing can be graded


def submissions(
    course: Course,
    chapters: list[Chapter],
    students: list[str] | None = None,
) -> list[Submission]:
    """Return what was handed in for the chapters, by all or by some.

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
    for student in students or []:
        if student not in {one.student for one in found}:
            raise CourseError(
                f"{student} has handed in nothing; there is no folder of one "
                f"of the chapters in {course.root}/submitted/{student}/"
            )
    for chapter in dict.fromkeys(submission.chapter for submission in found):
        if not course.notebook("source", chapter).is_file():
            raise CourseError(
                f"{chapter.name} was not released in {course.root}; run "
                f"'python -m autograder release {chapter.name}' first"
            )
    return [one for one in found if not students or one.student in students]


def grade(
    course: Course,
    chapters: list[Chapter],
    *,
    students: list[str] | None = None,
    exercise: str | None = None,
    workers: int = 1,
    cluster: str | None = None,
    only_new: bool = True,
    floor: str = FLOOR,
    on_wait: Callable[[Path], None] = lambda lock: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Batch:
    """Grade submissions, whatever they are.

    Args:
        course: the course folder.
        chapters: the chapters to grade.
        students: whose work; by default everybody's.
        exercise: grade this exercise alone, anew, where a submission was
            graded before.
        workers: how many to judge at a time on this machine.
        cluster: the address of a Dask scheduler, to judge there instead.
        only_new: leave what was graded and has not changed.
        floor: the least protection to run students' code with.
        on_wait: is told the lock file if another run has to end first.
        on_progress: is told how many are done, and of how many.

    Raises:
        CourseError: if it can't be done: nothing handed in, a chapter that
            was changed since its release, too little protection, ...
    """
    if exercise:
        chapters = _with_exercise(chapters, exercise)
    submissions(course, chapters, students)  # says now if there is nothing
    with _locked(course, on_wait), course.gradebook() as gradebook:
        found = submissions(course, chapters, students)
        for chapter in dict.fromkeys(one.chapter for one in found):
            _check_release(course, gradebook, chapter)
        course.set_due_dates(gradebook)
        gradebook.db.commit()
        known = _known(gradebook)
        todo = [
            one
            for one in found
            if exercise
            or not only_new
            or (one.chapter.name, one.student) not in known
            or not one.is_graded()
        ]
        batch = Batch(len(todo), len(found) - len(todo))
        on_progress(0, batch.total)
        if todo:
            try:
                with (
                    _ctrl_c_waits() as stop_here,
                    pool.judges(workers, cluster) as (executor, window),
                ):

                    def submit(chapter: Chapter, cells: list[Cell]) -> Future:
                        task = pool.task(chapter, cells, floor)
                        return executor.submit(pool.judge, task)

                    settle = partial(_settle, gradebook, exercise)
                    for verdict in _judged(
                        todo, submit, window, settle, stop_here
                    ):
                        batch.verdicts.append(verdict)
                        on_progress(len(batch.verdicts), batch.total)
            except KeyboardInterrupt:
                batch.is_interrupted = True
    return batch


def _with_exercise(chapters: list[Chapter], exercise: str) -> list[Chapter]:
    """Return the chapters that have an exercise of this name."""
    names = {c: [e.name for e in c.exercises] for c in chapters}
    found = [chapter for chapter in chapters if exercise in names[chapter]]
    if not found:
        known = ", ".join(name for of in names.values() for name in of)
        raise CourseError(
            f"there is no exercise {exercise!r}; the exercises are: {known}"
        )
    return found


@contextmanager
def _locked(course: Course, on_wait: Callable[[Path], None]) -> Iterator[None]:
    """Let one run at a time write grades; its end frees the lock."""
    path = course.root / LOCK
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait(path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _check_release(
    course: Course, gradebook: Gradebook, chapter: Chapter
) -> None:
    """Refuse a chapter whose checks are not those that were released."""
    try:
        released = gradebook.find_notebook(chapter.stem, chapter.name)
        before = {cell.name: cell.max_score for cell in released.grade_cells}
    except MissingEntry:  # the gradebook is a new one
        before = {}
    now = {
        check.name: check.points
        for exercise in chapter.exercises
        for check in exercise.checks
    }
    if before != now:
        names = sorted({name for name, _ in before.items() ^ now.items()})
        raise CourseError(
            f"{chapter.path} has other checks or points than were released "
            f"({', '.join(names)}); run 'python -m autograder release "
            f"{chapter.name} --course {course.root}' first"
        )


def _known(gradebook: Gradebook) -> set[tuple[str, str]]:
    """Return the chapter and the student of each submission with grades."""
    query = select(Assignment.name, SubmittedAssignment.student_id).join(
        SubmittedAssignment.assignment
    )
    return {tuple(row) for row in gradebook.db.execute(query)}


# -------------------------------------------------------------------- Judging
@contextmanager
def _ctrl_c_waits() -> Iterator[Callable[[], None]]:
    """Let Ctrl-C wait until a grade is written and counted; twice, not.

    Yields:
        What raises KeyboardInterrupt if there was one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # only the main thread hears of it
        return
    pressed = []

    def press(*_: object) -> None:
        pressed.append(True)
        signal.signal(signal.SIGINT, before)

    def stop_here() -> None:
        if pressed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, press)
    try:
        yield stop_here
    finally:
        signal.signal(signal.SIGINT, before)


def _judged(
    todo: list[Submission],
    submit: Callable[[Chapter, list[Cell]], Future],
    window: int,
    settle: Callable[[_Taken, dict | None], Verdict],
    stop_here: Callable[[], None],
) -> Iterator[Verdict]:
    """Judge submissions and settle each verdict, as they come in.

    Only a window of them is in flight: what was read takes memory. Between
    one and the next, ``stop_here`` may raise.
    """
    waiting = deque(todo)
    flying: dict[Future, _Taken] = {}
    while waiting or flying:
        stop_here()
        while waiting and len(flying) < window:
            submission = waiting.popleft()
            try:
                taken = _take(submission)
            except Exception as error:
                yield Verdict(submission, failed=_reason(error))
                continue
            if taken.problem:
                yield settle(taken, None)
                continue
            cells = taken.handed_in.cells
            flying[submit(submission.chapter, cells)] = taken
        done, _ = wait(flying, timeout=0.2, return_when=FIRST_COMPLETED)
        for future in done:
            stop_here()
            taken = flying.pop(future)
            try:
                judged = future.result()
            except CourseError as error:
                # It goes on if it is this one alone that can't be judged.
                submit(taken.submission.chapter, []).result()
                yield Verdict(taken.submission, failed=_reason(error))
            except ImportError as error:
                raise CourseError(
                    f"a worker can't load the course ({error}); install it "
                    "there, and start the worker anew"
                ) from error
            except Exception as error:  # a fault of ours, or of the cluster
                yield Verdict(taken.submission, failed=_reason(error))
            else:
                yield settle(taken, judged)


def _take(submission: Submission) -> _Taken:
    """Read what was handed in, or say why it can't be read."""
    fingerprint = submission.fingerprint()
    try:
        submission.student.encode()
    except UnicodeEncodeError:
        raise CourseError(
            "the name of the student's folder is not UTF-8; rename it"
        ) from None
    try:
        path, flags = submission.find()
        handed_in = read(submission.chapter, path)
    except CourseError as error:  # names the file as the student knows it
        problem = str(error).replace(f"{submission.folder}{os.sep}", "")
        nothing = HandedIn([], [], blank(submission.chapter))
        return _Taken(submission, fingerprint, nothing, problem)
    handed_in.flags[:0] = flags
    return _Taken(submission, fingerprint, handed_in)


def _reason(error: Exception) -> str:
    name = "" if isinstance(error, CourseError) else type(error).__name__
    return printable(f"{name}: {error}".lstrip(": ").partition("\n")[0])


# -------------------------------------------------------------------- Writing
def _settle(
    gradebook: Gradebook,
    exercise: str | None,
    taken: _Taken,
    judged: dict | None,
) -> Verdict:
    """Write down all that is known of one submission.

    The result comes last and says that the rest is there. So the old one goes
    first: whoever finds none grades anew.
    """
    submission = taken.submission
    try:
        result = _result(taken, judged, exercise)
        path = submission.course.result(submission.chapter, submission.student)
        path.unlink(missing_ok=True)
        notebook = with_verdicts(taken.handed_in.notebook, result["exercises"])
        text = json.dumps(notebook, ensure_ascii=False)  # valid as it is
        _replace(submission.executed, text)
        _copy_marks(submission)
        late = _write_points(gradebook, submission, result["exercises"])
        result["flags"] += [late] if late else []
        _replace(path, json.dumps(result, indent=2))
    except Exception as error:  # a full disk, a locked gradebook, a name, ...
        gradebook.db.rollback()
        return Verdict(submission, failed=_reason(error))
    return Verdict(submission, result)


def _result(taken: _Taken, judged: dict | None, exercise: str | None) -> dict:
    """Put together what is written down of a submission."""
    submission, problem = taken.submission, taken.problem
    chapter, fingerprint = submission.chapter, taken.fingerprint
    judged = judged or nothing(chapter, f"Not graded: {problem}.")
    exercises = [_clean(one) for one in judged["exercises"]]
    before = submission.result()
    if exercise and not (problem or before.get("problem", True)):
        new = {one["id"]: one for one in exercises}[exercise]
        exercises = [
            new if old["id"] == exercise else old
            for old in before["exercises"]
        ]
        # If anything else has changed, it is still to be graded.
        fingerprint = before["fingerprint"]
    return {
        "fingerprint": fingerprint,
        "problem": problem,
        "flags": [*taken.handed_in.flags, *map(_said, judged["notes"])],
        "note": "" if problem else note(chapter, exercises),
        "protection": judged["protection"],
        "seconds": judged["seconds"],
        "exercises": exercises,
    }


def nothing(chapter: Chapter, message: str) -> dict[str, Any]:
    """Return what a station would say of a submission that has nothing."""
    exercises = [
        {
            "id": exercise.name,
            "points": 0,
            "max_points": exercise.max_points,
            "passed": False,
            "checks": [
                check.result(passed=False, message=message)
                for check in exercise.checks
            ],
            "diagnosis": None,
        }
        for exercise in chapter.exercises
    ]
    return {
        "exercises": exercises,
        "notes": [],
        "protection": "",
        "seconds": 0.0,
    }


def _clean(exercise: dict) -> dict:
    """Return a verdict whose sentences fit into a file and a database."""
    checks = [c | {"message": _said(c["message"])} for c in exercise["checks"]]
    diagnosis = exercise["diagnosis"] and _said(exercise["diagnosis"])
    return exercise | {"checks": checks, "diagnosis": diagnosis}


def _said(text: str) -> str:
    return "\n".join(map(printable, text.splitlines()))


def comment(exercise: dict) -> str | None:
    """Say why an exercise lost points, if it did."""
    if exercise["passed"]:
        return None
    return exercise["diagnosis"] or "\n".join(
        dict.fromkeys(_messages(exercise))
    )


def note(chapter: Chapter, exercises: list[dict]) -> str:
    """Name in a few words what went wrong in each exercise."""
    parts, blanks = [], []
    for exercise in exercises:
        name, says = exercise["id"], exercise["diagnosis"]
        if exercise["passed"]:
            continue
        known = catalogue(chapter).MISTAKES.get(name, []) if says else []
        named = [m.name for m in known if m.says in says]
        messages = _messages(exercise)
        if named:
            parts.append(f"{name}: {' and '.join(named)}")
        elif all(m.endswith(NOT_WRITTEN) for m in messages):
            blanks.append(name)
        else:
            parts.append(f"{name}: {messages[0]}")
    if blanks:
        everything = len(blanks) == len(exercises)
        names = "everything" if everything else ", ".join(blanks)
        parts.append(f"not written: {names}")
    return "; ".join(parts)


def _messages(exercise: dict) -> list[str]:
    return [c["message"] for c in exercise["checks"] if not c["passed"]]


def with_verdicts(
    notebook: NotebookNode, exercises: list[dict]
) -> NotebookNode:
    """Write below each check how it ended, as if it had been run there."""
    checks = {c["name"]: c for one in exercises for c in one["checks"]}
    for cell in notebook.cells:
        check = checks.get(cell.metadata.get("nbgrader", {}).get("grade_id"))
        if check and check["passed"]:
            output = {"output_type": "stream", "name": "stdout"}
            cell.outputs = [NotebookNode(output, text=f"{PASSED}\n")]
        elif check:
            says = {"ename": FAILED, "evalue": check["message"]}
            trace = [f"{FAILED}: {check['message']}"]
            cell.outputs = [
                NotebookNode(says, output_type="error", traceback=trace)
            ]
    return notebook


def _replace(path: Path, text: str) -> None:
    """Write a file in one go: it is the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def _copy_marks(submission: Submission) -> None:
    """Copy what nbgrader's exchange asks for when feedback is released."""
    for name in EXCHANGE_MARKS:
        path = submission.folder / name
        if path.is_file() and path.stat().st_size <= MOST_MARK:
            text = path.read_bytes().decode("utf-8", "replace")
            _replace(submission.executed.with_name(name), text)


def _write_points(
    gradebook: Gradebook, submission: Submission, exercises: list[dict]
) -> str | None:
    """Write points, comments and what being late costs, all or nothing.

    A teacher's own score stays. It is marked for another look if the
    automatic score under it has changed.

    Returns:
        A flag, if it isn't known when it was handed in.
    """
    chapter, student = submission.chapter, submission.student
    gradebook.update_or_create_student(student)
    handed_in = gradebook.update_or_create_submission(chapter.name, student)
    notebook = next(n for n in handed_in.notebooks if n.name == chapter.stem)
    points = {
        c["name"]: float(c["points"])
        for one in exercises
        for c in one["checks"]
    }
    for grade, name in gradebook.db.execute(
        select(Grade, BaseCell.name)
        .join(BaseCell, Grade.cell_id == BaseCell.id)
        .where(Grade.notebook_id == notebook.id, BaseCell.name.in_(points))
    ):
        if grade.manual_score is None:
            grade.needs_manual_grade = False
        elif grade.auto_score != points[name]:
            grade.needs_manual_grade = True
        grade.auto_score = points[name]
    comments = {one["id"]: comment(one) for one in exercises}
    for row, name in gradebook.db.execute(
        select(Comment, BaseCell.name)
        .join(BaseCell, Comment.cell_id == BaseCell.id)
        .where(Comment.notebook_id == notebook.id, BaseCell.name.in_(comments))
    ):
        row.auto_comment = comments[name]
    late = submission.course.set_late_penalty(gradebook, handed_in)
    gradebook.db.commit()
    return late
