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

from contextlab import figures, widgets
from tests.browsing import browser

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
