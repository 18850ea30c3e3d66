"""Write a student's feedback page, by nbgrader's GenerateFeedback.

The page holds the student's notebook, with the outputs that it was handed in
with, the points, and for each exercise that fell short the sentence that names
the mistake. It holds no line of a hidden check, and needs nothing from the
network.
"""

import glob
import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup as Safe
from markupsafe import escape
from nbconvert.exporters import Exporter
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.api import Gradebook
from nbgrader.converters import GenerateFeedback
from nbgrader.preprocessors import ClearHiddenTests, NbGraderPreprocessor
from nbgrader.utils import is_grade
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from autograder.chapters import Chapter, find
from autograder.course import Course, last_error
from autograder.errors import CourseError
from autograder.grading import Submission
from autograder.markup import Markup

TEMPLATES = Path(__file__).parent / "templates"
HIDDEN = re.compile(r"### BEGIN HIDDEN TESTS\n(.*?)### END HIDDEN", re.DOTALL)
SHORTEST = 12  # characters; a shorter hidden line gives nothing away
LEFT_OUT = "(Left out: this output quotes the code of a check.)"
MOST_LINES, MOST_CHARACTERS = 40, 4_000  # shown of one output
PICTURES = ("image/svg+xml", "image/png", "image/jpeg")
WIDGET = "application/vnd.jupyter.widget-view+json"
DOCSTRING = re.compile(r'"""(.+?)"""', re.DOTALL)
CODE = re.compile(r"`([^`]+)`")


def feedback(submission: Submission) -> Path:
    """Write the page of one graded submission and return where it is.

    Raises:
        CourseError: if nbgrader can't write it.
    """
    course, chapter = submission.course, submission.chapter
    log = course.convert(_Pages, chapter, submission.student)
    page = course.page(chapter, submission.student)
    if log or not page.is_file():
        raise CourseError(
            f"{submission.executed}: nbgrader can't write its feedback "
            f"({last_error(log or 'unknown')}); run grade --all first"
        )
    return page


class _Pages(GenerateFeedback):
    """nbgrader's, for students with any name: ``[1]`` is no pattern."""

    def init_notebooks(self) -> None:
        """Find the graded notebooks of the student."""
        chosen = self.coursedir
        pattern = self._format_source(chosen.assignment_id, chosen.student_id)
        self.assignments = {
            folder: glob.glob(f"{glob.escape(folder)}/*.ipynb")
            for folder in glob.glob(pattern)
        }

    def _format_source(self, *names: str, escape: bool = False) -> str:
        path = super()._format_source(*names, escape=escape)
        return f"(?s){path}" if escape else path  # a pattern: lines, too


class HideChecks(NbGraderPreprocessor):
    """Take hidden checks out of the cells and out of what they printed."""

    def preprocess(
        self, nb: NotebookNode, resources: dict
    ) -> tuple[NotebookNode, dict]:
        """Clear the check cells; of an error, keep the message alone."""
        checks = [cell for cell in nb.cells if is_grade(cell)]
        regions = [r for cell in checks for r in HIDDEN.findall(cell.source)]
        for cell in checks:
            ClearHiddenTests().preprocess_cell(cell, resources, 0)
        visible = "\n".join(cell.source for cell in nb.cells)
        hidden = {
            line.strip()
            for region in regions
            for line in region.splitlines()
            if len(line.strip()) >= SHORTEST and line.strip() not in visible
        }
        for cell in nb.cells:
            if cell.cell_type == "code":
                cell.outputs = [without(hidden, x) for x in cell.outputs]
        return nb, resources


def without(hidden: set[str], output: NotebookNode) -> NotebookNode:
    """Return an output that quotes neither a traceback nor a hidden line."""
    if output.output_type == "error":
        output.evalue = strip_ansi(output.evalue)
        output.traceback = [f"{output.ename}: {output.evalue}".rstrip(": ")]
    values = [*output.values(), *output.get("data", {}).values()]
    text = "\n".join(value for value in values if isinstance(value, str))
    if any(line in text for line in hidden):
        return new_output("stream", text=LEFT_OUT)
    return output


@dataclass(frozen=True)
class Points:
    """What an exercise or a check was given, of what is to be had."""

    name: str
    got: float
    of: float
    comment: str = ""

    @property
    def is_full(self) -> bool:
        """Say whether nothing is missing."""
        return self.got >= self.of

    def __str__(self) -> str:
        return f"{self.got:g} of {self.of:g} points"


@dataclass(frozen=True)
class Shown:
    """One cell of the page; ``html`` is its text or its code."""

    kind: str  # prose, answer, check, code or given
    html: Safe
    name: str = ""
    says: str = ""
    outputs: tuple[dict[str, Any], ...] = ()


