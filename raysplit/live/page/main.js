// The page: ask once for everything, then again for what an event of the journal may have changed.

import { drawBar, factOf, tableOf } from "./advice.js";
import { Refused, follow, get, setToken } from "./api.js";
import * as whatIf from "./ask.js";
import { draw, widthOf } from "./draw.js";
import { count, flops, percent, seconds } from "./format.js";
import { domainClass, html } from "./html.js";

const STATES = ["planned", "running", "done", "stopped", "failed"];

const $ = (id) => document.getElementById(id);

const known = { stops: [], status: null, statusAt: 0, advice: null, trials: [] };
const stale = new Set();
let refreshing = null;

// What a record means, the law's state knows: something new is reason to ask again.
function onEvents() {
  refresh("status", "trials");
}

// One round of questions at a time; what goes stale meanwhile is asked for in the next.
function refresh(...what) {
  for (const name of what) stale.add(name);
  refreshing ??= (async () => {
    while (stale.size) {
      const now = new Set(stale);
      stale.clear();
      try {
        await Promise.all([now.has("status") && askStatus(), now.has("trials") && askTrials()]);
      } catch (error) {
        if (error instanceof Refused && error.status === 401) return closed();
      }
      await new Promise((resolve) => setTimeout(resolve, 400));
    }
  })().finally(() => { refreshing = null; });
  return refreshing;
}

async function askStatus() {
  known.status = await get("v1/status");
  known.statusAt = performance.now();
  drawStanding();
  drawBudget();
  if (known.status.law && known.status.law.version !== known.version) await askLaw();
}

async function askLaw() {
  const moved = get("page/moved", { width: widthOf($("moved")) });
  const shown = await get("page/advice", { width: widthOf($("curve")) });
  Object.assign(known, { shown, advice: shown.advice, version: shown.law.version });
  drawNow(shown);
  drawStanding();
  await Promise.all([moved.then((picture) => draw($("moved"), picture)), whatIf.setTarget(shown)]);
}

async function askTrials() {
  const [trials, stops, tree] = await Promise.all([get("v1/trials"), get("v1/endings"), get("page/tree", { width: widthOf($("tree")) })]);
  Object.assign(known, { trials, stops });
  drawStops();
  drawBudget();
  if (trials.length) await draw($("tree"), tree, (words) => { $("tree-detail").textContent = words; });
}

function counted(n, thing) {
  return `${n} ${thing}${n === 1 ? "" : "s"}`;
}

function domains() {
  if (known.advice) return Object.keys(known.advice.weights);
  return [...new Set(known.trials.map((trial) => trial.domain).filter(Boolean))].sort();
}

function drawNow(shown) {
  const { advice, law, facts, tables } = shown;
  $("law-line").textContent = `Law ${law.version}, fitted to ${counted(law.n_observations, "observation")} at ${new Date(law.fitted_at).toLocaleString()}; ${law.forms.join(", ")}${law.full ? "" : "; provisional: forms and calibration are those of an earlier law"}`;
  $("no-law").hidden = true;
  $("now").hidden = false;
  const share = factOf(shown, "share");
  const level = percent(advice.level);
  $("share").textContent = share?.value ?? "";
  $("share-note").textContent = share?.note ?? "";
  $("share-range").textContent = share ? `${level} interval ${share.interval}` : "";
  $("facts").replaceChildren(...facts.filter((fact) => fact !== share).map(({ label, value, note, interval }) => html("div", {},
    html("dt", {}, label), html("dd", {}, html("b", {}, value), ` ${note}${interval ? `, ${level} interval ${interval}` : ""}`))));
  const names = domains();
  drawBar($("bar"), advice.split, names);
  const [first, ...others] = tables;
  $("domains").replaceChildren(...tableOf(first, names));
  $("domains-note").textContent = first.note;
  $("more").replaceChildren(...others.flatMap((table) => [
    html("h3", {}, table.title),
    html("div", { class: "table-scroll", role: "region", "aria-label": table.title, tabindex: 0 }, html("table", {}, ...tableOf(table))),
    html("p", { class: "quiet" }, table.note),
  ]));
  $("warnings").replaceChildren(...advice.warnings.map((text) => html("li", {}, text)));
}

