"""The page's slider and the command give one answer to one question."""

import json
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from raysplit.http.face import HttpFace
from raysplit.http.options import HttpOptions
from raysplit.sweep.launch import read_service
from tests.cli.conftest import Command

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
def test_the_slider_and_the_command_agree(raysplit: Command, run_folder: Path) -> None:
    service = read_service(run_folder)
    service.law()
    server = HttpFace(HttpOptions()).serve(service)
    try:
        with sync_playwright() as running:
            browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            page.goto(server.url)
            page.wait_for_selector("#answer[data-answer]")
            with page.expect_response(lambda answer: "/page/advice" in answer.url):
                page.locator("#budget-slider").fill("10")
            page.wait_for_selector(".answer:not([aria-busy])")
            shown = json.loads(page.get_attribute("#answer", "data-answer") or "")
            budget_flops = page.input_value("#budget-flops")
            browser.close()
    finally:
        server.close()
    assert float(budget_flops) == pytest.approx(1e9 * 10**0.5, rel=0.01)
    asked = json.loads(raysplit("advise", run_folder, "--budget-flops", budget_flops, "--json").stdout)
    assert shown == {**asked["split"], "loss": asked["loss"]["mean"]}
