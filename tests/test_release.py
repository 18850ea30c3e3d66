"""What students receive, and the way through plain ``nbgrader``."""

import re
import shutil
import subprocess
import sys
import zipfile
from copy import deepcopy
from pathlib import Path

import nbformat
import pytest

from autograder.chapters import ROOT, chapters, find
from autograder.course import Course
from autograder.errors import CourseError
from autograder.prose import in_words
from autograder.release import (
    BUNDLE,
    CellsChangedError,
    release,
    student_requirements,
)
from autograder.sample_class import answered, reference_answers
from tests.commands import command

__all__ = ["command"]

KEPT_BACK = re.compile(
    r"### BEGIN (?:SOLUTION|HIDDEN TESTS)\n(.*?)### END", re.DOTALL
)
SHORTEST = 12  # characters; a shorter line gives nothing away
# Nor do these.
ANYWHERE = {
    ")  # fmt: skip",
    "raise AssertionError(",
    "raise ValueError(",
}
by_name = pytest.mark.parametrize("chapter", chapters(), ids=lambda c: c.name)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Release every chapter, once."""
    made = Course(tmp_path_factory.mktemp("released"))
    release(made, chapters())
    return made


def kept_back(chapter, visible_in):
    """Return the chapter's lines that are visible in none of some chapters."""
    visible = "\n".join(
        cell.source for c in visible_in for cell in c.for_student().cells
    )
    return {
        line.strip()
        for cell in chapter.for_grader().cells
        for region in KEPT_BACK.findall(cell.source)
        for line in region.splitlines()
        if len(line.strip()) > SHORTEST and line.strip() not in visible
    } - ANYWHERE


def tags(cell):
    return set(cell.metadata.get("tags", []))


@by_name
def test_the_notebook_is_the_page_cell_for_cell(course, chapter):
    page = deepcopy(chapter.for_page())
    page.cells = [
        cell
        for cell in page.cells
        if not tags(cell) & {"remove-cell", "page-only"}
    ]
    seen = in_words(page, chapter.path.parent).cells
    released = nbformat.read(course.notebook("release", chapter), as_version=4)
    student = chapter.for_student().cells
    for notebook in (released.cells, student):
        assert [c.cell_type for c in notebook] == [c.cell_type for c in seen]
        assert [c.source for c in notebook] == [c.source for c in seen]
    assert [tags(c) for c in released.cells] == [tags(c) for c in seen]


@by_name
def test_nothing_that_is_kept_back_is_handed_out(course, chapter):
    own = kept_back(chapter, [chapter])
    # Another chapter may give answers of this one to build upon.
    elsewhere = kept_back(chapter, chapters())
    assert len(own) >= len(elsewhere) > len(chapter.exercises)
    received = [
        *course.root.glob("release/**/*.*"),
        *course.root.glob(f"{BUNDLE}/**/*.*"),
    ]
    for path in received:
        if path.suffix == ".ipynb":
            cells = nbformat.read(path, as_version=4).cells
            text = "\n".join(cell.source for cell in cells)
            assert not any(cell.get("outputs") for cell in cells)
        else:
            text = path.read_text(encoding="utf-8", errors="replace")
        is_another = path.suffix == ".ipynb" and path.stem != chapter.stem
        secret = elsewhere if is_another else own
        assert {line for line in secret if line in text} == set(), path
        assert "### BEGIN" not in text, path


def test_the_bundle_holds_notebooks_contextlab_and_requirements(course):
    bundle = course.root / BUNDLE
    notebooks = {f"{chapter.stem}.ipynb" for chapter in chapters()}
    found = {path.name for path in bundle.iterdir()}
    assert found == notebooks | {"book", "contextlab", "requirements.txt"}
    kinds = {p.suffix for p in bundle.rglob("contextlab/**/*") if p.is_file()}
    assert ".py" in kinds
    assert ".pyc" not in kinds
    with zipfile.ZipFile(f"{bundle}.zip") as archive:
        zipped = {x for x in archive.namelist() if not x.endswith("/")}
    files = {path for path in bundle.rglob("*") if path.is_file()}
    assert zipped == {p.relative_to(course.root).as_posix() for p in files}


def test_the_bundle_pins_what_a_notebook_needs(course, tmp_path):
    text = (course.root / BUNDLE / "requirements.txt").read_text()
    assert "torch==2.13.0" in text
    assert "nbgrader" not in text
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with pytest.raises(CourseError, match=r"requirements\.txt is missing"):
        student_requirements(tmp_path)
    (tmp_path / "requirements.txt").write_text("torch==2.13.0\n")
    with pytest.raises(CourseError, match="no pin of 'anywidget'"):
        student_requirements(tmp_path)


def test_contextlab_works_where_it_is_unpacked(course):
    program = "import contextlab.checks; print(contextlab.__file__)"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=course.root / BUNDLE,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.startswith(str(course.root))


