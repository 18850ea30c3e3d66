"""Fill a chapter's named cells with code, and clear it for students."""

from collections.abc import Callable, Iterator

import jupytext
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions

from autograder.chapters import (
    BEGIN_SOLUTION,
    MYST,
    STUB,
    Chapter,
    without_markers,
)
from autograder.errors import CourseError
from autograder.excerpts import Module


class Filling:
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


def clear(notebook: NotebookNode) -> NotebookNode:
    """Take out answers and hidden checks, by nbgrader's own means."""
    for step in (
        ClearSolutions(code_stub={"python": STUB}),
        ClearHiddenTests(),
    ):
        notebook, _ = step.preprocess(notebook, {})
    return notebook


def _only(names: list[str]) -> str:
    if len(names) != 1:
        raise CourseError("name exactly one definition")
    return names[0]
