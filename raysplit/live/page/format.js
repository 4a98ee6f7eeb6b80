// Numbers as raysplit's other faces write them (raysplit/quantities.py).

export function count(value) {
  for (const [scale, suffix] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= 0.9995 * scale) return significant(value / scale) + suffix;
  }
  return significant(value);
}

export function flops(value) {
  const [mantissa, exponent] = value.toExponential(2).split("e");
  return `${mantissa}e${Number(exponent)}`;
}

export function percent(share, digits = 0) {
  return `${(100 * share).toFixed(digits)}%`;
}

export function loss(value) {
  return value.toFixed(4);
}

export function seconds(value) {
  const whole = Math.round(value);
  if (whole < 60) return `${whole}\u202fs`;
  if (whole < 3600) return `${Math.floor(whole / 60)}\u202fmin`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}\u202fh ${Math.floor((whole % 3600) / 60)}\u202fmin`;
  return `${Math.floor(whole / 86400)}\u202fd ${Math.floor((whole % 86400) / 3600)}\u202fh`;
}

// A number as people write them: 3e21, 250k, 7B. NaN for anything else.
export function parse(text) {
  const found = /^\s*(\d[\d_]*\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)\s*([kKmMbBgGtTpPE]?)\s*$/.exec(text);
  const scales = { "": 1, k: 1e3, m: 1e6, b: 1e9, g: 1e9, t: 1e12, p: 1e15, e: 1e18 };
  return found ? Number(found[1].replaceAll("_", "")) * scales[found[2].toLowerCase()] : NaN;
}

function significant(value) {
  return value === 0 ? "0" : String(Number(value.toPrecision(3)));
}
