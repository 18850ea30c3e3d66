"""What a chapter on stretched windows compares with.

The ``transformers`` library's own rope utilities are the judge. Frequencies
span many powers of ten, so they are compared as wavelengths, in tokens.
"""

import math

import torch
from torch import Tensor

from contextlab.checks import assert_close, describe_type


def transformers_frequencies(
    kind: str,
    width: int,
    base: float,
    window: int,
    scale: float,
    *,
    n_tokens: int | None = None,
    **more: float,
) -> tuple[Tensor, float]:
    """Return the frequencies and the factor that ``transformers`` computes.

    Args:
        kind: the library's name of the method: "linear" for PI, "dynamic" for
            dynamic NTK, "yarn", or "default" for none.
        width: D, the width of a head, even.
        base: what the model was trained with.
        window: L, the window that the model was trained with.
        scale: s, the library's ``factor``.
        n_tokens: how long the text is by now, for "dynamic".
        more: other parameters of the method, such as ``beta_fast``.

    Returns:
        Inverse frequencies, shape (D / 2,), float32, and the factor of the
        cosines and the sines.
    """
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_type": kind, "rope_theta": base, "factor": scale}
    if kind == "yarn":
        parameters["original_max_position_embeddings"] = window
        window = round(window * scale)
    config = LlamaConfig(
        hidden_size=2 * width,
        num_attention_heads=2,
        head_dim=width,
        max_position_embeddings=window,
        rope_parameters=parameters | more,
    )
    compute = ROPE_INIT_FUNCTIONS[kind]
    inv_freq, factor = compute(config, torch.device("cpu"), seq_len=n_tokens)
    return inv_freq, float(factor)


def wavelengths(inv_freq: Tensor) -> Tensor:
    """Return how many tokens each hand takes for a whole turn, 2π / θ."""
    return 2 * math.pi / inv_freq


def assert_frequencies(got: Tensor, expected: Tensor, what: str) -> None:
    """Assert that frequencies are what they should be, as wavelengths.

    Args:
        got: what the student's code returned, whatever it is.
        expected: the right frequencies, shape (D / 2,).
        what: what they are, as the subject of a sentence.

    Raises:
        AssertionError: names the first thing that differs.
    """
    assert isinstance(got, Tensor), (
        f"{what} should be a tensor, but is {describe_type(got)}."
    )
    if got.shape == expected.shape and got.dtype == expected.dtype:
        got, expected = wavelengths(got), wavelengths(expected)
        what = f"the wavelength 2π / θ, in tokens, of {what}"
    assert_close(got, expected, what, 1e-5)
