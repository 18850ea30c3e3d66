"""Checks of chapter 10; a student does not see the hidden lines."""

import math

import torch
import torch.nn.functional as F

from contextlab.checks import assert_close, assert_same
from contextlab.spies import Watch
from solutions.sparse import (
    bigbird_mask,
    global_mask,
    layer_pattern,
    receptive_field,
    sliding_window_attention,
    sliding_window_mask,
    strided_mask,
    topk_attention,
)


def _mask(n_queries, n_keys, sees):
    """Ask about each pair of positions, one by one."""
    first = n_keys - n_queries
    rows = [[sees(t, s) for s in range(n_keys)] for t in range(first, n_keys)]
    return torch.tensor(rows, dtype=torch.bool)


def _rows(*rows):
    """Make a mask of texts: "1" may attend, "." may not."""
    return torch.tensor([[sign == "1" for sign in row] for row in rows])


SIZES = ((1, 1), (4, 4), (9, 9), (1, 7), (3, 8))


def test_window_counts_the_token_itself():
    """A causal window of 3 is a token itself and the two before it."""
    expected = _rows("1....", "11...", "111..", ".111.", "..111")
    mask = sliding_window_mask(5, 5, 3)
    assert_close(mask, expected, "sliding_window_mask(5, 5, 3)")
    assert_close(
        sliding_window_mask(3, 3, 1),
        torch.eye(3) > 0,
        "sliding_window_mask(3, 3, 1)",
    )
    ### BEGIN HIDDEN TESTS
    for t, s in (*SIZES, (2, 4_099)):  # more than small numbers can count
        for window in (1, 2, 5, 100):
            expected = _mask(t, s, lambda i, j, w=window: 0 <= i - j < w)
            what = f"sliding_window_mask({t}, {s}, {window})"
            assert_close(sliding_window_mask(t, s, window), expected, what)
    ### END HIDDEN TESTS


def test_window_ends_at_the_last_key():
    """Two queries after four older tokens are the last two of six."""
    expected = _rows("..111.", "...111")
    mask = sliding_window_mask(2, 6, 3)
    assert_close(mask, expected, "sliding_window_mask(2, 6, 3)")


def test_window_of_both_sides():
    """Without causal, a window of 3 is a token and two on each side."""
    expected = _rows("111..", "1111.", "11111", ".1111", "..111")
    mask = sliding_window_mask(5, 5, 3, causal=False)
    what = "sliding_window_mask(5, 5, 3, causal=False)"
    assert_close(mask, expected, what)
    ### BEGIN HIDDEN TESTS
    for t, s in (*SIZES, (2, 4_099)):  # more than small numbers can count
        for window in (1, 2, 5, 100):
            expected = _mask(t, s, lambda i, j, w=window: -w < i - j < w)
            what = f"sliding_window_mask({t}, {s}, {window}, causal=False)"
            mask = sliding_window_mask(t, s, window, False)
            assert_close(mask, expected, what)
    ### END HIDDEN TESTS


