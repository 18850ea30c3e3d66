"""Facts in texts, the reader of them, lines as keys; Jamba's own pattern."""

import pytest
import torch
import torch.nn.functional as F
from transformers import JambaConfig

from contextlab import facts, recorded
from contextlab.conversation import LINES, QUESTIONS, embed
from contextlab.tasks import UNKNOWN
from solutions.memory import hybrid_pattern


def full(layer, q, k, v):
    """Attend to everything so far."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def seeded(seed: int) -> torch.Generator:
    """Return a source of randomness."""
    return torch.Generator().manual_seed(seed)


def test_a_fact_told_twice_has_its_number_again() -> None:
    order = torch.tensor([[0, 1, 0, 2, 1], [3, 3, 0, 1, 2]])
    ids, targets = facts.tell(order, seeded(0))
    assert ids.shape == targets.shape == (2, 20)
    names = facts.NAMES
    for row, target, places in zip(ids, targets, order, strict=True):
        at = [t for t, token in enumerate(row.tolist()) if token < names]
        assert [t // facts.STRIDE for t in at] == [0, 1, 2, 3, 4]
        told: dict[int, tuple[int, int]] = {}
        for t, place in zip(at, places.tolist(), strict=True):
            fact = (row[t].item(), row[t + 1].item())
            assert names <= fact[1] < names + facts.NUMBERS
            known = place in told
            assert told.setdefault(place, fact) == fact
            assert target[t] == (fact[1] if known else UNKNOWN)
        assert len({name for name, _ in told.values()}) == len(told)
        assert (target != UNKNOWN).sum() == len(places) - len(told)


def test_a_lesson_tells_every_fact_twice() -> None:
    ids, targets = facts.lesson(5, 8, seeded(1))
    assert ids.shape == (5, 32)
    assert ((targets != UNKNOWN).sum(1) == 4).all()


@pytest.mark.parametrize("back", [1, 7, 19])
def test_a_needle_lies_where_it_should(back: int) -> None:
    ids, number = facts.needle(6, 20, back, seeded(2))
    assert ids.shape == (6, 4 * 20 - 3)
    for row, answer in zip(ids, number, strict=True):
        at = (row == row[-1]).nonzero().flatten().tolist()
        assert len(at) == 2  # told once, asked for once
        assert at[0] // facts.STRIDE == 19 - back
        assert row[at[0] + 1] == answer
        names = row[row < facts.NAMES]
        assert len(set(names.tolist())) == len(names) - 1


def test_a_needle_that_does_not_fit_is_refused() -> None:
    for n, back in ((20, 0), (20, 20), (193, 5)):
        with pytest.raises(ValueError, match="1 ≤ back < n ≤ 192"):
            facts.needle(1, n, back, seeded(0))


def test_the_reader_sees_no_future() -> None:
    torch.manual_seed(0)
    reader = facts.Reader()
    ids, _ = facts.lesson(2, 6, seeded(3))
    before = reader(ids, full)[:, :10]
    ids[:, 10:] = 0
    assert torch.allclose(reader(ids, full)[:, :10], before, atol=1e-5)


def test_the_trained_reader_is_the_one_that_was_recorded() -> None:
    reader = facts.trained_reader()
    row = recorded.read("needle_memory")["rows"][0]
    back = row["back"][0]
    ids, number = facts.needle(32, row["places"], back, seeded(4))
    right = reader(ids, full)[:, -1].argmax(-1) == number
    assert abs(right.double().mean() - row["right"]["full"][0]) < 0.15


def test_the_record_says_what_the_chapter_says() -> None:
    for row in recorded.read("needle_memory")["rows"]:
        far = {way: right[-1] for way, right in row["right"].items()}
        assert 4 * row["back"][-1] == 10 * row["window"]
        assert far["window"] < 0.1
        assert far["memory, k = 1"] > 0.9
        assert far["full"] > 0.9


def test_lines_have_keys_of_length_one() -> None:
    keys = embed(LINES)
    queries = embed([*QUESTIONS, "zebra"], among=LINES)
    assert keys.shape[1] == queries.shape[1]
    lengths = torch.cat([keys, queries]).norm(dim=-1)
    assert torch.allclose(lengths[:-1], torch.ones(len(lengths) - 1))
    assert lengths[-1] == 0
    assert (queries[0] @ keys.T).argmax() == 1  # the code of the door


def test_the_pattern_is_that_of_transformers() -> None:
    for sizes in ((32, 8, 4), (5, 3, 1), (16, 4, 0)):
        config = JambaConfig(
            num_hidden_layers=sizes[0],
            attn_layer_period=sizes[1],
            attn_layer_offset=sizes[2],
        )
        assert list(config.layers_block_type) == hybrid_pattern(*sizes)
