"""The trophy and the suitcase: a sentence with vectors set by hand.

A trained model finds its own numbers; these are chosen so that a reader can
follow every step with a pencil.
"""

import torch

FEATURES = ["object", "container", "size", "verb"]

# token: (what it looks for, what it offers), in the features above
_TABLE = {
    "The": ((2, 0, 0, 0), (0, 0, 0, 0)),
    "trophy": ((0, 0, 1, 2), (3, 0, 0, 0)),
    "didn't": ((0, 0, 0, 3), (0, 0, 0, 2)),
    "fit": ((2, 2, 0, 0), (0, 0, 0, 3)),
    "in": ((0, 3, 0, 0), (0, 0, 0, 0)),
    "the": ((1, 2, 0, 0), (0, 0, 0, 0)),
    "suitcase": ((2, 0, 0, 1), (1, 3, 0, 0)),
    "because": ((0, 0, 2, 2), (0, 0, 0, 0)),
    "it": ((3, 1, 0, 0), (0, 0, 0, 0)),
    "was": ((0, 0, 3, 0), (0, 0, 0, 1)),
    "too": ((0, 0, 3, 0), (0, 0, 1, 0)),
    "big": ((3, 1, 0, 0), (0, 0, 3, 0)),
}

TOKENS = list(_TABLE)
QUERIES = torch.tensor([q for q, _ in _TABLE.values()], dtype=torch.float32)
KEYS = torch.tensor([k for _, k in _TABLE.values()], dtype=torch.float32)

# What a token hands over if it is attended to: (trophy, suitcase, neither).
VALUES = torch.zeros(len(TOKENS), 3)
VALUES[:, 2] = 1.0
VALUES[TOKENS.index("trophy")] = torch.tensor([1.0, 0.0, 0.0])
VALUES[TOKENS.index("suitcase")] = torch.tensor([0.0, 1.0, 0.0])
