"""Other people's state space models, to compare the reader's with."""

import torch
from torch import Tensor, nn

from contextlab.twins import load, randomise


def _quiet() -> None:
    """Keep ``transformers`` from saying that it has no fused kernels here."""
    from transformers.utils import logging

    logging.set_verbosity_error()


def mixer_twins(
    block: type[nn.Module], d_model: int, d_state: int, d_conv: int
) -> tuple[nn.Module, nn.Module]:
    """Return the reader's block and the ``MambaMixer`` of ``transformers``.

    Both have the same random weights, in float64. Theirs rounds some numbers
    to float32 on the way, and runs without a fused kernel.
    """
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    _quiet()
    config = MambaConfig(
        hidden_size=d_model,
        state_size=d_state,
        conv_kernel=d_conv,
        num_hidden_layers=1,
    )
    theirs = MambaMixer(config, layer_idx=0).eval()
    randomise(theirs)
    ours = block(d_model, d_state, d_conv).double()
    load(ours, dict(theirs.named_parameters()))
    return ours, theirs


def mamba_scan(
    u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor
) -> tuple[Tensor, Tensor]:
    """Run the selective scan of ``transformers``, one token at a time.

    Takes and returns what ``selective_scan`` of chapter 12 does; rounds some
    numbers to float32 on the way.
    """
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    _quiet()
    y, state = mamba_selective_scan(
        u.mT, delta.mT, a, b.mT, c.mT, d, return_last_state=True
    )
    return y.mT, state


def mamba2_scan(
    x: Tensor, log_a: Tensor, b: Tensor, c: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """Run the chunked scan of ``transformers``' Mamba-2, in float32.

    Takes and returns what ``ssd_chunked`` of chapter 12 does; ``log_a`` must
    be below 0.
    """
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

    _quiet()
    n_heads = x.shape[2]
    step = -log_a  # with a rate of −1; theirs multiplies x by it once more
    return mamba2_chunk_scan(
        (x / step[..., None]).float(),
        step.float(),
        -torch.ones(n_heads),
        b[:, :, None].float(),
        c[:, :, None].float(),
        chunk,
        return_final_states=True,
    )
