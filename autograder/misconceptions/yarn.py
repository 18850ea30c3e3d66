"""Mistakes of chapter 07, *Stretching the window*."""

import math

import torch

from autograder.misconceptions import Mistake
from solutions.rope import inverse_frequencies
from solutions.yarn import yarn_ramp


def probe_interpolated_frequencies(interpolated_frequencies, seed):
    """Slow a few hands down; look at the dtype and the input, too."""
    hands = torch.tensor([1.0, 0.5, 0.2, 0.1], dtype=torch.float64)
    for scale in (1, 4, 2.5 + seed):
        inputs = {"inv_freq": hands, "scale": scale}
        yield (
            inputs,
            lambda s=scale: interpolated_frequencies(hands.clone(), s),
        )
    given = hands.clone()

    def look():
        interpolated_frequencies(given, 2)
        return given

    yield {"inv_freq, looked at after the call": hands}, look
    shared = hands.clone()

    def write():
        interpolated_frequencies(shared, 1).zero_()
        return shared

    yield {"inv_freq, the result for scale 1 written to": hands}, write


def probe_ntk_frequencies(ntk_frequencies, seed):
    """Stretch heads of four channels and of more."""
    for width, base, scale in (
        (4, 100.0, 1.0),
        (4, 100.0, 3.0),
        (6, 50.0, 2.0 + seed),
        (10, 500.0, 4.0),
    ):
        inputs = {"width": width, "base": base, "scale": scale}
        yield inputs, lambda i=inputs: ntk_frequencies(**i)


def probe_dynamic_ntk_base(dynamic_ntk_base, seed):
    """Ask for texts that fit, that just fit, and that don't."""
    for scale, n_tokens in ((2.0, 10), (2.0, 4), (2.0, 20), (1.0, 35 + seed)):
        inputs = {
            "width": 6,
            "base": 100.0,
            "scale": scale,
            "window": 10,
            "n_tokens": n_tokens,
        }
        yield inputs, lambda i=inputs: dynamic_ntk_base(**i)


_HEADS = (
    {"width": 12, "base": 10_000.0, "window": 2_048},
    {"width": 12, "base": 10_000.0, "window": 64},
    {"width": 24, "base": 10_000.0, "window": 131_072},
    {"width": 10, "base": 10.0, "window": 850},
    {"width": 8, "base": 12.0, "window": 5},
)


def probe_yarn_ramp(yarn_ramp, seed):
    """Ask for heads that are cut off at either end, and for other turns."""
    for inputs in _HEADS:
        yield inputs, lambda i=inputs: yarn_ramp(**i)
    inputs = _HEADS[0] | {"beta_fast": 8.0 + seed, "beta_slow": 2.0}
    yield inputs, lambda: yarn_ramp(**inputs)


def probe_yarn_frequencies(yarn_frequencies, seed):
    """Stretch a few heads, by several scales and with other turns."""
    for head in _HEADS[:2]:
        for scale in (1.0, 4.0, 8.0 + seed):
            inputs = head | {"scale": scale}
            yield inputs, lambda i=inputs: yarn_frequencies(**i)
    inputs = _HEADS[0] | {"scale": 4.0, "beta_fast": 8.0, "beta_slow": 2.0}
    yield inputs, lambda: yarn_frequencies(**inputs)


def probe_yarn_attention_factor(yarn_attention_factor, seed):
    """Ask for scales on either side of 1, with all and some of it."""
    for scale, mscale in (
        (1.0, 1.0),
        (4.0, 1.0),
        (0.5, 1.0),
        (40.0 + seed, 0.707),
    ):
        inputs = {"scale": scale, "mscale": mscale}
        yield inputs, lambda i=inputs: yarn_attention_factor(**i)


PROBES = {
    "interpolated_frequencies": probe_interpolated_frequencies,
    "ntk_frequencies": probe_ntk_frequencies,
    "dynamic_ntk_base": probe_dynamic_ntk_base,
    "yarn_ramp": probe_yarn_ramp,
    "yarn_frequencies": probe_yarn_frequencies,
    "yarn_attention_factor": probe_yarn_attention_factor,
}


