"""The built site in a real browser, with every way to the network closed."""

import functools
import gzip
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit
from zipfile import ZipFile

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from filelock import FileLock
from playwright.sync_api import Browser, Page

from autograder.chapters import ROOT, Chapter, chapters
from autograder.print import join, pages
from tests.browsing import Watch, browser, serve
from tests.test_release import kept_back

__all__ = ["browser"]

DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}
# In the dark only the colours differ.
AXE = {"light": None, "dark": {"runOnly": ["color-contrast"]}}
MOST_BYTES = 1_500_000  # that a reader loads for one page, fonts included


PAGES = pages()
WRITTEN = [c for c in chapters() if f"book/{c.stem}" in PAGES]


@pytest.fixture(scope="session")
def site() -> Path:
    """Return the folder of the built site; build it as ``make site`` does."""
    if built := os.environ.get("SITE"):
        return Path(built).resolve()
    command = Path(sys.executable).with_name("jupyter-book")
    ROOT.joinpath("_build").mkdir(exist_ok=True)
    with FileLock(ROOT / "_build/site.lock"):  # several workers may ask
        done = subprocess.run(
            [command, "build", "-n", "-W", "."],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return ROOT / "_build" / "html"


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Serve the site and return its address."""
    yield from serve(site)


Opener = Callable[..., tuple[Page, Watch]]


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Opener]:
    """Return a function that opens a page of the site and watches it."""
    with opener(browser, address) as opening:
        yield opening


@contextmanager
def opener(browser: Browser, base: str) -> Iterator[Opener]:
    """Open pages below ``base``, and close them at the end."""
    contexts = []

    def open_one(
        path: str, theme: str = "light", size: dict | None = None, **options
    ) -> tuple[Page, Watch]:
        context = browser.new_context(
            viewport=size or DESKTOP,
            color_scheme=theme,
            reduced_motion="reduce",
            **options,
        )
        contexts.append(context)
        page = context.new_page()
        watch = Watch(page)
        page.goto(base + path)
        return page, watch

    yield open_one
    for context in contexts:
        context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("path", [*PAGES, "search"])
def test_page_is_local_silent_and_accessible(
    open_page: Opener, path: str, theme: str
) -> None:
    page, watch = open_page(f"{path}.html", theme)
    assert page.locator("html").get_attribute("data-theme") == theme
    assert not watch.problems, "\n".join(watch.problems)
    violations = Axe().run(page, options=AXE[theme]).response["violations"]
    found = [
        f"{v['id']}: {node['html'][:160]} {node['failureSummary']}"
        for v in violations
        for node in v["nodes"][:3]
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", PAGES)
def test_page_fits_a_phone(open_page: Opener, path: str) -> None:
    page, watch = open_page(f"{path}.html", size=PHONE)
    too_wide = page.evaluate(
        """() => [...document.querySelectorAll("main *")]
            .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
            .slice(0, 5).map((e) => e.outerHTML.slice(0, 120))"""
    )
    overflow = "document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(overflow) <= 0, "\n".join(too_wide)
    assert not watch.problems


@pytest.mark.parametrize("path", PAGES)
def test_page_is_complete_and_light(
    open_page: Opener, site: Path, path: str
) -> None:
    page, _ = open_page(f"{path}.html")
    nameless = page.locator("main img:not([alt]), main img[alt='']")
    assert nameless.count() == 0, nameless.first.evaluate("e => e.outerHTML")
    text = page.locator("main article").inner_text()
    raw = re.findall(r"\\\(|\\\[|\$\$|\\(?:frac|operatorname|text)\b", text)
    assert not raw, f"raw TeX on the page: {raw}"
    assert page.locator(".math-error").count() == 0
    loaded = page.evaluate(
        """() => [location, ...performance.getEntriesByType("resource")
            .map((entry) => new URL(entry.name))].map((url) => url.pathname)"""
    )
    assert sum(weight(site, name) for name in set(loaded)) <= MOST_BYTES


def weight(site: Path, name: str) -> int:
    """Return the bytes of a file as a web host sends it: text is gzipped."""
    content = site.joinpath(name.lstrip("/")).read_bytes()
    is_text = name.endswith((".html", ".css", ".js", ".svg"))
    return len(gzip.compress(content) if is_text else content)


@pytest.mark.parametrize("chapter", WRITTEN, ids=lambda chapter: chapter.name)
def test_chapter_has_the_number_of_its_file(
    open_page: Opener, chapter: Chapter
) -> None:
    page, _ = open_page(f"book/{chapter.stem}.html")
    number = f"{int(chapter.stem[:2])}."
    heading = page.get_by_role("heading", level=1)
    assert heading.inner_text().startswith(number)
    captions = page.locator("figcaption .caption-number").all_inner_texts()
    assert all(number in caption for caption in captions)


@pytest.mark.parametrize("path", PAGES)
def test_page_opens_from_a_file(
    browser: Browser, site: Path, path: str
) -> None:
    with opener(browser, site.as_uri() + "/") as open_file:
        page, watch = open_file(f"{path}.html")
        figures = page.locator(".contextlab-figure")
        assert figures.locator(".cw-sentence").count() == figures.count()
        assert not watch.problems


@pytest.mark.parametrize("chapter", WRITTEN, ids=lambda chapter: chapter.name)
def test_download_is_the_students_notebook(
    open_page: Opener, chapter: Chapter
) -> None:
    page, _ = open_page(f"book/{chapter.stem}.html")
    with page.expect_download() as download:
        page.evaluate(  # a click downloads only what the browser can't show
            """() => {
                const link = document.querySelector(".btn-download-notebook");
                link.download = "";
                link.removeAttribute("target");
                link.click();
            }"""
        )
    path = download.value.path()
    assert download.value.suggested_filename == f"{chapter.stem}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    lines = [line for c in notebook.cells for line in c.source.splitlines()]
    stubs = sum("raise NotImplementedError" in line for line in lines)
    assert stubs >= len(chapter.exercises)
    assert not [line for line in lines if "### BEGIN" in line]
    assert not kept_back(chapter, [chapter]) & {line.strip() for line in lines}


def test_jupyterlab_opens_a_notebook_of_the_download(
    open_page: Opener, site: Path
) -> None:
    with ZipFile(site / "_sources/student-bundle.zip") as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    for chapter in WRITTEN:
        page, _ = open_page(f"book/{chapter.stem}.html")
        link = page.locator(".btn-open-in-jupyterlab")
        url = link.get_attribute("href")
        assert url.startswith("http://localhost:8888/lab/tree/")
        assert url.rpartition("/")[2] in names


@pytest.mark.parametrize("path", [*PAGES, "search", "genindex"])
def test_every_link_within_the_site_leads_somewhere(
    site: Path, path: str
) -> None:
    soup = parsed(site / f"{path}.html")
    broken = []
    for link in soup.find_all("a", href=True):
        url = urlsplit(link["href"])
        if url.scheme or url.netloc:
            continue
        file = site / path
        if url.path:
            file = file.parent / unquote(url.path)
        else:
            file = file.with_name(f"{file.name}.html")
        ids = anchors(file.resolve()) if file.suffix == ".html" else set()
        if not file.is_file() or (url.fragment and url.fragment not in ids):
            broken.append(link["href"])
    assert not broken


@functools.cache
def parsed(file: Path) -> BeautifulSoup:
    """Parse a page, once."""
    return BeautifulSoup(file.read_bytes(), "html.parser")


@functools.cache
def anchors(file: Path) -> set[str]:
    """Return what a link to a page may name."""
    if not file.is_file():
        return set()
    return {tag["id"] for tag in parsed(file).find_all(id=True)}


def test_the_printed_book_is_whole(browser: Browser, site: Path) -> None:
    """All pages in one: ids are unique, links lead on, no code is cut."""
    whole = join(site)
    ids = [tag["id"] for tag in whole.find_all(id=True)]
    assert len(ids) == len(set(ids))
    inner = {a["href"] for a in whole.select("a[href^='#']")}
    assert inner <= {f"#{name}" for name in ids}
    assert not whole.select(".dropdown, details:not([open])")
    file = site / "book" / ".printed-test.html"
    file.write_text(str(whole), encoding="utf-8")
    try:
        # A4 within its margins, in CSS pixels
        page = browser.new_page(viewport={"width": 658, "height": 940})
        page.emulate_media(media="print")
        page.goto(file.as_uri())
        cut = page.evaluate(
            """() => [...document.querySelectorAll("pre, figure, img")]
                .filter((e) => e.getBoundingClientRect().right > 660
                    || e.scrollWidth > e.clientWidth + 1 && e.matches("pre"))
                .slice(0, 5).map((e) => e.outerHTML.slice(0, 200))"""
        )
        page.close()
    finally:
        file.unlink()
    assert not cut, "\n".join(cut)


def test_what_has_a_number_has_a_link(site: Path) -> None:
    for chapter in WRITTEN:
        soup = parsed(site / f"book/{chapter.stem}.html")
        numbered = soup.select(
            ".exercise > .admonition-title, h1, h2, figcaption p"
        )
        for tag in numbered:
            if tag.select(".caption-number, .section-number"):
                assert tag.select("a.headerlink"), tag.get_text()


def test_a_chapter_says_when_it_was_computed(open_page: Opener) -> None:
    for chapter in WRITTEN:
        page, _ = open_page(f"book/{chapter.stem}.html")
        foot = page.locator(".computed").inner_text()
        assert re.search(r"ran on \d\d \w+ 20\d\d, in \d+ s", foot), foot
        assert f"PyTorch {version('torch')}" in foot


def test_all_notebooks_come_with_what_they_need(open_page: Opener) -> None:
    page, _ = open_page("book/index.html")
    with page.expect_download() as download:
        page.get_by_role("link", name="the notebooks").click()
    with ZipFile(download.value.path()) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    assert {f"{chapter.stem}.ipynb" for chapter in WRITTEN} < names
    assert {"requirements.txt", "contextlab/checks.py"} < names


def test_there_is_one_search_field_and_it_finds(open_page: Opener) -> None:
    page, watch = open_page(f"{PAGES[0]}.html")
    fields = page.locator(".bd-sidebar-primary .search-button-field")
    assert fields.count() == 1
    fields.first.click()
    page.keyboard.type("softmax")
    page.keyboard.press("Enter")
    result = page.locator("ul.search li a", has_text="Attention").first
    result.wait_for(timeout=10_000)
    page.wait_for_load_state("networkidle")  # it fetches what it quotes
    result.click()
    page.wait_for_url("**/02-attention.html**")
    assert not watch.problems


def test_search_works_from_a_file(browser: Browser, site: Path) -> None:
    with opener(browser, site.as_uri() + "/") as open_file:
        page, watch = open_file("search.html?q=softmax")
        page.locator("ul.search li a").first.wait_for(timeout=10_000)
        assert not watch.problems


def test_explorer_by_mouse_and_keyboard(open_page: Opener) -> None:
    page, watch = open_page(f"{PAGES[0]}.html")
    figure = page.locator("[data-widget=attention_explorer]").first
    said = figure.get_by_role("status")
    assert said.inner_text().startswith("“it” attends to “trophy” 75")
    figure.locator(".cw-token", has_text="big").click()
    assert said.inner_text().startswith("“big” attends to")
    page.keyboard.press("ArrowLeft")
    assert said.inner_text().startswith("“too” attends to")
    assert figure.get_by_role("radio", checked=True).count() == 1
    figure.get_by_label("Hide the future").check()
    assert "“big”" not in said.inner_text()
    figure.get_by_role("button", name="not scaled").click()
    slider = figure.get_by_role("slider")
    assert slider.get_attribute("aria-valuetext") == "1"
    slider.press("End")
    assert slider.get_attribute("aria-valuetext") == "4"
    assert not watch.problems


def test_page_reads_without_a_script(open_page: Opener) -> None:
    page, _ = open_page(f"{PAGES[0]}.html", java_script_enabled=False)
    assert "trophy" in page.locator(".contextlab-figure table").inner_text()


def test_links_within_the_site_lead_somewhere(site: Path) -> None:
    for path in PAGES:
        page = site / f"{path}.html"
        html = page.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^"#?:]+)["#?]', html):
            assert (page.parent / link).exists(), f"{path}: {link}"
