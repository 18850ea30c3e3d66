"""Right answers of chapter 06 that go another way than the reference."""

import math

import torch


def frequencies_one_by_one(width, base=10_000.0):
    """Multiply by the same ratio from pair to pair, with Python's floats."""
    if width % 2:
        raise ValueError("an odd width has no pairs")
    ratio = base ** (-2 / width)
    return torch.tensor([ratio**i for i in range(width // 2)])


def frequencies_by_log(width, base=10_000.0):
    """Space the logarithms evenly, in float64."""
    pairs, rest = divmod(width, 2)
    if rest:
        raise ValueError("an odd width has no pairs")
    end = -math.log(base) * (pairs - 1) / pairs
    logs = torch.linspace(0.0, end, pairs, dtype=torch.float64)
    return logs.exp().float()


def frequencies_as_llama_does(width, base=10_000.0):
    """Divide one by a power, in float32, as the transformers library does."""
    if width % 2 == 1:
        raise ValueError("an odd width has no pairs")
    exponent = torch.arange(0, width, 2, dtype=torch.int64).float() / width
    return 1.0 / (base**exponent)


def table_by_complex_turns(inv_freq, positions):
    """Take the real and the imaginary parts of exp(i · angle)."""
    angles = torch.einsum("...t,d->...td", positions.to(inv_freq), inv_freq)
    turns = torch.polar(torch.ones_like(angles), angles)
    return turns.real, turns.imag


def table_row_by_row(inv_freq, positions):
    """Ask Python's math for one number after the other."""
    flat = [float(p) for p in positions.flatten()]
    hands = inv_freq.tolist()
    shape = (*positions.shape, len(hands))

    def table(function):
        rows = [[function(p * hand) for hand in hands] for p in flat]
        return torch.tensor(rows, dtype=inv_freq.dtype).reshape(shape)

    return table(math.cos), table(math.sin)


def table_in_float64(inv_freq, positions):
    """Use float64 within, and a quarter turn to get the cosine."""
    angles = positions.double().unsqueeze(-1) * inv_freq.double()
    sin = torch.sin(angles)
    cos = torch.sin(angles + math.pi / 2)
    return [cos.to(inv_freq.dtype), sin.to(inv_freq.dtype)]


def rope_by_rotate_half(q, k, cos, sin):
    """Double the tables, and turn the halves, as the transformers do."""

    def rotate_half(x):
        half = x.shape[-1] // 2
        return torch.cat((-x[..., half:], x[..., :half]), dim=-1)

    cos = torch.cat((cos, cos), dim=-1)
    sin = torch.cat((sin, sin), dim=-1)
    return tuple((x * cos + rotate_half(x) * sin).to(x.dtype) for x in (q, k))


def rope_in_the_inputs_dtype(q, k, cos, sin):
    """Round the tables to the dtype of q and k first."""

    def turn(x):
        c, s = cos.to(x.dtype), sin.to(x.dtype)
        half = x.shape[-1] // 2
        y = torch.empty_like(x)
        y[..., :half] = x[..., :half] * c - x[..., half:] * s
        y[..., half:] = x[..., half:] * c + x[..., :half] * s
        return y

    return [turn(q), turn(k)]


def rope_by_complex_numbers(q, k, cos, sin):
    """Multiply each pair, as a complex number, by its turn."""

    def turn(x):
        wide = x if x.dtype == torch.float64 else x.float()
        pairs = wide.unflatten(-1, (2, -1)).transpose(-1, -2).contiguous()
        turns = torch.complex(cos, sin)
        turned = torch.view_as_real(torch.view_as_complex(pairs) * turns)
        return turned.transpose(-1, -2).flatten(-2).to(x.dtype)

    return turn(q), turn(k)


def rope_by_matrices(q, k, cos, sin):
    """Build every pair's two-by-two matrix, and multiply."""
    matrix = torch.stack(
        [torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2
    )  # (..., T, D / 2, 2, 2)

    def turn(x):
        pairs = torch.stack(x.chunk(2, -1), -1).to(matrix.dtype)
        turned = (matrix @ pairs[..., None])[..., 0]  # (..., T, D / 2, 2)
        return torch.cat(turned.unbind(-1), -1).to(x.dtype)

    return turn(q), turn(k)


def layout_by_index(weight, n_heads):
    """Write down the new order, and index by it."""
    width = len(weight) // n_heads
    if width * n_heads != len(weight) or width % 2:
        raise ValueError("no heads of an even width")
    order = [
        head * width + channel
        for head in range(n_heads)
        for channel in [*range(0, width, 2), *range(1, width, 2)]
    ]
    return weight[order]


def layout_by_slices(weight, n_heads):
    """Take every second row of each head, then the others."""
    if len(weight) % (2 * n_heads):
        raise ValueError("no heads of an even width")
    parts = []
    for head in weight.chunk(n_heads):
        parts += [head[0::2], head[1::2]]
    return torch.cat(parts)


def layout_by_reshape(weight, n_heads):
    """View, transpose and reshape, as Meta's weights were converted."""
    if len(weight) % (2 * n_heads):
        raise ValueError("no heads of an even width")
    rest = weight.shape[1:]
    pairs = len(weight) // n_heads // 2
    heads = weight.reshape(n_heads, pairs, 2, *rest)
    return heads.transpose(1, 2).reshape(weight.shape).clone()


def alibi_by_loops(n_heads, n_queries, n_keys):
    """Decide entry by entry."""
    if n_heads < 1 or n_heads & (n_heads - 1) or n_queries > n_keys:
        raise ValueError("no such bias")
    past = n_keys - n_queries
    return torch.tensor(
        [
            [
                [
                    (s - t - past) / 2 ** (8 * h / n_heads)
                    if s <= t + past
                    else -math.inf
                    for s in range(n_keys)
                ]
                for t in range(n_queries)
            ]
            for h in range(1, n_heads + 1)
        ]
    )


def alibi_by_powers(n_heads, n_queries, n_keys):
    """Raise the first slope to powers, and add a triangle of −∞."""
    if n_heads < 1 or n_heads & (n_heads - 1) or n_queries > n_keys:
        raise ValueError("no such bias")
    first = 2.0 ** (-8.0 / n_heads)
    slopes = torch.pow(torch.tensor(first).double(), torch.arange(n_heads) + 1)
    steps = torch.arange(n_keys) - torch.arange(n_keys)[-n_queries:, None]
    future = torch.full((n_queries, n_keys), -math.inf)
    future = future.triu(n_keys - n_queries + 1)
    bias = torch.einsum("h,ts->hts", slopes, steps.clamp(max=0).double())
    return bias.float() + future


ALTERNATIVES = {
    "inverse_frequencies": [
        frequencies_one_by_one,
        frequencies_by_log,
        frequencies_as_llama_does,
    ],
    "rotary_table": [
        table_by_complex_turns,
        table_row_by_row,
        table_in_float64,
    ],
    "apply_rope": [
        rope_by_rotate_half,
        rope_in_the_inputs_dtype,
        rope_by_complex_numbers,
        rope_by_matrices,
    ],
    "interleaved_to_half": [
        layout_by_index,
        layout_by_slices,
        layout_by_reshape,
    ],
    "alibi_bias": [alibi_by_loops, alibi_by_powers],
}
