// The best loss against D / T, its interval, the measured splits, and the advised one.

import { loss as written, percent } from "./format.js";
import { band, make, path, scale, ticks } from "./svg.js";

export function drawCurve(element, curve, advice) {
  const width = Math.max(300, element.clientWidth);
  const height = Math.round(Math.min(340, Math.max(230, width * 0.5)));
  const inner = { left: 46, right: 10, top: 10, bottom: 36 };
  const share = advice.pretrain_share.mean;
  // Near D = 0 the loss can be many times that of the best split: what matters lies below twice the usual rise.
  const least = Math.min(...curve.low);
  const sorted = [...curve.loss].sort((a, b) => a - b);
  const rise = Math.max(sorted[Math.floor(0.85 * (sorted.length - 1))] - sorted[0], 0.02 * sorted[0]);
  const top = sorted[0] + 1.35 * rise;
  const low = Math.min(least, ...curve.points.map((p) => p[1])) - 0.08 * rise;
  const x = scale([0, 1], [inner.left, width - inner.right]);
  const y = scale([low, top], [height - inner.bottom, inner.top]);
  const clamped = (value) => Math.max(inner.top - 40, y(value));

  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img" });
  svg.setAttribute("aria-label", `Weighted loss by share in pretraining: lowest ${written(sorted[0])} at ${percent(share)}`);
  svg.append(make("clipPath", { id: "curve-inside" }, make("rect", {
    x: inner.left, y: inner.top, width: width - inner.left - inner.right, height: height - inner.top - inner.bottom,
  })));
  for (const tick of ticks(low, top, 5)) {
    svg.append(
      make("line", { class: "grid", x1: inner.left, x2: width - inner.right, y1: y(tick), y2: y(tick) }),
      make("text", { class: "tick", x: inner.left - 8, y: y(tick) + 4, "text-anchor": "end" }, tick.toFixed(2)),
    );
  }
  for (const tick of width < 480 ? [0, 0.25, 0.5, 0.75, 1] : [0, 0.2, 0.4, 0.6, 0.8, 1]) {
    svg.append(make("text", { class: "tick", x: x(tick), y: height - inner.bottom + 18, "text-anchor": tick === 1 ? "end" : "middle" }, percent(tick)));
  }
  svg.append(make("text", { class: "axis", x: x(0.5), y: height - 3, "text-anchor": "middle" }, "share of the tokens in pretraining, D / T"));
  const marks = make("g", { "clip-path": "url(#curve-inside)" });
  const [from, to] = advice.flat;
  const xs = curve.shares.map(x);
  marks.append(
    make("rect", { class: "flat", x: x(from), y: inner.top, width: Math.max(1, x(to) - x(from)), height: height - inner.top - inner.bottom }),
    make("path", { class: "band", d: band(xs, curve.low.map(clamped), curve.high.map(clamped)) }),
    make("path", { class: "line", d: path(xs, curve.loss.map(clamped)) }),
    ...curve.moved.map(([at, value]) => make("circle", { class: "moved", cx: x(at), cy: y(value), r: 3 })),
    ...curve.points.map(([at, value]) => make("circle", { class: "point", cx: x(at), cy: y(value), r: 4 },
      make("title", {}, `measured: ${written(value)} at ${percent(at)}`))),
  );
  svg.append(marks);
  const at = advice.loss.mean;
  svg.append(
    make("line", { class: "best-line", x1: x(share), x2: x(share), y1: y(at), y2: height - inner.bottom }),
    make("circle", { class: "best", cx: x(share), cy: y(at), r: 5.5 }),
  );
  const right = share > 0.62;
  svg.append(make("text", { class: "best-label", x: x(share) + (right ? -10 : 10), y: y(at) - 12, "text-anchor": right ? "end" : "start" }, `${percent(share)}, ${written(at)}`));
  element.replaceChildren(svg, legend(curve));
}

function legend(curve) {
  const list = document.createElement("ul");
  list.className = "legend";
  const entries = [
    ["key-band", `the law, ${percent(curve.level)} interval`],
    ["key-flat", "at most 0.5\u202f% more loss"],
  ];
  if (curve.points.length) entries.push(["key-point", "measured splits of this budget"]);
  if (curve.moved.length) entries.push(["key-moved", "runs of this size, moved to this budget by the law"]);
  if (entries.length === 2) entries.push(["", "nothing measured at this size yet"]);
  for (const [look, text] of entries) {
    const item = document.createElement("li");
    const key = document.createElement("span");
    key.className = `key ${look}`;
    item.append(key, text);
    list.append(item);
  }
  return list;
}
