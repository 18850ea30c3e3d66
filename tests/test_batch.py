"""A class is graded by runs that are stopped, killed, doubled, spread out.

The station is a fake here, so that a run takes milliseconds a submission:
what is tested is all that happens around it.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest

from autograder import engine, pool, show
from autograder.chapters import ROOT, find
from autograder.course import Course
from autograder.errors import CourseError
from autograder.grading import LOCK, grade
from autograder.release import release
from autograder.sample_class import answered, reference_answers
from tests.commands import command
from tests.fake_station import SECONDS, FakeStation
from tests.test_course import postgresql

__all__ = ["command", "postgresql"]

CHAPTER = find("attention")
EXERCISES = [exercise.name for exercise in CHAPTER.exercises]
ALL = len(EXERCISES)
CLASS = 12
STUDENTS = [f"student-{n:02}" for n in range(CLASS)]


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    made = Course(tmp_path_factory.mktemp("released"))
    release(made, [CHAPTER])
    return made


@pytest.fixture
def course(released, tmp_path):
    """Return a course in which everybody has handed in something else."""
    root = tmp_path / "course"
    shutil.copytree(released.root, root)
    made = Course(root)
    for number, student in enumerate(STUDENTS):
        hand_in(made, student, n_right=number % (ALL + 1))
    return made


@pytest.fixture
def fake(monkeypatch):
    """Judge with the fake station in this process."""
    monkeypatch.setattr(engine, "Station", FakeStation)
    return monkeypatch


def hand_in(course, student, n_right=ALL, **wrong):
    right = reference_answers(CHAPTER)
    answers = {name: right[name] for name in EXERCISES[:n_right]} | wrong
    path = course.notebook("submitted", CHAPTER, student)
    path.parent.mkdir(parents=True, exist_ok=True)
    released = course.notebook("release", CHAPTER)
    nbformat.write(answered(released, answers), path)
    return path


def right_points(student):
    n_right = STUDENTS.index(student) % (ALL + 1)
    return sum(e.max_points for e in CHAPTER.exercises[:n_right])


def points(course):
    """Return everybody's points, and that each has one row for each check."""
    n_checks = sum(len(e.checks) for e in CHAPTER.exercises)
    found = {}
    with course.gradebook() as gradebook:
        for one in gradebook.assignment_submissions(CHAPTER.name):
            (notebook,) = one.notebooks
            assert len(notebook.grades) == n_checks
            assert not any(g.needs_manual_grade for g in notebook.grades)
            assert one.student.id not in found
            found[one.student.id] = one.score
    return found


def everything(course):
    """Return all that grading wrote, but for what differs each time."""
    notebooks, results, comments = {}, {}, {}
    for student in course.students(CHAPTER):
        path = course.notebook("autograded", CHAPTER, student)
        notebooks[student] = path.read_text()
        results[student] = course.read_result(CHAPTER, student)
    with course.gradebook() as gradebook:
        for one in gradebook.assignment_submissions(CHAPTER.name):
            comments[one.student.id] = {
                comment.name: comment.auto_comment
                for comment in one.notebooks[0].comments
            }
    return points(course), notebooks, results, comments


