// Keeps a page alive and swaps parts of it without a reload. Every page works without this file.
"use strict";

const SLOW_MS = 3000;

// Makes `old` equal to `fresh` and touches only what differs, so that focus, selection and scrolling stay.
function morph(old, fresh) {
  if (old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
  } else if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
  } else if (!old.isEqualNode(fresh)) {
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    morphChildren(old, fresh);
  }
}

function morphChildren(old, fresh) {
  const before = [...old.childNodes];
  const after = [...fresh.childNodes];
  after.forEach((node, i) => (before[i] ? morph(before[i], node) : old.append(node)));
  before.slice(after.length).forEach((node) => node.remove());
}

// Live figures: one stream for each page that is looked at; browsers allow only a few at once.
const events = document.body.dataset.events;
let stream = null;
let retry = 0;

function listen() {
  stream = new EventSource(events);
  stream.onmessage = ({ data }) => {
    for (const [name, html] of Object.entries(JSON.parse(data))) {
      const template = document.createElement("template");
      template.innerHTML = html;
      for (const part of document.querySelectorAll(`[data-live="${name}"]`)) morphChildren(part, template.content.cloneNode(true));
    }
    refresh();
  };
  stream.onerror = () => {
    for (const pill of document.querySelectorAll('[data-live="state"] .pill')) {
      pill.className = "pill bad";
      pill.lastChild.data = "disconnected";
    }
    silence();
    retry = setTimeout(listen, SLOW_MS);
  };
}

function silence() {
  clearTimeout(retry);
  stream?.close();
  stream = null;
}

document.addEventListener("visibilitychange", () => {
  silence();
  if (!document.hidden) listen();
});
addEventListener("pagehide", silence);
addEventListener("pageshow", () => {
  if (!stream && !document.hidden) listen();
});

// Parts that belong to this page's address alone are fetched again.
async function load(address) {
  const answer = await fetch(address, { headers: { accept: "text/html" } });
  if (answer.redirected || !answer.headers.get("content-type")?.startsWith("text/html")) throw new Error("another page");
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

let refreshing = false;

async function refresh() {
  const part = document.querySelector("[data-refresh]");
  if (!part || refreshing) return;
  refreshing = true;
  try {
    const fresh = (await load(location.href)).getElementById(part.id);
    if (fresh && part.isConnected) morph(part, fresh);
  } catch {
    // the banner says so
  } finally {
    refreshing = false;
  }
}

// Filters and pages of lists: only the content is replaced, and the address follows.
async function swap(address, push) {
  const main = document.getElementById("main");
  const focused = document.activeElement?.id;
  main.setAttribute("aria-busy", "true");
  try {
    const page = await load(address);
    main.replaceChildren(...page.getElementById("main").childNodes);
    document.title = page.title;
    if (push) history.pushState(null, "", address);
    (document.getElementById(focused) ?? main).focus({ preventScroll: !push });
    if (push) scrollTo(0, 0);
  } catch {
    location.assign(address);
  } finally {
    main.removeAttribute("aria-busy");
  }
}

addEventListener("popstate", () => swap(location.href, false));

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form[data-partial]")) return;
  event.preventDefault();
  const filled = [...new FormData(form)].filter(([, value]) => value);
  swap(`${form.action}?${new URLSearchParams(filled)}`, true);
});

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-partial]");
  if (!link || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  swap(link.href, true);
});

document.addEventListener("change", ({ target }) => {
  if (target.matches("form[data-partial] select")) target.form.requestSubmit();
  if (target.matches("[data-all]")) {
    for (const box of target.form.querySelectorAll('[name="letter_id"]')) box.checked = target.checked;
  }
});

listen();
