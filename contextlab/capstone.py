"""A trained model that may keep only so much, and the exam that it takes.

The model has four layers of attention and was trained on texts of 64 tokens;
the exam's texts have 256. What each layer keeps of them is said by a
``Design``. What that costs is not computed from the design, but counted while
the model reads.

``python -m contextlab.capstone my_design.py`` puts a design of yours among
those that are recorded.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from contextlab import facts, mechanisms, recorded
from contextlab.checks import describe_type
from contextlab.scaling import transformers_frequencies
from contextlab.tasks import UNKNOWN

N_LAYERS, N_HEADS, WIDTH = 4, 4, 16  # layers, query heads in each, D
SHARED = (4, 2, 1)  # KV heads of the models that were trained
TRAINED, N_TOKENS = 64, 256  # tokens of a text: in training, in the exam
TOLD, ASKED = 48, 16  # facts that a text tells, and how many it asks for
BASE = 10_000.0  # of the rotary positions
ROPES = ("none", "linear", "ntk", "yarn")
BITS = (16, 8, 4, 2)
MOST_BYTES = 10.0  # kept for each token of a text
MOST_FLOPS = 290_000.0  # for a text's last token
SEEDS = range(5)  # of the exams that everybody may see

# q, k, v and the window to a score for each entry
Importance = Callable[[Tensor, Tensor, Tensor, int], Tensor]
# scores, the window and the room for others to who may attend to whom
MemoryMask = Callable[[Tensor, int, int], Tensor]


@dataclass(frozen=True)
class Keep:
    """What a layer keeps of a text, in each of its KV heads.

    Attributes:
        window: w, a token sees itself and the w - 1 before it.
        memory: M, the room for entries that have left the window; which of
            them stay, a design's ``importance`` says.
        retrieved: R, to how many of the memory's entries a query attends,
            those with the highest scores q·k; None for all of them.
        bits: of each number of a key or a value: 16, 8, 4 or 2. Below 16, a
            key, and a value, has a scale and a lowest number besides, of 16
            bits each.
    """

    window: int
    memory: int = 0
    retrieved: int | None = None
    bits: int = 16


@dataclass(frozen=True)
class Design:
    """The trained model, and what it keeps of a text.

    Attributes:
        layers: what each of the four layers keeps.
        n_kv_heads: G, which of the trained models: 4, 2 or 1.
        rope: where positions beyond the trained ones come from. "none" turns
            on as in training, "linear" is PI; or "ntk", or "yarn".
        importance: gives each entry of a layer a score; the highest stay in
            the memory. Not needed without one.
    """

    layers: tuple[Keep, ...]
    n_kv_heads: int = 4
    rope: str = "none"
    importance: Importance | None = None


@dataclass(frozen=True)
class Result:
    """What an exam has shown.

    Attributes:
        recall: the share of questions that were answered right.
        kv_bytes: the most bytes held at once, for each token of a text.
        flops: operations for a text's last token.
    """

    recall: float
    kv_bytes: float
    flops: float

    def over_budget(self) -> str:
        """Say what costs too much, if anything does."""
        costs = (
            (f"{self.kv_bytes:,.2f}", "bytes for each token", MOST_BYTES),
            (f"{self.flops:,.0f}", "FLOPs for the last token", MOST_FLOPS),
        )
        over = self.kv_bytes > MOST_BYTES, self.flops > MOST_FLOPS
        return " and ".join(
            f"{cost} {what}, where {most:,.0f} are allowed"
            for (cost, what, most), too_much in zip(costs, over, strict=True)
            if too_much
        )


class PeekError(ValueError):
    """A score depends on what is not its entry's past."""


def checked(given: Any) -> Design:
    """Copy a design, whoever made it, and make sure that it is one.

    Raises:
        ValueError: says what is missing or out of range.
    """
    for name in ("layers", "n_kv_heads", "rope", "importance"):
        if not hasattr(given, name):
            raise ValueError(
                f"design() should return a Design, not {describe_type(given)}"
            )
    layers, shared = given.layers, given.n_kv_heads
    rope, importance = given.rope, given.importance
    if type(layers) not in (tuple, list) or len(layers) != N_LAYERS:
        raise ValueError(f"a design has {N_LAYERS} layers, one Keep for each")
    if type(shared) is not int or shared not in SHARED:
        raise ValueError("n_kv_heads is 4, 2 or 1: these models were trained")
    if type(rope) is not str or rope not in ROPES:
        raise ValueError(f"rope is one of {', '.join(ROPES)}")
    kept = tuple(_checked_layer(n, keep) for n, keep in enumerate(layers))
    if any(keep.memory for keep in kept) and importance is None:
        raise ValueError("a memory needs an importance that says what stays")
    if importance is not None and not callable(importance):
        raise ValueError(
            "importance is a function, which is called with q, k, v and the "
            f"window, not {_describe(importance)}"
        )
    return Design(kept, shared, rope, importance)


