"""Small language models of every mechanism of the course, by description.

A ``Design`` says of each layer what it is and what it keeps; ``build`` makes
the model. Models of one size differ in their mechanism alone: whatever a
layer's mixer needs in parameters is taken from the width of the MLPs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contextlab.model import count_parameters
from contextlab.scaling import transformers_frequencies

TAPS = 4  # how many tokens a short convolution hears


@dataclass(frozen=True)
class Layer:
    """One layer: how it mixes tokens, and what it keeps of them.

    Attributes:
        kind: "attention", or "ssm" for Mamba-2's state space.
        n_heads: H, heads of queries, or of the state space.
        n_kv_heads: G, heads of keys and values; None for as many as heads.
        latent: the width of MLA's latent, which stands for keys and values of
            all heads; None for none. Half a head's width carries the position
            besides, one key for all heads.
        window: w, a token sees itself and the w − 1 before it; None for all.
        sinks: how many first tokens of a text are seen from everywhere.
        global_every: tokens at multiples of it are seen from everywhere; they
            themselves see no more than others, so that a cache needn't keep
            the rest for them. None for none.
        memory_k: how many keys that have left the window each query retrieves
            in each head: those of the largest q·k, unrotated.
        state: N, numbers of a state space's state for each channel.
    """

    kind: str = "attention"
    n_heads: int = 2
    n_kv_heads: int | None = None
    latent: int | None = None
    window: int | None = None
    sinks: int = 0
    global_every: int | None = None
    memory_k: int = 0
    state: int = 16

    def __post_init__(self) -> None:
        if self.kind not in ("attention", "ssm"):
            raise ValueError(f"a layer is attention or ssm, not {self.kind!r}")
        if self.n_heads % self.shared:
            raise ValueError(
                f"{self.n_heads} heads can't share {self.shared} heads of "
                "keys and values evenly"
            )
        if self.latent and self.n_kv_heads:
            raise ValueError("a latent stands for all heads: no n_kv_heads")
        if self.window is None and (
            self.sinks or self.global_every or self.memory_k
        ):
            raise ValueError(
                "sinks, global tokens and a memory are for what a window "
                "leaves out: give the layer a window"
            )

    @property
    def shared(self) -> int:
        """How many heads of keys and values there are."""
        return self.n_kv_heads or self.n_heads


@dataclass(frozen=True)
class Rope:
    """How positions turn queries and keys.

    Attributes:
        kind: "none" for no positions, "default", "linear" (PI) or "yarn".
        base: what sets the slowest hand.
        scale: how many times as long the window becomes.
        window: the length of the texts that a model was trained on.
    """

    kind: str = "default"
    base: float = 10_000.0
    scale: float = 1.0
    window: int = 128

    def frequencies(self, width: int) -> tuple[Tensor, float]:
        """Return radians a token for width / 2 pairs, and the factor."""
        if self.kind == "none":
            return torch.zeros(width // 2), 1.0
        if self.kind == "default":  # without importing transformers
            pairs = torch.arange(0, width, 2)
            return self.base ** (-pairs / width), 1.0
        return transformers_frequencies(
            self.kind, width, self.base, self.window, self.scale
        )


@dataclass(frozen=True)
class Design:
    """A whole model.

    Designs that differ only in windows, sinks, global tokens, memories and
    ``rope`` have weights of the same names and shapes: each can load what
    another has learnt (``redesigned``).

    Attributes:
        layers: from the first to the last.
        d_model: C, the width of the stream.
        rope: how positions turn queries and keys, in all layers.
        parameters: what all the model's numbers add up to, to within some
            hundreds; None for MLPs twice as wide as the stream.
    """

    layers: tuple[Layer, ...]
    d_model: int = 64
    rope: Rope = field(default_factory=Rope)
    parameters: int | None = None


def visible(layer: Layer, n_tokens: int) -> Tensor:
    """Say who may attend to whom, before anything is retrieved.

    Returns:
        Boolean, shape (T, T), True = may attend.
    """
    place = torch.arange(n_tokens)
    far = place[:, None] - place  # from the query back to the key
    if layer.window is None:
        return far >= 0
    near = far < layer.window
    near |= place < layer.sinks
    if layer.global_every is not None:
        near |= place % layer.global_every == 0
    return near & (far >= 0)


def retrieved(scores: Tensor, mask: Tensor, k: int) -> Tensor:
    """Say which k of the keys that a mask hides each query finds.

    Args:
        scores: shape (B, H, T, T).
        mask: what a query sees anyway, shape (T, T).
        k: how many to find among the earlier ones that it doesn't see.

    Returns:
        Boolean, shape (B, H, T, T).
    """
    return largest(scores, ~mask & torch.ones_like(mask).tril(), k)


def largest(scores: Tensor, among: Tensor, k: int) -> Tensor:
    """Mark the k largest scores of each row, or all if there are fewer.

    Args:
        scores: shape (..., T).
        among: which of them to choose from, boolean, of a shape that
            broadcasts to that of the scores.
        k: how many to mark.

    Returns:
        Boolean, of the scores' shape.
    """
    ranked = scores.masked_fill(~among, -math.inf)
    first = ranked.topk(min(k, scores.shape[-1]), -1).indices
    marked = torch.zeros_like(ranked, dtype=torch.bool)
    return marked.scatter(-1, first, True) & among


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the last channels of x, as many as the tables are for.

    Args:
        x: shape (..., T, D).
        cos: shape (T, R / 2), R ≤ D.
        sin: as ``cos``.
    """
    still, a, b = x.split(
        [x.shape[-1] - 2 * cos.shape[-1], cos.shape[-1], cos.shape[-1]], -1
    )
    return torch.cat([still, a * cos - b * sin, b * cos + a * sin], -1)


