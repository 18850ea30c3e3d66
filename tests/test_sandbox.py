"""What each level of protection keeps from a submission, seen by `doctor`."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import mkdtemp

import pytest

from autograder.chapters import ROOT, chapters
from autograder.execution import sandbox
from tests.commands import command
from tests.hostile.ordinary_user import as_ordinary_user, why_not

__all__ = ["command"]

DOCTOR = [sys.executable, "-m", "autograder", "doctor", "attention"]
SAFE = "has no files but its own, no network, no other process"


def doctor(level: str) -> tuple[int, str]:
    """Let an ordinary user's doctor look at one level."""
    home = Path(mkdtemp(prefix="doctor-"))
    home.chmod(0o755)
    ended = subprocess.run(
        as_ordinary_user(DOCTOR, home) if os.geteuid() == 0 else DOCTOR,
        env=os.environ | {"AUTOGRADER_PROTECTION": level, "COLUMNS": "200"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ended.returncode, ended.stdout


ordinary = pytest.mark.skipif(
    bool(os.geteuid() == 0 and why_not()),
    reason=f"can't become an ordinary user: {why_not()}",
)


@ordinary
@pytest.mark.parametrize("level", ["namespaces", "landlock"])
def test_a_submission_can_not_get_out(level):
    if os.geteuid() != 0 and (problem := sandbox.problem(level)):
        pytest.skip(problem)
    code, said = doctor(level)
    assert f"shut in by: {level}" in said
    assert SAFE in said
    assert "the reference gets 28 of 28 points" in said
    assert code == 0


@ordinary
def test_limits_alone_are_not_enough(tmp_path):
    """`doctor` shows what the code can do, and `grade` refuses."""
    code, said = doctor("rlimits")
    assert code == 1
    assert "shut in by: rlimits" in said
    assert "opens TCP connections" in said
    first = chapters()[0].name
    assert f"reads {ROOT / 'solutions' / f'{first}.py'}" in said


def test_the_doctor_of_this_machine(command):
    ended = command("doctor", "attention")
    assert SAFE in " ".join(ended.out.split())
    assert "the reference gets 28 of 28 points" in ended.out
    assert ended.code == 0
