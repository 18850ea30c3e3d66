"""What a byte-level tokenizer stands on: bytes, words and a chat.

The bytes have GPT-2's ids, the words are cut by GPT-2's pattern, and the
``tokenizers`` library learns from the same text what the reader learns.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

import regex  # knows \p{L}, any letter, and \p{N}, any number

# 've | a space and letters | ... digits | ... other signs | spaces. Of the
# spaces before a word, the last one goes with the word. (Radford et al. 2019)
WORD = regex.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)


def _order_of_bytes() -> list[int]:
    """Return all bytes in GPT-2's order: those that print come first."""
    prints = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return prints + [byte for byte in range(256) if byte not in prints]


# The 256 tokens that every vocabulary begins with: BYTES[id] is one byte.
BYTES = [bytes([byte]) for byte in _order_of_bytes()]
# The way back: ID_OF_BYTE[byte] is the id of a byte, 0 to 255.
ID_OF_BYTE = [_order_of_bytes().index(byte) for byte in range(256)]


def split_words(text: str) -> list[str]:
    """Cut a text into words, as GPT-2 does; joined, they are the text.

    A word takes the space before it along; no token reaches across words::

        split_words("it's 128 KB") == ["it", "'s", " 128", " KB"]
    """
    return WORD.findall(text)


def visible(text: str) -> str:
    """Write spaces and line ends as signs that can be seen."""
    return text.replace(" ", "·").replace("\n", "↵")


def train_library(text: str, n_merges: int) -> Any:
    """Train the ``tokenizers`` library's byte-level BPE on a text.

    Returns:
        The library's ``Tokenizer``, with 256 + ``n_merges`` tokens at most:
        ``encode(text).ids`` and ``decode(ids)`` are what to compare with.
    """
    # One thread: a process that is forked later can't take others along.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=256 + n_merges,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def merges_of(tokenizer: Any) -> list[tuple[int, int]]:
    """Return the pairs of ids that a library's tokenizer merges, in order."""
    model = json.loads(tokenizer.to_str())["model"]
    ids = model["vocab"]
    return [(ids[left], ids[right]) for left, right in model["merges"]]


Message = dict[str, str]  # {"role": ..., "content": ...}


def as_text(message: Message) -> str:
    """Return what a model reads of a message: who speaks, and the words."""
    return f"{message['role']}: {message['content']}\n"


def conversation(turns: Sequence[str], system: str) -> list[Message]:
    """Make messages of what a user and an assistant say in turn."""
    roles = ("user", "assistant")
    first = {"role": "system", "content": system}
    return [first] + [
        {"role": roles[n % 2], "content": said} for n, said in enumerate(turns)
    ]


CHAT = conversation(
    [
        "Hi, my name is Ada and I can't eat nuts.",
        "Nice to meet you, Ada. I will keep nuts out of it.",
        "Four friends are coming on Friday. What can I cook?",
        "A lentil soup, a green salad and a pear tart would work.",
        "One of them doesn't like lentils.",
        "Then make it a tomato soup with white beans.",
        "How long does the soup take?",
        "About forty minutes, and most of that it cooks by itself.",
        "And the tart? I have never made one.",
        "An hour. The dough is easy: flour, butter, a little water.",
        "What do I have to buy?",
        "Tomatoes, white beans, a salad, four pears, flour and butter.",
        "The tart could do with something crunchy on top.",
    ],
    system="You are a friendly cook. Answer in one sentence.",
)
