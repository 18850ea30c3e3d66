"""Right answers of chapter 01 that go another way than the reference."""

import heapq
from codecs import getincrementaldecoder
from collections import Counter, defaultdict, deque
from itertools import chain, pairwise

from contextlab.tokens import BYTES, ID_OF_BYTE, split_words


def train_on_every_word(text, n_merges):
    """Keep the whole text as one list of words, and sort all pairs."""
    words = [[ID_OF_BYTE[b] for b in w.encode()] for w in split_words(text)]
    merges = []
    while len(merges) < n_merges:
        counts = Counter(chain.from_iterable(pairwise(w) for w in words))
        if not counts:
            break
        pair, _ = sorted(counts.items(), key=lambda pc: (-pc[1], pc[0]))[0]
        new = 256 + len(merges)
        for word in words:
            for n in range(len(word) - 1):  # it gets shorter on the way
                if tuple(word[n : n + 2]) == pair:
                    word[n : n + 2] = [new]
        merges.append(pair)
    return merges


def train_by_spelling(text, n_merges):
    """Let tokens be bytes, and look their ids up at the end."""
    ids = {token: number for number, token in enumerate(BYTES)}
    words = Counter(
        tuple(bytes([byte]) for byte in word.encode())
        for word in split_words(text)
    )
    merges = []
    for _ in range(n_merges):
        counts = defaultdict(int)
        for word, times in words.items():
            for a, b in pairwise(word):
                counts[ids[a], ids[b]] += times
        if len(counts) == 0:
            return merges
        most = max(counts.values())
        left, right = min(pair for pair, n in counts.items() if n == most)
        merges.append((left, right))
        spelled = list(ids)
        a, b = spelled[left], spelled[right]
        ids[a + b] = len(ids)
        merged = Counter()
        for word, times in words.items():
            merged[_joined(word, a, b)] += times
        words = merged
    return merges


def _joined(word, a, b):
    """Join a and b wherever they are neighbours."""
    rest, done = deque(word), []
    while rest:
        token = rest.popleft()
        if token == a and rest and rest[0] == b:
            token += rest.popleft()
        done.append(token)
    return tuple(done)


def train_with_running_counts(text, n_merges):
    """Count anew only the words that hold the pair, as libraries do."""
    times = Counter(split_words(text))
    words = [[ID_OF_BYTE[b] for b in w.encode()] for w in times]
    numbers = list(times.values())
    counts, where = Counter(), defaultdict(set)

    def account(n, sign):
        for pair in zip(words[n], words[n][1:], strict=False):
            counts[pair] += sign * numbers[n]
            where[pair].add(n)

    for n in range(len(words)):
        account(n, 1)
    merges = []
    while len(merges) < n_merges:
        best = max(
            counts, key=lambda p: (counts[p], -p[0], -p[1]), default=None
        )
        if best is None or counts[best] < 1:
            break
        new = 256 + len(merges)
        merges.append([*best])
        for n in list(where[best]):
            account(n, -1)
            words[n] = list(_numbered(words[n], best, new))
            account(n, 1)
    return merges


def _numbered(ids, pair, new):
    skip = False
    for n, token in enumerate(ids):
        if skip:
            skip = False
        elif tuple(ids[n : n + 2]) == pair:
            skip = True
            yield new
        else:
            yield token


def encode_merge_by_merge(text, merges):
    """Go through all merges in order, on all words at once."""
    words = [[ID_OF_BYTE[b] for b in w.encode()] for w in split_words(text)]
    for number, (left, right) in enumerate(merges):
        for word in words:
            if left in word and right in word:
                word[:] = _numbered(word, (left, right), 256 + number)
    return [token for word in words for token in word]


def encode_by_heap(text, merges):
    """Keep the pairs in a heap and the tokens in a chain."""
    text.encode("utf-8", errors="strict")
    rank = {tuple(pair): n for n, pair in enumerate(merges)}
    result = []
    for word in split_words(text):
        result.extend(_chained([ID_OF_BYTE[b] for b in word.encode()], rank))
    return result


