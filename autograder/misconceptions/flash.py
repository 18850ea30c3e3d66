"""Mistakes of chapter 05, *FlashAttention*."""

import math

import torch
import torch.nn.functional as F

from autograder.misconceptions import Mistake
from contextlab.checks import forbid_autograd
from contextlab.spies import Watch
from solutions.flash import tile_scores

INF = math.inf


def _normal(seed, *shape):
    """Draw a tensor from a seed and nothing else, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _attend(q, k, v, hidden=None):
    """Return attention and its log-sum-exp, from all scores at once."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if hidden is not None:
        scores = scores.masked_fill(hidden, -INF)
    return scores.softmax(-1).nan_to_num() @ v, scores.logsumexp(-1)


def _copies(tensors):
    return [x.clone() for x in tensors]


def probe_merge_attention(merge_attention, seed):
    """Merge one number each, then small, large and empty sets."""
    names = ("output_a", "lse_a", "output_b", "lse_b")
    one = (
        torch.tensor([[1.0]]).double(),
        torch.tensor([0.0]).double(),
        torch.tensor([[3.0]]).double(),
        torch.tensor([3.0]).double().log(),
    )
    q, k, v = _normal(seed, 2, 3), _normal(seed + 1, 5, 3), _normal(seed, 5, 2)
    drawn = (*_attend(q, k[:2], v[:2]), *_attend(q, k[2:], v[2:]))
    large = (one[0], one[1] + 1e4, one[2], one[3] + 1e4)
    nothing = torch.full((1,), -INF, dtype=torch.float64)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    half = (one[0], one[1], zero, nothing)
    empty = (zero, nothing, zero, nothing)
    for case in (one, drawn, large, half, empty):
        inputs = dict(zip(names, case, strict=True))
        yield inputs, lambda case=case: merge_attention(*_copies(case))


def probe_online_softmax(online_softmax, seed):
    """Take in blocks one after the other: small, large and empty ones."""

    def fold(blocks, values):
        n_queries, width = blocks[0].shape[0], values[0].shape[1]
        state = (
            torch.full((n_queries,), -INF, dtype=torch.float64),
            torch.zeros(n_queries, dtype=torch.float64),
            torch.zeros(n_queries, width, dtype=torch.float64),
        )
        states = []
        for scores, v in zip(blocks, values, strict=True):
            state = online_softmax(state, scores.clone(), v.clone())
            states.append(state)
        return states

    rising = [torch.tensor([[0.0]]).double(), torch.tensor([[1.0]]).double()]
    ones = [torch.ones(1, 1).double()] * 2
    drawn = [_normal(seed + i, 2, 2) for i in range(3)]
    values = [_normal(seed + 9 + i, 2, 3) for i in range(3)]
    steep = [3_000 * i + drawn[i] for i in range(3)]
    nothing = torch.full((2, 2), -INF, dtype=torch.float64)
    for blocks, vs in (
        (rising[:1], ones[:1]),
        (rising, ones),
        (rising[::-1], ones),
        (drawn, values),
        (steep, values),
        (steep[::-1], values),
        ([nothing, drawn[0], nothing], values),
    ):
        inputs = {"blocks of scores": blocks, "values": vs}
        yield inputs, lambda blocks=blocks, vs=vs: fold(blocks, vs)

    total = torch.ones(1, dtype=torch.float64)
    acc = torch.ones(1, 1, dtype=torch.float64)

    def look():
        online_softmax((0 * total, total, acc), rising[1], ones[1])
        return total, acc

    inputs = {"total, looked at after the call": total, "acc": acc}
    yield inputs, look


def _how(call, n):
    """Say how an answer works, by what it makes and calls."""
    with Watch() as seen:
        call()
    if any("attention" in name for name in seen.calls):
        return "by PyTorch's own attention"
    if seen.largest >= 8 * n * n:
        return "with a matrix of all pairs"
    if seen.largest > 4 * 8 * n * 3:
        return "with all scores of some queries"
    if seen.held > 4 * n * n:
        return "with the matrix in pieces"
    return "by tiles"


def _tiles(rows, keys):
    return {"block_q": rows, "block_k": keys}


