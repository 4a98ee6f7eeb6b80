// An advice: one split as a bar, and the rows of words that the server made (raysplit/split/tables.py).

import { count, percent } from "./format.js";
import { domainClass, html } from "./html.js";

export function drawBar(element, split, domains) {
  const parts = [["pretraining", split.pretrain_tokens, "pretrain"]];
  for (const name of domains) parts.push([name, split.specialize_tokens[name], domainClass(domains, name)]);
  const total = parts.reduce((sum, part) => sum + part[1], 0);
  if (element.children.length !== parts.length) {
    element.replaceChildren(...parts.map(([name, , look]) => html("div", { class: `part ${look}` }, html("b", {}, name), html("span"))));
  }
  parts.forEach(([name, tokens], k) => {
    const part = element.children[k];
    part.style.flexGrow = String(tokens / total);
    part.classList.toggle("narrow", tokens / total < 0.1);
    part.title = `${name}: ${count(tokens)} tokens, ${percent(tokens / total)}`;
    part.lastChild.textContent = count(tokens);
  });
  element.setAttribute("aria-label", parts.map(([name, tokens]) => `${name} ${count(tokens)} tokens`).join(", "));
}

export function factOf(shown, label) {
  return shown.facts.find((fact) => fact.label === label);
}

// A table; the first cell of a row that names a domain gets its colour.
export function tableOf({ head, rows }, domains = []) {
  const heading = (name) => (domains.includes(name) ? [html("span", { class: `swatch ${domainClass(domains, name)}` }), name] : [name]);
  return [
    html("thead", {}, html("tr", {}, ...head.map((cell) => html("th", { scope: "col" }, cell)))),
    html("tbody", {}, ...rows.map(([first, ...cells]) => html("tr", {}, html("th", { scope: "row" }, ...heading(first)), ...cells.map((cell) => html("td", {}, cell))))),
  ];
}

export function gainsLine(shown) {
  const gains = shown.tables.find(({ head }) => head[0] === "against")?.rows ?? [];
  return gains.length ? `Its loss is expected ${gains.map(([baseline, , gain]) => `${gain} below ${baseline}`).join(", ")}.` : "";
}
