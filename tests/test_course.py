"""A course folder's settings, late penalties, databases and archives."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from zipfile import ZipFile

import nbformat
import pytest
from nbgrader.apps import ZipCollectApp
from nbgrader.converters import Autograde
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from autograder.chapters import ROOT, find
from autograder.course import Course, configure
from autograder.late import LatePolicy
from autograder.release import release
from autograder.sample_class import answered, reference_answers
from tests.commands import command
from tests.graded import put_grades

__all__ = ["command"]

CHAPTER = find("attention")
HOUR, DAY = 3600, 24 * 3600
SETTINGS = """
[due]
attention = 2026-12-01T23:59:00+01:00

[late]
per_day = 0.1
at_most = 0.25
"""
DUE = datetime(2026, 12, 1, 22, 59)  # in UTC, as nbgrader keeps it


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Release the chapter in a folder that has settings."""
    made = Course(tmp_path_factory.mktemp("course"))
    made.root.joinpath("course.toml").write_text(SETTINGS)
    release(made, [CHAPTER])
    return made


def hand_in(course, student, when):
    """Write nbgrader's file of the time something was handed in."""
    folder = course.folder("submitted", CHAPTER, student)
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("timestamp.txt").write_text(when)


def penalty(course, student):
    with course.gradebook() as gradebook:
        found = gradebook.find_submission(CHAPTER.name, student)
        return found.late_submission_penalty


def settle(course, student):
    """Do what a grader does at the end of a submission."""
    with course.gradebook() as gradebook:
        submission = gradebook.find_submission(CHAPTER.name, student)
        flag = course.set_late_penalty(gradebook, submission)
        gradebook.db.commit()
    return flag


def test_settings_are_read_and_all_may_be_left_out(tmp_path):
    assert Course(tmp_path).settings.due == {}
    assert Course(tmp_path).database.startswith("sqlite:///")
    url = "postgresql+psycopg://grader@localhost/course"
    tmp_path.joinpath("course.toml").write_text(f'database = "{url}"')
    assert Course(tmp_path).database == url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[due\n", "line 1"),
        ("deadline = 1", "no setting deadline; known are: database, due"),
        ("late = 0.1", r"write \[late\] above it"),
        ("[due]\nlectures = 2026-12-01T23:59:00Z", "no setting due.lectures"),
        ("[due]\nattention = 2026-12-01", "offset from UTC"),
        ("[due]\nattention = 2026-12-01T23:59:00", "offset from UTC"),
        ('[due]\nattention = "tomorrow"', "as in 2026-12-01T23:59:00"),
        ("[late]\nper_week = 0.1", "no setting late.per_week"),
        ("[late]\nper_day = 10", "late.per_day must be a share"),
        ("[late]\nper_day = true", "late.per_day must be a share"),
        ("[late]\nat_most = 0.5", "without late.per_day"),
        ('database = "/data/grades"', "database must be a URL"),
        ('database = "postgresql+nothing://x/y"', "whose driver is"),
        ("database = 1", "database must be a URL"),
    ],
)
def test_a_wrong_setting_is_one_line(command, tmp_path, text, says):
    tmp_path.joinpath("course.toml").write_text(text)
    ended = command("release", CHAPTER.name, "--course", tmp_path)
    assert ended.code == 2
    assert re.search(says, ended.err)
    assert "course.toml" in ended.err
    assert ended.err.count("\n") == 1


def test_plain_nbgrader_gets_the_settings_of_its_folder(
    course, monkeypatch, tmp_path
):
    def configured(*arguments):
        monkeypatch.setattr(sys, "argv", ["nbgrader", "export", *arguments])
        return PyFileConfigLoader("nbgrader_config.py", ROOT).load_config()

    for option in ("--course-dir", "--CourseDirectory.root"):
        config = configured(f"{option}={course.root}")
        assert config.CourseDirectory.db_url == course.database
        assert config.LatePenalty.per_day == 0.1
    assert str(ROOT / "course") in configured().CourseDirectory.db_url
    tmp_path.joinpath("course.toml").write_text("nonsense = 1")
    with pytest.raises(SystemExit, match="no setting nonsense"):
        configured("--course-dir", str(tmp_path))


