"""Mend what a student handed in, so that nothing but answers costs points.

Each cell is matched with a cell of the chapter: by nbgrader's marks, by what
it says, by what it defines, by its id. Then the chapter's own cells are put
back as they were, the checks are left to the grader, and the answers stay.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import count
from pathlib import Path

from nbformat import NotebookNode

from autograder.chapters import Chapter
from autograder.errors import CourseError
from autograder.intake import Submitted, read_cells, read_text

# What stands at the beginning of a line defines a name of the notebook.
DEFINES = re.compile(r"^(?:async[ \t]+def|def|class)[ \t]+(\w+)", re.MULTILINE)
ASSIGNS = re.compile(r"^(\w+)[ \t]*(?::[^=\n]+)?=(?!=)", re.MULTILINE)
LOCKED = {"given", "check"}
MOST_NAMES = 4  # in one sentence
KEPT_MAGICS = re.compile(r"%%(time|timeit|capture|prun)\b")
# IPython's lines, and what may hide what looks like one: strings, comments,
# brackets, continued lines.
LINE_MAGIC = re.compile(r"^[ \t]*[%!]", re.MULTILINE)
TOKEN = re.compile(
    r"""(?P<magic>^[ \t]*[%!](?:[^\\\n]|\\.)*+)
    |(?P<quoted>\"\"\"(?:[^"\\]|\\.|"(?!""))*+\"\"\"
    |'''(?:[^'\\]|\\.|'(?!''))*+'''
    |"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+'|\#[^\n]*)
    |(?P<continued>\\\n[ \t]*[%!]?)
    |(?P<bracket>[()\[\]{}])""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True)
class Cell:
    """A piece of what was handed in, as the engine runs it.

    Attributes:
        label: names it in tracebacks: ``cell 3``.
        source: Python, which may be wrong in any way.
        definitions_only: it is an experiment of the chapter, of which only
            imports, functions and classes run.
    """

    label: str
    source: str
    definitions_only: bool = False


@dataclass(frozen=True)
class HandedIn:
    """What was handed in, mended.

    Attributes:
        cells: what runs, in order; given code stands among it.
        flags: a sentence for each thing that was mended.
        notebook: the chapter's notebook with the answers in it; none if a
            module was handed in.
    """

    cells: list[Cell]
    flags: list[str]
    notebook: NotebookNode | None


def read(chapter: Chapter, path: Path) -> HandedIn:
    """Read a notebook or a module.

    Raises:
        CourseError: if it is missing or can't be read.
    """
    if path.suffix.lower() == ".py":
        text, flags = read_text(path)
        given = [
            Cell("given", original.full.source)
            for original in _originals(chapter).of_kind("given").values()
        ]
        return HandedIn([*given, Cell(path.name, text)], flags, None)
    if path.suffix.lower() == ".ipynb" or not path.exists():
        cells, flags = read_cells(path)
        mended = _Mended(_originals(chapter), cells)
        flags += mended.flags()
        return HandedIn(mended.cells(), flags, mended.notebook())
    raise CourseError(
        f"{path} is neither a notebook (.ipynb) nor a module (.py)"
    )


def blank(chapter: Chapter) -> NotebookNode:
    """Return the chapter's notebook in full, with nothing of a student's."""
    return _Mended(_originals(chapter), []).notebook()


@dataclass(frozen=True, eq=False)
class Original:
    """A cell of the chapter: as a student got it, and in full."""

    at: int
    kind: str  # prose, code, given, exercise or check
    name: str  # nbgrader's grade_id
    keys: frozenset[str]  # what it says, unchanged
    defines: frozenset[str]
    full: NotebookNode
    blank: str

    @property
    def is_code(self) -> bool:
        """Say whether it holds code."""
        return self.kind != "prose"

    @property
    def title(self) -> str:
        """Return what people call it."""
        if self.kind == "given":
            return ", ".join(sorted(self.defines))
        return self.name


class _Originals:
    """The cells of a chapter, and how to find the one that is meant."""

    def __init__(self, chapter: Chapter) -> None:
        self.metadata = chapter.for_grader().metadata
        self.all = [
            _original(at, full, blank)
            for at, (full, blank) in enumerate(
                zip(
                    chapter.for_grader().cells,
                    chapter.for_student().cells,
                    strict=True,
                )
            )
        ]
        self.by_name = {o.name: o for o in self.all if o.name}
        self.by_id = {o.full.id: o for o in self.all}
        self.by_key = {
            (o.is_code, key): o for o in reversed(self.all) for key in o.keys
        }
        self.exercises = self.of_kind("exercise")
        given = self.of_kind("given").values()
        self.given = {original.defines: original for original in given}

    def of_kind(self, kind: str) -> dict[str, Original]:
        """Return the originals of one kind, by name."""
        return {o.name: o for o in self.all if o.kind == kind}

    def find(self, cell: Submitted) -> Original | None:
        """Return the original of a cell, or None if it is the student's."""
        marked = self.by_name.get(cell.grade_id)
        if not cell.is_code:
            same = self.by_key.get((False, _key(cell.source)))
            by_id = self.by_id.get(cell.id)
            return same or (by_id if by_id and not by_id.is_code else None)
        defines = set(DEFINES.findall(cell.source))
        if marked and marked.kind == "exercise" and marked.name in defines:
            return marked
        if same := self.by_key.get((True, _key(cell.source))):
            return same
        # Its code says more than its marks, which may be another cell's.
        answers = [o for name, o in self.exercises.items() if name in defines]
        if answers or marked:
            return (answers or [marked])[0]
        if found := self.given.get(frozenset(defines)):
            return found
        for name in defines & self.by_name.keys():
            return self.by_name[name]  # a check, of which the marks are gone
        by_id = self.by_id.get(cell.id)
        return by_id if by_id and by_id.kind == "code" else None


