// A window slides over a conversation; what falls out stands in a notebook.
import {
  VISIBLE, change, element, fill, option, slider, summary, unique, watch,
} from "./controls.js";

const counted = (n, thing) => `${n} ${thing}${n === 1 ? "" : "s"}`;
const short = (text) =>
  text.length > 60 ? `${text.slice(0, 58).replace(/\s+\S*$/, "")} …` : text;

/** The k lines of the notebook that score best, the best first. */
function retrieved(scores, written, k) {
  return [...Array(written).keys()]
    .sort((a, b) => scores[b] - scores[a] || a - b)
    .slice(0, k);
}

function render({ model, el }) {
  const lines = model.get("lines");
  const questions = model.get("questions");
  const group = unique("question");
  const pick = (name) => (value) => change(model, { [name]: value });
  const asked = questions.map((question, n) =>
    option(group, () => change(model, { question: n }), question));
  const now = slider(
    "Said so far", { min: 1, max: lines.length, step: 1 }, pick("now"));
  const size = slider(
    "Window", { min: 1, max: model.get("widest"), step: 1 }, pick("window"));
  const k = slider(
    "Retrieved k", { min: 0, max: model.get("most"), step: 1 }, pick("k"));
  const inside = element("ol", { class: "cw-page" });
  const notebook = element("ol", {
    class: "cw-page", tabindex: "0", "aria-label": "The notebook",
  });
  const { numbers, sentence } = summary();

  fill(el,
    element("fieldset", { class: "cw-ask" },
      element("legend", {}, "The question"),
      ...asked.map(({ label }) => label)),
    element("div", { class: "cw-controls" }, now.label, size.label, k.label),
    element("div", { class: "cw-spread" },
      element("div", {}, element("b", {}, "Notebook, with scores"), notebook),
      element("div", {}, element("b", {}, "Window"), inside)),
    numbers, sentence);

  function lineOf(n, score, found) {
    const kind = score === null ? "cw-in" : found ? "cw-found" : "cw-out";
    const item = element("li", { class: kind },
      element("span", { class: "cw-number" }, String(n + 1)),
      element("span", { class: "cw-said" }, lines[n]));
    if (score !== null) {
      const sign = element("b", { "aria-hidden": "true" },
        found ? VISIBLE : "");
      const aloud = element("span", { class: "cw-aloud" },
        found ? ", retrieved" : "");
      item.append(
        element("span", { class: "cw-cost" }, sign, score.toFixed(2), aloud));
    }
    return item;
  }

  function inWords(found) {
    if (!found.length) return "Nothing is retrieved: only the window is read.";
    const said = found.map((n) => `“${short(lines[n])}”`);
    const last = said.pop();
    const all = said.length ? `${said.join(", ")} and ${last}` : last;
    return `From the notebook: ${all}`;
  }

  function draw() {
    const question = model.get("question");
    const scores = model.get("scores")[question];
    const written = Math.max(0, model.get("now") - model.get("window"));
    const found = retrieved(scores, written, model.get("k"));
    const said = model.get("now");
    asked[question].input.checked = true;
    now.show(said, counted(said, "line"));
    size.show(model.get("window"), counted(model.get("window"), "line"));
    k.show(model.get("k"), String(model.get("k")));
    const range = (from, to) =>
      Array.from({ length: to - from }, (_, n) => from + n);
    inside.replaceChildren(
      ...range(written, said).map((n) => lineOf(n, null, false)));
    notebook.replaceChildren(
      ...range(0, written).map((n) =>
        lineOf(n, scores[n], found.includes(n))));
    const best = found.length && notebook.children[found[0]];
    if (best) notebook.scrollTop = best.offsetTop - notebook.offsetTop - 20;
    numbers.textContent =
      `${said - written} in the window, ${written} in the notebook · ` +
      `${said - written + found.length} of ${said} lines are read`;
    sentence.textContent = inWords(found);
  }
  return watch(model, ["question", "now", "window", "k"], draw);
}

export default { render };
