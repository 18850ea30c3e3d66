"""Fill a chapter with code from ``solutions/`` and ``tests/``.

A chapter holds prose and, where code belongs to an exercise, a name::

    ```{code-cell} python
    :exercise: attention.causal_mask
    ```

It has three readers:

- the *grader's* notebook holds the whole code, nbgrader's markers included;
- the *student's* notebook is the grader's, cleared by nbgrader itself;
- the *page* is the student's, with unseen cells that run the reference.
"""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autograder.errors import CourseError

if TYPE_CHECKING:  # what fills notebooks takes a second to import
    from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
MYST = "md:myst"
STUB = "# Write your answer here.\nraise NotImplementedError"
PAGE_ONLY = "page-only"
BEGIN_SOLUTION = "### BEGIN SOLUTION"


NAMES_CODE = re.compile("^:(?:exercise|given): ", re.MULTILINE)
NOT_WRITTEN = "is not written yet."  # what is said of an open exercise


@dataclass(frozen=True)
class Check:
    """One check of an exercise: a test function and what it is worth."""

    name: str
    points: int

    def result(self, *, passed: bool, message: str) -> dict[str, Any]:
        """Write down how the check ended, as ``check --json`` prints it."""
        return {
            "name": self.name,
            "points": self.points if passed else 0,
            "max_points": self.points,
            "passed": passed,
            "message": message,
        }


@dataclass(frozen=True)
class Exercise:
    """What the student writes under one name, and the checks of it."""

    name: str
    checks: list[Check] = field(default_factory=list)

    @property
    def max_points(self) -> int:
        """Return the sum of the points of the checks."""
        return sum(check.points for check in self.checks)


@dataclass(frozen=True)
class Chapter:
    """One chapter: ``book/02-attention.md`` is the chapter ``attention``."""

    path: Path

    @property
    def stem(self) -> str:
        """Return the name of the chapter's notebook: ``02-attention``."""
        return self.path.stem

    @property
    def name(self) -> str:
        """Return the name that leads to all files of the chapter."""
        return self.stem.partition("-")[2]

    @property
    def root(self) -> Path:
        """Return the folder that holds ``book/`` and ``solutions/``."""
        return self.path.parent.parent

    @property
    def names_code(self) -> bool:
        """Return whether any cell is to be filled."""
        return bool(NAMES_CODE.search(self.text))

    @cached_property
    def text(self) -> str:
        """Return the prose, as it was written."""
        return self.path.read_text(encoding="utf-8")

    @property
    def title(self) -> str:
        """Return the first heading."""
        lines = self.text.splitlines()
        return next((x[2:] for x in lines if x.startswith("# ")), self.name)

    @cached_property
    def filled(self) -> NotebookNode:
        """Return the chapter with all code filled in, for all readers."""
        from autograder.filling import Filling

        return Filling(self).notebook

    @cached_property
    def exercises(self) -> list[Exercise]:
        """Return the exercises in order; a check belongs to the one above."""
        found: list[Exercise] = []
        for cell in self.filled.cells:
            meta = cell.metadata.get("nbgrader", {})
            if meta.get("solution"):
                found.append(Exercise(meta.grade_id))
            elif meta.get("grade"):
                found[-1].checks.append(Check(meta.grade_id, meta.points))
        return found

    @property
    def max_points(self) -> int:
        """Return the sum of the points of the exercises."""
        return sum(exercise.max_points for exercise in self.exercises)

    @property
    def sources(self) -> list[Path]:
        """Return every file of code that the chapter's page depends on."""
        from autograder.filling import Filling

        named = {module.path for module in Filling(self).modules.values()}
        return sorted(named | set(self._contextlab))

    @property
    def _contextlab(self) -> list[Path]:
        """Return the files of what the chapter's cells import."""
        found = self.root.joinpath("contextlab").rglob("*.*")
        return sorted(p for p in found if p.suffix in {".py", ".js", ".json"})

    def for_grader(self) -> NotebookNode:
        """Return the notebook with answers and hidden checks."""
        from autograder.prose import in_words

        notebook = deepcopy(self.filled)
        notebook.cells = [
            c for c in notebook.cells if not _has_tag(c, PAGE_ONLY)
        ]
        return in_words(notebook, self.path.parent)

    def for_student(self) -> NotebookNode:
        """Return the notebook that ``nbgrader generate_assignment`` makes."""
        from autograder.filling import clear

        return clear(self.for_grader())

    def for_page(self) -> NotebookNode:
        """Return the student's cells, each stub followed by the reference.

        The page is executed anew when its source changes. So the reference
        stands there as source, not as an import, above a fingerprint of what
        is imported. An appendix has no exercises: there it stands below the
        functions that it is given, unseen.
        """
        from nbformat.v4 import new_code_cell

        from autograder.filling import clear

        page = clear(deepcopy(self.filled))
        imported = sha256()
        for path in self._contextlab:
            imported.update(path.read_bytes())
        cells = []
        for stub, full in zip(page.cells, self.filled.cells, strict=True):
            cells.append(stub)
            if _has_tag(stub, "given") and _has_tag(stub, "remove-cell"):
                stub.source += f"\n# contextlab {imported.hexdigest()}"
            if stub.metadata.get("nbgrader", {}).get("solution"):
                hidden = new_code_cell(
                    f"{full.source}\n# contextlab {imported.hexdigest()}",
                    id=f"reference-{stub.metadata.nbgrader.grade_id}",
                    metadata={"tags": ["remove-cell"]},
                )
                cells.append(hidden)
        page.cells = cells
        return page


def table_of_contents() -> dict[str, Any]:
    """Return what ``_toc.yml`` says: the root page, and the parts."""
    import yaml

    return yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))


def chapters(root: Path = ROOT) -> list[Chapter]:
    """Return all chapters of the book, in order."""
    paths = sorted(root.joinpath("book").glob("[0-9][0-9]-*.md"))
    return [Chapter(path) for path in paths]


def find(name: str, root: Path = ROOT) -> Chapter:
    """Return the chapter ``name``; its number or file name will do too."""
    known = chapters(root)
    for chapter in known:
        if Path(name).stem in (chapter.name, chapter.stem, chapter.stem[:2]):
            return chapter
    names = ", ".join(chapter.name for chapter in known)
    raise CourseError(
        f"there is no chapter {name!r}; the chapters are: {names}"
    )


def select(names: list[str], root: Path = ROOT) -> list[Chapter]:
    """Return the chapters with these names, or all if there are none."""
    return [find(name, root) for name in names] or chapters(root)


def without_markers(code: str) -> str:
    """Return the code without nbgrader's ``### BEGIN`` and ``### END``."""
    lines = code.splitlines()
    return "\n".join(x for x in lines if not x.strip().startswith("### "))


def _has_tag(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])