class ShortConvolution(nn.Module):
    """Mix each channel with its own last four tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.empty(TAPS, width))
        nn.init.uniform_(self.taps, -(TAPS**-0.5), TAPS**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Take and return shape (B, T, width)."""
        n_tokens = x.shape[1]
        x = F.pad(x, (0, 0, TAPS - 1, 0))  # nothing before the first token
        return sum(
            tap * x[:, shift : shift + n_tokens]
            for shift, tap in enumerate(self.taps)
        )


class Attention(nn.Module):
    """Causal attention with all the options of a layer.

    What the projection makes goes through a short convolution, so that a
    value's key can say what stood before it; models this small don't learn
    to look anything up without (Arora et al. 2023).
    """

    def __init__(self, layer: Layer, d_model: int, rope: Rope) -> None:
        super().__init__()
        self.layer = layer
        self.width = d_model // layer.n_heads  # D
        self.turned = self.width  # channels of a key that know the position
        kept = [layer.shared * self.width] * 2  # keys and values
        query = self.width
        if layer.latent:
            self.turned = self.width // 2
            query += self.turned
            kept = [layer.latent, self.turned]
            self.unfold = nn.Linear(layer.latent, 2 * d_model, bias=False)
        self.sizes = [layer.n_heads * query, *kept]
        self.project = nn.Linear(d_model, sum(self.sizes), bias=False)
        self.conv = ShortConvolution(sum(self.sizes))
        self.out = nn.Linear(d_model, d_model, bias=False)
        inv_freq, self.factor = rope.frequencies(self.turned)
        self.register_buffer("inv_freq", inv_freq, persistent=False)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make queries, keys and values of all heads, (B, H, T, …)."""
        n_heads, shared = self.layer.n_heads, self.layer.shared
        parts = self.conv(self.project(x)).split(self.sizes, -1)

        def apart(part: Tensor, number: int) -> Tensor:
            return part.unflatten(-1, (number, -1)).transpose(1, 2)

        q = apart(parts[0], n_heads)
        if not self.layer.latent:
            k, v = apart(parts[1], shared), apart(parts[2], shared)
            times = n_heads // shared
            return (
                q,
                k.repeat_interleave(times, 1),
                v.repeat_interleave(times, 1),
            )
        k, v = self.unfold(parts[1]).chunk(2, -1)
        place = apart(parts[2], 1).expand(-1, n_heads, -1, -1)
        return q, torch.cat([apart(k, n_heads), place], -1), apart(v, n_heads)

    def forward(
        self, x: Tensor, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Take and return (B, T, C); weights (B, H, T, T) where asked."""
        n_tokens = x.shape[1]
        q, k, v = self.heads(x)
        angles = torch.arange(n_tokens)[:, None] * self.inv_freq
        tables = self.factor * angles.cos(), self.factor * angles.sin()
        turned_q, turned_k = rotate(q, *tables), rotate(k, *tables)
        mask = visible(self.layer, n_tokens)
        if not (weights or self.layer.memory_k):
            y = F.scaled_dot_product_attention(
                turned_q, turned_k, v, attn_mask=mask
            )
            return self.out(y.transpose(1, 2).flatten(-2)), None
        scores = turned_q @ turned_k.mT
        if self.layer.memory_k:  # what is retrieved has no position
            plain = q @ k.mT
            found = retrieved(plain.detach(), mask, self.layer.memory_k)
            scores = torch.where(found, plain, scores)
            mask = mask | found
        scores = torch.where(mask, scores, -math.inf) / q.shape[-1] ** 0.5
        shares = scores.softmax(-1)
        return self.out((shares @ v).transpose(1, 2).flatten(-2)), shares


