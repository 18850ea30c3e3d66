"""Checks of chapter 09; a student does not see the hidden lines."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from contextlab.checks import assert_close, assert_same
from contextlab.deepseek import DeepSeek
from contextlab.spies import Watch
from solutions.mla import (
    MultiHeadLatentAttention,
    absorbed_decode,
    grouped_query_attention,
    mha_to_gqa,
    mla_cache_bytes,
)


def test_gqa_reads_its_own_group():
    """Neighbouring query heads read the same head of values."""
    torch.manual_seed(1)
    q = torch.randn(1, 6, 2, 5, dtype=torch.float64)
    k = torch.randn(1, 3, 4, 5, dtype=torch.float64)
    v = torch.arange(3.0, dtype=torch.float64).view(1, 3, 1, 1)
    v = v.repeat(1, 1, 4, 1)  # head g says g, whatever is attended to
    output = grouped_query_attention(q, k, v)
    says = torch.tensor([0, 0, 1, 1, 2, 2], dtype=torch.float64)
    says = says.view(1, 6, 1, 1).repeat(1, 1, 2, 1)
    assert_close(output, says, "what the 6 heads read, where head g says g,")
    ### BEGIN HIDDEN TESTS
    q = torch.randn(2, 12, 3, 5, dtype=torch.float64)
    for n_shared in (1, 2, 3, 4, 6, 12):
        k = torch.randn(2, n_shared, 4, 5, dtype=torch.float64)
        v = torch.arange(n_shared, dtype=torch.float64)
        v = v.view(1, -1, 1, 1).repeat(2, 1, 4, 2)
        says = v[:, :, :3].repeat_interleave(12 // n_shared, 1)
        output = grouped_query_attention(q, k, v)
        assert_close(output, says, f"what 12 heads read, G = {n_shared},")
    try:
        grouped_query_attention(q, k[:, :5], v[:, :5])
    except ValueError:
        return
    except (AssertionError, RuntimeError):  # the answer's own, or PyTorch's
        pass
    raise AssertionError("12 heads can't share 5: raise a ValueError.")
    ### END HIDDEN TESTS


def test_gqa_equals_pytorch():
    """The output is that of PyTorch's own grouped-query attention."""
    torch.manual_seed(2)
    q = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    k = torch.randn(2, 2, 7, 5, dtype=torch.float64)
    v = torch.randn(2, 2, 7, 3, dtype=torch.float64)
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    output = grouped_query_attention(q, k, v)
    assert_close(output, expected, "the output of 6 heads sharing 2")
    ### BEGIN HIDDEN TESTS
    for n_shared, n_queries, n_keys in ((1, 4, 4), (3, 1, 9), (6, 5, 5)):
        for dtype in (torch.float64, torch.float32):
            q = torch.randn(2, 6, n_queries, 5, dtype=dtype)
            k, v = torch.randn(2, 2, n_shared, n_keys, 5, dtype=dtype)
            expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            kept = [x.clone() for x in (q, k, v)]
            output = grouped_query_attention(q, k, v)
            case = f"G = {n_shared}, T = {n_queries}, S = {n_keys}, {dtype},"
            assert_close(output, expected, f"the output, {case}")
            for name, x, old in zip("qkv", (q, k, v), kept, strict=True):
                assert_close(x, old, f"{name}, which must not change,")
    turned = q.transpose(1, 2).contiguous().transpose(1, 2)
    output = grouped_query_attention(turned, k, v)
    assert_close(output, expected, "the output for heads as split_heads cuts")
    ### END HIDDEN TESTS


