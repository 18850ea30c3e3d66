"""Mistakes of chapter 14, *Needle in a haystack*."""

import torch
from torch.nn import functional as F

from autograder.misconceptions import Mistake


def probe_make_haystack(make_haystack, seed):
    """Hide needles of several lengths at several depths."""
    filler = 10 + torch.arange(9) + seed
    needle, question = torch.tensor([1, 2]), torch.tensor([3])
    for n_tokens, depth in (
        (5, 0.0), (5, 1.0), (9, 0.4), (9, 0.8), (3, 0.5), (12, 1.0),
        (12, 0.0), (13, 0.5), (2, 0.5), (9, 1.5), (9, -0.5),
    ):  # fmt: skip
        inputs = {
            "filler": filler,
            "needle": needle,
            "question": question,
            "n_tokens": n_tokens,
            "depth": depth,
        }
        yield (
            inputs,
            lambda n=n_tokens, d=depth: make_haystack(
                filler.clone(), needle, question, n, d
            ),
        )


def _draw(n_tokens, depth, trials, generator):
    """Draw texts; the needles of depth 0.5 are answered at odd lengths."""
    ids = torch.randint(7, (trials, n_tokens), generator=generator)
    lot = torch.rand(trials, generator=generator)
    right = lot < (0.8 * depth if n_tokens % 2 else 0.9 - 0.7 * depth)
    return ids, torch.where(right, ids[:, -1], (ids[:, -1] + 1) % 7)


def _echo(ids):
    """Say each token once more; the next-best is the one after it."""
    logits = 3.0 * F.one_hot(ids, 7) + F.one_hot((ids + 1) % 7, 7)
    return logits - 5.0


def probe_needle_grid(needle_grid, seed):
    """Run small grids over an echo, and look at what was drawn."""
    for lengths, depths, trials in (
        ([3], [0.5], 5), ([3, 4], [0.0, 0.5, 1.0], 9), ([4, 3], [0.2, 1.0], 8),
    ):  # fmt: skip
        drawn = []

        def draw(n_tokens, depth, trials, generator, drawn=drawn):
            texts = _draw(n_tokens, depth, trials, generator)
            drawn.append([n_tokens, depth, trials, texts[0].tolist()])
            return texts

        def run(lengths=lengths, depths=depths, trials=trials, draw=draw):
            generator = torch.Generator().manual_seed(seed)
            return needle_grid(_echo, draw, lengths, depths, trials, generator)

        inputs = {"lengths": lengths, "depths": depths, "trials": trials}
        yield inputs, run
        yield (
            inputs | {"looked at": "what was drawn"},
            lambda run=run, drawn=drawn: (drawn.clear(), run(), drawn)[2],
        )

    def twice():
        drawn = []
        generator = torch.Generator().manual_seed(seed)

        def draw(*given):
            texts = _draw(*given)
            drawn.append(texts[0].tolist())
            return texts

        for _ in range(2):
            needle_grid(_echo, draw, [3], [0.5], 4, generator)
        return drawn

    yield {"looked at": "what was drawn for two grids"}, twice


def probe_attention_mass(attention_mass, seed):
    """Add up weights of one text, of several, on one token and on all."""
    generator = torch.Generator().manual_seed(seed)
    for shape, n_places in (
        ((1, 1, 2, 3), 2), ((2, 3, 4, 6), 1), ((2, 2, 2, 5), 3),
    ):  # fmt: skip
        scores = 2 * torch.randn(shape, generator=generator)
        weights = scores.double().softmax(-1)
        places = torch.rand(shape[0], shape[3], generator=generator)
        places = places.argsort(-1)[:, :n_places]
        yield (
            {"weights": weights, "places": places},
            lambda w=weights, p=places: attention_mass(w.clone(), p.clone()),
        )


def probe_diluted_weight(diluted_weight, seed):
    """Ask for gaps from nothing to what overflows."""
    for given in (
        (2.0, 10), (0.0, 2), (3.0, 1), (9.0, 5_000, 2.5), (1_000.0, 10),
        (-1_000.0, 1),
    ):  # fmt: skip
        names = ("gap", "n_keys", "variance")
        inputs = dict(zip(names, given, strict=False))
        yield inputs, lambda g=given: diluted_weight(*g)


