"""Checks of chapter 11; a student does not see the hidden lines."""

import math

import torch
import torch.nn.functional as F

from contextlab.checks import assert_close, describe_type, forbid_autograd
from contextlab.ring import RankError, simulate
from solutions.ring import (
    causal_work,
    ring_attention,
    ring_attention_backward,
    zigzag_merge,
    zigzag_split,
)

LAYOUTS = ("contiguous", "striped", "zigzag", "shuffled")


def _layout(name, n, world):
    """Return the positions of each rank's tokens."""
    if name == "contiguous":
        return list(torch.arange(n).reshape(world, -1))
    if name == "striped":
        return list(torch.arange(n).reshape(-1, world).T.contiguous())
    if name == "zigzag":
        chunks = torch.arange(n).reshape(2 * world, -1)
        pairs = [(r, 2 * world - 1 - r) for r in range(world)]
        return [torch.cat([chunks[a], chunks[b]]) for a, b in pairs]
    return list(torch.randperm(n).reshape(world, -1))


def _full(q, k, v, causal):
    """Return PyTorch's output, and the log-sum-exp of all scores at once."""
    output = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = torch.einsum("...td,...sd->...ts", q, k) / math.sqrt(q.shape[-1])
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -math.inf)
    return output, scores.logsumexp(-1)


def _dealt(positions, tensors, names):
    """Return, for each rank, its part of every tensor, by name."""
    return [
        {
            name: x[..., own, :] if x.ndim > own.ndim else x[..., own]
            for name, x in zip(names, tensors, strict=True)
        }
        for own in positions
    ]


def _run(function, blocks, weigh=False):
    """Run the ranks of a ring; what goes wrong there is a sentence."""
    try:
        return simulate(function, blocks, weigh=weigh)
    except RankError as error:
        raise AssertionError(f"{error}") from None


def _blocks(q, k, v, positions, causal=False):
    """Return what each rank of ``ring_attention`` is given."""
    names = ("q", "k", "v")
    return [
        part | {"positions": own.clone(), "causal": causal}
        for part, own in zip(
            _dealt(positions, (q, k, v), names), positions, strict=True
        )
    ]


def _assert_ring(q, k, v, positions, causal=False, when=""):
    """Assert that all ranks together have attended as one would."""
    output, lse = _full(q, k, v, causal)
    blocks = _blocks(q, k, v, positions, causal)
    kept = [{n: x.clone() for n, x in b.items() if n != "causal"}
            for b in blocks]  # fmt: skip
    ranks = _run(ring_attention, blocks)
    for r, (rank, own) in enumerate(zip(ranks, positions, strict=True)):
        where = f" of rank {r} of {len(positions)}{when}"
        _assert_tensors(
            rank.result,
            (output[..., own, :], lse[..., own]),
            ("the output", "the LSE"),
            where,
        )
        for name, before in kept[r].items():
            now = blocks[r][name]
            assert_close(now, before, f"{name}{where}, which must not change,")


def _assert_tensors(got, expected, names, where):
    """Assert that an answer returned a tuple of the right tensors."""
    words = f"Return {len(names)} tensors: {', '.join(names)}."
    assert isinstance(got, tuple | list), (
        f"{words} This returned {describe_type(got)}."
    )
    assert len(got) == len(names), f"{words} This returned {len(got)}."
    for name, tensor, right in zip(names, got, expected, strict=True):
        assert_close(tensor, right, f"{name}{where}")


