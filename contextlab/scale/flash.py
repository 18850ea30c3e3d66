"""Lab 05: a kernel of our own beside PyTorch's, to a million tokens."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from contextlab import figures, scale
from contextlab.scale import drawing
from contextlab.scale.device import DEVICE, DTYPE, HAS_GPU, measure, median

FUNCTIONS = ()  # PyTorch's operators alone would take minutes
WIDTH = 128
# Tokens and heads: fewer heads where one alone keeps the device busy.
SIZES = (
    ((4_096, 16), (16_384, 16), (65_536, 16), (262_144, 4), (1_048_576, 1))
    if HAS_GPU
    else ((512, 2), (1_024, 2))
)
OURS = "our Triton kernel"
PEERS = {
    "PyTorch, flash": SDPBackend.FLASH_ATTENTION,
    "PyTorch, cuDNN": SDPBackend.CUDNN_ATTENTION,
    "PyTorch, matrix kept": SDPBackend.MATH,
}
COLORS = {
    OURS: figures.OUTPUT,
    "PyTorch, flash": figures.QUERY,
    "PyTorch, cuDNN": figures.VALUE,
    "PyTorch, matrix kept": figures.KEY,
}
BACK = ", backward"
COLORS |= {what + BACK: color for what, color in COLORS.items()}
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
Gradients = tuple[Tensor, Tensor, Tensor]
# Takes q, k, v and a gradient by the output; returns what is to be timed.
Backward = Callable[[Tensor, Tensor, Tensor, Tensor], Callable[[], Gradients]]


def run() -> Iterator[dict[str, Any]]:
    """Check each kernel, then time it; causal, bfloat16, width 128.

    Raises:
        AssertionError: if a kernel is wrong; then it is not timed.
    """
    ways, ways_back = kernels(), backward_kernels()
    check_small(ways)
    if HAS_GPU:
        check_small_backward()
    over: set[str] = set()
    for n, heads in SIZES:
        q, k, v = torch.randn(
            3, 1, heads, n, WIDTH, device=DEVICE, dtype=DTYPE
        )
        expected = some_rows(q, k, v)
        for what, attend in ways.items():
            if what in over:
                continue
            row = measure(
                what, partial(attend, q, k, v), n=n, heads=heads, width=WIDTH
            )
            if "end" in row:
                over.add(what)
            else:
                got = attend(q, k, v)[..., at_rows(n), :]
                row["error"] = relative_error(got, expected)
                assert row["error"] < 0.02, f"{what} is wrong: {row}"
            yield row
        yield from run_backward(ways_back, q, k, v)


def run_backward(
    ways: dict[str, Backward], q: Tensor, k: Tensor, v: Tensor
) -> Iterator[dict[str, Any]]:
    """Check and time the way back; as ``run``."""
    heads, n = q.shape[1:3]
    grad = torch.randn_like(q)
    expected = some_gradients(q, k, v, grad)
    for what, prepare in ways.items():
        try:
            call = prepare(q, k, v, grad)
            got = [x[..., at_rows(n), :] for x in call()]
        except RuntimeError as error:  # a library may not take this length
            if what == OURS + BACK:
                raise
            end = str(error).splitlines()[0]
            print(f"{what} ends at {n}: {end}", flush=True)
            yield {"what": what, "n": n, "end": end}
            continue
        error = max(map(relative_error, got, expected))
        assert error < 0.02, f"{what} is wrong at {n}: {error:.1e}"
        facts = {"n": n, "heads": heads, "width": WIDTH, "error": error}
        yield measure(what, call, **facts)


def kernels() -> dict[str, Attention]:
    """Return what can be run here, by name."""
    names = PEERS if HAS_GPU else list(PEERS)[:1]
    ways = {name: partial(by_pytorch, PEERS[name]) for name in names}
    if HAS_GPU:
        from contextlab.scale.flash_triton import flash_attention

        ways = {OURS: lambda q, k, v: flash_attention(q, k, v, True)[0]} | ways
    return ways


def by_pytorch(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend by one of PyTorch's own kernels."""
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def backward_kernels() -> dict[str, Backward]:
    """Return what goes back here, by name."""
    names = ["PyTorch, flash", *(["PyTorch, cuDNN"] if HAS_GPU else [])]
    ways = {n + BACK: partial(back_by_pytorch, PEERS[n]) for n in names}
    return {OURS + BACK: back_by_ours} | ways if HAS_GPU else ways