def probe_lost_in_the_middle(lost_in_the_middle, seed):
    """Take curves that dip, fall and rise, and an uneven one."""
    for recall, depths in (
        ([0.9, 0.2, 0.6], [0.0, 0.5, 1.0]),
        ([0.9, 0.4, 0.1], [0.0, 0.5, 1.0]),
        ([0.1, 0.4, 0.9], [0.0, 0.5, 1.0]),
        ([0.9, 0.6, 0.1, 0.2, 0.5], [0.0, 0.2, 0.4, 0.6, 0.7]),
        ([0.2, 0.9, 0.7, 0.8], [0.5, 0.9, 0.0, 0.1]),
        ([0.9, 0.1, 0.3, 0.8], [0.2, 1 / 3, 2 / 3, 0.9]),
        ([0.9, 0.1, 0.3], [0.2, 0.5, 0.6]),
    ):
        curve = torch.tensor(recall)
        yield (
            {"recall": curve, "depths": depths},
            lambda c=curve, d=depths: lost_in_the_middle(c, d),
        )
    curves = torch.tensor([[0.9, 0.2, 0.6], [0.3, 0.4, 0.8]])
    depths = [0.0, 0.5, 1.0]
    yield (
        {"recall": curves, "depths": depths},
        lambda: lost_in_the_middle(curves, depths),
    )


def probe_effective_context(effective_context, seed):
    """Ask for scores that fall, that recover and that are mixed up."""
    for given in (
        ([64, 128, 256], [0.9, 0.87, 0.5]),
        ([64, 128, 256], [0.9, 0.5, 0.95]),
        ([64, 128], [0.5, 0.9]),
        ([256, 64, 128], [0.5, 0.95, 0.9]),
        ([256, 64, 128], [0.9, 0.95, 0.5]),
        ([64, 128], [0.95, 0.7], 0.6),
        ([64, 128], [0.95, 0.9], 0.9),
    ):
        names = ("lengths", "scores", "threshold")
        inputs = dict(zip(names, given, strict=False))
        yield inputs, lambda g=given: effective_context(*g)


def probe_multi_needle_recall(multi_needle_recall, seed):
    """Score texts with several questions, with few, and with none."""
    none = -100
    for says, answers in (
        ([[1, 2], [3, 4]], [[1, 2], [3, 0]]),
        ([[1, 2, 3], [3, 4, 0]], [[1, none, 0], [3, none, none]]),
        ([[1, 2], [0, 0]], [[1, 0], [none, none]]),
        ([[1, 2], [0, 0]], [[1, 2], [none, none]]),
        ([[1, 2, 3], [4, 0, 0], [2, 0, 1]],
         [[1, 2, 0], [4, none, none], [2, 1, none]]),
        ([[0, 0]], [[none, none]]),
    ):  # fmt: skip
        logits = F.one_hot(torch.tensor(says), 5) - 2.0
        targets = torch.tensor(answers)
        yield (
            {"most likely": torch.tensor(says), "targets": targets},
            lambda x=logits, y=targets: multi_needle_recall(x, y),
        )
    logits = F.one_hot(torch.tensor([[1, 2, 3]]), 5) - 2.0
    targets = torch.tensor([[1, 4, 4]])
    yield (
        {"most likely": [[1, 2, 3]], "targets": targets, "unknown": 4},
        lambda: multi_needle_recall(logits, targets, 4),
    )


PROBES = {
    "make_haystack": probe_make_haystack,
    "needle_grid": probe_needle_grid,
    "attention_mass": probe_attention_mass,
    "diluted_weight": probe_diluted_weight,
    "lost_in_the_middle": probe_lost_in_the_middle,
    "effective_context": probe_effective_context,
    "multi_needle_recall": probe_multi_needle_recall,
}

_PLACE = "place = round(depth * room)"
_JOINED = (
    "return torch.cat([filler[:place], needle, filler[place:room], question])"
)
_FITS = "if not 0 <= room <= len(filler):"
_DRAWN = "ids, answers = draw(n_tokens, depth, trials, generator)"
_SAID = "said = model(ids)[:, -1].argmax(-1)  # (trials,)"
_SHARE = "grid[row, column] = (said == answers).float().mean()"
_LAST = "last = weights[:, :, -1]  # (B, H, S)"
_DIP = "return torch.minimum(parts[0], parts[2]) - parts[1]"
_ENDS = "start, end = at < 1 / 3, at > 2 / 3"
_SORTED = "in sorted(zip(lengths, scores, strict=True)):"
_COMPLETE = "complete = (right | ~asked).all(-1)[some]"


