"""Interactive figures, each one ES module: for the notebook and the page.

In a notebook a figure is an anywidget. While the book is built (environment
variable ``CONTEXTLAB_PAGE=1``) it is a piece of HTML, which the page brings
to life with the same module, without a kernel and without a network.
"""

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contextlab.sharing import Kept

HERE = Path(__file__).parent
NAMES = (
    "attention_explorer",
    "budget_explorer",
    "cache_explorer",
    "clock_explorer",
    "head_explorer",
    "mask_explorer",
    "ramp_explorer",
    "sharing_explorer",
    "mask_painter",
    "needle_explorer",
    "notebook_explorer",
    "state_explorer",
    "ring_explorer",
    "tile_explorer",
    "wall_explorer",
    "window_explorer",
)
MOST = 12  # the largest mask that fits a phone
BASES = (100, 10_000, 500_000)  # of the clock explorer
FAR = 127  # its last position
RAMP_BASES = (10_000, 500_000, 1_000_000)
WALL = range(7, 24)  # lengths of the wall explorer, as powers of two
CACHED = range(10, 25)  # tokens of the cache explorer, as powers of two
IMPORT = re.compile(r'^import [^;]* from "\./(\w+)\.js";\n', re.MULTILINE)


def on_page() -> bool:
    """Say whether the figures are made for the page of the book."""
    return os.environ.get("CONTEXTLAB_PAGE") == "1"


def module(name: str) -> str:
    """Return a figure's ES module with what it imports put in."""
    source = (HERE / f"{name}.js").read_text(encoding="utf-8")
    parts = [
        (HERE / f"{part}.js").read_text(encoding="utf-8")
        for part in IMPORT.findall(source)
    ]
    shared = "".join(parts).replace("export ", "")
    return shared + IMPORT.sub("", source)


def on_page_script() -> str:
    """Return what brings the figures of a page to life."""
    return (HERE / "on_page.js").read_text(encoding="utf-8")


def style() -> str:
    """Return the stylesheet that all figures share."""
    return (HERE / "figure.css").read_text(encoding="utf-8")


class PageFigure:
    """A figure as HTML: its state, and what is read without a script."""

    def __init__(self, name: str, state: dict[str, Any], without: str):
        self.name, self.state, self.without = name, state, without

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        state = escape(json.dumps(self.state, ensure_ascii=False))
        html = (
            f'<div class="contextlab-figure" data-widget="{self.name}"'
            f' data-state="{state}">{self.without}</div>'
            "<script>window.contextlab?.show("
            "document.currentScript.previousElementSibling)</script>"
        )
        return {"text/html": html}


def figure(name: str, state: dict[str, Any], without: str) -> Any:
    """Return the figure ``name``: an anywidget, or HTML on the page.

    Args:
        name: the ES module of the figure, one of ``NAMES``.
        state: what the module reads and changes; plain JSON.
        without: HTML that says the same to a reader without a script.
    """
    if on_page():
        return PageFigure(name, state, without)
    import anywidget
    import traitlets

    traits = {key: traitlets.Any().tag(sync=True) for key in state}
    kind = type(
        name.title().replace("_", ""),
        (anywidget.AnyWidget,),
        {"_esm": module(name), "_css": style(), **traits},
    )
    return kind(**state)


def attention_explorer(
    tokens: Sequence[str],
    q: Tensor | Sequence[Sequence[float]],
    k: Tensor | Sequence[Sequence[float]],
    *,
    query: int = 0,
    causal: bool = False,
) -> Any:
    """Show whom each token attends to, and what the divisor √D does.

    Args:
        tokens: the n tokens, as text.
        q: queries, shape (n, D).
        k: keys, shape (n, D).
        query: the token that asks at first, an index.
        causal: whether the future is hidden at first.

    Raises:
        ValueError: if the shapes don't fit, or a number isn't finite.
    """
    queries = torch.as_tensor(q).detach().to("cpu", torch.float64)
    keys = torch.as_tensor(k).detach().to("cpu", torch.float64)
    n = len(tokens)
    if queries.ndim != 2 or queries.shape != keys.shape or len(queries) != n:
        raise ValueError(
            f"{n} tokens need q and k of shape ({n}, D), not "
            f"{tuple(queries.shape)} and {tuple(keys.shape)}"
        )
    products = queries @ keys.T  # (n, n)
    if not products.isfinite().all():
        raise ValueError("q·k must be finite")
    if not 0 <= query < n:
        raise ValueError(f"query must be one of 0 to {n - 1}, not {query}")
    width = queries.shape[1]
    seen = query + 1 if causal else n
    weights = (products[query, :seen] / math.sqrt(width)).softmax(0)
    rows = [
        [token, f"{100 * weight:.0f} %"]
        for token, weight in zip(tokens, weights.tolist(), strict=False)
    ]
    title = f"Whom “{tokens[query]}” attends to"
    state = {
        "tokens": list(tokens),
        "products": [
            [float(f"{x:.6g}") for x in r] for r in products.tolist()
        ],
        "width": width,
        "query": query,
        "divisor": math.sqrt(width),
        "causal": causal,
    }
    return figure(
        "attention_explorer", state, table(title, ["token", "weight"], rows)
    )


