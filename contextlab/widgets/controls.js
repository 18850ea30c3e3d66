// What all interactive figures share: elements, controls, signs and words.

export const HIDDEN = "·";  // the sign of a key that the mask hides
export const VISIBLE = "●";

/** A name that no other figure on the page has, for its radio buttons. */
export const unique = (name) => `${name}-${Math.random().toString(36).slice(2)}`;

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB"];

/** A number with its thousands marked; Intl would take 20 ms to begin. */
export function number(n, digits = 0) {
  const [whole, part] = String(Number(n.toFixed(digits))).split(".");
  const marked = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return part ? `${marked}.${part}` : marked;
}

/** Bytes in the largest unit of which there is one, to four digits. */
export function inBytes(bytes) {
  const exact = Math.log2(Math.max(bytes, 1)) / 10;
  const power = Math.min(Math.floor(exact), UNITS.length - 1);
  const some = Number((bytes / 1024 ** power).toPrecision(4));
  return `${number(some, 3)}\u202f${UNITS[power]}`;
}

export const percent = (share) => `${Math.round(100 * share)}\u202f%`;

/** Make an element; an attribute like onclick is a listener. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Make a part of a drawing. */
export function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes))
    made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Take the figure's place; JupyterLab must not take its arrow keys. */
export function fill(place, ...children) {
  place.classList.add("cw");
  place.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
  place.append(...children);
}

export const button = (text, onclick) =>
  element("button", { type: "button", onclick }, text);

/** A bar, full to `done` and pale from there to `all`: shares of its length. */
export function track(done, all) {
  const made = element("span", { class: "cw-moved" }, element("i"));
  made.style.setProperty("--done", done);
  made.style.setProperty("--all", all);
  return made;
}

/** One of several: a radio button whose label holds `children`. */
export function option(group, pick, ...children) {
  const input = element("input", {
    type: "radio", name: group, onchange: () => { input.focus(); pick(); },
  });
  const label = element("label", { class: "cw-option" }, input, ...children);
  return { input, label };
}

/** A token to pick, below a bar: its share of something.
 *
 * `show` takes the share, whether the token is picked, and the word for why
 * it has no share, or nothing.
 */
export function token(text, group, pick) {
  const share = element("span", { class: "cw-share" });
  const { input, label } = option(group, pick,
    element("span", { class: "cw-track" },
      element("span", { class: "cw-bar" })),
    element("span", { class: "cw-word" }, text), share);
  label.className = "cw-token";
  const show = (weight, picked, without) => {
    input.checked = picked;
    label.classList.toggle("cw-hidden", Boolean(without));
    label.style.setProperty("--share", without ? 0 : weight);
    share.textContent = without ? HIDDEN : percent(weight);
    input.setAttribute("aria-label", `${text}, ${without || percent(weight)}`);
  };
  return { label, show };
}

/** Radio buttons that go together; each of `entries` is [value, text].
 *
 * `set` is their element; `show` checks the one of a value; `made` has the
 * label, the input and the words of each.
 */
export function choice(legend, entries, pick) {
  const group = unique("choice");
  const made = entries.map(([value, text]) => {
    const words = element("span", {}, ` ${text}`);
    return { value, words, ...option(group, () => pick(value), words) };
  });
  const set = element("fieldset", { class: "cw-choice" },
    element("legend", {}, legend), ...made.map(({ label }) => label));
  const show = (now) =>
    made.forEach(({ input, value }) => { input.checked = value === now; });
  return { set, show, made };
}

/** A checkbox that sets `name` of the model. */
export function checkbox(model, name, text) {
  const input = element("input", {
    type: "checkbox",
    onchange: () => change(model, { [name]: input.checked }),
  });
  const label = element("label", { class: "cw-check" }, input, text);
  return { label, show: () => { input.checked = model.get(name); } };
}

/** A slider; `say` gives its value in words, `pick` takes its number. */
export function slider(text, range, pick) {
  const input = element("input", {
    type: "range", ...range, oninput: () => pick(Number(input.value)),
  });
  const output = element("b");
  const label = element("label", { class: "cw-slider" },
    element("span", {}, text, " ", output), input);
  const show = (value, words) => {
    input.value = value;
    output.textContent = words;
    input.setAttribute("aria-valuetext", words);
  };
  return { label, input, show };
}

/** Numbers for the eye, and a sentence that is also read aloud. */
export function summary() {
  const numbers = element("p", { class: "cw-numbers" });
  const sentence = element("p", { class: "cw-sentence", role: "status" });
  return { numbers, sentence };
}

/** Go through the steps 0 to `last()` by a slider, by buttons, or by a clock.
 *
 * While it plays, a step each `pause` milliseconds, `sentence` is not read
 * aloud; where it stops, it is.
 */
export function player(model, last, pause, sentence) {
  let timer = null;
  const step = () => Math.min(model.get("step"), last());
  const go = (to) => change(model, { step: Math.min(Math.max(to, 0), last()) });
  const at = slider("Step", { min: 0, max: last(), step: 1 }, go);
  const play = button("Play", () => (timer ? stop() : start()));
  const set = element("div", { class: "cw-controls" }, at.label,
    element("span", { class: "cw-presets" },
      button("Back", () => go(step() - 1)),
      button("Next", () => go(step() + 1)), play));

  function start() {
    play.textContent = "Pause";
    sentence.setAttribute("aria-live", "off");
    timer = setInterval(forward, pause);
    if (step() === last()) go(0);
  }

  function forward() {
    go(step() + 1);
    if (step() === last()) stop();
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
    sentence.setAttribute("aria-live", "polite");
    sentence.replaceChildren(...sentence.childNodes);
  }

  const show = (words) => {
    at.input.max = last();
    at.show(step(), words);
  };
  return { set, step, show, stop };
}

export function change(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

/** Draw now and whenever one of `names` changes; return how to stop. */
export function watch(model, names, draw) {
  for (const name of names) model.on(`change:${name}`, draw);
  draw();
  return () => names.forEach((name) => model.off(`change:${name}`, draw));
}