def _checked_layer(number: int, given: Any) -> Keep:
    names = ("window", "memory", "retrieved", "bits")
    if not all(hasattr(given, name) for name in names):
        raise ValueError(f"layer {number} should be a Keep")
    window, memory, retrieved, bits = (getattr(given, n) for n in names)
    for name, value, least in (
        ("window", window, 1),
        ("memory", memory, 0),
        ("retrieved", 1 if retrieved is None else retrieved, 1),
    ):
        if type(value) is not int or not least <= value <= N_TOKENS:
            raise ValueError(
                f"layer {number}: {name} is a whole number from {least} to "
                f"{N_TOKENS}"
            )
    if type(bits) is not int or bits not in BITS:
        raise ValueError(f"layer {number}: bits are 16, 8, 4 or 2")
    return Keep(window, memory, retrieved, bits)


@cache
def trained(n_kv_heads: int) -> mechanisms.Model:
    """Return the model that benchmarks/capstone.py has trained."""
    model = fresh(n_kv_heads)
    weights = load_file(recorded.HERE / f"capstone_{n_kv_heads}.safetensors")
    model.load_state_dict({n: w.float() for n, w in weights.items()})
    return model.eval().requires_grad_(False)


def fresh(n_kv_heads: int, seed: int = 0) -> mechanisms.Model:
    """Return the model as it is before training."""
    layer = mechanisms.Layer(n_heads=N_HEADS, n_kv_heads=n_kv_heads)
    design = mechanisms.Design((layer,) * N_LAYERS, N_HEADS * WIDTH)
    return mechanisms.build(design, facts.VOCABULARY, seed)


def n_weights(n_kv_heads: int) -> int:
    """Count the weights that a token is multiplied with.

    That is all of a model's parameters but its table of tokens, of which a
    token reads one row.
    """
    model = trained(n_kv_heads)
    total = sum(parameter.numel() for parameter in model.parameters())
    return total - model.wte.weight.numel()


@cache
def frequencies(rope: str) -> tuple[Tensor, float]:
    """Return radians a token of each pair of channels, and the factor."""
    scale = N_TOKENS / TRAINED
    if rope == "ntk":  # dynamic NTK, at the length of the exam
        return transformers_frequencies(
            "dynamic", WIDTH, BASE, TRAINED, 1.0, n_tokens=N_TOKENS
        )
    kind = "default" if rope == "none" else rope
    return mechanisms.Rope(kind, BASE, scale, TRAINED).frequencies(WIDTH)


def exam(n_texts: int, seed: int) -> tuple[Tensor, Tensor]:
    """Write texts that tell 48 facts, and then ask for 16 of them.

    Returns:
        The tokens, shape (B, 256), and what follows each of them, shape
        (B, 256): ``UNKNOWN`` but after the name that asks.
    """
    generator = torch.Generator().manual_seed(seed)
    told = torch.arange(TOLD).repeat(n_texts, 1)
    asked = torch.rand(n_texts, TOLD, generator=generator).argsort(-1)
    return facts.tell(torch.cat([told, asked[:, :ASKED]], 1), generator)


def rounded(x: Tensor, bits: int) -> Tensor:
    """Round each row of x, shape (..., D), to 2^bits even steps."""
    if bits == 16:
        return x.half().float()
    low, high = x.aminmax(dim=-1, keepdim=True)
    low = low.half().float()
    step = ((high - low) / (2**bits - 1)).half().float().clamp(min=1e-6)
    return low + step * ((x - low) / step).round().clamp(0, 2**bits - 1)


