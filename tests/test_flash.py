"""Checks of chapter 05; a student does not see the hidden lines."""

import math

import torch
import torch.nn.functional as F

from contextlab.checks import assert_close, describe_type, forbid_autograd
from contextlab.spies import Watch
from solutions.flash import (
    flash_attention,
    flash_attention_backward,
    hbm_bytes,
    merge_attention,
    online_softmax,
)


def _expected(q, k, v, causal=False, key_mask=None):
    """Return PyTorch's output, and the log-sum-exp of all scores at once."""
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    mask = torch.ones(n_queries, n_keys, dtype=torch.bool)
    if causal:
        mask = mask.tril(n_keys - n_queries)
    if key_mask is not None:
        mask = mask & key_mask[..., None, :]
    output = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = torch.einsum("...td,...sd->...ts", q, k) / math.sqrt(q.shape[-1])
    return output, scores.masked_fill(~mask, -math.inf).logsumexp(-1)


def _assert_all_close(got, expected, names, when=""):
    """Assert that an answer returned a tuple of the right tensors."""
    assert isinstance(got, tuple | list), (
        f"Return {len(names)} tensors: {', '.join(names)}. This returned "
        f"{describe_type(got)}."
    )
    assert len(got) == len(names), (
        f"Return {len(names)} tensors: {', '.join(names)}. This returned "
        f"{len(got)}."
    )
    for name, tensor, right in zip(names, got, expected, strict=True):
        assert_close(tensor, right, f"{name}{when}")


def _assert_unchanged(given, kept, names):
    """Assert that an answer left its inputs as they were."""
    for name, now, before in zip(names, given, kept, strict=True):
        assert_close(now, before, f"{name}, which must not change,")


def test_merge_equals_attention_to_all_keys():
    """Two sets of keys, merged, give attention to all keys at once."""
    torch.manual_seed(1)
    q = torch.randn(4, 6, dtype=torch.float64)
    k = torch.randn(9, 6, dtype=torch.float64)
    v = torch.randn(9, 5, dtype=torch.float64)
    whole = _expected(q, k, v)
    first, second = _expected(q, k[:2], v[:2]), _expected(q, k[2:], v[2:])
    merged = merge_attention(*first, *second)
    names = ("the merged output", "the merged LSE")
    _assert_all_close(merged, whole, names)
    ### BEGIN HIDDEN TESTS
    q = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    k = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    v = torch.randn(2, 3, 8, 4, dtype=torch.float64)
    parts = [
        _expected(q, k[..., keys, :], v[..., keys, :])
        for keys in (slice(0, 5), slice(5, 6), slice(6, 8))
    ]
    both = _expected(q, k[..., :6, :], v[..., :6, :])
    whole = _expected(q, k, v)
    given = [x.clone() for x in (*parts[0], *parts[1])]
    kept = [x.clone() for x in given]
    _assert_all_close(merge_attention(*given), both, names, " of a batch")
    _assert_unchanged(given, kept, ("output_a", "lse_a", "output_b", "lse_b"))
    _assert_all_close(
        merge_attention(*parts[2], *both), whole, names, " of three parts"
    )
    single = [x.float() for x in (*parts[0], *parts[1])]
    right = [x.float() for x in both]
    _assert_all_close(merge_attention(*single), right, names, " in float32")
    ### END HIDDEN TESTS


