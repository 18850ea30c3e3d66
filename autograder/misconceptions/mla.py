"""Mistakes of chapter 09, *Sharing and compressing*."""

from numbers import Integral

import torch

from autograder.misconceptions import Mistake
from contextlab.spies import Watch
from solutions.attention import attention

SIZES = {  # of the probe's latent attention
    "q_latent": 6,
    "kv_latent": 4,
    "nope": 3,
    "rope": 4,
    "value": 5,
}


def _normal(seed, *shape):
    """Draw a tensor from a seed and nothing else, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _largest(call, *limits):
    """Return what a call returns, and which sizes its tensors exceed."""
    with Watch() as seen:
        result = call()
    return result, [seen.largest > limit for limit in limits]


def probe_grouped_query_attention(grouped_query_attention, seed):
    """Share one head, then groups, under masks; then count the bytes."""
    q, k = _normal(seed, 1, 4, 2, 3), _normal(seed + 1, 1, 2, 2, 3)
    v = _normal(seed + 2, 1, 2, 2, 3)
    causal = torch.ones(2, 2, dtype=torch.bool).tril()
    nothing = torch.tensor([[True, False], [False, False]])
    for q_, k_, v_, mask in (
        (q, k[:, :1], v[:, :1], None),
        (q, k, v, None),
        (q, k, v, causal),
        (q, k, v, nothing),
        (q, 100 * k - 900, v, causal),
    ):
        case = [q_, k_, v_] if mask is None else [q_, k_, v_, mask]
        yield (
            dict(zip(("q", "k", "v", "mask"), case, strict=False)),
            lambda case=case: grouped_query_attention(
                *(x.clone() for x in case)
            ),
        )
    wide = (_normal(seed, 1, 12, 1, 3), *_normal(seed, 2, 1, 2, 50, 3))
    limit = 3 * wide[1].numel() * 8
    yield (
        dict(zip("qkv", wide, strict=True)),
        lambda: _largest(lambda: grouped_query_attention(*wide), limit),
    )


def probe_mha_to_gqa(mha_to_gqa, seed):
    """Merge counted numbers, then random ones, also into a single head."""
    counted = torch.arange(8, dtype=torch.float64)[:, None]
    drawn = _normal(seed, 12, 3)
    for weight, n_heads, n_shared in (
        (counted, 4, 2),
        (drawn, 6, 3),
        (drawn, 6, 2),
        (drawn, 4, 1),
        (drawn, 4, 4),
    ):
        inputs = {"weight": weight, "n_heads": n_heads, "n_shared": n_shared}
        yield (
            inputs,
            lambda w=weight, h=n_heads, g=n_shared: mha_to_gqa(
                w.clone(), h, g
            ),
        )


def probe_multi_head_latent_attention(latent_attention, seed):
    """Compress a few tokens, near and far, then attend."""

    def built(larger=1.0):
        layer = latent_attention(6, 2, **SIZES).double()
        state = {
            name: 0.7 * _normal(seed + i, *value.shape)
            for i, (name, value) in enumerate(layer.state_dict().items())
        }
        state["q_b_proj.weight"] *= larger
        layer.load_state_dict(state, strict=False)
        return layer

    for n_tokens, start in ((1, 0), (3, 0), (2, 7)):
        x = _normal(seed + 50, 1, n_tokens, 6)
        positions = torch.arange(start, start + n_tokens)
        inputs = {"compress": "", "x": x, "positions": positions}
        yield inputs, lambda x=x, p=positions: built().compress(x.clone(), p)
    x, positions = _normal(seed + 50, 1, 3, 6), torch.tensor([4, 6, 9])
    inputs = {"compress": "", "x": x, "positions": positions}
    yield inputs, lambda: built().compress(x.clone(), positions)
    for shape in ((1, 1, 6), (1, 2, 6), (2, 5, 6)):
        y = _normal(seed + 60, *shape)
        yield {"forward": "", "x": y}, lambda y=y: built()(y.clone())
    inputs = {"forward": "", "x": x, "looked at": "a second text's output"}
    yield inputs, lambda: _second(built(), x)
    inputs = {"forward": "", "x": x, "queries": "100 times as large"}
    yield inputs, lambda: built(100.0)(x.clone())


def _second(layer, x):
    layer(1.0 - x)
    return layer(x.clone())


def probe_absorbed_decode(absorbed_decode, seed):
    """Attend to one token, then to several; then count the bytes."""

    def drawn(heads, keys, nope, rope, latent, value, batch=1):
        return {
            "q_nope": _normal(seed, batch, heads, nope),
            "q_rope": _normal(seed + 1, batch, heads, rope),
            "cache": _normal(seed + 2, batch, keys, latent + rope),
            "kv_b": _normal(seed + 3, heads * (nope + value), latent),
        }

    for sizes in (
        (1, 1, 2, 2, 2, 2),
        (1, 3, 2, 2, 3, 2),
        (2, 4, 3, 2, 5, 4),
        (2, 4, 3, 4, 4, 5),
    ):
        given = drawn(*sizes)
        yield (
            given,
            lambda given=given: absorbed_decode(
                *(x.clone() for x in given.values())
            ),
        )
    large = drawn(8, 60, 9, 4, 10, 8, batch=2)
    cache = large["cache"].numel() * 8
    limits = (2 * cache, 8 * cache)  # of a copy for each head, and of more
    yield (
        large,
        lambda: _largest(lambda: absorbed_decode(*large.values()), *limits),
    )
    wide = drawn(2, 300, 64, 2, 4, 64)
    limit = 2 * wide["cache"].numel() * 8
    yield (
        wide,
        lambda: _largest(lambda: absorbed_decode(*wide.values()), limit),
    )
    sharp = drawn(2, 4, 3, 2, 5, 4)
    sharp["q_nope"] = 3_000 * sharp["q_nope"]
    yield sharp, lambda: absorbed_decode(*sharp.values())


def probe_mla_cache_bytes(mla_cache_bytes, seed):
    """Count by ones, then by sizes that tell every factor apart."""
    names = (
        "n_tokens",
        "n_layers",
        "n_heads",
        "head_width",
        "kv_latent",
        "rope",
        "bytes_per_number",
    )
    for sizes in (
        (1, 1, 1, 1, 1, 1, 1),
        (1, 1, 2, 3, 5, 1, 1),
        (3, 2, 4, 5, 6, 2, 1),
        (7, 2, 3, 5, 11, 4 + seed, 2),
    ):
        yield (
            dict(zip(names, sizes, strict=True)),
            lambda sizes=sizes: mla_cache_bytes(*sizes),
        )
    inputs = dict(zip(names, sizes, strict=True))
    yield (
        inputs | {"looked at": "are these whole numbers"},
        lambda: [isinstance(n, Integral) for n in mla_cache_bytes(*sizes)],
    )


PROBES = {
    "grouped_query_attention": probe_grouped_query_attention,
    "mha_to_gqa": probe_mha_to_gqa,
    "MultiHeadLatentAttention": probe_multi_head_latent_attention,
    "absorbed_decode": probe_absorbed_decode,
    "mla_cache_bytes": probe_mla_cache_bytes,
}


def _copied(q, k, v, mask=None):
    """Copy every head of keys and values for each of its query heads."""
    each = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(each, 1), v.repeat_interleave(each, 1)
    return attention(q, k, v, mask)[0]


def _tiled(q, k, v, mask=None):
    """Let query head h read head h mod G."""
    each = q.shape[1] // k.shape[1]
    k, v = k.repeat(1, each, 1, 1), v.repeat(1, each, 1, 1)
    return attention(q, k, v, mask)[0]


def _values_tiled(q, k, v, mask=None):
    """Map the keys rightly and the values by h mod G."""
    each = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(each, 1), v.repeat(1, each, 1, 1)
    return attention(q, k, v, mask)[0]


def _first_head(q, k, v, mask=None):
    """Let all query heads read the first head."""
    return attention(q, k[:, :1], v[:, :1], mask)[0]


def _mean_head(q, k, v, mask=None):
    """Let all query heads read the mean of the heads."""
    return attention(q, k.mean(1, True), v.mean(1, True), mask)[0]


def _expand_cache(q_nope, q_rope, cache, kv_b):
    """Make the keys and values of all heads for all tokens, as usual."""
    n_heads, nope = q_nope.shape[1:]
    latent, rope_key = cache[..., : kv_b.shape[1]], cache[..., kv_b.shape[1] :]
    made = (latent @ kv_b.T).unflatten(-1, (n_heads, -1)).transpose(1, 2)
    k = torch.cat(
        [made[..., :nope], rope_key[:, None].expand(-1, n_heads, -1, -1)], -1
    )
    q = torch.cat([q_nope, q_rope], -1)[:, :, None]
    return attention(q, k, made[..., nope:])[0][:, :, 0]


def _copy_cache(q_nope, q_rope, cache, kv_b):
    """Let the product copy the cache for each head, to line the shapes up."""
    n_heads, nope = q_nope.shape[1:]
    per_head = kv_b.unflatten(0, (n_heads, -1))
    q = (q_nope[:, :, None] @ per_head[:, :nope])[:, :, 0]
    q = torch.cat([q, q_rope], -1)[:, :, None]  # (B, H, 1, L + R)
    scores = q @ cache[:, None].mT
    weights = (scores / (nope + q_rope.shape[-1]) ** 0.5).softmax(-1)
    read = weights @ cache[:, None, :, : kv_b.shape[1]]  # (B, H, 1, L)
    return (read @ per_head[:, nope:].mT)[:, :, 0]


def _head_by_head(q_nope, q_rope, cache, kv_b):
    """Make the keys and values of one head at a time."""
    n_heads, outputs = q_nope.shape[1], []
    for h, rows in enumerate(kv_b.chunk(n_heads)):
        part = (q_nope[:, h : h + 1], q_rope[:, h : h + 1], cache, rows)
        outputs.append(_expand_cache(*part))
    return torch.cat(outputs, 1)


_SHARE = "rows = q.reshape(batch, n_shared, -1, width)"
_MASKING = "scores = scores.masked_fill(~mask, -math.inf)"
_GROUP = "softmax(scores).view(batch, n_shared, -1, n_keys)"
_GQA_OUT = "return (weights @ v).view(batch, n_heads, n_queries, -1)"
_POOL = "heads = weight.reshape(n_shared, n_heads // n_shared, width, -1)"
_POOLED = "heads.mean(1).flatten(0, 1)"
_KEPT = "return torch.cat([latent, rotate_pairs(rope_key, positions)], -1)"
_NORM = "latent = self.kv_a_layernorm(latent)"
_CUT = "self.kv_a_proj_with_mqa(x).split("
_CUT_SIZES = "[self.kv_latent, self.rope], -1\n        )\n"
_QUERY = "q = torch.cat(self.queries(x, positions), -1)"
_KEYS = "k = torch.cat([k_nope, k_rope], -1)"
_MADE = "split_heads(self.kv_b_proj(latents), self.n_heads).split("
_DONE = "return self.o_proj(merge_heads(output)), cache"
_SCALED = "weights = softmax(scores / math.sqrt(nope + q_rope.shape[-1]))"
_UP = "to_key, to_value = per_head[:, :nope], per_head[:, nope:]"
_SCORES = "q_latent @ latents.mT + q_rope @ rope_keys.mT"
_SIZES_OF = "[kv_b.shape[1], cache.shape[-1] - kv_b.shape[1]], -1"

MISTAKES = {
    "grouped_query_attention": [
        Mistake(
            "head h reads head h mod G",
            "Your query heads take the heads of keys in turn (0, 1, 0, 1): "
            "that is `repeat`. Neighbours share: 0, 0, 1, 1. With the wrong "
            "map, every head of a loaded model reads keys it was not trained "
            "with.",
            _tiled,
            "test_gqa_reads_its_own_group",
        ),
        Mistake(
            "values by another map than keys",
            "Your scores come from the right group's keys, but the values are "
            "taken in turn (0, 1, 0, 1). Keys and values of a group belong "
            "together.",
            _values_tiled,
            "test_gqa_reads_its_own_group",
        ),
        Mistake(
            "all read the first head",
            "All query heads read the first head of keys and values. That is "
            "multi-query attention; here there are G heads, one a group.",
            _first_head,
            "test_gqa_reads_its_own_group",
        ),
        Mistake(
            "all read the mean head",
            "You average the heads of keys and values. Each group reads a "
            "head of its own.",
            _mean_head,
            "test_gqa_reads_its_own_group",
        ),
        Mistake(
            "groups in reverse",
            "The last query heads read the first head of keys. Both are "
            "counted from the front.",
            {_SHARE: "k, v = k.flip(1), v.flip(1)\n    " + _SHARE},
            "test_gqa_reads_its_own_group",
        ),
        Mistake(
            "copies for each query head",
            "Your numbers are right, but you copy the keys and values for "
            "each query head. That moves all the bytes again that sharing was "
            "to save. Lay the queries of a group one below the other, as more "
            "rows of one matrix: (B, G, H/G · T, D).",
            _copied,
            "test_gqa_makes_no_copies",
        ),
        Mistake(
            "no 1/√D",
            "Your scores aren't divided by √D. attention_scores does it.",
            {"attention_scores(rows, k)": "rows @ k.mT"},
            "test_gqa_equals_pytorch",
        ),
        Mistake(
            "mask ignored",
            "Your attention doesn't use the mask.",
            {_MASKING: "pass"},
            "test_gqa_obeys_the_mask",
        ),
        Mistake(
            "mask inverted",
            "You hide what the mask allows. True = may attend.",
            {"~mask": "mask"},
            "test_gqa_obeys_the_mask",
        ),
        Mistake(
            "masked with −20",
            "You mask with −20 or so. Where all other scores are lower, what "
            "is hidden wins. Only −∞ gives a weight of exactly 0.",
            {"-math.inf": "-20.0"},
            "test_gqa_obeys_the_mask",
        ),
        Mistake(
            "NaN for a fully masked row",
            "A query that may attend to nothing gets NaN. Your softmax of "
            "chapter 2 gives zeros: use it.",
            {"softmax(scores).view(": "scores.softmax(-1).view("},
            "test_gqa_obeys_the_mask",
        ),
        Mistake(
            "groups left in the output",
            "Your output has shape (B, G, H/G · T, E). Give every query head "
            "its place back: (B, H, T, E).",
            {_GQA_OUT: "return weights @ v"},
            "test_gqa_reads_its_own_group",
        ),
        Mistake(
            "returns the weights too",
            "You return two things. Here the output alone is wanted.",
            {_GQA_OUT: _GQA_OUT + ", weights"},
            "test_gqa_reads_its_own_group",
        ),
    ],
    "mha_to_gqa": [
        Mistake(
            "every G-th head",
            "You average heads 0, G, 2G, … A group is made of neighbours, as "
            "in grouped_query_attention: heads 0 to H/G − 1 first.",
            {
                _POOL: (
                    "heads = weight.reshape(n_heads // n_shared, n_shared, "
                    "width, -1).transpose(0, 1)"
                )
            },
            "test_mha_to_gqa_by_hand",
        ),
        Mistake(
            "sum instead of mean",
            "You add the heads up: the keys become H/G times as long, and the "
            "softmax that much sharper. Take the mean.",
            {"heads.mean(1)": "heads.sum(1)"},
            "test_mha_to_gqa_by_hand",
        ),
        Mistake(
            "the first head of each group",
            "You keep the first head of each group and drop the others. The "
            "mean keeps something of each, and does better in the paper.",
            {"heads.mean(1)": "heads[:, 0]"},
            "test_mha_to_gqa_by_hand",
        ),
        Mistake(
            "neighbouring rows averaged",
            "You average neighbouring rows, so numbers of one head with each "
            "other. Row d of a head goes with row d of the next head: cut the "
            "rows into heads first.",
            {
                _POOL: (
                    "heads = weight.reshape(n_shared, width, "
                    "n_heads // n_shared, -1).transpose(1, 2)"
                )
            },
            "test_mha_to_gqa_by_hand",
        ),
        Mistake(
            "H/G heads instead of G",
            "You leave H/G heads. G are to be left: H/G is how many are "
            "merged into one.",
            {
                _POOL: (
                    "heads = weight.reshape("
                    "n_heads // n_shared, n_shared, width, -1)"
                )
            },
            "test_mha_to_gqa_of_any_size",
        ),
        Mistake(
            "one mean for all",
            "All your heads are the mean of all H heads. Each is the mean of "
            "its own group.",
            {
                _POOLED: (
                    "heads.mean((0, 1), keepdim=True)"
                    ".expand(n_shared, 1, -1, -1).flatten(0, 2)"
                )
            },
            "test_mha_to_gqa_by_hand",
        ),
        Mistake(
            "divided by √(H/G)",
            "You divide the sum by the root of the group's size. The mean "
            "divides by the size.",
            {
                "heads.mean(1)": (
                    "heads.sum(1).div((n_heads // n_shared) ** 0.5)"
                )
            },
            "test_mha_to_gqa_by_hand",
        ),
        Mistake(
            "one after the other",
            "You return (G, D, C). The heads stand below one another in one "
            "matrix: (G·D, C).",
            {".flatten(0, 1)": ""},
            "test_mha_to_gqa_by_hand",
        ),
        Mistake(
            "as many rows as before",
            "You copy each mean back to all heads of its group: H·D rows. "
            "Then nothing is saved; G heads are wanted.",
            {
                _POOLED: (
                    "heads.mean(1, keepdim=True)"
                    ".expand_as(heads).flatten(0, 2)"
                )
            },
            "test_mha_to_gqa_by_hand",
        ),
        Mistake(
            "returns its input",
            "You return the weight as it was.",
            {_POOLED: "weight"},
            "test_mha_to_gqa_by_hand",
        ),
    ],
    "MultiHeadLatentAttention": [
        Mistake(
            "normalised after the cache",
            "You keep the latent as it is and normalise it only when it is "
            "used. The norm belongs before the cache: else it is done again "
            "for every cached token at every step.",
            {
                _NORM: "pass",
                "self.kv_b_proj(latents)": (
                    "self.kv_b_proj(self.kv_a_layernorm(latents))"
                ),
            },
            "test_compress_keeps_what_deepseek_keeps",
        ),
        Mistake(
            "latent not normalised",
            "Your latent isn't normalised: apply kv_a_layernorm to it.",
            {_NORM: "pass"},
            "test_compress_keeps_what_deepseek_keeps",
        ),
        Mistake(
            "RoPE key normalised too",
            "You normalise the RoPE key. Only the latent has a norm.",
            {
                _NORM: (
                    _NORM
                    + "\n        rope_key = torch.nn.functional.rms_norm("
                    "rope_key, (self.rope,))"
                )
            },
            "test_compress_keeps_what_deepseek_keeps",
        ),
        Mistake(
            "RoPE key not rotated",
            "Your RoPE key isn't rotated, while the queries are. Scores then "
            "depend on where the query stands, and not on the distance.",
            {"rotate_pairs(rope_key, positions)": "rope_key"},
            "test_compress_keeps_what_deepseek_keeps",
        ),
        Mistake(
            "latent rotated too",
            "You rotate the latent as well. It has no position: that is why "
            "it can be absorbed, and why the RoPE key is kept beside it.",
            {
                _KEPT: (
                    "return torch.cat([rotate_pairs(latent, positions), "
                    "rotate_pairs(rope_key, positions)], -1)"
                )
            },
            "test_compress_keeps_what_deepseek_keeps",
        ),
        Mistake(
            "rotated by halves",
            "You rotate channel i together with channel i + R/2. The queries, "
            "and DeepSeek-V2, pair neighbours: use rotate_pairs.",
            {
                "rotate_pairs(rope_key, positions)": (
                    "rotate_pairs(rope_key.unflatten(-1, (2, -1)).mT"
                    ".flatten(-2), positions)"
                    ".unflatten(-1, (-1, 2)).mT.flatten(-2)"
                )
            },
            "test_compress_keeps_what_deepseek_keeps",
        ),
        Mistake(
            "positions start anew",
            "You count the positions from 0 in compress. A token that comes "
            "later stands later: use the positions that are given.",
            {
                "rotate_pairs(rope_key, positions)": (
                    "rotate_pairs(rope_key, torch.arange(x.shape[1]))"
                )
            },
            "test_compress_keeps_what_deepseek_keeps",
        ),
        Mistake(
            "positions counted on from the first",
            "You count on from the first position in compress. The tokens "
            "need not be neighbours: use each position that is given.",
            {
                "rotate_pairs(rope_key, positions)": (
                    "rotate_pairs(rope_key, "
                    "positions[0] + torch.arange(x.shape[1]))"
                )
            },
            "test_compress_keeps_what_deepseek_keeps",
        ),
        Mistake(
            "RoPE key taken from the front",
            "You take the RoPE key from the front of kv_a_proj_with_mqa's "
            "output. The latent comes first.",
            {
                "latent, rope_key = " + _CUT: "rope_key, latent = " + _CUT,
                _CUT_SIZES: _CUT_SIZES.replace(
                    "[self.kv_latent, self.rope]",
                    "[self.rope, self.kv_latent]",
                ),
            },
            "test_compress_keeps_what_deepseek_keeps",
        ),
        Mistake(
            "RoPE key kept first",
            "You put the RoPE key before the latent in the cache. The latent "
            "comes first.",
            {
                _KEPT: (
                    "return torch.cat("
                    "[rotate_pairs(rope_key, positions), latent], -1)"
                ),
                "latents, rope_keys = cache.split("
                "[self.kv_latent, self.rope], -1)": (
                    "rope_keys, latents = cache.split("
                    "[self.rope, self.kv_latent], -1)"
                ),
            },
            "test_compress_keeps_what_deepseek_keeps",
        ),
        Mistake(
            "scaled by √nope",
            "You divide the scores by √nope, √128 in DeepSeek-V2. A query is "
            "nope + rope wide, 192 there: both parts meet in one dot product.",
            {
                _QUERY: (
                    _QUERY + "\n        q = q * (1 + self.rope / self.nope)"
                    "**0.5"
                )
            },
            "test_latent_attention_equals_deepseek",
        ),
        Mistake(
            "RoPE part left out of the scores",
            "Your scores leave the RoPE part out, so attention knows nothing "
            "of positions.",
            {_KEYS: "k = torch.cat([k_nope, 0 * k_rope], -1)"},
            "test_latent_attention_equals_deepseek",
        ),
        Mistake(
            "parts joined in another order",
            "Your keys have the RoPE part first, your queries have it last: "
            "they are multiplied with the wrong partners.",
            {_KEYS: "k = torch.cat([k_rope, k_nope], -1)"},
            "test_latent_attention_equals_deepseek",
        ),
        Mistake(
            "values before keys",
            "You take a head's value from the front of its part of "
            "kv_b_proj's output. The key comes first.",
            {
                "k_nope, v = " + _MADE: "v, k_nope = " + _MADE,
                "[self.nope, self.value], -1": "[self.value, self.nope], -1",
            },
            "test_latent_attention_equals_deepseek",
        ),
        Mistake(
            "all keys, then all values",
            "You cut kv_b_proj's output into the keys of all heads and the "
            "values of all heads. It stands head by head: split into heads "
            "first, then each head into key and value.",
            {
                _MADE: "(\n            split_heads(part, self.n_heads)\n"
                "            for part in self.kv_b_proj(latents).split(",
                "[self.nope, self.value], -1\n        )": (
                    "[self.n_heads * self.nope, self.n_heads * self.value], "
                    "-1\n        ))"
                ),
            },
            "test_latent_attention_equals_deepseek",
        ),
        Mistake(
            "no causal mask",
            "Your tokens attend to the future: hand a causal mask over.",
            {"attention(q, k, v, mask)": "attention(q, k, v)"},
            "test_latent_attention_hides_the_future",
        ),
        Mistake(
            "masked with −50",
            "You hide the future with −50 or so. Where the scores of what "
            "came before are lower, the future wins: only −∞ gives a weight "
            "of exactly 0.",
            {
                "output, _ = attention(q, k, v, mask)": (
                    "output = softmax(attention_scores(q, k) - 50.0 * ~mask) "
                    "@ v"
                )
            },
            "test_latent_attention_hides_the_future",
        ),
        Mistake(
            "an old text's cache",
            "You keep the cache in the layer, and use it again for another "
            "text of the same size. Compress each text that comes.",
            {
                "cache = self.compress(x, positions)": (
                    "old = getattr(self, 'kept', x[:0])\n"
                    "        if old.shape[:2] != x.shape[:2]:\n"
                    "            self.kept = self.compress(x, positions)\n"
                    "        cache = self.kept"
                )
            },
            "test_latent_attention_equals_deepseek",
        ),
        Mistake(
            "merged without a transpose",
            "Your heads are joined by a plain reshape. Use merge_heads.",
            {
                "merge_heads(output)": (
                    "output.reshape(*x.shape[:2], output.shape[1] "
                    "* output.shape[3])"
                )
            },
            "test_latent_attention_equals_deepseek",
        ),
        Mistake(
            "keeps keys and values",
            "You return the keys and values of all heads as the cache. Then "
            "nothing is saved: the latent and the RoPE key are all that is "
            "kept.",
            {
                _DONE: (
                    "return self.o_proj(merge_heads(output)), "
                    "torch.cat([k, v], -1)"
                )
            },
            "test_latent_attention_equals_deepseek",
        ),
        Mistake(
            "returns the output alone",
            "You return the output alone. Return the cache with it.",
            {_DONE: "return self.o_proj(merge_heads(output))"},
            "test_latent_attention_equals_deepseek",
        ),
    ],
    "absorbed_decode": [
        Mistake(
            "makes all keys and values",
            "Your numbers are right, but you make the keys and values of all "
            "heads for all cached tokens, at every step. Move the projection "
            "to the other side of the dot product: bring the query to the "
            "latents.",
            _expand_cache,
            "test_absorbed_holds_the_latents_only",
        ),
        Mistake(
            "makes each head's keys and values in turn",
            "Your numbers are right, but you make the keys and values of "
            "every head, one head after the other. That saves memory, but no "
            "work. Bring the query to the latents instead.",
            _head_by_head,
            "test_absorbed_holds_the_latents_only",
        ),
        Mistake(
            "cache copied for each head",
            "Your numbers are right, but you copy the latents for each head. "
            "All heads read the same ones: let the H queries be the rows of "
            "one matrix, (B, H, L) @ (B, L, S).",
            _copy_cache,
            "test_absorbed_holds_the_latents_only",
        ),
        Mistake(
            "scaled by √N",
            "You divide the scores by √N, √128 in DeepSeek-V2. The scores are "
            "those of N + R channels, 192 there.",
            {"math.sqrt(nope + q_rope.shape[-1])": "math.sqrt(nope)"},
            "test_absorbed_equals_naive",
        ),
        Mistake(
            "scaled by √(L + R)",
            "You divide by the root of the width that is multiplied here, "
            "L + R. Absorbing changes the order of the products and not the "
            "scores: the scale stays √(N + R).",
            {
                "math.sqrt(nope + q_rope.shape[-1])": (
                    "math.sqrt(cache.shape[-1])"
                )
            },
            "test_absorbed_equals_naive",
        ),
        Mistake(
            "RoPE part left out",
            "Your scores leave the RoPE key out.",
            {_SCORES: "q_latent @ latents.mT"},
            "test_absorbed_equals_naive",
        ),
        Mistake(
            "RoPE part not scaled",
            "You divide only the part without a position. Both parts are one "
            "dot product: add them, then divide.",
            {
                _SCALED: (
                    _SCALED.replace(
                        "scores /",
                        "q_rope @ rope_keys.mT + (q_latent @ latents.mT) /",
                    )
                )
            },
            "test_absorbed_equals_naive",
        ),
        Mistake(
            "keys' and values' rows swapped",
            "You take a head's first rows of kv_b for its values. The first N "
            "make its key.",
            {
                _UP: (
                    "size = per_head.shape[1] - nope\n"
                    "    to_value, to_key = "
                    "per_head[:, :size], per_head[:, size:]"
                )
            },
            "test_absorbed_equals_naive",
        ),
        Mistake(
            "all keys' rows first",
            "You take the rows of all heads' keys from the front of kv_b. It "
            "stands head by head: a head's key rows, then its value rows.",
            {
                _UP: (
                    "to_key, to_value = kv_b.split([n_heads * nope, "
                    "kv_b.shape[0] - n_heads * nope])\n"
                    "    to_key = to_key.unflatten(0, (n_heads, -1))\n"
                    "    to_value = to_value.unflatten(0, (n_heads, -1))"
                )
            },
            "test_absorbed_equals_naive",
        ),
        Mistake(
            "reshaped instead of transposed",
            "You make the key projection fit by a reshape. That mixes rows "
            "and columns up; it is already the right way round for q @ W.",
            {
                "q_nope, to_key)": (
                    "q_nope, "
                    "to_key.reshape(n_heads, -1, nope).mT.contiguous())"
                )
            },
            "test_absorbed_equals_naive",
        ),
        Mistake(
            "one head's projection for all",
            "You bring all queries to the latents by the first head's rows of "
            "kv_b. Every head has rows of its own.",
            {
                "q_nope, to_key)": (
                    "q_nope, to_key[:1].expand(n_heads, -1, -1))"
                )
            },
            "test_absorbed_equals_naive",
        ),
        Mistake(
            "latents left as they are",
            "You return the average of the latents, (B, H, L). Bring it back "
            "to values by the value rows of kv_b.",
            {
                'return torch.einsum("bhl,hel->bhe", read, to_value)': (
                    "return read"
                )
            },
            "test_absorbed_equals_naive",
        ),
        Mistake(
            "softmax over the heads",
            "Your softmax runs over the heads. Each head divides its own "
            "budget among the tokens.",
            {
                "q_rope.shape[-1]))": "q_rope.shape[-1]), 1)",
            },
            "test_absorbed_equals_naive",
        ),
        Mistake(
            "no maximum subtracted",
            "You take exp of the scores as they are. Large ones overflow: "
            "subtract the maximum first, as softmax does.",
            {
                _SCALED: (
                    "e = (scores / math.sqrt(nope + q_rope.shape[-1])).exp()\n"
                    "    weights = e / e.sum(-1, keepdim=True)"
                )
            },
            "test_absorbed_equals_naive",
        ),
        Mistake(
            "newest token left out",
            "You leave the last token of the cache out. It is the newest one, "
            "and it may attend to itself.",
            {
                "latents, rope_keys = cache.split(": (
                    "latents, rope_keys = "
                    "cache[:, : max(1, cache.shape[1] - 1)].split("
                )
            },
            "test_absorbed_equals_naive",
        ),
        Mistake(
            "RoPE key taken from the front",
            "You take the RoPE key from the front of the cache. The latent "
            "comes first.",
            {
                "latents, rope_keys = cache.split(": (
                    "rope_keys, latents = cache.split("
                ),
                _SIZES_OF: (
                    "[cache.shape[-1] - kv_b.shape[1], kv_b.shape[1]], -1"
                ),
            },
            "test_absorbed_equals_naive",
        ),
    ],
    "mla_cache_bytes": [
        Mistake(
            "latent kept twice",
            "You count the latent twice, once for keys and once for values. "
            "Both are made from the same one.",
            {"(kv_latent + rope)": "(2 * kv_latent + rope)"},
            "test_mla_cache_bytes_by_hand",
        ),
        Mistake(
            "everything twice",
            "You count latent and RoPE key twice, as if for keys and for "
            "values. Both come from one latent, and the RoPE key is a key.",
            {"(kv_latent + rope)": "2 * (kv_latent + rope)"},
            "test_mla_cache_bytes_by_hand",
        ),
        Mistake(
            "RoPE key forgotten",
            "You forget the RoPE key. It can't be made from the latent, so it "
            "is kept too: 576 numbers and not 512.",
            {"(kv_latent + rope)": "kv_latent"},
            "test_mla_cache_bytes_by_hand",
        ),
        Mistake(
            "a RoPE key for each head",
            "You count a RoPE key for every head. All heads share one.",
            {"(kv_latent + rope)": "(kv_latent + n_heads * rope)"},
            "test_mla_cache_bytes_by_hand",
        ),
        Mistake(
            "a latent for each head",
            "You count a latent for every head. There is one a token.",
            {"(kv_latent + rope)": "n_heads * (kv_latent + rope)"},
            "test_mla_cache_bytes_by_hand",
        ),
        Mistake(
            "keys without values",
            "You count the keys of multi-head attention and forget its "
            "values, or the other way round. Both are kept.",
            {"places * 2 * n_heads": "places * n_heads"},
            "test_mla_cache_bytes_by_hand",
        ),
        Mistake(
            "one layer",
            "You count one layer. Each keeps its own.",
            {"n_tokens * n_layers *": "n_tokens *"},
            "test_mla_cache_bytes_by_hand",
        ),
        Mistake(
            "numbers for bytes",
            "You count numbers. Multiply by the bytes of each.",
            {" * bytes_per_number": ""},
            "test_mla_cache_bytes_by_hand",
        ),
        Mistake(
            "order turned round",
            "You return the bytes of MLA first. Multi-head attention comes "
            "first.",
            {
                "return places * 2 * n_heads * head_width, "
                "places * (kv_latent + rope)": (
                    "return places * (kv_latent + rope), "
                    "places * 2 * n_heads * head_width"
                )
            },
            "test_mla_cache_bytes_by_hand",
        ),
        Mistake(
            "no whole numbers",
            "You return floats. Bytes are whole numbers.",
            {"* bytes_per_number": "* float(bytes_per_number)"},
            "test_mla_cache_bytes_by_hand",
        ),
    ],
}
