"""What chapter 8's caches are tried on, and its pages under random use."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
)

from contextlab.caching import Llama, PlainTexts, held_bytes
from contextlab.spies import Watch
from solutions.kvcache import KVCache, PagedKVCache, RollingKVCache

SIZES = (7, 3, 2, 2)  # blocks, tokens in one, heads, width


class Paging(RuleBasedStateMachine):
    """Start, append, fork and free, in any order that Hypothesis thinks of."""

    texts = Bundle("texts")

    def __init__(self) -> None:
        super().__init__()
        self.cache = PagedKVCache(*SIZES, dtype=torch.float64)
        self.plain = PlainTexts(*SIZES)
        self.n_tokens = 0

    @rule(target=texts)
    def start(self) -> int:
        """Begin a text."""
        text = self.cache.start()
        self.plain.start(text)
        return text

    @rule(text=texts, n_new=st.integers(1, 8))
    def append(self, text: int, n_new: int) -> None:
        """Add tokens; both run out of blocks at the same time."""
        first = self.n_tokens
        self.n_tokens += n_new
        numbers = torch.arange(first, self.n_tokens, dtype=torch.float64)
        keys = numbers[:, None].expand(2, n_new, 2)  # no two tokens alike
        room = self.plain.append(text, torch.cat([keys, -keys], -1))
        try:
            self.cache.append(text, keys, -keys)
        except MemoryError:
            assert not room
        else:
            assert room

    @rule(target=texts, text=texts)
    def fork(self, text: int) -> int:
        """Begin a text with all tokens of another."""
        twin = self.cache.fork(text)
        self.plain.fork(text, twin)
        return twin

    @rule(text=consumes(texts))
    def free(self, text: int) -> None:
        """End a text."""
        self.cache.free(text)
        self.plain.free(text)

    @invariant()
    def every_text_reads_back(self) -> None:
        """Compare all keys and values."""
        for text, right in self.plain.tokens.items():
            assert torch.equal(torch.cat(self.cache.read(text), -1), right)

    @invariant()
    def no_block_is_lost_or_used_twice(self) -> None:
        """Add up the blocks, and compare with those that there should be."""
        tables = [self.cache.table(text) for text in self.plain.tokens]
        used = {block for table in tables for block in table}
        assert self.cache.n_free() == self.plain.n_free()
        assert len(used) + self.cache.n_free() == SIZES[0]
        assert not used & set(self.cache.free_blocks)


TestPaging = Paging.TestCase
TestPaging.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, derandomize=True
)


def test_a_lost_block_is_found() -> None:
    """What is compared with can tell: it counts blocks by itself."""
    plain = PlainTexts(*SIZES)
    tokens = torch.zeros(2, 4, 4, dtype=torch.float64)
    plain.start(0)
    assert plain.append(0, tokens)  # 4 tokens: a full block and one begun
    plain.fork(0, 1)
    assert plain.n_free() == 5
    assert plain.append(1, tokens[:, :1])  # copies the block that is begun
    assert plain.n_free() == 4
    assert plain.append(0, tokens[:, :2])  # alone with its own
    assert plain.n_free() == 4
    assert not plain.append(0, tokens.repeat(1, 4, 1))  # 5 blocks more
    plain.free(0)
    assert plain.n_free() == 5
    assert plain.tokens[1].shape == (2, 5, 4)


def test_held_bytes_are_those_of_all_tensors() -> None:
    cache = KVCache()
    assert held_bytes(cache) == 0
    cache.update(torch.zeros(1, 2, 3, 5), torch.ones(1, 2, 3, 7))
    assert held_bytes(cache) == 4 * 2 * 3 * (5 + 7)
    assert held_bytes([cache, cache]) == held_bytes(cache)
    assert held_bytes({"a slice": torch.zeros(100)[:2]}) == 400
    assert held_bytes(PagedKVCache(3, 4, 5, 6)) == 2 * 4 * 3 * 4 * 5 * 6


def test_what_is_assigned_is_copied() -> None:
    x = torch.zeros(4, 6)
    with Watch() as seen:
        x[:2] = torch.ones(2, 6)
        x + 1
    assert seen.copied == 2 * 6 * 4


def test_a_rolling_cache_in_a_llama_is_a_window_of_its_mask() -> None:
    llama = Llama(n_layers=1)  # of one layer, whose reach is its window
    ids = torch.randint(97, (1, 12), generator=torch.Generator())
    caches = [RollingKVCache(window=5)]
    for t in range(12):
        now = llama(ids[:, t : t + 1], torch.tensor([t]), caches)
    # Rotary positions are relative: the last five tokens are all there is.
    assert torch.allclose(now, llama.uncached(ids[:, -5:])[:, -1:], atol=1e-4)
    assert llama.projected == [1] * 12 + [5]


def test_a_llama_wants_a_cache_for_each_layer() -> None:
    llama = Llama(n_layers=2)
    one = torch.zeros(1, 1, dtype=torch.long)
    with pytest.raises(ValueError, match="a list of 2 caches"):
        llama(one, torch.arange(1), [KVCache()])