def process(course, *arguments, seconds=0.0, **more):
    """Start ``grade`` in a process of its own."""
    command = ["-m", "tests.fake_station", "grade", "attention"]
    return subprocess.Popen(
        [sys.executable, *command, "--course", course.root, *arguments],
        cwd=ROOT,
        env=os.environ | {SECONDS: str(seconds), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def graded_so_far(course):
    return len(list(course.root.glob("results/*/*.json")))


# ------------------------------------------------------------- Undisturbed
def test_everybody_gets_their_points(course, command, fake):
    ended = command("grade", "--course", course.root, "--workers", 3)
    assert ended.code == 0
    assert f"Graded {CLASS} submissions, 0 unchanged" in ended.out
    assert points(course) == {s: right_points(s) for s in STUDENTS}
    for student in STUDENTS:
        row = re.search(rf"{student} +(\d+)/\d+", ended.out)
        assert int(row[1]) == right_points(student)
    assert "not written: everything" in ended.out
    again = command("grade", "--course", course.root)
    assert f"Graded 0 submissions, {CLASS} unchanged" in again.out


def test_what_is_written_down(course, fake):
    hand_in(course, "ada", 1)
    grade(course, [CHAPTER], students=["ada"], floor="rlimits")
    assert course.read_result(CHAPTER, STUDENTS[0]) == {}
    result = course.read_result(CHAPTER, "ada")
    assert result["problem"] is None
    assert result["flags"] == []
    assert result["protection"] == "rlimits"
    passed = [exercise["passed"] for exercise in result["exercises"]]
    assert passed == [True] + [False] * (ALL - 1)
    notebook = nbformat.read(
        course.notebook("autograded", CHAPTER, "ada"), as_version=4
    )
    nbformat.validate(notebook)
    cells = {
        cell.metadata.nbgrader.grade_id: cell
        for cell in notebook.cells
        if "nbgrader" in cell.metadata
    }
    for exercise in CHAPTER.exercises:
        for check in exercise.checks:
            (output,) = cells[check.name].outputs
            if exercise.name == EXERCISES[0]:
                assert output.text == "Passed.\n"
            else:
                assert output.evalue == f"{exercise.name} is not written yet."


def test_only_what_changed_is_graded_anew(course, command, fake):
    grade(course, [CHAPTER])
    hand_in(course, STUDENTS[0])  # had nothing before
    course.notebook("autograded", CHAPTER, STUDENTS[1]).unlink()
    course.result(CHAPTER, STUDENTS[2]).write_text('{"finger')
    ended = command("grade", "--course", course.root)
    assert f"Graded 3 submissions, {CLASS - 3} unchanged" in ended.out
    assert points(course)[STUDENTS[0]] == CHAPTER.max_points
    everybody = command("grade", "--all", "--course", course.root)
    assert f"Graded {CLASS} submissions, 0 unchanged" in everybody.out


def test_a_lost_gradebook_is_written_anew(course, released, fake):
    grade(course, [CHAPTER])
    before = points(course)
    shutil.copy(released.root / "gradebook.db", course.root)
    assert grade(course, [CHAPTER]).total == CLASS
    assert points(course) == before


def test_without_a_gradebook_a_release_comes_first(course, command, fake):
    (course.root / "gradebook.db").unlink()
    ended = command("grade", "--course", course.root)
    assert ended.code == 2
    assert "release attention" in ended.err


def test_one_student_is_graded_anew(course, command, fake):
    grade(course, [CHAPTER])
    chosen = ["--student", STUDENTS[3], "--student", STUDENTS[4], "--all"]
    ended = command("grade", "--course", course.root, *chosen)
    assert "Graded 2 submissions, 0 unchanged" in ended.out
    ended = command("grade", "--course", course.root, "--student", "bob")
    assert ended.code == 2
    assert "bob has handed in nothing" in ended.err


def test_one_exercise_is_graded_anew(course, fake):
    student, (first, second, *_) = "ada", EXERCISES
    hand_in(course, student)
    grade(course, [CHAPTER])
    hand_in(course, student, **{first: "wrong", second: "wrong"})
    grade(course, [CHAPTER], students=[student], exercise=second)
    lost = CHAPTER.exercises[1].max_points
    assert points(course)[student] == CHAPTER.max_points - lost
    result = course.read_result(CHAPTER, student)
    passed = {e["id"]: e["passed"] for e in result["exercises"]}
    assert passed[first]
    assert not passed[second]
    # What else has changed is still to be graded.
    assert grade(course, [CHAPTER]).total == 1
    lost += CHAPTER.exercises[0].max_points
    assert points(course)[student] == CHAPTER.max_points - lost
    with pytest.raises(CourseError, match="the exercises are: softmax"):
        grade(course, [CHAPTER], exercise="sofmax")


def test_a_teachers_score_stays(course, fake):
    check = CHAPTER.exercises[0].checks[0]

    def look(change=None):
        with course.gradebook() as gradebook:
            found = gradebook.find_grade(
                check.name, CHAPTER.stem, CHAPTER.name, "ada"
            )
            if change is not None:
                found.manual_score = change
                gradebook.db.commit()
            return found.auto_score, found.score, found.needs_manual_grade

    hand_in(course, "ada")
    grade(course, [CHAPTER], students=["ada"])
    look(change=0.5)
    grade(course, [CHAPTER], students=["ada"], only_new=False)
    assert look() == (check.points, 0.5, False)
    hand_in(course, "ada", **{EXERCISES[0]: "wrong"})
    grade(course, [CHAPTER], students=["ada"])
    assert look() == (0, 0.5, True)  # for the teacher to look at
    grade(course, [CHAPTER], students=["ada"], only_new=False)
    assert look() == (0, 0.5, True)


def test_late_is_what_timestamp_txt_says(course, fake):
    (course.root / "course.toml").write_text(
        "[due]\nattention = 2026-01-01T00:00:00Z\n[late]\nper_day = 0.1\n"
    )
    late, now = Course(course.root), "2026-01-02 12:00:00 UTC"
    path = hand_in(late, "ada").with_name("timestamp.txt")
    path.write_text(now)
    hand_in(late, "bob").with_name("timestamp.txt").write_text("yesterday?!")
    grade(late, [CHAPTER])
    with late.gradebook() as gradebook:
        found = gradebook.find_submission(CHAPTER.name, "ada")
        assert found.late_submission_penalty == pytest.approx(
            0.2 * CHAPTER.max_points
        )
        found = gradebook.find_submission(CHAPTER.name, "bob")
        assert not found.late_submission_penalty
    assert "timestamp.txt" in late.read_result(CHAPTER, "bob")["flags"][0]
    path.write_text("2025-12-31 12:00:00 UTC")  # was a mistake
    assert grade(late, [CHAPTER]).total == 1
    with late.gradebook() as gradebook:
        found = gradebook.find_submission(CHAPTER.name, "ada")
        assert not found.late_submission_penalty


def test_the_grades_may_be_in_postgresql(released, fake, postgresql, tmp_path):
    course = Course(tmp_path)
    setting = f'database = "{postgresql}"\n'
    tmp_path.joinpath("course.toml").write_text(setting)
    release(course, [CHAPTER])
    hand_in(course, STUDENTS[2], n_right=2)
    hand_in(course, "x" * 200)  # more than its column holds
    assert grade(course, [CHAPTER]).left == 1
    assert points(course) == {STUDENTS[2]: right_points(STUDENTS[2])}
    assert grade(course, [CHAPTER]).unchanged == 1


# ---------------------------------------------------------- Odd submissions
def test_what_can_not_be_read_costs_itself(course, command, fake):
    odd = ['o\'hara "x" [1]', "{a} *?", "é ü", "a\x1b[31mb", "-h"]
    for student in odd:
        hand_in(course, student)
    hand_in(course, "a-broken").write_text('{"cells": [')
    hand_in(course, "a-missing").rename(course.root / "elsewhere.txt")
    path = hand_in(course, "a-link")
    path.unlink()
    path.symlink_to("/etc/passwd")
    file = course.folder("submitted", CHAPTER, "a-file")
    file.parent.mkdir()
    file.write_text("not a folder")
    renamed = hand_in(course, "a-renamed")
    renamed.rename(renamed.with_name("02-attention (1).ipynb"))
    ended = command("grade", "--course", course.root)
    assert ended.code == 0
    got = points(course)
    assert [got[student] for student in odd] == [CHAPTER.max_points] * len(odd)
    assert got["a-renamed"] == CHAPTER.max_points
    for student, says in {
        "a-broken": "is not a notebook that can be read",
        "a-missing": "02-attention.ipynb is missing",
        "a-link": "leads out of the student's folder",
        "a-file": "is not a folder",
    }.items():
        assert got[student] == 0
        problem = course.read_result(CHAPTER, student)["problem"]
        assert says in problem
        assert str(course.root) not in problem
        assert " ".join(problem.split()) in " ".join(ended.out.split())
    assert "is named 02-attention (1).ipynb" in " ".join(ended.out.split())
    assert "[1]" in ended.out
    assert "\x1b[31m" not in ended.out
    assert command("feedback", "--course", course.root).code == 0


@pytest.mark.parametrize("kind", [OSError, CourseError])
def test_a_fault_of_the_station_is_nobodys_score(course, command, fake, kind):
    class Broken(FakeStation):
        def judge(self, chapter, cells):
            if any("broken" in cell.source for cell in cells):
                raise kind("no more processes")
            return super().judge(chapter, cells)

    fake.setattr(engine, "Station", Broken)
    hand_in(course, "ada", **{EXERCISES[0]: "broken"})
    ended = command("grade", "--course", course.root)
    assert ended.code == 1
    assert "Not graded: " in ended.out
    assert "no more processes" in ended.out
    assert "1 submission is left" in ended.err
    assert set(points(course)) == set(STUDENTS)
    fake.setattr(engine, "Station", FakeStation)
    ended = command("grade", "--course", course.root)
    assert f"Graded 1 submission, {CLASS} unchanged" in ended.out


def test_too_little_protection_is_one_line(course, command, fake):
    class Unprotected(FakeStation):
        def __init__(self, floor):
            super().__init__(floor)
            if floor != "none":
                raise CourseError("this machine reaches rlimits only")

    fake.setattr(engine, "Station", Unprotected)
    ended = command("grade", "--course", course.root)
    assert ended.code == 2
    assert ended.err == "error: this machine reaches rlimits only\n"
    assert command("grade", "--course", course.root, "--unsafe").code == 0
    result = course.read_result(CHAPTER, STUDENTS[0])
    assert result["protection"] == "none"


def test_a_chapter_with_other_checks_than_released_is_refused(
    course, command, fake
):
    check = CHAPTER.exercises[0].checks[0].name
    with course.gradebook() as gradebook:
        cell = gradebook.find_grade_cell(check, CHAPTER.stem, CHAPTER.name)
        cell.max_score += 1
        gradebook.db.commit()
    ended = command("grade", "--course", course.root)
    assert ended.code == 2
    assert check in ended.err
    assert "release" in ended.err


def test_few_submissions_are_in_flight(course, fake):
    flying, most = set(), []

    class Counting(ThreadPoolExecutor):
        def submit(self, fn, task):
            future = super().submit(fn, task)
            flying.add(future)
            most.append(len(flying))
            future.add_done_callback(lambda _: flying.discard(future))
            return future

    fake.setattr(pool, "ThreadPoolExecutor", Counting)
    fake.setenv(SECONDS, "0.02")
    grade(course, [CHAPTER], workers=2)
    assert len(most) == CLASS
    assert max(most) <= 4


# ------------------------------------------------------------------ Disturbed
def test_two_runs_at_once_share_the_work(course):
    runs = [process(course, seconds=0.1) for _ in range(2)]
    ended = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    counts = [int(re.search(r"Graded (\d+)", out)[1]) for out, _ in ended]
    assert sum(counts) == CLASS
    waited = [err for _, err in ended if LOCK in err]
    assert len(waited) == 1
    assert "Another run is grading" in waited[0]
    assert points(course) == {s: right_points(s) for s in STUDENTS}


def test_killed_at_any_time_the_next_run_completes(course, tmp_path):
    undisturbed = Course(tmp_path / "undisturbed")
    shutil.copytree(course.root, undisturbed.root)
    assert process(undisturbed).wait(timeout=60) == 0
    chance = random.Random(0)
    killed = 0
    for _ in range(5):
        run = process(course, "--workers", "2", seconds=0.02)
        before = graded_so_far(course)
        while run.poll() is None and graded_so_far(course) == before:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, chance.choice((0.003, 0.15))))
        run.kill()
        run.communicate()
        killed += run.returncode == -signal.SIGKILL
    assert killed >= 2
    last = process(course)
    out, err = last.communicate(timeout=60)
    assert last.returncode == 0, err
    done = [
        int(n) for n in re.search(r"Graded (\d+) .* (\d+) un", out).groups()
    ]
    assert sum(done) == CLASS
    assert everything(course) == everything(undisturbed)


