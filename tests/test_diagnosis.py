"""What is said of a wrong answer that is no known mistake."""

import math

import pytest
import torch

from autograder.chapters import find
from autograder.diagnosis import (
    Outcome,
    contrast,
    describe,
    diagnose,
    outcomes,
    same,
)

MANY = torch.arange(30.0).reshape(5, 6)


@pytest.mark.parametrize(
    ("right", "got", "says"),
    [
        (2, 3, "the answer should be 2, but is 3"),
        (MANY[0, :2], MANY[0, :2].double(), "should be torch.float32, but is"),
        (MANY, MANY + (MANY == 8), "entry [1, 2] of the answer should be 8, "),
        (MANY, MANY / (MANY != 8), "should be 8, but is inf"),
        ((1, MANY), (1, -MANY), "entry [4, 5] of part 1 of the answer should"),
        (0.5, torch.tensor(0.5), "should be a float, but is torch.float32"),
        (torch.ones(1), torch.ones(1) + 1e-5, "entry [0] of the answer"),
    ],
)
def test_the_difference_is_shown(right, got, says):
    assert says in contrast(right, got)


def test_numbers_of_two_types_are_the_same():
    assert same(100.0, 100)
    assert not same(1, True)
    assert not same(1.0, "1.0")


def test_a_constant_is_not_an_input_that_came_back():
    zeros, numbers = torch.zeros(3), torch.arange(3.0)
    said = describe(
        Outcome({"x": zeros, "y": numbers}, numbers + 1),
        Outcome({"x": zeros, "y": numbers}, zeros),
    )
    assert "as it was given" not in said
    said = describe(
        Outcome({"x": numbers}, zeros), Outcome({"x": numbers}, numbers)
    )
    assert said.startswith("You return x as it was given.")


def test_what_an_answer_changes_it_changes_for_itself_alone():
    shared = torch.arange(3.0)

    def probe(answer, seed):
        for _ in range(2):
            yield {"x": shared}, lambda: answer(shared)

    found = outcomes(probe, lambda x: x.mul_(2).sum())
    assert [one.output.item() for one in found] == [6.0] * 4
    assert shared.tolist() == [0.0, 1.0, 2.0]


def test_exceptions_of_one_type_are_not_one_mistake():
    chapter = find("quadratic")

    def other(*_):
        raise RuntimeError("something that no known mistake says")

    assert diagnose(chapter, "chunked_attention", other) is None


def test_many_answers_are_right_where_there_is_no_one_right_answer():
    def firsts(q, k, v, window):
        return -torch.arange(k.shape[2]).expand(k.shape[:3]) % math.pi

    assert diagnose(find("capstone"), "importance", firsts) is None
