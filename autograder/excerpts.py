"""Cut one definition out of a module, with the names that it needs."""

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from autograder.errors import CourseError

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True)
class Module:
    """A module's source, seen as a list of top-level definitions."""

    path: Path

    @cached_property
    def source(self) -> str:
        """Return the text of the file."""
        if not self.path.is_file():
            raise CourseError(f"{self.path} is missing; write it there")
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Return the syntax tree of the file."""
        try:
            return ast.parse(self.source)
        except SyntaxError as error:
            raise CourseError(
                f"{self.path}, line {error.lineno}: {error.msg}; mend it"
            ) from None

    @cached_property
    def definitions(self) -> dict[str, Definition]:
        """Map each name defined at the top level to its node."""
        found: dict[str, Definition] = {}
        for node in self.tree.body:
            for name in _defined_names(node):
                found[name] = node
        return found

    @cached_property
    def imports(self) -> dict[str, ast.Import | ast.ImportFrom]:
        """Map each name imported at the top level to its import."""
        return {
            (alias.asname or alias.name).partition(".")[0]: node
            for node in self.tree.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }

    def code(self, name: str) -> str:
        """Return the lines that define ``name``: decorators, markers and all.

        A marker that closes the definition is a comment, which Python's
        parser doesn't count as part of it; it is taken along.
        """
        node = self.find(name)
        first = min(
            [
                node.lineno,
                *(d.lineno for d in getattr(node, "decorator_list", [])),
            ]
        )
        lines = self.source.splitlines()
        last = node.end_lineno
        while last < len(lines) and lines[last].strip().startswith("### END"):
            last += 1
        return "\n".join(lines[first - 1 : last])

    def find(self, name: str) -> Definition:
        """Return the node that defines ``name``."""
        if name not in self.definitions:
            raise CourseError(
                f"{self.path} defines no {name!r}; it defines "
                f"{', '.join(self.definitions) or 'nothing'}"
            )
        return self.definitions[name]

    def summary(self, name: str) -> str:
        """Return the first line of a definition's docstring."""
        return (ast.get_docstring(self.find(name)) or "").partition("\n")[0]

    def names_used(self, name: str) -> set[str]:
        """Return every plain name that the definition of ``name`` reads."""
        tree = self.find(name)
        return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} - {
            name
        }

    def helpers(self, name: str) -> list[str]:
        """Return the module's own names that ``name`` needs, in file order."""
        needed: set[str] = set()
        queue = [name]
        while queue:
            used = self.names_used(queue.pop()) & set(self.definitions)
            queue += used - needed
            needed |= used
        return [n for n in self.definitions if n in needed - {name}]

    def imports_for(self, names: list[str]) -> tuple[list[str], set[str]]:
        """Return what the definitions of ``names`` import.

        Returns:
            The import statements to write above them, and the names that come
            from ``solutions``, which a notebook defines in cells of its own.
        """
        used = set().union(*(self.names_used(name) for name in names))
        statements, from_solutions = [], set()
        for name, node in self.imports.items():
            if name not in used:
                continue
            if getattr(node, "module", None) and node.module.startswith(
                "solutions"
            ):
                from_solutions.add(name)
            else:
                statements.append(_import_statement(node, name))
        return list(dict.fromkeys(statements)), from_solutions


def _defined_names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
    return [t.id for t in targets if isinstance(t, ast.Name)]


def _import_statement(node: ast.Import | ast.ImportFrom, name: str) -> str:
    """Write the import of ``name`` alone."""
    aliases = [
        a for a in node.names if (a.asname or a.name).partition(".")[0] == name
    ]
    alone = type(node)(**{**dict(ast.iter_fields(node)), "names": aliases})
    return ast.unparse(alone)
