"""Checks of chapter 01; a student does not see the hidden lines."""

import random
from copy import deepcopy
from pydoc_data.topics import topics

from contextlab.checks import assert_same, describe_type
from contextlab.tokens import ID_OF_BYTE, merges_of, train_library
from solutions.tokens import bpe_decode, bpe_encode, bpe_train, fit_window

# What tokenizers trip over: no letter, two accents, nothing that prints.
HOSTILE = {
    "emoji": "👩🏽‍🚀 and 🏳️‍🌈!",
    "combining marks": "e\u0301e\u0301, Z\u0351\u0336\u0310, \u0301 alone",
    "a NUL": "a\x00b\x00\x00 c",
    "other scripts": "Größe, naïve, 文脈の窓, контекст, ٣٤, x²½Ⅷ",
    "spaces": "  two\n\n\tlines \r\n  and\u00a0more\u3000 ",
    "control signs": "\x1b[31m\x7f\x85\u200b\ufeff\U0010fffe",
    "apostrophes": "it's I'll 'sound' o'clock ''s",
}


def ids_of(text: str) -> list[int]:
    """Return the ids of a text's bytes."""
    return [ID_OF_BYTE[byte] for byte in text.encode()]


def raises_value_error(function, *args) -> bool:
    """Say whether a call ends in a ValueError."""
    try:
        function(*args)
    except ValueError:
        return True
    return False


def test_bpe_train_by_hand():
    """The most frequent pair is merged first, and goes on as one token."""
    o, n, space = ids_of("on ")
    merges = bpe_train("on on only", 2)
    # (o, n) stands there 3 times; then (space, on) twice.
    expected = [(o, n), (space, 256)]
    assert_same(merges, expected, 'bpe_train("on on only", 2)')
    ### BEGIN HIDDEN TESTS
    # A word counts as often as it stands there, not once.
    x, y, z = ids_of("xyz")
    merges = bpe_train("xy.xy.xy.xz.az.bz.xz", 1)
    assert_same(merges, [(x, y)], 'bpe_train("xy.xy.xy.xz.az.bz.xz", 1)')
    # (a, a) stands 4 times in "aaaaa", but only two of them can be merged.
    (a,) = ids_of("a")
    merges = bpe_train("aaaaa.ab.ab.ab.", 2)
    expected = merges_of(train_library("aaaaa.ab.ab.ab.", 2))
    assert expected[0] == (a, a)
    assert_same(merges, expected, 'bpe_train("aaaaa.ab.ab.ab.", 2)')
    merges = bpe_train("zzz", 5)
    assert_same(merges, [(z, z), (256, z)], 'bpe_train("zzz", 5)')
    ### END HIDDEN TESTS


def test_bpe_train_breaks_ties_by_id():
    """Among equal counts the pair with the smaller ids is merged."""
    t, h, e, space = ids_of("the ")
    expected = [(h, e), (t, 256), (space, 257)]  # 3 times, 3 times, twice
    merges = bpe_train("the then there", 3)
    assert_same(merges, expected, 'bpe_train("the then there", 3)')
    ### BEGIN HIDDEN TESTS
    for text in ("cb ca", "zy zx yz", " ab", "ab 'ab", "é è ê", "ba ab bb aa"):
        expected = merges_of(train_library(text, 4))
        assert_same(bpe_train(text, 4), expected, f"bpe_train({text!r}, 4)")
    ### END HIDDEN TESTS


def test_bpe_train_equals_the_library():
    """On real text, the merges are those of the tokenizers library."""
    text = topics["execmodel"][:6000]
    expected = merges_of(train_library(text, 100))
    merges = bpe_train(text, 100)
    assert_same(merges, expected, "the list of 100 merges")
    ### BEGIN HIDDEN TESTS
    generator = random.Random(1)
    for name, text in HOSTILE.items():
        expected = merges_of(train_library(text, 30))
        merges = bpe_train(text, 30)
        assert_same(merges, expected, f"the list of merges of {name}")
    for _ in range(20):
        text = "".join(generator.choices("aab c", k=50))
        expected = merges_of(train_library(text, 12))
        merges = bpe_train(text, 12)
        assert_same(merges, expected, f"bpe_train({text!r}, 12)")
    ### END HIDDEN TESTS


