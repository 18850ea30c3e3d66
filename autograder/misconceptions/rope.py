"""Mistakes of chapter 06, *Rotary position embedding*."""

import torch

from autograder.misconceptions import Mistake
from solutions.rope import apply_rope, interleaved_to_half, rotary_table


def _normal(seed, *shape):
    """Draw a tensor from a seed and nothing else, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def probe_inverse_frequencies(inverse_frequencies, seed):
    """Ask for few hands and for more, and for other bases."""
    for width, base in ((4, 10_000.0), (6, 10_000.0), (6, 500.0 + seed)):
        inputs = {"width": width, "base": base}
        yield inputs, lambda w=width, b=base: inverse_frequencies(w, b)
    yield (
        {"width": 4, "base": 10_000.0, "asked for": "the dtype"},
        lambda: str(inverse_frequencies(4, 10_000.0).dtype),
    )


def probe_rotary_table(rotary_table, seed):
    """Ask for one position, some in a row, some not, a batch, far ones."""
    hands = torch.tensor([1.1, 0.3], dtype=torch.float64)
    for given in (
        [0.0],
        [1],
        [0, 1, 2],
        [5, 6, 7],
        [9, 2, 40 + seed],
        [[0, 1], [3, 7]],
        [0.25, 1.5],
        [257, 4_095],
    ):
        positions = torch.tensor(given)
        inputs = {"inv_freq": hands, "positions": positions}
        yield (
            inputs,
            lambda p=positions: rotary_table(hands.clone(), p.clone()),
        )
    one = torch.tensor([1])
    yield (
        {"inv_freq": hands, "positions": one, "asked for": "the dtype"},
        lambda: [str(x.dtype) for x in rotary_table(hands, one)],
    )
    low, wide = hands.float(), torch.tensor([0.5], dtype=torch.float64)
    yield (
        {"inv_freq": low, "float64 positions": wide, "asked for": "the dtype"},
        lambda: [str(x.dtype) for x in rotary_table(low, wide)],
    )


def probe_apply_rope(apply_rope, seed):
    """Turn one pair, two, several tokens; look at dtype and inputs too."""
    names = ("q", "k", "cos", "sin")
    hands = torch.tensor([1.0, 0.1], dtype=torch.float64)
    quarter = torch.tensor([[0.0]]), torch.tensor([[1.0]])
    pair = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 1.0]]), *quarter
    small = (
        *_normal(seed, 2, 1, 4),
        *rotary_table(hands, torch.tensor([2])),
    )
    long = (
        *_normal(seed, 2, 3, 5, 4),
        *rotary_table(hands, torch.arange(5)),
    )
    for case in (pair, small, long):
        inputs = dict(zip(names, case, strict=True))
        yield (
            inputs,
            lambda case=case: apply_rope(*(x.clone() for x in case)),
        )
    low = [x.bfloat16() for x in small[:2]] + [x.float() for x in small[2:]]

    def dtypes():
        return [str(x.dtype) for x in apply_rope(*low)]

    yield dict(zip(names, low, strict=True)) | {"asked for": "dtypes"}, dtypes
    given = [x.clone() for x in small]

    def look():
        apply_rope(*given)
        return given[:2]

    yield {"q and k, looked at after the call": small[:2]}, look

    def trains():
        leaf = small[0].clone().requires_grad_()
        return apply_rope(leaf, *small[1:])[0].requires_grad

    yield {"asked for": "whether a gradient comes back"}, trains


def probe_interleaved_to_half(interleaved_to_half, seed):
    """Reorder one head, two, a bias; look at what was given, too."""
    for weight, n_heads in (
        (torch.arange(6.0)[:, None].expand(-1, 6) + 0.5, 1),
        (_normal(seed, 12, 12), 2),
        (torch.arange(12.0), 2),
    ):
        inputs = {"weight": weight, "n_heads": n_heads}
        yield (
            inputs,
            lambda w=weight, h=n_heads: interleaved_to_half(w.clone(), h),
        )
    given = torch.arange(12.0)[:, None].repeat(1, 12)

    def look():
        interleaved_to_half(given, 2)
        return given

    yield {"weight, looked at after the call": given.clone()}, look


def probe_alibi_bias(alibi_bias, seed):
    """Ask for one head, two, eight, and for fewer queries than keys."""
    for sizes in ((1, 2, 2), (2, 3, 3), (8, 3, 3), (2, 2, 5)):
        names = ("n_heads", "n_queries", "n_keys")
        inputs = dict(zip(names, sizes, strict=True))
        yield inputs, lambda sizes=sizes: alibi_bias(*sizes)


PROBES = {
    "inverse_frequencies": probe_inverse_frequencies,
    "rotary_table": probe_rotary_table,
    "apply_rope": probe_apply_rope,
    "interleaved_to_half": probe_interleaved_to_half,
    "alibi_bias": probe_alibi_bias,
}


def _neighbours(q, k, cos, sin):
    def turn(x):
        a, b = x[..., 0::2], x[..., 1::2]
        pairs = torch.stack([a * cos - b * sin, a * sin + b * cos], -1)
        return pairs.flatten(-2).to(x.dtype)

    return turn(q), turn(k)


def _mixed(q, k, cos, sin):
    cos, sin = (x.repeat_interleave(2, -1) for x in (cos, sin))

    def turn(x):
        a, b = x.chunk(2, -1)
        return (x * cos + torch.cat([-b, a], -1) * sin).to(x.dtype)

    return turn(q), turn(k)


def _twice(q, k, cos, sin):
    return apply_rope(*apply_rope(q, k, cos, sin), cos, sin)


def _k_backward(q, k, cos, sin):
    return apply_rope(q, k, cos, sin)[0], apply_rope(q, k, cos, -sin)[1]


def _in_place(q, k, cos, sin):
    for x, turned in zip((q, k), apply_rope(q, k, cos, sin), strict=True):
        x.data.copy_(turned)
    return q + 0, k + 0


def _columns(weight, n_heads):
    if weight.ndim == 1:
        return interleaved_to_half(weight, n_heads)
    return interleaved_to_half(weight.mT, n_heads).mT


def _reordered_in_place(weight, n_heads):
    return weight.copy_(interleaved_to_half(weight, n_heads)).clone()


_EXPONENTS = "torch.arange(0, width, 2)"
_FREQUENCIES = "base ** (-torch.arange(0, width, 2) / width)"
_PLACES = "positions[..., None]"
_BOTH = "return angles.cos(), angles.sin()"
_TURNED = "[a * cos - b * sin, a * sin + b * cos]"
_CAT = f"pairs = torch.cat({_TURNED}, -1)"
_APPEND = "rotated.append(pairs.to(x.dtype))"
_RETURN = "return rotated[0], rotated[1]"
_PAIRS = "(n_heads, -1, 2)"
_ORDER = "heads.transpose(1, 2).flatten(0, 2)"
_SLOPES = "2.0 ** (-8 * torch.arange(1, n_heads + 1) / n_heads)"
_HIDE = "bias.masked_fill(distance < 0, -math.inf)"

MISTAKES = {
    "inverse_frequencies": [
        Mistake(
            "base hard-coded",
            "Your base is always 10,000. Use the one that is given: Llama 3's "
            "is 500,000.",
            {_FREQUENCIES: _FREQUENCIES.replace("base", "10_000.0")},
            "test_frequencies_of_other_bases",
        ),
        Mistake(
            "exponent i / D",
            "Your exponent is -i / D. It is -2i / D: with half of it the "
            "hands turn too fast, and the slowest stops at the square root.",
            {_EXPONENTS: "torch.arange(width // 2)"},
            "test_frequencies_by_hand",
        ),
        Mistake(
            "exponent 2i over the number of pairs",
            "You divide 2i by the number of pairs. Divide it by the width D, "
            "or i by the number of pairs.",
            {"2) / width": "2) / (width // 2)"},
            "test_frequencies_by_hand",
        ),
        Mistake(
            "hands that get faster",
            "Your exponent has the wrong sign: the hands get faster from pair "
            "to pair. The first turns by 1, all others by less.",
            {"(-torch.arange": "(torch.arange"},
            "test_frequencies_by_hand",
        ),
        Mistake(
            "pairs counted from 1",
            "You count the pairs from 1, so that the fastest hand is missing. "
            "The paper counts from 1 but writes i - 1: the first pair turns "
            "by exactly 1.",
            {_EXPONENTS: "torch.arange(2, width + 1, 2)"},
            "test_frequencies_by_hand",
        ),
        Mistake(
            "a hand for each channel",
            "You return a frequency for each channel. Two channels make one "
            "hand: D / 2 of them.",
            {_EXPONENTS: "torch.arange(width)"},
            "test_frequencies_by_hand",
        ),
        Mistake(
            "every hand twice",
            "You return every frequency twice, one for each channel of a "
            "pair. One number for each pair is enough: D / 2.",
            {_FREQUENCIES: f"({_FREQUENCIES}).repeat(2)"},
            "test_frequencies_by_hand",
        ),
        Mistake(
            "slowest first",
            "Your frequencies stand in the opposite order. The fastest hand, "
            "which turns by 1, is the first.",
            {_FREQUENCIES: f"({_FREQUENCIES}).flip(0)"},
            "test_frequencies_by_hand",
        ),
        Mistake(
            "stretched as far as 1 / base",
            "Your slowest frequency is exactly 1 / base: you divide by D - 2. "
            "Divide by D, as in the formula.",
            {"2) / width": "2) / (width - 2)"},
            "test_frequencies_by_hand",
        ),
        Mistake(
            "division without remainder",
            "You divide whole numbers by //, which rounds the exponents. Use "
            "/.",
            {"2) / width": "2) // width"},
            "test_frequencies_by_hand",
        ),
        Mistake(
            "turns for radians",
            "Your frequencies are larger by 2π. The angles are radians: the "
            "first hand turns by 1 radian a token, not by a whole turn.",
            {_FREQUENCIES: f"2 * math.pi * {_FREQUENCIES}"},
            "test_frequencies_by_hand",
        ),
        Mistake(
            "float64",
            "You return float64. The contract says float32, so that queries "
            "in float32 don't become float64 by being rotated.",
            {_FREQUENCIES: f"({_FREQUENCIES}).double()"},
            "test_frequencies_by_hand",
        ),
    ],
    "rotary_table": [
        Mistake(
            "positions ignored",
            "You count the positions yourself, 0, 1, 2, ... The positions are "
            "given: when a text is continued they don't begin at 0.",
            {_PLACES: "torch.arange(positions.shape[-1])[..., None]"},
            "test_table_of_given_positions",
        ),
        Mistake(
            "positions begin anew",
            "You take the first position away from all. Then a token that is "
            "generated at position 1,000 gets the angles of position 0, and "
            "all distances to what was read before are wrong.",
            {_PLACES: "(positions - positions[..., :1])[..., None]"},
            "test_table_of_given_positions",
        ),
        Mistake(
            "positions one too large",
            "Your angles are those of the next position. At position 0 no "
            "hand has turned: cosine 1, sine 0.",
            {_PLACES: "(positions + 1)[..., None]"},
            "test_table_by_hand",
        ),
        Mistake(
            "sines first",
            "You return the sines first. The cosines come first.",
            {_BOTH: "return angles.sin(), angles.cos()"},
            "test_table_by_hand",
        ),
        Mistake(
            "divided by the frequencies",
            "You divide the positions by the frequencies. An angle is the "
            "position times the frequency, radians a token.",
            {"* inv_freq": "/ inv_freq"},
            "test_table_by_hand",
        ),
        Mistake(
            "turns for radians",
            "You multiply by 2π. The frequencies are radians a token already.",
            {"* inv_freq": "* inv_freq * 2 * math.pi"},
            "test_table_by_hand",
        ),
        Mistake(
            "degrees for radians",
            "You convert from degrees. The frequencies are radians a token.",
            {_BOTH: _BOTH.replace("angles", "angles.deg2rad()")},
            "test_table_by_hand",
        ),
        Mistake(
            "hands as rows",
            "Your table has a row for each hand. Its shape is (..., T, D / "
            "2): a row for each position.",
            {_BOTH: "return angles.cos().mT, angles.sin().mT"},
            "test_table_by_hand",
        ),
        Mistake(
            "every angle twice",
            "You return every angle twice, D numbers a row. Some libraries "
            "do; here it is one for each pair, D / 2.",
            {"* inv_freq": "* torch.cat([inv_freq, inv_freq])"},
            "test_table_by_hand",
        ),
        Mistake(
            "positions in bfloat16",
            "You turn the positions into half precision. bfloat16 knows 256 "
            "and 258 but not 257: of 4,096 positions, 769 are left. Multiply "
            "first, and round the cosines if you must.",
            {_PLACES: "positions.bfloat16()[..., None]"},
            "test_table_far_out",
        ),
        Mistake(
            "positions in float16",
            "You turn the positions into half precision. float16 knows 2,048 "
            "and 2,050 but not 2,049. Multiply first, and round the cosines "
            "if you must.",
            {_PLACES: "positions.half()[..., None]"},
            "test_table_far_out",
        ),
        Mistake(
            "positions rounded to whole numbers",
            "You make the positions whole numbers. They may lie between two "
            "tokens: the next chapter needs that.",
            {_PLACES: "positions.long()[..., None]"},
            "test_table_of_given_positions",
        ),
        Mistake(
            "frequencies rounded to whole numbers",
            "You convert the frequencies to the positions' whole numbers, so "
            "that all but the fastest hands stand still.",
            {"* inv_freq": "* inv_freq.to(positions.dtype).to(inv_freq)"},
            "test_table_by_hand",
        ),
        Mistake(
            "batch flattened",
            "You flatten the positions. Keep their leading dimensions: (..., "
            "T) becomes (..., T, D / 2).",
            {_PLACES: "positions.flatten()[..., None]"},
            "test_table_of_given_positions",
        ),
        Mistake(
            "lifted by the positions",
            "Your table of float32 frequencies is float64 where the positions "
            "are float64. Its dtype is that of inv_freq: take the positions "
            "to that first.",
            {"positions[..., None].to(inv_freq)": "positions[..., None]"},
            "test_table_of_given_positions",
        ),
        Mistake(
            "dtype of the positions",
            "Where the positions are floats, your table has their dtype. It "
            "has that of inv_freq: bring the positions to the frequencies' "
            "dtype, not the other way round.",
            {
                "positions[..., None].to(inv_freq) * inv_freq": (
                    "positions[..., None] * (inv_freq.to(positions) if "
                    "positions.is_floating_point() else inv_freq)"
                )
            },
            "test_table_of_given_positions",
        ),
        Mistake(
            "always float32",
            "You return float32 whatever the frequencies are. Far out, where "
            "angles are large, that costs all digits: keep the dtype of "
            "inv_freq.",
            {_BOTH: "return angles.cos().float(), angles.sin().float()"},
            "test_table_by_hand",
        ),
    ],
    "apply_rope": [
        Mistake(
            "no rotation",
            "Your q and k come back as they were: nothing was rotated.",
            {_APPEND: "rotated.append(x.clone())"},
            "test_rope_by_hand",
        ),
        Mistake(
            "k never rotated",
            "You rotate the queries and leave the keys. Then a score depends "
            "on the query's position, not on the distance: turn both.",
            {_RETURN: "return rotated[0], k.clone()"},
            "test_scores_depend_on_distance_alone",
        ),
        Mistake(
            "q never rotated",
            "You rotate the keys and leave the queries. Then a score depends "
            "on the key's position, not on the distance: turn both.",
            {_RETURN: "return q.clone(), rotated[1]"},
            "test_scores_depend_on_distance_alone",
        ),
        Mistake(
            "the other way round",
            "You rotate by the negative angles. The scores still depend on "
            "the distance alone, so a new model would train; but with "
            "Llama's weights every distance has the wrong sign.",
            {_TURNED: "[a * cos + b * sin, b * cos - a * sin]"},
            "test_rope_by_hand",
        ),
        Mistake(
            "k backwards",
            "You turn the queries one way and the keys the other. Then the "
            "score depends on the sum of the two positions. Turn both the "
            "same way; the dot product takes the difference.",
            _k_backward,
            "test_scores_depend_on_distance_alone",
        ),
        Mistake(
            "neighbours as pairs",
            "Your pairs are neighbours, channels 2i and 2i + 1: the "
            "interleaved layout. Here the pairs are i and i + D / 2.",
            _neighbours,
            "test_rope_by_hand",
        ),
        Mistake(
            "two layouts mixed",
            "Your partner of channel i is i + D / 2, but your table repeats "
            "each angle for neighbours. Then the members of a pair turn by "
            "different angles, and that is no rotation.",
            _mixed,
            "test_rope_by_hand",
        ),
        Mistake(
            "a sign lost",
            "You write a·cos + b·sin where a·cos - b·sin should stand. "
            "With two plus signs the pair isn't turned: its length changes.",
            {"a * cos - b * sin": "a * cos + b * sin"},
            "test_scores_depend_on_distance_alone",
        ),
        Mistake(
            "cos and sin swapped",
            "You have cos and sin the wrong way round. At angle 0, cos is 1 "
            "and sin is 0, and a pair must stay as it is.",
            {_TURNED: "[a * sin - b * cos, a * cos + b * sin]"},
            "test_rope_by_hand",
        ),
        Mistake(
            "halves swapped",
            "You put the second members of the pairs first. The order of the "
            "channels stays as it was.",
            {_TURNED: "[a * sin + b * cos, a * cos - b * sin]"},
            "test_rope_by_hand",
        ),
        Mistake(
            "the new a in b",
            "You overwrite a before you use it for b. Both need the old a.",
            {
                _CAT: (
                    "a = a * cos - b * sin\n"
                    "        pairs = torch.cat([a, a * sin + b * cos], -1)"
                )
            },
            "test_rope_by_hand",
        ),
        Mistake(
            "rotated twice",
            "You rotate twice: every angle is doubled.",
            _twice,
            "test_rope_by_hand",
        ),
        Mistake(
            "q and k swapped",
            "You return k first. The rotated q comes first.",
            {_RETURN: "return rotated[1], rotated[0]"},
            "test_rope_by_hand",
        ),
        Mistake(
            "rotated in place",
            "You write into the q and k that you were given. Return new "
            "tensors: whoever called you may still need the old ones.",
            _in_place,
            "test_rope_of_heads_and_batches",
        ),
        Mistake(
            "lifted to float32",
            "Your result has the table's dtype. bfloat16 times float32 is "
            "float32: cast back to the dtype of q and of k.",
            {"pairs.to(x.dtype)": "pairs"},
            "test_rope_keeps_the_dtype",
        ),
        Mistake(
            "cut off from the gradient",
            "No gradient comes back through your rotation (detach, item or "
            "numpy?). A model couldn't learn its queries and keys.",
            {"pairs.to(x.dtype)": "pairs.to(x.dtype).detach()"},
            "test_rope_keeps_the_dtype",
        ),
    ],
    "interleaved_to_half": [
        Mistake(
            "order unchanged",
            "You return the rows as they were.",
            {_ORDER: "weight.clone()"},
            "test_layouts_give_the_same_scores",
        ),
        Mistake(
            "heads ignored",
            "You reorder all rows together, as if there were one head. Then "
            "a head gets first members alone, or second ones: reorder "
            "within each head.",
            {_PAIRS: "(1, -1, 2)"},
            "test_layout_by_hand",
        ),
        Mistake(
            "the way back",
            "You go from half-split to interleaved. With heads four wide "
            "both ways are the same; with six they aren't.",
            {_PAIRS: "(n_heads, 2, -1)"},
            "test_layout_by_hand",
        ),
        Mistake(
            "second members first",
            "You put the second members of the pairs first. Then every pair "
            "is turned the other way.",
            {_ORDER: "heads.flip(2).transpose(1, 2).flatten(0, 2)"},
            "test_layouts_give_the_same_scores",
        ),
        Mistake(
            "columns reordered",
            "You reorder the columns, what the layer reads. What it makes, "
            "the queries' or keys' channels, are the rows.",
            _columns,
            "test_layout_by_hand",
        ),
        Mistake(
            "heads torn apart",
            "Your rows of one head no longer stand side by side. Heads keep "
            "their places: reorder within each.",
            {_ORDER: "heads.transpose(0, 1).flatten(0, 2)"},
            "test_layout_by_hand",
        ),
        Mistake(
            "pairs reversed",
            "You reverse the pairs of each head. Their order stays: pair 0 "
            "turns fastest and comes first.",
            {_ORDER: "heads.flip(1).transpose(1, 2).flatten(0, 2)"},
            "test_layout_by_hand",
        ),
        Mistake(
            "matrices alone",
            "This works for a matrix of weights, not for a bias, which has "
            "one number a row. Reorder the first dimension, whatever follows "
            "it.",
            {
                "weight.unflatten(0, (n_heads, -1, 2))": (
                    "weight.reshape(n_heads, -1, 2, weight.shape[1])"
                )
            },
            "test_layout_of_a_bias",
        ),
        Mistake(
            "reordered in place",
            "You write into the weight that you were given. Called twice, it "
            "would be reordered twice: return a new tensor.",
            _reordered_in_place,
            "test_layout_by_hand",
        ),
    ],
    "alibi_bias": [
        Mistake(
            "a reward for distance",
            "Your bias grows with the distance: the furthest key wins. It is "
            "a penalty, so it is negative.",
            {"-slopes[": "slopes["},
            "test_alibi_by_hand",
        ),
        Mistake(
            "heads counted from 0",
            "You count the heads from 0, so the first has slope 1. Counted "
            "from 1, the last head has slope 2^-8 for every H.",
            {"torch.arange(1, n_heads + 1)": "torch.arange(n_heads)"},
            "test_alibi_by_hand",
        ),
        Mistake(
            "one slope for all heads",
            "All your heads have the same slope. Each has its own: steep ones "
            "look near, flat ones look far.",
            {"torch.arange(1, n_heads + 1)": "torch.ones(n_heads)"},
            "test_alibi_by_hand",
        ),
        Mistake(
            "slopes of eight heads",
            "Your slopes are 1/2, 1/4, 1/8, ... whatever H is. That is right "
            "for eight heads alone: the exponent is -8h / H.",
            {_SLOPES: "2.0 ** -torch.arange(1, n_heads + 1)"},
            "test_alibi_by_hand",
        ),
        Mistake(
            "slopes in equal steps",
            "Your slopes fall by equal steps. They fall by equal factors: "
            "2^(-8/H) from head to head.",
            {_SLOPES: "torch.arange(n_heads, 0, -1) / n_heads / 2"},
            "test_alibi_of_many_heads",
        ),
        Mistake(
            "steepest head last",
            "Your slopes stand in the opposite order: the first head is the "
            "steepest.",
            {_SLOPES: f"({_SLOPES}).flip(0)"},
            "test_alibi_of_many_heads",
        ),
        Mistake(
            "future rewarded",
            "You don't hide the future, and its distance is negative: it even "
            "gets a bonus. Put minus infinity there.",
            {_HIDE: "bias"},
            "test_alibi_by_hand",
        ),
        Mistake(
            "future like the past",
            "You don't hide the future: a key three steps ahead counts like "
            "one three steps back. Put minus infinity there.",
            {_HIDE: "-bias.abs()"},
            "test_alibi_by_hand",
        ),
        Mistake(
            "future at 0",
            "Your bias for the future is 0, the best there is. A hidden key "
            "gets minus infinity.",
            {"-math.inf)": "0.0)"},
            "test_alibi_by_hand",
        ),
        Mistake(
            "aligned at the top left",
            "You count the queries from position 0. They are the last T of S "
            "positions: a single query stands at the end and sees all.",
            {"keys[n_keys - n_queries :]": "keys[:n_queries]"},
            "test_alibi_of_the_last_queries",
        ),
        Mistake(
            "own position penalised",
            "Your distance is one too large: a query's own position is at "
            "distance 0.",
            {"* distance\n": "* (distance + 1)\n"},
            "test_alibi_by_hand",
        ),
        Mistake(
            "distance squared",
            "Your penalty grows with the square of the distance. It is "
            "linear.",
            {"* distance\n": "* distance * distance.abs()\n"},
            "test_alibi_by_hand",
        ),
        Mistake(
            "keys as rows",
            "Your bias has a row for each key. Its shape is (H, T, S): a row "
            "for each query, as in the scores.",
            {_HIDE: f"{_HIDE}.mT"},
            "test_alibi_of_the_last_queries",
        ),
    ],
}
