// The tree of trials: a trunk a row, branches rising from where they leave it, a dot for each measurement.

import { count, loss as written } from "./format.js";
import { domainClass, make } from "./svg.js";

const STATES = ["planned", "running", "done", "stopped", "failed"];

export function drawTree(element, trials, domains, onFocus) {
  const rows = new Map();
  for (const trial of trials) {
    const key = `${trial.n_params}|${trial.seed}`;
    if (!rows.has(key)) rows.set(key, { n_params: trial.n_params, seed: trial.seed, trunk: null, branches: [] });
    const row = rows.get(key);
    if (trial.domain) row.branches.push(trial);
    else row.trunk = trial;
  }
  const sorted = [...rows.values()].sort((a, b) => b.n_params - a.n_params || a.seed - b.seed);
  const columns = [...new Set(trials.flatMap((t) => (t.domain ? [t.pretrain_tokens] : t.milestones)))].sort((a, b) => a - b);
  const heights = [...new Set(trials.filter((t) => t.domain).flatMap((t) => t.milestones))].sort((a, b) => a - b);

  const focused = document.activeElement?.dataset?.trial;
  const width = Math.max(320, element.clientWidth);
  const left = width < 560 ? 44 : 64;
  const step = (width - left - 12) / Math.max(1, columns.length);
  const gap = Math.min(11, (step - 10) / Math.max(1, domains.length));
  const rise = 11;
  const x = (tokens) => left + (columns.indexOf(tokens) + 0.5) * step;
  let top = 8;
  const svg = make("svg", { role: "group", "aria-label": `${trials.length} trials` });
  for (const row of sorted) {
    const tall = Math.max(0, ...row.branches.map((b) => Math.max(...b.milestones.map((m) => heights.indexOf(m) + 1))));
    const base = top + tall * rise + 12;
    const label = make("text", { class: "row-label", x: 0, y: base + 4 }, count(row.n_params));
    svg.append(label);
    if (row.seed) svg.append(make("text", { class: "tick", x: 0, y: base + 18 }, `seed ${row.seed}`));
    if (row.trunk) svg.append(trunkOf(row.trunk, x, base, left));
    for (const branch of row.branches.sort((a, b) => a.pretrain_tokens - b.pretrain_tokens || domains.indexOf(a.domain) - domains.indexOf(b.domain))) {
      const k = domains.indexOf(branch.domain);
      const at = x(branch.pretrain_tokens) + (k - (domains.length - 1) / 2) * gap;
      svg.append(branchOf(branch, domainClass(domains, branch.domain), at, base, heights, rise));
    }
    top = base + 18;
  }
  for (const tokens of columns) {
    svg.append(make("text", { class: "tick", x: x(tokens), y: top + 8, "text-anchor": "middle" }, count(tokens)));
  }
  svg.append(make("text", { class: "axis", x: (left + width) / 2, y: top + 28, "text-anchor": "middle" }, "D, tokens of pretraining"));
  const height = top + 36;
  for (const [key, value] of Object.entries({ viewBox: `0 0 ${width} ${height}`, width, height })) svg.setAttribute(key, value);
  element.replaceChildren(svg);
  makeWalkable(svg, trials, focused, onFocus);
}

function trunkOf(trial, x, base, left) {
  const group = node(trial, "trunk");
  const last = trial.milestones.at(-1);
  const reached = Math.max(...trial.milestones.filter((m) => m in trial.losses), -1);
  group.append(make("line", { class: "way", x1: left, x2: x(last), y1: base, y2: base }));
  if (reached >= 0) group.append(make("line", { class: "trained", x1: left, x2: x(reached), y1: base, y2: base }));
  for (const m of trial.milestones) group.append(dot(trial, m, x(m), base, 3.5));
  group.append(make("line", { class: "hit", x1: left, x2: x(last), y1: base, y2: base }));
  return group;
}

