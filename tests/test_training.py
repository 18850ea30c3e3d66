"""Tests of the small model, its task and its training."""

import pytest
import torch

from contextlab.model import LanguageModel, accuracy
from contextlab.tasks import UNKNOWN, repeated_tokens
from contextlab.training import train
from solutions.multihead import TransformerBlock

SIZES = {"window": 16, "vocab_size": 16}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def new_model() -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(
        TransformerBlock, n_layers=2, d_model=24, n_heads=2, **SIZES
    )


@pytest.mark.parametrize("anywhere", [True, False])
def test_a_known_target_is_what_followed_the_last_time(anywhere):
    ids, targets = repeated_tokens(
        200,
        periods=range(3, 9),
        generator=generator(),
        anywhere=anywhere,
        **SIZES,
    )
    for row, following in zip(ids.tolist(), targets.tolist(), strict=True):
        for t, token in enumerate(row):
            if token not in row[:t]:
                assert following[t] == UNKNOWN
            else:
                last = max(s for s in range(t) if row[s] == token)
                assert following[t] == row[last + 1]
            if t + 1 < len(row) and following[t] != UNKNOWN:
                assert following[t] == row[t + 1]
        assert following[-1] != UNKNOWN


def test_periods_and_starts_are_all_drawn():
    ids, targets = repeated_tokens(
        2_000, periods=[3, 7], generator=generator(), **SIZES
    )
    fresh = (targets == UNKNOWN).sum(1)  # start + period
    period = torch.where(ids[:, -1] == ids[:, -4], 3, 7)
    for p in (3, 7):
        starts = set((fresh - p)[period == p].tolist())
        assert starts == set(range(16 - 1 - p))


def test_the_same_seed_draws_the_same_sequences():
    a, b = (
        repeated_tokens(4, periods=[5], generator=generator(3), **SIZES)
        for _ in range(2)
    )
    assert torch.equal(a[0], b[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vocab_size": 15}, "15 tokens"),
        ({"periods": [1]}, "period"),
        ({"periods": [4, 15]}, "period"),
    ],
)
def test_impossible_tasks_are_refused(change, words):
    arguments = {"periods": [4], "generator": generator(), **SIZES} | change
    with pytest.raises(ValueError, match=words):
        repeated_tokens(2, **arguments)


def test_the_window_is_the_number_of_positions():
    model = new_model()
    logits, layers = model(torch.zeros(2, 16, dtype=torch.long))
    assert logits.shape == (2, 16, 16)
    assert [tuple(weights.shape) for weights in layers] == [(2, 2, 16, 16)] * 2
    with pytest.raises(ValueError, match="17 tokens"):
        model(torch.zeros(2, 17, dtype=torch.long))


def test_accuracy_counts_known_targets_alone():
    model = new_model()
    ids, targets = repeated_tokens(
        8, periods=[5], generator=generator(), **SIZES
    )
    guesses = model(ids)[0].argmax(-1)
    right = guesses.where(targets != UNKNOWN, UNKNOWN)
    assert accuracy(model, ids, right) == 1.0
    assert accuracy(model, ids, right.where(right < 0, right + 1)) == 0.0


def draw_from(source: torch.Generator):
    return lambda: repeated_tokens(
        16, periods=range(3, 8), generator=source, **SIZES
    )


def test_training_is_reproducible_and_lowers_the_loss(monkeypatch):
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    monkeypatch.delenv("CONTEXTLAB_GRADING", raising=False)
    runs = [
        train(new_model(), draw_from(generator()), steps=60, lr=1e-2)
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(runs[0]) == 60
    assert sum(runs[0][-10:]) < 0.95 * sum(runs[0][:10])


@pytest.mark.parametrize("name", ["NBGRADER_EXECUTION", "CONTEXTLAB_GRADING"])
def test_a_grader_trains_for_one_step(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    draw = draw_from(generator())
    assert len(train(new_model(), draw, steps=500, lr=1e-2)) == 1
