"""What chapter 06 stands on: stamps, excerpts, and a model that reads far."""

import math

import torch

from contextlab.positions import sinusoids
from contextlab.reading import HELD_OUT, LEARNT, excerpts, loss_by_position
from contextlab.rotary import RotaryModel, stretched
from solutions.rope import alibi_bias, inverse_frequencies


def test_stamps_of_equal_distance_match_alike() -> None:
    stamps = sinusoids(torch.arange(40), 24)
    assert stamps[0].tolist() == [0.0, 1.0] * 12
    products = stamps @ stamps.T
    for distance in (0, 3, 17):
        along = products.diagonal(distance)
        assert torch.allclose(along, along[0], atol=1e-4)


def test_excerpts_come_with_what_follows() -> None:
    generator = torch.Generator().manual_seed(0)
    ids, following = excerpts(HELD_OUT, 5, 30, generator)
    assert ids.shape == following.shape == (5, 30)
    assert torch.equal(ids[:, 1:], following[:, :-1])
    text = "".join(map(chr, HELD_OUT.tolist()))
    for row in ids.tolist():
        assert "".join(map(chr, row)) in text
    learnt = "".join(map(chr, LEARNT.tolist()))
    assert "".join(map(chr, ids[0].tolist())) not in learnt


def test_who_knows_nothing_loses_the_logarithm() -> None:
    losses = loss_by_position(
        lambda ids: (torch.zeros(*ids.shape, 128), None), 12, batch=33
    )
    assert torch.allclose(losses, torch.full((12,), math.log(128)))


def _model(**settings: object) -> RotaryModel:
    torch.manual_seed(1)
    return RotaryModel(**settings, vocab_size=20).double()


def test_a_bias_marks_positions_in_the_place_of_the_clock() -> None:
    still = torch.zeros(16)
    ids = torch.arange(12)[None] % 20
    nothing = _model(inv_freq=still)
    causal = _model(
        inv_freq=still,
        bias=lambda n: torch.full((n, n), -math.inf).triu(1).double(),
    )
    assert torch.allclose(nothing(ids)[0], causal(ids)[0])
    alibi = _model(inv_freq=still, bias=lambda n: alibi_bias(2, n, n).double())
    rotary = _model(inv_freq=inverse_frequencies(32))
    outputs = [m(ids)[0] for m in (nothing, alibi, rotary)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (outputs[one] - outputs[other]).abs().max() > 1e-3


def test_without_far_keys_a_text_may_begin_anywhere() -> None:
    def near(n: int) -> torch.Tensor:
        places = torch.arange(n)
        distance = places[:, None] - places
        hidden = (distance < 0) | (distance > 3)
        return torch.zeros(n, n).masked_fill(hidden, -math.inf).double()

    model = stretched(_model(inv_freq=inverse_frequencies(32)),
                      inverse_frequencies(32))  # fmt: skip
    model.bias = near
    ids = torch.randint(20, (1, 30))
    whole, end = model(ids)[0], model(ids[:, 20:])[0]
    # Two layers look back six tokens; from there on the cut isn't noticed.
    assert torch.allclose(whole[:, 26:], end[:, 6:], atol=1e-5)
    assert not torch.allclose(whole[:, 22:26], end[:, 2:6], atol=1e-3)
