// Dead letters: the list, and one of them with what can be done about it.

import { get, guarded, rights } from "./api.js";
import { badge, el, number, table, toast, when } from "./dom.js";

export async function list(query) {
  const wanted = new URLSearchParams();
  for (const key of ["integration", "participant", "reason", "text", "closed"]) if (query.get(key)) wanted.set(key, query.get(key));
  const { items, more } = await get(`/api/v1/dead-letters?${wanted}`);
  const search = (event) => {
    event.preventDefault();
    const next = new URLSearchParams();
    const form = new FormData(event.target);
    for (const key of ["integration", "participant", "reason", "text"]) if (form.get(key)?.trim()) next.set(key, form.get(key).trim());
    if (form.get("closed")) next.set("closed", "true");
    location.hash = `#/dead-letters${next.size ? `?${next}` : ""}`;
  };
  return [
    el("h1", {}, "Dead letters"),
    el("p", { class: "soft" }, "What could not be delivered. Mend the source's record, mend the mapping, or correct the letter itself; the first two close it by themselves."),
    el("form", { class: "bar", onsubmit: search, role: "search" },
      el("label", {}, "Integration", el("input", { name: "integration", placeholder: "namespace/name", value: query.get("integration") ?? "" })),
      el("label", {}, "Participant", el("input", { name: "participant", value: query.get("participant") ?? "" })),
      el("label", {}, "Reason", el("input", { name: "reason", value: query.get("reason") ?? "" })),
      el("label", {}, "Text", el("input", { name: "text", placeholder: "field, message or id", value: query.get("text") ?? "" })),
      el("label", { class: "inline" }, el("input", { type: "checkbox", name: "closed", checked: query.get("closed") === "true" }), "Closed ones too"),
      el("button", {}, "Show")),
    more ? el("p", { class: "notice" }, `The newest ${number(items.length)} are shown; narrow the search for others.`) : null,
    table({
      caption: "Dead letters", rows: items, empty: "No dead letter is open. Everything that was read is delivered or on its way.",
      columns: [
        ["Number", (each) => el("a", { href: `#/dead-letters/${each.id}` }, `#${each.id}`)],
        ["Integration", (each) => each.integration],
        ["Participant", (each) => each.participant],
        ["Stage", (each) => badge(each.stage)],
        ["Reason", (each) => el("code", {}, each.reason)],
        ["Since", (each) => when(each.at)],
        ["What is wrong", (each) => [each.message, each.closed ? el("span", { class: "note" }, `${each.closed.reason} by ${each.closed.author}`) : null], "words"],
      ],
    }),
  ];
}

export async function letter(id, reload) {
  const [shown, may] = await Promise.all([get(`/api/v1/dead-letters/${encodeURIComponent(id)}`), rights()]);
  return el("div", { "data-key": `letter-${id}` }, page(shown, may, reload));
}

function page(shown, may, reload) {
  const open = !shown.closed;
  const writes = open && may !== "Off";
  return [
    el("p", {}, el("a", { href: "#/dead-letters" }, "Dead letters")),
    el("h1", {}, `Dead letter #${shown.id}`),
    open ? null : el("p", { class: "notice" }, `Closed: ${shown.closed.reason} by ${shown.closed.author}, `, when(shown.closed.at)),
    el("div", { class: "card padded" }, el("dl", { class: "facts" },
      el("dt", {}, "What is wrong"), el("dd", {}, shown.message),
      shown.detail ? [el("dt", {}, "In the system's words"), el("dd", {}, shown.detail)] : null,
      el("dt", {}, "Reason"), el("dd", {}, el("code", {}, shown.reason), ` (${shown.class})`),
      shown.field ? [el("dt", {}, "Field"), el("dd", {}, el("code", {}, shown.field))] : null,
      el("dt", {}, "Integration"), el("dd", {}, shown.integration),
      el("dt", {}, "Participant"), el("dd", {}, shown.participant),
      el("dt", {}, "Stage"), el("dd", {}, badge(shown.stage)),
      shown.externalId ? [el("dt", {}, "External id"), el("dd", {}, el("code", {}, shown.externalId))] : null,
      shown.parent ? [el("dt", {}, "Corrected before"), el("dd", {}, el("a", { href: `#/dead-letters/${shown.parent}` }, `#${shown.parent}`))] : null,
      shown.corrected ? [el("dt", {}, "Corrected"), el("dd", {}, `by ${shown.corrected.author}, `, when(shown.corrected.at), ": ",
        shown.corrected.changes.map((change) => change.field).join(", "))] : null,
      shown.record ? [el("dt", {}, "Record"), el("dd", {}, el("code", {}, shown.record))] : null,
      el("dt", {}, "Since"), el("dd", {}, when(shown.at), `, ${shown.attempts} ${shown.attempts === 1 ? "attempt" : "attempts"}`))),
    open && may === "Off" ? el("p", { class: "notice" }, "This console only shows. Use fairlead dead-letters, or start the operator with --console-write.") : null,
    editor(shown, writes, reload),
  ];
}

