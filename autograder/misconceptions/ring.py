"""Mistakes of chapter 11, *Ring attention*."""

import math

import torch

from autograder.misconceptions import Mistake
from contextlab.ring import RankError, simulate
from solutions.flash import merge_attention
from solutions.ring import block_attention

INF = math.inf


def _normal(seed, *shape):
    """Draw a tensor from a seed and nothing else, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _layouts(n, world):
    """Return positions: contiguous, in a zigzag, and in no order."""
    chunks = torch.arange(n).reshape(2 * world, -1)
    zigzag = [
        torch.cat([chunks[r], chunks[2 * world - 1 - r]]) for r in range(world)
    ]
    mixed = [own.flip(0) for own in zigzag]
    return list(torch.arange(n).reshape(world, -1)), zigzag, mixed


def _ring(function, blocks):
    """Return what each rank has done, or why the ring stood still."""
    try:
        ranks = simulate(function, blocks)
    except RankError as error:
        return str(error)
    return [[rank.result, rank.sends, rank.sent_bytes] for rank in ranks]


def _cases(seed):
    """Yield texts and how they are dealt, the smallest first."""
    two = list(torch.arange(2).reshape(2, -1))
    in_order, zigzag, mixed = _layouts(6, 3)
    for positions, causal in (
        (two, False),
        (two, True),
        (in_order, False),
        (in_order, True),
        (zigzag, True),
        (mixed, True),
    ):
        n = len(positions) * len(positions[0])
        text = [
            _normal(seed + i, n, width) for i, width in enumerate((2, 2, 3))
        ]
        yield text, positions, causal


def probe_ring_attention(ring_attention, seed):
    """Run rings of two and three ranks, and a long one that is watched."""
    for text, positions, causal in _cases(seed):
        blocks = [
            {
                **{n: x[p] for n, x in zip("qkv", text, strict=True)},
                "positions": p,
                "causal": causal,
            }
            for p in positions
        ]
        inputs = dict(zip("qkv", text, strict=True))
        inputs |= {"positions": positions, "causal": causal}
        yield inputs, lambda blocks=blocks: _ring(ring_attention, blocks)

    long = [
        _normal(seed + i, 24, width) for i, width in enumerate((96, 96, 3))
    ]
    positions = list(torch.arange(24).reshape(6, -1))
    blocks = [
        {n: x[p] for n, x in zip("qkv", long, strict=True)} | {"positions": p}
        for p in positions
    ]

    def held():
        ranks = simulate(ring_attention, blocks, weigh=True)
        return max(rank.peak_bytes for rank in ranks) > 4.2 * 4 * 96 * 8

    yield {"does a rank of six hold all keys?": False}, held


def probe_causal_work(causal_work, seed):
    """Count for two and three ranks, in several layouts."""
    for n, world in ((2, 2), (4, 2), (6, 3), (12, 3)):
        layouts = [list(torch.arange(n).reshape(world, -1))]
        if n == 12:
            layouts = _layouts(n, world)
        for positions in layouts:
            given = [p.clone() for p in positions]
            yield {"positions": positions}, lambda p=given: causal_work(p)


def probe_zigzag_split(zigzag_split, seed):
    """Deal four tokens, then eight, along several dimensions, and too few."""
    for n, world in ((2, 1), (4, 2), (8, 2), (12, 3), (5, 2), (6, 2)):
        x = torch.arange(n)
        inputs = {"x": x, "world": world, "dim": 0}
        yield inputs, lambda x=x, w=world: zigzag_split(x.clone(), w, dim=0)
    x = _normal(seed, 8, 8)
    for dim in (-2, -1):
        inputs = {"x": x, "world": 2, "dim": dim}
        yield inputs, lambda dim=dim: zigzag_split(x.clone(), 2, dim=dim)


def probe_zigzag_merge(zigzag_merge, seed):
    """Put together the parts of two and of three ranks."""
    for n, world in ((4, 2), (8, 2), (12, 3)):
        _, parts, _ = _layouts(n, world)
        inputs = {"parts": parts, "dim": 0}
        yield inputs, lambda p=parts: zigzag_merge(list(p), dim=0)
    parts = [_normal(seed + r, 4, 4) for r in range(2)]
    for dim in (-2, -1):
        inputs = {"parts": parts, "dim": dim}
        yield inputs, lambda dim=dim: zigzag_merge(list(parts), dim=dim)


def probe_ring_attention_backward(backward, seed):
    """Send gradients back through rings of two and three ranks."""
    names = ("grad_output", "q", "k", "v", "output", "lse")
    for (q, k, v), positions, causal in _cases(seed):
        scores = q @ k.mT / math.sqrt(2)
        if causal:
            future = torch.ones_like(scores, dtype=torch.bool).triu(1)
            scores = scores.masked_fill(future, -INF)
        lse = scores.logsumexp(-1)
        output = scores.softmax(-1) @ v
        tensors = (_normal(seed + 3, *v.shape), q, k, v, output, lse)
        blocks = [
            {
                **{n: x[p] for n, x in zip(names, tensors, strict=True)},
                "positions": p,
                "causal": causal,
            }
            for p in positions
        ]
        inputs = dict(zip(names, tensors, strict=True))
        inputs |= {"positions": positions, "causal": causal}
        yield inputs, lambda blocks=blocks: _ring(backward, blocks)


PROBES = {
    "ring_attention": probe_ring_attention,
    "causal_work": probe_causal_work,
    "zigzag_split": probe_zigzag_split,
    "zigzag_merge": probe_zigzag_merge,
    "ring_attention_backward": probe_ring_attention_backward,
}


def _stops_at_the_future(q, k, v, positions, exchange, world, causal=False):
    at = positions
    output, lse = block_attention(q, k, v, positions, at, causal)
    for _ in range(world - 1):
        k, v, at = exchange(k, v, at)
        if causal and at.min() > positions.max():
            break
        part = block_attention(q, k, v, positions, at, causal)
        output, lse = merge_attention(output, lse, *part)
    return output, lse


def _sends_after_the_last(q, k, v, positions, exchange, world, causal=False):
    output, lse = torch.zeros_like(q[..., :1]) * v, q[..., 0] * 0 - INF
    at = positions
    for _ in range(world):
        part = block_attention(q, k, v, positions, at, causal)
        output, lse = merge_attention(output, lse, *part)
        k, v, at = exchange(k, v, at)
    return output, lse


def _gathers(q, k, v, positions, exchange, world, causal=False):
    blocks = [(k, v, positions)]
    for _ in range(world - 1):
        blocks.append(exchange(*blocks[-1]))
    output, lse = torch.zeros_like(q[..., :1]) * v, q[..., 0] * 0 - INF
    for k, v, at in blocks:
        part = block_attention(q, k, v, positions, at, causal)
        output, lse = merge_attention(output, lse, *part)
    return output, lse


def _all_or_nothing(q, k, v, positions, exchange, world, causal=False):
    at = positions
    output, lse = block_attention(q, k, v, positions, at, causal)
    for _ in range(world - 1):
        k, v, at = exchange(k, v, at)
        if not causal or at[0] < positions[0]:
            part = block_attention(q, k, v, positions, at, False)
            output, lse = merge_attention(output, lse, *part)
    return output, lse


def _work_of_whole_blocks(positions):
    world = len(positions)
    work = torch.zeros(world, world, dtype=torch.int64)
    for rank, queries in enumerate(positions):
        size = len(queries)
        work[rank, 0] = size * (size + 1) // 2
        work[rank, 1 : rank + 1] = size * size
    return work


def _split_by_stripes(x, world, dim=-2):
    if x.shape[dim] % (2 * world):
        raise ValueError("not equal")
    every = torch.arange(x.shape[dim])
    return [x.index_select(dim, every[r::world]) for r in range(world)]


def _split_in_order(x, world, dim=-2):
    if x.shape[dim] % (2 * world):
        raise ValueError("not equal")
    return list(x.chunk(world, dim))


def _merge_stripes(parts, dim=-2):
    tokens = torch.stack([part.movedim(dim, 0) for part in parts], 1)
    return tokens.flatten(0, 1).movedim(0, dim)


TRAVEL = "k, v, k_positions = exchange(k, v, k_positions)"
PART = "part = block_attention(q, k, v, positions, k_positions, causal)"
MERGE = "output, lse = merge_attention(output, lse, *part)"
BACK = (
    "k, v, k_positions, grad_k, grad_v = exchange(\n"
    "            k, v, k_positions, grad_k, grad_v\n        )"
)
THERE = "lse, positions, k_positions, causal"
EQUALS = "test_ring_equals_full_attention"
CAUSAL = "test_ring_hides_the_future"
SENDS = "test_ring_sends_one_block_a_step"
BY_HAND = "test_causal_work_by_hand"
ANY_LAYOUT = "test_causal_work_of_any_layout"
DEALS = "test_zigzag_deals_from_both_ends"
CUTS = "test_zigzag_cuts_any_dimension"
REFUSES = "test_zigzag_refuses_what_does_not_divide"
MERGES = "test_zigzag_merge_by_hand"
MERGES_ANY = "test_zigzag_merge_along_any_dimension"
GRADIENTS = "test_ring_backward_equals_autograd"
CAUSAL_BACK = "test_ring_backward_hides_the_future"
HOME = "test_ring_backward_carries_gradients_home"

MISTAKES = {
    "ring_attention": [
        Mistake(
            "results travel",
            "You pass on outputs and log-sum-exps. Those are about your own "
            "queries; the next rank has others. It needs your keys and "
            "values.",
            {
                TRAVEL: "part = exchange(output, lse)",
                f"        {PART}\n": "",
            },
            EQUALS,
        ),
        Mistake(
            "own block alone",
            "Your ranks attend to their own block and to no other. Send keys "
            "and values round, and merge what each block gives.",
            {"range(world - 1)": "range(0)"},
            EQUALS,
        ),
        Mistake(
            "own block skipped",
            "You begin with what comes first, and never attend to your own "
            "block. Do that before the first exchange.",
            {
                "output, lse = block_attention"
                "(q, k, v, positions, positions, causal)": (
                    "output = torch.zeros_like(q[..., :1]) * v\n"
                    "    lse = q[..., 0] * 0 - math.inf"
                )
            },
            EQUALS,
        ),
        Mistake(
            "plain mean of the blocks",
            "You average the blocks' outputs. A block counts by its "
            "log-sum-exp: merge as in chapter 5.",
            {
                MERGE: (
                    "output = output + part[0]\n"
                    "        lse = torch.logaddexp(lse, part[1])"
                ),
                "return output, lse": "return output / world, lse",
            },
            EQUALS,
        ),
        Mistake(
            "LSE not merged",
            "You merge the outputs but keep the first block's LSE. The next "
            "merge then weighs all that came before as if it were one block.",
            {MERGE: "output, _ = merge_attention(output, lse, *part)"},
            EQUALS,
        ),
        Mistake(
            "its own block passed on again",
            "You send your own block in every step, so you only ever hear of "
            "the previous rank's. Pass on what you have just got.",
            {
                TRAVEL: (
                    "other_k, other_v, k_positions = exchange(k, v, positions)"
                ),
                PART: (
                    "part = block_attention(\n"
                    "            q, other_k, other_v, positions, "
                    "k_positions, causal\n        )"
                ),
            },
            EQUALS,
        ),
        Mistake(
            "values stay",
            "Your keys travel and your values stay. A weight would then go to "
            "a value of another token: send both.",
            {TRAVEL: "k, k_positions = exchange(k, k_positions)"},
            EQUALS,
        ),
        Mistake(
            "own block twice",
            "You go round once more than needed: after world - 1 steps your "
            "own block is next, and is counted a second time.",
            {"range(world - 1)": "range(world)"},
            EQUALS,
        ),
        Mistake(
            "positions stay",
            "You mask a block that came from elsewhere as if it stood where "
            "your own does. Its positions must travel with it.",
            {TRAVEL: "k, v = exchange(k, v)"},
            CAUSAL,
        ),
        Mistake(
            "positions within the block",
            "You compare places within the blocks. A causal mask compares "
            "positions in the text: those of the queries and of the block "
            "that is here.",
            {
                PART: (
                    "here = torch.arange(len(positions))\n        "
                    "part = block_attention(q, k, v, here, here, causal)"
                )
            },
            CAUSAL,
        ),
        Mistake(
            "mask at home only",
            "You mask your own block alone. What comes from other ranks holds "
            "the future, too.",
            {
                "q, k, v, positions, k_positions, causal": (
                    "q, k, v, positions, k_positions, False"
                )
            },
            CAUSAL,
        ),
        Mistake(
            "causal ignored",
            "You never mask: pass causal on to block_attention.",
            {
                "q, k, v, positions, positions, causal": (
                    "q, k, v, positions, positions, False"
                ),
                "q, k, v, positions, k_positions, causal": (
                    "q, k, v, positions, k_positions, False"
                ),
            },
            CAUSAL,
        ),
        Mistake(
            "all of a block or nothing",
            "You take a block whole or leave it. That is right where each "
            "rank has one piece of the text; in a zigzag a block can be seen "
            "in part.",
            _all_or_nothing,
            CAUSAL,
        ),
        Mistake(
            "stops at the future",
            "You leave the loop at a block that the mask hides. You may skip "
            "the computing, but the others still need what you pass on.",
            _stops_at_the_future,
            SENDS,
        ),
        Mistake(
            "sends after the last block",
            "You exchange once more after the last block. Your own comes home "
            "and nobody needs it: world - 1 times is enough.",
            _sends_after_the_last,
            SENDS,
        ),
        Mistake(
            "one call for each tensor",
            "You call exchange for keys, values and positions apart. Each "
            "call waits for the network: send them together.",
            {
                TRAVEL: (
                    "(k,), (v,), (k_positions,) = "
                    "exchange(k), exchange(v), exchange(k_positions)"
                )
            },
            SENDS,
        ),
        Mistake(
            "queries sent along",
            "You send the queries along. They stay: each rank asks for its "
            "own tokens.",
            {
                TRAVEL: (
                    "_, k, v, k_positions = exchange(q, k, v, k_positions)"
                )
            },
            SENDS,
        ),
        Mistake(
            "gathers all blocks",
            "You collect all blocks and compute afterwards. Then every rank "
            "holds the whole text: the ring is there to avoid just that.",
            _gathers,
            "test_ring_never_gathers_the_text",
        ),
    ],
    "causal_work": [
        Mistake(
            "own position left out",
            "You count only keys before the query. A token also attends to "
            "itself: ≤, not <.",
            {"keys <= queries": "keys < queries"},
            BY_HAND,
        ),
        Mistake(
            "the past hidden",
            "You count the keys that come after the query. Turn the "
            "comparison round.",
            {"keys <= queries": "keys >= queries"},
            BY_HAND,
        ),
        Mistake(
            "no mask",
            "You count all pairs. Under the causal mask many of them are "
            "never scored.",
            {"(keys <= queries[:, None]).sum()": ("len(keys) * len(queries)")},
            BY_HAND,
        ),
        Mistake(
            "ring turned round",
            "You let the next rank's keys come first. Keys go to the next "
            "rank, so they come from the previous: (r - t) mod world.",
            {"(rank - step) % world": "(rank + step) % world"},
            BY_HAND,
        ),
        Mistake(
            "columns by owner",
            "Your columns are the ranks that own the keys. They should be the "
            "steps at which they come.",
            {"work[rank, step]": "work[rank, (rank - step) % world]"},
            BY_HAND,
        ),
        Mistake(
            "rows and columns swapped",
            "Your rows are steps and your columns ranks. It should be the "
            "other way round.",
            {"work[rank, step]": "work[step, rank]"},
            BY_HAND,
        ),
        Mistake(
            "totals only",
            "You return one number a rank. How the work is spread over the "
            "steps decides how long everybody waits: return them all.",
            {"return work": "return work.sum(1)"},
            BY_HAND,
        ),
        Mistake(
            "no whole numbers",
            "You return floats. Pairs are counted: int64.",
            {"dtype=torch.int64": "dtype=torch.float64"},
            BY_HAND,
        ),
        Mistake(
            "positions within the block",
            "You compare places within the blocks instead of positions in the "
            "text.",
            {
                "(keys <= queries[:, None]).sum()": (
                    "torch.ones(len(queries), len(keys)).tril().sum()"
                )
            },
            BY_HAND,
        ),
        Mistake(
            "one piece of the text assumed",
            "You take it that each rank has one piece of the text, in order. "
            "Compare the positions that are given: they may be dealt in any "
            "way.",
            _work_of_whole_blocks,
            ANY_LAYOUT,
        ),
    ],
    "zigzag_split": [
        Mistake(
            "one piece each",
            "You give each rank one piece of the text. Then the last has far "
            "more to do than the first: give each a chunk from either end.",
            _split_in_order,
            DEALS,
        ),
        Mistake(
            "stripes",
            "You deal token by token. That is striped attention; a zigzag "
            "deals two whole chunks to each rank.",
            _split_by_stripes,
            DEALS,
        ),
        Mistake(
            "last chunk first",
            "You put the chunk from the end before that from the front.",
            {
                "[chunks[rank], chunks[-1 - rank]]": (
                    "[chunks[-1 - rank], chunks[rank]]"
                )
            },
            DEALS,
        ),
        Mistake(
            "second half in the same order",
            "You deal the second half in the order of the first. Then the "
            "last rank again has the most to do: deal it from the end.",
            {"chunks[-1 - rank]": "chunks[world + rank]"},
            DEALS,
        ),
        Mistake(
            "tokens turned round",
            "You reverse the tokens within the chunk from the end. The order "
            "of the chunks is reversed, not that within them.",
            {"chunks[-1 - rank]": "chunks[-1 - rank].flip(dim)"},
            DEALS,
        ),
        Mistake(
            "minus zero",
            "You count from the end by -rank. For rank 0 that is the first "
            "chunk again: the last has the index -1.",
            {"chunks[-1 - rank]": "chunks[-rank]"},
            DEALS,
        ),
        Mistake(
            "one tensor",
            "You stack the parts into one tensor. Return a list with a part "
            "for each rank.",
            {"return [": "return torch.stack([", "    ]\n": "    ])\n"},
            DEALS,
        ),
        Mistake(
            "dim ignored",
            "You always cut the last dimension but one. The tokens lie along "
            "dim.",
            {
                "x.chunk(2 * world, dim)": "x.chunk(2 * world, -2)",
                "chunks[-1 - rank]], dim)": "chunks[-1 - rank]], -2)",
            },
            CUTS,
        ),
        Mistake(
            "unequal chunks let through",
            "You cut texts that don't divide, too. Ranks with unequal blocks "
            "can't exchange them: raise a ValueError.",
            {"if x.shape[dim] % (2 * world):": "if False:"},
            REFUSES,
        ),
        Mistake(
            "only half of the chunks counted",
            "You ask whether n is a multiple of world. There are twice as "
            "many chunks as ranks.",
            {"% (2 * world):": "% world:"},
            REFUSES,
        ),
    ],
    "zigzag_merge": [
        Mistake(
            "parts one after the other",
            "You join the parts as they are. The second half of each belongs "
            "to the end of the text.",
            {"torch.cat([*first, *last], dim)": "torch.cat(parts, dim)"},
            MERGES,
        ),
        Mistake(
            "second half in the same order",
            "You put the chunks from the end in the order of the ranks. Rank "
            "0 has the very last: go through the ranks backwards.",
            {"reversed(halves)": "halves"},
            MERGES,
        ),
        Mistake(
            "end before front",
            "You put the chunks from the end of the text first.",
            {"[*first, *last]": "[*last, *first]"},
            MERGES,
        ),
        Mistake(
            "all turned round",
            "You go through the ranks backwards in both halves. In the first "
            "half they stand in order.",
            {"[*first, *last]": "[*reversed(first), *last]"},
            MERGES,
        ),
        Mistake(
            "tokens turned round",
            "You reverse the tokens within the chunks from the end. Only the "
            "order of the chunks is reversed.",
            {"half[1] for half": "half[1].flip(dim) for half"},
            MERGES,
        ),
        Mistake(
            "stripes",
            "You take one token from each part in turn. That undoes striped "
            "attention, not a zigzag.",
            _merge_stripes,
            MERGES,
        ),
        Mistake(
            "a list of chunks",
            "You return the chunks in a list. Join them to one tensor.",
            {"torch.cat([*first, *last], dim)": "[*first, *last]"},
            MERGES,
        ),
        Mistake(
            "dim ignored",
            "You always join the last dimension but one. The tokens lie along "
            "dim.",
            {
                "part.chunk(2, dim)": "part.chunk(2, -2)",
                "[*first, *last], dim": "[*first, *last], -2",
            },
            MERGES_ANY,
        ),
    ],
    "ring_attention_backward": [
        Mistake(
            "gradients stay",
            "You keep the gradients by k and v at home and add up there what "
            "belongs to other ranks' keys. They have to travel with their "
            "block.",
            {
                BACK: "k, v, k_positions = exchange(k, v, k_positions)",
                "if world > 1:": "if False:",
            },
            GRADIENTS,
        ),
        Mistake(
            "not brought home",
            "You stop a step too early: after world - 1 exchanges you hold "
            "the gradients of the next rank's block. One more brings yours "
            "home.",
            {"if world > 1:": "if False:"},
            GRADIENTS,
        ),
        Mistake(
            "stale block",
            "Your gradients travel, but keys and values stay. Then you add "
            "what belongs to your own block to the gradients of another.",
            {BACK: "grad_k, grad_v = exchange(grad_k, grad_v)"},
            GRADIENTS,
        ),
        Mistake(
            "own block alone",
            "You go back through your own block alone. Your queries have "
            "attended to all of them.",
            {"range(world - 1)": "range(0)", "if world > 1:": "if False:"},
            GRADIENTS,
        ),
        Mistake(
            "gradients by k and v replaced",
            "You replace the gradients that have come to you by your own "
            "share. Add to them: all ranks before you have.",
            {
                "grad_k + more_k, grad_v + more_v": "more_k, more_v",
            },
            GRADIENTS,
        ),
        Mistake(
            "gradient by q replaced",
            "You keep only what the last block gives to the gradient by q. It "
            "is the sum over all blocks.",
            {"grad_q = grad_q + more_q": "grad_q = more_q"},
            GRADIENTS,
        ),
        Mistake(
            "a block's own output",
            "You go back through each block as if it had been all there is. "
            "The weights belong to the softmax over the whole text: use the "
            "output and the LSE that are given.",
            {
                "output, lse, positions, k_positions, causal": (
                    "*block_attention(\n                "
                    "q, k, v, positions, k_positions, causal\n"
                    "            ), positions, k_positions, causal"
                )
            },
            GRADIENTS,
        ),
        Mistake(
            "gradients swapped",
            "You return the gradient by v before that by k.",
            {
                "return grad_q, grad_k, grad_v": (
                    "return grad_q, grad_v, grad_k"
                )
            },
            GRADIENTS,
        ),
        Mistake(
            "positions stay",
            "You mask a block that came from elsewhere as if it stood where "
            "your own does. Its positions must travel with it.",
            {BACK: ("k, v, grad_k, grad_v = exchange(k, v, grad_k, grad_v)")},
            CAUSAL_BACK,
        ),
        Mistake(
            "mask at home only",
            "You mask your own block alone. What comes from other ranks holds "
            "the future, too.",
            {THERE: "lse, positions, k_positions, False"},
            CAUSAL_BACK,
        ),
        Mistake(
            "two calls a step",
            "You call exchange for the gradients apart from their block. Each "
            "call waits for the network: send them together.",
            {
                BACK: (
                    "k, v, k_positions = exchange(k, v, k_positions)\n"
                    "        grad_k, grad_v = exchange(grad_k, grad_v)"
                )
            },
            HOME,
        ),
    ],
}
