"""The small models of every mechanism: they are what they say they are."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from contextlab.mechanisms import (
    Attention,
    Design,
    Layer,
    Rope,
    StateSpace,
    build,
    redesigned,
    retrieved,
    state_space,
    visible,
)
from contextlab.model import count_parameters
from solutions.memory import VectorMemory, memory_attention
from solutions.mla import grouped_query_attention
from solutions.sparse import global_mask, sliding_window_mask
from solutions.ssm import ssd_chunked
from solutions.yarn import yarn_attention_factor, yarn_frequencies

VOCABULARY = 50
LAYERS = {
    "full": Layer(),
    "grouped": Layer(n_heads=4, n_kv_heads=2),
    "latent": Layer(latent=12),
    "window": Layer(window=5),
    "sinks": Layer(window=5, sinks=2),
    "global": Layer(window=5, global_every=6),
    "memory": Layer(window=5, memory_k=2),
    "ssm": Layer("ssm", n_heads=4),
}


def _model(*layers, **design):
    return build(Design(layers, **design), VOCABULARY, seed=1)


def _ids(n_tokens, batch=3):
    generator = torch.Generator().manual_seed(2)
    return torch.randint(VOCABULARY, (batch, n_tokens), generator=generator)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_no_model_reads_the_future(layer):
    """A change of token 20 changes its logits, and none before."""
    model, ids = _model(layer, LAYERS["ssm"]), _ids(40)
    other = ids.clone()
    other[:, 20] = (other[:, 20] + 1) % VOCABULARY
    far = (model(ids)[0] - model(other)[0]).abs().amax((0, 2))
    assert far[:20].max() < 1e-5
    assert far[20] > 1e-4


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_every_parameter_learns(layer):
    """Gradients reach every weight, and no two seeds give the same model."""
    model = _model(layer)
    F.cross_entropy(model(_ids(20))[0].mT, _ids(20)).backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
    other = build(model.design, VOCABULARY, seed=2)
    assert not torch.equal(model.wte.weight, other.wte.weight)
    same = build(model.design, VOCABULARY, seed=1)
    assert torch.equal(model.lm_head.weight, same.lm_head.weight)


def test_sizes_are_equal():
    """The MLP takes up what a mixer leaves, to within one per cent."""
    for layer in LAYERS.values():
        model = _model(layer, layer, parameters=90_000)
        assert abs(count_parameters(model) / 90_000 - 1) < 0.01
    with pytest.raises(ValueError, match="too few"):
        _model(LAYERS["full"], parameters=10_000)


def test_masks_are_chapter_10s():
    """A window, sinks and global tokens hide what the course's masks hide."""
    n = 23
    window = sliding_window_mask(n, n, 5)
    assert torch.equal(visible(LAYERS["window"], n), window)
    sinks = window | (torch.arange(n) < 2) & torch.ones(n, n).bool().tril()
    assert torch.equal(visible(LAYERS["sinks"], n), sinks)
    columns = torch.arange(n) % 6 == 0  # global as keys, not as queries
    seen = window | global_mask(n, n, range(0, n, 6)) & columns
    assert torch.equal(visible(LAYERS["global"], n), seen)


def test_a_window_reaches_as_far_as_it_says():
    """Two layers of a window of 5, convolutions of 4: 2·4 + 2·3 tokens."""
    model, ids = _model(*[LAYERS["window"]] * 2).double(), _ids(40)
    x = model.wte(ids).detach().requires_grad_()
    stream = x
    for layer in model.h:
        stream = stream + layer["mixer"](layer["ln_1"](stream))[0]
        stream = stream + layer["mlp"](layer["ln_2"](stream))
    (grad,) = torch.autograd.grad(stream[:, -1].sum(), x)
    heard = grad.abs().sum((0, 2)) > 0
    assert heard.nonzero().min() == 39 - 14


def test_shared_heads_are_chapter_09s():
    """Grouped heads give what grouped_query_attention gives."""
    torch.manual_seed(3)
    attention = Attention(LAYERS["grouped"], 64, Rope("none"))
    x = torch.randn(2, 17, 64)
    parts = attention.conv(attention.project(x)).split(attention.sizes, -1)
    q, k, v = (
        part.unflatten(-1, (n, -1)).transpose(1, 2)
        for part, n in zip(parts, (4, 2, 2), strict=True)
    )
    mask = torch.ones(17, 17).bool().tril()
    heard = grouped_query_attention(q, k, v, mask)
    right = attention.out(heard.transpose(1, 2).flatten(-2))
    torch.testing.assert_close(attention(x)[0], right)


