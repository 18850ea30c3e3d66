"""Mistakes of chapter 04, *The quadratic wall*."""

import math

import torch
import torch.nn.functional as F

from autograder.misconceptions import Mistake
from contextlab.spies import Watch
from solutions.attention import attention


def _normal(seed, *shape):
    """Draw a tensor from a seed and nothing else, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def probe_attention_pairs(attention_pairs, seed):
    """Count pairs with and without a mask; there is nothing to draw."""
    for t, s in ((1, 1), (2, 2), (4, 4), (2, 5), (5, 2)):
        inputs = {"n_queries": t, "n_keys": s}
        yield inputs, lambda t=t, s=s: attention_pairs(t, s)
    for t, s in ((1, 1), (2, 2), (4, 4), (2, 5), (3, 4)):
        inputs = {"n_queries": t, "n_keys": s, "causal": True}
        yield inputs, lambda t=t, s=s: attention_pairs(t, s, True)
    yield (
        {"n_queries": 2, "n_keys": 2, "asked for": "the type"},
        lambda: type(attention_pairs(2, 2)).__name__,
    )


def probe_score_bytes(score_bytes, seed):
    """Weigh a head, layers, heads and other types."""
    yield {"n_tokens": 3}, lambda: score_bytes(3)
    yield {"n_tokens": 1_024}, lambda: score_bytes(1_024)
    for inputs in (
        {"n_tokens": 3, "n_layers": 5},
        {"n_tokens": 3, "n_heads": 7},
        {"n_tokens": 3, "dtype": torch.float16},
        {"n_tokens": 3, "dtype": torch.float64},
    ):
        yield inputs, lambda inputs=inputs: score_bytes(**inputs)


def probe_attention_flops(attention_flops, seed):
    """Count the work of few tokens, with and without a mask."""
    for t, s, width in ((1, 1, 1), (3, 5, 2), (5, 3, 7)):
        inputs = {"n_queries": t, "n_keys": s, "width": width}
        yield inputs, lambda x=(t, s, width): attention_flops(*x)
    for t, s, width in ((1, 1, 1), (4, 4, 3), (2, 5, 3)):
        inputs = {"n_queries": t, "n_keys": s, "width": width, "causal": True}
        yield inputs, lambda x=(t, s, width): attention_flops(*x, True)


def probe_crossover_length(crossover_length, seed):
    """Ask for narrow models and for GPT-2 small; nothing is drawn."""
    for sizes in ((1, 1), (5, 20), (48, 100), (768, 3_072)):
        inputs = dict(zip(("d_model", "d_hidden"), sizes, strict=True))
        yield inputs, lambda sizes=sizes: crossover_length(*sizes)
        inputs = inputs | {"causal": True}
        yield inputs, lambda sizes=sizes: crossover_length(*sizes, True)


def probe_growth_exponent(growth_exponent, seed):
    """Fit exact powers, then what no power fits."""
    noise = _normal(seed, 5).exp().tolist()
    for lengths, costs in (
        ([1, 2], [1.0, 4.0]),
        ([10, 20, 40], [0.5, 1.0, 2.0]),
        ([1, 2, 4], [1.0, 8.0, 4.0]),
        ([3, 5, 50, 60, 1_000], noise),
    ):
        inputs = {"lengths": lengths, "costs": costs}
        yield inputs, lambda x=inputs: growth_exponent(**x)


def probe_chunked_attention(chunked_attention, seed):
    """Attend in chunks, under masks, and see what is held meanwhile."""
    q, k, v = _normal(seed, 3, 4, 2)
    small = {"q": q, "k": k, "v": v}

    def call(**given):
        return lambda: chunked_attention(**given)

    for chunk in (4, 2, 3, 9):
        yield small | {"chunk": chunk}, call(**small, chunk=chunk)
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    mask[2] = False
    for m in (mask, mask[3:], mask[1:2], mask[:, 1:2]):
        given = small | {"mask": m, "chunk": 3}
        yield given, call(**given)
    deep = {
        "q": _normal(seed, 2, 3, 5),
        "k": _normal(seed + 1, 2, 4, 5),
        "v": _normal(seed + 2, 2, 4, 6),
        "chunk": 2,
    }
    yield deep, call(**deep)
    q, k, v = _normal(seed, 3, 1, 1, 320, 2)
    long = {"q": q, "k": k, "v": v, "chunk": 8}
    everyone = torch.ones(320, 320, dtype=torch.bool)

    def held(mask):
        with Watch() as seen:
            chunked_attention(**long, mask=mask)
        matrix, part = 320 * 320 * 8, 8 * 320 * 8
        several = seen.calls["exp"] + seen.calls["_softmax"] > 1
        own = any("scaled_dot_product" in name for name in seen.calls)
        return {
            "a whole matrix": seen.largest >= matrix,
            "too large": seen.largest > 4 * part,
            "held": seen.held > matrix // 4,
            "in parts": several,
            "PyTorch's own": own,
        }

    yield long | {"mask": None}, lambda: held(None)
    yield long | {"mask": everyone}, lambda: held(everyone)

    def is_small():
        with Watch() as seen:
            chunked_attention(q, k, v, chunk=80)
        return seen.largest < 80 * 320 * 8 // 2

    yield {"T = S": 320, "chunk": 80, "asked for": "much less"}, is_small


PROBES = {
    "attention_pairs": probe_attention_pairs,
    "score_bytes": probe_score_bytes,
    "attention_flops": probe_attention_flops,
    "crossover_length": probe_crossover_length,
    "growth_exponent": probe_growth_exponent,
    "chunked_attention": probe_chunked_attention,
}


def _rows(mask, q, k):
    if mask is None:
        return None
    return mask.expand(*mask.shape[:-2], q.shape[-2], k.shape[-2])


def _whole(q, k, v, mask=None, chunk=128):
    return attention(q, k, v, mask)[0]


def _whole_for_each_chunk(q, k, v, mask=None, chunk=128):
    parts = [
        attention(q, k, v, mask)[0][..., start : start + chunk, :]
        for start in range(0, q.shape[-2], chunk)
    ]
    return torch.cat(parts, dim=-2)


def _by_chunks_of_keys(average):
    """Attend to each chunk of keys by itself, then sum or average."""

    def chunked_attention(q, k, v, mask=None, chunk=128):
        mask = _rows(mask, q, k)
        outputs = []
        for start in range(0, k.shape[-2], chunk):
            keys = slice(start, start + chunk)
            part = mask if mask is None else mask[..., keys]
            near = k[..., keys, :], v[..., keys, :]
            outputs.append(attention(q, *near, part)[0])
        total = torch.stack(outputs).sum(0)
        return total / len(outputs) if average else total

    return chunked_attention


def _keeps_the_weights(q, k, v, mask=None, chunk=128):
    mask = _rows(mask, q, k)
    kept = []
    for start in range(0, q.shape[-2], chunk):
        rows = slice(start, start + chunk)
        part = mask if mask is None else mask[..., rows, :]
        kept.append(attention(q[..., rows, :], k, v, part))
    return torch.cat([output for output, _ in kept], dim=-2)


def _bias_for_all(q, k, v, mask=None, chunk=128):
    bias = None
    if mask is not None:
        hidden = torch.zeros(q.shape[-2], k.shape[-2], dtype=q.dtype)
        bias = hidden.masked_fill(~mask, -math.inf)
    outputs = []
    for start in range(0, q.shape[-2], chunk):
        rows = slice(start, start + chunk)
        part = bias if bias is None else bias[..., rows, :] == 0
        outputs.append(attention(q[..., rows, :], k, v, part)[0])
    return torch.cat(outputs, dim=-2)


def _pytorchs_own(q, k, v, mask=None, chunk=128):
    if mask is not None:
        mask = mask.expand(*q.shape[:-1], k.shape[-2])
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


_CAUSAL = "pairs -= n_queries * (n_queries - 1) // 2"
_BYTES = "n_layers * n_heads * n_tokens**2 * dtype.itemsize"
_FLOPS = (
    "return 2 * 2 * pairs * width  # two products, each multiplies and adds"
)
_RETURN = "return 2 * mean_keys if causal else mean_keys + 1"
_SLOPE = "return rise / sum((a - mean_x) ** 2 for a in x)"
_LOGS = "y = [math.log(cost) for cost in costs]"
_PART = "part = mask if mask is None else mask[..., rows, :]"

MISTAKES = {
    "attention_pairs": [
        Mistake(
            "handshakes",
            "You count as in a meeting, n(n − 1)/2: each pair once, and "
            "nobody with himself. In attention the trophy asking “it” is "
            "another score than “it” asking the trophy, and a token scores "
            "itself as well: T · S pairs.",
            {
                "pairs = n_queries * n_keys": (
                    "pairs = n_queries * (n_keys - 1) // 2"
                ),
                _CAUSAL: "pass",
            },
            "test_pairs_without_a_mask",
        ),
        Mistake(
            "always causal",
            "You leave out the pairs that a causal mask would hide even "
            "where there is no mask. Without one, every query is scored "
            "against every key.",
            {
                "if causal:\n        pairs": (
                    "if n_queries <= n_keys:\n        pairs"
                )
            },
            "test_pairs_without_a_mask",
        ),
        Mistake(
            "a token without itself",
            "You leave the diagonal out: under a causal mask a token may "
            "attend to itself. That makes n(n + 1)/2 pairs, not n(n − 1)/2.",
            {_CAUSAL: "pairs -= n_queries * (n_queries + 1) // 2"},
            "test_pairs_that_a_causal_mask_leaves",
        ),
        Mistake(
            "causal ignored",
            "Your count is the same with and without a causal mask. The mask "
            "hides what lies above the diagonal: about half.",
            {_CAUSAL: "pass"},
            "test_pairs_that_a_causal_mask_leaves",
        ),
        Mistake(
            "exactly half",
            "Half of all pairs is not quite what a causal mask leaves: the "
            "diagonal is allowed in full, so it is n(n + 1)/2 and not n²/2. "
            "And the last T of S queries see far more than half.",
            {_CAUSAL: "pairs //= 2"},
            "test_pairs_that_a_causal_mask_leaves",
        ),
        Mistake(
            "aligned top-left",
            "You count as if the first query stood at the first key. The "
            "queries are the last T of S positions, and all that was read "
            "before is their past: they lose only T(T − 1)/2 pairs.",
            {_CAUSAL: "pairs = n_queries * (n_queries + 1) // 2"},
            "test_pairs_that_a_causal_mask_leaves",
        ),
        Mistake(
            "all keys' triangle",
            "You count S(S + 1)/2, the pairs of all S tokens. There are only "
            "T queries: the tokens before them don't ask anew.",
            {_CAUSAL: "pairs = n_keys * (n_keys + 1) // 2"},
            "test_pairs_that_a_causal_mask_leaves",
        ),
        Mistake(
            "queries squared",
            "You square the number of queries. A pair is a query and a key, "
            "so without a mask it is T · S.",
            {"pairs = n_queries * n_keys": "pairs = n_queries**2"},
            "test_pairs_without_a_mask",
        ),
        Mistake(
            "a float",
            "You return a float, which holds whole numbers only up to 2⁵³ "
            "exactly. Divide by //, and multiply instead of raising to 2.0.",
            {"return pairs": "return float(pairs)"},
            "test_pairs_without_a_mask",
        ),
    ],
    "score_bytes": [
        Mistake(
            "numbers, not bytes",
            "You count the scores. Each takes several bytes: 4 in float32, 2 "
            "in float16.",
            {" * dtype.itemsize": ""},
            "test_bytes_of_one_head",
        ),
        Mistake(
            "bits",
            "You count bits; eight of them are a byte.",
            {"dtype.itemsize": "dtype.itemsize * 8"},
            "test_bytes_of_one_head",
        ),
        Mistake(
            "GiB instead of bytes",
            "You return GiB. The docstring asks for bytes: divide by 2**30 "
            "only where you print.",
            {_BYTES: f"{_BYTES} / 2**30"},
            "test_bytes_of_one_head",
        ),
        Mistake(
            "GB instead of bytes",
            "You return GB. The docstring asks for bytes; and mind that a GB "
            "is 10⁹ of them, but the GiB that memory is counted in 2³⁰.",
            {_BYTES: f"{_BYTES} / 10**9"},
            "test_bytes_of_one_head",
        ),
        Mistake(
            "causal pairs alone",
            "You count the pairs that a causal mask allows. The matrix is "
            "square all the same: a hidden score is −∞, and −∞ takes as many "
            "bytes as any number.",
            {"n_tokens**2": "(n_tokens * (n_tokens + 1) // 2)"},
            "test_bytes_of_one_head",
        ),
        Mistake(
            "linear",
            "Your bytes grow with the number of tokens. There is a score for "
            "each pair of tokens: square it.",
            {"n_tokens**2": "n_tokens"},
            "test_bytes_of_one_head",
        ),
        Mistake(
            "one type for all",
            "You take four bytes for every number, whatever `dtype` says. "
            "`dtype.itemsize` knows.",
            {"dtype.itemsize": "4"},
            "test_bytes_of_a_model",
        ),
        Mistake(
            "heads share a matrix",
            "You count one matrix a layer. Each head has scores of its own.",
            {"n_layers * n_heads * n_tokens": "n_layers * n_tokens"},
            "test_bytes_of_a_model",
        ),
        Mistake(
            "layers share a matrix",
            "You count the heads of one layer. “If all are kept” means those "
            "of every layer.",
            {"n_layers * n_heads * n_tokens": "n_heads * n_tokens"},
            "test_bytes_of_a_model",
        ),
    ],
    "attention_flops": [
        Mistake(
            "MACs for FLOPs",
            "You count a multiplication and its addition as one (a "
            "multiply-accumulate, MAC). FLOPs count both: twice as many.",
            {_FLOPS: "return 2 * pairs * width"},
            "test_flops_without_a_mask",
        ),
        Mistake(
            "one product, and MACs",
            "You count the multiplications of QKᵀ alone. There is a second "
            "product, PV, as large as the first; and each multiplication has "
            "an addition, so it is 4 · pairs · width.",
            {_FLOPS: "return pairs * width"},
            "test_flops_without_a_mask",
        ),
        Mistake(
            "width forgotten",
            "You count a fixed number of operations a pair. A score is a dot "
            "product of vectors as wide as `width`, and so many numbers of a "
            "value are added up for it.",
            {_FLOPS: "return 2 * 2 * pairs"},
            "test_flops_without_a_mask",
        ),
        Mistake(
            "width squared",
            "You square the width. That is a projection's cost; in attention "
            "a vector meets a vector, so the width counts once.",
            {_FLOPS: "return 2 * 2 * pairs * width**2"},
            "test_flops_without_a_mask",
        ),
        Mistake(
            "causal not halved",
            "You count the pairs that a causal mask hides. Under a causal "
            "mask a text of n tokens has n(n + 1)/2 pairs.",
            {
                "attention_pairs(n_queries, n_keys, causal)": (
                    "n_queries * n_keys"
                )
            },
            "test_flops_of_causal_attention",
        ),
        Mistake(
            "exactly half when causal",
            "You take half of the unmasked work. The diagonal is allowed in "
            "full, and the last T of S queries see more than half: count "
            "their pairs with attention_pairs.",
            {
                "attention_pairs(n_queries, n_keys, causal)": (
                    "n_queries * n_keys // (2 if causal else 1)"
                )
            },
            "test_flops_of_causal_attention",
        ),
        Mistake(
            "queries squared",
            "You square the number of queries. Where T queries meet S keys, "
            "there are T · S pairs.",
            {
                "attention_pairs(n_queries, n_keys, causal)": (
                    "attention_pairs(n_queries, n_queries, causal)"
                )
            },
            "test_flops_without_a_mask",
        ),
        Mistake(
            "keys squared",
            "You square the number of keys. Only T tokens ask: T · S pairs.",
            {
                "attention_pairs(n_queries, n_keys, causal)": (
                    "attention_pairs(n_keys, n_keys, causal)"
                )
            },
            "test_flops_without_a_mask",
        ),
        Mistake(
            "forward and backward",
            "You count three times too much: the backward pass costs twice "
            "the forward pass, but asked for is attention itself.",
            {_FLOPS: "return 3 * 2 * 2 * pairs * width"},
            "test_flops_without_a_mask",
        ),
    ],
    "crossover_length": [
        Mistake(
            "at the tie",
            "At that length both cost the same. Asked for is the first at "
            "which attention costs *more*.",
            {_RETURN: "return 2 * mean_keys - 1 if causal else mean_keys"},
            "test_crossover_without_a_mask",
        ),
        Mistake(
            "MLP forgotten",
            "You compare attention with its own projections. The MLP's two "
            "matrices are there too, and they are the larger part.",
            {" + 2 * d_model * d_hidden": ""},
            "test_crossover_without_a_mask",
        ),
        Mistake(
            "projections forgotten",
            "You compare attention with the MLP. Attention's own four "
            "projections are paid by the token, too: 4 · C².",
            {"4 * d_model**2 + 2": "2"},
            "test_crossover_without_a_mask",
        ),
        Mistake(
            "three projections",
            "You count three projections: to queries, keys and values. The "
            "fourth writes the heads' answers back.",
            {"4 * d_model**2": "3 * d_model**2"},
            "test_crossover_without_a_mask",
        ),
        Mistake(
            "one matrix in the MLP",
            "You count one matrix of the MLP. It has two: C × F and F × C.",
            {"2 * d_model * d_hidden": "d_model * d_hidden"},
            "test_crossover_without_a_mask",
        ),
        Mistake(
            "one product in attention",
            "You count one of attention's two products. QKᵀ and PV cost the "
            "same, so attention overtakes twice as early.",
            {"// (2 * d_model)": "// d_model"},
            "test_crossover_without_a_mask",
        ),
        Mistake(
            "MACs against FLOPs",
            "You compare multiply-accumulates of the matrices with FLOPs of "
            "attention. Count both sides alike, and the 2 cancels.",
            {"// (2 * d_model)": "// (4 * d_model)"},
            "test_crossover_without_a_mask",
        ),
        Mistake(
            "a hidden layer of 4C",
            "You take the MLP's hidden layer to be 4C wide. GPT-2's is, "
            "others' are not: use d_hidden.",
            {"2 * d_model * d_hidden": "8 * d_model**2"},
            "test_crossover_without_a_mask",
        ),
        Mistake(
            "causal ignored",
            "Your crossover is the same with a causal mask. The mask halves "
            "the pairs, so attention overtakes at about twice the length.",
            {_RETURN: "return mean_keys + 1"},
            "test_crossover_of_causal_attention",
        ),
        Mistake(
            "exactly double when causal",
            "You double the unmasked crossover. A causal text has n(n + 1)/2 "
            "pairs, a little more than n²/2, and overtakes a little earlier.",
            {_RETURN: ("return (2 if causal else 1) * (mean_keys + 1)")},
            "test_crossover_of_causal_attention",
        ),
        Mistake(
            "double and one",
            "With a causal mask you compare n²/2 pairs. It is n(n + 1)/2: "
            "every token also sees itself, which makes up one token.",
            {_RETURN: "return (2 if causal else 1) * mean_keys + 1"},
            "test_crossover_of_causal_attention",
        ),
    ],
    "growth_exponent": [
        Mistake(
            "no logarithms",
            "You fit a line to the costs themselves. That gives a cost a "
            "token; the exponent is the slope of log cost against log "
            "length.",
            {
                "x = [math.log(n) for n in lengths]": "x = list(lengths)",
                _LOGS: "y = list(costs)",
            },
            "test_exponent_of_exact_powers",
        ),
        Mistake(
            "logarithm of the costs alone",
            "You take the logarithm of the costs alone. Then it is an "
            "exponential that becomes a line; for a power, take both.",
            {"x = [math.log(n) for n in lengths]": "x = list(lengths)"},
            "test_exponent_of_exact_powers",
        ),
        Mistake(
            "logarithm of the lengths alone",
            "You take the logarithm of the lengths alone. A power becomes a "
            "line where both are logarithms.",
            {_LOGS: "y = list(costs)"},
            "test_exponent_of_exact_powers",
        ),
        Mistake(
            "axes swapped",
            "Your slope is upside down: log length against log cost. A "
            "quadratic cost should have exponent 2, not ½.",
            {_SLOPE: "return rise / sum((b - mean_y) ** 2 for b in y)"},
            "test_exponent_of_noisy_costs",
        ),
        Mistake(
            "one over the exponent",
            "You return length's exponent in cost, 1/b: a quadratic cost "
            "should have exponent 2, not ½.",
            {_SLOPE: f"{_SLOPE.replace('return ', 'return 1 / (')})"},
            "test_exponent_of_exact_powers",
        ),
        Mistake(
            "first and last point",
            "You take the slope from the first point to the last. In a "
            "measurement each point errs, so fit the line to all of them.",
            {_SLOPE: "return (y[-1] - y[0]) / (x[-1] - x[0])"},
            "test_exponent_of_noisy_costs",
        ),
        Mistake(
            "mean of the steps",
            "You average the slopes from each point to the next. That weighs "
            "close neighbours as much as far ones: least squares don't.",
            {
                _SLOPE: (
                    "steps = [\n        (y[i + 1] - y[i]) / (x[i + 1] - x[i])"
                    "\n        for i in range(len(x) - 1)\n"
                    "        if x[i + 1] != x[i]\n    ]\n"
                    "    return sum(steps) / len(steps)"
                )
            },
            "test_exponent_of_noisy_costs",
        ),
        Mistake(
            "through the origin",
            "You fit a line through the origin, as if one token cost exactly "
            "one. The line may start anywhere: take the means away first.",
            {
                "mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)": (
                    "mean_x, mean_y = 0.0, 0.0"
                )
            },
            "test_exponent_of_exact_powers",
        ),
        Mistake(
            "the factor of a doubling",
            "You return what a doubling multiplies the cost by, 2ᵇ. Asked "
            "for is b itself: 2 for a quadratic cost, not 4.",
            {_SLOPE: f"{_SLOPE.replace('return ', 'return 2 ** (')})"},
            "test_exponent_of_exact_powers",
        ),
    ],
    "chunked_attention": [
        Mistake(
            "the whole matrix",
            "You attend in one go: right, but all T × S scores exist at "
            "once. Let `chunk` queries at a time attend to all keys.",
            _whole,
            "test_chunks_never_hold_the_matrix",
        ),
        Mistake(
            "the whole matrix for each chunk",
            "For every chunk you compute attention of all queries and keep a "
            "few rows. That holds the whole matrix, again and again: cut the "
            "queries *before* you attend.",
            _whole_for_each_chunk,
            "test_chunks_never_hold_the_matrix",
        ),
        Mistake(
            "weights kept",
            "You keep what `attention` returns for every chunk, the weights "
            "included. Together they are the T × S matrix: keep the output "
            "alone.",
            _keeps_the_weights,
            "test_chunks_never_hold_the_matrix",
        ),
        Mistake(
            "a mask of numbers",
            "You make one T × S tensor out of the mask, before the first "
            "chunk. Cut the mask you were given, row by row.",
            _bias_for_all,
            "test_chunks_never_hold_the_matrix",
        ),
        Mistake(
            "chunk ignored",
            "Your chunks have a fixed size: use `chunk`. Who has less memory "
            "asks for smaller ones.",
            {"outputs = []": "outputs, chunk = [], 128"},
            "test_chunks_never_hold_the_matrix",
        ),
        Mistake(
            "number of chunks",
            "You cut the queries into `chunk` chunks, as torch.chunk does. "
            "`chunk` is how many queries a chunk has: torch.split takes "
            "that.",
            {
                "outputs = []": (
                    "outputs, chunk = [], math.ceil(n_queries / chunk)"
                )
            },
            "test_chunks_never_hold_the_matrix",
        ),
        Mistake(
            "PyTorch's own attention",
            "This calls PyTorch's own attention. It does without the matrix, "
            "but the exercise is to see how.",
            _pytorchs_own,
            "test_chunks_never_hold_the_matrix",
        ),
        Mistake(
            "the rest is dropped",
            "You stop at the last whole chunk. Where `chunk` doesn't divide "
            "T, some queries are left: they are a smaller chunk.",
            {
                "range(0, n_queries, chunk)": (
                    "range(0, n_queries - chunk + 1, chunk)"
                )
            },
            "test_chunks_equal_attention",
        ),
        Mistake(
            "keys cut as well",
            "You cut the keys along with the queries, so that each chunk "
            "sees itself alone. A query may attend to all keys.",
            {
                "attention(q[..., rows, :], k, v, part)": (
                    "attention(q[..., rows, :], k[..., rows, :], "
                    "v[..., rows, :], part)"
                )
            },
            "test_chunks_equal_attention",
        ),
        Mistake(
            "a softmax for each chunk of keys, averaged",
            "You attend to each chunk of keys by itself and average. Then "
            "each chunk has a budget of its own, whatever its scores. Cut "
            "the queries: each has its keys together.",
            _by_chunks_of_keys(average=True),
            "test_chunks_equal_attention",
        ),
        Mistake(
            "a softmax for each chunk of keys, summed",
            "You attend to each chunk of keys by itself and sum up. Then a "
            "query spends its budget once a chunk. Cut the queries: each has "
            "its keys together.",
            _by_chunks_of_keys(average=False),
            "test_chunks_equal_attention",
        ),
        Mistake(
            "output as wide as q",
            "Your output is as wide as the queries, D. It is as wide as the "
            "values, E.",
            {
                "outputs = []": "output = torch.zeros_like(q)",
                "outputs.append(attention(q[..., rows, :], k, v, part)[0])": (
                    "output[..., rows, :] = attention("
                    "q[..., rows, :], k, v, part)[0]"
                ),
                "return torch.cat(outputs, dim=-2)": "return output",
            },
            "test_chunks_equal_attention",
        ),
        Mistake(
            "joined along the batch",
            "You join the chunks along the first dimension. It is the "
            "queries that were cut: join along the last but one.",
            {"torch.cat(outputs, dim=-2)": "torch.cat(outputs)"},
            "test_chunks_equal_attention",
        ),
        Mistake(
            "mask ignored",
            "Your chunks don't use the mask.",
            {_PART: "part = None"},
            "test_chunks_obey_the_mask",
        ),
        Mistake(
            "the same rows of the mask",
            "Every chunk uses the first rows of the mask. Rows are queries: "
            "cut the mask where you cut the queries.",
            {
                _PART: (
                    "part = mask\n        if mask is not None:\n"
                    "            n_rows = min(chunk, n_queries - start)\n"
                    "            part = mask[..., :n_rows, :]"
                )
            },
            "test_chunks_obey_the_mask",
        ),
        Mistake(
            "a mask of one row",
            "You cut the mask without asking whether it has a row for every "
            "query. A mask of shape (1, S) holds for all queries: expand it "
            "first, which makes a view and no copy.",
            {
                "mask = mask.expand(*mask.shape[:-2], n_queries, n_keys)": (
                    "pass"
                )
            },
            "test_chunks_obey_the_mask",
        ),
    ],
}