def test_ring_equals_full_attention():
    """Every rank's output is that of attention to the whole text."""
    torch.manual_seed(1)
    q = torch.randn(12, 6, dtype=torch.float64)
    k = 2 * torch.randn(12, 6, dtype=torch.float64)
    v = torch.randn(12, 5, dtype=torch.float64)
    _assert_ring(q, k, v, _layout("contiguous", 12, 3))
    ### BEGIN HIDDEN TESTS
    _assert_ring(q, k, v, _layout("contiguous", 12, 1), when=", alone,")
    _assert_ring(q, k, v, _layout("contiguous", 12, 2))
    _assert_ring(q, k, v, _layout("shuffled", 12, 4))
    q, k = torch.randn(2, 2, 3, 8, 6, dtype=torch.float64)
    v = torch.randn(2, 3, 8, 4, dtype=torch.float64)
    positions = _layout("striped", 8, 2)
    _assert_ring(q, k, v, positions, when=", of a batch")
    _assert_ring(60 * q, 60 * k, v, positions, when=", of large scores")
    single = [x.float() for x in (q, k, v)]
    _assert_ring(*single, positions, when=", in float32")
    ### END HIDDEN TESTS


def test_ring_hides_the_future():
    """Under a causal mask no query sees what stands after it in the text."""
    torch.manual_seed(2)
    q, k = torch.randn(2, 16, 6, dtype=torch.float64)
    v = torch.randn(16, 5, dtype=torch.float64)
    for name in ("contiguous", "zigzag"):
        positions = _layout(name, 16, 4)
        _assert_ring(q, k, v, positions, True, f" ({name}, causal)")
    ### BEGIN HIDDEN TESTS
    q, k, v = torch.randn(3, 2, 18, 5, dtype=torch.float64)
    for name in LAYOUTS:
        positions = _layout(name, 18, 3)
        _assert_ring(q, k, v, positions, True, f" ({name}, causal)")
    positions = _layout("shuffled", 18, 1)
    _assert_ring(q, k, v, positions, True, ", alone, causal")
    ### END HIDDEN TESTS


def _assert_sends(rank, r, world, right, most, what):
    """Assert that a rank has sent as often, and as much, as it may."""
    if world == 1:
        assert rank.sends == 0, (
            "a rank that is alone calls exchange. There is nobody to send "
            "to: it should never call it."
        )
    assert rank.sends == right, (
        f"rank {r} of {world} calls exchange {rank.sends} times, not {right}. "
        f"One call sends {what}, all at once."
    )
    assert rank.sent_bytes <= right * most, (
        f"rank {r} of {world} sends {rank.sent_bytes:,} bytes in {right} "
        f"calls. {what.capitalize()} of a block have {most:,} bytes: nothing "
        "else travels."
    )


def test_ring_sends_one_block_a_step():
    """Each rank sends world - 1 times, a block of keys and values each."""
    torch.manual_seed(3)
    q, k = torch.randn(2, 20, 6, dtype=torch.float64)
    v = torch.randn(20, 5, dtype=torch.float64)
    most = 5 * 6 * 8 + 5 * 5 * 8 + 5 * 8  # bytes of 5 tokens
    what = "keys, values and positions"
    for causal in (False, True):
        blocks = _blocks(q, k, v, _layout("contiguous", 20, 4), causal)
        for r, rank in enumerate(_run(ring_attention, blocks)):
            _assert_sends(rank, r, 4, 3, most, what)
    ### BEGIN HIDDEN TESTS
    positions = _layout("contiguous", 20, 4)
    _assert_ring(q, k, v, positions)
    blocks = _blocks(q[:5], k[:5], v[:5], [torch.arange(5)], True)
    _assert_sends(_run(ring_attention, blocks)[0], 0, 1, 0, most, what)
    blocks = _blocks(q, k, v, _layout("zigzag", 20, 2), True)
    for r, rank in enumerate(_run(ring_attention, blocks)):
        _assert_sends(rank, r, 2, 1, 2 * most, what)
    ### END HIDDEN TESTS


