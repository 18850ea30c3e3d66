"""A small rotary language model, and a text of any length that tests it."""

import math
from collections.abc import Callable
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contextlab.tasks import UNKNOWN

LETTERS = 32  # the tokens 0 to 31
KEY, ASK = 32, 33  # "this is the passkey:" and "what is the passkey?"
VOCABULARY = 34
RHYME = 0.75  # how often a letter follows from the one two before it


class RotaryAttention(nn.Module):
    """Causal attention whose queries and keys are turned by a table."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.c_attn = nn.Linear(d_model, 3 * d_model, bias=False)
        self.c_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """Take x of shape (B, T, C) and tables of shape (T, D / 2)."""
        heads = self.c_attn(x).unflatten(-1, (3, self.n_heads, -1))
        q, k, v = heads.permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        q, k = _turn(q, cos, sin), _turn(k, cos, sin)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias, is_causal=bias is None
        )
        return self.c_proj(y.transpose(1, 2).flatten(2))


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)  # half-split pairs
    turned = left * cos - right * sin, right * cos + left * sin
    return torch.cat(turned, -1)


class RotaryBlock(nn.Module):
    """A pre-LN block round rotary attention."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(d_model)
        self.attn = RotaryAttention(d_model, n_heads)
        self.ln_2 = nn.LayerNorm(d_model)
        self.c_fc = nn.Linear(d_model, 2 * d_model)
        self.c_proj = nn.Linear(2 * d_model, d_model)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """Read and write the stream, (B, T, C)."""
        x = x + self.attn(self.ln_1(x), cos, sin, bias)
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x))))


