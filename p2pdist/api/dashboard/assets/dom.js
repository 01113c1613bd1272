// Making and updating elements. Whatever comes from the agent becomes text or an attribute's value, never markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) attribute(element, name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export function attribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value === true ? "" : value);
}

// Only what differs is touched: a selection, the focus, and what a screen reader is reading stay where they are.
export function text(element, value) {
  if (element.textContent !== String(value)) element.textContent = value;
  return element;
}

export function data(element, value, shown, title) {
  attribute(element, "value", value);
  attribute(element, "title", title);
  return text(element, shown);
}

// The children of `parent`, one for each item, in their order; `make(item)` gives {root, update(item)}.
export function keyed(parent, items, keyOf, make) {
  const old = parent.keyedRows ?? new Map();
  const rows = new Map();
  for (const item of items) {
    const key = keyOf(item);
    if (rows.has(key)) continue;
    const row = old.get(key) ?? make(item);
    row.update(item);
    rows.set(key, row);
  }
  for (const [key, row] of old) if (rows.get(key) !== row) row.root.remove();
  let place = parent.firstElementChild;
  while (place && place.tagName === "THEAD" || place && place.tagName === "CAPTION") place = place.nextElementSibling;
  for (const row of rows.values()) {
    if (row.root === place) place = place.nextElementSibling;
    else parent.insertBefore(row.root, place);
  }
  parent.keyedRows = rows;
}

// Tables that a narrow window shows as lists (style.css, .stack): roles said in full, which the other display would take away.
export function stack(table) {
  table.classList.add("stack");
  attribute(table, "role", "table");
  for (const group of [table.tHead, ...table.tBodies]) attribute(group, "role", "rowgroup");
  attribute(table.tHead.rows[0], "role", "row");
  for (const cell of table.tHead.rows[0].cells) attribute(cell, "role", "columnheader");
  return table;
}

// A row of such a table; each of its cells is told the title of its column.
export function stacked(table, row) {
  attribute(row, "role", "row");
  [...row.cells].forEach((cell, at) => {
    attribute(cell, "role", cell.tagName === "TH" ? "rowheader" : "cell");
    if (cell.tagName === "TD" && cell.colSpan === 1) attribute(cell, "data-title", table.tHead.rows[0].cells[at].textContent);
  });
  return row;
}

export const show = (element, shown) => attribute(element, "hidden", !shown);
