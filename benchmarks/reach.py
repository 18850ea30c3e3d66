"""Train windowed models to carry a token back to the end, and record how far.

Run it from the root of the repository: python benchmarks/reach.py
"""

import time

import torch
from tqdm import tqdm

from contextlab import recorded
from contextlab.masked import MaskedBlock, carry_tokens, set_masks
from contextlab.model import LanguageModel
from contextlab.training import train
from solutions.sparse import sliding_window_mask

N_TOKENS, WINDOW, STEPS = 32, 5, 1_000
DISTANCES = range(1, 25)
LAYERS = (1, 2, 4)
EACH = 512  # sequences of each distance in the test


def run(n_layers: int) -> dict:
    """Train a model of so many layers, and ask it at each distance."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = LanguageModel(
        MaskedBlock,
        n_layers=n_layers,
        vocab_size=64,
        window=N_TOKENS,
        d_model=48,
        n_heads=2,
    )
    mask = sliding_window_mask(N_TOKENS, N_TOKENS, WINDOW)
    set_masks(model, [mask] * n_layers)

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        return carry_tokens(
            64, N_TOKENS, distances=DISTANCES, generator=generator
        )

    start = time.process_time()
    losses = train(model, draw, steps=STEPS, lr=3e-3)
    seconds = time.process_time() - start
    return {
        "layers": n_layers,
        "window": WINDOW,
        "seed": 0,
        "seconds": round(seconds, 1),
        "losses": [round(loss, 3) for loss in losses[::20]],
        "distances": list(DISTANCES),
        "right": [accuracy_at(model, distance) for distance in DISTANCES],
    }


@torch.no_grad()
def accuracy_at(model: LanguageModel, distance: int) -> float:
    """Return how often the token at this distance is named at the end."""
    ids, targets = carry_tokens(
        EACH,
        N_TOKENS,
        distances=[distance],
        generator=torch.Generator().manual_seed(distance),
    )
    guesses = model(ids)[0][:, -1].argmax(-1)
    return (guesses == targets[:, -1]).double().mean().item()


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = [run(n_layers) for n_layers in tqdm(LAYERS)]
    print(recorded.write("reach", "benchmarks/reach.py", rows))
