"""``python -m autograder check``, seen from outside."""

import json
from copy import deepcopy

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from autograder.chapters import chapters, find
from autograder.sample_class import reference_answers
from tests.commands import command

__all__ = ["command"]

COMMANDS = (
    "check",
    "progress",
    "gate",
    "release",
    "sample",
    "grade",
    "feedback",
    "report",
    "export",
    "doctor",
)
# One exercise each is absent, has bad syntax, never ends, ends the process;
# the last is right. The first line fails while the module is read.
FAULTY = """
undefined_name

def attention_scores(q, k)
    return q @ k.mT

def causal_mask(n_queries, n_keys, device=None):
    while True:
        pass

def attention(q, k, v, mask=None):
    import os
    os._exit(0)

"""


@pytest.fixture
def right():
    """Return the notebook of chapter 02, rightly answered."""
    chapter = find("attention")
    notebook = chapter.for_student()
    answers = reference_answers(chapter)
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = answers.get(name, cell.source)
    return notebook


def checked(command, chapter, *arguments):
    ended = command("check", chapter, *arguments, "--json")
    return ended.code, json.loads(ended.out)


@pytest.mark.parametrize("chapter", chapters(), ids=lambda c: c.name)
def test_the_reference_gets_full_points(command, chapter):
    module = chapter.root / "solutions" / f"{chapter.name}.py"
    code, result = checked(command, chapter.name, "--module", module)
    assert code == 0
    assert result["points"] == result["max_points"] == chapter.max_points


def test_one_bug_costs_one_exercise(command, tmp_path, monkeypatch):
    monkeypatch.setenv("AUTOGRADER_PATIENCE", "0.3")
    answers = reference_answers(find("attention"))
    path = tmp_path / "answers.py"
    path.write_text("import math\n" + FAULTY + answers["attention_backward"])
    code, result = checked(command, "attention", "--module", path)
    assert code == 1
    messages = {}
    for exercise in result["exercises"]:
        messages[exercise["id"]] = exercise["checks"][0]["message"]
        passed = exercise["id"] == "attention_backward"
        assert exercise["passed"] is passed
        assert exercise["points"] == passed * exercise["max_points"]
    assert "softmax is not defined" in messages["softmax"]
    assert "SyntaxError" in messages["attention_scores"]
    assert "endless loop" in messages["causal_mask"]
    assert "ended the process" in messages["attention"]


def test_json_is_as_specified(command, tmp_path):
    path = tmp_path / "answers.py"
    path.write_text(
        "import torch\n"
        "def softmax(x, dim=-1):\n"
        "    return x.exp() / x.exp().sum(dim, keepdim=True)\n"
    )
    code, result = checked(command, "attention", "--module", path)
    assert code == 1
    assert list(result) == ["chapter", "points", "max_points", "exercises"]
    assert result["chapter"] == "attention"
    exercises = result["exercises"]
    assert result["points"] == sum(e["points"] for e in exercises)
    assert result["max_points"] == sum(e["max_points"] for e in exercises)
    for exercise in exercises:
        assert list(exercise) == [
            "id",
            "points",
            "max_points",
            "passed",
            "checks",
            "diagnosis",
        ]
        for check in exercise["checks"]:
            assert list(check) == [
                "name",
                "points",
                "max_points",
                "passed",
                "message",
            ]
            assert check["passed"] == (check["message"] == "")
    assert exercises[0]["diagnosis"].startswith("Your softmax is the formula")


def test_a_mangled_notebook_keeps_its_points(command, tmp_path, right):
    """Cells are doubled, moved and added, and all metadata are gone."""
    answers = [
        cell
        for cell in right.cells
        if "exercise" in cell.metadata.get("tags", [])
    ]
    right.cells = [
        new_code_cell("1 / 0"),
        new_code_cell("%matplotlib inline\nimport math"),
        *deepcopy(answers[::-1]),
        *right.cells,
        new_code_cell("print('my own experiment'"),
    ]
    for number, cell in enumerate(right.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
    path = tmp_path / "my notebook.ipynb"
    nbformat.write(right, path)
    code, result = checked(command, "attention", path)
    assert (code, result["points"]) == (0, result["max_points"])


def test_a_wrong_answer_is_explained(command, tmp_path, right):
    for cell in right.cells:
        cell.source = cell.source.replace(" / math.sqrt(q.shape[-1])", "")
    path = tmp_path / "02-attention.ipynb"
    nbformat.write(right, path)
    ended = command("check", "02", path)
    assert ended.code == 1
    assert "attention_scores  0/6" in ended.out
    assert "without the 1/√D" in ended.out


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"cells": [', "is not a notebook that can be read"),
        ('{"metadata": {}}', "is not a notebook that can be read"),
        ("", "is not a notebook that can be read"),
        (None, "is missing"),
    ],
    ids=["cut off", "no cells", "empty", "missing"],
)
def test_a_broken_notebook_is_one_line(command, tmp_path, content, says):
    path = tmp_path / "02-attention.ipynb"
    if content is not None:
        path.write_text(content)
    ended = command("check", "attention", path)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert str(path) in ended.err
    assert says in ended.err
    assert ended.err.count("\n") == 1


def test_used_wrongly(command, tmp_path):
    ended = command("check", "flashattention")
    assert ended.code == 2
    assert "the chapters are: tokens, attention" in ended.err
    path = tmp_path / "answers.txt"
    path.write_text("")
    assert command("check", "attention", path).code == 2
    both = command("check", "attention", path, "--module", path)
    assert both.code == 2
    assert command("chek").code == 2


def test_every_command_shows_an_example(command):
    for name in COMMANDS:
        ended = command(name, "--help")
        assert ended.code == 0
        assert f"Example: python -m autograder {name}" in ended.out
