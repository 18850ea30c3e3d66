"""Mistakes of chapter 15, *Design a long-context model*."""

import torch

from autograder.misconceptions import Mistake
from contextlab import capstone
from contextlab.capstone import Design, Keep
from solutions.capstone import importance, memory_mask

SMALL = 3  # texts of a probe's exam


def _designs():
    """Yield designs that tell the costs apart, the smallest first."""
    yield Design((Keep(3),), 1), 10
    yield Design((Keep(3),), 2), 10
    yield Design((Keep(30),), 1), 10
    yield Design((Keep(2, 4),), 1), 10
    yield Design((Keep(2, 4, 1),), 1), 10
    yield Design((Keep(2, 4, 3),), 2), 4
    yield Design((Keep(3, bits=8),), 1), 10
    yield Design((Keep(2, 4, 2, 4), Keep(5)), 2), 10


def probe_kv_bytes_per_token(kv_bytes_per_token, seed):
    """Ask for the bytes of some designs; there is nothing to draw."""
    for design, n in _designs():
        yield (
            _said(design) | {"n_tokens": n, "width": 6},
            lambda d=design, n=n: kv_bytes_per_token(d, n, 6),
        )


def probe_flops_per_token(flops_per_token, seed):
    """Ask for the FLOPs of some designs."""
    for design, n in _designs():
        yield (
            _said(design) | {"n_tokens": n, "n_heads": 4, "width": 6},
            lambda d=design, n=n: flops_per_token(d, n, 4, 6, 1_000),
        )


def _said(design):
    return {"layers": design.layers, "n_kv_heads": design.n_kv_heads}


def probe_memory_mask(memory_mask, seed):
    """Ask for the masks of a few entries in some order."""
    generator = torch.Generator().manual_seed(seed)
    for n, window, memory in ((3, 1, 1), (5, 2, 1), (6, 1, 2), (7, 3, 2)):
        scores = torch.rand(n, generator=generator).argsort().float()
        yield (
            {"scores": scores, "window": window, "memory": memory},
            lambda s=scores, w=window, m=memory: memory_mask(s.clone(), w, m),
        )
    scores = torch.rand(2, 6, generator=generator).argsort(-1).float()
    yield (
        {"scores": scores, "window": 2, "memory": 0},
        lambda: memory_mask(scores.clone(), 2, 0),
    )


def probe_importance(importance, seed):
    """Measure what is kept answers, and what later tokens change.

    Any good answer is right, so the outcomes are no scores: changes of those
    that are settled, which are zero, and recalls.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = (1, 4, 6, 4), (1, 1, 6, 4), (1, 1, 6, 4)
    now, later = (
        [torch.randn(shape, generator=generator) for shape in shapes]
        for _ in range(2)
    )

    def changes():
        other = [x.clone() for x in now]
        for x, news in zip(other, later, strict=True):
            x[:, :, 4:] = news[:, :, 4:]
        one, two = (importance(*x, 2) for x in (now, other))
        return (two - one).abs()[..., :3]

    yield {"window": 2, "changed": "token 4 and later"}, changes
    near = Keep(window=2)
    for memory in (24, 64):
        layers = (Keep(2, memory), near, near, near)
        design = Design(layers, 1, "linear", importance)
        yield (
            {"room": memory, "texts": SMALL, "seed": seed},
            lambda d=design: _recall(d, seed),
        )


def _recall(design, seed):
    found = capstone.examine(design, memory_mask, seed, SMALL)
    return f"a recall of {found.recall:.3f}"


def probe_design(design, seed):
    """Measure recall, bytes and FLOPs in a small exam."""

    def examined():
        found = capstone.examine(design(), memory_mask, seed, SMALL)
        return (
            f"a recall of {found.recall:.3f} for {found.kv_bytes:.2f} bytes "
            f"and {found.flops:,.0f} FLOPs"
        )

    yield {"texts": SMALL, "seed": seed}, examined


# Many answers are right; what the reference reaches is not asked for.
OPEN = "importance", "design"
PROBES = {
    "kv_bytes_per_token": probe_kv_bytes_per_token,
    "flops_per_token": probe_flops_per_token,
    "memory_mask": probe_memory_mask,
    "importance": probe_importance,
    "design": probe_design,
}


def _later_attention(q, k, v, window):
    """Add up what all queries, later ones too, give to each entry."""
    n = k.shape[2]
    keys = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    scores = (q @ keys.mT / q.shape[-1] ** 0.5).masked_fill(
        ~torch.ones(n, n, dtype=torch.bool).tril(), -torch.inf
    )
    received = scores.softmax(-1).sum(-2)  # (B, H, T)
    return received.unflatten(1, (k.shape[1], -1)).sum(2)


def _for_the_question(q, k, v, window):
    """Keep what the text's last query will ask for."""
    asks = q.unflatten(1, (k.shape[1], -1)).mean(2)[:, :, -1:]
    return (asks * k).sum(-1)


