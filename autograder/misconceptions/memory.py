"""Mistakes of chapter 13, *Hybrid memory*."""

import math

import torch

from autograder.misconceptions import Mistake
from solutions.attention import attention, attention_scores
from solutions.memory import VectorMemory, feature_map, memory_attention

INF = math.inf


def _normal(seed, *shape):
    """Draw a tensor from a seed and nothing else, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def probe_vector_memory(make, seed):
    """Fill memories, at once and in pieces, search them and fetch."""
    keys, values = _normal(seed, 5, 3), _normal(seed + 1, 5, 2)
    keys = keys * torch.tensor([1.0, 4.0, 1.0, 0.3, 2.0])[:, None].double()
    queries = _normal(seed + 2, 2, 3)

    def filled(*pieces):
        memory = make(3, 2, dtype=torch.float64)
        for piece in pieces:
            memory.add(keys[piece].clone(), values[piece].clone())
        return memory

    inputs = {"keys": keys, "queries": queries}
    yield (
        inputs | {"k": 2},
        lambda: filled(slice(0, 5)).search(queries.clone(), 2),
    )
    yield (
        inputs | {"k": 3, "added": "2 + 3 entries"},
        lambda: filled(slice(0, 2), slice(2, 5)).search(queries.clone(), 3),
    )
    yield inputs | {"k": 7}, lambda: filled(slice(0, 5)).search(queries, 7)
    yield {"k": 2, "added": "nothing"}, lambda: filled().search(queries, 2)
    rising = torch.arange(5.0)[:, None]
    before = torch.tensor([2, 4])

    def search_before():
        memory = make(1, 1)
        memory.add(rising, rising)
        return memory.search(torch.ones(2, 1), 2, before.clone())

    yield {"keys": rising, "k": 2, "before": before}, search_before

    def search_few():
        memory = make(1, 1)
        memory.add(rising, rising)
        return memory.search(torch.ones(2, 1), 6, before.clone())

    yield {"keys": rising, "k": 6, "before": before}, search_few
    yield (
        {"added": "2 + 3 entries"},
        lambda: len(filled(slice(0, 2), slice(2, 5))),
    )
    positions = torch.tensor([[4, -1], [0, 2]])
    yield (
        {"values": values, "positions": positions},
        lambda: filled(slice(0, 5)).fetch(positions.clone()),
    )
    nothing = torch.tensor([-1])
    yield {"positions": nothing}, lambda: filled().fetch(nothing)

    def other():
        memory = filled(slice(0, 2))
        filled(slice(2, 5))
        return len(memory), memory.fetch(torch.tensor([0, 1]))

    yield {"added": "to two memories"}, other


def probe_memory_attention(memory_attention, seed):
    """Attend among few keys, many keys, masked keys and no keys."""
    shapes = ((2, 3), (2, 3), (2, 2), (2, 2, 3), (2, 2, 2))
    names = ("q", "local_k", "local_v", "memory_k", "memory_v")
    small = [_normal(seed + n, *shape) for n, shape in enumerate(shapes)]
    inputs = dict(zip(names, small, strict=True))
    yield inputs, lambda: memory_attention(*small)
    local_mask = torch.ones(2, 2, dtype=torch.bool).tril()
    memory_mask = torch.tensor([[False, False], [True, False]])
    yield (
        inputs | {"local_mask": local_mask},
        lambda: memory_attention(*small, local_mask),
    )
    yield (
        inputs | {"memory_mask": memory_mask},
        lambda: memory_attention(*small, memory_mask=memory_mask),
    )
    nobody = torch.tensor([[False, False], [True, False]])
    yield (
        inputs | {"local_mask": nobody, "memory_mask": memory_mask},
        lambda: memory_attention(*small, nobody, memory_mask),
    )
    row = torch.tensor([True, False])  # (S,), broadcast to all queries
    yield (
        inputs | {"local_mask": row, "memory_mask": memory_mask},
        lambda: memory_attention(*small, row, memory_mask),
    )
    large = [10_000 * small[0], *small[1:]]
    yield (
        inputs | {"q": large[0]},
        lambda: memory_attention(*large),
    )
    shapes = ((2, 4, 3), (2, 3, 3), (2, 3, 5), (2, 4, 2, 3), (2, 4, 2, 5))
    odd = [_normal(seed + n, *shape) for n, shape in enumerate(shapes)]
    yield (
        dict(zip(names, odd, strict=True)),
        lambda: memory_attention(*odd),
    )


def probe_infini_update(infini_update, seed):
    """Write one key, several, twice and into a batch."""
    names = ("memory", "norm", "keys", "values")

    def drawn(b, h, s, d, e):
        earlier = feature_map(_normal(seed, b, h, 2, d))
        memory = earlier.mT @ _normal(seed + 1, b, h, 2, e)
        keys, values = _normal(seed + 2, b, h, s, d), _normal(seed, b, h, s, e)
        return memory, earlier.sum(2), keys, values

    for sizes in ((1, 1, 1, 2, 2), (1, 1, 3, 3, 3), (2, 3, 4, 3, 2)):
        given = drawn(*sizes)
        inputs = dict(zip(names, given, strict=True))
        for delta in (False, True):
            yield (
                inputs | {"delta": delta},
                lambda g=given, d=delta: infini_update(
                    *(x.clone() for x in g), d
                ),
            )
    _, _, keys, values = drawn(1, 1, 2, 2, 3)
    zeros = keys.new_zeros(1, 1, 2, 3), keys.new_zeros(1, 1, 2)
    given = (*zeros, keys, values)
    inputs = dict(zip(names, given, strict=True))
    yield inputs | {"delta": True}, lambda: infini_update(*given, True)
    half = [x.clone() for x in drawn(1, 2, 2, 2, 3)]
    half[0][:, 1], half[1][:, 1] = 0.0, 0.0  # one head's memory is empty
    inputs = dict(zip(names, half, strict=True))
    yield inputs | {"delta": True}, lambda: infini_update(*half, True)
    looked_at = tuple(x.clone() for x in drawn(1, 1, 1, 2, 2))
    yield (
        {"memory, looked at after the call": looked_at[0]},
        lambda: (infini_update(*looked_at), looked_at[0], looked_at[1])[1:],
    )


def probe_infini_read(infini_read, seed):
    """Read with open, closed and half open gates, and from nothing."""
    names = ("q", "memory", "norm", "local_output", "gate")

    def drawn(b, h, t, d, e):
        earlier = feature_map(_normal(seed, b, h, 2, d))
        memory = earlier.mT @ _normal(seed + 1, b, h, 2, e)
        q, local = _normal(seed + 2, b, h, t, d), _normal(seed, b, h, t, e)
        return q, memory, earlier.sum(2), local, _normal(seed + 3, h)

    for sizes in ((1, 1, 1, 2, 2), (1, 2, 2, 3, 2), (2, 3, 4, 2, 5)):
        given = drawn(*sizes)
        yield (
            dict(zip(names, given, strict=True)),
            lambda g=given: infini_read(*g),
        )
    q, memory, norm, local, gate = drawn(1, 1, 2, 2, 3)
    for said, beta in (("open", 60.0), ("closed", -60.0)):
        fixed = torch.full_like(gate, beta)
        yield (
            {"q": q, "gate": said},
            lambda b=fixed: infini_read(q, memory, norm, local, b),
        )
    empty = torch.zeros_like(memory), torch.zeros_like(norm)
    yield (
        {"q": q, "memory": empty[0], "norm": empty[1]},
        lambda: infini_read(q, *empty, local, gate),
    )
    half = [x.clone() for x in drawn(1, 2, 2, 2, 3)]
    half[1][:, 1], half[2][:, 1] = 0.0, 0.0  # one head's memory is empty
    yield dict(zip(names, half, strict=True)), lambda: infini_read(*half)


def probe_hybrid_pattern(hybrid_pattern, seed):
    """Ask for several ratios; there is nothing to draw."""
    for sizes in ((8,), (16,), (3, 1, 0), (5, 3, 1), (7, 2, 1), (9, 4, 0)):
        names = ("n_layers", "period", "offset")
        inputs = dict(zip(names, sizes, strict=False))
        yield inputs, lambda s=sizes: hybrid_pattern(*s)


PROBES = {
    "VectorMemory": probe_vector_memory,
    "memory_attention": probe_memory_attention,
    "infini_update": probe_infini_update,
    "infini_read": probe_infini_read,
    "hybrid_pattern": probe_hybrid_pattern,
}


class _FilteredAfterwards(VectorMemory):
    """Find k of all entries, then drop those that come too late."""

    def search(self, queries, k, before=None):
        scores, positions = super().search(queries, k)
        if before is not None:
            late = positions >= before[:, None]
            scores = scores.masked_fill(late, -INF)
            positions = positions.masked_fill(late, -1)
            scores, order = scores.sort(-1, descending=True)
            positions = positions.gather(1, order)
        return scores, positions


def _flattened(q, local_k, local_v, memory_k, memory_v, *masks, **named):
    """Every query sees what was retrieved for any of them."""
    local_mask, memory_mask = (*masks, None, None)[:2]
    local_mask = named.get("local_mask", local_mask)
    memory_mask = named.get("memory_mask", memory_mask)
    n_queries, n_found = memory_k.shape[-3:-1]
    keys = memory_k.flatten(-3, -2)
    values = memory_v.flatten(-3, -2)
    if local_mask is None:
        local_mask = torch.ones(n_queries, local_k.shape[-2]) > 0
    if memory_mask is None:
        memory_mask = torch.ones(n_queries, n_found) > 0
    seen = memory_mask.reshape(1, -1).expand(n_queries, -1)
    mask = torch.cat([local_mask.expand(n_queries, -1), seen], -1)
    k = torch.cat([local_k, keys], -2)
    return attention(q, k, torch.cat([local_v, values], -2), mask)


def _two_softmaxes(blend):
    def wrong(q, local_k, local_v, memory_k, memory_v, *masks, **named):
        local_mask, memory_mask = (*masks, None, None)[:2]
        local_mask = named.get("local_mask", local_mask)
        memory_mask = named.get("memory_mask", memory_mask)
        near, near_weights = attention(q, local_k, local_v, local_mask)
        if memory_mask is not None:
            memory_mask = memory_mask[..., None, :]
        far, far_weights = attention(
            q[..., None, :], memory_k, memory_v, memory_mask
        )
        output = blend * (near + far[..., 0, :])
        weights = torch.cat([near_weights, far_weights[..., 0, :]], -1)
        return output, blend * weights

    return wrong


def _retrieved_alone(q, local_k, local_v, memory_k, memory_v, *m, **named):
    """Forget the window."""
    memory_mask = named.get("memory_mask", (*m, None, None)[1])
    output, weights = memory_attention(
        q,
        local_k[..., :0, :],
        local_v[..., :0, :],
        memory_k,
        memory_v,
        None,
        memory_mask,
    )
    none = weights.new_zeros(*weights.shape[:-1], local_k.shape[-2])
    return output, torch.cat([none, weights], -1)


def _masks_joined(q, local_k, local_v, memory_k, memory_v, *m, **named):
    """Join the masks as they come, whatever their shapes."""
    local_mask, memory_mask = (*m, None, None)[:2]
    local_mask = named.get("local_mask", local_mask)
    memory_mask = named.get("memory_mask", memory_mask)
    sizes = [local_k.shape[-2], memory_k.shape[-2]]
    masks = [
        torch.ones(q.shape[-2], n) > 0 if mask is None else mask
        for mask, n in zip((local_mask, memory_mask), sizes, strict=True)
    ]
    masks = torch.cat(masks, -1).split(sizes, -1)
    return memory_attention(q, local_k, local_v, memory_k, memory_v, *masks)


def _softmax_as_printed(q, local_k, local_v, memory_k, memory_v, *m, **named):
    """Exponentiate the scores as they are."""
    local_mask, memory_mask = (*m, None, None)[:2]
    local_mask = named.get("local_mask", local_mask)
    memory_mask = named.get("memory_mask", memory_mask)
    near = attention_scores(q, local_k)
    far = attention_scores(q[..., None, :], memory_k)[..., 0, :]
    if local_mask is not None:
        near = near.masked_fill(~local_mask, -INF)
    if memory_mask is not None:
        far = far.masked_fill(~memory_mask, -INF)
    exps = torch.cat([near, far], -1).exp()
    total = exps.sum(-1, keepdim=True)
    weights = exps / total.masked_fill(total == 0, 1.0)
    near, far = weights.split([near.shape[-1], far.shape[-1]], -1)
    found = (far[..., None, :] @ memory_v)[..., 0, :]
    return near @ local_v + found, weights


_SCORES = "scores = queries @ self.keys.T  # (T, N)"
_TOPK = "scores, positions = scores.topk(k)"
_FOUND = "found = attention_scores(q[..., None, :], memory_k)[..., 0, :]"
_READ = "remembered = features @ memory / total.masked_fill(total == 0, 1.0)"
_KNOWN = (
    "known = features @ memory / total.masked_fill(total == 0, 1.0)\n"
    "        values = values - known"
)
_NEW = "return memory + features.mT @ values, norm + features.sum(-2)"
_MIXED = "return share * remembered + (1 - share) * local_output"

MISTAKES = {
    "VectorMemory": [
        Mistake(
            "cosine instead of the dot product",
            "Your search divides by the lengths of the vectors: that is the "
            "cosine. Attention weighs by the dot product, in which a long key "
            "counts for more. Use q·k as it is.",
            {
                _SCORES: "scores = F.normalize(queries, dim=-1) "
                "@ F.normalize(self.keys, dim=-1).T"
            },
            "test_memory_finds_the_best_entries",
        ),
        Mistake(
            "nearest by distance",
            "Your search finds the keys at the smallest distance from the "
            "query. The best match for attention has the largest dot product, "
            "and it may lie far away if it is long.",
            {_SCORES: "scores = -torch.cdist(queries, self.keys)"},
            "test_memory_finds_the_best_entries",
        ),
        Mistake(
            "the worst instead of the best",
            "Your search returns the entries that match least. `topk` takes "
            "the largest unless it is told otherwise; dot products are no "
            "distances.",
            {
                _TOPK: "scores, positions = "
                "scores.nan_to_num(neginf=INF).topk(k, largest=False)\n"
                "        scores = scores.nan_to_num(posinf=-INF)".replace(
                    "INF", "math.inf"
                )
            },
            "test_memory_finds_the_best_entries",
        ),
        Mistake(
            "the best in no order",
            "Your search finds the right entries, but not the best one first. "
            "Whoever asks for k and uses fewer relies on the order.",
            {
                _TOPK: _TOPK + "\n        scores, positions = "
                "scores.flip(1), positions.flip(1)"
            },
            "test_memory_finds_the_best_entries",
        ),
        Mistake(
            "top-k over the queries",
            "Your top-k runs over the queries: for each entry, it finds the "
            "queries that like it best. For each query, choose among the "
            "entries, along the last dimension of the scores.",
            {
                _TOPK: "best = scores.topk(min(k, len(scores)), dim=0)\n"
                "        scores, positions = best.values.T, best.indices.T"
            },
            "test_memory_finds_the_best_entries",
        ),
        Mistake(
            "scores divided by √D",
            "Your search divides the scores by √D. An index returns q·k "
            "itself; attention does the scaling. Done twice, the weights "
            "become too even.",
            {
                _SCORES: _SCORES.split("  #")[0]
                + " / self.keys.shape[1] ** 0.5"
            },
            "test_memory_finds_the_best_entries",
        ),
        Mistake(
            "only the latest addition",
            "Your memory keeps what was added last and loses what was there. "
            "A notebook is there to keep it: join the new entries to the old.",
            {
                "torch.cat([self.keys, keys])": "keys",
                "torch.cat([self.values, values])": "values",
            },
            "test_memory_keeps_all_that_was_added",
        ),
        Mistake(
            "new entries on top",
            "Your memory puts new entries above the old ones, so all "
            "positions shift with each addition. A position must go on "
            "meaning the same entry: write below.",
            {
                "torch.cat([self.keys, keys])": "torch.cat([keys, self.keys])",
                "torch.cat([self.values, values])": "torch.cat("
                "[values, self.values])",
            },
            "test_memory_keeps_all_that_was_added",
        ),
        Mistake(
            "one notebook for all",
            "All your memories share their entries: they are stored with the "
            "class, not with the object. Keep them on self.",
            {
                "self.keys = torch.empty": "VectorMemory.keys = torch.empty",
                "self.values = torch.empty": "VectorMemory.values = "
                "torch.empty",
                "self.keys = torch.cat": "VectorMemory.keys = torch.cat",
                "self.values = torch.cat": "VectorMemory.values = torch.cat",
            },
            "test_memory_keeps_all_that_was_added",
        ),
        Mistake(
            "k of too few entries",
            "Your search asks for k of fewer than k entries, and that fails. "
            "At the beginning every memory is nearly empty: fill the places "
            "that are left with minus infinity and -1.",
            {"missing = max(k - len(self), 0)": "missing = 0"},
            "test_memory_says_where_it_found_nothing",
        ),
        Mistake(
            "an entry where there is none",
            "Where your search finds nothing it still names a position, as if "
            "that entry had been found. Say -1 wherever the score is minus "
            "infinity.",
            {"positions.masked_fill(scores == -math.inf, -1)": "positions"},
            "test_memory_says_where_it_found_nothing",
        ),
        Mistake(
            "-1 fetches the last entry",
            "Your fetch takes -1 as Python does, for the last entry. Here it "
            "stands for no entry: return zeros there.",
            {"known = positions >= 0": "known = positions >= -len(self)"},
            "test_memory_says_where_it_found_nothing",
        ),
        Mistake(
            "future entries are found",
            "Your search takes no notice of `before`: a query finds what "
            "comes after it in the text, which no model can know yet.",
            {"if before is not None:": "if False:"},
            "test_memory_hides_what_a_query_may_not_find",
        ),
        Mistake(
            "no limit where all entries are asked for",
            "Where there are k entries or fewer, your search takes no notice "
            "of `before`: it returns all there are, the later ones, too. The "
            "limit holds for every k.",
            {
                "if before is not None:": "if before is not None and "
                "k < len(self):"
            },
            "test_memory_hides_what_a_query_may_not_find",
        ),
        Mistake(
            "the limit itself is found",
            "Your search may find the entry at `before` itself. The limit is "
            "excluded: only positions less than it may be found.",
            {"positions >= before": "positions > before"},
            "test_memory_hides_what_a_query_may_not_find",
        ),
        Mistake(
            "hidden after the search",
            "Your search finds the k best of all entries and then drops those "
            "that come too late, so fewer than k are left, often none. Hide "
            "first, then choose.",
            _FilteredAfterwards,
            "test_memory_hides_what_a_query_may_not_find",
        ),
    ],
    "memory_attention": [
        Mistake(
            "two softmaxes, added",
            "You attend to the window and to the memory apart, and add the "
            "outputs. Each spends a whole unit of attention, so together it "
            "is two. Put all scores into one softmax.",
            _two_softmaxes(1.0),
            "test_memory_attention_is_one_softmax",
        ),
        Mistake(
            "two softmaxes, averaged",
            "You attend to the window and to the memory apart, and take the "
            "mean of the two. Half of the attention goes to the memory even "
            "if it holds nothing of use. Put all scores into one softmax.",
            _two_softmaxes(0.5),
            "test_memory_attention_is_one_softmax",
        ),
        Mistake(
            "retrieved scores not scaled",
            "You don't divide the scores of what was retrieved by √D, as "
            "those of the window are. The memory then shouts the window "
            "down. Both need the same scale.",
            {
                _FOUND: _FOUND.replace(
                    "[..., 0, :]", "[..., 0, :] * q.shape[-1] ** 0.5"
                )
            },
            "test_memory_attention_is_one_softmax",
        ),
        Mistake(
            "the memory alone",
            "Your output leaves out the window: only what was retrieved is "
            "attended to. The newest tokens stand in the window and nowhere "
            "else.",
            _retrieved_alone,
            "test_memory_attention_is_one_softmax",
        ),
        Mistake(
            "the window alone",
            "Your output leaves out what was retrieved: its weights are "
            "there, but its values are never added.",
            {" + (far[..., None, :] @ memory_v)[..., 0, :]": ""},
            "test_memory_attention_is_one_softmax",
        ),
        Mistake(
            "memory first in the weights",
            "Your weights have the memory's first and the window's last. The "
            "window comes first: S weights, then R.",
            {
                "return output, weights": "return output, "
                "torch.cat([far, near], -1)"
            },
            "test_memory_attention_is_one_softmax",
        ),
        Mistake(
            "no max-subtraction",
            "Your softmax exponentiates the scores as they are, which "
            "overflows when they are large. Use chapter 2's softmax, on all "
            "scores together.",
            _softmax_as_printed,
            "test_memory_attention_is_one_softmax",
        ),
        Mistake(
            "what was retrieved for others",
            "Each of your queries attends to what was retrieved for all of "
            "them. Entry r of query t is memory_k[..., t, r, :], and no other "
            "query's business.",
            _flattened,
            "test_each_query_has_entries_of_its_own",
        ),
        Mistake(
            "the first query's entries",
            "All your queries attend to what was retrieved for the first of "
            "them. Each has R entries of its own.",
            {
                _FOUND: "memory_k = memory_k[..., :1, :, :].expand_as("
                "memory_k)\n    memory_v = memory_v[..., :1, :, :].expand_as("
                "memory_v)\n    " + _FOUND
            },
            "test_each_query_has_entries_of_its_own",
        ),
        Mistake(
            "the memory's mask ignored",
            "You attend to places of the memory in which there is no entry. "
            "Their keys are zeros, whose score of 0 still gets a share. Hide "
            "them by a score of −∞.",
            {"if memory_mask is not None:": "if False:"},
            "test_memory_attention_obeys_both_masks",
        ),
        Mistake(
            "the window's mask ignored",
            "You don't hide what the window's mask forbids: queries see the "
            "future.",
            {"if local_mask is not None:": "if False:"},
            "test_memory_attention_obeys_both_masks",
        ),
        Mistake(
            "an empty place scores 0",
            "You give empty places of the memory a score of 0 instead of −∞. "
            "exp(0) is 1: each of them still takes a share of the attention.",
            {
                "found.masked_fill(~memory_mask, -math.inf)": "found"
                ".masked_fill(~memory_mask, 0.0)"
            },
            "test_memory_attention_obeys_both_masks",
        ),
        Mistake(
            "masks joined before they are broadcast",
            "You join the two masks as they come, which fails where their "
            "shapes differ: one may be for all queries, shape (S,), and the "
            "other for each of them. Mask each part's scores first, or "
            "expand both masks.",
            _masks_joined,
            "test_memory_attention_obeys_both_masks",
        ),
        Mistake(
            "NaN for a query that sees nothing",
            "A query that may attend to nothing gets NaN: there the softmax "
            "divides 0 by 0. Use chapter 2's softmax, which gives zeros.",
            {
                "softmax(torch.cat([local, found], -1))": "torch.cat("
                "[local, found], -1).softmax(-1)"
            },
            "test_memory_attention_without_a_memory",
        ),
    ],
    "infini_update": [
        Mistake(
            "no feature map",
            "You write the keys as they are. σ makes them positive, without "
            "which the norm may come to 0 or below and reading goes wild.",
            {"features = feature_map(keys)": "features = keys"},
            "test_infini_update_adds_a_segment",
        ),
        Mistake(
            "the old memory is replaced",
            "Your new memory holds the new segment alone. Add it to what is "
            "there: this is how all earlier segments are kept.",
            {
                _NEW: "return features.mT @ values, features.sum(-2)",
            },
            "test_infini_update_adds_a_segment",
        ),
        Mistake(
            "the norm stays",
            "Your norm doesn't grow with the memory. Reading divides by it, "
            "so the outputs grow with each segment. Add the sum of σ(K).",
            {"norm + features.sum(-2)": "norm"},
            "test_infini_update_adds_a_segment",
        ),
        Mistake(
            "the norm counts tokens",
            "Your norm grows by the number of tokens. It is a vector of "
            "weights, one a feature: add the sum of σ(K) over the tokens.",
            {"norm + features.sum(-2)": "norm + features.shape[-2]"},
            "test_infini_update_adds_a_segment",
        ),
        Mistake(
            "the mean instead of the sum",
            "Your norm grows by the mean of σ(K), while the memory grows by a "
            "sum. Then reading doesn't average any more.",
            {"features.sum(-2)": "features.mean(-2)"},
            "test_infini_update_adds_a_segment",
        ),
        Mistake(
            "changes the memory in place",
            "You add to the memory that you were given. Its owner may still "
            "need it, and autograd does: return a new one.",
            {
                _NEW: "memory += features.mT @ values\n"
                "    norm += features.sum(-2)\n    return memory, norm"
            },
            "test_infini_update_adds_a_segment",
        ),
        Mistake(
            "delta ignored",
            "You write the values themselves though delta was asked for. Take "
            "away first what the memory already answers to these keys.",
            {"if delta:": "if False:"},
            "test_infini_update_by_the_delta_rule",
        ),
        Mistake(
            "delta without the norm",
            "What the memory has for a key is σ(k)M divided by σ(k)·z. You "
            "take away σ(k)M undivided, which is too much.",
            {
                _KNOWN: "known = features @ memory\n"
                "        values = values - known"
            },
            "test_infini_update_by_the_delta_rule",
        ),
        Mistake(
            "delta with the new norm",
            "You divide by the norm that has this segment in it already. The "
            "delta rule asks the *old* memory, by the old norm.",
            {
                "total = features @ norm[..., None]": "total = features @ "
                "(norm + features.sum(-2))[..., None]"
            },
            "test_infini_update_by_the_delta_rule",
        ),
        Mistake(
            "delta with the wrong sign",
            "You add what the memory has already instead of taking it away: "
            "a pair that comes twice is written three times.",
            {"values = values - known": "values = values + known"},
            "test_infini_update_by_the_delta_rule",
        ),
        Mistake(
            "NaN at the first segment",
            "At first the norm is 0, and what an empty memory has is 0/0, "
            "NaN, which stays in it for good. Take zeros there.",
            {
                "total.masked_fill(total == 0, 1.0)": "total",
            },
            "test_infini_update_by_the_delta_rule",
        ),
        Mistake(
            "all heads empty, or none",
            "You look for 0/0 only where the whole norm is 0. One head's "
            "memory may be empty while another's is not: look at each "
            "divisor.",
            {
                "total.masked_fill(total == 0, 1.0)": "(total + (norm == 0)"
                ".all())",
            },
            "test_infini_update_by_the_delta_rule",
        ),
    ],
    "infini_read": [
        Mistake(
            "the gate's other sense",
            "Your gate works the other way: open, it lets the window through "
            "and shuts the memory out. The share of the memory is "
            "sigmoid(β).",
            {_MIXED: "return (1 - share) * remembered + share * local_output"},
            "test_infini_read_blends_by_the_gate",
        ),
        Mistake(
            "a gate without a sigmoid",
            "You use β itself as the share. It may be any number; sigmoid(β) "
            "lies between 0 and 1.",
            {"gate.sigmoid()": "gate"},
            "test_infini_read_blends_by_the_gate",
        ),
        Mistake(
            "added, not blended",
            "You add the whole local output to the memory's share. The two "
            "shares must sum to one.",
            {"(1 - share) * local_output": "local_output"},
            "test_infini_read_blends_by_the_gate",
        ),
        Mistake(
            "a gate for each width",
            "Your gate is laid along the last dimension. It has one number a "
            "head: give it the shape (H, 1, 1).",
            {
                "gate.sigmoid()[:, None, None]": "F.pad(gate.sigmoid(), (0, "
                "max(0, local_output.shape[-1] - len(gate)))"
                ")[: local_output.shape[-1]]"
            },
            "test_infini_read_blends_by_the_gate",
        ),
        Mistake(
            "no normalisation",
            "You read σ(q)M without dividing by σ(q)·z. Then the output is a "
            "sum over all that was ever written, not an average, and grows "
            "with the text.",
            {_READ: "remembered = features @ memory"},
            "test_infini_read_remembers",
        ),
        Mistake(
            "divided by the norm's sum",
            "You divide by the sum of z. Each query has a divisor of its own, "
            "σ(q)·z.",
            {
                "total = features @ norm[..., None]": "total = norm.sum(-1)"
                "[..., None, None]"
            },
            "test_infini_read_remembers",
        ),
        Mistake(
            "no feature map",
            "You read with the query as it is. The keys were written through "
            "σ, so the query must go through σ, too.",
            {"features = feature_map(q)": "features = q"},
            "test_infini_read_remembers",
        ),
        Mistake(
            "σ without the 1",
            "Your query goes through ELU alone. The 1 is what makes it "
            "positive: σ(x) = ELU(x) + 1.",
            {"features = feature_map(q)": "features = F.elu(q)"},
            "test_infini_read_remembers",
        ),
        Mistake(
            "NaN from an empty memory",
            "From an empty memory you read 0/0, NaN, already in the first "
            "segment. It should read as zeros.",
            {"total.masked_fill(total == 0, 1.0)": "total"},
            "test_infini_read_of_an_empty_memory",
        ),
        Mistake(
            "all heads empty, or none",
            "You look for 0/0 only where the whole norm is 0. One head's "
            "memory may be empty while another's is not, and reads as NaN: "
            "look at each divisor.",
            {
                "total.masked_fill(total == 0, 1.0)": "(total + (norm == 0)"
                ".all())",
            },
            "test_infini_read_of_an_empty_memory",
        ),
    ],
    "hybrid_pattern": [
        Mistake(
            "attention and Mamba exchanged",
            "Your pattern has seven attention layers for one of Mamba. 1:7 "
            "says one of attention: the cheap layers are the many.",
            {
                '"attention" if layer % period == offset else "mamba"': '"mamb'
                'a" if layer % period == offset else "attention"'
            },
            "test_hybrid_pattern_is_jambas",
        ),
        Mistake(
            "the offset ignored",
            "Your attention layer is the first of each period. It stands at "
            "`offset`, in Jamba amidst seven others.",
            {"layer % period == offset": "layer % period == 0"},
            "test_hybrid_pattern_is_jambas",
        ),
        Mistake(
            "layers counted from 1",
            "You count layers from 1, so attention comes one layer early. The "
            "first layer is number 0.",
            {"range(n_layers)": "range(1, n_layers + 1)"},
            "test_hybrid_pattern_is_jambas",
        ),
        Mistake(
            "1:8 instead of 1:7",
            "You put `period` Mamba layers between two of attention. A period "
            "counts the attention layer, too: seven others in a period of 8.",
            {"layer % period == offset": "layer % (period + 1) == offset"},
            "test_hybrid_pattern_is_jambas",
        ),
        Mistake(
            "one attention layer in all",
            "Your pattern has a single attention layer. Every period has one.",
            {"layer % period == offset": "layer == offset"},
            "test_hybrid_pattern_is_jambas",
        ),
        Mistake(
            "the last of each period",
            "Your attention layer is the last of each period. It stands at "
            "`offset`.",
            {"layer % period == offset": "layer % period == period - 1"},
            "test_hybrid_pattern_is_jambas",
        ),
        Mistake(
            "whole periods only",
            "Your pattern leaves out the last layers if they don't fill a "
            "period. There are n_layers layers, whatever the period.",
            {"range(n_layers)": "range(n_layers // period * period)"},
            "test_hybrid_pattern_of_other_ratios",
        ),
    ],
}
