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

HERE = Path(__file__).parent
NAMES = (
    "attention_explorer",
    "mask_explorer",
    "tile_explorer",
    "wall_explorer",
    "window_explorer",
)
MOST = 12  # the largest mask that fits a phone
WALL = range(7, 24)  # lengths of the wall explorer, as powers of two
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
