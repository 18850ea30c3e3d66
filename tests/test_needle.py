"""Checks of chapter 14; a student does not see the hidden lines."""

import math
from numbers import Integral

import torch

from contextlab.checks import assert_close, describe_type
from solutions.needle import (
    attention_mass,
    diluted_weight,
    effective_context,
    lost_in_the_middle,
    make_haystack,
    multi_needle_recall,
    needle_grid,
)


def _haystack(filler, needle, question, n_tokens, depth):
    """Put a text together token by token."""
    room = n_tokens - len(needle) - len(question)
    place = int(depth * room + 0.5)
    text = []
    for t, token in enumerate(filler[:room].tolist()):
        text += (needle.tolist() if t == place else []) + [token]
    if place == room:
        text += needle.tolist()
    return torch.tensor(text + question.tolist())


def _assert_haystack(filler, needle, question, n_tokens, depth):
    """Assert that an answer puts these together as it should."""
    right = _haystack(filler, needle, question, n_tokens, depth)
    given = filler.clone(), needle.clone(), question.clone()
    got = make_haystack(*given, n_tokens, depth)
    what = f"the text of {n_tokens} tokens with a needle at depth {depth:g}"
    assert_close(got, right, what)
    kept = (filler, needle, question)
    for now, before in zip(given, kept, strict=True):
        assert_close(now, before, "what it is given, which must not change,")


HAY = torch.arange(100, 140)
NEEDLE = torch.tensor([1, 2, 3])
QUESTION = torch.tensor([8, 9])


def test_haystack_holds_the_needle():
    """The needle stands whole at its depth, the question at the end."""
    _assert_haystack(HAY, NEEDLE, QUESTION, 15, 0.5)
    _assert_haystack(HAY, NEEDLE, QUESTION, 25, 0.25)
    ### BEGIN HIDDEN TESTS
    for n_tokens, depth in ((25, 0.31), (25, 0.84), (9, 0.74), (45, 0.4)):
        _assert_haystack(HAY, NEEDLE, QUESTION, n_tokens, depth)
    torch.manual_seed(1)
    hay = torch.randint(9, (200,))
    for depth in (0.07, 0.51, 0.93):
        for needle, question in ((1, 1), (7, 1), (1, 5), (4, 4)):
            _assert_haystack(
                hay, torch.arange(needle), torch.arange(question), 111, depth
            )
    ### END HIDDEN TESTS


def test_haystack_reaches_both_ends():
    """Depth 0 begins with the needle, depth 1 ends with needle, question."""
    text = make_haystack(HAY, NEEDLE, QUESTION, 12, 0.0)
    right = torch.cat([NEEDLE, HAY[:7], QUESTION])
    assert_close(text, right, "the text with a needle at depth 0")
    text = make_haystack(HAY, NEEDLE, QUESTION, 12, 1.0)
    right = torch.cat([HAY[:7], NEEDLE, QUESTION])
    assert_close(text, right, "the text with a needle at depth 1")
    ### BEGIN HIDDEN TESTS
    for n_tokens in (6, 7, 23, 44):
        for depth in (0, 1):
            _assert_haystack(HAY, NEEDLE, QUESTION, n_tokens, depth)
    ### END HIDDEN TESTS


def test_haystack_fills_any_length_exactly():
    """A text has the length that was asked for, the shortest, too."""
    for n_tokens in (5, 6, 30, 45):
        text = make_haystack(HAY, NEEDLE, QUESTION, n_tokens, 0.5)
        _assert_length(text, n_tokens)
    ### BEGIN HIDDEN TESTS
    for n_tokens in (5, 45):
        for depth in (0.0, 0.3, 1.0):
            _assert_haystack(HAY, NEEDLE, QUESTION, n_tokens, depth)
    ### END HIDDEN TESTS


def _assert_length(text, n_tokens):
    assert isinstance(text, torch.Tensor), (
        f"Return a tensor. This returned {describe_type(text)}."
    )
    assert text.shape == (n_tokens,), (
        f"A text of {n_tokens} tokens was asked for. This one has shape "
        f"{tuple(text.shape)}."
    )


def test_haystack_refuses_what_it_cannot_do():
    """Too little room, too little filler and other depths raise errors."""
    for n_tokens, depth, why in (
        (4, 0.5, "needle and question don't fit"),
        (46, 0.5, "the filler is too short"),
        (20, 1.5, "there is no depth 1.5"),
    ):
        _assert_refused(n_tokens, depth, why)
    ### BEGIN HIDDEN TESTS
    for n_tokens, depth, why in (
        (0, 0.0, "needle and question don't fit"),
        (100, 0.0, "the filler is too short"),
        (20, -0.01, "there is no depth -0.01"),
        (20, 50, "there is no depth 50"),
    ):
        _assert_refused(n_tokens, depth, why)
    ### END HIDDEN TESTS


