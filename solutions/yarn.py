"""Reference answers for chapter 07, *Stretching the window*."""

import math

import torch
from torch import Tensor

from solutions.rope import inverse_frequencies


def interpolated_frequencies(inv_freq: Tensor, scale: float) -> Tensor:
    """Slow every hand of the clock down, so that a longer text fits.

    With these frequencies, position s·p of the long text has the angles that
    position p had before.

    Args:
        inv_freq: radians a token of each pair of channels, shape (D / 2,).
        scale: s, how many times as long the window becomes, at least 1.

    Returns:
        Shape (D / 2,), of the dtype of ``inv_freq``; a new tensor.

    Raises:
        ValueError: if the scale is less than 1.

    Source: Chen et al. 2023 (position interpolation, PI).
    """
    if scale < 1:
        raise ValueError(f"a window is stretched by 1 or more, not {scale}")
    ### BEGIN SOLUTION
    return inv_freq / scale
    ### END SOLUTION


def ntk_frequencies(width: int, base: float, scale: float) -> Tensor:
    """Slow the last hand down by the scale, and the others less and less.

    All frequencies are those of one larger base, the one for which the
    slowest pair turns exactly s times more slowly. The fastest pair turns as
    it did.

    Args:
        width: D, the width of a head, even, at least 4.
        base: what the model was trained with.
        scale: s, at least 1.

    Returns:
        Shape (D / 2,), float32, the fastest first.

    Raises:
        ValueError: if the scale is less than 1.

    Source: bloc97 2023 ("NTK-aware" scaling); Peng et al. 2023, section 3.1.
    """
    if scale < 1:
        raise ValueError(f"a window is stretched by 1 or more, not {scale}")
    ### BEGIN SOLUTION
    larger = base * scale ** (width / (width - 2))
    return inverse_frequencies(width, larger)
    ### END SOLUTION


def dynamic_ntk_base(
    width: int, base: float, scale: float, window: int, n_tokens: int
) -> float:
    """Return the base for a text of this length: none larger than needed.

    A text that fits the window gets the base as it was. A longer text of n
    tokens gets the base of NTK-aware scaling for a scale of
    s·n / L - (s - 1), with L the window: it begins at 1 where n = L.

    Args:
        width: D, the width of a head, even, at least 4.
        base: what the model was trained with.
        scale: s, how steeply the base rises with the length, at least 1.
        window: L, the window that the model was trained with, in tokens.
        n_tokens: n, how long the text is by now.

    Returns:
        The base, a float.

    Raises:
        ValueError: if the scale is less than 1.

    Source: emozilla 2023 ("dynamic NTK"), as in the ``transformers`` library.
    """
    if scale < 1:
        raise ValueError(f"a window is stretched by 1 or more, not {scale}")
    ### BEGIN SOLUTION
    longer = max(n_tokens, window) / window
    needed = scale * longer - (scale - 1)
    return float(base * needed ** (width / (width - 2)))
    ### END SOLUTION


def yarn_ramp(
    width: int,
    base: float,
    window: int,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
) -> Tensor:
    """Say of each pair of channels how far it is to be interpolated.

    Pair i turns L·base^(-2i / D) / 2π times in a window of L tokens. So r
    turns belong to the index c(r) = D · ln(L / 2πr) / (2 · ln base), which is
    rarely a whole number. The ramp is 0 up to the index low and 1 from the
    index high on, and in between it rises in a straight line with the index:

        low = max(⌊c(beta_fast)⌋, 0)    high = min(⌈c(beta_slow)⌉, D - 1)

    If low and high are equal, high is 0.001 more. No window is asked for in
    which low would be larger than high.

    Args:
        width: D, the width of a head, even.
        base: what the model was trained with.
        window: L, the window that the model was trained with, in tokens.
        beta_fast: pairs that turn more often than this in a window stay.
        beta_slow: pairs that turn less often are interpolated in full.

    Returns:
        Shape (D / 2,), float32, each number between 0, which stays as it is,
        and 1, which is interpolated.

    Source: Peng et al. 2023, section 3.2, in the form of the authors' code.
    (In the paper the line is straight in the number of turns.)
    """

    ### BEGIN SOLUTION
    def index(turns: float) -> float:
        ratio = window / (2 * math.pi * turns)
        return width * math.log(ratio) / (2 * math.log(base))

    low = max(math.floor(index(beta_fast)), 0)
    high = min(math.ceil(index(beta_slow)), width - 1)
    rise = (high - low) or 0.001
    return ((torch.arange(width // 2) - low) / rise).clamp(0, 1)
    ### END SOLUTION


def yarn_frequencies(
    width: int,
    base: float,
    window: int,
    scale: float,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
) -> Tensor:
    """Interpolate the slow pairs, leave the fast ones, blend in between.

    Where the ramp is 0 a pair keeps its frequency, where it is 1 it gets that
    of position interpolation, and in between a mean of the two *frequencies*,
    weighted by the ramp.

    Args:
        width: D, the width of a head, even.
        base: what the model was trained with.
        window: L, the window that the model was trained with, in tokens.
        scale: s, how many times as long the window becomes, at least 1.
        beta_fast: as for ``yarn_ramp``.
        beta_slow: as for ``yarn_ramp``.

    Returns:
        Shape (D / 2,), float32, the fastest first.

    Raises:
        ValueError: if the scale is less than 1.

    Source: Peng et al. 2023, section 3.2 ("NTK-by-parts").
    """
    if scale < 1:
        raise ValueError(f"a window is stretched by 1 or more, not {scale}")
    ### BEGIN SOLUTION
    ramp = yarn_ramp(width, base, window, beta_fast, beta_slow)
    stay = inverse_frequencies(width, base)
    return (1 - ramp) * stay + ramp * interpolated_frequencies(stay, scale)
    ### END SOLUTION


def yarn_attention_factor(scale: float, mscale: float = 1.0) -> float:
    """Return what multiplies the queries and the keys of a stretched model.

    It is 0.1 · mscale · ln(s) + 1, and 1 for a window that isn't stretched
    (s ≤ 1). The released code puts it on the cosines *and* the sines, so on
    queries and keys alike, and the scores get its square.

    Args:
        scale: s, how many times as long the window becomes.
        mscale: how much of the correction to apply.

    Returns:
        The factor, a float.

    Source: Peng et al. 2023, section 3.3; ``mscale`` is DeepSeek-V2's.
    """
    ### BEGIN SOLUTION
    if scale <= 1:
        return 1.0
    return 0.1 * mscale * math.log(scale) + 1.0
    ### END SOLUTION
