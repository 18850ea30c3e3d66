// Bring the figures of a page to life; let the keyboard scroll what is wide.

/** What a figure's module reads and changes, as anywidget's model does. */
function modelOf(state) {
  const listeners = {};
  const of = (event) => (listeners[event] ??= new Set());
  return {
    get: (name) => state[name],
    set(name, value) {
      state[name] = value;
      of(`change:${name}`).forEach((listener) => listener());
    },
    on: (event, listener) => of(event).add(listener),
    off: (event, listener) => of(event).delete(listener),
    save_changes() {},
  };
}

for (const place of document.querySelectorAll(".contextlab-figure")) {
  const el = place.cloneNode(false);
  try {
    const model = modelOf(JSON.parse(place.dataset.state));
    window.contextlabFigures[place.dataset.widget].render({ model, el });
    place.replaceWith(el);
  } catch (error) {
    console.error(error);  // the table for readers without a script stays
  }
}

const WIDE = ".formula, span.math, .cell_output, .pst-scrollable-table-container";

function markWide() {
  for (const box of document.querySelectorAll(WIDE)) {
    const wide = box.scrollWidth > box.clientWidth + 1;
    const inSentence = box.matches("span.math");
    if (inSentence) {
      const room = box.parentElement.clientWidth;
      box.classList.toggle("wide", room > 0 && box.offsetWidth > room);
    } else if (wide) {
      box.setAttribute("tabindex", "0");
    } else {
      box.removeAttribute("tabindex");
    }
  }
}

markWide();
window.addEventListener("resize", markWide);
document.fonts?.ready.then(markWide);

// A page opened from a file may not read the others for excerpts.
if (location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}
