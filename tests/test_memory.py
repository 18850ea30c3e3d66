"""Checks of chapter 13; a student does not see the hidden lines."""

import math

import torch
import torch.nn.functional as F

from contextlab.checks import assert_close, assert_same, describe_type
from solutions.memory import (
    VectorMemory,
    hybrid_pattern,
    infini_read,
    infini_update,
    memory_attention,
)

INF = math.inf


def _two(got, names):
    """Assert that an answer returned two things, and return them."""
    assert isinstance(got, tuple | list), (
        f"Return {names[0]} and {names[1]}. This returned "
        f"{describe_type(got)}."
    )
    assert len(got) == 2, (
        f"Return {names[0]} and {names[1]}. This returned {len(got)} things."
    )
    return got


def _assert_pair(got, expected, names, when=""):
    """Assert that an answer returned these two tensors."""
    pair = _two(got, names)
    for name, tensor, right in zip(names, pair, expected, strict=True):
        assert_close(tensor, right, f"{name}{when}")


FOUND = ("the scores", "the positions")
FETCHED = ("the keys", "the values")
ATTENDED = ("the output", "the weights")
WRITTEN = ("the memory", "the norm")


def test_memory_finds_the_best_entries():
    """The k largest dot products are found, the best first."""
    memory = VectorMemory(2, 1)
    keys = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0], [-1.0, -9.0]])
    memory.add(keys, torch.tensor([[10.0], [11.0], [12.0], [13.0]]))
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    scores = torch.tensor([[3.0, 1.0], [2.0, 1.0]])
    positions = torch.tensor([[2, 0], [1, 2]])
    found = memory.search(queries, 2)
    _assert_pair(found, (scores, positions), FOUND, " of the 2 best of 4")
    ### BEGIN HIDDEN TESTS
    from contextlab.store import faiss

    torch.manual_seed(1)
    keys = torch.randn(150, 11) * (1 + 2 * torch.rand(150, 1))
    values = torch.randn(150, 3)
    queries = torch.randn(17, 11)
    index = faiss.IndexFlatIP(11)  # an independent, exact index
    index.add(keys.numpy())
    right = [torch.from_numpy(x) for x in index.search(queries.numpy(), 9)]
    memory = VectorMemory(11, 3)
    memory.add(keys.clone(), values)
    scores, positions = _two(memory.search(queries.clone(), 9), FOUND)
    assert_close(positions, right[1], "the positions of the 9 best of 150")
    assert_close(scores, right[0], "the scores of the 9 best of 150", 1e-4)
    keys, queries = keys.double() * 1e3, queries.double()
    products = torch.einsum("td,nd->tn", queries, keys)
    order = products.argsort(-1, descending=True)[:, :4]
    right = (products.gather(1, order), order)
    memory = VectorMemory(11, 3, dtype=torch.float64)
    memory.add(keys.clone(), values.double())
    found = memory.search(queries.clone(), 4)
    _assert_pair(found, right, FOUND, " in float64")
    one = memory.search(queries[:1].clone(), 1)
    right = [x[:1, :1] for x in right]
    _assert_pair(one, right, FOUND, " of one query, k = 1")
    ### END HIDDEN TESTS


def test_memory_keeps_all_that_was_added():
    """Entries that come in pieces are found, and fetched, like all at once."""
    torch.manual_seed(2)
    keys, values = torch.randn(10, 5), torch.randn(10, 3)
    queries = torch.randn(4, 5)
    right = (queries @ keys.T).topk(6)
    pieces = [slice(0, 3), slice(3, 3), slice(3, 4), slice(4, 10)]
    memory, other = VectorMemory(5, 3), VectorMemory(5, 3)
    for piece in pieces:
        memory.add(keys[piece].clone(), values[piece].clone())
    other.add(-keys[:2], -values[:2])
    n = len(memory)
    assert n == 10, f"10 entries were added, but the memory counts {n}."
    _assert_pair(memory.search(queries, 6), right, FOUND, " of 10 entries")
    ### BEGIN HIDDEN TESTS
    assert len(other) == 2, "Two memories must not share their entries."
    positions = torch.tensor([[9, 0, 3], [2, 2, 8]])
    right = (keys[positions], values[positions])
    fetched = memory.fetch(positions.clone())
    _assert_pair(fetched, right, FETCHED, " that were fetched")
    right = (keys[7], values[7])
    _assert_pair(memory.fetch(torch.tensor(7)), right, FETCHED, " at 7")
    right = (-keys[:2], -values[:2])
    fetched = other.fetch(torch.tensor([0, 1]))
    _assert_pair(fetched, right, FETCHED, " of another memory")
    given = keys.double() / 3, values.double() / 3
    memory = VectorMemory(5, 3, dtype=torch.float64)
    memory.add(given[0].clone(), given[1].clone())
    right = (given[0][[6, 1]], given[1][[6, 1]])
    fetched = memory.fetch(torch.tensor([6, 1]))
    _assert_pair(fetched, right, FETCHED, " of a memory in float64")
    ### END HIDDEN TESTS


