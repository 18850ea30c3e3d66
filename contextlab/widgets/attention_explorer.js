// Pick a token, see its attention weights; change what divides the scores.
import {
  button, change, checkbox, element, fill, percent, slider, summary, token,
  unique, watch,
} from "./controls.js";

/** softmax(products / divisor) over the first `visible` keys, then zeros. */
function attention(products, divisor, visible) {
  const scores = products.slice(0, visible).map((p) => p / divisor);
  const peak = Math.max(...scores);
  const exps = scores.map((score) => Math.exp(score - peak));
  const total = exps.reduce((sum, e) => sum + e, 0);
  return products.map((_, key) => (key < visible ? exps[key] / total : 0));
}

const shown = (value) => value.toFixed(Number.isInteger(value) ? 0 : 1);

function entropy(weights) {
  const bits = (sum, w) => (w > 0 ? sum - w * Math.log2(w) : sum);
  return Math.abs(weights.reduce(bits, 0));
}

/** "it" attends to "trophy" 62 %, ... : the three largest weights. */
function inWords(tokens, query, weights) {
  const largest = weights
    .map((weight, key) => ({ weight, key }))
    .sort((a, b) => b.weight - a.weight)
    .filter(({ weight }, place) => place === 0 || weight >= 0.05)
    .slice(0, 3)
    .map(({ weight, key }) => `“${tokens[key]}” ${percent(weight)}`);
  return `“${tokens[query]}” attends to ${largest.join(", ")}.`;
}

function render({ model, el }) {
  const tokens = model.get("tokens");
  const width = model.get("width");
  const root = Math.sqrt(width);
  const largest = Math.max(width, 4);  // the slider's right end
  const group = unique("query");

  const chips = tokens.map((text, query) =>
    token(text, group, () => change(model, { query })));
  const divisor = slider(
    "Scores divided by",
    { min: 0, max: 1, step: 0.01 },
    (place) => change(model, { divisor: largest ** place }));
  const preset = (text, value) =>
    button(text, () => change(model, { divisor: value }));
  const causal = checkbox(model, "causal", "Hide the future (causal mask)");
  const { numbers, sentence } = summary();

  fill(el,
    element("fieldset", { class: "cw-tokens" },
      element("legend", {}, "Pick the token that asks (the query)"),
      ...chips.map(({ label }) => label)),
    element("div", { class: "cw-controls" },
      divisor.label,
      element("span", { class: "cw-presets" },
        preset("1: not scaled", 1),
        preset(`√D = ${shown(root)}`, root),
        preset(`D = ${width}`, width)),
      causal.label),
    numbers, sentence);

  function draw() {
    const query = model.get("query");
    const by = model.get("divisor");
    const visible = model.get("causal") ? query + 1 : tokens.length;
    const weights = attention(model.get("products")[query], by, visible);
    chips.forEach(({ show }, key) =>
      show(weights[key], key === query, key >= visible && "hidden"));
    const isRoot = Math.abs(by / root - 1) < 0.005;
    divisor.show(
      Math.log(by) / Math.log(largest),
      isRoot ? `${shown(root)} = √D` : shown(by));
    causal.show();
    numbers.textContent =
      `Largest weight ${percent(Math.max(...weights))} · ` +
      `entropy ${entropy(weights).toFixed(2)} ` +
      `of ${Math.log2(visible).toFixed(2)} bits`;
    sentence.textContent = inWords(tokens, query, weights);
  }
  return watch(model, ["query", "divisor", "causal"], draw);
}

export default { render };
