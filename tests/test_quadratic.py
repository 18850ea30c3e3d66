"""Checks of chapter 04; a student does not see the hidden lines."""

import math

import torch
import torch.nn.functional as F

from contextlab.checks import assert_close, assert_same, describe_type
from contextlab.spies import Watch
from solutions.quadratic import (
    attention_flops,
    attention_pairs,
    chunked_attention,
    crossover_length,
    growth_exponent,
    score_bytes,
)


def test_pairs_without_a_mask():
    """Without a mask, every query is paired with every key."""
    pairs = attention_pairs(10, 10)
    assert_same(pairs, 100, "the number of pairs of 10 tokens")
    pairs = attention_pairs(3, 5)
    assert_same(pairs, 15, "the number of pairs of 3 queries and 5 keys")
    ### BEGIN HIDDEN TESTS
    for t, s in ((1, 1), (2, 2), (5, 3), (1, 9), (7, 1), (100_000, 100_000)):
        what = f"the number of pairs of {t:,} queries and {s:,} keys"
        assert_same(attention_pairs(t, s), t * s, what)
        assert_same(attention_pairs(t, s, causal=False), t * s, what)
    ### END HIDDEN TESTS


def test_pairs_that_a_causal_mask_leaves():
    """With a causal mask, a query is paired with itself and its past."""
    what = "the number of causal pairs of"
    assert_same(attention_pairs(4, 4, True), 10, f"{what} 4 tokens")
    pairs = attention_pairs(2, 5, causal=True)
    assert_same(pairs, 9, f"{what} the last 2 of 5 tokens")
    ### BEGIN HIDDEN TESTS
    for t, s in ((1, 1), (2, 2), (3, 3), (1, 6), (3, 8), (100, 100)):
        mask = torch.ones(t, s, dtype=torch.bool).tril(s - t)
        pairs = attention_pairs(t, s, causal=True)
        said = f"{what} the last {t} of {s} tokens"
        assert_same(pairs, int(mask.sum()), said)
    pairs = attention_pairs(100_000, 100_000, causal=True)
    assert_same(pairs, 5_000_050_000, f"{what} 100,000 tokens")
    pairs = attention_pairs(1, 1_048_576, causal=True)
    assert_same(pairs, 1_048_576, f"{what} the last of 1,048,576 tokens")
    try:
        attention_pairs(5, 3, causal=True)
    except ValueError:
        return
    raise AssertionError(
        "attention_pairs(5, 3, causal=True) should raise a ValueError: 5 "
        "queries can't be the last of 3 keys."
    )
    ### END HIDDEN TESTS


def test_bytes_of_one_head():
    """One head's scores take four bytes a pair in float32."""
    what = "the bytes of one head's scores for"
    assert_same(score_bytes(3), 36, f"{what} 3 tokens")
    assert_same(score_bytes(1_024), 4 * 2**20, f"{what} 1,024 tokens")
    assert_same(score_bytes(131_072), 64 * 2**30, f"{what} 131,072 tokens")
    ### BEGIN HIDDEN TESTS
    for n in (1, 2, 7, 1_000, 1_048_577):
        assert_same(score_bytes(n), 4 * n * n, f"{what} {n:,} tokens")
    ### END HIDDEN TESTS


def test_bytes_of_a_model():
    """Layers, heads and the type of a number all count."""
    got = score_bytes(1_024, n_layers=12, n_heads=12)
    assert_same(got, 576 * 2**20, "the bytes of all scores of GPT-2 small")
    got = score_bytes(1_024, dtype=torch.float16)
    assert_same(got, 2 * 2**20, "the bytes of 1,024² scores in float16")
    ### BEGIN HIDDEN TESTS
    sizes = {torch.float64: 8, torch.bfloat16: 2, torch.float8_e4m3fn: 1}
    for dtype, size in sizes.items():
        what = f"the bytes of 3 layers of 5 heads for 7 tokens in {dtype}"
        assert_same(score_bytes(7, 3, 5, dtype), 3 * 5 * 49 * size, what)
    got = score_bytes(2_048, 96, 96, torch.float16)
    assert_same(got, 72 * 2**30, "the bytes of all scores of GPT-3")
    ### END HIDDEN TESTS


