"""A small language model round the reader's own transformer block."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Block = Callable[[int, int], nn.Module]  # (d_model, n_heads) -> the block


class LanguageModel(nn.Module):
    """GPT-2 in small: token and position tables, blocks, a norm, logits.

    The layers have GPT-2's names. The window is the number of rows of the
    position table ``wpe``: there is no vector for a token beyond it.

    Source: Radford et al. 2019. Two differences: the logits have weights of
    their own, and both tables start at a standard deviation of 1 (PyTorch's
    default), which lets a model this small learn to use positions at once.
    """

    def __init__(
        self,
        block: Block,
        *,
        n_layers: int,
        vocab_size: int,
        window: int,
        d_model: int,
        n_heads: int,
    ) -> None:
        super().__init__()
        self.window = window
        self.wte = nn.Embedding(vocab_size, d_model)
        self.wpe = nn.Embedding(window, d_model)
        self.h = nn.ModuleList(
            block(d_model, n_heads) for _ in range(n_layers)
        )
        self.ln_f = nn.LayerNorm(d_model)
        self.lm_head = nn.Linear(d_model, vocab_size, bias=False)

    def forward(self, ids: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Predict the token that follows each token.

        Args:
            ids: token numbers, shape (B, T), T ≤ window.

        Returns:
            The logits, shape (B, T, vocab_size), and for each layer the
            attention weights, shape (B, H, T, T).

        Raises:
            ValueError: if there are more tokens than the window holds.
        """
        n_tokens = ids.shape[1]
        if n_tokens > self.window:
            raise ValueError(
                f"{n_tokens} tokens don't fit into a window of {self.window}"
            )
        x = self.wte(ids) + self.wpe.weight[:n_tokens]  # (B, T, C)
        layers = []
        for block in self.h:
            x, weights = block(x)
            layers.append(weights)
        return self.lm_head(self.ln_f(x)), layers


def count_parameters(model: nn.Module) -> int:
    """Count the numbers that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@torch.no_grad()
def accuracy(model: LanguageModel, ids: Tensor, targets: Tensor) -> float:
    """Measure how often the most likely token is the right one.

    Args:
        model: what predicts.
        ids: token numbers, shape (B, T).
        targets: what follows each of them, shape (B, T); a negative number
            where nothing could know.

    Returns:
        A share, from 0 to 1, of the places where there is a target.
    """
    logits, _ = model(ids)
    known = targets >= 0
    right = logits.argmax(-1) == targets
    return right[known].double().mean().item()