class RotaryModel(nn.Module):
    """A language model that knows of positions by rotation alone.

    It has no table of positions, so it takes a text of any length. How far
    each pair of channels turns from token to token is given from outside and
    isn't trained: ``stretched`` puts other frequencies into the same weights.

    Args:
        inv_freq: radians a token of each pair, shape (D / 2,), where
            D = d_model / n_heads.
        factor: what multiplies the cosines and the sines, of queries and of
            keys; the scores get its square.
        bias: given T, what is added to the scores, shape (H, T, T), with
            minus infinity where the future is. With frequencies of zero,
            positions are known by it alone (ALiBi); without either, not at
            all.
        n_layers: the number of blocks.
        d_model: C, the width of the stream.
        n_heads: H.
        vocab_size: the number of different tokens.
    """

    def __init__(
        self,
        inv_freq: Tensor,
        *,
        factor: float = 1.0,
        bias: Callable[[int], Tensor] | None = None,
        n_layers: int = 2,
        d_model: int = 64,
        n_heads: int = 2,
        vocab_size: int = VOCABULARY,
    ) -> None:
        super().__init__()
        if inv_freq.shape != (d_model // n_heads // 2,):
            raise ValueError(
                f"a head of {d_model // n_heads} channels has "
                f"{d_model // n_heads // 2} pairs, but the frequencies have "
                f"shape {tuple(inv_freq.shape)}"
            )
        self.factor = factor
        self.bias = bias
        self.register_buffer("inv_freq", inv_freq.float(), persistent=False)
        self.wte = nn.Embedding(vocab_size, d_model)
        self.h = nn.ModuleList(
            RotaryBlock(d_model, n_heads) for _ in range(n_layers)
        )
        self.ln_f = nn.LayerNorm(d_model)
        self.lm_head = nn.Linear(d_model, vocab_size, bias=False)

    def forward(self, ids: Tensor) -> tuple[Tensor, None]:
        """Predict the token that follows each token.

        Args:
            ids: token numbers, shape (B, T), of any length T.

        Returns:
            The logits, shape (B, T, vocab_size), and None: the weights of
            attention are never made (FlashAttention, chapter 05).
        """
        places = torch.arange(ids.shape[1], device=ids.device)
        angles = places[:, None] * self.inv_freq  # (T, D / 2)
        cos, sin = self.factor * angles.cos(), self.factor * angles.sin()
        bias = None if self.bias is None else self.bias(ids.shape[1])
        x = self.wte(ids)
        for block in self.h:
            x = block(x, cos, sin, bias)
        return self.lm_head(self.ln_f(x)), None


def stretched(
    model: RotaryModel, inv_freq: Tensor, factor: float = 1.0
) -> RotaryModel:
    """Return a copy of a model with other frequencies and the same weights.

    Raises:
        ValueError: if there isn't one frequency for each pair of channels.
    """
    if inv_freq.shape != model.inv_freq.shape:
        raise ValueError(
            f"the model has {len(model.inv_freq)} pairs of channels, but the "
            f"frequencies have shape {tuple(inv_freq.shape)}"
        )
    other = deepcopy(model)
    other.inv_freq = inv_freq.to(other.inv_freq)
    other.factor = factor
    return other


def passkey_texts(
    batch: int, n_tokens: int, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw rhyming texts with a passkey in them, and questions after it.

    Letters rhyme: three times out of four, a letter follows from the one two
    places before it, by a rule that is the same in all texts; else it is
    drawn. Somewhere stands KEY and then a letter, the passkey. After it,
    every eighth token or so, and always the last, is ASK: what follows is
    the passkey. The answer never stands in the text, so that no question
    can be answered by copying from an earlier one.

    Args:
        batch: B, the number of texts.
        n_tokens: T, the length of each, at least 4.
        generator: where all the randomness comes from.

    Returns:
        The tokens, shape (B, T), and what follows each of them, shape (B, T):
        ``UNKNOWN`` where that is KEY, ASK or the passkey itself.

    Raises:
        ValueError: if there is no room for a passkey and a question.
    """
    if n_tokens < 4:
        raise ValueError(f"a passkey and a question don't fit {n_tokens}")

    def draw(*shape: int) -> Tensor:
        return torch.randint(LETTERS, shape, generator=generator)

    drawn = draw(batch, n_tokens + 1)
    rhymes = torch.rand(batch, n_tokens + 1, generator=generator) < RHYME
    letters = list(drawn.unbind(-1))
    for t in range(2, n_tokens + 1):
        letters[t] = rhymes_with(letters[t - 2]).where(
            rhymes[:, t], letters[t]
        )
    text = torch.stack(letters, -1)  # (B, T + 1), one to predict

    rows = torch.arange(batch)
    places = torch.arange(n_tokens)
    place = torch.randint(n_tokens - 2, (batch,), generator=generator)
    ids = text[:, :-1].clone()
    asked = torch.rand(batch, n_tokens, generator=generator) < 1 / 8
    asked[:, -1] = True
    asked &= places > place[:, None] + 1
    ids[asked] = ASK
    ids[rows, place], passkey = KEY, draw(batch)
    ids[rows, place + 1] = passkey

    targets = text[:, 1:].clone()
    told = ids != text[:, :-1]
    told[rows, place + 1] = True  # the passkey may equal what stood there
    targets[:, :-1][told[:, 1:]] = UNKNOWN
    return ids, torch.where(asked, passkey[:, None], targets)


def rhymes_with(letters: Tensor) -> Tensor:
    """Return the letter that most often comes two places after each."""
    return (5 * letters + 7) % LETTERS


def lowest_loss() -> float:
    """Return the loss, in nats, of who knows the rule of rhymes."""
    other = (1 - RHYME) / LETTERS
    known = RHYME + other
    return -known * math.log(known) - (LETTERS - 1) * other * math.log(other)


@torch.no_grad()
def measure(
    model: RotaryModel,
    n_tokens: int,
    *,
    n_texts: int = 512,
    seed: int = 1_000,
) -> dict[str, Tensor]:
    """Let a model read fresh texts, and say how well it did.

    Args:
        model: what predicts.
        n_tokens: T, the length of the texts.
        n_texts: how many.
        seed: other texts for another seed.

    Returns:
        ``losses``: nats a letter at each position, shape (T,), questions left
        out; not a number where there is nothing to predict.
        ``recall``: the share of texts whose *last* question is answered
        right, shape (). The passkey may stand anywhere before it.
        ``distances``: of every question, how many tokens after KEY it comes,
        shape (Q,).
        ``answered``: whether each of them is answered right, shape (Q,).
    """
    generator = torch.Generator().manual_seed(seed)
    ids, targets = passkey_texts(n_texts, n_tokens, generator=generator)
    logits = torch.cat([model(part)[0] for part in ids.split(32)])
    losses = F.cross_entropy(
        logits.transpose(1, 2),
        targets,
        ignore_index=UNKNOWN,
        reduction="none",
    )
    asked = ids == ASK
    spoken = (targets != UNKNOWN) & ~asked
    right = logits.argmax(-1) == targets
    place = (ids == KEY).int().argmax(-1, keepdim=True)
    distance = torch.arange(n_tokens) - place  # (B, T)
    return {
        "losses": (losses * spoken).sum(0) / spoken.sum(0),
        "recall": right[:, -1].double().mean(),
        "distances": distance[asked],
        "answered": right[asked],
    }
