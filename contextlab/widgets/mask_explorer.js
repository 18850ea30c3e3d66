// The causal mask of T queries, the last of S keys: who may attend to what.
import {
  HIDDEN, VISIBLE, change, checkbox, element, fill, option, slider, summary,
  unique, watch,
} from "./controls.js";

const LOST = "✕";  // hidden by the usual bug, though it lies in the past

function cellOf(allowed, right) {
  if (allowed) return { sign: VISIBLE, state: "visible", words: "may attend" };
  if (right) return { sign: LOST, state: "lost", words: "lost" };
  return { sign: HIDDEN, state: "hidden", words: "hidden" };
}

const range = (n) => Array.from({ length: n }, (_, index) => index);

function render({ model, el }) {
  const most = model.get("most");
  const group = unique("row");
  const sizes = { min: 1, max: most, step: 1 };
  const queries = slider("Queries T", sizes, (n) => change(model, {
    n_queries: n, n_keys: Math.max(n, model.get("n_keys")),
  }));
  const keys = slider("Keys S", sizes, (n) => change(model, {
    n_keys: n, n_queries: Math.min(n, model.get("n_queries")),
  }));
  const bug = checkbox(model, "top_left", "Align top-left (the usual bug)");
  const table = element("table", { class: "cw-mask" });
  const { numbers, sentence } = summary();

  fill(el,
    element("fieldset", { class: "cw-scroll" },
      element("legend", {}, `Pick a query: ${VISIBLE} it may attend to the ` +
        `key, ${HIDDEN} the key is hidden`),
      table),
    element("div", { class: "cw-controls" },
      queries.label, keys.label, bug.label),
    numbers, sentence);

  function rowOf(query, chosen, shift) {
    const { n_keys: n, allows } = mask();
    const pick = () => {
      change(model, { query });  // draws the table anew
      table.querySelector("input:checked").focus();
    };
    const { input, label } = option(
      group, pick, element("span", {}, `query ${query}`),
      element("small", {}, ` at ${query + shift}`));
    input.checked = chosen;
    const cells = range(n).map((key) => {
      const { sign, state, words } =
        cellOf(allows(query, key), key <= query + shift);
      return element("td", { class: `cw-${state}`, onclick: pick },
        element("span", { "aria-hidden": "true" }, sign),
        element("span", { class: "cw-aloud" }, words));
    });
    return element("tr", { class: chosen ? "cw-chosen" : "" },
      element("th", { scope: "row" }, label), ...cells);
  }

  function mask() {
    const n_queries = model.get("n_queries");
    const n_keys = model.get("n_keys");
    const shift = n_keys - n_queries;  // the position of the first query
    const used = model.get("top_left") ? 0 : shift;
    return { n_queries, n_keys, shift, allows: (t, s) => s <= t + used };
  }

  function draw() {
    const { n_queries, n_keys, shift, allows } = mask();
    const query = Math.min(model.get("query"), n_queries - 1);
    const focused = table.contains(document.activeElement);
    table.replaceChildren(
      element("thead", {}, element("tr", {},
        element("th", { scope: "col" }, "key"),
        ...range(n_keys).map((key) =>
          element("th", { scope: "col" }, String(key))))),
      element("tbody", {}, ...range(n_queries).map((t) =>
        rowOf(t, t === query, shift))));
    if (focused) table.querySelector("input:checked").focus();
    queries.show(n_queries, String(n_queries));
    keys.show(n_keys, String(n_keys));
    bug.show();
    const pairs = range(n_queries).flatMap((t) =>
      range(n_keys).filter((s) => allows(t, s)));
    numbers.textContent =
      `${pairs.length} of ${n_queries * n_keys} pairs may attend`;
    sentence.textContent = inWords(query, shift, allows, n_keys);
  }

  function inWords(query, shift, allows, n_keys) {
    const seen = range(n_keys).filter((key) => allows(query, key)).length;
    const lost = query + shift + 1 - seen;
    const upTo = seen === 1 ? "key 0 alone" : `keys 0 to ${seen - 1}`;
    const said = `Query ${query} stands at position ${query + shift} ` +
      `and may attend to ${upTo}`;
    if (lost) return `${said}: the bug loses ${lost} of its past (${LOST}).`;
    if (model.get("top_left") && shift === 0)
      return `${said}. With T = S the bug can't be seen.`;
    return `${said}.`;
  }
  return watch(
    model, ["n_queries", "n_keys", "query", "top_left"], draw);
}

export default { render };
