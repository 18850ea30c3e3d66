"""nbgrader's formgrader opens on a graded course, in a real browser."""

import re
import shutil

import pytest
from playwright.sync_api import expect

from autograder.chapters import ROOT, find
from autograder.course import Course
from autograder.release import release
from tests.browsing import Watch, browser
from tests.commands import command
from tests.graded import put_grades
from tests.jupyter import TOKEN, serving

__all__ = ["browser", "command"]

CHAPTER = find("attention")
SAYS = "You divide by D, not by its root."
# nbgrader's page asks a server on the network for MathJax, version 2.
MATHJAX = re.compile(r"https://cdnjs\.cloudflare\.com/ajax/libs/mathjax/.*")
NO_MATHJAX = """window.MathJax = new Proxy(() => {}, {
    get: (target, name, all) => all
});"""


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    made = Course(tmp_path_factory.mktemp("formgrader") / "course")
    release(made, [CHAPTER])
    put_grades(
        made,
        CHAPTER,
        "ada",
        ("softmax", "causal_mask"),
        diagnoses={"attention_scores": SAYS},
        first_name="Ada",
        last_name="Lovelace",
    )
    executed = made.notebook("autograded", CHAPTER, "ada")
    executed.parent.mkdir(parents=True)
    shutil.copy(made.notebook("source", CHAPTER), executed)
    return made


@pytest.fixture(scope="module")
def server(course, tmp_path_factory):
    """Start Jupyter's server as a teacher would, on the course."""
    with serving(
        "server",
        f"--ServerApp.root_dir={course.root.parent}",
        f"--CourseDirectory.root={course.root}",
        cwd=ROOT,
        scratch=tmp_path_factory.mktemp("jupyter") / "scratch",
    ) as address:
        yield address


@pytest.fixture
def tab(browser, server):
    """Open a page that is logged in, and must have nothing to complain of."""
    context = browser.new_context(base_url=server)
    page = context.new_page()
    watch = Watch(page)
    page.route(MATHJAX, lambda route: route.fulfill(body=NO_MATHJAX))
    page.goto(f"/formgrader?token={TOKEN}")
    yield page
    assert watch.problems == []
    context.close()


def test_a_score_given_by_hand_is_in_the_report(tab, course, command):
    row = tab.get_by_role("row").filter(has_text=CHAPTER.name)
    expect(row.locator(".num-submissions")).to_have_text("1")

    tab.goto(f"/formgrader/gradebook/{CHAPTER.name}/{CHAPTER.stem}")
    row = tab.get_by_role("row").filter(has_text="Submission #1")
    expect(row).to_contain_text(f"10 / {CHAPTER.max_points}")
    row.get_by_role("link").first.click()

    score = tab.locator("#test_scores_by_hand")
    expect(score).to_have_attribute("placeholder", "0")
    full = tab.locator("#test_softmax_makes_distributions")
    expect(full).to_have_attribute("placeholder", "2")
    comment = tab.locator("#attention_scores-comment")
    expect(comment).to_have_attribute("placeholder", SAYS)

    with tab.expect_response(
        lambda r: "/api/grade/" in r.url and r.request.method == "PUT"
    ):
        score.fill("1.5")
        score.press("Tab")
    report = command("report", CHAPTER.name, "--course", course.root)
    assert re.search(r"^ada +6 +1\.5 +4 +0 +0 +11\.5$", report.out, re.M)