def test_memory_says_where_it_found_nothing():
    """Fewer than k entries: minus infinity, position -1, and zeros."""
    memory = VectorMemory(2, 3)
    queries = torch.tensor([[1.0, 1.0], [2.0, -1.0]])
    nothing = torch.full((2, 4), -1)
    right = (torch.full((2, 4), -INF), nothing)
    found = memory.search(queries, 4)
    _assert_pair(found, right, FOUND, " in an empty memory")
    right = (torch.zeros(2, 4, 2), torch.zeros(2, 4, 3))
    fetched = memory.fetch(nothing.clone())
    _assert_pair(fetched, right, FETCHED, " at -1")
    ### BEGIN HIDDEN TESTS
    keys = torch.tensor([[1.0, 0.0], [-5.0, 1.0]])
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    memory.add(keys.clone(), values.clone())
    scores = [[1.0, -4.0, -INF, -INF], [2.0, -11.0, -INF, -INF]]
    positions = torch.tensor([[0, 1, -1, -1], [0, 1, -1, -1]])
    found = memory.search(queries, 4)
    right = (torch.tensor(scores), positions)
    _assert_pair(found, right, FOUND, ", k = 4 of 2 entries")
    zero = torch.zeros(1, 3)
    right = (
        torch.cat([keys[1:], zero[:, :2]]), torch.cat([values[1:], zero])
    )  # fmt: skip
    fetched = memory.fetch(torch.tensor([1, -1]))
    _assert_pair(fetched, right, FETCHED, " at 1 and -1")
    memory = VectorMemory(1, 2)
    memory.add(torch.tensor([[-1e10], [2.0]]), torch.ones(2, 2))
    right = (torch.tensor([[2.0, -1e10, -INF]]), torch.tensor([[1, 0, -1]]))
    found = memory.search(torch.ones(1, 1), 3)
    _assert_pair(found, right, FOUND, ", where an entry scores -1e10,")
    memory = VectorMemory(2, 3, dtype=torch.float64)
    found = memory.search(queries.double(), 4)
    right = (torch.full((2, 4), -INF).double(), nothing)
    _assert_pair(found, right, FOUND, " in an empty memory of float64")
    right = (zero[:, :2].double(), zero.double())
    fetched = memory.fetch(torch.tensor([-1]))
    _assert_pair(fetched, right, FETCHED, " at -1 in float64")
    ### END HIDDEN TESTS


