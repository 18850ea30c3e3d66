"""Checks of chapter 08; a student does not see the hidden lines."""

import torch
import torch.nn.functional as F
from torch import Tensor

from contextlab.caching import Llama, PlainTexts, held_bytes
from contextlab.checks import assert_close, assert_same, refuses
from solutions.kvcache import (
    KVCache,
    PagedKVCache,
    RollingKVCache,
    dequantize_kv,
    greedy_decode,
    kv_cache_bytes,
    quantize_kv,
)


def test_cache_bytes_by_hand():
    """A token of OPT-13B takes 800 KiB; the big model's 200K take 1.26 TB."""
    token = kv_cache_bytes(1, n_layers=40, n_heads=40, width=128)
    assert_same(token, 819_200, "the bytes of a token of OPT-13B")
    big = kv_cache_bytes(200_000, n_layers=96, n_heads=128, width=128)
    assert_same(big, 1_258_291_200_000, "the bytes of the big model's tokens")
    ### BEGIN HIDDEN TESTS
    # Independently: make one layer's keys, without memory, and weigh them.
    k = torch.empty(3, 6, 11, 10, dtype=torch.float32, device="meta")
    got = kv_cache_bytes(11, 5, 6, 10, batch=3, bits=32)
    assert_same(got, 5 * 2 * k.nbytes, "the bytes of 3 texts in float32")
    got = kv_cache_bytes(10**15, 2, 3, 7)
    assert_same(got, 168 * 10**15, "the bytes of 10¹⁵ tokens")
    assert_same(kv_cache_bytes(0, 5, 6, 10), 0, "the bytes of no tokens")
    ### END HIDDEN TESTS


def test_cache_bytes_of_shared_heads():
    """128K tokens of Llama 3.1 8B, with 8 KV heads of 32, take 16 GiB."""
    llama = {"n_layers": 32, "n_heads": 32, "width": 128, "n_kv_heads": 8}
    got = kv_cache_bytes(131_072, **llama)
    assert_same(got, 16 * 2**30, "the bytes of Llama 3.1 8B")
    got = kv_cache_bytes(131_072, **llama, bits=4)
    assert_same(got, 4 * 2**30, "the bytes of Llama 3.1 8B in 4 bits")
    ### BEGIN HIDDEN TESTS
    for n_kv_heads in (1, 2, 6):
        k = torch.empty(n_kv_heads, 9, 10, dtype=torch.float16, device="meta")
        got = kv_cache_bytes(9, 4, 6, 10, n_kv_heads)
        assert_same(got, 8 * k.nbytes, f"the bytes of {n_kv_heads} KV heads")
    got = kv_cache_bytes(1, 1, 1, 1, bits=3)
    assert_same(got, 1, "the bytes of 6 bits")
    got = kv_cache_bytes(3, 1, 1, 1, bits=3)
    assert_same(got, 3, "the bytes of 18 bits")
    # 450 numbers, 1350 bits: not 34 bytes a token, nor 57 a layer.
    got = kv_cache_bytes(5, 3, 3, 5, bits=3)
    assert_same(got, 169, "the bytes of 1350 bits, rounded up in the end,")
    got = kv_cache_bytes(1, 1, 1, 1, batch=3, bits=5)
    assert_same(got, 4, "the bytes of 3 texts of 10 bits, rounded up once,")
    big = kv_cache_bytes(10**17 + 1, 1, 1, 1, bits=4)
    assert_same(big, 10**17 + 1, "the bytes of 2·(10¹⁷ + 1) numbers of 4 bits")
    for n_kv_heads in (4, 12):
        assert refuses(kv_cache_bytes, 1, 1, 6, 1, n_kv_heads), (
            f"6 query heads can't share {n_kv_heads} KV heads evenly: "
            "kv_cache_bytes should raise a ValueError."
        )
    ### END HIDDEN TESTS


def _assert_pair(got: object, method: str) -> None:
    """Assert that a method has returned keys and values."""
    is_pair = isinstance(got, tuple | list) and len(got) == 2
    assert is_pair, f"{method} should return two things, keys and values."