class StateSpace(nn.Module):
    """Mamba-2's mixer in small: one decay a head, N numbers a channel.

    Source: Dao and Gu 2024, section 7.
    """

    def __init__(self, layer: Layer, d_model: int) -> None:
        super().__init__()
        self.n_heads = layer.n_heads
        self.sizes = [d_model, layer.state, layer.state]
        self.project = nn.Linear(d_model, sum(self.sizes), bias=False)
        self.conv = ShortConvolution(sum(self.sizes))
        self.gate = nn.Linear(d_model, d_model, bias=False)
        self.step = nn.Linear(d_model, layer.n_heads)
        nn.init.constant_(self.step.bias, -1.0)
        slow, fast = math.log(0.01), math.log(0.3)  # rates a head starts at
        rates = torch.linspace(slow, fast, layer.n_heads)
        self.log_rate = nn.Parameter(rates)
        self.skip = nn.Parameter(torch.ones(d_model))
        self.norm = nn.RMSNorm(d_model)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Tensor, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Take and return shape (B, T, C); there are no weights."""
        u, b, c = F.silu(self.conv(self.project(x))).split(self.sizes, -1)
        step = F.softplus(self.step(x))  # (B, T, H)
        heads = u.unflatten(-1, (self.n_heads, -1))
        y = state_space(
            heads * step[..., None], -self.log_rate.exp() * step, b, c
        )
        y = (y.flatten(-2) + self.skip * u) * F.silu(self.gate(x))
        return self.out(self.norm(y)), None


def state_space(
    x: Tensor, log_keep: Tensor, b: Tensor, c: Tensor, chunk: int = 32
) -> Tensor:
    """Run h ← keep · h + x bᵀ, y = h c, all chunks of a text side by side.

    Args:
        x: inputs, shape (B, T, H, P).
        log_keep: logarithm of what a head keeps, shape (B, T, H).
        b: how an input enters the state, shape (B, T, N).
        c: how the state is read, shape (B, T, N).
        chunk: L, tokens that are treated as by attention.

    Returns:
        y, shape (B, T, H, P).

    Source: Dao and Gu 2024, listing 1.
    """
    n_tokens = x.shape[1]
    chunk = min(chunk, n_tokens)
    rest = -n_tokens % chunk  # tokens of nothing, to fill the last chunk
    x, log_keep, b, c = (
        F.pad(part, (0, 0) * (part.ndim - 2) + (0, rest)).unflatten(
            1, (-1, chunk)
        )
        for part in (x, log_keep, b, c)
    )  # (B, K, L, ...) each
    x = x.transpose(2, 3)  # (B, K, H, L, P)
    since = log_keep.cumsum(2).mT  # (B, K, H, L), from the chunk's start
    past = torch.ones(chunk, chunk, dtype=torch.bool).tril()
    decay = since[..., None] - since[..., None, :]
    decay = decay.masked_fill(~past, -math.inf).exp()  # (B, K, H, L, L)
    y = (decay * (c @ b.mT)[:, :, None]) @ x
    written = (decay[..., -1, :, None] * x).mT @ b[:, :, None]
    whole = since[..., -1, None, None].exp()  # what a chunk leaves
    state, states = torch.zeros_like(written[:, 0]), []
    for chunk_leaves, chunk_writes in zip(
        whole.unbind(1), written.unbind(1), strict=True
    ):
        states.append(state)  # before the chunk
        state = chunk_leaves * state + chunk_writes
    before = torch.stack(states, 1)  # (B, K, H, P, N)
    y = y + since.exp()[..., None] * (c[:, :, None] @ before.mT)
    return y.transpose(2, 3).flatten(1, 2)[:, :n_tokens]


class Model(nn.Module):
    """A pre-LN language model of the layers that a design describes."""

    def __init__(self, design: Design, vocab_size: int, hidden: int) -> None:
        super().__init__()
        width = design.d_model
        self.design = design
        self.wte = nn.Embedding(vocab_size, width)
        nn.init.normal_(self.wte.weight, std=0.02)
        self.h = nn.ModuleList(
            nn.ModuleDict(
                {
                    "ln_1": nn.LayerNorm(width),
                    "mixer": Attention(layer, width, design.rope)
                    if layer.kind == "attention"
                    else StateSpace(layer, width),
                    "ln_2": nn.LayerNorm(width),
                    "mlp": nn.Sequential(
                        nn.Linear(width, hidden),
                        nn.GELU(),
                        nn.Linear(hidden, width),
                    ),
                }
            )
            for layer in design.layers
        )
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocab_size, bias=False)

    def forward(
        self, ids: Tensor, weights: bool = False
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Predict the token that follows each token.

        Args:
            ids: token numbers, shape (B, T), of any length T.
            weights: whether to return the weights of attention, too.

        Returns:
            The logits, shape (B, T, vocab_size). And for each layer the
            weights, shape (B, H, T, T), where they are asked for; None for a
            state space.
        """
        x, seen = self.stream(ids, weights)
        return self.lm_head(x), seen

    def stream(
        self, ids: Tensor, weights: bool = False
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return what the logits are made from, (B, T, C), and the weights.

        Who needs the logits of a few tokens alone saves the others' so.
        """
        x = self.wte(ids)
        seen = []
        for layer in self.h:
            mixed, shares = layer["mixer"](layer["ln_1"](x), weights)
            x = x + mixed
            x = x + layer["mlp"](layer["ln_2"](x))
            seen.append(shares if weights else None)
        return self.ln_f(x), seen


def build(design: Design, vocab_size: int, seed: int = 0) -> Model:
    """Make a model of a design, with fresh weights.

    Raises:
        ValueError: if the heads don't divide the width, or the mixers alone
            have more parameters than the design allows.
    """
    for layer in design.layers:
        if design.d_model % (4 * layer.n_heads):  # MLA halves a head's pairs
            raise ValueError(
                f"{layer.n_heads} heads don't divide a width of "
                f"{design.d_model} into multiples of four"
            )
    hidden = 2 * design.d_model
    if design.parameters is not None:
        one, two = (
            count_parameters(Model(design, vocab_size, n)) for n in (1, 2)
        )
        hidden = 1 + round((design.parameters - one) / (two - one))
        if hidden < 1:
            raise ValueError(
                f"{design.parameters} parameters are too few: the layers "
                f"have {one} without an MLP"
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Model(design, vocab_size, hidden)


def redesigned(
    model: Model,
    layers: Sequence[Layer] | None = None,
    rope: Rope | None = None,
) -> Model:
    """Return a copy of a model that keeps its weights and attends otherwise.

    Raises:
        RuntimeError: if the new layers have weights of other shapes.
    """
    design = replace(
        model.design,
        layers=tuple(layers or model.design.layers),
        rope=rope or model.design.rope,
    )
    other = Model(
        design, model.wte.num_embeddings, model.h[0]["mlp"][0].out_features
    )
    other.load_state_dict(model.state_dict())
    return other