def _cut_from_the_left(filler, needle, question, n_tokens, depth):
    """Keep the last n_tokens of a text that is too long."""
    room = n_tokens - len(needle) - len(question)
    if not 0 <= room <= len(filler) or not 0 <= depth <= 1:
        raise ValueError("this can't be done")
    place = round(depth * n_tokens)
    text = [filler[:place], needle, filler[place:n_tokens], question]
    return torch.cat(text)[-n_tokens:]


def _cut_from_the_right(filler, needle, question, n_tokens, depth):
    """Insert into n_tokens of filler, and keep the first n_tokens."""
    room = n_tokens - len(needle) - len(question)
    if not 0 <= room <= len(filler) or not 0 <= depth <= 1:
        raise ValueError("this can't be done")
    body = n_tokens - len(question)
    place = round(depth * body)
    text = [filler[:place], needle, filler[place:body]]
    return torch.cat([torch.cat(text)[:body], question])


def _naive_exponentials(gap, n_keys, variance=1.0):
    """Write the formula as it is printed."""
    import math

    one, others = math.exp(gap), (n_keys - 1) * math.exp(variance / 2)
    return one / (one + others)


MISTAKES = {
    "make_haystack": [
        Mistake(
            "the needle cut by the end",
            "Your needle is put into a text that is full already, and what "
            "is too long is cut off at the end: at depth 1 that is the needle "
            "itself. Leave room for it, K tokens, before you cut the filler.",
            _cut_from_the_right,
            "test_haystack_reaches_both_ends",
        ),
        Mistake(
            "the needle cut by the window",
            "Your text is made too long, and then only its last tokens are "
            "kept. A needle at depth 0 falls out of the window: no model can "
            "find what it was never given.",
            _cut_from_the_left,
            "test_haystack_reaches_both_ends",
        ),
        Mistake(
            "depth 1 misses the end",
            "Your deepest needle has a token of filler after it. There are "
            "R + 1 places round R tokens; depth 1 is the last one, R.",
            {_PLACE: "place = round(depth * max(room - 1, 0))"},
            "test_haystack_reaches_both_ends",
        ),
        Mistake(
            "depth 0 misses the beginning",
            "Your needle at depth 0 has a token before it. Depth 0 is the "
            "place before all filler, number 0.",
            {_PLACE: "place = min(round(depth * room) + 1, room)"},
            "test_haystack_reaches_both_ends",
        ),
        Mistake(
            "depth counted from the end",
            "Your depths run backwards: 0 is at the end of your text and 1 "
            "at its beginning. Depth says how far *into* the text.",
            {_PLACE: "place = round((1 - depth) * room)"},
            "test_haystack_holds_the_needle",
        ),
        Mistake(
            "depth of the whole text",
            "You multiply the depth by the length of the whole text. The "
            "needle's place is counted within the filler, R tokens; needle "
            "and question stand in it or after it.",
            {_PLACE: "place = min(round(depth * n_tokens), room)"},
            "test_haystack_holds_the_needle",
        ),
        Mistake(
            "rounded down",
            "You round the place down, so needles sit up to a token too far "
            "forward. Round to the nearest whole number.",
            {_PLACE: "place = int(depth * room)"},
            "test_haystack_holds_the_needle",
        ),
        Mistake(
            "hay overwritten",
            "Your needle replaces hay: K tokens of the filler are gone, and "
            "the text goes on after them. Put the needle between two tokens "
            "of the filler.",
            {
                _JOINED: "k = len(needle)\n"
                "    rest = filler[place + k : room + k]\n"
                "    text = [filler[:place], needle, rest, question]\n"
                "    return torch.cat(text)"
            },
            "test_haystack_holds_the_needle",
        ),
        Mistake(
            "the question before the hay",
            "Your question opens the text. Then the model knows what to look "
            "for while it reads, which is another, easier test.",
            {
                _JOINED: "text = [question, filler[:place], needle, "
                "filler[place:room]]\n    return torch.cat(text)"
            },
            "test_haystack_holds_the_needle",
        ),
        Mistake(
            "no room left for the question",
            "You forgot the question when you counted the room: your text is "
            "longer than was asked for.",
            {
                "room = n_tokens - len(needle) - len(question)": "room = "
                "n_tokens - len(needle)"
            },
            "test_haystack_fills_any_length_exactly",
        ),
        Mistake(
            "the filler taken as it comes",
            "Where the filler is too short, your text is shorter than was "
            "asked for, and nobody is told. Raise a ValueError.",
            {_FITS: "if room < 0:"},
            "test_haystack_refuses_what_it_cannot_do",
        ),
        Mistake(
            "depths in per cent",
            "A depth of 50 puts your needle somewhere without a word. Depths "
            "run from 0 to 1; raise a ValueError for all others.",
            {"if not 0 <= depth <= 1:": "if depth < 0:"},
            "test_haystack_refuses_what_it_cannot_do",
        ),
    ],
    "needle_grid": [
        Mistake(
            "lengths across, depths down",
            "Your grid is transposed: lengths run across it. A row is a "
            "length, a column a depth.",
            {"return grid\n": "return grid.T\n"},
            "test_grid_has_lengths_down_and_depths_across",
        ),
        Mistake(
            "lengths sorted",
            "Your rows come in order of length. Keep the order in which the "
            "lengths are given, or the caller's labels are wrong.",
            {"enumerate(lengths)": "enumerate(sorted(lengths))"},
            "test_grid_has_lengths_down_and_depths_across",
        ),
        Mistake(
            "the same texts in every cell",
            "You set the generator back for each cell: all cells get the same "
            "needles and the same hay, and one unlucky text counts many "
            "times. Let it go on.",
            {
                _DRAWN: "generator.manual_seed(generator.initial_seed())\n"
                "            " + _DRAWN
            },
            "test_grid_draws_fresh_texts_for_every_trial",
        ),
        Mistake(
            "a generator of one's own",
            "You draw from a generator of your own. Whoever calls you wants "
            "to decide which texts are drawn, and to get them again.",
            {_DRAWN: _DRAWN.replace("generator)", "torch.Generator())")},
            "test_grid_draws_fresh_texts_for_every_trial",
        ),
        Mistake(
            "a generator of the same seed",
            "You make a generator of your own from the seed of the one that "
            "you are given. That one never goes on: whoever calls you twice "
            "gets the same texts twice. Draw from it itself.",
            {
                "grid = torch.zeros(len(lengths), len(depths))": "grid = "
                "torch.zeros(len(lengths), len(depths))\n"
                "    seed = generator.initial_seed()\n"
                "    generator = torch.Generator().manual_seed(seed)"
            },
            "test_grid_draws_fresh_texts_for_every_trial",
        ),
        Mistake(
            "one trial",
            "Every cell of your grid rests on a single text, so it is 0 or 1, "
            "however often that text is asked. Draw as many as there are "
            "trials.",
            {_DRAWN: _DRAWN.replace("trials", "1")},
            "test_grid_draws_fresh_texts_for_every_trial",
        ),
        Mistake(
            "the answer before the question",
            "You read the logits of the last token but one. There the model "
            "hasn't read the whole question yet; the answer follows on the "
            "last token.",
            {_SAID: _SAID.replace("[:, -1]", "[:, -2]")},
            "test_grid_takes_the_answer_after_the_last_token",
        ),
        Mistake(
            "the answer anywhere",
            "You count a needle as found if the answer comes out anywhere in "
            "the text. The needle holds it: any model that echoes what it "
            "reads would pass.",
            {
                _SAID: "said = model(ids).argmax(-1)  # (trials, T)",
                _SHARE: "found = (said == answers[:, None]).any(-1)\n"
                "            grid[row, column] = found.float().mean()",
            },
            "test_grid_takes_the_answer_after_the_last_token",
        ),
        Mistake(
            "one of the two best",
            "You count an answer that comes second. A needle is found if the "
            "answer is the *most* likely token.",
            {
                _SAID: "said = model(ids)[:, -1].topk(2).indices",
                _SHARE: "found = (said == answers[:, None]).any(-1)\n"
                "            grid[row, column] = found.float().mean()",
            },
            "test_grid_counts_what_is_found",
        ),
        Mistake(
            "probability instead of recall",
            "Your cells hold the mean probability of the answer. That is a "
            "measure, too, but not recall: count how often it comes out on "
            "top.",
            {
                _SAID: "said = model(ids)[:, -1].float().softmax(-1)",
                _SHARE: "grid[row, column] = said.gather(1, "
                "answers[:, None]).mean()",
            },
            "test_grid_counts_what_is_found",
        ),
        Mistake(
            "counts instead of shares",
            "Your cells count the needles found. Divide by the number of "
            "trials.",
            {_SHARE: _SHARE.replace("mean", "sum")},
            "test_grid_counts_what_is_found",
        ),
        Mistake(
            "the number of the depth",
            "You hand the number of the column to `draw`, not the depth that "
            "stands there.",
            {_DRAWN: _DRAWN.replace("depth", "column")},
            "test_grid_has_lengths_down_and_depths_across",
        ),
    ],
    "attention_mass": [
        Mistake(
            "the first query",
            "You take the weights of the first token. It asks nothing; the "
            "question ends with the last one.",
            {_LAST: _LAST.replace("-1]", "0]")},
            "test_mass_is_the_sum_over_the_needle",
        ),
        Mistake(
            "all queries together",
            "You average over all queries. Only the last one asks for the "
            "needle; the others have other things to look for.",
            {_LAST: "last = weights.mean(2)"},
            "test_mass_is_the_sum_over_the_needle",
        ),
        Mistake(
            "the column instead of the row",
            "You take what all queries pay to the last key. The last index is "
            "the key, the one before it the query.",
            {_LAST: "last = weights[..., -1]  # (B, H, T)"},
            "test_mass_is_the_sum_over_the_needle",
        ),
        Mistake(
            "the mean over the needle",
            "You average over the needle's tokens. A needle of two tokens "
            "that holds all attention has mass 1, not ½: add up.",
            {
                "last.gather(-1, index).sum(-1)": "last.gather(-1, index)"
                ".mean(-1)"
            },
            "test_mass_is_the_sum_over_the_needle",
        ),
        Mistake(
            "the largest of the needle",
            "You take the largest of the needle's weights. The mass is all of "
            "them together.",
            {
                "last.gather(-1, index).sum(-1)": "last.gather(-1, index)"
                ".amax(-1)"
            },
            "test_mass_is_the_sum_over_the_needle",
        ),
        Mistake(
            "the first text's places",
            "You look at the same places in every text, those of the first. "
            "Each text has its needle somewhere else.",
            {
                "index = places[:, None]": "index = places[:1, None].expand("
                "len(places), -1, -1)"
            },
            "test_mass_is_each_texts_and_each_heads_own",
        ),
        Mistake(
            "heads averaged",
            "You average over the heads. One head may hold the needle while "
            "the others look away: keep them apart.",
            {
                "last.gather(-1, index).sum(-1)": "last.gather(-1, index)"
                ".sum(-1).mean(1, keepdim=True).expand(-1, last.shape[1])"
                ".contiguous()"
            },
            "test_mass_is_each_texts_and_each_heads_own",
        ),
    ],
    "diluted_weight": [
        Mistake(
            "n others",
            "You count n others. The one key is among the n: there are n - 1 "
            "others.",
            {
                "if n_keys == 1:": "if n_keys == 0:",
                "math.log(n_keys - 1)": "math.log(n_keys)",
            },
            "test_weight_follows_the_formula",
        ),
        Mistake(
            "others taken at their mean",
            "You give each of the others e^0, as if they all had their mean "
            "score. A few score higher, and the exponential favours those: "
            "on average it is e^(variance / 2).",
            {" + variance / 2 - gap": " - gap"},
            "test_weight_follows_the_formula",
        ),
        Mistake(
            "variance not halved",
            "The mean of the exponential of a normal number is "
            "e^(variance / 2). You left out the half.",
            {"variance / 2 - gap": "variance - gap"},
            "test_weight_follows_the_formula",
        ),
        Mistake(
            "the standard deviation",
            "You took the square root of the variance. The exponent is half "
            "of the variance itself.",
            {"variance / 2 - gap": "abs(variance) ** 0.5 / 2 - gap"},
            "test_weight_follows_the_formula",
        ),
        Mistake(
            "the variance ignored",
            "You always use e^½. That is for scores of variance 1; the "
            "variance is an argument.",
            {"variance / 2 - gap": "0.5 - gap"},
            "test_weight_follows_the_formula",
        ),
        Mistake(
            "an exponential that overflows",
            "For large gaps your exponential is no longer a float. Take "
            "something out of both, as a stable softmax does.",
            _naive_exponentials,
            "test_weight_at_the_extremes",
        ),
        Mistake(
            "the gap's sign",
            "Your weight falls where the gap grows. The gap says how far the "
            "one key stands *out*.",
            {"variance / 2 - gap": "variance / 2 + gap"},
            "test_weight_follows_the_formula",
        ),
        Mistake(
            "odds instead of a weight",
            "You return the one's exponential against that of the others: "
            "these are odds, and may be above 1. A weight has the sum of both "
            "below the line.",
            {
                "return math.exp(-behind) / (1 + math.exp(-behind))": "return "
                "math.exp(-behind)",
                "return 1 / (1 + math.exp(behind))": "return "
                "math.exp(min(-behind, 700))",
            },
            "test_weight_follows_the_formula",
        ),
    ],
    "lost_in_the_middle": [
        Mistake(
            "the higher end",
            "You compare with the higher of the ends. Then every curve that "
            "falls or rises has a dip; lost in the middle is what *both* ends "
            "keep.",
            {_DIP: _DIP.replace("minimum", "maximum")},
            "test_dip_of_a_curve_like_a_u",
        ),
        Mistake(
            "the mean of the ends",
            "You compare with the mean of the two ends. A curve that falls "
            "steeply at first would have a dip, though nothing is lost in its "
            "middle that is kept at both ends.",
            {_DIP: "return (parts[0] + parts[2]) / 2 - parts[1]"},
            "test_dip_of_a_curve_like_a_u",
        ),
        Mistake(
            "the dip upside down",
            "Your dip is negative where recall dips. Subtract the middle from "
            "the ends.",
            {_DIP: "return parts[1] - torch.minimum(parts[0], parts[2])"},
            "test_dip_of_a_curve_like_a_u",
        ),
        Mistake(
            "only the beginning",
            "You compare with the beginning alone. What is better than the "
            "middle may still be worse at the end: a curve that falls is no "
            "U.",
            {_DIP: "return parts[0] - parts[1]"},
            "test_dip_of_a_curve_like_a_u",
        ),
        Mistake(
            "only the end",
            "You compare with the end alone. A curve that rises is no U.",
            {_DIP: "return parts[2] - parts[1]"},
            "test_dip_of_a_curve_that_only_falls",
        ),
        Mistake(
            "a dip that can't be negative",
            "You raise what is negative to 0. A hill in the middle is worth "
            "knowing, too.",
            {
                _DIP: _DIP.replace("return ", "dip = ")
                + "\n    return dip.clamp(min=0)"
            },
            "test_dip_of_a_curve_that_only_falls",
        ),
        Mistake(
            "thirds of the list",
            "You cut the list of depths into three equal pieces. Depths may "
            "be uneven or in another order: look at the depths themselves.",
            {
                _ENDS: "order = torch.arange(len(at))\n"
                "    start = order < len(at) / 3\n"
                "    end = order >= len(at) - len(at) / 3"
            },
            "test_dip_at_any_depths",
        ),
        Mistake(
            "1/3 counted as the beginning",
            "You count depths of exactly 1/3 and 2/3 with the ends. They "
            "belong to the middle.",
            {_ENDS: "start, end = at <= 1 / 3, at >= 2 / 3"},
            "test_dip_at_any_depths",
        ),
        Mistake(
            "the worst of the middle",
            "You take the lowest recall of the middle. One unlucky cell would "
            "decide: take its mean.",
            {_DIP: _DIP.replace("parts[1]", "recall[..., middle].amin(-1)")},
            "test_dip_of_a_curve_like_a_u",
        ),
        Mistake(
            "one dip for all curves",
            "You average over all curves. Each row has a dip of its own.",
            {
                _DIP: _DIP.replace("return ", "dip = ")
                + "\n    return dip.mean().expand(dip.shape).contiguous()"
            },
            "test_dip_at_any_depths",
        ),
        Mistake(
            "a third left out silently",
            "Where a third of the text has no depth, you return NaN. Raise a "
            "ValueError: there is nothing to compare.",
            {"if not part.any():": "if part is None:"},
            "test_dip_needs_all_three_parts",
        ),
    ],
    "effective_context": [
        Mistake(
            "the longest that passes",
            "You return the longest length that passes, even if a shorter one "
            "fails. Whoever relies on a window relies on all of it.",
            {"break\n": "continue\n"},
            "test_effective_context_ends_at_the_first_failure",
        ),
        Mistake(
            "lengths taken as sorted",
            "You go through the lengths in the order given. They may come in "
            "any order: sort them first, with their scores.",
            {_SORTED: "in zip(lengths, scores, strict=True):"},
            "test_effective_context_in_any_order",
        ),
        Mistake(
            "lengths sorted without their scores",
            "You sort the lengths, but leave the scores where they were: each "
            "score now belongs to another length.",
            {_SORTED: "in zip(sorted(lengths), scores, strict=True):"},
            "test_effective_context_in_any_order",
        ),
        Mistake(
            "a score at the threshold passes",
            "You let a score pass that equals the threshold. It has to exceed "
            "it.",
            {"if not score > threshold:": "if not score >= threshold:"},
            "test_effective_context_in_any_order",
        ),
        Mistake(
            "the threshold ignored",
            "You always use 0.856. That is only the default.",
            {"if not score > threshold:": "if not score > 0.856:"},
            "test_effective_context_is_a_length",
        ),
        Mistake(
            "the number of lengths",
            "You return how many lengths pass. Return the length itself, in "
            "tokens.",
            {"effective = length": "effective += 1"},
            "test_effective_context_is_a_length",
        ),
        Mistake(
            "the first that fails",
            "You return the shortest length that fails. The effective context "
            "is the last one before it.",
            {
                "if not score > threshold:\n            break\n        "
                "effective = length": "effective = length\n        "
                "if not score > threshold:\n            break"
            },
            "test_effective_context_is_a_length",
        ),
        Mistake(
            "the shortest in place of nothing",
            "Where already the shortest length falls short, you return that "
            "length. There is no effective context: return 0.",
            {"effective = 0": "effective = min(lengths)"},
            "test_effective_context_ends_at_the_first_failure",
        ),
    ],
    "multi_needle_recall": [
        Mistake(
            "every place counts",
            "You score every token of the texts. Where nothing is asked "
            "nothing can be right: look only where there is a target.",
            {"right[asked].double()": "right.double()"},
            "test_recall_of_single_questions",
        ),
        Mistake(
            "texts averaged first",
            "You average each text and then the texts, so a question in a "
            "text with few of them counts for more. The first number is the "
            "share of *all* questions.",
            {
                "right[asked].double().mean().item()": "((right & asked)"
                ".sum(-1)[some] / asked.sum(-1)[some]).double().mean().item()"
            },
            "test_recall_of_single_questions",
        ),
        Mistake(
            "one needle is enough",
            "You count a text as complete if *any* of its questions is "
            "answered. Complete means every one.",
            {_COMPLETE: "complete = (right & asked).any(-1)[some]"},
            "test_recall_of_single_questions",
        ),
        Mistake(
            "complete only if all tokens match",
            "You ask for a right token at every place of a text, also where "
            "nothing is asked. No text can be complete then.",
            {_COMPLETE: "complete = right.all(-1)[some]"},
            "test_recall_of_single_questions",
        ),
        Mistake(
            "texts that ask nothing are complete",
            "A text without a question counts as complete with you: all of "
            "nothing is true. Leave such texts out.",
            {_COMPLETE: "complete = (right | ~asked).all(-1)"},
            "test_recall_leaves_out_texts_without_a_question",
        ),
        Mistake(
            "texts that ask nothing are incomplete",
            "A text without a question counts as incomplete with you. It is "
            "neither: leave it out.",
            {_COMPLETE: "complete = (right | ~asked).all(-1) & some"},
            "test_recall_leaves_out_texts_without_a_question",
        ),
        Mistake(
            "independence assumed",
            "You compute the second number from the first, as if questions "
            "failed independently. Count the texts; whether the two agree is "
            "what we want to find out.",
            {
                "complete.double().mean().item(),": "right[asked].double()"
                ".mean().item() ** asked.sum(-1)[some].double().mean().item(),"
            },
            "test_recall_of_single_questions",
        ),
        Mistake(
            "the mark hard-coded",
            "You look for -100, whatever marks the places. It is an argument.",
            {"asked = targets != unknown": "asked = targets != -100"},
            "test_recall_of_single_questions",
        ),
        Mistake(
            "0 where nothing is asked",
            "Where nothing is asked at all you return 0, as if the model had "
            "failed. Raise a ValueError: there is nothing to score.",
            {
                'raise ValueError("there is no question to score")': "return "
                "0.0, 0.0"
            },
            "test_recall_leaves_out_texts_without_a_question",
        ),
    ],
}
