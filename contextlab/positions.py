"""What a chapter on positions compares with, and other ways to mark them.

The ``transformers`` library's own code is the judge: Llama's rotation in the
half-split layout, DeepSeek-V2's in the interleaved one, and BLOOM's ALiBi.
"""

import torch
from torch import Tensor


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Return the stamps of the first transformer, one a position.

    Channels 2i and 2i + 1 hold the sine and the cosine of
    p · 10,000^(-2i / width).

    Args:
        positions: shape (T,).
        width: C, even.

    Returns:
        Shape (T, C), float32.

    Source: Vaswani et al. 2017, section 3.5.
    """
    inv_freq = 10_000 ** (-torch.arange(0, width, 2) / width)
    angles = positions[:, None] * inv_freq  # (T, C / 2)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate neighbours, channels 2i and 2i + 1: the interleaved layout.

    Args:
        x: queries or keys, shape (..., T, D).
        cos: shape (T, D / 2).
        sin: as ``cos``.
    """
    a, b = x[..., 0::2], x[..., 1::2]
    pairs = torch.stack([a * cos - b * sin, a * sin + b * cos], -1)
    return pairs.flatten(-2)


def llama_rotary(
    q: Tensor, k: Tensor, positions: Tensor, base: float
) -> tuple[Tensor, Tensor]:
    """Rotate q and k as ``transformers`` does in Llama; angles in float32.

    Args:
        q: shape (B, H, T, D).
        k: shape (B, H, T, D).
        positions: shape (B, T).
        base: what sets the slowest hand.
    """
    from transformers import LlamaConfig
    from transformers.models.llama import modeling_llama

    width = q.shape[-1]
    config = LlamaConfig(
        hidden_size=width,
        num_attention_heads=1,
        head_dim=width,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )
    rotary = modeling_llama.LlamaRotaryEmbedding(config)
    return modeling_llama.apply_rotary_pos_emb(q, k, *rotary(q, positions))


def llama_inverse_frequencies(width: int, base: float) -> Tensor:
    """Return the inverse frequencies of ``transformers``' Llama, float32."""
    from transformers import LlamaConfig
    from transformers.models.llama import modeling_llama

    config = LlamaConfig(
        head_dim=width,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )
    return modeling_llama.LlamaRotaryEmbedding(config).inv_freq


def deepseek_rotary(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor]:
    """Rotate q and k as ``transformers`` does in DeepSeek-V2, interleaved.

    Args:
        q: shape (B, H, T, D).
        k: shape (B, H, T, D).
        cos: shape (T, D / 2).
        sin: as ``cos``.
    """
    from transformers.models.deepseek_v2 import modeling_deepseek_v2

    turns = torch.complex(cos.float(), sin.float())[None]
    return modeling_deepseek_v2.apply_rotary_emb(q, k, turns)


def bloom_alibi(n_heads: int, n_keys: int) -> Tensor:
    """Return what ``transformers`` adds to BLOOM's scores: (H, 1, S).

    It depends on the key alone. From ALiBi's penalty it differs by one number
    for all keys of a query, which the softmax doesn't see.
    """
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    everything = torch.ones(1, n_keys)
    return build_alibi_tensor(everything, n_heads, torch.float32)
