"""Hostile and broken submissions get what they deserve, and no more.

All of ``tests/hostile`` is handed in and graded by the real command, as
whoever runs the tests and again as an ordinary user.
"""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import pytest
from nbgrader.api import MissingEntry

from autograder.chapters import ROOT
from autograder.course import Course
from autograder.execution import sandbox
from autograder.release import release
from tests.hostile import CASES, Case
from tests.hostile.corpus import CHAPTER, NAMES
from tests.hostile.ordinary_user import as_ordinary_user, why_not
from tests.hostile.spies import eyes
from tests.hostile.traps import MARK, Traps, left_behind

LONGEST = 600  # seconds; a batch that takes longer has stopped
LONGEST_TEXT = 5_000  # characters of one sentence
MOST_MEMORY = 4 << 20  # KiB: PyTorch, and the 3 GiB that a student's may take
SLEEP = [sys.executable, "-c", f"import time; time.sleep({LONGEST})"]
GRADE = [sys.executable, "-m", "autograder", "grade", CHAPTER.name]
PLACES = ["/tmp", "/var/tmp", "/dev/shm", ROOT]  # that many may write to
READING = [
    *("named_files", "listings", "upwards", "symlinks", "descriptors"),
    *("environment", "command_lines", "memory", "memory_of_others"),
    *("traced", "objects", "modules", "network"),
]
LIMITS = {"AUTOGRADER_PATIENCE": "0.6"}  # of all time limits
STRONG = ("landlock", "namespaces")

pytestmark = pytest.mark.skipif(
    sandbox.best_level() not in STRONG,
    reason="this machine can't shut students' code in",
)
# An ordinary user grades what depends on the user, and some of the rest.
OF_THE_USER = "ends", "floods", "spies"
THEIRS = [
    case
    for number, case in enumerate(CASES)
    if case.theme in OF_THE_USER
    or "right-one" in case.student
    or number % 5 == 0
]


@dataclass
class Graded:
    """What one run of the grader has left."""

    course: Course
    cases: list[Case]
    code: int
    output: str
    memory: int  # KiB of its largest process
    secret: str
    sprung: list[str]  # traps
    left: list[str]  # processes

    def points(self) -> dict[str, dict[str, float]]:
        """Return each student's points by exercise, from the gradebook."""
        exercise_of = {
            check.name: exercise.name
            for exercise in CHAPTER.exercises
            for check in exercise.checks
        }
        found = {}
        with self.course.gradebook() as gradebook:
            for one in gradebook.assignment_submissions(CHAPTER.name):
                points = found.setdefault(
                    one.student.id, dict.fromkeys(NAMES, 0)
                )
                for notebook in one.notebooks:
                    for grade in notebook.grades:
                        points[exercise_of[grade.name]] += grade.score
        return found

    def told(self, case: Case) -> str:
        """Return all that a person is told about a submission."""
        result = self.course.read_result(CHAPTER, case.student)
        names = CHAPTER.stem, CHAPTER.name, case.student
        comments = []
        with self.course.gradebook() as gradebook, suppress(MissingEntry):
            notebook = gradebook.find_submission_notebook(*names)
            comments = [c.comment or "" for c in notebook.comments]
        return "\n".join([*texts(result), *comments])