def test_bpe_train_stops_in_time():
    """Words are not merged with each other, and a single token is the end."""
    a, b, space = ids_of("ab ")
    assert_same(bpe_train("ab", 9), [(a, b)], 'bpe_train("ab", 9)')
    assert_same(bpe_train("a b", 9), [(space, b)], 'bpe_train("a b", 9)')
    assert_same(bpe_train("", 9), [], 'bpe_train("", 9)')
    ### BEGIN HIDDEN TESTS
    assert_same(bpe_train("a a", 0), [], 'bpe_train("a a", 0)')
    assert_same(bpe_train("a1a1.a", 9), [], 'bpe_train("a1a1.a", 9)')
    ### END HIDDEN TESTS


def test_bpe_encode_by_hand():
    """Merges are made on top of merges, and unknown bytes stay bytes."""
    t, h, e, space = ids_of("the ")
    merges = [(h, e), (t, 256), (space, 257)]
    tokens = bpe_encode("the other", list(merges))
    expected = [257, *ids_of(" o"), 257, *ids_of("r")]
    assert_same(tokens, expected, 'bpe_encode("the other", merges)')
    tokens = bpe_encode("ha the é", list(merges))
    expected = [*ids_of("ha"), 258, *ids_of(" é")]
    assert_same(tokens, expected, 'bpe_encode("ha the é", merges)')
    ### BEGIN HIDDEN TESTS
    assert_same(bpe_encode("", merges), [], 'bpe_encode("", merges)')
    text = "The the\n"
    tokens = bpe_encode(text, [])
    assert_same(tokens, ids_of(text), f"bpe_encode({text!r}, [])")
    kept = list(merges)
    bpe_encode("the", kept)
    assert_same(kept, merges, "merges, which must not change,")
    ### END HIDDEN TESTS


def test_bpe_encode_replays_the_order():
    """The pair that was learned first wins, not the longest token."""
    a, b, c = ids_of("abc")
    merges = [(b, c), (a, b)]  # the tokens bc, ab
    tokens = bpe_encode("abcab", list(merges))
    expected = [a, 256, 257]
    assert_same(tokens, expected, 'bpe_encode("abcab", merges)')
    ### BEGIN HIDDEN TESTS
    tokens = bpe_encode("aaaaa", [(a, a)])
    assert_same(tokens, [256, 256, a], 'bpe_encode("aaaaa", merges)')
    merges = [(a, b), (b, c), (256, c), (a, 257)]  # ab, bc, abc, abc again
    tokens = bpe_encode("abcbcab", list(merges))
    assert_same(tokens, [258, 257, 256], 'bpe_encode("abcbcab", merges)')
    merges = [(c, a), (a, b), (257, c), (258, 258)]  # ca, ab, abc, abcabc
    tokens = bpe_encode("abcabc", list(merges))
    assert_same(tokens, [257, 256, b, c], 'bpe_encode("abcabc", merges)')
    (space,) = ids_of(" ")
    merges = [(a, space), (space, space), (space, b)]
    tokens = bpe_encode("a   b", list(merges))  # words: "a", "  ", " b"
    assert_same(tokens, [a, 257, 258], 'bpe_encode("a   b", merges)')
    ### END HIDDEN TESTS


def test_bpe_encode_equals_the_library():
    """On text that wasn't trained on, the tokens are the library's."""
    library = train_library(topics["execmodel"], 200)
    merges = merges_of(library)
    text = topics["debugger"][:4000]
    expected = library.encode(text).ids
    assert_same(bpe_encode(text, merges), expected, "the list of tokens")
    ### BEGIN HIDDEN TESTS
    hostile = "".join(HOSTILE.values())
    library = train_library(topics["strings"][:3000] + 3 * hostile, 400)
    merges = merges_of(library)
    for name, text in [*HOSTILE.items(), ("code", topics["compound"][:3000])]:
        expected = library.encode(text).ids
        tokens = bpe_encode(text, merges)
        assert_same(tokens, expected, f"the list of tokens of {name}")
    ### END HIDDEN TESTS


def test_bpe_encode_takes_any_text():
    """A million letters end in time; half a surrogate pair is an error."""
    (a,) = ids_of("a")
    # Each token is twice as long as the last one: the tenth is 1,024 letters.
    merges = [(a, a), *((255 + n, 255 + n) for n in range(1, 10))]
    expected = [265] * 976 + [264, 261]  # 976 · 1,024 + 512 + 64
    tokens = bpe_encode("a" * 1_000_000, list(merges))
    assert_same(tokens, expected, "the list of tokens of a million letters")
    assert raises_value_error(bpe_encode, "half \ud83d", list(merges)), (
        'bpe_encode("half \\ud83d", merges) should raise a ValueError: half '
        "a surrogate pair is no character and has no bytes."
    )
    ### BEGIN HIDDEN TESTS
    for text in ("\udc69", "a\udfffa", "\ud83d \ude00"):
        assert raises_value_error(bpe_encode, text, list(merges)), (
            f"bpe_encode({text!a}, merges) should raise a ValueError."
        )
    for name, text in HOSTILE.items():
        tokens = bpe_encode(text, list(merges))
        what = f"the list of tokens of {name}, without a merge for it,"
        assert_same(tokens, ids_of(text), what)
    ### END HIDDEN TESTS


