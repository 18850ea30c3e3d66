"""Mistakes of chapter 10, *Sparse attention*."""

import math

import torch
import torch.nn.functional as F

from autograder.misconceptions import Mistake
from contextlab.spies import Watch
from solutions.attention import attention
from solutions.sparse import bigbird_mask, sliding_window_mask

INF = math.inf
SIZES = ((3, 3), (5, 5), (1, 4), (2, 6))


def _normal(seed, *shape):
    """Draw a tensor from a seed and nothing else, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _masks(make, name, values):
    """Ask for masks of all sizes, causal and not; nothing is drawn."""
    for causal in (True, False):
        for value in values:
            for t, s in SIZES:
                inputs = {"n_queries": t, "n_keys": s, name: value}
                yield (
                    inputs | {"causal": causal},
                    lambda t=t, s=s, v=value, c=causal: make(t, s, v, c),
                )


def probe_sliding_window_mask(sliding_window_mask, seed):
    """Ask for narrow and wide windows."""
    yield from _masks(sliding_window_mask, "window", (1, 2, 3))


def probe_global_mask(global_mask, seed):
    """Ask for one global token, for two, and for none."""
    yield from _masks(global_mask, "positions", ([0], [1], [0, 2], []))


def probe_strided_mask(strided_mask, seed):
    """Ask for short and long strides."""
    yield from _masks(strided_mask, "stride", (1, 2, 3))


def probe_bigbird_mask(bigbird_mask, seed):
    """Ask for what isn't random, and for how much is random and where."""
    for n, block, n_global in ((4, 1, 1), (7, 2, 1), (9, 2, 0), (12, 2, 2)):
        inputs = {"n_tokens": n, "block": block, "n_global": n_global}
        yield (
            inputs | {"n_random": 0},
            lambda n=n, b=block, g=n_global: bigbird_mask(n, b, g, 0),
        )
    fixed = _reference_blocks(18, 2, 1)
    inputs = {"n_tokens": 18, "block": 2, "n_global": 1, "n_random": 2}
    yield (
        inputs | {"looked at": "new blocks"},
        lambda: (bigbird_mask(18, 2, 1, 2, seed)[::2, ::2] & ~fixed).sum(-1),
    )
    yield (
        inputs | {"looked at": "whole blocks"},
        lambda: _whole(bigbird_mask(18, 2, 1, 2, seed), 2),
    )
    yield (
        inputs | {"looked at": "what stays"},
        lambda: _stays(bigbird_mask(18, 2, 1, 2, seed), fixed),
    )
    many = {"n_tokens": 120, "block": 1, "seed": seed}
    yield many, lambda: _scatter(bigbird_mask, seed)
    yield (
        {"n_tokens": 120, "block": 1, "looked at": "the same mask again"},
        lambda: bool((bigbird_mask(120, 1) == bigbird_mask(120, 1)).all()),
    )
    inputs = {"n_tokens": 40, "block": 1, "n_random": 2, "seed": seed}
    yield (
        inputs | {"looked at": "more neighbours than not"},
        lambda: _neighbours(bigbird_mask(40, 1, 1, 2, seed)),
    )


def _reference_blocks(n_tokens, block, n_global):
    return bigbird_mask(n_tokens, block, n_global, 0)[::block, ::block]


def _neighbours(mask):
    new = mask & ~_reference_blocks(40, 1, 1)
    return int((new[:, 1:] & new[:, :-1]).sum()) > 20  # of 39 blocks


def _whole(mask, block):
    few = mask[::block, ::block]
    whole = few.repeat_interleave(block, 0).repeat_interleave(block, 1)
    return bool((whole[: len(mask), : len(mask)] == mask).all())


def _stays(mask, fixed):
    return bool((mask[::2, ::2] | ~fixed).all())


def _scatter(bigbird_mask, seed):
    """Say in a few words how 119 random blocks are scattered."""
    fixed = _reference_blocks(120, 1, 1)
    first, second, again = (
        bigbird_mask(120, 1, seed=s) & ~fixed for s in (seed, seed + 9, seed)
    )
    picks = first.double().argmax(-1)[1:]
    at = torch.arange(1, 120)
    return {
        "repeatable": bool(torch.equal(first, again)),
        "depends on the seed": not bool(torch.equal(first, second)),
        "different": int(picks.unique().numel()) > 40,
        "distances differ": int((picks - at).unique().numel()) > 40,
        "ahead": int((picks > at).sum()) > 15,
        "behind": int((picks < at).sum()) > 15,
        "mutual": int((first & first.T).sum()) > 30,
        "one each": bool((first.sum(-1)[1:] == 1).all()),
    }


