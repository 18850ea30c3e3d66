"""The rotary model of chapters 06 and 07, and the texts with a passkey."""

import pytest
import torch
from torch import Tensor

from contextlab.rotary import (
    ASK,
    KEY,
    LETTERS,
    RHYME,
    VOCABULARY,
    RotaryModel,
    measure,
    passkey_texts,
    rhymes_with,
    stretched,
)
from contextlab.tasks import UNKNOWN
from solutions.rope import inverse_frequencies


def generator(seed: int = 0) -> torch.Generator:
    """Return a source of randomness."""
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n_tokens", [4, 9, 130])
def test_a_text_tells_one_passkey_and_asks_for_it(n_tokens: int) -> None:
    ids, targets = passkey_texts(64, n_tokens, generator=generator())
    assert ids.shape == targets.shape == (64, n_tokens)
    assert ((ids == KEY).sum(-1) == 1).all()
    place = (ids == KEY).int().argmax(-1)
    passkey = ids[torch.arange(64), place + 1]
    assert (passkey < LETTERS).all()
    asked = ids == ASK
    assert asked[:, -1].all()
    assert (asked.int().argmax(-1) > place + 1).all()
    right = torch.where(asked, passkey[:, None], targets)
    assert torch.equal(targets, right)


def test_what_follows_is_told_where_it_is_a_letter_of_the_text() -> None:
    ids, targets = passkey_texts(256, 40, generator=generator())
    place = (ids == KEY).int().argmax(-1)
    now, following = ids[:, :-1], ids[:, 1:]
    spoken = (now != ASK) & (following < LETTERS)
    spoken[torch.arange(256), place] = False  # the passkey is no rhyme
    told = (targets[:, :-1] != UNKNOWN) & (now != ASK)
    assert torch.equal(told, spoken)
    assert torch.equal(targets[:, :-1][told], following[told])


def test_three_letters_of_four_rhyme() -> None:
    ids, _ = passkey_texts(512, 60, generator=generator())
    before, after = ids[:, :-2], ids[:, 2:]
    letters = (before < LETTERS) & (after < LETTERS)
    share = (rhymes_with(before) == after)[letters].double().mean()
    assert RHYME - 0.05 < share < RHYME + 0.05
    assert rhymes_with(torch.arange(LETTERS)).unique().numel() == LETTERS


def test_a_text_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="don't fit 3"):
        passkey_texts(1, 3, generator=generator())


def small() -> RotaryModel:
    """Return a model that hasn't learnt anything."""
    torch.manual_seed(0)
    return RotaryModel(inverse_frequencies(6), d_model=12, n_heads=2)


def test_the_model_reads_any_length_and_not_ahead() -> None:
    model = small()
    ids, _ = passkey_texts(2, 50, generator=generator())
    logits, _ = model(ids)
    assert logits.shape == (2, 50, VOCABULARY)
    assert torch.allclose(model(ids[:, :20])[0], logits[:, :20], atol=1e-5)
    assert "inv_freq" not in model.state_dict()


def test_a_stretched_model_is_a_copy_with_other_frequencies() -> None:
    model = small()
    ids, _ = passkey_texts(2, 50, generator=generator())
    before = model(ids)[0]
    slow = stretched(model, model.inv_freq / 4, 1.1)
    # The scores grow by the square of the factor; position 0 sees itself.
    assert torch.allclose(slow(ids)[0][:, 0], before[:, 0], atol=1e-5)
    assert not torch.allclose(slow(ids)[0], before, atol=1e-3)
    slow.wte.weight.data.zero_()
    assert torch.equal(model(ids)[0], before)


def test_frequencies_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="has 3 pairs"):
        RotaryModel(inverse_frequencies(8), d_model=12, n_heads=2)
    with pytest.raises(ValueError, match="has 3 pairs"):
        stretched(small(), inverse_frequencies(8))


class Knowing(RotaryModel):
    """Answers right if the passkey stands less than ``sight`` back."""

    sight = 1_000

    def forward(self, ids: Tensor) -> tuple[Tensor, None]:
        """Read the passkey where it stands."""
        rows = torch.arange(len(ids))
        place = (ids == KEY).int().argmax(-1)
        answer = torch.where(
            torch.arange(ids.shape[1]) - place[:, None] < self.sight,
            ids[rows, place + 1][:, None],
            KEY,
        )
        return 9.0 * torch.nn.functional.one_hot(answer, VOCABULARY), None


def test_recall_is_measured_by_distance() -> None:
    model = Knowing(inverse_frequencies(32))
    assert measure(model, 64, n_texts=70)["recall"] == 1
    model.sight = 16
    seen = measure(model, 64, n_texts=70)
    assert 0 < seen["recall"] < 1
    assert torch.equal(seen["answered"], seen["distances"] < 16)
    assert seen["losses"].shape == (64,)
    assert seen["losses"][-1].isnan()  # a question is always the last
