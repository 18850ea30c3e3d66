"""Mistakes of chapter 01, *Tokens and the context window*."""

import random
from collections import Counter
from copy import deepcopy
from itertools import pairwise

from autograder.misconceptions import Mistake
from contextlab.tokens import BYTES, ID_OF_BYTE, split_words
from solutions.tokens import bpe_decode

LETTERS = "aabbc é"


def _ids(text):
    return [ID_OF_BYTE[byte] for byte in text.encode()]


def probe_bpe_train(bpe_train, seed):
    """Learn from a few words, from ties, from runs and from nothing."""
    generator = random.Random(seed)
    texts = [
        "ab",
        "ab ab b",
        "aaaaa.ab.ab.ab.",
        "zy zx yz",
        "cb ab 'ab",
        "é è",
        "xy.xy.xy.xz.az.bz.xz",
        "".join(generator.choices(LETTERS, k=40)),
        "",
    ]
    for text in texts:
        inputs = {"text": text, "n_merges": 6}
        yield inputs, lambda text=text: bpe_train(text, 6)


def probe_bpe_encode(bpe_encode, seed):
    """Cut words whose merges compete, spaces, accents and half characters."""
    a, b, c, d, space = _ids("abcd ")
    merges = [(b, c), (a, b), (257, c), (256, d), (a, space), (space, space)]
    merges += [(c, d)]
    generator = random.Random(seed)
    texts = [
        "a",
        "ab",
        "abc",
        "bcd",
        "bcab",
        "ab  bc",
        "é",
        "e\u0301",
        "\ud83d",
        "".join(generator.choices("abcd ", k=30)),
    ]
    for text in texts:
        inputs = {"text": text, "merges": list(merges)}
        yield inputs, lambda text=text: bpe_encode(text, list(merges))


def probe_bpe_decode(bpe_decode, seed):
    """Decode bytes, merges of merges, cut characters and unknown tokens."""
    a, b, c = _ids("abc")
    fox = _ids("🦊")
    merges = [(a, b), (256, c), (fox[0], fox[1])]
    lists = [
        [a],
        [a, b],
        [256],
        [257, c],
        [258, *fox[2:]],
        [*fox[:2], a],
        [300, a],
        [-1],
        random.Random(seed).choices(range(259), k=12),
    ]
    for ids in lists:
        inputs = {"ids": ids, "merges": merges}
        yield inputs, lambda ids=ids: bpe_decode(list(ids), list(merges))


def _words(message):
    return len(message["content"].split())


def probe_fit_window(fit_window, seed):
    """Fit a short conversation into wide and narrow windows."""
    generator = random.Random(seed)
    sizes = [1, 2, 1, 4, 1, *generator.choices((1, 2, 3), k=2)]
    roles = ["system", *["user", "assistant"] * 3]
    chat = [
        {"role": role, "content": " ".join(["word"] * size)}
        for role, size in zip(roles, sizes, strict=True)
    ]
    for messages, window, reserve in (
        (chat[:2], 9, 0),
        (chat[1:3], 9, 0),
        (chat[:3], 2, 0),
        (chat[:3], 3, 0),
        (chat[:5], 5, 0),
        (chat[:5], 8, 2),
        (chat[:5], 9, 2),
        (chat, sum(sizes[4:]) + 1, 0),
        (chat, sum(sizes[3:]) + 2, 1),
        (chat[:4], 4, 0),
        (chat[:1], 0, 0),
    ):
        inputs = {"messages": messages, "window": window, "reserve": reserve}
        yield (
            inputs,
            lambda m=messages, w=window, r=reserve: fit_window(
                deepcopy(m), w, r, _words
            ),
        )
    inputs = {
        "messages": chat[:3],
        "window": 6,
        "reserve": 0,
        "count": "the words times two",
    }
    yield (
        inputs,
        lambda: fit_window(
            deepcopy(chat[:3]), 6, 0, lambda message: 2 * _words(message)
        ),
    )
    given = deepcopy(chat)
    inputs = {"messages, looked at after the call": given}

    def looked_at_after():
        fit_window(given, sum(sizes[4:]) + 1, 0, _words)
        return given

    yield inputs, looked_at_after


PROBES = {
    "bpe_train": probe_bpe_train,
    "bpe_encode": probe_bpe_encode,
    "bpe_decode": probe_bpe_decode,
    "fit_window": probe_fit_window,
}


