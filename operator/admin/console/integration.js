// One Integration: its participants, its conditions, its books.

import { badge, duration, el, number, ready, table, when } from "./dom.js";
import { trouble } from "./overview.js";

export function integration(data, namespace, name) {
  const each = data.integrations.find((one) => one.namespace === namespace && one.name === name);
  if (!each) return [el("h1", {}, `${namespace}/${name}`), el("p", { class: "notice" }, "There is no such Integration."), el("p", {}, el("a", { href: "#/" }, "Overview"))];
  const books = (adds) => badge(adds ? "Adds up" : "Does not add up", adds ? "good" : "bad");
  return [
    el("p", {}, el("a", { href: "#/" }, "Overview")),
    el("h1", {}, `${namespace}/${name}`),
    el("div", { class: "card padded" }, el("dl", { class: "facts" },
      el("dt", {}, "Health"), el("dd", {}, ready(each)),
      el("dt", {}, "Phase"), el("dd", {}, badge(each.phase)),
      el("dt", {}, "Lag"), el("dd", {}, duration(each.lagSeconds)),
      el("dt", {}, "Records"), el("dd", {}, number(each.records)),
      el("dt", {}, "Foreign edits"), el("dd", {}, number(each.conflicts)),
      el("dt", {}, "Last written"), el("dd", {}, when(each.lastDelivered)),
      el("dt", {}, "Ledger"), el("dd", {}, books(each.balanced)),
      el("dt", {}, "Last error"), el("dd", {}, trouble(each)))),
    el("h2", {}, "Participants"),
    table({
      caption: "Participants", rows: each.participants, empty: "It does not run.",
      columns: [
        ["Name", (one) => one.name],
        ["State", (one) => [badge(one.state), one.pausedBy ? el("span", { class: "note" }, one.pausedBy) : null]],
        ["Waiting", (one) => number(one.pending), "number"],
        ["Dead letters", (one) => number(one.deadLetters), "number"],
        ["Last read", (one) => when(one.lastRead)],
      ],
    }),
    el("h2", {}, "Ledger"),
    el("p", { class: "soft" }, "What was read, and what became of it. Every line adds up, or something is lost."),
    table({
      caption: "Read from", rows: each.sources, empty: "Nothing was read yet.",
      columns: [
        ["From", (one) => one.participant],
        ["Read", (one) => number(one.read), "number"],
        ["Changed", (one) => number(one.changed), "number"],
        ["Unchanged", (one) => number(one.unchanged), "number"],
        ["Dead letters", (one) => number(one.deadLettered), "number"],
        ["", (one) => books(one.balanced)],
      ],
    }),
    el("p", {}, " "),
    table({
      caption: "Put in the lanes", rows: each.lanes, empty: "No lane had an entry yet.",
      columns: [
        ["To", (one) => one.target],
        ["Because of", (one) => one.origin],
        ["Entered", (one) => number(one.entered), "number"],
        ["Written", (one) => number(one.delivered), "number"],
        ["Unchanged", (one) => number(one.unchanged), "number"],
        ["Filtered", (one) => number(Object.values(one.filtered).reduce((a, b) => a + b, 0)), "number"],
        ["Superseded", (one) => number(one.superseded), "number"],
        ["Discarded", (one) => number(one.discarded), "number"],
        ["Dead letters", (one) => number(one.deadLettered), "number"],
        ["Waiting", (one) => number(one.pending), "number"],
        ["", (one) => books(one.balanced)],
      ],
    }),
    el("h2", {}, "Conditions"),
    table({
      caption: "Conditions", rows: each.conditions, empty: "There is no status yet.",
      columns: [
        ["Type", (one) => one.type],
        ["Status", (one) => badge(one.status, "quiet")],
        ["Reason", (one) => el("code", {}, one.reason)],
        ["Message", (one) => one.message, "words"],
      ],
    }),
  ];
}
