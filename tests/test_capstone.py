"""Checks of chapter 15; a student does not see the hidden lines."""

from dataclasses import replace
from functools import cache
from numbers import Real

import torch

from contextlab import capstone
from contextlab.capstone import Design, Keep
from contextlab.checks import assert_close, describe_type
from solutions.capstone import (
    design,
    flops_per_token,
    importance,
    kv_bytes_per_token,
    memory_mask,
)


def _streamed(scores, window, memory):
    """Read one row of scores token by token, and throw away for good."""
    n = len(scores)
    seen = torch.zeros(n, n, dtype=torch.bool)
    kept: list[int] = []
    for t in range(n):
        if t >= window:
            kept.append(t - window)
            if len(kept) > memory:
                kept.remove(min(kept, key=lambda s: float(scores[s])))
        seen[t, max(t - window + 1, 0) : t + 1] = True
        seen[t, kept] = True
    return seen


def _drawn(seed, *shape):
    """Draw scores of which no two in a row are alike."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator).argsort(-1).float()


def test_memory_mask_by_hand():
    """The best two of those that have left a window of two."""
    scores = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0, 9.0])
    right = torch.tensor(
        [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [1, 1, 1, 1, 0, 0],
            [1, 0, 1, 1, 1, 0],
            [1, 0, 0, 1, 1, 1],
        ]
    ).bool()
    got = memory_mask(scores.clone(), 2, 2)
    assert_close(got, right, "the mask of a window of 2 with room for 2")
    ### BEGIN HIDDEN TESTS
    right = _streamed(-scores, 1, 1)
    got = memory_mask(-scores, 1, 1)
    assert_close(got, right, "the mask of a window of 1 with room for 1")
    ### END HIDDEN TESTS


def test_memory_mask_is_what_a_stream_keeps():
    """The mask is that of reading token by token, in any batch."""
    scores = _drawn(1, 11)
    right = _streamed(scores, 3, 4)
    got = memory_mask(scores.clone(), 3, 4)
    assert_close(got, right, "the mask of 11 entries")
    ### BEGIN HIDDEN TESTS
    one = torch.ones(9, dtype=torch.float64) + 1e-12 * _drawn(9, 9).double()
    for scores in (_drawn(8, 9) - 1e6, one):  # far below 0; all but alike
        got = memory_mask(scores.clone(), 2, 3)
        right = _streamed(scores, 2, 3)
        assert_close(got, right, f"the mask of scores of {scores.mean():g}")
    for shape, window, memory in (
        ((2, 3, 19), 4, 5),
        ((3, 7), 1, 2),
        ((1, 2, 2, 13), 6, 1),
    ):
        scores = _drawn(len(shape), *shape) - 4  # of both signs
        rows = scores.reshape(-1, shape[-1])
        right = torch.stack([_streamed(row, window, memory) for row in rows])
        right = right.reshape(*shape, shape[-1])
        got = memory_mask(scores.clone(), window, memory)
        assert_close(got, right, f"the mask of scores of shape {shape}")
    ### END HIDDEN TESTS


def test_memory_mask_at_the_edges():
    """No memory, more room than entries, a window wider than the text."""
    scores = _drawn(2, 8)
    ones = torch.ones(8, 8, dtype=torch.bool)
    right = ones.tril() & ones.triu(-2)
    got = memory_mask(scores.clone(), 3, 0)
    assert_close(got, right, "the mask without a memory")
    got = memory_mask(scores.clone(), 3, 40)
    assert_close(got, ones.tril(), "the mask with room for all")
    ### BEGIN HIDDEN TESTS
    for window, memory in ((8, 0), (20, 3), (3, 5), (1, 7)):
        got = memory_mask(scores.clone(), window, memory)
        assert_close(got, ones.tril(), f"the mask of {window} and {memory}")
        got = memory_mask(_drawn(6, 2, 3, 8), window, memory)
        right = ones.tril().expand(2, 3, 8, 8)
        assert_close(got, right, f"the masks of {window} and {memory}")
    one = torch.ones(1, 1, dtype=torch.bool)
    got = memory_mask(torch.zeros(1), 1, 1)
    assert_close(got, one, "the mask of a single entry")
    ### END HIDDEN TESTS


def test_memory_mask_does_not_know_the_future():
    """Other scores later on change nothing before they come in."""
    scores = _drawn(3, 12)
    other = scores.clone()
    other[7:] = scores[7:] + 100
    before = memory_mask(scores.clone(), 3, 2)
    after = memory_mask(other, 3, 2)
    assert isinstance(before, torch.Tensor), "Return a mask, a tensor."
    assert before.shape == (12, 12), (
        f"12 entries need a mask of shape (12, 12), not {tuple(before.shape)}."
    )
    assert_close(after[:10], before[:10], "the mask before entry 7 has left")
    ### BEGIN HIDDEN TESTS
    scores = _drawn(4, 2, 20)
    right = torch.stack([_streamed(row, 4, 3) for row in scores])
    got = memory_mask(scores.clone(), 4, 3)
    assert_close(got, right, "the mask of 20 entries")
    lost = ~right & torch.ones(20, 20, dtype=torch.bool).tril()
    back = got[:, 1:] & lost[:, :-1]
    assert not back.any(), "What was thrown away is there again, later."
    ### END HIDDEN TESTS


def _assert_number(got, expected, what):
    """Assert that an answer is a number, and which."""
    number = isinstance(got, Real) and not isinstance(got, bool)
    assert number, f"{what} should be a number, but is {describe_type(got)}."
    assert abs(got - expected) <= 1e-9 * abs(expected), (
        f"{what} should be {expected:,.10g}, but is {got:,.10g}."
    )


def _counted(plan, n_tokens):
    """Let the trained model read, and count what it holds and computes."""
    ids, _ = capstone.exam(1, 0)
    plan = replace(plan, importance=lambda q, k, v, w: k[..., 0])
    _, *costs = capstone.read(plan, ids[:, :n_tokens], memory_mask)
    return costs


def test_bytes_of_a_window():
    """At 16 bits, a layer holds a window of keys and values of each head."""
    wide = Design((Keep(300), Keep(300)), 3)
    got = kv_bytes_per_token(wide, 200, 10)
    _assert_number(got, 240.0, "the bytes a token of all that is kept")
    narrow = Design((Keep(50), Keep(300)), 3)
    got = kv_bytes_per_token(narrow, 200, 10)
    _assert_number(got, 150.0, "the bytes a token of windows of 50 and 300")
    ### BEGIN HIDDEN TESTS
    for n, w, g, d in ((1, 1, 1, 6), (97, 31, 5, 12), (64, 64, 2, 16)):
        got = kv_bytes_per_token(Design((Keep(w),) * 3, g), n, d)
        right = 3 * w * g * 2 * d * 2 / n
        what = f"the bytes a token of three windows of {w} of {n} tokens"
        _assert_number(got, right, what)
    ### END HIDDEN TESTS


def test_bytes_of_a_memory_and_of_few_bits():
    """The memory's room counts, bits shrink an entry, its scales don't."""
    memory = Design((Keep(20, 30, 5),), 2)
    got = kv_bytes_per_token(memory, 100, 10)
    _assert_number(got, 40.0, "the bytes a token of a window and a memory")
    few = Design((Keep(50, bits=4),), 2)
    got = kv_bytes_per_token(few, 100, 10)
    _assert_number(got, 18.0, "the bytes a token at 4 bits")
    ### BEGIN HIDDEN TESTS
    for bits, entry in ((16, 40), (8, 28), (4, 18), (2, 13)):
        mixed = Design((Keep(7, 90, 3, bits), Keep(9, 0, None, bits)), 3)
        for n, held in ((200, 106), (40, 49), (8, 16)):
            got = kv_bytes_per_token(mixed, n, 10)
            what = f"the bytes a token at {bits} bits, of {n} tokens"
            _assert_number(got, 3 * entry * held / n, what)
    got = kv_bytes_per_token(Design((Keep(4, bits=2),), 1), 8, 7)
    _assert_number(got, 5.75, "the bytes a token of heads of width 7")
    ### END HIDDEN TESTS


def test_bytes_are_those_that_a_run_holds():
    """What is computed is what the trained model holds when it reads."""
    mixed = Design((Keep(5, 9, 2, 4), Keep(30), Keep(1), Keep(3, 4)), 2)
    held, _ = _counted(mixed, 24)
    _assert_number(kv_bytes_per_token(mixed, 24, 16), held, "the bytes held")
    ### BEGIN HIDDEN TESTS
    for layers, shared, n in (
        ((Keep(4, 40, 4, 2), Keep(2, bits=8), Keep(60), Keep(9, 1)), 1, 51),
        ((Keep(64, 64), Keep(1, 3, 1, 8), Keep(17, 5), Keep(8)), 4, 33),
    ):
        mixed = Design(layers, shared)
        held, _ = _counted(mixed, n)
        got = kv_bytes_per_token(mixed, n, 16)
        _assert_number(got, held, f"the bytes held of {n} tokens")
    ### END HIDDEN TESTS


def test_flops_of_a_window():
    """Weights count twice; a query and an entry cost 4D in each head."""
    wide = Design((Keep(300), Keep(50)), 1)
    got = flops_per_token(wide, 200, 3, 10, 1_000)
    right = 2 * 1_000 + 4 * 10 * 3 * (200 + 50)
    _assert_number(got, right, "the FLOPs of windows of 300 and 50")
    ### BEGIN HIDDEN TESTS
    for n, w, h, d in ((1, 1, 1, 6), (97, 31, 5, 12), (64, 64, 2, 16)):
        for shared in (1, h):
            given = Design((Keep(w, bits=4),) * 3, shared)
            got = flops_per_token(given, n, h, d, 77)
            right = 154 + 3 * 4 * d * h * w
            _assert_number(got, right, f"the FLOPs of three windows of {w}")
    ### END HIDDEN TESTS


def test_flops_of_what_is_retrieved():
    """All entries are scored; only values that are retrieved are summed."""
    memory = Design((Keep(20, 30, 5),), 1)
    got = flops_per_token(memory, 100, 3, 10, 0)
    _assert_number(got, 2 * 30 * (50 + 25), "the FLOPs of a memory")
    ### BEGIN HIDDEN TESTS
    for retrieved, found in ((None, 30), (30, 30), (90, 30), (1, 1)):
        given = Design((Keep(20, 30, retrieved),), 3)
        got = flops_per_token(given, 100, 3, 10, 9)
        right = 18 + 2 * 30 * (50 + 20 + found)
        _assert_number(got, right, f"the FLOPs of {retrieved} retrieved")
        got = flops_per_token(given, 24, 3, 10, 9)
        right = 18 + 2 * 30 * (24 + 20 + min(4, found))
        _assert_number(got, right, "the FLOPs of a memory with 4 entries")
    given = Design((Keep(20, 30, 5),), 3)
    got = flops_per_token(given, 12, 3, 10, 9)
    _assert_number(got, 18 + 2 * 30 * 24, "the FLOPs of an empty memory")
    ### END HIDDEN TESTS


def test_flops_are_those_of_a_run():
    """What is computed is what the trained model does for a last token."""
    mixed = Design((Keep(5, 9, 2, 4), Keep(30), Keep(1), Keep(3, 4)), 2)
    _, flops = _counted(mixed, 24)
    got = flops_per_token(mixed, 24, 4, 16, capstone.n_weights(2))
    _assert_number(got, flops, "the FLOPs")
    ### BEGIN HIDDEN TESTS
    for layers, shared, n in (
        ((Keep(4, 40, 4, 2), Keep(2, bits=8), Keep(60), Keep(9, 1)), 1, 51),
        ((Keep(64, 64), Keep(1, 3, 1, 8), Keep(17, 5), Keep(8)), 4, 33),
    ):
        mixed = Design(layers, shared)
        _, flops = _counted(mixed, n)
        weights = capstone.n_weights(shared)
        got = flops_per_token(mixed, n, 4, 16, weights)
        _assert_number(got, flops, f"the FLOPs for token {n}")
    ### END HIDDEN TESTS


def _layer(seed, shared=2, n=30):
    """Draw queries, keys and values of a layer."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (2, 4, n, 16), (2, shared, n, 16), (2, shared, n, 16)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def test_importance_scores_every_entry():
    """There is a finite score for each entry of each KV head."""
    for shared, n in ((2, 30), (1, 9)):
        given = _layer(1, shared, n)
        got = importance(*(x.clone() for x in given), 5)
        assert isinstance(got, torch.Tensor), (
            f"The scores should be a tensor, but are {describe_type(got)}."
        )
        assert got.shape == (2, shared, n), (
            f"The scores should have shape {(2, shared, n)}, but have "
            f"{tuple(got.shape)}."
        )
        assert got.isfinite().all(), "A score is infinite or not a number."
    ### BEGIN HIDDEN TESTS
    for shared, n, window in ((4, 12, 1), (1, 7, 7), (2, 5, 20)):
        got = importance(*_layer(2, shared, n), window)
        assert isinstance(got, torch.Tensor), "The scores are no tensor."
        assert got.shape == (2, shared, n), (
            f"The scores should have shape {(2, shared, n)}, but have "
            f"{tuple(got.shape)}."
        )
        assert got.isfinite().all(), "A score is infinite or not a number."
    ### END HIDDEN TESTS


