"""Know whose notebook is which, in what Moodle and Canvas let you download.

``nbgrader zip_collect`` unpacks the archive and asks this plug-in about each
file. See the Instructor's guide.
"""

import re
from typing import Any

from nbgrader.plugins import FileNameCollectorPlugin

# Moodle: Ada Lovelace_12345_assignsubmission_file/02-attention.ipynb; older
# versions write file_/, or no folders at all. The number is another one in
# each assignment, so that the name has to do.
MOODLE = (
    r".*?(?P<student_id>[^/_]+)_(?P<number>\d+)_assignsubmission_file[_/]+"
    r"(?:.*/)?(?P<file_id>[^/]+?)\.ipynb$"
)
# Canvas: lovelaceada_LATE_340934_208490284_02-attention-1.ipynb, where the
# first number is the student's own and "-1" says that it is a second attempt.
CANVAS = (
    r"(?:.*/)?[^/_]+(?:_LATE)?_(?P<student_id>(?P<number>\d+))_\d+_"
    r"(?P<file_id>[^/]+?)(?:-\d+)?\.ipynb$"
)


class Collector(FileNameCollectorPlugin):
    """Moodle's and Canvas's names, unless ``named_regexp`` says another."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number_of: dict[str, str] = {}

    def _match(self, filename: str) -> dict[str, str] | None:
        if self.named_regexp:
            return super()._match(filename)
        for pattern in (MOODLE, CANVAS):
            if found := re.match(pattern, filename.replace("\\", "/")):
                self._check_is_one_person(found["student_id"], found["number"])
                return found.groupdict()
        self.log.warning("Neither Moodle's nor Canvas's: %s", filename)
        return None

    def _check_is_one_person(self, student: str, number: str) -> None:
        if self.number_of.setdefault(student, number) != number:
            self.parent.fail(
                f"Two students are called {student!r}; take both out of the "
                "archive and put them under 'submitted' by hand"
            )
