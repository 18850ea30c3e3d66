// Two mechanisms' recall by length and depth, and a needle that moves.
import {
  HIDDEN, change, element, fill, slider, summary, unique, watch,
} from "./controls.js";

const range = (n) => Array.from({ length: n }, (_, index) => index);
const short = (x) => String(x).replace(/^0\./, ".").slice(0, 3);

/** A list to choose from, with a label of its own. */
function menu(text, entries, pick) {
  const id = unique("cw-menu");
  const select = element("select", {
    id, onchange: () => pick(select.selectedIndex),
  }, ...entries.map((entry) => element("option", {}, entry)));
  const label = element("label", { for: id }, `${text} `);
  return { select, row: element("div", { class: "cw-menu" }, label, select) };
}

function render({ model, el }) {
  const names = model.get("names");
  const lengths = model.get("lengths");
  const depths = model.get("depths");
  const pick = (name) => (value) => change(model, { [name]: value });
  const sides = [["left", "On the left"], ["right", "On the right"]].map(
    ([side, words]) => ({
      side,
      table: element("table", { class: "cw-mask" }),
      ...menu(words, names, pick(side)),
    }));
  const last = (list) => ({ min: 0, max: list.length - 1, step: 1 });
  const length = slider("Length of the text", last(lengths), pick("length"));
  const depth = slider("Depth of the needle", last(depths), pick("depth"));
  const { numbers, sentence } = summary();

  fill(el,
    element("div", { class: "cw-spread" }, ...sides.map(({ row, table }) =>
      element("div", {}, row, element("div", { class: "cw-scroll" }, table)))),
    element("div", { class: "cw-controls" }, length.label, depth.label),
    numbers, sentence);

  const cellsOf = (side) => model.get("cells")[model.get(side)];

  function fillTable(table, side) {
    const cells = cellsOf(side);
    const at = [model.get("length"), model.get("depth")];
    const title = `Recall of ${names[model.get(side)]}`;
    table.replaceChildren(
      element("caption", { class: "cw-aloud" }, title),
      element("thead", {}, element("tr", {},
        element("th", { scope: "col" }, "tokens"),
        ...depths.map((d) => element("th", { scope: "col" }, short(d))))),
      element("tbody", {}, ...range(lengths.length).map((row) =>
        element("tr", {},
          element("th", { scope: "row" }, String(lengths[row])),
          ...range(depths.length).map((column) => {
            const [mean] = cells[row][column];
            const here = row === at[0] && column === at[1];
            const share = `${Math.round(85 * mean)}%`;
            return element("td", {
              class: here ? "cw-needle" : "",
              style: "background: color-mix(in srgb, var(--cw-weight) " +
                `${share}, var(--cw-faint))`,
              onclick: () => change(model, { length: row, depth: column }),
            },
            element("span", { "aria-hidden": "true" },
              mean > model.get("guessing") ? "" : HIDDEN),
            element("span", { class: "cw-aloud" }, mean.toFixed(2)));
          })))));
  }

  function inWords(side) {
    const [mean, low, high] =
      cellsOf(side)[model.get("length")][model.get("depth")];
    const spread = low === high
      ? "with every seed" : `${low.toFixed(2)} to ${high.toFixed(2)} by seed`;
    return `${names[model.get(side)]} finds ${mean.toFixed(2)} (${spread})`;
  }

  function draw() {
    const n = lengths[model.get("length")];
    const d = depths[model.get("depth")];
    for (const { side, select, table } of sides) {
      select.selectedIndex = model.get(side);
      fillTable(table, side);
    }
    length.show(model.get("length"), `${n} tokens`);
    depth.show(model.get("depth"), String(d));
    const back = Math.round((1 - d) * (n - 4)) + 2;  // to the question's end
    numbers.textContent =
      `The needle's value stands ${back} tokens before the end · guessing ` +
      `finds ${model.get("chance").toFixed(2)} (${HIDDEN}: no better)`;
    sentence.textContent =
      `On the left, ${inWords("left")}; on the right, ${inWords("right")}.`;
  }
  return watch(model, ["left", "right", "length", "depth"], draw);
}

export default { render };