def test_due_dates_reach_the_gradebook_in_utc(course):
    with course.gradebook() as gradebook:
        assert gradebook.find_assignment(CHAPTER.name).duedate == DUE


@pytest.mark.parametrize(
    ("late", "points"),
    [
        (-DAY, None),
        (0, None),
        (1, 1.0),
        (DAY, 1.0),
        (DAY + 1, 2.0),
        (2 * DAY + HOUR, 2.5),
        (365 * DAY, 2.5),
    ],
)
def test_a_penalty_is_for_each_day_begun(late, points):
    policy = LatePolicy(per_day=0.1, at_most=0.25)
    assert policy.penalty(10, max(0, late)) == points
    assert LatePolicy().penalty(10, late) is None
    assert policy.penalty(0, late) is None


def test_nbgrader_and_our_grader_take_off_the_same(course):
    answers = {"softmax": reference_answers(CHAPTER)["softmax"]}
    notebook = answered(course.notebook("release", CHAPTER), answers)
    hand_in(course, "ada", f"{DUE + timedelta(hours=30)} UTC")
    nbformat.write(notebook, course.notebook("submitted", CHAPTER, "ada"))
    assert course.convert(Autograde, CHAPTER, "ada") is None
    assert penalty(course, "ada") == pytest.approx(0.2 * 6)
    with course.gradebook() as gradebook:
        submission = gradebook.find_submission(CHAPTER.name, "ada")
        submission.timestamp = None
        submission.notebooks[0].late_submission_penalty = None
        gradebook.db.commit()
    assert settle(course, "ada") is None
    assert penalty(course, "ada") == pytest.approx(0.2 * 6)


def test_without_a_time_nothing_is_taken_off(course):
    put_grades(course, CHAPTER, "bob", ("softmax",))
    assert settle(course, "bob") is None
    assert penalty(course, "bob") == 0


def test_a_time_that_can_not_be_read_is_flagged(course):
    put_grades(course, CHAPTER, "cyd", ("softmax",))
    hand_in(course, "cyd", "\x00\ufffd" * 10_000)
    assert "timestamp.txt holds no time" in settle(course, "cyd")
    assert penalty(course, "cyd") == 0


def test_another_due_date_counts_without_grading_anew(course, command):
    put_grades(course, CHAPTER, "dan", ("softmax", "attention"))
    hand_in(course, "dan", f"{DUE + timedelta(minutes=1)} UTC")
    settle(course, "dan")
    assert penalty(course, "dan") == pytest.approx(0.1 * 12)
    settings = course.root / "course.toml"
    settings.write_text(SETTINGS.replace("2026-12-01", "2026-12-02"))
    assert command("report", "--course", course.root).code == 0
    settings.write_text(SETTINGS)
    assert penalty(course, "dan") == 0
    with course.gradebook() as gradebook:
        gradebook.grant_extension(CHAPTER.name, "dan", hours=1)
        course.update_late_penalties(gradebook)
    assert penalty(course, "dan") == 0
    with course.gradebook() as gradebook:
        gradebook.grant_extension(CHAPTER.name, "dan")
        course.update_late_penalties(gradebook)
    assert penalty(course, "dan") == pytest.approx(0.1 * 12)


MOODLE = [
    "Ada Lovelace_12345_assignsubmission_file/02-attention.ipynb",
    "Grace Hopper_12346_assignsubmission_file_/02-attention.ipynb",
    "Jean-Luc Ó Briain_12347_assignsubmission_file_02-attention.ipynb",
    "Alan Turing_12348_assignsubmission_file/my work/answers.ipynb",
    "Alan Turing_12348_assignsubmission_file/notes.txt",
]
FROM_MOODLE = {
    "Ada Lovelace": "02-attention.ipynb",
    "Grace Hopper": "02-attention.ipynb",
    "Jean-Luc Ó Briain": "02-attention.ipynb",
    "Alan Turing": "answers.ipynb",
}
CANVAS = [
    "lovelaceada_340934_208490284_02-attention.ipynb",
    "hoppergrace_LATE_340935_208490285_02-attention-1.ipynb",
    "turingalan_340936_208490286_answers.ipynb",
    "turingalan_340936_208490287_notes.txt",
]
FROM_CANVAS = {
    "340934": "02-attention.ipynb",
    "340935": "02-attention.ipynb",
    "340936": "answers.ipynb",
}


