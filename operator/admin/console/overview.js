// The first page: what stands where.

import { badge, duration, el, number, ready, table, when } from "./dom.js";

const name = (each) => `${each.namespace}/${each.name}`;

export function overview(data) {
  const sum = (pick) => data.integrations.reduce((total, each) => total + (pick(each) ?? 0), 0);
  const all = [...data.integrations, ...data.connectors, ...data.contracts];
  const unwell = all.filter((each) => each.ready !== "True").length;
  const unbalanced = data.integrations.filter((each) => !each.balanced).length;
  const lag = Math.max(0, ...data.integrations.map((each) => each.lagSeconds ?? 0));
  const tile = (label, value, bad) => el("div", { class: "tile" }, el("dt", {}, label), el("dd", { class: bad ? "bad" : null }, value));
  return [
    el("h1", {}, "Overview"),
    el("dl", { class: "tiles" },
      tile("Resources not ready", `${unwell} of ${all.length}`, unwell > 0),
      tile("Longest lag", duration(lag)),
      tile("Waiting to be written", number(sum((each) => each.pending))),
      tile("Open dead letters", number(sum((each) => each.deadLetters)), sum((each) => each.deadLetters) > 0),
      tile("Written per minute", number(sum((each) => each.deliveredPerMinute))),
      tile("Ledger", unbalanced ? "Does not add up" : "Adds up", unbalanced > 0)),
    el("h2", {}, "Integrations"),
    table({
      caption: "Integrations", rows: data.integrations, empty: "No Integration is known. Apply one, and it shows here within seconds.",
      columns: [
        ["Name", (each) => el("a", { href: `#/integrations/${encodeURIComponent(each.namespace)}/${encodeURIComponent(each.name)}` }, name(each))],
        ["Health", ready],
        ["Phase", (each) => badge(each.phase)],
        ["Lag", (each) => duration(each.lagSeconds), "number"],
        ["Waiting", (each) => number(each.pending), "number"],
        ["Dead letters", (each) => (each.deadLetters ? el("a", { href: `#/dead-letters?integration=${encodeURIComponent(name(each))}` }, number(each.deadLetters)) : "0"), "number"],
        ["Read/min", (each) => number(each.readPerMinute), "number"],
        ["Written/min", (each) => number(each.deliveredPerMinute), "number"],
        ["Last error", trouble, "words"],
      ],
    }),
    el("h2", {}, "Connectors"),
    table({
      caption: "Connectors", rows: data.connectors, empty: "No Connector is known.",
      columns: [
        ["Name", name],
        ["Health", ready],
        ["System", (each) => each.system],
        ["Circuit", (each) => badge(each.circuit)],
        ["Quota", (each) => badge(each.quota)],
        ["Reached", (each) => when(each.probed)],
        ["Last error", trouble, "words"],
      ],
    }),
    el("h2", {}, "Contracts"),
    table({
      caption: "Contracts", rows: data.contracts, empty: "No ApiContract is known.",
      columns: [
        ["Name", name],
        ["Health", ready],
        ["Entity", (each) => each.entity],
        ["Version", (each) => each.version],
        ["Says", (each) => (each.ready === "True" ? el("span", { class: "soft" }, "-") : each.message), "words"],
      ],
    }),
  ];
}

// What is wrong now stands before what went wrong some time ago.
export function trouble(each) {
  if (each.ready !== "True" && each.message) return each.message;
  const last = each.lastError;
  if (!last) return el("span", { class: "soft" }, "none");
  return [el("span", {}, last.message), el("span", { class: "note" }, last.reason, last.participant ? `, ${last.participant}` : "", ", ", when(last.at))];
}
