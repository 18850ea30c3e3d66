"""Train short, read long: three ways to know positions, several seeds.

Records contextlab/recorded/cliff.json, which chapter 06 shows. Run it from
the root of the repository: python benchmarks/cliff.py
"""

import sys
import time
from functools import partial
from itertools import pairwise

import torch

from contextlab import recorded
from contextlab.reading import LEARNT, VOCABULARY, excerpts, loss_by_position
from contextlab.rotary import RotaryModel
from contextlab.training import train
from solutions.rope import alibi_bias, inverse_frequencies

SEEDS = (0, 1, 2)
WINDOW, LONGEST = 64, 512
HEADS, WIDTH = 2, 32
STEPS, BATCH, RATE = 500, 16, 6e-3
EDGES = (0, 4, 8, 16, 32, 64, 80, 96, 128, 192, 256, 384, 512)


def no_turn() -> torch.Tensor:
    """Return hands that stand still."""
    return torch.zeros(WIDTH // 2)


def square_alibi(n_tokens: int) -> torch.Tensor:
    """Return the bias of all queries on all keys."""
    return alibi_bias(HEADS, n_tokens, n_tokens)


SCHEMES = {
    "rotary": lambda: {"inv_freq": inverse_frequencies(WIDTH)},
    "ALiBi": lambda: {"inv_freq": no_turn(), "bias": square_alibi},
    "none": lambda: {"inv_freq": no_turn()},
}


def run(scheme: str, seed: int) -> dict[str, object]:
    """Train one model at the window, and measure it far past the window."""
    torch.manual_seed(seed)
    model = RotaryModel(
        **SCHEMES[scheme](), n_heads=HEADS, vocab_size=VOCABULARY
    )
    generator = torch.Generator().manual_seed(seed)
    draw = partial(excerpts, LEARNT, BATCH, WINDOW, generator)
    start = time.process_time()
    losses = train(model, draw, steps=STEPS, lr=RATE)
    seconds = time.process_time() - start
    measured = loss_by_position(model, LONGEST)
    return {
        "scheme": scheme,
        "seed": seed,
        "seconds": round(seconds, 1),
        "training": [round(x, 3) for x in losses[:: STEPS // 30]],
        "edges": list(EDGES),
        "losses": [
            round(measured[a:b].mean().item(), 4) for a, b in pairwise(EDGES)
        ],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = []
    for scheme in SCHEMES:
        for seed in SEEDS:
            rows.append(run(scheme, seed))
            print(rows[-1], file=sys.stderr)
    recorded.write("cliff", "benchmarks/cliff.py", rows)
