"""Train chapter 10's model with and without a way to refuse, and record sinks.

Run it from the root of the repository: python benchmarks/sinks.py
"""

import time

import torch
from tqdm import tqdm

from contextlab import recorded
from contextlab.masked import AGAIN, MaskedBlock, echo_tokens, token_losses
from contextlab.model import LanguageModel
from contextlab.training import train
from solutions.sparse import global_mask, sliding_window_mask

N_TOKENS, WINDOW, STEPS, SEEDS = 64, 16, 400, 3


def run(seed: int, may_refuse: bool) -> dict:
    """Train from one seed, as the chapter does, and measure."""
    torch.manual_seed(seed)
    model = LanguageModel(
        MaskedBlock,
        n_layers=1,
        vocab_size=34,
        window=N_TOKENS,
        d_model=64,
        n_heads=1,
    )
    model.h[0].may_refuse = may_refuse
    generator = torch.Generator().manual_seed(seed)
    start = time.process_time()
    losses = train(
        model,
        lambda: echo_tokens(32, N_TOKENS, generator=generator),
        steps=STEPS,
        lr=1e-2,
    )
    seconds = time.process_time() - start
    test = echo_tokens(
        256, N_TOKENS, generator=torch.Generator().manual_seed(1)
    )
    size = (N_TOKENS, N_TOKENS)
    near = sliding_window_mask(*size, WINDOW)
    nearer = sliding_window_mask(*size, WINDOW - 1)
    masks = {
        "everything": None,
        "window": near,
        "window and first": nearer | global_mask(*size, [0]),
        "window and second": nearer | global_mask(*size, [1]),
    }
    late = is_late(test[0], AGAIN, False)
    return {
        "seed": seed,
        "may_refuse": may_refuse,
        "seconds": round(seconds, 1),
        "losses": [round(loss, 3) for loss in losses[::20]],
        "loss": {  # in the last half of the text, after letters
            name: token_losses(model, *test, mask)[late].mean().item()
            for name, mask in masks.items()
        },
        **first_token(model, test[0]),
    }


def is_late(ids: torch.Tensor, token: int, here: bool) -> torch.Tensor:
    """Say where in the last half a token stands, or where it doesn't."""
    late = (ids == token) == here
    late[:, : N_TOKENS // 2] = False
    return late


@torch.no_grad()
def first_token(model: LanguageModel, ids: torch.Tensor) -> dict:
    """Return the mean weight of the first token, and of all, in late rows."""
    weights = model(ids)[1][0][:, 0]  # (B, T, T)
    late, asked = is_late(ids, AGAIN, False), is_late(ids, AGAIN, True)
    return {
        "first_after_letters": weights[..., 0][late].mean().item(),
        "first_after_again": weights[..., 0][asked].mean().item(),
        "spent_after_letters": weights.sum(-1)[late].mean().item(),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = [
        run(seed, may_refuse)
        for may_refuse in (False, True)
        for seed in tqdm(range(SEEDS))
    ]
    print(recorded.write("sinks", "benchmarks/sinks.py", rows))