def _original(at: int, full: NotebookNode, blank: NotebookNode) -> Original:
    marks = full.metadata.get("nbgrader", {})
    kind = "prose" if full.cell_type != "code" else "code"
    if marks:
        kind = "given"
    if marks.get("solution"):
        kind = "exercise"
    if marks.get("grade"):
        kind = "check"
    keys = {_key(blank.source)}
    if kind != "exercise":
        keys.add(_key(full.source))
    return Original(
        at,
        kind,
        marks.get("grade_id", ""),
        frozenset(keys),
        frozenset(DEFINES.findall(blank.source)),
        full,
        blank.source,
    )


def _originals(chapter: Chapter) -> _Originals:
    return _cached(chapter, tuple(c.source for c in chapter.filled.cells))


@lru_cache
def _cached(chapter: Chapter, sources: tuple[str, ...]) -> _Originals:
    """Make them once, as long as the chapter's cells are the same."""
    return _Originals(chapter)


@dataclass(frozen=True, eq=False)
class _Placed:
    """A submitted cell, and where in the chapter it belongs."""

    cell: Submitted
    original: Original | None  # none: the student's own
    at: float  # own cells stand half a step behind the cell they follow

    @property
    def is_locked(self) -> bool:
        """Say whether the chapter's own cell takes its place."""
        return bool(self.original) and self.original.kind in LOCKED

    @cached_property
    def is_changed(self) -> bool:
        """Say whether it says something that the chapter doesn't."""
        key = _key(self.cell.source)
        return self.original is None or key not in self.original.keys

    @cached_property
    def defines(self) -> set[str]:
        """Return the names that its code defines."""
        return set(DEFINES.findall(self.cell.source))


class _Mended:
    """A student's cells, sorted into answers, own cells and the chapter's."""

    def __init__(
        self, originals: _Originals, submitted: list[Submitted]
    ) -> None:
        self.originals = originals
        self.placed = list(_place(originals, submitted))
        self.copies: dict[Original, list[_Placed]] = {
            original: [] for original in originals.all
        }
        for placed in self.placed:
            if placed.original:
                self.copies[placed.original].append(placed)
        self.standing = {o: _choose(found) for o, found in self.copies.items()}
        # The student's own code, and all names that it gives a meaning to.
        self.theirs = [
            p for p in self.placed if p.is_changed and not p.is_locked
        ]
        self.defined: set[str] = set()
        for placed in self.theirs:
            if placed.cell.is_code:
                assigned = ASSIGNS.findall(placed.cell.source)
                self.defined |= placed.defines.union(assigned)

    def cells(self) -> list[Cell]:
        """Return what runs: the student's code in its order, and the given.

        What the chapter gives comes before whatever follows it there. An
        answer that was not begun runs only where there is no other.
        """
        standing = self.standing.items()
        fixed = [
            original
            for original, placed in standing
            if original.kind == "given"
            or (original.kind == "code" and placed and not placed.is_changed)
        ]
        blank = [
            placed
            for original, placed in standing
            if original.kind == "exercise"
            and placed
            and not placed.is_changed
            and original.name not in self.defined
        ]
        running = {id(p) for p in self.theirs + blank if p.cell.is_code}
        found = []
        for placed in self.placed:
            if id(placed) in running:
                while fixed and fixed[0].at < placed.at:
                    found.append(_given(fixed.pop(0)))
                source = plain(placed.cell.source)
                found.append(Cell(placed.cell.label, source))
        return [cell for cell in found if cell.source.strip()] + [
            _given(original) for original in fixed
        ]

    def notebook(self) -> NotebookNode:
        """Return the chapter's notebook in full, with what is theirs in it."""
        own = [
            p for p in self.theirs if self.standing.get(p.original) is not p
        ]
        own.sort(key=lambda p: p.at)  # stays in order where that is equal
        names = (f"own-{number}" for number in count(1))
        cells = []
        for original, placed in self.standing.items():
            while own and own[0].at < original.at:
                cells.append(_own_cell(own.pop(0), next(names)))
            cells.append(self._cell(original, placed))
        cells += [_own_cell(placed, next(names)) for placed in own]
        return NotebookNode(
            nbformat=4,
            nbformat_minor=5,
            metadata=self.originals.metadata,
            cells=cells,
        )

    def _cell(
        self, original: Original, placed: _Placed | None
    ) -> NotebookNode:
        cell = copy(original.full)
        if original.is_code:
            cell.outputs = []
        if original.kind == "exercise" and not placed:
            cell.source = original.blank
        elif placed and not placed.is_locked:
            cell.source = placed.cell.source
            if original.is_code:
                cell.outputs = placed.cell.outputs
        return cell

    def flags(self) -> list[str]:
        """Say what was mended, a sentence each."""
        marked = [o for o in self.copies if o.kind in {*LOCKED, "exercise"}]
        missing = [o for o in marked if not self.copies[o]]
        if missing == marked:
            return ["No cell of this chapter is in it: is it another chapter?"]
        locked = [o for o in marked if o.kind in LOCKED]
        answers = {
            o: [p for p in self.copies[o] if p.is_changed]
            for o in marked
            if o.kind == "exercise"
        }
        unmarked = [
            o
            for o in marked
            if self.copies[o]
            and all(p.cell.grade_id != o.name for p in self.copies[o])
        ]
        said = {
            "Edited, and judged as it was released: {}.": [
                o for o in locked if any(p.is_changed for p in self.copies[o])
            ],
            "Deleted, and put back: {}.": [
                o for o in missing if o.kind in LOCKED
            ],
            "In the notebook twice, and counted once: {}.": [
                o for o in locked if len(self.copies[o]) > 1
            ],
            "Answered more than once, of which the last counts: {}.": [
                o
                for o, found in answers.items()
                if sum(o.name in p.defines for p in found) > 1
            ],
            "Left out, an empty copy beside the answer: {}.": [
                o
                for o, found in answers.items()
                if found and len(found) < len(self.copies[o])
            ],
            "The cell was deleted: {}.": [
                o
                for o in answers
                if o in missing and o.name not in self.defined
            ],
            "Found without nbgrader's marks, by what it says: {}.": unmarked,
        }
        dropped = [
            p.cell.label
            for p in self.theirs
            if p.cell.is_code
            and p.cell.source.strip()
            and not plain(p.cell.source).strip()
        ]
        flags = [
            says.format(_listed(o.title for o in found))
            for says, found in said.items()
            if found
        ]
        order = [p.at for p in self.placed if p.original]
        if order != sorted(order):
            flags.append("The cells stand in another order.")
        if dropped:
            flags.append(f"Left out, as no Python: {_listed(dropped)}.")
        return flags


