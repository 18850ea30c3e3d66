"""The interactive figures: their Python, and their ES modules in a browser."""

import html
import json
import math
import re
from collections.abc import Iterator

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch
from playwright.sync_api import Browser, Page

from contextlab import conversation, figures, tokens, widgets
from contextlab.capstone import Design, Keep
from contextlab.sharing import PUBLISHED
from solutions.capstone import flops_per_token, kv_bytes_per_token
from solutions.flash import hbm_bytes
from solutions.kvcache import kv_cache_bytes
from solutions.memory import VectorMemory
from solutions.mla import mla_cache_bytes
from solutions.multihead import induction_score, previous_token_score
from solutions.quadratic import (
    attention_flops,
    attention_pairs,
    score_bytes,
)
from solutions.ring import causal_work, zigzag_split
from solutions.rope import inverse_frequencies, rotary_table
from solutions.sparse import (
    global_mask,
    receptive_field,
    sliding_window_mask,
    strided_mask,
)
from solutions.ssm import discretize, scan_sequential
from solutions.tokens import bpe_encode, bpe_train, fit_window
from solutions.yarn import (
    interpolated_frequencies,
    ntk_frequencies,
    yarn_frequencies,
)
from tests.browsing import browser
from tests.test_tokens import HOSTILE

__all__ = ["browser"]

TOKENS = ["The", "cat's", "<b>", "sat", "“on”"]


@pytest.fixture
def on_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make figures for the page of the book."""
    monkeypatch.setenv("CONTEXTLAB_PAGE", "1")


@pytest.fixture(autouse=True)
def off_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make figures for a notebook, unless a test asks for the page."""
    monkeypatch.delenv("CONTEXTLAB_PAGE", raising=False)


