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

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import jupytext
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions

from autograder.errors import CourseError
from autograder.excerpts import Module
from autograder.prose import in_words

ROOT = Path(__file__).resolve().parent.parent
MYST = "md:myst"
STUB = "# Write your answer here.\nraise NotImplementedError"
PAGE_ONLY = "page-only"
BEGIN_SOLUTION = "### BEGIN SOLUTION"


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
        return _Filling(self).notebook

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
        named = {module.path for module in _Filling(self).modules.values()}
        return sorted(named | set(self._contextlab))

    @property
    def _contextlab(self) -> list[Path]:
        """Return the files of what the chapter's cells import."""
        found = self.root.joinpath("contextlab").rglob("*.*")
        return sorted(p for p in found if p.suffix in {".py", ".js", ".json"})

    def for_grader(self) -> NotebookNode:
        """Return the notebook with answers and hidden checks."""
        notebook = deepcopy(self.filled)
        notebook.cells = [
            c for c in notebook.cells if not _has_tag(c, PAGE_ONLY)
        ]
        return in_words(notebook, self.path.parent)

    def for_student(self) -> NotebookNode:
        """Return the notebook that ``nbgrader generate_assignment`` makes."""
        return _clear(self.for_grader())

    def for_page(self) -> NotebookNode:
        """Return the student's cells, each stub followed by the reference.

        The page is executed anew when its source changes. So the reference
        stands there as source, not as an import, above a fingerprint of what
        is imported.
        """
        page = _clear(deepcopy(self.filled))
        imported = sha256()
        for path in self._contextlab:
            imported.update(path.read_bytes())
        cells = []
        for stub, full in zip(page.cells, self.filled.cells, strict=True):
            cells.append(stub)
            if stub.metadata.get("nbgrader", {}).get("solution"):
                hidden = new_code_cell(
                    f"{full.source}\n# contextlab {imported.hexdigest()}",
                    id=f"reference-{stub.metadata.nbgrader.grade_id}",
                    metadata={"tags": ["remove-cell"]},
                )
                cells.append(hidden)
        page.cells = cells
        return page


