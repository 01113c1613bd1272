// Bytes over time as stacked bars: what was given to runtimes, by where it came from.

import { attribute, data, html, keyed, svg, text } from "./dom.js";
import { bytes, clock, rate } from "./format.js";

export const SERIES = [["store", "Store"], ["peer", "Peers"], ["upstream", "Upstream"]];
const BUCKET = { 300: 5, 900: 10, 3600: 30 };
const ROOM = { left: 66, right: 8, top: 14, bottom: 24 };
const HEIGHT = 214;

// The agent's samples, merged as they come. Counters start again with the process, and so does this.
export class History {
  constructor() {
    this.run = "";
    this.samples = [];
  }

  merge({ run, capacity, fields, samples }) {
    if (run !== this.run) this.samples = [];
    this.run = run;
    const last = this.samples.at(-1)?.number ?? -1;
    const fresh = samples.map((row) => Object.fromEntries(fields.map((name, at) => [name, row[at]])));
    this.samples = [...this.samples, ...fresh.filter((sample) => sample.number > last)].slice(-capacity);
  }

  // Bytes in each bucket of the span that ends with the newest sample: [{start, stop, store, peer, upstream}].
  buckets(span, width) {
    const newest = this.samples.at(-1)?.time ?? Date.now() / 1000;
    const end = Math.ceil(newest / width) * width;
    const found = Array.from({ length: span / width }, (_, at) => {
      const start = end - span + at * width;
      return { start, stop: start + width, store: 0, peer: 0, upstream: 0 };
    });
    for (let at = 1; at < this.samples.length; at += 1) {
      spread(found, this.samples[at - 1], this.samples[at], end - span, width);
    }
    return found;
  }
}

// What was moved between two samples, divided over the buckets that the time between them lies in.
function spread(buckets, before, after, begin, width) {
  const time = after.time - before.time;
  if (time <= 0 || after.time <= begin) return;
  const first = Math.max(0, Math.floor((before.time - begin) / width));
  const last = Math.min(buckets.length - 1, Math.ceil((after.time - begin) / width) - 1);
  for (let at = first; at <= last; at += 1) {
    const bucket = buckets[at];
    const part = (Math.min(after.time, bucket.stop) - Math.max(before.time, bucket.start)) / time;
    for (const [name] of SERIES) bucket[name] += part * (after[name] - before[name]);
  }
}

export class Chart {
  constructor(root, says, rows) {
    this.root = root;
    this.says = says;
    this.rows = rows;
    this.span = 300;
    this.at = null;
    this.paths = SERIES.map(([name]) => svg("path", { class: `area ${name}` }));
    this.axes = svg("g", { class: "axes" });
    this.mark = svg("rect", { class: "mark", y: ROOM.top, visibility: "hidden" });
    const hatch = svg("pattern", { id: "hatch", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
    hatch.append(svg("rect", { class: "hatch-ground", width: 5, height: 5 }), svg("rect", { class: "hatch-line", width: 2, height: 5 }));
    root.append(svg("defs", {}, hatch), this.axes, this.mark, ...this.paths);
    root.addEventListener("pointermove", (event) => this.point(event));
    root.addEventListener("pointerleave", () => this.point(null));
  }

  draw(history) {
    const width = this.root.clientWidth || 640;
    attribute(this.root, "viewBox", `0 0 ${width} ${HEIGHT}`);
    const size = BUCKET[this.span];
    this.buckets = history.buckets(this.span, size);
    this.step = (width - ROOM.left - ROOM.right) / this.buckets.length;
    const totals = this.buckets.map((bucket) => SERIES.reduce((sum, [name]) => sum + bucket[name], 0) / size);
    this.top = nice(Math.max(...totals, 1000));
    this.bars(size);
    this.ticks(width);
    this.peak = Math.max(...totals);
    this.caption();
  }

  y(value) {
    return HEIGHT - ROOM.bottom - (HEIGHT - ROOM.top - ROOM.bottom) * (value / this.top);
  }

  bars(size) {
    const lines = SERIES.map(() => []);
    const gap = this.step > 5 ? 1.5 : this.step > 3 ? 1 : 0.4;
    this.buckets.forEach((bucket, at) => {
      const x = (ROOM.left + at * this.step + gap / 2).toFixed(1);
      let below = 0;
      SERIES.forEach(([name], index) => {
        const value = bucket[name] / size;
        if (value <= 0) return;
        const [low, high] = [this.y(below), this.y(below + value)];
        lines[index].push(`M${x} ${low.toFixed(1)}V${high.toFixed(1)}h${(this.step - gap).toFixed(1)}V${low.toFixed(1)}z`);
        below += value;
      });
    });
    this.paths.forEach((path, index) => attribute(path, "d", lines[index].join("")));
  }

  ticks(width) {
    const right = width - ROOM.right;
    const marks = [0, this.top / 2, this.top].flatMap((value) => [
      svg("line", { x1: ROOM.left, x2: right, y1: this.y(value), y2: this.y(value), class: value ? "grid" : "ground" }),
      text(svg("text", { x: ROOM.left - 8, y: this.y(value) + 4, "text-anchor": "end" }), value ? rate(value) : "0"),
    ]);
    const [first, last] = [this.buckets[0].start, this.buckets.at(-1).stop];
    for (const [part, anchor] of [[0, "start"], [1 / 2, "middle"], [1, "end"]]) {
      const label = text(svg("text", { x: ROOM.left + (right - ROOM.left) * part, y: HEIGHT - 6, "text-anchor": anchor }), clock(first + (last - first) * part));
      marks.push(label);
    }
    this.axes.replaceChildren(...marks);
  }

  point(event) {
    const box = this.root.getBoundingClientRect();
    const at = event ? Math.floor((event.clientX - box.left - ROOM.left) / this.step) : -1;
    this.at = this.buckets && at >= 0 && at < this.buckets.length ? at : null;
    if (this.buckets) this.caption();
  }

  caption() {
    attribute(this.mark, "visibility", this.at === null ? "hidden" : "visible");
    if (this.at === null) {
      text(this.says, this.peak > 0 ? `Highest ${rate(this.peak)} in this span.` : "Nothing in this span.");
      return;
    }
    const bucket = this.buckets[this.at];
    attribute(this.mark, "x", ROOM.left + this.at * this.step);
    attribute(this.mark, "width", this.step);
    attribute(this.mark, "height", HEIGHT - ROOM.top - ROOM.bottom);
    const parts = SERIES.map(([name, title]) => `${title.toLowerCase()} ${rate(bucket[name] / (bucket.stop - bucket.start))}`);
    text(this.says, `${clock(bucket.start, true)}: ${parts.join(", ")}`);
  }

  // The same figures in at most 15 rows, newest first; those without any traffic are left out.
  table(history) {
    const rows = history.buckets(this.span, this.span / 15).reverse();
    const busy = rows.filter((row) => SERIES.some(([name]) => row[name] >= 1));
    keyed(this.rows, busy.length ? busy : [null], (row) => row?.start ?? "none", (item) => {
      const first = html("th", { scope: "row" });
      const cells = SERIES.map(() => html("data"));
      const root = html("tr", {}, first, cells.map((cell) => html("td", { class: "number" }, cell)));
      if (!item) root.replaceChildren(html("td", { colspan: 4 }, "Nothing was given to runtimes in this span."));
      return {
        root,
        update: (row) => {
          if (!row) return;
          text(first, clock(row.start, true));
          SERIES.forEach(([name], at) => data(cells[at], Math.round(row[name]), bytes(row[name])));
        },
      };
    });
  }
}

function nice(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map((each) => each * unit).find((each) => each >= value);
}