def _chained(ids, rank):
    after = list(range(1, len(ids) + 1))
    before = list(range(-1, len(ids) - 1))
    heap = [
        (rank[pair], n, pair)
        for n, pair in enumerate(pairwise(ids))
        if pair in rank
    ]
    heapq.heapify(heap)
    while heap:
        number, n, pair = heapq.heappop(heap)
        m = after[n]
        if m >= len(ids) or (ids[n], ids[m]) != pair:
            continue
        ids[n], ids[m] = 256 + number, None
        after[n] = after[m]
        if after[n] < len(ids):
            before[after[n]] = n
        for left in (before[n], n):
            right = after[left] if left >= 0 else len(ids)
            if right < len(ids) and (ids[left], ids[right]) in rank:
                fresh = (ids[left], ids[right])
                heapq.heappush(heap, (rank[fresh], left, fresh))
    return [token for token in ids if token is not None]


def decode_by_unmerging(ids, merges):
    """Take merged tokens apart until only bytes are left."""
    todo, found = list(reversed(ids)), bytearray()
    while todo:
        token = todo.pop()
        if token < 0 or token >= 256 + len(merges):
            raise ValueError(token)
        if token < 256:
            found += BYTES[token]
        else:
            todo += reversed(merges[token - 256])
    return str(found, "utf-8", "replace")


def decode_piece_by_piece(ids, merges):
    """Feed the bytes of one token after the other to a decoder."""
    table = dict(enumerate(BYTES))
    for n, (a, b) in enumerate(merges, start=256):
        table[n] = table[a] + table[b]
    decoder = getincrementaldecoder("utf-8")("replace")
    text = []
    for token in ids:
        if token not in table:
            raise ValueError(f"no such token: {token}")
        text.append(decoder.decode(table[token]))
    text.append(decoder.decode(b"", final=True))
    return "".join(text)


def fit_by_dropping_the_oldest(messages, window, reserve, count):
    """Begin with all, and leave the oldest out until the rest fits."""
    kept = list(messages)
    costs = [count(message) for message in messages]
    oldest = 1 if kept and kept[0]["role"] == "system" else 0
    while sum(costs) + reserve > window:
        if len(kept) <= oldest + 1:
            raise ValueError("too long")
        del kept[oldest], costs[oldest]
    return kept


def fit_by_prepending(messages, window, reserve, count):
    """Put messages in front of a queue as long as there is room."""
    budget = window - reserve
    queue, rest = deque(), list(messages)
    pinned = []
    if rest and rest[0]["role"] == "system":
        pinned = [rest.pop(0)]
        budget -= count(pinned[0])
    if budget < 0:
        raise ValueError("no room for the system message")
    while rest:
        cost = count(rest[-1])
        if cost > budget:
            if not queue:
                raise ValueError("no room for the newest message")
            break
        budget -= cost
        queue.appendleft(dict(rest.pop()))
    return [*pinned, *queue]


def fit_by_running_sums(messages, window, reserve, count):
    """Add up from the end, and keep the longest tail that fits."""
    has_system = bool(messages) and messages[0].get("role") == "system"
    costs = [count(m) for m in messages]
    fixed = costs[0] if has_system else 0
    start = 1 if has_system else 0
    for first in range(start, max(len(messages), start + 1)):
        if fixed + sum(costs[first:]) <= window - reserve:
            return messages[:start] + messages[first:]
    raise ValueError("not even the newest message fits")


ALTERNATIVES = {
    "bpe_train": [
        train_on_every_word,
        train_by_spelling,
        train_with_running_counts,
    ],
    "bpe_encode": [encode_merge_by_merge, encode_by_heap],
    "bpe_decode": [decode_by_unmerging, decode_piece_by_piece],
    "fit_window": [
        fit_by_dropping_the_oldest,
        fit_by_prepending,
        fit_by_running_sums,
    ],
}
