"""Grades go to other programs: a spreadsheet, Canvas, Moodle."""

import csv
import subprocess
import sys
from datetime import datetime, timedelta

import pytest

from autograder.chapters import ROOT, find
from autograder.course import Course
from autograder.release import release
from tests.commands import command
from tests.graded import put_grades

__all__ = ["command"]

FIRST, SECOND = find("attention"), find("multihead")
DUE = datetime(2026, 12, 1, 22, 59)  # in UTC
SETTINGS = """
[due]
attention = 2026-12-01T23:59:00+01:00
[late]
per_day = 0.5
"""
FORMULA = '=HYPERLINK("http://example.org","click")'


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Grade four students; what each has is told in the tests."""
    made = Course(tmp_path_factory.mktemp("export"))
    made.root.joinpath("course.toml").write_text(SETTINGS)
    release(made, [FIRST, SECOND])
    names = {"first_name": 'Ada "Countess"', "last_name": "King, Lovelace"}
    put_grades(made, FIRST, "ada", ("softmax",), **names, email="a@b.org")
    put_grades(made, SECOND, "ada")
    put_grades(made, FIRST, "340934", ("attention",), last_name="Hopper")
    put_grades(made, FIRST, "mallory", last_name=FORMULA, email="@SUM(A1)")
    put_grades(made, FIRST, "late", ("softmax", "attention"))
    with made.gradebook() as gradebook:
        late = gradebook.find_submission(FIRST.name, "late")
        late.timestamp = DUE + timedelta(minutes=5)
        grade = gradebook.find_grade(
            "test_scores_by_hand", FIRST.stem, FIRST.name, "ada"
        )
        grade.manual_score = 1.5
        gradebook.db.commit()
    return made


def exported(command, course, name, *chapters):
    """Export, and return the rows of the file as a program reads them."""
    path = course.root / "a folder" / f"{name}.csv"
    ended = command(
        *("export", *chapters, "--format", name),
        *("--course", course.root, "--to", path),
    )
    assert ended.code == 0
    assert str(path) in ended.out
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def by_name(rows):
    """Return each row as a dictionary by the names of its columns."""
    header, *rest = rows
    return [dict(zip(header, row, strict=True)) for row in rest]


def test_csv_has_nbgraders_columns_and_survives_odd_names(command, course):
    rows = by_name(exported(command, course, "csv"))
    assert len(rows) == 2 * 4
    found = {(row["assignment"], row["student_id"]): row for row in rows}
    ada = found[FIRST.name, "ada"]
    assert ada["last_name"] == "King, Lovelace"
    assert ada["first_name"] == 'Ada "Countess"'
    assert ada["duedate"] == "2026-12-01 22:59:00"
    assert float(ada["score"]) == 6 + 1.5  # one of them by hand
    assert float(ada["max_score"]) == FIRST.max_points
    late = found[FIRST.name, "late"]
    assert late["timestamp"] == "2026-12-01 23:04:00"
    assert float(late["raw_score"]) == 12
    assert float(late["late_submission_penalty"]) == 6
    assert float(late["score"]) == 6
    assert float(found[SECOND.name, "late"]["score"]) == 0
    assert found[SECOND.name, "late"]["timestamp"] == ""


def test_canvas_gets_what_its_importer_looks_for(command, course):
    header, possible, *rows = exported(command, course, "canvas")
    # lib/gradebook_importer.rb: the names of five columns, then assignments
    assert header == [
        *("Student", "ID", "SIS User ID", "SIS Login ID", "Section"),
        *(FIRST.name, SECOND.name),
    ]
    assert "Points Possible" in possible[0]
    points = [float(cell) for cell in possible[5:]]
    assert points == [FIRST.max_points, SECOND.max_points]
    found = {row[3] or row[1]: row for row in rows}
    assert found["ada"][0] == 'King, Lovelace, Ada "Countess"'
    assert found["ada"][1] == ""
    assert found["ada"][5:] == ["7.5", "0"]
    assert found["340934"][1] == "340934"  # Canvas's own number
    assert found["340934"][3] == ""
    assert found["late"][5:] == ["6", ""]  # nothing handed in: left alone


def test_moodle_gets_a_column_for_each_chapter(command, course):
    rows = by_name(exported(command, course, "moodle"))
    found = {row["ID number"]: row for row in rows}
    assert found["ada"]["Email address"] == "a@b.org"
    assert found["ada"][FIRST.name] == "7.5"
    assert found["ada"][SECOND.name] == "0"
    assert found["late"][FIRST.name] == "6"
    assert found["late"][SECOND.name] == "-"  # Moodle's sign for no grade


@pytest.mark.parametrize("name", ["csv", "canvas", "moodle"])
def test_no_cell_is_a_formula(command, course, name):
    rows = exported(command, course, name)
    cells = [cell for row in rows for cell in row]
    assert any(FORMULA in cell for cell in cells)
    risky = [c for c in cells if c.startswith(("=", "+", "-", "@", "\t"))]
    assert set(risky) <= {"-"}


def test_only_the_chapters_that_were_asked_for(command, course):
    header, *_ = exported(command, course, "canvas", FIRST.name)
    assert header[5:] == [FIRST.name]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("csv", []),
        ("moodle", ["--exporter=autograder.export.MoodleExporter"]),
    ],
)
def test_nbgrader_export_writes_the_same(
    command, course, tmp_path, name, options
):
    ours = exported(command, course, name)
    path = tmp_path / "grades.csv"
    subprocess.run(
        [
            *(sys.executable, "-m", "nbgrader", "export", *options),
            *(f"--to={path}", f"--CourseDirectory.root={course.root}"),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    with path.open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == ours


def test_nothing_graded_is_said_in_a_line(command, tmp_path):
    ended = command("export", "--course", tmp_path)
    assert ended.code == 2
    assert "nothing is graded" in ended.err
    assert not list(tmp_path.glob("*.csv"))
