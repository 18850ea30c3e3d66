// Sparse masks: a window, strides, global tokens, and pairs painted by hand.
import {
  button, change, checkbox, element, fill, number, percent, slider, summary,
  watch,
} from "./controls.js";

const range = (n) => Array.from({ length: n }, (_, index) => index);
const tokens = (n) => (n === 1 ? "1 token" : `${n} tokens`);

/** What each preset sets; 0 leaves a part out. */
const PRESETS = {
  "all": { window: 24, stride: 0, n_global: 0, causal: true },
  "window": { window: 4, stride: 0, n_global: 0, causal: true },
  "strided": { window: 5, stride: 5, n_global: 0, causal: true },
  "global": { window: 3, stride: 0, n_global: 2, causal: false },
};

/** The mask as rows of booleans: [query][key]. */
function maskOf(n, { window, stride, n_global, causal, painted }) {
  const mask = range(n).map((t) => range(n).map((s) => {
    const back = causal ? t - s : Math.abs(t - s);
    if (back < 0) return false;
    return back < window || (stride > 0 && back % stride === 0) ||
      t < n_global || s < n_global;
  }));
  for (const [t, s] of painted) mask[t][s] = !mask[t][s];
  return mask;
}

/** Who hears of whom through that many layers; a token keeps its own. */
function reachOf(mask, layers) {
  let reach = mask.map((row, t) => row.map((_, s) => t === s));
  for (let layer = 0; layer < layers; layer++) {
    const below = reach;
    reach = mask.map((row, t) => row.map((_, s) => below[t][s] ||
      row.some((may, u) => may && below[u][s])));
  }
  return reach;
}

function render({ model, el }) {
  const n = model.get("n");
  const width = model.get("width");
  const parts = ["window", "stride", "n_global", "causal", "painted"];
  const now = () =>
    Object.fromEntries(parts.map((name) => [name, model.get(name)]));
  const pick = (name) => (value) => change(model, { [name]: value });
  const upTo = (max, min = 0) => ({ min, max, step: 1 });

  const window_ = slider("Window", upTo(n), pick("window"));
  const stride = slider("Stride", upTo(n - 1), pick("stride"));
  const globals = slider("Global tokens", upTo(6), pick("n_global"));
  const layers = slider("Layers", upTo(8, 1), pick("n_layers"));
  const query = slider("Query", upTo(n - 1), pick("query"));
  const key = slider("Key", upTo(n - 1), pick("key"));
  const causal = checkbox(model, "causal", "Hide the future");
  const paint = button("Paint this pair", () =>
    toggle(model.get("query"), model.get("key")));
  const clear = button("Unpaint all", () => change(model, { painted: [] }));
  const presets = Object.entries(PRESETS).map(([name, values]) =>
    button(name, () => change(model, {
      ...values, window: Math.min(values.window, n), painted: [],
    })));
  const grid = element("div", { class: "cw-paint", "aria-hidden": "true" });
  grid.style.setProperty("--columns", n);
  const cells = range(n).map((t) => range(n).map((s) =>
    element("span", { onclick: () => toggle(t, s) })));
  grid.append(...cells.flat());
  const { numbers, sentence } = summary();

  fill(el,
    element("div", { class: "cw-presets" }, ...presets),
    grid,
    element("p", { class: "cw-key" }, "a row for each query   ",
      element("span", { class: "cw-solid" }), " may attend   ",
      element("span", { class: "cw-pale" }), " hears of by hearsay"),
    element("div", { class: "cw-controls" },
      window_.label, stride.label, globals.label, layers.label),
    element("div", { class: "cw-controls cw-more" },
      query.label, key.label, causal.label,
      element("span", { class: "cw-presets" }, paint, clear)),
    numbers, sentence);

  function toggle(t, s) {
    const painted = model.get("painted");
    const rest = painted.filter(([a, b]) => a !== t || b !== s);
    if (rest.length === painted.length) rest.push([t, s]);
    change(model, { painted: rest, query: t, key: s });
  }

  function draw() {
    const state = now();
    const mask = maskOf(n, state);
    const reach = reachOf(mask, model.get("n_layers"));
    const at = [model.get("query"), model.get("key")];
    cells.forEach((row, t) => row.forEach((cell, s) => {
      const names = [mask[t][s] ? "cw-may" : reach[t][s] ? "cw-hears" : ""];
      if (t === at[0]) names.push("cw-row");
      if (t === at[0] && s === at[1]) names.push("cw-at");
      cell.className = names.join(" ").trim();
    }));
    const off = (value) => (value ? String(value) : "none");
    window_.show(state.window, off(state.window));
    stride.show(state.stride, off(state.stride));
    globals.show(state.n_global, off(state.n_global));
    layers.show(model.get("n_layers"), String(model.get("n_layers")));
    query.show(at[0], String(at[0]));
    key.show(at[1], String(at[1]));
    causal.show();
    clear.disabled = state.painted.length === 0;
    const pairs = mask.flat().filter(Boolean).length;
    numbers.textContent =
      `${pairs} of ${n * n} pairs, ${percent(pairs / n ** 2)} · ` +
      `${number(4 * pairs * width)} FLOPs at D = ${width} · all pairs ` +
      `${number(4 * n * n * width)}`;
    sentence.textContent = inWords(at[0], mask, reach);
  }

  function inWords(t, mask, reach) {
    const sees = mask[t].filter(Boolean).length;
    const hears = reach[t].filter(Boolean).length;
    const count = model.get("n_layers");
    const through = count === 1 ? "1 layer" : `${count} layers`;
    return `Token ${t} sees ${tokens(sees)}; through ${through} it ` +
      `hears of ${hears}, the farthest at ${farthest(t, reach[t])}.`;
  }

  /** The position that lies farthest from t among those it hears of. */
  function farthest(t, row) {
    return range(n).filter((s) => row[s]).reduce((far, s) =>
      (Math.abs(s - t) > Math.abs(far - t) ? s : far), t);
  }

  return watch(model, [...parts, "n_layers", "query", "key"], draw);
}

export default { render };
