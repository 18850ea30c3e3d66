"""The course folder, laid out and configured as nbgrader wants it.

::

    source/attention/02-attention.ipynb             answers and hidden checks
    release/attention/02-attention.ipynb            what students get
    submitted/ada/attention/02-attention.ipynb      what they hand in
    autograded/ada/attention/02-attention.ipynb     … after it was run
    feedback/ada/attention/02-attention.html        what they get back
    results/ada/attention.json                      how it went (ours)
    gradebook.db                                    all points and comments
    course.toml                                     settings, if there are any
    student-bundle/, student-bundle.zip             all that a student needs

nbgrader's *assignment* is our chapter's name. ``nbgrader_config.py`` and our
own commands take the same configuration from here, so that either may do any
of the steps.
"""

import glob
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from logging import Handler, Logger, LogRecord
from pathlib import Path

from nbgrader.api import Assignment, Gradebook, SubmittedAssignment
from nbgrader.converters.base import BaseConverter, NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.utils import parse_utc
from sqlalchemy import make_url, select
from sqlalchemy.exc import OperationalError
from traitlets.config import Config

from autograder.chapters import ROOT, STUB, Chapter
from autograder.errors import CourseError
from autograder.settings import FILE, Settings, read_settings

COURSE_ID = "context-windows"  # in the gradebook and in nbgrader's exchange

CELL_TIMEOUT = 60  # seconds that one cell of a submission may run
MOST_LINES = 200  # lines of output that are kept of one cell
ERROR = re.compile(r"[\w.]+(Error|Exception|Entry)\b")
TIMESTAMP = "timestamp.txt"  # nbgrader's, beside a notebook handed in
KERNEL_ARGUMENTS = ["--HistoryManager.enabled=False", "--log-level=ERROR"]


def configure(config: Config, root: Path) -> Config:
    """Write nbgrader's configuration of the course folder ``root``."""
    _find_alembic()
    settings = read_settings(root)
    config.CourseDirectory.root = str(root)
    config.CourseDirectory.course_id = COURSE_ID
    config.CourseDirectory.db_url = database_url(root, settings)
    config.AssignLatePenalties.plugin_class = "autograder.late.LatePenalty"
    config.LatePenalty.per_day = settings.late.per_day
    config.LatePenalty.at_most = settings.late.at_most
    config.ZipCollectApp.collector_plugin = "autograder.collect.Collector"
    config.ExportApp.plugin_class = "autograder.export.CsvExporter"
    config.ClearSolutions.code_stub = {"python": STUB}
    config.OverwriteCells.add_missing_cells = True
    config.Execute.timeout = CELL_TIMEOUT
    config.Execute.extra_arguments = KERNEL_ARGUMENTS
    config.Execute.shutdown_kernel = "immediate"  # saves a second
    config.LimitOutput.max_lines = MOST_LINES
    config.GenerateFeedback.exporter_class = "autograder.feedback.FeedbackPage"
    config.GenerateFeedback.preprocessors = [
        "nbgrader.preprocessors.GetGrades",
        "autograder.feedback.HideChecks",
    ]
    return config


def database_url(root: Path, settings: Settings) -> str:
    """Return where the points are: a file in the folder, if nowhere else."""
    return settings.database or f"sqlite:///{root.resolve() / 'gradebook.db'}"


def _find_alembic() -> None:
    """Put this Python's programs first: nbgrader calls ``alembic`` by name."""
    programs = str(Path(sys.executable).parent)
    others = os.environ.get("PATH", "").split(os.pathsep)
    if others[0] != programs:
        os.environ["PATH"] = os.pathsep.join([programs, *others])


