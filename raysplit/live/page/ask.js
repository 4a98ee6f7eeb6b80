// "What if?": sliders that ask the same law about another target.

import { drawBar, factOf, gainsLine } from "./advice.js";
import { get } from "./api.js";
import { draw, widthOf } from "./draw.js";
import { count, flops, parse, percent } from "./format.js";
import { domainClass, html } from "./html.js";

const $ = (id) => document.getElementById(id);
const PER_DECADE = 20; // steps of the budget's slider
const CHOICES = ["accounting", "seeds"];
const PER_DOUBLING = 4; // steps of a weight's slider

let target = null; // the advice at the sweep's own target
let budget = null; // asked for, null where it is the target's
let asked = 0;
let timer = 0;

export function start() {
  const form = $("ask");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    budget = null;
    $("general-rise").value = $("general-loss").value = "";
    for (const slider of form.querySelectorAll("input[type=range]")) slider.value = "0";
    choose(target);
    labels();
    later(0);
    $("budget-slider").focus(); // the button is about to be switched off
  });
  $("budget-slider").addEventListener("input", (event) => {
    const step = Number(event.target.value);
    budget = step ? target.budget_flops * 10 ** (step / PER_DECADE) : null;
    if (budget) budget = Number(budget.toPrecision(3));
    labels();
    later();
  });
  $("budget-flops").addEventListener("change", (event) => {
    const value = parse(event.target.value);
    const wrong = !(value > 0 && value < 1e40);
    event.target.setAttribute("aria-invalid", String(wrong));
    if (wrong) return complain("Budget: a positive number such as 3e21 or 250P is needed.");
    budget = value;
    $("budget-slider").value = String(Math.round(PER_DECADE * Math.log10(value / target.budget_flops)));
    labels();
    later(0);
  });
  form.addEventListener("input", (event) => {
    if (event.target.id.startsWith("budget")) return;
    labels();
    later();
  });
}

// A new law, or another width: ask again, keeping what the sliders say.
export function setTarget(live) {
  const { advice } = live;
  const first = target === null;
  target = advice;
  const domains = Object.keys(advice.weights);
  if (first) {
    $("weights").replaceChildren(...domains.map((name, k) => html("div", { class: "field" },
      html("label", { for: `weight-${k}`, class: domainClass(domains, name) }, name),
      html("output", { for: `weight-${k}`, id: `weight-value-${k}` }),
      html("input", { id: `weight-${k}`, type: "range", min: -12, max: 12, step: 1, value: 0, "data-domain": name }),
    )));
    choose(advice);
    $("size-slider").max = String(advice.sizes.length);
  }
  $("rise-field").hidden = $("general-field").hidden = !Object.keys(advice.general_rise ?? {}).length;
  labels();
  return ask(live);
}

function weightOf(name) {
  const slider = $("weights").querySelector(`[data-domain="${CSS.escape(name)}"]`);
  return target.weights[name] * Object.keys(target.weights).length * 2 ** (Number(slider.value) / PER_DOUBLING);
}

function choose(advice) {
  for (const choice of CHOICES) {
    for (const radio of $("ask").elements[choice]) radio.checked = radio.value === advice[choice];
  }
}

function question() {
  const out = [];
  if (budget !== null) out.push(["budget_flops", String(budget)]);
  const size = target.sizes[Number($("size-slider").value) - 1];
  if (size) out.push(["n_params", String(size.split.n_params)]);
  const sliders = [...$("weights").querySelectorAll("input")];
  if (sliders.some((slider) => Number(slider.value))) {
    for (const { dataset } of sliders) out.push(["weight", `${dataset.domain}=${weightOf(dataset.domain)}`]);
  }
  const rise = parse($("general-rise").value) / 100;
  if (rise > 0) out.push(["max_general_rise", String(rise)]);
  const loss = parse($("general-loss").value);
  if (loss > 0) out.push(["max_general_loss", String(loss)]);
  for (const choice of CHOICES) {
    const { value } = $("ask").elements[choice];
    if (value !== target[choice]) out.push([choice, value]);
  }
  return out;
}

function labels() {
  $("budget-flops").value = flops(budget ?? target.budget_flops);
  $("budget-flops").removeAttribute("aria-invalid");
  const times = (budget ?? target.budget_flops) / target.budget_flops;
  $("budget-slider").setAttribute("aria-valuetext", `${flops(budget ?? target.budget_flops)} FLOPs, ${Number(times.toPrecision(2))} times the target`);
  const size = target.sizes[Number($("size-slider").value) - 1];
  $("size-value").textContent = size ? `${count(size.split.n_params)} parameters` : "the best";
  $("size-slider").setAttribute("aria-valuetext", $("size-value").textContent);
  const names = Object.keys(target.weights);
  const total = names.reduce((sum, name) => sum + weightOf(name), 0);
  names.forEach((name, k) => {
    $(`weight-value-${k}`).textContent = percent(weightOf(name) / total);
    $(`weight-${k}`).setAttribute("aria-valuetext", `${percent(weightOf(name) / total)} of all weight`);
  });
  $("reset").disabled = question().length === 0;
}

function later(milliseconds = 140) {
  clearTimeout(timer);
  timer = setTimeout(() => ask(), milliseconds);
}

// `live`: what the law says about the sweep's own target, where that has just been asked.
async function ask(live = null) {
  const mine = ++asked;
  const parameters = question();
  $("answer").closest(".answer").setAttribute("aria-busy", "true");
  try {
    const shown = live && !parameters.length ? live : await get("page/advice", [...parameters, ["width", String(widthOf($("curve")))]]);
    if (mine !== asked) return;
    show(shown, parameters.length > 0);
    $("curve-title").hidden = $("curve").hidden = !shown.curve; // from bases nothing is chosen in pretraining
    if (shown.curve) await draw($("curve"), shown.curve);
    complain("");
  } catch (error) {
    if (mine === asked) complain(error.status ? error.message : "The server does not answer.");
  } finally {
    if (mine === asked) $("answer").closest(".answer").removeAttribute("aria-busy");
  }
}

function show(shown, changed) {
  const { advice, law } = shown;
  drawBar($("answer-bar"), advice.split, Object.keys(advice.weights));
  const line = $("answer");
  const [, , , loss, interval] = shown.tables[0].rows.at(-1);
  const said = (label) => html("b", { "data-answer": label }, factOf(shown, label).value);
  const words = [["share", " in pretraining · "], ["start from", " · "], ["replay", " replayed · "], ["model size", " parameters · "], ["pretrain", advice.bases && Object.keys(advice.bases).length ? " tokens seen · " : " tokens of the mixture · "]];
  line.replaceChildren(
    ...words.filter(([label]) => factOf(shown, label)).flatMap(([label, after]) => [said(label), after]), "loss ",
    html("b", { "data-answer": "loss" }, loss), ` (${interval})`,
  );
  line.dataset.version = law.version;
  line.dataset.answer = JSON.stringify({ ...advice.split, loss: advice.loss.mean });
  $("answer-gains").textContent = gainsLine(shown);
  const at = `${flops(advice.budget_flops)} FLOPs and ${count(advice.split.n_params)} parameters`;
  $("curve-title").textContent = `Loss against the share in pretraining, at ${at}${changed ? "" : ", the sweep's target"}`;
}

function complain(text) {
  $("ask-wrong").textContent = text;
  $("ask-wrong").hidden = !text;
}
