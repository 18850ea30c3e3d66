"""What an instructor may set for a course folder, in its ``course.toml``.

::

    database = "postgresql+psycopg://grader@db.example.org/course"

    [due]                       # with the offset from UTC
    attention = 2026-12-01T23:59:00+01:00

    [late]                      # shares of the points that were got
    per_day = 0.1
    at_most = 0.5

All of it may be left out, and so may the file.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from autograder.chapters import chapters
from autograder.errors import CourseError
from autograder.late import LatePolicy

FILE = "course.toml"
EXAMPLE_DATE = "2026-12-01T23:59:00+01:00"


@dataclass(frozen=True)
class Settings:
    """The settings of a course folder; the due dates in UTC, by chapter."""

    database: str | None = None
    due: dict[str, datetime] = field(default_factory=dict)
    late: LatePolicy = field(default_factory=LatePolicy)


def read_settings(folder: Path) -> Settings:
    """Read a course folder's settings.

    Raises:
        CourseError: if the file holds something that is none.
    """
    path = folder / FILE
    if not path.exists():
        return Settings()
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        _only(found, ["database", "due", "late"])
        return Settings(
            database=_database(found.get("database")),
            due=_due(_table(found, "due")),
            late=_late(_table(found, "late")),
        )
    except (OSError, ValueError) as error:
        raise CourseError(f"{path}: {error}") from error


def _only(found: Iterable[str], known: list[str], where: str = "") -> None:
    for name in found:
        if name not in known:
            raise ValueError(
                f"there is no setting {where}{name}; known are: "
                f"{', '.join(known)}"
            )


def _table(found: dict[str, Any], name: str) -> dict[str, Any]:
    table = found.get(name, {})
    if not isinstance(table, dict):
        raise ValueError(f"{name} must be a table; write [{name}] above it")
    return table


def _database(url: Any) -> str | None:
    if url is None:
        return None
    try:
        make_url(url).get_dialect().import_dbapi()
    except (SQLAlchemyError, ImportError) as error:
        raise ValueError(
            "database must be a URL such as "
            '"postgresql+psycopg://grader@localhost/course" whose driver is '
            f"installed ({str(error).partition(chr(10))[0]})"
        ) from error
    return url


def _due(table: dict[str, Any]) -> dict[str, datetime]:
    """Return the dates as nbgrader keeps them: in UTC, and without saying."""
    _only(table, [chapter.name for chapter in chapters()], "due.")
    due = {}
    for name, date in table.items():
        if not isinstance(date, datetime) or date.tzinfo is None:
            raise ValueError(
                f"due.{name} must be a date, a time and its offset from UTC, "
                f"without quotes, as in {EXAMPLE_DATE}"
            )
        due[name] = date.astimezone(UTC).replace(tzinfo=None)
    return due


def _late(table: dict[str, Any]) -> LatePolicy:
    _only(table, ["per_day", "at_most"], "late.")
    for name, share in table.items():
        is_number = isinstance(share, int | float) and share is not True
        if not is_number or not 0 <= share <= 1:
            raise ValueError(
                f"late.{name} must be a share of the points, from 0 to 1, "
                "as in 0.1"
            )
    if "at_most" in table and "per_day" not in table:
        raise ValueError("late.at_most says nothing without late.per_day")
    return LatePolicy(**table)