def head_explorer(
    tokens: Sequence[str],
    weights: dict[str, Tensor],
    *,
    period: int,
    layer: int = 0,
    head: int = 0,
    query: int = 0,
) -> Any:
    """Show whom each token attends to, in any head of one or more models.

    Args:
        tokens: the T tokens of a text that repeats itself, as text.
        weights: by the name of the model, the weights of its heads, of shape
            (layers, heads, T, T); causal. The last model is shown at first.
        period: after how many tokens the text begins to repeat itself.
        layer: the layer shown at first, an index.
        head: the head shown at first, an index.
        query: the token that asks at first, an index.

    Raises:
        ValueError: if the shapes don't fit, if weights aren't causal or don't
            sum to 1, or if an index or the period lies outside its range.
    """
    n = len(tokens)
    if not weights:
        raise ValueError("the figure needs the weights of at least one model")
    shapes = {name: tuple(w.shape) for name, w in weights.items()}
    layers, heads = [*next(iter(shapes.values())), 0, 0][:2]
    if {*shapes.values()} != {(layers, heads, n, n)}:
        raise ValueError(
            f"{n} tokens need weights of shape (layers, heads, {n}, {n}), "
            f"the same for each model, not {shapes}"
        )
    for name, given in weights.items():
        causal = torch.allclose(given, given.tril())
        if not causal or not torch.allclose(given.sum(-1), torch.ones(())):
            raise ValueError(
                f"the weights of {name!r} need rows that sum to 1 and zeros "
                "above the diagonal"
            )
    limits = {"layer": layers, "head": heads, "query": n, "period": n}
    start = {"layer": layer, "head": head, "query": query, "period": period}
    for name, value in start.items():
        if not (name == "period") <= value < limits[name]:
            raise ValueError(f"{name} {value} lies outside its range")
    models = [
        (name, (given.double() * 1e4).round().div(1e4).tolist())
        for name, given in weights.items()
    ]
    rows = []
    for place in range(layers * heads):
        asked = [w.flatten(0, 1)[place, query] for w in weights.values()]
        most = [f"{tokens[int(w.argmax())]}, {w.max():.0%}" for w in asked]
        name = f"layer {place // heads + 1}, head {place % heads + 1}"
        rows.append([name, *most])
    title = f"Whom token {query + 1}, “{tokens[query]}”, attends to most"
    state = {
        "tokens": list(tokens),
        "models": models,
        "model": len(models) - 1,
        **start,
    }
    names = ["head", *weights]
    return figure("head_explorer", state, table(title, names, rows))


def mask_explorer(n_queries: int = 4, n_keys: int = 6) -> Any:
    """Show which keys each query may attend to under the causal mask.

    The queries are the last ``n_queries`` of ``n_keys`` positions; the figure
    also shows the usual bug, a mask aligned at the top left.

    Raises:
        ValueError: unless 1 ≤ n_queries ≤ n_keys ≤ 12.
    """
    if not 1 <= n_queries <= n_keys <= MOST:
        raise ValueError(
            f"the mask needs 1 ≤ n_queries ≤ n_keys ≤ {MOST}, "
            f"not {n_queries} and {n_keys}"
        )
    shift = n_keys - n_queries
    rows = [
        [f"query {t} at {t + shift}"]
        + ["●" if s <= t + shift else "·" for s in range(n_keys)]
        for t in range(n_queries)
    ]
    title = "Causal mask: ● may attend, · hidden"
    state = {
        "n_queries": n_queries,
        "n_keys": n_keys,
        "most": MOST,
        "query": 0,
        "top_left": False,
    }
    head = ["key", *map(str, range(n_keys))]
    return figure("mask_explorer", state, table(title, head, rows))


