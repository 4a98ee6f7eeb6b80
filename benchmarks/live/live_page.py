"""How fast does the page of a live law load, and what does it look like in mid-sweep?

    .venv/bin/python benchmarks/live/live_page.py --out benchmarks/results/2026-11-30-page

It replays a sweep of the measured surface behind the page, loads the page in a real headless Chromium, and takes
screenshots into OUT (none without it). It prints the median and the worst of all loads: seconds until the load event
and until the pictures are drawn, seconds of CPU, and kB read.
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

from raysplit.http.face import HttpFace
from raysplit.http.options import HttpOptions
from raysplit.journal import Journal
from raysplit.live.fitted import FitTarget
from raysplit.live.fitting import FitterHere
from raysplit.live.laws_behind import LawsBehind
from raysplit.live.observations import ObservationTable
from raysplit.live.run_spec import RunSpec
from raysplit.live.service import LawService
from raysplit.runs import read_runs
from raysplit.sweep.replay import Losses, replay, spec_of_table, table_losses

SURFACE = Path(__file__).parents[1] / "data" / "surface-2026-11-23.csv"
VIEWS = {"desktop": (1280, 900, "light"), "dark": (1280, 900, "dark"), "phone": (390, 844, "light")}
LOADS = 15


def slowly(losses: Losses, pause: threading.Event, seconds: float) -> Losses:
    """The same losses, each after a while, as training would give them."""

    def look_up(trial, milestone):  # type: ignore[no-untyped-def]
        pause.wait(seconds)
        return losses(trial, milestone)

    return look_up


def loads_of(browser: Browser, url: str) -> list[tuple[float, float, float, float]]:
    """For each load from an empty cache: seconds to the load event, and to the last picture; the main thread's CPU
    seconds by then, which other work on the machine changes little; kB that came.
    """
    found = []
    for _ in range(LOADS):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        chrome, n_bytes = context.new_cdp_session(page), [0.0]
        chrome.on("Network.loadingFinished", lambda event, to=n_bytes: to.append(event["encodedDataLength"]))
        chrome.send("Network.enable")
        chrome.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(url)
        for picture in ("#curve svg", "#moved svg", "#tree svg"):
            page.wait_for_selector(picture)
        load = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000
        drawn = page.evaluate("performance.now()") / 1000
        metrics = {each["name"]: each["value"] for each in chrome.send("Performance.getMetrics")["metrics"]}
        found.append((load, drawn, metrics["TaskDuration"], sum(n_bytes) / 1000))
        context.close()
    return found


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
    spec = spec_of_table(runs, budget_flops=1.5e12, sweep_budget_flops=9e12, regret_tolerance=3e-4, lanes=2)
    hurry = threading.Event()
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(Journal(Path(folder) / "journal.jsonl")) as journal,
        sync_playwright() as playwright,
    ):
        per_token = dict.fromkeys(spec.domains, 1.0)
        service = LawService(
            RunSpec(spec=spec, bytes_per_token=per_token),
            journal,
            make_laws=partial(LawsBehind, make_fitter=fit_here),
        )
        server = HttpFace(HttpOptions()).serve(service)
        losses = slowly(table_losses(runs, spec.domains), hurry, options.seconds)
        sweep = threading.Thread(target=replay, args=(service, losses), daemon=True)
        sweep.start()
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        watching = browser.new_page()
        watching.goto(server.url)
        while len(service.laws()) < 6:  # until the advice has moved
            hurry.wait(0.2)
        watching.locator("#stopped li").nth(4).wait_for(timeout=300_000)
        if options.out is not None:
            options.out.mkdir(parents=True, exist_ok=True)
            for name, (width, height, scheme) in VIEWS.items():
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
                page.goto(server.url)
                page.wait_for_selector("#curve svg", timeout=60_000)
                page.wait_for_selector("#moved svg")
                page.wait_for_selector("#tree svg")
                page.wait_for_timeout(700)  # the bars' transition
                picture = Image.open(io.BytesIO(page.screenshot(full_page=True)))
                picture.quantize(128).save(options.out / f"page-{name}.png", optimize=True)  # a third of the size
                page.close()
        hurry.set()
        sweep.join()
        names = ("load event, s", "pictures drawn, s", "of CPU, s", "kB")
        for name, values in zip(names, zip(*loads_of(browser, server.url), strict=True), strict=True):
            print(f"{name:<18} median {statistics.median(values):.3f}, worst of {LOADS} {max(values):.3f}")
        browser.close()
        server.close()
        service.close()


if __name__ == "__main__":
    main()