def _unlike_the_mean(q, k, v, window):
    """Keep the keys that are least like the mean of all of the text."""
    return (k - k.mean(2, keepdim=True)).norm(dim=-1)


def _by_lot(q, k, v, window):
    """Keep any."""
    return _places(k) * 0.618034 % 1


def _places(k):
    return torch.arange(k.shape[2]).float().expand(k.shape[:3])


NEAR = Keep(window=4, bits=4)


def _plan(layers, shared=1, rope="yarn", score=importance):
    """Return an answer that returns this design."""
    return lambda: Design(tuple(layers), shared, rope, score)


def _as_dict():
    """Return what a design would hold."""
    far = {"window": 4, "memory": 80, "retrieved": 8, "bits": 4}
    near = {"window": 4, "bits": 4}
    return {"layers": [far, near, near, near], "n_kv_heads": 1}


_ENTRIES = "entries = min(n_tokens, keep.window + keep.memory)"
_SCALE = "scale = 0 if keep.bits == 16 else 2 * 16"
_TOTAL = "total += entries * 2 * (width * keep.bits + scale) / 8"
_BYTES = "return plan.n_kv_heads * total / n_tokens"
_NEAR = "near = min(n_tokens, keep.window)"
_FAR = "far = min(n_tokens - near, keep.memory)"
_FOUND = "found = far if keep.retrieved is None else min(far, keep.retrieved)"
_ADDED = "attention += (near + far) + (near + found)  # q·k, and weights · v"
_FLOPS = "return 2 * n_weights + 2 * n_heads * width * attention"
_RANKED = "ranked = scores[..., None, :].masked_fill(~left, -math.inf)"
_SEEN = "return (stays & left) | ((back >= 0) & (back < window))"
_LEFT = "left = back >= window"