def test_global_tokens_see_all_and_are_seen_by_all():
    """A global token has its whole row and its whole column."""
    expected = _rows(".1...", "11111", ".1...", ".1...", ".1...")
    mask = global_mask(5, 5, [1], causal=False)
    assert_close(mask, expected, "global_mask(5, 5, [1], causal=False)")
    ### BEGIN HIDDEN TESTS
    for t, s in SIZES:
        for positions in ([], [0], [s - 1], [s // 2, 0], range(0, s, 3)):
            expected = _mask(t, s, lambda i, j, p=positions: i in p or j in p)
            mask = global_mask(t, s, list(positions), causal=False)
            what = f"global_mask({t}, {s}, {list(positions)}, causal=False)"
            assert_close(mask, expected, what)
    ### END HIDDEN TESTS


def test_global_tokens_do_not_see_the_future():
    """With causal, the future stays hidden from and of global tokens."""
    expected = _rows(".....", "11...", ".1...", "1111.", ".1.1.")
    mask = global_mask(5, 5, [1, 3])
    assert_close(mask, expected, "global_mask(5, 5, [1, 3])")
    expected = _rows("11111.", "1...1.")
    mask = global_mask(2, 6, (0, 4))
    assert_close(mask, expected, "global_mask(2, 6, (0, 4))")
    ### BEGIN HIDDEN TESTS
    for t, s in SIZES:
        for positions in ([], [0], [s - 1], [s // 2, 0], range(0, s, 3)):
            expected = _mask(
                t, s, lambda i, j, p=positions: j <= i and (i in p or j in p)
            )
            mask = global_mask(t, s, list(positions), True)
            what = f"global_mask({t}, {s}, {list(positions)})"
            assert_close(mask, expected, what)
    ### END HIDDEN TESTS


def test_strides_are_counted_from_the_query():
    """With a stride of 3, a token sees itself, and 3 and 6 before it."""
    expected = _rows(
        "1......",
        ".1.....",
        "..1....",
        "1..1...",
        ".1..1..",
        "..1..1.",
        "1..1..1",
    )
    mask = strided_mask(7, 7, 3)
    assert_close(mask, expected, "strided_mask(7, 7, 3)")
    ### BEGIN HIDDEN TESTS
    for t, s in (*SIZES, (2, 4_099)):  # more than small numbers can count
        for stride in (1, 2, 5, 100):
            expected = _mask(
                t, s, lambda i, j, n=stride: j in range(i, -1, -n)
            )
            what = f"strided_mask({t}, {s}, {stride})"
            assert_close(strided_mask(t, s, stride), expected, what)
    ### END HIDDEN TESTS


def test_strides_of_the_last_queries():
    """The queries are the last of the keys, and may look both ways."""
    expected = _rows(".1..1.", "..1..1")
    assert_close(strided_mask(2, 6, 3), expected, "strided_mask(2, 6, 3)")
    expected = _rows("1..1.", ".1..1", "..1..", "1..1.", ".1..1")
    mask = strided_mask(5, 5, 3, causal=False)
    assert_close(mask, expected, "strided_mask(5, 5, 3, causal=False)")
    ### BEGIN HIDDEN TESTS
    for t, s in SIZES:
        for stride in (1, 2, 5):
            expected = _mask(
                t, s, lambda i, j, n=stride: abs(i - j) in range(0, 9, n)
            )
            what = f"strided_mask({t}, {s}, {stride}, causal=False)"
            mask = strided_mask(t, s, stride, False)
            assert_close(mask, expected, what)
    ### END HIDDEN TESTS


def _fixed(n_tokens, block, n_global):
    """Build what isn't random in BigBird's mask, pair by pair."""

    def sees(i, j):
        a, b = i // block, j // block
        return abs(a - b) <= 1 or a < n_global or b < n_global

    return _mask(n_tokens, n_tokens, sees)


def _blocks(mask, n_tokens, block):
    """Return which block sees which, and assert that blocks are whole."""
    name = f"bigbird_mask of {n_tokens} tokens in blocks of {block}"
    assert isinstance(mask, torch.Tensor), f"{name} should be a tensor."
    assert mask.dtype == torch.bool, f"{name} should be of torch.bool."
    assert mask.shape == (n_tokens, n_tokens), (
        f"{name} should have shape {(n_tokens, n_tokens)}, but has "
        f"{tuple(mask.shape)}."
    )
    blocks = mask[::block, ::block]
    whole = blocks.repeat_interleave(block, 0).repeat_interleave(block, 1)
    assert torch.equal(whole[:n_tokens, :n_tokens], mask), (
        "In bigbird_mask, all tokens of a block see the same, and are seen "
        "by the same: blocks attend to blocks."
    )
    return blocks


def test_bigbird_has_a_window_and_global_blocks():
    """Without random blocks: neighbours, and the first block with all."""
    expected = _rows(
        "11111111111",
        "11111111111",
        "111111.....",
        "111111.....",
        "11111111...",
        "11111111...",
        "11..111111.",
        "11..111111.",
        "11....11111",
        "11....11111",
        "11......111",
    )
    mask = bigbird_mask(11, 2, n_random=0)
    assert_close(mask, expected, "bigbird_mask(11, 2, n_random=0)")
    ### BEGIN HIDDEN TESTS
    for n, block, n_global in ((1, 1, 1), (12, 3, 0), (20, 3, 2), (7, 9, 1)):
        mask = bigbird_mask(n, block, n_global, 0)
        what = f"bigbird_mask({n}, {block}, n_global={n_global}, n_random=0)"
        assert_close(mask, _fixed(n, block, n_global), what)
    ### END HIDDEN TESTS


def test_bigbird_draws_that_many_new_blocks():
    """Each block sees as many random blocks as asked, all of them new."""
    fixed = _fixed(30, 3, 1)
    mask = bigbird_mask(30, 3, n_global=1, n_random=2, seed=1)
    blocks = _blocks(mask, 30, 3)
    assert (mask | ~fixed).all(), (
        "The random blocks come in addition: window and global blocks stay."
    )
    new = (blocks & ~fixed[::3, ::3]).sum(-1)
    expected = torch.full((10,), 2)
    expected[0] = 0  # a global block sees everything already
    assert_close(
        new, expected, "the number of new blocks that each block sees"
    )
    ### BEGIN HIDDEN TESTS
    for n, block, n_global, n_random in (
        (40, 2, 0, 3),
        (41, 2, 2, 1),
        (21, 3, 1, 4),  # where some see all that is left
        (5, 1, 1, 9),
    ):
        fixed = _fixed(n, block, n_global)
        left = (~fixed[::block, ::block]).sum(-1)
        mask = bigbird_mask(n, block, n_global, n_random)
        blocks = _blocks(mask, n, block)
        assert (mask | ~fixed).all(), (
            "The random blocks come in addition: window and global blocks "
            "stay."
        )
        new = (blocks & ~fixed[::block, ::block]).sum(-1)
        what = "the number of new blocks that each block sees"
        assert_close(new, left.clamp(max=n_random), what)
    ### END HIDDEN TESTS


def test_bigbird_is_random_and_repeatable():
    """A seed gives the same mask again, and another seed another mask."""
    n = 120
    fixed = _fixed(n, 1, 1)
    masks = [bigbird_mask(n, 1, seed=seed) for seed in (1, 2, 1)]
    for mask in masks:
        _blocks(mask, n, 1)
    again = "With the same seed, bigbird_mask should return the same mask."
    assert torch.equal(masks[0], masks[2]), again
    drawn = [(mask & ~fixed).double().argmax(-1)[1:] for mask in masks]
    assert (drawn[0] != drawn[1]).sum() > n // 2, (
        "With another seed, bigbird_mask should draw other blocks."
    )
    ### BEGIN HIDDEN TESTS
    at = torch.arange(1, n)
    for picks in drawn[:2]:  # each is one of some 116, for 119 blocks
        assert picks.unique().numel() > n // 3, (
            "Each block draws for itself: here many have drawn the same."
        )
        assert (picks - at).unique().numel() > n // 3, (
            "Each block draws for itself: here many look equally far."
        )
        assert n // 8 < (picks > at).sum() < n - n // 8, (
            "Random blocks lie on both sides: BigBird looks ahead, too."
        )
    both = (masks[0] & ~fixed) & (masks[0] & ~fixed).T
    assert both.sum() < n // 4, (
        "A random pair goes one way only: what is drawn for one block isn't "
        "drawn for the other."
    )
    assert torch.equal(bigbird_mask(n, 1), bigbird_mask(n, 1)), (
        "Without a seed, the seed is 0: bigbird_mask should return the same "
        "mask every time."
    )
    fixed = _fixed(16, 1, 1)
    counts, gaps = torch.zeros(2, 16)
    for seed in range(60):
        mask = bigbird_mask(16, 1, 1, 2, seed)
        new = _blocks(mask, 16, 1) & ~fixed
        assert (new.sum(-1)[1:] == 2).all(), (
            "With n_random = 2, each block should see two new ones."
        )
        counts += new.sum(0)
        pairs = new.nonzero()[:, 1].view(-1, 2)
        gaps += (pairs[:, 1] - pairs[:, 0]).bincount(minlength=16)
    left = (~fixed[1:]).double()
    expected = 60 * 2 * (left / left.sum(-1, keepdim=True)).sum(0)
    for block in range(1, 16):
        often, due = int(counts[block]), int(expected[block])
        assert due / 2 < often < due * 2, (
            "Blocks are drawn evenly from those that are left. Over 60 seeds, "
            f"about {due} draws should fall on block {block} of 16, but "
            f"{often} do."
        )
    assert gaps.max() < gaps.sum() / 2, (
        "Random blocks are drawn one by one: here two that a block has drawn "
        f"mostly lie {int(gaps.argmax())} apart."
    )
    ### END HIDDEN TESTS


