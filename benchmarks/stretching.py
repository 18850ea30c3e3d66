"""Train at up to 64 tokens, stretch the window fourfold, and read up to 512.

Records contextlab/recorded/stretching.json, which chapter 07 shows, and the
weights of the first seed: as trained at the window (stretching_base), and
after light fine-tuning with YaRN (stretching_yarn).

Two other ways to train were tried before and are not recorded. With texts of
64 tokens alone, for 1,000 steps, zero-shot YaRN found 91 % of the passkeys at
256 tokens in a model of seed 0, but seed 1 hadn't learnt to answer at all.
With lengths drawn throughout, for 1,500 steps, seed 0 found 15 %. So a
zero-shot recall depends on the training as much as on the method.

Run it from the root of the repository: python benchmarks/stretching.py
"""

import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from statistics import mean

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from contextlab import recorded
from contextlab.rotary import (
    ASK,
    RotaryModel,
    measure,
    passkey_texts,
    stretched,
)
from contextlab.tasks import UNKNOWN
from contextlab.training import descend
from solutions.rope import inverse_frequencies
from solutions.yarn import (
    dynamic_ntk_base,
    interpolated_frequencies,
    ntk_frequencies,
    yarn_attention_factor,
    yarn_frequencies,
)

SEEDS = (0, 1, 2)
WIDTH, BASE, WINDOW, SCALE = 32, 10_000.0, 64, 4
LENGTHS = (64, 128, 256, 512)  # 1, 2, 4 and 8 windows
EDGES = (2, 4, 8, 16, 32, 64, 128, 256, 512)  # of distances
LONG = SCALE * WINDOW
TRAINING = {"steps": 1_200, "lr": 5e-3, "batch": 32, "longest": WINDOW}
TUNING = {"steps": 60, "lr": 1e-3, "batch": 8, "longest": LONG}
SHORTEST, GROWING = 8, 600  # steps of training with texts of drawn lengths
N_TEXTS = 192

Way = Callable[[int], tuple[Tensor, float]]  # tokens -> frequencies, factor


def dynamic(scale: float) -> Way:
    """Return dynamic NTK: other frequencies for every length."""

    def at(n_tokens: int) -> tuple[Tensor, float]:
        base = dynamic_ntk_base(WIDTH, BASE, scale, WINDOW, n_tokens)
        return inverse_frequencies(WIDTH, base), 1.0

    return at


def fixed(inv_freq: Tensor, factor: float = 1.0) -> Way:
    """Return the same frequencies for every length."""
    return lambda _: (inv_freq, factor)


NONE = inverse_frequencies(WIDTH, BASE)
YARN = yarn_frequencies(WIDTH, BASE, WINDOW, SCALE)
WAYS = {
    "none": fixed(NONE),
    "PI": fixed(interpolated_frequencies(NONE, SCALE)),
    "NTK": fixed(ntk_frequencies(WIDTH, BASE, SCALE)),
    "dynamic NTK, s = 4": dynamic(SCALE),
    "YaRN": fixed(YARN, yarn_attention_factor(SCALE)),
    "YaRN, factor 1": fixed(YARN),
}
TUNED = ("none", "PI", "NTK", "YaRN", "YaRN, factor 1")


def train(
    model: RotaryModel,
    generator: torch.Generator,
    *,
    steps: int,
    lr: float,
    batch: int,
    longest: int,
    growing: int = 0,
) -> list[float]:
    """Train as ``contextlab.training`` does, but questions count for half.

    There are about fifteen letters to a question: alone in the mean of all,
    the questions are learnt many times more slowly. In the first steps, as
    many as ``growing``, each batch draws its length, from SHORTEST on: with
    long texts alone, some seeds didn't learn to answer in 1,000 steps.
    """

    def losses() -> Iterator[Tensor]:
        for step in count():
            shortest = SHORTEST if step < growing else longest
            drawn = torch.randint(
                shortest, longest + 1, (), generator=generator
            )
            ids, targets = passkey_texts(
                batch, int(drawn), generator=generator
            )
            logits, _ = model(ids)
            asked = ids == ASK
            spoken = (targets != UNKNOWN) & ~asked
            yield 0.5 * (
                F.cross_entropy(logits[asked], targets[asked])
                + F.cross_entropy(logits[spoken], targets[spoken])
            )

    warmup = min(50, steps // 4)
    return list(descend(model, losses(), steps=steps, lr=lr, warmup=warmup))


def read(model: RotaryModel, way: Way) -> dict[str, list]:
    """Measure a model at every length."""
    told: dict[str, list] = {"loss": [], "recall": [], "by_distance": []}
    for n_tokens in LENGTHS:
        reader = stretched(model, *way(n_tokens))
        seen = measure(reader, n_tokens, n_texts=N_TEXTS)
        bins = torch.bucketize(
            seen["distances"], torch.tensor(EDGES), right=True
        )
        told["loss"].append(round(seen["losses"].nanmean().item(), 4))
        told["recall"].append(round(seen["recall"].item(), 4))
        told["by_distance"].append(
            [
                round(seen["answered"][bins == b].double().mean().item(), 4)
                for b in range(1, len(EDGES))
                if EDGES[b - 1] < n_tokens - 1
            ]
        )
    return told


def curve(losses: list[float], every: int) -> list[float]:
    """Return the means of so many steps at a time."""
    return [
        round(mean(losses[i : i + every]), 4)
        for i in range(0, len(losses), every)
    ]


def run(seed: int) -> list[dict[str, object]]:
    """Train from one seed; measure and tune it in every way."""
    torch.manual_seed(seed)
    model = RotaryModel(NONE)
    nn.init.normal_(model.wte.weight, std=0.02)
    generator = torch.Generator().manual_seed(seed)
    start = time.process_time()
    losses = train(model, generator, growing=GROWING, **TRAINING)
    minutes = (time.process_time() - start) / 60
    trained = {"minutes": round(minutes, 2), "curve": curve(losses, 25)}
    if seed == SEEDS[0]:
        ship("base", model)
    rows = []
    for name, way in WAYS.items():
        row = {"seed": seed, "way": name, "tuned": False, **trained}
        rows.append(row | read(model, way))
        print({k: v for k, v in rows[-1].items() if k != "curve"})
    for name in TUNED:
        tuned = stretched(model, *WAYS[name](LONG))
        start = time.process_time()
        losses = train(tuned, generator, **TUNING)
        minutes = (time.process_time() - start) / 60
        row = {"seed": seed, "way": name, "tuned": True}
        row |= {"minutes": round(minutes, 2), "curve": curve(losses, 5)}
        rows.append(row | read(tuned, WAYS[name]))
        print({k: v for k, v in rows[-1].items() if k != "curve"})
        if seed == SEEDS[0] and name == "YaRN":
            ship("yarn", tuned)
    return rows


def ship(name: str, model: RotaryModel) -> None:
    """Write the weights, for the chapter to read."""
    path = recorded.HERE / f"stretching_{name}.safetensors"
    save_file(model.state_dict(), path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = []
    for seed in SEEDS:
        rows += run(seed)
        print(f"seed {seed} done", file=sys.stderr)
        recorded.write("stretching", "benchmarks/stretching.py", rows)
