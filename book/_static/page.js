// Let the keyboard scroll what is wide.

const WIDE = ".formula, span.math, .cell_output, .pst-scrollable-table-container";

function isWide(box) {
  if (!box.matches("span.math")) return box.scrollWidth > box.clientWidth + 1;
  const room = box.parentElement.clientWidth;
  return room > 0 && box.offsetWidth > room;
}

function markWide() {
  const boxes = [...document.querySelectorAll(WIDE)];
  const wide = boxes.map(isWide);  // all read before any is changed
  boxes.forEach((box, n) => {
    if (box.matches("span.math")) box.classList.toggle("wide", wide[n]);
    else if (wide[n]) box.setAttribute("tabindex", "0");
    else box.removeAttribute("tabindex");
  });
}

window.addEventListener("resize", markWide);
document.fonts.ready.then(markWide);

// A page opened from a file may not read the others for excerpts.
if (location.protocol === "file:") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}
