// A blob on its way, drawn from the agent's row of cells: "#" here, "1" to "9" tenths of a cell, "." nothing.

import { attribute, svg } from "./dom.js";

const SIDE = 12;
const INNER = 10;

export class PieceMap {
  constructor() {
    this.shapes = ["none", "part", "whole"].map((kind) => svg("path", { class: `cell ${kind}` }));
    this.root = svg("svg", { class: "pieces", role: "img", preserveAspectRatio: "xMinYMin meet" }, this.shapes);
    this.drawn = "";
  }

  update({ count, cells }) {
    if (cells === this.drawn) return;
    this.drawn = cells;
    const columns = cells.length > 64 ? 64 : 32;
    const rows = Math.max(1, Math.ceil(cells.length / columns));
    attribute(this.root, "viewBox", `0 0 ${columns * SIDE} ${rows * SIDE}`);
    const lines = [[], [], []];
    [...cells].forEach((cell, at) => {
      const [x, y] = [(at % columns) * SIDE + 1, Math.floor(at / columns) * SIDE + 1];
      if (cell === "#") {
        lines[2].push(box(x, y, INNER, INNER, 2));
        return;
      }
      lines[0].push(box(x + 0.5, y + 0.5, INNER - 1, INNER - 1, 2));
      if (cell !== ".") {
        const high = Math.max(2, ((INNER - 1) * Number(cell)) / 10);
        lines[1].push(box(x + 0.5, y + INNER - 0.5 - high, INNER - 1, high, 1));
      }
    });
    this.shapes.forEach((shape, index) => attribute(shape, "d", lines[index].join("")));
    attribute(this.root, "aria-label", says(count, cells));
  }
}

function says(count, cells) {
  const whole = [...cells].filter((cell) => cell === "#").length;
  const part = [...cells].filter((cell) => cell >= "1" && cell <= "9").length;
  const unit = cells.length === count ? "pieces" : `parts of ${Math.ceil(count / cells.length)} pieces`;
  return `${whole} of ${cells.length} ${unit} here, ${part} arriving`;
}

function box(x, y, width, height, radius) {
  const r = Math.min(radius, width / 2, height / 2);
  return (
    `M${x + r} ${y}h${width - 2 * r}a${r} ${r} 0 0 1 ${r} ${r}v${height - 2 * r}a${r} ${r} 0 0 1 ${-r} ${r}` +
    `h${-(width - 2 * r)}a${r} ${r} 0 0 1 ${-r} ${-r}v${-(height - 2 * r)}a${r} ${r} 0 0 1 ${r} ${-r}z`
  );
}