def _assert_raises(call, why):
    """Assert that a call raises a ValueError."""
    try:
        call()
    except ValueError:
        return
    raise AssertionError(f"{why}: raise a ValueError.")


def _assert_refused(n_tokens, depth, why):
    _assert_raises(
        lambda: make_haystack(HAY, NEEDLE, QUESTION, n_tokens, depth),
        f"For {n_tokens} tokens and depth {depth}, {why}",
    )


class _Texts:
    """Draws texts that end with the token a parrot should say, or not.

    ``rate`` gives the share of texts of a length and depth that do. It keeps
    all that was drawn, by length and depth.
    """

    def __init__(self, rate, vocabulary=12):
        self.rate, self.vocabulary = rate, vocabulary
        self.right, self.drawn = {}, []

    def __call__(self, n_tokens, depth, trials, generator):
        size = self.vocabulary
        ids = torch.randint(size, (trials, n_tokens), generator=generator)
        lot = torch.rand(trials, generator=generator)
        right = lot < self.rate(n_tokens, depth)
        answers = torch.where(right, ids[:, -1], (ids[:, -1] + 1) % size)
        self.right.setdefault((n_tokens, depth), []).extend(right.tolist())
        self.drawn += ids.tolist()
        return ids, answers

    def parrot(self, ids):
        """Say the token just read once more: logits, (B, T, V)."""
        return torch.nn.functional.one_hot(ids, self.vocabulary) * 3.0

    def grid(self, lengths, depths):
        """Return the shares of all that was drawn."""
        return torch.tensor(
            [
                [
                    sum(self.right.get((n, d), [0]))
                    / max(len(self.right.get((n, d), [])), 1)
                    for d in depths
                ]
                for n in lengths
            ]
        )


def _run(texts, lengths, depths, trials, seed=1, model=None):
    generator = torch.Generator().manual_seed(seed)
    return needle_grid(
        model or texts.parrot, texts, lengths, depths, trials, generator
    )


def test_grid_counts_what_is_found():
    """A cell holds the share of its texts whose answer comes out on top."""
    for share in (0.0, 1.0):
        texts = _Texts(lambda n, d, share=share: share)
        got = _run(texts, [5, 9], [0.0, 1.0], 20)
        what = f"the grid where the share {share:g} is right"
        assert_close(got, torch.full((2, 2), share), what)
    ### BEGIN HIDDEN TESTS
    texts = _Texts(lambda n, d: 0.6)
    got = _run(texts, [5, 9], [0.0, 1.0], 37)
    assert_close(got, texts.grid([5, 9], [0.0, 1.0]), "the grid")
    ### END HIDDEN TESTS


def test_grid_has_lengths_down_and_depths_across():
    """Row i is length i, column j depth j, in the order given."""
    lengths, depths = [4, 8, 6], [0.0, 0.5, 1.0, 0.25]
    texts = _Texts(lambda n, d: n / 10 > d)
    got = _run(texts, lengths, depths, 8)
    assert_close(got, texts.grid(lengths, depths), "the grid")
    ### BEGIN HIDDEN TESTS
    lengths, depths = (9, 3, 5), (1.0, 0.1, 0.7)  # as many of both
    texts = _Texts(lambda n, d: 0.1 * n * (1 - 0.8 * d))
    got = _run(texts, lengths, depths, 50, seed=3)
    right = texts.grid(lengths, depths)
    assert_close(got, right, "the grid of three lengths and three depths")
    texts = _Texts(lambda n, d: 0.5)
    got = _run(texts, [7], [0.5], 3)
    assert_close(got, texts.grid([7], [0.5]), "the grid of one cell")
    ### END HIDDEN TESTS


