// A state that decays: what it holds of each token, and what a step does.
import {
  HIDDEN, button, change, element, fill, inBytes, number, option, percent,
  slider, summary, unique, watch,
} from "./controls.js";

const LONG = 3;  // the step by which a token is written
const SHORT = 0.01;  // the step by which a token is passed over

const upTo = (n) => Array.from({ length: n }, (_, index) => index);
const digits = (x) => number(Number(x.toPrecision(3)), 3);

/** What the state holds of each token up to `last`, and what is empty. */
function sharesOf(steps, inputs, rate, last) {
  let empty = 1;  // what is left of the state before the first token
  let shares = [];
  for (const t of upTo(last + 1)) {
    const kept = Math.exp(-rate * steps[t]);
    shares = shares.map((share) => kept * share);
    shares.push((1 - kept) * inputs[t]);
    empty = 1 - shares.reduce((sum, share) => sum + share, 0);
  }
  return { shares, empty };
}

function render({ model, el }) {
  const tokens = model.get("tokens");
  const n = tokens.length;
  const group = unique("cw-state");
  const at = () => model.get("token");

  const replace = (name) => (value) => change(model, {
    [name]: model.get(name).map((old, t) => (t === at() ? value : old)),
  });
  const all = (steps) => change(model, {
    steps, inputs: tokens.map(() => 1), reads: tokens.map(() => 1),
  });

  const columns = tokens.map((word, t) =>
    token(word, group, () => change(model, { token: t })));
  const rest = element("span", { class: "cw-share" });
  const empty = element("div", { class: "cw-token cw-empty" },
    element("span", { class: "cw-track" },
      element("span", { class: "cw-bar" })),
    element("span", { class: "cw-word" }, "empty"), rest);

  // The step goes from 0.001 to 10, by its logarithm.
  const step = slider("", { min: -3, max: 1, step: 0.05 },
    (power) => replace("steps")(10 ** power));
  const input = slider("Written, B", { min: 0, max: 1, step: 0.05 },
    replace("inputs"));
  const read = slider("Read, C", { min: -1, max: 1, step: 0.05 },
    replace("reads"));
  const rate = slider("Rate A of the state",
    { min: -2, max: 1, step: 0.05 },
    (power) => change(model, { rate: 10 ** power }));
  const length = slider("Tokens read", { min: 0, max: 20, step: 1 },
    (power) => change(model, { power }));
  const { numbers, sentence } = summary();
  const bytes = element("p", { class: "cw-numbers" });

  fill(el,
    element("fieldset", { class: "cw-tokens" },
      element("legend", {}, "What the state holds after the marked token"),
      ...columns.map(({ label }) => label), empty),
    element("div", { class: "cw-controls" },
      step.label, input.label, read.label,
      element("span", { class: "cw-presets" },
        button("Equal steps", () => all(tokens.map(() => 0.7))),
        button("Selective", () => all(tokens.map((_, t) =>
          (model.get("kept").includes(t) ? LONG : SHORT)))))),
    element("div", { class: "cw-controls cw-more" }, rate.label),
    numbers, sentence,
    element("div", { class: "cw-controls" }, length.label),
    bytes);

  function drawToken() {
    const steps = model.get("steps");
    const { shares, empty: left } =
      sharesOf(steps, model.get("inputs"), model.get("rate"), at());
    columns.forEach(({ show }, t) =>
      show(shares[t], t === at(), t > at() && "not yet heard"));
    empty.style.setProperty("--share", Math.max(left, 0));
    rest.textContent = percent(Math.max(left, 0));
    return shares;
  }

  function draw() {
    const t = at();
    const [delta, b, c] = ["steps", "inputs", "reads"]
      .map((kind) => model.get(kind)[t]);
    const a = model.get("rate");
    const shares = drawToken();
    const kept = Math.exp(-a * delta);
    const state = shares.reduce((sum, share) => sum + share, 0);

    step.label.firstChild.firstChild.textContent = `Step Δ of “${tokens[t]}”`;
    step.show(Math.log10(delta), digits(delta));
    input.show(b, digits(b));
    read.show(c, digits(c));
    rate.show(Math.log10(a), `−${digits(a)}`);
    numbers.textContent =
      `ā = ${kept.toFixed(3)} · b̄ = ${((1 - kept) * b).toFixed(3)} · ` +
      `if all u are 1: h = ${state.toFixed(3)}, ` +
      `y = C·h = ${(c * state).toFixed(3)}`;
    sentence.textContent =
      `“${tokens[t]}” keeps ${percent(kept)} of the state before it and ` +
      `takes ${percent(shares[t])} for itself.`;

    const read_ = 2 ** model.get("power");
    const page = model.get("state_bytes");
    const cache = model.get("token_bytes") * read_;
    length.show(model.get("power"), number(read_));
    bytes.textContent =
      `State ${inBytes(page)}, as after the first token · cache ` +
      `${inBytes(cache)}, ${digits(cache / page)} times the state`;
  }

  return watch(model,
    ["token", "steps", "inputs", "reads", "rate", "power"], draw);
}

export default { render };
