"""Train a small model for a few seconds, and say how it goes."""

import math
import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from contextlab.model import LanguageModel
from contextlab.tasks import UNKNOWN

Batch = tuple[Tensor, Tensor]  # tokens and what follows each, both (B, T)


def is_grading() -> bool:
    """Say whether an autograder is running the notebook."""
    return bool(
        os.environ.get("NBGRADER_EXECUTION")
        or os.environ.get("CONTEXTLAB_GRADING")
    )


def train(
    model: LanguageModel,
    draw: Callable[[], Batch],
    *,
    steps: int,
    lr: float,
    warmup: int = 50,
    report: int = 100,
) -> list[float]:
    """Train a model with AdamW, on a fresh batch at every step.

    The learning rate rises for ``warmup`` steps and then falls along half a
    cosine to a tenth. While an autograder runs the notebook, a single step
    is made: no grade depends on what the model has learnt, and a class of a
    hundred shouldn't wait for a hundred trainings.

    Args:
        model: is changed in place.
        draw: returns a batch; only where there is a target is there a loss.
        steps: how many batches to learn from.
        lr: the highest learning rate.
        warmup: how many steps it rises for.
        report: print a line every so many steps.

    Returns:
        The loss of each step, in nats a token.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.0
    )

    def height(step: int) -> float:
        rise = min(1.0, (step + 1) / warmup)
        return rise * (0.55 + 0.45 * math.cos(math.pi * step / steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, height)
    losses = []
    for step in range(1, 2 if is_grading() else steps + 1):
        ids, targets = draw()
        logits, _ = model(ids)
        loss = F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=UNKNOWN
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step == 1 or step % report == 0:
            print(f"step {step:5d}  loss {losses[-1]:.3f}", flush=True)
    return losses
