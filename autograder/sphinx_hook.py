"""Tell Sphinx how to read a chapter, and what its readers download."""

import os
from pathlib import Path
from types import ModuleType

import jupytext
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from autograder import publish
from autograder.chapters import (
    MYST,
    ROOT,
    Chapter,
    chapters,
    without_markers,
)
from autograder.errors import CourseError
from autograder.excerpts import Module
from autograder.misconceptions import catalogue
from autograder.syllabus import ChapterEntry, Course, CourseMap


class Reference(SphinxDirective):
    """``{reference} attention.softmax``: the answer, without its markers."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the code of the reference as a literal block."""
        module, _, name = self.arguments[0].partition(".")
        try:
            code = Module(ROOT / "solutions" / f"{module}.py").code(name)
        except CourseError as error:
            raise self.error(str(error)) from None
        code = without_markers(code)
        return [nodes.literal_block(code, code, language="python")]


class Mistakes(SphinxDirective):
    """``{mistakes}``: the known mistakes of every chapter, as tables."""

    def run(self) -> list[nodes.Node]:
        """Return a heading and a table for each chapter."""
        block = nodes.container(classes=["mistakes"])
        for chapter in chapters():
            book = catalogue(chapter)
            self.env.note_dependency(book.__file__)
            lines = StringList(_table(chapter, book), source=book.__file__)
            self.state.nested_parse(lines, self.content_offset, block)
        return [block]


def _table(chapter: Chapter, book: ModuleType) -> list[str]:
    rows = [
        f"| `{exercise}` | {mistake.name} | {mistake.says} |"
        for exercise, mistakes in book.MISTAKES.items()
        for mistake in mistakes
    ]
    return [
        f"**{chapter.title}**: {len(rows)} mistakes",
        "",
        "| Exercise | Mistake | What the grader says |",
        "| --- | --- | --- |",
        *rows,
        "",
    ]


def fill_chapter(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace prose that names code by its page, code and all."""
    chapter = Chapter(Path(app.env.doc2path(docname)).resolve())
    if not chapter.names_code:
        return
    try:
        for path in chapter.sources:
            app.env.note_dependency(str(path))
        source[0] = jupytext.writes(chapter.for_page(), fmt=MYST)
    except CourseError as error:
        raise ExtensionError(str(error)) from None


def offer_student_notebook(app: Sphinx, exception: Exception | None) -> None:
    """Write the student's notebooks, and all of them with what they need.

    The download buttons point there. Jupyter Book would offer the executed
    pages, reference answers included.
    """
    if exception or app.builder.format != "html":
        return
    found = ((name, _chapter(app, name)) for name in app.env.found_docs)
    written = [(name, chapter) for name, chapter in found if chapter]
    publish.write(Path(app.outdir), sorted(written), app.config.repository)


def _chapter(app: Sphinx, docname: str) -> Chapter | None:
    path = Path(app.env.doc2path(docname)).resolve()
    return next((c for c in chapters() if c.path == path), None)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives and the two hooks."""
    os.environ["CONTEXTLAB_PAGE"] = "1"  # the kernels of the page inherit it
    app.add_config_value("repository", publish.repository(), "html")
    app.add_directive("reference", Reference)
    app.add_directive("mistakes", Mistakes)
    app.add_directive("course", Course)
    app.add_directive("course-map", CourseMap)
    app.add_directive("chapter-entry", ChapterEntry)
    app.connect("source-read", fill_chapter)
    app.connect("build-finished", offer_student_notebook)
    return {"parallel_read_safe": True}