def test_grid_draws_fresh_texts_for_every_trial():
    """Each cell has its own texts, as many as there are trials."""
    texts = _Texts(lambda n, d: 0.5, vocabulary=1_000)
    _run(texts, [10, 10], [0.0, 0.5, 1.0], 15)
    for depth in (0.0, 0.5, 1.0):
        n = len(texts.right.get((10, depth), []))
        assert n == 30, (
            f"At depth {depth:g}, two rows of 15 trials need 30 texts. {n} "
            "were drawn."
        )
    different = len({tuple(ids) for ids in texts.drawn})
    assert different == 90, (
        f"90 texts should all be different. {different} were: the generator "
        "has to go on from cell to cell."
    )
    ### BEGIN HIDDEN TESTS
    first = list(texts.drawn)
    twice = _Texts(lambda n, d: 0.5, vocabulary=1_000)
    generator = torch.Generator().manual_seed(5)
    for _ in range(2):
        needle_grid(twice.parrot, twice, [10], [0.0, 1.0], 15, generator)
    different = len({tuple(ids) for ids in twice.drawn})
    assert different == 60, (
        "Two grids from one generator need 60 different texts. "
        f"{different} were different: draw from the generator that you are "
        "given, not from one of your own, and never set it back."
    )
    _run(texts, [10, 10], [0.0, 0.5, 1.0], 15, seed=90_001)
    both = {tuple(ids) for ids in texts.drawn}
    assert len(both) == 180, (
        "Another generator should give other texts: draw from the generator "
        "that you are given."
    )
    again = _Texts(lambda n, d: 0.5, vocabulary=1_000)
    _run(again, [10, 10], [0.0, 0.5, 1.0], 15)
    assert again.drawn == first, "The same generator, the same texts."
    ### END HIDDEN TESTS


def test_grid_takes_the_answer_after_the_last_token():
    """What the model says earlier in a text, or second best, is no answer."""
    texts = _Texts(lambda n, d: 0.5)

    def late(ids):
        """Say 0 everywhere, and what was read only at the end."""
        logits = texts.parrot(torch.zeros_like(ids))
        logits[:, -1] = texts.parrot(ids)[:, -1]
        return logits

    got = _run(texts, [6], [0.5], 40, model=late)
    assert_close(got, texts.grid([6], [0.5]), "the grid of a late answer")
    ### BEGIN HIDDEN TESTS
    texts = _Texts(lambda n, d: 0.5)

    def second_best(ids):
        """Put the answer second, behind a token that is never right."""
        logits = texts.parrot(ids)
        logits[..., 0] = 9.0
        return logits

    got = _run(texts, [6], [0.5], 40, model=second_best)
    ids = torch.tensor(texts.drawn)
    zero = (ids[:, -1] == 0) & torch.tensor(texts.right[6, 0.5])
    zero |= (ids[:, -1] == 11) & ~torch.tensor(texts.right[6, 0.5])
    right = zero.float().mean().reshape(1, 1)
    assert_close(got, right, "the grid of a model that always says 0")
    below = _Texts(lambda n, d: 0.5)
    got = _run(below, [6], [0.5], 40, model=lambda ids: below.parrot(ids) - 9)
    right = below.grid([6], [0.5])
    assert_close(got, right, "the grid where all logits are negative")
    ### END HIDDEN TESTS


def _mass(weights, places):
    """Add up the last query's weights one by one."""
    rows = []
    for text, at in zip(weights.tolist(), places.tolist(), strict=True):
        rows.append([sum(head[-1][s] for s in at) for head in text])
    return torch.tensor(rows, dtype=weights.dtype)