def window_explorer(
    messages: Sequence[dict[str, str]],
    merges: Sequence[tuple[int, int]],
    count: Callable[[dict[str, str]], int],
    *,
    window: int = 256,
    reserve: int = 40,
) -> Any:
    """Show which messages of a conversation still fit a model's window.

    Whoever types goes on with the conversation and sees the oldest messages
    fall out, all but the system's.

    Args:
        messages: each has a "role" and a "content"; the oldest is first.
        merges: what ``bpe_train`` returned: with it, the figure counts the
            tokens of what is typed.
        count: returns the number of tokens of a message.
        window: how many tokens the model can hold at first, 64 to 512.
        reserve: how many of them are left for its answer, 0 to 128.

    Raises:
        ValueError: if a number lies outside its range, or there is no
            message.
    """
    if not messages:
        raise ValueError("a conversation needs at least one message")
    if not (64 <= window <= 512 and 0 <= reserve <= 128):
        raise ValueError(
            "the figure needs a window of 64 to 512 tokens and a reserve of "
            f"0 to 128, not {window} and {reserve}"
        )
    costs = [count(message) for message in messages]
    rows = [
        [f"{m['role']}: {m['content']}", str(cost), str(sum(costs[n:]))]
        for n, (m, cost) in enumerate(zip(messages, costs, strict=True))
    ]
    title = f"What fits {window} tokens, {reserve} of them for the answer?"
    head = ["message", "tokens", "from here to the end"]
    state = {
        "messages": [dict(message) for message in messages],
        "merges": [list(pair) for pair in merges],
        "window": window,
        "reserve": reserve,
        "draft": "",
    }
    return figure("window_explorer", state, table(title, head, rows))


def tile_explorer(
    n: int = 12, width: int = 4, block_q: int = 4, block_k: int = 4
) -> Any:
    """Show FlashAttention tile by tile, and the bytes that it moves.

    Args:
        n: how many queries there are, and how many keys.
        width: of queries, keys, values and outputs.
        block_q: how many queries a tile has at first.
        block_k: how many keys a tile has at first.

    Raises:
        ValueError: unless both tiles fit 1 ≤ block ≤ n ≤ 12 and width ≥ 1.
    """
    blocks_fit = 1 <= min(block_q, block_k) <= max(block_q, block_k) <= n
    if not (blocks_fit and n <= MOST and width >= 1):
        raise ValueError(
            f"the figure needs 1 ≤ block_q, block_k ≤ n ≤ {MOST} and "
            f"width ≥ 1, not {block_q}, {block_k}, {n} and {width}"
        )
    moved, rows = 0, []  # in numbers of two bytes
    for top in range(0, n, block_q):
        n_rows = min(block_q, n - top)
        for left in range(0, n, block_k):
            n_columns = min(block_k, n - left)
            moved += 2 * n_columns * width  # keys and values in
            if left == 0:
                moved += n_rows * width  # queries in
            if left + n_columns == n:
                moved += n_rows * (width + 1)  # output and LSE out
            pair = f"{top} to {top + n_rows - 1}"
            keys = f"{left} to {left + n_columns - 1}"
            rows.append([pair, keys, f"{2 * moved:,}"])
    naive = 2 * (4 * n * width + 4 * n * n)
    title = f"Bytes moved, tile by tile; the naive way moves {naive:,}"
    state = {
        "n": n,
        "width": width,
        "block_q": block_q,
        "block_k": block_k,
        "step": 0,
    }
    head = ["queries", "keys", "bytes so far"]
    return figure("tile_explorer", state, table(title, head, rows))


def wall_explorer(
    models: dict[str, tuple[int, int, int]],
    memories: dict[str, int],
    *,
    n_tokens: int = 1_024,
) -> Any:
    """Show how pairs, bytes and FLOPs grow with the text, beside a line.

    Args:
        models: by name, the number of layers, of heads in each, and the width
            of a head. Scores are float32, and all of them are kept.
        memories: by name, how many bytes a machine has.
        n_tokens: the length at first, a power of two.

    Raises:
        ValueError: if there is no model, or the length is no power of two
            from 128 to 8,388,608.
    """
    if not models:
        raise ValueError("the figure needs at least one model")
    if n_tokens not in (2**power for power in WALL):
        raise ValueError(
            f"n_tokens must be a power of two from {2 ** WALL[0]:,} to "
            f"{2 ** WALL[-1]:,}, not {n_tokens:,}"
        )
    rows = []
    for name, (layers, heads, width) in models.items():
        for n in (n_tokens, 2 * n_tokens, 4 * n_tokens):
            pairs = layers * heads * n * n
            counts = (pairs, 4 * pairs, 4 * pairs * width)
            rows.append([f"{name}, {n:,} tokens", *(f"{c:,}" for c in counts)])
    state = {
        "models": [[name, *sizes] for name, sizes in models.items()],
        "memories": [list(pair) for pair in memories.items()],
        "powers": [WALL[0], WALL[-1]],
        "power": n_tokens.bit_length() - 1,
        "model": 0,
        "count": "bytes",
    }
    title = "Twice the text: four times the pairs, bytes and FLOPs"
    head = ["model and text", "pairs", "bytes", "FLOPs"]
    return figure("wall_explorer", state, table(title, head, rows))