def vectors(width: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Return queries and keys of the tokens, spread wide."""
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(
        2, len(TOKENS), width, generator=generator, dtype=torch.float64
    )


@pytest.mark.parametrize("name", widgets.NAMES)
def test_a_module_stands_alone_and_is_small(name: str) -> None:
    source = widgets.module(name)
    assert len(source.encode()) < 20_000
    assert "import " not in re.sub(r"//.*", "", source)
    assert source.count("export default { render };") == 1


def test_in_a_notebook_a_figure_is_a_widget_with_json_state() -> None:
    figure = widgets.attention_explorer(TOKENS, *vectors(), query=2)
    assert isinstance(figure, ipywidgets.DOMWidget)
    assert figure.query == 2
    assert figure.width == 6
    assert figure._esm == widgets.module("attention_explorer")
    state = {name: getattr(figure, name) for name in ("products", "tokens")}
    assert json.loads(json.dumps(state)) == state
    mask = widgets.mask_explorer(2, 5)
    assert (mask.n_queries, mask.n_keys) == (2, 5)


@pytest.mark.usefixtures("on_page")
def test_on_the_page_a_figure_is_html_that_reads_without_a_script() -> None:
    figure = widgets.attention_explorer(TOKENS, *vectors(), query=3)
    bundle = figure._repr_mimebundle_()
    assert list(bundle) == ["text/html"]
    state = re.search(r'data-state="([^"]*)"', bundle["text/html"])[1]
    state = json.loads(html.unescape(state))
    q, k = vectors()
    products = torch.tensor(state["products"], dtype=torch.float64)
    assert torch.allclose(products, q @ k.T, rtol=1e-5)
    largest = (q[3] @ k.T / math.sqrt(6)).softmax(0)
    for token, weight in zip(TOKENS, largest, strict=True):
        row = f'<th scope="row">{html.escape(token)}</th>'
        assert f"{row}<td>{100 * weight:.0f} %</td>" in bundle["text/html"]


def test_bad_arguments_are_refused_in_a_sentence() -> None:
    q, k = vectors()
    with pytest.raises(ValueError, match=r"5 tokens need q and k"):
        widgets.attention_explorer(TOKENS, q[:4], k)
    with pytest.raises(ValueError, match="must be finite"):
        widgets.attention_explorer(TOKENS, q * math.inf, k)
    with pytest.raises(ValueError, match="query must be one of 0 to 4"):
        widgets.attention_explorer(TOKENS, q, k, query=5)
    for sizes in ((3, 2), (0, 2), (3, 13)):
        with pytest.raises(ValueError, match="the mask needs"):
            widgets.mask_explorer(*sizes)
    with pytest.raises(ValueError, match="n: 9 is not in 1 to 8"):
        widgets.slider(print, n=(1, 8, 9))


def test_in_a_notebook_a_slider_drives_the_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = {}
    monkeypatch.setattr(
        ipywidgets, "interact", lambda _, **controls: made.update(controls)
    )
    widgets.slider(print, n=(1, 8, 3), x=(0.0, 2.0, 0.5))
    assert isinstance(made["n"], ipywidgets.IntSlider)
    assert (made["n"].min, made["n"].max, made["n"].value) == (1, 8, 3)
    assert isinstance(made["x"], ipywidgets.FloatSlider)
    assert (made["x"].max, made["x"].value) == (2.0, 0.5)


@pytest.mark.usefixtures("on_page")
def test_on_the_page_a_slider_is_one_call_and_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    widgets.slider(lambda n, x: f"{n} and {x}", n=(1, 8, 3), x=(0.0, 2, 0.5))
    note, result = shown
    assert result == "3 and 0.5"
    assert "<code>n</code> from 1 to 8 (here 3)" in note.data


def test_a_heat_map_is_drawn_from_the_top_with_its_labels() -> None:
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0]])
    figure, ax = plt.subplots()
    mesh = figures.heatmap(ax, weights, ["a", "b"], numbers=True)
    figure.canvas.draw()
    assert mesh.get_array().flatten().tolist() == weights.flatten().tolist()
    assert ax.get_ylim() == (2, 0)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    assert [t.get_text() for t in ax.texts][:4] == [
        "1.00", "0.00", "0.00", "0.25"
    ]  # fmt: skip
    plt.close(figure)


# ------------------------------------------------------------ In a browser

MOUNT = """async ([source, state]) => {
    const url = URL.createObjectURL(
        new Blob([source], { type: "text/javascript" }));
    const { default: figure } = await import(url);
    const listeners = {};
    window.saved = 0;
    window.model = {
        get: (name) => state[name],
        set(name, value) {
            state[name] = value;
            (listeners[`change:${name}`] ?? []).forEach((call) => call());
        },
        on: (event, call) => (listeners[event] ??= []).push(call),
        off: (event, call) => {
            listeners[event] = listeners[event].filter((c) => c !== call);
        },
        save_changes: () => { window.saved += 1; },
    };
    window.listening = () => Object.values(listeners).flat().length;
    window.stop = figure.render({ model, el: document.body });
}"""


@pytest.fixture
def bare(browser: Browser) -> Iterator[Page]:
    """Open an empty page, without the theme or its scripts."""
    page = browser.new_page(reduced_motion="reduce")
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    yield page
    page.close()
    assert not errors


def mount(page: Page, name: str, figure: widgets.PageFigure) -> None:
    """Bring a figure to life by its module alone."""
    page.add_style_tag(content=widgets.style())
    page.evaluate(MOUNT, [widgets.module(name), figure.state])


def percents(page: Page) -> list[str]:
    """Return what stands below the tokens."""
    return page.locator(".cw-share").all_inner_texts()


def expected(weights: torch.Tensor) -> list[str]:
    """Return the shares as the figure writes them."""
    return [f"{math.floor(100 * w + 0.5)}\u202f%" for w in weights.tolist()]


@pytest.mark.usefixtures("on_page")
def test_the_explorer_equals_softmax(bare: Page) -> None:
    q, k = vectors()
    figure = widgets.attention_explorer(TOKENS, q, k, query=1)
    mount(bare, "attention_explorer", figure)
    scores = q @ k.T
    for query in range(len(TOKENS)):
        bare.get_by_role("radio").nth(query).check(force=True)
        weights = (scores[query] / math.sqrt(6)).softmax(0)
        assert percents(bare) == expected(weights)
    bare.get_by_role("button", name="not scaled").click()
    weights = scores[-1].softmax(0)
    assert percents(bare) == expected(weights)
    bits = -(weights * weights.log2()).sum()
    numbers = bare.locator(".cw-numbers").inner_text()
    assert f"entropy {bits:.2f} of {math.log2(5):.2f} bits" in numbers
    assert bare.evaluate("window.saved") > 0


@pytest.mark.usefixtures("on_page")
def test_the_explorer_hides_the_future(bare: Page) -> None:
    q, k = vectors()
    figure = widgets.attention_explorer(TOKENS, q, k, query=2, causal=True)
    mount(bare, "attention_explorer", figure)
    weights = (q[2] @ k[:3].T / math.sqrt(6)).softmax(0)
    assert percents(bare) == [*expected(weights), "·", "·"]
    names = [
        radio.get_attribute("aria-label")
        for radio in bare.get_by_role("radio").all()
    ]
    assert names[3:] == ["sat, hidden", "“on”, hidden"]


@pytest.mark.usefixtures("on_page")
def test_the_explorer_follows_python_and_lets_go(bare: Page) -> None:
    figure = widgets.attention_explorer(TOKENS, *vectors())
    mount(bare, "attention_explorer", figure)
    bare.evaluate("model.set('query', 4)")
    said = bare.get_by_role("status").inner_text()
    assert said.startswith("““on”” attends to")
    bare.evaluate("window.stop()")
    assert bare.evaluate("listening()") == 0


@pytest.mark.usefixtures("on_page")
@pytest.mark.parametrize(("n_queries", "n_keys"), [(1, 1), (4, 4), (2, 7)])
def test_the_mask_explorer_equals_the_causal_mask(
    bare: Page, n_queries: int, n_keys: int
) -> None:
    figure = widgets.mask_explorer(n_queries, n_keys)
    mount(bare, "mask_explorer", figure)
    right = torch.ones(n_queries, n_keys).tril(n_keys - n_queries)
    assert signs(bare) == [
        ["●" if may else "·" for may in row] for row in right.tolist()
    ]
    count = f"{int(right.sum())} of {right.numel()} pairs"
    assert count in bare.locator(".cw-numbers").inner_text()
    bare.get_by_label("Align top-left").check()
    wrong = torch.ones(n_queries, n_keys).tril()
    assert signs(bare) == [
        ["●" if w else "✕" if r else "·" for w, r in zip(*rows, strict=True)]
        for rows in zip(wrong.tolist(), right.tolist(), strict=True)
    ]


def signs(page: Page) -> list[list[str]]:
    """Return the signs of the mask, row by row."""
    return [
        row.locator("td span[aria-hidden]").all_inner_texts()
        for row in page.locator("tbody tr").all()
    ]


@pytest.mark.usefixtures("on_page")
def test_the_mask_explorer_by_keyboard(bare: Page) -> None:
    mount(bare, "mask_explorer", widgets.mask_explorer(3, 5))
    bare.get_by_role("radio").first.focus()
    bare.keyboard.press("ArrowDown")
    assert bare.get_by_role("radio").nth(1).is_checked()
    said = bare.get_by_role("status")
    assert said.inner_text() == (
        "Query 1 stands at position 3 and may attend to keys 0 to 3."
    )
    bare.keyboard.press("ArrowDown")  # the focus has survived the drawing
    assert bare.get_by_role("radio").nth(2).is_checked()
    keys = bare.get_by_label("Keys S")
    keys.focus()
    keys.press("Home")  # one key: the queries follow, T ≤ S
    assert bare.evaluate("model.get('n_queries')") == 1
    queries = bare.get_by_label("Queries T")
    queries.press("End")
    assert bare.evaluate("model.get('n_keys')") == widgets.MOST


@pytest.mark.usefixtures("on_page")
def test_a_picked_row_says_what_the_bug_loses(bare: Page) -> None:
    mount(bare, "mask_explorer", widgets.mask_explorer(2, 6))
    bare.get_by_label("Align top-left").check()
    bare.locator("tbody tr").nth(1).locator("td").last.click()
    said = bare.get_by_role("status").inner_text()
    assert said.endswith("keys 0 to 1: the bug loses 4 of its past (✕).")


# ---------------------------------------------- The window of a conversation

MERGES = bpe_train(tokens.as_text(tokens.CHAT[1]) * 2, 60)


def cost(message: dict[str, str]) -> int:
    """Return the tokens of a message, by the reference."""
    return len(bpe_encode(tokens.as_text(message), MERGES))


def kept(page: Page) -> list[str]:
    """Return what the messages that are still in the window say."""
    return page.locator(".cw-in .cw-said").all_inner_texts()


@pytest.mark.usefixtures("on_page")
def test_the_window_explorer_equals_fit_window(bare: Page) -> None:
    figure = widgets.window_explorer(tokens.CHAT, MERGES, cost)
    mount(bare, "window_explorer", figure)
    costs = [cost(message) for message in tokens.CHAT]
    shown = bare.locator(".cw-cost").all_inner_texts()
    assert [int(text.split()[0]) for text in shown] == costs
    for size, reserve in ((512, 0), (256, 40), (184, 0), (192, 72)):
        bare.evaluate(f"model.set('window', {size})")
        bare.evaluate(f"model.set('reserve', {reserve})")
        right = fit_window(tokens.CHAT, size, reserve, cost)
        assert kept(bare) == [message["content"] for message in right]
        read = sum(map(cost, right))
        out = len(tokens.CHAT) - len(right)
        assert bare.locator(".cw-numbers").inner_text() == (
            f"{read} of {size} tokens read, {reserve} reserved · "
            f"{out} of {len(tokens.CHAT)} messages out"
        )
    bare.evaluate("model.set('window', 64)")
    bare.evaluate("model.set('reserve', 64)")
    with pytest.raises(ValueError, match="doesn't fit"):
        fit_window(tokens.CHAT, 64, 64, cost)
    assert kept(bare) == []
    said = bare.get_by_role("status").inner_text()
    assert said.startswith("The newest message doesn't fit")


@pytest.mark.usefixtures("on_page")
def test_the_window_explorer_cuts_any_text_as_python_does(bare: Page) -> None:
    said = [*HOSTILE.values(), "aaaa aaa a", "don't we'll", "\x1c\x85 \ufeff"]
    texts = [text.replace("\x00", "") for text in said]
    chat = [{"role": "user", "content": text} for text in texts]
    merges = bpe_train("".join(texts) * 2, 80)

    def count(message: dict[str, str]) -> int:
        return len(bpe_encode(tokens.as_text(message), merges))

    mount(
        bare, "window_explorer", widgets.window_explorer(chat, merges, count)
    )
    shown = bare.locator(".cw-cost").all_inner_texts()
    assert [int(text.split()[0]) for text in shown] == [*map(count, chat)]


@pytest.mark.usefixtures("on_page")
def test_the_window_explorer_by_keyboard(bare: Page) -> None:
    chat = tokens.CHAT[:3]
    figure = widgets.window_explorer(chat, MERGES, cost, window=96, reserve=0)
    mount(bare, "window_explorer", figure)
    draft = {"role": "user", "content": "And my name is?" * 3}
    before = kept(bare)
    bare.get_by_role("textbox", name="user says").focus()
    bare.keyboard.type(draft["content"])  # counts while it is being typed
    right = fit_window([*chat, draft], 96, 0, cost)
    assert kept(bare) == [message["content"] for message in right] != before
    pieces = bare.locator(".cw-pieces span").all_inner_texts()
    assert "".join(pieces) == tokens.visible(draft["content"])
    bare.keyboard.press("Enter")
    assert bare.evaluate("model.get('messages')") == [*chat, draft]
    field = bare.get_by_role("textbox", name="assistant says")
    assert field.input_value() == ""
    assert field.evaluate("e => e === document.activeElement")
    said = bare.get_by_role("status").inner_text()
    assert said.startswith("The model no longer sees “")
    bare.keyboard.press("Tab")  # to Add
    bare.keyboard.press("Tab")  # to Take back
    bare.keyboard.press("Enter")
    assert bare.evaluate("model.get('messages')") == chat
    assert bare.locator(".cw-say input").input_value() == draft["content"]


@pytest.mark.usefixtures("on_page")
def test_the_window_explorer_reads_without_a_script() -> None:
    figure = widgets.window_explorer(tokens.CHAT, MERGES, cost)
    text = figure._repr_mimebundle_()["text/html"]
    costs = [cost(message) for message in tokens.CHAT]
    said = html.escape(tokens.as_text(tokens.CHAT[3]).strip())
    row = f'<th scope="row">{said}</th><td>{costs[3]}</td>'
    assert f"{row}<td>{sum(costs[3:])}</td>" in text
    for numbers in ({"window": 60}, {"window": 513}, {"reserve": 129}):
        with pytest.raises(ValueError, match="a window of 64 to 512 tokens"):
            widgets.window_explorer(tokens.CHAT, MERGES, cost, **numbers)
    with pytest.raises(ValueError, match="at least one message"):
        widgets.window_explorer([], MERGES, cost)


# ------------------------------------------------ FlashAttention, tile by tile


def squares(page: Page, kind: str) -> int:
    """Count the squares of a kind that are in fast memory."""
    return page.locator(f".cw-{kind}.cw-held").count()


@pytest.mark.usefixtures("on_page")
@pytest.mark.parametrize(
    ("n", "width", "block_q", "block_k"), [(12, 4, 4, 4), (7, 3, 2, 5)]
)
def test_the_tile_explorer_equals_hbm_bytes(
    bare: Page, n: int, width: int, block_q: int, block_k: int
) -> None:
    figure = widgets.tile_explorer(n, width, block_q, block_k)
    mount(bare, "tile_explorer", figure)
    naive, tiled = hbm_bytes(n, n, width, block_q)
    last_row = re.findall(r"<td>([\d,]+)</td></tr>", figure.without)[-1]
    assert last_row == f"{tiled:,}"
    assert f"the naive way moves {naive:,}<" in figure.without
    step, numbers = bare.get_by_label("Step"), bare.locator(".cw-numbers")
    assert (squares(bare, "q"), squares(bare, "k")) == (block_q, block_k)
    assert squares(bare, "p") == block_q * block_k
    first = 2 * width * (block_q + 2 * block_k)
    assert f"Bytes moved: {first:,} of {tiled:,}" in numbers.inner_text()
    step.press("End")
    assert f"Bytes moved: {tiled:,} of {tiled:,}" in numbers.inner_text()
    assert f"naive {naive:,} " in numbers.inner_text()
    rows = n % block_q or block_q
    assert squares(bare, "p") == rows * (n % block_k or block_k)
    said = bare.get_by_role("status").inner_text()
    assert said.endswith("the output is written.")


@pytest.mark.usefixtures("on_page")
def test_the_tile_explorer_by_keyboard(bare: Page) -> None:
    mount(bare, "tile_explorer", widgets.tile_explorer())
    said = bare.get_by_role("status")
    assert said.inner_text() == (
        "Queries 0 to 3 and keys 0 to 3: Q is read, with an empty state, "
        "K and V are read."
    )
    bare.get_by_label("Step").press("ArrowRight")
    assert said.inner_text() == (
        "Queries 0 to 3 and keys 4 to 7: K and V are read."
    )
    after = bare.get_by_role("button", name="Next")
    after.press("Enter")
    after.press("Enter")  # the focus has survived the drawing
    assert said.inner_text().startswith("Queries 4 to 7 and keys 0 to 3")
    bare.get_by_label("Keys in a tile").press("End")  # begins anew
    bare.get_by_label("Queries in a tile").press("Home")
    assert said.inner_text().startswith("Query 0 and keys 0 to 11")
    slider = bare.get_by_label("Step")
    assert slider.get_attribute("aria-valuetext") == "1 of 12"


@pytest.mark.usefixtures("on_page")
def test_the_tile_explorer_plays_to_the_end_and_lets_go(bare: Page) -> None:
    bare.clock.install()
    mount(bare, "tile_explorer", widgets.tile_explorer(block_q=6, block_k=6))
    button = bare.get_by_role("button", name="Play")
    button.click()
    assert bare.get_by_role("button", name="Pause").count() == 1
    bare.clock.run_for(10_000)
    assert bare.evaluate("model.get('step')") == 3
    button.click()  # once more, from the start
    bare.clock.run_for(1_000)
    assert bare.evaluate("model.get('step')") == 1
    bare.evaluate("window.stop()")
    bare.clock.run_for(10_000)
    assert bare.evaluate("model.get('step')") == 1
    assert bare.evaluate("listening()") == 0


def test_tiles_that_do_not_fit_are_refused() -> None:
    for sizes in ((13, 4, 4, 4), (8, 0, 4, 4), (8, 4, 9, 4), (8, 4, 4, 0)):
        with pytest.raises(ValueError, match="the figure needs 1 ≤ block_q"):
            widgets.tile_explorer(*sizes)


# ------------------------------------------------------- The mask painter


def painted(page: Page) -> torch.Tensor:
    """Return the mask that is drawn, as booleans."""
    names = page.locator(".cw-paint span").evaluate_all(
        "cells => cells.map((cell) => cell.classList.contains('cw-may'))"
    )
    n = math.isqrt(len(names))
    return torch.tensor(names).view(n, n)


@pytest.mark.usefixtures("on_page")
@pytest.mark.parametrize(
    ("window", "stride", "n_global", "causal"),
    [(4, 0, 0, True), (1, 5, 0, True), (3, 0, 2, False), (2, 4, 1, True)],
)
def test_the_mask_painter_equals_the_reference(
    bare: Page, window: int, stride: int, n_global: int, causal: bool
) -> None:
    figure = widgets.mask_painter(
        12, window=window, stride=stride, n_global=n_global, causal=causal,
        n_layers=3,
    )  # fmt: skip
    mount(bare, "mask_painter", figure)
    right = sliding_window_mask(12, 12, window, causal)
    right |= global_mask(12, 12, range(n_global), causal)
    if stride:
        right |= strided_mask(12, 12, stride, causal)
    assert torch.equal(painted(bare), right)
    pairs = int(right.sum())
    numbers = bare.locator(".cw-numbers").inner_text()
    assert f"{pairs} of 144 pairs" in numbers
    assert f"{4 * pairs * 64:,} FLOPs" in numbers
    assert f"{pairs} of 144 pairs" in figure.without
    reach = int(receptive_field([right] * 3)[-1].sum())
    assert f"hears of {reach}," in bare.get_by_role("status").inner_text()
    assert f"<td>{reach}</td></tr></tbody>" in figure.without


@pytest.mark.usefixtures("on_page")
def test_the_mask_painter_by_keyboard(bare: Page) -> None:
    mount(bare, "mask_painter", widgets.mask_painter(n_layers=1))
    said = bare.get_by_role("status")
    assert said.inner_text() == (
        "Token 23 sees 4 tokens; through 1 layer it hears of 4, the farthest "
        "at 20."
    )
    bare.get_by_label("Layers").press("ArrowRight")
    assert "hears of 7, the farthest at 17." in said.inner_text()
    bare.get_by_label("Key").press("Home")
    bare.get_by_role("button", name="Paint this pair").press("Enter")
    assert bool(painted(bare)[23, 0])
    assert "the farthest at 0." in said.inner_text()
    bare.get_by_role("button", name="Unpaint all").press("Enter")
    assert "the farthest at 17." in said.inner_text()
    bare.get_by_role("button", name="global").press("Enter")
    assert not bare.get_by_label("Hide the future").is_checked()
    assert "hears of 24" in said.inner_text()
    bare.locator(".cw-paint span").nth(5).click()  # query 0, key 5
    assert not painted(bare)[0, 5]
    assert said.inner_text().startswith("Token 0 sees 23 tokens")
    bare.evaluate("window.stop()")
    assert bare.evaluate("listening()") == 0


def test_a_mask_that_cannot_be_painted_is_refused() -> None:
    for bad in ({"n": 25}, {"window": 25}, {"stride": 24}, {"n_global": 7}):
        with pytest.raises(ValueError, match="the figure needs 8 ≤ n"):
            widgets.mask_painter(**bad)


# ------------------------------------------------------- The quadratic wall

WALL = {
    "models": {"one head": (1, 1, 64), "GPT-2 small": (12, 12, 64)},
    "memories": {"laptop": 16 * 2**30, "card": 80 * 10**9},
}


def test_the_wall_refuses_what_it_cannot_show() -> None:
    with pytest.raises(ValueError, match="at least one model"):
        widgets.wall_explorer({}, {})
    for n_tokens in (1_000, 64, 2**24):
        with pytest.raises(ValueError, match="a power of two from 128"):
            widgets.wall_explorer(**WALL, n_tokens=n_tokens)


@pytest.mark.usefixtures("on_page")
def test_the_wall_reads_without_a_script() -> None:
    figure = widgets.wall_explorer(**WALL)
    for n in (1_024, 2_048, 4_096):
        row = [score_bytes(n, 12, 12), attention_flops(n, n, 768) * 12]
        cells = "".join(f"<td>{count:,}</td>" for count in row)
        assert cells in figure.without


def heads(seed: int) -> torch.Tensor:
    """Return causal weights of 2 layers with 3 heads, for 8 tokens."""
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(2, 3, 8, 8, generator=generator)
    hidden = torch.ones(8, 8).triu(1).bool()
    return scores.masked_fill(hidden, -math.inf).softmax(-1)


@pytest.mark.usefixtures("on_page")
def test_the_heads_are_scored_as_the_chapter_does(bare: Page) -> None:
    text = list("ABCDABCD")
    models = {"before": heads(0), "after": heads(1)}
    figure = widgets.head_explorer(text, models, period=4, query=6)
    mount(bare, "head_explorer", figure)
    said = bare.get_by_role("status")
    bare.get_by_label("before").check()
    bare.get_by_label("before").press("ArrowRight")
    assert bare.get_by_label("after").is_checked()
    for name, weights in models.items():
        bare.get_by_label(name).check()
        for layer in range(2):
            bare.get_by_role("group", name="Layer").get_by_label(
                str(layer + 1)
            ).check()
            for head in range(3):
                bare.get_by_role("group", name="Head").get_by_label(
                    str(head + 1)
                ).check()
                one = weights[layer, head]
                scores = [previous_token_score(one), induction_score(one, 4)]
                shown = bare.locator(".cw-numbers").inner_text()
                assert re.findall(r"\d+\u202f%", shown) == expected(
                    torch.stack(scores)
                )
                kept = (one[6, :7].double() * 1e4).round() / 1e4
                assert percents(bare)[:7] == expected(kept)
                most = int(one[6].argmax())
                assert f"{one[6, most]:.0%}"[:-1] in said.inner_text()
                assert f"“{text[most]}”" in said.inner_text() or most == 6
                cell = f"{text[most]}, {one[6, most]:.0%}"
                assert f"<td>{cell}</td>" in figure.without
    squares = bare.locator(".cw-map span")
    assert squares.count() == 64
    squares.nth(8).click()
    assert said.inner_text().startswith("Token 2, “B”, attends most to")


@pytest.mark.usefixtures("on_page")
def test_the_heads_say_what_followed_a_round_ago(bare: Page) -> None:
    weights = torch.eye(8).repeat(1, 1, 1, 1)
    weights[0, 0, 5] = torch.eye(8)[2]
    figure = widgets.head_explorer(
        list("ABCDABCD"), {"one": weights}, period=4, query=5
    )
    mount(bare, "head_explorer", figure)
    said = bare.get_by_role("status")
    assert said.inner_text() == (
        "Token 6, “B”, attends most to “C”, 3 tokens before it: "
        "100\u202f%; there, “C” follows a “B”."
    )
    bare.keyboard.press("Tab")
    bare.get_by_role("radio", name="A, 0").last.press("ArrowRight")
    assert "attends most to" in said.inner_text()


def test_weights_that_fit_no_figure_of_heads_are_refused() -> None:
    text = list("ABCDABCD")
    for weights, says in (
        ({}, "at least one model"),
        ({"short": heads(0)[..., :7]}, "need weights of shape"),
        ({"flat": torch.ones(())}, "need weights of shape"),
        ({"a": heads(0), "b": heads(0)[:1]}, "the same for each model"),
        ({"full": torch.full((1, 1, 8, 8), 1 / 8)}, "above the diagonal"),
        ({"scores": heads(0) * 2}, "rows that sum to 1"),
    ):
        with pytest.raises(ValueError, match=says):
            widgets.head_explorer(text, weights, period=4)
    for wrong in ({"period": 0}, {"period": 8}, {"query": 8}, {"layer": -1}):
        with pytest.raises(ValueError, match="outside its range"):
            widgets.head_explorer(
                text, {"a": heads(0)}, **({"period": 4} | wrong)
            )


@pytest.mark.usefixtures("on_page")
def test_figures_of_one_page_have_each_their_own_choice(bare: Page) -> None:
    for _ in range(2):
        mount(bare, "wall_explorer", widgets.wall_explorer(**WALL))
    first, second = bare.get_by_role("radio", name="FLOPs").all()
    first.check()
    second.check()
    assert first.is_checked()


@pytest.mark.usefixtures("on_page")
def test_the_wall_by_keyboard_counts_as_the_chapter_does(bare: Page) -> None:
    mount(bare, "wall_explorer", widgets.wall_explorer(**WALL))
    length = bare.get_by_role("slider")
    said = bare.get_by_role("status")
    assert length.get_attribute("aria-valuetext") == "1,024"
    assert "4\u202fMiB of scores, where the dashed" in said.inner_text()
    length.focus()
    for _ in range(6):
        bare.keyboard.press("ArrowRight")
    assert length.get_attribute("aria-valuetext") == "65,536"
    assert said.inner_text() == (
        "65,536 tokens, one head: 16\u202fGiB of scores, "
        "64 times a linear cost; fits everywhere here."
    )
    bare.keyboard.press("ArrowRight")
    assert "64\u202fGiB" in said.inner_text()
    assert "fits card only" in said.inner_text()
    bare.keyboard.press("ArrowRight")
    assert "fits neither memory" in said.inner_text()
    bare.get_by_label("pairs").check()
    pairs = attention_pairs(262_144, 262_144)
    assert f"{pairs / 1e9:.0f} billion pairs" in said.inner_text()
    bare.get_by_label("FLOPs").check()
    bare.get_by_label("GPT-2 small").check()
    length.press("Home")
    flops = 12 * attention_flops(128, 128, 768)
    assert f"{flops / 1e6:.0f} million FLOPs" in said.inner_text()
    assert "1/8 of a linear cost" in said.inner_text()


@pytest.mark.usefixtures("on_page")
def test_the_wall_is_twice_as_steep_as_a_linear_cost(bare: Page) -> None:
    mount(bare, "wall_explorer", widgets.wall_explorer(**WALL))
    slopes = [
        bare.locator(f"line.{kind}").evaluate(
            "e => (e.y1.baseVal.value - e.y2.baseVal.value)"
            " / (e.x2.baseVal.value - e.x1.baseVal.value)"
        )
        for kind in ("cw-power", "cw-linear")
    ]
    assert slopes[0] == pytest.approx(2 * slopes[1])
    ends = [float(e.get_attribute("y1")) for e in bare.locator(
        "line.cw-end").all()]  # fmt: skip
    assert ends[0] > ends[1]  # the card holds more
    bare.evaluate("window.stop()")
    assert bare.evaluate("listening()") == 0


# ------------------------------------------------ The clock of frequencies


def between(page: Page) -> list[str]:
    """Return the angles between the hands, as the faces say them."""
    return page.locator(".cw-face b").all_inner_texts()


def between_by_table(width: int, base: float, distance: int) -> list[str]:
    """Return the same by the chapter's own functions."""
    hands = inverse_frequencies(width, base).double()
    cos, sin = rotary_table(hands, torch.tensor([distance]))
    angles = torch.atan2(sin, cos)[0].tolist()
    return [f"{angle:.2f}".replace("-", "−") for angle in angles]


@pytest.mark.usefixtures("on_page")
def test_the_clock_equals_the_rotary_table(bare: Page) -> None:
    figure = widgets.clock_explorer(12, base=100, query=3, key=50)
    mount(bare, "clock_explorer", figure)
    assert between(bare) == between_by_table(12, 100, -47)
    angles = [text.replace("−", "-") for text in between(bare)]
    for pair, angle in enumerate(angles):
        row = rf"pair {pair}</th><td>[\d.]+</td><td>[\d,]+</td>"
        assert re.search(f"{row}<td>{angle}</td>", figure.without)
    for base in widgets.BASES:
        bare.get_by_label(f"{base:,}").check()
        assert between(bare) == between_by_table(12, base, -47)
        cos = (-47 * inverse_frequencies(12, base).double()).cos().mean()
        said = bare.locator(".cw-numbers").inner_text().replace("−", "-")
        assert said.endswith(f": {cos:.3f}")


@pytest.mark.usefixtures("on_page")
def test_the_clock_by_keyboard_keeps_the_distance(bare: Page) -> None:
    mount(bare, "clock_explorer", widgets.clock_explorer(query=40, key=36))
    query = bare.get_by_label("Query at position")
    query.focus()
    bare.keyboard.press("ArrowRight")
    said = bare.get_by_role("status")
    assert said.inner_text().startswith("Distance 5: the fastest hands are 5")
    before = between(bare)
    bare.get_by_label("Keep the distance").check()
    query.press("ArrowLeft")
    assert bare.evaluate("model.get('key')") == 35
    query.press("Home")  # the key stops at 0, and the query five further
    assert bare.evaluate("[model.get('query'), model.get('key')]") == [5, 0]
    assert query.input_value() == "5"
    bare.get_by_label("Key at position").press("End")
    end = widgets.FAR
    got = bare.evaluate("[model.get('query'), model.get('key')]")
    assert got == [end, end - 5]
    assert between(bare) == before
    bare.evaluate("window.stop()")
    assert bare.evaluate("listening()") == 0


def test_a_clock_that_cannot_be_shown_is_refused() -> None:
    for width in (3, 2, 34):
        with pytest.raises(ValueError, match="an even width of 4 to 32"):
            widgets.clock_explorer(width)
    with pytest.raises(ValueError, match="the base must be one of"):
        widgets.clock_explorer(base=7)
    for places in ({"query": 128}, {"key": -1}):
        with pytest.raises(ValueError, match="positions go from 0 to 127"):
            widgets.clock_explorer(**places)


# --------------------------------------------------- The ramp of YaRN


def slowed(page: Page) -> list[float]:
    """Return by how much PI, NTK and YaRN slow down the chosen pair."""
    said = page.locator(".cw-numbers").inner_text()
    found = re.search(r"PI ([\d.]+), NTK ([\d.]+), YaRN ([\d.]+)", said)
    return [float(number) for number in found.groups()]


def slowed_by_chapter(pair: int, base: int, window: int, scale: int) -> list:
    """Return the same by the chapter's own functions."""
    hands = inverse_frequencies(64, base)
    ways = (
        interpolated_frequencies(hands, scale),
        ntk_frequencies(64, base, scale),
        yarn_frequencies(64, base, window, scale),
    )
    return [(hands[pair] / way[pair]).item() for way in ways]


@pytest.mark.usefixtures("on_page")
def test_the_ramp_equals_the_chapter(bare: Page) -> None:
    mount(bare, "ramp_explorer", widgets.ramp_explorer())
    for base, window, scale in (
        (10_000, 2_048, 8),
        (500_000, 8_192, 16),
        (10_000, 64, 4),
        (10_000, 131_072, 2),
        (1_000_000, 32_768, 1),
    ):
        bare.get_by_label(f"{base:,}", exact=True).check()
        bare.evaluate(f"model.set('window', {window.bit_length() - 1})")
        bare.evaluate(f"model.set('scale', {scale.bit_length() - 1})")
        for pair in (0, 9, 14, 31):
            bare.evaluate(f"model.set('pair', {pair})")
            right = slowed_by_chapter(pair, base, window, scale)
            assert slowed(bare) == pytest.approx(right, rel=5e-3)


@pytest.mark.usefixtures("on_page")
def test_the_ramp_by_keyboard_says_what_a_pair_does(bare: Page) -> None:
    figure = widgets.ramp_explorer(12, window=2_048, scale=4)
    mount(bare, "ramp_explorer", figure)
    assert "<td>4</td><td>2.3</td><td>2</td>" in figure.without  # pair 3
    said = bare.get_by_role("status")
    pair = bare.get_by_label("Look at pair")
    pair.focus()
    assert said.inner_text() == (
        "Pair 3 turns 3.26 times in 2,048 tokens: it is 67\u202f% up the ramp."
    )
    bare.keyboard.press("ArrowRight")
    assert said.inner_text().endswith("it is interpolated in full.")
    bare.keyboard.press("Home")
    assert said.inner_text().endswith("it stays as it is.")
    bare.get_by_label("β slow").press("End")
    assert "ramp from pair 1 to 3" in bare.locator(".cw-numbers").inner_text()
    bare.get_by_label("Stretched by").press("Home")
    assert slowed(bare) == [1, 1, 1]
    bare.evaluate("window.stop()")
    assert bare.evaluate("listening()") == 0


def test_a_ramp_that_cannot_be_shown_is_refused() -> None:
    for given, message in (
        ({"width": 7}, "an even width of 8 to 256"),
        ({"base": 7}, "the base must be one of"),
        ({"window": 1_000}, "the window is 64, 128"),
        ({"scale": 3}, "the scale is 1, 2, 4"),
        ({"beta_slow": 9}, "8 to 64 turns for beta_fast"),
    ):
        with pytest.raises(ValueError, match=message):
            widgets.ramp_explorer(**given)


# ------------------------------------------------ Shared keys and values


def test_sharing_refuses_a_model_without_sizes() -> None:
    with pytest.raises(ValueError, match="no sizes of 'GPT-9', only of"):
        widgets.sharing_explorer(PUBLISHED, model="GPT-9")


@pytest.mark.usefixtures("on_page")
@pytest.mark.parametrize("model", PUBLISHED)
def test_sharing_counts_as_the_chapter_does(bare: Page, model: str) -> None:
    figure = widgets.sharing_explorer(PUBLISHED, model=model)
    mount(bare, "sharing_explorer", figure)
    sizes = PUBLISHED[model]
    full, latent = mla_cache_bytes(
        1, sizes.layers, sizes.heads, sizes.width, sizes.latent, sizes.rope
    )
    group, single = (
        mla_cache_bytes(1, sizes.layers, heads, sizes.width, 1, 0)[0]
        for heads in (sizes.shared, 1)
    )
    for way, expected in zip(
        ("MHA", "GQA", "MQA", "MLA"),
        (full, group, single, latent),
        strict=True,
    ):
        assert f"<td>{expected:,}</td>" in figure.without
        bare.get_by_label(way, exact=True).check()
        said = bare.get_by_role("status").inner_text()
        power, unit = (2, "MiB") if expected >= 2**20 else (1, "KiB")
        shown = f"{expected / 1024**power + 1e-9:.4g}\u202f{unit}"  # halves up
        assert said.startswith(f"{way} keeps {shown} of a token")
        assert shown in bare.locator("svg").text_content()


@pytest.mark.usefixtures("on_page")
def test_sharing_by_keyboard(bare: Page) -> None:
    figure = widgets.sharing_explorer(PUBLISHED, model="DeepSeek-V2")
    mount(bare, "sharing_explorer", figure)
    said = bare.get_by_role("status")
    assert said.inner_text().endswith("60 layers, MHA 56.9 times as much.")
    rope = bare.get_by_label("RoPE key R")
    rope.focus()
    rope.press("Home")
    assert said.inner_text().endswith("60 layers, MHA 64 times as much.")
    assert not bare.get_by_label("DeepSeek-V2").is_checked()
    bare.get_by_label("GQA", exact=True).check()
    kept = bare.get_by_label("Kept in GQA, G")
    heads = bare.get_by_label("Query heads H")
    kept.press("End")  # as many as query heads: multi-head attention
    assert said.inner_text().endswith("MHA 1 times as much.")
    heads.press("ArrowLeft")
    heads.press("ArrowLeft")  # 64 heads: what is kept follows
    assert kept.get_attribute("aria-valuetext") == "64"
    assert bare.locator("rect").count() == 2 * 64 + 2 * 4
    heads.press("Home")
    assert kept.get_attribute("aria-valuetext") == "1"
    bare.get_by_label("Llama 2 70B").check()
    assert said.inner_text() == (
        "GQA keeps 320\u202fKiB of a token in 80 layers, MHA 8 times as much."
    )
    assert bare.evaluate("window.saved") > 0
    bare.evaluate("window.stop()")
    assert bare.evaluate("listening()") == 0


@pytest.mark.usefixtures("on_page")
def test_sharing_draws_all_strips_on_one_scale(bare: Page) -> None:
    figure = widgets.sharing_explorer(PUBLISHED, model="DeepSeek-V2")
    mount(bare, "sharing_explorer", figure)
    widths = [
        float(rect.get_attribute("width"))
        for rect in bare.locator("rect").all()[-8:]
    ]
    drawn = [a + b for a, b in zip(widths[::2], widths[1::2], strict=True)]
    numbers = list(PUBLISHED["DeepSeek-V2"].numbers().values())
    for strip, count in zip(drawn, numbers, strict=True):
        assert strip / drawn[0] == pytest.approx(count / numbers[0])


# ------------------------------------------------- A notebook and its window

CHAT_KEYS = conversation.embed(conversation.LINES)
ASKED = conversation.embed(conversation.QUESTIONS, conversation.LINES)
NOTES = (conversation.LINES, conversation.QUESTIONS, ASKED @ CHAT_KEYS.T)


def found(page: Page) -> list[str]:
    """Return the lines that were retrieved, from the top."""
    return page.locator(".cw-found .cw-said").all_inner_texts()


@pytest.mark.usefixtures("on_page")
@pytest.mark.parametrize(("now", "window", "k"), [(24, 5, 2), (13, 8, 6)])
def test_the_notebook_equals_the_vector_memory(
    bare: Page, now: int, window: int, k: int
) -> None:
    figure = widgets.notebook_explorer(*NOTES, now=now, window=window, k=k)
    mount(bare, "notebook_explorer", figure)
    memory = VectorMemory(CHAT_KEYS.shape[1], 1)
    memory.add(CHAT_KEYS[: now - window], torch.zeros(now - window, 1))
    lines = conversation.LINES
    for n, question in enumerate(conversation.QUESTIONS):
        bare.get_by_label(question).check()
        scores, positions = memory.search(ASKED[n : n + 1], k)
        right = [f"{x:.2f}" for x in scores[0].tolist() if x > -math.inf]
        shown = bare.locator(".cw-found .cw-cost").all_inner_texts()
        numbers = [re.search(r"\d\.\d\d", text)[0] for text in shown]
        assert sorted(numbers, reverse=True) == right
        if n == 2:  # of the others, several lines score the same
            best = lines[positions[0, 0]]
            assert best in found(bare)
            assert f"<td>{html.escape(best)}" in figure.without
            said = bare.get_by_role("status").inner_text()
            assert said.startswith(f"From the notebook: “{best}")
    shown = bare.locator(".cw-in .cw-said").all_inner_texts()
    assert shown == lines[now - window : now]


@pytest.mark.usefixtures("on_page")
def test_the_notebook_by_keyboard(bare: Page) -> None:
    mount(bare, "notebook_explorer", widgets.notebook_explorer(*NOTES))
    said, numbers = bare.get_by_role("status"), bare.locator(".cw-numbers")
    assert numbers.inner_text() == (
        "5 in the window, 19 in the notebook · 7 of 24 lines are read"
    )
    bare.get_by_role("radio").first.focus()
    bare.keyboard.press("ArrowDown")
    assert found(bare) == [conversation.LINES[2], conversation.LINES[13]]
    bare.get_by_label("Retrieved k").press("ArrowLeft")
    assert found(bare) == [conversation.LINES[13]]  # the news alone
    bare.get_by_label("Retrieved k").press("Home")
    assert said.inner_text() == (
        "Nothing is retrieved: only the window is read."
    )
    bare.get_by_label("Said so far").press("Home")
    assert numbers.inner_text() == (
        "1 in the window, 0 in the notebook · 1 of 1 lines are read"
    )
    bare.get_by_role("slider", name="Window").press("End")
    assert bare.get_by_label("Window").get_attribute(
        "aria-valuetext"
    ) == "8 lines"  # fmt: skip
    bare.evaluate("window.stop()")
    assert bare.evaluate("listening()") == 0


def test_a_notebook_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"of shape \(4, 24\), not \(4, 23\)"):
        widgets.notebook_explorer(*NOTES[:2], NOTES[2][:, 1:])
    with pytest.raises(ValueError, match="finite scores"):
        widgets.notebook_explorer(*NOTES[:2], NOTES[2] * math.inf)
    for bad in ({"window": 9}, {"k": 7}, {"now": 25}, {"now": 0}):
        with pytest.raises(ValueError, match="a window of 1 to 8"):
            widgets.notebook_explorer(*NOTES, **bad)