def test_ring_never_gathers_the_text():
    """No rank holds more than a few blocks at a time."""
    torch.manual_seed(4)
    q, k = torch.randn(2, 64, 96, dtype=torch.float64)
    v = torch.randn(64, 3, dtype=torch.float64)
    positions = _layout("contiguous", 64, 8)
    block = 8 * 96 * 8  # bytes of the keys of 8 tokens
    for r, rank in enumerate(
        _run(ring_attention, _blocks(q, k, v, positions), weigh=True)
    ):
        assert rank.peak_bytes <= 5.5 * block, (
            f"besides its own block, rank {r} holds {rank.peak_bytes:,} bytes "
            f"at once; the keys of one block have {block:,}, of all 8 "
            f"{8 * block:,}. It keeps blocks that it has passed on. Use a "
            "block when it is there, then let it go."
        )
    ### BEGIN HIDDEN TESTS
    _assert_ring(q[:16], k[:16], v[:16], _layout("contiguous", 16, 4))
    q, k = torch.randn(2, 96, 3, dtype=torch.float64)
    v = torch.randn(96, 96, dtype=torch.float64)
    blocks = _blocks(q, k, v, _layout("contiguous", 96, 12))
    for r, rank in enumerate(_run(ring_attention, blocks, weigh=True)):
        assert rank.peak_bytes <= 11 * block, (
            f"where values are wide, rank {r} holds {rank.peak_bytes:,} bytes "
            f"at once, besides its own block; the values of one block have "
            f"{block:,}, of all 12 {12 * block:,}. It keeps values that it "
            "has passed on. Use a block when it is there, then let it go."
        )
    ### END HIDDEN TESTS


def _pairs(positions):
    """Return what ``causal_work`` should, one pair at a time."""
    world = len(positions)
    lists = [own.tolist() for own in positions]
    return torch.tensor(
        [
            [
                sum(
                    s <= t for t in lists[r] for s in lists[(r - step) % world]
                )
                for step in range(world)
            ]
            for r in range(world)
        ]
    )


def test_causal_work_by_hand():
    """Two ranks with two tokens each, three with one: counted by hand."""
    right = torch.tensor([[3, 0], [3, 4]])
    two = [torch.tensor([0, 1]), torch.tensor([2, 3])]
    assert_close(causal_work(two), right, "the work of two ranks")
    right = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]])
    three = [torch.tensor([r]) for r in range(3)]
    assert_close(causal_work(three), right, "the work of three ranks")
    ### BEGIN HIDDEN TESTS
    alone = [torch.arange(5)]
    assert_close(causal_work(alone), torch.tensor([[15]]), "the work of one")
    four = _layout("contiguous", 64, 4)
    right = _pairs(four)
    assert right.sum(1).tolist() == [136, 392, 648, 904]
    assert_close(causal_work(four), right, "the work of four ranks")
    ### END HIDDEN TESTS


def test_causal_work_of_any_layout():
    """Tokens may be dealt in any way, in any order."""
    torch.manual_seed(5)
    for name in LAYOUTS:
        positions = _layout(name, 24, 4)
        right = _pairs(positions)
        kept = [own.clone() for own in positions]
        got = causal_work(positions)
        assert_close(got, right, f"the work of 24 tokens, {name},")
        for own, before in zip(positions, kept, strict=True):
            assert_close(own, before, "positions, which must not change,")
    ### BEGIN HIDDEN TESTS
    apart = [torch.tensor([7, 100]), torch.tensor([3, 1_000_000])]
    right = _pairs(apart)
    assert_close(causal_work(apart), right, "the work of tokens far apart")
    late = [torch.tensor([7, 2**24 + 1]), torch.tensor([2**24, 2**24 + 2])]
    right = _pairs(late)
    what = "the work of positions beyond 16,777,216, where float32 rounds,"
    assert_close(causal_work(late), right, what)
    ### END HIDDEN TESTS


def _assert_parts(got, expected, what):
    """Assert that a text was dealt into the right parts."""
    assert isinstance(got, list | tuple), (
        f"{what} should be a list of tensors, but is {describe_type(got)}."
    )
    assert len(got) == len(expected), (
        f"{what} should have {len(expected)} parts, one for each rank, but "
        f"has {len(got)}."
    )
    for r, (part, right) in enumerate(zip(got, expected, strict=True)):
        assert_close(part, right, f"part {r} of {what}")