const parse = (text) => {
  // Numbers and truth values keep their type; a number with a fraction stays text, so that no digit is lost.
  if (/^(true|false|null|-?(0|[1-9]\d{0,14}))$/.test(text)) return JSON.parse(text);
  return text;
};
const print = (value) => (value === null ? "" : typeof value === "string" ? value : JSON.stringify(value));

// What was asked for is done by a reader or a lane; usually within a second, and not waited for much longer.
async function settled(id) {
  for (let look = 0; look < 10; look += 1) {
    if ((await get(`/api/v1/dead-letters/${id}`)).closed) return;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

function editor(shown, writes, reload) {
  const author = el("input", { id: "author", autocomplete: "name", placeholder: "recorded", maxlength: 64 });
  const act = async (what, body, button) => {
    button.disabled = true;
    try {
      const { message } = await guarded(`/api/v1/dead-letters/${shown.id}/${what}`, { author: author.value, ...body });
      toast(`Dead letter #${shown.id}: ${message}`);
      await settled(shown.id);
      await reload();
    } catch (error) {
      toast(error.message);
      button.disabled = false;
    }
  };
  const changed = new Map();
  const correct = el("button", { class: "main", type: "submit", disabled: true }, "Correct and try again");
  const input = (field) => {
    const box = el("input", { "aria-label": field.path, "data-field": field.path, value: print(field.value), placeholder: field.masked ? "masked; type a new value" : "", autocomplete: "off", spellcheck: "false" });
    box.addEventListener("input", () => {
      const same = box.value === print(field.value);
      if (same) changed.delete(field.path);
      else changed.set(field.path, parse(box.value));
      box.classList.toggle("changed", !same);
      correct.disabled = changed.size === 0;
    });
    return box;
  };
  const value = (field, editable) => {
    if (editable && field.correctable) return input(field);
    if (field.masked) return el("span", { class: "masked", title: "personal or unclassified" }, "•••••");
    return el("code", {}, field.value === null ? "null" : print(field.value));
  };
  const document = (title, fields, editable) => fields ? [
    el("h2", {}, title),
    table({ caption: title, rows: fields, empty: "It is empty.", columns: [["Field", (field) => el("code", {}, field.path)], ["Value", (field) => value(field, editable), "words"]] }),
  ] : null;
  const original = shown.stage === "Inbound" || shown.stage === "Identity" ? "The record as it was read" : "The canonical record";
  const some = [...shown.original, ...(shown.payload ?? [])].some((field) => field.masked);
  const reveal = some && writes ? el("button", { type: "button", onclick: async (event) => {
    event.target.disabled = true;
    try {
      const full = await guarded(`/api/v1/dead-letters/${shown.id}?personal=true`);
      host.replaceWith(editor(full, writes, reload));
    } catch (error) {
      toast(error.message);
      event.target.disabled = false;
    }
  } }, "Show personal fields") : null;
  const submit = (event) => {
    event.preventDefault();
    if (changed.size) act("edit", { set: Object.fromEntries(changed) }, correct);
  };
  const read = document(original, shown.original, writes && shown.correctable === "original");
  const sent = document("What was to be sent", shown.payload, writes && shown.correctable === "payload");
  const host = el("form", { onsubmit: submit, id: "letter-form" },
    writes ? el("div", { class: "bar" },
      el("label", {}, "Your name", author),
      el("button", { type: "button", onclick: (event) => act("replay", {}, event.target) }, "Try again as it is"),
      shown.correctable ? correct : null,
      el("button", { type: "button", class: "danger", onclick: (event) => confirmed(`Give up dead letter #${shown.id}? The change it stands for is not delivered.`, () => act("discard", {}, event.target)) }, "Give it up"),
      reveal) : null,
    // What can be corrected stands first.
    shown.correctable === "payload" ? [sent, read] : [read, sent]);
  return host;
}

function confirmed(question, then) {
  const dialog = el("dialog", { "aria-labelledby": "question" },
    el("form", { method: "dialog" }, el("p", { id: "question" }, question),
      el("div", { class: "bar" }, el("button", { value: "yes", class: "danger" }, "Give it up"), el("button", { value: "no", autofocus: true }, "Keep it"))));
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (dialog.returnValue === "yes") then();
  });
  document.body.append(dialog);
  dialog.showModal();
}
