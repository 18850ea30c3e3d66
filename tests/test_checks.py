"""What the checks say to a student, and what they forbid."""

import math

import pytest
import torch

from contextlab.checks import (
    assert_close,
    assert_same,
    forbid_autograd,
    forbid_softmax,
)

RIGHT = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (None, "should be a tensor, but is None"),
        ([[1.0, 2.0], [3.0, 4.0]], "should be a tensor, but is a list"),
        (RIGHT[0], r"should have shape \(2, 2\), but has \(2,\)"),
        (RIGHT.float(), "should be of torch.float64, but is of torch.float32"),
        (
            RIGHT + torch.tensor([[0.0, 0.5], [0.0, 3.0]]),
            r"wrong in 2 of 4 entries: entry \[1, 1\] should be 4, but is 7",
        ),
        (RIGHT * math.nan, r"wrong in 4 of 4 entries: .* but is nan"),
    ],
)
def test_assert_close_names_what_differs(wrong, says):
    with pytest.raises(AssertionError, match=says):
        assert_close(wrong, RIGHT, "the output")


def test_assert_close_accepts_rounding_and_no_more():
    assert_close(RIGHT + 1e-7, RIGHT, "the output")
    assert_close(RIGHT.float() + 1e-6, RIGHT.float(), "the output")
    with pytest.raises(AssertionError):
        assert_close(RIGHT + 1e-4, RIGHT, "the output")
    infinite = torch.tensor([math.inf, -math.inf])
    assert_close(infinite, infinite.clone(), "the output")
    with pytest.raises(AssertionError):
        assert_close(torch.tensor([math.nan]), torch.tensor([math.nan]), "it")


@pytest.mark.parametrize(
    "call",
    [
        lambda x: torch.softmax(x, -1),
        lambda x: x.log_softmax(-1).exp(),
        lambda x: torch.nn.functional.softmax(x, -1),
        lambda x: torch.nn.Softmax(-1)(x),
    ],
)
def test_softmax_is_forbidden_under_every_name(call):
    with (
        forbid_softmax(),
        pytest.raises(AssertionError, match="PyTorch's own softmax"),
    ):
        call(RIGHT)
    call(RIGHT)  # and allowed again afterwards


def test_autograd_is_forbidden_by_every_way_in():
    leaf = RIGHT.clone().requires_grad_()

    def backward():
        leaf.sum().backward()

    def grad():
        torch.autograd.grad(leaf.sum(), leaf)

    def imported_before():
        imported(leaf.sum(), leaf)

    def vjp():
        _, pull_back = torch.func.vjp(torch.sin, RIGHT)
        pull_back(RIGHT)

    def jacobian():
        torch.autograd.functional.jacobian(torch.sin, RIGHT)

    imported = torch.autograd.grad
    for way in (backward, grad, imported_before, vjp, jacobian):
        with (
            forbid_autograd(),
            pytest.raises(AssertionError, match="calls autograd"),
        ):
            way()
    backward()
    assert leaf.grad is not None


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (None, "It should be a list, but is None"),
        ([(1, 2)], "It should have 2 entries, but has 1"),
        ([(1, 2), (3, 5)], "entry 1 of entry 1 of It should be 4, but is 5"),
        ([(1, 2), (3, 4.0)], r"of It should be 4, but is 4\.0, a float"),
        ([(1, 2), (3, True)], "of It should be 4, but is True, a bool"),
        ([(1, 2), (3, 4), 5], "It should have 2 entries, but has 3"),
    ],
)
def test_plain_data_that_differs_is_put_into_words(wrong, says):
    with pytest.raises(AssertionError, match=says):
        assert_same(wrong, [(1, 2), (3, 4)], "It")


def test_plain_data_that_is_the_same_passes():
    assert_same(([1, 2], (3, 4)), [(1, 2), (3, 4)], "It")
    assert_same({"b": "x", "a": 1}, {"a": 1, "b": "x"}, "It")
    with pytest.raises(AssertionError, match="should have the keys a, b"):
        assert_same({"a": 1}, {"a": 1, "b": "x"}, "It")
    with pytest.raises(AssertionError, match="'a' of It should be 1"):
        assert_same({"a": 2}, {"a": 1}, "It")