def test_flops_without_a_mask():
    """Two products, and two operations for each of their terms."""
    flops = attention_flops(3, 5, 2)
    assert_same(flops, 120, "the FLOPs of 3 queries, 5 keys and width 2")
    flops = attention_flops(1_024, 1_024, 64)
    assert_same(flops, 2**28, "the FLOPs of 1,024 tokens and width 64")
    ### BEGIN HIDDEN TESTS
    for t, s, width in ((1, 1, 1), (7, 2, 3), (2, 7, 3), (11, 11, 48)):
        scores = t * s * width  # multiplications of QKᵀ
        output = t * width * s  # multiplications of PV
        what = f"the FLOPs of {t} queries, {s} keys and width {width}"
        expected = 2 * (scores + output)
        assert_same(attention_flops(t, s, width), expected, what)
        flops = attention_flops(t, s, width, causal=False)
        assert_same(flops, expected, what)
    ### END HIDDEN TESTS


def test_flops_of_causal_attention():
    """Pairs that a causal mask hides cost nothing."""
    flops = attention_flops(4, 4, 3, causal=True)
    assert_same(flops, 120, "the FLOPs of 4 causal tokens of width 3")
    ### BEGIN HIDDEN TESTS
    for t, s, width in ((1, 1, 5), (2, 5, 3), (1, 9, 7), (100, 100, 48)):
        allowed = int(torch.ones(t, s).tril(s - t).sum())
        flops = attention_flops(t, s, width, True)
        what = f"the FLOPs of the last {t} of {s} tokens of width {width}"
        assert_same(flops, 4 * allowed * width, what)
    ### END HIDDEN TESTS


def _costs_more(n, d_model, d_hidden, causal):
    """Say whether n tokens cost more in attention than in the weights."""
    pairs = n * (n + 1) // 2 if causal else n * n
    weights = 4 * d_model * d_model + 2 * d_model * d_hidden
    return 4 * pairs * d_model > 2 * n * weights


def _assert_crosses(n, d_model, d_hidden, causal):
    """Assert that attention costs more from n tokens on, and not before."""
    what = f"crossover_length({d_model}, {d_hidden}, causal={causal})"
    assert type(n) is int, (
        f"{what} should be an int, but is {describe_type(n)}."
    )
    assert _costs_more(n, d_model, d_hidden, causal), (
        f"{what} is {n}, but for {n} tokens attention doesn't cost more than "
        "the weight matrices yet."
    )
    assert not _costs_more(n - 1, d_model, d_hidden, causal), (
        f"{what} is {n}, but attention costs more for {n - 1} tokens already."
    )


def test_crossover_without_a_mask():
    """From that length on, and not before, attention costs more."""
    n = crossover_length(768, 3_072)
    assert_same(n, 4_609, "the crossover of GPT-2 small without a mask")
    ### BEGIN HIDDEN TESTS
    for d_model, d_hidden in ((1, 1), (5, 20), (48, 100), (4_096, 11_008)):
        n = crossover_length(d_model, d_hidden)
        _assert_crosses(n, d_model, d_hidden, causal=False)
        n = crossover_length(d_model, d_hidden, causal=False)
        _assert_crosses(n, d_model, d_hidden, causal=False)
    ### END HIDDEN TESTS


def test_crossover_of_causal_attention():
    """Half the pairs: it takes about twice as many tokens."""
    n = crossover_length(768, 3_072, causal=True)
    assert_same(n, 9_216, "the crossover of GPT-2 small with a causal mask")
    ### BEGIN HIDDEN TESTS
    for d_model, d_hidden in ((1, 1), (5, 20), (48, 100), (12_288, 49_152)):
        n = crossover_length(d_model, d_hidden, True)
        _assert_crosses(n, d_model, d_hidden, causal=True)
    ### END HIDDEN TESTS


