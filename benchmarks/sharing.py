"""Train one small model with its keys and values shared in several ways.

The task is chapter 03's: find what followed a token the last time, here by a
single search. Nothing differs but how the attention makes, and keeps, its keys
and values. The task needs no positions, so nothing is rotated but MLA's RoPE
key, which is kept, and counted, all the same.

Run it from the root of the repository: python benchmarks/sharing.py
"""

import time
from functools import partial
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from contextlab import recorded
from contextlab.model import accuracy, count_parameters
from contextlab.sharing import SIZES, WEIGHTS, Recaller, SharedAttention
from contextlab.tasks import repeated_tokens
from contextlab.training import train
from solutions.mla import MultiHeadLatentAttention, grouped_query_attention

WIDTH = 4  # of a head of Recaller
STEPS, LR, BATCH, SEEDS = 400, 5e-3, 16, 3
BYTES_PER_NUMBER = 2


def latent_attention(
    d_model: int, n_heads: int, *, kv_latent: int, rope: int
) -> nn.Module:
    """Return MLA with heads as wide as those of the others."""
    return MultiHeadLatentAttention(
        d_model,
        n_heads,
        q_latent=d_model,
        kv_latent=kv_latent,
        nope=WIDTH,
        rope=rope,
        value=WIDTH,
    )


def shared(n_shared: int) -> tuple[Any, int]:
    """Describe attention with so many heads of keys and values."""
    attention = partial(
        SharedAttention, n_shared=n_shared, attend=grouped_query_attention
    )
    return attention, 2 * n_shared * WIDTH


def latent(kv_latent: int, rope: int) -> tuple[Any, int]:
    """Describe MLA with these widths."""
    attention = partial(latent_attention, kv_latent=kv_latent, rope=rope)
    return attention, kv_latent + rope


WAYS = {  # the attention, and how many numbers it keeps a token and layer
    "MHA": shared(16),
    "GQA, 4": shared(4),
    "GQA, 2": shared(2),
    "MQA": shared(1),
    "MLA, 28 + 4": latent(28, 4),
    "MLA, 12 + 4": latent(12, 4),
    "MLA, 4 + 4": latent(4, 4),
}


def run(way: str, seed: int) -> tuple[Recaller, dict[str, Any]]:
    """Train from one seed and measure on texts that were never seen."""
    attention, numbers = WAYS[way]
    generator = torch.Generator().manual_seed(seed)
    model = Recaller(attention, seed)

    def draw(batch: int = BATCH) -> tuple[Tensor, Tensor]:
        return repeated_tokens(
            batch, periods=range(8, 32), generator=generator, **SIZES
        )

    start = time.process_time()
    losses = train(model, draw, steps=STEPS, lr=LR, report=STEPS)
    seconds = time.process_time() - start
    generator.manual_seed(1_000)
    test, answers = draw(256)
    with torch.no_grad():
        logits = model(test)[0].flatten(0, 1)
        loss = F.cross_entropy(logits, answers.flatten())
    return model, {
        "way": way,
        "seed": seed,
        "numbers": numbers,
        "bytes": numbers * BYTES_PER_NUMBER,
        "parameters": count_parameters(model),
        "seconds": round(seconds, 1),
        "loss": loss.item(),
        "right": accuracy(model, test, answers),
        "curve": [
            round(mean(losses[i : i + 50]), 4)
            for i in range(0, len(losses), 50)
        ],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = []
    for seed in range(SEEDS):
        for way in tqdm(WAYS, desc=f"seed {seed}"):
            model, row = run(way, seed)
            rows.append(row)
            if (way, seed) == ("MHA", 0):
                save_file(model.state_dict(), WEIGHTS)
        path = recorded.write("sharing", "benchmarks/sharing.py", rows)
    print(path)
