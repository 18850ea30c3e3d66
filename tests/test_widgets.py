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

from contextlab import figures, tokens, widgets
from solutions.flash import hbm_bytes
from solutions.quadratic import (
    attention_flops,
    attention_pairs,
    score_bytes,
)
from solutions.tokens import bpe_encode, bpe_train, fit_window
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
    keys = bare.get_by_label("Keys S =")
    keys.focus()
    keys.press("Home")  # one key: the queries follow, T ≤ S
    assert bare.evaluate("model.get('n_queries')") == 1
    queries = bare.get_by_label("Queries T =")
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
    bare.get_by_label("Keys in a tile:").press("End")  # begins anew
    bare.get_by_label("Queries in a tile:").press("Home")
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
