"""A class is graded: points, comments, feedback pages and the report."""

import re
import shutil
from copy import deepcopy

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell

from autograder import course as course_module
from autograder import engine
from autograder.chapters import chapters, find
from autograder.course import Course
from autograder.errors import CourseError
from autograder.feedback import feedback
from autograder.grading import Submission, grade, submissions
from autograder.misconceptions import catalogue
from autograder.release import release
from autograder.sample_class import (
    MISTAKEN,
    STUDENTS,
    answered,
    mistaken_answers,
    reference_answers,
    sample_class,
)
from tests.browsing import browser
from tests.commands import command
from tests.test_release import kept_back

__all__ = ["browser", "command"]

by_name = pytest.mark.parametrize("chapter", chapters(), ids=lambda c: c.name)
FIRST = chapters()[0]
# Who of the sample class is graded here: more of them in the first chapter.
FEW = ["blank", "mistaken-1"]
MORE = [*FEW, "right", "mistaken-2", "hostile"]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Grade some of the sample class, and one with the reference."""
    made = Course(tmp_path_factory.mktemp("graded"))
    sample_class(made, chapters())
    for chapter in chapters():
        kept = MORE if chapter == FIRST else FEW
        for student in set(STUDENTS) - set(kept):
            shutil.rmtree(made.folder("submitted", chapter, student))
        hand_in(made, chapter, "reference", reference_answers(chapter))
    for submission in submissions(made, chapters()):
        grade(submission)
        feedback(submission)
    return made


def hand_in(course, chapter, student, answers, change=lambda notebook: None):
    """Write somebody's notebook, and return where it is."""
    notebook = answered(course.notebook("release", chapter), answers)
    change(notebook)
    path = course.notebook("submitted", chapter, student)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def points(course, chapter, student):
    """Return what the gradebook says: the total, and the comments."""
    with course.gradebook() as gradebook:
        notebook = gradebook.find_submission_notebook(
            chapter.stem, chapter.name, student
        )
        assert not any(g.needs_manual_grade for g in notebook.grades)
        comments = {c.name: c.comment for c in notebook.comments if c.comment}
        return notebook.score, comments


def page(course, chapter, student):
    html = course.page(chapter, student).read_text(encoding="utf-8")
    return BeautifulSoup(html, "html.parser")


def spaced(text):
    return " ".join(text.split())


@by_name
def test_blank_scores_0_and_the_reference_all(course, chapter):
    score, comments = points(course, chapter, "blank")
    assert score == 0
    assert comments == {
        e.name: f"{e.name} is not written yet." for e in chapter.exercises
    }
    full = (chapter.max_points, {})
    assert points(course, chapter, "reference") == full


def test_right_answers_of_another_kind_score_all(course):
    assert points(course, FIRST, "right") == (FIRST.max_points, {})


@by_name
def test_the_page_names_the_mistake_in_a_sentence(course, chapter):
    told = 0
    for student, wrong in zip(
        MISTAKEN, mistaken_answers(chapter), strict=False
    ):
        if not course.notebook("submitted", chapter, student).exists():
            continue
        exercise = next(iter(wrong))
        score, comments = points(course, chapter, student)
        assert score < chapter.max_points
        mistakes = catalogue(chapter).MISTAKES[exercise]
        mistake = next(m for m in mistakes if isinstance(m.change, dict))
        assert comments.pop(exercise) == mistake.says
        assert all("is right by itself" in c for c in comments.values())
        text = spaced(page(course, chapter, student).get_text())
        assert spaced(mistake.says.replace("`", "")) in text
        note = course.read_result(chapter, student)["note"]
        assert note == f"{exercise}: {mistake.name}"
        told += 1
    assert told


def test_the_hostile_notebook_costs_itself(course):
    score, comments = points(course, FIRST, "hostile")
    assert score == 0
    assert "ended the process" in comments[FIRST.exercises[-1].name]
    problem = course.read_result(FIRST, "hostile")["problem"]
    assert "ended the kernel" in problem
    assert problem in spaced(page(course, FIRST, "hostile").get_text())


@by_name
def test_no_page_quotes_what_is_kept_back(course, chapter):
    secret = kept_back(chapter, [chapter])
    blank = page(course, chapter, "blank").get_text()
    assert {line for line in secret if line in blank} == set()
    hidden = secret - solution_lines(chapter)
    for student in course.students(chapter):
        text = page(course, chapter, student).get_text()
        assert {line for line in hidden if line in text} == set()
        assert "Traceback" not in text
        assert "\x1b" not in text


def solution_lines(chapter):
    answers = "\n".join(reference_answers(chapter).values())
    return {line.strip() for line in answers.splitlines()}