@dataclass(frozen=True)
class Course:
    """A course folder."""

    root: Path = ROOT / "course"

    def folder(self, step: str, chapter: Chapter, student: str = ".") -> Path:
        """Return the folder of a chapter in one step, ``source`` or other."""
        return self.root / step / student / chapter.name

    def notebook(
        self, step: str, chapter: Chapter, student: str = "."
    ) -> Path:
        """Return the chapter's notebook in one step."""
        return self.folder(step, chapter, student) / f"{chapter.stem}.ipynb"

    def page(self, chapter: Chapter, student: str) -> Path:
        """Return the student's feedback page."""
        folder = self.folder("feedback", chapter, student)
        return folder / f"{chapter.stem}.html"

    def students(self, chapter: Chapter) -> list[str]:
        """Return who has handed in the chapter, in the order of names."""
        found = self.root.glob("submitted/*")
        return sorted(
            path.name
            for path in found
            if os.path.lexists(path / chapter.name)  # a broken link, too
        )

    def result(self, chapter: Chapter, student: str) -> Path:
        """Return the file that says how a submission was graded."""
        return self.root / "results" / student / f"{chapter.name}.json"

    def read_result(self, chapter: Chapter, student: str) -> dict:
        """Return what ``grade`` wrote down, or nothing."""
        try:
            text = self.result(chapter, student).read_text(encoding="utf-8")
            return json.loads(text)
        except (OSError, ValueError):
            return {}

    @cached_property
    def settings(self) -> Settings:
        """Return what ``course.toml`` says."""
        return read_settings(self.root)

    @property
    def database(self) -> str:
        """Return the URL of the gradebook."""
        return database_url(self.root, self.settings)

    def has_gradebook(self) -> bool:
        """Say whether there may be a gradebook: a server's is made at once."""
        url = make_url(self.database)
        file = url.database if url.get_backend_name() == "sqlite" else None
        return file is None or Path(file).exists()

    @contextmanager
    def gradebook(self) -> Iterator[Gradebook]:
        """Open the gradebook, ours and nbgrader's.

        Raises:
            CourseError: if the database can't be reached.
        """
        _find_alembic()
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            opened = Gradebook(self.database, COURSE_ID)
        except OperationalError as error:
            reason = str(error.orig).partition("\n")[0]
            raise CourseError(
                f"{self.root / FILE}: the database can't be opened ({reason})"
                "; is it running, and is the address right?"
            ) from error
        with opened as gradebook:
            yield gradebook

    def set_due_dates(self, gradebook: Gradebook) -> None:
        """Write the due dates of ``course.toml``; the caller commits.

        A date that stands in the gradebook alone, set with nbgrader's
        formgrader, stays.
        """
        for assignment in gradebook.assignments:
            if assignment.name in self.settings.due:
                assignment.duedate = self.settings.due[assignment.name]

    def set_late_penalty(
        self, gradebook: Gradebook, submission: SubmittedAssignment
    ) -> str | None:
        """Write when it was handed in and what that costs, as nbgrader does.

        For a grader of its own: to be called once the scores are written, in
        their transaction; the caller commits. The time is that of nbgrader's
        ``timestamp.txt``, in UTC; without one there is no penalty.

        Returns:
            None, or a sentence if the time can't be read: a flag.
        """
        problem = None
        folder = self.root / "submitted" / submission.student.id
        path = folder / submission.assignment.name / TIMESTAMP
        if path.is_file():
            try:
                with path.open(encoding="utf-8") as file:
                    submission.timestamp = parse_utc(file.read(100).strip())
            except Exception:  # dateutil has many ways to fail
                problem = (
                    f"{TIMESTAMP} holds no time that can be read, so that "
                    "nothing is taken off for being late"
                )
        gradebook.db.flush()
        self._penalize(gradebook, submission)
        return problem

    def update_late_penalties(self, gradebook: Gradebook) -> None:
        """Write what being late costs by now, and commit.

        Since grading, a due date, an extension or a score may have changed.
        """
        self.set_due_dates(gradebook)
        gradebook.db.flush()
        query = (
            select(SubmittedAssignment)
            .join(SubmittedAssignment.assignment)
            .where(
                (SubmittedAssignment.timestamp > Assignment.duedate)
                | (SubmittedAssignment.late_submission_penalty > 0)
            )
        )
        for submission in gradebook.db.scalars(query).all():
            self._penalize(gradebook, submission)
        gradebook.db.commit()

    def _penalize(
        self, gradebook: Gradebook, submission: SubmittedAssignment
    ) -> None:
        for notebook in submission.notebooks:
            gradebook.db.refresh(notebook, ["score"])  # it is a query
            notebook.late_submission_penalty = self.settings.late.penalty(
                notebook.score, submission.total_seconds_late
            )

    def convert(
        self,
        converter: type[BaseConverter],
        chapter: Chapter,
        student: str = "*",
        **directory: str,
    ) -> str | None:
        """Run one of nbgrader's converters; what is there is made anew.

        Args:
            converter: ``Autograde`` or another.
            chapter: the chapter to convert.
            student: whose work; by default everybody's.
            directory: traits of nbgrader's ``CourseDirectory`` to set.

        Returns:
            None if all went well, else nbgrader's log.
        """
        config = configure(Config(), self.root)
        config.CourseDirectory.update(
            assignment_id=chapter.name,
            student_id=student if student == "*" else glob.escape(student),
            **directory,
        )
        log = _Log()
        try:
            converter(
                coursedir=self._directory(config, log=log.logger),
                config=config,
                force=True,
                log=log.logger,
            ).start()
        except NbGraderException:
            return log.text()
        return None

    def _directory(self, config: Config, **logger: Logger) -> CourseDirectory:
        return CourseDirectory(config=configure(config, self.root), **logger)


def last_error(log: str) -> str:
    """Return the last exception in nbgrader's log, as one line."""
    lines = [line for line in log.splitlines() if ERROR.match(line)]
    return (lines or [log.strip().rpartition("\n")[2]])[-1]


class _Log(Handler):
    """Keep what nbgrader says; a terminal has better uses."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.logger = Logger("nbgrader")
        self.logger.addHandler(self)

    def emit(self, record: LogRecord) -> None:
        self.lines.append(record.getMessage())

    def text(self) -> str:
        return "\n".join(self.lines)