def _counted_once(text, n_merges):
    counts = Counter(
        pair for word in split_words(text) for pair in pairwise(_ids(word))
    )
    return sorted(counts, key=lambda pair: (-counts[pair], pair))[:n_merges]


def _longest_token_first(text, merges):
    spelled = list(BYTES)
    for left, right in merges:
        spelled.append(spelled[left] + spelled[right])
    number = {token: n for n, token in enumerate(spelled)}
    longest = max(map(len, spelled))
    tokens = []
    for word in split_words(text):
        rest = word.encode()
        while rest:
            size = next(n for n in range(longest, 0, -1) if rest[:n] in number)
            tokens.append(number[rest[:size]])
            rest = rest[size:]
    return tokens


def _token_by_token(ids, merges):
    return "".join(bpe_decode([token], merges) for token in ids)


def _unknown_skipped(ids, merges):
    return bpe_decode([t for t in ids if 0 <= t < 256 + len(merges)], merges)


def _parts(messages):
    n = int(bool(messages) and messages[0]["role"] == "system")
    return messages[:n], messages[n:]


def _oldest_kept(messages, window, reserve, count):
    system, others = _parts(messages)
    room = window - reserve - sum(map(count, system))
    kept = []
    for message in others:
        room -= count(message)
        if room < 0:
            break
        kept.append(message)
    if room < 0 and not kept:
        raise ValueError("the oldest message doesn't fit")
    return system + kept


def _with_gaps(messages, window, reserve, count):
    system, others = _parts(messages)
    room = window - reserve - sum(map(count, system))
    if room < 0 or (others and count(others[-1]) > room):
        raise ValueError("the newest message doesn't fit")
    kept = []
    for message in reversed(others):
        if count(message) <= room:
            room -= count(message)
            kept.insert(0, message)
    return system + kept


def _twins_kept(messages, window, reserve, count):
    system, others = _parts(messages)
    room = window - reserve - sum(map(count, system))
    if room < 0 or (others and count(others[-1]) > room):
        raise ValueError("the newest message doesn't fit")
    kept = []
    for message in reversed(others):
        room -= count(message)
        if room < 0:
            break
        kept.append(message)
    return system + [message for message in others if message in kept]


def _cut_in_the_middle(messages, window, reserve, count):
    system, others = _parts(messages)
    room = window - reserve - sum(map(count, system))
    if room < 0 or (others and count(others[-1]) > room):
        raise ValueError("the newest message doesn't fit")
    kept = []
    for message in reversed(others):
        if count(message) > room:
            words = message["content"].split()[-room:] if room else []
            if words:
                kept.insert(0, message | {"content": " ".join(words)})
            break
        room -= count(message)
        kept.insert(0, message)
    return system + kept


_BYTE_IDS = "[ID_OF_BYTE[byte] for byte in w.encode()]"
_WORD_IDS = "[ID_OF_BYTE[byte] for byte in word.encode()]"
_BEST = "min(counts, key=lambda pair: (-counts[pair], pair))"
_PAIRS = "for pair in pairwise(ids):"
_FIRST = "min(pairs, key=rank.__getitem__)"
_KNOWN = "if not 0 <= token < len(vocabulary):"
_DECODE = """b"".join(vocabulary[token] for token in ids).decode(
        "utf-8", errors="replace"
    )"""