def _assert_exponent(got, expected, of_what):
    """Assert that an answer is a float close to the exponent."""
    assert isinstance(got, float), (
        f"growth_exponent should return a float, but returned "
        f"{describe_type(got)}."
    )
    assert abs(got - expected) < 1e-4, (
        f"The exponent of {of_what} should be {expected:.6g}, but is "
        f"{got:.6g}."
    )


def test_exponent_of_exact_powers():
    """A linear cost has exponent 1, a quadratic one 2, in any unit."""
    lengths = [100, 200, 400, 800]
    linear = [n / 1_000 for n in lengths]
    quadratic = [7e-6 * n**2 for n in lengths]
    _assert_exponent(growth_exponent(lengths, linear), 1, "n / 1,000")
    _assert_exponent(growth_exponent(lengths, quadratic), 2, "7e-6 · n²")
    ### BEGIN HIDDEN TESTS
    for power in (-1.0, 0.0, 0.5, 1.5, 3.0):
        costs = [50 * n**power for n in lengths]
        got = growth_exponent(lengths, costs)
        _assert_exponent(got, power, f"50 · n^{power:g}")
    _assert_exponent(growth_exponent([3, 9], [5.0, 20.0]), 2 / math.log2(3),
                     "two points, a factor of 4 on a factor of 3")  # fmt: skip
    ### END HIDDEN TESTS


def test_exponent_of_noisy_costs():
    """With noise, every point counts: the line of least squares."""
    lengths, costs = [1, 2, 4], [1.0, 8.0, 4.0]
    got = growth_exponent(lengths, costs)
    _assert_exponent(got, 1, "costs of 1, 8 and 4 for 1, 2 and 4 tokens")
    ### BEGIN HIDDEN TESTS
    generator = torch.Generator().manual_seed(1)
    for lengths in ([3, 5, 50, 60, 1_000], [900, 70, 70, 8, 400, 30]):
        noise = torch.randn(len(lengths), generator=generator).exp().tolist()
        costs = [
            2e-3 * n**1.7 * z for n, z in zip(lengths, noise, strict=True)
        ]
        x = torch.tensor(lengths, dtype=torch.float64).log()
        y = torch.tensor(costs, dtype=torch.float64).log()
        design = torch.stack([x, torch.ones_like(x)], dim=-1)
        expected = torch.linalg.lstsq(design, y[:, None]).solution[0].item()
        got = growth_exponent(lengths, costs)
        _assert_exponent(got, expected, f"noisy costs of {lengths} tokens")
    ### END HIDDEN TESTS


def test_chunks_equal_attention():
    """In chunks of any size, the output is that of attention."""
    torch.manual_seed(2)
    q = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    k = torch.randn(2, 3, 11, 6, dtype=torch.float64)
    v = torch.randn(2, 3, 11, 5, dtype=torch.float64)
    expected = F.scaled_dot_product_attention(q, k, v)
    for chunk in (1, 3, 7, 50):
        output = chunked_attention(q, k, v, chunk=chunk)
        assert_close(output, expected, f"the output in chunks of {chunk}")
    ### BEGIN HIDDEN TESTS
    assert_close(chunked_attention(q, k, v), expected, "the output")
    kept = [x.clone() for x in (q, k, v)]
    for chunk in (2, 4, 6, 8):
        output = chunked_attention(q[0, 0], k[0, 0], v[0, 0], chunk=chunk)
        what = "the output without leading dimensions"
        assert_close(output, expected[0, 0], what)
        output = chunked_attention(q[0], k[0], v[0], None, chunk)
        assert_close(output, expected[0], "the output of 3-D tensors")
    for name, now, before in zip("qkv", (q, k, v), kept, strict=True):
        assert_close(now, before, f"{name}, which must not change,")
    single = chunked_attention(q.float(), k.float(), v.float(), chunk=3)
    assert_close(single, expected.float(), "the output in float32")
    square = torch.randn(3, 2, 10, 6, dtype=torch.float64)
    expected = F.scaled_dot_product_attention(*square)
    output = chunked_attention(*square, chunk=4)
    assert_close(output, expected, "the output where T = S")
    one = torch.randn(3, 1, 5, dtype=torch.float64)
    expected = F.scaled_dot_product_attention(*one)
    output = chunked_attention(*one, chunk=2)
    assert_close(output, expected, "the output of a single token")
    ### END HIDDEN TESTS


