"""Mistakes of chapter 08, *The KV cache*."""

from functools import cache

import torch

from autograder.misconceptions import Mistake
from contextlab.caching import Llama, held_bytes
from solutions.kvcache import KVCache, PagedKVCache, RollingKVCache


def _normal(seed, *shape):
    """Draw a tensor from a seed and nothing else, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _counted(*shape):
    """Return 0, 1, 2, … in the given shape."""
    numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return numbers.reshape(shape)


def probe_kv_cache_bytes(kv_cache_bytes, seed):
    """Count a single number's bytes, then what each argument does."""
    one = {"n_tokens": 1, "n_layers": 1, "n_heads": 1, "width": 1}
    for more in (
        {},
        {"n_tokens": 3 + seed},
        {"n_layers": 3},
        {"n_heads": 6},
        {"width": 5},
        {"n_heads": 6, "n_kv_heads": 2},
        {"batch": 3},
        {"bits": 8},
        {"bits": 3},
        {"bits": 5, "n_tokens": 3},
        {"bits": 5, "n_layers": 3},
    ):
        inputs = one | more
        yield inputs, lambda inputs=inputs: kv_cache_bytes(**inputs)


def _fed(kv_cache, k, v, chunks):
    """Add chunks of tokens to one cache; return all that it says."""
    said, end = [], 0
    for n in chunks:
        new = slice(end, end + n)
        end += n
        got = kv_cache.update(k[:, :, new].clone(), v[:, :, new].clone())
        said.append((*got, len(kv_cache)))
    return said


def probe_kv_cache(kv_cache, seed):
    """Add tokens one by one and several at once, then to two caches."""
    k, v = _counted(1, 1, 3, 1), -_counted(1, 1, 3, 1)
    for keys, values, chunks in (
        (k, v, (1, 1, 1)),
        (k, v, (2, 1)),
        (_normal(seed, 2, 3, 4, 2), _normal(seed + 9, 2, 3, 4, 2), (1, 2, 1)),
    ):
        inputs = {"keys": keys, "values": values, "tokens at once": chunks}
        yield (
            inputs,
            lambda k=keys, v=values, c=chunks: _fed(kv_cache(), k, v, c),
        )

    def two():
        one, other = kv_cache(), kv_cache()
        return _fed(one, k, v, (1,)), _fed(other, v, k, (1,)), len(one)

    yield {"caches": 2, "keys": k[:, :, :1], "values": v[:, :, :1]}, two


@cache
def _llama():
    return Llama(n_layers=1)


class _Noting:
    """A model that notes what it is asked, and goes on from 3 to 4 to 5.

    All that its caches get are zeros.
    """

    def __init__(self):
        self.calls = []

    def __call__(self, ids, positions, caches):
        """Return logits whose largest is that of the next number."""
        self.calls.append((ids.clone(), positions.clone(), len(caches)))
        for one in caches:
            one.update(*torch.zeros(2, len(ids), 1, ids.shape[1], 1))
        return torch.nn.functional.one_hot((ids + 1) % 50, 50).double()


class _Short(RollingKVCache):
    """A cache of the last two tokens."""

    def __init__(self):
        super().__init__(2)


def probe_greedy_decode(greedy_decode, seed):
    """Decode by counting, with all calls noted, then by a Llama."""
    for prompt, n_new, kind in (
        ([[3]], 1, KVCache),
        ([[3]], 3, KVCache),
        ([[3, 9, 5]], 1, KVCache),
        ([[3, 9, 5], [1, 0, 7 + seed]], 3, KVCache),
        ([[3, 9, 5]], 3, _Short),
        ([[48]], 4, KVCache),
    ):
        ids = torch.tensor(prompt)

        def decode(ids=ids, n_new=n_new, kind=kind):
            model = _Noting()
            out = greedy_decode(model, ids.clone(), n_new, [kind()])
            return out, model.calls

        inputs = {"ids": ids, "n_new": n_new}
        if kind is _Short:
            inputs["tokens that the cache keeps"] = 2
        yield inputs, decode

    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(97, (1, 5), generator=generator)

    def by_llama():
        caches = [KVCache()]
        return greedy_decode(_llama(), ids.clone(), 5, caches), len(caches[0])

    yield {"ids": ids, "n_new": 5, "model": "a Llama"}, by_llama


def probe_rolling_kv_cache(rolling, seed):
    """Roll over counted tokens, with and without sinks, and in chunks."""
    k = _counted(1, 1, 8, 1)
    for window, n_sinks, chunks in (
        (3, 0, (1,)),
        (2, 0, (1,) * 4),
        (3, 0, (1,) * 7),
        (3, 2, (1,) * 3),
        (3, 2, (1,) * 7),
        (3, 2, (8,)),
        (2, 1, (3, 1, 3, 1)),
    ):
        inputs = {
            "window": window,
            "n_sinks": n_sinks,
            "tokens at once": chunks,
        }
        yield (
            inputs,
            lambda w=window, s=n_sinks, c=chunks: _fed(
                rolling(w, s), k, -k, c
            ),
        )

    def holds_much():
        long = rolling(2, 1)
        for token in _normal(seed, 30, 1, 1, 1, 2):
            long.update(token.clone(), token.clone())
        return held_bytes(long) > 2 * 3 * 32

    yield {"window": 2, "n_sinks": 1, "tokens": 30}, holds_much

    def holds_a_slice():
        wide = rolling(3, 0)
        wide.update(*(_normal(seed + n, 1, 1, 30, 2) for n in range(2)))
        return held_bytes(wide) > 2 * 3 * 32

    yield {"window": 3, "tokens at once": 30}, holds_a_slice