def _windowed(q, k, v, window):
    """Attend under the whole mask, by PyTorch."""
    mask = _mask(q.shape[-2], k.shape[-2], lambda i, j: 0 <= i - j < window)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def test_window_attention_equals_masked_attention():
    """The output is that of attention under the mask of the window."""
    torch.manual_seed(1)
    q, k = torch.randn(2, 2, 3, 13, 6, dtype=torch.float64)
    v = torch.randn(2, 3, 13, 5, dtype=torch.float64)
    expected = {w: _windowed(q, k, v, w) for w in (1, 4, 13)}
    kept = q.clone(), k.clone(), v.clone()
    for window, right in expected.items():
        output = sliding_window_attention(q, k, v, window)
        assert_close(output, right, f"the output for a window of {window}")
    for name, now, before in zip("qkv", (q, k, v), kept, strict=True):
        assert_close(now, before, f"{name}, which must not change,")
    ### BEGIN HIDDEN TESTS
    for window in (2, 3, 5, 6, 12, 14, 50):
        right = _windowed(*kept, window)
        output = sliding_window_attention(q, k, v, window)
        assert_close(output, right, f"the output for a window of {window}")
    flat = [x[0, 0] for x in kept]
    right = _windowed(*flat, 4)
    output = sliding_window_attention(*flat, 4)
    assert_close(output, right, "the output without leading dimensions")
    single = [x.float() for x in kept]
    right = expected[4].float()
    output = sliding_window_attention(*single, window=4)
    assert_close(output, right, "the output in float32")
    ### END HIDDEN TESTS


