"""Call ``python -m autograder`` as a person would, within this process."""

import sys
from typing import NamedTuple

import pytest

from autograder import cli


class Ended(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capsys):
    """Return a function that runs a command."""

    def run(*arguments: object) -> Ended:
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["autograder", *words])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        return Ended(exit_.value.code or 0, *capsys.readouterr())

    return run
