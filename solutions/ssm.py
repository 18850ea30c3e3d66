"""Reference answers for chapter 12, *State space models*."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def discretize(delta: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Turn h' = a·h + b·u into a step of length delta, u held constant.

    This is the exact solution, the *zero-order hold*. Where a is 0 nothing
    decays, and b̄ is its limit. A product delta·a close to 0 must not cost
    digits.

    Args:
        delta: step lengths, > 0, shape (..., E).
        a: decay rates, ≤ 0, shape (E, N).
        b: how the input enters the state, shape (..., N).

    Returns:
        ā and b̄, both of shape (..., E, N): the step is h ← ā·h + b̄·u.

    Source: Gu and Dao 2023, equation 4, for a diagonal A.
    """
    ### BEGIN SOLUTION
    x = delta[..., None] * a  # (..., E, N)
    mean = torch.expm1(x) / x.masked_fill(x == 0, 1.0)
    mean = mean.masked_fill(x == 0, 1.0)  # the limit
    return x.exp(), mean * delta[..., None] * b[..., None, :]
    ### END SOLUTION


def scan_sequential(
    a: Tensor, x: Tensor, initial: Tensor | None = None
) -> Tensor:
    """Run h_t = a_t · h_{t-1} + x_t, one token after the other.

    Args:
        a: what is kept of the state at each token, shape (B, T, ...).
        x: what is added to it, of the same shape.
        initial: the state before the first token, shape (B, ...); else 0.

    Returns:
        The state after each token, shape (B, T, ...). Gradients flow through.
    """
    ### BEGIN SOLUTION
    h = torch.zeros_like(x[:, 0]) if initial is None else initial
    states = []
    for t in range(x.shape[1]):
        h = a[:, t] * h + x[:, t]
        states.append(h)
    return torch.stack(states, 1)
    ### END SOLUTION


def scan_parallel(a: Tensor, x: Tensor) -> Tensor:
    """Run the same recurrence from a state of 0, in about log₂ T rounds.

    Every round works on all tokens at once, so that the number of operators
    called grows with log T. Memory stays linear in T. Any a will do, also 0
    and negative ones, and so will any length T ≥ 1.

    Args:
        a: what is kept of the state at each token, shape (B, T, ...).
        x: what is added to it, of the same shape.

    Returns:
        The state after each token, shape (B, T, ...). Gradients flow through.

    Source: Blelloch 1990, section 1.4; Hillis and Steele 1986.
    """
    ### BEGIN SOLUTION
    n_tokens, reach = x.shape[1], 1
    while reach < n_tokens:  # each entry covers its last `reach` tokens
        late_a, late_x = a[:, reach:], x[:, reach:]
        early_a, early_x = a[:, :-reach], x[:, :-reach]
        x = torch.cat([x[:, :reach], late_a * early_x + late_x], 1)
        a = torch.cat([a[:, :reach], late_a * early_a], 1)
        reach *= 2
    return x
    ### END SOLUTION


