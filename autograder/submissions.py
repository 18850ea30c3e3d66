"""Read what a student handed in, and run what it defines."""

import __future__

import ast
import linecache
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import nbformat

from autograder.chapters import Chapter
from autograder.errors import CourseError

FUTURE = reduce(
    or_,
    (
        getattr(__future__, n).compiler_flag
        for n in __future__.all_feature_names
    ),
)
PIECE_TIMEOUT = 10  # seconds for one statement outside the checks
SUBMISSION = "<submission"  # how the file names of a student's code begin
# A line that starts a new statement: not indented, not a closing bracket.
STARTS = re.compile(r"[^\s#)\]}]")
CONTINUES = re.compile(r"(else|elif|except|finally)\b")
DEFINES = re.compile(r"(?:async\s+def|def|class)\s+(\w+)")


@dataclass
class Answers:
    """The names that a submission defines, and why others are missing."""

    namespace: dict[str, Any]
    errors: dict[str, str] = field(default_factory=dict)

    def missing(self, name: str) -> str:
        """Say why the submission defines no ``name``."""
        return self.errors.get(
            name, f"{name} is not defined in what was handed in."
        )


@dataclass(frozen=True)
class Piece:
    """A piece of source that runs or fails on its own."""

    label: str
    source: str

    @property
    def filename(self) -> str:
        """Return the name that stands for a file in tracebacks."""
        return f"{SUBMISSION} {self.label}>"


def read(chapter: Chapter, path: Path) -> list[Piece]:
    """Return the pieces of a notebook or a module, in order.

    Of a notebook's released cells only the definitions run: neither the
    checks, which the grader has itself, nor the experiments.
    """
    if not path.is_file():
        raise CourseError(f"{path} is missing; name a notebook or a module")
    if path.suffix == ".py":
        return list(_statements(path.name, _text(path)))
    if path.suffix == ".ipynb":
        return list(_cells(chapter, path))
    raise CourseError(
        f"{path} is neither a notebook (.ipynb) nor a module (.py)"
    )


def run(pieces: list[Piece], namespace: dict[str, Any]) -> Answers:
    """Execute each piece; one that fails doesn't stop the others."""
    answers = Answers(namespace)
    flags = 0  # of the __future__, which one piece sets for those below
    for piece in pieces:
        lines = piece.source.splitlines(keepends=True)
        linecache.cache[piece.filename] = (1, None, lines, piece.filename)
        try:
            code = compile(piece.source, piece.filename, "exec", flags)
            flags |= code.co_flags & FUTURE
            with time_limit(PIECE_TIMEOUT):
                exec(code, namespace)
        except BaseException as error:  # SystemExit, too, costs this piece
            text = f"{type(error).__name__}: {error}"
            for name in DEFINES.findall(piece.source):
                answers.errors[name] = f"{name} could not be defined: {text}"
                namespace.pop(name, None)
    return answers


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what runs too long, where there are alarms."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"ran for more than {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _cells(chapter: Chapter, path: Path) -> Iterator[Piece]:
    try:
        notebook = nbformat.reads(_text(path), as_version=4)
        cells = [c for c in notebook.cells if c.cell_type == "code"]
    except Exception as error:
        reason = str(error).partition("\n")[0][:100]
        raise CourseError(
            f"{path} is not a notebook that can be read ({reason}); open it "
            "in JupyterLab, or download it anew"
        ) from None
    released = {_key(c.source): c for c in chapter.for_student().cells}
    for number, cell in enumerate(cells, start=1):
        label, source = f"cell {number}", _without_magics(cell.source)
        known = released.get(_key(cell.source))
        tags = cell.metadata.get("tags", [])
        if cell.metadata.get("nbgrader", {}).get("grade") or "check" in tags:
            continue
        if known is None or "exercise" in known.metadata.get("tags", []):
            yield from _statements(label, source)
        else:
            yield from _statements(label, source, keep=_is_definition)


def _statements(
    label: str, source: str, keep: Callable[[ast.stmt], bool] | None = None
) -> Iterator[Piece]:
    """Cut source into statements; where it doesn't parse, cut by lines."""
    lines = source.splitlines(keepends=True)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        yield from _by_indentation(label, lines)
        return
    for node in tree.body:
        if keep and not keep(node):
            continue
        first = min(
            [
                node.lineno,
                *(d.lineno for d in getattr(node, "decorator_list", [])),
            ]
        )
        text = "".join(lines[first - 1 : node.end_lineno])
        yield Piece(f"{label}, line {first}", text)


def _by_indentation(label: str, lines: list[str]) -> Iterator[Piece]:
    """Start a piece at each line that isn't indented."""
    start, decorated = 0, lines[:1] and lines[0].startswith("@")
    for number, line in enumerate(lines):
        if number == start or not STARTS.match(line) or CONTINUES.match(line):
            continue
        if not decorated:
            yield Piece(
                f"{label}, line {start + 1}", "".join(lines[start:number])
            )
            start = number
        decorated = line.startswith("@")
    if lines:
        yield Piece(f"{label}, line {start + 1}", "".join(lines[start:]))


def _is_definition(node: ast.stmt) -> bool:
    return isinstance(
        node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
    )


def _without_magics(source: str) -> str:
    """Drop lines that speak to IPython and not to Python."""
    if source.lstrip().startswith("%%"):
        return ""
    lines = source.splitlines()
    return "\n".join(x for x in lines if not x.lstrip().startswith(("%", "!")))


def _key(source: str) -> str:
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(f"{path} can't be read: {error}") from None
