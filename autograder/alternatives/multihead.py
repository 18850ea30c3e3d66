"""Right answers of chapter 03 that go another way than the reference."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from solutions import multihead as reference


def split_by_view_and_permute(x, n_heads):
    """Number the dimensions, as most published code does."""
    if x.size(2) % n_heads != 0:
        raise ValueError("the width must be a multiple of the heads")
    batch, tokens, width = x.size()
    x = x.contiguous().view(batch, tokens, n_heads, width // n_heads)
    return x.permute(0, 2, 1, 3)


def split_by_chunks(x, n_heads):
    """Slice the channels head by head and stack the slices."""
    if x.shape[-1] / n_heads != x.shape[-1] // n_heads:
        raise ValueError(f"no {n_heads} equal heads")
    return torch.stack(x.chunk(n_heads, dim=-1), dim=1)


def split_by_index(x, n_heads):
    """Look every number up where it stands, one by one."""
    batch, tokens, channels = x.shape
    width, rest = divmod(channels, n_heads)
    if rest:
        raise ValueError("channels are left over")
    out = x.new_empty(batch, n_heads, tokens, width)
    for head in range(n_heads):
        for d in range(width):
            out[:, head, :, d] = x[:, :, head * width + d]
    return out


def merge_by_cat(x):
    """Lay the heads side by side, one after the other."""
    return torch.cat([x[:, head] for head in range(x.shape[1])], dim=-1)


def merge_by_contiguous_view(x):
    """Copy into the new order, then view."""
    batch, heads, tokens, width = x.shape
    x = x.permute(0, 2, 1, 3).contiguous()
    return x.view(batch, tokens, heads * width)


def merge_in_place(x):
    """Write every head into its columns of an empty tensor."""
    b, h, t, d = x.size()
    out = torch.zeros(b, t, h * d, dtype=x.dtype, device=x.device)
    for head in range(h):
        out[:, :, head * d : (head + 1) * d] = x[:, head]
    return out


class MultiHeadByEinsum(nn.Module):
    """Name every index, and use PyTorch's softmax."""

    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.c_attn = nn.Linear(d_model, 3 * d_model)
        self.c_proj = nn.Linear(d_model, d_model)

    def forward(self, x, mask=None):
        """Attend with all heads in two sums."""
        batch, tokens, width = x.shape
        qkv = self.c_attn(x).view(batch, tokens, 3, self.n_heads, -1)
        q, k, v = qkv.unbind(2)  # each (B, T, H, D)
        scores = torch.einsum("bthd,bshd->bhts", q, k)
        scores = scores / math.sqrt(width // self.n_heads)
        if mask is not None:
            scores = torch.where(mask, scores, float("-inf"))
        weights = F.softmax(scores, dim=-1).nan_to_num(0.0)
        out = torch.einsum("bhts,bshd->bthd", weights, v)
        return self.c_proj(out.reshape(batch, tokens, width)), weights


class MultiHeadByLoop(nn.Module):
    """One head at a time, each written straight into the output."""

    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.d_head = d_model // n_heads
        self.c_attn = nn.Linear(d_model, 3 * d_model)
        self.c_proj = nn.Linear(d_model, d_model)
        self.register_buffer("scale", torch.tensor(self.d_head**-0.5))

    def forward(self, x, mask=None):
        """Sum what each head writes through its columns of c_proj."""
        q, k, v = self.c_attn(x).split(x.shape[-1], dim=2)
        bias = torch.zeros(1, 1, 1, 1, dtype=x.dtype)
        if mask is not None:
            mask = mask.expand(x.shape[0], self.n_heads, *mask.shape[-2:])
            bias = torch.zeros(mask.shape, dtype=x.dtype)
            bias = bias.masked_fill(mask.logical_not(), -math.inf)
        bias = bias.expand(x.shape[0], self.n_heads, -1, -1)
        out = self.c_proj.bias.expand_as(x)
        all_weights = []
        for head in range(self.n_heads):
            own = slice(head * self.d_head, (head + 1) * self.d_head)
            scores = q[..., own] @ k[..., own].transpose(1, 2)
            weights = (scores * self.d_head**-0.5 + bias[:, head]).softmax(-1)
            weights = weights.nan_to_num(0.0)
            out = out + F.linear(
                weights @ v[..., own], self.c_proj.weight[:, own]
            )
            all_weights.append(weights)
        return out, torch.stack(all_weights, dim=1)


class MultiHeadBySDPA(nn.Module):
    """Let PyTorch attend; its weights are its output for values of one."""

    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.c_attn = nn.Linear(d_model, 3 * d_model)
        self.c_proj = nn.Linear(d_model, d_model)

    def forward(self, x, mask=None):
        """Call PyTorch's attention twice, on (B, H, T, D)."""
        batch, tokens, width = x.shape
        sizes = (batch, tokens, self.n_heads, width // self.n_heads)
        q, k, v = self.c_attn(x).split(width, dim=-1)
        q = q.view(sizes).transpose(1, 2)
        k = k.view(sizes).transpose(1, 2)
        v = v.view(sizes).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        ones = torch.eye(tokens, dtype=x.dtype, device=x.device)
        ones = ones.expand(batch, self.n_heads, tokens, tokens)
        weights = F.scaled_dot_product_attention(q, k, ones, attn_mask=mask)
        out = out.transpose(1, 2).contiguous().view(batch, tokens, width)
        return self.c_proj(out), weights


class BlockStepByStep(reference.TransformerBlock):
    """GELU written out, the mask by ``tril``, weights copied one by one."""

    def forward(self, x):
        """Keep every step in a variable of its own."""
        tokens = x.size(1)
        ones = torch.ones(tokens, tokens, device=x.device)
        mask = torch.tril(ones).bool()[None, None]
        attended, weights = self.attn(self.ln_1(x), mask=mask)
        middle = x + attended
        h = F.linear(
            self.ln_2(middle),
            self.mlp["c_fc"].weight,
            self.mlp["c_fc"].bias,
        )
        inner = math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)
        h = 0.5 * h * (1 + torch.tanh(inner))
        return middle + self.mlp["c_proj"](h), weights

    def load_gpt2(self, state):
        """Copy into the parameters, turning those of the projections."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                value = state[name]
                if "ln" not in name and name.endswith("weight"):
                    value = value.transpose(0, 1)
                parameter.copy_(value)


class BlockWithSubmodules(nn.Module):
    """Registers an activation and a dropout that is off, and loads by name."""

    def __init__(self, d_model, n_heads):
        super().__init__()
        self.ln_1 = nn.LayerNorm(d_model)
        self.attn = MultiHeadByLoop(d_model, n_heads)
        self.ln_2 = nn.LayerNorm(d_model)
        self.mlp = nn.ModuleDict(
            {
                "c_fc": nn.Linear(d_model, 4 * d_model),
                "c_proj": nn.Linear(4 * d_model, d_model),
                "gelu": nn.GELU(approximate="tanh"),
            }
        )
        self.dropout = nn.Dropout(0.0)

    def forward(self, x):
        """Write both branches as one sum each."""
        places = torch.arange(x.shape[1])
        mask = (places[None, :] - places[:, None]) < 1
        out, weights = self.attn(self.ln_1(x), mask)
        x = self.dropout(out) + x
        h = self.mlp.gelu(self.mlp.c_fc(self.ln_2(x)))
        return self.dropout(self.mlp.c_proj(h)) + x, weights

    def load_gpt2(self, state):
        """Replace every parameter by a new one."""
        layers = {
            "attn.c_attn": self.attn.c_attn,
            "attn.c_proj": self.attn.c_proj,
            "mlp.c_fc": self.mlp.c_fc,
            "mlp.c_proj": self.mlp.c_proj,
        }
        for name, layer in layers.items():
            weight = state[f"{name}.weight"].detach().clone().mT
            layer.weight = nn.Parameter(weight.contiguous())
            layer.bias = nn.Parameter(state[f"{name}.bias"].detach().clone())
        for name, norm in (("ln_1", self.ln_1), ("ln_2", self.ln_2)):
            norm.weight.data = state[f"{name}.weight"].clone()
            norm.bias.data = state[f"{name}.bias"].clone()


def previous_by_loop(weights):
    """Add the weights up one by one."""
    n_tokens = weights.shape[-1]
    total = torch.zeros(weights.shape[:-2], dtype=weights.dtype)
    for t in range(1, n_tokens):
        total = total + weights[..., t, t - 1]
    return total / (n_tokens - 1)


def previous_by_index(weights):
    """Pick the entries by two lists of positions."""
    t = torch.arange(1, weights.shape[-1])
    return weights[..., t, t - 1].mean(dim=-1)


def previous_by_mask(weights):
    """Multiply by a matrix of ones below the diagonal, and sum."""
    n_tokens = weights.size(-1)
    below = torch.ones(n_tokens - 1, dtype=weights.dtype).diag(-1)
    return (weights * below).sum(dim=(-2, -1)) / below.sum()


def induction_by_loop(weights, period):
    """Collect the weights query by query."""
    found = [
        weights[..., t, t - period + 1]
        for t in range(period, weights.shape[-1])
    ]
    return torch.stack(found).mean(dim=0)


def induction_by_gather(weights, period):
    """Cut the first round away, then gather one key a query."""
    later = weights[..., period:, :]  # (..., T - period, T)
    keys = torch.arange(1, later.shape[-2] + 1)
    keys = keys.unsqueeze(-1).expand(*later.shape[:-1], 1)
    return later.gather(-1, keys).squeeze(-1).mean(-1)


def induction_by_einsum(weights, period):
    """Take the trace of the square that begins at the second round."""
    n_queries = weights.shape[-1] - period
    square = weights[..., period:, 1 : n_queries + 1]
    return torch.einsum("...tt->...", square) / n_queries


ALTERNATIVES = {
    "split_heads": [
        split_by_view_and_permute,
        split_by_chunks,
        split_by_index,
    ],
    "merge_heads": [merge_by_cat, merge_by_contiguous_view, merge_in_place],
    "MultiHeadAttention": [
        MultiHeadByEinsum,
        MultiHeadByLoop,
        MultiHeadBySDPA,
    ],
    "TransformerBlock": [BlockStepByStep, BlockWithSubmodules],
    "previous_token_score": [
        previous_by_loop,
        previous_by_index,
        previous_by_mask,
    ],
    "induction_score": [
        induction_by_loop,
        induction_by_gather,
        induction_by_einsum,
    ],
}
