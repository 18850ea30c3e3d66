"""Train attention and state spaces of equal size on recall, and record it.

Run it from the root of the repository: python benchmarks/recall.py
It takes some ten minutes of one core.
"""

import math
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from contextlab import recorded
from contextlab.model import count_parameters
from contextlab.recall import key_value_pairs
from contextlab.tasks import UNKNOWN
from contextlab.training import descend, straight
from solutions.ssm import ssd_chunked

C, HEADS, LAYERS, WINDOW, N_KEYS = 64, 4, 2, 32, 32
PAIRS = (1, 2, 4, 8)  # every batch draws one of them
STEPS, BATCH, WARMUP = 1_000, 32, 50
SIZE = 71_000  # parameters of every model, to within a few hundred
STATES = (4, 16, 64)
RATES = (3e-3, 1e-2)
SEEDS = 3
ENOUGH = 0.995  # recall of 8 pairs at which training stops


class ShortConvolution(nn.Conv1d):
    """Mix each channel with its own last four tokens."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 4, groups=width, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Take and return shape (B, T, width)."""
        return super().forward(x.mT)[..., : x.shape[1]].mT


class Attention(nn.Module):
    """Causal attention, with a short convolution of queries, keys, values."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(C, 3 * C, bias=False)
        self.conv = ShortConvolution(3 * C)
        self.out = nn.Linear(C, C, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Take and return shape (B, T, C)."""
        qkv = self.conv(self.qkv(x)).unflatten(-1, (3 * HEADS, -1))
        q, k, v = qkv.transpose(1, 2).chunk(3, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(-2))


class StateSpace(nn.Module):
    """Mamba-2's mixer in small: one decay a head, N numbers a channel."""

    def __init__(self, n_state: int) -> None:
        super().__init__()
        self.sizes = [C, n_state, n_state]
        self.xbc = nn.Linear(C, sum(self.sizes), bias=False)
        self.gate = nn.Linear(C, C, bias=False)
        self.dt = nn.Linear(C, HEADS)
        nn.init.constant_(self.dt.bias, -1.0)
        self.conv = ShortConvolution(sum(self.sizes))
        slow, fast = math.log(0.01), math.log(0.3)  # rates a head starts at
        self.A_log = nn.Parameter(torch.linspace(slow, fast, HEADS))
        self.D = nn.Parameter(torch.ones(C))
        self.norm = nn.RMSNorm(C)
        self.out = nn.Linear(C, C, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Take and return shape (B, T, C)."""
        u, b, c = F.silu(self.conv(self.xbc(x))).split(self.sizes, -1)
        dt = F.softplus(self.dt(x))  # (B, T, H)
        heads = u.unflatten(-1, (HEADS, -1)) * dt[..., None]
        y, _ = ssd_chunked(heads, -self.A_log.exp() * dt, b, c, WINDOW)
        y = (y.flatten(-2) + self.D * u) * F.silu(self.gate(x))
        return self.out(self.norm(y))


class Model(nn.Module):
    """Two layers of a mixer and an MLP, without any position."""

    def __init__(self, n_state: int | None, hidden: int) -> None:
        super().__init__()
        self.wte = nn.Embedding(2 * N_KEYS + 1, C)
        nn.init.normal_(self.wte.weight, std=0.02)

        def branches() -> nn.ModuleList:
            mixer = StateSpace(n_state) if n_state else Attention()
            mlp = nn.Sequential(
                nn.Linear(C, hidden), nn.GELU(), nn.Linear(hidden, C)
            )
            return nn.ModuleList(
                nn.Sequential(nn.LayerNorm(C), branch)
                for branch in (mixer, mlp)
            )

        self.branches = nn.ModuleList(
            branch for _ in range(LAYERS) for branch in branches()
        )
        self.ln_f = nn.LayerNorm(C)
        self.lm_head = nn.Linear(C, 2 * N_KEYS + 1, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Predict the token after each: (B, T) to (B, T, vocabulary)."""
        x = self.wte(ids)
        for branch in self.branches:
            x = x + branch(x)
        return self.lm_head(self.ln_f(x))


def draw_texts(
    batch: int, n_pairs: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw texts of WINDOW tokens, and what is asked for in them."""
    return key_value_pairs(
        batch, n_pairs, generator=generator, window=WINDOW, n_keys=N_KEYS
    )


def new_model(n_state: int | None) -> Model:
    """Make a model of SIZE parameters: the MLP takes what the mixer leaves."""
    one, two = (count_parameters(Model(n_state, n)) for n in (1, 2))
    return Model(n_state, 1 + round((SIZE - one) / (two - one)))


def train(model: Model, lr: float, generator: torch.Generator) -> list:
    """Train until 8 pairs are recalled, or for STEPS; return the curve."""

    def losses() -> Iterator[Tensor]:
        while True:
            drawn = int(torch.randint(len(PAIRS), (), generator=generator))
            ids, targets = draw_texts(BATCH, PAIRS[drawn], generator)
            asked = targets != UNKNOWN
            yield F.cross_entropy(model(ids)[asked], targets[asked])

    descent = descend(
        model,
        losses(),
        steps=STEPS,
        lr=lr,
        warmup=WARMUP,
        fall=straight,
        fused=True,
    )
    curve = []
    for step, loss in enumerate(descent, 1):
        if step % 100 == 0:
            most = recall(model, PAIRS[-1], 64)
            curve.append([step, round(loss, 4), round(most, 4)])
            if most > ENOUGH:
                break
    return curve


@torch.no_grad()
def recall(model: Model, n_pairs: int, batch: int = 512) -> float:
    """Measure the share of keys that get their own value, on fresh texts."""
    generator = torch.Generator().manual_seed(1_000 + n_pairs)
    ids, targets = draw_texts(batch, n_pairs, generator)
    asked = targets != UNKNOWN
    right = model(ids)[asked].argmax(-1) == targets[asked]
    return right.double().mean().item()


def run(n_state: int | None, lr: float, seed: int) -> dict:
    """Train one model and measure its recall at every number of pairs."""
    torch.manual_seed(seed)
    model = new_model(n_state)
    start = time.process_time()
    curve = train(model, lr, torch.Generator().manual_seed(seed))
    return {
        "model": f"state {n_state}" if n_state else "attention",
        "n_state": n_state,
        "lr": lr,
        "seed": seed,
        "parameters": count_parameters(model),
        "steps": curve[-1][0],
        "seconds": round(time.process_time() - start, 1),
        "recall": {str(n): round(recall(model, n), 4) for n in PAIRS},
        "curve": curve,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    plan = [
        (n_state, lr, seed)
        for seed in range(SEEDS)
        for lr in RATES
        for n_state in (None, *STATES)
    ]
    rows = []
    for settings in tqdm(plan):
        rows.append(run(*settings))
        tqdm.write(str({k: v for k, v in rows[-1].items() if k != "curve"}))
        recorded.write("recall", "benchmarks/recall.py", rows)
