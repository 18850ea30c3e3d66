"""Let the plain ``nbgrader`` commands work from this folder, on ``course/``.

Another course folder: ``nbgrader … --course-dir FOLDER``.
"""

from autograder.course import Course, configure

configure(get_config(), Course().root)  # noqa: F821 — nbgrader defines it