def texts(value: object) -> list[str]:
    """Return all strings in JSON."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


@pytest.fixture(scope="module")
def released():
    """Return a course with the chapter, in a folder that all may enter."""
    folder = Path(mkdtemp(prefix="hostile-"))
    folder.chmod(0o755)
    course = Course(folder / "released")
    release(course, [CHAPTER])
    yield course
    shutil.rmtree(folder)


@pytest.fixture(scope="module", params=["this user", "an ordinary user"])
def graded(request, released):
    """Hand in the corpus and grade it."""
    ordinary = request.param == "an ordinary user"
    if ordinary and os.geteuid() != 0:
        pytest.skip("the tests run as an ordinary user already")
    if ordinary and why_not():
        pytest.skip(f"can't become an ordinary user: {why_not()}")
    home = Path(mkdtemp(prefix="course-", dir=released.root.parent))
    course = Course(home / "course")
    shutil.copytree(released.root, course.root)
    as_user = as_ordinary_user if ordinary else (lambda words, _: words)
    with Traps(home, as_user(SLEEP, home)) as traps:
        cases = THEIRS if ordinary else CASES
        for case in cases:
            case.make(course, traps)
        words = [*GRADE, "--course", str(course.root), "--workers", "2"]
        ended = subprocess.run(
            as_user(words, home),
            env=traps.environment | LIMITS,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LONGEST,
            check=False,
        )
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Graded(
            course,
            cases,
            ended.returncode,
            ended.stdout.decode("utf-8", "replace"),
            used.ru_maxrss,
            traps.secret,
            traps.sprung(),
            left_behind(),
        )


def test_the_batch_ends(graded):
    assert graded.code == 0, graded.output[-2_000:]
    assert "Traceback" not in graded.output
    assert graded.memory < MOST_MEMORY


def test_everybody_gets_what_they_deserve(graded):
    points = graded.points()
    unfair = [
        f"{case.theme}, {case.student!r} ({case.does}): {name} should get "
        f"{deserved}, but gets {points.get(case.student, {}).get(name)}, "
        f"and is told {graded.told(case)[:LONGEST_TEXT]!r}"
        for case in graded.cases
        for name, deserved in case.deserves.items()
        if points.get(case.student, {}).get(name) != deserved
    ]
    assert not unfair, "\n".join(unfair)


def test_everybody_is_told_what_happened(graded):
    untold = []
    for case in graded.cases:
        told = graded.told(case)
        untold += [
            f"{case.theme}, {case.student!r} ({case.does}): should be told "
            f"{says!r}, but is told {told[:300]!r}"
            for says in case.says
            if not re.search(says, told, re.IGNORECASE)
        ]
    assert not untold, "\n".join(untold)


def test_nobody_is_told_too_much(graded):
    for case in graded.cases:
        lines = graded.told(case).splitlines()
        assert max(map(len, lines), default=0) < LONGEST_TEXT, case.student
        assert "\x1b" not in "".join(lines), case.student
    right = graded.course.read_result(CHAPTER, "a-right-one")
    assert (right["problem"], right["flags"], right["note"]) == (None, [], "")


def test_no_spy_finds_anything(graded):
    assert not graded.sprung
    for case in graded.cases:
        told = graded.told(case)
        assert "LEAK" not in told, f"{case.student!r}: {told[:500]}"
        assert graded.secret not in told
        executed = graded.course.notebook("autograded", CHAPTER, case.student)
        if executed.is_file():
            cells = json.loads(executed.read_bytes())["cells"]
            shown = "\n".join(texts([c.get("outputs") for c in cells]))
            assert "LEAK" not in shown, case.student
            assert graded.secret not in shown


def test_the_spies_can_see(released):
    """What they don't find in the sandbox, they find outside."""
    with Traps(released.root.parent, SLEEP) as traps:
        looking = f"""
held = [first + second for first, second in NEEDLES]
database = os.open(f"{{COURSE}}/gradebook.db", os.O_RDONLY)
for look in {READING}:
    found_before.clear()
    search(globals()[look])
    print(look if found_before else "", flush=True)
"""
        ended = subprocess.run(
            [sys.executable, "-c", eyes(released, traps) + looking],
            env=traps.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ended.stdout.split() == READING
        deadline = time.monotonic() + 5
        while len(set(traps.visitors)) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(set(traps.visitors)) == 5


def test_nothing_is_left_behind(graded):
    assert not graded.left
    for place in PLACES:
        found = [path.name for path in Path(place).iterdir()]
        assert not [name for name in found if name.startswith(MARK)]
