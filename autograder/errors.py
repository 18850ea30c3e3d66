"""The one error that a user of the machinery should ever see."""


class CourseError(Exception):
    """Something a person can mend; the message says where, what and how."""