def probe_paged_kv_cache(paged, seed):
    """Append, fork and free; look at all texts and at the free blocks."""
    kv = _normal(seed, 2, 1, 30, 2)

    def play(n_blocks, size, *steps):
        pages = paged(n_blocks, size, 1, 2, dtype=torch.float64)
        texts, said, end = [pages.start()], [], 0
        for step, which, *n_new in steps:
            try:
                if step == "fork":
                    texts.append(pages.fork(texts[which]))
                elif step == "start":
                    texts.append(pages.start())
                elif step == "free":
                    pages.free(texts.pop(which))
                else:
                    new = kv[:, :, end : end + n_new[0]].clone()
                    end += n_new[0]
                    pages.append(texts[which], *new)
            except MemoryError:
                said.append("MemoryError")
            said.append(pages.n_free())
            said.append([pages.read(text) for text in texts])
        return said

    add, fork, free, start = "append", "fork", "free", "start"
    for n_blocks, size, *steps in (
        (3, 2, (add, 0, 1)),
        (3, 2, (add, 0, 1), (add, 0, 1)),
        (3, 2, (add, 0, 2)),
        (4, 2, (add, 0, 1), (add, 0, 2), (add, 0, 3)),
        (4, 2, (add, 0, 3), (start, 0), (add, 1, 2), (free, 0), (add, 0, 3)),
        (3, 2, (add, 0, 2), (fork, 0)),
        (4, 2, (add, 0, 2), (fork, 0), (add, 1, 1)),
        (4, 2, (add, 0, 3), (fork, 0), (add, 1, 1), (add, 0, 1)),
        (4, 2, (add, 0, 3), (fork, 0), (add, 1, 1), (free, 0), (free, 0)),
        (4, 2, (add, 0, 3), (fork, 0), (free, 0), (add, 0, 2)),
        (2, 2, (add, 0, 1), (add, 0, 6), (add, 0, 3)),
        (2, 2, (add, 0, 3), (fork, 0), (add, 1, 1), (free, 0), (add, 0, 1)),
    ):
        inputs = {"blocks": n_blocks, "of": size, "steps": steps}
        yield inputs, lambda n=n_blocks, p=size, s=steps: play(n, p, *s)


def probe_quantize_kv(quantize_kv, seed):
    """Quantise a few whole numbers, then random ones, then equal ones."""
    whole = torch.tensor([[0.0, 1.0, 2.0, 3.0], [1.0, 3.0, 5.0, 7.0]])
    drawn = _normal(seed, 2, 4, 3)
    mixed = torch.tensor([[7.0, 7.0, 7.0], [0.0, 3.0, 7.5]])
    for x, bits, dim in (
        (whole, 2, -1),
        (whole - 3, 2, -1),
        (whole.T.contiguous(), 2, -2),
        (drawn, 4, -1),
        (drawn, 4, -2),
        (drawn, 8, -1),
        (drawn - 4, 3, -2),
        (torch.full((2, 3), 7.0), 4, -1),
        (mixed, 4, -1),
        (whole * 1e-6, 2, -1),
    ):
        inputs = {"x": x, "bits": bits, "dim": dim}
        yield inputs, lambda x=x, b=bits, d=dim: quantize_kv(x.clone(), b, d)


def probe_dequantize_kv(dequantize_kv, seed):
    """Turn a few codes back, then all of them, in float64."""
    small = torch.tensor([[0, 1, 3]], dtype=torch.uint8)
    every = torch.arange(256, dtype=torch.uint8).view(2, 128)
    one = torch.tensor([[1.0]])
    for codes, scale, low in (
        (small, one, 0 * one),
        (small, 2 * one, 0 * one),
        (small, 2 * one, 5 * one),
        (every, 2 * one, -one),
        (every, _normal(seed, 2, 1), _normal(seed + 1, 2, 1)),
        (small, one.half(), 0 * one.half()),
    ):
        inputs = {"codes": codes, "scale": scale, "low": low}
        yield (
            inputs,
            lambda c=codes, s=scale, z=low: dequantize_kv(c, s, z),
        )


PROBES = {
    "kv_cache_bytes": probe_kv_cache_bytes,
    "KVCache": probe_kv_cache,
    "greedy_decode": probe_greedy_decode,
    "RollingKVCache": probe_rolling_kv_cache,
    "PagedKVCache": probe_paged_kv_cache,
    "quantize_kv": probe_quantize_kv,
    "dequantize_kv": probe_dequantize_kv,
}


@torch.no_grad()
def _cache_never_used(model, ids, n_new, caches):
    """Take new caches for each token, and project the whole text again."""
    for _ in range(n_new):
        fresh = [type(one)() for one in caches]
        logits = model(ids, torch.arange(ids.shape[1]), fresh)
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    return ids