def test_merge_survives_large_scores():
    """A log-sum-exp of ten thousand neither overflows nor gets lost."""
    output = torch.tensor([[[1.0, 2.0]], [[3.0, 6.0]]], dtype=torch.float64)
    lse = torch.tensor([10_000.0, 10_000.0 + math.log(3.0)]).double()
    lse = torch.stack([lse[:1], lse[1:]])
    share = torch.sigmoid(lse[1] - lse[0])[..., None]  # about 3 in 4
    right = (
        output[0] + share * (output[1] - output[0]),
        lse.logsumexp(0),
    )
    merged = merge_attention(output[0], lse[0], output[1], lse[1])
    names = ("the merged output", "the merged LSE")
    _assert_all_close(merged, right, names, ", where LSEs are 10,000,")
    ### BEGIN HIDDEN TESTS
    lse = torch.tensor([[-10_000.0, 10_000.0], [-10_001.0, -10_000.0]])
    output = torch.tensor([[[1.0], [2.0]], [[3.0], [4.0]]])
    lse, output = lse.double(), output.double()
    share = 1 / (1 + math.exp(-1.0))
    right = (
        torch.tensor([[share + 3 * (1 - share)], [2.0]]).double(),
        torch.tensor([-10_000.0, 10_000.0]).double(),
    )
    right[1][0] -= math.log(share)
    merged = merge_attention(output[0], lse[0], output[1], lse[1])
    _assert_all_close(merged, right, names, ", where LSEs lie far apart,")
    ### END HIDDEN TESTS


