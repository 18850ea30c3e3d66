"""Right answers of chapter 15 that go another way than the reference."""

import torch

from contextlab.capstone import Design, Keep


def bytes_by_bits(design, n_tokens, width):
    """Count bits first, key by key and value by value."""
    bits = 0
    for keep in design.layers:
        numbers = 2 * width  # a key and a value
        for entry in range(keep.window + keep.memory):
            if entry < n_tokens:
                bits += numbers * keep.bits
                bits += 64 if keep.bits < 16 else 0
    return bits * design.n_kv_heads / 8 / n_tokens


def bytes_by_table(design, n_tokens, width):
    """Look up what an entry takes."""
    entry = {16: 4 * width, 8: 2 * width + 8, 4: width + 8, 2: width / 2 + 8}
    held = [min(n_tokens, x.window + x.memory) for x in design.layers]
    sizes = [entry[x.bits] for x in design.layers]
    total = sum(n * size for n, size in zip(held, sizes, strict=True))
    return total / n_tokens * design.n_kv_heads


def flops_by_masks(design, n_tokens, n_heads, width, n_weights):
    """Mark the last token's entries one by one."""
    total = n_weights
    for keep in design.layers:
        scored = mixed = 0
        for back in range(n_tokens):
            far = back - keep.window
            if far < keep.memory:
                scored += 1
                limit = keep.memory if keep.retrieved is None else (
                    keep.retrieved
                )  # fmt: skip
                mixed += far < limit
        total += (scored + mixed) * width * n_heads
    return 2 * total


def flops_in_floats(design, n_tokens, n_heads, width, n_weights):
    """Add a search and an attention, as floats."""
    total = 2.0 * n_weights
    for keep in design.layers:
        held = min(n_tokens, keep.window + keep.memory)
        far = held - min(n_tokens, keep.window)
        skipped = max(far - (keep.retrieved or far), 0)
        total += 4.0 * n_heads * width * held
        total -= 2.0 * n_heads * width * skipped
    return total


def mask_by_streaming(scores, window, memory):
    """Read token by token, and keep a list."""
    n = scores.shape[-1]
    rows = scores.reshape(-1, n).tolist()
    seen = torch.zeros(len(rows), n, n, dtype=torch.bool)
    for number, row in enumerate(rows):
        kept = []
        for t in range(n):
            if t >= window:
                kept = sorted([*kept, t - window], key=row.__getitem__)
                kept = kept[max(len(kept) - memory, 0) :]
            seen[number, t, max(0, t + 1 - window) : t + 1] = True
            seen[number, t, kept] = True
    return seen.reshape(*scores.shape, n)


def mask_by_counting(scores, window, memory):
    """Stay while fewer than ``memory`` better ones have left the window."""
    n = scores.shape[-1]
    better = scores[..., :, None] > scores[..., None, :]  # (..., rival, s)
    rivals = better.long().cumsum(-2)  # of the first entries, up to each
    rivals = torch.cat([torch.zeros_like(rivals[..., :1, :]), rivals], -2)
    left = (torch.arange(n) - window + 1).clamp(min=0)  # how many, at t
    stays = rivals[..., left, :] < memory
    ones = torch.ones(n, n, dtype=torch.bool)
    return ones.tril() & (ones.triu(1 - window) | stays)


def importance_by_values(q, k, v, window):
    """Long values are what a lookup is after."""
    return v.square().sum(-1)


def importance_by_largest(q, k, v, window):
    """Take the largest numbers of the key for its length."""
    return k.abs().topk(4).values.sum(-1)


def design_that_attends_to_all():
    """Retrieve nothing: more room, smaller windows, PI."""
    near = Keep(1, bits=4)
    far = Keep(1, 96, None, 4)
    return Design([far, near, near, near], 1, "linear", importance_by_largest)


def design_of_mixed_bits():
    """Give the layers that look near more bits."""
    near = Keep(window=4, bits=8)
    far = Keep(window=8, memory=70, retrieved=16, bits=4)
    return Design((far, near, near, near), 1, "yarn", importance_by_values)


ALTERNATIVES = {
    "kv_bytes_per_token": [bytes_by_bits, bytes_by_table],
    "flops_per_token": [flops_by_masks, flops_in_floats],
    "memory_mask": [mask_by_streaming, mask_by_counting],
    "importance": [importance_by_values, importance_by_largest],
    "design": [design_that_attends_to_all, design_of_mixed_bits],
}
