// The images of this store; a row's button shows its layers, on how many hosts each is, and what its tag named before.

import { attribute, data, html, keyed, show, stack, stacked, svg, text } from "./dom.js";
import { ago, bytes, count, digest, moment } from "./format.js";

const REFRESH = 10_000;
const DOTS = 12;

export class Images {
  constructor(table) {
    this.table = table;
    this.hosts = 1;
    this.now = () => Date.now() / 1000;
    this.open = new Set();
    setInterval(() => this.refresh(), REFRESH);
  }

  update(rows) {
    keyed(this.table, rows, (row) => row.reference, (row) => this.make(row));
  }

  refresh() {
    // A row that has gone, with its image or with the rest of the list, is made anew when it comes back: closed.
    for (const panel of this.open) if (!panel.table.isConnected) this.open.delete(panel);
    if (!document.hidden) for (const panel of this.open) panel.load();
  }

  make(item) {
    const id = `image-${(this.made = (this.made ?? 0) + 1)}`;
    const name = html("span", { class: "name" });
    const button = html("button", { type: "button", class: "unfold", "aria-expanded": "false", "aria-controls": id },
      svg("svg", { viewBox: "0 0 10 10", "aria-hidden": "true", focusable: "false", class: "arrow" }, svg("path", { d: "M3 1.5 7 5 3 8.5" })), name);
    const [here, size] = [html("data"), html("data")];
    const [state, platforms, asked] = [html("td"), html("td"), html("time")];
    const row = html("tr", {}, html("th", { scope: "row" }, button), html("td", { class: "number" }, here),
      html("td", { class: "number" }, size), state, platforms, html("td", {}, asked));
    const inside = html("td", { colspan: 6 });
    const details = html("tr", { id, class: "inside", hidden: true }, inside);
    const panel = new Panel(inside, item.reference, this);
    button.addEventListener("click", () => {
      const opened = details.hasAttribute("hidden");
      show(details, opened);
      attribute(button, "aria-expanded", String(opened));
      this.open[opened ? "add" : "delete"](panel);
      if (opened) panel.load();
    });
    const root = html("tbody", { role: "rowgroup" }, stacked(this.table, row), stacked(this.table, details));
    const update = (image) => {
      text(name, image.reference);
      data(here, image.held, bytes(image.held));
      data(size, image.size, bytes(image.size));
      text(state, `${image.complete ? "Complete" : "Partial"}${image.pinned ? ", pinned" : ""}`);
      text(platforms, image.platforms.join(", ") || "–");
      attribute(asked, "datetime", new Date(image.resolved_at * 1000).toISOString());
      attribute(asked, "title", moment(image.resolved_at));
      text(asked, ago(Math.max(0, this.now() - image.resolved_at)));
      if (panel.digest && panel.digest !== image.digest && this.open.has(panel)) panel.load();
    };
    return { root, update };
  }
}

class Panel {
  constructor(place, reference, images) {
    this.reference = reference;
    this.images = images;
    this.says = html("p", { class: "quiet" }, "Asking the cluster ...");
    this.rows = html("tbody");
    this.table = html("table", { class: "layers", hidden: true },
      html("caption", {}, "Layers, base first"),
      html("thead", {}, html("tr", {}, ["Layer", "Size", "This host", "Hosts that hold it"].map((title) => html("th", { scope: "col" }, title)))),
      this.rows);
    stack(this.table);
    this.history = html("ol", { class: "history" });
    this.past = html("div", { hidden: true }, html("h3", {}, "What the tag named"), this.history);
    place.append(this.says, this.table, this.past);
  }

  async load() {
    const query = `reference=${encodeURIComponent(this.reference)}`;
    const [layers, past] = await Promise.all([ask(`api/v1/layers?${query}`), ask(`api/v1/history/tags?${query}`)]);
    show(this.table, layers.ok && layers.body.layers.length);
    if (layers.ok) {
      this.digest = layers.body.digest;
      this.says.replaceChildren(`${count(layers.body.layers.length, "layer")}, manifest `, html("code", { class: "name" }, this.digest));
      this.draw(layers.body.layers);
    } else {
      text(this.says, `Not known now: ${layers.message}`);
    }
    const entries = past.ok ? past.body.history ?? [] : [];
    show(this.past, entries.length);
    keyed(this.history, entries, (entry) => JSON.stringify(entry), makePast);
  }

  draw(layers) {
    const largest = Math.max(1, ...layers.map((layer) => layer.size));
    keyed(this.rows, layers, (layer) => layer.digest, () => {
      const [code, size, here, hosts] = [html("code"), html("data"), html("td"), html("data")];
      const bar = svg("rect", { class: "bar", height: 6, rx: 3 });
      const dots = svg("svg", { class: "dots", "aria-hidden": "true", focusable: "false" });
      const platform = html("span", { class: "quiet" });
      const root = stacked(this.table, html("tr", {},
        html("th", { scope: "row" }, code, " ", platform),
        html("td", {}, html("div", { class: "weight" }, size, svg("svg", { class: "bars", "aria-hidden": "true", focusable: "false", height: 6 }, bar))), here, html("td", {}, html("span", {}, dots, " ", hosts))));
      const update = (layer) => {
        text(code, digest(layer.digest));
        attribute(code, "title", layer.digest);
        text(platform, layer.platform);
        data(size, layer.size, bytes(layer.size));
        attribute(bar, "width", `${Math.max(1, (100 * layer.size) / largest)}%`);
        text(here, layer.held ? "Held" : "Not held");
        this.count(layer, hosts, dots);
      };
      return { root, update };
    });
  }

  count(layer, hosts, dots) {
    if (layer.hosts === null) {
      data(hosts, "", "not known now");
      show(dots, false);
      return;
    }
    const total = Math.max(this.images.hosts, layer.hosts);
    data(hosts, layer.hosts, `${layer.hosts} of ${total}`);
    const drawn = total <= DOTS ? total : 0;
    show(dots, drawn);
    attribute(dots, "viewBox", `0 0 ${Math.max(1, drawn * 10)} 10`);
    attribute(dots, "width", drawn * 10);
    dots.replaceChildren(...Array.from({ length: drawn }, (_, at) =>
      svg("circle", { cx: at * 10 + 5, cy: 5, r: 3.2, class: at < layer.hosts ? "dot full" : "dot" })));
  }
}

function makePast(entry) {
  const code = html("code", { title: entry.digest }, digest(entry.digest));
  const when = (wall) => html("time", { datetime: new Date(wall * 1000).toISOString() }, moment(wall));
  const since = entry.first_seen ? ["from ", when(entry.first_seen), " to ", when(entry.resolved_at)] : ["seen last ", when(entry.resolved_at)];
  const here = entry.held === undefined ? [] : [entry.held ? ", held here" : ", not held here"];
  return { root: html("li", {}, code, " ", ...since, ...here), update: () => {} };
}

async function ask(url) {
  try {
    const answer = await fetch(url);
    const body = await answer.json();
    return answer.ok ? { ok: true, body } : { ok: false, message: body.error?.message ?? `status ${answer.status}` };
  } catch {
    return { ok: false, message: "the agent does not answer" };
  }
}