def test_merge_with_nothing():
    """A set without keys counts for nothing; two of them give zeros and −∞."""
    output = torch.tensor([[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    other = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    lse = torch.tensor([0.5, -math.inf, -math.inf])
    other_lse = torch.tensor([-math.inf, 700.0, -math.inf])
    right = (output + other, torch.tensor([0.5, 700.0, -math.inf]))
    merged = merge_attention(output, lse, other, other_lse)
    names = ("the merged output", "the merged LSE")
    _assert_all_close(merged, right, names, ", where a set is empty,")


def _start(n_queries, width):
    """Return the state of queries that have met no score."""
    return (
        torch.full((n_queries,), -math.inf, dtype=torch.float64),
        torch.zeros(n_queries, dtype=torch.float64),
        torch.zeros(n_queries, width, dtype=torch.float64),
    )


def _sums(scores, values):
    """Return the peak, total and sum of values, from all scores at once."""
    peak = scores.amax(-1)
    exps = (scores - peak.clamp(min=-1e30)[..., None]).exp()
    return peak, exps.sum(-1), exps @ values


def test_online_softmax_equals_softmax():
    """Block after block, the state is that of all scores so far."""
    torch.manual_seed(2)
    scores = 3 * torch.randn(4, 12, dtype=torch.float64)
    values = torch.randn(12, 5, dtype=torch.float64)
    ends = (3, 4, 8, 12)
    right = [_sums(scores[:, :end], values[:end]) for end in ends]
    attention = scores.softmax(-1) @ values
    state, begin = _start(4, 5), 0
    for end, expected in zip(ends, right, strict=True):
        block = slice(begin, end)
        state = online_softmax(state, scores[:, block], values[block])
        names = ("the peak", "the total", "acc")
        _assert_all_close(state, expected, names, f" after {end} scores")
        begin = end
    _, total, acc = state
    assert_close(acc / total[:, None], attention, "acc divided by the total")
    ### BEGIN HIDDEN TESTS
    scores = torch.randn(2, 3, 4, 9, dtype=torch.float64)
    values = torch.randn(2, 3, 9, 5, dtype=torch.float64)
    right = [_sums(scores[..., :end], values[..., :end, :]) for end in (2, 9)]
    given = (right[0], scores[..., 2:].clone(), values[..., 2:, :].clone())
    kept = [x.clone() for x in (*given[0], *given[1:])]
    state = online_softmax(*given)
    _assert_all_close(state, right[1], names, " of a batch")
    _assert_unchanged(
        (*given[0], *given[1:]), kept, (*names, "scores", "values")
    )
    ### END HIDDEN TESTS


def test_online_softmax_survives_large_scores():
    """Scores that climb or fall by thousands overflow nothing."""
    torch.manual_seed(3)
    values = torch.randn(8, 5, dtype=torch.float64)
    steps = torch.arange(8.0, dtype=torch.float64)
    scores = torch.stack([1_000 * steps, -1_000 * steps, 5_000 + steps])
    right = _sums(scores, values)
    state = _start(3, 5)
    for begin in (0, 3, 6):
        block = slice(begin, begin + 3)
        state = online_softmax(state, scores[:, block], values[block])
    names = ("the peak", "the total", "acc")
    _assert_all_close(state, right, names, " of scores of thousands")


def test_online_softmax_waits_for_the_first_score():
    """Blocks of nothing but −∞ change nothing, before or after a score."""
    torch.manual_seed(4)
    values = torch.randn(6, 5, dtype=torch.float64)
    scores = torch.full((3, 6), -math.inf, dtype=torch.float64)
    scores[1, 2:4] = torch.tensor([1.0, -2.0])  # the second block alone
    scores[2] = torch.randn(6)
    right = [_sums(scores[:, :end], values[:end]) for end in (2, 4, 6)]
    state = _start(3, 5)
    for begin, expected in zip((0, 2, 4), right, strict=True):
        block = slice(begin, begin + 2)
        state = online_softmax(state, scores[:, block], values[block])
        names = ("the peak", "the total", "acc")
        _assert_all_close(state, expected, names, ", where some are −∞,")


def test_flash_equals_pytorch():
    """The output is that of PyTorch's attention, and the LSE that of all."""
    torch.manual_seed(5)
    q = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    k = torch.randn(2, 3, 12, 6, dtype=torch.float64)
    v = torch.randn(2, 3, 12, 5, dtype=torch.float64)
    expected = _expected(q, k, v)
    names = ("the output", "the LSE")
    got = flash_attention(q, k, v, block_q=4, block_k=3)
    _assert_all_close(got, expected, names)
    ### BEGIN HIDDEN TESTS
    oracle = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, k, 0.0, False
    )[:2]
    given = [x.clone() for x in (q, k, k)]
    got = flash_attention(*given, block_q=4, block_k=4)
    _assert_all_close(got, oracle, names, ", by PyTorch's own kernel,")
    _assert_unchanged(given, (q, k, k), "qkv")
    _assert_all_close(flash_attention(q, k, k), oracle, names)
    flat = (q[1, 2], k[1, 2], v[1, 2])
    expected = _expected(*flat)
    got = flash_attention(*flat, block_q=4, block_k=6)
    _assert_all_close(got, expected, names, " without leading dimensions")
    single = [x.float() for x in flat]
    expected = [x.float() for x in expected]
    got = flash_attention(*single, block_q=2, block_k=4)
    _assert_all_close(got, expected, names, " in float32")
    far = (60 * flat[0], 60 * flat[1], flat[2])  # scores of some thousands
    expected = _expected(*far)
    got = flash_attention(*far, block_q=4, block_k=3)
    _assert_all_close(got, expected, names, " of large scores")
    ### END HIDDEN TESTS


def test_flash_of_ragged_tiles():
    """Tiles may be larger than the text, and the last may be smaller."""
    torch.manual_seed(6)
    q = torch.randn(2, 7, 6, dtype=torch.float64)
    k = torch.randn(2, 10, 6, dtype=torch.float64)
    v = torch.randn(2, 10, 5, dtype=torch.float64)
    expected = _expected(q, k, v)
    names = ("the output", "the LSE")
    for block_q, block_k in ((3, 4), (50, 50), (1, 1)):
        got = flash_attention(q, k, v, block_q=block_q, block_k=block_k)
        when = f" with tiles of {block_q} × {block_k}"
        _assert_all_close(got, expected, names, when)
    ### BEGIN HIDDEN TESTS
    for block_q, block_k in ((7, 9), (6, 10), (2, 64), (64, 3), (5, 7)):
        got = flash_attention(q, k, v, block_q=block_q, block_k=block_k)
        when = f" with tiles of {block_q} × {block_k}"
        _assert_all_close(got, expected, names, when)
    expected = _expected(k, q, q)  # more queries than keys
    got = flash_attention(k, q, q, block_q=4, block_k=3)
    _assert_all_close(got, expected, names, " of more queries than keys")
    ### END HIDDEN TESTS


def test_flash_hides_what_is_hidden():
    """Neither the future nor a key that is masked is attended to."""
    torch.manual_seed(7)
    q = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    k, v = torch.randn(2, 2, 3, 9, 6, dtype=torch.float64)
    some = torch.ones(2, 1, 9, dtype=torch.bool)
    some[0, 0, [3, 8]] = False
    some[1, 0, 4:] = False
    names = ("the output", "the LSE")
    for causal, key_mask in ((True, None), (False, some), (True, some)):
        expected = _expected(q, k, v, causal, key_mask)
        got = flash_attention(q, k, v, causal, key_mask, block_q=2, block_k=4)
        words = "causal" if causal else "not causal"
        words += "" if key_mask is None else ", with a key mask"
        _assert_all_close(got, expected, names, f" ({words})")
    ### BEGIN HIDDEN TESTS
    square = [x[..., 4:, :].contiguous() for x in (k, k, v)]
    oracle = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        *square, 0.0, True
    )[:2]
    for block in (2, 3, 64):
        got = flash_attention(
            *square, causal=True, block_q=block, block_k=block
        )
        _assert_all_close(got, oracle, names, " (causal, T = S)")
    kept = some.clone()
    for block_q, block_k in ((1, 9), (4, 2), (3, 5), (64, 64)):
        for args in ((True, some), (True, some[0, 0]), (False, some[1])):
            expected = _expected(q, k, v, *args)
            got = flash_attention(
                q, k, v, *args, block_q=block_q, block_k=block_k
            )
            when = f" under a mask, with tiles of {block_q} × {block_k}"
            _assert_all_close(got, expected, names, when)
    assert_close(some, kept, "the key mask, which must not change,")
    one = (q[0, 0], k[0, 0], v[0, 0])
    left = torch.arange(9) > 4  # hides the first two tiles of keys
    for causal in (False, True):
        expected = _expected(*one, causal, left)
        got = flash_attention(*one, causal, left, block_q=2, block_k=2)
        when = ", of one text whose first tiles of keys are all hidden,"
        _assert_all_close(got, expected, names, when)
    ### END HIDDEN TESTS


def test_flash_of_nothing_is_zero():
    """A query that sees nothing gets zeros and −∞, whatever tile it is in."""
    torch.manual_seed(8)
    q, k, v = torch.randn(3, 2, 6, 5, dtype=torch.float64)
    padded = torch.tensor(
        [[False] * 4 + [True] * 2, [True] * 6]
    )  # on the left
    expected = _expected(q, k, v, True, padded)
    got = flash_attention(q, k, v, True, padded, block_q=2, block_k=2)
    names = ("the output", "the LSE")
    _assert_all_close(got, expected, names, ", padded on the left,")
    ### BEGIN HIDDEN TESTS
    nothing = torch.zeros(2, 6, dtype=torch.bool)
    expected = _expected(q, k, v, False, nothing)
    got = flash_attention(q, k, v, False, nothing, block_q=4, block_k=4)
    _assert_all_close(got, expected, names, ", all hidden,")
    late = (q, k[:, :4], v[:, :4])  # T > S: the first two see nothing
    for block in (1, 3, 64):
        expected = _expected(*late, True)
        got = flash_attention(*late, True, block_q=block, block_k=block)
        _assert_all_close(got, expected, names, " (causal, T > S)")
    low = (-90 * k, 90 * k, v)  # scores of minus ten thousand and less
    expected = _expected(*low, True, padded)
    got = flash_attention(*low, True, padded, block_q=2, block_k=2)
    _assert_all_close(got, expected, names, ", padded, of very low scores,")
    ### END HIDDEN TESTS


def _assert_tiled(seen, n, block, most):
    """Assert that what was made and called is tiles, n × n pairs in all."""
    own = [name for name in seen.calls if "attention" in name]
    assert not own, (
        f"This calls PyTorch's own attention ({', '.join(own)}). Compute each "
        "tile by a matrix product and exp: the exercise is what is inside."
    )
    size = f"The largest tensor that was made has {seen.largest:,} bytes"
    tile = f"a tile of {block} × {block} has {8 * block * block:,}"
    assert seen.largest < n * n, (
        f"{size}. That is a matrix of all {n} × {n} pairs; {tile}. Score one "
        "tile of queries against one tile of keys at a time."
    )
    assert seen.largest <= most, (
        f"{size}; {tile}. That is as much as all scores of some queries: tile "
        "the keys as well, by block_k, and carry peak, total and acc along."
    )
    assert seen.held <= 2 * n * n, (
        f"No tensor was too large, but you kept {seen.held:,} bytes of them "
        f"at once; {tile}. That is the matrix in pieces: let go of a tile's "
        "scores and weights before the next tile."
    )


def _assert_few_calls(seen, n, n_tiles):
    """Assert that the work is done a tile at a time, not a query."""
    calls = sum(seen.calls.values())
    assert calls < n, (
        f"This calls {calls} of PyTorch's operators for {n_tiles} tiles: it "
        "works query by query, or key by key. Then all keys are read from "
        "the slow memory for every single query. Take block_q queries and "
        "block_k keys at a time."
    )


def _assert_blocks(answer, *given):
    """Assert that tiles have block_q queries and block_k keys.

    A few keys in a tile, then a few queries: there are more queries than
    keys, so the second way takes more tiles.
    """
    calls = []
    for block_q, block_k in ((200, 2), (2, 200)):
        with Watch() as seen:
            answer(*given, block_q=block_q, block_k=block_k)
        assert seen.largest <= 20_000, (
            f"With block_q = {block_q} and block_k = {block_k}, 200 queries "
            "and 40 keys, the largest tensor that was made has "
            f"{seen.largest:,} bytes: that is no tile of block_q queries and "
            "block_k keys."
        )
        calls.append(sum(seen.calls.values()))
    assert max(calls) < 100 or calls[0] < calls[1], (  # numpy has no calls
        "Your tiles don't have block_q queries and block_k keys: with 200 "
        "queries and 40 keys, tiles of 200 × 2 are 20 and tiles of 2 × 200 "
        f"are 100, but this calls {calls[0]:,} of PyTorch's operators for "
        f"the former and {calls[1]:,} for the latter. Do you take block_q "
        "for queries, and block_k for keys?"
    )


def test_flash_never_holds_the_matrix():
    """The largest tensor made is a tile, not the scores of all pairs."""
    torch.manual_seed(9)
    n, block = 200, 16
    q, k, v = torch.randn(3, n, 3, dtype=torch.float64)
    most = 4 * 8 * n * 3  # four times the bytes of q
    for causal in (False, True):
        with Watch() as seen:
            flash_attention(q, k, v, causal, block_q=block, block_k=block)
        _assert_tiled(seen, n, block, most)
    ### BEGIN HIDDEN TESTS
    expected = _expected(q, k, v)[0]
    got = flash_attention(q, k, v, block_q=block, block_k=block)[0]
    assert_close(got, expected, "the output")
    batch = torch.randn(3, 1, 1, 400, 3, dtype=torch.float64)
    with Watch() as seen:
        flash_attention(*batch, block_q=200, block_k=200)
    _assert_few_calls(seen, 400, 4)
    own = [name for name in seen.calls if "attention" in name]
    assert not own, "This calls PyTorch's own attention."
    q = torch.randn(200, 3, dtype=torch.float64)
    k, v = torch.randn(2, 40, 3, dtype=torch.float64)
    _assert_blocks(flash_attention, q, k, v)
    ### END HIDDEN TESTS


def _backward_case(q, k, v, causal=False, key_mask=None):
    """Return what the backward pass is given, and the right gradients."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    output, lse = _expected(*leaves, causal, key_mask)
    grad_output = torch.randn_like(output)
    grads = torch.autograd.grad(output, leaves, grad_output)
    return (grad_output, q, k, v, output.detach(), lse.detach()), grads


GRADIENTS = ("the gradient by q", "the gradient by k", "the gradient by v")


def test_flash_backward_equals_autograd():
    """The gradients by q, k and v are autograd's."""
    torch.manual_seed(10)
    q = torch.randn(2, 7, 6, dtype=torch.float64)
    k = torch.randn(2, 10, 6, dtype=torch.float64)
    v = torch.randn(2, 10, 5, dtype=torch.float64)
    given, expected = _backward_case(q, k, v)
    for block_q, block_k in ((3, 4), (50, 50)):
        with forbid_autograd():
            grads = flash_attention_backward(
                *given, block_q=block_q, block_k=block_k
            )
        when = f" with tiles of {block_q} × {block_k}"
        _assert_all_close(grads, expected, GRADIENTS, when)
    ### BEGIN HIDDEN TESTS
    kept = [x.clone() for x in given]
    for block_q, block_k in ((7, 10), (6, 9), (1, 1), (64, 3), (2, 64)):
        grads = flash_attention_backward(
            *given, block_q=block_q, block_k=block_k
        )
        when = f" with tiles of {block_q} × {block_k}"
        _assert_all_close(grads, expected, GRADIENTS, when)
    grads = flash_attention_backward(*given)
    _assert_all_close(grads, expected, GRADIENTS)
    names = ("grad_output", "q", "k", "v", "output", "lse")
    _assert_unchanged(given, kept, names)
    one, right = [x[1] for x in given], [x[1] for x in expected]
    grads = flash_attention_backward(*one, block_q=4, block_k=4)
    _assert_all_close(grads, right, GRADIENTS, ", no leading dimensions,")
    single, right = [x.float() for x in given], [x.float() for x in expected]
    grads = flash_attention_backward(*single, block_q=4, block_k=4)
    _assert_all_close(grads, right, GRADIENTS, " in float32")
    far, right = _backward_case(60 * q, 60 * k, v)
    grads = flash_attention_backward(*far, block_q=4, block_k=4)
    _assert_all_close(grads, right, GRADIENTS, ", of large scores,")
    deep = [x.reshape(2, 1, *x.shape[1:]) for x in (q, k, v)]
    given, expected = _backward_case(*deep)
    grads = flash_attention_backward(*given, block_q=4, block_k=4)
    _assert_all_close(grads, expected, GRADIENTS, ", of four dimensions,")
    ### END HIDDEN TESTS


def test_flash_backward_hides_what_is_hidden():
    """Under a mask the gradients are autograd's, and zero for no keys."""
    torch.manual_seed(11)
    q, k, v = torch.randn(3, 2, 6, 5, dtype=torch.float64)
    padded = torch.tensor(
        [[False] * 4 + [True] * 2, [True] * 6]
    )  # on the left
    for causal, key_mask in ((True, None), (False, padded), (True, padded)):
        given, expected = _backward_case(q, k, v, causal, key_mask)
        with forbid_autograd():
            grads = flash_attention_backward(
                *given, causal, key_mask, block_q=2, block_k=2
            )
        words = "causal" if causal else "not causal"
        words += "" if key_mask is None else ", padded on the left"
        _assert_all_close(grads, expected, GRADIENTS, f" ({words})")
    ### BEGIN HIDDEN TESTS
    nothing = torch.zeros(6, dtype=torch.bool)
    for args in (
        (q[:, 3:], k, v, True, padded),
        (q, k[:, :4], v[:, :4], True),  # T > S: the first two see nothing
        (q, k, v, False, nothing),
        (q[:, :3], k, v, True),
        (q[0], k[0], v[0], False, padded[0]),  # the first keys are hidden
    ):
        given, expected = _backward_case(*args)
        for block_q, block_k in ((4, 5), (1, 3), (2, 2), (64, 64)):
            grads = flash_attention_backward(
                *given, *args[3:], block_q=block_q, block_k=block_k
            )
            when = f" under a mask, with tiles of {block_q} × {block_k}"
            _assert_all_close(grads, expected, GRADIENTS, when)
    ### END HIDDEN TESTS


def test_flash_backward_never_holds_the_matrix():
    """The backward pass makes tiles, too, and no matrix of all pairs."""
    torch.manual_seed(12)
    n, block = 200, 16
    given, expected = _backward_case(
        *torch.randn(3, n, 3, dtype=torch.float64)
    )
    with Watch() as seen:
        grads = flash_attention_backward(*given, block_q=block, block_k=block)
    _assert_tiled(seen, n, block, 4 * 8 * n * 3)
    ### BEGIN HIDDEN TESTS
    _assert_all_close(grads, expected, GRADIENTS)
    given, _ = _backward_case(
        *torch.randn(3, 1, 1, 400, 3, dtype=torch.float64)
    )
    with Watch() as seen:
        flash_attention_backward(*given, block_q=200, block_k=200)
    _assert_few_calls(seen, 400, 4)
    long = torch.randn(200, 3, dtype=torch.float64)
    short = torch.randn(2, 40, 3, dtype=torch.float64)
    given, _ = _backward_case(long, *short)
    _assert_blocks(flash_attention_backward, *given)
    ### END HIDDEN TESTS


def _assert_bytes(got, naive, tiled, case):
    """Assert that an answer counted both, in whole bytes."""
    assert isinstance(got, tuple | list), (
        f"hbm_bytes returns two numbers, not {describe_type(got)}."
    )
    assert len(got) == 2, "hbm_bytes returns two numbers: naive and tiled."
    for name, number, right in zip(
        ("naive", "tiled"), got, (naive, tiled), strict=True
    ):
        assert type(number) is int, (
            f"The {name} count should be a whole number of bytes, an int; it "
            f"is {describe_type(number)}."
        )
        assert number == right, (
            f"The {name} computation of {case} moves {right:,} bytes, not "
            f"{number:,}."
        )


def test_hbm_bytes_by_hand():
    """Four queries, six keys, width 5, in tiles of two queries: by hand."""
    # Naive: Q and K in (20 + 30), scores out (24); in and out again (48);
    # in once more (24) with V (30), output out (20). Tiled: Q in (20), K and
    # V in (60) for each of two tiles, output and LSE out (20 + 4).
    case = "T = 4, S = 6, D = 5, block_q = 2, one byte a number,"
    got = hbm_bytes(4, 6, 5, 2, bytes_per_number=1)
    _assert_bytes(got, 196, 164, case)
    case = "T = 4, S = 6, D = 5, block_q = 2, two bytes a number,"
    _assert_bytes(hbm_bytes(4, 6, 5, 2), 392, 328, case)
    ### BEGIN HIDDEN TESTS
    n, width = 131_072, 128
    case = "T = S = 131,072, D = 128, block_q = 64, four bytes a number,"
    pairs = n * n
    naive = 4 * (4 * n * width + 4 * pairs)
    tiled = 4 * (2 * n * width + n + n // 64 * 2 * n * width)
    _assert_bytes(hbm_bytes(n, n, width, 64, 4), naive, tiled, case)
    ### END HIDDEN TESTS


def test_hbm_bytes_of_a_ragged_tile():
    """A last tile of few queries reads all keys and values, too."""
    case = "T = 5, S = 6, D = 7, block_q = 2, one byte a number,"
    got = hbm_bytes(5, 6, 7, 2, bytes_per_number=1)
    _assert_bytes(got, 274, 327, case)
    ### BEGIN HIDDEN TESTS
    case = "T = 3, S = 6, D = 7, block_q = 64, two bytes a number,"
    _assert_bytes(hbm_bytes(3, 6, 7, 64), 396, 258, case)
    case = "T = 1, S = 1, D = 1, block_q = 1, two bytes a number,"
    _assert_bytes(hbm_bytes(1, 1, 1, 1), 16, 10, case)
    case = "T = 2⁵⁴ + 1, S = D = 1, block_q = 1, one byte a number,"
    n = 2**54 + 1  # one more than a float can tell apart
    _assert_bytes(hbm_bytes(n, 1, 1, n, 1), 6 * n + 2, 3 * n + 2, case)
    ### END HIDDEN TESTS
