// Type a conversation; see which messages still fit the model's window.
import {
  button, change, element, fill, slider, summary, watch,
} from "./controls.js";

// GPT-2's pattern, as in contextlab/tokens.py; \s there is White_Space.
const WORD = new RegExp(
  "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\p{White_Space}\\p{L}\\p{N}]+" +
  "|\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+", "gu");

const prints = (b) =>
  (b > 32 && b < 127) || (b > 160 && b < 173) || b > 173;
const bytes = Array.from({ length: 256 }, (_, byte) => byte);
const BYTES = [
  ...bytes.filter(prints), ...bytes.filter((byte) => !prints(byte)),
];
const ID_OF_BYTE = bytes.map((byte) => BYTES.indexOf(byte));

/** A byte-level BPE: text to tokens, each a list of bytes. */
function tokenizer(merges) {
  const rank = new Map(merges.map(([a, b], n) => [a * 65536 + b, n]));
  const spelled = BYTES.map((byte) => [byte]);
  for (const [a, b] of merges) spelled.push([...spelled[a], ...spelled[b]]);
  const known = new Map();

  function tokensOf(word) {
    let ids = Array.from(
      new TextEncoder().encode(word), (byte) => ID_OF_BYTE[byte]);
    for (;;) {
      let best = Infinity;
      for (let i = 1; i < ids.length; i++) {
        best = Math.min(best, rank.get(ids[i - 1] * 65536 + ids[i]) ?? best);
      }
      if (best === Infinity) return ids;
      const [left, right] = merges[best];
      const merged = [];
      for (let i = 0; i < ids.length; i++) {
        const pair = ids[i] === left && ids[i + 1] === right;
        merged.push(pair ? 256 + best : ids[i]);
        if (pair) i++;
      }
      ids = merged;
    }
  }
  return (text) => (text.match(WORD) ?? []).flatMap((word) => {
    if (!known.has(word)) known.set(word, tokensOf(word));
    return known.get(word).map((id) => spelled[id]);
  });
}

const visible = (text) => text.replace(/ /g, "·").replace(/\n/g, "↵");
const shown = (token) =>
  visible(new TextDecoder().decode(new Uint8Array(token)));
const short = (text) =>
  text.length > 32 ? `${text.slice(0, 30).replace(/\s+\S*$/, "")} …` : text;

/** The number of the oldest message kept, the system's aside. */
function fit(messages, costs, budget) {
  const pinned = messages[0]?.role === "system" ? 1 : 0;
  let room = budget - (pinned ? costs[0] : 0);
  let first = messages.length;
  while (first > pinned && costs[first - 1] <= room) {
    first -= 1;
    room -= costs[first];
  }
  const fits = room >= 0 && (first < messages.length || first === pinned);
  return { pinned, first, room, fits };
}

function render({ model, el }) {
  const encode = tokenizer(model.get("merges"));
  const asText = ({ role, content }) => `${role}: ${content}\n`;
  const other = { user: "assistant", assistant: "user" };
  let length = 0;  // of the list, when it was last drawn
  const turn = () => other[model.get("messages").at(-1)?.role] ?? "user";

  function add(event) {
    event?.preventDefault();
    if (!model.get("draft").trim()) return;
    const said = { role: turn(), content: model.get("draft") };
    change(model, { messages: [...model.get("messages"), said], draft: "" });
    field.focus();
  }
  function takeBack() {
    const messages = model.get("messages");
    if (messages.length < 2) return;
    change(model, {
      messages: messages.slice(0, -1), draft: messages.at(-1).content,
    });
    field.focus();
  }

  const list = element("ol", {
    class: "cw-chat", tabindex: "0", "aria-label": "The conversation",
  });
  const bar = element("div", { class: "cw-filled", "aria-hidden": "true" });
  const who = element("b");
  const field = element("input", {
    type: "text", maxlength: 500, autocomplete: "off",
    oninput: () => change(model, { draft: field.value }),
  });
  const pieces = element("p", { class: "cw-pieces" });
  const window_ = slider(
    "Window", { min: 64, max: 512, step: 8 },
    (tokens) => change(model, { window: tokens }));
  const reserve = slider(
    "Reserved for the answer", { min: 0, max: 128, step: 8 },
    (tokens) => change(model, { reserve: tokens }));
  const { numbers, sentence } = summary();

  fill(el, list,
    element("form", { class: "cw-say", onsubmit: add },
      element("label", {}, element("span", {}, who, " says"), field),
      element("span", { class: "cw-presets" },
        element("button", { type: "submit" }, "Add"),
        button("Take back", takeBack))),
    pieces,
    element("div", { class: "cw-controls" }, window_.label, reserve.label),
    bar,
    element("small", {}, "The window: system message, other messages, free ",
      "room, reserve (striped)"),
    numbers, sentence);

  function lineOf({ role, content }, cost, state) {
    return element("li", { class: `cw-${state}` },
      element("span", { class: "cw-role" }, role),
      element("span", { class: "cw-said" }, content),
      element("span", { class: "cw-cost" },
        `${cost}`, element("span", { class: "cw-aloud" }, " tokens, "),
        element("b", {}, state === "out" ? " out" : " in")));
  }

  function part(kind, tokens, of) {
    const made = element("span", { class: `cw-part-${kind}` });
    made.style.flexGrow = Math.max(tokens, 0) / of;
    return made;
  }

  function draw() {
    const draft = model.get("draft");
    const size = model.get("window");
    const kept = model.get("reserve");
    const all = [...model.get("messages")];
    if (draft.trim()) all.push({ role: turn(), content: draft });
    const costs = all.map((message) => encode(asText(message)).length);
    const { pinned, first, room, fits } = fit(all, costs, size - kept);
    const isIn = (n) => fits && (n < pinned || n >= first);
    list.replaceChildren(...all.map((message, n) =>
      lineOf(message, costs[n], isIn(n) ? "in" : "out")));
    if (all.length !== length) list.scrollTop = list.scrollHeight;
    length = all.length;
    if (field.value !== draft) field.value = draft;
    who.textContent = turn();
    pieces.replaceChildren(
      ...(draft ? encode(draft) : []).map((token) =>
        element("span", {}, shown(token))));
    window_.show(size, `${size} tokens`);
    reserve.show(kept, `${kept} tokens`);
    const read = costs.reduce((sum, cost, n) => sum + (isIn(n) ? cost : 0), 0);
    bar.replaceChildren(
      ...all.flatMap((_, n) =>
        isIn(n) ? [part(n < pinned ? "system" : "in", costs[n], size)] : []),
      part("free", fits ? room : 0, size), part("reserve", kept, size));
    const out = all.filter((_, n) => !isIn(n)).length;
    numbers.textContent =
      `${read} of ${size} tokens read, ${kept} reserved · ` +
      `${out} of ${all.length} messages out`;
    sentence.textContent = inWords(all, pinned, first, fits);
  }

  function inWords(all, pinned, first, fits) {
    if (!fits) return "The newest message doesn't fit: nothing can be asked.";
    if (first === pinned) return "The model sees the whole conversation.";
    const last = `“${short(all[first - 1].content)}”`;
    return `The model no longer sees ${last}` +
      (first - 1 > pinned ? " and what is older." : ".");
  }
  return watch(
    model, ["messages", "draft", "window", "reserve"], draw);
}

export default { render };