def probe_flash_attention(flash_attention, seed):
    """Attend by one tile and by several, ragged, masked, and watched."""
    small = _normal(seed, 3, 2, 2)
    long = (
        _normal(seed, 4, 3),
        _normal(seed + 1, 6, 3),
        _normal(seed + 2, 6, 5),
    )
    some = torch.tensor([False, False, True, True, False, True])
    for tensors, more in (
        (small, _tiles(2, 2)),
        (long, _tiles(4, 6)),
        (long, _tiles(4, 3)),
        (long, _tiles(2, 6)),
        (long, _tiles(2, 4)),
        (long, _tiles(3, 3)),
        (small, _tiles(2, 2) | {"causal": True}),
        (long, _tiles(4, 6) | {"causal": True}),
        (long, _tiles(4, 3) | {"causal": True}),
        (long, _tiles(2, 6) | {"causal": True}),
        (long, _tiles(4, 6) | {"key_mask": some}),
        (long, _tiles(2, 2) | {"key_mask": some}),
        (long, _tiles(2, 2) | {"key_mask": some.roll(2)}),
        (long, _tiles(2, 2) | {"key_mask": torch.zeros(6) > 0}),
    ):
        inputs = dict(zip("qkv", tensors, strict=True)) | more
        yield (
            inputs,
            lambda x=tensors, m=more: flash_attention(*_copies(x), **m),
        )
    n = 96
    large = _normal(seed, 3, 1, 1, n, 3)
    yield (
        {"T = S": n} | _tiles(16, 16),
        lambda: _how(lambda: flash_attention(*large, **_tiles(16, 16)), n),
    )
    few = [large[0], large[1][..., :40, :], large[2][..., :40, :]]
    yield (
        {"T": n, "S": 40} | _tiles(n, 2),
        lambda: _how(lambda: flash_attention(*few, **_tiles(n, 2)), n),
    )

    def is_quick():
        with Watch() as seen:
            flash_attention(*large, **_tiles(48, 48))
        return sum(seen.calls.values()) < 4 * n

    yield {"T = S": n} | _tiles(48, 48), is_quick


def probe_flash_attention_backward(flash_attention_backward, seed):
    """Go backward by one tile and by several, ragged, masked, watched."""

    def backward(*given, **more):
        with forbid_autograd():
            return flash_attention_backward(*_copies(given), **more)

    def case(n_queries, n_keys, width, hidden=None):
        q = _normal(seed, n_queries, 3)
        k = _normal(seed + 1, n_keys, 3)
        v = _normal(seed + 2, n_keys, width)
        grad_output = _normal(seed + 3, n_queries, width)
        return grad_output, q, k, v, *_attend(q, k, v, hidden)

    some = torch.tensor([False, False, True, True, False, True])
    future = torch.ones(4, 6).triu(3) > 0
    small, long = case(2, 2, 2), case(4, 6, 5)
    causal, masked = case(4, 6, 5, future), case(4, 6, 5, ~some)
    hidden = case(4, 6, 5, torch.ones(4, 6) > 0)
    names = ("grad_output", "q", "k", "v", "output", "lse")
    for tensors, more in (
        (small, _tiles(2, 2)),
        (long, _tiles(4, 6)),
        (long, _tiles(4, 3)),
        (long, _tiles(2, 6)),
        (long, _tiles(4, 4)),
        (long, _tiles(3, 6)),
        (causal, _tiles(4, 6) | {"causal": True}),
        (causal, _tiles(2, 2) | {"causal": True}),
        (masked, _tiles(4, 6) | {"key_mask": some}),
        (masked, _tiles(2, 2) | {"key_mask": some}),
        (hidden, _tiles(2, 2) | {"key_mask": torch.zeros(6) > 0}),
    ):
        inputs = dict(zip(names, tensors, strict=True)) | more
        yield inputs, lambda x=tensors, m=more: backward(*x, **m)
    n = 96
    large = case(n, n, 3)
    yield (
        {"T = S": n} | _tiles(16, 16),
        lambda: _how(lambda: backward(*large, **_tiles(16, 16)), n),
    )


def probe_hbm_bytes(hbm_bytes, seed):
    """Count for sizes that divide and that don't; nothing is drawn."""
    for sizes in (
        (2, 2, 1, 2, 1),
        (4, 6, 5, 2, 1),
        (5, 6, 7, 2, 1),
        (3, 6, 7, 64, 4),
    ):
        names = ("n_queries", "n_keys", "width", "block_q", "bytes_per_number")
        inputs = dict(zip(names, sizes, strict=True))
        yield inputs, lambda sizes=sizes: hbm_bytes(*sizes)
    yield (
        {"n_queries": 2, "n_keys": 2, "width": 1, "block_q": 2},
        lambda: hbm_bytes(2, 2, 1, 2),
    )
    yield (
        {"n_queries": 2, "n_keys": 2, "asked for": "the types"},
        lambda: [type(n).__name__ for n in hbm_bytes(2, 2, 1, 2, 1)],
    )


PROBES = {
    "merge_attention": probe_merge_attention,
    "online_softmax": probe_online_softmax,
    "flash_attention": probe_flash_attention,
    "flash_attention_backward": probe_flash_attention_backward,
    "hbm_bytes": probe_hbm_bytes,
}


def _tile_by_tile_mean(
    q, k, v, causal=False, key_mask=None, block_q=64, block_k=64
):
    offset = k.shape[-2] - q.shape[-2]
    parts = []
    for left in range(0, k.shape[-2], block_k):
        keys = slice(left, left + block_k)
        rows = []
        for top in range(0, q.shape[-2], block_q):
            scores = tile_scores(
                q[..., top : top + block_q, :],
                k[..., keys, :],
                top + offset,
                left,
                causal,
                None if key_mask is None else key_mask[..., keys],
            )
            weights = scores.softmax(-1).nan_to_num()
            rows.append((weights @ v[..., keys, :], scores.logsumexp(-1)))
        parts.append(
            (
                torch.cat([output for output, _ in rows], -2),
                torch.cat([lse for _, lse in rows], -1),
            )
        )
    output = torch.stack([output for output, _ in parts]).mean(0)
    return output, torch.stack([lse for _, lse in parts]).logsumexp(0)


