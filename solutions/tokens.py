"""Reference answers for chapter 01, *Tokens and the context window*."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

from contextlab.tokens import BYTES, ID_OF_BYTE, split_words


def replace_pair(
    ids: list[int], pair: tuple[int, int], new_id: int
) -> list[int]:
    """Write one token for each occurrence of a pair, from left to right."""
    merged, place = [], 0
    while place < len(ids):
        if tuple(ids[place : place + 2]) == pair:
            merged.append(new_id)
            place += 2
        else:
            merged.append(ids[place])
            place += 1
    return merged


def bpe_train(text: str, n_merges: int) -> list[tuple[int, int]]:
    """Learn which pairs of neighbours to merge, the most frequent first.

    Each word of the text (``split_words``) begins as its UTF-8 bytes, each
    byte under its id (``ID_OF_BYTE``). One step counts all pairs of
    neighbours within the words, takes the pair with the highest count and
    writes a new token for it everywhere. The new tokens have the ids 256,
    257, and so on.

    A word that stands in the text a hundred times counts a hundred times.
    Every pair of neighbours counts: "aaa" holds (a, a) twice. Among equal
    counts the pair with the smaller first id wins, then the one with the
    smaller second id.

    Args:
        text: what to learn from.
        n_merges: how many pairs to merge.

    Returns:
        The pairs of ids in the order of their merges: the first one is token
        256. Where no neighbours are left to merge, there are fewer.

    Source: Sennrich et al. 2016, algorithm 1; Radford et al. 2019, section
    2.2 (on bytes).
    """
    ### BEGIN SOLUTION
    times = Counter(split_words(text))
    words = {w: [ID_OF_BYTE[byte] for byte in w.encode()] for w in times}
    merges = []
    for new_id in range(256, 256 + n_merges):
        counts = Counter()
        for word, ids in words.items():
            for pair in pairwise(ids):
                counts[pair] += times[word]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        for word, ids in words.items():
            words[word] = replace_pair(ids, best, new_id)
    return merges
    ### END SOLUTION


def bpe_encode(text: str, merges: list[tuple[int, int]]) -> list[int]:
    r"""Cut a text into tokens, by the merges that were learned.

    Each word of the text (``split_words``) begins as the ids of its UTF-8
    bytes. As long as it holds a pair of neighbours that was ever merged, the
    pair that was learned first is merged, wherever it stands in the word,
    from left to right.

    Any text will do, also one with bytes that the training never saw. A word
    of a million letters has to end within seconds, too.

    Args:
        text: what to cut.
        merges: what ``bpe_train`` returned; pair number n is token 256 + n.

    Returns:
        The ids of the tokens.

    Raises:
        ValueError: if the text holds half a surrogate pair, such as
            "\ud83d": that is no character, and UTF-8 has no bytes for it.
            Python's ``encode`` raises a UnicodeEncodeError, which is one.

    Source: Sennrich et al. 2016, section 3.2.
    """
    ### BEGIN SOLUTION
    rank = {pair: number for number, pair in enumerate(merges)}
    known: dict[str, list[int]] = {}
    tokens = []
    for word in split_words(text):
        if word not in known:
            ids = [ID_OF_BYTE[byte] for byte in word.encode()]
            while pairs := [pair for pair in pairwise(ids) if pair in rank]:
                first = min(pairs, key=rank.__getitem__)
                ids = replace_pair(ids, first, 256 + rank[first])
            known[word] = ids
        tokens += known[word]
    return tokens
    ### END SOLUTION


def bpe_decode(ids: list[int], merges: list[tuple[int, int]]) -> str:
    """Turn tokens back into text.

    A token is a string of bytes, and may begin or end within a character.
    Only all bytes together are read as UTF-8; what still is none, because
    the tokens were cut off, becomes "�" (U+FFFD).

    Args:
        ids: tokens.
        merges: what ``bpe_train`` returned; pair number n is token 256 + n.

    Returns:
        The text.

    Raises:
        ValueError: if there is no token of that id.
    """
    ### BEGIN SOLUTION
    vocabulary = list(BYTES)
    for left, right in merges:
        vocabulary.append(vocabulary[left] + vocabulary[right])
    for token in ids:
        if not 0 <= token < len(vocabulary):
            raise ValueError(f"there is no token {token}")
    return b"".join(vocabulary[token] for token in ids).decode(
        "utf-8", errors="replace"
    )
    ### END SOLUTION


def fit_window(
    messages: list[dict[str, str]],
    window: int,
    reserve: int,
    count: Callable[[dict[str, str]], int],
) -> list[dict[str, str]]:
    """Choose what a model gets to read of a conversation.

    The model's window holds what it reads and what it answers. Kept are the
    system message and, of all others, as many of the newest as fit. Messages
    are kept whole, in their order and without a gap: where one doesn't fit,
    it and all that is older is left out. What fits to the last token, fits.

    Args:
        messages: the conversation, the oldest message first; each has a
            "role" and a "content". If the first one's role is "system", it is
            the system message; there is no other.
        window: the number of tokens that the model can hold.
        reserve: how many of them are kept free for the answer.
        count: returns the number of tokens of a message.

    Returns:
        The messages that are kept. ``messages`` itself is left as it is.

    Raises:
        ValueError: if the system message and the newest message don't fit: a
            model can't answer what it doesn't see.
    """
    ### BEGIN SOLUTION
    n_system = int(bool(messages) and messages[0]["role"] == "system")
    system, others = messages[:n_system], messages[n_system:]
    room = window - reserve - sum(count(message) for message in system)
    first = len(others)
    for message in reversed(others):
        room -= count(message)
        if room < 0:
            break
        first -= 1
    if room < 0 and first == len(others):
        raise ValueError("the newest message doesn't fit the window")
    return system + others[first:]
    ### END SOLUTION
