"""Print the built site into one PDF, with an outline.

``make pdf`` runs it. The pages are joined into one, in the order of the table
of contents, and a browser prints it: formulas and figures are the site's,
links between pages become links within the document. What is closed on the
screen is open on paper.
"""

import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

from autograder.browser import MISSING, find_browser, running
from autograder.chapters import ROOT, table_of_contents

NAMED_BY = ("id", "for", "aria-labelledby", "aria-describedby")
FIGURES = "head script[src*='/figures/'], head link[href*='figure.css']"
KEPT = "/_static/figures/", "/_static/page.js"
FOOTER = (
    '<div style="width: 100%; font: 8px sans-serif; text-align: center">'
    '<span class="pageNumber"></span></div>'
)


def pages() -> list[str]:
    """Return the pages of the table of contents, without suffix."""
    toc = table_of_contents()
    parts = [entry for part in toc["parts"] for entry in part["chapters"]]
    return [toc["root"], *(entry["file"] for entry in parts)]


def join(site: Path) -> BeautifulSoup:
    """Return one page that holds the articles of all pages of a site.

    Raises:
        FileNotFoundError: if a page was not built.
    """
    files = [(site / f"{name}.html").resolve() for name in pages()]
    found = [BeautifulSoup(f.read_bytes(), "html.parser") for f in files]
    articles = [soup.select_one("article.bd-article") for soup in found]
    for number, (file, article) in enumerate(
        zip(files, articles, strict=True)
    ):
        for tag in article.find_all(True):
            _rename(tag, number, file, files)
        article["id"] = f"page-{number}"
    whole = found[0]
    for script in whole.select("head script[src]"):  # some know one page only
        if not any(name in script["src"] for name in KEPT):
            script.decompose()
    for soup in found[1:]:
        for extra in soup.select(FIGURES):
            whole.head.append(extra)
    body = whole.new_tag("main", attrs={"class": "printed"})
    body.extend(articles)
    whole.body.clear()
    whole.body.append(body)
    return whole


def _rename(tag: Tag, number: int, file: Path, files: list[Path]) -> None:
    """Make ids unique in the whole, links lead to them, and open boxes."""
    if tag.name == "details":
        tag["open"] = ""
    if "dropdown" in tag.get("class", []):
        tag["class"].remove("dropdown")
    for name in NAMED_BY:
        if tag.has_attr(name):
            ids = tag[name] if isinstance(tag[name], list) else [tag[name]]
            words = " ".join(ids).split()
            tag[name] = " ".join(f"{number}-{word}" for word in words)
    if tag.has_attr("src") and not urlsplit(tag["src"]).scheme:
        tag["src"] = (file.parent / unquote(tag["src"])).resolve().as_uri()
    if tag.name == "a" and tag.has_attr("href"):
        url = urlsplit(tag["href"])
        to = (file.parent / unquote(url.path)).resolve() if url.path else file
        if not url.scheme and to in files:
            place = files.index(to)
            tag["href"] = (
                f"#{place}-{url.fragment}"
                if url.fragment
                else f"#page-{place}"
            )


def print_book(site: Path, pdf: Path) -> None:
    """Print a built site.

    Raises:
        SystemExit: if there is no browser, or nothing to print.
    """
    program = find_browser()
    if program is None:
        sys.exit(f"error: {MISSING}")
    try:
        whole = join(site)
    except FileNotFoundError as error:
        sys.exit(f"error: {error.filename} is missing; run 'make site' first")
    # Beside the first page, whose stylesheets it takes.
    file = (site / f"{pages()[0]}.html").with_name(".printed.html")
    file.write_text(str(whole), encoding="utf-8")
    try:
        with running(program) as browser:
            page = browser.new_page(color_scheme="light")
            page.goto(file.resolve().as_uri(), wait_until="networkidle")
            page.pdf(
                path=pdf,
                format="A4",
                margin=dict.fromkeys(
                    ("top", "bottom", "left", "right"), "18mm"
                ),
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=FOOTER,
                outline=True,
                tagged=True,
                print_background=True,
            )
    finally:
        file.unlink()


if __name__ == "__main__":
    print_book(ROOT / "_build" / "html", ROOT / "_build" / "book.pdf")
    print("The book: _build/book.pdf")
