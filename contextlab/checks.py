"""What the checks of the course say, and what they forbid."""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from contextlab.spies import Forbid

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}


def assert_close(
    got: Tensor, expected: Tensor, what: str, tolerance: float | None = None
) -> None:
    """Assert that a tensor is what it should be, in words for a student.

    Args:
        got: what the student's code returned, whatever it is.
        expected: the right answer.
        what: what the tensor is, as the subject of a sentence: "the output".
        tolerance: the largest difference allowed; by default 1e-6 in
            float64 and 1e-5 in float32. NaN is close to nothing.

    Raises:
        AssertionError: names the first thing that differs: type, shape,
            dtype, or the value that is furthest off.
    """
    assert isinstance(got, Tensor), (
        f"{what} should be a tensor, but is {describe_type(got)}."
    )
    assert got.shape == expected.shape, (
        f"{what} should have shape {tuple(expected.shape)}, but has "
        f"{tuple(got.shape)}."
    )
    assert got.dtype == expected.dtype, (
        f"{what} should be of {expected.dtype}, but is of {got.dtype}."
    )
    if tolerance is None:
        tolerance = TOLERANCE.get(expected.dtype, 0.0)
    wrong = ~torch.isclose(got, expected, rtol=tolerance, atol=tolerance)
    if wrong.any():
        raise AssertionError(_furthest_off(got, expected, wrong, what))


def assert_same(got: Any, expected: Any, what: str) -> None:
    """Assert that plain data is what it should be, in words for a student.

    Args:
        got: what the student's code returned, whatever it is.
        expected: whole numbers, texts, and lists and dicts of those. A tuple
            may stand for a list, and a list for a tuple.
        what: what the data is, as the subject of a sentence: "the list".

    Raises:
        AssertionError: names the first thing that differs.
    """
    if isinstance(expected, list | tuple):
        assert isinstance(got, list | tuple), (
            f"{what} should be a list, but is {describe_type(got)}."
        )
        for place, one in enumerate(expected[: len(got)]):
            assert_same(got[place], one, f"entry {place} of {what}")
        assert len(got) == len(expected), (
            f"{what} should have {len(expected)} entries, but has {len(got)}."
        )
        return
    assert _is_alike(got, expected), (
        f"{what} should be {expected!r:.60}, but is {_value_and_type(got)}."
    )
    if isinstance(expected, dict):
        assert got.keys() == expected.keys(), (
            f"{what} should have the keys {', '.join(map(str, expected))}."
        )
        for key, one in expected.items():
            assert_same(got[key], one, f"{key!r} of {what}")
        return
    assert got == expected, (
        f"{what} should be {expected!r:.60}, but is {got!r:.60}."
    )


def _is_alike(got: Any, expected: Any) -> bool:
    """Say whether one may stand for the other: any whole number for an int."""
    if type(expected) is int:
        return isinstance(got, Integral) and not isinstance(got, bool)
    return isinstance(got, type(expected))


def _value_and_type(value: Any) -> str:
    plain = isinstance(value, bool | str | float | Integral)
    return f"{value!r:.60}, " * plain + describe_type(value)


def refuses(function: Callable, *given: Any) -> bool:
    """Say whether a call ends in a ValueError."""
    try:
        function(*given)
    except (ValueError, AssertionError) as error:  # one or the other kind
        return isinstance(error, ValueError)
    return False


def _furthest_off(
    got: Tensor, expected: Tensor, wrong: Tensor, what: str
) -> str:
    if expected.dtype == torch.bool:
        distance = wrong.double()
    else:
        distance = (got - expected).abs().double().nan_to_num(torch.inf)
        distance = distance.masked_fill(~wrong, -1.0)
    index = tuple(
        int(i) for i in torch.unravel_index(distance.argmax(), got.shape)
    )
    entry = f"entry {list(index)}" if index else "the value"
    return (
        f"{what} is wrong in {int(wrong.sum())} of {wrong.numel()} entries: "
        f"{entry} should be {show(expected[index])}, but is "
        f"{show(got[index])}."
    )


def describe_type(value: object) -> str:
    """Name the type of a value as a sentence would: "None", "an int"."""
    if value is None:
        return "None"
    name = type(value).__name__
    vowel = name[0].lower() in "aeiou" or name == "ndarray"
    return f"{'an' if vowel else 'a'} {name}"


def show(value: Tensor) -> str:
    """Write a single entry in as many digits as a reader can use."""
    number = value.item()
    return f"{number:.6g}" if isinstance(number, float) else str(number)


def forbid_softmax() -> Forbid:
    """Make PyTorch's own softmax raise, under any of its names."""
    return Forbid("softmax")


def forbid_autograd() -> Forbid:
    """Make every way into PyTorch's automatic differentiation raise."""
    return Forbid("autograd")