def probe_sliding_window_attention(sliding_window_attention, seed):
    """Attend among few tokens and many, and among NaN; look at sizes."""
    for t, s, window in ((2, 2, 1), (3, 3, 2), (7, 7, 3), (2, 6, 3)):
        q, k, v = (_normal(seed + i, n, 3) for i, n in enumerate((t, s, s)))
        inputs = {"q": q, "k": k, "v": v, "window": window}
        yield inputs, lambda x=inputs: sliding_window_attention(**x)
    batch = [_normal(seed + i, 2, 9, 5) for i in range(3)]
    inputs = dict(zip("qkv", batch, strict=True)) | {"window": 4}
    yield inputs, lambda: sliding_window_attention(*batch, 4)
    long = [_normal(seed + i, 256, 3) for i in range(3)]
    poisoned = [x.clone() for x in long]
    poisoned[1][128] = poisoned[2][128] = math.nan
    inputs = dict(zip("qkv", poisoned, strict=True)) | {"window": 4}
    yield inputs, lambda: sliding_window_attention(*poisoned, 4)[160:]
    short = [_normal(seed + i, 12, 3) for i in range(3)]
    for at, rows in ((11, slice(0, 8)), (5, slice(9, 12))):
        near = [x.clone() for x in short]
        near[1][at] = near[2][at] = math.nan
        inputs = dict(zip("qkv", near, strict=True)) | {"window": 2}
        yield (
            inputs | {"looked at": f"rows {rows.start} to {rows.stop - 1}"},
            lambda x=near, r=rows: sliding_window_attention(*x, 2)[r],
        )

    def largest():
        with Watch() as seen:
            sliding_window_attention(*long, 4)
        return seen.largest > 256 * 256

    inputs = dict(zip("qkv", long, strict=True)) | {"window": 4}
    yield inputs | {"looked at": "a tensor as large as T × S / 8"}, largest


def probe_receptive_field(receptive_field, seed):
    """Look through one layer, two, different ones, and many."""
    before = torch.tensor([[1, 0, 0], [1, 0, 0], [0, 1, 0]]) > 0
    near = torch.ones(4, 4).tril().triu(-1) > 0
    one = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1]]) > 0
    two = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 1]]) > 0
    full = torch.ones(200, 200).tril() > 0
    for masks in (
        [near],
        [near, near],
        [near] * 3,
        [one, two],
        [two, one],
        [before],
        [before, before],
        [full] * 60,
    ):
        yield {"masks": masks}, lambda m=masks: receptive_field(m)


def probe_layer_pattern(layer_pattern, seed):
    """Ask for all kinds of rounds."""
    names = ("n_layers", "n_local", "n_full", "window")
    for asked in (
        (3, 1, 0, 9),
        (3, 0, 1, 9),
        (4, 1, 1, 9),
        (5, 1, 1, 9),
        (7, 2, 3, 9),
        (8, 5, 1, 4),
        (2, 5, 1, 4),
    ):
        inputs = dict(zip(names, asked, strict=True))
        yield inputs, lambda x=asked: layer_pattern(*x)


def probe_topk_attention(topk_attention, seed):
    """Pick one key, a few, more than there are; and among NaN."""
    for t, s, top_k in ((1, 3, 1), (1, 4, 2), (4, 4, 2), (3, 6, 3), (4, 4, 9)):
        sizes = ((t, 3), (s, 3), (s, 2), (t, s))
        drawn = [_normal(seed + i, *size) for i, size in enumerate(sizes)]
        names = ("q", "k", "v", "relevance")
        inputs = dict(zip(names, drawn, strict=True)) | {"top_k": top_k}
        yield inputs, lambda x=inputs: topk_attention(**x)
    q, k, v, relevance = (
        _normal(seed + i, *size)
        for i, size in enumerate(((3, 3), (8, 3), (8, 2), (3, 8)))
    )
    relevance[:, 2] = -9.0
    k[2] = v[2] = math.nan
    inputs = {"q": q, "k": k, "v": v, "relevance": relevance, "top_k": 2}
    yield inputs, lambda: topk_attention(q, k, v, relevance, 2)
    sizes = ((3, 3), (3, 3), (3, 2), (3, 3))
    drawn = [_normal(seed + i, *size) for i, size in enumerate(sizes)]
    drawn[3] = 1e12 * drawn[3] - 1e14
    names = ("q", "k", "v", "relevance")
    inputs = dict(zip(names, drawn, strict=True)) | {"top_k": 2}
    yield inputs, lambda: topk_attention(*drawn, 2)


PROBES = {
    "sliding_window_mask": probe_sliding_window_mask,
    "global_mask": probe_global_mask,
    "strided_mask": probe_strided_mask,
    "bigbird_mask": probe_bigbird_mask,
    "sliding_window_attention": probe_sliding_window_attention,
    "receptive_field": probe_receptive_field,
    "layer_pattern": probe_layer_pattern,
    "topk_attention": probe_topk_attention,
}


def _under_the_whole_mask(q, k, v, window):
    mask = sliding_window_mask(q.shape[-2], k.shape[-2], window)
    return attention(q, k, v, mask)[0]


def _chunks_of_all_keys(q, k, v, window):
    n_keys, outputs = k.shape[-2], []
    at = n_keys - q.shape[-2]
    for rows in q.split(window, -2):
        at += rows.shape[-2]  # one past the last of these queries
        mask = sliding_window_mask(rows.shape[-2], at, window)
        mask = F.pad(mask, (0, n_keys - at))
        outputs.append(attention(rows, k, v, mask)[0])
    return torch.cat(outputs, -2)