# ------------------------------------------------------ A state that decays

STATE = {"state_bytes": 13_107_200, "token_bytes": 327_680}
HEARD = ["code", "<7>", "um", "so"]


def held(steps: list[float], inputs: list[float], rate: float) -> list[str]:
    """Return what a state holds of each token, by the reference."""
    a = torch.tensor([[rate]], dtype=torch.float64)
    one = torch.tensor([-rate], dtype=torch.float64)
    delta = torch.tensor(steps, dtype=torch.float64)
    a_bar, b_bar = discretize(delta[:, None], a, one)
    n = len(steps)
    given = torch.tensor(inputs, dtype=torch.float64) * b_bar[:, 0, 0]
    states = scan_sequential(
        a_bar[None, :, :, 0].expand(1, n, n), given.diag()[None]
    )
    return expected(states[0, -1])


@pytest.mark.usefixtures("on_page")
def test_the_state_explorer_equals_discretize_and_scan(bare: Page) -> None:
    steps = [0.3, 3.0, 0.05, 1.2]
    figure = widgets.state_explorer(HEARD, steps, rate=-0.5, **STATE)
    shown = re.findall(r"<td>(\d+) %</td></tr>", figure.without)
    right = held(steps, [1.0] * 4, -0.5)
    assert [f"{share}\u202f%" for share in shown] == right
    mount(bare, "state_explorer", figure)
    assert percents(bare)[:4] == right
    bare.evaluate("model.set('inputs', [1, 0.5, 1, 0])")
    bare.evaluate("model.set('rate', 1.5)")
    assert percents(bare)[:4] == held(steps, [1.0, 0.5, 1.0, 0.0], -1.5)
    bare.get_by_role("radio").nth(1).check(force=True)
    right = held(steps[:2], [1.0, 0.5], -1.5)
    assert percents(bare)[:4] == [*right, "·", "·"]
    bare.evaluate("window.stop()")
    assert bare.evaluate("listening()") == 0