def test_memory_hides_what_a_query_may_not_find():
    """A query finds the k best before its limit: not fewer, not later."""
    keys = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0]])
    memory = VectorMemory(1, 1)
    memory.add(keys, keys)
    queries = torch.tensor([[1.0], [1.0], [1.0]])
    before = torch.tensor([3, 5, 1])
    scores = torch.tensor([[3.0, 2.0], [5.0, 4.0], [1.0, -INF]])
    positions = torch.tensor([[2, 1], [4, 3], [0, -1]])
    found = memory.search(queries, 2, before)
    right = (scores, positions)
    _assert_pair(found, right, FOUND, " before 3, 5 and 1")
    ### BEGIN HIDDEN TESTS
    from contextlab.store import faiss

    torch.manual_seed(3)
    keys, values = torch.randn(60, 7), torch.randn(60, 2)
    queries = torch.randn(12, 7)
    before = torch.tensor([0, 1, 4, 5, 6, 17, 30, 31, 44, 59, 60, 90])
    index = faiss.IndexFlatIP(7)
    index.add(keys.numpy())
    scores, positions = [], []
    for query, limit in zip(queries.numpy(), before.tolist(), strict=True):
        seen = faiss.IDSelectorRange(0, limit)
        params = faiss.SearchParameters(sel=seen)
        score, position = index.search(query[None], 5, params=params)
        scores.append(torch.from_numpy(score))
        positions.append(torch.from_numpy(position))
    positions = torch.cat(positions)
    scores = torch.cat(scores).masked_fill(positions < 0, -INF)
    memory = VectorMemory(7, 2)
    memory.add(keys.clone(), values)
    found = memory.search(queries.clone(), 5, before.clone())
    got = _two(found, FOUND)
    assert_close(got[1], positions, "the positions before many limits")
    assert_close(got[0], scores, "the scores before many limits", 1e-4)
    found = memory.search(queries[:2], 3, before=torch.tensor([0, 0]))
    right = (torch.full((2, 3), -INF), torch.full((2, 3), -1))
    _assert_pair(found, right, FOUND, " before 0")
    memory = VectorMemory(1, 1)
    memory.add(keys[:3, :1].clone(), values[:3, :1].clone())
    limits = torch.tensor([1, 0])
    for k in (3, 5):  # as many as there are entries, and more
        right = torch.full((2, k), -INF), torch.full((2, k), -1)
        right[0][0, 0], right[1][0, 0] = 2 * keys[0, 0], 0
        found = memory.search(torch.full((2, 1), 2.0), k, limits.clone())
        when = f" before 1 and 0, k = {k} of 3 entries,"
        _assert_pair(found, right, FOUND, when)
    ### END HIDDEN TESTS


def _attention(q, k, v, mask=None):
    """Return PyTorch's output, and the weights by its softmax."""
    scores = torch.einsum("...td,...sd->...ts", q, k) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -INF)
    weights = scores.softmax(-1).nan_to_num(0.0)
    output = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return output, weights


def _query_by_query(q, local_k, local_v, memory_k, memory_v, masks):
    """Attend for one query after the other, all its keys in one list."""
    outputs, weights = [], []
    for t in range(q.shape[-2]):
        keys = torch.cat([local_k, memory_k[..., t, :, :]], -2)
        values = torch.cat([local_v, memory_v[..., t, :, :]], -2)
        mask = torch.cat([m[..., t : t + 1, :] for m in masks], -1)
        done = _attention(q[..., t : t + 1, :], keys, values, mask)
        outputs.append(done[0])
        weights.append(done[1])
    return torch.cat(outputs, -2), torch.cat(weights, -2)


def test_memory_attention_is_one_softmax():
    """Keys cut into window and memory give what all keys together give."""
    torch.manual_seed(4)
    q = torch.randn(4, 6, dtype=torch.float64)
    k = torch.randn(9, 6, dtype=torch.float64)
    v = torch.randn(9, 5, dtype=torch.float64)
    right = _attention(q, k, v)
    near, far = slice(0, 3), slice(3, 9)
    got = memory_attention(
        q, k[near], v[near], k[far].repeat(4, 1, 1), v[far].repeat(4, 1, 1)
    )
    _assert_pair(got, right, ATTENDED)
    ### BEGIN HIDDEN TESTS
    q = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    k = 3 * torch.randn(2, 3, 9, 6, dtype=torch.float64)
    v = torch.randn(2, 3, 9, 5, dtype=torch.float64)
    right = _attention(q, k, v)
    for n, dtype in ((3, torch.float64), (8, torch.float32)):
        parts = [k[..., :n, :], v[..., :n, :]]
        for x in (k[..., n:, :], v[..., n:, :]):
            parts.append(x[:, :, None].expand(-1, -1, 4, -1, -1).clone())
        given = [x.to(dtype) for x in (q, *parts)]
        expected = [x.to(dtype) for x in right]
        got = memory_attention(*given)
        _assert_pair(got, expected, ATTENDED, f" of a batch, in {dtype}")
    large = [x.clone() for x in (q, *parts)]
    large[0] = 300 * large[0]
    right = _attention(300 * q, k, v)
    got = memory_attention(*large)
    _assert_pair(got, right, ATTENDED, ", where scores are large,")
    ### END HIDDEN TESTS