def test_ctrl_c_keeps_what_is_done(course):
    run = process(course, seconds=0.3)
    while graded_so_far(course) < 2:
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=20)
    assert run.returncode == 1
    left = int(re.search(r"Stopped: (\d+) are left", err)[1])
    assert "Traceback" not in err
    done = graded_so_far(course)
    assert 2 <= done == CLASS - left < CLASS
    assert f"Graded {done} submission" in out
    out, _ = process(course).communicate(timeout=60)
    counted = show.counted(left, "submission")
    assert f"Graded {counted}, {done} unchanged" in out
    assert points(course) == {s: right_points(s) for s in STUDENTS}


# -------------------------------------------------------------------- Cluster
def test_another_version_of_the_course_is_refused(fake):
    task = pool.task(CHAPTER, [], "none") | {"version": "another"}
    with pytest.raises(CourseError, match="has another version of attention"):
        pool.judge(json.loads(json.dumps(task)))


def test_no_scheduler_is_one_line(course, command, fake):
    fake.setattr(pool, "CONNECT_TIMEOUT", 1)
    ended = command(
        "grade", "--course", course.root, "--cluster", "tcp://127.0.0.1:9"
    )
    assert ended.code == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in ended.err
    assert ended.err.count("\n") == 1


class Cluster:
    """A Dask scheduler and its workers, on this machine."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        file = folder / "scheduler.json"
        self.start("scheduler", "--port=0", f"--scheduler-file={file}")
        while not file.exists():
            assert self.processes[0].poll() is None
            time.sleep(0.05)
        self.address = json.loads(file.read_text())["address"]

    def start(self, *words):
        """Start ``dask``; a worker without a nanny, which would revive it."""
        started = subprocess.Popen(
            [
                *(sys.executable, "-m", "dask", *words),
                *("--host=127.0.0.1", "--no-dashboard"),
            ],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes.append(started)
        return started

    def close(self):
        """End all of it."""
        for process in reversed(self.processes):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path)
    yield made
    made.close()


def test_a_cluster_that_loses_a_worker(course, cluster):
    """The only test here without a fake: the workers' stations are real."""
    workers = [
        cluster.start("worker", cluster.address, "--no-nanny", "--nthreads=1")
        for _ in range(2)
    ]
    run = process(course, "--cluster", cluster.address)
    while graded_so_far(course) < 3:
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)
    workers[0].kill()
    out, err = run.communicate(timeout=120)
    assert run.returncode == 0, err
    assert f"Graded {CLASS} submissions, 0 unchanged" in out
    assert points(course) == {s: right_points(s) for s in STUDENTS}
    assert workers[1].poll() is None  # it is there for the next run
