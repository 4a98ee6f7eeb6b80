// One split as a bar: pretraining first, then each domain's expert.

import { count, percent } from "./format.js";
import { domainClass, html } from "./svg.js";

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

export function gainsLine(advice) {
  const gains = advice.gains.map((g) => `${percent(g.gain.mean, 1)} below ${g.baseline}`);
  return gains.length ? `Its loss is expected ${gains.join(", ")}.` : "";
}