def test_cache_returns_all_so_far():
    """After 3, 1 and 2 tokens it returns 6, the oldest first."""
    torch.manual_seed(1)
    k = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    v = torch.randn(2, 3, 6, 4, dtype=torch.float64)
    k_right, v_right = k.clone(), v.clone()
    cache = KVCache()
    assert_same(len(cache), 0, "the length of a new cache")
    for start, end in ((0, 3), (3, 4), (4, 6)):
        new = slice(start, end)
        got = cache.update(k[:, :, new].clone(), v[:, :, new].clone())
        _assert_pair(got, "update")
        what = f"of {end} tokens"
        assert_close(got[0], k_right[:, :, :end], f"the keys {what}")
        assert_close(got[1], v_right[:, :, :end], f"the values {what}")
        assert_same(len(cache), end, "the length of the cache")
    ### BEGIN HIDDEN TESTS
    for dtype in (torch.float32, torch.float16):
        cache = KVCache()
        for t in range(3):
            got = cache.update(
                k[:1, :, t : t + 1].to(dtype), v[:1, :, t : t + 1].to(dtype)
            )
        assert_close(got[0], k_right[:1, :, :3].to(dtype), f"keys of {dtype}")
        assert_close(got[1], v_right[:1, :, :3].to(dtype), "their values")
    ### END HIDDEN TESTS


def test_cache_takes_the_place_of_transformers_own():
    """A Llama with your caches gives the logits that it gives without."""
    torch.manual_seed(2)
    llama = Llama(n_layers=2)
    ids = torch.randint(llama.vocab_size, (2, 9))
    expected = llama.uncached(ids)
    caches = [KVCache() for _ in range(2)]
    parts = []
    for start, end in ((0, 4), (4, 7), (7, 8), (8, 9)):
        positions = torch.arange(start, end)
        parts.append(llama(ids[:, start:end], positions, caches))
    assert_close(torch.cat(parts, 1), expected, "the logits", 1e-5)
    ### BEGIN HIDDEN TESTS
    other = torch.randint(llama.vocab_size, (1, 3))
    expected = llama.uncached(other)
    again = llama(other, torch.arange(3), [KVCache() for _ in range(2)])
    assert_close(again, expected, "the logits of a second text", 1e-5)
    ### END HIDDEN TESTS


