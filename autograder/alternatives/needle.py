"""Right answers of chapter 14 that go another way than the reference."""

import math

import numpy as np
import torch
from torch.nn import functional as F


def haystack_as_a_list(filler, needle, question, n_tokens, depth):
    """Insert into a Python list."""
    room = n_tokens - needle.numel() - question.numel()
    if room < 0:
        raise ValueError("too short a text")
    if room > filler.numel():
        raise ValueError("too little filler")
    if depth < 0 or depth > 1:
        raise ValueError("no such depth")
    text = filler.tolist()[:room]
    place = round(room * depth)
    text[place:place] = needle.tolist()
    return torch.tensor(text + question.tolist(), dtype=filler.dtype)


def haystack_by_filling(filler, needle, question, n_tokens, depth):
    """Keep places free for the needle, and fill the others."""
    k, q = len(needle), len(question)
    room = n_tokens - k - q
    if min(room, depth, 1 - depth, len(filler) - room) < 0:
        raise ValueError("this can't be done")
    place = int(np.rint(depth * room))
    text = filler.new_empty(n_tokens)
    free = torch.ones(n_tokens, dtype=torch.bool)
    free[place : place + k] = False
    free[n_tokens - q :] = False
    text[place : place + k] = needle
    text[n_tokens - q :] = question
    text[free] = filler[:room]
    return text


def grid_text_by_text(model, draw, lengths, depths, trials, generator):
    """Draw a single text at a time."""
    rows = []
    for n_tokens in lengths:
        row = []
        for depth in depths:
            found = 0
            for _ in range(trials):
                ids, answer = draw(n_tokens, depth, 1, generator)
                logits = model(ids)[0, -1]
                found += int(torch.argmax(logits)) == int(answer[0])
            row.append(found / trials)
        rows.append(row)
    return torch.tensor(rows)


@torch.no_grad()
def grid_column_by_column(model, draw, lengths, depths, trials, generator):
    """Take the depths first, and the best token by topk."""
    columns = []
    for depth in depths:
        column = []
        for n_tokens in lengths:
            ids, answers = draw(n_tokens, depth, trials, generator)
            best = model(ids)[:, -1, :].topk(1).indices
            column.append((best == answers[:, None]).sum() / trials)
        columns.append(torch.stack(column))
    return torch.stack(columns, 1)


def mass_text_by_text(weights, places):
    """Pick the columns of each text."""
    return torch.stack(
        [w[:, -1, at].sum(-1) for w, at in zip(weights, places, strict=True)]
    )


def mass_by_one_hot(weights, places):
    """Multiply with a vector that is 1 on the needle."""
    marks = F.one_hot(places, weights.size(-1)).sum(1).to(weights.dtype)
    return torch.einsum("bhs,bs->bh", weights.select(2, -1), marks)


def weight_by_sigmoid(gap, n_keys, variance=1.0):
    """See a logistic function of the gap."""
    if n_keys < 2:
        return 1.0
    x = torch.tensor(gap, dtype=torch.float64)
    return torch.sigmoid(x - math.log(n_keys - 1) - variance / 2).item()


def weight_by_a_common_exponent(gap, n_keys, variance=1.0):
    """Take the largest exponent out, as a stable softmax does."""
    if n_keys == 1:
        return 1.0
    top = max(gap, variance / 2)
    one = math.exp(gap - top)
    others = (n_keys - 1) * math.exp(variance / 2 - top)
    return one / (one + others)


def weight_in_float32(gap, n_keys, variance=1.0):
    """Take a softmax of two scores, in float32."""
    if n_keys == 1:
        return 1.0
    others = math.log(n_keys - 1) + math.sqrt(variance) ** 2 / 2
    return torch.tensor([gap, others]).softmax(0)[0].item()


def dip_by_loops(recall, depths):
    """Sort the columns into three lists."""
    parts = [[], [], []]
    for place, depth in enumerate(depths):
        part = 0 if depth < 1 / 3 else 2 if depth > 2 / 3 else 1
        parts[part].append(recall[..., place])
    if not all(parts):
        raise ValueError("a third is empty")
    start, middle, end = (sum(part) / len(part) for part in parts)
    return torch.where(start < end, start, end) - middle


def dip_by_a_matrix(recall, depths):
    """Average by a matrix of three columns."""
    at = np.asarray(depths)
    sides = np.stack([at < 1 / 3, (at >= 1 / 3) & (at <= 2 / 3), at > 2 / 3])
    if (sides.sum(1) == 0).any():
        raise ValueError("a third is empty")
    share = torch.from_numpy(sides / sides.sum(1, keepdims=True))
    means = recall @ share.T.to(recall.dtype)
    return means[..., [0, 2]].amin(-1) - means[..., 1]


def effective_from_the_far_end(lengths, scores, threshold=0.856):
    """Ask for each length whether all up to it pass."""
    pairs = list(zip(lengths, scores, strict=True))
    for length in sorted(lengths, reverse=True):
        if all(score > threshold for n, score in pairs if n <= length):
            return length
    return 0


def effective_by_the_first_failure(lengths, scores, threshold=0.856):
    """Find the shortest length that fails."""
    order = np.argsort(lengths)
    passed = np.asarray(scores)[order] > threshold
    n_passed = int(np.cumprod(passed).sum())
    return int(np.asarray(lengths)[order[n_passed - 1]]) if n_passed else 0


def effective_in_numpy(lengths, scores, threshold=0.856):
    """Stay in numpy, and return one of its numbers."""
    lengths, passed = np.array(lengths), np.array(scores) > threshold
    kept = [passed[lengths <= length].all() for length in lengths]
    return lengths[kept].max(initial=0)


def recall_text_by_text(logits, targets, unknown=-100):
    """Count in Python."""
    found = asked = complete = texts = 0
    for text, answers in zip(logits.argmax(-1), targets, strict=True):
        known = answers != unknown
        n, right = int(known.sum()), int((text == answers)[known].sum())
        found, asked = found + right, asked + n
        texts, complete = texts + (n > 0), complete + (0 < n == right)
    if not asked:
        raise ValueError("nothing is asked")
    return found / asked, complete / texts


def recall_by_counting(logits, targets, unknown=-100):
    """Compare how many are asked with how many are right."""
    asked = targets.ne(unknown)
    right = logits.topk(1).indices.squeeze(-1).eq(targets) & asked
    n_asked, n_right = asked.sum(1), right.sum(1)
    if n_asked.sum() == 0:
        raise ValueError("nothing is asked")
    some = n_asked > 0
    complete = (n_asked == n_right)[some].sum() / some.sum()
    return float(n_right.sum() / n_asked.sum()), float(complete)


ALTERNATIVES = {
    "make_haystack": [haystack_as_a_list, haystack_by_filling],
    "needle_grid": [grid_text_by_text, grid_column_by_column],
    "attention_mass": [mass_text_by_text, mass_by_one_hot],
    "diluted_weight": [
        weight_by_sigmoid,
        weight_by_a_common_exponent,
        weight_in_float32,
    ],
    "lost_in_the_middle": [dip_by_loops, dip_by_a_matrix],
    "effective_context": [
        effective_from_the_far_end,
        effective_by_the_first_failure,
        effective_in_numpy,
    ],
    "multi_needle_recall": [recall_text_by_text, recall_by_counting],
}
