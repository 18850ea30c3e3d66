"""A small model whose heads may share keys and values, and who does so.

``PUBLISHED`` holds what the authors of some models have published about how
much of every token their models keep.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "recorded" / "sharing_mha.safetensors"
SIZES = {"window": 64, "vocab_size": 64}  # of the texts


@dataclass(frozen=True)
class Kept:
    """What decides how much of every token a model keeps.

    Attributes:
        way: which of the four ways it goes: MHA, GQA, MQA or MLA.
        layers: how many layers keep something.
        heads: H, the query heads of a layer.
        shared: G, its heads of keys and values.
        width: the width of a key, and of a value.
        latent: the width of MLA's latent.
        rope: the width of MLA's RoPE key.
    """

    way: str
    layers: int
    heads: int
    shared: int
    width: int
    latent: int
    rope: int

    def numbers(self) -> dict[str, int]:
        """Count the numbers of a token in a layer, for each of the ways."""
        a_head = 2 * self.width  # a key and a value
        return {
            "MHA": self.heads * a_head,
            "GQA": self.shared * a_head,
            "MQA": a_head,
            "MLA": self.latent + self.rope,
        }

    def as_state(self) -> dict[str, Any]:
        """Return all sizes, as JSON."""
        return asdict(self)


# Where a model doesn't go the way of MLA, DeepSeek-V2's widths stand in for
# comparison; where it doesn't share, groups of eight.
PUBLISHED = {
    "GPT-3": Kept("MHA", 96, 96, 12, 128, 512, 64),
    "PaLM 540B": Kept("MQA", 118, 48, 6, 256, 512, 64),
    "Llama 2 70B": Kept("GQA", 80, 64, 8, 128, 512, 64),
    "DeepSeek-V2": Kept("MLA", 60, 128, 16, 128, 512, 64),
    "DeepSeek-V3": Kept("MLA", 61, 128, 16, 128, 512, 64),
}


class SharedAttention(nn.Module):
    """Causal self-attention by H query heads and G heads of keys and values.

    Args:
        d_model: C.
        n_heads: H.
        n_shared: G.
        attend: ``grouped_query_attention``.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_shared: int,
        attend: Callable[..., Tensor],
    ) -> None:
        super().__init__()
        self.n_heads, self.n_shared = n_heads, n_shared
        self.attend = attend
        width = d_model // n_heads
        self.q_proj = nn.Linear(d_model, n_heads * width, bias=False)
        self.k_proj = nn.Linear(d_model, n_shared * width, bias=False)
        self.v_proj = nn.Linear(d_model, n_shared * width, bias=False)
        self.o_proj = nn.Linear(n_heads * width, d_model, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Return the output, shape (B, T, C), and no weights."""

        def heads(projected: Tensor, number: int) -> Tensor:
            return projected.unflatten(-1, (number, -1)).transpose(1, 2)

        q = heads(self.q_proj(x), self.n_heads)
        k = heads(self.k_proj(x), self.n_shared)
        v = heads(self.v_proj(x), self.n_shared)
        places = torch.arange(x.shape[1])
        output = self.attend(q, k, v, places <= places[:, None])
        return self.o_proj(output.transpose(1, 2).flatten(-2)), None


class Recaller(nn.Module):
    """One block that looks up what followed a token the last time.

    In chapter 03 this took two layers, since a token has to know first what
    stood before it. Here each token is told so by ``before``, a matrix for
    the previous token's vector, and a single search is left.

    Args:
        attention: makes the attention, from C = 64 and H = 16.
        seed: where the weights come from.
    """

    def __init__(
        self, attention: Callable[[int, int], nn.Module], seed: int = 0
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        width, n_tokens = 64, SIZES["vocab_size"]
        self.wte = nn.Embedding(n_tokens, width)
        self.before = nn.Linear(width, width, bias=False)
        self.ln_1 = nn.LayerNorm(width)
        self.attn = attention(width, 16)
        self.ln_2 = nn.LayerNorm(width)
        self.c_fc = nn.Linear(width, 2 * width)
        self.c_proj = nn.Linear(2 * width, width)
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, n_tokens, bias=False)

    def forward(self, ids: Tensor) -> tuple[Tensor, list]:
        """Return the logits of what follows, and no weights."""
        x = self.wte(ids)  # (B, T, C)
        x = x + self.before(F.pad(x, (0, 0, 1, 0))[:, :-1])
        x = x + self.attn(self.ln_1(x))[0]
        x = x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x))))
        return self.lm_head(self.ln_f(x)), []


def trained_mha(attend: Callable[..., Tensor]) -> Recaller:
    """Return the model with multi-head attention that was trained before."""
    from safetensors.torch import load_file

    model = Recaller(partial(SharedAttention, n_shared=16, attend=attend))
    model.load_state_dict(load_file(WEIGHTS))
    return model