def test_zigzag_deals_from_both_ends():
    """Each rank gets one chunk from the front and one from the end."""
    right = [torch.tensor([0, 1, 6, 7]), torch.tensor([2, 3, 4, 5])]
    got = zigzag_split(torch.arange(8), 2, dim=0)
    _assert_parts(got, right, "eight tokens for two ranks")
    ### BEGIN HIDDEN TESTS
    for world in (1, 2, 3, 4):
        right = _layout("zigzag", 24, world)
        got = zigzag_split(torch.arange(24), world, dim=0)
        _assert_parts(got, right, f"24 tokens for {world} ranks")
    ### END HIDDEN TESTS


def test_zigzag_cuts_any_dimension():
    """The tokens lie along dim, by default the last but one."""
    torch.manual_seed(6)
    x = torch.randn(2, 12, 5, dtype=torch.float64)
    positions = _layout("zigzag", 12, 3)
    right = [x[:, own] for own in positions]
    _assert_parts(zigzag_split(x, 3), right, "a batch")
    ### BEGIN HIDDEN TESTS
    kept = x.clone()
    swapped = x.mT.contiguous()
    right = [swapped[..., own] for own in positions]
    got = zigzag_split(swapped, 3, dim=-1)
    _assert_parts(got, right, "tokens in the last dimension")
    got = zigzag_split(swapped, 3, 2)
    _assert_parts(got, right, "tokens in dimension 2")
    first = torch.arange(24).reshape(12, 2) % 2 == 0
    right = [first[own] for own in positions]
    _assert_parts(zigzag_split(first, 3, 0), right, "booleans")
    assert_close(x, kept, "the text, which must not change,")
    ### END HIDDEN TESTS


def _raises_value_error(x, world):
    """Say whether dealing a text to the ranks ends in a ValueError."""
    try:
        zigzag_split(x, world, dim=0)
    except ValueError:
        return True
    except AssertionError:  # of the answer itself: refused, but not as asked
        return False
    return False


def test_zigzag_refuses_what_does_not_divide():
    """A text that doesn't make 2 · world equal chunks is refused."""
    for n, world in ((9, 2), (6, 2), (10, 3), (4, 4)):
        assert _raises_value_error(torch.arange(n), world), (
            f"{n} tokens don't make {2 * world} equal chunks: that should "
            "raise a ValueError."
        )


def test_zigzag_merge_by_hand():
    """What was dealt to two ranks, and to three, is a text again."""
    parts = [torch.tensor([0, 1, 6, 7]), torch.tensor([2, 3, 4, 5])]
    merged = zigzag_merge(parts, dim=0)
    assert_close(merged, torch.arange(8), "the text of two parts")
    ### BEGIN HIDDEN TESTS
    for world in (1, 3, 4):
        parts = _layout("zigzag", 24, world)
        what = f"the text of {world} parts"
        assert_close(zigzag_merge(parts, 0), torch.arange(24), what)
    ### END HIDDEN TESTS


def test_zigzag_merge_along_any_dimension():
    """The tokens lie along dim, by default the last but one."""
    torch.manual_seed(7)
    x = torch.randn(2, 12, 5, dtype=torch.float64)
    parts = [x[:, own] for own in _layout("zigzag", 12, 3)]
    kept = [part.clone() for part in parts]
    assert_close(zigzag_merge(parts), x, "the batch")
    for part, before in zip(parts, kept, strict=True):
        assert_close(part, before, "a part, which must not change,")
    ### BEGIN HIDDEN TESTS
    parts = [part.mT.contiguous() for part in kept]
    assert_close(zigzag_merge(parts, -1), x.mT.contiguous(), "the text")
    assert_close(zigzag_merge(parts, 2), x.mT.contiguous(), "the text")
    ### END HIDDEN TESTS


GRADIENTS = ("the gradient by q", "the gradient by k", "the gradient by v")