class _Filling:
    """Fill the named cells of one chapter, in order, and say what is wrong."""

    def __init__(self, chapter: Chapter) -> None:
        self.chapter = chapter
        self.modules: dict[str, Module] = {}
        self.defined: set[str] = set()  # names that cells above define
        self.grade_ids: set[str] = set()
        self.notebook = jupytext.reads(chapter.text, fmt=MYST)
        self.notebook.metadata.pop("jupytext", None)
        for number, cell in enumerate(self.notebook.cells, start=1):
            self._fill(number, cell)

    def _fill(self, number: int, cell: NotebookNode) -> None:
        kinds: dict[str, Callable] = {
            "exercise": self._exercise,
            "check": self._check,
            "given": self._given,
        }
        cell.id = f"cell-{number}"
        where = f"{self.chapter.path}, cell {number}"
        for kind in kinds.keys() & cell.metadata.keys():
            text = str(cell.metadata.pop(kind))
            try:
                kinds[kind](cell, text.split())
            except CourseError as error:
                raise CourseError(
                    f"{where} (:{kind}: {text}): {error}"
                ) from None
        if cell.cell_type == "code" and not cell.source.strip():
            raise CourseError(
                f"{where} is empty and names no code; add ':exercise:', "
                "':check:' or ':given:', or remove it"
            )

    def _exercise(self, cell: NotebookNode, names: list[str]) -> None:
        module, name = self._resolve(_only(names), "solutions", "")
        code = self._excerpt(module, [name])
        if BEGIN_SOLUTION not in code:
            raise CourseError(
                f"{name} in {module.path} has no '{BEGIN_SOLUTION}' … "
                "'### END SOLUTION'; put them round what the student writes"
            )
        self._mark(cell, name, solution=True, tag="exercise")
        cell.source = code

    def _given(self, cell: NotebookNode, names: list[str]) -> None:
        resolved = [self._resolve(name, "solutions", "") for name in names]
        if len({module.path for module, _ in resolved}) != 1:
            raise CourseError("name one or more definitions of one module")
        code = self._excerpt(resolved[0][0], [name for _, name in resolved])
        cell.source = without_markers(code)
        self._mark(
            cell, "given-" + "-".join(n for _, n in resolved), tag="given"
        )

    def _check(self, cell: NotebookNode, names: list[str]) -> None:
        module, name = self._resolve(_only(names), "tests", "test_")
        if not any(
            c.metadata.get("nbgrader", {}).get("solution")
            for c in self._above(cell)
        ):
            raise CourseError("no exercise stands above it; move it below one")
        points = cell.metadata.pop("points", None)
        if not isinstance(points, int) or points < 1:
            raise CourseError(
                "no points; add a line ':points: 2' below it, a whole number "
                "from 1"
            )
        helpers = module.helpers(name)
        imports, needed = module.imports_for([*helpers, name])
        self._must_be_defined(needed)
        says = (module.summary(name) or name).rstrip(".")
        unit = "point" if points == 1 else "points"
        body = "\n\n\n".join(module.code(n) for n in [*helpers, name])
        head = "\n".join([f"# Check, {points} {unit}", *imports])
        call = f'{name}()\nprint("Passed.")'
        cell.source = "\n\n\n".join([head, body, call])
        self._mark(cell, name, points=points, tag="check")
        # Folded on the page: a reader sees what holds, and may look how.
        cell.metadata.tags.append("hide-input")
        prompt = f"Check, {points} {unit}: {says}"
        cell.metadata["mystnb"] = {
            "code_prompt_show": prompt,
            "code_prompt_hide": prompt,
        }

    def _above(self, cell: NotebookNode) -> Iterator[NotebookNode]:
        for other in self.notebook.cells:
            if other is cell:
                return
            yield other

    def _resolve(
        self, full: str, folder: str, prefix: str
    ) -> tuple[Module, str]:
        """Turn ``attention.softmax`` into its module and the name in it."""
        parts = full.split(".")
        if len(parts) == 3:
            raise CourseError(
                f"{full} names a method; name its class: a class is one "
                "exercise, with markers round each part that is to be written"
            )
        if len(parts) != 2 or not parts[0].startswith(prefix):
            raise CourseError(f"write it as '{prefix}module.name'")
        path = self.chapter.root / folder / f"{parts[0]}.py"
        module = self.modules.setdefault(str(path), Module(path))
        module.find(parts[1])
        return module, parts[1]

    def _excerpt(self, module: Module, names: list[str]) -> str:
        """Return the code of ``names``; what else it needs stands above."""
        imports, needed = module.imports_for(names)
        for name in names:
            needed |= set(module.helpers(name)) - set(names)
        self._must_be_defined(needed)
        self.defined |= set(names)
        body = "\n\n\n".join(module.code(name) for name in names)
        return "\n\n\n".join(["\n".join(imports), body] if imports else [body])

    def _must_be_defined(self, names: set[str]) -> None:
        if missing := sorted(names - self.defined):
            raise CourseError(
                f"it uses {', '.join(missing)}, which no cell above defines; "
                "add an ':exercise:' or ':given:' cell for it"
            )

    def _mark(
        self,
        cell: NotebookNode,
        grade_id: str,
        *,
        tag: str,
        solution: bool = False,
        points: int | None = None,
    ) -> None:
        """Write nbgrader's metadata and the tag that styles the cell."""
        if grade_id in self.grade_ids:
            raise CourseError(
                f"{grade_id} stands in this chapter twice; remove one of them"
            )
        self.grade_ids.add(grade_id)
        cell.metadata.setdefault("tags", []).append(tag)
        cell.metadata["nbgrader"] = NotebookNode(
            schema_version=3,
            grade_id=grade_id,
            grade=points is not None,
            solution=solution,
            locked=not solution,
            task=False,
        )
        if points is not None:
            cell.metadata.nbgrader.points = points


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


def _clear(notebook: NotebookNode) -> NotebookNode:
    """Take out answers and hidden checks, by nbgrader's own means."""
    for step in (
        ClearSolutions(code_stub={"python": STUB}),
        ClearHiddenTests(),
    ):
        notebook, _ = step.preprocess(notebook, {})
    return notebook


def _has_tag(cell: NotebookNode, tag: str) -> bool:
    return tag in cell.metadata.get("tags", [])


def _only(names: list[str]) -> str:
    if len(names) != 1:
        raise CourseError("name exactly one definition")
    return names[0]
