"""Checks of chapter 06; a student does not see the hidden lines."""

import math

import torch
from torch import Tensor

from contextlab.checks import assert_close, describe_type
from contextlab.positions import (
    bloom_alibi,
    deepseek_rotary,
    llama_inverse_frequencies,
    llama_rotary,
    rotate_pairs,
)
from solutions.rope import (
    alibi_bias,
    apply_rope,
    interleaved_to_half,
    inverse_frequencies,
    rotary_table,
)


def _frequencies(width, base=10_000.0):
    """Return the inverse frequencies in float64, one by one."""
    turns = [base ** (-2 * i / width) for i in range(width // 2)]
    return torch.tensor(turns, dtype=torch.float64)


def _table(inv_freq, positions):
    """Return cosines and sines by a complex exponential."""
    angles = torch.einsum("...t,d->...td", positions.to(inv_freq), inv_freq)
    turns = torch.polar(torch.ones_like(angles), angles)
    return turns.real.clone(), turns.imag.clone()


def _rotated(x, cos, sin):
    """Rotate in the half-split layout, by a product of complex numbers."""
    half = x.shape[-1] // 2
    pairs = torch.complex(x[..., :half], x[..., half:])
    pairs = pairs * torch.complex(cos, sin)
    return torch.cat([pairs.real, pairs.imag], -1)


def _two(got, names):
    """Assert that an answer returned two tensors, and return them."""
    assert isinstance(got, tuple | list), (
        f"Return two tensors, {' and '.join(names)}. This returned "
        f"{describe_type(got)}."
    )
    assert len(got) == 2, (
        f"Return two tensors, {' and '.join(names)}. This returned {len(got)}."
    )
    return [_tensor(one, name) for one, name in zip(got, names, strict=True)]


def _tensor(got, what):
    """Assert that an answer is a tensor, and return it."""
    assert isinstance(got, Tensor), (
        f"{what} should be a tensor, but is {describe_type(got)}."
    )
    return got


def _assert_pair(got, expected, names, when="", tolerance=None):
    """Assert that an answer returned two tensors, and the right ones."""
    for name, one, right in zip(
        names, _two(got, names), expected, strict=True
    ):
        assert_close(one, right, f"{name}{when}", tolerance)


def _assert_refused(call, what):
    """Assert that a call with bad arguments raises an error."""
    try:
        call()
    except (ValueError, RuntimeError):
        return
    raise AssertionError(f"This should raise an error: {what}.")


# ------------------------------------------------------------- Frequencies


def test_frequencies_by_hand():
    """Six channels are three hands: 1, 10,000^(-1/3) and 10,000^(-2/3)."""
    expected = torch.tensor([1.0, 0.0464159, 0.00215443])
    got = inverse_frequencies(6)
    assert_close(got, expected, "inverse_frequencies(6)")
    ### BEGIN HIDDEN TESTS
    for width in (2, 10, 48, 128):
        expected = _frequencies(width).float()
        got = inverse_frequencies(width)
        assert_close(got, expected, f"inverse_frequencies({width})")
    _assert_refused(
        lambda: inverse_frequencies(7), "7 channels can't be cut into pairs"
    )
    ### END HIDDEN TESTS


def test_frequencies_of_other_bases():
    """The base is the one that is given, 500,000 for instance."""
    for width, base in ((6, 500_000.0), (10, 500.0)):
        expected = _frequencies(width, base).float()
        got = inverse_frequencies(width, base)
        what = f"inverse_frequencies({width}, {base:,.0f})"
        assert_close(got, expected, what)
    ### BEGIN HIDDEN TESTS
    for width, base in ((80, 1_000_000), (14, 2.5), (128, 500_000.0)):
        oracle = llama_inverse_frequencies(width, base)
        got = inverse_frequencies(width, base=base)
        what = f"inverse_frequencies({width}, {base:,})"
        assert_close(got, oracle, what)
        slow = got.double().log() - oracle.double().log()
        assert slow.abs().max() < 1e-4, (
            f"The slowest frequencies of {what} are off by a factor of "
            f"{math.exp(slow.abs().max()):.3g}."
        )
    ### END HIDDEN TESTS


# ------------------------------------------------------------- The table

TABLE = ("the cosines", "the sines")


def test_table_by_hand():
    """Two hands at positions 0, 1 and 2 stand where they should."""
    inv_freq = torch.tensor([math.pi / 2, math.pi / 6], dtype=torch.float64)
    half, root = 0.5, math.sqrt(3) / 2
    cos = torch.tensor([[1, 1], [0, root], [-1, half]], dtype=torch.float64)
    sin = torch.tensor([[0, 0], [1, half], [0, root]], dtype=torch.float64)
    got = rotary_table(inv_freq, torch.arange(3))
    _assert_pair(got, (cos, sin), TABLE)
    ### BEGIN HIDDEN TESTS
    inv_freq, positions = _frequencies(10), torch.arange(7)
    kept = inv_freq.clone(), positions.clone()
    expected = _table(inv_freq, positions)
    _assert_pair(rotary_table(inv_freq, positions), expected, TABLE)
    assert_close(inv_freq, kept[0], "inv_freq, which must not change,")
    assert_close(positions, kept[1], "positions, which must not change,")
    ### END HIDDEN TESTS


def test_table_of_given_positions():
    """A row belongs to the position that is given, not to its own number."""
    inv_freq = _frequencies(6)
    for given in ([5, 6, 7], [9, 2, 2, 40], [1_000]):
        positions = torch.tensor(given)
        expected = _table(inv_freq, positions)
        got = rotary_table(inv_freq, positions)
        _assert_pair(got, expected, TABLE, f" at positions {given}")
    ### BEGIN HIDDEN TESTS
    positions = torch.tensor([[[0, 1, 2]], [[7, 3, 11]]])  # (2, 1, 3)
    expected = _table(inv_freq, positions)
    got = rotary_table(inv_freq, positions)
    _assert_pair(got, expected, TABLE, " of a batch of positions")
    positions = torch.tensor([0.0, 0.25, 2.5, -3.0], dtype=torch.float64)
    expected = _table(inv_freq, positions)
    got = rotary_table(inv_freq, positions)
    _assert_pair(got, expected, TABLE, " at positions 0, 0.25, 2.5 and -3")
    expected = [x.float() for x in _table(inv_freq, torch.arange(4, 9))]
    got = rotary_table(inv_freq.float(), torch.arange(4, 9))
    _assert_pair(got, expected, TABLE, " in float32")
    expected = [x.float() for x in _table(inv_freq, positions)]
    got = rotary_table(inv_freq.float(), positions)
    when = " of float32 frequencies at float64 positions"
    _assert_pair(got, expected, TABLE, when)
    got = rotary_table(inv_freq, positions.float())
    when = " of float64 frequencies at float32 positions"
    _assert_pair(got, _table(inv_freq, positions), TABLE, when)
    ### END HIDDEN TESTS


def test_table_far_out():
    """Positions of thousands are not rounded before they are multiplied."""
    inv_freq = torch.tensor([0.01, 0.0007], dtype=torch.float64)
    positions = torch.tensor([255, 257, 2_049, 4_095])
    right = _table(inv_freq, positions)
    got = rotary_table(inv_freq, positions)
    _assert_pair(got, right, TABLE, " at positions up to 4,095")
    ### BEGIN HIDDEN TESTS
    got = rotary_table(inv_freq.float(), positions)
    expected = [x.float() for x in right]
    when = " at positions up to 4,095, in float32,"
    _assert_pair(got, expected, TABLE, when, 1e-4)
    positions = torch.tensor([65_537, 131_071, 1_000_001])
    expected = _table(inv_freq, positions)
    got = rotary_table(inv_freq, positions)
    _assert_pair(got, expected, TABLE, " at positions up to a million")
    positions = torch.tensor([1_000.3, 4_095.5], dtype=torch.float64)
    expected = _table(inv_freq, positions)
    got = rotary_table(inv_freq, positions)
    _assert_pair(got, expected, TABLE, " at positions 1,000.3 and 4,095.5")
    ### END HIDDEN TESTS


# ------------------------------------------------------------- The rotation

ROTATED = ("the rotated q", "the rotated k")


def _draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def test_rope_by_hand():
    """A quarter turn and a twelfth: the pairs are (0, 2) and (1, 3)."""
    half, root = 0.5, math.sqrt(3) / 2
    cos = torch.tensor([[0.0, root]], dtype=torch.float64)
    sin = torch.tensor([[1.0, half]], dtype=torch.float64)
    q = torch.tensor([[3.0, 1.0, 4.0, 0.0]], dtype=torch.float64)
    k = torch.tensor([[0.0, 0.0, 1.0, 2.0]], dtype=torch.float64)
    right_q = torch.tensor([[-4.0, root, 3.0, half]], dtype=torch.float64)
    right_k = torch.tensor([[-1.0, -1.0, 0.0, 2 * root]], dtype=torch.float64)
    got = apply_rope(q, k, cos, sin)
    _assert_pair(got, (right_q, right_k), ROTATED)


def test_rope_of_heads_and_batches():
    """Every head of every text is turned, and the inputs stay as they are."""
    torch.manual_seed(1)
    q, k = _draw(2, 3, 5, 10), _draw(2, 3, 5, 10)
    kept = q.clone(), k.clone()
    cos, sin = _table(_frequencies(10), torch.tensor([0, 1, 2, 30, 700]))
    expected = _rotated(q, cos, sin), _rotated(k, cos, sin)
    got = apply_rope(q, k, cos, sin)
    _assert_pair(got, expected, ROTATED)
    for name, now, before in zip("qk", (q, k), kept, strict=True):
        assert_close(now, before, f"{name}, which must not change,")
    ### BEGIN HIDDEN TESTS
    positions = torch.tensor([[3, 1, 4, 10, 59], [0, 2, 7, 1, 8]])
    oracle = llama_rotary(q, k, positions, 500.0)  # its angles are float32
    cos, sin = _table(_frequencies(10, 500.0), positions[:, None])
    got = apply_rope(q, k, cos, sin)
    _assert_pair(got, oracle, ROTATED, ", by Llama's own code,", 1e-5)
    expected = _rotated(q, cos, sin), _rotated(k[:, :1], cos, sin)
    got = apply_rope(q, k[:, :1], cos, sin)
    _assert_pair(got, expected, ROTATED, ", one head of keys for three,")
    flat = q[0, 0, :1], k[0, 0, :1]
    cos, sin = _table(_frequencies(10), torch.tensor([9]))
    expected = [_rotated(x, cos, sin) for x in flat]
    got = apply_rope(*flat, cos, sin)
    _assert_pair(got, expected, ROTATED, " of one token")
    ### END HIDDEN TESTS


def test_scores_depend_on_distance_alone():
    """Shift all positions by 1,000: no score of q and k moves."""
    torch.manual_seed(2)
    q, k = _draw(3, 6, 10), _draw(3, 6, 10)
    inv_freq, positions = _frequencies(10), torch.arange(6)
    cos, sin = _table(inv_freq, positions)
    right = _rotated(q, cos, sin) @ _rotated(k, cos, sin).mT
    for shift in (0, 1, 1_000):
        cos, sin = _table(inv_freq, positions + shift)
        turned_q, turned_k = _two(apply_rope(q, k, cos, sin), ROTATED)
        what = f"the matrix of scores, positions shifted by {shift:,},"
        assert_close(turned_q @ turned_k.mT, right, what)


def test_rope_keeps_the_dtype():
    """Half-precision queries stay in half precision under a float32 table."""
    torch.manual_seed(3)
    q, k = _draw(2, 4, 6), _draw(2, 4, 6)
    cos, sin = _table(_frequencies(6), torch.arange(4))
    right = _rotated(q, cos, sin), _rotated(k, cos, sin)
    for dtype, tolerance in ((torch.bfloat16, 0.05), (torch.float32, 1e-5)):
        low = q.to(dtype), k.to(dtype)
        expected = [x.to(dtype) for x in right]
        got = apply_rope(*low, cos.float(), sin.float())
        _assert_pair(got, expected, ROTATED, f" of {dtype}", tolerance)
    ### BEGIN HIDDEN TESTS
    expected = right[0].bfloat16(), right[1].float()
    got = apply_rope(q.bfloat16(), k.float(), cos.float(), sin.float())
    when = " of a bfloat16 q and a float32 k"
    _assert_pair(got, expected, ROTATED, when, 0.05)
    leaves = [x.clone().requires_grad_() for x in (q, k)]
    rotated = [_rotated(x, cos, sin) for x in leaves]
    loss = (rotated[0] * rotated[1][:, :1]).sum()
    expected = torch.autograd.grad(loss, leaves)
    turned = _two(apply_rope(*leaves, cos, sin), ROTATED)
    for name, tensor in zip(ROTATED, turned, strict=True):
        assert tensor.requires_grad, (
            f"No gradient comes back from {name}, so nothing can be trained "
            "through it: compute with tensors alone."
        )
    loss = (turned[0] * turned[1][:, :1]).sum()
    grads = torch.autograd.grad(loss, leaves)
    names = ("the gradient by q", "the gradient by k")
    _assert_pair(grads, expected, names)
    ### END HIDDEN TESTS


# ------------------------------------------------------------- The layouts


def test_layout_by_hand():
    """Two heads of six rows each are reordered, each within itself."""
    rows = torch.arange(12, dtype=torch.float64)
    weight = torch.stack([rows, 100 + rows], -1)  # (12, 2)
    order = [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]
    expected = weight[torch.tensor(order)]
    got = interleaved_to_half(weight, 2)
    assert_close(got, expected, "the projection of two heads of six rows")
    ### BEGIN HIDDEN TESTS
    torch.manual_seed(4)
    weight = _draw(40, 7)
    order = [
        h * 10 + c
        for h in range(4)
        for c in (*range(0, 10, 2), *range(1, 10, 2))
    ]
    expected, kept = weight[torch.tensor(order)], weight.clone()
    got = interleaved_to_half(weight, 4)
    assert_close(got, expected, "a projection of four heads of ten rows")
    assert_close(weight, kept, "weight, which must not change,")
    got = interleaved_to_half(weight[:20, :2], 10)
    assert_close(got, weight[:20, :2], "a projection of heads of two rows")
    _assert_refused(
        lambda: interleaved_to_half(weight[:30], 10),
        "10 heads of three rows have no pairs",
    )
    ### END HIDDEN TESTS


def test_layout_of_a_bias():
    """A bias, one number a row, is reordered like the rows."""
    bias = torch.arange(20.0)
    order = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    expected = torch.tensor(order + [10 + c for c in order]).float()
    got = interleaved_to_half(bias, 2)
    assert_close(got, expected, "the bias of two heads of ten rows")


def test_layouts_give_the_same_scores():
    """Reordered and rotated in halves: the scores of the old model."""
    torch.manual_seed(5)
    x, n_heads, width = _draw(2, 6, 9), 3, 10
    weights = _draw(2, n_heads * width, 9)
    cos, sin = _table(_frequencies(width), torch.tensor([0, 1, 5, 6, 7, 30]))

    def project(weight):
        return (x @ weight.mT).unflatten(-1, (n_heads, -1)).transpose(1, 2)

    old = [rotate_pairs(project(weight), cos, sin) for weight in weights]
    right = old[0] @ old[1].mT
    reordered = [
        _tensor(interleaved_to_half(w, n_heads), "the reordered projection")
        for w in weights
    ]
    q, k = (_rotated(project(weight), cos, sin) for weight in reordered)
    assert_close(q @ k.mT, right, "the matrix of scores of three heads")
    ### BEGIN HIDDEN TESTS
    oracle = deepseek_rotary(*map(project, weights), cos, sin)  # in float32
    scores = oracle[0] @ oracle[1].mT
    what = "the matrix of scores, by DeepSeek-V2's own code,"
    assert_close(q @ k.mT, scores, what, 1e-4)
    ### END HIDDEN TESTS


# ------------------------------------------------------------- ALiBi


def test_alibi_by_hand():
    """Two heads lose 1/16 and 1/256 a step; the future is minus infinity."""
    inf = math.inf
    steps = torch.tensor(
        [[0.0, -inf, -inf], [-1.0, 0.0, -inf], [-2.0, -1.0, 0.0]]
    )
    expected = torch.stack([steps / 16, steps / 256])
    assert_close(alibi_bias(2, 3, 3), expected, "alibi_bias(2, 3, 3)")
    ### BEGIN HIDDEN TESTS
    _assert_refused(lambda: alibi_bias(3, 4, 4), "3 is no power of two")
    _assert_refused(lambda: alibi_bias(2, 5, 4), "5 queries of 4 keys")
    ### END HIDDEN TESTS


def test_alibi_of_the_last_queries():
    """The queries are the last ones: a single one sees all keys."""
    expected = torch.tensor([[[-4.0, -3.0, -2.0, -1.0, 0.0]]]) / 256
    assert_close(alibi_bias(1, 1, 5), expected, "alibi_bias(1, 1, 5)")
    ### BEGIN HIDDEN TESTS
    for n_heads in (2, 8):
        whole = torch.full((7, 7), -math.inf)
        for t in range(7):
            for s in range(t + 1):
                whole[t, s] = s - t
        slopes = [2.0 ** (-8 * (h + 1) / n_heads) for h in range(n_heads)]
        right = torch.stack([whole * slope for slope in slopes])
        for n_queries in (7, 3):
            got = alibi_bias(n_heads, n_queries, 7)
            what = f"alibi_bias({n_heads}, {n_queries}, 7)"
            assert_close(got, right[:, 7 - n_queries :], what)
    ### END HIDDEN TESTS


def test_alibi_of_many_heads():
    """Eight heads lose 1/2, 1/4, ... 1/256 a step; sixteen lie closer."""
    expected = torch.tensor([-(0.5**h) for h in range(1, 9)])
    expected = torch.stack([expected, torch.zeros(8)], -1)[:, None]
    assert_close(alibi_bias(8, 1, 2), expected, "alibi_bias(8, 1, 2)")
    ### BEGIN HIDDEN TESTS
    torch.manual_seed(6)
    for n_heads in (4, 16, 64):
        scores = torch.randn(n_heads, 6, 6)
        future = torch.ones(6, 6).triu(1) > 0
        by_key = (scores + bloom_alibi(n_heads, 6)).masked_fill(
            future, -math.inf
        )
        right = by_key.softmax(-1)
        got = _tensor(alibi_bias(n_heads, 6, 6), "the bias")
        what = f"the weights of {n_heads} heads, by BLOOM's own code,"
        assert_close((scores + got).softmax(-1), right, what)
    ### END HIDDEN TESTS
