// FlashAttention, tile by tile: what is in fast memory, and the bytes moved.
import {
  HIDDEN, change, element, fill, number, player, slider, summary, track, watch,
} from "./controls.js";

const BYTES = 2;  // of a float16 number
const PAUSE = 800;  // milliseconds a step while playing

const upTo = (n) => Array.from({ length: n }, (_, index) => index);

/** Cut 0 … n into tiles: [first, one past the last]. */
function cut(n, block) {
  return upTo(Math.ceil(n / block)).map((tile) =>
    [tile * block, Math.min((tile + 1) * block, n)]);
}

/** Every pair of tiles in order, with the numbers that it moves. */
function stepsOf(n, width, blockQ, blockK) {
  let moved = 0;
  return cut(n, blockQ).flatMap((rows) => cut(n, blockK).map((keys) => {
    const first = keys[0] === 0;
    const last = keys[1] === n;
    const queries = rows[1] - rows[0];
    moved += 2 * (keys[1] - keys[0]) * width;
    if (first) moved += queries * width;
    if (last) moved += queries * (width + 1);
    return { rows, keys, first, last, moved };
  }));
}

const within = ([first, end], i) => first <= i && i < end;
const named = (one, several, [first, end]) =>
  (end - first === 1 ? `${one} ${first}` : `${several} ${first} to ${end - 1}`);

function render({ model, el }) {
  const n = model.get("n");
  const width = model.get("width");

  const steps = () =>
    stepsOf(n, width, model.get("block_q"), model.get("block_k"));
  const sizes = { min: 1, max: n, step: 1 };
  const pick = (name) => (size) => change(model, { [name]: size, step: 0 });
  const rows = slider("Queries in a tile", sizes, pick("block_q"));
  const keys = slider("Keys in a tile", sizes, pick("block_k"));
  const grid = element("div", { class: "cw-tiles", "aria-hidden": "true" });
  grid.style.setProperty("--columns", n + 2);
  const bars = element("div", { class: "cw-traffic" });
  const { numbers, sentence } = summary();
  const at = player(model, () => steps().length - 1, PAUSE, sentence);

  fill(el,
    grid,
    element("p", { class: "cw-key" },
      element("span", { class: "cw-solid" }), " in fast memory now   ",
      element("span", { class: "cw-pale" }), " in slow memory   ",
      `${HIDDEN} a score that was used and let go`),
    at.set,
    element("div", { class: "cw-controls cw-more" }, rows.label, keys.label),
    bars, numbers, sentence);

  function cell(kind, state, sign = "") {
    return element("span", { class: `cw-${kind} cw-${state}` }, sign);
  }

  /** Keys and values on top, queries on the left, outputs on the right. */
  function drawGrid(now) {
    const strip = (kind, name) => [
      element("b", {}, name),
      ...upTo(n).map((s) =>
        cell(kind, within(now.keys, s) ? "held" : "rest")),
      element("b", {}, ""),
    ];
    const row = (t) => {
      const held = within(now.rows, t);
      const output = held ? "held" : t < now.rows[0] ? "rest" : "none";
      return [
        cell("q", held ? "held" : "rest"),
        ...upTo(n).map((s) => {
          if (held && within(now.keys, s)) return cell("p", "held");
          const past = t < now.rows[0] || (held && s < now.keys[0]);
          return cell("p", "gone", past ? HIDDEN : "");
        }),
        cell("o", output),
      ];
    };
    grid.replaceChildren(
      ...strip("k", "K"), ...strip("v", "V"),
      element("b", {}, "Q"), ...upTo(n).map(() => element("b")),
      element("b", {}, "O"),
      ...upTo(n).flatMap(row));
  }

  function bar(name, done, all, longest) {
    return element("div", {}, element("span", {}, name),
      track(done / longest, all / longest),
      element("b", {}, number(done * BYTES)));
  }

  function inWords(now) {
    const moves = [];
    if (now.first) moves.push("Q is read, with an empty state");
    moves.push("K and V are read");
    if (now.last) moves.push("the output is written");
    return `${named("Query", "Queries", now.rows)} and ` +
      `${named("key", "keys", now.keys)}: ${moves.join(", ")}.`;
  }

  function draw() {
    const all = steps();
    const step = at.step();
    const now = all[step];
    const naive = 4 * n * width + 4 * n * n;
    const tiled = all[all.length - 1].moved;
    const longest = Math.max(naive, tiled);
    drawGrid(now);
    rows.show(model.get("block_q"), String(model.get("block_q")));
    keys.show(model.get("block_k"), String(model.get("block_k")));
    at.show(`${step + 1} of ${all.length}`);
    bars.replaceChildren(
      bar("tiled, so far", now.moved, tiled, longest),
      bar("naive, in all", naive, naive, longest));
    const [bq, bk] = [now.rows, now.keys].map(([a, b]) => b - a);
    const held = bq * width + 2 * bk * width + bq * bk + bq * (width + 2);
    numbers.textContent =
      `Bytes moved: ${number(now.moved * BYTES)} of ` +
      `${number(tiled * BYTES)} · naive ${number(naive * BYTES)} · in fast ` +
      `memory ${number(held)} numbers, ${bq * bk} of them scores`;
    sentence.textContent = inWords(now);
  }

  const ignore = watch(model, ["step", "block_q", "block_k"], draw);
  return () => {
    at.stop();
    ignore();
  };
}

export default { render };