def _backward_case(q, k, v, positions, causal=False):
    """Return what each rank is given, and its gradients by autograd."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    output, lse = _full(*leaves, causal)
    grad_output = torch.randn_like(output)
    grads = torch.autograd.grad(output, leaves, grad_output)
    names = ("grad_output", "q", "k", "v", "output", "lse")
    tensors = (grad_output, q, k, v, output.detach(), lse.detach())
    dealt = _dealt(positions, tensors[:5], names[:5])
    blocks = [
        part
        | {"lse": tensors[5][..., own]}
        | {"positions": own.clone(), "causal": causal}
        for part, own in zip(dealt, positions, strict=True)
    ]
    right = [[grad[..., own, :] for grad in grads] for own in positions]
    return blocks, right


def _assert_gradients(q, k, v, positions, causal=False, when=""):
    """Assert that all ranks' gradients are autograd's."""
    blocks, right = _backward_case(q, k, v, positions, causal)
    kept = [{n: x.clone() for n, x in b.items() if n != "causal"}
            for b in blocks]  # fmt: skip
    with forbid_autograd():
        ranks = _run(ring_attention_backward, blocks)
    for r, rank in enumerate(ranks):
        where = f" of rank {r} of {len(positions)}{when}"
        _assert_tensors(rank.result, right[r], GRADIENTS, where)
        for name, before in kept[r].items():
            now = blocks[r][name]
            assert_close(now, before, f"{name}{where}, which must not change,")


def test_ring_backward_equals_autograd():
    """Every rank's gradients are autograd's of the whole text."""
    torch.manual_seed(8)
    q = torch.randn(12, 6, dtype=torch.float64)
    k = torch.randn(12, 6, dtype=torch.float64)
    v = torch.randn(12, 5, dtype=torch.float64)
    _assert_gradients(q, k, v, _layout("contiguous", 12, 3))
    ### BEGIN HIDDEN TESTS
    _assert_gradients(q, k, v, _layout("shuffled", 12, 1), when=", alone,")
    _assert_gradients(q, k, v, _layout("contiguous", 12, 2))
    _assert_gradients(q, k, v, _layout("shuffled", 12, 4))
    q, k, v = torch.randn(3, 2, 3, 8, 5)
    _assert_gradients(q, k, v, _layout("striped", 8, 2), when=", of a batch")
    ### END HIDDEN TESTS


def test_ring_backward_hides_the_future():
    """Under a causal mask the gradients are autograd's, too."""
    torch.manual_seed(9)
    q, k = torch.randn(2, 16, 6, dtype=torch.float64)
    v = torch.randn(16, 5, dtype=torch.float64)
    for name in ("contiguous", "zigzag"):
        positions = _layout(name, 16, 4)
        _assert_gradients(q, k, v, positions, True, f" ({name}, causal)")
    ### BEGIN HIDDEN TESTS
    q, k, v = torch.randn(3, 2, 18, 5, dtype=torch.float64)
    for name in LAYOUTS:
        positions = _layout(name, 18, 3)
        _assert_gradients(q, k, v, positions, True, f" ({name}, causal)")
    ### END HIDDEN TESTS


def test_ring_backward_carries_gradients_home():
    """Each rank sends world times: a block and its gradients, no more."""
    torch.manual_seed(10)
    q, k = torch.randn(2, 20, 6, dtype=torch.float64)
    v = torch.randn(20, 5, dtype=torch.float64)
    most = 2 * (5 * 6 * 8 + 5 * 5 * 8) + 5 * 8  # bytes of 5 tokens
    what = "keys, values, positions and gradients"
    for causal in (False, True):
        positions = _layout("contiguous", 20, 4)
        blocks, _ = _backward_case(q, k, v, positions, causal)
        for r, rank in enumerate(_run(ring_attention_backward, blocks)):
            _assert_sends(rank, r, 4, 4, most, what)
    ### BEGIN HIDDEN TESTS
    _assert_gradients(q, k, v, positions)
    blocks, _ = _backward_case(q[:5], k[:5], v[:5], [torch.arange(5)])
    rank = _run(ring_attention_backward, blocks)[0]
    _assert_sends(rank, 0, 1, 0, most, what)
    ### END HIDDEN TESTS