class FeedbackPage(Exporter):
    """Export a graded notebook as the student's page."""

    file_extension = ".html"
    output_mimetype = "text/html"

    def from_notebook_node(
        self, nb: NotebookNode, resources: dict | None = None, **kwargs: Any
    ) -> tuple[str, dict]:
        """Return the page; the preprocessors have hidden what they must."""
        nb, resources = super().from_notebook_node(nb, resources, **kwargs)
        of = resources["nbgrader"]
        chapter, student = find(of["assignment"]), of["student"]
        course = Course(Path(self.parent.coursedir.root))
        points = _points(of["db_url"], chapter, student)
        result = course.read_result(chapter, student)
        cells = list(shown(nb))
        page = (
            _environment()
            .get_template("feedback.html.j2")
            .render(
                chapter=chapter,
                student=student,
                total=Points("", of["score"], of["max_score"]),
                late_penalty=of["late_penalty"],
                problem=result.get("problem"),
                flags=result.get("flags", []),
                exercises=[points[e.name] for e in chapter.exercises],
                points=points,
                cells=cells,
                anchors={cell.name for cell in cells},
                light=_colours("a11y-high-contrast-light"),
                dark=_colours("a11y-high-contrast-dark"),
            )
        )
        return page, resources


def shown(notebook: NotebookNode) -> Iterator[Shown]:
    """Turn the cells into what the page shows of them."""
    text = [c.source for c in notebook.cells if c.cell_type == "markdown"]
    markup = Markup(text)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield Shown("prose", Safe(markup.html(cell.source)))
        elif cell.cell_type == "code" and (cell.source or cell.outputs):
            code = highlight(
                cell.source, PythonLexer(), HtmlFormatter(nowrap=True)
            )
            marks = cell.metadata.get("nbgrader", {})
            docstring = DOCSTRING.search(cell.source)
            yield Shown(
                kind=_kind(cell, marks),
                html=Safe(code),
                name=marks.get("grade_id", ""),
                says=docstring[1].partition("\n")[0] if docstring else "",
                outputs=tuple(_outputs(cell)),
            )


def _kind(cell: NotebookNode, marks: dict) -> str:
    if marks.get("grade"):
        return "check"
    if marks.get("solution"):
        return "answer"
    hidden = "hide-input" in cell.metadata.get("tags", [])
    return "given" if hidden or marks.get("locked") else "code"


def _outputs(cell: NotebookNode) -> Iterator[dict[str, Any]]:
    """Yield a cell's outputs as pictures and text; HTML stays out.

    A student's HTML could show anything, or do anything, on this page.
    """
    figure = cell.metadata.get("mystnb", {}).get("image", {})
    for output in cell.outputs:
        data = output.get("data", {})
        picture = next((kind for kind in PICTURES if kind in data), None)
        if output.output_type == "error":
            yield {"error": shortened("\n".join(output.traceback))}
        elif output.output_type == "stream":
            yield {"text": shortened(strip_ansi(output.text))}
        elif picture:
            yield {
                "picture": picture_url(picture, data[picture]),
                "alt": figure.get("alt", "What the code above draws."),
            }
        elif WIDGET in data:
            yield {"text": "(An interactive figure: see your notebook.)"}
        elif "text/plain" in data:
            yield {"text": shortened(strip_ansi(data["text/plain"]))}


def picture_url(kind: str, data: str) -> str:
    """Return a picture as a URL; as such, an SVG runs no script."""
    if kind == "image/svg+xml":
        data = b64encode(data.encode()).decode()
    return f"data:{kind};base64,{data.strip()}"


def shortened(text: str) -> str:
    """Cut a text that nobody would read to its end."""
    lines = text[:MOST_CHARACTERS].splitlines()
    if len(text) <= MOST_CHARACTERS and len(lines) <= MOST_LINES:
        return text
    return "\n".join([*lines[:MOST_LINES], "… (shortened)"])


def in_html(comment: str) -> Safe:
    """Write a comment, a line a paragraph, with code between backticks."""
    marked = CODE.sub(r"<code>\1</code>", str(escape(comment)))
    return Safe("".join(f"<p>{line}</p>" for line in marked.splitlines()))


def _points(db_url: str, chapter: Chapter, student: str) -> dict[str, Points]:
    """Look up every exercise and check in the gradebook."""
    with Gradebook(db_url) as gradebook:
        notebook = gradebook.find_submission_notebook(
            chapter.stem, chapter.name, student
        )
        points = {
            g.name: Points(g.name, g.score, g.max_score)
            for g in notebook.grades
        }
        comments = {c.name: c.comment or "" for c in notebook.comments}
    for exercise in chapter.exercises:
        checks = [points[c.name] for c in exercise.checks if c.name in points]
        points[exercise.name] = Points(
            exercise.name,
            sum(check.got for check in checks),
            sum(check.of for check in checks),
            comments.get(exercise.name, ""),
        )
    return points


def _colours(style: str) -> str:
    """Return the colours of code, without a background."""
    return "\n".join(HtmlFormatter(style=style).get_token_style_defs("pre"))


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True
    )
    environment.filters["in_html"] = in_html
    return environment
