"""Reference answers for chapter 03, *Many searches in parallel*."""

import torch.nn.functional as F
from torch import Tensor, nn

from solutions.attention import attention, causal_mask


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Cut the channels of every token into heads.

    Head h gets channels h·D to (h + 1)·D, D = C / H, of every token.

    Args:
        x: shape (B, T, C).
        n_heads: H, the number of heads.

    Returns:
        Shape (B, H, T, D).

    Raises:
        ValueError: if C is not a multiple of H.
    """
    if x.shape[-1] % n_heads:
        raise ValueError(
            f"{x.shape[-1]} channels don't split into {n_heads} heads"
        )
    ### BEGIN SOLUTION
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)
    ### END SOLUTION


def merge_heads(x: Tensor) -> Tensor:
    """Put the heads of every token side by side again: undo ``split_heads``.

    Args:
        x: shape (B, H, T, D).

    Returns:
        Shape (B, T, H·D).
    """
    ### BEGIN SOLUTION
    return x.transpose(1, 2).flatten(-2)
    ### END SOLUTION


class MultiHeadAttention(nn.Module):
    """Self-attention by several heads at once, with GPT-2's layer names.

    ``c_attn`` projects every token to its queries, keys and values, in this
    order, for all heads side by side; ``c_proj`` mixes the heads' outputs.

    Source: Vaswani et al. 2017, section 3.2.2.
    """

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.c_attn = nn.Linear(d_model, 3 * d_model)
        self.c_proj = nn.Linear(d_model, d_model)

    def forward(
        self, x: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Let every token of x search all tokens of x.

        Args:
            x: shape (B, T, C).
            mask: boolean, broadcastable to (B, H, T, T), True = may attend.
                A token that may attend to nothing gets weights of 0, and its
                heads say zeros: ``attention`` does so already.

        Returns:
            The output, shape (B, T, C), and the weights of each head, shape
            (B, H, T, T).
        """
        ### BEGIN SOLUTION
        q, k, v = (
            split_heads(part, self.n_heads)
            for part in self.c_attn(x).chunk(3, -1)
        )
        output, weights = attention(q, k, v, mask)
        return self.c_proj(merge_heads(output)), weights
        ### END SOLUTION


class TransformerBlock(nn.Module):
    """GPT-2's block: attention, then an MLP, each normalised before and added.

    The norm comes first ("pre-LN"), the MLP is four times as wide as the
    model, and its activation is GPT-2's tanh approximation of GELU.

    Source: Radford et al. 2019, section 2.3; Hendrycks and Gimpel 2016.
    """

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(d_model)
        self.attn = MultiHeadAttention(d_model, n_heads)
        self.ln_2 = nn.LayerNorm(d_model)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(d_model, 4 * d_model),
                "c_proj": nn.Linear(4 * d_model, d_model),
            }
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Read and write the residual stream, hiding the future.

        Args:
            x: shape (B, T, C).

        Returns:
            The new residual stream, shape (B, T, C), and the attention
            weights of each head, shape (B, H, T, T).
        """
        ### BEGIN SOLUTION
        mask = causal_mask(x.shape[1], x.shape[1], device=x.device)
        heard, weights = self.attn(self.ln_1(x), mask)
        x = x + heard
        hidden = F.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh")
        return x + self.mlp["c_proj"](hidden), weights
        ### END SOLUTION

    def load_gpt2(self, state: dict[str, Tensor]) -> None:
        """Take over the weights of one of GPT-2's blocks.

        Args:
            state: the ``state_dict()`` of a ``GPT2Block`` of ``transformers``.
                Its names are those of this block. Its four projections are
                of type ``Conv1D``, which stores weights as (in, out);
                ``nn.Linear`` stores (out, in).
        """
        ### BEGIN SOLUTION
        self.load_state_dict(
            {
                name: value.T if value.ndim == 2 else value
                for name, value in state.items()
            }
        )
        ### END SOLUTION


def previous_token_score(weights: Tensor) -> Tensor:
    """Measure how much of its attention a head spends on the token before.

    Args:
        weights: attention weights, shape (..., T, T), T ≥ 2.

    Returns:
        The weight from query t to key t − 1, averaged over t = 1 … T − 1:
        shape (...), between 0 and 1.
    """
    ### BEGIN SOLUTION
    return weights.diagonal(offset=-1, dim1=-2, dim2=-1).mean(-1)
    ### END SOLUTION


def induction_score(weights: Tensor, period: int) -> Tensor:
    """Measure how much a head looks for what came next the last time.

    The sequence repeats itself every ``period`` tokens. From its second round
    on, the token at t stood at t − period too; what followed it then stands
    at t − period + 1.

    Args:
        weights: attention weights on such a sequence, shape (..., T, T).
        period: the length of one round, 1 < period < T.

    Returns:
        The weight from query t to key t − period + 1, averaged over
        t = period … T − 1: shape (...), between 0 and 1.

    Source: Olsson et al. 2022, "prefix matching".
    """
    ### BEGIN SOLUTION
    follower = weights.diagonal(offset=1 - period, dim1=-2, dim2=-1)
    return follower[..., 1:].mean(-1)  # query t = period - 1 is in round one
    ### END SOLUTION
