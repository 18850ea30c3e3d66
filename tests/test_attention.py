"""Checks of chapter 02; a student does not see the hidden lines."""

import math

import torch
import torch.nn.functional as F

from contextlab.checks import assert_close, forbid_autograd, forbid_softmax
from solutions.attention import (
    attention,
    attention_backward,
    attention_scores,
    causal_mask,
    softmax,
)


def test_softmax_makes_distributions():
    """Weights are non-negative and sum to one along the given dimension."""
    torch.manual_seed(1)
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    before = x.clone()
    one = torch.tensor(1.0, dtype=torch.float64)
    for dim in (-1, 1):
        weights = softmax(x, dim)
        assert_close(
            weights.sum(dim),
            one.expand_as(x.sum(dim)),
            f"softmax(x, {dim}).sum({dim})",
        )
        assert (weights >= 0).all(), "A weight can't be negative."
    assert_close(x, before, "x, which softmax was given and must not change,")
    small = torch.tensor([0.0, math.log(3.0)], dtype=torch.float64)
    quarters = torch.tensor([0.25, 0.75], dtype=torch.float64)
    assert_close(softmax(small), quarters, "softmax of (0, ln 3)")
    ### BEGIN HIDDEN TESTS
    for dim in (0, 1, 2, -1, -2, -3):
        assert_close(
            softmax(x, dim), torch.softmax(x, dim), f"softmax(x, {dim})"
        )
        assert_close(
            softmax(x, dim=dim),
            torch.softmax(x, dim),
            f"softmax(x, dim={dim})",
        )
    assert_close(
        softmax(x),
        torch.softmax(x, -1),
        "softmax(x), along the last dimension,",
    )
    single = x.float()
    assert_close(
        softmax(single), torch.softmax(single, -1), "softmax of float32 scores"
    )
    kept = single.clone()
    softmax(single, 0)
    assert_close(single, kept, "x, of float32, which must not change,")
    deep = torch.randn(2, 1, 3, 2, 4, dtype=torch.float64)
    for dim in (0, 2, -1):
        expected = torch.softmax(deep, dim)
        assert_close(softmax(deep, dim), expected, "softmax in 5 dimensions")
    with forbid_softmax():
        softmax(x)
    ### END HIDDEN TESTS


def test_softmax_survives_large_scores():
    """Scores of 10,000 give weights, not NaN or infinity."""
    x = torch.tensor([10_000.0, 9_999.0, -10_000.0], dtype=torch.float64)
    expected = torch.tensor([math.e, 1.0, 0.0], dtype=torch.float64) / (
        1 + math.e
    )
    assert_close(softmax(x), expected, "softmax of (10,000, 9,999, −10,000)")
    ### BEGIN HIDDEN TESTS
    assert_close(
        softmax(-x), torch.softmax(-x, -1), "softmax of large negative scores"
    )
    rows = torch.tensor([[-10_000.0, -10_001.0], [10_000.0, 9_998.0]]).double()
    assert_close(
        softmax(rows), torch.softmax(rows, -1), "softmax of rows far apart"
    )
    assert_close(
        softmax(rows, 0),
        torch.softmax(rows, 0),
        "softmax of columns far apart",
    )
    for size in (1e6, 1e8):
        pair = torch.full((2,), -size, dtype=torch.float64)
        halves = torch.tensor([0.5, 0.5], dtype=torch.float64)
        what = f"softmax of two scores of {-size:,.0f}"
        assert_close(softmax(pair), halves, what)
    ### END HIDDEN TESTS


