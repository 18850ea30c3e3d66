"""Let the plain ``nbgrader`` commands work from this folder, on ``course/``.

Another course folder: ``nbgrader … --course-dir FOLDER``. It brings its own
settings and its own gradebook.
"""

import sys
from argparse import ArgumentParser
from pathlib import Path

from autograder.course import Course, configure
from autograder.errors import CourseError

parser = ArgumentParser(add_help=False, allow_abbrev=False)
parser.add_argument(
    "--course-dir", "--CourseDirectory.root", type=Path, default=Course().root
)
folder = parser.parse_known_args()[0].course_dir
try:
    configure(get_config(), folder)  # noqa: F821 — nbgrader defines it
except CourseError as error:  # nbgrader would go on without its settings
    sys.exit(f"error: {error}")