def test_each_query_has_entries_of_its_own():
    """A query attends to what was retrieved for it, not for another."""
    torch.manual_seed(5)
    q = torch.randn(3, 6, dtype=torch.float64)
    local_k = torch.randn(4, 6, dtype=torch.float64)
    local_v = torch.randn(4, 5, dtype=torch.float64)
    memory_k = torch.randn(3, 2, 6, dtype=torch.float64)
    memory_v = torch.randn(3, 2, 5, dtype=torch.float64)
    given = (q, local_k, local_v, memory_k, memory_v)
    seen = torch.ones(3, 4, dtype=torch.bool), torch.ones(3, 2).bool()
    right = _query_by_query(*given, seen)
    _assert_pair(memory_attention(*given), right, ATTENDED)
    ### BEGIN HIDDEN TESTS
    given = [
        torch.randn(2, 2, *shape, dtype=torch.float64)
        for shape in ((5, 7), (5, 7), (5, 3), (5, 5, 7), (5, 5, 3))
    ]  # T = S = R
    seen = torch.ones(5, 5, dtype=torch.bool), torch.ones(5, 5).bool()
    right = _query_by_query(*given, seen)
    kept = [x.clone() for x in given]
    got = memory_attention(*given)
    _assert_pair(got, right, ATTENDED, ", where T = S = R,")
    for now, before in zip(given, kept, strict=True):
        assert_close(now, before, "what it is given, which must not change,")
    ### END HIDDEN TESTS


def test_memory_attention_obeys_both_masks():
    """What the window's mask or the memory's hides has weight zero."""
    torch.manual_seed(6)
    given = [
        torch.randn(*shape, dtype=torch.float64)
        for shape in ((4, 6), (4, 6), (4, 5), (4, 3, 6), (4, 3, 5))
    ]
    local_mask = torch.ones(4, 4, dtype=torch.bool).tril()
    memory_mask = torch.tensor(
        [[False] * 3, [True] * 3, [True, False, False], [True, True, False]]
    )
    right = _query_by_query(*given, (local_mask, memory_mask))
    got = memory_attention(*given, local_mask, memory_mask)
    _assert_pair(got, right, ATTENDED, " under both masks")
    ### BEGIN HIDDEN TESTS
    given[3][~memory_mask] = 900.0  # what stands in an empty place is junk
    got = memory_attention(*given, local_mask, memory_mask)
    _assert_pair(got, right, ATTENDED, " with junk in empty places")
    everything = torch.ones(4, 4).bool(), torch.ones(4, 3).bool()
    right = _query_by_query(*given, (local_mask, everything[1]))
    got = memory_attention(*given, local_mask=local_mask)
    _assert_pair(got, right, ATTENDED, " under the window's mask alone")
    right = _query_by_query(*given, (everything[0], memory_mask))
    got = memory_attention(*given, memory_mask=memory_mask)
    _assert_pair(got, right, ATTENDED, " under the memory's mask alone")
    batch = [x.repeat(2, 3, *[1] * x.ndim) for x in given]
    right = [x.repeat(2, 3, 1, 1) for x in right]
    got = memory_attention(*batch, memory_mask=memory_mask)
    _assert_pair(got, right, ATTENDED, " of a batch under one mask")
    row = torch.tensor([True, False, True, True])  # (S,), for all queries
    column = row[:, None]  # (T, 1), for all keys of the window
    places = torch.tensor([False, True, True])  # (R,)
    mixed = (row, memory_mask), (local_mask, places), (column, places)
    for near, far in mixed:
        whole = near.expand(4, 4), far.expand(4, 3)
        right = _query_by_query(*given, whole)
        got = memory_attention(*given, near.clone(), far.clone())
        shapes = f"{tuple(near.shape)} and {tuple(far.shape)}"
        _assert_pair(got, right, ATTENDED, f" under masks of shapes {shapes}")
    far = torch.rand(2, 3, 4, 3) < 0.5
    whole = local_mask.expand(2, 3, 4, 4), far
    right = _query_by_query(*batch, whole)
    got = memory_attention(*batch, local_mask.clone(), far.clone())
    when = ", where each text and head has a mask of its own for the memory,"
    _assert_pair(got, right, ATTENDED, when)
    low = [x.clone() for x in given]
    low[0][:, 0] = -6e7  # all scores are far below 0
    low[1][:, 0] = low[3][..., 0] = 1.0
    right = _query_by_query(*low, (local_mask, memory_mask))
    got = memory_attention(*low, local_mask, memory_mask)
    when = " under both masks, where all scores are below -10,000,"
    _assert_pair(got, right, ATTENDED, when)
    ### END HIDDEN TESTS