def test_softmax_of_nothing_is_zero():
    """Minus infinity gets no weight, and a row of nothing else gets zeros."""
    x = torch.tensor([[0.0, -math.inf, 0.0], [-math.inf] * 3])
    expected = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]])
    assert_close(softmax(x), expected, "softmax with masked scores")
    ### BEGIN HIDDEN TESTS
    assert_close(
        softmax(x.T, 0), expected.T, "softmax with masked scores, along dim 0,"
    )
    far = torch.tensor([[-math.inf, -5_000.0, -5_000.0]], dtype=torch.float64)
    expected = torch.tensor([[0.0, 0.5, 0.5]], dtype=torch.float64)
    assert_close(softmax(far), expected, "softmax of (−∞, −5,000, −5,000)")
    ### END HIDDEN TESTS


def test_scores_by_hand():
    """Two queries and two keys score what the formula says."""
    q = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]], dtype=torch.float64)
    k = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 2.0]], dtype=torch.float64)
    expected = torch.tensor([[3.0, 4.0], [3.0, 0.0]], dtype=torch.float64)
    expected = expected / math.sqrt(3)
    assert_close(attention_scores(q, k), expected, "attention_scores(q, k)")


def test_scores_have_one_row_a_query():
    """T queries and S keys give T × S scores, for any leading dimensions."""
    torch.manual_seed(2)
    q = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    k = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    scores = attention_scores(q, k)
    shape = tuple(scores.shape)
    assert shape == (2, 3, 4, 7), (
        f"The scores should have shape (2, 3, 4, 7), but have {shape}."
    )
    ### BEGIN HIDDEN TESTS
    expected = torch.einsum("abtd,absd->abts", q, k) / math.sqrt(6)
    assert_close(scores, expected, "attention_scores(q, k)")
    batch = attention_scores(q[0], k[0])
    assert_close(batch, expected[0], "attention_scores of 3-D tensors")
    plain = torch.einsum("td,sd->ts", q[0, 0], k[0, 0]) / math.sqrt(6)
    assert_close(
        attention_scores(q[0, 0], k[0, 0]),
        plain,
        "attention_scores without leading dimensions",
    )
    ### END HIDDEN TESTS


def test_scores_keep_their_spread():
    """Random queries and keys score with variance one, however wide."""
    torch.manual_seed(3)
    for width in (5, 75, 1000):
        q, k = torch.randn(2, 400, width, dtype=torch.float64)
        scores = attention_scores(q, k)
        assert isinstance(scores, torch.Tensor), "The scores are a tensor."
        spread = scores.std().item()
        assert 0.9 < spread < 1.1, (
            f"For D = {width} the scores should have a standard deviation "
            f"of about 1, but it is {spread:.3g}."
        )


def test_causal_mask_hides_the_future():
    """Each of four tokens may attend to itself and to those before it."""
    expected = torch.tensor(
        [
            [True, False, False, False],
            [True, True, False, False],
            [True, True, True, False],
            [True, True, True, True],
        ]
    )
    assert_close(causal_mask(4, 4), expected, "causal_mask(4, 4)")
    ### BEGIN HIDDEN TESTS
    assert_close(
        causal_mask(1, 1), torch.tensor([[True]]), "causal_mask(1, 1)"
    )
    expected = torch.ones(9, 9).tril() > 0
    assert_close(causal_mask(9, 9), expected, "causal_mask(9, 9)")
    where = causal_mask(2, 2, device="meta").device.type
    assert where == "meta", f"device='meta' made a mask on the {where}."
    ### END HIDDEN TESTS


