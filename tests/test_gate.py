"""Every chapter: known mistakes are caught, and right answers pass."""

from collections import Counter

import pytest

from autograder.chapters import chapters
from autograder.gate import gate
from autograder.misconceptions import catalogue

FEWEST_MISTAKES = {"attention": 10, "multihead": 12}
# Wrong answers that published test suites let pass: ours may not.
ACCEPTED_ELSEWHERE = {
    "attention": {
        "softmax": {"no max-subtraction"},
        "attention_scores": {"no 1/√D", "queries against queries"},
        "attention": {
            "no 1/√D",
            "queries against queries",
            "returns the values",
            "masked with −20",
        },
    },
    "multihead": {"MultiHeadAttention": {"returns its input"}},
    "flash": {"flash_attention": {"untiled"}},
    "kvcache": {"greedy_decode": {"the cache is never used"}},
    "rope": {
        "inverse_frequencies": {"base hard-coded"},
        "rotary_table": {"positions ignored"},
        "apply_rope": {
            "no rotation",
            "k never rotated",
            "the other way round",
        },
    },
    "mla": {
        "grouped_query_attention": {"head h reads head h mod G"},
        "MultiHeadLatentAttention": {"scaled by √nope"},
    },
    "ssm": {"selective_scan": {"Δ forgotten in ā", "wrong sign"}},
}
by_name = pytest.mark.parametrize("chapter", chapters(), ids=lambda c: c.name)


@by_name
def test_the_gate_finds_no_problem(chapter):
    rows = list(gate(chapter))
    assert [row for row in rows if row.problems] == []
    wrong = [row for row in rows if not row.right]
    assert all(row.caught_by for row in wrong)
    assert len(wrong) >= FEWEST_MISTAKES.get(chapter.name, 10)
    # The reference and two answers that go another way.
    right = Counter(row.exercise for row in rows if row.right)
    assert set(right) == {exercise.name for exercise in chapter.exercises}
    assert min(right.values()) >= 3


@by_name
def test_every_mistake_is_put_into_words(chapter):
    for mistakes in catalogue(chapter).MISTAKES.values():
        for mistake in mistakes:
            assert mistake.says.endswith((".", "?"))
            assert len(mistake.says) > len(mistake.name) + 10
        names = [mistake.name for mistake in mistakes]
        assert len(set(names)) == len(names)


@by_name
def test_what_is_accepted_elsewhere_is_a_known_mistake(chapter):
    mistakes = catalogue(chapter).MISTAKES
    for exercise, names in ACCEPTED_ELSEWHERE.get(chapter.name, {}).items():
        assert names <= {mistake.name for mistake in mistakes[exercise]}