function branchOf(trial, look, at, base, heights, rise) {
  const group = node(trial, look);
  const y = (m) => base - 8 - (heights.indexOf(m) + 0.5) * rise;
  const last = trial.milestones.at(-1);
  const reached = Math.max(...trial.milestones.filter((m) => m in trial.losses), -1);
  group.append(make("line", { class: "way", x1: at, x2: at, y1: base - 3, y2: y(last) }));
  if (reached >= 0) group.append(make("line", { class: "trained", x1: at, x2: at, y1: base - 3, y2: y(reached) }));
  for (const m of trial.milestones) group.append(dot(trial, m, at, y(m), 3));
  group.append(make("line", { class: "hit", x1: at, x2: at, y1: base - 6, y2: y(last) - 4 }));
  return group;
}

function node(trial, look) {
  const group = make("g", { class: `trial ${look} ${trial.state}`, tabindex: -1, role: "img", "aria-label": say(trial) });
  group.dataset.trial = trial.name;
  return group;
}

function dot(trial, milestone, cx, cy, r) {
  const measured = milestone in trial.losses;
  const next = trial.milestones.find((m) => !(m in trial.losses));
  if (!measured && milestone === next && (trial.state === "stopped" || trial.state === "failed")) {
    return make("path", { class: "cross", d: `M${cx - 3} ${cy - 3}l6 6m0 -6l-6 6` });
  }
  const running = !measured && milestone === next && trial.state === "running";
  return make("circle", { class: `dot ${measured ? "measured" : running ? "under-way" : "open"}`, cx, cy, r: measured || running ? r : r - 1 });
}

export function say(trial) {
  const where = trial.domain
    ? `${trial.domain} after ${count(trial.pretrain_tokens)} tokens of pretraining`
    : "trunk";
  const measured = trial.milestones.filter((m) => m in trial.losses);
  const parts = [`${count(trial.n_params)}${trial.seed ? `, seed ${trial.seed}` : ""}, ${where}: ${trial.state}`];
  parts.push(`${measured.length} of ${trial.milestones.length} points measured`);
  if (measured.length) {
    const m = measured.at(-1);
    const values = Object.entries(trial.losses[m]);
    const what = trial.domain ? written(trial.losses[m][trial.domain] ?? values[0][1]) : values.map(([name, value]) => `${name} ${written(value)}`).join(", ");
    parts.push(`at ${count(m)} tokens ${what}`);
  }
  if (trial.why) parts.push(trial.why);
  return `${parts.join("; ")}.`;
}

// One stop for Tab; arrows go to the nearest trial in their direction.
function makeWalkable(svg, trials, focused, onFocus) {
  const groups = [...svg.querySelectorAll(".trial")];
  if (!groups.length) return;
  const byName = new Map(trials.map((trial) => [trial.name, trial]));
  const first = groups.find((g) => g.dataset.trial === focused) ?? groups[0];
  first.setAttribute("tabindex", "0");
  const middle = (group) => {
    const box = group.getBBox();
    return [box.x + box.width / 2, box.y + box.height];
  };
  for (const group of groups) {
    const tell = () => onFocus(byName.get(group.dataset.trial));
    group.addEventListener("focus", tell);
    group.addEventListener("pointerenter", tell);
  }
  svg.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const here = event.target.closest(".trial");
    if (!way || !here) return;
    event.preventDefault();
    const [cx, cy] = middle(here);
    let best = null;
    let least = Infinity;
    for (const group of groups) {
      const [gx, gy] = middle(group);
      const along = (gx - cx) * way[0] + (gy - cy) * way[1];
      const aside = Math.abs((gx - cx) * way[1]) + Math.abs((gy - cy) * way[0]);
      const far = along + 3 * aside;
      if (group !== here && along > 2 && far < least) [best, least] = [group, far];
    }
    if (!best) return;
    here.setAttribute("tabindex", "-1");
    best.setAttribute("tabindex", "0");
    best.focus();
  });
  if (focused && first.dataset.trial === focused) first.focus({ preventScroll: true });
}

export { STATES };
