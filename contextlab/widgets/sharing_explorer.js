// Heads that share keys and values: what a token leaves behind, four ways.
import {
  change, choice, element, fill, inBytes, number, slider, summary, svg, watch,
} from "./controls.js";

const BYTES_A_NUMBER = 2;
const WAYS = ["MHA", "GQA", "MQA", "MLA"];
const HEADS = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128];
const SIZES = ["heads", "shared", "width", "latent", "rope", "layers"];
const [LEFT, RIGHT] = [10, 350];  // of a chart that is 360 wide

/** How many heads of keys and values are kept. */
const headsKept = (way, { heads, shared }) =>
  ({ MHA: heads, GQA: shared, MQA: 1 })[way];

/** The kinds of numbers that a token leaves in a layer, and how many. */
function parts(way, sizes) {
  if (way === "MLA")
    return [["cw-o", "latent", sizes.latent], ["cw-k", "RoPE key", sizes.rope]];
  const half = headsKept(way, sizes) * sizes.width;
  return [["cw-k", "keys", half], ["cw-v", "values", half]];
}

const numbersOf = (way, sizes) =>
  parts(way, sizes).reduce((sum, [, , count]) => sum + count, 0);

const box = (x, y, width, height, kind) =>
  svg("rect", { x, y, width, height, rx: 1.5, class: kind });
const text = (x, y, words, kind = "", anchor = "start") =>
  svg("text", { x, y, class: kind, "text-anchor": anchor }, words);

/** Query heads on top, each with a line to what it reads. */
function drawReading(way, sizes) {
  const { heads } = sizes;
  const slot = (RIGHT - LEFT) / heads;
  const at = (h) => LEFT + slot * (h + 0.5);
  const drawn = [text(LEFT, 12, `${number(heads)} query heads`)];
  const kept = way === "MLA" ? 1 : headsKept(way, sizes);
  const group = heads / kept;
  const wide = Math.min(slot * group * 0.7, 46);
  for (let g = 0; g < kept; g += 1) {
    const middle = LEFT + slot * group * (g + 0.5);
    for (let h = g * group; h < (g + 1) * group; h += 1)
      drawn.push(
        svg("line", { x1: at(h), y1: 32, x2: middle, y2: 58, class: "cw-reads" }),
        svg("line", { x1: at(h), y1: 18, x2: at(h), y2: 32, class: "cw-head",
          "stroke-width": Math.min(slot * 0.6, 6) }));
    const [first, second] = parts(way, sizes);
    drawn.push(
      box(middle - wide / 2, 58, wide, 13, first[0]),
      box(middle - wide / 2, 73, wide, way === "MLA" ? 5 : 13, second[0]));
  }
  return drawn;
}

/** One strip for each way, all on one scale. */
function drawStrips(chosen, sizes) {
  const most = Math.max(...WAYS.map((way) => numbersOf(way, sizes)));
  return WAYS.flatMap((way, row) => {
    const top = 116 + 38 * row;
    const numbers = numbersOf(way, sizes);
    const bytes = numbers * sizes.layers * BYTES_A_NUMBER;
    const kind = way === chosen ? "cw-picked" : "";
    const words = way === "GQA" ? `GQA, ${number(sizes.shared)} kept` : way;
    let x = LEFT;
    const strip = parts(way, sizes).map(([hue, , count]) => {
      const wide = (RIGHT - LEFT) * count / most;
      x += wide;
      return box(x - wide, top + 5, wide, 12, hue);
    });
    return [
      text(LEFT, top, words, kind),
      text(RIGHT, top, `${number(numbers)} numbers · ${inBytes(bytes)}`, kind,
        "end"),
      ...strip,
    ];
  });
}

function render({ model, el }) {
  const models = model.get("models");
  const own = models.length;  // the number of a model that nobody published
  const sizesNow = () =>
    Object.fromEntries(SIZES.map((name) => [name, model.get(name)]));

  const presets = choice("Model",
    models.map(([name], index) => [index, name]),
    (index) => {
      const { way, ...sizes } = models[index][1];
      change(model, { ...sizes, way, model: index });
    });
  const ways = choice("Attention", WAYS.map((way) => [way, way]),
    (way) => change(model, { way }));

  const divisors = () => HEADS.concat(3, 6)
    .filter((n) => n <= model.get("heads") && model.get("heads") % n === 0)
    .sort((a, b) => a - b);
  const set = (values) => change(model, { ...values, model: own });
  const heads = slider("Query heads H",
    { min: 0, max: HEADS.length - 1, step: 1 }, (index) => {
      const n = HEADS[index];
      const fits = HEADS.filter((g) => n % g === 0 && g <= model.get("shared"));
      set({ heads: n, shared: fits.at(-1) ?? 1 });
    });
  const shared = slider("Kept in GQA, G", { min: 0, max: 11, step: 1 },
    (index) => set({ shared: divisors()[index] }));
  const plain = (name, words, min, max, step) => [name, slider(words,
    { min, max, step }, (value) => set({ [name]: value }))];
  const others = [
    plain("width", "Head width D", 16, 256, 16),
    plain("layers", "Layers", 1, 128, 1),
    plain("latent", "Latent L", 32, 1024, 32),
    plain("rope", "RoPE key R", 0, 128, 8),
  ];
  const chart = svg("svg",
    { viewBox: "0 0 360 258", role: "img", class: "cw-chart cw-kept" });
  const { numbers, sentence } = summary();

  fill(el,
    element("div", { class: "cw-choices" }, presets.set, ways.set),
    chart,
    element("div", { class: "cw-controls" }, heads.label, shared.label,
      ...others.map(([, { label }]) => label)),
    numbers, sentence);

  function draw() {
    const sizes = sizesNow();
    const way = model.get("way");
    const kept = numbersOf(way, sizes);
    presets.show(model.get("model"));
    ways.show(way);
    heads.show(HEADS.indexOf(sizes.heads), number(sizes.heads));
    const possible = divisors();
    shared.input.max = possible.length - 1;
    shared.show(possible.indexOf(sizes.shared), number(sizes.shared));
    for (const [name, control] of others)
      control.show(sizes[name], number(sizes[name]));
    chart.replaceChildren(
      ...drawReading(way, sizes), ...drawStrips(way, sizes));
    const said = parts(way, sizes)
      .map(([, name, count]) => `${name} ${number(count)}`).join(", ");
    chart.setAttribute("aria-label",
      `${sizes.heads} query heads above what they read in ${way}; below, ` +
      "strips as long as what a token leaves behind in each of the four ways");
    numbers.textContent = `${way}: ${said} (numbers of a token in a layer)`;
    const bytes = kept * sizes.layers * BYTES_A_NUMBER;
    const ratio = numbersOf("MHA", sizes) / kept;
    sentence.textContent =
      `${way} keeps ${inBytes(bytes)} of a token in ${number(sizes.layers)} ` +
      `layers, ${way === "MHA" ? "a key and a value for every head"
        : `MHA ${number(ratio, ratio < 100 ? 1 : 0)} times as much`}.`;
  }
  return watch(model, ["model", "way", ...SIZES], draw);
}

export default { render };