def selective_scan(
    u: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run Mamba's state space over a text: E channels with N numbers each.

        h_t = exp(delta_t · a) · h_{t-1} + delta_t · b_t · u_t
        y_t = c_t · h_t + d · u_t

    As in Mamba's released code, a is discretised exactly, and b by the
    simpler delta·b.

    Args:
        u: inputs, shape (B, T, E).
        delta: step lengths, > 0, shape (B, T, E).
        a: decay rates, < 0, shape (E, N).
        b: how an input enters the state, shape (B, T, N).
        c: how the state is read, shape (B, T, N).
        d: how much of u_t goes straight to y_t, shape (E,).
        state: the state before the first token, shape (B, E, N); else 0.

    Returns:
        The outputs y, shape (B, T, E), and the state after the last token,
        shape (B, E, N): what is needed to go on with the text.

    Source: Gu and Dao 2023, algorithm 2.
    """
    ### BEGIN SOLUTION
    a_bar = (delta[..., None] * a).exp()  # (B, T, E, N)
    x = (delta * u)[..., None] * b[..., None, :]
    states = scan_sequential(a_bar, x, state)
    y = (states * c[..., None, :]).sum(-1) + d * u
    return y, states[:, -1]
    ### END SOLUTION


class MambaBlock(nn.Module):
    """Mamba's mixer, with the layer names of ``transformers``.

    It stands where a transformer has attention. ``in_proj`` gives the input
    of the state space and, after it, a gate, both E = 2C wide. The input
    goes through a short causal convolution and SiLU; from the result,
    ``x_proj`` makes R numbers for delta, then b, then c. ``dt_proj`` widens
    the R numbers to E, and softplus makes them positive.

    Source: Gu and Dao 2023, section 3.4.
    """

    def __init__(
        self, d_model: int, d_state: int = 16, d_conv: int = 4
    ) -> None:
        super().__init__()
        inner, rank = 2 * d_model, math.ceil(d_model / 16)
        self.sizes = [rank, d_state, d_state]
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(
            inner, inner, d_conv, groups=inner, padding=d_conv - 1
        )
        self.x_proj = nn.Linear(inner, sum(self.sizes), bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        rates = torch.arange(1.0, d_state + 1).expand(inner, -1)
        self.A_log = nn.Parameter(rates.log())  # a = −exp(A_log)
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Let every token hear those before it, through the state.

        Args:
            x: shape (B, T, C).

        Returns:
            What goes back to the residual stream, shape (B, T, C).
        """
        ### BEGIN SOLUTION
        u, gate = self.in_proj(x).chunk(2, -1)  # (B, T, E) each
        u = self.conv1d(u.mT)[..., : x.shape[1]].mT  # no later token
        u = F.silu(u)
        delta, b, c = self.x_proj(u).split(self.sizes, -1)
        delta = F.softplus(self.dt_proj(delta))
        y, _ = selective_scan(u, delta, -self.A_log.exp(), b, c, self.D)
        return self.out_proj(y * F.silu(gate))
        ### END SOLUTION


def ssd_chunked(
    x: Tensor, log_a: Tensor, b: Tensor, c: Tensor, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """Run Mamba-2's state space chunk by chunk, by matrix products.

        h_t = exp(log_a_t) · h_{t-1} + x_t b_tᵀ        (P × N numbers a head)
        y_t = h_t c_t

    Within a chunk this is attention without a softmax; from chunk to chunk
    only the state goes on. No T × T matrix is made, and the number of
    operators called grows with T / chunk.

    Args:
        x: inputs, already multiplied by their step, shape (B, T, H, P).
        log_a: logarithm of what is kept, ≤ 0, shape (B, T, H). Hundreds
            below 0 must be as safe as 0.
        b: how an input enters the state, shape (B, T, N), for all heads.
        c: how the state is read, shape (B, T, N), for all heads.
        chunk: the most tokens of a chunk; T need not be a multiple of it.

    Returns:
        The outputs y, shape (B, T, H, P), and the state after the last
        token, shape (B, H, P, N). Gradients flow through.

    Source: Dao and Gu 2024, section 6 and listing 1.
    """
    ### BEGIN SOLUTION
    n_batch, n_tokens, n_heads, width = x.shape
    h = x.new_zeros(n_batch, n_heads, width, b.shape[-1])
    outputs = []
    for first in range(0, n_tokens, chunk):
        part = slice(first, first + chunk)
        xs, bs, cs = x[:, part], b[:, part], c[:, part]
        total = log_a[:, part].cumsum(1).mT  # (B, H, L), L tokens a chunk
        span = total[..., :, None] - total[..., None, :]  # from s to t
        future = torch.ones_like(span[0, 0], dtype=torch.bool).triu(1)
        kept = span.masked_fill(future, -math.inf).exp()  # (B, H, L, L)
        weights = (cs @ bs.mT)[:, None] * kept
        within = torch.einsum("bhts,bshp->bthp", weights, xs)
        before = torch.einsum("bhpn,btn->bthp", h, cs)
        outputs.append(within + total.exp().mT[..., None] * before)
        left = kept[..., -1, :].mT[..., None]  # (B, L, H, 1), at the end
        new = torch.einsum("bshp,bsn->bhpn", left * xs, bs)
        h = total[..., -1, None, None].exp() * h + new
    return torch.cat(outputs, 1), h
    ### END SOLUTION
