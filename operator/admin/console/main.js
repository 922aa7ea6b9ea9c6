// The page's frame: which page is shown, and renewing it while it is looked at.

import { get } from "./api.js";
import { el, number, render } from "./dom.js";
import { integration } from "./integration.js";
import { letter, list } from "./letters.js";
import { overview } from "./overview.js";

const RENEW = 2000;
const content = document.getElementById("content");
const pulse = document.getElementById("pulse");
let shown = "";
let timer;
let round = 0;

function place() {
  const [path, query] = location.hash.slice(1).split("?");
  return { parts: (path || "/").split("/").filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(query ?? "") };
}

async function show({ moved }) {
  clearTimeout(timer);
  const mine = ++round;
  const { parts, query } = place();
  const page = parts[0] === "dead-letters" ? "letters" : "overview";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    const data = await get("/api/v1/overview");
    count(data);
    // A page that somebody may be typing in is not renewed under their hands.
    if (page === "overview" || moved) {
      const wanted = await view(data, parts, query);
      if (mine !== round) return;
      if (moved) content.replaceChildren();
      render(content, wanted);
    }
    pulse.textContent = `Live, ${new Date().toLocaleTimeString()}`;
    pulse.classList.remove("lost");
    if (moved) {
      document.title = `${content.querySelector("h1")?.textContent ?? "Overview"} - Fairlead`;
      // Someone who moved by keyboard goes on from the new page's beginning.
      if (shown) content.focus({ preventScroll: true });
      if (shown) scrollTo(0, 0);
      shown = location.hash || "#/";
    }
  } catch (error) {
    if (mine !== round) return;
    pulse.textContent = "No answer; trying again";
    pulse.classList.add("lost");
    if (moved) render(content, el("p", { class: "notice bad" }, error.message));
  }
  if (mine === round) timer = setTimeout(() => show({ moved: content.childElementCount === 0 }), RENEW);
}

function view(data, parts, query) {
  if (parts[0] === "dead-letters") return parts[1] ? letter(parts[1], () => show({ moved: true })) : list(query);
  if (parts[0] === "integrations") return integration(data, parts[1], parts[2]);
  return overview(data);
}

function count(data) {
  const open = data.integrations.reduce((total, each) => total + each.deadLetters, 0);
  const mark = document.getElementById("letter-count");
  mark.hidden = open === 0;
  if (mark.textContent !== number(open)) mark.textContent = number(open);
}

addEventListener("hashchange", () => show({ moved: true }));
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : show({ moved: false })));
show({ moved: true });
