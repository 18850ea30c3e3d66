"""A conversation that is longer than its window, and keys for its lines."""

import math
import re
from collections import Counter

import torch
from torch import Tensor

LINES = [
    "Let's plan the weekend at the lake.",
    "I booked the hut; the code of its door is 4711.",
    "Our train leaves on Friday at 8:12.",
    "Mira is allergic to nuts.",
    "Then I'll bake an apple cake.",
    "Who brings a map of the lake?",
    "I have one from last year.",
    "Is there a boat at the hut?",
    "Yes, and the oars hang behind the door.",
    "Will it rain?",
    "On Saturday perhaps, Sunday will be fine.",
    "I'll bring games for a rainy evening.",
    "And some chocolate with nuts.",
    "News: the train leaves at 9:40 now.",
    "Good, so we can sleep longer.",
    "The hut has six beds.",
    "There are five of us, that will do.",
    "Who cooks on the first evening?",
    "I do: pasta, it's quick.",
    "Don't forget the matches for the stove.",
    "They lie in the kitchen.",
    "I packed a torch, too.",
    "What about the dog?",
    "She stays with my parents.",
]
QUESTIONS = [
    "What is the code of the door?",
    "When does the train leave?",
    "Who is allergic to nuts?",
    "How many can spend the night there?",
]


def words(text: str) -> list[str]:
    """Return a text's words and numbers, in small letters."""
    return re.findall(r"[a-z]+|\d[\d:]*", text.lower())


def embed(texts: list[str], among: list[str] | None = None) -> Tensor:
    """Give each text a vector that says which words it has.

    There is a number for each word of the lines. It is larger for rarer
    words, ln(n / number of lines that have it), and 0 for words that don't
    occur. All vectors have length one, but those of texts without any word
    known, which are zeros.

    Args:
        texts: what is to be embedded, n of them.
        among: the lines whose words count; by default ``texts`` themselves.

    Returns:
        Shape (n, number of words).
    """
    lines = texts if among is None else among
    seen = Counter(word for line in lines for word in set(words(line)))
    place = {word: n for n, word in enumerate(sorted(seen))}
    vectors = torch.zeros(len(texts), len(place))
    for row, text in zip(vectors, texts, strict=True):
        for word in set(words(text)) & place.keys():
            row[place[word]] = math.log(len(lines) / seen[word])
    return torch.nn.functional.normalize(vectors, dim=-1)
