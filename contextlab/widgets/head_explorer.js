// The heads of a trained model: whom a token attends to, in each of them.
import {
  change, choice, element, fill, percent, summary, token, unique, watch,
} from "./controls.js";

const upTo = (n) => Array.from({ length: n }, (_, index) => index);
const mean = (list) => list.reduce((sum, x) => sum + x, 0) / list.length;

function render({ model, el }) {
  const tokens = model.get("tokens");
  const models = model.get("models");  // name, weights[layer][head][query][key]
  const period = model.get("period");
  const group = unique("query");
  const [layerCount, headCount] = [models[0][1].length, models[0][1][0].length];
  const one = (name) => (index) => change(model, { [name]: index });
  const counted = (n) => upTo(n).map((index) => [index, index + 1]);

  const which = choice("Model", models.map(([name], i) => [i, name]),
    one("model"));
  const layers = choice("Layer", counted(layerCount), one("layer"));
  const heads = choice("Head", counted(headCount), one("head"));
  const chips = tokens.map((text, query) => token(text, group,
    () => change(model, { query })));
  const rounds = element("div", { class: "cw-rounds" },
    ...chips.map(({ label }) => label));
  rounds.style.setProperty("--columns", period);
  const map = element("div",
    { class: "cw-paint cw-map", "aria-hidden": "true" });
  map.style.setProperty("--columns", tokens.length);
  const { numbers, sentence } = summary();

  fill(el,
    element("div", { class: "cw-choices" }, which.set, layers.set, heads.set),
    element("div", { class: "cw-heads" },
      element("fieldset", {},
        element("legend", {}, "Pick the token that asks (the query)"),
        rounds),
      element("div", {}, map, element("p", { class: "cw-key" },
        "rows: queries, columns: keys"))),
    numbers, sentence);

  function drawMap(weights, query) {
    map.replaceChildren(...weights.flatMap((row, t) => row.map((weight) =>
      element("span", {
        class: t === query ? "cw-row" : "",
        style: `--share: ${weight}`,
        onclick: () => change(model, { query: t }),
      }))));
  }

  /** The mean weight from each query, from `first` on, `back` tokens back. */
  function meanBack(weights, first, back) {
    return mean(weights.slice(first).map((row, t) => row[first + t - back]));
  }

  function inWords(row, query) {
    const [most] = upTo(query + 1).sort((a, b) => row[b] - row[a]);
    const place = most === query ? "itself"
      : most === query - 1 ? `“${tokens[most]}”, the token before it`
      : `“${tokens[most]}”, ${query - most} tokens before it`;
    const follows = query >= period && most === query - period + 1
      ? `; there, “${tokens[most]}” follows a “${tokens[query]}”` : "";
    return `Token ${query + 1}, “${tokens[query]}”, attends most to ` +
      `${place}: ${percent(row[most])}${follows}.`;
  }

  function draw() {
    const [layer, head] = [model.get("layer"), model.get("head")];
    const query = model.get("query");
    const weights = models[model.get("model")][1][layer][head];
    which.show(model.get("model"));
    layers.show(layer);
    heads.show(head);
    chips.forEach(({ show }, key) =>
      show(weights[query][key], key === query, key > query && "hidden"));
    drawMap(weights, query);
    numbers.textContent =
      "On average, this head gives the token before the query " +
      `${percent(meanBack(weights, 1, 1))} · and what followed the query’s ` +
      `token a round ago ${percent(meanBack(weights, period, period - 1))}`;
    sentence.textContent = inWords(weights[query], query);
  }
  return watch(model, ["model", "layer", "head", "query"], draw);
}

export default { render };