def test_memory_is_chapter_13s():
    """Retrieval finds what VectorMemory finds, under one softmax."""
    torch.manual_seed(4)
    layer, n, k = LAYERS["memory"], 30, 2
    attention = Attention(layer, 64, Rope("none"))
    x = torch.randn(1, n, 64)
    q, keys, v = (part[0] for part in attention.heads(x))
    left = (torch.arange(n) - layer.window + 1).clamp(min=0)
    heads = []
    for h in range(layer.n_heads):
        memory = VectorMemory(32, 32)
        memory.add(keys[h], v[h])
        _, positions = memory.search(q[h], k, left)
        output, _ = memory_attention(
            q[h], keys[h], v[h], *memory.fetch(positions),
            visible(layer, n), positions >= 0,
        )  # fmt: skip
        heads.append(output)
    right = attention.out(torch.cat(heads, -1)[None])
    torch.testing.assert_close(attention(x)[0], right)


def test_a_memory_of_everything_is_full_attention():
    """Without positions, all that left the window, retrieved, is all."""
    rope, ids = Rope("none"), _ids(30)
    model = _model(Layer(window=5, memory_k=30), rope=rope)
    full = redesigned(model, [Layer()])
    torch.testing.assert_close(model(ids)[0], full(ids)[0])


def test_nothing_is_retrieved_from_the_window_or_the_future():
    """Each query finds k hidden keys of its past, or all where fewer are."""
    scores = torch.randn(2, 3, 20, 20)
    mask = visible(LAYERS["window"], 20)
    found = retrieved(scores, mask, 4)
    assert not (found & mask).any()
    assert not found.triu(1).any()
    hidden = torch.arange(20).sub(4).clamp(0, 4)
    assert torch.equal(found.sum(-1), hidden.expand(2, 3, -1))


def test_weights_are_those_of_the_output():
    """The weights sum to one; asking for them changes nothing else."""
    ids = _ids(25)
    for layer in LAYERS.values():
        model = _model(layer)
        logits, weights = model(ids, weights=True)
        fast, none = model(ids)
        torch.testing.assert_close(logits, fast)
        assert none == [None]
        if layer.kind == "attention":
            assert weights[0].shape == (3, layer.n_heads, 25, 25)
            ones = torch.ones(3, layer.n_heads, 25)
            torch.testing.assert_close(weights[0].sum(-1), ones)


@pytest.mark.parametrize("n_tokens", [1, 5, 32, 33, 100])
def test_state_space_is_chapter_12s(n_tokens):
    """All chunks side by side give what they give one after the other."""
    torch.manual_seed(5)
    x = torch.randn(2, n_tokens, 3, 4, dtype=torch.float64)
    log_keep = -torch.rand(2, n_tokens, 3, dtype=torch.float64) * 9
    b, c = torch.randn(2, 2, n_tokens, 5, dtype=torch.float64)
    right, _ = ssd_chunked(x, log_keep, b, c, 16)
    torch.testing.assert_close(state_space(x, log_keep, b, c), right)


def test_a_state_space_mixes_no_channels_of_other_heads():
    """Its sizes are Mamba-2's: N numbers for each of C channels."""
    layer = replace(LAYERS["ssm"], state=7)
    mixer = StateSpace(layer, 64)
    assert mixer.sizes == [64, 7, 7]
    assert mixer(torch.randn(2, 9, 64))[0].shape == (2, 9, 64)


def test_positions_are_stretched_as_in_chapter_07():
    """YaRN's frequencies and factor; weights stay, the default is RoPE."""
    rope = Rope("yarn", scale=4.0, window=128)
    inv_freq, factor = rope.frequencies(16)
    right = yarn_frequencies(16, 10_000.0, 128, 4.0)
    torch.testing.assert_close(inv_freq, right)
    assert factor == pytest.approx(yarn_attention_factor(4.0))
    model = _model(LAYERS["full"])
    other = redesigned(model, rope=rope)
    assert torch.equal(other.lm_head.weight, model.lm_head.weight)
    ids = _ids(30)
    assert (other(ids)[0] - model(ids)[0]).abs().max() > 1e-3
    plain, one = Rope("linear", scale=1.0).frequencies(16)
    torch.testing.assert_close(plain, Rope().frequencies(16)[0])
    assert one == 1.0


def test_only_distance_counts():
    """Rotated scores depend on how far a key is, not on where it stands."""
    torch.manual_seed(6)
    attention = Attention(Layer(), 64, Rope()).double()
    attention.inv_freq = attention.inv_freq.double()
    x = torch.randn(1, 1, 64, dtype=torch.float64).expand(1, 20, 64)
    weights = attention(x, weights=True)[1][0, 0].log()
    steps = weights[10:, 5:10] - weights[10:, 6:11]  # from key to key
    torch.testing.assert_close(steps[0, :-1], steps[1, 1:])


def test_what_makes_no_sense_is_refused():
    """Wrong descriptions are answered by a sentence."""
    for wrong in (
        {"kind": "rnn"},
        {"n_heads": 4, "n_kv_heads": 3},
        {"latent": 8, "n_kv_heads": 1},
        {"sinks": 4},
        {"memory_k": 1},
        {"global_every": 8},
    ):
        with pytest.raises(ValueError, match=r"\w+"):
            Layer(**wrong)
    with pytest.raises(ValueError, match="multiples of four"):
        _model(Layer(n_heads=3))