def test_greedy_decode_equals_uncached():
    """The tokens are those that the model chooses without any cache."""
    torch.manual_seed(3)
    llama = Llama(n_layers=2)
    prompt = torch.randint(llama.vocab_size, (2, 7))
    expected = prompt
    for _ in range(9):
        best = llama.uncached(expected)[:, -1:].argmax(-1)
        expected = torch.cat([expected, best], 1)
    got = greedy_decode(llama, prompt.clone(), 9, [KVCache(), KVCache()])
    assert_close(got, expected, "the prompt and 9 new tokens")
    ### BEGIN HIDDEN TESTS
    for n_prompt, n_new in ((1, 5), (7, 1), (7, 0)):
        caches = [KVCache(), KVCache()]
        end = n_prompt + n_new
        if n_prompt == 1:  # the first token of the prompt, as a prompt
            one = llama.network.generate(
                prompt[:, :1],
                attention_mask=torch.ones(2, 1),
                max_new_tokens=n_new,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
        else:
            one = expected[:, :end]
        got = greedy_decode(llama, prompt[:, :n_prompt], n_new, caches)
        assert_close(got, one, f"a prompt of {n_prompt} and {n_new} new")
    ### END HIDDEN TESTS


def test_greedy_decode_projects_each_token_once():
    """The prompt goes through the model at once, then one token a step."""
    torch.manual_seed(4)
    llama = Llama(n_layers=2)
    prompt = torch.randint(llama.vocab_size, (3, 8))
    greedy_decode(llama, prompt, 6, [KVCache(), KVCache()])
    projected = [n // 3 for n in llama.projected]  # of each of the 3 texts
    assert projected, "Your function never calls the model."
    assert projected[0] == 8, (
        f"The first call of the model should take the 8 tokens of the prompt, "
        f"but takes {projected[0]}."
    )
    assert max(projected[1:], default=1) == 1, (
        "Keys and values are projected again that are in the cache: after the "
        f"prompt of 8 tokens, your calls take {projected[1:]} tokens. Give "
        "the model the new token alone."
    )
    assert len(projected) == 6, (
        "6 new tokens need 6 calls of the model, but you make "
        f"{len(projected)}: the last new token needn't go through it."
    )
    ### BEGIN HIDDEN TESTS
    caches = [KVCache(), KVCache()]
    greedy_decode(llama, prompt, 4, caches)
    assert len(caches[0]) == 11, (
        "After a prompt of 8 tokens and 4 new ones, the caches that you were "
        f"given should hold 8 + 3 tokens, but hold {len(caches[0])}."
    )
    ### END HIDDEN TESTS


def test_greedy_decode_says_where_each_token_stands():
    """The prompt stands at 0, 1, 2, …, and each new token after it."""
    places = []

    def model(ids: Tensor, positions: Tensor, caches: list) -> Tensor:
        """Let 2 follow 1, 3 follow 2 and so on, and note the positions."""
        assert isinstance(positions, Tensor), "The positions are a tensor."
        assert positions.shape == ids.shape[1:], (
            f"{ids.shape[1]} tokens of each text need positions of shape "
            f"({ids.shape[1]},), not {tuple(positions.shape)}."
        )
        places.append([int(position) for position in positions])
        # Keys and values of one head, one number wide.
        caches[0].update(*torch.zeros(2, len(ids), 1, ids.shape[1], 1))
        return F.one_hot((ids + 1) % 13, 13).double()

    prompts = torch.tensor([[3, 9, 5], [1, 0, 11]])
    got = greedy_decode(model, prompts, 4, [KVCache()])
    right = [[3, 9, 5, 6, 7, 8, 9], [1, 0, 11, 12, 0, 1, 2]]
    assert_close(got, torch.tensor(right), "the prompts and 4 new tokens")
    assert_same(places, [[0, 1, 2], [3], [4], [5]], "the positions")
    ### BEGIN HIDDEN TESTS

    class Short:
        """A cache of the last two tokens, which only counts them."""

        n_kept = 0

        def update(self, keys, _):
            self.n_kept = min(self.n_kept + keys.shape[2], 2)

        def __len__(self):  # never more than two
            return self.n_kept

    places.clear()
    prompts = torch.tensor([[4, 5, 10], [7, 3, 10]])
    got = greedy_decode(model, prompts.clone(), 6, [Short()])
    right = torch.tensor([11, 12, 0, 1, 2, 3]).expand(2, 6)
    right = torch.cat([prompts, right], 1)
    what = "the prompts and 6 new tokens, none of which ends a text,"
    assert_close(got, right, what, 0.0)
    assert places == [[0, 1, 2], [3], [4], [5], [6], [7]], (
        "With a cache that keeps two tokens, your positions are "
        f"{places}. A cache may forget: count the tokens of the text, not "
        "those of the cache."
    )
    ### END HIDDEN TESTS


def test_rolling_cache_keeps_a_window():
    """Of a longer text it returns the last 4 tokens, the oldest first."""
    torch.manual_seed(5)
    k = torch.randn(1, 2, 11, 5, dtype=torch.float64)
    v = torch.randn(1, 2, 11, 3, dtype=torch.float64)
    right = [x.clone() for x in (k, v)]
    cache = RollingKVCache(window=4)
    assert_same(len(cache), 0, "the length of a new cache")
    for t in range(11):
        new = slice(t, t + 1)
        got = cache.update(k[:, :, new].clone(), v[:, :, new].clone())
        kept = slice(max(t - 3, 0), t + 1)
        for x, one, name in zip(got, right, ("keys", "values"), strict=True):
            assert_close(x, one[:, :, kept], f"the {name} at token {t}")
        assert_same(len(cache), min(t + 1, 4), "the length of the cache")
    ### BEGIN HIDDEN TESTS
    # What a query finds there is what it finds under a band of a mask.
    q = torch.randn(1, 2, 11, 5, dtype=torch.float64)
    near = torch.ones(11, 11).tril() - torch.ones(11, 11).tril(-6) > 0
    expected = F.scaled_dot_product_attention(q, *right, near)
    cache = RollingKVCache(window=6)
    for t in range(11):
        new = slice(t, t + 1)
        got = cache.update(right[0][:, :, new], right[1][:, :, new])
        one = F.scaled_dot_product_attention(q[:, :, new], *got)
        assert_close(one, expected[:, :, new], f"attention of token {t}")
    ### END HIDDEN TESTS


def test_rolling_cache_keeps_the_sinks():
    """The first 2 tokens stay for good, each once, before the last 3."""
    tokens = torch.arange(9.0).view(1, 1, 9, 1)
    cache = RollingKVCache(window=3, n_sinks=2)
    for t in range(9):
        one = tokens[:, :, t : t + 1]
        got, values = cache.update(one.clone(), -one)
        right = [n for n in range(t + 1) if n < 2 or n > t - 3]
        expected = torch.tensor(right, dtype=torch.float32).view(1, 1, -1, 1)
        assert_close(got, expected, f"the keys at token {t}")
        assert_close(values, -expected, f"the values at token {t}")
    ### BEGIN HIDDEN TESTS
    torch.manual_seed(6)
    tokens = torch.randn(2, 3, 40, 5, dtype=torch.float64)
    for window, n_sinks in ((4, 3), (1, 1), (7, 0), (2, 9)):
        cache, end = RollingKVCache(window, n_sinks), 0
        for step in (1, 2, 5, 1, 17, 1, 1, 3, 9):
            new = tokens[:, :, end : end + step]
            right = [2 * new, new.clone()]
            end += step
            keep = [t for t in range(end) if t < n_sinks or t >= end - window]
            right = [2 * tokens[:, :, keep], tokens[:, :, keep]]
            got = cache.update(2 * new, new.clone())
            what = f"of {end} tokens, {step} at once, in window {window}"
            assert_close(got[0], right[0], f"the keys {what}")
            assert_close(got[1], right[1], f"the values {what}")
            assert_same(len(cache), len(keep), f"the length {what}")
    ### END HIDDEN TESTS


def test_rolling_cache_forgets():
    """Its memory doesn't grow with the text."""
    torch.manual_seed(7)
    cache = RollingKVCache(window=5, n_sinks=2)
    for _ in range(60):
        cache.update(*torch.randn(2, 1, 2, 1, 5, dtype=torch.float64).clone())
    one_token = 2 * 2 * 5 * 8  # keys and values, 2 heads, 5 wide, 8 bytes
    held = held_bytes(cache) / one_token
    assert held <= 2 * 7, (
        f"After 60 tokens, a cache for 7 tokens still holds {held:.0f} in its "
        "memory. What is not returned any more should be forgotten."
    )
    ### BEGIN HIDDEN TESTS
    for window, n_sinks in ((7, 0), (5, 2)):
        cache = RollingKVCache(window, n_sinks)
        k, v = (torch.randn(1, 2, 1_000, 5).double() for _ in range(2))
        cache.update(k, v)  # all at once
        held = held_bytes(cache) / one_token
        assert held <= 2 * 7, (
            f"After 1,000 tokens at once, a cache for 7 tokens holds "
            f"{held:.0f} in its memory. A slice keeps the whole tensor that "
            "it was cut from: keep a copy, and nothing else."
        )
    ### END HIDDEN TESTS


def test_paged_cache_reads_what_was_appended():
    """Two texts that grow in turns each read back what is theirs."""
    torch.manual_seed(8)
    cache = PagedKVCache(9, 4, n_heads=2, width=3, dtype=torch.float64)
    texts = [cache.start(), cache.start()]
    right = [torch.zeros(2, 2, 0, 3, dtype=torch.float64) for _ in texts]
    for which, n_new in ((0, 3), (1, 5), (0, 1), (0, 6), (1, 4), (1, 1)):
        new = torch.randn(2, 2, n_new, 3, dtype=torch.float64)  # keys, values
        right[which] = torch.cat([right[which], new], 2)
        cache.append(texts[which], *new.clone())
        got = cache.read(texts[which])
        _assert_pair(got, "read")
        n = right[which].shape[2]
        assert_close(got[0], right[which][0], f"the keys of {n} tokens")
        assert_close(got[1], right[which][1], f"the values of {n} tokens")
    for text, both in zip(texts, right, strict=True):
        assert_close(cache.read(text)[0], both[0], "the keys, in the end,")
    ### BEGIN HIDDEN TESTS
    empty = cache.read(cache.start())[0]
    assert_close(empty, right[0][0][:, :0], "the keys of no token")
    small = PagedKVCache(7, 1, n_heads=2, width=3)
    text = small.start()
    new = torch.randn(2, 2, 7, 3)
    right = new.clone()
    small.append(text, *new)
    assert_close(small.read(text)[1], right[1], "values in blocks of one")
    ### END HIDDEN TESTS


def test_paged_cache_takes_blocks_as_needed():
    """9 tokens take 3 blocks of 4, which are free again when they end."""
    torch.manual_seed(9)
    cache = PagedKVCache(5, 4, n_heads=1, width=3, dtype=torch.float64)
    text = cache.start()
    assert_same(cache.n_free(), 5, "the number of free blocks at first")
    for n_new, n_free in ((3, 4), (1, 4), (1, 3), (4, 2)):
        cache.append(text, *torch.randn(2, 1, n_new, 3, dtype=torch.float64))
        assert_same(cache.n_free(), n_free, "the number of free blocks")
    n_table = len(cache.table(text))
    assert n_table == 3, f"9 tokens are in 3 blocks of 4, not in {n_table}."
    cache.free(text)
    assert_same(cache.n_free(), 5, "the number of free blocks in the end")
    ### BEGIN HIDDEN TESTS
    first, second = cache.start(), cache.start()
    new = torch.randn(2, 1, 9, 3, dtype=torch.float64)
    right = new.clone()
    cache.append(first, *new.clone())
    cache.append(second, *new[:, :, :3].clone())
    for text, n_new in ((second, 6), (first, 8)):  # two blocks; one is free
        try:
            cache.append(text, *torch.randn(2, 1, n_new, 3).double())
        except MemoryError:
            pass
        else:
            raise AssertionError(
                "append should raise MemoryError where there are too few "
                "free blocks."
            )
        assert_same(cache.n_free(), 1, "the free blocks after a MemoryError")
        for text, n in ((first, 9), (second, 3)):
            got = cache.read(text)[0]
            assert_close(got, right[0, :, :n], "the keys after a MemoryError")
    cache.append(second, *new[:, :, 3:8].clone())  # what fits still fits
    assert_close(cache.read(second)[1], right[1, :, :8], "the values then")
    ### END HIDDEN TESTS


def test_paged_cache_forks_with_copy_on_write():
    """Two forks share their blocks until one of them writes."""
    torch.manual_seed(10)
    tokens = torch.randn(2, 2, 12, 3, dtype=torch.float64)
    right = tokens.clone()
    cache = PagedKVCache(8, 4, n_heads=2, width=3, dtype=torch.float64)
    old = cache.start()
    cache.append(old, *tokens[:, :, :6].clone())
    new = cache.fork(old)
    assert cache.n_free() == 6, (
        "A fork takes no block: 6 of 8 should be free, but "
        f"{cache.n_free()} are."
    )
    cache.append(new, *tokens[:, :, 8:9].clone())  # after 6 tokens of each
    assert_close(cache.read(old)[0], right[0, :, :6], "the old text's keys")
    keep = [*range(6), 8]
    assert_close(cache.read(new)[0], right[0][:, keep], "the new text's keys")
    assert_close(cache.read(new)[1], right[1][:, keep], "its values")
    assert cache.n_free() == 5, (
        "The text that writes copies one block, the last; 5 of 8 should be "
        f"free, but {cache.n_free()} are."
    )
    ### BEGIN HIDDEN TESTS
    cache.append(old, *tokens[:, :, 6:7].clone())  # alone with its block now
    assert_same(cache.n_free(), 5, "the free blocks, after both have written,")
    assert_close(cache.read(old)[1], right[1, :, :7], "the old text's values")
    assert_close(cache.read(new)[1], right[1][:, keep], "the new one's values")
    cache.append(old, *tokens[:, :, 7:8].clone())
    third = cache.fork(old)  # its last block is full: nothing to copy
    cache.append(third, *tokens[:, :, 8:9].clone())
    assert_same(cache.n_free(), 4, "the free blocks after a full block")
    cache.free(old)  # its blocks are still in use
    assert_same(cache.n_free(), 4, "the free blocks after one has ended")
    assert_close(cache.read(third)[0], right[0, :, :9], "the keys of a fork")
    assert_close(cache.read(new)[0], right[0][:, keep], "the other one's keys")
    fourth, fifth = cache.fork(third), cache.fork(third)
    cache.free(third)
    cache.append(fourth, *tokens[:, :, 9:].clone())
    assert_close(cache.read(fifth)[0], right[0, :, :9], "the keys of a twin")
    assert_close(cache.read(fourth)[1], right[1], "values of 12 tokens")
    for text in (new, fourth, fifth):
        cache.free(text)
    assert_same(cache.n_free(), 8, "the free blocks when all have ended")
    ### END HIDDEN TESTS


def _walk(seed: int, n_steps: int) -> None:
    """Start, append, fork and free at random; compare with plain tensors."""
    torch.manual_seed(seed)
    sizes = (11, 3, 2, 3)  # blocks, tokens in one, heads, width
    cache = PagedKVCache(*sizes, dtype=torch.float64)
    plain = PlainTexts(*sizes)
    for step in range(n_steps):
        texts = list(plain.tokens)
        kind = torch.randint(6, ()).item() if texts else 0
        text = texts[torch.randint(len(texts), ()).item()] if texts else None
        if kind == 0:
            text = cache.start()
            assert text not in texts, f"{text} is the name of another text."
            plain.start(text)
        elif kind == 1:
            plain.fork(text, cache.fork(text))
        elif kind == 2:
            cache.free(text)
            plain.free(text)
        else:
            n_new = torch.randint(1, 6, ()).item()
            new = torch.randn(2, 2, n_new, 3, dtype=torch.float64)
            fits = plain.append(text, torch.cat([*new], -1))
            try:
                cache.append(text, *new.clone())
                assert fits, "append should have raised MemoryError."
            except MemoryError:
                assert not fits, "append raised MemoryError: there was room."
        n_free = cache.n_free()
        assert n_free == plain.n_free(), (
            f"After {step + 1} random steps, {plain.n_free()} blocks should "
            f"be free, but {n_free} are."
        )
        everything = step % 5 == 4 or step == n_steps - 1
        for text in list(plain.tokens) if everything else []:
            got, right = cache.read(text), plain.tokens[text]
            what = f"of a text after {step + 1} random steps"
            assert_close(got[0], right[..., :3], f"the keys {what}")
            assert_close(got[1], right[..., 3:], f"the values {what}")


def test_paged_cache_survives_a_random_walk():
    """After random steps no block is lost, none is used twice."""
    _walk(seed=11, n_steps=30)
    ### BEGIN HIDDEN TESTS
    for seed in (12, 13):
        _walk(seed, n_steps=60)
    ### END HIDDEN TESTS


def test_quantize_by_hand():
    """In 2 bits, 0 to 3 become the codes 0 to 3, and −1 to 5 do too."""
    x = torch.tensor([[0.0, 1.0, 2.0, 3.0], [-1.0, 0.9, 3.1, 5.0]])
    codes, scale, low = quantize_kv(x.clone(), bits=2)
    right = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]], dtype=torch.uint8)
    assert_close(codes, right, "the codes")
    assert_close(scale, torch.tensor([[1.0], [2.0]]), "the scale")
    assert_close(low, torch.tensor([[0.0], [-1.0]]), "low")
    ### BEGIN HIDDEN TESTS
    codes, scale, low = quantize_kv(x.T.clone(), bits=2, dim=-2)
    assert_close(codes, right.T, "the codes per channel")
    assert_close(scale, torch.tensor([[1.0, 2.0]]), "the scale per channel")
    assert_close(low, torch.tensor([[0.0, -1.0]]), "low per channel")
    equal = torch.tensor([[7.0, 7.0, 7.0], [-2.0, -2.0, -2.0]])
    codes, scale, low = quantize_kv(equal.clone(), bits=4)
    back = codes * scale + low
    assert_close(back, equal, "what the codes of equal numbers stand for")
    # One group of equal numbers leaves the others as they are.
    mixed = torch.tensor([[7.0, 7.0, 7.0], [0.0, 3.0, 7.5]])
    codes, scale, low = quantize_kv(mixed.clone(), bits=4)
    what = "of a group next to one of equal numbers"
    right = torch.tensor([0, 6, 15], dtype=torch.uint8)
    assert_close(codes[1], right, f"the codes {what}")
    assert_close(scale[1], torch.tensor([0.5]), f"the scale {what}")
    assert_close(codes[0] * scale[0] + low[0], mixed[0], "the equal ones")
    # Small numbers have as many levels as large ones.
    right = torch.tensor([[0, 4, 9, 15], [15, 0, 7, 1]], dtype=torch.uint8)
    codes, scale, low = quantize_kv(right * 1e-6 - 3e-6, bits=4)
    what = "the codes of numbers 0.000001 apart, the largest with code 15,"
    assert_close(codes, right, what, 0.0)
    ### END HIDDEN TESTS


