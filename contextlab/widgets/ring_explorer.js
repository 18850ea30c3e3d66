// Ring attention: cards of keys and values go round, and who works when.
import {
  HIDDEN, change, checkbox, element, fill, option, slider, summary, svg,
  unique, watch,
} from "./controls.js";

const PAUSE = 1200;  // milliseconds a step while playing
const LAYOUTS = { contiguous: "in order", striped: "stripes", zigzag: "zigzag" };

const number = (n) => n.toLocaleString("en");
const upTo = (n) => Array.from({ length: n }, (_, index) => index);

/** The positions of each rank's tokens. */
function deal(n, world, layout) {
  const size = n / world;
  const half = size / 2;
  const pick = {
    contiguous: (r, i) => r * size + i,
    striped: (r, i) => i * world + r,
    zigzag: (r, i) =>
      (i < half ? r * half + i : n - (r + 1) * half + i - half),
  }[layout];
  return upTo(world).map((r) => upTo(size).map((i) => pick(r, i)));
}

/** "0–3", or "0–1, 14–15", or "0, 4, 8, 12". */
function inShort(positions) {
  const runs = [];
  for (const p of positions) {
    const last = runs[runs.length - 1];
    if (last && last[1] === p - 1) last[1] = p;
    else runs.push([p, p]);
  }
  return runs.map(([a, b]) => (a === b ? `${a}` : `${a}–${b}`)).join(", ");
}

