"""A student's whole way, in a real JupyterLab, from fetching to feedback."""

import getpass
import json
import re
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from autograder.chapters import ROOT, find
from autograder.course import COURSE_ID, Course
from autograder.misconceptions import catalogue
from autograder.release import release
from autograder.sample_class import mistaken_answers
from tests.browsing import Watch, browser
from tests.commands import command
from tests.jupyter import TOKEN, serving
from tests.test_release import nbgrader

__all__ = ["browser", "command"]

CHAPTER = find("attention")
FIRST = CHAPTER.exercises[0]
STUDENT = getpass.getuser()
MISTAKE = catalogue(CHAPTER).MISTAKES[FIRST.name][0]
CONFIG = """
c = get_config()
c.Exchange.root = {exchange!r}
c.CourseDirectory.course_id = {course!r}
"""
PATIENCE = 60_000  # ms; a kernel has to start, and to import PyTorch
DONE = re.compile(r"\[\d+\]:")  # the number of a cell that was run
# JupyterLab would ask whether it may fetch news.
NO_NEWS = "@jupyterlab/apputils-extension/notification.jupyterlab-settings"


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Course:
    """Release a chapter to an exchange, as the guide says."""
    made = Course(tmp_path_factory.mktemp("lab") / "course")
    release(made, [CHAPTER])
    exchange = made.root.parent / "exchange"
    exchange.mkdir()
    exchange.chmod(0o777)
    config = made.root / ".jupyter" / "nbgrader_config.py"
    config.parent.mkdir()
    config.write_text(CONFIG.format(exchange=str(exchange), course=COURSE_ID))
    nbgrader(made, "release_assignment", CHAPTER.name)
    return made


@pytest.fixture(scope="module")
def home(course) -> Path:
    """Return the student's folder."""
    folder = course.root.parent / "home"
    folder.mkdir()
    settings = folder / "settings" / NO_NEWS
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"fetchNews": "false"}))
    return folder


@pytest.fixture(scope="module")
def lab(course, home) -> str:
    """Start JupyterLab as a student would."""
    with serving(
        "lab",
        cwd=home,
        scratch=course.root.parent / "scratch",
        JUPYTER_CONFIG_DIR=str(course.root / ".jupyter"),
        JUPYTERLAB_SETTINGS_DIR=str(home / "settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(home / "workspaces"),
    ) as address:
        yield address


@pytest.fixture
def page(browser, lab) -> Page:
    """Open the lab, and block what leaves the machine."""
    context = browser.new_context(
        base_url=lab, viewport={"width": 1300, "height": 1000}
    )
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    watch = Watch(opened)
    opened.goto(f"/lab?token={TOKEN}")
    yield opened
    away = [x for x in watch.problems if x.startswith(("error", "leaves"))]
    assert away == []
    context.close()


def assignments(page: Page) -> None:
    """Open nbgrader's list of assignments."""
    page.get_by_role("menuitem", name="Nbgrader").click()
    page.get_by_role("menuitem", name="Assignment List").click()


def cell(page: Page, text: str) -> Locator:
    """Find the cell of code that holds a text."""
    return page.locator(".jp-Notebook .jp-CodeCell").filter(has_text=text)


def write(page: Page, code: str, place: Locator) -> None:
    """Type over what stands in a cell."""
    place.locator(".cm-content").click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(code)


def run(page: Page, place: Locator) -> Locator:
    """Run a cell; return what it puts out, once it is done."""
    prompt = place.locator(".jp-InputPrompt")
    before = prompt.inner_text()
    place.locator(".cm-content").click()
    page.keyboard.press("ControlOrMeta+Enter")
    expect(prompt).not_to_have_text(before, timeout=PATIENCE)
    expect(prompt).to_have_text(DONE, timeout=PATIENCE)
    return place.locator(".jp-OutputArea-output")


def save(page: Page) -> None:
    """Save the notebook, and wait until it is."""
    with page.expect_response(
        lambda r: r.request.method == "PUT" and "/api/contents" in r.url
    ):
        page.keyboard.press("ControlOrMeta+s")


def test_from_fetching_to_feedback(page, course, home, command):
    # Fetch
    assignments(page)
    page.get_by_role("button", name="Fetch", exact=True).click()
    page.get_by_role("button", name="Submit").wait_for()
    notebook = home / CHAPTER.name / f"{CHAPTER.stem}.ipynb"
    assert notebook.is_file()

    # Solve, wrongly: the check under the exercise says what is wrong.
    page.goto(f"/lab/tree/{CHAPTER.name}/{CHAPTER.stem}.ipynb")
    answer = cell(page, f"def {FIRST.name}(")
    wrong = next(mistaken_answers(CHAPTER))[FIRST.name]
    write(page, wrong, answer)
    run(page, answer)
    run(page, cell(page, "from contextlab import figures"))
    check = cell(page, f"def {MISTAKE.caught_by}(")
    said = run(page, check)
    expect(said).to_contain_text("AssertionError")

    # The course's own grader names the mistake.
    save(page)
    page.keyboard.press("Escape")
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    check_all = f"-m autograder check {CHAPTER.name}"
    page.keyboard.insert_text(
        f"!cd {ROOT} && {sys.executable} {check_all} {notebook}"
    )
    asked = cell(page, check_all)
    said = " ".join(run(page, asked).inner_text().split())
    assert MISTAKE.says[:60] in said
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    page.keyboard.press("d")
    expect(asked).to_have_count(0)

    # Validate, submit
    save(page)
    page.get_by_role("button", name="Validate").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("failed", timeout=PATIENCE)
    dialog.get_by_role("button", name="OK").click()
    assignments(page)
    page.get_by_role("button", name="Submit").click()
    feedback = page.get_by_role("button", name="Fetch Feedback")
    feedback.wait_for(state="attached")

    # Grade
    nbgrader(course, "collect", CHAPTER.name)
    graded = command("grade", CHAPTER.name, "--course", course.root)
    assert graded.code == 0
    assert f"{STUDENT} " in graded.out
    command("feedback", CHAPTER.name, "--course", course.root)
    nbgrader(course, "release_feedback", CHAPTER.name)

    # Read
    page.reload()
    assignments(page)
    page.get_by_role("button", name="Fetch Feedback").click()
    page.get_by_text("(view feedback)").wait_for()
    (read,) = home.glob(f"{CHAPTER.name}/feedback/*/{CHAPTER.stem}.html")
    page.goto(f"/lab/tree/{read.relative_to(home)}")
    shown = page.frame_locator(".jp-HTMLViewer iframe").locator("body")
    expect(shown).to_contain_text(MISTAKE.says[:60], timeout=PATIENCE)
