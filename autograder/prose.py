"""Make a chapter's prose readable where Sphinx doesn't run: in a notebook.

JupyterLab (with ``jupyterlab-myst``) renders directives, formulas and
references within a chapter. What needs the whole book is put into words:
citations, references, figure captions, links to other chapters.
"""

import re
from functools import cache
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from pybtex.database import BibliographyData, Entry, parse_file
from pybtex.richtext import Text

from autograder.errors import CourseError

CITATION = re.compile(r"\{cite:(p|t)\}`([^`]+)`")
FIGURE = re.compile(r"\{numref\}`([\w-]+)`")
REFERENCE = re.compile(r"\{ref\}`(?:([^`<]+?)\s*<)?([\w-]+)>?`")
LABEL = re.compile(r"^\(([\w-]+)\)=\n#+ (.+)$", re.MULTILINE)


def in_words(notebook: NotebookNode, book: Path) -> NotebookNode:
    """Put into words what a notebook can't look up.

    Args:
        notebook: a chapter; its cells are changed.
        book: the folder that holds the chapters and ``references.bib``.
    """
    entries = _bibliography(book / "references.bib").entries
    text = "\n".join(c.source for c in notebook.cells)
    own = {label for label, _ in LABEL.findall(text)}
    titles = _titles(book)
    names = [_figure(c)["name"] for c in notebook.cells if _figure(c)]
    cited = sorted({k for _, ks in CITATION.findall(text) for k in _keys(ks)})
    if unknown := [key for key in cited if key not in entries]:
        raise CourseError(
            f"{book / 'references.bib'} has no {', '.join(unknown)}, which a "
            "chapter cites; add it there"
        )

    def refer(match: re.Match) -> str:
        words, label = match.groups()
        if label in own or label not in titles:
            return match.group()
        return words or f"*{titles[label]}*"

    def number(match: re.Match) -> str:
        return f"Figure {names.index(match.group(1)) + 1}"

    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            source = CITATION.sub(lambda m: _cite(m, entries), cell.source)
            cell.source = FIGURE.sub(number, REFERENCE.sub(refer, source))
        elif figure := _figure(cell):
            at = names.index(figure["name"]) + 1
            caption = f"*Figure {at}.* {' '.join(figure['caption'].split())}"
            cells.append(new_markdown_cell(caption, id=f"caption-{at}"))
    if cited:
        text = f"## References\n\n{_list(cited, entries)}"
        cells.append(new_markdown_cell(text, id="references"))
    notebook.cells = cells
    return notebook


def _figure(cell: NotebookNode) -> dict | None:
    return cell.metadata.get("mystnb", {}).get("figure")


def _keys(text: str) -> list[str]:
    return [key.strip() for key in text.split(",")]


def _cite(match: re.Match, entries: dict[str, Entry]) -> str:
    kind, keys = match.groups()
    cited = [
        (_authors(entries[k]), entries[k].fields["year"]) for k in _keys(keys)
    ]
    if kind == "t":
        return ", ".join(f"{who} ({year})" for who, year in cited)
    return "(" + "; ".join(f"{who}, {year}" for who, year in cited) + ")"


def _authors(entry: Entry) -> str:
    names = [_last_name(person) for person in entry.persons["author"]]
    if len(names) > 2:
        return f"{names[0]} et al."
    return " and ".join(names)


def _last_name(person: object) -> str:
    return " ".join(str(part) for part in person.rich_last_names)


def _list(keys: list[str], entries: dict[str, Entry]) -> str:
    lines = []
    for key in keys:
        entry = entries[key]
        title = str(Text.from_latex(entry.fields["title"]))
        where = [entry.fields.get(f) for f in ("booktitle", "journal", "note")]
        where = ". ".join(part for part in where if part)
        year = entry.fields["year"]
        lines.append(
            f"- {_authors(entry)} ({year}). *{title}*. {where}".rstrip()
        )
    return "\n".join(lines)


@cache
def _bibliography(path: Path) -> BibliographyData:
    return parse_file(str(path)) if path.exists() else BibliographyData()


def _titles(book: Path) -> dict[str, str]:
    """Map each label of the book to the heading that it stands on."""
    pages = sorted(book.glob("*.md"))
    return dict(
        found
        for page in pages
        for found in LABEL.findall(page.read_text(encoding="utf-8"))
    )
