// Double the text: pairs, bytes and FLOPs against a cost that is linear.
import {
  change, choice, element, fill, inBytes, number, slider, summary, svg, watch,
} from "./controls.js";

const BYTES_A_SCORE = 4;  // float32
const FROM = 1024;  // the length at which the linear cost starts
const [WIDTH, HEIGHT] = [360, 230];
const PLOT = { left: 56, right: 350, top: 12, bottom: 200 };
const WORDS = ["", " thousand", " million", " billion", " trillion"];

const COUNTS = {
  pairs: () => 1,
  bytes: () => BYTES_A_SCORE,
  FLOPs: ([, , , width]) => 4 * width,
};

/** What a text of n tokens costs, all heads of all layers together. */
function cost(count, model, n) {
  const [, layers, heads] = model;
  return layers * heads * n * n * COUNTS[count](model);
}

function inWords(value) {
  let power = 0;
  while (value >= 1000 && power < WORDS.length - 1) {
    value /= 1000;
    power += 1;
  }
  return number(value, value < 10 ? 1 : 0) + WORDS[power];
}

const superscript = (n) => [...String(n)].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]).join("");

/** 4,096 in full, 3.3 trillion in words, 1.2·10²¹ beyond. */
function said(count, value) {
  if (count === "bytes") return inBytes(value);
  if (value < 1e6) return number(value);
  if (value < 1e15) return inWords(value);
  const [digits, power] = value.toExponential(1).split("e+");
  return `${digits}·10${superscript(power)}`;
}

function render({ model, el }) {
  const models = model.get("models");
  const memories = model.get("memories");
  const [first, last] = model.get("powers");
  const chosen = () => models[model.get("model")];

  const counts = choice("Count",
    Object.keys(COUNTS).map((name) => [name, name]),
    (count) => change(model, { count }));
  const sizes = choice("Model",
    models.map(([name], index) => [index, name]),
    (index) => change(model, { model: index }));
  const length = slider("Tokens n", { min: first, max: last, step: 1 },
    (power) => change(model, { power }));
  const chart = svg("svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "cw-chart" });
  const { numbers, sentence } = summary();

  fill(el,
    element("div", { class: "cw-choices" }, counts.set, sizes.set),
    chart,
    element("div", { class: "cw-controls" }, length.label),
    numbers, sentence);

  function drawChart(count, power) {
    const of = (n) => cost(count, chosen(), n);
    const linear = (n) => of(FROM) * n / FROM;
    const log = Math.log2;
    const low = log(Math.min(of(2 ** first), linear(2 ** first)));
    const high = log(of(2 ** last));
    const x = (p) => PLOT.left +
      (PLOT.right - PLOT.left) * (p - first) / (last - first);
    const y = (value) => PLOT.bottom -
      (PLOT.bottom - PLOT.top) * (log(value) - low) / (high - low);
    const line = (x1, y1, x2, y2, kind) =>
      svg("line", { x1, y1, x2, y2, class: kind });
    const text = (at, up, words, anchor = "middle", kind = "") =>
      svg("text", { x: at, y: up, "text-anchor": anchor, class: kind }, words);

    const parts = [];
    for (const [p, name] of [[10, "1K"], [15, "32K"], [20, "1M"]])
      parts.push(line(x(p), PLOT.top, x(p), PLOT.bottom, "cw-grid"),
        text(x(p), PLOT.bottom + 17, name));
    parts.push(text(PLOT.right, PLOT.bottom + 17, "tokens", "end"));
    const step = count === "bytes" ? 20 : 6 * log(10);
    for (let tick = Math.ceil(low / step) * step; tick <= high; tick += step)
      parts.push(line(PLOT.left, y(2 ** tick), PLOT.right, y(2 ** tick),
        "cw-grid"),
      text(PLOT.left - 5, y(2 ** tick) + 4, count === "bytes"
        ? said(count, 2 ** tick)
        : `10${superscript(Math.round(tick / log(10)))}`, "end"));
    if (count === "bytes")
      memories.forEach(([name, bytes], index) => parts.push(
        line(PLOT.left, y(bytes), PLOT.right, y(bytes), "cw-end"),
        text(PLOT.left + 4, y(bytes) + (index % 2 ? -4 : 13), name, "start",
          "cw-end")));
    const ends = (f) => [x(first), y(f(2 ** first)), x(last), y(f(2 ** last))];
    const n = 2 ** power;
    parts.push(
      line(...ends(linear), "cw-linear"), line(...ends(of), "cw-power"),
      line(x(power), PLOT.top, x(power), PLOT.bottom, "cw-here"),
      svg("circle",
        { cx: x(power), cy: y(linear(n)), r: 4.5, class: "cw-hollow" }),
      svg("circle", { cx: x(power), cy: y(of(n)), r: 5.5, class: "cw-dot" }));
    chart.replaceChildren(...parts);
    chart.setAttribute("aria-label",
      `${count} against tokens, both axes logarithmic: attention's line is ` +
      "twice as steep as the dashed, linear one");
  }

  function inWords(count, n) {
    const now = cost(count, chosen(), n);
    const name = chosen()[0];
    const text = `${number(n)} tokens, ${name}: ${said(count, now)}`;
    const unit = count === "bytes" ? " of scores" : ` ${count}`;
    const ratio = n / FROM;
    const against = ratio === 1 ? "where the dashed line starts"
      : ratio > 1 ? `${number(ratio)} times a linear cost`
        : `1/${number(1 / ratio)} of a linear cost`;
    if (count !== "bytes") return `${text}${unit}, ${against}.`;
    const fits = memories.filter(([, bytes]) => now <= bytes);
    const room = fits.length === memories.length ? "fits everywhere here"
      : fits.length ? `fits ${fits.map(([memory]) => memory).join(", ")} only`
        : "fits neither memory";
    return `${text}${unit}, ${against}; ${room}.`;
  }

  function draw() {
    const power = model.get("power");
    const count = model.get("count");
    const n = 2 ** power;
    counts.show(count);
    sizes.show(model.get("model"));
    length.show(power, number(n));
    drawChart(count, power);
    numbers.textContent = Object.keys(COUNTS).map((name) =>
      `${said(name, cost(name, chosen(), n))}` +
      (name === "bytes" ? "" : ` ${name}`)).join(" · ");
    sentence.textContent = inWords(count, n);
  }
  return watch(model, ["power", "count", "model"], draw);
}

export default { render };
