// The clock of rotary positions: one face a pair of channels, two hands each.
import {
  change, checkbox, choice, element, fill, number, slider, summary, svg, watch,
} from "./controls.js";

const [SIZE, RADIUS] = [72, 32];  // of a face, and of its circle
const SHORT = 0.72;  // the key's hand is the shorter one

const minus = (text) => text.replace("-", "−");

/** Radians a token of each pair, the fastest first. */
function frequencies(width, base) {
  return Array.from({ length: width / 2 },
    (_, pair) => base ** (-2 * pair / width));
}

/** The same angle between −π and π. */
function wrapped(angle) {
  return angle - 2 * Math.PI * Math.round(angle / (2 * Math.PI));
}

/** A point on a circle; angle 0 is at the top, and hands go clockwise. */
function at(angle, length) {
  const middle = SIZE / 2;
  return [middle + length * Math.sin(angle), middle - length * Math.cos(angle)];
}

function hand(angle, length, kind) {
  const [x2, y2] = at(angle, length);
  return svg("line",
    { x1: SIZE / 2, y1: SIZE / 2, x2, y2, class: `cw-hand ${kind}` });
}

/** The sector from the key's hand to the query's, the short way. */
function sector(key, between) {
  const length = RADIUS * 0.55;
  const [x1, y1] = at(key, length);
  const [x2, y2] = at(key + between, length);
  const clockwise = between > 0 ? 1 : 0;
  return svg("path", {
    d: `M${SIZE / 2} ${SIZE / 2}L${x1} ${y1}` +
      `A${length} ${length} 0 0 ${clockwise} ${x2} ${y2}Z`,
    class: "cw-between",
  });
}

function render({ model, el }) {
  const width = model.get("width");
  const last = model.get("last");

  const range = { min: 0, max: last, step: 1 };
  const query = slider("Query at position", range,
    (place) => move("query", "key", place));
  const key = slider("Key at position", range,
    (place) => move("key", "query", place));
  const together = checkbox(model, "together", "Keep the distance");
  const bases = choice("Base",
    model.get("bases").map((base) => [base, number(base)]),
    (base) => change(model, { base }));
  const faces = element("div", { class: "cw-faces" });
  const { numbers, sentence } = summary();

  fill(el,
    bases.set,
    faces,
    element("p", { class: "cw-key" },
      element("span", { class: "cw-solid cw-q" }), " query   ",
      element("span", { class: "cw-solid cw-k" }), " key   ",
      "below: radians between them, and tokens a turn"),
    element("div", { class: "cw-controls" },
      query.label, key.label, together.label),
    numbers, sentence);

  /** Move one of the two, and the other along if their distance is kept. */
  function move(one, other, to) {
    if (!model.get("together")) return change(model, { [one]: to });
    const gap = model.get(other) - model.get(one);
    const place = Math.min(Math.max(to, 0, -gap), last - Math.max(0, gap));
    change(model, { [one]: place, [other]: place + gap });
    draw();  // a thumb that was dragged too far goes back
  }

  function face(frequency, m, n) {
    const between = wrapped((m - n) * frequency);
    const picture = svg("svg",
      { viewBox: `0 0 ${SIZE} ${SIZE}`, "aria-hidden": "true" },
      svg("circle", { cx: SIZE / 2, cy: SIZE / 2, r: RADIUS }),
      sector(n * frequency, between),
      hand(m * frequency, RADIUS, "cw-q"),
      hand(n * frequency, RADIUS * SHORT, "cw-k"));
    return element("div", { class: "cw-face" }, picture,
      element("b", {}, minus(between.toFixed(2))),
      element("span", {}, number(2 * Math.PI / frequency)));
  }

  function draw() {
    const m = model.get("query");
    const n = model.get("key");
    const hands = frequencies(width, model.get("base"));
    const cosines = hands.map((frequency) => Math.cos((m - n) * frequency));
    const match = cosines.reduce((sum, x) => sum + x, 0) / hands.length;
    faces.replaceChildren(...hands.map((frequency) => face(frequency, m, n)));
    bases.show(model.get("base"));
    query.show(m, String(m));
    key.show(n, String(n));
    together.show();
    numbers.textContent = `Mean cosine of the angles between: ` +
      minus(match.toFixed(3));
    const fast = Math.abs(m - n);
    const slow = fast * hands[hands.length - 1];
    sentence.textContent = `Distance ${minus(String(m - n))}: the fastest ` +
      `hands are ${fast} radians apart, the slowest ` +
      `${Number(slow.toPrecision(2))}.`;
  }
  return watch(model, ["query", "key", "base", "together"], draw);
}

export default { render };
