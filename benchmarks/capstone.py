"""Train chapter 15's models, and let designs take their exams.

Run it from the root of the repository: python benchmarks/capstone.py
It takes some four minutes of one core.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from contextlab import capstone, recorded
from contextlab.capstone import Design, Keep
from contextlab.facts import STRIDE, lesson
from contextlab.mechanisms import Model
from contextlab.model import count_parameters
from contextlab.tasks import UNKNOWN
from contextlab.training import descend
from solutions.capstone import design as reference
from solutions.capstone import importance, memory_mask

STEPS, BATCH, RATE = 500, 32, 5e-3
SEEDS = 3  # of the model with one KV head; the first is kept


def windows(*sizes: int, bits: int = 16) -> tuple[Keep, ...]:
    """Return layers that keep windows of these sizes and no more."""
    return tuple(Keep(size, bits=bits) for size in sizes)


def newest(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Score an entry by its place, which makes a wider window."""
    return torch.arange(k.shape[2]).float().expand(k.shape[:3])


DESIGNS = {
    "everything": Design(windows(256, 256, 256, 256), 4, "yarn"),
    "everything, positions as trained": Design(
        windows(256, 256, 256, 256), 4, "none"
    ),
    "windows of 2, 4 KV heads": Design(windows(2, 2, 2, 2), 4, "yarn"),
    "windows of 10, 1 KV head": Design(windows(10, 10, 10, 10), 1, "yarn"),
    "windows of 26, 1 KV head, 4 bits": Design(
        windows(26, 26, 26, 26, bits=4), 1, "yarn"
    ),
    "window of 94 in one layer, 4 bits": Design(
        windows(94, 4, 4, 4, bits=4), 1, "yarn"
    ),
    "newest 152 in one layer, 2 bits": Design(
        (Keep(4, 148, 16, 2), *windows(1, 1, 1, bits=2)), 1, "yarn", newest
    ),
}


def train(n_kv_heads: int, seed: int) -> tuple[Model, dict]:
    """Train on texts of 64 tokens, with full attention."""
    generator = torch.Generator().manual_seed(seed)
    model = capstone.fresh(n_kv_heads, seed)

    def losses() -> Iterator[Tensor]:
        while True:
            ids, targets = lesson(BATCH, capstone.TRAINED // STRIDE, generator)
            known = targets != UNKNOWN
            yield F.cross_entropy(model(ids)[0][known], targets[known])

    start = time.process_time()
    descent = descend(
        model,
        losses(),
        steps=STEPS,
        lr=RATE,
        fall=lambda step, steps: 1 - 0.95 * step / steps,
    )
    found = []
    for step, loss in enumerate(descent, 1):
        found.append(loss)
        if step % 100 == 0:
            print(f"{n_kv_heads} KV heads, step {step}: {loss:.4f}")
    return model.eval().requires_grad_(False), {
        "kv_heads": n_kv_heads,
        "seed": seed,
        "parameters": count_parameters(capstone.fresh(n_kv_heads)),
        "seconds": round(time.process_time() - start, 1),
        "losses": [round(x, 4) for x in found[::20]],
    }


def looked_into(model: Model, n_kv_heads: int) -> dict:
    """Cut each layer down to four tokens alone, and try the reference."""
    wide = [Keep(capstone.N_TOKENS)] * capstone.N_LAYERS
    cut = []
    for layer in range(capstone.N_LAYERS):
        layers = list(wide)
        layers[layer] = Keep(4)
        cut.append(Design(tuple(layers), n_kv_heads, "yarn"))
    room = (Keep(4, 64), *windows(4, 4, 4))
    tried = {
        "everything": Design(tuple(wide), n_kv_heads, "yarn"),
        "64 entries": Design(room, n_kv_heads, "yarn", importance),
    }

    def recall(design: Design) -> float:
        found = capstone.examine(design, memory_mask, 0, model=model)
        return round(found.recall, 4)

    return {name: recall(design) for name, design in tried.items()} | {
        "without a layer": [recall(design) for design in cut]
    }


def examined(name: str, design: Design, *, shown: bool = True) -> dict:
    """Let a design take all exams that everybody may see."""
    results = [
        asdict(capstone.examine(design, memory_mask, seed))
        for seed in capstone.SEEDS
    ]
    row = {"name": name, "results": results}
    if shown:
        kept = [asdict(keep) for keep in design.layers]
        row |= {"layers": kept, "n_kv_heads": design.n_kv_heads}
        row |= {"rope": design.rope}
    return row


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = []
    jobs = [(n, 0) for n in capstone.SHARED]
    jobs += [(1, seed) for seed in range(1, SEEDS)]
    for n_kv_heads, seed in jobs:
        model, row = train(n_kv_heads, seed)
        if seed == 0:
            path = recorded.HERE / f"capstone_{n_kv_heads}.safetensors"
            weights = {n: w.half() for n, w in model.state_dict().items()}
            save_file(weights, path)
            path.chmod(0o644)  # it comes readable by its owner alone
        row |= looked_into(model, n_kv_heads)
        rows.append(row)
        print({k: v for k, v in row.items() if k != "losses"})
    for name, design in DESIGNS.items():
        rows.append(examined(name, design))
        print(name, rows[-1]["results"][0])
    rows.append(examined("the reference", reference(), shown=False))
    print(rows[-1]["results"])
    recorded.write("capstone", "benchmarks/capstone.py", rows)