def test_gqa_obeys_the_mask():
    """True = may attend, for each query of each head."""
    torch.manual_seed(3)
    q = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    k, v = torch.randn(2, 2, 2, 4, 5, dtype=torch.float64)
    causal = torch.ones(4, 4, dtype=torch.bool).tril()
    expected = F.scaled_dot_product_attention(q, k, v, causal, enable_gqa=True)
    output = grouped_query_attention(q, k, v, causal)
    assert_close(output, expected, "the output under a causal mask")
    ### BEGIN HIDDEN TESTS
    padding = torch.tensor([[True] * 4, [True, True, False, False]])
    any_heads = torch.rand(2, 6, 4, 4) > 0.4
    nothing = causal.clone()
    nothing[1] = False
    masks = [causal[None, None], padding[:, None, None], nothing]
    masks += [any_heads, any_heads[:1], any_heads[0], any_heads[:, :1]]
    for mask in masks:
        expected = F.scaled_dot_product_attention(
            q, k.repeat_interleave(3, 1), v.repeat_interleave(3, 1), mask
        )
        kept = mask.clone()
        output = grouped_query_attention(q, k, v, mask=mask)
        case = f"mask {tuple(mask.shape)},"
        assert not output.isnan().any(), (
            "A query that may attend to nothing gets zeros, not NaN."
        )
        assert_close(output, expected, f"the output, {case}")
        assert_close(mask, kept, f"the mask itself, {case}")
    low = k - 40 * q.sum((0, 1, 2))
    expected = F.scaled_dot_product_attention(
        q, low, v, causal, enable_gqa=True
    )
    output = grouped_query_attention(q, low, v, causal)
    assert_close(output, expected, "the output where scores are very low")
    ### END HIDDEN TESTS


def test_gqa_makes_no_copies():
    """The keys and values are not copied for each query head."""
    torch.manual_seed(4)
    q = torch.randn(2, 24, 1, 9, dtype=torch.float64)
    k, v = torch.randn(2, 2, 3, 100, 9, dtype=torch.float64)
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    with Watch() as seen:
        output = grouped_query_attention(q, k, v)
    assert_close(output, expected, "the output of 24 heads sharing 3")
    n_bytes = k.numel() * k.element_size()
    assert seen.largest <= 3 * n_bytes, (
        f"The keys take {n_bytes:,} bytes, but you make a tensor of "
        f"{seen.largest:,}: a copy for each of the 24 query heads. That moves "
        "all the bytes again that sharing was to save. Lay the queries of a "
        "group one below the other instead, as more rows of one matrix."
    )


def test_mha_to_gqa_by_hand():
    """Four heads of width 2 become two: each the mean of two neighbours."""
    weight = torch.tensor(
        [[1.0, 10.0], [2.0, 20.0],  # head 0: two rows, C = 2
         [3.0, 30.0], [4.0, 40.0],  # head 1
         [5.0, 50.0], [6.0, 60.0],  # head 2
         [9.0, 90.0], [8.0, 80.0]], dtype=torch.float64
    )  # fmt: skip
    expected = torch.tensor(
        [[2.0, 20.0], [3.0, 30.0], [7.0, 70.0], [7.0, 70.0]],
        dtype=torch.float64,
    )
    assert_close(mha_to_gqa(weight, 4, 2), expected, "mha_to_gqa(w, 4, 2)")


def test_mha_to_gqa_of_any_size():
    """Heads that are alike lose nothing, and others become their mean."""
    torch.manual_seed(5)
    few = torch.randn(3, 5, 7, dtype=torch.float64)  # (G, D, C)
    alike = few.repeat_interleave(4, 0).flatten(0, 1)  # 12 heads
    merged = mha_to_gqa(alike, 12, 3)
    assert_close(merged, few.flatten(0, 1), "what 3 times 4 like heads become")
    ### BEGIN HIDDEN TESTS
    for dtype in (torch.float64, torch.float32):
        weight = torch.randn(60, 7, dtype=dtype)
        kept = weight.clone()
        for n_shared in (1, 2, 3, 4, 6, 12):
            size = 60 // n_shared  # rows of a group
            groups = [
                sum(
                    weight[g * size + h : g * size + h + 5]
                    for h in range(0, size, 5)
                )
                * (n_shared / 12)
                for g in range(n_shared)
            ]
            merged = mha_to_gqa(weight, 12, n_shared)
            case = f"12 heads in {n_shared} groups"
            assert_close(merged, torch.cat(groups), f"{case}, merged,")
            assert_close(weight, kept, "the weight, which must not change,")
    turned = torch.randn(7, 60, dtype=torch.float64).T
    expected = turned.reshape(2, 6, 5, 7).mean(1).reshape(10, 7)
    assert_close(mha_to_gqa(turned, 12, 2), expected, "12 heads of a view")
    try:
        mha_to_gqa(weight, 12, 5)
    except ValueError:
        return
    except (AssertionError, RuntimeError):  # the answer's own, or PyTorch's
        pass
    raise AssertionError(
        "12 heads don't make 5 equal groups: raise a ValueError."
    )
    ### END HIDDEN TESTS