def test_window_attention_of_the_last_queries():
    """The queries may be the last few of many positions."""
    torch.manual_seed(2)
    q = torch.randn(5, 6, dtype=torch.float64)
    k, v = torch.randn(2, 17, 6, dtype=torch.float64)
    right = _windowed(q, k, v, 4)
    output = sliding_window_attention(q, k, v, 4)
    assert_close(output, right, "the output of the last 5 of 17 positions")
    ### BEGIN HIDDEN TESTS
    for n_queries, window in ((1, 3), (2, 40), (5, 1), (5, 2), (4, 7)):
        right = _windowed(q[:n_queries], k, v, window)
        output = sliding_window_attention(q[:n_queries], k, v, window)
        what = f"the output of the last {n_queries}, window {window},"
        assert_close(output, right, what)
    ### END HIDDEN TESTS


def test_window_attention_never_holds_the_matrix():
    """512 tokens with a window of 8: no tensor as large as T × S / 8."""
    torch.manual_seed(3)
    q, k, v = torch.randn(3, 512, 5, dtype=torch.float64)
    right = _windowed(q[-9:], k, v, 8)
    with Watch() as seen:
        output = sliding_window_attention(q, k, v, 8)
    limit = 512 * 512  # bytes, at 8 a number
    assert seen.largest <= limit, (
        f"The largest tensor that you make has {seen.largest:,} bytes, more "
        f"than {limit:,}: it grows with T × S. A query has 8 keys to look at."
    )
    assert isinstance(output, torch.Tensor), "The output is a tensor."
    assert_close(output[-9:], right, "the output of the last 9 queries")


def test_window_attention_never_looks_far():
    """What stands far from a query makes no difference, not even NaN."""
    torch.manual_seed(4)
    q, k, v = torch.randn(3, 2, 60, 6, dtype=torch.float64)
    right = _windowed(q, k, v, 5)
    k[:, 30] = v[:, 30] = math.nan
    output = sliding_window_attention(q, k, v, 5)
    assert_close(output[:, :21], right[:, :21], "the output before a NaN")
    assert_close(
        output[:, 45:], right[:, 45:], "the output of queries far after a NaN"
    )
    ### BEGIN HIDDEN TESTS
    for n_queries, window in ((24, 2), (24, 5), (9, 3)):
        q, k, v = torch.randn(3, 24, 6, dtype=torch.float64)
        q = q[-n_queries:]
        places = torch.arange(24)[-n_queries:]
        right = _windowed(q, k, v, window)
        for at in range(24):
            spoiled = [k.clone(), v.clone()]
            spoiled[0][at] = spoiled[1][at] = math.nan
            output = sliding_window_attention(q, *spoiled, window)
            far = (places - at).abs() >= 2 * window
            what = (
                f"the output of queries {2 * window} or more positions away "
                f"from a NaN at position {at}, for a window of {window},"
            )
            assert_close(output[far], right[far], what)
    ### END HIDDEN TESTS


