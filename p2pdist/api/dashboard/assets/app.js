// The page: each part of the agent's state, drawn when it arrives.

import { Chart, History, SERIES } from "./chart.js";
import { attribute, byId, data, html, keyed, show, stack, stacked, svg, text } from "./dom.js";
import * as format from "./format.js";
import { Images } from "./images.js";
import { Beginning } from "./more.js";
import { PieceMap } from "./pieces.js";
import { Source } from "./source.js";

const SAYS = { store: "from this host's store", peer: "from peers", upstream: "from upstream" };
const STATES = { ok: "OK", busy: "Busy", "backing off": "Backing off", banned: "Banned" };

const state = { skew: 0, started: null, status: null, rates: new Map() };
const history = new History();
const chart = new Chart(byId("chart"), byId("chart-says"), byId("chart-rows"));
const images = new Images(stack(byId("images")));
const registries = stack(byId("registries").parentElement);
const peers = stack(byId("peers").parentElement);
const now = () => Date.now() / 1000 + state.skew;
images.now = now;

// -- the agent itself --

function drawStatus(status) {
  // Another version has another page.
  if (state.status && state.status.version !== status.version) location.reload();
  state.status = status;
  images.hosts = status.peers + 1;
  text(byId("name"), `on ${status.name}`);
  document.title = `${status.name} · p2pdist`;
  drawAbout();
  const ready = byId("ready");
  attribute(ready, "data-state", status.ready ? "good" : "bad");
  text(ready, status.ready ? "Ready" : `Not ready: ${status.reasons.join(", ")}`);
  const wrong = [...(status.ready ? [] : status.reasons.map((reason) => `Not serving: ${reason}`)), ...status.warnings];
  show(byId("warnings"), wrong.length);
  keyed(byId("warning-list"), wrong, (each) => each, (each) => ({ root: html("li", {}, each), update: () => {} }));
  drawSavings(status.client_bytes, status.saved_bytes);
  drawTiles(status);
  text(byId("version"), `p2pdist ${status.version}`);
}

function drawAbout() {
  if (!state.status) return;
  const { zone, listeners } = state.status;
  const up = state.started === null ? "" : `up ${format.seconds(now() - state.started)}`;
  const mirror = listeners.mirror ? `mirror ${listeners.mirror}` : "";
  text(byId("about"), [zone && `zone ${zone}`, mirror, up].filter(Boolean).join(" · "));
}

function drawSavings(client, saved) {
  const total = SERIES.reduce((sum, [name]) => sum + client[name], 0);
  data(byId("ratio"), total ? saved / total : "", total ? format.percent(saved, total) : "No pulls yet");
  attribute(byId("figure"), "data-empty", total ? null : "true");
  const mirror = state.status.listeners.mirror ?? "the mirror";
  text(byId("ratio-says"), total
    ? `${format.bytes(saved)} of the ${format.bytes(total)} given to runtimes did not cross the upstream link.`
    : `Nothing was pulled through this agent yet. Point a container runtime at ${mirror}, and pull an image.`);
  drawSplit(client, total);
  const rows = SERIES.map(([name, title]) => [name, title, client[name], total]);
  keyed(byId("sources"), rows, ([name]) => name, ([name, title]) => {
    const [value, part] = [html("data"), html("span", { class: "quiet" })];
    const swatch = svg("svg", { class: "swatch", viewBox: "0 0 12 12", "aria-hidden": "true", focusable: "false" },
      svg("rect", { class: `area ${name}`, width: 12, height: 12, rx: 3 }));
    return {
      root: html("div", {}, html("dt", {}, swatch, `${title} `, html("span", { class: "unseen" }, SAYS[name])), html("dd", {}, value, " ", part)),
      update: ([, , size, whole]) => {
        data(value, size, format.bytes(size));
        text(part, whole ? format.percent(size, whole) : "");
      },
    };
  });
}

function drawSplit(client, total) {
  let from = 0;
  const parts = SERIES.map(([name]) => {
    const width = total ? (100 * client[name]) / total : 0;
    const rect = svg("rect", { class: `area ${name}`, x: `${from}%`, width: `${width}%`, height: 14 });
    from += width;
    return rect;
  });
  byId("split").replaceChildren(svg("rect", { class: "ground", width: "100%", height: 14 }), ...parts);
}