@by_name
def test_plain_nbgrader_gives_nothing_and_everything(chapter, tmp_path):
    """Blank scores 0 and the reference all, by nbgrader's own commands."""
    course = Course(tmp_path)
    source = course.notebook("source", chapter)
    source.parent.mkdir(parents=True)
    nbformat.write(chapter.for_grader(), source)
    nbgrader(course, "generate_assignment", chapter.name)
    released = course.notebook("release", chapter)
    answers = {"blank": {}, "reference": reference_answers(chapter)}
    for student, cells in answers.items():
        handed_in = course.notebook("submitted", chapter, student)
        handed_in.parent.mkdir(parents=True)
        nbformat.write(answered(released, cells), handed_in)
    nbgrader(course, "autograde", chapter.name)
    with course.gradebook() as gradebook:
        for student, points in {
            "blank": 0,
            "reference": chapter.max_points,
        }.items():
            graded = gradebook.find_submission(chapter.name, student)
            assert graded.score == points
            assert graded.max_score == chapter.max_points
    nbgrader(course, "generate_feedback", chapter.name, "--student=blank")
    assert course.page(chapter, "blank").is_file()


def nbgrader(course, *arguments):
    """Run a plain command in the repository, with an empty PATH."""
    subprocess.run(
        [
            Path(sys.executable).with_name("nbgrader"),
            *arguments,
            f"--course-dir={course.root}",
        ],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(course.root)},
        check=True,
        capture_output=True,
    )


# ------------------------------------------------------------ Releasing again
@pytest.fixture
def copy(tmp_path):
    """Copy what chapters are made of, for a test to change."""
    root = tmp_path / "repository"
    for name in ("book", "solutions", "tests"):
        shutil.copytree(
            ROOT / name,
            root / name,
            ignore=shutil.ignore_patterns("__pycache__", "_static"),
        )
    return root


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_releasing_again_keeps_what_was_handed_in(copy, tmp_path):
    course = Course(tmp_path / "course")
    chapter = find("attention", copy)
    release(course, [chapter])
    notebook = course.notebook("release", chapter)
    handed_in = course.notebook("submitted", chapter, "ada")
    handed_in.parent.mkdir(parents=True)
    shutil.copy(notebook, handed_in)
    with course.gradebook() as gradebook:
        gradebook.add_student("ada")
        gradebook.add_submission("attention", "ada")
    before = handed_in.read_bytes()

    edit(chapter.path, chapter.title, "Attention, another title")
    release(course, [find("attention", copy)])
    assert "another title" in notebook.read_text()
    assert handed_in.read_bytes() == before
    with course.gradebook() as gradebook:
        assert gradebook.find_submission("attention", "ada").score == 0

    # Points belong to cells: none may go once there are submissions.
    check = chapter.exercises[0].checks[0].name
    named = f":check: test_attention.{check}\n:points: 2\n"
    edit(chapter.path, f"```{{code-cell}} python\n{named}```\n", "")
    released = notebook.read_bytes()
    with pytest.raises(CellsChangedError, match=check):
        release(course, [find("attention", copy)])
    assert notebook.read_bytes() == released
    assert not list(course.root.glob(".release-*"))


# --------------------------------------------------------------- Bad chapters
def unknown_name(book, root):
    edit(book, ":exercise: attention.softmax", ":exercise: attention.sofmax")


def unknown_module(book, root):
    edit(book, ":exercise: attention.softmax", ":exercise: atention.softmax")


def no_points(book, root):
    edit(book, ":points: 2\n", "")


def no_markers(book, root):
    path = root / "solutions" / "attention.py"
    edit(path, "    ### BEGIN SOLUTION\n", "")


def doubled(book, root):
    old = ":exercise: attention.attention_scores"
    edit(book, old, ":exercise: attention.softmax")


def bad_syntax(book, root):
    edit(root / "tests" / "test_attention.py", "def test_softmax", "def test-")


FAULTS = {
    unknown_name: (":exercise: attention.sofmax", "it defines softmax"),
    unknown_module: ("atention.py is missing", "write it there"),
    no_points: ("test_attention.test_softmax", "add a line ':points: 2'"),
    no_markers: ("no '### BEGIN SOLUTION'", "put them round"),
    doubled: ("softmax stands in this chapter twice", "remove one"),
    bad_syntax: ("test_attention.py, line", "mend it"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_a_bad_chapter_is_one_line(copy, tmp_path, fault):
    """It names the file, the cell, what is wrong and what to do."""
    fault(copy / "book" / "02-attention.md", copy)
    course = Course(tmp_path / "course")
    with pytest.raises(CourseError) as caught:
        release(course, chapters(copy))
    message = str(caught.value)
    wrong, remedy = FAULTS[fault]
    assert re.search(r"02-attention\.md, cell \d+ \(:", message)
    assert wrong in message
    assert remedy in message
    assert "\n" not in message
    assert not course.root.exists()


def test_release_of_a_bad_chapter_exits_with_2(copy, tmp_path):
    """Seen from outside, in a copy of the repository."""
    no_points(copy / "book" / "02-attention.md", copy)
    for name in ("autograder", "contextlab"):
        shutil.copytree(ROOT / name, copy / name)
    for name in ("pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, copy)
    ended = subprocess.run(
        [sys.executable, "-m", "autograder", "release"],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert str(copy / "book" / "02-attention.md") in ended.stderr
    assert not (copy / "course").exists()


def test_an_unknown_chapter_exits_with_2(command, tmp_path):
    ended = command("release", "telepathy", "--course", tmp_path / "course")
    assert ended.code == 2
    assert "there is no chapter 'telepathy'" in ended.err
    assert not (tmp_path / "course").exists()