def _assert_no_future(seed, window, at):
    """Cut or change everything from a place on; look at scores before it."""
    given = _layer(seed)
    other = [x.clone() for x in given]
    for x, news in zip(other, _layer(seed + 1), strict=True):
        x[:, :, at:] = 3 * news[:, :, at:]
    cut = importance(*(x[:, :, :at].clone() for x in given), window)
    before = importance(*(x.clone() for x in given), window)
    after = importance(*other, window)
    for scores, n in ((cut, at), (before, 30), (after, 30)):
        assert isinstance(scores, torch.Tensor), "The scores are no tensor."
        assert scores.shape == (2, 2, n), "The scores have a wrong shape."
    old = max(at - window + 1, 0)  # these have left before the change
    changes = [capstone.moved(before, scores, old) for scores in (cut, after)]
    assert not any(changes), (
        f"importance reads the future: with a window of {window}, scores of "
        f"entries before {at - window + 1} change with what stands at {at} "
        "and later. When these entries leave the window, that is not there "
        "yet."
    )


def test_importance_does_not_read_the_future():
    """A score is settled when its entry leaves the window."""
    _assert_no_future(3, 5, 20)
    ### BEGIN HIDDEN TESTS
    for window, at in ((1, 29), (1, 2), (8, 15), (30, 29)):
        _assert_no_future(5, window, at)
    ### END HIDDEN TESTS


