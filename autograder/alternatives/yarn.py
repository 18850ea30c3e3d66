"""Right answers of chapter 07 that go another way than the reference."""

import math

import numpy as np
import torch


def _stretches(scale):
    if scale < 1:
        raise ValueError("a window can't be stretched by less than 1")


def interpolation_by_multiplying(inv_freq, scale):
    """Multiply by the inverse of the scale."""
    _stretches(scale)
    return torch.mul(inv_freq, 1.0 / scale)


def interpolation_by_wavelengths(inv_freq, scale):
    """Make every wavelength s times as long."""
    _stretches(scale)
    wavelengths = 2 * math.pi / inv_freq.double()
    return (2 * math.pi / (scale * wavelengths)).to(inv_freq.dtype)


def ntk_by_slowing_each_pair(width, base, scale):
    """Slow pair i down by s^(2i / (D - 2)), without another base."""
    _stretches(scale)
    pairs = torch.arange(width // 2, dtype=torch.float64)
    slower = scale ** (2 * pairs / (width - 2))
    return (base ** (-2 * pairs / width) / slower).float()


def ntk_by_the_end_it_must_meet(width, base, scale):
    """Find the ratio of neighbours that ends at the slow last pair."""
    _stretches(scale)
    pairs = width // 2
    last = base ** (-(width - 2) / width) / scale
    ratio = last ** (1 / (pairs - 1))
    return torch.tensor([ratio**i for i in range(pairs)])


def dynamic_by_cases(width, base, scale, window, n_tokens):
    """Return early for a text that fits."""
    _stretches(scale)
    if n_tokens <= window:
        return float(base)
    needed = 1 + scale * (n_tokens - window) / window
    return base * math.pow(needed, width / (width - 2))


def dynamic_by_logarithms(width, base, scale, window, n_tokens):
    """Add logarithms, with numpy."""
    _stretches(scale)
    over = max(0, n_tokens - window)
    grown = np.log1p(scale * over / window) * width / (width - 2)
    return float(np.exp(np.log(base) + grown))


def ramp_pair_by_pair(width, base, window, beta_fast=32.0, beta_slow=1.0):
    """Decide pair by pair, in Python's own numbers."""

    def index(turns):
        return 0.5 * width * math.log(window / turns / math.tau, base)

    low = max(math.floor(index(beta_fast)), 0)
    high = min(math.ceil(index(beta_slow)), width - 1)
    if low == high:
        high += 0.001
    shares = [(i - low) / (high - low) for i in range(width // 2)]
    return torch.tensor([min(1.0, max(0.0, share)) for share in shares])


def ramp_with_numpy(width, base, window, beta_fast=32.0, beta_slow=1.0):
    """Clip with numpy, in float64, and convert at the end."""
    turns = np.array([beta_fast, beta_slow])
    ends = np.log(window / (2 * np.pi * turns)) * width / 2 / np.log(base)
    low, high = np.floor(ends[0]), np.ceil(ends[1])
    low, high = max(low, 0), min(high, width - 1)
    rise = max(high - low, 0.001) if high >= low else high - low
    ramp = np.clip((np.arange(width // 2) - low) / rise, 0, 1)
    return torch.from_numpy(ramp).to(torch.float32)


def yarn_by_lerp(width, base, window, scale, beta_fast=32.0, beta_slow=1.0):
    """Interpolate between both ends with PyTorch's own function."""
    _stretches(scale)
    ramp = ramp_pair_by_pair(width, base, window, beta_fast, beta_slow)
    stay = 1.0 / base ** (torch.arange(0, width, 2).float() / width)
    return torch.lerp(stay, stay / scale, ramp)


def yarn_by_one_factor(
    width, base, window, scale, beta_fast=32.0, beta_slow=1.0
):
    """Multiply each frequency once, as the released code's mask does."""
    _stretches(scale)
    keep = 1 - ramp_with_numpy(width, base, window, beta_fast, beta_slow)
    exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
    stay = torch.pow(torch.tensor(float(base)).double(), -exponents)
    return (stay * (keep + (1 - keep) / scale)).float()


def factor_by_max(scale, mscale=1.0):
    """Cut the logarithm off at zero."""
    return 1.0 + mscale * math.log(max(scale, 1.0)) / 10


def factor_with_numpy(scale, mscale=1.0):
    """Go by the logarithm to base 10."""
    if scale < 1:
        return 1.0
    return float(0.1 * mscale * np.log10(scale) * np.log(10.0) + 1)


ALTERNATIVES = {
    "interpolated_frequencies": [
        interpolation_by_multiplying,
        interpolation_by_wavelengths,
    ],
    "ntk_frequencies": [
        ntk_by_slowing_each_pair,
        ntk_by_the_end_it_must_meet,
    ],
    "dynamic_ntk_base": [dynamic_by_cases, dynamic_by_logarithms],
    "yarn_ramp": [ramp_pair_by_pair, ramp_with_numpy],
    "yarn_frequencies": [yarn_by_lerp, yarn_by_one_factor],
    "yarn_attention_factor": [factor_by_max, factor_with_numpy],
}
