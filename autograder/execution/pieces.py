"""Run a student's source statement by statement: a bad one costs itself."""

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
from typing import Any

from autograder.execution.errors import SUBMISSION, printable

FUTURE = reduce(
    or_,
    (
        getattr(__future__, n).compiler_flag
        for n in __future__.all_feature_names
    ),
)
# A line that starts a new statement: not indented, not a closing bracket.
STARTS = re.compile(r"[^\s#)\]}]")
CONTINUES = re.compile(r"(else|elif|except|finally)\b")
DEFINES = re.compile(r"^(?:async\s+def|def|class)\s+(\w+)", re.MULTILINE)
DEFINITION = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
MOST_OF_A_LINE = 80  # characters
NOT_PARSED = (SyntaxError, ValueError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Piece:
    """A piece of source that runs or fails on its own."""

    label: str
    source: str

    @property
    def filename(self) -> str:
        """Return the name that stands for a file in tracebacks."""
        return f"{SUBMISSION} {self.label}>"

    @property
    def place(self) -> dict[str, str]:
        """Say where it stands and how it begins."""
        line = self.source.strip().partition("\n")[0]
        return {"at": self.label, "line": line[:MOST_OF_A_LINE]}


class TooLongError(TimeoutError):
    """A piece ran for too long."""


@dataclass
class Runner:
    """Runs pieces in one namespace.

    Attributes:
        namespace: where the names are defined.
        seconds: how long one piece may run, where there are alarms.
        errors: why a name could not be defined, by the name.
        defined: the functions and classes, by the name, as last defined.
        stopped: the pieces that ran on and were stopped.
    """

    namespace: dict[str, Any]
    seconds: float
    errors: dict[str, str] = field(default_factory=dict)
    defined: dict[str, Any] = field(default_factory=dict)
    stopped: list[Piece] = field(default_factory=list)
    flags: int = 0  # of the __future__, which one piece sets for those below

    def run(self, piece: Piece) -> None:
        """Execute one piece; if it fails, keep the reason."""
        lines = piece.source.splitlines(keepends=True)
        linecache.cache[piece.filename] = (1, None, lines, piece.filename)
        try:
            code = compile(piece.source, piece.filename, "exec", self.flags)
            self.flags |= code.co_flags & FUTURE
            late = f"it ran for more than {self.seconds:g} seconds"
            with time_limit(self.seconds, TooLongError(late)):
                exec(code, self.namespace)
            for name in DEFINES.findall(piece.source):
                self.defined[name] = self.namespace[name]
                self.errors.pop(name, None)
        except BaseException as error:  # SystemExit, too, costs this piece
            if isinstance(error, TooLongError):
                self.stopped.append(piece)
            self.fail(piece, f"{type(error).__name__}: {error}")

    def finish(self) -> None:
        """Give a name its function back, if it now means a mere value.

        In a notebook, the checks of ``softmax`` run before an experiment far
        below may say ``softmax = 3``.
        """
        for name, value in self.defined.items():
            if not callable(self.namespace.get(name)):
                self.namespace[name] = value

    def fail(self, piece: Piece, reason: str) -> None:
        """Say why the names that a piece defines are not there."""
        for name in DEFINES.findall(piece.source):
            text = f"{name} could not be defined: {reason}"
            self.errors[name] = printable(text)
            self.namespace.pop(name, None)


@contextmanager
def time_limit(seconds: float, error: BaseException) -> Iterator[None]:
    """Raise an error in what runs too long, where there are alarms."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def statements(
    label: str, source: str, *, definitions_only: bool
) -> Iterator[Piece]:
    """Cut source into statements; where it doesn't parse, cut by lines."""
    lines = source.splitlines(keepends=True)
    try:
        tree = ast.parse(source)
    except NOT_PARSED:
        yield from _by_indentation(label, lines)
        return
    keep: Callable = (
        (lambda node: isinstance(node, DEFINITION))
        if definitions_only
        else bool
    )
    nodes = [node for node in tree.body if keep(node)]
    for group in _same_lines(nodes):
        first = min(_first_line(node) for node in group)
        last = max(node.end_lineno for node in group)
        text = "".join(lines[first - 1 : last])
        yield Piece(f"{label}, line {first}", text)


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)])


def _same_lines(nodes: list[ast.stmt]) -> Iterator[list[ast.stmt]]:
    """Group statements that share a line, as ``a = 1; b = 2`` does."""
    group: list[ast.stmt] = []
    for node in nodes:
        if group and _first_line(node) > group[-1].end_lineno:
            yield group
            group = []
        group.append(node)
    if group:
        yield group


def _by_indentation(label: str, lines: list[str]) -> Iterator[Piece]:
    """Start a piece at each line that isn't indented."""
    start, decorated = 0, lines[:1] and lines[0].startswith("@")
    for number, line in enumerate(lines):
        if number == start or not STARTS.match(line) or CONTINUES.match(line):
            continue
        if not decorated:
            text = "".join(lines[start:number])
            yield Piece(f"{label}, line {start + 1}", text)
            start = number
        decorated = line.startswith("@")
    if lines:
        yield Piece(f"{label}, line {start + 1}", "".join(lines[start:]))