def _each_block_by_itself(q, k, v, window):
    shift = k.shape[-2] - q.shape[-2]
    outputs = []
    for t in range(shift, k.shape[-2]):
        near = slice(t // window * window, t + 1)
        part = q[..., t - shift : t - shift + 1, :]
        part = attention(part, k[..., near, :], v[..., near, :])
        outputs.append(part[0])
    return torch.cat(outputs, -2)


def _future_of_the_block(q, k, v, window):
    shift = k.shape[-2] - q.shape[-2]
    outputs = []
    for t in range(0, q.shape[-2], window):
        rows = q[..., t : t + window, :]
        end = t + rows.shape[-2] + shift
        near = slice(max(0, t + shift - window + 1), end)
        part = attention(rows, k[..., near, :], v[..., near, :])
        outputs.append(part[0])
    return torch.cat(outputs, -2)


def _rolled(q, k, v, window):
    n_queries, n_keys = q.shape[-2], k.shape[-2]
    places = torch.arange(n_keys - n_queries, n_keys)
    scores, values = [], []
    for back in range(min(window, n_keys)):
        keys = torch.roll(k, back, -2)[..., places, :]
        score = (q * keys).sum(-1) / math.sqrt(q.shape[-1])
        scores.append(score.masked_fill(places < back, -INF))
        values.append(torch.roll(v, back, -2)[..., places, :])
    weights = torch.stack(scores, -1).softmax(-1)
    return (weights[..., None] * torch.stack(values, -2)).sum(-2)


def _last_block_lost(q, k, v, window):
    whole = _under_the_whole_mask(q, k, v, window)
    n = q.shape[-2] // window * window
    return whole[..., :n, :]


def _same_for_all(n_tokens, block, n_global=1, n_random=1, seed=0):
    fixed = bigbird_mask(n_tokens, block, n_global, 0)
    n_blocks = -(-n_tokens // block)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(n_blocks, generator=generator)[:n_random]
    of_block = torch.arange(n_tokens) // block
    return fixed | torch.isin(of_block, drawn)


def _seed_ignored(n_tokens, block, n_global=1, n_random=1, seed=0):
    return bigbird_mask(n_tokens, block, n_global, n_random, 4)


def _never_twice(n_tokens, block, n_global=1, n_random=1, seed=0):
    fresh = int(torch.randint(2**31, ()))
    return bigbird_mask(n_tokens, block, n_global, n_random, fresh)


def _random_and_mutual(n_tokens, block, n_global=1, n_random=1, seed=0):
    mask = bigbird_mask(n_tokens, block, n_global, n_random, seed)
    return mask | mask.T


def _random_past(n_tokens, block, n_global=1, n_random=1, seed=0):
    n_blocks = -(-n_tokens // block)
    seen = bigbird_mask(n_blocks, 1, n_global, 0)
    generator = torch.Generator().manual_seed(seed)
    lots = torch.rand(n_blocks, n_blocks, generator=generator)
    lots = lots.masked_fill(seen | (torch.ones_like(lots).triu() > 0), 2.0)
    drawn = lots.argsort(-1)[:, :n_random]
    picked = torch.zeros_like(seen).scatter(1, drawn, True) & (lots < 2)
    of_block = torch.arange(n_tokens) // block
    return (seen | picked)[of_block][:, of_block]


def _zero_is_no_seed(n_tokens, block, n_global=1, n_random=1, seed=0):
    seed = seed or int(torch.randint(2**31, ()))
    return bigbird_mask(n_tokens, block, n_global, n_random, seed)


def _run_of_neighbours(n_tokens, block, n_global=1, n_random=1, seed=0):
    n_blocks = -(-n_tokens // block)
    seen = bigbird_mask(n_blocks, 1, n_global, 0)
    generator = torch.Generator().manual_seed(seed)
    for row in seen:
        left = (~row).nonzero().flatten()
        if len(left):
            first = torch.randint(len(left), (1,), generator=generator)
            run = first + torch.arange(min(n_random, len(left)))
            row[left[run % len(left)]] = True
    of_block = torch.arange(n_tokens) // block
    return seen[of_block][:, of_block]


def _random_tokens(n_tokens, block, n_global=1, n_random=1, seed=0):
    fixed = bigbird_mask(n_tokens, block, n_global, 0)
    generator = torch.Generator().manual_seed(seed)
    lots = torch.rand(n_tokens, n_tokens, generator=generator)
    drawn = lots.masked_fill(fixed, 2.0).argsort(-1)[:, :n_random]
    return fixed.scatter(1, drawn, True)


def _unions(masks):
    reach = torch.eye(len(masks[0])) > 0
    for mask in masks:
        reach = reach | mask
    return reach


def _masked_not_fetched(q, k, v, relevance, top_k):
    n_queries, n_keys = relevance.shape[-2:]
    past = torch.ones(n_queries, n_keys).tril(n_keys - n_queries) > 0
    relevance = relevance.masked_fill(~past, -INF)
    picked = relevance.topk(min(top_k, n_keys)).indices
    mask = torch.zeros_like(relevance, dtype=torch.bool)
    return attention(q, k, v, mask.scatter(-1, picked, True) & past)[0]


def _future_hidden_last(q, k, v, relevance, top_k):
    n_queries, n_keys = relevance.shape[-2:]
    past = torch.ones(n_queries, n_keys).tril(n_keys - n_queries) > 0
    picked = relevance.topk(min(top_k, n_keys)).indices
    may_see = past.expand_as(relevance).gather(-1, picked)
    keys, values = (
        torch.take_along_dim(x[..., None, :, :], picked[..., None], -2)
        for x in (k, v)
    )
    output = attention(q[..., None, :], keys, values, may_see[..., None, :])
    return output[0][..., 0, :]


def _not_renormalised(q, k, v, relevance, top_k):
    n_queries, n_keys = relevance.shape[-2:]
    past = torch.ones(n_queries, n_keys).tril(n_keys - n_queries) > 0
    _, weights = attention(q, k, k, past)
    relevance = relevance.masked_fill(~past, -INF)
    picked = relevance.topk(min(top_k, n_keys)).indices
    weights = weights.gather(-1, picked)
    values = torch.take_along_dim(v[..., None, :, :], picked[..., None], -2)
    return (weights[..., None, :] @ values)[..., 0, :]


def _rows_of_keys(q, k, v, relevance, top_k):
    n_queries, n_keys = relevance.shape[-2:]
    past = torch.ones(n_queries, n_keys).tril(n_keys - n_queries) > 0
    relevance = relevance.masked_fill(~past, -INF)
    picked = relevance.topk(min(top_k, n_queries), dim=-2).indices
    mask = torch.zeros_like(past.expand_as(relevance))
    return attention(q, k, v, mask.scatter(-2, picked, True) & past)[0]


_COUNTS = "test_window_counts_the_token_itself"
_BOTH = "test_window_of_both_sides"
_ALL = "test_global_tokens_see_all_and_are_seen_by_all"
_STRIDES = "test_strides_are_counted_from_the_query"
_FIXED = "test_bigbird_has_a_window_and_global_blocks"
_NEW = "test_bigbird_draws_that_many_new_blocks"
_RANDOM = "test_bigbird_is_random_and_repeatable"
_EQUAL = "test_window_attention_equals_masked_attention"
_LAST = "test_window_attention_of_the_last_queries"
_REACH = "test_reach_of_one_layer_and_of_two"
_ORDER = "test_reach_depends_on_the_order_of_layers"
_MODELS = "test_layers_of_published_models"
_ROUNDS = "test_layers_of_any_round"
_MOST = "test_topk_attends_to_the_most_relevant"
_FUTURE = "test_topk_hides_the_future_first"

MISTAKES = {
    "sliding_window_mask": [
        Mistake(
            "one key too many",
            "Your window of w holds w + 1 positions: w before the query and "
            "the query itself. Here its own position counts as one of w. "
            "Papers and libraries differ: always read which.",
            {"(back < window)": "(back <= window)"},
            _COUNTS,
        ),
        Mistake(
            "a token can't see itself",
            "Your window holds what comes before a token, but not the token "
            "itself: the first one has nothing to attend to.",
            {"(back >= 0)": "(back > 0)"},
            _COUNTS,
        ),
        Mistake(
            "the future is visible",
            "Your causal window lets a token see what comes after it. It "
            "looks back alone.",
            {"return (back >= 0) & (back < window)": "return back < window"},
            _COUNTS,
        ),
        Mistake(
            "causal is ignored",
            "Your window looks to both sides, whatever `causal` says.",
            {"if causal:": "if False:"},
            _COUNTS,
        ),
        Mistake(
            "never looks ahead",
            "Your window looks back alone, even without `causal`. Then it "
            "reaches as far to the other side, too.",
            {"if causal:": "if True:"},
            _BOTH,
        ),
        Mistake(
            "one key too many on both sides",
            "Without `causal`, your window holds w positions on each side. It "
            "is the token itself and w − 1 on each side: 2w − 1 in all.",
            {"back.abs() < window": "back.abs() <= window"},
            _BOTH,
        ),
        Mistake(
            "split between both sides",
            "Without `causal`, you give each side half of the window. Here "
            "each side gets w − 1 positions.",
            {"back.abs() < window": "back.abs() <= window // 2"},
            _BOTH,
        ),
        Mistake(
            "aligned top-left",
            "Your mask lines up the first query with the first key. The "
            "queries are the last T of S positions: query 0 stands at S − T.",
            {"keys[n_keys - n_queries :]": "keys[:n_queries]"},
            "test_window_ends_at_the_last_key",
        ),
        Mistake(
            "inverted",
            "Your mask is True where attention is forbidden. Here True = may "
            "attend.",
            {
                "return (back >= 0) & (back < window)": (
                    "return (back < 0) | (back >= window)"
                ),
                "back.abs() < window": "back.abs() >= window",
            },
            _COUNTS,
        ),
        Mistake(
            "blocks instead of windows",
            "You cut the text into blocks, and a token sees its own block "
            "alone. A window slides: each token has one of its own.",
            {
                "back = queries": (
                    "block = queries[:, None] // window == keys // window\n"
                    "    return block & (keys <= queries[:, None]) if causal "
                    "else block\n"
                    "    back = queries"
                )
            },
            _COUNTS,
        ),
    ],
    "global_mask": [
        Mistake(
            "rows without columns",
            "Your global tokens see all, but are not seen by all: you have "
            "their rows. Their columns belong to the mask, too.",
            {
                "is_global[first:, None] | is_global": (
                    "is_global[first:, None].expand(-1, n_keys)"
                )
            },
            _ALL,
        ),
        Mistake(
            "columns without rows",
            "Your global tokens are seen by all, but don't see all: you have "
            "their columns. Their rows belong to the mask, too.",
            {
                "is_global[first:, None] | is_global": (
                    "is_global.expand(n_queries, -1)"
                )
            },
            _ALL,
        ),
        Mistake(
            "global to global alone",
            "Your mask holds the pairs in which both tokens are global. One "
            "of the two is enough.",
            {
                "is_global[first:, None] | is_global": (
                    "is_global[first:, None] & is_global"
                )
            },
            _ALL,
        ),
        Mistake(
            "the future is visible",
            "Your global tokens see the future, or are seen from before they "
            "came. With `causal`, hide it: a language model must not look "
            "ahead, global or not.",
            {"mask.tril(first) if causal else mask": "mask"},
            "test_global_tokens_do_not_see_the_future",
        ),
        Mistake(
            "always causal",
            "You hide the future even where `causal` is False.",
            {"mask.tril(first) if causal else mask": "mask.tril(first)"},
            _ALL,
        ),
        Mistake(
            "positions counted among the queries",
            "You look for global tokens among the queries from 0 on. "
            "Positions count all S tokens, and query 0 stands at S − T.",
            {"is_global[first:, None]": "is_global[:n_queries, None]"},
            "test_global_tokens_do_not_see_the_future",
        ),
        Mistake(
            "causal aligned top-left",
            "You hide the future as if the first query stood at position 0. "
            "It stands at S − T.",
            {"mask.tril(first)": "mask.tril()"},
            "test_global_tokens_do_not_see_the_future",
        ),
        Mistake(
            "the first tokens, however many",
            "You make the first tokens global, as many as there are "
            "positions. The positions say which.",
            {
                "is_global[list(positions)] = True": (
                    "is_global[: len(positions)] = True"
                )
            },
            _ALL,
        ),
        Mistake(
            "with the diagonal",
            "Your mask lets every token see itself, too. It holds only what "
            "global tokens add; the window brings the rest.",
            {
                "mask = is_global[first:, None] | is_global": (
                    "mask = is_global[first:, None] | is_global\n"
                    "    mask = mask | (torch.eye(n_keys)[first:] > 0)"
                )
            },
            _ALL,
        ),
    ],
    "strided_mask": [
        Mistake(
            "fixed columns",
            "Your mask lets everyone see the same columns, the multiples of "
            "the stride. Strides are counted from each query: its distance "
            "to the key is the multiple.",
            {
                "mask = back % stride == 0": (
                    "mask = (keys % stride == 0).expand(n_queries, -1)"
                )
            },
            _STRIDES,
        ),
        Mistake(
            "a token can't see itself",
            "Your mask begins one stride back. A token sees itself, too: a "
            "distance of 0 is a multiple of the stride.",
            {
                "mask = back % stride == 0": (
                    "mask = (back % stride == 0) & (back != 0)"
                )
            },
            _STRIDES,
        ),
        Mistake(
            "off by one",
            "You count distances from the token before. A distance of 0, of "
            "one stride, of two: these are visible.",
            {"back % stride == 0": "(back + 1) % stride == 0"},
            _STRIDES,
        ),
        Mistake(
            "the future is visible",
            "Your mask is symmetric. With `causal`, the future is hidden.",
            {"mask & (back >= 0) if causal else mask": "mask"},
            _STRIDES,
        ),
        Mistake(
            "always causal",
            "You hide the future even where `causal` is False.",
            {"mask & (back >= 0) if causal else mask": "mask & (back >= 0)"},
            "test_strides_of_the_last_queries",
        ),
        Mistake(
            "what the stride leaves out",
            "Your mask hides every stride-th key and shows the others: turn "
            "it round.",
            {"back % stride == 0": "back % stride != 0"},
            _STRIDES,
        ),
        Mistake(
            "aligned top-left",
            "Your mask lines up the first query with the first key. The "
            "queries are the last T of S positions: query 0 stands at S − T.",
            {"keys[n_keys - n_queries :]": "keys[:n_queries]"},
            "test_strides_of_the_last_queries",
        ),
        Mistake(
            "with the window",
            "Your mask holds the last tokens, too. That is the other head of "
            "the pattern: join the two masks with | when you want both.",
            {
                "mask = back % stride == 0": (
                    "mask = (back % stride == 0) | (back.abs() < stride)"
                )
            },
            _STRIDES,
        ),
    ],
    "bigbird_mask": [
        Mistake(
            "a window of tokens",
            "Your window holds single tokens near the token. Blocks attend to "
            "blocks: all tokens of a block see three whole blocks.",
            {
                "return seen[of_block][:, of_block]": (
                    "at = torch.arange(n_tokens)\n"
                    "    wide = seen[of_block][:, of_block]\n"
                    "    near = (of_block[:, None] - of_block).abs() <= 1\n"
                    "    both = (of_block < n_global)[:, None] | (of_block < "
                    "n_global)\n"
                    "    far = (at[:, None] - at).abs() > block\n"
                    "    return wide & ~(near & far & ~both)"
                )
            },
            _FIXED,
        ),
        Mistake(
            "its own block alone",
            "Your blocks don't see their neighbours: the window is one block "
            "on each side, and its own.",
            {"(at[:, None] - at).abs() <= 1": "at[:, None] == at"},
            _FIXED,
        ),
        Mistake(
            "never looks ahead",
            "Your blocks see the block before them, but not the one after. "
            "BigBird reads a whole text at once: its window has two sides.",
            {
                "(at[:, None] - at).abs() <= 1": (
                    "((at[:, None] - at) >= 0) & ((at[:, None] - at) <= 1)"
                )
            },
            _FIXED,
        ),
        Mistake(
            "global rows alone",
            "Your global blocks see all, but are not seen by all.",
            {
                "seen | is_global[:, None] | is_global": (
                    "seen | is_global[:, None]"
                )
            },
            _FIXED,
        ),
        Mistake(
            "global columns alone",
            "Your global blocks are seen by all, but don't see all.",
            {"seen | is_global[:, None] | is_global": "seen | is_global"},
            _FIXED,
        ),
        Mistake(
            "global tokens instead of blocks",
            "You make the first n_global *tokens* global. They are blocks.",
            {
                "is_global = at < n_global": "is_global = at < 0",
                "return seen[of_block][:, of_block]": (
                    "first = torch.arange(n_tokens) < n_global\n"
                    "    return (\n"
                    "        seen[of_block][:, of_block] | first[:, None] "
                    "| first\n"
                    "    )"
                ),
            },
            _FIXED,
        ),
        Mistake(
            "the last block is lost",
            "You round the number of blocks down: the last, shorter block "
            "gets lost or breaks the mask.",
            {
                "-(-n_tokens // block)": "max(n_tokens // block, 1)",
                "torch.arange(n_tokens) // block": (
                    "(torch.arange(n_tokens) // block).clamp(max=n_blocks - 1)"
                ),
            },
            _FIXED,
        ),
        Mistake(
            "random blocks that were visible",
            "You draw among all blocks, so that some random blocks are ones "
            "that the window or a global block shows already. Draw among "
            "those that a block doesn't see yet.",
            {"lots = lots.masked_fill(seen, 2.0)": "lots = lots + 0.0"},
            _NEW,
        ),
        Mistake(
            "drawn with replacement",
            "You draw with replacement: the same block may come up twice, "
            "and then a block sees fewer than it should.",
            {
                "drawn = lots.argsort(-1)[:, :n_random]": (
                    "draws = [\n"
                    "        torch.rand(n_blocks, n_blocks, "
                    "generator=generator)\n"
                    "        .masked_fill(seen, 2.0)\n"
                    "        .argmin(-1)\n"
                    "        for _ in range(n_random)\n"
                    "    ]\n"
                    "    drawn = torch.stack(draws or [at], -1)"
                )
            },
            _NEW,
        ),
        Mistake(
            "a single random block",
            "You draw a single block for each row. `n_random` says how many.",
            {"[:, :n_random]": "[:, : min(n_random, 1)]"},
            _NEW,
        ),
        Mistake(
            "drawn for tokens",
            "You draw for each token. The tokens of a block share their "
            "random blocks, and see them whole: that is what makes it fast.",
            _random_tokens,
            _NEW,
        ),
        Mistake(
            "the same for all",
            "You draw once, and all blocks see the same random blocks: those "
            "are global columns. Each block draws for itself.",
            _same_for_all,
            _RANDOM,
        ),
        Mistake(
            "both ways",
            "You make random pairs mutual. What is drawn for one block isn't "
            "drawn for the other.",
            _random_and_mutual,
            _NEW,
        ),
        Mistake(
            "drawn from the past",
            "You draw from earlier blocks alone. BigBird reads a whole text "
            "at once: random blocks lie on both sides.",
            _random_past,
            _NEW,
        ),
        Mistake(
            "the seed is ignored",
            "Your mask is the same whatever the seed: pass the seed on.",
            _seed_ignored,
            _RANDOM,
        ),
        Mistake(
            "never the same twice",
            "With the same seed your mask should come out the same. Take all "
            "randomness from a generator with that seed.",
            _never_twice,
            _RANDOM,
        ),
        Mistake(
            "seed 0 taken for none",
            "You take a seed of 0 for no seed, and draw anew each time. 0 is "
            "a seed like any other: ask `is None`, or nothing at all.",
            _zero_is_no_seed,
            _RANDOM,
        ),
        Mistake(
            "a run of neighbours",
            "You draw where the random blocks of a block begin, and take "
            "neighbours from there on. Draw each of them.",
            _run_of_neighbours,
            _RANDOM,
        ),
    ],
    "sliding_window_attention": [
        Mistake(
            "the whole matrix, masked",
            "You make the whole T × S matrix and hide most of it: the right "
            "numbers, but at the full price. Take a few queries at a time, "
            "and cut out the keys that they can see.",
            _under_the_whole_mask,
            "test_window_attention_never_holds_the_matrix",
        ),
        Mistake(
            "a few queries, but all keys",
            "You take a few queries at a time and score them against *all* "
            "keys. Memory is small, but the work is still T × S: cut the "
            "keys, too.",
            _chunks_of_all_keys,
            "test_window_attention_never_looks_far",
        ),
        Mistake(
            "chunks wider than the window",
            "You take more than a window of queries at a time: the last of "
            "them is scored against keys two windows and more before it. "
            "Take `window` queries at a time.",
            {
                "range(0, n_queries, window)": (
                    "range(0, n_queries, 3 * window)"
                ),
                "start : start + window,": "start : start + 3 * window,",
            },
            "test_window_attention_never_looks_far",
        ),
        Mistake(
            "rolled round the ends",
            "You shift the keys by `roll`, which brings the last ones to the "
            "front: the first queries are scored against them, and a weight "
            "of 0 doesn't undo a NaN. Cut slices, or pad with zeros.",
            _rolled,
            "test_window_attention_never_looks_far",
        ),
        Mistake(
            "blocks that don't look back",
            "Your queries see the keys of their own block alone. The first "
            "query of a block has a whole window before it: start w − 1 keys "
            "earlier.",
            _each_block_by_itself,
            _EQUAL,
        ),
        Mistake(
            "no mask within the block",
            "You cut out the right keys for a block of queries, but each "
            "query sees them all: the future, and more than its window. "
            "Within the block a mask is still needed.",
            _future_of_the_block,
            _EQUAL,
        ),
        Mistake(
            "one key too few",
            "Your blocks begin one key late: the first query of each loses "
            "the oldest key of its window.",
            {"start + offset - window + 1": "start + offset - window + 2"},
            _EQUAL,
        ),
        Mistake(
            "a window of w + 1",
            "Your window holds w keys and the query's own. Its own counts as "
            "one of w.",
            {
                "start + offset - window + 1": "start + offset - window",
                "sliding_window_mask(rows.shape[-2], end - first, window)": (
                    "sliding_window_mask(\n"
                    "            rows.shape[-2], end - first, window + 1\n"
                    "        )"
                ),
            },
            _EQUAL,
        ),
        Mistake(
            "the last, shorter block is lost",
            "You leave out the queries that don't fill a block. The last "
            "block may be shorter.",
            _last_block_lost,
            _EQUAL,
        ),
        Mistake(
            "queries at the first keys",
            "You take the queries for the first T of S positions. They are "
            "the last: query t stands at t + S − T.",
            {"offset = n_keys - n_queries": "offset = n_keys - n_keys"},
            _LAST,
        ),
    ],
    "receptive_field": [
        Mistake(
            "one layer",
            "You return what one layer sees. What those tokens had heard in "
            "the layer before comes along: multiply the masks.",
            lambda masks: masks[-1] | (torch.eye(len(masks[0])) > 0),
            _REACH,
        ),
        Mistake(
            "united instead of multiplied",
            "You unite the masks. Layers work one after the other: t hears "
            "u, and u had heard s, so t knows of s.",
            _unions,
            _REACH,
        ),
        Mistake(
            "opposite order",
            "You put the layers in the opposite order. The last layer's mask "
            "stands on the left: it reads what the others have found.",
            {"for mask in masks:": "for mask in reversed(masks):"},
            _ORDER,
        ),
        Mistake(
            "multiplied on the wrong side",
            "You multiply each mask from the right, which is the opposite "
            "order of layers. A later layer reads what earlier ones have "
            "found: its mask stands on the left. And a token keeps what it "
            "had.",
            {
                "mask.to(reach.dtype) @ reach": "reach @ mask.to(reach.dtype)",
                "(heard + reach) > 0": "heard > 0",
            },
            _ORDER,
        ),
        Mistake(
            "the stream is forgotten",
            "Your tokens lose what they knew. A layer *adds* to the stream: "
            "a token keeps its own, even where its mask hides itself.",
            {"(heard + reach) > 0": "heard > 0"},
            "test_reach_keeps_the_stream",
        ),
        Mistake(
            "the stream kept in the first layer alone",
            "You let a token keep its own in the last step alone, or in the "
            "first. Every layer adds to the stream.",
            {
                "(heard + reach) > 0": "heard > 0",
                "return reach > 0": (
                    "return (reach + torch.eye(n_tokens)) > 0"
                ),
            },
            "test_reach_keeps_the_stream",
        ),
        Mistake(
            "ways counted until they overflow",
            "You count the ways through all layers. For many layers there "
            "are more of them than a number can hold. Only whether there is "
            "one matters: make it 0 or 1 after each layer.",
            {
                "((heard + reach) > 0).to(reach.dtype)": (
                    "(heard + reach).to(torch.uint8).to(reach.dtype)"
                )
            },
            _REACH,
        ),
        Mistake(
            "transposed",
            "Your rows are the tokens that are heard. Entry (t, s) belongs to "
            "the output of t and the token s.",
            {"return reach > 0": "return (reach > 0).T"},
            _REACH,
        ),
        Mistake(
            "numbers instead of booleans",
            "You return how many ways there are, or ones and zeros. Say only "
            "whether there is one: a boolean mask.",
            {"return reach > 0": "return reach"},
            _REACH,
        ),
        Mistake(
            "one layer too many",
            "You go through one layer more than there are: start from what a "
            "token knows before the first layer, itself alone.",
            {
                "torch.eye(n_tokens, device=masks[0].device)": (
                    "(masks[0] | (torch.eye(n_tokens) > 0)).float()"
                )
            },
            _REACH,
        ),
    ],
    "layer_pattern": [
        Mistake(
            "full layers first",
            "Your rounds begin with the layers that see everything. They "
            "begin with the windows.",
            {"layer % in_round < n_local": "layer % in_round >= n_full"},
            _MODELS,
        ),
        Mistake(
            "windows and full layers swapped",
            "You took the windows for the full layers: 5 to 1 means five "
            "windows and one full layer.",
            {
                "window if layer % in_round < n_local else None": (
                    "None if layer % in_round < n_local else window"
                )
            },
            _MODELS,
        ),
        Mistake(
            "off by one",
            "You count layers from 1: each round begins one layer early, with "
            "a window too few in the first.",
            {"layer % in_round < n_local": "(layer + 1) % in_round < n_local"},
            _MODELS,
        ),
        Mistake(
            "whole rounds alone",
            "You fill whole rounds and leave out the layers that remain. The "
            "last round is cut short.",
            {
                "for layer in range(n_layers)": (
                    "for layer in range(n_layers // in_round * in_round)"
                )
            },
            _MODELS,
        ),
        Mistake(
            "a whole round at the end",
            "Your list is longer than the model: the last round is cut short "
            "where the layers end.",
            {
                "for layer in range(n_layers)": (
                    "for layer in range(-(-n_layers // in_round) * in_round)"
                )
            },
            _MODELS,
        ),
        Mistake(
            "one full layer a round",
            "You close each round with a single full layer. There are "
            "`n_full` of them, which may be none.",
            {"in_round = n_local + n_full": "in_round = n_local + 1"},
            _ROUNDS,
        ),
        Mistake(
            "the last layer is full",
            "You let the last layer see everything. It is a layer like the "
            "others.",
            {
                "for layer in range(n_layers)": (
                    "for layer in range(n_layers - 1)"
                ),
                "    ]\n": "    ] + [None] * (n_layers > 0)\n",
            },
            _MODELS,
        ),
        Mistake(
            "booleans instead of windows",
            "You say which layers have a window. Return the window itself, "
            "and None for a layer without one.",
            {
                "window if layer % in_round < n_local else None": (
                    "layer % in_round < n_local"
                )
            },
            _MODELS,
        ),
        Mistake(
            "0 instead of None",
            "You return 0 for a layer that sees everything. A window of 0 "
            "would see nothing: return None.",
            {"else None": "else 0"},
            _MODELS,
        ),
        Mistake(
            "blocks of layers instead of rounds",
            "You put all windows at the bottom and all full layers on top. "
            "They alternate in rounds.",
            {
                "layer % in_round < n_local": (
                    "layer * in_round < n_local * n_layers"
                )
            },
            _MODELS,
        ),
    ],
    "topk_attention": [
        Mistake(
            "picked before the future is hidden",
            "You pick the top keys first and hide the future afterwards: "
            "picks are wasted on keys that a query can't see. Hide the "
            "future before you pick.",
            _future_hidden_last,
            _FUTURE,
        ),
        Mistake(
            "the future is picked",
            "Your queries pick keys that come after them. Hide the future.",
            {"relevance.masked_fill(~past, -torch.inf)": "relevance + 0.0"},
            _FUTURE,
        ),
        Mistake(
            "future hidden by a zero",
            "You hide the future by a relevance of 0. Relevance may be "
            "negative, and then 0 is picked: use −∞.",
            {
                "relevance.masked_fill(~past, -torch.inf)": (
                    "relevance.masked_fill(~past, 0.0)"
                )
            },
            _FUTURE,
        ),
        Mistake(
            "future hidden by a large number",
            "You hide the future by a large negative number. Relevance may "
            "be lower still, and then the future is picked: use −∞.",
            {
                "masked_fill(~past, -torch.inf)": "masked_fill(~past, -1e9)",
                "best > -torch.inf": "best > -1e9",
            },
            _FUTURE,
        ),
        Mistake(
            "aligned top-left",
            "You hide the future as if the first query stood at position 0. "
            "The queries are the last T of S positions.",
            {"past = past.tril(n_keys - n_queries)": "past = past.tril()"},
            _MOST,
        ),
        Mistake(
            "picked by the scores",
            "You pick by q·k. Relevance decides who is picked; the scores "
            "only weigh what was picked.",
            {
                "relevance = relevance.masked_fill(": (
                    "relevance = q @ k.mT\n"
                    "    relevance = relevance.masked_fill("
                )
            },
            _MOST,
        ),
        Mistake(
            "weighed by relevance",
            "You weigh what was picked by its relevance. Weights are the "
            "softmax of q·k / √D; relevance only picks.",
            {
                "output, _ = attention(": (
                    "output = best.softmax(-1)[..., None, :] @ values\n"
                    "    keys, _ = attention("
                )
            },
            _MOST,
        ),
        Mistake(
            "the least relevant",
            "You pick the keys of lowest relevance. Take the largest.",
            {
                "relevance.masked_fill(~past, -torch.inf)": (
                    "(-relevance).masked_fill(~past, -torch.inf)"
                )
            },
            _MOST,
        ),
        Mistake(
            "weights of all keys",
            "You take the softmax over all keys and keep the picked weights: "
            "they add up to less than one. The softmax is over the picked "
            "keys alone.",
            _not_renormalised,
            _MOST,
        ),
        Mistake(
            "the queries of each key",
            "You pick along the wrong dimension: for each key its queries. "
            "Pick for each query its keys, along the last dimension.",
            _rows_of_keys,
            _MOST,
        ),
        Mistake(
            "one key more",
            "You pick one key more than asked, such as the query's own in "
            "addition. The `top_k` are all that it gets.",
            {"min(top_k, n_keys)": "min(top_k + 1, n_keys)"},
            _MOST,
        ),
        Mistake(
            "more keys than there are",
            "You ask for top_k keys where there are fewer: cap it at S.",
            {"min(top_k, n_keys)": "top_k"},
            _FUTURE,
        ),
        Mistake(
            "hidden picks are weighed",
            "Early queries see fewer than top_k keys, and the rest of their "
            "picks are hidden keys. Give those no weight.",
            {"may_see = best > -torch.inf": "may_see = best == best"},
            _FUTURE,
        ),
        Mistake(
            "masked, not fetched",
            "You score every key and hide what wasn't picked: the right "
            "numbers, but all keys and values are read. Fetch the picked "
            "ones, and attend to those.",
            _masked_not_fetched,
            "test_topk_fetches_what_was_picked_alone",
        ),
    ],
}
