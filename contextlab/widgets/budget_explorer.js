// What a design keeps, layer by layer, and what it costs against a budget.
import {
  change, choice, element, fill, number, percent, slider, summary, track,
  watch,
} from "./controls.js";

const [WINDOW, MEMORY, RETRIEVED, BITS] = [0, 1, 2, 3]; // of a layer

function render({ model, el }) {
  const designs = model.get("designs");
  const weights = Object.fromEntries(model.get("weights"));
  const n = model.get("n_tokens");
  const width = model.get("width");

  const pick = (at, value) => {
    const layers = model.get("layers").map((layer) => [...layer]);
    layers[model.get("layer")][at] = value;
    change(model, { layers });
  };
  const presets = choice("Design", designs.map(([name], i) => [i, name]),
    (i) => {
      const [, kv_heads, layers, rope] = designs[i];
      change(model, { kv_heads, layers, rope });
    });
  const heads = choice("KV heads", model.get("weights").map(([g]) => [g, g]),
    (g) => change(model, { kv_heads: g }));
  const ropes = choice("Positions", model.get("ropes").map((r) => [r, r]),
    (rope) => change(model, { rope }));
  const layers = choice("Layer", model.get("layers").map((_, i) => [i, ""]),
    (i) => change(model, { layer: i }));
  layers.set.className = "cw-ask";
  const room = slider("Window", { min: 1, max: n, step: 1 },
    (value) => pick(WINDOW, value));
  const memory = slider("Memory", { min: 0, max: n, step: 1 },
    (value) => pick(MEMORY, value));
  const found = slider("Retrieved", { min: 0, max: 64, step: 1 },
    (value) => pick(RETRIEVED, value));
  const bits = choice("Bits of a number", [16, 8, 4, 2].map((b) => [b, b]),
    (value) => pick(BITS, value));
  const bars = element("div", { class: "cw-traffic cw-cards" });
  const { numbers, sentence } = summary();

  fill(el,
    element("div", { class: "cw-choices" }, presets.set, heads.set, ropes.set),
    layers.set,
    element("div", { class: "cw-controls" },
      room.label, memory.label, found.label),
    element("div", { class: "cw-choices" }, bits.set),
    bars, numbers, sentence);

  function held([window, kept]) {
    const near = Math.min(n, window);
    return [near, Math.min(n - near, kept)];
  }

  function bytesOf(layer) {
    const [near, far] = held(layer);
    const scale = layer[BITS] === 16 ? 0 : 32;
    const entry = 2 * (width * layer[BITS] + scale) / 8;
    return model.get("kv_heads") * (near + far) * entry;
  }

  function operationsOf(layer) {
    const [near, far] = held(layer);
    const some = layer[RETRIEVED] ? Math.min(far, layer[RETRIEVED]) : far;
    return 2 * model.get("n_heads") * width * (2 * near + far + some);
  }

  function inWords([window, kept, some, b], i) {
    const more = kept
      ? `, memory ${kept} (${some && some < kept ? some : "all"} retrieved)`
      : "";
    return ` ${i + 1}: window ${window}${more}, ${b} bits`;
  }

  function bar(name, used, most, say) {
    const over = used > most;
    return element("div", { class: over ? "cw-over" : "" },
      element("span", {}, name), track(Math.min(used / most, 1), 1),
      element("b", {}, over ? "too much" : percent(used / most)),
      element("small", {}, `${say(used)} of ${say(most)}`));
  }

  function draw() {
    const now = model.get("layers");
    const shared = model.get("kv_heads");
    const layer = now[model.get("layer")];
    const sum = (count) => now.reduce((all, one) => all + count(one), 0);
    const bytes = sum(bytesOf) / n;
    const attention = sum(operationsOf);
    const flops = 2 * weights[shared] + attention;
    const [mostBytes, mostFlops] = model.get("budget");
    const rope = model.get("rope");
    const chosen = JSON.stringify([shared, now, rope]);
    const same = designs.findIndex(([, ...design]) =>
      JSON.stringify(design.slice(0, 3)) === chosen);
    presets.show(same);
    heads.show(shared);
    ropes.show(rope);
    layers.show(model.get("layer"));
    layers.made.forEach(({ words }, i) => {
      words.textContent = inWords(now[i], i);
    });
    room.show(layer[WINDOW], String(layer[WINDOW]));
    memory.show(layer[MEMORY], String(layer[MEMORY]));
    const some = layer[RETRIEVED];
    found.show(some, some ? String(some) : "all");
    bits.show(layer[BITS]);
    bars.replaceChildren(
      bar("Bytes a token", bytes, mostBytes, (n) => number(n, 1)),
      bar("FLOPs a token", flops, mostFlops, number));
    numbers.textContent = `${number(bytes * n)} bytes for ${n} tokens · ` +
      `${number(attention)} FLOPs for attention, ` +
      `${number(2 * weights[shared])} for the weights`;
    const fits = bytes <= mostBytes && flops <= mostFlops;
    const costs = fits ? "Within the budget" : "Over budget";
    sentence.textContent = same < 0
      ? `${costs}. Not on record: what does it recall?`
      : `${costs}. On record: it recalled ${designs[same][4].toFixed(2)}.`;
  }
  return watch(model, ["layers", "layer", "kv_heads", "rope"], draw);
}

export default { render };
