"""``python -m autograder progress``, seen from outside."""

import nbformat
import pytest

from autograder.chapters import find
from autograder.sample_class import answered, reference_answers
from tests.commands import command

__all__ = ["command"]


@pytest.fixture
def desk(tmp_path):
    """Return a folder with some chapters, solved in part."""
    attention, quadratic = find("attention"), find("quadratic")
    answers = reference_answers(attention)
    answers["causal_mask"] = answers["causal_mask"].replace("<=", "<")
    del answers["attention_backward"]
    here = tmp_path / f"{attention.stem}.ipynb"
    nbformat.write(attention.for_student(), here)
    nbformat.write(answered(here, answers), here)
    fetched = tmp_path / "quadratic" / f"{quadratic.stem}.ipynb"
    fetched.parent.mkdir()
    nbformat.write(quadratic.for_student(), fetched)
    return tmp_path


def test_progress_counts_and_says_what_is_next(command, desk):
    ended = command("progress", desk)
    assert ended.code == 0
    lines = {line[:2]: line for line in ended.out.splitlines()}
    attention, quadratic = find("attention"), find("quadratic")
    assert "3/5" in lines["02"]
    assert f"/{attention.max_points}" in lines["02"]
    assert f"0/{len(quadratic.exercises)}" in lines["04"]
    assert f"0/{quadratic.max_points}" in lines["04"]
    _, _, advice = ended.out.partition("Next, in ")
    head, what, *_ = advice.splitlines()
    assert attention.title in head
    assert what.strip().startswith("causal_mask: ")


def test_progress_names_a_notebook_that_is_broken(command, tmp_path):
    (tmp_path / "01-tokens.ipynb").write_text("{")
    ended = command("progress", tmp_path)
    assert ended.code == 0
    _, _, advice = ended.out.partition("Next, in ")
    assert "01-tokens.ipynb" in "".join(advice.split())  # in lines or not


def test_progress_says_where_it_looked(command, tmp_path):
    ended = command("progress", tmp_path)
    assert ended.code == 2
    assert str(tmp_path) in ended.err
    assert "01-tokens.ipynb" in ended.err
