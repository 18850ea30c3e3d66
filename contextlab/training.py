"""Train a small model for a few seconds, and say how it goes."""

import math
import os
from collections.abc import Callable, Iterator
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contextlab.model import LanguageModel
from contextlab.tasks import UNKNOWN

Batch = tuple[Tensor, Tensor]  # tokens and what follows each, both (B, T)


def is_grading() -> bool:
    """Say whether an autograder is running the notebook."""
    return bool(
        os.environ.get("NBGRADER_EXECUTION")
        or os.environ.get("CONTEXTLAB_GRADING")
    )


def cosine(step: int, steps: int) -> float:
    """Fall from 1 to a tenth along half a cosine."""
    return 0.55 + 0.45 * math.cos(math.pi * step / steps)


def straight(step: int, steps: int) -> float:
    """Fall from 1 to a tenth along a line."""
    return 1.0 - 0.9 * step / steps


def descend(
    model: nn.Module,
    losses: Iterator[Tensor],
    *,
    steps: int,
    lr: float,
    warmup: int = 50,
    fall: Callable[[int, int], float] = cosine,
    fused: bool = False,
) -> Iterator[float]:
    """Train a model with AdamW.

    The learning rate rises for ``warmup`` steps, and falls all the while.

    Args:
        model: is changed in place.
        losses: computes a loss each time that it is asked for one.
        steps: how many losses to ask for.
        lr: the highest learning rate.
        warmup: how many steps it rises for.
        fall: takes the step, from 0, and the steps; returns a share of it.
        fused: whether AdamW runs as one kernel.

    Yields:
        The loss of each step, once the step is made.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=lr,
        betas=(0.9, 0.98),
        weight_decay=0.0,
        fused=fused,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min(1.0, (n + 1) / warmup) * fall(n, steps)
    )
    for loss in islice(losses, steps):
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield loss.item()


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

    def losses() -> Iterator[Tensor]:
        while True:
            ids, targets = draw()
            logits, _ = model(ids)
            yield F.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), ignore_index=UNKNOWN
            )

    descent = descend(model, losses(), steps=steps, lr=lr, warmup=warmup)
    found = []
    for step, loss in enumerate(descent, 1):
        found.append(loss)
        if step == 1 or step % report == 0:
            print(f"step {step:5d}  loss {loss:.3f}", flush=True)
        if is_grading():
            break
    return found
