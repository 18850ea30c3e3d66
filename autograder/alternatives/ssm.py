"""Right answers of chapter 12 that go another way than the reference."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def discretize_by_matrix_exponential(delta, a, b):
    """Solve the system [h, u] at once, for every number of the state."""
    delta, a = torch.broadcast_tensors(delta.unsqueeze(-1), a)
    b = b.unsqueeze(-2).expand_as(a)
    zero = torch.zeros_like(a)
    rows = [
        torch.stack([delta * a, delta * b], -1),
        torch.stack([zero] * 2, -1),
    ]
    solved = torch.linalg.matrix_exp(torch.stack(rows, -2))
    return solved[..., 0, 0], solved[..., 0, 1]


def discretize_with_where(delta, a, b):
    """Choose between the formula and the first terms of its series."""
    x = torch.einsum("...e,en->...en", delta, a)
    safe = torch.where(x.abs() < 1e-5, -torch.ones_like(x), x)
    mean = torch.where(
        x.abs() < 1e-5, 1 + x / 2 + x * x / 6, torch.expm1(safe) / safe
    )
    return torch.exp(x), torch.einsum("...en,...e,...n->...en", mean, delta, b)


def discretize_by_sinh(delta, a, b):
    """Write exp(x) − 1 as 2 exp(x/2) sinh(x/2)."""
    delta, b = delta[..., :, None], b[..., None, :]
    half = delta * a / 2
    rise = 2 * torch.exp(half) * torch.sinh(half)
    b_bar = torch.where(a == 0, delta * b, rise / (a - (a == 0).to(a)) * b)
    return torch.exp(2 * half), b_bar


def scan_into_a_buffer(a, x, initial=None):
    """Collect the states in a list that begins with the initial one."""
    states = [torch.zeros_like(x[:, 0]) if initial is None else initial]
    for kept, new in zip(a.unbind(1), x.unbind(1), strict=True):
        states.append(torch.addcmul(new, kept, states[-1]))
    return torch.stack(states[1:], dim=1)


def scan_by_recursion(a, x, initial=None):
    """Scan each half; the second starts where the first ends."""
    if x.shape[1] == 1:
        if initial is None:
            return x
        return x + a * initial.unsqueeze(1)
    half = x.shape[1] // 2
    first = scan_by_recursion(a[:, :half], x[:, :half], initial)
    second = scan_by_recursion(a[:, half:], x[:, half:], first[:, -1])
    return torch.cat((first, second), 1)


def scan_by_a_matrix(a, x, initial=None):
    """Write down what every token keeps of every other."""
    n_tokens = x.shape[1]
    rows = []
    for t in range(n_tokens):
        after = [a[:, s + 1 : t + 1].prod(1) for s in range(t + 1)]
        row = (torch.stack(after, 1) * x[:, : t + 1]).sum(1)
        if initial is not None:
            row = row + a[:, : t + 1].prod(1) * initial
        rows.append(row)
    return torch.stack(rows, 1)


def parallel_by_odd_and_even(a, x):
    """Combine pairs, scan half as many, then fill in between (Blelloch)."""
    n_tokens = x.shape[1]
    if n_tokens == 1:
        return x
    n_pairs = n_tokens // 2
    early, late = slice(0, 2 * n_pairs, 2), slice(1, 2 * n_pairs, 2)
    done = parallel_by_odd_and_even(
        a[:, late] * a[:, early], a[:, late] * x[:, early] + x[:, late]
    )  # the states after tokens 1, 3, 5, …
    between = a[:, 2::2] * done[:, : (n_tokens - 1) // 2] + x[:, 2::2]
    even = torch.cat([x[:, :1], between], 1)
    states = torch.empty_like(x)
    states[:, ::2], states[:, 1::2] = even, done
    return states


def parallel_with_padding(a, x):
    """Shift by padding with ones and zeros, so that no slice is needed."""
    shift = 1
    while shift < x.shape[1]:
        pad = [0, 0] * (x.ndim - 2) + [shift, 0]
        early_x = F.pad(x, pad)[:, : x.shape[1]]
        early_a = F.pad(a, pad, value=1.0)[:, : a.shape[1]]
        x, a = x + a * early_x, a * early_a
        shift = shift * 2
    return x


def parallel_by_halves(a, x):
    """Fold the halves side by side, and join them on the way back."""
    n_tokens = x.shape[1]
    size = 1 << max(n_tokens - 1, 0).bit_length()
    pad = [0, 0] * (x.ndim - 2) + [0, size - n_tokens]
    a, x = F.pad(a, pad), F.pad(x, pad)
    width = 1
    while width < size:
        a = a.unflatten(1, (-1, 2, width))  # (B, blocks, 2, width, ...)
        x = x.unflatten(1, (-1, 2, width))
        first_a, first_x = a[:, :, 0], x[:, :, 0]
        second_x = a[:, :, 1] * first_x[:, :, -1:] + x[:, :, 1]
        second_a = a[:, :, 1] * first_a[:, :, -1:]
        x = torch.stack([first_x, second_x], 2).flatten(1, 3)
        a = torch.stack([first_a, second_a], 2).flatten(1, 3)
        width *= 2
    return x[:, :n_tokens]


def selective_by_loop(u, delta, a, b, c, d, state=None):
    """Keep nothing but the state, and update it token by token."""
    n_batch, n_tokens, channels = u.shape
    h = state
    if h is None:
        h = torch.zeros(n_batch, channels, a.shape[1], dtype=u.dtype)
    ys = []
    for t in range(n_tokens):
        step = delta[:, t].unsqueeze(-1)
        new = step * b[:, t].unsqueeze(1) * u[:, t].unsqueeze(-1)
        h = torch.exp(step * a) * h + new
        ys.append(torch.matmul(h, c[:, t].unsqueeze(-1)).squeeze(-1))
    return torch.stack(ys, 1) + d * u, h


def selective_in_parallel(u, delta, a, b, c, d, state=None):
    """Scan in rounds, with the old state put into the first input."""
    kept = torch.einsum("bte,en->bten", delta, a).exp()
    x = torch.einsum("bte,bte,btn->bten", delta, u, b)
    if state is not None:
        first = x[:, :1] + kept[:, :1] * state.unsqueeze(1)
        x = torch.cat([first, x[:, 1:]], 1)
    states = parallel_with_padding(kept, x)
    return torch.einsum("bten,btn->bte", states, c) + u * d, states[:, -1]


def selective_by_numpy(u, delta, a, b, c, d, state=None):
    """Compute with NumPy, in float64 whatever comes in."""
    arrays = [np.asarray(v, dtype=float) for v in (u, delta, a, b, c, d)]
    us, steps, rates, ins, outs, skip = arrays
    shape = (us.shape[0], us.shape[2], rates.shape[1])
    h = np.zeros(shape) if state is None else np.asarray(state, dtype=float)
    y = np.empty_like(us)
    for t in range(us.shape[1]):
        step = steps[:, t, :, None]
        h = (
            np.exp(step * rates) * h
            + step * us[:, t, :, None] * ins[:, None, t]
        )
        y[:, t] = np.einsum("ben,bn->be", h, outs[:, t]) + skip * us[:, t]
    return torch.tensor(y, dtype=u.dtype), torch.tensor(h, dtype=u.dtype)


class _Layers(nn.Module):
    """The layers of the given code."""

    def __init__(self, d_model, d_state=16, d_conv=4):
        super().__init__()
        inner, rank = 2 * d_model, math.ceil(d_model / 16)
        self.rank, self.n_state = rank, d_state
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(
            inner, inner, d_conv, groups=inner, padding=d_conv - 1
        )
        self.x_proj = nn.Linear(inner, rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(rank, inner)
        rates = torch.arange(1.0, d_state + 1).repeat(inner, 1)
        self.A_log = nn.Parameter(torch.log(rates))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, d_model, bias=False)


class MambaInChannels(_Layers):
    """Stay in (B, E, T), as transformers does, and scan in parallel."""

    def forward(self, x):
        """Project, convolve by hand, scan, gate."""
        u, gate = self.in_proj(x).mT.chunk(2, dim=1)
        taps = self.conv1d.weight[:, 0]  # (E, K)
        padded = F.pad(u, (taps.shape[1] - 1, 0))
        windows = padded.unfold(-1, taps.shape[1], 1)  # (B, E, T, K)
        u = (windows * taps[:, None]).sum(-1) + self.conv1d.bias[:, None]
        u = u * torch.sigmoid(u)
        low = self.x_proj(u.mT)
        delta = self.dt_proj(low[..., : self.rank])
        delta = torch.log1p(torch.exp(delta))
        b = low[..., self.rank : self.rank + self.n_state]
        c = low[..., -self.n_state :]
        y, _ = selective_in_parallel(
            u.mT, delta, -torch.exp(self.A_log), b, c, self.D
        )
        gate = gate.mT
        return self.out_proj(y * gate * torch.sigmoid(gate))


class MambaTokenByToken(_Layers):
    """Go through the text once, with a state and the last few inputs."""

    def forward(self, x):
        """Update window and state at each token, as decoding does."""
        n_taps = self.conv1d.kernel_size[0]
        inner = self.D.shape[0]
        window = x.new_zeros(x.shape[0], inner, n_taps)
        h = x.new_zeros(x.shape[0], inner, self.n_state)
        outputs = []
        for t in range(x.shape[1]):
            u, gate = self.in_proj(x[:, t]).split(inner, -1)
            window = torch.cat([window[..., 1:], u[..., None]], -1)
            u = (window * self.conv1d.weight[:, 0]).sum(-1)
            u = F.silu(u + self.conv1d.bias)
            sizes = [self.rank, self.n_state, self.n_state]
            step, b, c = self.x_proj(u).split(sizes, -1)
            step = F.softplus(self.dt_proj(step))[..., None]
            h = (-step * self.A_log.exp()).exp() * h
            h = h + step * u[..., None] * b[:, None]
            y = (h @ c[..., None])[..., 0] + self.D * u
            outputs.append(self.out_proj(y * F.silu(gate)))
        return torch.stack(outputs, 1)


def _segments(log_a):
    """Return the sum of log_a from s + 1 to t, −∞ above the diagonal."""
    n = log_a.shape[-1]
    steps = log_a[..., None].expand(*log_a.shape, n)
    below = torch.ones(n, n, dtype=torch.bool).tril(-1)
    sums = steps.masked_fill(~below, 0.0).cumsum(-2)
    return sums.masked_fill(~below & ~torch.eye(n).bool(), -torch.inf)


def ssd_as_published(x, log_a, b, c, chunk=64):
    """Pad, cut all chunks at once, and scan the chunks by a matrix."""
    n_tokens = x.shape[1]
    pad = -n_tokens % chunk
    x = F.pad(x, (0, 0, 0, 0, 0, pad)).unflatten(1, (-1, chunk))
    b, c = (F.pad(v, (0, 0, 0, pad)).unflatten(1, (-1, chunk)) for v in (b, c))
    log_a = F.pad(log_a, (0, 0, 0, pad)).unflatten(1, (-1, chunk))
    log_a = log_a.permute(0, 3, 1, 2)  # (B, H, chunks, L)
    kept = _segments(log_a).exp()
    weights = torch.einsum("bcln,bcsn->bcls", c, b)[:, None] * kept
    inside = torch.einsum("bhcls,bcshp->bclhp", weights, x)
    total = log_a.cumsum(-1)
    left = (total[..., -1:] - total).exp()
    states = torch.einsum(
        "bcln,bclhp->bchpn", b, left.permute(0, 2, 3, 1)[..., None] * x
    )
    states = torch.cat([torch.zeros_like(states[:, :1]), states], 1)
    between = _segments(F.pad(total[..., -1], (1, 0))).exp()
    states = torch.einsum("bhzc,bchpn->bzhpn", between, states)
    read = torch.einsum("bcln,bchpn->bclhp", c, states[:, :-1])
    y = inside + read * total.exp().permute(0, 2, 3, 1)[..., None]
    return y.flatten(1, 2)[:, :n_tokens], states[:, -1]


def ssd_head_by_head(x, log_a, b, c, chunk=64):
    """Loop over chunks and heads, with plain matrix products."""
    n_batch, n_tokens, n_heads, width = x.shape
    h = [x.new_zeros(n_batch, width, b.shape[-1]) for _ in range(n_heads)]
    chunks = []
    for low in range(0, n_tokens, chunk):
        high = min(low + chunk, n_tokens)
        cs, bs = c[:, low:high], b[:, low:high]
        heads = []
        for i in range(n_heads):
            kept = _segments(log_a[:, low:high, i]).exp()  # (B, L, L)
            since = log_a[:, low:high, i].cumsum(1).exp()[..., None]
            values = x[:, low:high, i]
            y = (cs @ bs.mT * kept) @ values + since * (cs @ h[i].mT)
            heads.append(y)
            end = kept[:, -1].unsqueeze(-1)
            h[i] = since[:, -1:] * h[i] + (values * end).mT @ bs
        chunks.append(torch.stack(heads, 2))
    return torch.cat(chunks, 1), torch.stack(h, 1)


ALTERNATIVES = {
    "discretize": [
        discretize_by_matrix_exponential,
        discretize_with_where,
        discretize_by_sinh,
    ],
    "scan_sequential": [
        scan_into_a_buffer,
        scan_by_recursion,
        scan_by_a_matrix,
    ],
    "scan_parallel": [
        parallel_by_odd_and_even,
        parallel_with_padding,
        parallel_by_halves,
    ],
    "selective_scan": [
        selective_by_loop,
        selective_in_parallel,
        selective_by_numpy,
    ],
    "MambaBlock": [MambaInChannels, MambaTokenByToken],
    "ssd_chunked": [ssd_as_published, ssd_head_by_head],
}