def collect(folder, names):
    """Download an archive, and run ``nbgrader zip_collect``."""
    archive = folder / "downloaded" / CHAPTER.name / "archive"
    archive.mkdir(parents=True)
    with ZipFile(archive / "submissions.zip", "w") as file:
        for name in names:
            file.writestr(name, name)
    app = ZipCollectApp(config=configure(Config(), folder))
    app.initialize([CHAPTER.name, f"--CourseDirectory.root={folder}"])
    app.start()


@pytest.mark.parametrize(
    ("names", "found"),
    [(MOODLE, FROM_MOODLE), (CANVAS, FROM_CANVAS)],
    ids=["moodle", "canvas"],
)
def test_an_archive_becomes_submissions(tmp_path, names, found):
    collect(tmp_path, names)
    collected = tmp_path.glob(f"submitted/*/{CHAPTER.name}/*")
    assert {path.parts[-3]: path.name for path in collected} == found
    for path in tmp_path.glob("submitted/*/*/*"):  # each has its own
        assert path.stem.partition("-")[2] in path.read_text()


def test_two_students_of_one_name_are_not_mixed(tmp_path):
    other = "Ada Lovelace_12399_assignsubmission_file/other.ipynb"
    with pytest.raises(SystemExit):
        collect(tmp_path, [*MOODLE, other])
    assert not tmp_path.joinpath("submitted").exists()


def programs_of_postgresql():
    """Return where initdb and pg_ctl are, or None."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([os.environ["PATH"], *map(str, places)])
    found = shutil.which("initdb", path=path)
    return Path(found).parent if found else None


@pytest.fixture
def postgresql():
    """Start a PostgreSQL server of our own; yield a URL of a database."""
    programs = programs_of_postgresql()
    if programs is None:
        pytest.skip("no PostgreSQL here: initdb is not on the PATH")
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    user = {"user": "nobody", "extra_groups": []} if as_root else {}

    def run(program, *arguments):
        subprocess.run(
            [programs / program, *arguments],
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **user,
        )

    with tempfile.TemporaryDirectory() as folder:  # a short path: a socket's
        if as_root:  # it refuses to run as root
            shutil.chown(folder, "nobody")
        data = f"{folder}/data"
        options = f"-c listen_addresses= -c fsync=off -k {folder}"
        try:
            run("initdb", "-D", data, "-U", "grader", "-A", "trust")
            run(
                "pg_ctl", "-D", data, "-o", options, "-l", "log", "-w", "start"
            )
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", b"") or b""
            pytest.skip(f"PostgreSQL can't be started: {error} {said!r}")
        try:
            yield f"postgresql+psycopg://grader@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "stop")


def test_the_gradebook_may_be_postgresql(postgresql, command, tmp_path):
    settings = f'database = "{postgresql}"\n{SETTINGS}'
    tmp_path.joinpath("course.toml").write_text(settings)
    course = Course(tmp_path)
    release(course, [CHAPTER])
    put_grades(course, CHAPTER, "ada", ("softmax", "attention_scores"))
    hand_in(course, "ada", f"{DUE + timedelta(hours=1)} UTC")
    assert settle(course, "ada") is None
    report = command("report", CHAPTER.name, "--course", tmp_path)
    assert re.search(r"^ada +6 +6 +0 +0 +0 +10\.8$", report.out, re.M)
    release(course, [CHAPTER])  # nbgrader's own path, once more
    assert not tmp_path.joinpath("gradebook.db").exists()
    with Course(tmp_path / "another").gradebook() as gradebook:
        assert gradebook.assignments == []  # it has a gradebook of its own


def test_a_database_that_is_not_there_is_one_line(command, tmp_path):
    url = "postgresql+psycopg://grader@127.0.0.1:1/course?connect_timeout=2"
    tmp_path.joinpath("course.toml").write_text(f'database = "{url}"')
    ended = command("export", "--course", tmp_path)
    assert ended.code == 2
    assert "can't be opened" in ended.err
    assert ended.err.count("\n") == 1
