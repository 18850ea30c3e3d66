// The KV cache: its bytes, by the sizes of a model, and where it fits.
import {
  change, choice, element, fill, inBytes, number, percent, slider, summary,
  track, watch,
} from "./controls.js";

const PRECISIONS = [[16, "2 bytes"], [8, "1 byte"], [4, "½ byte"]];

function divisors(n) {
  return Array.from({ length: n }, (_, i) => i + 1).filter((d) => n % d === 0);
}

function render({ model, el }) {
  const models = model.get("models");
  const memories = model.get("memories");
  const [first, last] = model.get("powers");
  const sizes = ["layers", "heads", "kv_heads", "width"];

  /** Take a preset's sizes. */
  const preset = (index) => {
    const [, ...values] = models[index];
    change(model, Object.fromEntries(sizes.map((s, i) => [s, values[i]])));
  };
  const isPreset = ([, ...values]) =>
    sizes.every((size, i) => model.get(size) === values[i]);

  const presets = choice("Model",
    models.map(([name], index) => [index, name]), preset);
  const precision = choice("A number takes", PRECISIONS,
    (bits) => change(model, { bits }));

  const layers = slider("Layers", { min: 1, max: 128, step: 1 },
    (n) => change(model, { layers: n }));
  const heads = slider("Query heads", { min: 1, max: 128, step: 1 },
    (n) => {
      const fits = divisors(n).filter((d) => d <= model.get("kv_heads"));
      change(model, { heads: n, kv_heads: fits[fits.length - 1] });
    });
  const kvHeads = slider("KV heads", { min: 0, max: 1, step: 1 },
    (index) => change(model, { kv_heads: divisors(model.get("heads"))[index] }));
  const width = slider("Width of a head", { min: 16, max: 256, step: 16 },
    (n) => change(model, { width: n }));
  const tokens = slider("Tokens", { min: first, max: last, step: 1 },
    (power) => change(model, { power }));
  const rows = element("div", { class: "cw-traffic cw-cards" });
  const { numbers, sentence } = summary();

  fill(el,
    element("div", { class: "cw-choices" }, presets.set, precision.set),
    element("div", { class: "cw-controls" }, tokens.label),
    element("div", { class: "cw-controls cw-more" },
      layers.label, heads.label, kvHeads.label, width.label),
    rows, numbers, sentence);

  function row([name, bytes], used, aToken) {
    const fits = used <= bytes;
    const room = Math.floor(bytes / aToken);
    return element("div", { class: fits ? "" : "cw-over" },
      element("span", {}, name), track(Math.min(used / bytes, 1), 1),
      element("b", {}, fits ? percent(used / bytes) : "too small"),
      element("small", {}, `room for ${number(room)} tokens`));
  }

  function draw() {
    const [l, h, kv, d] = sizes.map((size) => model.get(size));
    const n = 2 ** model.get("power");
    const aToken = 2 * l * kv * d * model.get("bits") / 8;
    const used = n * aToken;
    const index = models.findIndex(isPreset);
    presets.show(index);
    precision.show(model.get("bits"));
    tokens.show(model.get("power"), number(n));
    layers.show(l, String(l));
    heads.show(h, String(h));
    kvHeads.input.max = divisors(h).length - 1;
    kvHeads.show(divisors(h).indexOf(kv), String(kv));
    width.show(d, String(d));
    rows.replaceChildren(...memories.map((m) => row(m, used, aToken)));
    const less = h === kv ? "every head has its own"
      : `${h / kv} query heads share one: ${h / kv} times less than ` +
        `${inBytes(used * h / kv)}`;
    numbers.textContent = `2 · ${l} layers · ${kv} KV heads · ${d} wide = ` +
      `${number(2 * l * kv * d)} numbers, ${inBytes(aToken)} a token; ${less}`;
    const out = memories.filter(([, bytes]) => used > bytes);
    const name = index < 0 ? "This model" : models[index][0];
    sentence.textContent = `${name}: ${number(n)} tokens take ` +
      `${inBytes(used)}. ` + (out.length
      ? `No room on ${out.map(([memory]) => memory).join(", ")}.`
      : "Room on all of these, as long as nothing else is there.");
  }
  return watch(model, [...sizes, "power", "bits"], draw);
}

export default { render };