def test_memory_attention_without_a_memory():
    """An empty memory leaves the window; nothing at all gives zeros."""
    torch.manual_seed(7)
    q, k = torch.randn(2, 4, 6, dtype=torch.float64)
    v = torch.randn(4, 5, dtype=torch.float64)
    right = _attention(q, k, v)
    none = (q.new_zeros(4, 0, 6), q.new_zeros(4, 0, 5))
    got = memory_attention(q, k, v, *none)
    _assert_pair(got, right, ATTENDED, " of an empty memory")
    ### BEGIN HIDDEN TESTS
    masks = torch.ones(4, 4).bool().tril(-1), torch.zeros(4, 2).bool()
    masks[1][2, 0] = True
    given = (q, k, v, torch.randn(4, 2, 6).double(), torch.ones(4, 2, 5))
    given = [x.double() for x in given]
    right = _query_by_query(*given, masks)
    got = memory_attention(*given, *masks)
    _assert_pair(got, right, ATTENDED, ", where query 0 sees nothing,")
    ### END HIDDEN TESTS


def _sigma(x):
    """Return ELU + 1, written out."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


def _memories(*seeds_and_sizes):
    """Draw a memory that holds something: M and z of earlier keys."""
    seed, b, h, d, e = seeds_and_sizes
    torch.manual_seed(seed)
    features = _sigma(torch.randn(b, h, 5, d, dtype=torch.float64))
    values = torch.randn(b, h, 5, e, dtype=torch.float64)
    memory = torch.einsum("bhsd,bhse->bhde", features, values)
    return memory, features.sum(2)


def test_infini_update_adds_a_segment():
    """Memory and norm grow by σ(K)ᵀV and by the sum of σ(K)."""
    memory, norm = _memories(8, 1, 2, 3, 4)
    keys = torch.randn(1, 2, 6, 3, dtype=torch.float64)
    values = torch.randn(1, 2, 6, 4, dtype=torch.float64)
    right = (
        memory + torch.einsum("bhsd,bhse->bhde", _sigma(keys), values),
        norm + _sigma(keys).sum(2),
    )
    given = (memory, norm, keys, values)
    kept = [x.clone() for x in given]
    _assert_pair(infini_update(*given), right, WRITTEN)
    for now, before in zip(given, kept, strict=True):
        assert_close(now, before, "what it is given, which must not change,")
    ### BEGIN HIDDEN TESTS
    memory, norm = _memories(9, 3, 2, 4, 4)
    keys = torch.randn(3, 2, 4, 4, dtype=torch.float64)  # S = D = E
    values = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    right = (
        memory + torch.einsum("bhsd,bhse->bhde", _sigma(keys), values),
        norm + _sigma(keys).sum(2),
    )
    got = infini_update(memory, norm, keys, values, delta=False)
    _assert_pair(got, right, WRITTEN, ", where S = D = E,")
    single = [x.float() for x in (memory, norm, keys, values)]
    right = [x.float() for x in right]
    _assert_pair(infini_update(*single), right, WRITTEN, " in float32")
    empty = (torch.zeros(3, 2, 4, 4), torch.zeros(3, 2, 4))
    empty = [x.double() for x in empty]
    halves = [(keys[:, :, s], values[:, :, s]) for s in ([0], [1, 2, 3])]
    right = (
        torch.einsum("bhsd,bhse->bhde", _sigma(keys), values),
        _sigma(keys).sum(2),
    )
    for half in halves:
        empty = _two(infini_update(*empty, *half), WRITTEN)
    _assert_pair(empty, right, WRITTEN, " after two segments")
    ### END HIDDEN TESTS


def test_infini_update_by_the_delta_rule():
    """What the memory has already is not written again."""
    torch.manual_seed(10)
    key = torch.randn(1, 1, 1, 3, dtype=torch.float64)
    value = torch.randn(1, 1, 1, 4, dtype=torch.float64)
    memory = _sigma(key).mT @ value
    norm = _sigma(key).sum(2)
    right = (memory.clone(), 2 * norm)
    got = infini_update(memory, norm, key, value, delta=True)
    _assert_pair(got, right, WRITTEN, ", where a pair came twice,")
    ### BEGIN HIDDEN TESTS
    memory, norm = _memories(11, 2, 3, 4, 5)
    keys = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    values = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    features = _sigma(keys)
    news = values.clone()
    for s in range(6):
        total = (features[:, :, s] * norm).sum(-1, keepdim=True)
        known = torch.einsum("bhd,bhde->bhe", features[:, :, s], memory)
        news[:, :, s] -= known / total
    right = (
        memory + torch.einsum("bhsd,bhse->bhde", features, news),
        norm + features.sum(2),
    )
    given = (memory, norm, keys, values)
    kept = [x.clone() for x in given]
    got = infini_update(*given, delta=True)
    _assert_pair(got, right, WRITTEN, " by the delta rule")
    for now, before in zip(given, kept, strict=True):
        assert_close(now, before, "what it is given, which must not change,")
    empty = (torch.zeros_like(memory), torch.zeros_like(norm))
    right = (
        torch.einsum("bhsd,bhse->bhde", features, values),
        features.sum(2),
    )
    got = infini_update(*empty, keys, values, delta=True)
    _assert_pair(got, right, WRITTEN, " by the delta rule, at first,")
    for where in ((0, 1), (1,)):  # a head of one text, and a whole text
        memory[where], norm[where], news[where] = 0.0, 0.0, values[where]
        right = (
            memory + torch.einsum("bhsd,bhse->bhde", features, news),
            norm + features.sum(2),
        )
        given = (memory.clone(), norm.clone(), keys, values)
        got = infini_update(*given, delta=True)
        when = ", where some heads' memory is still empty,"
        _assert_pair(got, right, WRITTEN, when)
    ### END HIDDEN TESTS


def test_infini_read_remembers():
    """A memory that holds one pair gives back its value, unblended."""
    torch.manual_seed(12)
    key = torch.randn(1, 2, 1, 3, dtype=torch.float64)
    value = torch.randn(1, 2, 1, 4, dtype=torch.float64)
    memory, norm = _sigma(key).mT @ value, _sigma(key).sum(2)
    q = torch.randn(1, 2, 5, 3, dtype=torch.float64)
    local = torch.randn(1, 2, 5, 4, dtype=torch.float64)
    wide_open = torch.full((2,), 60.0, dtype=torch.float64)
    right = value.expand(1, 2, 5, 4).clone()
    got = infini_read(q, memory, norm, local, wide_open)
    assert_close(got, right, "the output of a memory of one pair")
    ### BEGIN HIDDEN TESTS
    memory, norm = _memories(13, 2, 3, 4, 5)
    q = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    local = torch.randn(2, 3, 3, 5, dtype=torch.float64)
    features = _sigma(q)
    right = torch.einsum("bhtd,bhde->bhte", features, memory)
    right = right / torch.einsum("bhtd,bhd->bht", features, norm)[..., None]
    open_ = torch.full((3,), 60.0, dtype=torch.float64)
    got = infini_read(q, memory, norm, local, open_)
    assert_close(got, right, "the output of an open gate")
    ### END HIDDEN TESTS


def test_infini_read_blends_by_the_gate():
    """An open gate lets the memory through, a closed one the window."""
    torch.manual_seed(14)
    key = torch.randn(1, 3, 1, 4, dtype=torch.float64)
    value = torch.randn(1, 3, 1, 2, dtype=torch.float64)
    memory, norm = _sigma(key).mT @ value, _sigma(key).sum(2)
    q = torch.randn(1, 3, 5, 4, dtype=torch.float64)
    local = torch.randn(1, 3, 5, 2, dtype=torch.float64)
    gate = torch.tensor([60.0, -60.0, 0.0], dtype=torch.float64)
    right = torch.stack(
        [
            value[0, 0].expand(5, 2),
            local[0, 1],
            (value[0, 2] + local[0, 2]) / 2,
        ]
    )[None]
    got = infini_read(q, memory, norm, local, gate)
    assert_close(got, right, "the output of an open, a closed, a half gate")
    ### BEGIN HIDDEN TESTS
    memory, norm = _memories(15, 2, 3, 4, 3)
    q = torch.randn(2, 3, 3, 4, dtype=torch.float64)  # H = T = E
    local = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    gate = torch.tensor([0.7, -1.3, 2.1], dtype=torch.float64)
    features = _sigma(q)
    far = torch.einsum("bhtd,bhde->bhte", features, memory)
    far = far / torch.einsum("bhtd,bhd->bht", features, norm)[..., None]
    right = torch.empty_like(local)
    for h, beta in enumerate(gate.tolist()):
        share = 1 / (1 + math.exp(-beta))
        right[:, h] = share * far[:, h] + (1 - share) * local[:, h]
    given = (q, memory, norm, local, gate)
    kept = [x.clone() for x in given]
    got = infini_read(*given)
    assert_close(got, right, "the output, where H = T = E,")
    for now, before in zip(given, kept, strict=True):
        assert_close(now, before, "what it is given, which must not change,")
    got = infini_read(*(x.float() for x in given))
    assert_close(got, right.float(), "the output in float32")
    ### END HIDDEN TESTS


def test_infini_read_of_an_empty_memory():
    """Where nothing was written the memory reads as zeros, not NaN."""
    torch.manual_seed(16)
    q = torch.randn(1, 2, 5, 3, dtype=torch.float64)
    local = torch.randn(1, 2, 5, 4, dtype=torch.float64)
    gate = torch.tensor([0.0, -60.0], dtype=torch.float64)
    share = torch.tensor([0.5, 1.0], dtype=torch.float64)
    right = share[None, :, None, None] * local
    empty = (q.new_zeros(1, 2, 3, 4), q.new_zeros(1, 2, 3))
    got = infini_read(q, *empty, local, gate)
    assert_close(got, right, "the output of an empty memory")
    ### BEGIN HIDDEN TESTS
    q = torch.randn(2, 3, 4, 3, dtype=torch.float64)
    local = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    memory, norm = _memories(17, 2, 3, 3, 5)
    far = torch.einsum("bhtd,bhde->bhte", _sigma(q), memory)
    far = far / torch.einsum("bhtd,bhd->bht", _sigma(q), norm)[..., None]
    half = torch.zeros(3, dtype=torch.float64)
    for where in ((0, 1), (1,)):  # a head of one text, and a whole text
        memory[where], norm[where], far[where] = 0.0, 0.0, 0.0
        right = (far + local) / 2
        got = infini_read(q, memory.clone(), norm.clone(), local, half)
        what = "the output, where some heads' memory is empty,"
        assert_close(got, right, what)
    ### END HIDDEN TESTS


def _jamba(n_layers, period, offset):
    """Return the pattern by its positions."""
    places = set(range(offset, n_layers, period))
    return ["attention" if n in places else "mamba" for n in range(n_layers)]


def test_hybrid_pattern_is_jambas():
    """One layer in eight is attention, the fifth of each eight."""
    eight = ["mamba"] * 4 + ["attention"] + ["mamba"] * 3
    assert_same(hybrid_pattern(8), eight, "hybrid_pattern(8)")
    assert_same(hybrid_pattern(16), 2 * eight, "hybrid_pattern(16)")
    ### BEGIN HIDDEN TESTS
    assert_same(hybrid_pattern(32), 4 * eight, "hybrid_pattern(32)")
    ### END HIDDEN TESTS


def test_hybrid_pattern_of_other_ratios():
    """Period and offset are free, and the last period may be cut short."""
    right = ["mamba", "attention", "mamba", "mamba", "attention"]
    assert_same(hybrid_pattern(5, 3, 1), right, "hybrid_pattern(5, 3, 1)")
    ### BEGIN HIDDEN TESTS
    for sizes in ((11, 4, 0), (7, 5, 4), (3, 8, 4), (6, 1, 0), (23, 6, 5)):
        got = hybrid_pattern(*sizes)
        assert_same(got, _jamba(*sizes), f"hybrid_pattern{sizes}")
    got = hybrid_pattern(n_layers=6, period=2, offset=1)
    assert_same(got, ["mamba", "attention"] * 3, "one layer in two")
    assert_same(hybrid_pattern(0), [], "hybrid_pattern(0)")
    got = hybrid_pattern(12, 6)  # the offset stays 4
    assert_same(got, _jamba(12, 6, 4), "hybrid_pattern(12, 6)")
    for sizes in ((8, 3), (8, 4, -1), (8, 4, 4)):
        try:
            hybrid_pattern(*sizes)
        except ValueError:
            continue
        except (AssertionError, IndexError):  # these are of other kinds
            pass
        offset = (*sizes, 4)[2]
        raise AssertionError(
            f"hybrid_pattern{sizes}: the period is {sizes[1]}, the offset "
            f"{offset}, which is not in it: raise a ValueError."
        )
    ### END HIDDEN TESTS