FAR = Keep(window=4, memory=64, retrieved=8, bits=8)
NEAR = Keep(window=4, bits=8)


@cache
def _kept(importance, seed):
    """Examine a design in which the first layer has a memory."""
    given = Design((FAR, NEAR, NEAR, NEAR), 1, "linear", importance)
    try:
        return capstone.examine(given, memory_mask, seed).recall, ""
    except ValueError as error:
        return 0.0, f"No points: {error}."


def _assert_kept(importance, seed, least):
    """Assert that what is kept answers this share of the questions."""
    recall, problem = _kept(importance, seed)
    assert not problem, problem
    assert recall >= least, (
        f"With room for 64 of 256 entries, what your importance keeps answers "
        f"{recall:.2f} of the questions; {least:.2f} are asked for here."
    )


def test_importance_beats_the_latest():
    """What is kept answers 0.45 of the questions."""
    _assert_kept(importance, 0, 0.45)
    ### BEGIN HIDDEN TESTS
    _assert_kept(importance, 7_101, 0.45)
    ### END HIDDEN TESTS


def test_importance_keeps_what_is_asked_for():
    """What is kept answers 0.85 of the questions."""
    _assert_kept(importance, 0, 0.85)
    ### BEGIN HIDDEN TESTS
    _assert_kept(importance, 7_101, 0.85)
    ### END HIDDEN TESTS