def scores_of(
    importance: Importance, q: Tensor, k: Tensor, v: Tensor, window: int
) -> Tensor:
    """Let a policy score the entries, with and without the questions.

    What it says before it has seen the questions counts: a policy with a
    memory of its own could find them there.

    Returns:
        Shape (B, G, T).

    Raises:
        PeekError: if an entry's score depends on what comes after the entry
            has left the window, or on what the policy was asked before.
        ValueError: if these are no scores.
    """
    n_told = min(facts.STRIDE * TOLD, q.shape[2])
    parts = []
    for n in (n_told, q.shape[2], n_told):
        given = (x[:, :, :n].clone() for x in (q, k, v))
        scores = importance(*given, window)
        shape = (*k.shape[:2], n)
        if not isinstance(scores, Tensor) or tuple(scores.shape) != shape:
            raise ValueError(
                f"importance should return scores of shape {shape}, but "
                f"returned {_describe(scores)}"
            )
        scores = scores.detach().float()
        if not scores.isfinite().all():
            raise ValueError("importance returned scores that aren't finite")
        parts.append(scores)
    told, whole, again = parts
    decided = max(n_told - window + 1, 0)  # have left before any question
    if moved(told, again, n_told):
        raise PeekError(
            "importance gives the same text other scores the second time; it "
            "may draw nothing, and keep nothing from one call to the next"
        )
    if moved(told, whole, decided):
        raise PeekError(
            "importance reads the future: scores of entries change with what "
            "comes after these have left the window, such as the questions"
        )
    return torch.cat([told[..., :decided], whole[..., decided:]], -1)


def moved(before: Tensor, after: Tensor, n: int) -> bool:
    """Say whether one of the first n scores in a row is another one.

    Only their order counts, so a change is measured by how far the scores of
    a row lie apart. What is left to rounding is a millionth of their size.
    """
    apart = before.std(-1, correction=0, keepdim=True)
    allowed = 1e-3 * apart + 1e-6 * before.abs().amax(-1, keepdim=True)
    change = (after[..., :n] - before[..., :n]).abs()
    return not bool((change <= allowed).all())


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return describe_type(value)


@torch.no_grad()
def read(
    design: Design,
    ids: Tensor,
    memory_mask: MemoryMask,
    model: mechanisms.Model | None = None,
) -> tuple[Tensor, float, float]:
    """Let the model read texts as a design says, and count what it uses.

    Args:
        design: as ``checked`` returns it.
        ids: tokens, shape (B, T).
        memory_mask: chapter 15's, which makes a mask of scores.
        model: reads; by default the one that was trained.

    Returns:
        The logits, shape (B, T, V); the bytes held at most, for each token;
        and the FLOPs of the last token.
    """
    model = model or trained(design.n_kv_heads)
    inv_freq, factor = frequencies(design.rope)
    n_tokens = ids.shape[1]
    angles = torch.arange(n_tokens)[:, None] * inv_freq
    tables = factor * angles.cos(), factor * angles.sin()
    times = N_HEADS // design.n_kv_heads
    n_bytes, flops = 0.0, 2.0 * n_weights(design.n_kv_heads)
    x = model.wte(ids)
    for layer, keep in zip(model.h, design.layers, strict=True):
        mixer = layer["mixer"]
        q, k, v = mixer.heads(layer["ln_1"](x))
        k, v = k[:, ::times], v[:, ::times]  # (B, G, T, D), as it is kept
        scores = torch.zeros(k.shape[:3])
        if keep.memory:
            scores = scores_of(design.importance, q, k, v, keep.window)
        seen = memory_mask(scores, keep.window, keep.memory)
        n_bytes += most_held(seen) * entry_bytes(keep.bits)
        k, v = (
            rounded(part, keep.bits).repeat_interleave(times, 1)
            for part in (k, v)
        )
        seen = seen.repeat_interleave(times, 1)  # (B, H, T, T)
        products = mechanisms.rotate(q, *tables) @ (
            mechanisms.rotate(k, *tables).mT
        )
        used = retrieved(products, seen, keep)
        for mask in (seen, used):  # q·k of all, and a sum over some
            flops += 2 * WIDTH * mask[:, :, -1].sum((1, 2)).max().item()
        weights = products.masked_fill(~used, -math.inf) / WIDTH**0.5
        heard = (weights.softmax(-1) @ v).transpose(1, 2).flatten(-2)
        x = x + mixer.out(heard)
        x = x + layer["mlp"](layer["ln_2"](x))
    return model.lm_head(model.ln_f(x)), n_bytes / n_tokens, flops