@torch.no_grad()
def _prompt_token_by_token(model, ids, n_new, caches):
    """Feed the prompt one by one."""
    for t in range(ids.shape[1] + n_new - 1):
        logits = model(ids[:, t : t + 1], torch.tensor([t]), caches)
        if t == ids.shape[1] - 1:
            ids = torch.cat([ids, logits.argmax(-1)], 1)
    return ids


@torch.no_grad()
def _last_of_the_prompt_twice(model, ids, n_new, caches):
    """Fill the cache with the prompt, then begin with its last token."""
    model(ids, torch.arange(ids.shape[1]), caches)
    for _ in range(n_new):
        last = torch.tensor([ids.shape[1] - 1])
        logits = model(ids[:, -1:], last, caches)
        ids = torch.cat([ids, logits.argmax(-1)], 1)
    return ids


class _Rolling:
    """What two rolling caches that go wrong have in common."""

    def __init__(self, window, n_sinks=0):
        self.window, self.n_sinks = window, n_sinks
        self.sinks, self.recent, self.seen = [], [], 0

    def update(self, k, v):
        for t in range(k.shape[2]):
            self.add((k[:, :, t : t + 1].clone(), v[:, :, t : t + 1].clone()))
            self.seen += 1
        keys, values = zip(*self.sinks, *self.recent, strict=True)
        return torch.cat(keys, 2), torch.cat(values, 2)

    def __len__(self):
        return len(self.sinks) + len(self.recent)


class _SinksTwice(_Rolling):
    """Puts every token into the window, the sinks too."""

    def add(self, token):
        if len(self.sinks) < self.n_sinks:
            self.sinks.append(token)
        self.recent = [*self.recent, token][-self.window :]


class _RingOrder(_Rolling):
    """Returns the slots of a ring as they lie."""

    def add(self, token):
        if len(self.sinks) < self.n_sinks:
            self.sinks.append(token)
        elif len(self.recent) < self.window:
            self.recent.append(token)
        else:
            self.recent[(self.seen - self.n_sinks) % self.window] = token


class _ForkCopies(PagedKVCache):
    """Copies all blocks when a text is forked."""

    def fork(self, text):
        twin = self.start()
        if self.lengths[text]:
            self.append(twin, *self.read(text))
        return twin


def _symmetric(x, bits=4, dim=-1):
    """Centre the levels at zero."""
    high = x.abs().amax(dim, keepdim=True)
    scale = 2 * high / (2**bits - 1)
    divisor = scale.masked_fill(scale == 0, 1.0)
    codes = ((x + high) / divisor).round().clamp(0, 2**bits - 1)
    return codes.to(torch.uint8), scale, -high


_UP = "(numbers * bits + 7) // 8"
_NUMBERS = "2 * batch * n_tokens * n_layers * n_kv_heads * width"
_JOIN_K = "k = torch.cat([self.keys, k], -2)"
_JOIN_V = "v = torch.cat([self.values, v], -2)"
_KEEP = "self.keys, self.values = k, v"
_IF_ANY = "if self.keys is not None:"
_LENGTH = "0 if self.keys is None else self.keys.shape[-2]"
_GONE = "gone = k.shape[-2] - self.n_sinks - self.window"
_CUT = "first, rest = self.n_sinks, self.n_sinks + gone"
_PLACES = "torch.arange(end - new.shape[1], end)"
_SHARED = "start % size > 0 and self.users[table[-1]] > 1"
_TOO_MANY = """        if needed > self.n_free():
            raise MemoryError(f"{needed} blocks needed, {self.n_free()} free")
"""
_COPY = """            self.keys[own] = self.keys[old]
            self.values[own] = self.values[old]
"""
_COUNT_FORK = """        for block in self.tables[text]:
            self.users[block] += 1
"""
_READ = "k.flatten(1, 2)[:, :n_tokens], v.flatten(1, 2)[:, :n_tokens]"
_LOW = "x.amin(dim, keepdim=True)"
_HIGH = "x.amax(dim, keepdim=True)"