function drawTiles({ peers, cluster, transfers, store, received_bytes: received, sent_bytes: sent }) {
  const tiles = [
    ["Peers", peers, String(peers), cluster ? "agents that answered lately" : "single-host mode: no cluster key"],
    ["In flight", transfers, String(transfers), transfers === 1 ? "blob being fetched" : "blobs being fetched"],
    ["Received", received.peer + received.upstream, format.bytes(received.peer + received.upstream),
      `${format.bytes(received.peer)} from peers, ${format.bytes(received.upstream)} from upstream`],
    ["Sent to peers", sent.peer, format.bytes(sent.peer), "other hosts had it from here"],
    ["Store", store.committed, format.bytes(store.committed), storeSays(store), store],
  ];
  keyed(byId("tiles"), tiles, ([title]) => title, ([title]) => {
    const [value, says] = [html("data"), html("span", { class: "quiet" })];
    const used = title === "Store" ? [svg("rect", { class: "used", height: 6, rx: 3 }), svg("rect", { class: "reserved", height: 6 })] : [];
    const meter = used.length ? svg("svg", { class: "meter", height: 6, "aria-hidden": "true", focusable: "false" }, svg("rect", { class: "ground", width: "100%", height: 6, rx: 3 }), used) : null;
    return {
      root: html("div", {}, html("dt", {}, title), html("dd", {}, value, meter, says)),
      update: ([, exact, shown, words, room]) => {
        data(value, exact, shown);
        text(says, words);
        if (!room || !room.quota) return;
        const [kept, coming] = [(100 * room.committed) / room.quota, (100 * room.reserved) / room.quota];
        attribute(used[0], "width", `${kept}%`);
        attribute(used[1], "x", `${kept}%`);
        attribute(used[1], "width", `${coming}%`);
      },
    };
  });
}

function storeSays({ quota, committed, reserved, blobs, pinned }) {
  const coming = reserved ? `, ${format.bytes(reserved)} coming` : "";
  const kept = pinned ? `, ${pinned} pinned` : "";
  return `${format.percent(committed, quota)} of ${format.bytes(quota)}${coming} · ${format.count(blobs, "blob")}${kept}`;
}

// -- by registry --

function drawRegistries({ registries: all }) {
  const rows = all.filter((row) => SERIES.some(([name]) => row[name]));
  const idle = all.length - rows.length;
  text(byId("registries-count"), rows.length && idle ? `${idle} more without traffic` : "");
  show(byId("registries-empty"), !rows.length);
  show(byId("registries-scroll"), rows.length);
  keyed(byId("registries"), rows, (row) => row.registry, (row) => {
    const cells = [...SERIES.map(() => html("data")), html("data")];
    return {
      root: stacked(registries, html("tr", {}, html("th", { scope: "row" }, html("span", { class: "name" }, row.registry)), cells.map((cell) => html("td", { class: "number" }, cell)))),
      update: (each) => {
        const total = SERIES.reduce((sum, [name]) => sum + each[name], 0);
        SERIES.forEach(([name], at) => data(cells[at], each[name], format.bytes(each[name])));
        data(cells[3], total - each.upstream, format.percent(total - each.upstream, total), format.bytes(total - each.upstream));
      },
    };
  });
}

// -- in flight --

function drawTransfers({ count, transfers }) {
  const more = count - transfers.length;
  text(byId("transfers-count"), more > 0 ? `the first ${transfers.length} of ${count}` : "");
  show(byId("transfers-empty"), !count);
  show(byId("transfers-key"), count);
  keyed(byId("transfers"), beginnings.transfers.of(transfers), (each) => each.digest, makeTransfer);
}

function makeTransfer(first) {
  const map = new PieceMap();
  const [share, says] = [html("data"), html("span", { class: "quiet" })];
  const root = html("li", {},
    html("div", { class: "what" },
      html("h3", {}, html("span", { class: "name" }, first.repository), " ", html("code", { title: first.digest }, format.digest(first.digest))),
      html("p", {}, share, " ", says)),
    map.root);
  let [at, before, speed] = [first.seconds, first.received, null];
  const update = (each) => {
    if (each.seconds > at) {
      const rate = Math.max(0, each.received - before) / (each.seconds - at);
      speed = speed === null ? rate : speed + 0.4 * (rate - speed);
      [at, before] = [each.seconds, each.received];
    }
    data(share, each.received, format.percent(each.received, each.size));
    const from = [["peers", each.bytes.peer], ["upstream", each.bytes.upstream]].filter(([, size]) => size);
    text(says, [
      `${format.bytes(each.received)} of ${format.bytes(each.size)}`,
      speed === null ? null : format.rate(speed),
      from.length ? `from ${from.map(([name, size]) => `${name} ${format.bytes(size)}`).join(", ")}` : null,
      each.users ? format.count(each.users, "runtime waits", "runtimes wait") : null,
    ].filter(Boolean).join(" · "));
    map.update(each.pieces);
  };
  return { root, update };
}