def most_held(seen: Tensor) -> int:
    """Count the entries that have to be there at once, in all KV heads.

    An entry has to be there from its own step to the last that sees it.

    Args:
        seen: who may attend to whom, shape (B, G, T, T).
    """
    needed = seen.flip(-2).cummax(-2).values.flip(-2).tril()
    return int(needed.sum((1, 3)).max())


def entry_bytes(bits: int) -> float:
    """Return the bytes of a key and a value of one KV head."""
    scale = 0 if bits == 16 else 32  # bits, for a scale and a lowest number
    return 2 * (WIDTH * bits + scale) / 8


def retrieved(products: Tensor, seen: Tensor, keep: Keep) -> Tensor:
    """Say to which of the entries that are there each query attends.

    Args:
        products: q·k, shape (B, H, T, T).
        seen: which of the entries there are, shape (B, H, T, T).
        keep: what the layer keeps.
    """
    if keep.retrieved is None or keep.retrieved >= keep.memory:
        return seen
    place = torch.arange(products.shape[-1])
    far = seen & (place[:, None] - place >= keep.window)
    found = mechanisms.largest(products, far, keep.retrieved)
    return (seen & ~far) | found


def examine(
    design: Any,
    memory_mask: MemoryMask,
    seed: int,
    n_texts: int = 24,
    model: mechanisms.Model | None = None,
) -> Result:
    """Let a design take an exam, of 16 questions about each text.

    Raises:
        ValueError: if it is no design.
        PeekError: if it reads what it can't know yet.
    """
    design = checked(design)
    ids, targets = exam(n_texts, seed)
    logits, kv_bytes, flops = read(design, ids, memory_mask, model)
    asked = targets != UNKNOWN
    right = logits.argmax(-1)[asked] == targets[asked]
    return Result(right.double().mean().item(), kv_bytes, flops)


def on_record() -> list[tuple[str, list[Result]]]:
    """Return the names of recorded designs, and the results of their exams."""
    return [
        (row["name"], [Result(**result) for result in row["results"]])
        for row in recorded.read("capstone")["rows"]
        if "results" in row
    ]


def board(*own: tuple[str, list[Result]]) -> Iterator[str]:
    """Write the leaderboard: the recorded designs, and others beside them.

    Args:
        own: a name and the results of its exams, for each other design.
    """
    rows = [*on_record(), *own]

    def points(row: tuple[str, list[Result]]) -> tuple[bool, float]:
        return not row[1][0].over_budget(), mean_recall(row[1])

    yield f"{'design':<34}{'recall':>8}{'range':>13}{'bytes':>9}{'FLOPs':>10}"
    for row in sorted(rows, key=points, reverse=True):
        name, results = row
        recalls = [result.recall for result in results]
        fits, recall = points(row)
        yield (
            f"{name:<34}{recall:>8.2f}{min(recalls):>7.2f}–{max(recalls):.2f} "
            f"{results[0].kv_bytes:>9,.1f}{results[0].flops:>10,.0f}"
            + ("" if fits else "  over budget")
        )


def mean_recall(results: list[Result]) -> float:
    """Return the mean recall of several exams."""
    return sum(result.recall for result in results) / len(results)


def load(path: Path) -> ModuleType:
    """Import a file with a design, an importance and a memory_mask."""
    spec = spec_from_file_location(path.stem, path)
    if spec is None or not path.is_file():
        raise ValueError(f"{path} is no Python file")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("design", "memory_mask"):
        if not hasattr(module, name):
            raise ValueError(f"{path} defines no {name}")
    return module


def main() -> None:
    """Put a design on the leaderboard."""
    parser = argparse.ArgumentParser(
        prog="python -m contextlab.capstone",
        description="Put a design on the leaderboard.",
    )
    parser.add_argument(
        "file", type=Path, help="defines design, importance and memory_mask"
    )
    path = parser.parse_args().file
    torch.set_num_threads(1)
    try:
        module = load(path)
        results = [
            examine(module.design(), module.memory_mask, seed)
            for seed in SEEDS
        ]
    except ValueError as error:
        parser.error(str(error))
    for line in board((f"→ {path.stem}", results)):
        print(line)


if __name__ == "__main__":
    main()
