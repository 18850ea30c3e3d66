"""The course folder, laid out and configured as nbgrader wants it.

::

    source/attention/02-attention.ipynb             answers and hidden checks
    release/attention/02-attention.ipynb            what students get
    submitted/ada/attention/02-attention.ipynb      what they hand in
    autograded/ada/attention/02-attention.ipynb     … after it was run
    feedback/ada/attention/02-attention.html        what they get back
    results/ada/attention.json                      how it went (ours)
    gradebook.db                                    all points and comments
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
from logging import Handler, Logger, LogRecord
from pathlib import Path

from nbgrader.api import Gradebook
from nbgrader.converters.base import BaseConverter, NbGraderException
from nbgrader.coursedir import CourseDirectory
from traitlets.config import Config

from autograder.chapters import ROOT, STUB, Chapter

CELL_TIMEOUT = 15  # seconds that one cell of a submission may run
MOST_LINES = 200  # lines of output that are kept of one cell
ERROR = re.compile(r"[\w.]+(Error|Exception|Entry)\b")
KERNEL_ARGUMENTS = ["--HistoryManager.enabled=False", "--log-level=ERROR"]


def configure(config: Config, root: Path) -> Config:
    """Write nbgrader's configuration of the course folder ``root``."""
    _find_alembic()
    config.CourseDirectory.root = str(root)
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
        found = self.root.glob(f"submitted/*/{chapter.name}")
        return sorted(path.parent.name for path in found)

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

    @contextmanager
    def gradebook(self) -> Iterator[Gradebook]:
        """Open the gradebook, ours and nbgrader's."""
        _find_alembic()
        self.root.mkdir(parents=True, exist_ok=True)
        with Gradebook(self._directory(Config()).db_url) as gradebook:
            yield gradebook

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
