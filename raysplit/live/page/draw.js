// Pictures: specifications that the server made (raysplit/pictures), drawn by Vega. Its `ast` mode reads expressions without
// `eval`, which the page's Content-Security-Policy forbids.

let vega = null; // asked for by the first picture, so that the rest of the page comes before it
const OPTIONS = { ast: true, renderer: "svg", actions: false, tooltip: false, defaultStyle: false };
const drawn = new WeakMap();

// Draw into an element, unless the same picture is there already. `onTrial` hears the words of the trial that one points at.
export async function draw(element, picture, onTrial) {
  const text = JSON.stringify(picture);
  if (drawn.get(element)?.text === text) return;
  const before = drawn.get(element)?.result;
  const mine = { text };
  drawn.set(element, mine);
  await (vega ??= import("./vega.js"));
  const fresh = document.createElement("div");
  mine.result = await window.vegaEmbed(fresh, picture, OPTIONS);
  await mine.result.view.runAsync();
  if (drawn.get(element) !== mine) return mine.result.finalize(); // a newer one has been asked for
  const focused = document.activeElement?.dataset?.trial;
  element.replaceChildren(fresh);
  before?.finalize();
  if (onTrial) makeWalkable(element, focused, onTrial);
}

export function widthOf(element) {
  return Math.max(300, Math.round(element.clientWidth));
}

// One stop for Tab; arrows go to the nearest trial in their direction.
function makeWalkable(element, focused, onTrial) {
  const trials = [...element.querySelectorAll("[aria-roledescription=trial]")];
  if (!trials.length) return;
  for (const trial of trials) {
    const words = trial.getAttribute("aria-label");
    trial.dataset.trial = words.slice(0, words.indexOf(":"));
    trial.setAttribute("tabindex", "-1");
    trial.setAttribute("role", "img");
    for (const event of ["focus", "pointerenter"]) trial.addEventListener(event, () => onTrial(words));
  }
  const first = trials.find((trial) => trial.dataset.trial === focused) ?? trials[0];
  first.setAttribute("tabindex", "0");
  element.firstChild.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const here = event.target.closest("[aria-roledescription=trial]");
    if (!way || !here) return;
    event.preventDefault();
    const next = nearest(trials, here, way);
    if (!next) return;
    here.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  });
  if (focused && first.dataset.trial === focused) first.focus({ preventScroll: true });
}

function nearest(trials, here, [right, down]) {
  const foot = (trial) => {
    const box = trial.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height];
  };
  const [x, y] = foot(here);
  let best = null;
  let least = Infinity;
  for (const trial of trials) {
    const [tx, ty] = foot(trial);
    const along = (tx - x) * right + (ty - y) * down;
    const far = along + 3 * (Math.abs((tx - x) * down) + Math.abs((ty - y) * right));
    if (trial !== here && along > 2 && far < least) [best, least] = [trial, far];
  }
  return best;
}