def test_reach_of_one_layer_and_of_two():
    """Two windows of 3 reach four tokens back, one reaches two."""
    window = _mask(8, 8, lambda i, j: 0 <= i - j < 3)
    kept = window.clone()
    one = receptive_field([window])
    assert_close(one, kept, "the reach of one layer")
    two = receptive_field([window, window])
    expected = _mask(8, 8, lambda i, j: 0 <= i - j < 5)
    assert_close(two, expected, "the reach of two layers")
    assert_close(window, kept, "the mask, which must not change,")
    ### BEGIN HIDDEN TESTS
    for n_layers in (3, 4, 9):
        expected = _mask(8, 8, lambda i, j, n=n_layers: 0 <= i - j <= 2 * n)
        what = f"the reach of {n_layers} layers"
        assert_close(receptive_field([kept] * n_layers), expected, what)
    causal = torch.ones(300, 300, dtype=torch.bool).tril()
    far = receptive_field([causal] * 60)  # more ways than numbers can hold
    assert_close(far, causal, "the reach of 60 full layers")
    ### END HIDDEN TESTS


def _reach_by_walking(masks):
    """Walk from the top to the bottom, one token at a time."""
    n_tokens = len(masks[0])
    rows = []
    for t in range(n_tokens):
        known = {t}
        for mask in reversed(masks):
            heard = (mask[i].nonzero().flatten().tolist() for i in known)
            known = known.union(*heard)
        rows.append([s in known for s in range(n_tokens)])
    return torch.tensor(rows)


def test_reach_depends_on_the_order_of_layers():
    """What a layer hears is what the layer before has found."""
    first = _rows("1...", "11..", "..1.", "...1")  # 1 hears 0
    second = _rows("1...", ".1..", "..1.", ".1.1")  # 3 hears 1
    expected = _rows("1...", "11..", "..1.", "11.1")  # so 3 knows of 0
    reach = receptive_field([first, second])
    assert_close(reach, expected, "the reach of two different layers")
    reach = receptive_field([second, first])
    assert_close(reach, first | second, "the reach in the opposite order")
    ### BEGIN HIDDEN TESTS
    right = _reach_by_walking((first, second))
    torch.manual_seed(5)
    for n_layers in (2, 3, 5):
        masks = [torch.rand(11, 11) < 0.12 for _ in range(n_layers)]
        expected = _reach_by_walking(masks)
        what = f"the reach of {n_layers} random layers"
        assert_close(receptive_field(masks), expected, what)
    reach = receptive_field((first, second))
    assert_close(reach, right, "the reach of two layers in a tuple")
    ### END HIDDEN TESTS


def test_reach_keeps_the_stream():
    """A token keeps what it knew, even where its mask hides itself."""
    before = _rows("1..", "1..", ".1.")  # each hears the one before alone
    expected = _rows("1..", "11.", "111")
    reach = receptive_field([before, before])
    assert_close(reach, expected, "the reach of two layers of previous tokens")
    nothing = torch.zeros(3, 3, dtype=torch.bool)
    reach = receptive_field([nothing])
    assert_close(reach, torch.eye(3) > 0, "the reach of a layer without pairs")


def test_layers_of_published_models():
    """Mistral windows every layer, Gemma 2 every other, Gemma 3 5 of 6."""
    assert_same(layer_pattern(3, 1, 0, 4_096), [4_096] * 3, "Mistral's layers")
    got = layer_pattern(5, 1, 1, 4_096)
    expected = [4_096, None, 4_096, None, 4_096]
    assert_same(got, expected, "the first 5 layers of Gemma 2")
    got = layer_pattern(8, 5, 1, 1_024)
    expected = [1_024] * 5 + [None] + [1_024] * 2
    assert_same(got, expected, "the first 8 layers of Gemma 3")
    ### BEGIN HIDDEN TESTS
    got = layer_pattern(26, 5, 1, 512)
    expected = [None if n % 6 == 0 else 512 for n in range(1, 27)]
    assert_same(got, expected, "26 layers, 5 of 6 with a window of 512")
    ### END HIDDEN TESTS


def test_layers_of_any_round():
    """Rounds may have several full layers, or none, or nothing else."""
    got = layer_pattern(7, 2, 3, 9)
    expected = [9, 9, None, None, None, 9, 9]
    assert_same(got, expected, "7 layers in rounds of 2 and 3")
    assert_same(layer_pattern(3, 0, 1, 9), [None] * 3, "3 full layers")
    ### BEGIN HIDDEN TESTS
    assert_same(layer_pattern(0, 1, 1, 9), [], "a model without layers")
    assert_same(layer_pattern(2, 5, 1, 7), [7, 7], "2 layers of a round of 6")
    assert_same(layer_pattern(4, 1, 2, 7), [7, None, None, 7], "4 layers")
    try:
        layer_pattern(3, 0, 0, 9)
    except ValueError:
        return
    except AssertionError:  # the answer's own
        pass
    raise AssertionError("A round without layers should be a ValueError.")
    ### END HIDDEN TESTS