def _assert_masked(q, k, v, mask, chunk, what):
    """Compare a masked answer with PyTorch's, and look at its inputs."""
    whole = mask.expand(*q.shape[:-1], k.shape[-2])
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=whole)
    kept = mask.clone()
    output = chunked_attention(q, k, v, mask, chunk)
    assert_close(output, expected, f"the output under {what}")
    assert_close(mask, kept, "the mask, which must not change,")


def test_chunks_obey_the_mask():
    """Each chunk obeys its own rows of the mask, whatever its shape."""
    torch.manual_seed(3)
    q, k, v = torch.randn(3, 2, 3, 10, 6, dtype=torch.float64)
    causal = torch.ones(10, 10, dtype=torch.bool).tril()
    padding = torch.rand(2, 1, 1, 10) > 0.3  # (B, 1, 1, S), one row for all
    _assert_masked(q, k, v, causal, 4, "a causal mask")
    _assert_masked(q, k, v, padding, 4, "a mask of shape (B, 1, 1, S)")
    ### BEGIN HIDDEN TESTS
    nobody = causal.clone()
    nobody[[0, 5, 9]] = False  # these queries may attend to nothing
    for chunk in (1, 3, 5, 99):
        for mask in (nobody, causal & padding, padding[0, 0, 0]):
            what = f"a mask of shape {tuple(mask.shape)}"
            _assert_masked(q, k, v, mask, chunk, what)
        asking = nobody[:, 1:2]  # (T, 1), one column for all keys
        _assert_masked(q, k, v, asking, chunk, "a mask of shape (T, 1)")
    q = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    for shape in ((2, 3, 5, 10), (2, 1, 5, 10), (3, 1, 10), (5, 10)):
        mask = torch.rand(shape) > 0.4
        _assert_masked(q, k, v, mask, 2, f"a mask of shape {shape}, T ≠ S")
    _assert_masked(
        q[0, 0], k[0, 0], v[0, 0], mask, 2, "a mask and no leading dimensions"
    )
    ### END HIDDEN TESTS


def _assert_small(q, k, v, mask, chunk):
    """Assert that an answer holds no more than a few chunks of scores."""
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    matrix = q.shape[:-2].numel() * n_queries * n_keys * q.itemsize
    few = 4 * matrix * chunk // n_queries
    with Watch() as seen:
        output = chunked_attention(q, k, v, mask, chunk)
    assert_close(output, expected, "the output of a long text")
    assert not any("scaled_dot_product" in name for name in seen.calls), (
        "This calls PyTorch's own attention. Build it from your own: the "
        "exercise is to do without the matrix."
    )
    case = f"With T = {n_queries:,}, S = {n_keys:,} and chunks of {chunk}"
    assert seen.largest <= few, (
        f"{case}, you made a tensor of {seen.largest:,} bytes. All T × S "
        f"scores are {matrix:,}, and those of one chunk {few // 4:,}: make "
        "no tensor larger than a few chunks."
    )
    assert seen.held <= matrix // 4, (
        f"{case}, no tensor was too large, but you kept {seen.held:,} bytes "
        f"of them at once. All T × S scores are {matrix:,}: either a chunk "
        f"has more than {chunk} queries, or you don't let go of a chunk's "
        "weights before the next."
    )


def test_chunks_never_hold_the_matrix():
    """The tensors that are made stay small: no T × S matrix, nor its parts."""
    torch.manual_seed(4)
    q, k, v = torch.randn(3, 1, 1, 480, 4, dtype=torch.float64)
    mask = torch.ones(480, 480, dtype=torch.bool).tril()
    _assert_small(q, k, v, mask, chunk=12)
    ### BEGIN HIDDEN TESTS
    k, v = torch.randn(2, 1, 2, 900, 3, dtype=torch.float64)
    q = torch.randn(1, 2, 320, 3, dtype=torch.float64)
    _assert_small(q, k, v, None, chunk=8)
    ### END HIDDEN TESTS
