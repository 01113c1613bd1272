// A long list shows its beginning; a button below it shows the rest, and puts it away again.

import { show, text } from "./dom.js";

export class Beginning {
  // `draw` draws the list anew, by the rows that `of` gives.
  constructor(button, few, draw) {
    this.button = button;
    this.few = few;
    this.whole = false;
    button.addEventListener("click", () => {
      this.whole = !this.whole;
      draw();
      // What was put away stood above: the button must not leave the window with it.
      button.scrollIntoView({ block: "nearest" });
    });
  }

  // Of all rows those that are to be drawn.
  of(rows) {
    show(this.button, rows.length > this.few);
    text(this.button, this.whole ? `Show the first ${this.few}` : `Show all ${rows.length}`);
    return this.whole ? rows : rows.slice(0, this.few);
  }
}
