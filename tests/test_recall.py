"""Tests of the recall task, which chapter 12's models are trained on."""

import pytest
import torch

from contextlab.recall import FILLER, key_value_pairs
from contextlab.tasks import UNKNOWN

SIZES = {"window": 26, "n_keys": 9}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n_pairs", [1, 3, 6])
def test_every_key_is_told_and_asked_for_once(n_pairs):
    ids, targets = key_value_pairs(50, n_pairs, generator=generator(), **SIZES)
    assert ids.shape == targets.shape == (50, 26)
    for row, wanted in zip(ids.tolist(), targets.tolist(), strict=True):
        keys, values = row[: 2 * n_pairs : 2], row[1 : 2 * n_pairs : 2]
        assert len(set(keys)) == len(set(values)) == n_pairs
        assert all(1 <= key <= 9 for key in keys)
        assert all(9 < value <= 18 for value in values)
        told = dict(zip(keys, values, strict=True))
        places = [t for t, value in enumerate(wanted) if value != UNKNOWN]
        assert sorted(row[t] for t in places) == sorted(keys)
        for t in places:
            assert t >= 2 * n_pairs
            assert wanted[t] == row[t + 1] == told[row[t]]
        silent = row.count(FILLER)
        assert silent == 26 - 4 * n_pairs


def test_the_same_seed_draws_the_same_texts():
    one, two, other = (
        key_value_pairs(4, 3, generator=generator(seed), **SIZES)[0]
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("n_pairs", [0, 7, 10])
def test_pairs_that_do_not_fit_are_refused(n_pairs):
    with pytest.raises(ValueError, match="between 1 and 6 pairs fit 9 keys"):
        key_value_pairs(1, n_pairs, generator=generator(), **SIZES)
