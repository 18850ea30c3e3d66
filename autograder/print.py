"""Print the whole book, as one page of HTML, into a PDF with an outline.

``make pdf`` runs it: a browser does the printing, so that formulas and figures
are those of the site. What is closed on the screen is open on paper.
"""

import sys
from pathlib import Path

from autograder.browser import MISSING, find_browser, running

OPEN_ALL = """() => {
  for (const box of document.querySelectorAll("details")) box.open = true;
  for (const box of document.querySelectorAll(".toggle-hidden"))
    box.classList.remove("toggle-hidden");
}"""
FOOTER = (
    '<div style="width: 100%; font: 8px sans-serif; text-align: center">'
    '<span class="pageNumber"></span></div>'
)


def print_book(page: Path, pdf: Path) -> None:
    """Print one page of HTML.

    Raises:
        SystemExit: if there is no browser, or nothing to print.
    """
    program = find_browser()
    if program is None:
        sys.exit(f"error: {MISSING}")
    if not page.is_file():
        sys.exit(f"error: {page} is missing; 'make pdf' builds it")
    with running(program) as browser:
        opened = browser.new_page(color_scheme="light")
        opened.goto(page.resolve().as_uri(), wait_until="networkidle")
        opened.evaluate(OPEN_ALL)
        opened.pdf(
            path=pdf,
            format="A4",
            margin=dict.fromkeys(("top", "bottom", "left", "right"), "18mm"),
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            outline=True,
            tagged=True,
            print_background=True,
        )


if __name__ == "__main__":
    print_book(Path("_build/singlehtml/index.html"), Path("_build/book.pdf"))
    print("The book: _build/book.pdf")