@cache
def _examined(design):
    """Ask for a design once; return it, or what is wrong."""
    try:
        return capstone.checked(design()), ""
    except ValueError as error:
        return None, f"No points: {error}."


@cache
def _result(design, seed):
    """Let a design take one exam; return the result, or what is wrong."""
    found, problem = _examined(design)
    if problem:
        return None, problem
    try:
        result = capstone.examine(found, memory_mask, seed)
    except ValueError as error:
        return None, f"No points: {error}."
    over = result.over_budget()
    return result, f"No points: over budget, {over}." if over else ""


def _assert_recall(design, seeds, least):
    """Assert the recall over some exams, under budget."""
    results = []
    for seed in seeds:
        result, problem = _result(design, seed)
        assert not problem, problem
        results.append(result)
    recall = sum(result.recall for result in results) / len(results)
    assert recall >= least, (
        f"Recall is {recall:.2f}, and {least:.2f} is asked for here. The "
        f"design takes {results[0].kv_bytes:.1f} of "
        f"{capstone.MOST_BYTES:g} bytes a token and "
        f"{results[0].flops:,.0f} of {capstone.MOST_FLOPS:,.0f} FLOPs."
    )


def test_design_is_within_budget():
    """The design is complete, reads no future and keeps to both budgets."""
    _assert_recall(design, (0,), 0.0)


def test_design_recalls_a_tenth():
    """Recall under budget is at least 0.1."""
    _assert_recall(design, (0,), 0.1)
    ### BEGIN HIDDEN TESTS
    _assert_recall(design, (7_211, 7_212), 0.1)
    ### END HIDDEN TESTS


def test_design_recalls_a_quarter():
    """Recall under budget is at least 0.25."""
    _assert_recall(design, (0,), 0.25)
    ### BEGIN HIDDEN TESTS
    _assert_recall(design, (7_211, 7_212), 0.25)
    ### END HIDDEN TESTS


def test_design_recalls_half():
    """Recall under budget is at least 0.5."""
    _assert_recall(design, (0,), 0.5)
    ### BEGIN HIDDEN TESTS
    _assert_recall(design, (7_211, 7_212), 0.5)
    ### END HIDDEN TESTS


def test_design_recalls_most():
    """Recall under budget is at least 0.75."""
    _assert_recall(design, (0,), 0.75)
    ### BEGIN HIDDEN TESTS
    _assert_recall(design, (7_211, 7_212), 0.75)
    ### END HIDDEN TESTS


def test_design_recalls_nearly_all():
    """Recall under budget is at least 0.9."""
    _assert_recall(design, (0,), 0.9)
    ### BEGIN HIDDEN TESTS
    _assert_recall(design, (7_211, 7_212), 0.9)
    ### END HIDDEN TESTS
