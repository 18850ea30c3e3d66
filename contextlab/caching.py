"""What the chapter on the KV cache tries its caches on.

A Llama of the ``transformers`` library with random weights, which takes any
cache that has ``update`` and a length; the bytes that an object holds; and a
paged cache without pages, to compare a real one with.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import Cache, CacheLayerMixin

from contextlab.spies import Watch


class Llama:
    """A small Llama, in evaluation mode; nothing is downloaded.

    Args:
        n_layers: how many layers it has.
        n_heads: query heads of a layer.
        n_kv_heads: heads with keys and values of their own.
        width: of a head; the model is ``n_heads * width`` wide.
        dtype: of its weights.
        spread: the standard deviation of its weights times the square root
            of the model's width: the larger, the more a token's context
            decides what follows it.

    Attributes:
        sizes: what it was made with, in the words of ``kv_cache_bytes``.
        projected: for each call so far, how many tokens the first layer has
            made keys for; counted in that layer.
    """

    vocab_size = 97

    def __init__(
        self,
        n_layers: int = 2,
        n_heads: int = 4,
        n_kv_heads: int = 2,
        width: int = 6,
        dtype: torch.dtype = torch.float64,
        spread: float = 3.0,
    ) -> None:
        self.sizes = {
            "n_layers": n_layers,
            "n_heads": n_heads,
            "width": width,
            "n_kv_heads": n_kv_heads,
        }
        d_model = n_heads * width
        config = LlamaConfig(
            vocab_size=self.vocab_size,
            hidden_size=d_model,
            intermediate_size=2 * d_model,
            num_hidden_layers=n_layers,
            num_attention_heads=n_heads,
            num_key_value_heads=n_kv_heads,
            head_dim=width,
            max_position_embeddings=8_192,
            attn_implementation="sdpa",
        )
        self.network = LlamaForCausalLM(config).to(dtype).eval()
        generator = torch.Generator().manual_seed(0)
        for parameter in self.network.parameters():
            if parameter.ndim == 2:
                std = spread / d_model**0.5
                nn.init.normal_(parameter, std=std, generator=generator)
        self.projected: list[int] = []
        first = self.network.model.layers[0].self_attn.k_proj
        first.register_forward_hook(
            lambda _, __, made: self.projected.append(made.shape[:-1].numel())
        )

    @torch.no_grad()
    def __call__(
        self, ids: Tensor, positions: Tensor, caches: list[Any]
    ) -> Tensor:
        """Let new tokens attend to what is in the caches, and to each other.

        Args:
            ids: the T new tokens, shape (B, T).
            positions: where they stand in the text, shape (T,).
            caches: one for each layer; ``update(k, v)`` adds keys, rotated
                by their positions, and values, and returns all that is kept.

        Returns:
            Logits, shape (B, T, vocabulary).

        Raises:
            ValueError: if there isn't a cache for each layer.
        """
        n_layers, n_tokens = self.sizes["n_layers"], ids.shape[1]
        if not isinstance(caches, list) or len(caches) != n_layers:
            raise ValueError(f"the model needs a list of {n_layers} caches")
        # One token may attend to all there is. Of several, each may attend
        # to what is in the cache, to itself, and to those before it.
        mask = torch.zeros(1, 1, 1, 1, dtype=self.network.dtype)
        if n_tokens > 1:
            n_keys = len(caches[0]) + n_tokens
            mask = torch.full((n_tokens, n_keys), -torch.inf)
            mask = mask.triu(n_keys - n_tokens + 1)[None, None]
        return self.network(
            ids,
            attention_mask=mask.to(self.network.dtype),
            position_ids=positions[None],
            past_key_values=Cache(layers=[_Layer(c) for c in caches]),
        ).logits

    @torch.no_grad()
    def uncached(self, ids: Tensor) -> Tensor:
        """Return the logits of whole texts, without any cache."""
        return self.network(ids, use_cache=False).logits


class _Layer(CacheLayerMixin):
    """A cache of ours, as ``transformers`` wants to be talked to."""

    def __init__(self, cache: Any) -> None:
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, *_: Tensor) -> None:
        """Do nothing: a cache of ours takes its shape from what it gets."""

    def update(self, k: Tensor, v: Tensor, *_: Any, **__: Any) -> Any:
        """Add keys and values, and return all."""
        return self.cache.update(k, v)

    def get_seq_length(self) -> int:
        """Return how many tokens are kept."""
        return len(self.cache)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys there will be, and where they begin."""
        return len(self.cache) + query_length, 0

    def get_max_length(self) -> int:
        """Return −1: there is no limit."""
        return -1


def held_bytes(owner: object) -> int:
    """Return the bytes of all tensors that an object holds.

    A deep copy of the object is made, and what is copied is counted: the
    whole memory of a tensor, even of one that is a slice of it.
    """
    with Watch() as seen:
        deepcopy(owner)
    return seen.copied


class PlainTexts:
    """What a paged cache should hold, kept as simply as can be.

    Each text is a tensor, copied when it is forked. To know how many blocks
    there should be, each text also has a list of tokens for every block, and
    two texts that share a block have the same list.

    Attributes:
        tokens: by text, keys and values side by side, shape (H, n, 2D).
    """

    def __init__(
        self, n_blocks: int, block_size: int, n_heads: int, width: int
    ) -> None:
        self.n_blocks = n_blocks
        self.block_size = block_size
        self.tokens: dict[int, Tensor] = {}
        self.empty = torch.zeros(n_heads, 0, 2 * width, dtype=torch.float64)
        self._blocks: dict[int, list[list[int]]] = {}

    def start(self, text: int) -> None:
        """Begin a text."""
        self.tokens[text], self._blocks[text] = self.empty, []

    def append(self, text: int, kv: Tensor) -> bool:
        """Add tokens, unless there are too few blocks; say whether."""
        blocks = list(self._blocks[text])
        for _ in range(kv.shape[1]):
            if not blocks or len(blocks[-1]) == self.block_size:
                blocks.append([])
            blocks[-1] = [*blocks[-1], 0]  # no longer the list of others
        others = [b for t, b in self._blocks.items() if t != text]
        if _count([*others, blocks]) > self.n_blocks:
            return False
        self._blocks[text] = blocks
        self.tokens[text] = torch.cat([self.tokens[text], kv], 1)
        return True

    def fork(self, text: int, twin: int) -> None:
        """Begin a text with all tokens of another."""
        self.tokens[twin] = self.tokens[text].clone()
        self._blocks[twin] = list(self._blocks[text])

    def free(self, text: int) -> None:
        """End a text."""
        del self.tokens[text], self._blocks[text]

    def n_free(self) -> int:
        """Return how many blocks no text needs."""
        return self.n_blocks - _count(list(self._blocks.values()))


def _count(texts: list[list[list[int]]]) -> int:
    """Count blocks that are not the same."""
    return len({id(block) for blocks in texts for block in blocks})
