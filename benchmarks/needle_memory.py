"""Train chapter 13's reader, and let it look for needles.

Run it from the root of the repository: python benchmarks/needle_memory.py
It takes about ten minutes of one core, one of them for the training.
"""

import time
from collections.abc import Iterator
from itertools import product

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from contextlab import recorded
from contextlab.facts import Attend, Reader, lesson, needle
from contextlab.model import count_parameters
from contextlab.tasks import UNKNOWN
from contextlab.training import descend, straight
from solutions.memory import VectorMemory, memory_attention

WINDOW = 64  # tokens: 16 facts
PLACES = 176  # facts in a text of 11 windows
BACK = (8, 20, 32, 64, 96, 128, 160)  # places; 160 are ten windows
SEEDS, STEPS, BATCH, RATE = 3, 300, 32, 1e-2
TEXTS = 64


def full(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend to the whole text so far."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def in_window(n: int) -> Tensor:
    """Say which of the last WINDOW tokens each of n may attend to."""
    ones = torch.ones(n, n, dtype=torch.bool)
    return ones.tril() & ones.triu(1 - WINDOW)


def window(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend to the last WINDOW tokens alone."""
    mask = in_window(q.shape[-2])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def with_memory(n_found: int) -> Attend:
    """Attend to the window, and to the best of all that has left it."""

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n, width = q.shape[-2:]
        left = (torch.arange(n) - WINDOW + 1).clamp(min=0)
        found = []
        for b, h in product(range(q.shape[0]), range(q.shape[1])):
            memory = VectorMemory(width, width)
            memory.add(k[b, h], v[b, h])
            _, positions = memory.search(q[b, h], n_found, left)
            far = (*memory.fetch(positions), positions >= 0)
            near = (q[b, h], k[b, h], v[b, h])
            output, _ = memory_attention(*near, *far[:2], in_window(n), far[2])
            found.append(output)
        return torch.stack(found).view_as(q)

    return attend


def train(seed: int) -> tuple[Reader, list[float], float]:
    """Train on texts of one window, with full attention."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    reader = Reader()

    def losses() -> Iterator[Tensor]:
        while True:
            ids, targets = lesson(BATCH, WINDOW // 4, generator)
            known = targets != UNKNOWN
            yield F.cross_entropy(reader(ids, full)[known], targets[known])

    start = time.process_time()
    found = list(
        descend(reader, losses(), steps=STEPS, lr=RATE, fall=straight)
    )
    reader.eval().requires_grad_(False)
    return reader, found, time.process_time() - start


def found(reader: Reader, attend: Attend, back: int) -> float:
    """Measure how often the number is right, among all tokens."""
    generator = torch.Generator().manual_seed(1_000 + back)
    ids, number = needle(TEXTS, PLACES, back, generator)
    right = 0
    for some, answer in zip(ids.split(16), number.split(16), strict=True):
        guess = reader(some, attend)[:, -1].argmax(-1)
        right += int((guess == answer).sum())
    return right / TEXTS


def run(seed: int) -> dict:
    """Train from one seed and measure every way to attend."""
    reader, losses, seconds = train(seed)
    if seed == 0:
        weights = recorded.HERE / "needle_memory.safetensors"
        save_file(reader.state_dict(), weights)
        weights.chmod(0o644)  # it comes readable by its owner alone
    ways = {"window": window, "full": full}
    ways |= {f"memory, k = {n}": with_memory(n) for n in (1, 8)}
    return {
        "seed": seed,
        "parameters": count_parameters(Reader()),
        "seconds": round(seconds, 1),
        "losses": [round(x, 4) for x in losses[::10]],
        "window": WINDOW,
        "places": PLACES,
        "texts": TEXTS,
        "back": list(BACK),
        "right": {
            name: [round(found(reader, way, back), 4) for back in tqdm(BACK)]
            for name, way in ways.items()
        },
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = []
    for seed in range(SEEDS):
        rows.append(run(seed))
        print({k: v for k, v in rows[-1].items() if k != "losses"})
        recorded.write("needle_memory", "benchmarks/needle_memory.py", rows)
