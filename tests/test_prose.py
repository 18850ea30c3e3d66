"""A student's notebook reads well where no Sphinx runs."""

import re

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from autograder.chapters import chapters
from autograder.errors import CourseError
from autograder.prose import in_words

BIB = """
@misc{one, author = {Ada {\\L}ovelace}, title = {Notes}, year = {1843}}
@book{two, author = {Knuth, Donald and Plass, Michael}, title = {Breaking
  {P}aragraphs}, booktitle = {Software}, year = {1981}, note = {doi:10/1}}
@misc{three, author = {A. B. Cee and D. E. Eff and G. Aitch}, title = {Three},
  year = {2020}}
"""


def words(folder, *sources, **code_metadata):
    (folder / "references.bib").write_text(BIB)
    (folder / "09-other.md").write_text("(ch-other)=\n# Another chapter\n")
    cells = [new_markdown_cell(source) for source in sources]
    if code_metadata:
        cells.append(new_code_cell("plot()", metadata=code_metadata))
    notebook = in_words(new_notebook(cells=cells), folder)
    return [cell.source for cell in notebook.cells]


def test_citations_become_names_and_years(tmp_path):
    text, _ = words(tmp_path, "See {cite:p}`one,two`; {cite:t}`three` agree.")
    assert text == (
        "See (Łovelace, 1843; Knuth and Plass, 1981); Cee et al. (2020) agree."
    )


def test_the_references_list_what_is_cited(tmp_path):
    text = words(tmp_path, "{cite:p}`two`")[-1]
    expected = "- Knuth and Plass (1981). *Breaking Paragraphs*. Software. doi"
    assert text.startswith(f"## References\n\n{expected}")
    assert "Notes" not in text


def test_a_citation_of_nothing_is_an_error(tmp_path):
    with pytest.raises(CourseError, match=r"references.bib has no nobody"):
        words(tmp_path, "{cite:p}`nobody`")


def test_references_out_of_the_chapter_become_words(tmp_path):
    texts = words(
        tmp_path,
        "(here)=\n## Here",
        "{ref}`here`, {ref}`ch-other`, {ref}`the next <ch-other>`",
    )
    assert texts[1] == "{ref}`here`, *Another chapter*, the next"


def test_figures_get_a_number_and_their_caption(tmp_path):
    figure = {"figure": {"name": "fig-a", "caption": "What to\n see."}}
    texts = words(tmp_path, "In {numref}`fig-a`:", mystnb=figure)
    assert texts == ["In Figure 1:", "plot()", "*Figure 1.* What to see."]


@pytest.mark.parametrize("chapter", chapters(), ids=lambda c: c.name)
def test_no_role_is_left_that_a_notebook_cannot_resolve(chapter):
    for cell in chapter.for_student().cells:
        if cell.cell_type == "markdown":
            left = re.findall(r"\{(?:cite|numref|doc)[^}]*\}`", cell.source)
            assert not left, f"{chapter.path}: {cell.source}"