function render({ model, el }) {
  const n = model.get("n");
  const world = model.get("world");
  let timer = null;

  const step = () => Math.min(model.get("step"), world - 1);
  const go = (t) => change(model, { step: t });
  const at = slider("Step", { min: 0, max: world - 1, step: 1 }, go);
  const button = (text, onclick) =>
    element("button", { type: "button", onclick }, text);
  const back = button("Back", () => go(Math.max(step() - 1, 0)));
  const next = button("Next", () => go(Math.min(step() + 1, world - 1)));
  const play = button("Play", () => (timer ? stop() : start()));
  const group = unique("layout");
  const choices = Object.entries(LAYOUTS).map(([layout, name]) => {
    const made = option(group, () => change(model, { layout, step: 0 }), name);
    made.label.className = "";
    made.input.value = layout;
    return made;
  });
  const causal = checkbox(model, "causal", "hide the future");
  const table = svg("svg", {
    class: "cw-ring", viewBox: "0 0 320 270", "aria-hidden": "true",
  });
  const matrix = element("div", { class: "cw-pairs", "aria-hidden": "true" });
  matrix.style.setProperty("--columns", n + 1);
  const bars = element("div", { class: "cw-traffic" });
  const { numbers, sentence } = summary();

  const place = (r) => {
    const angle = (2 * Math.PI * r) / world - Math.PI / 2;
    return [160 + 115 * Math.cos(angle), 135 + 108 * Math.sin(angle)];
  };
  // Ranks stand outside; a card turns about the centre and is turned upright.
  table.append(svg("circle", { class: "cw-way", cx: 160, cy: 135, r: 46 }));
  const seats = upTo(world).map((r) => {
    const [x, y] = place(r);
    const seat = svg("g", { transform: `translate(${x} ${y})` });
    const box = { x: -43, y: -19, width: 86, height: 38, rx: 4 };
    const asks = svg("text", { y: 12, class: "cw-asks" });
    seat.append(svg("rect", { class: "cw-seat", ...box }),
      svg("text", { y: -4 }, `rank ${r}`), asks);
    table.append(seat);
    return asks;
  });
  const cards = upTo(world).map((b) => {
    const arm = svg("g", { class: "cw-arm" });
    const lift = svg("g", { transform: "translate(0 -46)" });
    const card = svg("g", { class: "cw-card" });
    const box = { y: -14, width: 24, height: 28 };
    card.append(
      svg("rect", { class: "cw-keys", x: -24, ...box }),
      svg("rect", { class: "cw-values", x: 0, ...box }),
      svg("text", { y: 5 }, `KV ${b}`));
    const middle = svg("g", { transform: "translate(160 135)" });
    lift.append(card);
    arm.append(lift);
    middle.append(arm);
    table.append(middle);
    return { arm, card };
  });

  fill(el,
    element("div", { class: "cw-choices" },
      element("fieldset", { class: "cw-choice" },
        element("legend", {}, "The text is dealt"),
        ...choices.map((choice) => choice.label)),
      causal.label),
    element("div", { class: "cw-round" }, table, matrix),
    element("p", { class: "cw-key" },
      element("span", { class: "cw-solid" }), " scored in this step   ",
      element("span", { class: "cw-pale" }), " before   ",
      `${HIDDEN} never: it lies ahead`),
    element("div", { class: "cw-controls" }, at.label,
      element("span", { class: "cw-presets" }, back, next, play)),
    bars, numbers, sentence);

  function start() {
    if (step() === world - 1) go(0);
    timer = setInterval(() => {
      if (step() < world - 1) go(step() + 1);
      if (step() === world - 1) stop();
    }, PAUSE);
    draw();
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    draw();
  }

  function draw() {
    const t = step();
    const layout = model.get("layout");
    const hides = model.get("causal");
    const owners = deal(n, world, layout);
    const ownerOf = [];
    owners.forEach((own, r) => own.forEach((p) => { ownerOf[p] = r; }));
    const sees = (q, k) => !hides || k <= q;
    const pairs = (r, s) => owners[r].reduce((sum, q) => sum +
      owners[(r - s + world) % world].filter((k) => sees(q, k)).length, 0);
    const work = upTo(world).map((r) => upTo(world).map((s) => pairs(r, s)));
    const slowest = upTo(world).map((s) => Math.max(...work.map((w) => w[s])));
    const upToNow = (list) => list.slice(0, t + 1).reduce((a, b) => a + b, 0);
    const all = slowest.reduce((a, b) => a + b, 0);

    choices.forEach(({ input }) => { input.checked = input.value === layout; });
    causal.show();
    at.show(t, `${t} of ${world - 1}`);
    play.textContent = timer ? "Pause" : "Play";
    seats.forEach((asks, r) => { asks.textContent = `Q ${inShort(owners[r])}`; });
    cards.forEach(({ arm, card }, b) => {
      const turn = (360 * (b + t)) / world;
      arm.style.transform = `rotate(${turn}deg)`;
      card.style.transform = `rotate(${-turn}deg)`;
    });

    // A row for each query, led by its rank; a column for each key.
    const cell = (q, k) => {
      if (!sees(q, k)) return element("span", {}, HIDDEN);
      const when = (ownerOf[q] - ownerOf[k] + world) % world;
      const state = when === t ? "now" : when < t ? "past" : "later";
      return element("span", { class: `cw-${state}` });
    };
    matrix.replaceChildren(...upTo(n).flatMap((q) => [
      element("b", {}, String(ownerOf[q])),
      ...upTo(n).map((k) => cell(q, k)),
    ]));

    bars.replaceChildren(...work.map((own, r) => {
      const track = element("span", { class: "cw-moved" }, element("i"));
      track.style.setProperty("--done", upToNow(own) / all);
      track.style.setProperty("--all", upToNow(slowest) / all);
      return element("div", {},
        element("span", {}, `rank ${r}`), track,
        element("b", {}, number(upToNow(own))));
    }));
    const total = work.flat().reduce((a, b) => a + b, 0);
    numbers.textContent =
      `Pairs in this step: ${work.map((w) => w[t]).join(", ")} · bars: pairs ` +
      "so far, within those of the slowest of each step, " +
      `${number(upToNow(slowest))} · in all ${number(all)}, evenly shared ` +
      `${number(total / world)}`;
    const holds = (r) => `rank ${r} holds KV ${(r - t + world) % world}`;
    const idle = work.filter((w) => w[t] < slowest[t]).length;
    sentence.setAttribute("aria-live", timer ? "off" : "polite");
    sentence.textContent = `${t === 1 ? "1 move" : `${t} moves`}: ` +
      `${upTo(world).map(holds).join(", ")}; ` +
      (idle === 0 ? "nobody waits." : `${idle} of ${world} ${idle === 1 ? "waits" : "wait"}.`);
  }

  const names = ["step", "layout", "causal"];
  const ignore = watch(model, names, draw);
  return () => {
    clearInterval(timer);
    ignore();
  };
}

export default { render };
