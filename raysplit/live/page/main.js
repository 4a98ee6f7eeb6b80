// The page: ask once for everything, then again for what an event of the journal may have changed.

import { Refused, follow, get, setToken } from "./api.js";
import * as whatIf from "./ask.js";
import { count, flops, loss, percent, seconds } from "./format.js";
import { drawHistory } from "./history.js";
import { drawBar } from "./split.js";
import { domainClass, html, make } from "./svg.js";
import { STATES, drawTree, say } from "./tree.js";

const $ = (id) => document.getElementById(id);

const known = { steps: [], stops: [], status: null, statusAt: 0, advice: null, trials: [] };
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
  const [live, steps] = await Promise.all([get("v1/advise"), get("v1/history")]);
  Object.assign(known, { advice: live.advice, version: live.law.version, steps });
  drawNow(live.advice, live.law);
  drawHistory($("moved"), steps);
  drawStanding();
  await whatIf.setTarget(live);
}

async function askTrials() {
  [known.trials, known.stops] = await Promise.all([get("v1/trials"), get("v1/endings")]);
  drawTrials();
  drawStops();
  drawBudget();
}

function domains() {
  if (known.advice) return Object.keys(known.advice.weights);
  return [...new Set(known.trials.map((trial) => trial.domain).filter(Boolean))].sort();
}

function drawNow(advice, law) {
  $("law-line").textContent = `Law ${law.version}, fitted to ${law.n_observations} observations at ${new Date(law.fitted_at).toLocaleString()}; ${law.forms.join(", ")}${law.settled ? "" : "; provisional: forms and calibration are those of an earlier law"}`;
  $("no-law").hidden = true;
  $("now").hidden = false;
  const share = advice.pretrain_share;
  $("share").textContent = percent(share.mean);
  $("share-range").textContent = `${percent(advice.level)} interval ${percent(share.low)} to ${percent(share.high)}; from ${percent(advice.flat[0])} to ${percent(advice.flat[1])} costs at most 0.5\u202f% more loss`;
  const facts = [
    ["model size", `${count(advice.split.n_params)}`, `best in ${percent(advice.sizes.find((s) => s.split.n_params === advice.split.n_params).probability)} of draws`],
    ["pretrain on", count(advice.split.pretrain_tokens), "tokens of the mixture"],
    ["for a budget of", flops(advice.budget_flops), `FLOPs, ${advice.accounting === "shared" ? "one seed for all experts" : "each expert alone"}`],
    ["expected regret", percent(advice.expected_regret, 2), "of the loss"],
  ];
  $("facts").replaceChildren(...facts.map(([name, value, more]) => html("div", {}, html("dt", {}, name), html("dd", {}, html("b", {}, value), ` ${more}`))));
  const names = domains();
  drawBar($("bar"), advice.split, names);
  const cell = (text, attributes = {}) => html("td", attributes, text);
  $("domains").replaceChildren(
    html("thead", {}, html("tr", {}, ...["domain", "weight", "specialize on", "loss", `${percent(advice.level)} interval`].map((t) => html("th", { scope: "col" }, t)))),
    html("tbody", {}, ...names.map((name) => html("tr", {},
      html("th", { scope: "row" }, html("span", { class: `swatch ${domainClass(names, name)}` }), name),
      cell(advice.weights[name].toFixed(2)), cell(count(advice.split.specialize_tokens[name])), cell(loss(advice.losses[name].mean)),
      cell(`${loss(advice.losses[name].low)} to ${loss(advice.losses[name].high)}`),
    ))),
  );
  $("warnings").replaceChildren(...advice.warnings.map((text) => html("li", {}, text)));
}

function drawStanding() {
  const { status, statusAt } = known;
  if (!status) return;
  const law = status.law;
  const age = law ? law.age_seconds + (performance.now() - statusAt) / 1000 : 0;
  const behind = law ? status.n_observations - law.n_observations : 0;
  const parts = [status.finished ? "ended" : status.round ? `round ${status.round}` : "not begun", `${status.n_observations} observations`];
  parts.push(law ? `law ${law.version}, ${seconds(age)} old${behind > 0 ? `, ${behind} not yet in it` : ""}` : "no law yet");
  $("standing").textContent = parts.join(" · ");
  document.title = known.advice ? `${percent(known.advice.pretrain_share.mean)} · raysplit` : "raysplit";
  $("trouble").hidden = !status.trouble;
  $("trouble").textContent = status.trouble;
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

function drawTrials() {
  const names = domains();
  drawTree($("tree"), known.trials, names, (trial) => { $("tree-detail").textContent = say(trial); });
  const entry = (name, ...marks) => {
    const key = make("svg", { class: "key-mark", width: 22, height: 14, viewBox: "0 0 22 14", "aria-hidden": "true" }, ...marks);
    return html("li", {}, key, name);
  };
  const mark = (look, dot) => make("g", { class: `trial ${look}` }, make("circle", { class: `dot ${dot}`, cx: 11, cy: 7, r: dot === "open" ? 2.5 : 3.5 }));
  $("tree-legend").replaceChildren(
    ...names.map((name) => entry(name, make("g", { class: `trial ${domainClass(names, name)}` }, make("line", { class: "trained", x1: 2, x2: 20, y1: 7, y2: 7 })))),
    entry("measured", mark("trunk", "measured")), entry("under way", mark("trunk running", "under-way")), entry("planned", mark("trunk planned", "open")),
    entry("stopped or failed", make("g", { class: "trial trunk stopped" }, make("path", { class: "cross", d: "M8 4l6 6m0 -6l-6 6" }))),
  );
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
  drawHistory($("moved"), known.steps);
  if (known.trials.length) drawTrials();
});

whatIf.start();
refresh("status", "trials");
follow({ onEvents, onState });
setInterval(drawStanding, 1000);
setInterval(() => { if ($("link").dataset.state === "live" && !document.hidden) refresh("status"); }, 5000);