def _tokens(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def test_compress_keeps_what_deepseek_keeps():
    """A token leaves its normalised latent and its rotated RoPE key."""
    torch.manual_seed(6)
    theirs = DeepSeek()
    ours = theirs.twin(MultiHeadLatentAttention)
    x = _tokens(2, 6, 21)
    _, expected = theirs(x)
    kept = ours.compress(x.clone(), torch.arange(6))
    assert isinstance(kept, Tensor), "compress should return a tensor."
    shape = tuple(kept.shape)
    assert shape == (2, 6, 17), (
        "A latent of width 11 and a RoPE key of width 6 make a cache of shape "
        f"(2, 6, 17) for 2 texts of 6 tokens, but yours has {shape}."
    )
    assert_close(kept[..., :11], expected[..., :11], "the latent part", 1e-5)
    assert_close(kept[..., 11:], expected[..., 11:], "the RoPE part", 1e-5)
    ### BEGIN HIDDEN TESTS
    later = ours.compress(x[:, 4:].clone(), torch.arange(4, 6))
    what = "the cache of tokens 4 and 5, compressed on their own,"
    assert_close(later, expected[:, 4:], what, 1e-5)
    places = [0, 2, 5]
    some = ours.compress(x[:, places].clone(), torch.tensor(places))
    what = "the cache of tokens at the positions 0, 2 and 5"
    assert_close(some, expected[:, places], what, 1e-5)
    _, small = theirs(1e-4 * x)  # the norm adds its eps to the mean square
    small_kept = ours.compress(1e-4 * x, torch.arange(6))
    assert_close(small_kept, small, "the cache of very small tokens", 1e-5)
    _, far = theirs(torch.cat([_tokens(2, 300, 21), x], 1))
    far_kept = ours.compress(x.clone(), torch.arange(300, 306))
    assert_close(far_kept, far[:, 300:], "the cache at position 300", 1e-4)
    theirs = DeepSeek(10, 2, q_latent=5, kv_latent=6, nope=4, rope=6, value=7)
    ours = theirs.twin(MultiHeadLatentAttention)
    x = _tokens(1, 3, 10)
    _, expected = theirs(x)
    kept = ours.compress(x, torch.arange(3))
    assert_close(kept, expected, "the cache where both parts are 6 wide", 1e-5)
    ### END HIDDEN TESTS


def test_latent_attention_equals_deepseek():
    """With DeepSeek's weights, the output is DeepSeek's."""
    torch.manual_seed(7)
    theirs = DeepSeek()
    ours = theirs.twin(MultiHeadLatentAttention)
    x = _tokens(2, 6, 21)
    expected, kept = theirs(x)
    answer = ours(x.clone())
    pair = isinstance(answer, tuple | list) and len(answer) == 2
    assert pair, "forward should return two things: the output and the cache."
    assert_close(answer[0], expected, "the output", 1e-5)
    assert_close(answer[1], kept, "the cache that is returned with it", 1e-5)
    ### BEGIN HIDDEN TESTS
    x = _tokens(2, 6, 21)
    expected, kept = theirs(x)
    output, cache = ours(x.clone())
    case = "of a second text, as long as the first,"
    assert_close(output, expected, f"the output {case}", 1e-5)
    assert_close(cache, kept, f"the cache {case}", 1e-5)
    for heads, nope, rope, value in ((1, 3, 2, 9), (2, 6, 6, 6), (4, 9, 4, 3)):
        theirs = DeepSeek(12, heads, nope=nope, rope=rope, value=value)
        ours = theirs.twin(MultiHeadLatentAttention)
        for n_tokens in (1, 9):
            x = _tokens(3, n_tokens, 12)
            expected, kept = theirs(x)
            output, cache = ours(x.clone())
            case = f"H = {heads}, T = {n_tokens},"
            assert_close(output, expected, f"the output, {case}", 1e-5)
            assert_close(cache, kept, f"the cache, {case}", 1e-5)
    x.requires_grad_()
    weights = dict(ours.named_parameters()) | {"x": x}
    loss = ours(x)[0].square().sum()
    grads = torch.autograd.grad(
        loss, list(weights.values()), allow_unused=True
    )
    for name, grad in zip(weights, grads, strict=True):
        assert grad is not None, (
            f"No gradient reaches {name}, so nothing can be trained through "
            "it: compute with tensors from the first line to the last."
        )
    ### END HIDDEN TESTS


def test_latent_attention_hides_the_future():
    """A token's output does not change when a later token does."""
    torch.manual_seed(8)
    ours = DeepSeek().twin(MultiHeadLatentAttention)
    x = _tokens(2, 5, 21)
    before, _ = ours(x.clone())
    for t in range(1, 5):
        changed = x.clone()
        changed[:, t] += 1.0
        assert_close(
            ours(changed)[0][:, :t],
            before[:, :t],
            f"the output of the first {t} tokens, after the next one changed,",
        )
    ### BEGIN HIDDEN TESTS
    theirs = DeepSeek()
    with torch.no_grad():
        theirs.layer.q_b_proj.weight *= 1e6  # and so all scores
    ours = theirs.twin(MultiHeadLatentAttention)
    before, _ = ours(x.clone())
    for t in range(1, 5):
        changed = x.clone()
        changed[:, t] -= 1.0
        what = f"the first {t} outputs where scores are large, after token {t}"
        assert_close(
            ours(changed)[0][:, :t], before[:, :t], f"{what} changed,"
        )
    ### END HIDDEN TESTS


def _attend_naively(
    q_nope: Tensor, q_rope: Tensor, cache: Tensor, kv_b: Tensor
) -> Tensor:
    """Make all keys and values of all heads, then let PyTorch attend."""
    n_heads, nope = q_nope.shape[1:]
    width = kv_b.shape[1]
    made = cache[..., :width] @ kv_b.T  # (B, S, H·(N + E))
    made = made.reshape(*made.shape[:2], n_heads, -1).transpose(1, 2)
    rope_key = cache[:, None, :, width:].repeat(1, n_heads, 1, 1)
    q = torch.cat([q_nope, q_rope], -1)[:, :, None]
    k = torch.cat([made[..., :nope], rope_key], -1)
    v = made[..., nope:]
    return F.scaled_dot_product_attention(q, k, v)[:, :, 0]


def _draw(batch, heads, keys, nope, rope, latent, value, dtype):
    """Draw what absorbed_decode is given."""
    return (
        torch.randn(batch, heads, nope, dtype=dtype),
        torch.randn(batch, heads, rope, dtype=dtype),
        torch.randn(batch, keys, latent + rope, dtype=dtype),
        torch.randn(heads * (nope + value), latent, dtype=dtype)
        / math.sqrt(latent),
    )


def test_absorbed_equals_naive():
    """Attention to latents gives what attention to all keys gives."""
    torch.manual_seed(9)
    given = _draw(2, 3, 8, 7, 6, 11, 5, torch.float64)
    expected = _attend_naively(*given)
    read = absorbed_decode(*(x.clone() for x in given))
    assert_close(read, expected, "what the heads read")
    ### BEGIN HIDDEN TESTS
    sharp = [3_000 * given[0], 3_000 * given[1], *given[2:]]
    read = absorbed_decode(*sharp)
    what = "what the heads read where scores are in the thousands"
    assert_close(read, _attend_naively(*sharp), what)
    for sizes in (
        (1, 1, 1, 3, 2, 5, 4),
        (3, 2, 6, 5, 5, 5, 5),
        (2, 4, 9, 3, 4, 6, 13),
        (1, 5, 40, 9, 2, 3, 4),
    ):
        for dtype in (torch.float64, torch.float32):
            given = _draw(*sizes, dtype)
            expected = _attend_naively(*given)
            kept = [x.clone() for x in given]
            read = absorbed_decode(*given)
            case = f"(B, H, S, N, R, L, E) = {sizes}, {dtype},"
            assert_close(read, expected, f"what the heads read, {case}")
            for x, old in zip(given, kept, strict=True):
                assert_close(x, old, "an input, which must not change,")
    ### END HIDDEN TESTS


def test_absorbed_decodes_as_deepseek_does():
    """The last token's output is DeepSeek's, out of its own cache."""
    torch.manual_seed(10)
    theirs = DeepSeek()
    ours = theirs.twin(MultiHeadLatentAttention)
    x = _tokens(2, 6, 21)
    output, cache = theirs(x)
    q_nope, q_rope = ours.queries(x[:, 5:].clone(), torch.tensor([5]))
    read = absorbed_decode(
        q_nope[:, :, 0].detach(),
        q_rope[:, :, 0].detach(),
        cache,
        theirs.layer.kv_b_proj.weight.detach().clone(),
    )
    fits = isinstance(read, Tensor) and read.shape == (2, 3, 5)
    assert fits, (
        "What 3 heads of 2 texts read, with values of width 5, should be a "
        "tensor of shape (2, 3, 5)."
    )
    decoded = theirs.layer.o_proj(read.flatten(1))
    assert_close(decoded, output[:, 5], "the output of the last token", 1e-5)


def test_absorbed_holds_the_latents_only():
    """No keys, no values and no copy of the cache for each head."""
    torch.manual_seed(11)
    given = _draw(2, 12, 100, 9, 4, 10, 8, torch.float64)
    expected = _attend_naively(*given)
    cache = given[2].numel() * given[2].element_size()
    with Watch() as seen:
        read = absorbed_decode(*given)
    assert_close(read, expected, "what the heads read")
    assert seen.largest <= 2 * cache, (
        f"The cache takes {cache:,} bytes, but you make a tensor of "
        f"{seen.largest:,}. The heads' keys and values are never needed: "
        "bring each query to the latents, and the latents' average back."
    )
    ### BEGIN HIDDEN TESTS
    given = _draw(1, 2, 500, 64, 2, 4, 64, torch.float64)  # wide heads
    cache = given[2].numel() * given[2].element_size()
    with Watch() as seen:
        read = absorbed_decode(*given)
    assert_close(read, _attend_naively(*given), "what two wide heads read")
    assert seen.largest <= 2 * cache, (
        f"The cache of 500 tokens takes {cache:,} bytes, but you make a "
        f"tensor of {seen.largest:,}, which is as much as the keys or values "
        "of a head take. None are needed, not even one head at a time."
    )
    ### END HIDDEN TESTS


def test_mla_cache_bytes_by_hand():
    """Three tokens, two layers, four heads of width 5: by hand."""
    # A token in a layer: 4 heads, a key and a value of 5 each, makes 40; a
    # latent of 6 and a RoPE key of 2 makes 8. Times 3 tokens, 2 layers.
    got = mla_cache_bytes(3, 2, 4, 5, 6, 2, bytes_per_number=1)
    assert_same(got, (240, 48), "the bytes, at one byte a number,")
    got = mla_cache_bytes(3, 2, 4, 5, 6, 2)
    assert_same(got, (480, 96), "the bytes, at two bytes a number,")


def test_mla_cache_bytes_of_deepseek():
    """A token of DeepSeek-V2 keeps 576 numbers a layer, not 32,768."""
    got = mla_cache_bytes(1, 1, 128, 128, 512, 64, bytes_per_number=1)
    assert_same(got, (32_768, 576), "the numbers of a token in a layer")
    ### BEGIN HIDDEN TESTS
    got = mla_cache_bytes(1, 1, 128, 128, 512, 0, bytes_per_number=1)
    assert_same(got, (32_768, 512), "the numbers without a RoPE key")
    got = mla_cache_bytes(131_072, 60, 128, 128, 512, 64)
    expected = (131_072 * 60 * 65_536, 131_072 * 60 * 1_152)
    assert_same(got, expected, "the bytes of 131,072 tokens of DeepSeek-V2")
    n = 2**54 + 1  # one more than a float can tell apart
    got = mla_cache_bytes(n, 1, 1, 1, 1, 2, 4)
    assert_same(got, (8 * n, 12 * n), "the bytes of 2⁵⁴ + 1 tokens")
    ### END HIDDEN TESTS
