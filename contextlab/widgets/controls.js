// What all interactive figures share: elements, controls, signs and words.

export const HIDDEN = "·";  // the sign of a key that the mask hides
export const VISIBLE = "●";

let figures = 0;

/** A name that no other figure on the page has, for its radio buttons. */
export const unique = (name) => `${name}-${++figures}`;

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

/** One of several: a radio button whose label holds `children`. */
export function option(group, pick, ...children) {
  const input = element("input", {
    type: "radio", name: group, onchange: () => { input.focus(); pick(); },
  });
  const label = element("label", { class: "cw-option" }, input, ...children);
  return { input, label };
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