def _untiled(q, k, v, causal=False, key_mask=None, block_q=64, block_k=64):
    scores = tile_scores(q, k, k.shape[-2] - q.shape[-2], 0, causal, key_mask)
    return scores.softmax(-1).nan_to_num() @ v, scores.logsumexp(-1)


def _chunked(q, k, v, causal=False, key_mask=None, block_q=64, block_k=64):
    offset = k.shape[-2] - q.shape[-2]
    parts = []
    for top in range(0, q.shape[-2], block_q):
        rows = q[..., top : top + block_q, :]
        scores = tile_scores(rows, k, top + offset, 0, causal, key_mask)
        parts.append(
            (scores.softmax(-1).nan_to_num() @ v, scores.logsumexp(-1))
        )
    return (
        torch.cat([output for output, _ in parts], -2),
        torch.cat([lse for _, lse in parts], -1),
    )


def _in_pieces(q, k, v, causal=False, key_mask=None, block_q=64, block_k=64):
    offset = k.shape[-2] - q.shape[-2]
    outputs, lses = [], []
    kept = []  # of all tiles
    for top in range(0, q.shape[-2], block_q):
        tiles = []
        for left in range(0, k.shape[-2], block_k):
            keys = slice(left, left + block_k)
            tiles.append(
                tile_scores(
                    q[..., top : top + block_q, :],
                    k[..., keys, :],
                    top + offset,
                    left,
                    causal,
                    None if key_mask is None else key_mask[..., keys],
                )
            )
        kept.append(tiles)
        lse = torch.stack([tile.logsumexp(-1) for tile in tiles]).logsumexp(0)
        finite = lse.masked_fill(lse == -INF, 0.0)[..., None]
        values = v.split(block_k, -2)
        outputs.append(
            sum(
                (tile - finite).exp() @ value
                for tile, value in zip(tiles, values, strict=True)
            )
        )
        lses.append(lse)
    return torch.cat(outputs, -2), torch.cat(lses, -1)


def _query_by_query(
    q, k, v, causal=False, key_mask=None, block_q=64, block_k=64
):
    return _chunked(q, k, v, causal, key_mask, block_q=1)


def _pytorchs_own(
    q, k, v, causal=False, key_mask=None, block_q=64, block_k=64
):
    if causal or key_mask is not None:
        return _chunked(q, k, v, causal, key_mask, block_q, block_k)
    lead, batch = q.shape[:-2], (-1, 1)
    if v.shape[-1] != q.shape[-1]:
        return _chunked(q, k, v, causal, key_mask, block_q, block_k)
    args = [x.reshape(*batch, *x.shape[-2:]) for x in (q, k, v)]
    output = F.scaled_dot_product_attention(*args).reshape(q.shape)
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return output, kernel(*args)[1].reshape(*lead, q.shape[-2])


def _backward_untiled(
    grad_output, q, k, v, output, lse, causal=False, key_mask=None,
    block_q=64, block_k=64,
):  # fmt: skip
    scores = tile_scores(q, k, k.shape[-2] - q.shape[-2], 0, causal, key_mask)
    weights = (scores - lse[..., None]).exp().nan_to_num()
    mean = (grad_output * output).sum(-1, keepdim=True)
    grad_scores = weights * (grad_output @ v.mT - mean)
    grad_scores = grad_scores / math.sqrt(q.shape[-1])
    return grad_scores @ k, grad_scores.mT @ q, weights.mT @ grad_output


def _by_autograd(
    grad_output, q, k, v, output, lse, causal=False, key_mask=None,
    block_q=64, block_k=64,
):  # fmt: skip
    with torch.enable_grad():
        leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
        output, _ = _chunked(*leaves, causal, key_mask, block_q)
        return torch.autograd.grad(output, leaves, grad_output)


_START = """        peak = q.new_full(q_tile.shape[:-1], -math.inf)
        total = torch.zeros_like(peak)
        acc = torch.zeros_like(output[..., rows, :])
"""
_RAGGED_KEYS = {
    "range(0, n_keys, block_k)": "range(0, n_keys - block_k + 1, block_k)"
}
_RAGGED_QUERIES = {
    "range(0, n_queries, block_q)": (
        "range(0, n_queries - block_q + 1, block_q)"
    )
}
_STOPS = """            if (scores == -math.inf).all():
                break
"""
_NO_KEY_MASK = {"None if key_mask is None else key_mask[..., keys]": "None"}
_NOT_CAUSAL = {
    "left,\n                causal,": "left,\n                False,"
}
_MEAN = "mean[..., rows, None]"