MISTAKES = {
    "bpe_train": [
        Mistake(
            "byte values for ids",
            "Your words begin as the values of their bytes. The ids of bytes "
            "have another order, GPT-2's, where “!” is 0: look each byte up "
            "in ID_OF_BYTE.",
            {_BYTE_IDS: "list(w.encode())"},
            "test_bpe_train_by_hand",
        ),
        Mistake(
            "characters for bytes",
            "Your words begin as characters. There are 150,000 of those, and "
            "only 256 bytes: encode the word as UTF-8 first. For English "
            "text, you hardly see the difference.",
            {
                _BYTE_IDS: (
                    "[ID_OF_BYTE[ord(c)] if ord(c) < 256 else ord(c)"
                    " for c in w]"
                )
            },
            "test_bpe_train_equals_the_library",
        ),
        Mistake(
            "ties go to the pair seen first",
            "Among pairs with equal counts you take the one that stands first "
            "in the text, as max and most_common do. Then the merges depend "
            "on the order of the words; take the pair with the smaller ids.",
            {_BEST: "max(counts, key=counts.get)"},
            "test_bpe_train_breaks_ties_by_id",
        ),
        Mistake(
            "ties go to the larger ids",
            "Among pairs with equal counts you take the one with the largest "
            "ids, as max does with (count, pair). The smaller ids win: turn "
            "the sign of the count and take the minimum.",
            {_BEST: "max(counts, key=lambda pair: (counts[pair], pair))"},
            "test_bpe_train_breaks_ties_by_id",
        ),
        Mistake(
            "ties in the order of bytes",
            "Among pairs with equal counts you compare bytes, where a space "
            "comes before all letters. Compare ids: the space's is 220.",
            {
                _BEST: (
                    "min(counts, key=lambda pair: (-counts[pair], "
                    "[BYTES[i][0] if i < 256 else i for i in pair]))"
                )
            },
            "test_bpe_train_breaks_ties_by_id",
        ),
        Mistake(
            "each word counts once",
            "You count the pairs of each different word once. A word that "
            "stands in the text a hundred times counts a hundred times.",
            {"+= times[word]": "+= 1"},
            "test_bpe_train_by_hand",
        ),
        Mistake(
            "across words",
            "You merge across the borders of words. Tokens like “e t” save "
            "little and fit nowhere else: cut the text by split_words and "
            "count within the words.",
            {"split_words(text)": "[text]"},
            "test_bpe_train_stops_in_time",
        ),
        Mistake(
            "pairs two by two",
            "You cut a word into pairs two by two: first and second, third "
            "and fourth. Every token also is a neighbour of the one before.",
            {_PAIRS: "for pair in zip(ids[::2], ids[1::2]):"},
            "test_bpe_train_by_hand",
        ),
        Mistake(
            "a pair counts once a word",
            "You count a pair once a word, however often it stands there: "
            "“banana” holds (a, n) twice.",
            {_PAIRS: "for pair in set(pairwise(ids)):"},
            "test_bpe_train_by_hand",
        ),
        Mistake(
            "overlapping pairs not counted",
            "In “aaa” you count (a, a) once, as you can merge it only once. "
            "The contract counts neighbours: twice.",
            {
                _PAIRS: (
                    "last = None\n"
                    "            for pair in pairwise(ids):\n"
                    "                last = pair if pair != last else None\n"
                    "                if last is None:\n"
                    "                    continue"
                )
            },
            "test_bpe_train_by_hand",
        ),
        Mistake(
            "counted only once",
            "You count the pairs once and take the most frequent of them. "
            "Each merge changes what stands next to what: count anew after "
            "each, with the new token among the neighbours.",
            _counted_once,
            "test_bpe_train_by_hand",
        ),
        Mistake(
            "never merged",
            "You find the best pair but don't write the new token into the "
            "words, so that the same pair wins again and again.",
            {"words[word] = replace_pair(ids, best, new_id)": "pass"},
            "test_bpe_train_by_hand",
        ),
        Mistake(
            "new ids from 0",
            "Your new tokens get the ids 0, 1, 2, which are bytes already. "
            "The first free id is 256.",
            {"range(256, 256 + n_merges)": "range(n_merges)"},
            "test_bpe_train_by_hand",
        ),
        Mistake(
            "stops at pairs that stand there once",
            "You stop when no pair stands in the text twice. The contract "
            "goes on until no neighbours are left.",
            {"if not counts:": "if not counts or max(counts.values()) < 2:"},
            "test_bpe_train_stops_in_time",
        ),
        Mistake(
            "an error when nothing is left",
            "When every word has become a single token there is no pair to "
            "choose from. Return the merges that there are.",
            {"if not counts:": "if False:"},
            "test_bpe_train_stops_in_time",
        ),
        Mistake(
            "returns a dict",
            "You return a dict of pairs and ids. Return the list of the "
            "pairs: a pair's place in it says its id.",
            {
                "return merges": (
                    "return {p: 256 + n for n, p in enumerate(merges)}"
                )
            },
            "test_bpe_train_by_hand",
        ),
    ],
    "bpe_encode": [
        Mistake(
            "byte values for ids",
            "Your words begin as the values of their bytes. The ids of bytes "
            "have another order, GPT-2's: look each byte up in ID_OF_BYTE.",
            {_WORD_IDS: "list(word.encode())"},
            "test_bpe_encode_by_hand",
        ),
        Mistake(
            "the longest token first",
            "You look for the longest token that the rest of the word begins "
            "with. BPE replays the merges in the order in which they were "
            "learned, and that gives other tokens: with bc learned before "
            "ab, “abc” is a, bc.",
            _longest_token_first,
            "test_bpe_encode_replays_the_order",
        ),
        Mistake(
            "the leftmost pair first",
            "You merge the leftmost pair that was ever merged. Of all pairs "
            "in the word, the one that was learned first has to go first.",
            {_FIRST: "pairs[0]"},
            "test_bpe_encode_replays_the_order",
        ),
        Mistake(
            "the last learned first",
            "You merge the pair that was learned last. The one that was "
            "learned first, which has the smallest id, has to go first.",
            {_FIRST: "max(pairs, key=rank.__getitem__)"},
            "test_bpe_encode_replays_the_order",
        ),
        Mistake(
            "a single merge",
            "You merge one pair of each word and stop. The new token may be "
            "half of another pair: go on until no pair is left.",
            {
                "while pairs := [pair for pair in pairwise(ids) if pair in "
                "rank]:": (
                    "if pairs := [pair for pair in pairwise(ids) if pair in "
                    "rank]:"
                )
            },
            "test_bpe_encode_by_hand",
        ),
        Mistake(
            "merges on bytes alone",
            "You merge pairs of bytes, but not what was merged before: there "
            "is no token of three bytes in your answer.",
            {
                "if pair in rank]:": "if pair in rank and max(pair) < 256]:",
            },
            "test_bpe_encode_by_hand",
        ),
        Mistake(
            "across words",
            "You merge across the borders of words. The training never did: "
            "cut the text by split_words first.",
            {"split_words(text)": "[text]"},
            "test_bpe_encode_replays_the_order",
        ),
        Mistake(
            "spaces lost",
            "You cut the text by str.split, which throws the spaces away. A "
            "word takes its space along: use split_words.",
            {"split_words(text)": "text.split()"},
            "test_bpe_encode_by_hand",
        ),
        Mistake(
            "new ids from 0",
            "Your merged tokens have the ids 0, 1, 2, which are bytes. Pair "
            "number n is token 256 + n.",
            {"256 + rank[first]": "rank[first]"},
            "test_bpe_encode_by_hand",
        ),
        Mistake(
            "unmerged bytes dropped",
            "You leave out the bytes that no merge has taken up. They are "
            "tokens, too: that is why any text can be written.",
            {
                "tokens += known[word]": (
                    "tokens += [t for t in known[word] if t > 255]"
                )
            },
            "test_bpe_encode_by_hand",
        ),
        Mistake(
            "a list for each word",
            "You return a list of lists, one for each word. A model reads one "
            "list of tokens.",
            {"tokens += known[word]": "tokens.append(known[word])"},
            "test_bpe_encode_by_hand",
        ),
        Mistake(
            "Latin-1",
            "You encode in Latin-1, which has one byte for é and none for an "
            "emoji. Use UTF-8.",
            {_WORD_IDS: _WORD_IDS.replace("()", "('latin-1', 'replace')")},
            "test_bpe_encode_by_hand",
        ),
        Mistake(
            "accents normalised",
            "You write é as one character where the text has an e and an "
            "accent. They look alike, but the text doesn't come back as it "
            "was: leave it as it is.",
            {
                "split_words(text)": (
                    "split_words("
                    "__import__('unicodedata').normalize('NFC', text))"
                )
            },
            "test_bpe_encode_equals_the_library",
        ),
        Mistake(
            "half a surrogate becomes “?”",
            "You encode with errors='replace', so that what can't be encoded "
            "becomes a question mark without a word. Let the error be seen.",
            {_WORD_IDS: _WORD_IDS.replace("()", "(errors='replace')")},
            "test_bpe_encode_takes_any_text",
        ),
        Mistake(
            "half a surrogate slips through",
            "You encode with errors='surrogatepass'. That makes bytes that "
            "are no UTF-8, and the text doesn't come back. Raise an error.",
            {_WORD_IDS: _WORD_IDS.replace("()", "(errors='surrogatepass')")},
            "test_bpe_encode_takes_any_text",
        ),
    ],
    "bpe_decode": [
        Mistake(
            "token by token",
            "You decode each token by itself. A character may be spread over "
            "several tokens, none of which is UTF-8 alone: join all bytes "
            "first, then decode.",
            _token_by_token,
            "test_bpe_decode_gives_back_the_text",
        ),
        Mistake(
            "ids for byte values",
            "You take the ids of bytes for their values. The bytes have "
            "GPT-2's order: BYTES[id] is the byte.",
            {"list(BYTES)": "[bytes([n]) for n in range(256)]"},
            "test_bpe_decode_by_hand",
        ),
        Mistake(
            "an error for a cut character",
            "Your answer raises a UnicodeDecodeError where a character was "
            "cut. A model may stop anywhere: decode with errors='replace'.",
            {'errors="replace"': 'errors="strict"'},
            "test_bpe_decode_of_broken_tokens",
        ),
        Mistake(
            "a cut character vanishes",
            "You drop the bytes of a character that was cut. Nobody sees then "
            "that something is missing: decode with errors='replace', which "
            "writes “�”.",
            {'errors="replace"': 'errors="ignore"'},
            "test_bpe_decode_of_broken_tokens",
        ),
        Mistake(
            "Latin-1",
            "You read each byte as a character of its own, Latin-1. The bytes "
            "are UTF-8, where é has two of them.",
            {'"utf-8", errors="replace"': '"latin-1"'},
            "test_bpe_decode_gives_back_the_text",
        ),
        Mistake(
            "pairs turned round",
            "You write the right half of a merged pair before its left half.",
            {
                "vocabulary[left] + vocabulary[right]": (
                    "vocabulary[right] + vocabulary[left]"
                )
            },
            "test_bpe_decode_by_hand",
        ),
        Mistake(
            "spaces between tokens",
            "You put spaces between the tokens. A token brings its own space "
            "along: join them with nothing in between.",
            {'b"".join': 'b" ".join'},
            "test_bpe_decode_by_hand",
        ),
        Mistake(
            "negative ids",
            "Your answer takes the id −1 for the last token, as Python's "
            "lists do. There is no such token: raise a ValueError.",
            {_KNOWN: "if token >= len(vocabulary):"},
            "test_bpe_decode_of_broken_tokens",
        ),
        Mistake(
            "unknown tokens are an IndexError",
            "An id beyond the vocabulary ends in Python's IndexError, and −1 "
            "in the last token. Look first, and raise a ValueError.",
            {_KNOWN: "if False:"},
            "test_bpe_decode_of_broken_tokens",
        ),
        Mistake(
            "unknown tokens skipped",
            "You skip ids that are no tokens. Whoever made them has the wrong "
            "merges and needs to know: raise a ValueError.",
            _unknown_skipped,
            "test_bpe_decode_of_broken_tokens",
        ),
        Mistake(
            "returns bytes",
            "You return bytes. Decode them: the answer is a text.",
            {_DECODE: 'b"".join(vocabulary[token] for token in ids)'},
            "test_bpe_decode_by_hand",
        ),
    ],
    "fit_window": [
        Mistake(
            "the oldest kept",
            "You keep the oldest messages and drop the newest, as a text that "
            "is cut at its end. The newest message is the question that the "
            "model has to answer: begin there.",
            _oldest_kept,
            "test_fit_window_keeps_the_newest",
        ),
        Mistake(
            "the system message falls out",
            "Your system message falls out when the conversation gets long, "
            "as if it were the oldest of the others. It is always kept.",
            {
                'int(bool(messages) and messages[0]["role"] == "system")': "0",
            },
            "test_fit_window_keeps_the_newest",
        ),
        Mistake(
            "the system message dropped",
            "You leave the system message out of what you return. It is kept "
            "first of all.",
            {"return system + others[first:]": "return others[first:]"},
            "test_fit_window_keeps_the_newest",
        ),
        Mistake(
            "the system message twice",
            "Your system message is also one of the others, so that it may "
            "be kept twice.",
            {"messages[n_system:]": "messages[:]"},
            "test_fit_window_keeps_the_newest",
        ),
        Mistake(
            "the system message for free",
            "You don't count the tokens of the system message. The model "
            "reads it like all the others.",
            {" - sum(count(message) for message in system)": ""},
            "test_fit_window_keeps_the_newest",
        ),
        Mistake(
            "no room for the answer",
            "You fill the whole window with the conversation. The answer has "
            "to fit into it, too: take `reserve` away first.",
            {"room = window - reserve -": "room = window -"},
            "test_fit_window_keeps_the_reserve",
        ),
        Mistake(
            "the reserve added",
            "You add the reserve to the window. It is a part of the window "
            "that is kept free: take it away.",
            {"room = window - reserve -": "room = window + reserve -"},
            "test_fit_window_keeps_the_reserve",
        ),
        Mistake(
            "a full window refused",
            "A message that fills the window to the last token fits. You want "
            "at least one token to be left over.",
            {"if room < 0:": "if room <= 0:"},
            "test_fit_window_keeps_the_newest",
        ),
        Mistake(
            "one message too many",
            "You keep the message at which the room runs out: what you return "
            "is longer than the window. Leave it out, too.",
            {"            break": "            first -= 1\n            break"},
            "test_fit_window_keeps_the_newest",
        ),
        Mistake(
            "a gap",
            "You skip a message that is too long and go on with older ones "
            "that are shorter. The model then reads a conversation with a "
            "hole in it: stop at the first message that doesn't fit.",
            _with_gaps,
            "test_fit_window_leaves_no_gap",
        ),
        Mistake(
            "twins",
            "You choose messages by what they say: an old “ok” is kept "
            "because a new “ok” is. Messages may be equal: count where the "
            "kept ones begin, and cut the list there.",
            _twins_kept,
            "test_fit_window_leaves_no_gap",
        ),
        Mistake(
            "cut in the middle",
            "You cut the message that doesn't fit and keep its end. Half a "
            "sentence may say the opposite of the whole: leave it out.",
            _cut_in_the_middle,
            "test_fit_window_leaves_no_gap",
        ),
        Mistake(
            "the newest first",
            "You return the messages as you found them, the newest first. A "
            "model reads them in the order in which they were said.",
            {
                "return system + others[first:]": (
                    "return system + others[first:][::-1]"
                )
            },
            "test_fit_window_keeps_the_newest",
        ),
        Mistake(
            "characters counted",
            "You measure messages by their characters. A window is counted in "
            "tokens: call count.",
            {
                "sum(count(message) for message in system)": (
                    'sum(len(message["content"]) for message in system)'
                ),
                "room -= count(message)": 'room -= len(message["content"])',
            },
            "test_fit_window_keeps_the_newest",
        ),
        Mistake(
            "count ignored",
            "You count the words of a message yourself. How many tokens a "
            "message has, `count` says: call it.",
            {
                "sum(count(message) for message in system)": (
                    'sum(len(m["content"].split()) for m in system)'
                ),
                "room -= count(message)": (
                    'room -= len(message["content"].split())'
                ),
            },
            "test_fit_window_keeps_the_newest",
        ),
        Mistake(
            "an overfull window",
            "Where the newest message doesn't fit, you return it all the "
            "same, and the window overflows. Raise a ValueError, so that the "
            "caller can shorten the message.",
            {
                "raise ValueError(\"the newest message doesn't fit the "
                'window")': "return system + others[-1:]"
            },
            "test_fit_window_without_room",
        ),
        Mistake(
            "nothing to answer",
            "Where the newest message doesn't fit, you return the system "
            "message alone, and the model answers nobody. Raise a "
            "ValueError, so that the caller can shorten the message.",
            {"if room < 0 and first == len(others):": "if False:"},
            "test_fit_window_without_room",
        ),
        Mistake(
            "changes its input",
            "You remove messages from the list that you were given. It is the "
            "record of the conversation, which the caller still needs: make "
            "a new list.",
            {
                "return system + others[first:]": (
                    "messages[:] = system + others[first:]\n"
                    "    return messages"
                )
            },
            "test_fit_window_keeps_the_newest",
        ),
        Mistake(
            "returns texts",
            "You return the texts of the messages. Return the messages "
            "themselves: who said something matters.",
            {
                "return system + others[first:]": (
                    "return [m['content'] for m in system + others[first:]]"
                )
            },
            "test_fit_window_keeps_the_newest",
        ),
    ],
}
