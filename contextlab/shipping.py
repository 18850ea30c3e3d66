"""Carry a function of a notebook to other processes, as source text.

A process that is started afresh, as on Windows and macOS, knows nothing of a
notebook's cells. So the function's own source is written to a module, with
the imports, the numbers and the other functions of the notebook that it uses.
"""

import ast
import builtins
import dis
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

PLAIN = (int, float, complex, str, bytes, bool, type(None))


def source(function: Callable) -> str:
    """Return the text of a module that defines a function anew.

    Raises:
        ValueError: if the function can't be carried: its source isn't known,
            or it uses something of the notebook that is no import, no number,
            no text and no function. The message names it.
    """
    lines: dict[str, str] = {}  # what a name stands for, by the name
    _collect(function, lines)
    imports = [text for text in lines.values() if not text.startswith("def ")]
    functions = [text for text in lines.values() if text.startswith("def ")]
    top = "from __future__ import annotations"  # annotations stay unread
    return "\n\n".join([top, *imports, *functions]) + "\n"


def _collect(function: Any, lines: dict[str, str]) -> None:
    if not isinstance(function, FunctionType) or function.__closure__:
        raise ValueError(
            f"{_name(function)} can't be sent to other processes: write it as "
            "a function of its own, by def, not within another function"
        )
    try:
        text = textwrap.dedent(inspect.getsource(function))
        node = ast.parse(text).body[0]
    except (OSError, TypeError, SyntaxError):
        node = None
    if not isinstance(node, ast.FunctionDef) or node.decorator_list:
        raise ValueError(
            f"the source of {_name(function)} can't be sent: define it by "
            "def in a cell, without decorators"
        )
    lines[node.name] = text
    for name in _used(function, node):
        if name in lines or name not in function.__globals__:
            continue  # a builtin, or a name that isn't defined: it will say
        value = function.__globals__[name]
        if getattr(builtins, name, lines) is value:
            continue
        if (line := _line(name, value)) is not None:
            lines[name] = line
        elif isinstance(value, FunctionType):
            if value.__name__ != name:
                raise ValueError(
                    f"{node.name} uses {name}, another name of "
                    f"{value.__name__}: use that name"
                )
            _collect(value, lines)
        else:
            raise ValueError(
                f"{node.name} uses {name}, {_kind(value)} of this notebook, "
                "which other processes don't have: pass it as an argument, "
                "or define it within the function"
            )


def _line(name: str, value: Any) -> str | None:
    """Return the line that gives a name its value elsewhere, if one does."""
    if isinstance(value, ModuleType):
        return f"import {value.__name__} as {name}"
    if type(value) in PLAIN:
        if value in (float("inf"), float("-inf")) or value != value:
            return f"{name} = float('{value}')"
        return f"{name} = {value!r}"
    module = getattr(value, "__module__", None)
    own = getattr(value, "__qualname__", getattr(value, "__name__", None))
    if module and own and module != "__main__" and "." not in own:
        imported = inspect.getmodule(value)
        if imported and getattr(imported, own, None) is value:
            return f"from {module} import {own} as {name}"
    return None


def _used(function: FunctionType, node: ast.FunctionDef) -> Iterator[str]:
    """Yield the names of the notebook that a function looks up."""
    for default in [*node.args.defaults, *node.args.kw_defaults]:
        for part in ast.walk(default) if default else ():
            if isinstance(part, ast.Name):
                yield part.id
    yield from _globals(function.__code__)


def _globals(code: CodeType) -> Iterator[str]:
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals(constant)


def _name(value: Any) -> str:
    return getattr(value, "__name__", repr(value))


def _kind(value: Any) -> str:
    kind = type(value).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"
