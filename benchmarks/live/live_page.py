"""The page of a live law: how fast it loads, and what it looks like in mid-sweep.

Replays a sweep of the measured surface behind the page, in a real headless Chromium, and takes screenshots.

    .venv/bin/python benchmarks/live/live_page.py --out benchmarks/results/2026-11-24-live
"""

import argparse
import io
import shutil
import statistics
import sys
import tempfile
import threading
from contextlib import closing
from functools import partial
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from raysplit.http.server import serve_in_thread
from raysplit.journal import Journal
from raysplit.live.fitted import FitTarget
from raysplit.live.fitting import FitterHere
from raysplit.live.laws_behind import LawsBehind
from raysplit.live.observations import ObservationTable
from raysplit.live.run_setup import RunSetup
from raysplit.live.service import LawService
from raysplit.runs import read_runs
from raysplit.sweep.replay import Losses, replay, setup_of_table, table_losses

SURFACE = Path(__file__).parents[1] / "data" / "surface-2026-11-23.csv"
VIEWS = {"desktop": (1280, 900, "light"), "dark": (1280, 900, "dark"), "phone": (390, 844, "light")}
LOADS = 15


def slowly(losses: Losses, pause: threading.Event, seconds: float) -> Losses:
    """The same losses, each after a while, as training would give them."""

    def look_up(trial, milestone):  # type: ignore[no-untyped-def]
        pause.wait(seconds)
        return losses(trial, milestone)

    return look_up


def load_seconds(browser: Browser, url: str) -> tuple[list[float], list[float]]:
    """Seconds to the page's own load event, and until the split and the curve are drawn; each from an empty cache."""
    loads, drawn = [], []
    for _ in range(LOADS):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector("#curve svg")
        loads.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000)
        drawn.append(page.evaluate("performance.now()") / 1000)
        context.close()
    return loads, drawn


def fit_here(table: ObservationTable, target: FitTarget, niceness: int) -> FitterHere:
    """There is no Ray here: the fits share this process."""
    return FitterHere(table, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Folder for the screenshots; none are taken without it.")
    parser.add_argument("--seconds", type=float, default=0.15, help="That each measurement of the replay takes.")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no chromium on the PATH")
    runs = read_runs(SURFACE)
    setup = setup_of_table(runs, budget_flops=1.5e12, sweep_budget_flops=9e12, regret_tolerance=3e-4, lanes=2)
    hurry = threading.Event()
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Journal(Path(folder) / "journal.jsonl")) as journal,
        sync_playwright() as playwright,
    ):
        per_token = dict.fromkeys(setup.domains, 1.0)
        service = LawService(
            RunSetup(setup=setup, bytes_per_token=per_token),
            journal,
            make_laws=partial(LawsBehind, make_fitter=fit_here),
        )
        server = serve_in_thread(service)
        losses = slowly(table_losses(runs, setup.domains), hurry, options.seconds)
        sweep = threading.Thread(target=replay, args=(service, losses), daemon=True)
        sweep.start()
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        watching = browser.new_page()
        watching.goto(server.url)
        watching.locator("#moved svg circle").nth(5).wait_for(timeout=300_000)  # it has moved
        watching.locator("#stopped li").nth(4).wait_for(timeout=300_000)
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            for name, (width, height, scheme) in VIEWS.items():
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
                page.goto(server.url)
                page.wait_for_selector("#curve svg", timeout=60_000)
                page.wait_for_selector("#tree svg")
                page.wait_for_timeout(700)  # the bars' transition
                picture = Image.open(io.BytesIO(page.screenshot(full_page=True)))
                picture.quantize(128).save(options.out / f"page-{name}.png", optimize=True)  # a third of the size
                page.close()
        hurry.set()
        sweep.join()
        loads, drawn = load_seconds(browser, server.url)
        print(f"load event       median {statistics.median(loads):.3f} s, worst of {LOADS} {max(loads):.3f} s")
        print(f"split and curve  median {statistics.median(drawn):.3f} s, worst of {LOADS} {max(drawn):.3f} s")
        browser.close()
        server.close()
        service.close()


if __name__ == "__main__":
    main()