def back_by_pytorch(
    backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor, grad: Tensor
) -> Callable[[], Gradients]:
    """Go forward, and return the way back through PyTorch's own kernel."""
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    output = by_pytorch(backend, *leaves)
    return partial(
        torch.autograd.grad, output, leaves, grad, retain_graph=True
    )


def back_by_ours(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, causal: bool = True
) -> Callable[[], Gradients]:
    """Go forward, and return the way back through our kernels."""
    from contextlab.scale import flash_triton

    output, lse = flash_triton.flash_attention(q, k, v, causal)
    back = flash_triton.flash_attention_backward
    return partial(back, grad, q, k, v, output, lse, causal)


def exact_scores(q: Tensor, k: Tensor, causal: bool) -> Tensor:
    """Return q·k / √D, −∞ where hidden; the T queries are the last of S."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    if not causal:
        return scores
    n_queries, n_keys = scores.shape[-2:]
    hidden = torch.ones_like(scores, dtype=torch.bool)
    hidden = hidden.triu(n_keys - n_queries + 1)
    return scores.masked_fill(hidden, -math.inf)


def check_small(ways: dict[str, Attention]) -> None:
    """Compare with float64: ragged sizes, and our log-sum-exp.

    Raises:
        AssertionError: if a kernel differs.
    """
    for n in (2, 100, 257):  # cuDNN takes no single key
        q, k, v = torch.randn(3, 2, 3, n, WIDTH, device=DEVICE, dtype=DTYPE)
        scores = exact_scores(q.double(), k.double(), causal=True)
        expected = scores.softmax(-1) @ v.double()
        for what, attend in ways.items():
            error = relative_error(attend(q, k, v), expected)
            assert error < 0.02, f"{what} is wrong at {n}: {error:.1e}"
    if HAS_GPU:
        check_ours()


def check_ours() -> None:
    """Compare our kernel where PyTorch's causal mask means another thing.

    Raises:
        AssertionError: if it differs.
    """
    from contextlab.scale.flash_triton import flash_attention

    for queries, keys, width, causal in (
        (1, 300, 80, True),
        (70, 300, 80, True),
        (130, 77, 64, False),
        (257, 257, 128, True),
    ):
        q = torch.randn(2, 3, queries, width, device=DEVICE, dtype=DTYPE)
        k, v = torch.randn(2, 2, 3, keys, width, device=DEVICE, dtype=DTYPE)
        scores = exact_scores(q.double(), k.double(), causal)
        out, lse = flash_attention(q, k, v, causal)
        error = relative_error(out, scores.softmax(-1) @ v.double())
        assert error < 0.02, f"wrong at {(queries, keys, width)}: {error:.1e}"
        worst = (lse - scores.logsumexp(-1)).abs().max().item()
        assert worst < 0.01, f"the log-sum-exp is off by {worst:.1e}"


def check_small_backward() -> None:
    """Compare our gradients with float64 autograd, in ragged sizes too.

    Raises:
        AssertionError: if one differs.
    """
    for queries, keys, width, causal in (
        (2, 2, 128, True),
        (257, 257, 128, True),
        (70, 300, 80, True),
        (130, 77, 64, False),
    ):
        prepare = partial(back_by_ours, causal=causal)
        check_gradients(OURS, prepare, queries, keys, width, causal)


def check_gradients(
    what: str,
    prepare: Backward,
    n_queries: int,
    n_keys: int,
    width: int,
    causal: bool,
) -> None:
    """Compare gradients with those of float64 autograd.

    Raises:
        AssertionError: if one differs.
    """
    q, grad = torch.randn(2, 2, 3, n_queries, width, device=DEVICE).to(DTYPE)
    k, v = torch.randn(2, 2, 3, n_keys, width, device=DEVICE).to(DTYPE)
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    scores = exact_scores(*leaves[:2], causal)
    output = scores.softmax(-1) @ leaves[2]
    expected = torch.autograd.grad(output, leaves, grad.double())
    got = prepare(q, k, v, grad)()
    for name, ours, right in zip("qkv", got, expected, strict=True):
        # Of one or two queries a gradient can be all but zero.
        size = max(right.norm(), 1e-2 * grad.double().norm()).item()
        error = (ours.double() - right).norm().item() / size
        assert error < 0.03, (
            f"{what} is wrong by {name} at {n_queries, n_keys, width}: "
            f"{error:.1e}"
        )


def at_rows(n: int) -> Tensor:
    """Return some queries, among them the first and the last."""
    return torch.linspace(0, n - 1, 33, device=DEVICE).long()


def some_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return the exact output of some queries, in float32."""
    rows = at_rows(q.shape[-2])
    found = []
    for head in range(q.shape[1]):
        scores = q[:, head, rows].float() @ k[:, head].float().mT
        scores /= math.sqrt(q.shape[-1])
        at_key = torch.arange(k.shape[-2], device=DEVICE)
        scores.masked_fill_(at_key > rows[:, None], -math.inf)
        found.append(scores.softmax(-1) @ v[:, head].float())
    return torch.stack(found, 1)