def test_quantize_stays_within_half_a_step():
    """No number is further than scale / 2 from the level of its code."""
    torch.manual_seed(14)
    x = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    x[..., 2] *= 20  # a channel of large numbers
    before = x.clone()
    for bits, dim in ((4, -1), (4, -2), (8, -1), (1, -2)):
        groups = before.amin(dim, True), before.amax(dim, True)
        right = (groups[1] - groups[0]) / (2**bits - 1)
        codes, scale, low = quantize_kv(before.clone(), bits, dim)
        what = f"with {bits} bits along dimension {dim}"
        assert_close(low, groups[0], f"low {what}")
        assert_close(scale, right, f"the scale {what}")
        is_tensor = isinstance(codes, Tensor)
        assert is_tensor and codes.dtype == torch.uint8, (  # noqa: PT018
            "The codes should be a tensor of torch.uint8."
        )
        assert codes.shape == x.shape, "Each number should have a code."
        assert int(codes.max()) < 2**bits, (
            f"A code of {bits} bits is {2**bits - 1} at most, not "
            f"{int(codes.max())}."
        )
        off = (codes * right + groups[0] - before).abs() / right
        assert off.max() <= 0.5 + 1e-6, (
            f"A number is {off.max():.3g} scales from its level, {what}: the "
            "nearest level is half a scale away at most."
        )
    ### BEGIN HIDDEN TESTS
    for dim in (0, 1, 2):  # texts, heads, tokens
        small, large = before.amin(dim, True), before.amax(dim, True)
        codes, scale, low = quantize_kv(before.clone(), 4, dim)
        assert_close(low, small, f"low along dimension {dim}")
        right = (large - small) / 15
        assert_close(scale, right, f"the scale along dimension {dim}")
        gap = (codes * scale + low - before).abs()
        assert (gap <= scale * 0.5001).all(), f"Dimension {dim}: too far off."
    for bits in range(1, 9):
        codes, scale, low = quantize_kv(before.clone(), bits=bits, dim=-2)
        gap = (codes * scale + low - before).abs().amax(-2, keepdim=True)
        assert (gap <= scale * 0.5001).all(), f"{bits} bits: too far off."
    codes, scale, low = quantize_kv(before.clone())
    right = (before.amax(-1, True) - before.amin(-1, True)) / 15
    assert_close(scale, right, "the scale by default, 4 bits along dim -1,")
    single = before.float()
    codes, scale, low = quantize_kv(single.clone(), 4, -2)
    assert_close(low, single.amin(-2, True), "low in float32")
    assert scale.dtype == torch.float32, "The scale has the dtype of x."
    ### END HIDDEN TESTS