MISTAKES = {
    "kv_bytes_per_token": [
        Mistake(
            "keys without values",
            "You count one vector for each entry. A cache holds two, the key "
            "and the value: twice as many bytes.",
            {_TOTAL: _TOTAL.replace("entries * 2", "entries")},
            "test_bytes_of_a_window",
        ),
        Mistake(
            "every token is kept",
            "You count an entry for every token of the text. A layer keeps "
            "its window and what its memory has room for; that is the point "
            "of both.",
            {_ENTRIES: "entries = n_tokens"},
            "test_bytes_of_a_window",
        ),
        Mistake(
            "more entries than tokens",
            "You count the whole window and the whole room, though the text "
            "is shorter. There can't be more entries than tokens: take the "
            "minimum.",
            {_ENTRIES: "entries = keep.window + keep.memory"},
            "test_bytes_of_a_window",
        ),
        Mistake(
            "scales forgotten",
            "At few bits you count the codes alone. Nobody can read them "
            "without the scale and the lowest number of each key and each "
            "value: 32 bits more for either.",
            {_SCALE: "scale = 0"},
            "test_bytes_of_a_memory_and_of_few_bits",
        ),
        Mistake(
            "scales at 16 bits, too",
            "You add a scale and a lowest number at 16 bits, too. There the "
            "numbers are stored as they are, and need neither.",
            {_SCALE: "scale = 2 * 16"},
            "test_bytes_of_a_window",
        ),
        Mistake(
            "one scale for key and value",
            "You count one scale and one lowest number for an entry. Its key "
            "and its value are rounded apart: each has its own.",
            {_SCALE: "scale = 0 if keep.bits == 16 else 16"},
            "test_bytes_of_a_memory_and_of_few_bits",
        ),
        Mistake(
            "bits for bytes",
            "Your result is in bits. Eight of them are a byte.",
            {_TOTAL: _TOTAL.replace(" / 8", "")},
            "test_bytes_of_a_window",
        ),
        Mistake(
            "one KV head",
            "You count one KV head. There are `plan.n_kv_heads` of them in "
            "each layer, and each keeps entries of its own.",
            {_BYTES: "return total / n_tokens"},
            "test_bytes_of_a_window",
        ),
        Mistake(
            "only what is retrieved",
            "You count the entries that a query retrieves. The memory has to "
            "hold all among which it chooses: its whole room counts.",
            {
                _ENTRIES: "entries = min(n_tokens, keep.window + min("
                "keep.memory, keep.retrieved or keep.memory))"
            },
            "test_bytes_of_a_memory_and_of_few_bits",
        ),
        Mistake(
            "the memory for free",
            "You count the window alone. What the memory holds lies in the "
            "same cache and costs the same bytes.",
            {_ENTRIES: "entries = min(n_tokens, keep.window)"},
            "test_bytes_of_a_memory_and_of_few_bits",
        ),
        Mistake(
            "of the whole text",
            "Your result is for the whole text. Divide by its number of "
            "tokens: that is what lets texts be compared.",
            {_BYTES: "return plan.n_kv_heads * total"},
            "test_bytes_of_a_window",
        ),
    ],
    "flops_per_token": [
        Mistake(
            "MACs for FLOPs",
            "You count a multiplication with its addition as one. They are "
            "two operations, for the weights and in attention.",
            {_FLOPS: "return n_weights + n_heads * width * attention"},
            "test_flops_of_a_window",
        ),
        Mistake(
            "weights counted once",
            "You count each weight once. A token multiplies it and adds the "
            "product: two operations.",
            {_FLOPS: _FLOPS.replace("2 * n_weights", "n_weights")},
            "test_flops_of_a_window",
        ),
        Mistake(
            "heads that share compute once",
            "You count one search for each KV head. Sharing saves bytes, not "
            "operations: every query head has its own query and scores all "
            "entries with it.",
            {_FLOPS: _FLOPS.replace("n_heads", "plan.n_kv_heads")},
            "test_flops_of_a_window",
        ),
        Mistake(
            "the search for free",
            "You count the entries that are retrieved, but not the search. To "
            "know which ones score highest, all of them have to be scored.",
            {_ADDED: "attention += 2 * (near + found)"},
            "test_flops_of_what_is_retrieved",
        ),
        Mistake(
            "all values are summed up",
            "You count the values of all entries. Only those that a query "
            "retrieves are summed up: that is what it saves.",
            {_ADDED: "attention += 2 * (near + far)"},
            "test_flops_of_what_is_retrieved",
        ),
        Mistake(
            "scores without values",
            "You count q·k alone. The values are weighed and summed up, too, "
            "and that takes as many operations an entry.",
            {_ADDED: "attention += near + far"},
            "test_flops_of_a_window",
        ),
        Mistake(
            "more entries than tokens",
            "You count the whole window, though the text is shorter. A query "
            "can't score more entries than there are tokens.",
            {_NEAR: "near = keep.window", _FAR: "far = keep.memory"},
            "test_flops_of_a_window",
        ),
        Mistake(
            "the memory is full at once",
            "You count the memory's whole room. As long as the text is short, "
            "fewer tokens than that have left the window.",
            {_FAR: "far = keep.memory"},
            "test_flops_of_what_is_retrieved",
        ),
        Mistake(
            "of the whole text",
            "You count all tokens of the text. The last one costs what it "
            "costs alone: divide by nothing, multiply by nothing.",
            {_FLOPS: "return n_tokens * (" + _FLOPS[7:] + ")"},
            "test_flops_of_a_window",
        ),
    ],
    "memory_mask": [
        Mistake(
            "the best of the whole text",
            "Your memory holds the best entries of the *whole* text, those to "
            "come among them, and shows each as soon as it has left. To keep "
            "room for what hasn't come yet is to know the future. Hide what "
            "hasn't left the window, and then choose.",
            {
                _RANKED: "ranked = scores[..., None, :].expand("
                "*scores.shape, n)"
            },
            "test_memory_mask_does_not_know_the_future",
        ),
        Mistake(
            "the window's entries take room",
            "Your memory chooses among all entries so far, those in the "
            "window too, so that they take room twice. Choose among those "
            "that have left.",
            {_RANKED: _RANKED.replace("~left", "back < 0")},
            "test_memory_mask_by_hand",
        ),
        Mistake(
            "the worst stay",
            "Your memory keeps the entries with the lowest scores. The "
            "highest are to stay.",
            {_RANKED: _RANKED.replace("scores[", "-scores[")},
            "test_memory_mask_by_hand",
        ),
        Mistake(
            "the newest stay",
            "Your memory keeps the entries that left last: a wider window, "
            "whatever the scores say.",
            {
                _RANKED: "ranked = places.float().expand(*scores.shape, n)"
                ".masked_fill(~left, -math.inf)"
            },
            "test_memory_mask_by_hand",
        ),
        Mistake(
            "the first stay",
            "Your memory keeps the entries that came first, and when it is "
            "full no other gets in. A better one has to push out the worst.",
            {
                _RANKED: "ranked = (-places.float()).expand(*scores.shape, n)"
                ".masked_fill(~left, -math.inf)"
            },
            "test_memory_mask_by_hand",
        ),
        Mistake(
            "a window without the token itself",
            "Your window doesn't hold the token itself. It is one of the w: "
            "itself and the w - 1 before it.",
            {_SEEN: _SEEN.replace("back >= 0", "back > 0")},
            "test_memory_mask_by_hand",
        ),
        Mistake(
            "a window of w and itself",
            "Your window holds w tokens before the token itself, w + 1 in "
            "all. It is one of the w.",
            {
                _LEFT: "left = back > window",
                _SEEN: _SEEN.replace("< window", "<= window"),
            },
            "test_memory_mask_by_hand",
        ),
        Mistake(
            "the future in the window",
            "Your window reaches forward, too: queries see tokens that come "
            "after them.",
            {_SEEN: _SEEN.replace("(back >= 0) & ", "")},
            "test_memory_mask_by_hand",
        ),
        Mistake(
            "one column too late",
            "An entry goes missing for a step, between window and memory. As "
            "soon as the distance is w, it has left.",
            {_LEFT: "left = back > window"},
            "test_memory_mask_by_hand",
        ),
    ],
    "importance": [
        Mistake(
            "the newest are the most important",
            "You keep the newest entries: a memory like that is a wider "
            "window, and what was told before it is lost. Look at the entries "
            "themselves.",
            lambda q, k, v, window: _places(k),
            "test_importance_beats_the_latest",
        ),
        Mistake(
            "the oldest are the most important",
            "You keep the oldest entries. When the room is full, nothing new "
            "gets in, however important.",
            lambda q, k, v, window: -_places(k),
            "test_importance_keeps_what_is_asked_for",
        ),
        Mistake(
            "short keys",
            "You keep the entries with the *shortest* keys. Measure which "
            "tokens have long keys in this model, and which ones are asked "
            "for.",
            lambda q, k, v, window: -k.norm(dim=-1),
            "test_importance_beats_the_latest",
        ),
        Mistake(
            "by lot",
            "Your scores have nothing to do with the entries, so that the "
            "memory holds any. Look at what keys and values of different "
            "tokens have in common.",
            _by_lot,
            "test_importance_beats_the_latest",
        ),
        Mistake(
            "attention that is still to come",
            "You add up the attention that each entry will get from *all* "
            "later queries. When it leaves the window, those haven't been "
            "read yet, and the question is one of them.",
            _later_attention,
            "test_importance_does_not_read_the_future",
        ),
        Mistake(
            "what the question asks for",
            "You score the entries by the last query of the text. That is the "
            "question itself: who knows it beforehand needs no memory.",
            _for_the_question,
            "test_importance_does_not_read_the_future",
        ),
        Mistake(
            "the mean of the whole text",
            "You compare keys with the mean of *all* keys of the text, those "
            "to come among them. A running mean, of what has come so far, is "
            "allowed.",
            _unlike_the_mean,
            "test_importance_does_not_read_the_future",
        ),
        Mistake(
            "one score for all heads",
            "You return one score for a token. Each KV head keeps entries of "
            "its own: the scores have shape (B, G, T).",
            lambda q, k, v, window: k.norm(dim=-1).sum(1),
            "test_importance_scores_every_entry",
        ),
    ],
    "design": [
        Mistake(
            "everything is kept",
            "Your design keeps the whole text in every layer. That recalls "
            "all, and costs a hundred times what is allowed.",
            _plan([Keep(256)] * 4, 4),
            "test_design_is_within_budget",
        ),
        Mistake(
            "a search that costs too much",
            "Your design keeps to the bytes, but each query attends to "
            "everything that it kept. Let it retrieve a few.",
            _plan([Keep(4, 145, None, 2)] + [Keep(2, bits=2)] * 3),
            "test_design_is_within_budget",
        ),
        Mistake(
            "the same for every layer",
            "Your design gives every layer the same room. Measure which "
            "layers look far at all, and give the others' room to those.",
            _plan([Keep(4, 22, 8, 4)] * 4),
            "test_design_recalls_most",
        ),
        Mistake(
            "the wrong layer",
            "Your design gives the room to a layer that looks no further than "
            "its next tokens. Cut one layer after the other down to a short "
            "window, and see when recall breaks.",
            _plan([NEAR, NEAR, NEAR, Keep(4, 80, 8, 4)]),
            "test_design_recalls_a_tenth",
        ),
        Mistake(
            "positions as in training",
            "Your design turns positions as in training, on texts four times "
            "as long. What lies far back is kept, but the model misreads how "
            "far. Choose a scaling.",
            _plan([Keep(4, 80, 8, 4), NEAR, NEAR, NEAR], 1, "none"),
            "test_design_recalls_nearly_all",
        ),
        Mistake(
            "no sharing",
            "Your design takes the model with as many KV heads as query "
            "heads. An entry takes four times the bytes, and the weights "
            "that make its keys and values use up the FLOPs.",
            _plan([Keep(4, 13, 8, 4)] + [Keep(3, bits=4)] * 3, 4),
            "test_design_is_within_budget",
        ),
        Mistake(
            "sixteen bits",
            "Your design keeps 16 bits of each number, and few entries. "
            "Measure what recall loses at 8 and at 4 bits.",
            _plan([Keep(4, 26, 8)] + [Keep(3)] * 3),
            "test_design_recalls_nearly_all",
        ),
        Mistake(
            "a wider window",
            "Your design spends all on the window of the layer that looks "
            "far. It remembers what was told lately. Let a memory choose "
            "instead.",
            _plan([Keep(94, bits=4), NEAR, NEAR, NEAR]),
            "test_design_recalls_half",
        ),
        Mistake(
            "no design",
            "What you return can't take the exam: that needs a `Design` of "
            "four `Keep`s, an `n_kv_heads` and a `rope` that there are, and "
            "an `importance` where a layer has a memory. The check's own "
            "words say what is missing.",
            _as_dict,
            "test_design_is_within_budget",
        ),
    ],
}
