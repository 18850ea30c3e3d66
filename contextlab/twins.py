"""The reader's layers beside other people's, with the same weights.

Nothing is downloaded: all weights are random, in float64, and no bias or norm
is left at the zeros and ones that a fresh layer has.
"""

import torch.nn.functional as F
from torch import Tensor, nn

ATTENTION = {  # PyTorch's names, and ours
    "in_proj_": "c_attn.",
    "out_proj": "c_proj",
}
BLOCK = {
    "norm": "ln_",
    "self_attn.in_proj_": "attn.c_attn.",
    "self_attn.out_proj": "attn.c_proj",
    "linear1": "mlp.c_fc",
    "linear2": "mlp.c_proj",
}


def attention_twins(
    multihead: type[nn.Module], d_model: int, n_heads: int
) -> tuple[nn.Module, nn.MultiheadAttention]:
    """Return the reader's multi-head attention, and PyTorch's own."""
    theirs = nn.MultiheadAttention(d_model, n_heads, batch_first=True)
    randomise(theirs)
    ours = multihead(d_model, n_heads).double()
    load(ours, renamed(theirs, ATTENTION))
    return ours, theirs


def block_twins(
    block: type[nn.Module], d_model: int, n_heads: int
) -> tuple[nn.Module, nn.TransformerEncoderLayer]:
    """Return the reader's block, and PyTorch's own, pre-LN with GPT-2's GELU.

    PyTorch's is told to hide the future by ``src_mask``, where True = blocked.
    """
    theirs = nn.TransformerEncoderLayer(
        d_model,
        n_heads,
        4 * d_model,
        dropout=0.0,
        activation=lambda x: F.gelu(x, approximate="tanh"),
        batch_first=True,
        norm_first=True,
    )
    randomise(theirs)
    ours = block(d_model, n_heads).double()
    load(ours, renamed(theirs, BLOCK))
    return ours, theirs


def gpt2_block(d_model: int, n_heads: int) -> nn.Module:
    """Return a block of GPT-2 as the ``transformers`` library builds it."""
    from transformers import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2Block

    config = GPT2Config(
        n_embd=d_model, n_head=n_heads, attn_implementation="eager"
    )
    block = GPT2Block(config, layer_idx=0).eval()  # no dropout
    randomise(block)
    return block


def randomise(module: nn.Module) -> None:
    """Make a module float64, and every one of its numbers random."""
    for parameter in module.double().parameters():
        nn.init.normal_(parameter, std=0.5)


def renamed(module: nn.Module, names: dict[str, str]) -> dict[str, Tensor]:
    """Return the parameters of a module under our names."""
    state = {}
    for name, parameter in module.named_parameters():
        for theirs, ours in names.items():
            name = name.replace(theirs, ours)
        state[name] = parameter
    return state


def load(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Give the reader's module these weights; it may have more of its own.

    Raises:
        AssertionError: if a layer of the given code is missing.
    """
    missing = module.load_state_dict(state, strict=False).unexpected_keys
    assert not missing, (
        f"The given code has layers that yours lacks: {', '.join(missing)}. "
        "Keep __init__ as it was."
    )
