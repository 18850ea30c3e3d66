// The ramp: how many times as slow each pair becomes, by PI, NTK and YaRN.
import {
  change, choice, element, fill, number, percent, slider, summary, svg, watch,
} from "./controls.js";

const [WIDTH, HEIGHT] = [360, 250];
const PLOT = { left: 40, right: 348, top: 14, bottom: 190 };
const WINDOWS = { min: 6, max: 17, step: 1 };  // powers of two
const SCALES = { min: 0, max: 6, step: 1 };  // powers of two

const clip = (x, low, high) => Math.min(Math.max(x, low), high);

/** 3.26, 41 or 1,234: three digits and no more than a reader can use. */
function short(n) {
  return n >= 100 ? number(n) : String(Number(n.toPrecision(3)));
}

/** The index at which a pair would turn so many times in a window. */
function indexOf(turns, { width, base, window }) {
  return width * Math.log(window / (2 * Math.PI * turns)) /
    (2 * Math.log(base));
}

/** Where the ramp begins and ends, as the released code rounds it. */
function ends(state) {
  const low = Math.max(Math.floor(indexOf(state.fast, state)), 0);
  const high = Math.min(Math.ceil(indexOf(state.slow, state)),
    state.width - 1);
  return [low, high === low ? high + 0.001 : high];
}

/** All that there is to say of one pair. */
function about(pair, state) {
  const { width, base, window, scale } = state;
  const tokens = 2 * Math.PI * base ** (2 * pair / width);
  const [low, high] = ends(state);
  const ramp = clip((pair - low) / (high - low), 0, 1);
  return {
    tokens,
    turns: window / tokens,
    ramp,
    pi: scale,
    ntk: scale ** (2 * pair / (width - 2)),
    yarn: 1 / (1 - ramp + ramp / scale),
  };
}

function render({ model, el }) {
  const width = model.get("width");
  const last = width / 2 - 1;
  const now = () => ({
    width,
    base: model.get("base"),
    window: 2 ** model.get("window"),
    scale: 2 ** model.get("scale"),
    fast: model.get("fast"),
    slow: model.get("slow"),
  });

  const bases = choice("Base",
    model.get("bases").map((base) => [base, number(base)]),
    (base) => change(model, { base }));
  const set = (name) => (value) => change(model, { [name]: value });
  const sliders = {
    window: slider("Trained on tokens L", WINDOWS, set("window")),
    scale: slider("Stretched by s", SCALES, set("scale")),
    fast: slider("β fast (turns)", { min: 8, max: 64, step: 1 }, set("fast")),
    slow: slider("β slow (turns)", { min: 0.5, max: 6, step: 0.5 },
      set("slow")),
    pair: slider("Look at pair", { min: 0, max: last, step: 1 }, set("pair")),
  };
  const chart = svg("svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "cw-chart" });
  const { numbers, sentence } = summary();

  fill(el,
    bases.set,
    chart,
    element("p", { class: "cw-key" },
      "thick: YaRN   thin: NTK   dashed: PI"),
    element("div", { class: "cw-controls" },
      sliders.pair.label, sliders.window.label, sliders.scale.label,
      sliders.fast.label, sliders.slow.label),
    numbers, sentence);

  const x = (pair) =>
    PLOT.left + (PLOT.right - PLOT.left) * pair / last;
  const line = (x1, y1, x2, y2, kind) =>
    svg("line", { x1, y1, x2, y2, class: kind });
  const text = (at, up, words, anchor = "middle") =>
    svg("text", { x: at, y: up, "text-anchor": anchor }, words);

  function drawChart(state, pair) {
    const top = Math.max(state.scale, 2);
    const y = (slower) => PLOT.bottom -
      (PLOT.bottom - PLOT.top) * Math.log2(slower) / Math.log2(top);
    const all = Array.from({ length: last + 1 }, (_, i) => about(i, state));
    const parts = [];
    for (let slower = 1; slower <= top; slower *= 2)
      parts.push(
        line(PLOT.left, y(slower), PLOT.right, y(slower), "cw-grid"),
        text(PLOT.left - 5, y(slower) + 4, `÷${slower}`, "end"));
    const step = Math.max(1, Math.round(last / 4));
    for (let i = 0; i <= last; i += step)
      parts.push(
        text(x(i), PLOT.bottom + 17, String(i)),
        text(x(i), PLOT.bottom + 33, short(all[i].turns)));
    parts.push(text((PLOT.left + PLOT.right) / 2, PLOT.bottom + 52,
      "pair, and its turns in the window of training"));
    parts.push(
      line(PLOT.left, y(state.scale), PLOT.right, y(state.scale),
        "cw-linear"),
      line(x(0), y(1), x(last), y(state.scale), "cw-hollow"),
      svg("polyline", {
        points: all.map(({ yarn }, i) => `${x(i)},${y(yarn)}`).join(" "),
        fill: "none",
        class: "cw-power",
      }),
      line(x(pair), PLOT.top, x(pair), PLOT.bottom, "cw-here"));
    for (const [way, kind] of
      [["pi", "cw-hollow"], ["ntk", "cw-hollow"], ["yarn", "cw-dot"]])
      parts.push(svg("circle",
        { cx: x(pair), cy: y(all[pair][way]), r: 4.5, class: kind }));
    chart.replaceChildren(...parts);
    chart.setAttribute("aria-label",
      "How many times as slow each pair becomes: PI all alike, NTK along a " +
      "straight line, YaRN along a ramp");
  }

  function inWords(pair, { turns, ramp }, state) {
    const does = ramp === 0 ? "it stays as it is"
      : ramp === 1 ? "it is interpolated in full"
        : `it is ${percent(ramp)} up the ramp`;
    return `Pair ${pair} turns ${short(turns)} times in ` +
      `${number(state.window)} tokens: ${does}.`;
  }

  function draw() {
    const state = now();
    const pair = model.get("pair");
    const one = about(pair, state);
    const [low, high] = ends(state);
    bases.show(model.get("base"));
    sliders.window.show(model.get("window"), number(state.window));
    sliders.scale.show(model.get("scale"), String(state.scale));
    sliders.fast.show(state.fast, String(state.fast));
    sliders.slow.show(state.slow, String(state.slow));
    sliders.pair.show(pair, String(pair));
    drawChart(state, pair);
    numbers.textContent = `A turn takes ${short(one.tokens)} tokens · ` +
      `slowed down by PI ${short(one.pi)}, NTK ${short(one.ntk)}, YaRN ` +
      `${short(one.yarn)} · ramp from pair ${low} to ${Math.round(high)}`;
    sentence.textContent = inWords(pair, one, state);
  }
  return watch(model, ["base", ...Object.keys(sliders)], draw);
}

export default { render };