MISTAKES = {
    "kv_cache_bytes": [
        Mistake(
            "keys without values",
            "You count the keys alone. Each token leaves a key and a value in "
            "every KV head.",
            {_NUMBERS: "batch * n_tokens * n_layers * n_kv_heads * width"},
            "test_cache_bytes_by_hand",
        ),
        Mistake(
            "queries too",
            "You count three vectors. The queries of old tokens are never "
            "asked for again: only keys and values are kept.",
            {_NUMBERS: _NUMBERS.replace("2 *", "3 *")},
            "test_cache_bytes_by_hand",
        ),
        Mistake(
            "one layer",
            "You forget the layers. Each has keys and values of its own.",
            {_NUMBERS: _NUMBERS.replace("n_layers * ", "")},
            "test_cache_bytes_by_hand",
        ),
        Mistake(
            "pairs of tokens",
            "You square the tokens. Scores are made for pairs, but the cache "
            "holds one key and one value for each token.",
            {_NUMBERS: _NUMBERS.replace("n_tokens", "n_tokens**2")},
            "test_cache_bytes_by_hand",
        ),
        Mistake(
            "query heads counted",
            "You count the query heads. Where they share keys and values, "
            "only the KV heads take memory.",
            {_NUMBERS: _NUMBERS.replace("n_kv_heads", "n_heads")},
            "test_cache_bytes_of_shared_heads",
        ),
        Mistake(
            "the sharing query heads counted",
            "You count how many query heads share a KV head, H divided by the "
            "KV heads. It is the KV heads themselves that take memory.",
            {
                _NUMBERS: _NUMBERS.replace(
                    "n_kv_heads", "max(1, n_heads // n_kv_heads)"
                )
            },
            "test_cache_bytes_by_hand",
        ),
        Mistake(
            "all heads, as wide as all",
            "You multiply by all heads twice: `width` is one head's, but the "
            "heads of a layer are counted once.",
            {_NUMBERS: _NUMBERS.replace("width", "width * n_heads")},
            "test_cache_bytes_by_hand",
        ),
        Mistake(
            "one text",
            "You forget the batch: each text has keys and values of its own.",
            {_NUMBERS: _NUMBERS.replace("batch * ", "")},
            "test_cache_bytes_by_hand",
        ),
        Mistake(
            "bits for bytes",
            "You return bits. A byte has eight.",
            {_UP: "numbers * bits"},
            "test_cache_bytes_by_hand",
        ),
        Mistake(
            "numbers for bytes",
            "You return how many numbers there are. Each takes `bits` bits.",
            {_UP: "numbers"},
            "test_cache_bytes_by_hand",
        ),
        Mistake(
            "no whole number",
            "You return a float, which can't tell large numbers apart. Bytes "
            "are whole: `//` keeps them so.",
            {_UP: "numbers * bits / 8"},
            "test_cache_bytes_by_hand",
        ),
        Mistake(
            "rounded down",
            "You round down. What doesn't fill a byte takes one all the same.",
            {_UP: "numbers * bits // 8"},
            "test_cache_bytes_of_shared_heads",
        ),
        Mistake(
            "each number rounded up",
            "You give each number whole bytes. Codes of 4 bits are packed, "
            "two to a byte: round up once, at the end.",
            {_UP: "numbers * ((bits + 7) // 8)"},
            "test_cache_bytes_of_shared_heads",
        ),
        Mistake(
            "each token rounded up",
            "You give each token whole bytes. Round up once, at the end.",
            {
                _UP: "batch * n_tokens * ((2 * n_layers * n_kv_heads * width "
                "* bits + 7) // 8)"
            },
            "test_cache_bytes_of_shared_heads",
        ),
        Mistake(
            "each layer rounded up",
            "You give each layer whole bytes. Round up once, at the end.",
            {
                _UP: "n_layers * ((2 * batch * n_tokens * n_kv_heads * width "
                "* bits + 7) // 8)"
            },
            "test_cache_bytes_of_shared_heads",
        ),
    ],
    "KVCache": [
        Mistake(
            "joined along the heads",
            "You join old and new along the heads. Tokens are the dimension "
            "before the last, -2.",
            {
                _JOIN_K: "k = torch.cat([self.keys, k], 1)",
                _JOIN_V: "v = torch.cat([self.values, v], 1)",
            },
            "test_cache_returns_all_so_far",
        ),
        Mistake(
            "joined along the batch",
            "You join old and new along the batch, as if they were different "
            "texts. Tokens are the dimension before the last, -2.",
            {
                _JOIN_K: "k = torch.cat([self.keys, k], 0)",
                _JOIN_V: "v = torch.cat([self.values, v], 0)",
            },
            "test_cache_returns_all_so_far",
        ),
        Mistake(
            "the newest first",
            "You put the new tokens before the old ones. The oldest comes "
            "first.",
            {
                _JOIN_K: "k = torch.cat([k, self.keys], -2)",
                _JOIN_V: "v = torch.cat([v, self.values], -2)",
            },
            "test_cache_returns_all_so_far",
        ),
        Mistake(
            "nothing is kept",
            "You return what you were given and keep nothing, so every token "
            "is alone with itself.",
            {f"        {_KEEP}\n": ""},
            "test_cache_returns_all_so_far",
        ),
        Mistake(
            "the last call alone is kept",
            "You join the new tokens to those of the last call, but keep the "
            "new ones alone. Keep what you return.",
            {
                _IF_ANY: f"new = k, v\n        {_IF_ANY}",
                _KEEP: "self.keys, self.values = new",
            },
            "test_cache_returns_all_so_far",
        ),
        Mistake(
            "returns the new tokens",
            "You keep all, but return the new tokens alone. The queries want "
            "to see all that there are.",
            {
                _IF_ANY: f"new = k, v\n        {_IF_ANY}",
                "return k, v": "return new",
            },
            "test_cache_returns_all_so_far",
        ),
        Mistake(
            "old keys before new values",
            "You join the new values to the old keys.",
            {_JOIN_V: "v = torch.cat([self.keys, v], -2)"},
            "test_cache_returns_all_so_far",
        ),
        Mistake(
            "values twice",
            "You return the values in the place of the keys.",
            {"return k, v": "return v, v"},
            "test_cache_returns_all_so_far",
        ),
        Mistake(
            "counts calls",
            "Your length is the number of calls. A call may bring several "
            "tokens: count those.",
            {
                _KEEP: f"{_KEEP}\n        self.calls = "
                "getattr(self, 'calls', 0) + 1",
                "self.keys.shape[-2]": "self.calls",
            },
            "test_cache_returns_all_so_far",
        ),
        Mistake(
            "counts heads",
            "Your length is the number of heads. Tokens are the dimension "
            "before the last.",
            {"self.keys.shape[-2]": "self.keys.shape[1]"},
            "test_cache_returns_all_so_far",
        ),
        Mistake(
            "one memory for all caches",
            "Your keys and values belong to the class, so all caches are the "
            "same one, and layers read each other's keys. Set them on `self`, "
            "in `__init__`.",
            {
                "self.keys: Tensor | None": "type(self).keys",
                "self.values: Tensor | None": "type(self).values",
                _JOIN_K: "k = torch.cat([type(self).keys, k], -2)",
                _JOIN_V: "v = torch.cat([type(self).values, v], -2)",
                _KEEP: "type(self).keys, type(self).values = k, v",
            },
            "test_cache_takes_the_place_of_transformers_own",
        ),
        Mistake(
            "always float32",
            "You turn everything into float32. Keep the dtype that you get: "
            "half precision is there to save memory.",
            {_IF_ANY: f"k, v = k.float(), v.float()\n        {_IF_ANY}"},
            "test_cache_returns_all_so_far",
        ),
    ],
    "greedy_decode": [
        Mistake(
            "the cache is never used",
            "Your tokens are right, but you take new caches for each of them "
            "and put the whole text through the model again. Pass on the "
            "caches that you were given, and the new token alone.",
            _cache_never_used,
            "test_greedy_decode_projects_each_token_once",
        ),
        Mistake(
            "the whole text again, on top",
            "You put the whole text through the model at each step, though "
            "the caches hold it already: it is in there several times. Give "
            "the model the new token alone.",
            {
                _PLACES: "torch.arange(end)",
                "model(new, positions": "model(ids, positions",
            },
            "test_greedy_decode_projects_each_token_once",
        ),
        Mistake(
            "positions restart",
            "Each call counts its positions from 0, so every new token claims "
            "to be the first of the text. Go on from where the text ends.",
            {_PLACES: "torch.arange(new.shape[1])"},
            "test_greedy_decode_says_where_each_token_stands",
        ),
        Mistake(
            "positions one too far",
            "Your positions are one too large. The first token of the prompt "
            "stands at 0, and the first new one at P.",
            {_PLACES: "1 + torch.arange(end - new.shape[1], end)"},
            "test_greedy_decode_says_where_each_token_stands",
        ),
        Mistake(
            "the length of the cache as a position",
            "You count on from the length of the first cache. A cache that "
            "forgets is shorter than the text: count the tokens of the text.",
            {_PLACES: "len(caches[0]) + torch.arange(new.shape[1])"},
            "test_greedy_decode_says_where_each_token_stands",
        ),
        Mistake(
            "ends at token 0",
            "You stop at a token as if it ended the text. Add `n_new` tokens, "
            "whatever they are.",
            {
                "ids = torch.cat([ids, new], 1)": (
                    "ids = torch.cat([ids, new], 1)\n"
                    "        if (new == 0).all():\n"
                    "            break"
                )
            },
            "test_greedy_decode_says_where_each_token_stands",
        ),
        Mistake(
            "all new tokens in one place",
            "All your new tokens stand at the end of the prompt. The text "
            "grows: so does the position.",
            {
                "new = ids\n": "new, prompt = ids, ids.shape[1]\n",
                _PLACES: "min(prompt, end - new.shape[1]) "
                "+ torch.arange(new.shape[1])",
            },
            "test_greedy_decode_says_where_each_token_stands",
        ),
        Mistake(
            "what follows the first token",
            "You read the logits of the first token that went in. What comes "
            "next is in those of the last.",
            {"logits[:, -1:]": "logits[:, :1]"},
            "test_greedy_decode_equals_uncached",
        ),
        Mistake(
            "the prompt token by token",
            "Your tokens are right, but you feed the prompt one token at a "
            "time. The model can take all of it in one call.",
            _prompt_token_by_token,
            "test_greedy_decode_projects_each_token_once",
        ),
        Mistake(
            "the prompt's last token twice",
            "After the prompt, you give the model the prompt's last token "
            "again: it is in the caches twice. The logits of the prompt's "
            "call already say what comes next.",
            _last_of_the_prompt_twice,
            "test_greedy_decode_projects_each_token_once",
        ),
        Mistake(
            "returns the new tokens alone",
            "You return the new tokens without the prompt.",
            {"return ids": "return ids[:, ids.shape[1] - n_new :]"},
            "test_greedy_decode_equals_uncached",
        ),
        Mistake(
            "one call too many",
            "You put the last new token through the model as well. Nothing "
            "is asked of it: stop one call earlier.",
            {
                "    return ids": "    model(new, torch.arange(1) + "
                "ids.shape[1] - 1, caches)\n    return ids"
            },
            "test_greedy_decode_projects_each_token_once",
        ),
        Mistake(
            "one token too few",
            "You add one token too few. The call with the prompt gives the "
            "first new token.",
            {"range(n_new)": "range(n_new - 1)"},
            "test_greedy_decode_equals_uncached",
        ),
        Mistake(
            "draws instead of choosing",
            "You draw the next token. Greedy decoding takes the most likely "
            "one, always.",
            {
                "logits[:, -1:].argmax(-1)": "torch.multinomial("
                "logits[:, -1].softmax(-1), 1)"
            },
            "test_greedy_decode_equals_uncached",
        ),
        Mistake(
            "one choice for all texts",
            "You give all texts the token that the first of them chose.",
            {
                "logits[:, -1:].argmax(-1)": "logits[:, -1:].argmax(-1)[:1]"
                ".expand(len(ids), 1)"
            },
            "test_greedy_decode_equals_uncached",
        ),
    ],
    "RollingKVCache": [
        Mistake(
            "a window of W − 1",
            "You keep one token too few. The window counts the newest token, "
            "too: together they are W.",
            {_GONE: f"{_GONE} + 1"},
            "test_rolling_cache_keeps_a_window",
        ),
        Mistake(
            "a window of W + 1",
            "You keep one token too many. The window counts the newest token, "
            "too: together they are W.",
            {_GONE: f"{_GONE} - 1"},
            "test_rolling_cache_keeps_a_window",
        ),
        Mistake(
            "keeps the oldest",
            "You keep the first tokens and forget the new ones. It is the "
            "last that are needed most.",
            {
                "k[..., rest:, :]": "k[..., first : -gone, :]",
                "v[..., rest:, :]": "v[..., first : -gone, :]",
            },
            "test_rolling_cache_keeps_a_window",
        ),
        Mistake(
            "sinks overwritten",
            "You count the sinks, but let them roll out of the window like "
            "any other token. The first of the text stay for good.",
            {_CUT: "first, rest = 0, gone"},
            "test_rolling_cache_keeps_the_sinks",
        ),
        Mistake(
            "no sinks",
            "You keep the window and no sinks.",
            {
                _GONE: "gone = k.shape[-2] - self.window",
                _CUT: "first, rest = 0, gone",
            },
            "test_rolling_cache_keeps_the_sinks",
        ),
        Mistake(
            "sinks within the window",
            "You count the sinks among the W of the window. They come on top "
            "of it.",
            {_GONE: "gone = k.shape[-2] - max(self.window, self.n_sinks + 1)"},
            "test_rolling_cache_keeps_the_sinks",
        ),
        Mistake(
            "sinks twice",
            "While the text is short, your sinks are also in the window, and "
            "you return them twice.",
            _SinksTwice,
            "test_rolling_cache_keeps_the_sinks",
        ),
        Mistake(
            "the order of the ring",
            "You return the slots of your ring as they lie. The oldest token "
            "is in the slot that is written next: begin there.",
            _RingOrder,
            "test_rolling_cache_keeps_a_window",
        ),
        Mistake(
            "values don't roll",
            "You cut the keys and leave the values, so that they don't belong "
            "together any more.",
            {
                "            v = torch.cat([v[..., :first, :], "
                "v[..., rest:, :]], -2)\n": ""
            },
            "test_rolling_cache_keeps_a_window",
        ),
        Mistake(
            "keeps everything",
            "You return the right tokens, but keep all of them. The cache "
            "was to have an end.",
            {
                _GONE: f"everything = k, v\n        {_GONE}",
                _KEEP: "self.keys, self.values = everything",
                _LENGTH: f"min({_LENGTH}, self.n_sinks + self.window)",
            },
            "test_rolling_cache_forgets",
        ),
        Mistake(
            "keeps a slice",
            "You keep a slice, and a slice keeps the whole tensor that it was "
            "cut from: a long prompt stays in memory. Keep a copy: .clone().",
            {
                f"{x} = torch.cat([{x}[..., :first, :], {x}[..., rest:, :]], "
                "-2)": (
                    f"{x} = torch.cat([{x}[..., :first, :], {x}[..., rest:, "
                    f":]], -2) if first else {x}[..., rest:, :]"
                )
                for x in "kv"
            },
            "test_rolling_cache_forgets",
        ),
        Mistake(
            "forgets one at a time",
            "You forget a single token at each call. A call may bring "
            "several.",
            {_GONE: f"gone = min(1, {_GONE.removeprefix('gone = ')})"},
            "test_rolling_cache_keeps_the_sinks",
        ),
        Mistake(
            "counts all tokens",
            "Your length goes on counting. It is the number of tokens that "
            "are kept.",
            {
                _IF_ANY: "self.n = getattr(self, 'n', 0) + k.shape[-2]\n"
                f"        {_IF_ANY}",
                _LENGTH: "0 if self.keys is None else self.n",
            },
            "test_rolling_cache_keeps_a_window",
        ),
    ],
    "PagedKVCache": [
        Mistake(
            "a shared block is written to",
            "You write to a block that another text uses too, and change its "
            "keys and values. Take a copy first.",
            {_SHARED: "False"},
            "test_paged_cache_forks_with_copy_on_write",
        ),
        Mistake(
            "full blocks copied",
            "You copy a shared block that is full. Nothing is written to it "
            "any more: take a new block and leave it shared.",
            {_SHARED: "len(table) > 0 and self.users[table[-1]] > 1"},
            "test_paged_cache_forks_with_copy_on_write",
        ),
        Mistake(
            "the copy isn't counted off",
            "After the copy, the text doesn't use the old block any more, but "
            "you still count it as a user: the block is lost.",
            {"            self.users[old] -= 1\n": ""},
            "test_paged_cache_forks_with_copy_on_write",
        ),
        Mistake(
            "values not copied",
            "You copy the keys of the shared block and forget the values.",
            {"            self.values[own] = self.values[old]\n": ""},
            "test_paged_cache_forks_with_copy_on_write",
        ),
        Mistake(
            "an empty copy",
            "You take a block for the copy, but don't copy what the old one "
            "holds.",
            {_COPY: ""},
            "test_paged_cache_forks_with_copy_on_write",
        ),
        Mistake(
            "one table for two",
            "The new text has the table of the old one, not a copy: what one "
            "appends, the other gets. `list(table)` copies.",
            {
                "list(self.tables[text])\n        self.lengths": (
                    "self.tables[text]\n        self.lengths"
                )
            },
            "test_paged_cache_forks_with_copy_on_write",
        ),
        Mistake(
            "fork counts no user",
            "You fork without counting a second user, so nobody knows that "
            "the blocks are shared.",
            {_COUNT_FORK: ""},
            "test_paged_cache_forks_with_copy_on_write",
        ),
        Mistake(
            "fork copies everything",
            "You copy all blocks when a text is forked. Share them, and copy "
            "one block when it is written to.",
            _ForkCopies,
            "test_paged_cache_forks_with_copy_on_write",
        ),
        Mistake(
            "a fork without length",
            "The new text has all blocks, but its length is 0.",
            {"        self.lengths[twin] = self.lengths[text]\n": ""},
            "test_paged_cache_forks_with_copy_on_write",
        ),
        Mistake(
            "shared blocks freed",
            "You free blocks that another text still uses: they are given "
            "away and overwritten. Free a block with its last user.",
            {"if self.users[block] == 0:": "if True:"},
            "test_paged_cache_forks_with_copy_on_write",
        ),
        Mistake(
            "blocks never freed",
            "A text ends, but its blocks don't become free: in the end there "
            "are none left.",
            {"self.free_blocks.append(block)": "pass"},
            "test_paged_cache_takes_blocks_as_needed",
        ),
        Mistake(
            "reads whole blocks",
            "You return the empty slots of the last block as well. Cut after "
            "n tokens.",
            {_READ: "k.flatten(1, 2), v.flatten(1, 2)"},
            "test_paged_cache_reads_what_was_appended",
        ),
        Mistake(
            "a new block for each call",
            "You begin a new block at each call. Fill the last one first.",
            {"start = self.lengths[text]": "start = len(table) * size"},
            "test_paged_cache_reads_what_was_appended",
        ),
        Mistake(
            "a block too early",
            "You take a block as soon as the last one is full. Wait for a "
            "token that needs it.",
            {
                "needed = -(-end // size)": "needed = end // size + 1",
                "while len(table) * size < end": (
                    "while len(table) * size <= end"
                ),
            },
            "test_paged_cache_takes_blocks_as_needed",
        ),
        Mistake(
            "writes from the first slot",
            "You write the new tokens over the first ones. They belong behind "
            "those that are there.",
            {"torch.arange(start, end)": "torch.arange(end - start)"},
            "test_paged_cache_reads_what_was_appended",
        ),
        Mistake(
            "out of memory half-way",
            "When there is no room you notice it half-way, and the blocks "
            "taken so far are lost. Count what is needed before you take any.",
            {
                _TOO_MANY: "",
                "        block = self.free_blocks.pop()\n": (
                    "        if not self.free_blocks:\n"
                    "            raise MemoryError('no free block')\n"
                    "        block = self.free_blocks.pop()\n"
                ),
            },
            "test_paged_cache_takes_blocks_as_needed",
        ),
        Mistake(
            "the copy's block isn't reckoned with",
            "You count the blocks for the new tokens, but not the one for the "
            "copy.",
            {" + is_shared\n": "\n"},
            "test_paged_cache_survives_a_random_walk",
        ),
        Mistake(
            "no limit",
            "You take blocks without asking if there are any. Raise "
            "MemoryError where there are too few.",
            {_TOO_MANY: ""},
            "test_paged_cache_takes_blocks_as_needed",
        ),
    ],
    "quantize_kv": [
        Mistake(
            "2^bits steps",
            "You divide the range by 2^bits. Between 2^bits levels there are "
            "2^bits − 1 steps, and the highest code would need another bit.",
            {"2**bits - 1": "2**bits"},
            "test_quantize_by_hand",
        ),
        Mistake(
            "rounds down",
            "You cut the fraction off, so a number can be a whole scale away "
            "from its level. Round to the nearest.",
            {".round()": ".floor()"},
            "test_quantize_stays_within_half_a_step",
        ),
        Mistake(
            "one scale for everything",
            "You take the smallest and largest number of the whole tensor: a "
            "single outlier coarsens everything. Each group has its own.",
            {
                _LOW: f"x.amin().expand_as({_LOW})",
                _HIGH: f"x.amax().expand_as({_HIGH})",
            },
            "test_quantize_by_hand",
        ),
        Mistake(
            "the other dimension",
            "You swap the two kinds of groups. The numbers *along* `dim` are "
            "a group: with -1, those of a token.",
            {
                _LOW: _LOW.replace("dim,", "-3 - dim,"),
                _HIGH: _HIGH.replace("dim,", "-3 - dim,"),
            },
            "test_quantize_by_hand",
        ),
        Mistake(
            "levels around zero",
            "You centre the levels at zero. Keys often lie on one side of it, "
            "and then half of the codes are wasted: begin at the smallest "
            "number.",
            _symmetric,
            "test_quantize_by_hand",
        ),
        Mistake(
            "levels from zero",
            "Your lowest level is 0, so negative numbers are lost.",
            {_LOW: f"torch.zeros_like({_LOW})"},
            "test_quantize_by_hand",
        ),
        Mistake(
            "the range for the scale",
            "Your scale is the whole range. It is the distance of two "
            "neighbouring levels: divide by the number of steps.",
            {
                "(x.amax(dim, keepdim=True) - low) / highest": (
                    "x.amax(dim, keepdim=True) - low"
                )
            },
            "test_quantize_by_hand",
        ),
        Mistake(
            "a dimension is lost",
            "Scale and low have lost a dimension and don't line up with the "
            "codes any more: keepdim=True.",
            {", scale, low\n": ", scale.squeeze(dim), low.squeeze(dim)\n"},
            "test_quantize_by_hand",
        ),
        Mistake(
            "codes stay floats",
            "Your codes are floating-point numbers: nothing is saved. Store "
            "them as uint8.",
            {"codes.to(torch.uint8)": "codes"},
            "test_quantize_by_hand",
        ),
        Mistake(
            "signed codes",
            "Your codes are int8, whose largest is 127. Codes of 8 bits go to "
            "255: uint8.",
            {"torch.uint8": "torch.int8"},
            "test_quantize_by_hand",
        ),
        Mistake(
            "a whole zero-point",
            "You move the lowest level to a multiple of the scale, so that 0 "
            "is a level. Here the lowest level is the smallest number itself.",
            {
                "    divisor =": (
                    "    zero = (low / scale).round() * scale\n"
                    "    low = torch.where(scale > 0, zero, low)\n"
                    "    divisor ="
                )
            },
            "test_quantize_stays_within_half_a_step",
        ),
        Mistake(
            "a smallest scale",
            "You don't let the scale become small, so that a group of small "
            "numbers has few levels, or one. It may be as small as it likes, "
            "only not 0: divide by 1 there, and nowhere else.",
            {
                "    divisor =": (
                    "    scale = scale.clamp(min=1e-5)\n    divisor ="
                )
            },
            "test_quantize_by_hand",
        ),
        Mistake(
            "equal numbers in one group, a scale of 1 for all",
            "Where one group has equal numbers you give every group a scale "
            "of 1. Divide by 1 in that group alone.",
            {
                "    divisor =": (
                    "    if (scale == 0).any():\n"
                    "        scale = torch.ones_like(scale)\n"
                    "    divisor ="
                )
            },
            "test_quantize_by_hand",
        ),
    ],
    "dequantize_kv": [
        Mistake(
            "low forgotten",
            "You forget the lowest level: code 0 stands for low, not for 0.",
            {" * scale + low": " * scale"},
            "test_dequantize_by_hand",
        ),
        Mistake(
            "low before the scale",
            "You add low and multiply then, so low is scaled as well.",
            {
                "codes.to(scale.dtype) * scale + low": (
                    "(codes.to(scale.dtype) + low) * scale"
                )
            },
            "test_dequantize_by_hand",
        ),
        Mistake(
            "low subtracted",
            "You subtract low. Quantising took it away; add it again.",
            {"+ low": "- low"},
            "test_dequantize_by_hand",
        ),
        Mistake(
            "divided by the scale",
            "You divide by the scale. Quantising did that; multiply now.",
            {"* scale": "/ scale"},
            "test_dequantize_by_hand",
        ),
        Mistake(
            "signed codes",
            "You read the codes as int8, so those from 128 on are negative.",
            {"codes.to(scale.dtype)": "codes.to(torch.int8).to(scale.dtype)"},
            "test_dequantize_any_codes",
        ),
        Mistake(
            "always float32",
            "You return float32 whatever the scale is. Keep its dtype.",
            {
                "codes.to(scale.dtype) * scale + low": (
                    "codes.float() * scale.float() + low.float()"
                )
            },
            "test_dequantize_any_codes",
        ),
        Mistake(
            "float32 for half precision",
            "You compute in float32, so that half precision comes back as "
            "float32. Give the codes the dtype of the scale.",
            {"codes.to(scale.dtype)": "codes.float()"},
            "test_dequantize_any_codes",
        ),
        Mistake(
            "the middle of a step",
            "You add half a step. Each code stands for a level itself: the "
            "numbers were rounded to it.",
            {"codes.to(scale.dtype)": "(codes.to(scale.dtype) + 0.5)"},
            "test_dequantize_by_hand",
        ),
        Mistake(
            "codes returned",
            "You return the codes as numbers, without scale and low.",
            {"codes.to(scale.dtype) * scale + low": "codes.to(scale.dtype)"},
            "test_dequantize_by_hand",
        ),
    ],
}