def _weights(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (2 * scores).softmax(-1)


def test_mass_is_the_sum_over_the_needle():
    """The last token's weights on the needle's tokens are added up."""
    weights = torch.tensor([[[[1.0, 0.0, 0.0], [0.2, 0.4, 0.4]]]])
    places = torch.tensor([[0, 1]])
    got = attention_mass(weights, places)
    assert_close(got, torch.tensor([[0.6]]), "the mass on tokens 0 and 1")
    ### BEGIN HIDDEN TESTS
    weights = _weights(1, 2, 3, 5, 9)
    places = torch.tensor([[8, 0, 3], [2, 1, 7]])
    got = attention_mass(weights.clone(), places.clone())
    assert_close(got, _mass(weights, places), "the mass on three tokens")
    single = attention_mass(weights.float(), places)
    assert_close(single, _mass(weights, places).float(), "the mass, float32")
    ### END HIDDEN TESTS


def test_mass_is_each_texts_and_each_heads_own():
    """Every text has its own places; heads are not mixed."""
    weights = _weights(2, 2, 3, 4, 6)
    places = torch.tensor([[0], [5]])
    got = attention_mass(weights.clone(), places)
    assert_close(got, _mass(weights, places), "the mass on one token")
    ### BEGIN HIDDEN TESTS
    weights = _weights(3, 4, 4, 4, 4)  # B = H = T = S = K
    places = torch.rand(4, 4, generator=torch.Generator().manual_seed(4))
    places = places.argsort(-1)
    got = attention_mass(weights, places[:, :2])
    right = _mass(weights, places[:, :2])
    assert_close(got, right, "the mass where B = H = T = S")
    ones = torch.ones(4, 4, dtype=torch.float64)
    everything = attention_mass(weights, places)
    assert_close(everything, ones, "the mass on all tokens")
    ### END HIDDEN TESTS


def _assert_weight(gap, n_keys, right, variance=None):
    given = (gap, n_keys) if variance is None else (gap, n_keys, variance)
    got = diluted_weight(*given)
    assert isinstance(got, int | float), (
        f"Return a number. This returned {describe_type(got)}."
    )
    assert math.isclose(got, right, rel_tol=1e-5, abs_tol=1e-300), (
        f"The weight for {given} should be {right:.9g}, but is {got:.9g}."
    )


def test_weight_follows_the_formula():
    """e^Δ against the n - 1 others, each e^(variance / 2) on average."""
    for gap, n_keys in ((0.0, 2), (2.0, 10), (5.3, 128), (14.3, 1_000_000)):
        one, others = math.exp(gap), (n_keys - 1) * math.exp(0.5)
        _assert_weight(gap, n_keys, one / (one + others))
    ### BEGIN HIDDEN TESTS
    for gap, n_keys, variance in ((3.0, 5, 0.0), (-1.5, 7, 4.0), (9, 99, 2)):
        one = math.exp(gap)
        others = (n_keys - 1) * math.exp(variance / 2)
        _assert_weight(gap, n_keys, one / (one + others), variance)
    ### END HIDDEN TESTS


def test_weight_is_what_softmax_gives():
    """For many random scores, a softmax gives close to what is predicted."""
    torch.manual_seed(5)
    for gap, n_keys, variance in ((6.0, 512, 1.0), (8.0, 4096, 2.0)):
        scores = torch.randn(200, n_keys, dtype=torch.float64) * variance**0.5
        scores[:, 0] = gap
        measured = scores.softmax(-1)[:, 0].mean().item()
        got = diluted_weight(gap, n_keys, variance)
        assert isinstance(got, int | float), (
            f"Return a number. This returned {describe_type(got)}."
        )
        assert abs(got - measured) < 0.03, (
            f"With a gap of {gap} and {n_keys:,} keys of variance {variance}, "
            f"softmax gives {measured:.3f} on average, not {got:.3f}."
        )


def test_weight_at_the_extremes():
    """One key alone, and gaps whose exponential overflows."""
    _assert_weight(3.0, 1, 1.0)
    _assert_weight(1_000.0, 100, 1.0)
    _assert_weight(-1_000.0, 100, 0.0)
    ### BEGIN HIDDEN TESTS
    _assert_weight(-5.0, 1, 1.0, 9.0)
    _assert_weight(2_000.0, 2, 1 / (1 + math.exp(-10)), 3_980.0)
    _assert_weight(-2_000.0, 2, 0.0, 0.0)
    _assert_weight(-1_000.0, 1, 1.0)
    one = math.exp(-20)
    _assert_weight(-20.0, 2, one / (one + math.exp(0.5)))
    ### END HIDDEN TESTS


def test_dip_of_a_curve_like_a_u():
    """Both ends above the middle: the lower of them counts."""
    recall = torch.tensor([0.9, 0.4, 0.4, 0.4, 0.7])
    depths = [0.0, 0.4, 0.5, 0.6, 1.0]
    got = lost_in_the_middle(recall, depths)
    assert_close(got, torch.tensor(0.3), "the dip of a U")
    ### BEGIN HIDDEN TESTS
    recall = torch.tensor([0.9, 0.7, 0.2, 0.5, 0.6, 1.0], dtype=torch.float64)
    depths = [0.0, 0.2, 0.35, 0.6, 0.7, 1.0]
    right = torch.tensor(0.8 - 0.35, dtype=torch.float64)
    got = lost_in_the_middle(recall, depths)
    assert_close(got, right, "the dip of two depths in each third")
    ### END HIDDEN TESTS


def test_dip_of_a_curve_that_only_falls():
    """What is merely far is not lost in the middle."""
    for recall in ([0.1, 0.5, 0.9], [0.9, 0.5, 0.1], [0.5, 0.5, 0.5]):
        got = lost_in_the_middle(torch.tensor(recall), [0.0, 0.5, 1.0])
        right = torch.tensor(min(recall[0], recall[2]) - recall[1])
        assert_close(got, right, f"the dip of {recall}")
    ### BEGIN HIDDEN TESTS
    got = lost_in_the_middle(torch.tensor([0.2, 0.9, 0.3]), [0.1, 0.5, 0.8])
    assert_close(got, torch.tensor(0.2 - 0.9), "the dip of a hill")
    ### END HIDDEN TESTS


def test_dip_at_any_depths():
    """Depths may be in any order, uneven, and of many curves at once."""
    recall = torch.tensor([[0.4, 1.0, 0.8, 0.6], [0.0, 0.2, 0.4, 0.6]])
    got = lost_in_the_middle(recall, [0.5, 0.9, 0.0, 0.1])
    right = torch.tensor([0.7 - 0.4, 0.2 - 0.0])
    assert_close(got, right, "the dips of two curves")
    ### BEGIN HIDDEN TESTS
    recall = torch.rand(2, 3, 7, generator=torch.Generator().manual_seed(6))
    depths = (0.0, 0.05, 0.1, 0.2, 0.6, 0.95, 0.3)
    start = recall[..., [0, 1, 2, 3, 6]].mean(-1)
    middle, end = recall[..., 4], recall[..., 5]
    right = torch.minimum(start, end) - middle
    got = lost_in_the_middle(recall.clone(), depths)
    assert_close(got, right, "the dips of a batch of curves")
    recall = torch.tensor([0.9, 0.1, 0.3, 0.8])
    got = lost_in_the_middle(recall, [0.2, 1 / 3, 2 / 3, 0.9])
    right = torch.tensor(0.8 - 0.2)
    assert_close(got, right, "the dip where depths are 1/3 and 2/3")
    ### END HIDDEN TESTS


def test_dip_needs_all_three_parts():
    """Without a depth in each third there is nothing to compare."""
    for depths in ([0.0, 0.1, 1.0], [0.4, 0.5, 0.9], [0.0, 0.3, 0.6]):
        _assert_raises(
            lambda depths=depths: lost_in_the_middle(torch.ones(3), depths),
            f"The depths {depths} leave out a third of the text",
        )


def _assert_effective(lengths, scores, right, *threshold):
    got = effective_context(lengths, scores, *threshold)
    whole = isinstance(got, Integral) and not isinstance(got, bool)
    assert whole, f"Return a whole number. This returned {describe_type(got)}."
    assert got == right, (
        f"For lengths {lengths}, scores {scores} and threshold "
        f"{threshold[0] if threshold else 0.856}, the effective context is "
        f"{right}, not {got}."
    )


def test_effective_context_is_a_length():
    """The longest length that still exceeds the threshold."""
    lengths = [4_096, 8_192, 16_384, 32_768]
    _assert_effective(lengths, [0.99, 0.95, 0.9, 0.5], 16_384)
    _assert_effective(lengths, [0.99, 0.95, 0.9, 0.5], 8_192, 0.92)
    ### BEGIN HIDDEN TESTS
    _assert_effective(lengths, [0.99, 0.95, 0.9, 0.86], 32_768)
    _assert_effective(lengths, [0.8, 0.7, 0.6, 0.5], 32_768, 0.3)
    _assert_effective([64], [0.9], 64)
    _assert_effective([64, 128], [0.9, 0.8563], 128)
    _assert_effective([64, 2**21], [0.95, 0.9], 2**21)
    ### END HIDDEN TESTS


def test_effective_context_ends_at_the_first_failure():
    """A longer length that passes again doesn't count."""
    _assert_effective([64, 128, 256], [0.95, 0.5, 0.97], 64)
    _assert_effective([64, 128, 256], [0.5, 0.99, 0.99], 0)
    ### BEGIN HIDDEN TESTS
    _assert_effective([1, 2, 3, 4, 5], [0.9, 0.9, 0.1, 0.9, 0.1], 2)
    _assert_effective([64, 128], [0.1, 0.2], 0)
    ### END HIDDEN TESTS


def test_effective_context_in_any_order():
    """Lengths may come in any order, and a score must exceed."""
    _assert_effective([256, 64, 128], [0.2, 0.95, 0.9], 128)
    _assert_effective([64, 128], [0.9, 0.856], 64)
    ### BEGIN HIDDEN TESTS
    _assert_effective([512, 128, 256, 64], [0.99, 0.9, 0.5, 0.99], 128)
    _assert_effective([64, 128], [1.0, 1.0], 0, 1.0)
    _assert_effective([8, 100, 20], [1.0, 0.0, 1.0], 20, 0.5)
    ### END HIDDEN TESTS


def _logits(says, vocabulary=9):
    """Return logits whose largest is that of these tokens."""
    logits = torch.rand(
        *says.shape, vocabulary, generator=torch.Generator().manual_seed(7)
    )
    return logits.scatter(-1, says[..., None], 2.0)


def _assert_recall(logits, targets, right, what, *unknown):
    got = multi_needle_recall(logits, targets.clone(), *unknown)
    assert isinstance(got, tuple | list), (
        f"Return two numbers. This returned {describe_type(got)}."
    )
    assert len(got) == 2, f"Return two numbers, not {len(got)}."
    names = ("share of questions", "share of complete texts")
    for one, number, name in zip(got, right, names, strict=True):
        assert isinstance(one, int | float), (
            f"The {name} should be a number, but is {describe_type(one)}."
        )
        assert math.isclose(one, number, abs_tol=1e-6), (
            f"The {name} of {what} should be {number:.6g}, but is {one:.6g}."
        )


N = -100  # nothing is asked


def test_recall_of_single_questions():
    """The first number: of all questions, how many are answered right."""
    targets = torch.tensor([[N, 3, N, 4, 5], [N, N, 6, 7, N]])
    says = torch.tensor([[3, 3, 4, 4, 1], [0, 6, 6, 7, 0]])
    _assert_recall(_logits(says), targets, (4 / 5, 1 / 2), "two texts")
    ### BEGIN HIDDEN TESTS
    right = torch.where(targets == N, 0, targets)
    _assert_recall(_logits(right), targets, (1.0, 1.0), "right answers")
    wrong = (right + 1) % 9
    _assert_recall(_logits(wrong), targets, (0.0, 0.0), "wrong answers")
    minus = torch.where(targets == N, -1, targets)
    right = (4 / 5, 1 / 2)
    _assert_recall(_logits(says), minus, right, "texts marked by -1", -1)
    zeros = torch.where(targets == N, 8, torch.where(targets == 3, 0, 6))
    said = torch.tensor([[8, 0, 8, 6, 6], [8, 8, 6, 1, 8]])
    _assert_recall(_logits(said), zeros, right, "texts marked by 8", 8)
    ### END HIDDEN TESTS


def test_recall_of_whole_texts():
    """The second: in how many texts every question is answered right."""
    targets = torch.tensor([[1, 2, 3, N], [4, N, N, N], [5, 6, N, N]])
    says = torch.tensor([[1, 2, 0, 0], [4, 0, 0, 0], [5, 0, 7, 0]])
    _assert_recall(_logits(says), targets, (4 / 6, 1 / 3), "three texts")
    ### BEGIN HIDDEN TESTS
    generator = torch.Generator().manual_seed(8)
    targets = torch.randint(9, (60, 7), generator=generator)
    says = torch.where(
        torch.rand(60, 7, generator=generator) < 0.8, targets, targets ^ 1
    ).clamp(max=8)
    targets[:, ::3] = N
    found, complete, asked = 0, 0, 0
    for text, answers in zip(says.tolist(), targets.tolist(), strict=True):
        pairs = [(a, b) for a, b in zip(text, answers, strict=True) if b != N]
        found += sum(a == b for a, b in pairs)
        asked += len(pairs)
        complete += all(a == b for a, b in pairs)
    right = (found / asked, complete / 60)
    _assert_recall(_logits(says), targets, right, "60 texts")
    targets = torch.randint(9, (2, 2_000), generator=generator)
    says = targets.clone()
    says[1, 77] = (says[1, 77] + 1) % 9
    right = (3_999 / 4_000, 1 / 2)
    what = "two texts of 2,000 questions, one of which is answered wrong,"
    _assert_recall(_logits(says), targets, right, what)
    ### END HIDDEN TESTS


def test_recall_leaves_out_texts_without_a_question():
    """A text that asks nothing is neither complete nor incomplete."""
    targets = torch.tensor([[1, 2], [N, N], [3, N]])
    says = torch.tensor([[1, 2], [0, 0], [4, 4]])
    _assert_recall(_logits(says), targets, (2 / 3, 1 / 2), "three texts")
    ### BEGIN HIDDEN TESTS
    nothing = torch.full_like(targets, N)
    _assert_raises(
        lambda: multi_needle_recall(_logits(says), nothing),
        "Nothing is asked at all",
    )
    ### END HIDDEN TESTS
