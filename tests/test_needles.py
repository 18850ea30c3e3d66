"""The texts with needles in them, and what they are tested on."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from contextlab import needles, recorded
from contextlab.tasks import UNKNOWN
from contextlab.tokens import train_library
from solutions.needle import make_haystack, needle_grid


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _values(ids):
    return (ids >= needles.WORDS + needles.KEYS) & (ids < needles.ASK)


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_lesson_tells_and_then_asks(at_the_end):
    """Each fact is told once, asked for once, later, and said again."""
    ids, targets = needles.lesson(
        20, 64, 7, _generator(), at_the_end=at_the_end
    )
    assert ids.shape == targets.shape == (20, 64)
    for text, answers in zip(ids.tolist(), targets.tolist(), strict=True):
        asked = [t for t, answer in enumerate(answers) if answer != UNKNOWN]
        assert len(asked) == 7
        for t in asked:
            assert text[t - 1] == needles.ASK
            told = text.index(text[t])
            assert told < t
            assert text[told + 1] == text[t + 1] == answers[t]
            assert text.count(text[t]) == 2
            assert not at_the_end or told < 32 < t
        assert text.count(needles.ASK) == 7
        assert sum(token >= needles.WORDS for token in text) == 7 * 5


def test_a_school_begins_with_short_texts():
    """As many tokens in every lesson, and ten facts in the long ones."""
    lessons = [*needles.school(12, 3, _generator())]
    shapes = [tuple(ids.shape) for ids, _ in lessons]
    assert shapes == [(12, 32)] * 4 + [(6, 64)] * 3 + [(3, 128)] * 5
    asked = [(targets != UNKNOWN).sum(-1) for _, targets in lessons]
    assert all(1 <= n.min() <= n.max() <= 3 for n in asked[:4])
    assert all(1 <= n.min() <= n.max() <= 6 for n in asked[4:7])
    assert all((n == 10).all() for n in asked[7:])


def test_the_hay_is_real_text():
    """Hay is cut from the documentation and holds no key and no value."""
    ids = needles.hay(5, 40, _generator())
    assert 0 <= ids.min() <= ids.max() < needles.WORDS
    text = needles.TEXT.unfold(0, 40, 1)
    assert all((text == one).all(-1).any() for one in ids)


def test_haystacks_have_one_answer():
    """The key of the question was told once, among others that were not."""
    draw = needles.haystacks(make_haystack)
    for depth in (0.0, 0.4, 1.0):
        ids, answers = draw(96, depth, 30, _generator(1))
        assert ids.shape == (30, 96)
        assert (ids[:, -2] == needles.ASK).all()
        told = ids[:, :-1] == ids[:, -1:]
        assert (told.sum(-1) == 1).all()
        place = told.int().argmax(-1)
        assert (place == round(depth * 92)).all()
        assert (ids.gather(1, place[:, None] + 1)[:, 0] == answers).all()
        assert (_values(ids).sum(-1) >= 6).all()
    others, _ = draw(96, 0.4, 30, _generator(2))
    assert not torch.equal(ids, others)


def test_a_guesser_is_at_chance():
    """Who names a value at random is right once in 64 times."""
    draw = needles.haystacks(make_haystack)
    first = needles.WORDS + needles.KEYS
    generator = _generator(3)

    def guess(ids):
        logits = torch.zeros(*ids.shape, needles.VOCABULARY)
        values = torch.rand(*ids.shape, needles.VALUES, generator=generator)
        logits[..., first : needles.ASK] = values
        return logits

    grid = needle_grid(guess, draw, [32], [0.5], 3_000, _generator())
    error = (needles.CHANCE / 3_000) ** 0.5
    assert abs(grid.item() - needles.CHANCE) < 4 * error


def test_what_does_not_fit_is_refused():
    """Too many facts, and too long texts, are answered by a sentence."""
    with pytest.raises(ValueError, match="1 to 8 facts fit 64 tokens"):
        needles.lesson(1, 64, 9, _generator())
    with pytest.raises(ValueError, match="keys for 1023 tokens"):
        needles.haystacks(make_haystack)(1_024, 0.5, 1, _generator())


@pytest.fixture(scope="module")
def encode():
    """Return a byte-level tokenizer that was trained on the hay."""
    tokenizer = train_library(needles.documentation()[:100_000], 300)
    return lambda text: tokenizer.encode(text).ids


CAUSAL = {
    "gpt2": lambda size: GPT2LMHeadModel(
        GPT2Config(
            n_embd=32, n_layer=1, n_head=2, n_positions=128, vocab_size=size,
            bos_token_id=None, eos_token_id=None,
        )
    ),
    "llama": lambda size: LlamaForCausalLM(
        LlamaConfig(
            hidden_size=32, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, vocab_size=size,
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CAUSAL)
def test_any_model_of_transformers_sits_the_test(name, encode):
    """Logits are the model's own; an untrained one finds next to nothing."""
    torch.manual_seed(0)
    model = CAUSAL[name](556)
    logits = needles.causal_model(model, batch=3)
    draw = needles.sentences(encode, make_haystack)
    ids, _ = draw(100, 0.5, 7, _generator())
    torch.testing.assert_close(logits(ids), model(ids).logits)
    grid = needle_grid(logits, draw, [64, 100], [0.0, 1.0], 8, _generator())
    assert grid.shape == (2, 2)
    assert grid.mean() < 0.3


def test_a_sentence_can_be_answered(encode):
    """The needle holds the answer right after the question's tokens."""
    draw = needles.sentences(encode, make_haystack)
    _, answers = draw(120, 0.3, 40, _generator())
    assert len({*answers.tolist()}) == 10

    def look_up(ids):
        """Copy what followed the last four tokens before."""
        logits = torch.zeros(*ids.shape, 556)
        for row, text in enumerate(ids.tolist()):
            for t in range(len(text) - 5, 3, -1):
                if text[t - 4 : t] == text[-4:]:
                    logits[row, -1, text[t]] = 1.0
        return logits

    grid = needle_grid(look_up, draw, [90], [0.0, 0.5, 1.0], 20, _generator())
    assert (grid == 1).all()


def test_a_tokenizer_without_digits_is_refused():
    """A tokenizer that can't tell digits apart makes no test."""
    with pytest.raises(ValueError, match="no token for each digit"):
        needles.sentences(lambda text: [len(text)] * 9, make_haystack)


def test_the_record_is_whole():
    """Three seeds of every mechanism, of equal size, within the budget."""
    rows = recorded.read("needle_grid")["rows"]
    names = {row["mechanism"] for row in rows}
    seeds = {(row["mechanism"], row["seed"]) for row in rows}
    assert len(rows) == len(seeds) == 3 * len(names) == 33
    sizes = [row["parameters"] for row in rows]
    assert max(sizes) / min(sizes) < 1.01
    seconds = sum(r["train_seconds"] + r["measure_seconds"] for r in rows)
    assert seconds < 45 * 60
    for row in rows:
        grid = torch.tensor(row["grid"])
        assert grid.shape == (len(row["lengths"]), len(row["depths"]))
        assert 0 <= grid.min() <= grid.max() <= 1
