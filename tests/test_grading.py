"""A class is graded: points, comments, feedback pages and the report."""

import html
import re
import shutil
from copy import deepcopy

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell

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
from tests.test_release import kept_back, nbgrader

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
    grade(made, chapters(), workers=2)
    for submission in submissions(made, chapters()):
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
        assert comments == {}  # one mistake costs one exercise
        text = spaced(page(course, chapter, student).get_text())
        assert spaced(mistake.says.replace("`", "")) in text
        note = course.read_result(chapter, student)["note"]
        assert note == f"{exercise}: {mistake.name}"
        told += 1
    assert told


def test_the_hostile_notebook_costs_one_exercise(course):
    last = FIRST.exercises[-1]
    score, comments = points(course, FIRST, "hostile")
    assert score == FIRST.max_points - last.max_points
    assert list(comments) == [last.name]
    assert "ended the process" in comments[last.name]
    text = spaced(page(course, FIRST, "hostile").get_text())
    assert spaced(comments[last.name]) in text
    flags = course.read_result(FIRST, "hostile")["flags"]
    for says, check in [
        ("Deleted", FIRST.exercises[0].checks[0]),
        ("Edited", last.checks[0]),
    ]:
        assert [f for f in flags if says in f and check.name in f]
    assert all(spaced(flag) in text for flag in flags)


@by_name
def test_no_page_quotes_what_is_kept_back(course, chapter):
    """Neither where it is seen nor where it isn't, as in a comment."""
    secret = kept_back(chapter, [chapter])
    blank = course.page(chapter, "blank")
    assert quoted(secret, blank) == set()
    hidden = secret - solution_lines(chapter)
    for student in course.students(chapter):
        assert quoted(hidden, course.page(chapter, student)) == set()
        text = page(course, chapter, student).get_text()
        assert "Traceback" not in text
        assert "\x1b" not in text


def test_plain_nbgrader_writes_the_same_feedback(course):
    path = course.page(FIRST, "mistaken-1")
    ours = path.read_text(encoding="utf-8")
    path.unlink()
    nbgrader(
        course,
        "generate_feedback",
        FIRST.name,
        "--student=mistaken-1",
        "--force",
    )
    assert path.read_text(encoding="utf-8") == ours


def quoted(lines, path):
    """Return those of some lines that stand anywhere in a page's source."""
    source = html.unescape(path.read_text(encoding="utf-8"))
    text = source + page_text(source)
    return {line for line in lines if line in text}


def page_text(source):
    return BeautifulSoup(source, "html.parser").get_text()


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
    tab.goto(course.page(FIRST, "hostile").as_uri())
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
    path, _ = one.find()
    path.write_text(path.read_text() + "\n")  # handed in anew
    assert not one.is_graded()
    assert grade(course, [FIRST]).total == 1
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


def test_what_goes_wrong_costs_itself(command, tmp_path):
    course, chapter = Course(tmp_path), find("attention")
    release(course, [chapter])
    right = reference_answers(chapter)

    hand_in(course, chapter, "a-broken", {}).write_text('{"cells": [')
    hand_in(course, chapter, "b-missing", {}).rename(tmp_path / "elsewhere")
    exits = right | {"softmax": "import os\n\nos._exit(3)"}
    hand_in(course, chapter, "c-exits", exits)
    hand_in(course, chapter, "d-doubled", right, double_a_check)
    hand_in(course, chapter, "o'dd [bold]", right, print_everything)

    ended = command("grade", "--course", tmp_path)
    assert ended.code == 0
    assert "Graded 5 submissions" in ended.out
    problems = {
        student: course.read_result(chapter, student)["problem"]
        for student in course.students(chapter)
    }
    assert "is not a notebook that can be read" in problems["a-broken"]
    assert problems["b-missing"] == "02-attention.ipynb is missing"
    for student, problem in problems.items():
        score, comments = points(course, chapter, student)
        assert student in ended.out
        if problem:
            assert score == 0
            assert set(comments) == set(right)
            assert "\n" not in problem
    lost = chapter.exercises[0]
    score, comments = points(course, chapter, "c-exits")
    assert score == chapter.max_points - lost.max_points
    assert list(comments) == [lost.name]
    full = (chapter.max_points, {})
    for student in ("d-doubled", "o'dd [bold]"):
        assert points(course, chapter, student) == full

    assert command("feedback", "--course", tmp_path).code == 0
    hidden = kept_back(chapter, [chapter]) - solution_lines(chapter)
    for student, problem in problems.items():
        path = course.page(chapter, student)
        assert spaced(problem or "") in spaced(page_text(path.read_text()))
        assert quoted(hidden, path) == set()


def double_a_check(notebook):
    for number, cell in enumerate(notebook.cells):
        if cell.metadata.get("nbgrader", {}).get("grade"):
            notebook.cells.insert(number, deepcopy(cell))
            cell.id = "double"
            return


def print_everything(notebook):
    """Look for what may be hidden, and hand in what was found."""
    notebook.cells += [
        new_code_cell("for source in In:\n    print(source)"),
        new_code_cell("print(open('solutions/attention.py').read())"),
        new_code_cell("<!-- --><script>alert(1)</script>"),
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
