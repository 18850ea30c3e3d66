"""Train a small model of every mechanism, and let each look for needles.

Run it from the root of the repository: python benchmarks/needle_grid.py
It takes about ten minutes of one core. A run that was stopped goes on where
it was; --anew forgets what is recorded.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from contextlab import recorded
from contextlab.mechanisms import (
    TAPS,
    Design,
    Layer,
    Model,
    Rope,
    build,
    redesigned,
    visible,
)
from contextlab.model import count_parameters
from contextlab.needles import (
    APART,
    VOCABULARY,
    haystacks,
    lesson,
    school,
)
from contextlab.tasks import UNKNOWN
from contextlab.training import Batch, descend, straight
from solutions.needle import make_haystack, multi_needle_recall, needle_grid

WINDOW, LENGTH = 32, 128  # of the windows, of the texts for training
SIZE = 110_000  # parameters of every model, to within some hundreds
SEEDS = 3
LENGTHS = (64, 128, 256, 512)
DEPTHS = tuple(n / 8 for n in range(9))
TRIALS = 32
COUNTS = (1, 2, 4, 8, 16)  # needles asked for in one text
TUNING, TUNING_RATE = 60, 1e-3  # steps on long texts that YaRN gets

FULL = Layer(n_heads=4)
NEAR = Layer(n_heads=4, window=WINDOW)
STATE = Layer("ssm", n_heads=4, state=64)
NOWHERE = Rope("none")
YARN = Rope("yarn", scale=LENGTHS[-1] / LENGTH, window=LENGTH)
DESIGNS = {
    "full attention": Design((FULL,) * 2),
    "state space": Design((STATE,) * 2, rope=NOWHERE),
    "GQA, 4 heads share 2": Design((replace(FULL, n_kv_heads=2),) * 2),
    "MLA, latent of 24": Design((replace(FULL, latent=24),) * 2),
    "window of 32": Design((NEAR,) * 2),
    "window and sinks": Design((replace(NEAR, sinks=4),) * 2),
    "window and globals": Design((replace(NEAR, global_every=16),) * 2),
    "window and memory": Design((replace(NEAR, memory_k=4),) * 2),
    # In the other order, it learns more slowly.
    "hybrid": Design((FULL, STATE), rope=NOWHERE),
}
# Steps, texts of LENGTH tokens a step, learning rate. A state space alone had
# hardly begun after as little training as is enough for attention: it gets
# three times as many texts, and a higher rate (as in benchmarks/recall.py).
TRAINING = {"attention": (320, 8, 5e-3), "ssm": (480, 16, 1e-2)}


def learn(
    model: Model, steps: int, lr: float, lessons: Iterator[Batch]
) -> list[float]:
    """Train on fresh texts at every step; return the losses."""

    def losses() -> Iterator[Tensor]:
        for ids, targets in lessons:
            known = targets != UNKNOWN
            logits = model.lm_head(model.stream(ids)[0][known])
            yield F.cross_entropy(logits, targets[known])

    return list(
        descend(
            model,
            losses(),
            steps=steps,
            lr=lr,
            warmup=min(50, steps // 2),
            fall=straight,
            fused=True,
        )
    )


def long_texts(generator: torch.Generator) -> Iterator[Batch]:
    """Draw texts of the longest length, for ever."""
    while True:
        yield lesson(4, LENGTHS[-1], LENGTHS[-1] // APART, generator)


def bytes_kept(design: Design, n: int) -> int:
    """Count what a model keeps of n tokens, at two bytes a number."""
    numbers = 0
    for layer in design.layers:
        width = design.d_model // layer.n_heads
        if layer.kind == "ssm":
            mixed = design.d_model + 2 * layer.state
            numbers += design.d_model * layer.state + (TAPS - 1) * mixed
            continue
        entry = 2 * layer.shared * width
        if layer.latent:
            entry = layer.latent + width // 2
        kept = n if layer.memory_k else int(visible(layer, n)[-1].sum())
        numbers += kept * entry
    return 2 * numbers


def flops(model: Model, n: int) -> int:
    """Count the operations for one more token after n − 1 others."""
    design, total = model.design, 0
    for name, parameter in model.named_parameters():
        if name != "wte.weight":  # looked up, not multiplied
            total += 2 * parameter.numel()
    for layer in design.layers:
        if layer.kind == "ssm":  # decay, write and read the state
            total += 5 * design.d_model * layer.state
            continue
        width = design.d_model // layer.n_heads
        key = width + (width // 2 if layer.latent else 0)
        seen = int(visible(layer, n)[-1].sum()) + layer.memory_k
        searched = n - seen if layer.memory_k else 0
        each = 2 * (key + width) * seen + 2 * key * searched
        total += layer.n_heads * each
    return total


def measure(model: Model, seed: int) -> dict:
    """Measure recall by length and depth, and of several needles at once."""
    generator = torch.Generator().manual_seed(1_000 + seed)

    @torch.no_grad()
    def logits(ids: Tensor) -> Tensor:
        return torch.cat([model(part)[0] for part in ids.split(16)])

    grid = needle_grid(
        logits, haystacks(make_haystack), LENGTHS, DEPTHS, TRIALS, generator
    )
    many = []
    for count in COUNTS:
        ids, targets = lesson(
            4 * TRIALS, LENGTH, count, generator, at_the_end=True
        )
        many.append(multi_needle_recall(logits(ids), targets))
    return {
        "grid": [[round(x, 4) for x in row] for row in grid.tolist()],
        "found": [round(found, 4) for found, _ in many],
        "complete": [round(complete, 4) for _, complete in many],
    }


def run(name: str, seed: int) -> list[dict]:
    """Train one mechanism from one seed, and measure it.

    Full attention is measured again, stretched by YaRN: as it is, and after
    a little training on long texts.
    """
    design = replace(DESIGNS[name], parameters=SIZE)
    model = build(design, VOCABULARY, seed)
    steps, batch, lr = TRAINING[design.layers[0].kind]
    generator = torch.Generator().manual_seed(seed)  # the same for all
    lessons = school(steps, batch, generator)
    rows = [row(name, model, seed, steps, lr, lessons)]
    if name == "full attention":
        for name, steps in (("YaRN", 0), ("YaRN, then tuned", TUNING)):
            other = redesigned(model, rope=YARN)
            lessons = long_texts(generator)
            rows.append(row(name, other, seed, steps, TUNING_RATE, lessons))
    return rows


def row(
    name: str,
    model: Model,
    seed: int,
    steps: int,
    lr: float,
    lessons: Iterator[Batch],
) -> dict:
    """Train a model, measure it, and say what it costs."""
    start = time.process_time()
    losses = learn(model, steps, lr, lessons) if steps else []
    trained = time.process_time()
    return {
        "mechanism": name,
        "seed": seed,
        "parameters": count_parameters(model),
        "steps": steps,
        "lr": lr,
        "losses": [round(x, 4) for x in losses[::20]],
        "lengths": LENGTHS,
        "depths": DEPTHS,
        "trials": TRIALS,
        "counts": COUNTS,
        "bytes": [bytes_kept(model.design, n) for n in LENGTHS],
        "flops": [flops(model, n) for n in LENGTHS],
        **measure(model, seed),
        "train_seconds": round(trained - start, 1),
        "measure_seconds": round(time.process_time() - trained, 1),
    }


def plan() -> list[tuple[str, int]]:
    """Return what is to be run: every mechanism once, then again."""
    return [(name, seed) for seed in range(SEEDS) for name in DESIGNS]


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = []
    if (
        recorded.HERE / "needle_grid.json"
    ).exists() and "--anew" not in sys.argv:
        rows = recorded.read("needle_grid")["rows"]
    done = {(row["mechanism"], row["seed"]) for row in rows}
    for settings in tqdm([one for one in plan() if one not in done]):
        rows += run(*settings)
        recorded.write("needle_grid", "benchmarks/needle_grid.py", rows)