MISTAKES = {
    "merge_attention": [
        Mistake(
            "plain mean",
            "You take the plain mean of the two outputs. A set with large "
            "scores has more to say than one with small ones: weigh each "
            "output by exp of its LSE.",
            {
                "share_a = (lse_a - peak).exp()": (
                    "share_a = torch.ones_like(peak)"
                ),
                "share_b = (lse_b - peak).exp()": (
                    "share_b = torch.ones_like(peak)"
                ),
                "peak + total.log()": "torch.logaddexp(lse_a, lse_b)",
            },
            "test_merge_equals_attention_to_all_keys",
        ),
        Mistake(
            "outputs added",
            "You add the two weighted outputs and don't divide by the sum of "
            "the weights. The result is no average any more.",
            {" / total.masked_fill(total == 0, 1.0)[..., None]": ""},
            "test_merge_equals_attention_to_all_keys",
        ),
        Mistake(
            "weighed by the logarithms",
            "You weigh the outputs by the log-sum-exps themselves. They are "
            "logarithms, and may be negative: the weights are their "
            "exponentials.",
            {
                "share_a = (lse_a - peak).exp()": "share_a = lse_a",
                "share_b = (lse_b - peak).exp()": "share_b = lse_b",
                "peak + total.log()": "torch.logaddexp(lse_a, lse_b)",
            },
            "test_merge_equals_attention_to_all_keys",
        ),
        Mistake(
            "weights swapped",
            "You weigh the first output by the second LSE and the second by "
            "the first. The set with the larger LSE should count for more.",
            {
                "share_a = (lse_a - peak).exp()": (
                    "share_a = (lse_b - peak).exp()"
                ),
                "share_b = (lse_b - peak).exp()": (
                    "share_b = (lse_a - peak).exp()"
                ),
            },
            "test_merge_equals_attention_to_all_keys",
        ),
        Mistake(
            "logarithms added",
            "Your merged LSE is the sum of the two. Add what they are the "
            "logarithms of: ln(exp(a) + exp(b)).",
            {"peak + total.log()": "lse_a + lse_b"},
            "test_merge_equals_attention_to_all_keys",
        ),
        Mistake(
            "the larger LSE",
            "Your merged LSE is the larger of the two, so the other set is "
            "forgotten in the next merge. It is ln(exp(a) + exp(b)).",
            {"peak + total.log()": "torch.maximum(lse_a, lse_b)"},
            "test_merge_equals_attention_to_all_keys",
        ),
        Mistake(
            "peak not added back",
            "Your merged LSE is the logarithm of the sum after you took the "
            "peak away. Add the peak back.",
            {"peak + total.log()": "total.log()"},
            "test_merge_equals_attention_to_all_keys",
        ),
        Mistake(
            "base 2",
            "Your merged LSE mixes in a logarithm to base 2. This course's "
            "LSE is the natural logarithm.",
            {"peak + total.log()": "peak + total.log2()"},
            "test_merge_equals_attention_to_all_keys",
        ),
        Mistake(
            "no peak taken away",
            "You exponentiate the log-sum-exps as they are. An LSE of 10,000 "
            "overflows, and infinity over infinity is NaN: take the larger "
            "of the two away first.",
            {"torch.maximum(lse_a, lse_b)": "torch.zeros_like(lse_a)"},
            "test_merge_survives_large_scores",
        ),
        Mistake(
            "NaN for two empty sets",
            "Where both LSEs are −∞, their maximum is −∞ too, and −∞ − (−∞) "
            "is NaN. Two sets without keys give zeros and −∞.",
            {"larger.masked_fill(larger == -math.inf, 0.0)": "larger"},
            "test_merge_with_nothing",
        ),
        Mistake(
            "0/0 for two empty sets",
            "Where both sets are empty you divide 0 by 0, which is NaN. The "
            "merged output is zeros there.",
            {"total.masked_fill(total == 0, 1.0)": "total"},
            "test_merge_with_nothing",
        ),
    ],
    "online_softmax": [
        Mistake(
            "accumulator not rescaled",
            "When a larger peak comes up you rescale the total, but not the "
            "weighted sum of values: acc is still measured against the old "
            "peak. Multiply both by exp(old peak − new peak).",
            {"rescale[..., None] * acc": "acc"},
            "test_online_softmax_equals_softmax",
        ),
        Mistake(
            "total not rescaled",
            "When a larger peak comes up you rescale acc, but not the total. "
            "Both were measured against the old peak: multiply both.",
            {"rescale * total": "total"},
            "test_online_softmax_equals_softmax",
        ),
        Mistake(
            "nothing rescaled",
            "When a larger peak comes up, what you have summed so far was "
            "measured against the old one. Multiply total and acc by "
            "exp(old peak − new peak) before you add to them.",
            {
                "rescale * total": "total",
                "rescale[..., None] * acc": "acc",
            },
            "test_online_softmax_equals_softmax",
        ),
        Mistake(
            "rescaled the wrong way",
            "You multiply by exp(new peak − old peak), which is 1 or more. "
            "Against a larger peak the old sums become smaller: "
            "exp(old peak − new peak).",
            {"(peak - base).exp()": "(base - peak).exp().nan_to_num(0.0)"},
            "test_online_softmax_equals_softmax",
        ),
        Mistake(
            "the block's own peak",
            "Your peak is the largest score of this block alone. It has to be "
            "the largest of all blocks so far: where scores fall, exp(old "
            "peak − new peak) overflows.",
            {"torch.maximum(peak, scores.amax(-1))": "scores.amax(-1)"},
            "test_online_softmax_equals_softmax",
        ),
        Mistake(
            "peak never raised",
            "You return the old peak with the new sums. The next block will "
            "measure them against a peak that isn't theirs.",
            {"return new_peak, total, acc": "return peak, total, acc"},
            "test_online_softmax_equals_softmax",
        ),
        Mistake(
            "no peak taken away",
            "You exponentiate the scores as they are. exp(710) is more than "
            "float64 can hold: take the peak away first.",
            {
                "base = new_peak.masked_fill(new_peak == -math.inf, 0.0)": (
                    "base = torch.zeros_like(new_peak)"
                ),
                "(peak - base).exp()": "torch.ones_like(peak)",
            },
            "test_online_softmax_survives_large_scores",
        ),
        Mistake(
            "one peak for all queries",
            "You take one peak for all queries. A query whose scores lie far "
            "below it underflows to zeros: each needs its own, along the "
            "last dimension.",
            {"scores.amax(-1)": "scores.amax()"},
            "test_online_softmax_survives_large_scores",
        ),
        Mistake(
            "starts afresh",
            "You return the sums of this block alone: what came before is "
            "gone. Add to the rescaled old total and acc.",
            {
                "rescale * total + exps": "exps",
                "rescale[..., None] * acc + exps": "exps",
            },
            "test_online_softmax_equals_softmax",
        ),
        Mistake(
            "divided too early",
            "You divide acc by the total at each block. Then the next block "
            "adds a sum to an average. Divide once, after the last block.",
            {
                "return new_peak, total, acc": (
                    "return new_peak, total, acc / total[..., None]"
                )
            },
            "test_online_softmax_equals_softmax",
        ),
        Mistake(
            "−∞ − (−∞)",
            "As long as a query has met nothing but −∞, its peak is −∞, and "
            "−∞ − (−∞) is NaN, which stays for ever. Subtract 0 there.",
            {"new_peak.masked_fill(new_peak == -math.inf, 0.0)": "new_peak"},
            "test_online_softmax_waits_for_the_first_score",
        ),
        Mistake(
            "changes its state in place",
            "You overwrite the state that you were given: operations that "
            "end in _ and += work in place. Compute into new tensors.",
            {
                "total = rescale * total + exps.sum(-1)": (
                    "total = total.mul_(rescale).add_(exps.sum(-1))"
                ),
            },
            "test_online_softmax_equals_softmax",
        ),
    ],
    "flash_attention": [
        Mistake(
            "last keys left out",
            "You leave out the keys that don't fill a whole tile. The last "
            "tile may have fewer than block_k.",
            _RAGGED_KEYS,
            "test_flash_of_ragged_tiles",
        ),
        Mistake(
            "last queries left out",
            "You leave out the queries that don't fill a whole tile. The last "
            "tile may have fewer than block_q.",
            _RAGGED_QUERIES
            | {
                "q.new_empty(*q.shape": "q.new_zeros(*q.shape",
                "q.new_empty(q.shape": "q.new_zeros(q.shape",
            },
            "test_flash_of_ragged_tiles",
        ),
        Mistake(
            "state carried to the next queries",
            "You start with an empty state once, and not for each tile of "
            "queries: the second tile goes on with the first one's sums.",
            {
                _START: "        if top == 0:\n"
                + "".join(f"    {line}\n" for line in _START.splitlines())
            },
            "test_flash_equals_pytorch",
        ),
        Mistake(
            "only the last tile of keys",
            "Each tile of keys starts with an empty state, so the last one "
            "alone is left. Carry the state from tile to tile of keys.",
            {
                "(peak, total, acc), scores": (
                    "(torch.full_like(peak, -math.inf), 0 * total, 0 * acc), "
                    "scores"
                )
            },
            "test_flash_equals_pytorch",
        ),
        Mistake(
            "mean of the tiles",
            "You normalise each tile of keys by itself and take the plain "
            "mean. A tile with large scores has more to say: weigh the tiles "
            "by their sums of exponentials, as the running softmax does.",
            _tile_by_tile_mean,
            "test_flash_equals_pytorch",
        ),
        Mistake(
            "never divided",
            "Your output is the sum of exp(score − peak) times value. Divide "
            "it by the total once the last tile of keys is in.",
            {"acc / divisor[..., None]": "acc"},
            "test_flash_equals_pytorch",
        ),
        Mistake(
            "no 1/√D",
            "Your scores are q·k without the 1/√D. tile_scores has it "
            "already: use it as it is.",
            {
                "q_tile = q[..., rows, :]": (
                    "q_tile = q[..., rows, :] * math.sqrt(q.shape[-1])"
                )
            },
            "test_flash_equals_pytorch",
        ),
        Mistake(
            "scaled twice",
            "Your scores are divided by √D twice: tile_scores does it "
            "already.",
            {
                "q_tile = q[..., rows, :]": (
                    "q_tile = q[..., rows, :] / math.sqrt(q.shape[-1])"
                )
            },
            "test_flash_equals_pytorch",
        ),
        Mistake(
            "log₂ LSE",
            "Your LSE is a logarithm to base 2, as GPU kernels keep it. Here "
            "it is the natural one: ln = log₂ · ln 2.",
            {"peak + total.log()": "(peak + total.log()) / math.log(2)"},
            "test_flash_equals_pytorch",
        ),
        Mistake(
            "LSE without the peak",
            "Your LSE is the logarithm of the total, which was summed with "
            "the peak taken away. Add the peak back.",
            {"peak + total.log()": "total.log()"},
            "test_flash_equals_pytorch",
        ),
        Mistake(
            "the peak for an LSE",
            "You return the largest score as the LSE. It is the peak plus "
            "the logarithm of the total.",
            {"peak + total.log()": "peak"},
            "test_flash_equals_pytorch",
        ),
        Mistake(
            "causal mask aligned at the first key",
            "Your first query stands at position 0. The queries are the last "
            "T of S positions, so it stands at S − T.",
            {"top + n_keys - n_queries": "top"},
            "test_flash_hides_what_is_hidden",
        ),
        Mistake(
            "query position within its tile",
            "You count the positions of queries from the start of their "
            "tile. A causal mask needs them from the start of the text: add "
            "the tile's first row.",
            {"top + n_keys - n_queries": "n_keys - n_queries"},
            "test_flash_hides_what_is_hidden",
        ),
        Mistake(
            "key position within its tile",
            "You count the positions of keys from the start of their tile. A "
            "causal mask needs them from the start of the text.",
            {"left,\n                causal": "0,\n                causal"},
            "test_flash_hides_what_is_hidden",
        ),
        Mistake(
            "causal ignored",
            "Your queries see the future although `causal` is True.",
            _NOT_CAUSAL,
            "test_flash_hides_what_is_hidden",
        ),
        Mistake(
            "key mask ignored",
            "Keys that `key_mask` hides are attended to.",
            _NO_KEY_MASK,
            "test_flash_hides_what_is_hidden",
        ),
        Mistake(
            "key mask of the first tile",
            "You use the start of the key mask for every tile. Cut it as you "
            "cut the keys.",
            {
                "key_mask[..., keys]": (
                    "key_mask[..., : min(block_k, n_keys - left)]"
                )
            },
            "test_flash_hides_what_is_hidden",
        ),
        Mistake(
            "stops at a hidden tile",
            "You stop at the first tile of keys that is all hidden. Padding "
            "may stand on the left: leave that tile out by continue, not by "
            "break.",
            {
                "            peak, total, acc = online_softmax(": (
                    f"{_STOPS}            peak, total, acc = online_softmax("
                )
            },
            "test_flash_hides_what_is_hidden",
        ),
        Mistake(
            "0/0 for a query that sees nothing",
            "A query that sees nothing has a total of 0, and 0/0 is NaN. Its "
            "output is zeros.",
            {"total.masked_fill(total == 0, 1.0)": "total"},
            "test_flash_of_nothing_is_zero",
        ),
        Mistake(
            "untiled",
            "Right, but by the matrix of all pairs: this is the attention of "
            "chapter 2. Score one tile of queries against one tile of keys "
            "at a time, and carry the running softmax along.",
            _untiled,
            "test_flash_never_holds_the_matrix",
        ),
        Mistake(
            "only the queries are tiled",
            "You tile the queries, but hold all scores of a tile's queries "
            "at once: the fast memory must then be as wide as the text. Tile "
            "the keys as well.",
            _chunked,
            "test_flash_never_holds_the_matrix",
        ),
        Mistake(
            "the matrix in pieces",
            "Each of your tensors is a tile, but you keep the scores of all "
            "tiles at once: together they are the matrix. Use a tile's "
            "scores and let them go before the next.",
            _in_pieces,
            "test_flash_never_holds_the_matrix",
        ),
        Mistake(
            "block_k ignored",
            "Your tiles of keys are as large as block_q says. They have "
            "block_k keys.",
            {
                "range(0, n_keys, block_k)": "range(0, n_keys, block_q)",
                "left + block_k": "left + block_q",
            },
            "test_flash_never_holds_the_matrix",
        ),
        Mistake(
            "query by query",
            "You take one query at a time, so every key is read from the slow "
            "memory once for each query. A tile of block_q queries shares "
            "one reading.",
            _query_by_query,
            "test_flash_never_holds_the_matrix",
        ),
        Mistake(
            "PyTorch's own attention",
            "This calls PyTorch's attention, whose tiles are hidden inside. "
            "Write them out.",
            _pytorchs_own,
            "test_flash_never_holds_the_matrix",
        ),
    ],
    "flash_attention_backward": [
        Mistake(
            "1/√D missing",
            "The forward pass divides the scores by √D, so the gradient that "
            "comes back through them is divided by √D too. Your gradients by "
            "q and k are too large by just that factor.",
            {"grad_scores = grad_scores / math.sqrt(q.shape[-1])": ""},
            "test_flash_backward_equals_autograd",
        ),
        Mistake(
            "the mean of a tile alone",
            "You take the weighted mean of dP over the keys of one tile. The "
            "softmax ran over all keys, and so does this mean. No tile has "
            "it; rowsum(dO ∘ O), with the whole output, does.",
            {_MEAN: "(weights * grad_weights).sum(-1, keepdim=True)"},
            "test_flash_backward_equals_autograd",
        ),
        Mistake(
            "softmax differentiated entry by entry",
            "Your gradient of the softmax is p·dp, as if each weight depended "
            "on its own score alone. Take away the row's weighted mean.",
            {f"(grad_weights - {_MEAN})": "grad_weights"},
            "test_flash_backward_equals_autograd",
        ),
        Mistake(
            "a softmax of each tile",
            "You compute the softmax of a tile by itself. The weights are "
            "shares of all keys: exp(score − LSE), with the LSE of the whole "
            "row.",
            {
                "(scores - finite[..., rows, None]).exp()": (
                    "scores.softmax(-1).nan_to_num(0.0)"
                )
            },
            "test_flash_backward_equals_autograd",
        ),
        Mistake(
            "weights not normalised",
            "Your weights are exp(score). Subtract the LSE first: that "
            "divides by the sum, and it keeps exp from overflowing.",
            {"(scores - finite[..., rows, None]).exp()": "scores.exp()"},
            "test_flash_backward_equals_autograd",
        ),
        Mistake(
            "LSE read as log₂",
            "You take the LSE for a logarithm to base 2. It is the natural "
            "one, like the exponential that it goes into.",
            {"scores - finite[": "scores - math.log(2) * finite["},
            "test_flash_backward_equals_autograd",
        ),
        Mistake(
            "gradient by q overwritten",
            "A query sends its gradient through every tile of keys, but you "
            "keep that of the last one. Add them up.",
            {"grad_q[..., rows, :] +=": "grad_q[..., rows, :] ="},
            "test_flash_backward_equals_autograd",
        ),
        Mistake(
            "gradient by k overwritten",
            "A key gathers its gradient from every tile of queries, but you "
            "keep that of the last one. Add them up.",
            {"grad_k[..., keys, :] +=": "grad_k[..., keys, :] ="},
            "test_flash_backward_equals_autograd",
        ),
        Mistake(
            "gradient by v overwritten",
            "A value gathers its gradient from every tile of queries, but "
            "you keep that of the last one. Add them up.",
            {"grad_v[..., keys, :] +=": "grad_v[..., keys, :] ="},
            "test_flash_backward_equals_autograd",
        ),
        Mistake(
            "last keys left out",
            "Keys that don't fill a whole tile get no gradient. The last "
            "tile may have fewer than block_k.",
            _RAGGED_KEYS,
            "test_flash_backward_equals_autograd",
        ),
        Mistake(
            "last queries left out",
            "Queries that don't fill a whole tile send nothing back. The last "
            "tile may have fewer than block_q.",
            _RAGGED_QUERIES,
            "test_flash_backward_equals_autograd",
        ),
        Mistake(
            "order turned round",
            "You return the gradients in another order. They are expected by "
            "q, then k, then v.",
            {"return grad_q, grad_k, grad_v": "return grad_v, grad_k, grad_q"},
            "test_flash_backward_equals_autograd",
        ),
        Mistake(
            "autograd",
            "This calls autograd. Write the gradients out by hand: on a GPU "
            "nobody else does it for a kernel of your own.",
            _by_autograd,
            "test_flash_backward_equals_autograd",
        ),
        Mistake(
            "causal ignored",
            "Your backward pass computes the weights without the causal mask: "
            "the future gets gradients though nobody read it.",
            _NOT_CAUSAL,
            "test_flash_backward_hides_what_is_hidden",
        ),
        Mistake(
            "causal mask aligned at the first key",
            "Your first query stands at position 0. The queries are the last "
            "T of S positions, so it stands at S − T.",
            {"top + n_keys - n_queries": "top"},
            "test_flash_backward_hides_what_is_hidden",
        ),
        Mistake(
            "key mask ignored",
            "Your backward pass computes the weights without the key mask: "
            "masked keys and values get gradients though nobody read them.",
            _NO_KEY_MASK,
            "test_flash_backward_hides_what_is_hidden",
        ),
        Mistake(
            "−∞ − (−∞)",
            "For a query that sees nothing, score and LSE are both −∞, and "
            "their difference is NaN. All of its weights are 0.",
            {"lse.masked_fill(lse == -math.inf, 0.0)": "lse"},
            "test_flash_backward_hides_what_is_hidden",
        ),
        Mistake(
            "stops at a hidden tile",
            "You stop at the first tile whose scores are all hidden. The "
            "tiles after it may be seen: leave that one out by continue, not "
            "by break.",
            {
                "            weights = (scores - finite": (
                    f"{_STOPS}            weights = (scores - finite"
                )
            },
            "test_flash_backward_hides_what_is_hidden",
        ),
        Mistake(
            "untiled",
            "Right, but by the matrix of all pairs. Compute the weights of a "
            "tile again from its scores and the LSE, use them, and let them "
            "go.",
            _backward_untiled,
            "test_flash_backward_never_holds_the_matrix",
        ),
    ],
    "hbm_bytes": [
        Mistake(
            "a ragged tile rounded down",
            "You round the number of tiles down. A last tile of few queries "
            "reads all keys and values, too: round up.",
            {
                "math.ceil(n_queries / block_q)": (
                    "max(1, n_queries // block_q)"
                )
            },
            "test_hbm_bytes_of_a_ragged_tile",
        ),
        Mistake(
            "one tile too many",
            "You count one tile more than there are where block_q divides "
            "the queries: n // block_q + 1 rounds up only where something is "
            "left over.",
            {
                "math.ceil(n_queries / block_q)": "n_queries // block_q + 1",
            },
            "test_hbm_bytes_by_hand",
        ),
        Mistake(
            "a fraction of a tile",
            "You count a ragged tile by its share of the queries. It reads "
            "all keys and values all the same: round up.",
            {
                "math.ceil(n_queries / block_q)": "n_queries / block_q",
                "tiled * bytes_per_number": "int(tiled * bytes_per_number)",
            },
            "test_hbm_bytes_of_a_ragged_tile",
        ),
        Mistake(
            "keys and values read once",
            "You count one reading of K and V. Each tile of queries reads "
            "them anew: that is the price of tiling.",
            {"n_tiles * k_and_v": "k_and_v"},
            "test_hbm_bytes_by_hand",
        ),
        Mistake(
            "tiles of keys counted",
            "You count the tiles along the keys. K and V are read once for "
            "each tile of queries, however the keys are cut.",
            {
                "math.ceil(n_queries / block_q)": (
                    "math.ceil(n_keys / block_q)"
                )
            },
            "test_hbm_bytes_by_hand",
        ),
        Mistake(
            "keys without values",
            "You count the keys and forget the values, or the other way "
            "round. Both are read.",
            {"2 * n_keys * width": "n_keys * width"},
            "test_hbm_bytes_by_hand",
        ),
        Mistake(
            "scores written and read once",
            "You count two crossings of the matrix. The softmax is a step of "
            "its own: the scores are written and read, and so are the "
            "weights. That makes four.",
            {"4 * scores": "2 * scores"},
            "test_hbm_bytes_by_hand",
        ),
        Mistake(
            "only what is written",
            "You count one crossing of the matrix. The scores are written and "
            "read, and so are the weights. That makes four.",
            {"4 * scores": "scores"},
            "test_hbm_bytes_by_hand",
        ),
        Mistake(
            "matrix in the tiled count",
            "You count the scores for the tiled computation. They never "
            "leave the fast memory.",
            {"+ n_tiles * k_and_v": "+ n_tiles * k_and_v + scores"},
            "test_hbm_bytes_by_hand",
        ),
        Mistake(
            "LSE forgotten",
            "You forget the LSE, one number a query, which the tiled "
            "computation writes for the backward pass.",
            {"2 * q_or_output + n_queries +": "2 * q_or_output +"},
            "test_hbm_bytes_by_hand",
        ),
        Mistake(
            "numbers for bytes",
            "You count numbers. Multiply by the bytes of each.",
            {
                "naive * bytes_per_number": "naive",
                "tiled * bytes_per_number": "tiled",
            },
            "test_hbm_bytes_by_hand",
        ),
        Mistake(
            "counts swapped",
            "You return the tiled count first. The naive one comes first.",
            {
                "return naive * bytes_per_number, tiled * bytes_per_number": (
                    "return tiled * bytes_per_number, naive * bytes_per_number"
                )
            },
            "test_hbm_bytes_by_hand",
        ),
        Mistake(
            "no whole numbers",
            "You return floats. Bytes are whole numbers, and a float can't "
            "tell large ones apart.",
            {
                "naive * bytes_per_number": "float(naive * bytes_per_number)",
                "tiled * bytes_per_number": "float(tiled * bytes_per_number)",
            },
            "test_hbm_bytes_by_hand",
        ),
    ],
}
