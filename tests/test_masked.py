"""Small models under masks, and the tasks that they are trained on."""

import pytest
import torch

from contextlab.masked import (
    AGAIN,
    BEGIN,
    N_LETTERS,
    MaskedBlock,
    carry_tokens,
    echo_tokens,
    letter_chain,
    set_masks,
    token_losses,
)
from contextlab.model import LanguageModel
from contextlab.tasks import UNKNOWN
from solutions.multihead import TransformerBlock


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(n_layers: int = 2) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(
        MaskedBlock,
        n_layers=n_layers,
        vocab_size=34,
        window=16,
        d_model=12,
        n_heads=2,
    )


def test_a_masked_block_is_the_reader_s_own() -> None:
    torch.manual_seed(0)
    ours, theirs = MaskedBlock(12, 3).double(), TransformerBlock(12, 3)
    names = {"c_": "attn.c_", "mlp.0.": "mlp.c_fc.", "mlp.2.": "mlp.c_proj."}
    state = {}
    for name, value in ours.state_dict().items():
        for start, other in names.items():
            if name.startswith(start):
                name = other + name[len(start) :]
        state[name] = value
    theirs.double().load_state_dict(state)
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    for got, expected in zip(ours(x), theirs(x), strict=True):
        assert torch.allclose(got, expected)


def test_a_mask_hides_and_a_head_may_refuse() -> None:
    block = MaskedBlock(12, 2)
    block.mask = torch.eye(5) > 0
    x = torch.randn(1, 5, 12)
    _, weights = block(x)
    assert torch.equal(weights, torch.eye(5).expand(1, 2, 5, 5))
    block.may_refuse = True
    _, weights = block(x)
    assert (weights.sum(-1) < 1).all()


def test_every_layer_needs_a_mask() -> None:
    with pytest.raises(ValueError, match="argument 2 is"):
        set_masks(small(), [None] * 3)


def test_losses_under_a_mask_leave_the_model_as_it_was() -> None:
    model = small()
    ids, targets = echo_tokens(3, 16, generator=generator())
    logits, _ = model(ids)
    expected = -logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    assert torch.allclose(token_losses(model, ids, targets, None), expected)
    alone = token_losses(model, ids, targets, torch.eye(16) > 0)
    assert not torch.allclose(alone, expected)
    assert torch.allclose(token_losses(model, ids, targets, None), expected)


def test_a_letter_is_carried_from_where_it_stands() -> None:
    ids, targets = carry_tokens(
        50, 20, distances=[3, 7], generator=generator()
    )
    assert (targets[:, :-1] == UNKNOWN).all()
    is_letter = ids < N_LETTERS
    assert (is_letter.sum(-1) == 1).all()
    back = 19 - is_letter.double().argmax(-1)
    assert set(back.tolist()) == {3, 7}
    assert torch.equal(ids[is_letter], targets[:, -1])


def test_echoes_repeat_the_last_letter() -> None:
    ids, targets = echo_tokens(200, 64, generator=generator())
    assert (ids[:, 0] == BEGIN).all()
    assert torch.equal(ids[:, 1:], targets[:, :-1])
    again = ids == AGAIN
    assert 0.05 < again.double().mean() < 0.12
    assert not (again[:, 1:] & again[:, :-1]).any()
    row, at = again.nonzero(as_tuple=True)
    assert torch.equal(targets[row, at], ids[row, at - 1])


def test_letters_follow_the_chain() -> None:
    chain = letter_chain()
    assert torch.allclose(chain.sum(-1), torch.ones(N_LETTERS))
    ids, targets = echo_tokens(2_000, 64, generator=generator(), share=0.0)
    after = torch.bincount(targets[ids == 5], minlength=N_LETTERS)
    assert torch.allclose(after / after.sum(), chain[5], atol=0.03)