def _only_slow_hands(inv_freq, scale):
    slow = inv_freq < inv_freq.median()
    return torch.where(slow, inv_freq / scale, inv_freq)


def _papers_ramp(width, base, window, beta_fast=32.0, beta_slow=1.0):
    turns = window * inverse_frequencies(width, base) / (2 * math.pi)
    stays = ((turns - beta_slow) / (beta_fast - beta_slow)).clamp(0, 1)
    return 1 - stays


def _wavelengths_blended(
    width, base, window, scale, beta_fast=32.0, beta_slow=1.0
):
    ramp = yarn_ramp(width, base, window, beta_fast, beta_slow)
    stay = 1 / inverse_frequencies(width, base)
    return 1 / ((1 - ramp) * stay + ramp * stay * scale)


def _ntk_for_interpolation(
    width, base, window, scale, beta_fast=32.0, beta_slow=1.0
):
    ramp = yarn_ramp(width, base, window, beta_fast, beta_slow)
    stay = inverse_frequencies(width, base)
    slow = inverse_frequencies(width, base * scale ** (width / (width - 2)))
    return (1 - ramp) * stay + ramp * slow


_RAMP = "yarn_ramp(width, base, window, beta_fast, beta_slow)"
_POWER = "scale ** (width / (width - 2))"
_NEEDED = "needed ** (width / (width - 2))"
_LOG = "0.1 * mscale * math.log(scale) + 1.0"

