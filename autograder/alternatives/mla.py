"""Right answers of chapter 09 that go another way than the reference."""

import math

import torch
import torch.nn.functional as F

from solutions import mla as reference


def gqa_by_einsum(q, k, v, mask=None):
    """Give the group a dimension of its own, and name all of them."""
    batch, n_heads, n_queries, width = q.shape
    n_shared = k.size(1)
    if n_heads % n_shared != 0:
        raise ValueError("some heads would have no group")
    grouped = q.view(batch, n_shared, n_heads // n_shared, n_queries, width)
    scores = torch.einsum("bgrtd,bgsd->bgrts", grouped, k) * width**-0.5
    scores = scores.flatten(1, 2)
    if mask is not None:
        scores = torch.where(mask, scores, -math.inf)
    weights = torch.softmax(scores, -1).nan_to_num(0.0)
    weights = weights.unflatten(1, (n_shared, -1))
    output = torch.einsum("bgrts,bgse->bgrte", weights, v)
    return output.reshape(batch, n_heads, n_queries, v.shape[-1])


def gqa_by_sdpa(q, k, v, mask=None):
    """Let PyTorch share the heads."""
    if q.shape[1] % k.shape[1]:
        raise ValueError("PyTorch would raise a RuntimeError")
    return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)


def gqa_head_by_head(q, k, v, mask=None):
    """Loop over the query heads, each with a view of its keys."""
    n_heads, n_keys = q.shape[1], k.shape[2]
    each, rest = divmod(n_heads, k.shape[1])
    if rest:
        raise ValueError("the groups differ in size")
    if mask is not None:
        mask = mask.expand(q.shape[0], n_heads, q.shape[2], n_keys)
    outputs = []
    for h in range(n_heads):
        scores = q[:, h] @ k[:, h // each].transpose(1, 2)
        scores = scores / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask[:, h], float("-inf"))
        weights = scores.softmax(-1).nan_to_num()
        outputs.append(weights @ v[:, h // each])
    return torch.stack(outputs, 1)


def pool_by_loop(weight, n_heads, n_shared):
    """Add the heads of each group up, one by one."""
    heads = weight.chunk(n_heads)
    each = n_heads // n_shared
    if each * n_shared != n_heads:
        raise ValueError("no equal groups")
    groups = [heads[i : i + each] for i in range(0, n_heads, each)]
    return torch.cat([sum(group) / each for group in groups])


def pool_by_matrix(weight, n_heads, n_shared):
    """Multiply by a matrix that averages."""
    each, rest = divmod(n_heads, n_shared)
    if rest:
        raise ValueError("heads are left over")
    width = weight.shape[0] // n_heads
    ones = torch.ones(1, each, dtype=weight.dtype) / each
    to_groups = torch.block_diag(*[ones] * n_shared)  # (G, H)
    return torch.kron(to_groups, torch.eye(width, dtype=weight.dtype)) @ weight


class LatentByEinsum(reference.MultiHeadLatentAttention):
    """Name every index, and never join the two parts of a key."""

    def compress(self, x, positions):
        """Slice, and write both parts into an empty tensor."""
        joint = self.kv_a_proj_with_mqa(x)
        kept = torch.empty_like(joint)
        width = self.kv_latent
        kept[..., :width] = self.kv_a_layernorm(joint[..., :width])
        kept[..., width:] = reference.rotate_pairs(
            joint[..., width:], positions
        )
        return kept

    def forward(self, x):
        """Add two kinds of scores."""
        batch, n_tokens, _ = x.size()
        places = torch.arange(n_tokens)
        q_nope, q_rope = self.queries(x, places)
        cache = self.compress(x, places)
        latent, rope_key = (
            cache[..., : self.kv_latent],
            cache[..., -self.rope :],
        )
        made = self.kv_b_proj(latent)
        made = made.view(batch, n_tokens, self.n_heads, -1)
        k, v = made[..., : self.nope], made[..., self.nope :]
        scores = torch.einsum("bhtn,bshn->bhts", q_nope, k)
        scores = scores + torch.einsum("bhtr,bsr->bhts", q_rope, rope_key)
        future = torch.ones(n_tokens, n_tokens, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -math.inf)
        weights = (scores / (self.nope + self.rope) ** 0.5).softmax(-1)
        output = torch.einsum("bhts,bshe->bthe", weights, v)
        return self.o_proj(output.flatten(2)), cache


class LatentBySDPA(reference.MultiHeadLatentAttention):
    """Rotate by complex numbers, and let PyTorch attend."""

    def compress(self, x, positions):
        """Multiply by e to the i times the angle."""
        latent, rope_key = torch.tensor_split(
            self.kv_a_proj_with_mqa(x), [self.kv_latent], dim=2
        )
        pairs = torch.view_as_complex(
            rope_key.unflatten(-1, (-1, 2)).contiguous()
        )
        i = torch.arange(self.rope // 2, dtype=x.dtype)
        angles = torch.outer(
            positions.to(x.dtype), 1e4 ** (-2 * i / self.rope)
        )
        turned = pairs * torch.polar(torch.ones_like(angles), angles)
        rope_key = torch.view_as_real(turned).flatten(-2)
        norm = self.kv_a_layernorm
        scale = latent.square().mean(-1, keepdim=True) + 1e-6
        return torch.cat((latent * scale.rsqrt() * norm.weight, rope_key), 2)

    def forward(self, x):
        """Absorb the key projection already while reading the prompt."""
        n_tokens = x.shape[1]
        q_nope, q_rope = self.queries(x, torch.arange(n_tokens))
        cache = self.compress(x, torch.arange(n_tokens))
        per_head = self.kv_b_proj.weight.unflatten(0, (self.n_heads, -1))
        to_key, to_value = per_head.split([self.nope, self.value], 1)
        q = torch.cat([q_nope @ to_key, q_rope], -1)  # (B, H, T, L + R)
        kept = cache[:, None].expand(-1, self.n_heads, -1, -1)
        read = F.scaled_dot_product_attention(
            q,
            kept,
            kept[..., : self.kv_latent],
            is_causal=True,
            scale=(self.nope + self.rope) ** -0.5,
        )
        heads = read @ to_value.mT  # (B, H, T, E)
        return self.o_proj(heads.transpose(1, 2).flatten(2)), cache


def absorb_head_by_head(q_nope, q_rope, cache, kv_b):
    """Loop over the heads, with vectors only."""
    n_heads, nope = q_nope.shape[1], q_nope.shape[2]
    width = kv_b.shape[1]
    latent, rope_key = cache[:, :, :width], cache[:, :, width:]
    outputs = []
    for h, rows in enumerate(kv_b.chunk(n_heads)):
        query = q_nope[:, h] @ rows[:nope]  # (B, L)
        scores = latent @ query[:, :, None] + rope_key @ q_rope[:, h, :, None]
        weights = (scores[..., 0] / math.sqrt(nope + q_rope.shape[2])).softmax(
            -1
        )
        read = (weights[:, None] @ latent)[:, 0]
        outputs.append(read @ rows[nope:].T)
    return torch.stack(outputs, 1)


def absorb_and_join(q_nope, q_rope, cache, kv_b):
    """Join the query's parts: one product with the cache as it lies."""
    n_heads, nope = q_nope.shape[1:]
    per_head = kv_b.view(n_heads, -1, kv_b.shape[1])
    q_latent = (q_nope[:, :, None] @ per_head[:, :nope])[:, :, 0]
    q = torch.cat([q_latent, q_rope], -1) * (nope + q_rope.size(-1)) ** -0.5
    weights = torch.einsum("bhw,bsw->bhs", q, cache).softmax(-1)
    read = torch.bmm(weights, cache)[..., : kv_b.shape[1]]  # the rest unused
    return torch.einsum("hel,bhl->bhe", per_head[:, nope:], read)


def bytes_token_by_token(
    n_tokens,
    n_layers,
    n_heads,
    head_width,
    kv_latent,
    rope,
    bytes_per_number=2,
):
    """Count what one token keeps in one layer, then multiply."""
    keys = values = n_heads * head_width
    full, latent = keys + values, kv_latent + rope
    return tuple(
        numbers * bytes_per_number * n_layers * n_tokens
        for numbers in (full, latent)
    )


def bytes_as_a_list(
    n_tokens,
    n_layers,
    n_heads,
    head_width,
    kv_latent,
    rope,
    bytes_per_number=2,
):
    """Return a list."""
    token = n_layers * bytes_per_number
    return [
        (token * n_heads * head_width * n_tokens) << 1,
        token * kv_latent * n_tokens + token * rope * n_tokens,
    ]


ALTERNATIVES = {
    "grouped_query_attention": [
        gqa_by_einsum,
        gqa_by_sdpa,
        gqa_head_by_head,
    ],
    "mha_to_gqa": [pool_by_loop, pool_by_matrix],
    "MultiHeadLatentAttention": [LatentByEinsum, LatentBySDPA],
    "absorbed_decode": [absorb_head_by_head, absorb_and_join],
    "mla_cache_bytes": [bytes_token_by_token, bytes_as_a_list],
}