def assert_text(got: object, expected: str, what: str) -> None:
    """Assert that a text is what it should be."""
    assert isinstance(got, str), (
        f"{what} should be a text, but is {describe_type(got)}."
    )
    assert str.__str__(got) == expected, (
        f"{what} should be {expected!r:.60}, but is {got!r:.60}."
    )


def test_bpe_decode_by_hand():
    """Merged tokens become the bytes that they were merged from."""
    t, h, e, space = ids_of("the ")
    merges = [(h, e), (t, 256), (space, 257)]
    text = bpe_decode([257, space, *ids_of("o"), 257, 258], list(merges))
    assert_text(text, "the othe the", "the decoded text")
    ### BEGIN HIDDEN TESTS
    assert_text(bpe_decode([], merges), "", "bpe_decode([], merges)")
    for text in ("ab\n", "  ", "\x00\x7f"):
        got = bpe_decode(ids_of(text), [])
        assert_text(got, text, f"the text of {ids_of(text)}, with no merges,")
    given, kept = [257, 258], list(merges)
    bpe_decode(given, kept)
    assert_same(given, [257, 258], "ids, which must not change,")
    assert_same(kept, merges, "merges, which must not change,")
    ### END HIDDEN TESTS


def test_bpe_decode_gives_back_the_text():
    """What was cut into tokens comes back, a character of many bytes too."""
    library = train_library(topics["execmodel"], 60)
    merges = merges_of(library)
    for text in (topics["debugger"][:2000], "文脈, café, 🦊"):
        got = bpe_decode(library.encode(text).ids, list(merges))
        assert_text(got, text, "the decoded text")
    ### BEGIN HIDDEN TESTS
    for text in [*HOSTILE.values(), "a" * 100_000]:
        got = bpe_decode(library.encode(text).ids, list(merges))
        assert_text(got, text, "the decoded text")
    for text in ("\ufeffa", "\ufeff\ufeff"):
        got = bpe_decode(ids_of(text), [])
        what = "the decoded text, which begins with U+FEFF,"
        assert_text(got, text, what)
    library = train_library("".join(HOSTILE.values()), 300)
    merges = merges_of(library)
    for name, text in HOSTILE.items():
        got = bpe_decode(library.encode(text).ids, list(merges))
        assert_text(got, text, f"the decoded text of {name}")
    ### END HIDDEN TESTS


def test_bpe_decode_of_broken_tokens():
    """A character that was cut becomes "�"; an unknown token is an error."""
    fox = ids_of("🦊")  # four bytes
    got = bpe_decode([*fox[:3], *ids_of("!")], [])
    assert_text(got, "�!", "a fox without its last byte")
    assert raises_value_error(bpe_decode, [256], []), (
        "bpe_decode([256], []) should raise a ValueError: without merges, "
        "the ids end at 255."
    )
    ### BEGIN HIDDEN TESTS
    a, b = ids_of("ab")
    for ids in ([257], [-1], [a, 10**9], [-257]):
        assert raises_value_error(bpe_decode, ids, [(a, b)]), (
            f"bpe_decode({ids}, merges) should raise a ValueError: with one "
            "merge, the ids go from 0 to 256."
        )
    library = train_library("🦊", 0)
    generator = random.Random(2)
    for _ in range(20):
        ids = generator.choices(range(256), k=8)
        expected = bytes([ID_OF_BYTE.index(i) for i in ids])
        expected = expected.decode("utf-8", "replace")
        assert library.decode(ids) == expected
        got = bpe_decode(ids, [])
        assert_text(got, expected, f"bpe_decode({ids}, [])")
    ### END HIDDEN TESTS


def messages_of(*contents: str) -> list[dict[str, str]]:
    """Make a conversation; the first message is the system's."""
    roles = ["system", *["user", "assistant"] * len(contents)]
    return [
        {"role": role, "content": content}
        for role, content in zip(roles, contents, strict=False)
    ]


def count_words(message: dict[str, str]) -> int:
    """Return the tokens of a message: here, each word is one."""
    return len(message["content"].split())


TALK = ("be kind", "my name is Ada", "hello Ada", "how are you", "fine", "ok?")