def test_causal_mask_ends_at_the_last_key():
    """Two queries after three older tokens are the last two of five."""
    expected = torch.tensor(
        [
            [True, True, True, True, False],
            [True, True, True, True, True],
        ]
    )
    assert_close(causal_mask(2, 5), expected, "causal_mask(2, 5)")
    ### BEGIN HIDDEN TESTS
    assert_close(causal_mask(1, 6), torch.ones(1, 6) > 0, "causal_mask(1, 6)")
    # The last three of eight queries, by PyTorch's own causal attention.
    alike = torch.zeros(1, 1, 8, 4)
    whole = F.scaled_dot_product_attention(
        alike, alike, torch.eye(8)[None, None], is_causal=True
    )
    oracle = whole[..., -3:, :]
    assert_close(causal_mask(3, 8), oracle[0, 0] > 0, "causal_mask(3, 8)")
    for n_queries, n_keys in ((3, 2), (9, 1)):
        refusal = (
            f"causal_mask should raise ValueError: {n_queries} queries "
            f"can't be the last of {n_keys} keys. But it"
        )
        try:
            causal_mask(n_queries, n_keys)
        except ValueError:
            continue
        except Exception as error:
            name = type(error).__name__
            raise AssertionError(f"{refusal} raised {name}.") from error
        raise AssertionError(f"{refusal} raised nothing.")
    ### END HIDDEN TESTS


def test_attention_equals_pytorch():
    """Without a mask, the output is that of PyTorch's own attention."""
    torch.manual_seed(4)
    q = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    k = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    v = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    output, weights = attention(q, k, v)
    expected = F.scaled_dot_product_attention(q, k, v)
    assert_close(output, expected, "the output of attention(q, k, v)")
    ### BEGIN HIDDEN TESTS
    scores = torch.einsum("abtd,absd->abts", q, k) / math.sqrt(6)
    assert_close(
        weights, scores.softmax(-1), "the weights of attention(q, k, v)"
    )
    flat = attention(q[0, 0], k[0, 0], v[0, 0])[0]
    assert_close(flat, expected[0, 0], "the output without leading dimensions")
    single = attention(q.float(), k.float(), v.float())[0]
    assert_close(single, expected.float(), "the output in float32")
    square = torch.randn(3, 2, 4, 6, dtype=torch.float64)
    expected = F.scaled_dot_product_attention(*square)
    assert_close(attention(*square)[0], expected, "the output where T = S")
    ### END HIDDEN TESTS


def test_attention_obeys_the_mask():
    """A masked key has weight zero, and the other weights sum to one."""
    torch.manual_seed(5)
    q, k, v = torch.randn(3, 4, 6, dtype=torch.float64)
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    output, weights = attention(q, k, v, mask)
    assert (weights[~mask] == 0).all(), (
        "A masked key should get a weight of exactly 0."
    )
    ones = torch.ones(4, dtype=torch.float64)
    assert_close(weights.sum(-1), ones, "the sum of each row of weights")
    ### BEGIN HIDDEN TESTS
    expected = F.scaled_dot_product_attention(q, k, v, mask)
    assert_close(output, expected, "the output under a causal mask")
    shifted = attention(q, k - 40 * q.sum(0), v, mask)[0]
    expected = F.scaled_dot_product_attention(q, k - 40 * q.sum(0), v, mask)
    assert_close(shifted, expected, "the output where scores are very low")
    batch = torch.randn(3, 2, 4, 6, dtype=torch.float64)
    padding = torch.tensor([[True] * 4, [True, True, False, False]])[:, None]
    for m in (mask, padding, mask & padding):
        output, weights = attention(*batch, m)
        expected = F.scaled_dot_product_attention(*batch, m)
        assert_close(
            output,
            expected,
            f"the output under a mask of shape {tuple(m.shape)}",
        )
        assert not weights[~m.expand_as(weights)].any(), (
            "A masked key should get a weight of exactly 0."
        )
    q = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    k, v = torch.randn(2, 2, 3, 7, 6, dtype=torch.float64)
    mask = torch.rand(2, 1, 4, 7) > 0.4
    kept = mask.clone()
    for dtype in (torch.float64, torch.float32):
        args = [x.to(dtype) for x in (q, k, v)]
        output, weights = attention(*args, mask=mask)
        expected = F.scaled_dot_product_attention(*args, attn_mask=mask)
        assert_close(output, expected, f"the masked output of {dtype}")
        scores = torch.einsum("abtd,absd->abts", args[0], args[1]) / 6**0.5
        shares = scores.masked_fill(~mask, -math.inf).softmax(-1)
        shares = shares.nan_to_num(0.0)  # where nothing is allowed
        assert_close(weights, shares, f"the masked weights of {dtype}")
    assert_close(mask, kept, "the mask, which must not change,")
    few = q[:, :2], k[:, :2], v[:, :2]  # as many texts as heads
    mask = torch.rand(2, 4, 7) > 0.4
    output, weights = attention(*few, mask)
    expected = F.scaled_dot_product_attention(*few, attn_mask=mask)
    whose = "with a mask for each head, of shape (2, 4, 7),"
    assert_close(output, expected, f"the output {whose}")
    # a masked key that is far louder than the two that may be heard
    q = torch.ones(2, 4, dtype=torch.float64)
    k = torch.zeros(3, 4, dtype=torch.float64)
    k[2] = 500.0  # a score of 4 · 500 / √4 = 1,000
    v = torch.tensor([[1.0, 5.0], [3.0, 7.0], [90.0, 90.0]]).double()
    quiet = torch.tensor([[True, True, False]])
    output, weights = attention(q, k, v, quiet)
    loud = "where a masked key scores 1,000 more than the others"
    shares = torch.tensor([[0.5, 0.5, 0.0]] * 2, dtype=torch.float64)
    assert_close(weights, shares, f"the weights {loud}")
    means = torch.tensor([[2.0, 6.0]] * 2, dtype=torch.float64)
    assert_close(output, means, f"the output {loud}")
    ### END HIDDEN TESTS


