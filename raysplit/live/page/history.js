// How the advised share moved: one step for each advice that the journal tells of.

import { flops, percent } from "./format.js";
import { band, make, path, scale, ticks } from "./svg.js";

export function drawHistory(element, advices) {
  if (!advices.length) {
    const none = document.createElement("p");
    none.className = "quiet empty";
    none.textContent = "The first answer comes after the opening round.";
    element.replaceChildren(none);
    return;
  }
  const width = Math.max(280, element.clientWidth);
  const height = 200;
  const inner = { left: 44, right: 14, top: 14, bottom: 36 };
  const data = advices.map((a) => a.pretrain_share);
  const all = data.flatMap((d) => [d.low, d.high, d.mean]);
  const pad = Math.max(0.02, 0.15 * (Math.max(...all) - Math.min(...all)));
  const low = Math.max(0, Math.min(...all) - pad);
  const high = Math.min(1, Math.max(...all) + pad);
  const spent = advices.map((a) => a.spent_flops);
  const x = scale([Math.min(0, ...spent), Math.max(...spent)], [inner.left, width - inner.right]);
  const y = scale([low, high], [height - inner.bottom, inner.top]);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img" });
  svg.setAttribute("aria-label", `Share in pretraining over time: ${data.map((d) => percent(d.mean)).join(", ")}`);
  for (const tick of ticks(low, high, 4)) {
    svg.append(
      make("line", { class: "grid", x1: inner.left, x2: width - inner.right, y1: y(tick), y2: y(tick) }),
      make("text", { class: "tick", x: inner.left - 8, y: y(tick) + 4, "text-anchor": "end" }, percent(tick)),
    );
  }
  svg.append(
    make("text", { class: "tick", x: inner.left, y: height - inner.bottom + 18 }, "0"),
    make("text", { class: "tick", x: width - inner.right, y: height - inner.bottom + 18, "text-anchor": "end" }, flops(Math.max(...spent))),
    make("text", { class: "axis", x: (inner.left + width - inner.right) / 2, y: height - 3, "text-anchor": "middle" }, "FLOPs trained by the sweep"),
  );
  // An answer holds until the next one.
  const xs = [], means = [], lows = [], highs = [];
  data.forEach((d, k) => {
    const until = k + 1 < data.length ? spent[k + 1] : spent[k];
    for (const at of [spent[k], until]) {
      xs.push(x(at));
      means.push(y(d.mean));
      lows.push(y(d.low));
      highs.push(y(d.high));
    }
  });
  svg.append(make("path", { class: "band", d: band(xs, lows, highs) }), make("path", { class: "line", d: path(xs, means) }));
  data.forEach((d, k) => {
    svg.append(
      make("line", { class: "whisker", x1: x(spent[k]), x2: x(spent[k]), y1: y(d.low), y2: y(d.high) }),
      make("circle", { class: k === data.length - 1 ? "best" : "step", cx: x(spent[k]), cy: y(d.mean), r: k === data.length - 1 ? 5 : 3.5 },
        make("title", {}, `${percent(d.mean)} (${percent(d.low)} to ${percent(d.high)}) after ${advices[k].n_observations} observations`)),
    );
  });
  element.replaceChildren(svg);
}