MISTAKES = {
    "interpolated_frequencies": [
        Mistake(
            "multiplied by the scale",
            "You multiply by the scale, so the hands turn faster and the text "
            "that fits is shorter. Divide.",
            {"inv_freq / scale": "inv_freq * scale"},
            "test_interpolation_slows_every_hand",
        ),
        Mistake(
            "nothing changed",
            "You return the frequencies as they were: position s·p must get "
            "the angles that p had.",
            {"inv_freq / scale": "inv_freq.clone()"},
            "test_interpolation_slows_every_hand",
        ),
        Mistake(
            "divided by the square root",
            "You divide by the square root of the scale. A text s times as "
            "long needs hands that are s times as slow.",
            {"inv_freq / scale": "inv_freq / math.sqrt(scale)"},
            "test_interpolation_slows_every_hand",
        ),
        Mistake(
            "only the slow hands",
            "You slow down only some of the hands. That is what comes later "
            "in the chapter; position interpolation treats all alike.",
            _only_slow_hands,
            "test_interpolation_slows_every_hand",
        ),
        Mistake(
            "the first hand left out",
            "You leave the fastest hand as it is. NTK-aware scaling does "
            "that; position interpolation treats all hands alike.",
            {
                "inv_freq / scale": (
                    "torch.cat([inv_freq[:1], inv_freq[1:] / scale])"
                )
            },
            "test_interpolation_slows_every_hand",
        ),
        Mistake(
            "wavelengths for frequencies",
            "You return wavelengths, or their inverse times 2π. Return "
            "radians a token.",
            {"inv_freq / scale": "2 * math.pi * scale / inv_freq"},
            "test_interpolation_slows_every_hand",
        ),
        Mistake(
            "changes its input",
            "You overwrite the frequencies that you were given: /= and "
            "div_() work in place. The model that was there still needs them.",
            {"inv_freq / scale": "inv_freq.div_(scale)"},
            "test_interpolation_slows_every_hand",
        ),
        Mistake(
            "the same tensor at scale 1",
            "With a scale of 1 you return the tensor that you were given. Who "
            "writes to one changes the other: make a new one.",
            {
                "inv_freq / scale": (
                    "inv_freq if scale == 1 else inv_freq / scale"
                )
            },
            "test_interpolation_slows_every_hand",
        ),
        Mistake(
            "whole scales only",
            "You round the scale to a whole number. A window may be stretched "
            "by 2.5.",
            {"inv_freq / scale": "inv_freq / int(scale)"},
            "test_interpolation_slows_every_hand",
        ),
    ],
    "ntk_frequencies": [
        Mistake(
            "the base times the scale",
            "You multiply the base by s. Its power in the last pair is only "
            "(D - 2) / D, so that pair becomes too fast: the exponent of s is "
            "D / (D - 2).",
            {_POWER: "scale"},
            "test_ntk_changes_the_ends_as_it_should",
        ),
        Mistake(
            "exponent turned over",
            "Your exponent is (D - 2) / D. It is the inverse, D / (D - 2), so "
            "that the last pair, base^(-(D - 2) / D), gives 1/s.",
            {_POWER: "scale ** ((width - 2) / width)"},
            "test_ntk_changes_the_ends_as_it_should",
        ),
        Mistake(
            "pairs for channels",
            "You put the number of pairs into the exponent. D is the width of "
            "the head, in channels: D / (D - 2).",
            {_POWER: "scale ** (width / 2 / max(width / 2 - 2, 0.5))"},
            "test_ntk_changes_the_ends_as_it_should",
        ),
        Mistake(
            "one channel short",
            "Your exponent is D / (D - 1). The last pair of channels has the "
            "index D / 2 - 1, so its exponent is (D - 2) / D.",
            {_POWER: "scale ** (width / (width - 1))"},
            "test_ntk_changes_the_ends_as_it_should",
        ),
        Mistake(
            "interpolated instead",
            "You divide all frequencies by s. That is position interpolation: "
            "here the fastest pair stays as it is.",
            {
                "larger = base * scale ** (width / (width - 2))": (
                    "larger = base"
                ),
                "(width, larger)": "(width, larger) / scale",
            },
            "test_ntk_changes_the_ends_as_it_should",
        ),
        Mistake(
            "interpolated as well",
            "You take a larger base and divide by s, too. The larger base is "
            "all there is: it slows the last pair by s already.",
            {"(width, larger)": "(width, larger) / scale"},
            "test_ntk_changes_the_ends_as_it_should",
        ),
        Mistake(
            "a smaller base",
            "You divide the base. A smaller base makes faster hands; the slow "
            "ones need a larger base.",
            {"base * scale": "base / scale"},
            "test_ntk_changes_the_ends_as_it_should",
        ),
        Mistake(
            "the base as it was",
            "You use the base as it was, so nothing is stretched.",
            {"(width, larger)": "(width, base)"},
            "test_ntk_changes_the_ends_as_it_should",
        ),
        Mistake(
            "another base hard-coded",
            "You start from a base of 10,000 whatever `base` says. Many "
            "models have another.",
            {"larger = base *": "larger = 10_000.0 *"},
            "test_ntk_is_one_larger_base",
        ),
    ],
    "dynamic_ntk_base": [
        Mistake(
            "a shorter text shrinks the base",
            "You let a text that fits the window change the base, even to "
            "something negative. Up to the window the base stays: use the "
            "larger of n and L.",
            {"max(n_tokens, window)": "n_tokens"},
            "test_dynamic_base_of_a_text_that_fits",
        ),
        Mistake(
            "jumps at the window",
            "You forgot to take away s - 1, so that the base jumps at the "
            "window. At n = L the scale must be 1.",
            {" - (scale - 1)": ""},
            "test_dynamic_base_of_a_text_that_fits",
        ),
        Mistake(
            "s - 1 added",
            "You add s - 1. Take it away, so that at n = L the scale is 1.",
            {"- (scale - 1)": "+ (scale - 1)"},
            "test_dynamic_base_of_a_text_that_fits",
        ),
        Mistake(
            "1 taken away instead of s - 1",
            "You take away 1 where the formula has s - 1: at n = L there is "
            "then a scale of s - 1.",
            {"- (scale - 1)": "- 1"},
            "test_dynamic_base_of_a_text_that_fits",
        ),
        Mistake(
            "not dynamic",
            "You use s whatever the length of the text. That is NTK-aware "
            "scaling as it stands; the dynamic one looks at n.",
            {"needed = scale * longer - (scale - 1)": "needed = scale"},
            "test_dynamic_base_of_a_text_that_fits",
        ),
        Mistake(
            "s ignored",
            "You use n / L and ignore s, which says how steeply the base "
            "rises with the length.",
            {"needed = scale * longer - (scale - 1)": "needed = longer"},
            "test_dynamic_base_grows_with_the_text",
        ),
        Mistake(
            "no exponent",
            "You multiply the base by the scale that is needed. Its exponent "
            "is D / (D - 2), as in NTK-aware scaling.",
            {_NEEDED: "needed"},
            "test_dynamic_base_grows_with_the_text",
        ),
        Mistake(
            "exponent turned over",
            "Your exponent is (D - 2) / D. It is the inverse, D / (D - 2).",
            {_NEEDED: "needed ** ((width - 2) / width)"},
            "test_dynamic_base_grows_with_the_text",
        ),
        Mistake(
            "begins at the stretched window",
            "You compare the length with s·L. The model was trained with L: "
            "beyond that, angles are new to it.",
            {
                "max(n_tokens, window) / window": (
                    "max(n_tokens, scale * window) / (scale * window)"
                )
            },
            "test_dynamic_base_grows_with_the_text",
        ),
        Mistake(
            "whole windows",
            "You count whole windows: n // L. The base rises with every "
            "token.",
            {
                "max(n_tokens, window) / window": (
                    "max(n_tokens, window) // window"
                )
            },
            "test_dynamic_base_grows_with_the_text",
        ),
        Mistake(
            "the scale instead of the base",
            "You return by how much the base grows. Multiply the base by it.",
            {"float(base * ": "float("},
            "test_dynamic_base_of_a_text_that_fits",
        ),
    ],
    "yarn_ramp": [
        Mistake(
            "flipped",
            "Your ramp falls: it is 1 for the fast pairs. Here 0 stays and 1 "
            "is interpolated, so it rises from the first pair to the last.",
            {".clamp(0, 1)": ".clamp(0, 1).neg() + 1"},
            "test_ramp_by_hand",
        ),
        Mistake(
            "no 2π",
            "You take base^(2i / D) for a whole turn. A turn is 2π radians, "
            "so pair i takes 2π·base^(2i / D) tokens for one.",
            {"(2 * math.pi * turns)": "turns"},
            "test_ramp_by_hand",
        ),
        Mistake(
            "the factor of two forgotten",
            "Your indices are twice too large. Pair i has the exponent "
            "2i / D, which leaves a 2 in the denominator.",
            {"(2 * math.log(base))": "math.log(base)"},
            "test_ramp_by_hand",
        ),
        Mistake(
            "not rounded",
            "You use c(32) and c(1) as they are. The released code rounds "
            "the first down and the second up, and models are trained so.",
            {
                "math.floor(index(beta_fast))": "index(beta_fast)",
                "math.ceil(index(beta_slow))": "index(beta_slow)",
            },
            "test_ramp_by_hand",
        ),
        Mistake(
            "rounded to the nearest",
            "You round both indices to the nearest whole number. The low one "
            "goes down and the high one up, so that the ramp has room.",
            {
                "math.floor(index(beta_fast))": "round(index(beta_fast))",
                "math.ceil(index(beta_slow))": "round(index(beta_slow))",
            },
            "test_ramp_by_hand",
        ),
        Mistake(
            "both rounded down",
            "You round both indices down. The high one goes up.",
            {"math.ceil(": "math.floor("},
            "test_ramp_by_hand",
        ),
        Mistake(
            "the paper's ramp",
            "Your ramp is straight in the number of turns, as the paper "
            "prints it. All released code has it straight in the index: in "
            "between they differ by more than half.",
            _papers_ramp,
            "test_ramp_by_hand",
        ),
        Mistake(
            "a step instead of a ramp",
            "You cut once, without a ramp: between low and high the pairs are "
            "to be blended.",
            {".clamp(0, 1)": ".clamp(0, 1).ceil()"},
            "test_ramp_by_hand",
        ),
        Mistake(
            "not clamped",
            "Your line goes on below 0 and above 1. Clamp it: outside of the "
            "ramp a pair stays, or is interpolated, and no more.",
            {".clamp(0, 1)": ""},
            "test_ramp_by_hand",
        ),
        Mistake(
            "channels for pairs",
            "You count the D channels. There is one number for each of the "
            "D / 2 pairs.",
            {"torch.arange(width // 2)": "torch.arange(width)"},
            "test_ramp_by_hand",
        ),
        Mistake(
            "begins below zero",
            "Your low index may be negative, where even the fastest pair "
            "turns fewer than beta_fast times. Begin at 0.",
            {
                "max(math.floor(index(beta_fast)), 0)": (
                    "math.floor(index(beta_fast))"
                )
            },
            "test_ramp_at_the_edges",
        ),
        Mistake(
            "ends at the last pair",
            "You cut the high index off at D / 2 - 1. It seems right, but the "
            "released code cuts at D - 1, and its models are trained so: "
            "where all pairs are fast, none is interpolated in full.",
            {"width - 1": "width // 2 - 1"},
            "test_ramp_equals_transformers",
        ),
        Mistake(
            "not cut off at the end",
            "Your high index may be D or more. It is at most D - 1.",
            {
                "min(math.ceil(index(beta_slow)), width - 1)": (
                    "math.ceil(index(beta_slow))"
                )
            },
            "test_ramp_at_the_edges",
        ),
        Mistake(
            "0/0 where low = high",
            "You divide by high - low, which may be 0. Then high is 0.001 "
            "more.",
            {"(high - low) or 0.001": "high - low"},
            "test_ramp_at_the_edges",
        ),
        Mistake(
            "betas ignored",
            "You use 32 turns and 1, whatever beta_fast and beta_slow say.",
            {
                "index(beta_fast)": "index(32.0)",
                "index(beta_slow)": "index(1.0)",
            },
            "test_ramp_of_other_turns",
        ),
    ],
    "yarn_frequencies": [
        Mistake(
            "ramp flipped",
            "You interpolate the fast pairs and leave the slow ones. The ramp "
            "is 0 for what stays.",
            {f"ramp = {_RAMP}": f"ramp = 1 - {_RAMP}"},
            "test_yarn_keeps_the_fast_and_slows_the_slow",
        ),
        Mistake(
            "everything interpolated",
            "You divide all frequencies by s: that is position interpolation. "
            "Blend with the old frequencies by the ramp.",
            {f"ramp = {_RAMP}": "ramp = 1.0"},
            "test_yarn_keeps_the_fast_and_slows_the_slow",
        ),
        Mistake(
            "nothing interpolated",
            "You return the old frequencies. Where the ramp is 1 they are "
            "divided by s.",
            {f"ramp = {_RAMP}": "ramp = 0.0"},
            "test_yarn_keeps_the_fast_and_slows_the_slow",
        ),
        Mistake(
            "the stretched window in the ramp",
            "You give the ramp the stretched window s·L. What counts is how "
            "often a pair turned in the window of training, L.",
            {
                _RAMP: (
                    "yarn_ramp(width, base, int(scale * window), beta_fast, "
                    "beta_slow)"
                )
            },
            "test_yarn_equals_transformers",
        ),
        Mistake(
            "wavelengths blended",
            "You blend the wavelengths. The ramp weighs frequencies: the mean "
            "of 1 and 1/4 is not the inverse of the mean of 1 and 4.",
            _wavelengths_blended,
            "test_yarn_equals_transformers",
        ),
        Mistake(
            "a larger base for the slow pairs",
            "You take the slow pairs from a larger base (NTK). YaRN divides "
            "them by s.",
            _ntk_for_interpolation,
            "test_yarn_keeps_the_fast_and_slows_the_slow",
        ),
        Mistake(
            "a step instead of a blend",
            "You switch from one to the other where the ramp passes a half. "
            "In between, the pairs are blended.",
            {f"ramp = {_RAMP}": f"ramp = {_RAMP}.round()"},
            "test_yarn_equals_transformers",
        ),
        Mistake(
            "scaled by the ramp alone",
            "Your interpolated part is weighted, but the part that stays "
            "isn't: the two weights are the ramp and one minus it.",
            {"(1 - ramp) * stay": "stay"},
            "test_yarn_keeps_the_fast_and_slows_the_slow",
        ),
        Mistake(
            "betas ignored",
            "You call the ramp without beta_fast and beta_slow.",
            {_RAMP: "yarn_ramp(width, base, window)"},
            "test_yarn_of_other_turns",
        ),
        Mistake(
            "betas swapped",
            "You pass beta_slow where the ramp expects beta_fast.",
            {_RAMP: "yarn_ramp(width, base, window, beta_slow, beta_fast)"},
            "test_yarn_equals_transformers",
        ),
        Mistake(
            "the attention factor in the frequencies",
            "You multiply the frequencies by the attention factor. It belongs "
            "on the cosines and the sines: it changes lengths, not angles.",
            {
                "return (1 - ramp) * stay + ramp * "
                "interpolated_frequencies(stay, scale)": (
                    "return (0.1 * math.log(scale) + 1) * ((1 - ramp) * stay "
                    "+ ramp * interpolated_frequencies(stay, scale))"
                )
            },
            "test_yarn_keeps_the_fast_and_slows_the_slow",
        ),
    ],
    "yarn_attention_factor": [
        Mistake(
            "log₁₀",
            "You use the logarithm to base 10. It is the natural one: "
            "math.log.",
            {"math.log(scale)": "math.log10(scale)"},
            "test_factor_by_hand",
        ),
        Mistake(
            "log₂",
            "You use the logarithm to base 2. It is the natural one: "
            "math.log.",
            {"math.log(scale)": "math.log2(scale)"},
            "test_factor_by_hand",
        ),
        Mistake(
            "the square already",
            "You return the square, which is what the scores get. This factor "
            "multiplies queries and keys, and so comes in twice by itself.",
            {_LOG: f"({_LOG}) ** 2"},
            "test_factor_by_hand",
        ),
        Mistake(
            "the root",
            "You return the square root, as if the scores got the factor "
            "once. They get its square.",
            {_LOG: f"math.sqrt({_LOG})"},
            "test_factor_by_hand",
        ),
        Mistake(
            "the inverse",
            "You return the inverse. The weights are to become sharper again, "
            "so the scores grow: the factor is above 1.",
            {_LOG: f"1 / ({_LOG})"},
            "test_factor_by_hand",
        ),
        Mistake(
            "no 1 added",
            "You forgot to add 1: without a stretch the factor is 1, not 0.",
            {" + 1.0": ""},
            "test_factor_by_hand",
        ),
        Mistake(
            "the tenth forgotten",
            "You forgot the 0.1 before the logarithm.",
            {"0.1 * ": ""},
            "test_factor_by_hand",
        ),
        Mistake(
            "logarithm of 1 + s",
            "You take ln(1 + s), so that even a window that isn't stretched "
            "gets a factor above 1. It is ln(s).",
            {"math.log(scale)": "math.log1p(scale)"},
            "test_factor_by_hand",
        ),
        Mistake(
            "below 1 for a shorter window",
            "You let a scale below 1 make a factor below 1. It is 1 for all "
            "windows that aren't stretched.",
            {"scale <= 1": "scale == 1"},
            "test_factor_without_a_stretch",
        ),
        Mistake(
            "mscale ignored",
            "You ignore mscale. It multiplies the logarithm, and says how "
            "much of the correction to apply.",
            {"* mscale ": ""},
            "test_factor_with_less_of_it",
        ),
        Mistake(
            "mscale on the whole",
            "You multiply the 1 by mscale, too. It belongs to the logarithm: "
            "with mscale = 0 the factor is 1.",
            {_LOG: "mscale * (0.1 * math.log(scale) + 1.0)"},
            "test_factor_with_less_of_it",
        ),
    ],
}