// -- images and peers --

function drawImages({ count, images: rows }) {
  text(byId("images-count"), rows.length < count ? `the ${rows.length} asked last, of ${count}` : count ? format.count(count, "image") : "");
  text(byId("images-empty"), "This host's store holds no image yet.");
  show(byId("images-empty"), !count);
  show(byId("images-scroll"), count);
  images.update(beginnings.images.of(rows));
}

// Who is not well comes last in the list, and may be in the part that is not drawn.
function unwell(rows) {
  const counts = Object.entries(STATES).map(([name, title]) => [title.toLowerCase(), rows.filter((row) => row.state === name).length]);
  return counts.slice(1).filter(([, number]) => number).map(([title, number]) => `, ${number} ${title}`).join("");
}

function drawPeers({ count, peers: rows }) {
  const shown = rows.length < count ? `the ${rows.length} fastest of ${count}` : count ? format.count(count, "agent") : "";
  text(byId("peers-count"), `${shown}${unwell(rows)}`);
  text(byId("peers-empty"), state.status?.cluster === false
    ? "Single-host mode: without a cluster key there are no peers."
    : "No other agent has answered yet. Bootstrap addresses are tried again all the time.");
  show(byId("peers-empty"), !count);
  show(byId("peers-scroll"), count);
  keyed(byId("peers"), beginnings.peers.of(rows), (row) => row.peer, (first) => {
    const [where, standing, speed, trip, heard] = [html("span", { class: "name" }), html("span", { class: "standing" }), html("data"), html("data"), html("data")];
    const right = (cell) => html("td", { class: "number" }, cell);
    return {
      root: stacked(peers, html("tr", {}, html("th", { scope: "row" }, where), html("td", {}, html("code", { title: first.peer }, String(first.peer).slice(0, 10))), html("td", {}, standing), right(speed), right(trip), right(heard))),
      update: (row) => {
        text(where, row.endpoint);
        text(standing, STATES[row.state] ?? row.state);
        attribute(standing, "data-state", row.state === "ok" ? "good" : row.state === "banned" ? "bad" : "waiting");
        data(speed, row.rate ?? "", row.rate === null ? "not yet" : format.rate(row.rate));
        data(trip, row.rtt ?? "", row.rtt === null ? "–" : row.rtt < 0.01 ? `${(1000 * row.rtt).toFixed(1)} ms` : format.seconds(row.rtt));
        data(heard, row.seen, format.ago(row.seen));
      },
    };
  });
}

// -- over time --

function drawChart() {
  chart.draw(history);
  if (byId("chart-details").open) chart.table(history);
}

for (const radio of document.querySelectorAll("input[name=span]")) {
  radio.addEventListener("change", () => {
    chart.span = Number(radio.value);
    drawChart();
  });
  if (radio.checked) chart.span = Number(radio.value);
}
byId("chart-details").addEventListener("toggle", drawChart);
new ResizeObserver(drawChart).observe(byId("chart"));

// -- live --

const DRAW = {
  status: drawStatus,
  savings: drawRegistries,
  transfers: drawTransfers,
  peers: drawPeers,
  images: drawImages,
  history: (value) => {
    history.merge(value);
    drawChart();
  },
  beat: ({ time, uptime }) => {
    state.skew = time - Date.now() / 1000;
    state.started = time - uptime;
    drawAbout();
  },
};

// What came last of each list, for its button to draw it again.
const last = {};
const beginning = (name, few) => new Beginning(byId(`${name}-more`), few, () => DRAW[name](last[name]));
const beginnings = { transfers: beginning("transfers", 10), images: beginning("images", 12), peers: beginning("peers", 12) };

function take(name, value) {
  if (name in beginnings) last[name] = value;
  DRAW[name](value);
}

function tell(link) {
  const words = { live: "Live", polling: "Every 2 s", lost: "No answer from the agent" };
  attribute(byId("link"), "data-state", { live: "good", polling: "waiting", lost: "bad" }[link]);
  text(byId("link"), words[link]);
  attribute(document.body, "data-stale", link === "lost" ? "true" : null);
}

const source = new Source(take, tell);
setInterval(() => !document.hidden && drawAbout(), 10_000);
source.start();
