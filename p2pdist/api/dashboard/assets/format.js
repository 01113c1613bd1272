// Figures for people: the same words as the command line's (p2pdist/cli/output.py).

const UNITS = ["B", "kB", "MB", "GB", "TB"];

export function bytes(count) {
  if (typeof count !== "number" || !Number.isFinite(count)) return "–";
  let value = count;
  for (const unit of UNITS) {
    if (Math.abs(value) < 1000) {
      return `${value.toFixed(unit === "B" || Math.abs(value) >= 100 ? 0 : 1)} ${unit}`;
    }
    value /= 1000;
  }
  return `${value.toFixed(1)} PB`;
}

export const rate = (count) => (typeof count === "number" ? `${bytes(count)}/s` : "–");

export function percent(part, whole) {
  if (!whole) return "–";
  const value = (100 * part) / whole;
  // Never "100 %" for less than all: the last hundredth is what somebody looks for.
  const text = value >= 99.95 && part < whole ? "99.9" : value.toFixed(value === 100 || value === 0 ? 0 : 1);
  return `${text} %`;
}

export function seconds(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  let whole = Math.floor(value);
  const parts = [];
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    const amount = Math.floor(whole / size);
    whole -= amount * size;
    if (amount || parts.length) parts.push(`${amount} ${unit}`);
  }
  return parts.slice(0, 2).join(" ");
}

export function ago(value) {
  if (value < 5) return "just now";
  return `${value < 60 ? `${Math.floor(value)} s` : seconds(value)} ago`;
}

export function clock(wall, withSeconds = false) {
  const options = { hour: "2-digit", minute: "2-digit", ...(withSeconds && { second: "2-digit" }) };
  return new Date(wall * 1000).toLocaleTimeString([], options);
}

export const moment = (wall) => new Date(wall * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

export function digest(text) {
  const [algorithm, hex = ""] = String(text).split(":");
  return `${algorithm}:${hex.slice(0, 12)}`;
}

export const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
