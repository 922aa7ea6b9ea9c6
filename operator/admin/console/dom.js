// Making elements. Text from outside goes in as text nodes only; there is no way from a string to markup in this console.

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

// Puts `wanted` in the place of what `place` shows, and touches only what differs: focus and selection stay where they are.
export function render(place, wanted) {
  patch(place, el("div", {}, wanted).childNodes);
}

function patch(place, wanted) {
  const next = [...wanted];
  next.forEach((node, index) => {
    const current = place.childNodes[index];
    if (!current) place.append(node);
    else if (current.nodeType !== node.nodeType || current.nodeName !== node.nodeName || current.dataset?.key !== node.dataset?.key) current.replaceWith(node);
    else if (node.nodeType === Node.TEXT_NODE) { if (current.data !== node.data) current.data = node.data; }
    else update(current, node);
  });
  while (place.childNodes.length > next.length) place.lastChild.remove();
}

function update(current, node) {
  for (const { name } of [...current.attributes]) if (!node.hasAttribute(name)) current.removeAttribute(name);
  for (const { name, value } of [...node.attributes]) if (current.getAttribute(name) !== value) current.setAttribute(name, value);
  patch(current, node.childNodes);
}

const GOOD = { True: "good", Live: "good", Closed: "good", Ample: "good", WriteOnly: "good" };
const BAD = { False: "bad", Open: "bad", Exhausted: "bad", Paused: "wait", Guarded: "bad" };
const WAIT = { Unknown: "wait", HalfOpen: "wait", Low: "wait", Backfill: "wait", Previewed: "wait" };

export function badge(word, tone) {
  return word ? el("span", { class: `badge ${tone ?? GOOD[word] ?? BAD[word] ?? WAIT[word] ?? ""}` }, word) : el("span", { class: "soft" }, "-");
}

// Whether a resource is Ready, in a word that says more than a colour.
export function ready(resource) {
  const words = { True: "Ready", False: "Not ready", Unknown: "Unknown" };
  return [badge(words[resource.ready] ?? "No status", { True: "good", False: "bad" }[resource.ready] ?? "wait"),
    resource.ready === "True" ? null : el("span", { class: "note" }, resource.reason)];
}

export const number = (value) => (value ?? 0).toLocaleString("en");

// A table: columns are [head, cell(row), class]; the first cell is the row's head.
export function table({ caption, columns, rows, empty }) {
  if (rows.length === 0) return el("div", { class: "card" }, el("p", { class: "empty" }, empty));
  return el("div", { class: "card scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", { class: "rows" },
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, columns.map(([head, , kind]) => el("th", { scope: "col", class: kind }, head)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, columns.map(([head, cell, kind], index) =>
        index === 0 ? el("th", { scope: "row", class: kind }, el("span", {}, cell(row))) : el("td", { class: kind, "data-head": head }, el("span", {}, cell(row)))))))));
}

export function ago(moment) {
  if (!moment) return "never";
  const seconds = Math.max(0, Math.round((Date.now() - Date.parse(moment)) / 1000));
  if (seconds < 5) return "just now";
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

export const when = (moment) => (moment ? el("time", { datetime: moment, title: moment }, ago(moment)) : el("span", { class: "soft" }, "never"));

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "-";
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

let hide;
export function toast(text) {
  const place = document.getElementById("toast");
  place.textContent = text;
  place.classList.add("shown");
  clearTimeout(hide);
  hide = setTimeout(() => place.classList.remove("shown"), 6000);
}
