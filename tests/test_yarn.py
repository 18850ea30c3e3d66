"""Checks of chapter 07; a student does not see the hidden lines."""

import math

import torch

from contextlab.checks import assert_close, describe_type, refuses
from contextlab.scaling import assert_frequencies, transformers_frequencies
from solutions.yarn import (
    dynamic_ntk_base,
    interpolated_frequencies,
    ntk_frequencies,
    yarn_attention_factor,
    yarn_frequencies,
    yarn_ramp,
)

# Head width, base and window of models that exist or might.
MODELS = (
    (24, 10_000.0, 2_048),
    (128, 1_000_000.0, 32_768),
    (32, 10_000.0, 64),
    (80, 500_000.0, 8_192),
    (24, 10_000.0, 131_072),  # every pair turns more than once
)


def _frequencies(width, base):
    """Return the inverse frequencies, one by one, in float32."""
    return torch.tensor([base ** (-2 * i / width) for i in range(width // 2)])


def _ramp(width, base, window, fast=32.0, slow=1.0):
    """Return the ramp, pair by pair, in float32."""
    step = 2 * math.log(base) / width
    low = math.floor(math.log(window / (2 * math.pi * fast)) / step)
    high = math.ceil(math.log(window / (2 * math.pi * slow)) / step)
    low, high = max(low, 0), min(high, width - 1)
    rise = high - low if high != low else 0.001
    pairs = range(width // 2)
    return torch.tensor([min(max((i - low) / rise, 0), 1) for i in pairs])


def _assert_number(got, expected, what):
    """Assert that an answer is a float, and the right one."""
    assert isinstance(got, float | int), (
        f"{what} should be a float, but is {describe_type(got)}."
    )
    right = math.isclose(got, expected, rel_tol=1e-6)
    assert right, f"{what} should be {expected:.7g}, but is {got:.7g}."


def test_interpolation_slows_every_hand():
    """All frequencies are divided by the scale, none is left out."""
    hands = torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64)
    kept = hands.clone()
    expected = torch.tensor([0.25, 0.025, 0.0025], dtype=torch.float64)
    got = interpolated_frequencies(hands, 4)
    assert_frequencies(got, expected, "interpolated_frequencies(hands, 4)")
    assert_close(hands, kept, "the frequencies, which must not change,")
    ### BEGIN HIDDEN TESTS
    for width, base, window in MODELS[:3]:
        right, _ = transformers_frequencies("linear", width, base, window, 2.5)
        got = interpolated_frequencies(_frequencies(width, base), 2.5)
        assert_frequencies(got, right, "interpolated_frequencies(hands, 2.5)")
    same = interpolated_frequencies(hands, 1)
    assert_frequencies(same, kept, "interpolated_frequencies(hands, 1)")
    same.zero_()
    assert torch.equal(hands, kept), (
        "With a scale of 1 you return the tensor that you were given, so who "
        "writes to one changes the other. Return a new tensor."
    )
    assert refuses(interpolated_frequencies, hands, 0.5), (
        "A window isn't stretched by 0.5: there interpolated_frequencies "
        "should raise a ValueError."
    )
    ### END HIDDEN TESTS


def test_interpolation_meets_the_old_angles():
    """Position s·p has the angles that position p had before."""
    hands = _frequencies(10, 500.0).double()
    places = torch.arange(7, dtype=torch.float64)
    expected = places[:, None] * hands
    slow = interpolated_frequencies(hands, 8.0)
    assert isinstance(slow, torch.Tensor), (
        f"The frequencies should be a tensor, not {describe_type(slow)}."
    )
    got = 8 * places[:, None] * slow
    assert_close(got, expected, "the angles at positions 0, 8, 16 …")


def test_ntk_changes_the_ends_as_it_should():
    """The first hand turns as before, the last one s times more slowly."""
    for width, scale in ((6, 4.0), (24, 2.0), (10, 7.5)):
        hands = _frequencies(width, 10_000.0)
        got = ntk_frequencies(width, 10_000.0, scale)
        what = f"ntk_frequencies({width}, 10_000, {scale:g})"
        assert isinstance(got, torch.Tensor), (
            f"{what} should be a tensor, but is {describe_type(got)}."
        )
        assert got.shape == hands.shape, (
            f"{what} should have one frequency for each of {width // 2} "
            f"pairs, but has shape {tuple(got.shape)}."
        )
        assert_frequencies(got[:1], hands[:1], f"the first of {what}")
        slowest = hands[-1:] / scale
        assert_frequencies(got[-1:], slowest, f"the last of {what}")


def test_ntk_is_one_larger_base():
    """All hands are those of a single base, larger than the old one."""
    # Four channels: the exponent D / (D - 2) is 2. Here 100 · 3² = 900.
    expected = torch.tensor([1.0, 1 / 30])
    got = ntk_frequencies(4, 100.0, 3.0)
    assert_frequencies(got, expected, "ntk_frequencies(4, 100, 3)")
    ### BEGIN HIDDEN TESTS
    for width, base, window in MODELS:
        # Dynamic NTK of factor 1 is NTK by as much as the text is longer.
        right, _ = transformers_frequencies(
            "dynamic", width, base, window, 1.0, n_tokens=4 * window
        )
        got = ntk_frequencies(width, base, 4.0)
        what = f"ntk_frequencies({width}, {base:g}, 4)"
        assert_frequencies(got, right, what)
        same = ntk_frequencies(width, base, 1.0)
        what = f"ntk_frequencies({width}, {base:g}, 1)"
        assert_frequencies(same, _frequencies(width, base), what)
    assert refuses(ntk_frequencies, 8, 100.0, 0.5), (
        "A window isn't stretched by 0.5: ntk_frequencies should raise a "
        "ValueError."
    )
    ### END HIDDEN TESTS


def test_dynamic_base_of_a_text_that_fits():
    """Up to the window nothing changes."""
    for n_tokens in (1, 9, 10):
        got = dynamic_ntk_base(4, 100.0, 2.0, window=10, n_tokens=n_tokens)
        _assert_number(got, 100.0, f"the base for {n_tokens} of 10 tokens")
    ### BEGIN HIDDEN TESTS
    for width, base, window in MODELS:
        for n_tokens in (1, window // 3, window - 1, window):
            got = dynamic_ntk_base(width, base, 8.0, window, n_tokens)
            what = f"the base for {n_tokens:,} of {window:,} tokens"
            _assert_number(got, base, what)
    ### END HIDDEN TESTS


def test_dynamic_base_grows_with_the_text():
    """Past the window the base rises, from where it was, with the length."""
    # Four channels: the exponent D / (D - 2) is 2.
    for scale, n_tokens, expected in (
        (1.0, 40, 100.0 * 4**2),
        (2.0, 20, 100.0 * 3**2),
        (2.0, 30, 100.0 * 5**2),
    ):
        got = dynamic_ntk_base(4, 100.0, scale, window=10, n_tokens=n_tokens)
        what = f"the base for {n_tokens} of 10 tokens, with s = {scale:g},"
        _assert_number(got, expected, what)
    ### BEGIN HIDDEN TESTS
    for width, base, window in MODELS:
        for scale, n_tokens in ((4.0, window + 1), (2.5, 7 * window)):
            right, _ = transformers_frequencies(
                "dynamic", width, base, window, scale, n_tokens=n_tokens
            )
            got = dynamic_ntk_base(width, base, scale, window, n_tokens)
            what = f"the base for {n_tokens:,} of {window:,} tokens"
            assert isinstance(got, float | int), f"{what} is no number."
            assert got > 0, f"{what} should be positive, but is {got:.7g}."
            what = f"the frequencies of {what}, {got:.7g}"
            assert_frequencies(_frequencies(width, got), right, what)
    assert refuses(dynamic_ntk_base, 4, 100.0, 0.5, 10, 20), (
        "A base doesn't rise by a scale of 0.5: there dynamic_ntk_base "
        "should raise a ValueError."
    )
    ### END HIDDEN TESTS


def test_ramp_by_hand():
    """c(32) = 1.51 and c(1) = 3.77: the ramp rises from index 1 to 4."""
    expected = torch.tensor([0.0, 0.0, 1 / 3, 2 / 3, 1.0, 1.0])
    got = yarn_ramp(12, 10_000.0, 2_048)
    assert_close(got, expected, "yarn_ramp(12, 10_000, 2_048)")


def test_ramp_equals_transformers():
    """For models of several sizes the ramp is that of the released code."""
    for width, base, window in MODELS[:2]:
        expected = _ramp(width, base, window)
        got = yarn_ramp(width, base, window)
        what = f"yarn_ramp({width}, {base:g}, {window:,})"
        assert_close(got, expected, what)
    ### BEGIN HIDDEN TESTS
    for width, base, window in MODELS:
        slow, _ = transformers_frequencies("yarn", width, base, window, 8.0)
        # A pair is slowed down from θ to θ · (1 - ramp + ramp / 8).
        right = (1 - slow / _frequencies(width, base)) * 8 / 7
        got = yarn_ramp(width, base, window)
        what = f"yarn_ramp({width}, {base:g}, {window:,})"
        assert_close(got, right, what, 1e-4)
        assert_close(got, _ramp(width, base, window), what)
    ### END HIDDEN TESTS


def test_ramp_at_the_edges():
    """The ramp begins at index 0 or later, and is never divided by zero."""
    got = yarn_ramp(32, 10_000.0, 64)  # c(32) is -1.99, c(1) is 4.03
    rising = torch.tensor([0.0, 0.2, 0.4, 0.6, 0.8])
    expected = torch.cat([rising, torch.ones(11)])
    assert_close(got, expected, "yarn_ramp(32, 10_000, 64)")
    ### BEGIN HIDDEN TESTS
    # c(32) is -6.0 and c(1) is -0.4: low and high are both 0.
    steep = torch.tensor([0.0, 1.0, 1.0, 1.0])
    got = yarn_ramp(8, 12.0, 5)
    assert_close(got, steep, "yarn_ramp(8, 12, 5), where low = high,")
    # c(32) is 3.13 and c(1) is 10.7: high is 9, neither 11 nor 4.
    got = yarn_ramp(10, 10.0, 850)
    expected = torch.tensor([0.0, 0.0, 0.0, 0.0, 1 / 6])
    assert_close(got, expected, "yarn_ramp(10, 10, 850)")
    ### END HIDDEN TESTS


def test_ramp_of_other_turns():
    """beta_fast and beta_slow say where the ramp begins and ends."""
    for fast, slow in ((16.0, 2.0), (4.0, 1.0), (8.0, 0.5)):
        expected = _ramp(24, 10_000.0, 2_048, fast, slow)
        got = yarn_ramp(24, 10_000.0, 2_048, beta_fast=fast, beta_slow=slow)
        what = f"the ramp from {fast:g} turns to {slow:g}"
        assert_close(got, expected, what)
    ### BEGIN HIDDEN TESTS
    for width, base, window in MODELS:
        got = yarn_ramp(width, base, window, 20.0, 3.0)
        expected = _ramp(width, base, window, 20.0, 3.0)
        assert_close(got, expected, "the ramp from 20 turns to 3")
    ### END HIDDEN TESTS


def test_yarn_keeps_the_fast_and_slows_the_slow():
    """Fast pairs keep their frequency, slow ones are divided by s."""
    hands = _frequencies(24, 10_000.0)
    got = yarn_frequencies(24, 10_000.0, 2_048, 8.0)
    assert isinstance(got, torch.Tensor), (
        f"The frequencies should be a tensor, not {describe_type(got)}."
    )
    assert got.shape == hands.shape, (
        f"There should be 12 frequencies, one a pair, but the shape is "
        f"{tuple(got.shape)}."
    )
    assert_frequencies(got[:4], hands[:4], "the first four pairs")
    assert_frequencies(got[8:], hands[8:] / 8, "the last four pairs")


def test_yarn_equals_transformers():
    """In between, frequencies are blended as the released code does."""
    # The ramp is 0, 0, 1/3, 2/3, 1, 1, and s = 4 leaves a quarter.
    hands = _frequencies(12, 10_000.0)
    expected = hands * torch.tensor([1.0, 1.0, 0.75, 0.5, 0.25, 0.25])
    got = yarn_frequencies(12, 10_000.0, 2_048, 4.0)
    assert_frequencies(got, expected, "yarn_frequencies(12, 10_000, 2_048, 4)")
    ### BEGIN HIDDEN TESTS
    for width, base, window in MODELS:
        for scale in (1.0, 2.5, 40.0):
            right, _ = transformers_frequencies(
                "yarn", width, base, window, scale
            )
            got = yarn_frequencies(width, base, window, scale)
            what = f"yarn_frequencies({width}, {base:g}, {window}, {scale:g})"
            assert_frequencies(got, right, what)
    assert refuses(yarn_frequencies, 24, 10_000.0, 2_048, 0.5), (
        "A window isn't stretched by 0.5: yarn_frequencies should raise a "
        "ValueError."
    )
    ### END HIDDEN TESTS


def test_yarn_of_other_turns():
    """beta_fast and beta_slow are passed on to the ramp."""
    ramp = _ramp(24, 10_000.0, 2_048, 8.0, 2.0)
    expected = _frequencies(24, 10_000.0) * (1 - ramp * 3 / 4)
    got = yarn_frequencies(
        24, 10_000.0, 2_048, 4.0, beta_fast=8.0, beta_slow=2.0
    )
    assert_frequencies(got, expected, "the frequencies from 8 turns to 2")
    ### BEGIN HIDDEN TESTS
    for width, base, window in MODELS:
        turns = {"beta_fast": 20.0, "beta_slow": 3.0}
        right, _ = transformers_frequencies(
            "yarn", width, base, window, 4.0, **turns
        )
        got = yarn_frequencies(width, base, window, 4.0, **turns)
        assert_frequencies(got, right, "the frequencies from 20 turns to 3")
    ### END HIDDEN TESTS


def test_factor_by_hand():
    """The factor is 0.1 · ln(s) + 1, with the natural logarithm."""
    for scale, expected in ((math.e, 1.1), (math.e**2, 1.2), (4, 1.138629436)):
        got = yarn_attention_factor(scale)
        _assert_number(got, expected, f"yarn_attention_factor({scale:.4g})")
    ### BEGIN HIDDEN TESTS
    for width, base, window in MODELS:
        for scale in (2.5, 8.0, 40.0):
            _, right = transformers_frequencies(
                "yarn", width, base, window, scale
            )
            got = yarn_attention_factor(scale)
            _assert_number(got, right, f"yarn_attention_factor({scale:g})")
    ### END HIDDEN TESTS


def test_factor_without_a_stretch():
    """A window that isn't stretched gets a factor of 1."""
    for scale in (1.0, 0.5):
        got = yarn_attention_factor(scale)
        _assert_number(got, 1.0, f"yarn_attention_factor({scale:g})")
    ### BEGIN HIDDEN TESTS
    got = yarn_attention_factor(0.25, mscale=2.0)
    _assert_number(got, 1.0, "yarn_attention_factor(0.25, mscale=2)")
    ### END HIDDEN TESTS


def test_factor_with_less_of_it():
    """The logarithm is multiplied by mscale, and nothing else is."""
    got = yarn_attention_factor(math.e, mscale=0.5)
    _assert_number(got, 1.05, "yarn_attention_factor(e, mscale=0.5)")
    ### BEGIN HIDDEN TESTS
    expected = 0.1 * 0.707 * math.log(40) + 1  # DeepSeek-V2's
    got = yarn_attention_factor(40.0, 0.707)
    _assert_number(got, expected, "yarn_attention_factor(40, 0.707)")
    _assert_number(
        yarn_attention_factor(8.0, 0.0), 1.0, "yarn_attention_factor(8, 0)"
    )
    ### END HIDDEN TESTS
