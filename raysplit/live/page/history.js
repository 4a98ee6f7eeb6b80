// How the advised share moved: one step for each law.

import { percent } from "./format.js";
import { band, make, path, scale, ticks } from "./svg.js";

export function drawHistory(element, steps) {
  if (!steps.length) return;
  const width = Math.max(280, element.clientWidth);
  const height = 210;
  const inner = { left: 44, right: 14, top: 14, bottom: 36 };
  const ordered = [...steps].sort((a, b) => a.n_observations - b.n_observations || a.version - b.version);
  const shares = ordered.map((step) => step.pretrain_share);
  const all = shares.flatMap((s) => [s.low, s.high, s.mean]);
  const pad = Math.max(0.02, 0.12 * (Math.max(...all) - Math.min(...all)));
  const low = Math.max(0, Math.min(...all) - pad);
  const high = Math.min(1, Math.max(...all) + pad);
  const known = ordered.map((step) => step.n_observations);
  const [first, last] = [known[0], known.at(-1)];
  const x = scale(first === last ? [first - 1, last] : [first, last], [inner.left, width - inner.right]);
  const y = scale([low, high], [height - inner.bottom, inner.top]);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img" });
  svg.setAttribute("aria-label", `Share in pretraining, law by law: ${shares.map((s) => percent(s.mean)).join(", ")}`);
  for (const tick of ticks(low, high, 4)) {
    svg.append(
      make("line", { class: "grid", x1: inner.left, x2: width - inner.right, y1: y(tick), y2: y(tick) }),
      make("text", { class: "tick", x: inner.left - 8, y: y(tick) + 4, "text-anchor": "end" }, percent(tick)),
    );
  }
  for (const [value, anchor] of first === last ? [[last, "end"]] : [[first, "start"], [last, "end"]]) {
    svg.append(make("text", { class: "tick", x: x(value), y: height - inner.bottom + 18, "text-anchor": anchor }, String(value)));
  }
  svg.append(make("text", { class: "axis", x: (inner.left + width - inner.right) / 2, y: height - 3, "text-anchor": "middle" }, "observations that the law knew"));
  const xs = known.map(x);
  svg.append(
    make("path", { class: "band", d: band(xs, shares.map((s) => y(s.low)), shares.map((s) => y(s.high))) }),
    make("path", { class: "line", d: path(xs, shares.map((s) => y(s.mean))) }),
  );
  shares.forEach((share, k) => {
    const isLast = k === shares.length - 1;
    if (isLast || shares.length <= 16) {
      svg.append(make("line", { class: "whisker", x1: xs[k], x2: xs[k], y1: y(share.low), y2: y(share.high) }));
    }
    svg.append(make("circle", { class: isLast ? "best" : "step", cx: xs[k], cy: y(share.mean), r: isLast ? 5 : 2.5 },
      make("title", {}, `law ${ordered[k].version}, ${known[k]} observations: ${percent(share.mean)} (${percent(share.low)} to ${percent(share.high)})`)));
  });
  element.replaceChildren(svg);
}
