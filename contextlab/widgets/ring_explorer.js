// Ring attention: cards of keys and values go round, and who works when.
import {
  HIDDEN, change, checkbox, choice, element, fill, number, player, summary,
  svg, track, watch,
} from "./controls.js";

const PAUSE = 1200;  // milliseconds a step while playing
const LAYOUTS = { contiguous: "in order", striped: "stripes", zigzag: "zigzag" };

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

  const layouts = choice("The text is dealt", Object.entries(LAYOUTS),
    (layout) => change(model, { layout, step: 0 }));
  const causal = checkbox(model, "causal", "Hide the future");
  const table = svg("svg", {
    class: "cw-ring", viewBox: "0 0 320 270", "aria-hidden": "true",
  });
  const matrix = element("div", { class: "cw-pairs", "aria-hidden": "true" });
  matrix.style.setProperty("--columns", n + 1);
  const bars = element("div", { class: "cw-traffic" });
  const { numbers, sentence } = summary();
  const at = player(model, () => world - 1, PAUSE, sentence);

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
    element("div", { class: "cw-choices" }, layouts.set, causal.label),
    element("div", { class: "cw-round" }, table, matrix),
    element("p", { class: "cw-key" },
      element("span", { class: "cw-solid" }), " scored in this step   ",
      element("span", { class: "cw-pale" }), " before   ",
      `${HIDDEN} never: it lies ahead`),
    at.set,
    bars, numbers, sentence);

  function draw() {
    const t = at.step();
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

    layouts.show(layout);
    causal.show();
    at.show(`${t} of ${world - 1}`);
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
      const soFar = upToNow(own);
      return element("div", {}, element("span", {}, `rank ${r}`),
        track(soFar / all, upToNow(slowest) / all),
        element("b", {}, number(soFar)));
    }));
    const total = work.flat().reduce((a, b) => a + b, 0);
    numbers.textContent =
      `Pairs in this step: ${work.map((w) => w[t]).join(", ")} · bars: pairs ` +
      "so far, within those of the slowest of each step, " +
      `${number(upToNow(slowest))} · in all ${number(all)}, evenly shared ` +
      `${number(total / world)}`;
    const holds = (r) => `rank ${r} holds KV ${(r - t + world) % world}`;
    const idle = work.filter((w) => w[t] < slowest[t]).length;
    sentence.textContent = `${t === 1 ? "1 move" : `${t} moves`}: ` +
      `${upTo(world).map(holds).join(", ")}; ` +
      (idle === 0 ? "nobody waits." : `${idle} of ${world} ${idle === 1 ? "waits" : "wait"}.`);
  }

  const names = ["step", "layout", "causal"];
  const ignore = watch(model, names, draw);
  return () => {
    at.stop();
    ignore();
  };
}

export default { render };