def _topk(q, k, v, relevance, top_k):
    """Sort each query's past by relevance, and attend to the first few."""
    shift = k.shape[-2] - q.shape[-2]
    mask = torch.zeros(relevance.shape, dtype=torch.bool)
    for index in torch.cartesian_prod(
        *[torch.arange(n) for n in relevance.shape[:-1]]
    ).view(-1, relevance.ndim - 1):
        row = tuple(index.tolist())
        past = range(row[-1] + shift + 1)
        best = sorted(past, key=lambda s, r=row: -relevance[r][s].item())
        mask[row][best[:top_k]] = True
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _draw(seed, *lead, n_queries=7, n_keys=7):
    """Draw queries, keys, values and relevance, without ties."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(
            *lead, *shape, generator=generator, dtype=torch.float64
        )

    q, k = normal(n_queries, 6), normal(n_keys, 6)
    return q, k, normal(n_keys, 5), normal(n_queries, n_keys)


def test_topk_attends_to_the_most_relevant():
    """Each query attends to its top keys, by the softmax of q·k alone."""
    q, k, v, relevance = _draw(6, n_queries=3, n_keys=9)
    kept = [x.clone() for x in (q, k, v, relevance)]
    for top_k in (1, 3):
        right = _topk(*kept, top_k)
        output = topk_attention(q, k, v, relevance, top_k)
        assert_close(output, right, f"the output for top_k = {top_k}")
    names = ("q", "k", "v", "relevance")
    for name, now, before in zip(
        names, (q, k, v, relevance), kept, strict=True
    ):
        assert_close(now, before, f"{name}, which must not change,")
    ### BEGIN HIDDEN TESTS
    batch = _draw(7, 2, 3, n_queries=4, n_keys=11)
    right = _topk(*batch, 4)
    output = topk_attention(*batch, 4)
    assert_close(output, right, "the output of a batch")
    single = [x.float() for x in batch]
    output = topk_attention(*single, top_k=4)
    assert_close(output, right.float(), "the output in float32")
    shifted = [*batch[:3], batch[3] - 100.0]
    output = topk_attention(*shifted, 4)
    assert_close(output, right, "the output where relevance is negative")
    ### END HIDDEN TESTS


def test_topk_hides_the_future_first():
    """The future isn't picked, and early queries pick what there is."""
    q, k, v, relevance = _draw(8)
    relevance += torch.arange(7.0)  # the future looks relevant
    right = {n: _topk(q, k, v, relevance, n) for n in (2, 7, 50)}
    for top_k, expected in right.items():
        output = topk_attention(q, k, v, relevance, top_k)
        assert_close(output, expected, f"the output for top_k = {top_k}")
    ### BEGIN HIDDEN TESTS
    for t, s, top_k in ((5, 8, 3), (8, 8, 1), (1, 6, 2), (1, 1, 4)):
        drawn = _draw(9, 2, n_queries=t, n_keys=s)
        drawn[3].add_(3.0 * torch.arange(s))
        expected = _topk(*drawn, top_k)
        output = topk_attention(*drawn, top_k)
        what = f"the output of the last {t} of {s} for top_k = {top_k}"
        assert_close(output, expected, what)
    low = 1e12 * relevance - 1e14  # the order stays the same
    for top_k in (2, 5):
        output = topk_attention(q, k, v, low, top_k)
        what = f"the output for top_k = {top_k} and a relevance near -1e14"
        assert_close(output, _topk(q, k, v, low, top_k), what)
    ### END HIDDEN TESTS


def test_topk_fetches_what_was_picked_alone():
    """A key that nobody picks may hold NaN: it isn't fetched."""
    q, k, v, relevance = _draw(10, n_queries=5, n_keys=12)
    relevance[:, 4] = -9.0  # nobody's choice
    right = _topk(q, k, v, relevance, 3)
    k[4] = v[4] = math.nan
    output = topk_attention(q, k, v, relevance, 3)
    assert_close(output, right, "the output where an unpicked key is NaN")