@pytest.mark.usefixtures("on_page")
def test_the_state_explorer_by_keyboard(bare: Page) -> None:
    figure = widgets.state_explorer(HEARD, [0.7] * 4, keep=[1], **STATE)
    mount(bare, "state_explorer", figure)
    bare.get_by_role("button", name="Selective").press("Enter")
    assert bare.evaluate("model.get('steps')") == [0.01, 3, 0.01, 0.01]
    assert percents(bare)[:4] == held([0.01, 3, 0.01, 0.01], [1.0] * 4, -1)
    bare.get_by_role("radio").last.focus()
    bare.keyboard.press("ArrowLeft")
    said = bare.get_by_role("status")
    assert said.inner_text().startswith("“um” keeps 99")
    step = bare.get_by_label("Step Δ of “um”")
    step.press("End")  # the longest step wipes all
    assert step.get_attribute("aria-valuetext") == "10"
    assert percents(bare)[:4] == ["0\u202f%", "0\u202f%", "100\u202f%", "·"]
    bare.get_by_label("Written, B").press("Home")  # and writes nothing
    assert percents(bare)[2:] == ["0\u202f%", "·", "100\u202f%"]
    read = bare.get_by_label("Tokens read")
    assert read.get_attribute("aria-valuetext") == "2,048"
    last = bare.locator(".cw-numbers").last
    assert last.inner_text() == (
        "State 12.5\u202fMiB, as after the first token · "
        "cache 640\u202fMiB, 51.2 times the state"
    )