def test_attention_to_nothing_is_zero():
    """A query that may attend to nothing gets zeros, not NaN."""
    torch.manual_seed(6)
    q, k, v = torch.randn(3, 3, 5, dtype=torch.float64)
    mask = torch.tensor(
        [[True, True, True], [False, False, False], [True, False, False]]
    )
    output, weights = attention(q, k, v, mask)
    zeros = torch.zeros(5, dtype=torch.float64)
    assert_close(
        output[1], zeros, "the output of a query that may attend to nothing"
    )
    assert_close(
        output[2], v[0], "the output of a query that may attend to key 0 alone"
    )
    ### BEGIN HIDDEN TESTS
    expected = F.scaled_dot_product_attention(
        q[None], k[None], v[None], mask[None]
    )[0]
    assert_close(output, expected, "the output of all queries")
    assert_close(
        weights[1], torch.zeros(3).double(), "the weights of that query"
    )
    batch = torch.randn(3, 2, 3, 4, 5, dtype=torch.float64)
    some = torch.rand(2, 1, 4, 4) > 0.3
    some[0, 0, 1] = some[1, 0, 3] = False
    output, weights = attention(*batch, some)
    expected = F.scaled_dot_product_attention(*batch, some)
    assert_close(output, expected, "the output of a batch with such queries")
    assert not weights[0, :, 1].any(), "Such a query should get weights of 0."
    nobody = torch.zeros(4, 4, dtype=torch.bool)
    output, weights = attention(*batch, nobody)
    under = "under a mask that is False everywhere"
    expected = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    assert_close(output, expected, f"the output {under}")
    expected = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    assert_close(weights, expected, f"the weights {under}")
    ### END HIDDEN TESTS


def _autograd(q, k, v, mask, grad_output):
    """Differentiate PyTorch's attention by q, k and v."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    output = F.scaled_dot_product_attention(*leaves, attn_mask=mask)
    return torch.autograd.grad(output, leaves, grad_output)


def test_backward_equals_autograd():
    """The gradients by q, k and v are autograd's."""
    torch.manual_seed(7)
    q = torch.randn(2, 4, 6, dtype=torch.float64)
    k = torch.randn(2, 7, 6, dtype=torch.float64)
    v = torch.randn(2, 7, 5, dtype=torch.float64)
    grad_output = torch.randn(2, 4, 5, dtype=torch.float64)
    expected = _autograd(q, k, v, None, grad_output)
    with forbid_autograd():
        grads = attention_backward(grad_output, q, k, v)
    for name, grad, right in zip(
        "vkq", grads[::-1], expected[::-1], strict=True
    ):
        assert_close(grad, right, f"the gradient by {name}")
    ### BEGIN HIDDEN TESTS
    args = [x[0] for x in (grad_output, q, k, v)]
    for name, grad, right in zip(
        "qkv", attention_backward(*args), expected, strict=True
    ):
        assert_close(
            grad,
            right[0],
            f"the gradient by {name}, without leading dimensions,",
        )
    ### END HIDDEN TESTS


