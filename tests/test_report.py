"""The report says how a class did, at a terminal and on a page."""

import re

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup

from autograder.chapters import find
from autograder.course import Course
from autograder.misconceptions import catalogue
from autograder.release import release
from autograder.report import grades, write_page
from tests.browsing import Watch, browser
from tests.commands import command
from tests.graded import put_grades

__all__ = ["browser", "command"]

CHAPTER = find("attention")
OTHER = find("multihead")
SOFTMAX, SCORES, MASK, ATTENTION, BACKWARD = (
    exercise.name for exercise in CHAPTER.exercises
)
ODD = "<script>alert('x')</script> [bold]O'Neill[/bold]".replace("/", "∕")
FLAG = "a check cell was deleted, and is put back"
PROBLEM = "02-attention.ipynb is not a notebook that can be read"
UNSCALED, TWICE = catalogue(CHAPTER).MISTAKES[SCORES][:2]
# Who solved what, of the five exercises with 6, 6, 4, 6 and 6 points.
SOLVED = {
    "ann": (SOFTMAX, SCORES, MASK, ATTENTION, BACKWARD),
    "bob": (SOFTMAX, MASK),
    "cyd": (SOFTMAX,),
    ODD: (SOFTMAX, SCORES, MASK, ATTENTION),
    "eve": (),
}


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Grade five; a sixth can't be read, a seventh is not graded yet."""
    made = Course(tmp_path_factory.mktemp("report"))
    release(made, [CHAPTER, OTHER])
    diagnoses = {
        "bob": {SCORES: UNSCALED.says},
        "cyd": {SCORES: f"{TWICE.says} {UNSCALED.says}", MASK: "No idea."},
        "eve": {SCORES: UNSCALED.says},
    }
    for student, solved in SOLVED.items():
        put_grades(
            made,
            CHAPTER,
            student,
            solved,
            diagnoses=diagnoses.get(student),
            flags=(FLAG,) if student == "bob" else (),
        )
    put_grades(made, CHAPTER, "fay", problem=PROBLEM)
    made.folder("submitted", CHAPTER, "gus").mkdir(parents=True)
    return made


@pytest.fixture(scope="module")
def page(course):
    """Write the page once, and return where it is."""
    path = course.root / "report" / f"{CHAPTER.name}.html"
    write_page(grades(course, [CHAPTER])[0], path)
    return path


def test_the_terminal_tells_all(course, command):
    ended = command("report", CHAPTER.name, "--course", course.root)
    assert ended.code == 0
    assert re.search(r"^ann +6 +6 +4 +6 +6 +28$", ended.out, re.M)
    assert re.search(r"^bob +6 +0 +4 +0 +0 +10$", ended.out, re.M)
    assert re.search(r"^gus +– +– +– +– +– +–$", ended.out, re.M)
    assert ODD in ended.out
    assert re.search(rf"^{SOFTMAX} +80% ", ended.out, re.M)
    assert re.search(rf"^{BACKWARD} +20% ", ended.out, re.M)
    said = re.escape(UNSCALED.name)
    assert re.search(rf"^{said} +{SCORES} +3$", ended.out, re.M)
    said = re.escape(TWICE.name)
    assert re.search(rf"^{said} +{SCORES} +1$", ended.out, re.M)
    spaced = " ".join(ended.out.split())
    assert f"bob {FLAG}" in spaced
    assert f"fay {PROBLEM}" in spaced
    assert "gus not graded yet" in spaced
    assert f"report/{CHAPTER.name}.html" in ended.out


def test_items_are_analysed_as_the_textbook_has_it(course):
    found = grades(course, [CHAPTER])[0]
    points = np.array(
        [
            [e.max_points * (e.name in solved) for e in CHAPTER.exercises]
            for solved in SOLVED.values()
        ]
    )
    for number, item in enumerate(found.items):
        got = points[:, number]
        rest = points.sum(axis=1) - got
        assert item.difficulty == pytest.approx(got.mean() / item.of)
        expected = np.corrcoef(got, rest)[0, 1]
        assert item.discrimination == pytest.approx(expected)


