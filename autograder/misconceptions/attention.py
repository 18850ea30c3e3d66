"""Mistakes of chapter 02, *Attention, from the inside*."""

import math

import torch

from autograder.misconceptions import Mistake
from contextlab.checks import forbid_autograd, forbid_softmax
from solutions.attention import attention, attention_scores, softmax

INF = math.inf


def _normal(seed, *shape):
    """Draw a tensor from a seed and nothing else, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def probe_softmax(softmax, seed):
    """Call softmax on small, large, masked and many-rowed scores."""
    pair = _normal(seed, 2)
    yield {"x": pair}, lambda: softmax(pair.clone())
    square = _normal(seed + 1, 3, 3)
    yield {"x": square, "dim": -1}, lambda: softmax(square.clone(), -1)
    yield {"x": square, "dim": 0}, lambda: softmax(square.clone(), 0)
    masked = square.masked_fill(torch.eye(3) > 0, -INF)
    yield {"x": masked}, lambda: softmax(masked.clone())
    nothing = torch.full((2, 2), -INF)
    yield {"x": nothing}, lambda: softmax(nothing.clone())
    apart = torch.tensor(
        [[-10_000.0, -10_001.0], [10_000.0, 9_999.0]]
    ).double()
    yield {"x": apart}, lambda: softmax(apart.clone())

    def without_pytorchs_own():
        with forbid_softmax():
            return softmax(square.clone())

    yield {"x": square}, without_pytorchs_own
    again = pair.clone()
    yield (
        {"x, looked at after the call": again},
        lambda: (
            softmax(again),
            again,
        )[1],
    )


def probe_attention_scores(attention_scores, seed):
    """Score one pair, several, and a batch."""
    for shape_q, shape_k in (
        ((1, 3), (1, 3)),
        ((2, 3), (2, 3)),
        ((2, 5), (3, 5)),
        ((2, 4, 6), (2, 3, 6)),
    ):
        q, k = _normal(seed, *shape_q), _normal(seed + 9, *shape_k)
        yield {"q": q, "k": k}, lambda q=q, k=k: attention_scores(q, k)


def probe_causal_mask(causal_mask, seed):
    """Ask for square and for wide masks; there is nothing to draw."""
    for t, s in ((1, 1), (2, 2), (3, 3), (1, 4), (2, 5)):
        inputs = {"n_queries": t, "n_keys": s}
        yield inputs, lambda t=t, s=s: causal_mask(t, s)
    inputs = {"n_queries": 1, "n_keys": 1, "device": "meta"}
    yield inputs, lambda: causal_mask(**inputs).device.type


def probe_attention(attention, seed):
    """Attend with and without a mask, to nothing, and among odd sizes."""
    q, k, v = _normal(seed, 3, 2, 2)
    yield {"q": q, "k": k, "v": v}, lambda: attention(q, k, v)
    mask = torch.ones(2, 2, dtype=torch.bool).tril()
    inputs = {"q": q, "k": k, "v": v, "mask": mask}
    yield inputs, lambda: attention(q, k, v, mask)
    nobody = torch.tensor([[True, True], [False, False]])
    inputs = {"q": q, "k": k, "v": v, "mask": nobody}
    yield inputs, lambda: attention(q, k, v, nobody)
    low = torch.full((2, 2), -8.0, dtype=torch.float64)  # scores of −45
    inputs = {"q": -low, "k": low, "v": v, "mask": mask}
    yield inputs, lambda: attention(-low, low, v, mask)
    loud = torch.tensor([[0.0, 0.0], [900.0, 900.0]], dtype=torch.float64)
    ones = torch.ones(2, 2, dtype=torch.float64)
    first = torch.tensor([[True, False]])  # scores of 0 and of 1,273
    inputs = {"q": ones, "k": loud, "v": v, "mask": first}
    yield inputs, lambda: attention(ones, loud, v, first)
    odd = (
        _normal(seed, 2, 3, 5),
        _normal(seed + 1, 2, 4, 5),
        _normal(seed, 2, 4, 7),
    )
    yield dict(zip("qkv", odd, strict=True)), lambda: attention(*odd)


def probe_attention_backward(attention_backward, seed):
    """Go backward through attention, unmasked and masked, square and not."""
    square = _normal(seed, 4, 2, 2)
    mask = torch.tensor([[True, False], [False, False]])
    odd = (
        _normal(seed, 2, 3, 7),
        _normal(seed + 1, 2, 3, 5),
        _normal(seed + 2, 2, 4, 5),
        _normal(seed + 3, 2, 4, 7),
    )
    names = ("grad_output", "q", "k", "v")

    def by_hand(*tensors, **mask):
        with forbid_autograd():
            return attention_backward(*tensors, **mask)

    inputs = dict(zip(names, square, strict=True))
    yield inputs, lambda: by_hand(*square)
    yield inputs | {"mask": mask}, lambda: by_hand(*square, mask=mask)
    yield dict(zip(names, odd, strict=True)), lambda: by_hand(*odd)


PROBES = {
    "softmax": probe_softmax,
    "attention_scores": probe_attention_scores,
    "causal_mask": probe_causal_mask,
    "attention": probe_attention,
    "attention_backward": probe_attention_backward,
}


def _uniform_where_masked(x, dim=-1):
    return torch.softmax(x.clamp(min=torch.finfo(x.dtype).min), dim)


def _borrowed_softmax(x, dim=-1):
    return torch.softmax(x, dim).nan_to_num(0.0)


def _additive_mask(n_queries, n_keys, device=None):
    hidden = torch.full((n_queries, n_keys), -INF, device=device)
    return hidden.triu(1 + n_keys - n_queries)


def _cosine(q, k):
    return torch.nn.functional.normalize(q, dim=-1) @ (
        torch.nn.functional.normalize(k, dim=-1).mT
    )


def _masked_with(value):
    def attention(q, k, v, mask=None):
        scores = attention_scores(q, k)
        if mask is not None:
            scores = scores.masked_fill(~mask, value)
        weights = softmax(scores)
        return weights @ v, weights

    return attention


def _masked_after_the_maximum(q, k, v, mask=None):
    scores = attention_scores(q, k)
    exps = (scores - scores.amax(-1, keepdim=True)).exp()
    if mask is not None:
        exps = exps * mask
    total = exps.sum(-1, keepdim=True)
    weights = exps / total.masked_fill(total == 0, 1.0)
    return weights @ v, weights


def _output_alone(q, k, v, mask=None):
    return attention(q, k, v, mask)[0]


def _by_autograd(grad_output, q, k, v, mask=None):
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    output = attention(*leaves, mask)[0]
    return torch.autograd.grad(output, leaves, grad_output)


_MASKING = "scores = scores.masked_fill(~mask, -math.inf)"
_GRAD_SCORES = "weights * (grad_weights - mean) / math.sqrt(q.shape[-1])"

MISTAKES = {
    "softmax": [
        Mistake(
            "no max-subtraction",
            "Your softmax exponentiates the scores as they are: exp(89) is "
            "more than float32 can hold, and infinity over infinity is NaN. "
            "Only differences of scores matter, so take the largest score "
            "away from all of them first.",
            {"(x - peak).exp()": "x.exp()"},
            "test_softmax_survives_large_scores",
        ),
        Mistake(
            "the formula as printed",
            "Your softmax is the formula as books print it: exp(x) over its "
            "sum. In a computer exp(89) overflows float32, and a row of −∞ "
            "ends in 0/0, both NaN. Take the row's largest score away first, "
            "and give a row that has nothing to attend to zeros.",
            {
                "(x - peak).exp()": "x.exp()",
                "total.masked_fill(total == 0, 1.0)": "total",
            },
            "test_softmax_survives_large_scores",
        ),
        Mistake(
            "one maximum for all rows",
            "Your softmax subtracts the largest score of the whole tensor. A "
            "row that lies far below it underflows to zeros. Each row needs "
            "its own maximum, along the same dimension as the sum.",
            {"x.amax(dim, keepdim=True)": "x.max()"},
            "test_softmax_survives_large_scores",
        ),
        Mistake(
            "NaN for a fully masked row",
            "Your softmax gives NaN where all scores are −∞: there the "
            "maximum is −∞ too, and −∞ − (−∞) is NaN. Such a row has nothing "
            "to attend to, and its weights are zeros.",
            {"peak = peak.masked_fill(peak == -math.inf, 0.0)": ""},
            "test_softmax_of_nothing_is_zero",
        ),
        Mistake(
            "uniform weights for a fully masked row",
            "Where all scores are −∞, your softmax spreads the weight evenly, "
            "as it does when −∞ is replaced by a very negative number. A "
            "query that may attend to nothing must get zeros.",
            _uniform_where_masked,
            "test_softmax_of_nothing_is_zero",
        ),
        Mistake(
            "dim is ignored",
            "Your softmax always works along the last dimension, whatever "
            "`dim` says. Pass `dim` to the maximum and to the sum.",
            {"peak = x.amax(": "dim = -1\n    peak = x.amax("},
            "test_softmax_makes_distributions",
        ),
        Mistake(
            "always along the first dimension",
            "Your softmax normalises along the first dimension, so it is the "
            "columns that sum to one. Pass `dim` to the maximum and to the "
            "sum; its default is the last dimension.",
            {"peak = x.amax(": "dim = 0\n    peak = x.amax("},
            "test_softmax_makes_distributions",
        ),
        Mistake(
            "the sum lost its dimension",
            "Your sum drops the dimension that it sums over, so that the "
            "division lines it up with the wrong one: on a square matrix each "
            "entry is divided by another row's sum. Keep the dimension.",
            {"exps.sum(dim, keepdim=True)": "exps.sum(dim)"},
            "test_softmax_makes_distributions",
        ),
        Mistake(
            "not normalised",
            "Your weights are exp(score), but they don't sum to one yet: "
            "divide by their sum.",
            {" / total.masked_fill(total == 0, 1.0)": ""},
            "test_softmax_makes_distributions",
        ),
        Mistake(
            "no exponential",
            "You divide the scores themselves by their sum. Scores can be "
            "negative, and so would be the weights: exponentiate first.",
            {
                "return exps / total.masked_fill(total == 0, 1.0)": (
                    "return x / x.sum(dim, keepdim=True)"
                )
            },
            "test_softmax_makes_distributions",
        ),
        Mistake(
            "changes its input",
            "Your softmax overwrites the scores that it was given: operations "
            "that end in _ and assignments like x -= … work in place. Whoever "
            "called you still needs x; compute into a new tensor.",
            {"(x - peak).exp()": "x.sub_(peak).exp()"},
            "test_softmax_makes_distributions",
        ),
        Mistake(
            "PyTorch's own softmax",
            "This calls PyTorch's softmax. Build it from exp and sums: the "
            "rest of the chapter rests on seeing what is inside.",
            _borrowed_softmax,
            "test_softmax_makes_distributions",
        ),
    ],
    "attention_scores": [
        Mistake(
            "no 1/√D",
            "Your scores are q·k without the 1/√D. Their spread grows with "
            "the width D, and softmax soon puts all weight on one key: "
            "divide by the square root of D.",
            {" / math.sqrt(q.shape[-1])": ""},
            "test_scores_keep_their_spread",
        ),
        Mistake(
            "divided by D",
            "You divide by D, not by √D. The variance of q·k is D, so its "
            "spread is √D; dividing by D makes wide heads undecided: all "
            "their weights become alike.",
            {"math.sqrt(q.shape[-1])": "q.shape[-1]"},
            "test_scores_keep_their_spread",
        ),
        Mistake(
            "multiplied by √D",
            "You multiply by √D where the formula divides: the spread of the "
            "scores should shrink back to one, not grow to D.",
            {"/ math.sqrt": "* math.sqrt"},
            "test_scores_keep_their_spread",
        ),
        Mistake(
            "scaled by the number of keys",
            "You divide by the square root of the number of keys. The scale "
            "is the width of a query: the last size of q, not the one before.",
            {"math.sqrt(q.shape[-1])": "math.sqrt(k.shape[-2])"},
            "test_scores_by_hand",
        ),
        Mistake(
            "scaled by the number of queries",
            "You divide by the square root of the number of queries. The "
            "scale is the width of a query: the last size of q, not the one "
            "before.",
            {"math.sqrt(q.shape[-1])": "math.sqrt(q.shape[-2])"},
            "test_scores_by_hand",
        ),
        Mistake(
            "queries against queries",
            "Your scores compare queries with queries (QQᵀ). What a token "
            "asks for and what others offer are different vectors: compare "
            "each query with each key.",
            {"q @ k.mT": "q @ q.mT"},
            "test_scores_by_hand",
        ),
        Mistake(
            "keys as rows",
            "Your scores are transposed: rows are keys, columns are queries. "
            "Entry (t, s) belongs to query t and key s, so that each row "
            "holds what one query sees.",
            {"q @ k.mT": "k @ q.mT"},
            "test_scores_by_hand",
        ),
        Mistake(
            "all dimensions transposed",
            "Your transpose turns round every dimension of k, the batch and "
            "the heads too. Swap the last two dimensions alone.",
            {"k.mT": "k.permute(*reversed(range(k.ndim)))"},
            "test_scores_have_one_row_a_query",
        ),
        Mistake(
            "cosine instead of dot product",
            "Your scores divide out the lengths of q and k (a cosine). In "
            "attention a long query or key may speak louder: the scale is a "
            "constant, √D.",
            _cosine,
            "test_scores_by_hand",
        ),
    ],
    "causal_mask": [
        Mistake(
            "aligned top-left",
            "Your mask lines up the first query with the first key. The "
            "queries are the last T of S positions: query 0 stands at "
            "position S − T and may attend to everything before it.",
            {"keys[n_keys - n_queries :]": "keys[:n_queries]"},
            "test_causal_mask_ends_at_the_last_key",
        ),
        Mistake(
            "inverted",
            "Your mask is True where attention is forbidden, as in "
            "nn.MultiheadAttention. Here True = may attend: turn it round.",
            {"keys <= queries": "keys > queries"},
            "test_causal_mask_hides_the_future",
        ),
        Mistake(
            "a token can't see itself",
            "Your mask hides each token from itself. The first token is then "
            "left with nothing to attend to: the diagonal is allowed.",
            {"keys <= queries": "keys < queries"},
            "test_causal_mask_hides_the_future",
        ),
        Mistake(
            "sees the future alone",
            "Your mask allows a token itself and the future, and hides the "
            "past: it is the upper triangle. Keep the lower one.",
            {"keys <= queries": "keys >= queries"},
            "test_causal_mask_hides_the_future",
        ),
        Mistake(
            "hides nothing",
            "Your mask lets every query see every key: the future isn't "
            "hidden at all.",
            {
                "return keys <= queries[:, None]": (
                    "return keys <= queries[:, None] + n_keys"
                )
            },
            "test_causal_mask_hides_the_future",
        ),
        Mistake(
            "additive instead of boolean",
            "You return a mask to be added to the scores (0 and −∞). Here a "
            "mask is boolean: True = may attend.",
            _additive_mask,
            "test_causal_mask_hides_the_future",
        ),
        Mistake(
            "device ignored",
            "Your mask is made on the CPU, whatever `device` says. On a GPU "
            "the scores are elsewhere, and the two can't meet: pass `device` "
            "on to whatever makes the first tensor.",
            {"device=device": "device=None"},
            "test_causal_mask_hides_the_future",
        ),
        Mistake(
            "numbers instead of booleans",
            "You return a mask of numbers. PyTorch's `~` and `masked_fill` "
            "need booleans: make it one, for example by a comparison.",
            {
                "return keys <= queries[:, None]": (
                    "return (keys <= queries[:, None]).float()"
                )
            },
            "test_causal_mask_hides_the_future",
        ),
        Mistake(
            "keys as rows",
            "Your mask has a row for each key. Its shape is (T, S): a row for "
            "each query, as in the scores.",
            {
                "return keys <= queries[:, None]": (
                    "return (keys <= queries[:, None]).mT"
                )
            },
            "test_causal_mask_ends_at_the_last_key",
        ),
    ],
    "attention": [
        Mistake(
            "returns the values",
            "Your output is V itself: nothing was averaged. Each output row "
            "is the sum of all value rows, each times its weight.",
            lambda q, k, v, mask=None: (v, softmax(attention_scores(q, k))),
            "test_attention_equals_pytorch",
        ),
        Mistake(
            "no 1/√D",
            "Your output equals attention without the 1/√D: the scores "
            "are too large and the weights too sharp. attention_scores has "
            "the scale already: use it.",
            {"attention_scores(q, k)": "q @ k.mT"},
            "test_attention_equals_pytorch",
        ),
        Mistake(
            "scaled twice",
            "Your scores are divided by √D twice: attention_scores does it "
            "already.",
            {
                "attention_scores(q, k)": (
                    "attention_scores(q, k) / math.sqrt(q.shape[-1])"
                )
            },
            "test_attention_equals_pytorch",
        ),
        Mistake(
            "queries against queries",
            "Your scores compare queries with queries (QQᵀ). Compare each "
            "query with each key.",
            {"attention_scores(q, k)": "attention_scores(q, q)"},
            "test_attention_equals_pytorch",
        ),
        Mistake(
            "softmax over the queries",
            "Your softmax runs along the queries, so the columns sum to one. "
            "Each query has a budget of one to spend on the keys: normalise "
            "along the last dimension.",
            {"softmax(scores)": "softmax(scores, -2)"},
            "test_attention_equals_pytorch",
        ),
        Mistake(
            "mask ignored",
            "Your attention doesn't use the mask: masked keys keep their "
            "weight.",
            {_MASKING: "pass"},
            "test_attention_obeys_the_mask",
        ),
        Mistake(
            "mask inverted",
            "You hide the keys that the mask allows and keep those that it "
            "forbids. True = may attend, so −∞ goes where the mask is False.",
            {"~mask": "mask"},
            "test_attention_obeys_the_mask",
        ),
        Mistake(
            "mask after the softmax",
            "You set weights to zero after the softmax. The future has had "
            "its share of the sum by then, and what is left doesn't add up "
            "to one: mask the scores, before the softmax.",
            {
                _MASKING: "pass",
                "weights = softmax(scores)": (
                    "weights = softmax(scores)\n"
                    "    if mask is not None:\n"
                    "        weights = weights * mask"
                ),
            },
            "test_attention_obeys_the_mask",
        ),
        Mistake(
            "masked with 0",
            "You set masked scores to 0. A score of 0 still earns weight "
            "exp(0) = 1 before normalising; only −∞ earns none.",
            _masked_with(0.0),
            "test_attention_obeys_the_mask",
        ),
        Mistake(
            "masked with −20",
            "You mask with −20 or so. exp(−20) is small but not zero: the "
            "future leaks in, and where all other scores are low it wins. "
            "Only −∞ gives a weight of exactly 0.",
            _masked_with(-20.0),
            "test_attention_obeys_the_mask",
        ),
        Mistake(
            "masked with a huge number",
            "You mask with a huge negative number instead of −∞. That works "
            "until a query may attend to nothing: then all its scores are "
            "equal and it attends to every key alike. Use −∞.",
            _masked_with(-1e9),
            "test_attention_to_nothing_is_zero",
        ),
        Mistake(
            "NaN for a fully masked row",
            "A query that may attend to nothing gets NaN, which then spreads "
            "through the whole model. PyTorch's softmax does that; yours "
            "gives zeros: use it.",
            {"weights = softmax(scores)": "weights = scores.softmax(-1)"},
            "test_attention_to_nothing_is_zero",
        ),
        Mistake(
            "mask after the maximum",
            "You mask after the largest score has been taken away. Where a "
            "masked key has the largest score by far, exp() of all others is "
            "0, and the query hears nothing at all. Mask the scores first.",
            _masked_after_the_maximum,
            "test_attention_obeys_the_mask",
        ),
        Mistake(
            "returns scores for weights",
            "The second thing that you return are the scores. Return the "
            "weights, after the softmax.",
            {"return weights @ v, weights": "return weights @ v, scores"},
            "test_attention_obeys_the_mask",
        ),
        Mistake(
            "weights and output swapped",
            "You return the weights first. The output comes first, then the "
            "weights.",
            {"return weights @ v, weights": "return weights, weights @ v"},
            "test_attention_equals_pytorch",
        ),
        Mistake(
            "returns the output alone",
            "You return the output alone. Return two things: the output and "
            "the weights.",
            _output_alone,
            "test_attention_equals_pytorch",
        ),
    ],
    "attention_backward": [
        Mistake(
            "1/√D missing",
            "The forward pass divides the scores by √D, so the gradient that "
            "comes back through them is divided by √D too. Your gradients by "
            "q and k are too large by just that factor.",
            {_GRAD_SCORES: "weights * (grad_weights - mean)"},
            "test_backward_equals_autograd",
        ),
        Mistake(
            "softmax differentiated entry by entry",
            "Your gradient of the softmax is p·dp, as if each weight depended "
            "on its own score alone. They share one sum: raise one and all "
            "others fall. Take away the row's weighted mean of dp.",
            {"(grad_weights - mean)": "grad_weights"},
            "test_backward_equals_autograd",
        ),
        Mistake(
            "mean along the queries",
            "You take the mean of dp along the queries. The softmax ran along "
            "the keys, so its gradient sums along the keys: the last "
            "dimension.",
            {".sum(-1, keepdim=True)": ".sum(-2, keepdim=True)"},
            "test_backward_equals_autograd",
        ),
        Mistake(
            "plain mean",
            "You subtract the plain mean of dp. The softmax's derivative "
            "needs the mean weighted by p: the sum of p·dp.",
            {"(grad_weights * weights).sum(": "grad_weights.mean("},
            "test_backward_equals_autograd",
        ),
        Mistake(
            "softmax skipped",
            "You pass the gradient by the weights straight on as the gradient "
            "by the scores. The softmax lies between the two.",
            {"weights * (grad_weights - mean)": "grad_weights"},
            "test_backward_equals_autograd",
        ),
        Mistake(
            "q and k swapped",
            "Your gradients by q and by k are swapped: the gradient by q is "
            "made of keys, and the gradient by k of queries.",
            {
                "return grad_scores @ k, grad_scores.mT @ q, grad_v": (
                    "return grad_scores.mT @ q, grad_scores @ k, grad_v"
                )
            },
            "test_backward_equals_autograd",
        ),
        Mistake(
            "key gradient not transposed",
            "The gradient by a key gathers from every query that looked at "
            "it: that is a column of the score gradient, so transpose it.",
            {"grad_scores.mT @ q": "grad_scores @ q"},
            "test_backward_equals_autograd",
        ),
        Mistake(
            "value gradient not transposed",
            "The gradient by a value gathers from every query that read it: "
            "that is a column of the weights, so transpose them.",
            {"weights.mT @ grad_output": "weights @ grad_output"},
            "test_backward_equals_autograd",
        ),
        Mistake(
            "order turned round",
            "You return the gradients in another order. They are expected by "
            "q, then k, then v.",
            {
                "return grad_scores @ k, grad_scores.mT @ q, grad_v": (
                    "return grad_v, grad_scores.mT @ q, grad_scores @ k"
                )
            },
            "test_backward_equals_autograd",
        ),
        Mistake(
            "mask ignored",
            "Your backward pass recomputes the weights without the mask: "
            "masked keys and values get gradients though nobody read them.",
            {"attention(q, k, v, mask)": "attention(q, k, v)"},
            "test_backward_obeys_the_mask",
        ),
        Mistake(
            "autograd",
            "This calls autograd. Write the gradients out by hand: "
            "FlashAttention, three chapters on, has to.",
            _by_autograd,
            "test_backward_equals_autograd",
        ),
    ],
}