def test_backward_obeys_the_mask():
    """Under a mask the gradients are autograd's, and zero for no keys."""
    torch.manual_seed(8)
    q, k, v, grad_output = torch.randn(4, 2, 3, 5, 6, dtype=torch.float64)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    mask[2] = False  # the third query may attend to nothing
    expected = _autograd(q, k, v, mask, grad_output)
    with forbid_autograd():
        grads = attention_backward(grad_output, q, k, v, mask)
    for name, grad, right in zip(
        "vkq", grads[::-1], expected[::-1], strict=True
    ):
        assert_close(grad, right, f"the gradient by {name} under a mask")
    ### BEGIN HIDDEN TESTS
    for m in (None, mask[:, :1], torch.zeros_like(mask)):
        expected = _autograd(q, k, v, m, grad_output)
        grads = attention_backward(grad_output, q, k, v, m)
        for name, grad, right in zip("qkv", grads, expected, strict=True):
            assert_close(grad, right, f"the gradient by {name}")
    k, v = torch.randn(2, 2, 3, 7, 6, dtype=torch.float64)
    mask = torch.rand(2, 1, 5, 7) > 0.4
    mask[1, 0, 2] = False
    given = (grad_output, q, k, v, mask)
    kept = [x.clone() for x in given]
    expected = _autograd(q, k, v, mask, grad_output)
    grads = attention_backward(grad_output, q, k, v, mask=mask)
    for name, grad, right in zip("qkv", grads, expected, strict=True):
        assert_close(grad, right, f"the gradient by {name}, where T ≠ S,")
    for name, now, before in zip(
        ("grad_output", "q", "k", "v", "mask"), given, kept, strict=True
    ):
        assert_close(now, before, f"{name}, which must not change,")
    single = [x.float() for x in (grad_output, q, k, v)]
    grads = attention_backward(*single, mask)
    for name, grad, right in zip("qkv", grads, expected, strict=True):
        assert_close(grad, right.float(), f"the gradient by {name} in float32")
    few = [x[:, :2] for x in (grad_output, q, k, v)]  # as many texts as heads
    mask = torch.rand(2, 5, 7) > 0.4
    right = _autograd(*few[1:], mask, few[0])
    grads = attention_backward(*few, mask)
    whose = "with a mask for each head, of shape (2, 5, 7),"
    for name, grad, expected in zip("qkv", grads, right, strict=True):
        assert_close(grad, expected, f"the gradient by {name} {whose}")
    # a masked key that is far louder than the two that may be heard
    grad_output, v = torch.randn(2, 3, 2, dtype=torch.float64)
    q = torch.ones(3, 4, dtype=torch.float64)
    k = torch.zeros(3, 4, dtype=torch.float64)
    k[2] = 500.0  # a score of 4 · 500 / √4 = 1,000
    quiet = torch.tensor([[True, True, False]])
    right = _autograd(q, k, v, quiet.expand(3, 3), grad_output)
    grads = attention_backward(grad_output, q, k, v, quiet)
    loud = "where a masked key scores 1,000 more than the others"
    for name, grad, expected in zip("qkv", grads, right, strict=True):
        assert_close(grad, expected, f"the gradient by {name} {loud}")
    ### END HIDDEN TESTS