def test_a_state_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="4 tokens, 3 steps"):
        widgets.state_explorer(HEARD, [0.7] * 3, **STATE)
    for step, rate in ((0.0, -1.0), (11.0, -1.0), (1.0, 0.5)):
        with pytest.raises(ValueError, match=r"steps of 0\.001 to 10"):
            widgets.state_explorer(HEARD, [step] * 4, rate=rate, **STATE)


# ---------------------------------------------------------------- The KV cache

CACHES = {
    "models": {"Llama 3.1 8B": (32, 32, 8, 128), "GPT-3": (96, 96, 96, 128)},
    "memories": {"RTX 4090": 24 * 10**9, "H100": 80 * 10**9},
}


def cached(n_tokens: int, sizes: tuple[int, ...], bits: int = 16) -> int:
    """Return the bytes that the figure should show, by the reference."""
    layers, heads, kv_heads, width = sizes
    return kv_cache_bytes(n_tokens, layers, heads, width, kv_heads, bits=bits)


def test_the_cache_refuses_what_it_cannot_show() -> None:
    with pytest.raises(ValueError, match="one model and one memory"):
        widgets.cache_explorer({}, CACHES["memories"])
    with pytest.raises(ValueError, match="32 query heads can't share 5"):
        widgets.cache_explorer({"odd": (1, 32, 5, 64)}, CACHES["memories"])
    for n_tokens in (1_000, 512, 2**25):
        with pytest.raises(ValueError, match="a power of two from 1,024"):
            widgets.cache_explorer(**CACHES, n_tokens=n_tokens)