def _place(
    originals: _Originals, submitted: list[Submitted]
) -> Iterator[_Placed]:
    at = -1
    for cell in submitted:
        original = originals.find(cell)
        if original:
            at = original.at
        elif not cell.source.strip():
            continue
        yield _Placed(cell, original, at if original else at + 0.5)


def _choose(copies: list[_Placed]) -> _Placed | None:
    """Return the copy that counts: the last that answers, or else the first.

    A cell that was split may define its exercise in either half.
    """
    for placed in reversed(copies):
        if placed.is_changed and placed.original.name in placed.defines:
            return placed
    changed = [placed for placed in copies if placed.is_changed]
    return changed[-1] if changed else next(iter(copies), None)


def _given(original: Original) -> Cell:
    is_experiment = original.kind == "code"
    return Cell("code of the chapter", original.full.source, is_experiment)


def _own_cell(placed: _Placed, name: str) -> NotebookNode:
    """Make a cell that nbgrader takes no notice of."""
    cell = NotebookNode(
        id=name,
        cell_type="markdown",
        metadata=NotebookNode(),
        source=placed.cell.source,
    )
    if placed.cell.is_code:
        cell.cell_type, cell.execution_count = "code", None
        cell.outputs = placed.cell.outputs
    return cell


def plain(source: str) -> str:
    """Take out what speaks to IPython and not to Python.

    ``%%time`` and its like time the Python below them; below any other
    ``%%`` stands something else. A line that begins with ``%`` or ``!``
    becomes ``pass``, unless it may be part of a string or an expression.
    """
    while source.lstrip().startswith("%%"):
        first, _, rest = source.lstrip().partition("\n")
        if not KEPT_MAGICS.match(first):
            return ""
        source = rest
    if source[:1] in (" ", "\t"):
        source = textwrap.dedent(source)
    if not LINE_MAGIC.search(source):
        return source
    depth = 0

    def without(token: re.Match) -> str:
        nonlocal depth
        text = token[0]
        if token["magic"] and not depth:
            indent = text[: len(text) - len(text.lstrip())]
            return f"{indent}pass" + "\n" * text.count("\n")
        if token["magic"] or token["bracket"]:
            depth += sum(map(text.count, "([{")) - sum(map(text.count, ")]}"))
            depth = max(depth, 0)
        return text

    return TOKEN.sub(without, source)


def _key(source: str) -> str:
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - MOST_NAMES
    listed = ", ".join(names[:MOST_NAMES])
    return f"{listed} and {more} more" if more > 0 else listed