function drawStanding() {
  const { status, statusAt } = known;
  if (!status) return;
  const law = status.law;
  const age = law ? law.age_seconds + (performance.now() - statusAt) / 1000 : 0;
  const behind = law ? status.n_observations - law.n_observations : 0;
  const parts = [status.finished ? "ended" : status.round ? `round ${status.round}` : "not begun", counted(status.n_observations, "observation")];
  parts.push(law ? `law ${law.version}, ${seconds(age)} old${behind > 0 ? `, ${behind} not yet in it` : ""}` : "no law yet");
  $("standing").textContent = parts.join(" · ");
  const share = known.shown && factOf(known.shown, "share");
  document.title = share ? `${share.value} · raysplit` : "raysplit";
  const wrong = [status.trouble, status.waiting].filter(Boolean).join("; ");
  $("trouble").hidden = !wrong;
  $("trouble").textContent = wrong;
  $("finished").hidden = !status.finished;
  $("finished").textContent = status.finished ? `The sweep has ended: ${status.finished}.` : "";
}

function drawBudget() {
  const { status, trials } = known;
  if (!status) return;
  const limit = status.budget_flops;
  const spent = limit ? Math.min(1, status.spent_flops / limit) : 0;
  const line = html("p", { class: "spent" }, html("b", {}, flops(status.spent_flops)), limit ? ` of ${flops(limit)} FLOPs` : " FLOPs spent, no limit set");
  const children = [line];
  if (limit) {
    const fill = html("div", { class: "fill" });
    fill.style.width = `${100 * spent}%`;
    children.push(
      html("div", { class: "meter", role: "meter", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(100 * spent), "aria-label": "Budget spent" }, fill),
      html("p", { class: "quiet" }, `${percent(spent)} spent, ${flops(Math.max(0, limit - status.spent_flops))} left`),
    );
  }
  $("budget").replaceChildren(...children);
  const states = STATES.map((state) => [state, trials.filter((trial) => trial.state === state).length]);
  $("counts").replaceChildren(...states.map(([state, n]) => html("div", { class: n ? `some ${state}` : state }, html("dt", {}, state), html("dd", {}, String(n)))));
}

function drawStops() {
  const names = domains();
  $("none-stopped").hidden = known.stops.length > 0;
  $("log").hidden = known.stops.length === 0;
  $("stopped").replaceChildren(...known.stops.slice().reverse().map(({ kind, time, trial, milestone, why }) => {
    const where = trial.domain ? `${trial.domain} from D = ${count(trial.pretrain_tokens)}` : "trunk";
    return html("li", { class: kind },
      html("time", { datetime: time }, new Date(time).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false })),
      html("b", {}, trial.domain ? html("span", { class: `swatch ${domainClass(names, trial.domain)}` }) : "", `${count(trial.n_params)}, ${where}`),
      html("span", { class: "what" }, `${kind === "stop" ? "stopped" : "failed"} at ${count(milestone)}`),
      html("span", { class: "why" }, why),
    );
  }));
}

function onState(state) {
  const texts = { live: "live", lost: "connection lost, trying again", closed: "closed" };
  $("link").dataset.state = state;
  $("link-text").textContent = texts[state];
  if (state === "live") refresh("status", "trials");
  if (state === "closed") closed();
}

function closed() {
  $("token-form").hidden = false;
  document.querySelector("main").hidden = true;
  $("standing").textContent = "reading needs a token";
  $("token").focus();
}

$("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  setToken($("token").value);
  try {
    await get("v1/status");
    location.reload();
  } catch {
    $("token-wrong").hidden = false;
  }
});

let widthBefore = document.documentElement.clientWidth;
addEventListener("resize", () => {
  if (document.documentElement.clientWidth === widthBefore) return; // a phone's address bar
  widthBefore = document.documentElement.clientWidth;
  known.version = null; // every picture is laid out for its width
  refresh("status", "trials");
});

whatIf.start();
refresh("status", "trials");
follow({ onEvents, onState });
setInterval(drawStanding, 1000);
setInterval(() => { if ($("link").dataset.state === "live" && !document.hidden) refresh("status"); }, 5000);
