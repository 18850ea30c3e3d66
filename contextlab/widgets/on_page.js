// On the page of the book, where no kernel keeps a figure's state.

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

window.contextlab ??= {
  figures: {},
  /** Draw a figure in the place of the table for readers without a script.
   *
   * A script right behind the place calls this while the page is read, so
   * that nothing jumps once something is seen.
   */
  show(place) {
    const el = place.cloneNode(false);
    try {
      const model = modelOf(JSON.parse(place.dataset.state));
      this.figures[place.dataset.widget].render({ model, el });
      place.replaceWith(el);
    } catch (error) {
      console.error(error);  // the table stays
    }
  },
};