def test_discrimination_is_left_out_where_it_is_undefined(command, tmp_path):
    course = Course(tmp_path)
    release(course, [CHAPTER])
    put_grades(course, CHAPTER, "one", (SOFTMAX, MASK))
    [item, *_] = grades(course, [CHAPTER])[0].items
    assert (item.difficulty, item.discrimination) == (1, None)
    put_grades(course, CHAPTER, "two", (SOFTMAX,))
    ended = command("report", CHAPTER.name, "--course", tmp_path)
    assert re.search(rf"^{SOFTMAX} +100% +n/a$", ended.out, re.M)


def test_every_total_is_in_one_bar(course):
    found = grades(course, [CHAPTER])[0]
    bars = found.distribution
    assert sum(bar.count for bar in bars) == len(SOLVED) + 1
    of = {bar.low: bar.count for bar in bars}
    assert of[28] == 1  # full points have a bar of their own
    assert of[0] == 2  # eve, and fay's notebook
    assert of[22] == of[10] == of[6] == 1


def test_the_page_holds_all_and_needs_nothing(page):
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    assert not soup.find_all(["script", "link", "img", "iframe", "object"])
    assert "url(" not in soup.style.text
    assert "@import" not in soup.style.text
    assert soup.h1.text == CHAPTER.title
    rows = {
        row.th.text: [cell.text for cell in row.find_all("td")]
        for row in soup.select("tbody tr")
    }
    assert rows["ann"] == ["6", "6", "4", "6", "6", "28"]
    assert rows[ODD] == ["6", "6", "4", "6", "0", "22"]
    assert rows["gus"] == ["–"] * 6
    text = " ".join(soup.get_text().split())
    for said in (PROBLEM, FLAG, "not graded yet"):
        assert said in text
    first, second = soup.select(".mistakes > li")
    assert UNSCALED.name in first.text
    assert "3 students" in first.text
    assert first.select_one(".who").text == "bob, cyd, eve"
    assert TWICE.name in second.text
    solved = [item.dd.text.strip() for item in soup.select(".items > li")]
    assert solved == ["80 %", "40 %", "60 %", "40 %", "20 %"]


def test_every_picture_has_words(page):
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    histogram = soup.select_one("svg.histogram")
    assert "From 28 points: 1 student." in histogram["aria-label"]
    assert "From 0 points: 2 students." in histogram["aria-label"]
    for bar in soup.select("svg.bar"):  # a number stands beside each
        assert bar["aria-hidden"] == "true"
        assert re.search(r"\d", bar.find_parent(["dd", "summary"]).text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible_and_fits_a_phone(page, browser, scheme):
    context = browser.new_context(color_scheme=scheme)
    tab = context.new_page()
    watch = Watch(tab)
    tab.goto(page.as_uri())
    tab.evaluate(
        "document.querySelectorAll('details').forEach(d => d.open = true)"
    )
    found = Axe().run(tab)
    assert found.violations_count == 0, found.generate_report()
    tab.set_viewport_size({"width": 360, "height": 740})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert watch.problems == []
    context.close()


def test_nothing_graded_yet_is_a_report_too(command, tmp_path):
    course = Course(tmp_path)
    release(course, [CHAPTER])
    course.folder("submitted", CHAPTER, "ann").mkdir(parents=True)
    page = tmp_path / "elsewhere" / "page.html"
    ended = command("report", "--course", tmp_path, "--html", page)
    assert ended.code == 0
    assert "ann" in BeautifulSoup(page.read_text(), "html.parser").table.text


def test_a_file_is_for_one_chapter(course, command, tmp_path):
    put_grades(course, OTHER, "ann")
    page = tmp_path / "page.html"
    ended = command("report", "--course", course.root, "--html", page)
    assert ended.code == 2
    assert "name one chapter" in ended.err


def test_no_submissions_is_said_in_a_line(command, tmp_path):
    ended = command("report", "--course", tmp_path)
    assert ended.code == 2
    assert "nothing was handed in" in ended.err
