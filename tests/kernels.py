"""Run the Triton kernels in Triton's interpreter, on a CPU.

``python -m tests.kernels``, with ``TRITON_INTERPRET=1``, prints what differs
from float64, and fails if it is too much. A kernel reads that variable when
it is defined, so this takes a process of its own.
"""

import torch
from torch import Tensor
from triton.runtime import interpreter

patch = interpreter._patch_lang_tensor


def patch_for_numpy(tensor: type, *rest: object) -> None:
    """Let a tensor be an end of a range.

    The interpreter of Triton 3.6 takes ``int`` of an array of one number,
    which NumPy 2.4 refuses.
    """
    patch(tensor, *rest)
    tensor.__index__ = lambda self: int(self.handle.data.item())


interpreter._patch_lang_tensor = patch_for_numpy

from contextlab.scale import flash_triton, ssm_triton  # noqa: E402
from contextlab.scale.flash import exact_scores, relative_error  # noqa: E402
from solutions.ssm import ssd_chunked  # noqa: E402

# queries, keys, width, width of values, causal: no size fits the tiles
ATTENTION = (
    (1, 30, 24, 24, True),
    (37, 70, 24, 24, True),
    (50, 50, 16, 40, True),
    (33, 19, 16, 16, False),
)
# batch, tokens, heads, width, state
SPACES = ((2, 300, 2, 16, 32), (1, 128, 3, 32, 16), (1, 1, 1, 16, 16))


def attention_errors(
    n_queries: int, n_keys: int, width: int, width_v: int, causal: bool
) -> list[float]:
    """Return the errors of the output, the LSE and the three gradients."""
    shapes = (n_queries, width), (n_keys, width), (n_keys, width_v)
    q, k, v = (torch.randn(1, 2, *shape) for shape in shapes)
    grad = torch.randn(1, 2, n_queries, width_v)
    output, lse = flash_triton.flash_attention(q, k, v, causal)
    gradients = flash_triton.flash_attention_backward(
        grad, q, k, v, output, lse, causal
    )
    leaves = [x.double().requires_grad_() for x in (q, k, v)]
    scores = exact_scores(*leaves[:2], causal)
    right = scores.softmax(-1) @ leaves[2]
    expected: list[Tensor] = [right, scores.logsumexp(-1)]
    expected += torch.autograd.grad(right, leaves, grad.double())
    got = [output, lse, *gradients]
    return [
        relative_error(ours, theirs.detach())
        for ours, theirs in zip(got, expected, strict=True)
    ]


def space_errors(
    batch: int, n: int, heads: int, width: int, size: int
) -> list[float]:
    """Return the errors of the outputs and of the last state."""
    x, log_a = torch.randn(batch, n, heads, width), torch.rand(batch, n, heads)
    log_a *= -0.1
    log_a[:, 5:7] = -300.0
    b, c = torch.randn(2, batch, n, size)
    got = ssm_triton.ssd(x, log_a, b, c)
    right = ssd_chunked(*(each.double() for each in (x, log_a, b, c)), 64)
    return [relative_error(*pair) for pair in zip(got, right, strict=True)]


def main() -> None:
    """Try all sizes."""
    torch.manual_seed(0)
    errors = [attention_errors(*sizes) for sizes in ATTENTION]
    errors += [space_errors(*sizes) for sizes in SPACES]
    for each in errors:
        print(", ".join(f"{error:.1e}" for error in each))
    assert all(error < 1e-3 for each in errors for error in each)


if __name__ == "__main__":
    main()