def some_gradients(q: Tensor, k: Tensor, v: Tensor, grad: Tensor) -> Gradients:
    """Return the exact gradients by some queries, keys and values: float32.

    A column of weights needs the log-sum-exp of all queries. On a GPU our
    kernel's is taken, which has been checked.
    """
    n = q.shape[-2]
    at, everything = at_rows(n), torch.arange(n, device=DEVICE)
    if HAS_GPU:
        from contextlab.scale.flash_triton import flash_attention

        output, lse = flash_attention(q, k, v, True)
    else:
        scores = exact_scores(q, k, causal=True)
        output, lse = scores.softmax(-1) @ v, scores.logsumexp(-1)
    found: list[list[Tensor]] = [[], [], []]
    for head in range(q.shape[1]):
        qs, ks, vs, grads, outs = (
            x[:, head].float() for x in (q, k, v, grad, output)
        )
        stats = lse[:, head], (grads * outs).sum(-1)
        _, by_scores = pairs(qs, ks, vs, grads, stats, at, everything)
        found[0].append(by_scores @ ks)
        weights, by_scores = pairs(qs, ks, vs, grads, stats, everything, at)
        found[1].append(by_scores.mT @ qs)
        found[2].append(weights.mT @ grads)
    return tuple(torch.stack(each, 1) for each in found)


def pairs(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grad: Tensor,
    stats: tuple[Tensor, Tensor],
    rows: Tensor,
    keys: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the weights of some pairs, and the gradients by their scores.

    ``stats``: of each query its log-sum-exp, and gradient · output.
    """
    scores = q[:, rows] @ k[:, keys].mT / math.sqrt(WIDTH)
    lse, mean = (x[:, rows, None] for x in stats)
    weights = (scores - lse).exp().masked_fill(keys > rows[:, None], 0.0)
    rise = grad[:, rows] @ v[:, keys].mT - mean
    return weights, weights * rise / math.sqrt(WIDTH)


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Return the size of the difference, in sizes of what is expected."""
    difference = (got.double() - expected.double()).norm()
    return (difference / expected.double().norm()).item()


def tflops(row: dict[str, Any]) -> float:
    """Return 10¹² operations a second; only pairs that attend are counted.

    What a kernel computes again is not counted twice.
    """
    pairs = row["n"] * (row["n"] + 1) / 2
    each = 10 if row["what"].endswith(BACK) else 4
    flops = each * pairs * row["width"] * row["heads"]
    return flops / median(row) / 1e9


def draw(record: scale.Record) -> Figure:
    """Draw operations a second, there and back, and extra memory."""

    def speed(back: bool) -> drawing.Cost:
        return lambda r: (
            tflops(r) if r["what"].endswith(BACK) == back else None
        )

    costs = {"Forward": ("TFLOP/s", speed(back=False))}
    if any(row["what"].endswith(BACK) for row in record["rows"]):
        costs["Backward"] = ("TFLOP/s", speed(back=True))
    costs["Extra memory"] = (
        "bytes",
        lambda r: None if r["what"].endswith(BACK) else max(r["bytes"], 1),
    )
    fig, axes = drawing.panels(record, COLORS, costs)
    n, limits = drawing.lengths(record), record["limits"]
    most = limits["matmul"] / 1e12
    for ax in axes[:-1]:
        drawing.limit(ax, "a large matrix product", n, [most] * len(n))
        ax.set(yscale="linear", ylim=(0, most * 1.12))
    drawing.memory_limit(axes[-1], record)
    return fig