@by_name
def test_the_page_needs_nothing_from_elsewhere(course, chapter):
    for student in course.students(chapter):
        soup = page(course, chapter, student)
        assert not soup.find_all(["script", "link", "iframe", "object"])
        sources = [image["src"] for image in soup.find_all("img")]
        assert all(source.startswith("data:image/") for source in sources)
        assert "@import" not in soup.style.text
        assert "url(" not in soup.style.text
        targets = {element["id"] for element in soup.find_all(id=True)}
        for link in soup.select(".exercises a"):
            assert link["href"].removeprefix("#") in targets
        names = [li.code.text for li in soup.select(".exercises > li")]
        assert names == [exercise.name for exercise in chapter.exercises]
        score, _ = points(course, chapter, student)
        assert soup.select_one(".total strong").text == f"{score:g}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(course, browser, scheme):
    context = browser.new_context(color_scheme=scheme)
    tab = context.new_page()
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.goto(course.page(FIRST, "mistaken-1").as_uri())
    tab.evaluate(
        "document.querySelectorAll('details').forEach(d => d.open = true)"
    )
    found = Axe().run(tab)
    assert found.violations_count == 0, found.generate_report()
    assert said == []
    tab.set_viewport_size({"width": 360, "height": 740})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_grading_again_gives_the_same(course, command):
    ended = command("grade", "--course", course.root)
    assert ended.code == 0
    assert "Graded 0 submissions" in ended.out
    one = Submission(course, FIRST, "mistaken-2")
    before = points(course, FIRST, one.student)
    one.path.write_text(one.path.read_text() + "\n")  # handed in anew
    assert not one.is_graded()
    grade(one)
    assert points(course, FIRST, one.student) == before
    assert one.is_graded()


def test_the_report_has_a_row_for_each_student(course, command):
    ended = command("report", "--course", course.root)
    assert ended.code == 0
    for chapter in chapters():
        assert chapter.title in ended.out
    table = ended.out.partition("What went wrong")[0]
    for student in [*MORE, "reference"]:
        row = re.search(rf"^ *{student} +(.*)$", table, re.MULTILINE)
        score, _ = points(course, FIRST, student)
        assert row[1].split()[-1] == f"{score:g}"


def test_what_can_not_be_executed_never_stops_the_batch(
    command, monkeypatch, tmp_path
):
    monkeypatch.setattr(course_module, "CELL_TIMEOUT", 3)
    monkeypatch.setattr(engine, "EXERCISE_TIMEOUT", 3)
    course, chapter = Course(tmp_path), find("attention")
    release(course, [chapter])
    right = reference_answers(chapter)
    loop = "def attention_backward(*_):\n    while True:\n        pass"

    hand_in(course, chapter, "a-broken", {}).write_text('{"cells": [')
    hand_in(course, chapter, "b-missing", {}).rename(tmp_path / "elsewhere")
    exits = right | {"softmax": "import os\n\nos._exit(3)"}
    hand_in(course, chapter, "c-exits", exits)
    loops = right | {"attention_backward": loop}
    hand_in(course, chapter, "d-loops", loops)
    hand_in(course, chapter, "e-doubled", right, double_a_check)
    hand_in(course, chapter, "nosy 'odd' name", right, print_everything)

    ended = command("grade", "--course", tmp_path)
    assert ended.code == 0
    assert "Graded 6 submissions" in ended.out
    problems = {
        student: course.read_result(chapter, student)["problem"]
        for student in course.students(chapter)
    }
    assert "is not a notebook that can be read" in problems["a-broken"]
    assert problems["b-missing"] == "02-attention.ipynb is missing"
    assert "ended the kernel" in problems["c-exits"]
    for student, problem in problems.items():
        score, comments = points(course, chapter, student)
        if problem:
            assert score == 0
            assert set(comments) == set(right)
            assert "\n" not in problem
            assert student in ended.err
    score, comments = points(course, chapter, "d-loops")
    lost = chapter.exercises[-1]
    assert score == chapter.max_points - lost.max_points
    assert list(comments) == [lost.name]
    assert "endless loop" in comments[lost.name]
    full = (chapter.max_points, {})
    assert points(course, chapter, "nosy 'odd' name") == full

    assert command("feedback", "--course", tmp_path).code == 0
    for student, problem in problems.items():
        text = page(course, chapter, student).get_text()
        assert (problem or "") in spaced(text)
    hidden = kept_back(chapter, [chapter]) - solution_lines(chapter)
    nosy = page(course, chapter, "nosy 'odd' name").get_text()
    assert {line for line in hidden if line in nosy} == set()
    assert "quotes the code of a check" in nosy


def double_a_check(notebook):
    for number, cell in enumerate(notebook.cells):
        if cell.metadata.get("nbgrader", {}).get("grade"):
            notebook.cells.insert(number, deepcopy(cell))
            cell.id = "double"
            return


def print_everything(notebook):
    """Print the code that was executed, and fail within a check."""
    notebook.cells += [
        new_code_cell("for source in In:\n    print(source)"),
        new_code_cell("In"),
        new_code_cell("softmax = None\ntest_softmax_survives_large_scores()"),
    ]


def test_used_wrongly(command, tmp_path):
    for name in ("grade", "feedback", "report"):
        ended = command(name, "attention", "--course", tmp_path / "nowhere")
        assert ended.code == 2
        assert "nothing was handed in" in ended.err
        assert ended.err.count("\n") == 1
    course, chapter = Course(tmp_path), find("attention")
    path = course.notebook("submitted", chapter, "ada")
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    ended = command("grade", "--course", tmp_path)
    assert ended.code == 2
    assert "was not released" in ended.err
    ended = command("feedback", "--course", tmp_path)
    assert ended.code == 2


def test_a_sample_class_never_takes_the_place_of_a_real_one(tmp_path):
    course, chapter = Course(tmp_path), find("attention")
    release(course, [chapter])
    path = hand_in(course, chapter, "ada", {})
    with pytest.raises(CourseError, match="holds the work of ada"):
        sample_class(course, [chapter])
    assert path.exists()
