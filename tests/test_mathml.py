"""Formulas as MathML: what browsers would set wrongly is mended."""

from xml.etree.ElementTree import Element, tostring

import pytest

from autograder.mathml import FormulaError, convert


def parts(latex: str, display: bool = False) -> list[str]:
    """Return the formula's leaves as ``tag:text``, without the source."""
    row = convert(latex, display)[0][0]
    return [
        f"{leaf.tag}:{leaf.text}"
        for leaf in row.iter()
        if len(leaf) == 0 and leaf.tag != "mspace"
    ]


def tags(latex: str, display: bool = False) -> set[str]:
    """Return the names of all elements of the formula."""
    return {element.tag for element in convert(latex, display).iter()}


def find(latex: str, text: str, display: bool = False) -> Element:
    """Return the first leaf with this text."""
    leaves = convert(latex, display).iter()
    return next(leaf for leaf in leaves if leaf.text == text)


def test_the_source_is_kept_for_copying() -> None:
    annotation = convert(r"\frac{a}{b}").find(".//annotation")
    assert annotation.text == r"\frac{a}{b}"
    assert annotation.get("encoding") == "application/x-tex"


def test_a_function_is_upright_and_close_to_its_bracket() -> None:
    apply = "mo:\N{FUNCTION APPLICATION}"
    got = parts(r"\operatorname{softmax}(x)")
    assert got == ["mi:softmax", apply, "mo:(", "mi:x", "mo:)"]
    math = tostring(convert(r"n \log n"), encoding="unicode")
    assert math.count("<mspace") == 2


def test_limits_stand_below_in_a_display_alone() -> None:
    assert "munder" in tags(r"\max_j x_j", display=True)
    assert "munder" not in tags(r"\max_j x_j")
    assert "munder" not in tags(r"e^{\max_j x_j}", display=True)
    assert "arg max" in find(
        r"\operatorname*{arg\,max}_i x", "arg\N{THIN SPACE}max", True
    ).text.replace("\N{THIN SPACE}", " ")


def test_signs_know_whether_they_have_a_left_side() -> None:
    assert find("a - b", "−").get("form") is None
    assert find("x = -b", "−").get("form") == "prefix"
    assert find(r"(x)-b", "−").get("form") is None


def test_symbols_get_their_kind() -> None:
    assert parts(r"-\infty")[1] == "mi:∞"
    assert parts(r"K^\top")[1] == "mi:⊤"
    assert parts(r"\lfloor x \rfloor") == ["mo:⌊", "mi:x", "mo:⌋"]
    assert parts(r"a \sim b")[1] == "mo:∼"
    assert parts("10{,}000") == ["mn:10", "mtext:,", "mn:000"]
    assert parts(r"\mathrm{d}x") == ["mtext:d", "mi:x"]
    assert parts(r"\mathbf{1}") == ["mn:𝟏"]
    assert parts(r"\boldsymbol{\theta}") == ["mi:𝜽"]


def test_aligned_columns_are_left_to_the_stylesheet() -> None:
    table = convert(r"\begin{aligned} a &= b \\ c &= d \end{aligned}", True)
    sides = [cell.get("class") for cell in table.iter("mtd")]
    assert sides == ["right", "left"] * 2
    assert table.find(".//mtable").get("class") == "aligned"


def test_a_part_can_have_a_colour_of_the_stylesheet() -> None:
    assert (
        convert(r"\class{query}{Q}").find(".//*[@class='query']") is not None
    )


@pytest.mark.parametrize(
    ("latex", "problem"),
    [
        (r"\nosuchcommand{x}", "doesn't know"),
        (r"a &= b", "doesn't know '&'"),
        (r"a \\ b", "needs aligned"),
        (r"\frac{a}", "mfrac is missing"),
        (r"x^", "can't read"),
        (r"\operatorname{KV~cache}", "letters only"),
        (r"a \not= b", "doesn't know"),
    ],
)
def test_what_is_not_understood_is_refused(latex: str, problem: str) -> None:
    with pytest.raises(FormulaError, match=problem):
        convert(latex)