def test_fit_window_keeps_the_newest():
    """What is left out is the oldest, but for the system message."""
    chat = messages_of(*TALK)  # of 2, 4, 2, 3, 1 and 1 tokens
    expected = deepcopy([chat[0], *chat[3:]])
    kept = fit_window(deepcopy(chat), 8, 0, count_words)
    assert_same(kept, expected, "the list of what fits 8 tokens")
    expected = deepcopy(chat)
    kept = fit_window(deepcopy(chat), 100, 0, count_words)
    assert_same(kept, expected, "the list of what fits 100 tokens")
    ### BEGIN HIDDEN TESTS
    without = deepcopy(chat[1:])
    kept = fit_window(deepcopy(without), 5, 0, count_words)
    assert_same(kept, without[2:], "what is kept without a system message")
    given = deepcopy(chat)
    for window in (6, 100):
        fit_window(given, window, 0, count_words)
        assert_same(given, chat, "messages, which must not change,")
    kept = fit_window(deepcopy(chat[:1]), 5, 0, count_words)
    assert_same(kept, chat[:1], "what is kept of a system message alone")
    assert_same(fit_window([], 5, 0, count_words), [], "what is kept of []")
    sizes = dict(zip(TALK, (1, 1, 1, 9, 1, 1), strict=True))
    kept = fit_window(chat, 8, 0, lambda message: sizes[message["content"]])
    assert_same(
        kept,
        [chat[0], *chat[4:]],
        "what is kept of 8 tokens, where count says 9 for three words,",
    )
    ### END HIDDEN TESTS


def test_fit_window_keeps_the_reserve():
    """What is read and what is answered fit together, to the last token."""
    chat = messages_of(*TALK)
    expected = deepcopy([chat[0], *chat[4:]])
    kept = fit_window(deepcopy(chat), 9, 3, count_words)
    assert_same(kept, expected, "the list of what fits 9 tokens less 3")
    ### BEGIN HIDDEN TESTS
    sizes = [count_words(message) for message in chat]
    for reserve in (0, 2, 5):
        for window in range(3 + reserve, 16 + reserve):
            n = max(
                n for n in range(6) if 2 + sum(sizes[6 - n :]) + reserve
                <= window
            )  # fmt: skip
            kept = fit_window(deepcopy(chat), window, reserve, count_words)
            what = f"the list of what fits {window} tokens less {reserve}"
            assert_same(kept, deepcopy([chat[0], *chat[6 - n :]]), what)
    ### END HIDDEN TESTS


def test_fit_window_leaves_no_gap():
    """A message is kept whole or not at all, and so is what is older."""
    long = "a very long story of eight words altogether"
    chat = messages_of("be kind", "hello", long, "thanks", "bye")
    expected = deepcopy([chat[0], *chat[3:]])
    kept = fit_window(deepcopy(chat), 9, 0, count_words)
    assert_same(kept, expected, "the list of what fits 9 tokens")
    ### BEGIN HIDDEN TESTS
    generator = random.Random(3)
    for _ in range(30):
        sizes = generator.choices((1, 2, 3, 9), k=7)
        chat = messages_of(*("word " * size for size in sizes))
        budget = generator.randint(sizes[0] + sizes[-1], sum(sizes))
        costs = [sizes[0] + sum(sizes[n:]) for n in range(1, 7)]
        first = 1 + next(n for n in range(6) if costs[n] <= budget)
        expected = deepcopy([chat[0], *chat[first:]])
        kept = fit_window(deepcopy(chat), budget + 4, 4, count_words)
        assert_same(kept, expected, f"what is kept of messages of {sizes}")
    ### END HIDDEN TESTS


def test_fit_window_without_room():
    """Without room for the newest message there is nothing to answer."""
    chat = messages_of("be kind", "hello", "what is a context window")
    for window, reserve in ((6, 0), (9, 3)):
        call = (deepcopy(chat), window, reserve, count_words)
        assert raises_value_error(fit_window, *call), (
            f"A window of {window} tokens, {reserve} of them reserved, has "
            "no room for a system message of 2 and a newest message of 5: "
            "that should be a ValueError."
        )
    ### BEGIN HIDDEN TESTS
    expected = deepcopy([chat[0], chat[2]])
    kept = fit_window(deepcopy(chat), 7, 0, count_words)
    assert_same(kept, expected, "the list of what fits 7 tokens")
    for few in (chat[:1], chat[2:]):
        assert raises_value_error(
            fit_window, deepcopy(few), 1, 0, count_words
        ), "A message that is longer than the window is a ValueError."
    ### END HIDDEN TESTS