def test_dequantize_by_hand():
    """Code 3 of scale 2 above −1 stands for 5."""
    codes = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]], dtype=torch.uint8)
    scale, low = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [-1.0]])
    right = torch.tensor([[0.0, 1.0, 2.0, 3.0], [5.0, 3.0, 1.0, -1.0]])
    assert_close(dequantize_kv(codes, scale, low), right, "the numbers")


def test_dequantize_any_codes():
    """Codes up to 255, in groups of either kind, keep their dtype."""
    torch.manual_seed(15)
    codes = torch.randint(256, (2, 3, 7, 5), dtype=torch.uint8)
    codes[0, 0, 0] = torch.tensor([0, 127, 128, 254, 255])
    for shape in ((2, 3, 7, 1), (2, 3, 1, 5)):
        scale = torch.rand(shape, dtype=torch.float64) + 0.1
        low = torch.randn(shape, dtype=torch.float64)
        right = torch.stack([low + n * scale for n in range(256)])
        right = right.expand(256, 2, 3, 7, 5).gather(0, codes[None].long())[0]
        got = dequantize_kv(codes, scale.clone(), low.clone())
        assert_close(got, right, f"numbers with a scale of shape {shape}")
    ### BEGIN HIDDEN TESTS
    single = scale.float(), low.float()
    got = dequantize_kv(codes, *single)
    assert_close(got, right.float(), "the numbers in float32", 1e-5)
    codes = torch.arange(16, dtype=torch.uint8).view(2, 8)
    right = codes / 2 - 1
    for dtype in (torch.float16, torch.bfloat16):
        scale = torch.full((2, 1), 0.5, dtype=dtype)
        got = dequantize_kv(codes, scale, -2 * scale)
        what = f"the numbers with a scale of {dtype}"
        assert_close(got, right.to(dtype), what, 0.03)
    ### END HIDDEN TESTS
