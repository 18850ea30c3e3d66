"""Exceptions that cross from one process to the other."""

import builtins
import traceback
from typing import Any

SUBMISSION = "<submission"  # how the file names of a student's code begin
MOST_TEXT = 1_000  # characters


class RemoteError(Exception):
    """What all exceptions from the other side are.

    Attributes:
        text: what it says.
        line: the line of the student's own code that it comes from, if any.
    """

    text = ""
    line: str | None = None

    def __str__(self) -> str:
        return self.text


def describe(error: BaseException) -> dict[str, Any]:
    """Put an exception into JSON."""
    try:
        text = str(error)
    except Exception:  # its own __str__ may be what fails
        text = ""
    return {
        "type": type(error).__name__,
        "bases": [base.__name__ for base in type(error).__mro__],
        "text": text[:MOST_TEXT],
        "line": own_line(error),
    }


def own_line(error: BaseException) -> str | None:
    """Return the innermost line of the student's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith(SUBMISSION)]
    return own[-1].line.strip()[:MOST_TEXT] if own and own[-1].line else None


def rebuild(description: dict[str, Any]) -> RemoteError:
    """Return an exception of the same name that the same clauses catch."""
    name = printable(description.get("type"), "Exception")
    name = name if name.isidentifier() else "Exception"
    text = printable(description.get("text"))
    for base in [*known_bases(description), Exception]:
        try:
            error = type(name, (RemoteError, base), {})(text)
            break
        except TypeError:  # it wants other arguments: take what it is based on
            continue
    error.text = text
    error.line = printable(description.get("line")) or None
    return error


def known_bases(description: dict[str, Any]) -> list[type[Exception]]:
    """Return the exceptions of Python's own that one is derived from."""
    found = [vars(builtins).get(str(n)) for n in description.get("bases", [])]
    return [
        kind
        for kind in found
        if isinstance(kind, type) and issubclass(kind, Exception)
    ]


def printable(text: Any, default: str = "") -> str:
    """Return a text that does nothing to a terminal or a page."""
    if not isinstance(text, str) or not text:
        return default
    cleaned = "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
    return cleaned[:MOST_TEXT]