@pytest.mark.usefixtures("on_page")
def test_the_cache_reads_without_a_script() -> None:
    figure = widgets.cache_explorer(**CACHES)
    for name, sizes in CACHES["models"].items():
        numbers = [cached(1, sizes), cached(131_072, sizes)]
        numbers += [m // numbers[0] for m in CACHES["memories"].values()]
        cells = "".join(f"<td>{number:,}</td>" for number in numbers)
        assert f'<th scope="row">{name}</th>{cells}' in figure.without


@pytest.mark.usefixtures("on_page")
def test_the_cache_by_keyboard_counts_as_the_chapter_does(bare: Page) -> None:
    mount(bare, "cache_explorer", widgets.cache_explorer(**CACHES))
    said = bare.get_by_role("status")
    assert cached(131_072, (32, 32, 8, 128)) == 16 * 2**30
    assert said.inner_text() == (
        "Llama 3.1 8B: 131,072 tokens take 16\u202fGiB. Room on all of these, "
        "as long as nothing else is there."
    )
    numbers = bare.locator(".cw-numbers")
    assert "4 query heads share one" in numbers.inner_text()
    bare.get_by_label("Tokens").focus()
    bare.keyboard.press("ArrowRight")
    assert said.inner_text().endswith("32\u202fGiB. No room on RTX 4090.")
    room = 24 * 10**9 // cached(1, (32, 32, 8, 128))
    first = bare.locator(".cw-cards > div").first
    assert f"room for {room:,} tokens" in first.inner_text()
    assert "too small" in first.inner_text()
    bare.get_by_label("½ byte").check()
    assert "take 8\u202fGiB. Room on all" in said.inner_text()
    bare.get_by_label("GPT-3").check()
    assert bare.get_by_label("Layers").get_attribute("aria-valuetext") == "96"
    gib = cached(262_144, (96, 96, 96, 128), bits=4) / 2**30
    assert f"take {gib:.0f}\u202fGiB. No room on RTX 4090, H100." in (
        said.inner_text()
    )
    assert "every head has its own" in numbers.inner_text()
    bare.get_by_label("KV heads").press("Home")  # a model of one's own
    assert said.inner_text().startswith("This model: 262,144 tokens")
    assert "96 query heads share one" in numbers.inner_text()
    assert not bare.get_by_label("GPT-3").is_checked()
    bare.get_by_label("Query heads").press("ArrowLeft")
    assert bare.evaluate("[model.get('heads'), model.get('kv_heads')]") == [
        95,
        1,
    ]
    bare.evaluate("window.stop()")
    assert bare.evaluate("listening()") == 0


# ------------------------------------------------------------ Ring attention


def dealt(name: str, n: int, world: int) -> list[torch.Tensor]:
    """Return the positions of each rank's tokens."""
    every = torch.arange(n)
    if name == "zigzag":
        return zigzag_split(every, world, dim=0)
    if name == "contiguous":
        return list(every.reshape(world, -1))
    return list(every.reshape(-1, world).T)


@pytest.mark.usefixtures("on_page")
@pytest.mark.parametrize(("n", "world"), [(16, 4), (12, 3), (4, 2)])
def test_the_ring_explorer_equals_causal_work(
    bare: Page, n: int, world: int
) -> None:
    figure = widgets.ring_explorer(n, world)
    mount(bare, "ring_explorer", figure)
    numbers = bare.locator(".cw-numbers")
    step = bare.get_by_label("Step")
    for layout, name in (
        ("contiguous", "in order"),
        ("striped", "stripes"),
        ("zigzag", "zigzag"),
    ):
        bare.get_by_label(name).click()
        work = causal_work(dealt(layout, n, world))
        for rank, row in enumerate(work.tolist()):
            cells = "".join(f"<td>{x}</td>" for x in [*row, sum(row)])
            head = f'<th scope="row">{layout}, rank {rank}</th>'
            assert f"{head}{cells}" in figure.without
        step.press("Home")
        for t in range(world):
            assert bare.evaluate("model.get('step')") == t
            pairs = ", ".join(map(str, work[:, t].tolist()))
            said = numbers.inner_text()
            assert said.startswith(f"Pairs in this step: {pairs} ")
            assert bare.locator(".cw-now").count() == work[:, t].sum()
            step.press("ArrowRight")
        assert f"in all {work.amax(0).sum()}, " in numbers.inner_text()
    bare.get_by_label("Hide the future").uncheck()
    assert bare.locator(".cw-now").count() == n * n // world


@pytest.mark.usefixtures("on_page")
def test_the_ring_explorer_by_keyboard(bare: Page) -> None:
    mount(bare, "ring_explorer", widgets.ring_explorer())
    said = bare.get_by_role("status")
    assert said.inner_text() == (
        "0 moves: rank 0 holds KV 0, rank 1 holds KV 1, rank 2 holds KV 2, "
        "rank 3 holds KV 3; nobody waits."
    )
    after = bare.get_by_role("button", name="Next")
    after.press("Enter")
    after.press("Enter")  # the focus has survived the drawing
    assert said.inner_text() == (
        "2 moves: rank 0 holds KV 2, rank 1 holds KV 3, rank 2 holds KV 0, "
        "rank 3 holds KV 1; 2 of 4 wait."
    )
    bare.get_by_label("in order").press("ArrowRight")  # begins anew
    assert bare.get_by_label("stripes").is_checked()
    slider = bare.get_by_label("Step")
    assert slider.get_attribute("aria-valuetext") == "0 of 3"
    slider.press("End")
    assert said.inner_text().startswith("3 moves: rank 0 holds KV 1")


@pytest.mark.usefixtures("on_page")
def test_the_cards_of_the_ring_go_to_the_next_rank(bare: Page) -> None:
    mount(bare, "ring_explorer", widgets.ring_explorer())

    def middle(selector: str, place: int) -> tuple[float, float]:
        box = bare.locator(selector).nth(place).bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def nearest(card: int) -> int:
        at = middle(".cw-card", card)
        return min(
            range(4), key=lambda r: math.dist(at, middle(".cw-seat", r))
        )

    for t in range(4):
        bare.evaluate(f"model.set('step', {t})")
        assert [nearest(card) for card in range(4)] == [
            (card + t) % 4 for card in range(4)
        ]
    style = "e => getComputedStyle(e).transitionDuration"
    moves = bare.locator(".cw-arm").first.evaluate(style)
    assert moves == "0s"  # this page asks for reduced motion


@pytest.mark.usefixtures("on_page")
def test_the_ring_plays_to_the_end_and_lets_go(bare: Page) -> None:
    bare.clock.install()
    mount(bare, "ring_explorer", widgets.ring_explorer(layout="zigzag"))
    bare.get_by_role("button", name="Play").click()
    assert bare.get_by_role("button", name="Pause").count() == 1
    bare.clock.run_for(10_000)
    assert bare.evaluate("model.get('step')") == 3
    said = bare.get_by_role("status").inner_text()
    assert said.endswith("nobody waits.")
    bare.get_by_role("button", name="Play").click()  # from the start
    bare.evaluate("window.stop()")
    bare.clock.run_for(10_000)
    assert bare.evaluate("model.get('step')") == 0
    assert bare.evaluate("listening()") == 0


def test_a_ring_that_does_not_fit_is_refused() -> None:
    for sizes in ((16, 1), (16, 5), (20, 2), (14, 4), (0, 2)):
        with pytest.raises(ValueError, match="the figure needs 2 ≤ world"):
            widgets.ring_explorer(*sizes)
    with pytest.raises(ValueError, match="layout must be one of contiguous"):
        widgets.ring_explorer(layout="random")


def _needles(**settings: int) -> tuple[widgets.PageFigure, torch.Tensor]:
    """Make a needle explorer of three mechanisms, two seeds."""
    recall = torch.rand(3, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    recall[2] = 0.0
    return widgets.needle_explorer(
        ["full", "window", "<none>"], [64, 128, 256], [0.0, 0.25, 0.5, 1.0],
        recall, chance=0.1, trials=20, **settings,
    ), recall  # fmt: skip


@pytest.mark.usefixtures("on_page")
def test_the_needle_explorer_shows_the_recall_it_is_given(bare: Page) -> None:
    figure, recall = _needles(left=1, right=2)
    mount(bare, "needle_explorer", figure)
    tables = bare.get_by_role("table")
    for name, side in ((1, 0), (2, 1)):
        said = tables.nth(side).locator("td .cw-aloud").all_inner_texts()
        mean = recall[name].mean(0).flatten()
        assert [float(x) for x in said] == pytest.approx(
            mean.tolist(), abs=0.0056
        )
    signs = tables.nth(1).locator("td [aria-hidden]").all_inner_texts()
    assert signs == ["·"] * 12  # no better than guessing
    bare.get_by_label("On the left").select_option("full")
    bare.get_by_label("Length").press("Home")
    bare.get_by_label("Depth").press("End")
    low, high = recall[0, :, 0, 3].aminmax()
    said = bare.get_by_role("status").inner_text()
    assert said == (
        f"On the left, full finds {recall[0, :, 0, 3].mean():.2f} "
        f"({low:.2f} to {high:.2f} by seed); on the right, <none> finds 0.00 "
        "(with every seed)."
    )
    slider = bare.get_by_label("Length")
    assert slider.get_attribute("aria-valuetext") == "64 tokens"
    assert (
        "2 tokens before the end" in bare.locator(".cw-numbers").inner_text()
    )


@pytest.mark.usefixtures("on_page")
def test_a_cell_of_the_needle_explorer_can_be_picked(bare: Page) -> None:
    figure, _ = _needles()
    mount(bare, "needle_explorer", figure)
    bare.get_by_role("table").nth(1).locator("td").nth(5).click()
    for side in (0, 1):
        cells = bare.get_by_role("table").nth(side).locator("td")
        marked = cells.evaluate_all(
            "all => all.map(e => e.className === 'cw-needle')"
        )
        assert marked == [n == 5 for n in range(12)]
    assert bare.evaluate("[model.get('length'), model.get('depth')]") == [1, 1]


def test_needles_of_other_shapes_are_refused() -> None:
    given = ["a", "b"], [64], [0.0, 1.0]
    with pytest.raises(ValueError, match=r"need recall of shape \(2, 3, 1, 2"):
        widgets.needle_explorer(
            *given, torch.rand(2, 3, 2, 2), chance=0.1, trials=9
        )
    with pytest.raises(ValueError, match="there is no mechanism 0 or 2"):
        widgets.needle_explorer(
            *given, torch.rand(2, 3, 1, 2), chance=0.1, trials=9, right=2
        )


# ------------------------------------------------------- A design's budget

KEPT = ("window", "memory", "retrieved", "bits")
PLANS = [
    {
        "name": name,
        "n_kv_heads": shared,
        "rope": "ntk",
        "layers": [dict(zip(KEPT, keep, strict=True)) for keep in layers],
        "results": [{"recall": recall, "kv_bytes": cost, "flops": cost}],
    }
    for name, shared, layers, recall, cost in (
        ("<all>", 4, [(64, 0, None, 16)] * 2, 0.75, 100.0),
        ("some", 1, [(8, 40, 4, 4), (3, 0, None, 8)], 0.5, 10.0),
    )
] + [{"name": "secret", "results": [{"recall": 1.0}]}]
PLAN_SIZES = {"n_tokens": 64, "n_heads": 4, "width": 6}


def budget(**settings) -> widgets.PageFigure:
    """Make a budget explorer of two designs and one that is hidden."""
    given = {"weights": {4: 900, 1: 700}, "budget": (20.0, 6_000)}
    return widgets.budget_explorer(PLANS, **given | PLAN_SIZES | settings)


@pytest.mark.usefixtures("on_page")
def test_the_budget_equals_the_bills_of_chapter_15(bare: Page) -> None:
    figure = budget()
    assert "secret" not in figure.without
    assert figure.state["kv_heads"] == 1  # the first that fits
    mount(bare, "budget_explorer", figure)
    numbers = bare.locator(".cw-numbers")
    for label, row, weights in (
        ("<all>", PLANS[0], 900),
        ("some", PLANS[1], 700),
    ):
        bare.get_by_label(label).check()
        plan = Design(
            tuple(Keep(**keep) for keep in row["layers"]), row["n_kv_heads"]
        )
        held = kv_bytes_per_token(plan, 64, 6)
        flops = flops_per_token(plan, 64, 4, 6, weights)
        assert numbers.inner_text() == (
            f"{64 * held:,.0f} bytes for 64 tokens · "
            f"{flops - 2 * weights:,} FLOPs for attention, "
            f"{2 * weights:,} for the weights"
        )
        bars = bare.locator(".cw-cards small").all_inner_texts()
        assert bars[1] == f"{flops:,} of 6,000"
        fits = held <= 20 and flops <= 6_000
        said = bare.get_by_role("status").inner_text()
        assert said == (
            f"{'Within the budget' if fits else 'Over budget'}. On record: "
            f"it recalled {row['results'][0]['recall']:.2f}."
        )


@pytest.mark.usefixtures("on_page")
def test_the_budget_by_keyboard(bare: Page) -> None:
    mount(bare, "budget_explorer", budget())
    said = bare.get_by_role("status")
    bare.get_by_label("yarn").check()  # costs as much, but isn't on record
    assert "Not on record" in said.inner_text()
    bare.get_by_label("some").check()
    assert bare.get_by_label("ntk").is_checked()
    assert "Not on record" not in said.inner_text()
    bare.get_by_label("2: window 3").check()
    bare.get_by_role("slider", name="Window").press("ArrowRight")
    assert bare.get_by_label("2: window 4, 8 bits").is_checked()
    bare.get_by_role("slider", name="Memory").press("ArrowRight")
    bare.get_by_role("slider", name="Memory").press("ArrowRight")
    bare.get_by_role("slider", name="Retrieved").press("ArrowRight")
    assert bare.get_by_label("(1 retrieved), 8 bits").is_checked()
    bare.get_by_role("slider", name="Retrieved").press("Home")
    assert bare.get_by_label("memory 2 (all retrieved)").is_checked()
    assert said.inner_text().endswith("Not on record: what does it recall?")
    assert bare.evaluate("model.get('layers')") == [
        [8, 40, 4, 4],
        [4, 2, 0, 8],
    ]
    bare.get_by_role("slider", name="Memory").press("End")
    assert "too much" in bare.locator(".cw-over b").first.inner_text()
    bare.evaluate("window.stop()")
    assert bare.evaluate("listening()") == 0


def test_a_budget_that_nothing_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="none of the designs fits"):
        budget(budget=(1.0, 1.0))
