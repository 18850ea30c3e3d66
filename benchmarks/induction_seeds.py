"""Train chapter 03's model from several seeds and record what its heads do.

Run it from the root of the repository: python benchmarks/induction_seeds.py
"""

import time
from copy import deepcopy
from statistics import mean

import torch
from tqdm import trange

from contextlab import recorded
from contextlab.model import LanguageModel, accuracy
from contextlab.tasks import repeated_tokens
from contextlab.training import train
from solutions.multihead import (
    TransformerBlock,
    induction_score,
    previous_token_score,
)

SIZES = {"window": 32, "vocab_size": 32}
SEEDS = 3
UNSEEN = 16  # a period that is never trained


def run(seed: int) -> dict[str, float]:
    """Train from one seed, as the chapter does, and measure."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = LanguageModel(
        TransformerBlock, n_layers=2, d_model=64, n_heads=4, **SIZES
    )

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        return repeated_tokens(
            32, periods=range(4, 16), generator=generator, **SIZES
        )

    start = time.process_time()
    losses = train(model, draw, steps=600, lr=1e-2)
    seconds = time.process_time() - start
    test = repeated_tokens(
        256,
        periods=[UNSEEN],
        anywhere=False,
        generator=torch.Generator().manual_seed(1),
        **SIZES,
    )
    quiet = deepcopy(model)
    with torch.no_grad():
        first, second = model(test[0])[1]
        quiet.h[0].attn.c_proj.weight.zero_()
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "right": accuracy(model, *test),
        "falls_at": falls_at(losses),
        "previous": previous_token_score(first).mean(0).tolist(),
        "induction": induction_score(second, UNSEEN).mean(0).tolist(),
        "right_without_layer_1": accuracy(quiet, *test),
    }


def falls_at(losses: list[float]) -> int | None:
    """Return the step at which the mean of the last 20 is first below 0.5."""
    steps = range(20, len(losses) + 1)
    return next((n for n in steps if mean(losses[n - 20 : n]) < 0.5), None)


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = [run(seed) for seed in trange(SEEDS)]
    print(
        recorded.write(
            "induction_seeds", "benchmarks/induction_seeds.py", rows
        )
    )
