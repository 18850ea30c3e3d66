"""Read a stranger's notebook: whatever the file holds, never a traceback.

What is odd but can be read is mended, and a sentence (a *flag*) says so. What
can't be read is a ``CourseError``.
"""

import json
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from autograder.errors import CourseError
from autograder.execution.errors import printable

MIB = 2**20
MOST_BYTES = 200 * MIB  # of a file
LARGE = 16 * MIB  # from here on, outputs are dropped before they are parsed
MOST_VALUES = 5_000_000  # of a large file
MOST_CELLS = 10_000
MOST_SOURCE, ALL_SOURCE = 1_000_000, 5_000_000  # characters of code
MOST_OUTPUT, ALL_OUTPUT = 200_000, 2_000_000  # characters that are kept
MOST_DIGITS = 1_000
OUTPUTS = re.compile(r'(?<!\\)"outputs"\s*:\s*\[')
# JSON up to the next bracket outside a string.
TO_BRACKET = re.compile(r'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}
TEXT, WIDGET = "text/plain", "application/vnd.jupyter.widget-view+json"
SVG = "image/svg+xml"
# What of an output is kept. HTML and scripts are not: whoever opens the
# graded notebook would run them.
SHOWN = {TEXT, WIDGET, SVG, "image/png", "image/jpeg"}
SCRIPT = re.compile(
    r"<\s*(script|foreignObject)|\son\w+\s*=|javascript:", re.I
)


@dataclass(frozen=True)
class Submitted:
    """One cell as it was handed in."""

    label: str  # "cell 3", counting cells with code
    is_code: bool
    source: str
    id: str = ""
    grade_id: str = ""
    outputs: list[NotebookNode] = field(default_factory=list)


def find_notebook(folder: Path, name: str) -> tuple[Path, list[str]]:
    """Find what a student handed in for one chapter.

    Args:
        folder: ``submitted/STUDENT/CHAPTER``.
        name: what the notebook should be called.

    Returns:
        The notebook, and a flag if it isn't where it should be.

    Raises:
        CourseError: if there is none, if there are several to choose from, or
            if it is a link that leads out of the student's folder.
    """
    expected = folder / name
    flags = []
    try:
        _stays_within(folder.parent, folder)
        if os.path.lexists(expected):
            path = expected
        else:
            path = _only_notebook(folder, name)
            named = _named(path)
            flags = [f"The notebook is named {named}, not {name}."]
        _stays_within(folder.parent, path)
        if path == expected and path.is_dir():
            path = _only_notebook(expected, name)
            named = _named(path)
            flags = [f"{name} is a folder; {named} in it was graded."]
            _stays_within(folder.parent, path)
    except OSError as error:
        raise CourseError(
            f"{name} can't be found: {error.strerror or error}"
        ) from None
    return path, flags


def _named(path: Path) -> str:
    return printable(path.name).replace("\n", " ")


def _only_notebook(folder: Path, name: str) -> Path:
    """Return the one notebook in a folder, whatever its name is."""
    if not folder.is_dir():
        raise CourseError(
            f"{folder.name} is not a folder; it should hold {name}"
        )
    there = sorted(p for p in folder.iterdir() if p.name[0] != ".")
    found = [
        p for p in there if p.suffix.lower() == ".ipynb" and not p.is_dir()
    ]
    if len(found) == 1:
        return found[0]
    names = [_named(p) for p in found or there]
    listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    if found:
        raise CourseError(
            f"{name} is missing, and there are {len(found)} other notebooks: "
            f"{listed}"
        )
    raise CourseError(
        f"{name} is missing" + (f"; found {listed}" if listed else "")
    )


def _stays_within(folder: Path, path: Path) -> None:
    """Refuse a link that leads out of the student's folder."""
    if not os.path.lexists(path):
        return  # what is missing is said elsewhere
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise CourseError(
            f"{_named(path)} is a link that leads nowhere"
        ) from None
    if not real.is_relative_to(folder.resolve()):
        raise CourseError(
            f"{_named(path)} is a link that leads out of the student's folder"
        )


def read_text(path: Path) -> tuple[str, list[str]]:
    """Return the text of a file, and flags about how it was written.

    Raises:
        CourseError: if it is missing, not a file, or too large.
    """
    try:
        status = path.stat()
        for is_kind, kind in KINDS.items():
            if is_kind(status.st_mode):
                raise CourseError(
                    f"{path} is {kind}; a notebook (.ipynb) or a module (.py) "
                    "should be there"
                )
        if status.st_size > MOST_BYTES:
            raise CourseError(
                f"{path} has {status.st_size / MIB:.0f} MiB, and "
                f"{MOST_BYTES // MIB} are allowed; clear its outputs"
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise CourseError(
            f"{path} is missing; name a notebook or a module"
        ) from None
    except (OSError, ValueError) as error:
        raise CourseError(f"{path} can't be read: {error}") from None
    return _decoded(data)


def _decoded(data: bytes) -> tuple[str, list[str]]:
    flags = []
    encoding = json.detect_encoding(data)  # UTF-8, 16 or 32
    for name in (encoding, "cp1252", "latin-1"):  # the last one always fits
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        if name != "utf-8":
            flags.append(f"The file was written as {name}, not as UTF-8.")
        break
    if "\0" in text:
        text = text.replace("\0", "")
        flags.append("The file held zero bytes; they were left out.")
    return text, flags


def read_cells(path: Path) -> tuple[list[Submitted], list[str]]:
    """Return the cells of a notebook and flags about what was mended.

    Raises:
        CourseError: if there is no reading it.
    """
    text, flags = read_text(path)
    try:
        raw_cells = _raw_cells(_parsed(text, flags), flags)
    except ValueError as error:
        raise CourseError(
            f"{path} is not a notebook that can be read ({error}); open it "
            "in JupyterLab, or download it anew"
        ) from None
    cells, n_broken, n_code, n_source, n_output, cut = [], 0, 0, 0, 0, 0
    for raw in raw_cells:
        n_code += isinstance(raw, dict) and raw.get("cell_type") == "code"
        try:
            cell = _cell(raw, f"cell {n_code}")
        except ValueError:
            n_broken += 1
            continue
        n_source += len(cell.source)
        size = _size(cell.outputs)
        n_output += size if size <= MOST_OUTPUT else 0
        if size > MOST_OUTPUT or n_output > ALL_OUTPUT:
            cell.outputs.clear()
            cut += 1
        cells.append(cell)
    if n_source > ALL_SOURCE:
        raise CourseError(
            f"{path} holds {n_source:,} characters of text and code, and "
            f"{ALL_SOURCE:,} are allowed; remove what is no answer"
        )
    if n_broken:
        flags.append(f"{_count(n_broken, 'cell')} could not be read.")
    if cut:
        flags.append(
            f"The outputs of {_count(cut, 'cell')} are not kept: too large."
        )
    return cells, flags


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number > 1 else "")


def _parsed(text: str, flags: list[str]) -> Any:
    """Parse JSON; of what is wrong with it, raise a ValueError in words."""
    if not text.strip():
        raise ValueError("it is empty")
    if len(text) > LARGE:
        text = _without_outputs(text)
        flags.append("The outputs are not kept: the file is too large.")
    if len(text) > LARGE:
        outside = STRING.sub("", text)
        if sum(map(outside.count, ",[{")) > MOST_VALUES:
            raise ValueError("it holds millions of values")
    try:
        return json.loads(text, strict=False, parse_int=_int)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except MemoryError:
        raise ValueError("it doesn't fit into memory") from None


def _without_outputs(text: str) -> str:
    """Cut the lists of outputs out of a notebook's JSON.

    A large file may hold a flood of printed lines, each a value of its own.
    """
    kept, start, brackets = [], 0, 0
    while found := OUTPUTS.search(text, start):
        kept += [text[start : found.end()], "]"]
        start, depth = found.end(), 1
        while depth:
            start = TO_BRACKET.match(text, start).end() + 1
            bracket, brackets = text[start - 1 : start], brackets + 1
            depth += 1 if bracket in ("[", "{") else -1
            if not bracket or brackets > MOST_VALUES:
                raise ValueError("its outputs are cut off or too large")
    return "".join([*kept, text[start:]])


def _int(digits: str) -> int:
    return int(digits) if len(digits) <= MOST_DIGITS else 0


def _raw_cells(notebook: Any, flags: list[str]) -> list:
    """Return the list of cells, of whatever format the notebook is."""
    if not isinstance(notebook, dict):
        raise ValueError("it is no JSON object")
    cells = notebook.get("cells")
    sheets = notebook.get("worksheets")
    if cells is None and isinstance(sheets, list):  # nbformat 2 and 3
        flags.append("The notebook has an old format, and was converted.")
        sheets = [s.get("cells") for s in sheets if isinstance(s, dict)]
        cells = [
            c for sheet in sheets if isinstance(sheet, list) for c in sheet
        ]
    if not isinstance(cells, list):
        raise ValueError("it has no list of cells")
    if len(cells) > MOST_CELLS:
        raise ValueError(f"it has more than {MOST_CELLS:,} cells")
    meta = _dict(notebook, "metadata")
    kernel, language = meta.get("kernelspec"), _dict(meta, "language_info")
    names = [*_dict(meta, "kernelspec").values(), language.get("name")]
    named = " ".join(n for n in names if isinstance(n, str)).lower()
    if kernel and "python" not in named:
        flags.append("The notebook names a kernel that isn't Python's.")
    return cells


def _dict(of: dict, key: str) -> dict:
    found = of.get(key)
    return found if isinstance(found, dict) else {}


def _cell(raw: Any, label: str) -> Submitted:
    """Read one cell, of nbformat 2 to 4; raise a ValueError if it's none."""
    if not isinstance(raw, dict):
        raise ValueError("not a cell")
    kind = raw.get("cell_type", "code")
    source = _text(raw.get("source", raw.get("input", "")))
    if len(source) > MOST_SOURCE:
        raise ValueError("too long")
    if kind == "heading":  # nbformat 3
        level = raw.get("level")
        source = f"{'#' * (level if level in range(1, 7) else 1)} {source}"
    elif kind not in ("code", "markdown", "raw", "html"):
        raise ValueError("of no known kind")
    marks = _dict(_dict(raw, "metadata"), "nbgrader")
    outputs = raw.get("outputs")
    return Submitted(
        label,
        kind == "code",
        source,
        *(
            x if isinstance(x, str) else ""
            for x in (raw.get("id"), marks.get("grade_id"))
        ),
        [
            output
            for x in (outputs if isinstance(outputs, list) else [])
            if (output := _output(x))
        ],
    )


def _text(value: Any) -> str:
    """Join what may be a list of lines; drop what no file can hold."""
    if isinstance(value, list):
        value = "".join(x for x in value if isinstance(x, str))
    if isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError("not a text")
    text = value.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    return text.encode("utf-8", "replace").decode()  # no lone surrogates


def _output(raw: Any) -> NotebookNode | None:
    """Keep of a saved output what can be shown safely."""
    try:
        kind = raw["output_type"]
        if kind == "stream":
            text = _text(raw["text"])
            name = "stderr" if raw.get("name") == "stderr" else "stdout"
            return NotebookNode(output_type=kind, name=name, text=text)
        if kind in {"error", "pyerr"}:
            lines = [_text(line) for line in raw["traceback"]]
            ename, evalue = _text(raw["ename"]), _text(raw["evalue"])
            return NotebookNode(
                output_type="error",
                ename=ename,
                evalue=evalue,
                traceback=lines,
            )
        data = {
            kind: {} if kind == WIDGET else _text(value)
            for kind, value in raw["data"].items()
            if kind in SHOWN
        }
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    if SCRIPT.search(data.get(SVG, "")):
        del data[SVG]
    return data and NotebookNode(
        output_type="display_data",
        data=NotebookNode(data),
        metadata=NotebookNode(),
    )


def _size(outputs: list[NotebookNode]) -> int:
    """Count the characters of some outputs."""
    size = 0
    for output in outputs:
        values = [*output.values(), *output.get("data", {}).values()]
        size += sum(len(v) for v in values if isinstance(v, str))
        size += sum(map(len, output.get("traceback", [])))
    return size