def clock_explorer(
    width: int = 16, *, base: int = 10_000, query: int = 40, key: int = 36
) -> Any:
    """Show where the hands of two rotary positions stand, and between them.

    Args:
        width: of a head, two channels a hand.
        base: at first, one of ``BASES``.
        query: the position of a query at first, 0 to 127.
        key: the position of a key at first, 0 to 127.

    Raises:
        ValueError: if the width isn't even and 4 to 32, the base isn't one of
            those, or a position lies outside its range.
    """
    if width % 2 or not 4 <= width <= 32:
        raise ValueError(f"the clock needs an even width of 4 to 32: {width}")
    if base not in BASES:
        raise ValueError(f"the base must be one of {BASES}, not {base}")
    if not (0 <= query <= FAR and 0 <= key <= FAR):
        raise ValueError(
            f"positions go from 0 to {FAR}, not to {query} and {key}"
        )
    rows = []
    for pair in range(width // 2):
        hand = base ** (-2 * pair / width)
        between = math.remainder((query - key) * hand, 2 * math.pi)
        cells = [f"{hand:.2g}", f"{2 * math.pi / hand:,.0f}", f"{between:.2f}"]
        rows.append([f"pair {pair}", *cells])
    state = {
        "width": width,
        "base": base,
        "bases": list(BASES),
        "query": query,
        "key": key,
        "together": False,
        "last": FAR,
    }
    title = f"A query at {query} and a key at {key}, base {base:,}"
    head = ["hand", "radians a token", "tokens a turn", "angle between"]
    return figure("clock_explorer", state, table(title, head, rows))


def ramp_explorer(
    width: int = 64,
    *,
    base: int = 10_000,
    window: int = 2_048,
    scale: int = 8,
    beta_fast: float = 32,
    beta_slow: float = 1,
) -> Any:
    """Show how many times as slow PI, NTK and YaRN make each pair.

    Args:
        width: of a head, two channels a pair.
        base: at first, one of ``RAMP_BASES``.
        window: what the model was trained with at first, a power of two.
        scale: how far it is stretched at first, a power of two.
        beta_fast: where the ramp begins at first, 8 to 64 turns.
        beta_slow: where it ends at first, 0.5 to 6 turns.

    Raises:
        ValueError: if a number lies outside its range.
    """
    if width % 2 or not 8 <= width <= 256:
        raise ValueError(f"the ramp needs an even width of 8 to 256: {width}")
    if base not in RAMP_BASES:
        raise ValueError(f"the base must be one of {RAMP_BASES}, not {base}")
    if window not in (2**power for power in range(6, 18)):
        raise ValueError(f"the window is 64, 128, … 131,072, not {window:,}")
    if scale not in (2**power for power in range(7)):
        raise ValueError(f"the scale is 1, 2, 4, … 64, not {scale}")
    if not (8 <= beta_fast <= 64 and 0.5 <= beta_slow <= 6):
        raise ValueError(
            "the figure needs 8 to 64 turns for beta_fast and 0.5 to 6 for "
            f"beta_slow, not {beta_fast} and {beta_slow}"
        )
    low, high = (
        width * math.log(window / (2 * math.pi * r)) / (2 * math.log(base))
        for r in (beta_fast, beta_slow)
    )
    low, high = max(math.floor(low), 0), min(math.ceil(high), width - 1)
    rows = []
    for pair in range(0, width // 2, max(1, width // 16)):
        turns = window * base ** (-2 * pair / width) / (2 * math.pi)
        ramp = min(max((pair - low) / ((high - low) or 0.001), 0), 1)
        slower = (
            scale,
            scale ** (2 * pair / (width - 2)),
            1 / (1 - ramp + ramp / scale),
        )
        cells = [f"{turns:.3g}", *(f"{times:.3g}" for times in slower)]
        rows.append([f"pair {pair}", *cells])
    state = {
        "width": width,
        "base": base,
        "bases": list(RAMP_BASES),
        "window": window.bit_length() - 1,
        "scale": scale.bit_length() - 1,
        "fast": beta_fast,
        "slow": beta_slow,
        "pair": width // 4,
    }
    title = f"How many times as slow: {window:,} tokens stretched by {scale}"
    head = ["pair", "turns in the window", "PI", "NTK", "YaRN"]
    return figure("ramp_explorer", state, table(title, head, rows))


def state_explorer(
    tokens: Sequence[str],
    steps: Sequence[float],
    *,
    keep: Sequence[int] = (),
    rate: float = -1.0,
    state_bytes: int,
    token_bytes: int,
) -> Any:
    """Show what one number of a state holds of each token that it has read.

    A step is the zero-order hold of chapter 12, with b counted in units of
    −rate: then a token takes for itself what the others lose.

    Args:
        tokens: the n tokens, as text.
        steps: how long each of them lasts at first, 0.001 to 10.
        keep: which tokens the button *Selective* gives a long step.
        rate: how fast the state decays at first, −10 to −0.01.
        state_bytes: what a model's states take, for a text of any length.
        token_bytes: what each token adds to a cache.

    Raises:
        ValueError: if a number lies outside its range, or steps are missing.
    """
    if not tokens or len(tokens) != len(steps):
        raise ValueError(
            f"every token needs a step: {len(tokens)} tokens, "
            f"{len(steps)} steps"
        )
    if not (all(0.001 <= x <= 10 for x in steps) and -10 <= rate <= -0.01):
        raise ValueError(
            "the figure needs steps of 0.001 to 10 and a rate of −10 to "
            f"−0.01, not {list(steps)} and {rate}"
        )
    shares: list[float] = []
    rows = []
    for token, step in zip(tokens, steps, strict=True):
        kept = math.exp(rate * step)
        shares = [kept * share for share in shares] + [1 - kept]
        rows.append([token, f"{step:g}", f"{100 * kept:.0f} %"])
    for row, share in zip(rows, shares, strict=True):
        row.append(f"{100 * share:.0f} %")
    title = "What a state holds of each token, after the last one"
    head = ["token", "step Δ", "of the old state is kept", "share at the end"]
    state = {
        "tokens": list(tokens),
        "steps": list(steps),
        "inputs": [1.0] * len(tokens),
        "reads": [1.0] * len(tokens),
        "kept": list(keep),
        "rate": -rate,
        "token": len(tokens) - 1,
        "power": 11,  # 2,048 tokens
        "state_bytes": state_bytes,
        "token_bytes": token_bytes,
    }
    return figure("state_explorer", state, table(title, head, rows))


def mask_painter(
    n: int = 24,
    *,
    window: int = 4,
    stride: int = 0,
    n_global: int = 0,
    n_layers: int = 2,
    causal: bool = True,
    width: int = 64,
) -> Any:
    """Paint a sparse mask; show its pairs, its FLOPs and its reach.

    Args:
        n: the number of tokens, 8 to 24.
        window: how many keys a query sees at first, its own among them.
        stride: every how many positions it sees one more.
        n_global: how many of the first tokens are global, at most 6.
        n_layers: through how many layers tokens hear of each other.
        causal: whether the future is hidden.
        width: D, the width of a head.

    Raises:
        ValueError: if a number lies outside its range.
    """
    if not (
        8 <= n <= 2 * MOST
        and 0 <= window <= n
        and 0 <= stride < n
        and 0 <= n_global <= 6
        and 1 <= n_layers <= 8
        and width >= 1
    ):
        raise ValueError(
            f"the figure needs 8 ≤ n ≤ {2 * MOST}, 0 ≤ window ≤ n, "
            "0 ≤ stride < n, 0 ≤ n_global ≤ 6 and 1 ≤ n_layers ≤ 8"
        )
    at = torch.arange(n)
    back = at[:, None] - at if causal else (at[:, None] - at).abs()
    mask = back < window
    if stride:
        mask |= back % stride == 0
    mask |= (at < n_global) | (at < n_global)[:, None]
    mask &= back >= 0
    pairs = int(mask.sum())
    reach, rows = torch.eye(n), []
    for layer in range(1, n_layers + 1):
        reach = ((mask.float() @ reach + reach) > 0).float()
        rows.append([str(layer), str(int(reach[-1].sum()))])
    title = f"{pairs} of {n * n} pairs; what the last token hears of"
    state = {
        "n": n,
        "width": width,
        "window": window,
        "stride": stride,
        "n_global": n_global,
        "causal": causal,
        "n_layers": n_layers,
        "painted": [],
        "query": n - 1,
        "key": n - 1,
    }
    head = ["layers", "tokens"]
    return figure("mask_painter", state, table(title, head, rows))


def sharing_explorer(models: dict[str, Kept], *, model: str) -> Any:
    """Show what a token leaves behind when heads share keys and values.

    Args:
        models: published sizes, by the model's name.
        model: the name of the one that is shown first.

    Raises:
        ValueError: if there is no such model.
    """
    if model not in models:
        raise ValueError(
            f"there are no sizes of {model!r}, only of {', '.join(models)}"
        )
    sizes = models[model]
    rows = [
        [way, f"{numbers:,}", f"{2 * sizes.layers * numbers:,}"]
        for way, numbers in sizes.numbers().items()
    ]
    state = {
        "models": [[name, kept.as_state()] for name, kept in models.items()],
        "model": list(models).index(model),
        **sizes.as_state(),
    }
    title = f"What a token leaves behind, with the sizes of {model}"
    head = ["way", "numbers a layer", "bytes in all layers"]
    return figure("sharing_explorer", state, table(title, head, rows))


def notebook_explorer(
    lines: Sequence[str],
    questions: Sequence[str],
    scores: Tensor,
    *,
    now: int | None = None,
    window: int = 5,
    k: int = 2,
) -> Any:
    """Show a window that slides over a conversation, beside a notebook.

    What falls out of the window stands in the notebook. For a question, the k
    lines of the notebook that score best are read together with the window.

    Args:
        lines: the n lines of the conversation, the oldest first.
        questions: what may be asked, m of them.
        scores: how well each line answers each question, shape (m, n).
        now: how many lines were said at first; by default all.
        window: how many lines the window holds at first, 1 to 8.
        k: how many lines are retrieved at first, 0 to 6.

    Raises:
        ValueError: if the shape doesn't fit, a score isn't finite, or a
            number lies outside its range.
    """
    said = len(lines) if now is None else now
    shape = (len(questions), len(lines))
    if tuple(scores.shape) != shape or not scores.isfinite().all():
        raise ValueError(
            f"{shape[0]} questions and {shape[1]} lines need finite scores "
            f"of shape {shape}, not {tuple(scores.shape)}"
        )
    widest, most = 8, 6
    fits = 1 <= window <= widest and 0 <= k <= most
    if not (fits and questions and 1 <= said <= len(lines)):
        raise ValueError(
            f"the figure needs a question, a window of 1 to {widest}, a k of "
            f"0 to {most} and 1 ≤ now ≤ {len(lines)}, not {window}, {k} and "
            f"{said}"
        )
    written = max(0, said - window)
    best = scores[:, :written].topk(min(k, written)).indices.tolist()
    rows = [
        [question, " ".join(lines[n] for n in found) or "nothing"]
        for question, found in zip(questions, best, strict=True)
    ]
    title = (
        f"After {said} lines, {said - written} in the window: what the "
        f"notebook gives for k = {k}"
    )
    state = {
        "lines": list(lines),
        "questions": list(questions),
        "scores": [[round(x, 4) for x in row] for row in scores.tolist()],
        "now": said,
        "window": window,
        "widest": widest,
        "k": k,
        "most": most,
        "question": 0,
    }
    without = table(title, ["question", "retrieved"], rows)
    return figure("notebook_explorer", state, without)


def cache_explorer(
    models: dict[str, tuple[int, int, int, int]],
    memories: dict[str, int],
    *,
    n_tokens: int = 131_072,
) -> Any:
    """Show what the KV cache of a model takes, and where it fits.

    Args:
        models: by name, the number of layers, of query heads in each, of KV
            heads in each, and the width of a head. The first is shown.
        memories: by name, how many bytes a card has.
        n_tokens: the length of the text at first, a power of two.

    Raises:
        ValueError: if there is no model or no memory, if KV heads can't be
            shared evenly, or if the length is no power of two from 1,024 to
            16,777,216.
    """
    if not models or not memories:
        raise ValueError("the figure needs at least one model and one memory")
    for name, (_, heads, kv_heads, _) in models.items():
        if heads % kv_heads:
            raise ValueError(
                f"{name}: {heads} query heads can't share {kv_heads} KV heads"
            )
    if n_tokens not in (2**power for power in CACHED):
        raise ValueError(
            f"n_tokens must be a power of two from {2 ** CACHED[0]:,} to "
            f"{2 ** CACHED[-1]:,}, not {n_tokens:,}"
        )
    rows = []
    for name, (layers, _, kv_heads, width) in models.items():
        a_token = 2 * 2 * layers * kv_heads * width  # of two bytes each
        room = [f"{size // a_token:,}" for size in memories.values()]
        rows.append([name, f"{a_token:,}", f"{a_token * n_tokens:,}", *room])
    names = ("layers", "heads", "kv_heads", "width")
    state = {
        "models": [[name, *sizes] for name, sizes in models.items()],
        "memories": [list(pair) for pair in memories.items()],
        "powers": [CACHED[0], CACHED[-1]],
        "power": n_tokens.bit_length() - 1,
        "bits": 16,
        **dict(zip(names, next(iter(models.values())), strict=True)),
    }
    title = (
        f"Bytes of the KV cache at 16 bits a number, for {n_tokens:,} tokens"
    )
    room = [f"tokens that fit {name}" for name in memories]
    head = ["model", "bytes a token", f"bytes of {n_tokens:,} tokens", *room]
    return figure("cache_explorer", state, table(title, head, rows))


def budget_explorer(
    rows: Sequence[dict[str, Any]],
    *,
    weights: dict[int, int],
    budget: tuple[float, float],
    ropes: Sequence[str] = ("none", "linear", "ntk", "yarn"),
    n_tokens: int = 256,
    n_heads: int = 4,
    width: int = 16,
) -> Any:
    """Show what a design keeps of a text, and the bill against a budget.

    Args:
        rows: designs on record, each with its ``name``, ``n_kv_heads``,
            ``layers``, ``rope`` and ``results``; others are left out. The
            first that fits the budget is shown.
        weights: for each number of KV heads, the weights that a token is
            multiplied with.
        budget: the most bytes and the most FLOPs for a token.
        ropes: the ways of positions, which cost nothing.
        n_tokens: of a text.
        n_heads: query heads of a layer.
        width: of a head.

    Raises:
        ValueError: if no design fits.
    """
    known = [row for row in rows if "layers" in row]
    names = ("window", "memory", "retrieved", "bits")
    designs, fits, table_rows = [], [], []
    for row in known:
        layers = [[keep[n] or 0 for n in names] for keep in row["layers"]]
        recalls = [result["recall"] for result in row["results"]]
        recall = round(sum(recalls) / len(recalls), 4)
        shared, rope = row["n_kv_heads"], row["rope"]
        designs.append([row["name"], shared, layers, rope, recall])
        costs = [row["results"][0][n] for n in ("kv_bytes", "flops")]
        fits.append(all(c <= b for c, b in zip(costs, budget, strict=True)))
        table_rows.append(
            [row["name"], f"{costs[0]:,.1f}", f"{costs[1]:,.0f}",
             f"{recall:.2f}"]
        )  # fmt: skip
    if not any(fits):
        raise ValueError("none of the designs fits the budget")
    _, shared, layers, rope, _ = designs[fits.index(True)]
    state = {
        "designs": designs,
        "weights": [list(pair) for pair in weights.items()],
        "budget": list(budget),
        "ropes": list(ropes),
        "rope": rope,
        "n_tokens": n_tokens,
        "n_heads": n_heads,
        "width": width,
        "layers": layers,
        "layer": 0,
        "kv_heads": shared,
    }
    title = f"Designs on record, for {n_tokens} tokens"
    head = ["design", "bytes a token", "FLOPs a token", "recall"]
    return figure("budget_explorer", state, table(title, head, table_rows))


def ring_explorer(
    n: int = 16,
    world: int = 4,
    layout: str = "contiguous",
    *,
    causal: bool = True,
) -> Any:
    """Show blocks of keys and values going round a ring, and who works.

    Args:
        n: the number of tokens.
        world: the number of ranks.
        layout: how the tokens are dealt at first: "contiguous", "striped" or
            "zigzag".
        causal: whether the future is hidden at first.

    Raises:
        ValueError: unless 2 ≤ world ≤ 4, n ≤ 16 is a multiple of 2 · world,
            and the layout is one of the three.
    """
    if not (2 <= world <= 4 and 0 < n <= 16 and n % (2 * world) == 0):
        raise ValueError(
            "the figure needs 2 ≤ world ≤ 4 and n ≤ 16, a multiple of "
            f"2 · world, not {world} and {n}"
        )
    size = n // world
    half = size // 2
    owners = {
        "contiguous": [token // size for token in range(n)],
        "striped": [token % world for token in range(n)],
        "zigzag": [
            min(token // half, 2 * world - 1 - token // half)
            for token in range(n)
        ],
    }
    if layout not in owners:
        raise ValueError(f"layout must be one of {', '.join(owners)}")
    rows = []
    for name, owner in owners.items():
        work = [[0] * world for _ in range(world)]
        for query in range(n):
            for key in range(query + 1):
                step = (owner[query] - owner[key]) % world
                work[owner[query]][step] += 1
        rows += [
            [f"{name}, rank {rank}", *map(str, steps), str(sum(steps))]
            for rank, steps in enumerate(work)
        ]
    state = {
        "n": n,
        "world": world,
        "layout": layout,
        "causal": causal,
        "step": 0,
    }
    title = f"Pairs that each rank scores, of {n} tokens, the future hidden"
    head = ["rank", *(f"step {t}" for t in range(world)), "in all"]
    return figure("ring_explorer", state, table(title, head, rows))


def needle_explorer(
    names: Sequence[str],
    lengths: Sequence[int],
    depths: Sequence[float],
    recall: Tensor,
    *,
    chance: float,
    trials: int,
    left: int = 0,
    right: int = 1,
) -> Any:
    """Show the recall of two mechanisms side by side, and move a needle.

    Args:
        names: of the m mechanisms.
        lengths: of the texts, L of them.
        depths: of the needle, D of them.
        recall: shape (m, S, L, D), for S seeds.
        chance: what guessing recalls.
        trials: how many texts stand behind a cell of one seed.
        left: the mechanism shown on the left at first, an index.
        right: the one on the right.

    Raises:
        ValueError: if the shape doesn't fit, or there is no such mechanism.
    """
    shape = (len(names), *recall.shape[1:2], len(lengths), len(depths))
    if tuple(recall.shape) != shape:
        raise ValueError(
            f"{len(names)} mechanisms, {len(lengths)} lengths and "
            f"{len(depths)} depths need recall of shape {shape}, not "
            f"{tuple(recall.shape)}"
        )
    if not (0 <= left < len(names) and 0 <= right < len(names)):
        raise ValueError(f"there is no mechanism {left} or {right}")
    cells = torch.stack(
        [recall.mean(1), recall.amin(1), recall.amax(1)], -1
    )  # (m, L, D, 3)
    error = math.sqrt(chance * (1 - chance) / (trials * recall.shape[1]))
    state = {
        "names": list(names),
        "lengths": list(lengths),
        "depths": list(depths),
        "cells": [
            [[[round(x, 3) for x in c] for c in row] for row in grid]
            for grid in cells.tolist()
        ],
        "chance": chance,
        "guessing": chance + 2 * error,
        "left": left,
        "right": right,
        "length": len(lengths) - 1,
        "depth": len(depths) // 2,
    }
    rows = [
        [name, *(f"{row.mean():.2f}" for row in grid)]
        for name, grid in zip(names, recall.mean(1), strict=True)
    ]
    head = ["mechanism", *(f"{n} tokens" for n in lengths)]
    title = "Recall at each length, over all depths and seeds"
    return figure("needle_explorer", state, table(title, head, rows))


def table(title: str, head: list[str], rows: list[list[str]]) -> str:
    """Return an HTML table, for a reader without a script."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f"<table><caption>{escape(title)}</caption>"
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    )


def slider(
    function: Callable[..., Any], **ranges: tuple[float, float, float]
) -> None:
    """Drive the reader's own function by sliders, one for each range.

    A range is ``(least, most, start)``: whole numbers make a slider of whole
    numbers. On the page, the function is called once, at the starts::

        slider(plot_weights, divisor=(1.0, 64.0, 8.0))

    Raises:
        ValueError: if a start lies outside its range.
    """
    for name, (least, most, start) in ranges.items():
        if not least <= start <= most:
            raise ValueError(f"{name}: {start} is not in {least} to {most}")
    if on_page():
        call_at_start(function, ranges)
        return
    import ipywidgets

    def control(least: float, most: float, start: float) -> Any:
        if all(isinstance(x, int) for x in (least, most, start)):
            return ipywidgets.IntSlider(start, least, most)
        step = (most - least) / 100
        return ipywidgets.FloatSlider(start, min=least, max=most, step=step)

    ipywidgets.interact(
        function, **{name: control(*range_) for name, range_ in ranges.items()}
    )


def call_at_start(
    function: Callable[..., Any],
    ranges: dict[str, tuple[float, float, float]],
) -> None:
    """Call the function once and say what the notebook offers."""
    from IPython.display import HTML, display

    said = ", ".join(
        f"<code>{escape(name)}</code> from {least:g} to {most:g}"
        f" (here {start:g})"
        for name, (least, most, start) in ranges.items()
    )
    display(
        HTML(f'<p class="slider-note">In the notebook, a slider: {said}.</p>')
    )
    result = function(
        **{name: start for name, (_, _, start) in ranges.items()}
    )
    if result is not None:
        display(result)
