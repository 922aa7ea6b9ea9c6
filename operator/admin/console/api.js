// What this address answers. A refusal becomes an Error with the words of its problem document.

import { el } from "./dom.js";

let session;
// Kept in memory only: closing the page forgets it.
let token = null;

async function answered(response) {
  if (response.ok) return response.json();
  const problem = await response.json().catch(() => ({}));
  const error = new Error(problem.detail ?? `the server answers ${response.status}`);
  error.status = response.status;
  throw error;
}

export async function get(path) {
  return answered(await fetch(path, { headers: { accept: "application/json" }, cache: "no-store" }));
}

export async function rights() {
  session ??= await get("/api/v1/session");
  return session.writing;
}

// A request that changes something or shows what is masked. Asks for the token when one is needed.
export async function guarded(path, body) {
  if ((await rights()) === "Token" && !token) token = await askToken();
  const headers = { accept: "application/json", "x-fairlead-csrf": session.csrf };
  if (token) headers.authorization = `Bearer ${token}`;
  const request = { headers, cache: "no-store" };
  if (body !== undefined) {
    request.method = "POST";
    headers["content-type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  try {
    return await answered(await fetch(path, request));
  } catch (error) {
    if (error.status === 401) token = null;
    // The process was started again and has a new page token.
    if (error.status === 403) session = undefined;
    throw error;
  }
}

function askToken() {
  return new Promise((resolve, reject) => {
    const input = el("input", { type: "password", id: "token", autocomplete: "off", required: true });
    const dialog = el("dialog", { "aria-labelledby": "token-title" },
      el("form", { method: "dialog" },
        el("h2", { id: "token-title" }, "Token"),
        el("p", {}, "Changing something here, and seeing personal fields, needs the token that the operator was started with."),
        el("label", {}, "Console token", input),
        el("div", { class: "bar" }, el("button", { value: "use", class: "main" }, "Use it"), el("button", { value: "cancel", formnovalidate: true }, "Cancel"))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (dialog.returnValue === "use" && input.value) resolve(input.value);
      else reject(new Error("nothing was changed"));
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
