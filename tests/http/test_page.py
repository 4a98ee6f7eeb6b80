"""The page in a real headless browser, before a sweep that goes on behind it; skipped where there is no Chromium."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from raysplit.http.face import HttpFace
from raysplit.http.options import HttpOptions
from raysplit.http.serving import Server
from raysplit.live.service import LawService
from raysplit.pictures.tree import say
from raysplit.quantities import format_count
from tests.http.served import ASKED, TOKEN, measure, opened

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as running:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = running.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[LawService]:
    with opened(tmp_path / "journal.jsonl") as service:
        yield service


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must not complain, and that asks no other host for anything."""
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(20_000)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: complaints.append(asked.url) if "//127.0.0.1:" not in asked.url else None)
    yield page
    page.close()
    assert complaints == []


def answered(page: Page) -> dict[str, object]:
    """The what-if answer, once it has come."""
    page.wait_for_selector("#answer[data-answer]")
    page.wait_for_selector(".answer:not([aria-busy])")
    page.locator("#curve svg").wait_for()
    shown: dict[str, object] = json.loads(page.locator("#answer").get_attribute("data-answer") or "")
    return shown


def test_it_follows_a_sweep(service: LawService, server: Server, page: Page) -> None:
    page.goto(server.url)
    page.get_by_text("No law yet. The first").wait_for()
    measure(service, 6)
    page.wait_for_selector("#now:not([hidden])")
    page.get_by_text(f"{len(service.observations())} observations ·").wait_for()
    measure(service, 30)
    page.get_by_text(f"{len(service.observations())} observations ·").wait_for()
    for trial in service.trials():
        page.locator("#tree").get_by_role("img", name=say(trial), exact=True).wait_for(state="attached")
    share = service.advise().advice.pretrain_share.mean
    page.get_by_text(f"fitted to {len(service.observations())} observations").wait_for()
    assert (page.locator("#share").text_content() or "").startswith(f"{100 * share:.0f}")
    states = [trial.state for trial in service.trials()]
    assert page.locator("#counts .stopped dd").text_content() == str(states.count("stopped"))
    stops = [record for record in service.journal.records if record.kind == "stop"]
    assert stops
    assert page.locator("#stopped li").count() == len(stops)
    assert stops[-1].data["why"] in (page.locator("#stopped li").first.text_content() or "")
    drawn = page.request.get(f"{server.url}/page/moved?width=500").json()["vconcat"][0]["layer"][0]["data"]["values"]
    assert len(drawn) >= 2
    assert drawn[-1]["mean"] == share
    page.locator("#moved svg").wait_for()
    for name in ASKED.domains:
        tokens = service.advise().advice.split.specialize_tokens[name]
        assert format_count(tokens) in (page.locator("#domains tr", has_text=name).text_content() or "")


def test_sliders_ask_what_the_service_is_asked(service: LawService, server: Server, page: Page) -> None:
    measure(service, 12)
    page.goto(server.url)
    target = service.advise().advice
    assert answered(page)["pretrain_tokens"] == target.split.pretrain_tokens

    def set_to(selector: str, value: float) -> dict[str, object]:
        with page.expect_response(lambda answer: "/page/advice" in answer.url):
            page.locator(selector).fill(str(value))
        return answered(page)

    asked = service.advise(budget_flops=float(f"{target.budget_flops * 10**0.5:.2e}")).advice
    shown = set_to("#budget-slider", 10)
    assert shown["pretrain_tokens"] == asked.split.pretrain_tokens != target.split.pretrain_tokens
    assert shown["loss"] == asked.loss.mean
    weights = {name: 2.0 ** (k / 2) for k, name in enumerate(ASKED.domains)}
    asked = service.advise(budget_flops=asked.budget_flops, weights=weights).advice
    shown = set_to("#weight-1", 2)
    assert shown["specialize_tokens"] == pytest.approx(dict(asked.split.specialize_tokens))
    size = target.sizes[0].split.n_params
    asked = service.advise(budget_flops=asked.budget_flops, weights=weights, n_params=(size,)).advice
    shown = set_to("#size-slider", 1)
    assert shown["n_params"] == asked.split.n_params == size
    assert shown["loss"] == pytest.approx(asked.loss.mean)
    choices: dict[str, Literal["shared", "independent"]] = {"a seed each": "independent", "one seed": "shared"}
    for label, kind in choices.items():
        with page.expect_response(lambda answer: "/page/advice" in answer.url):
            page.get_by_text(label, exact=True).click()
        own = service.advise(budget_flops=asked.budget_flops, weights=weights, n_params=(size,), seeds=kind).advice
        assert answered(page)["loss"] == pytest.approx(own.loss.mean)
    with page.expect_response(lambda answer: "/page/advice" in answer.url):
        page.get_by_text("by each expert").click()
    each = service.advise(
        budget_flops=asked.budget_flops, weights=weights, n_params=(size,), accounting="per-expert"
    ).advice
    assert answered(page)["loss"] == pytest.approx(each.loss.mean)
    with page.expect_response(lambda answer: "/page/advice" in answer.url):
        page.locator("#reset").click()
    assert answered(page)["pretrain_tokens"] == target.split.pretrain_tokens


def test_a_budget_can_be_typed_and_nonsense_is_told(service: LawService, server: Server, page: Page) -> None:
    measure(service, 12)
    page.goto(server.url)
    answered(page)
    box = page.locator("#budget-flops")
    box.fill("much")
    box.press("Tab")
    page.get_by_text("a positive number such as 3e21").wait_for()
    with page.expect_response(lambda answer: "/page/advice" in answer.url):
        box.fill("3T")
        box.press("Tab")
    assert answered(page)["pretrain_tokens"] == service.advise(budget_flops=3e12).advice.split.pretrain_tokens
    assert box.input_value() == "3.00e12"


def test_it_can_be_worked_by_keyboard(service: LawService, server: Server, page: Page) -> None:
    measure(service, 12)
    page.goto(server.url)
    answered(page)
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.trial || ''"))
        if any(say(trial).startswith(f"{reached[-1]}:") for trial in service.trials()):
            break
    assert {"budget-flops", "budget-slider", "size-slider", "weight-0", "weight-1"} <= set(reached)
    before = page.locator("#tree-detail").text_content()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.dataset.trial") != reached[-1]
    assert page.locator("#tree-detail").text_content() != before
    page.locator("#budget-slider").focus()
    with page.expect_response(lambda answer: "budget_flops" in answer.url):
        page.keyboard.press("ArrowRight")


def test_it_finds_its_way_back_to_a_server_that_was_gone(service: LawService, browser: Browser) -> None:
    """Its own page: a browser complains of every address that does not answer."""
    first = HttpFace(HttpOptions(token=TOKEN)).serve(service)
    port = int(first.url.rpartition(":")[2])
    page = browser.new_page()
    page.goto(first.url)
    page.wait_for_selector("#link[data-state=live]")
    first.close()
    page.wait_for_selector("#link[data-state=lost]")
    measure(service, 6)
    second = HttpFace(HttpOptions(port=port, token=TOKEN)).serve(service)
    page.wait_for_selector("#link[data-state=live]")
    page.get_by_text(f"{len(service.observations())} observations ·").wait_for()
    page.close()
    second.close()


def test_closed_reading_asks_for_the_token(service: LawService, browser: Browser) -> None:
    measure(service, 6)
    server = HttpFace(HttpOptions(token=TOKEN, open_reading=False)).serve(service)
    page = browser.new_page()
    page.goto(server.url)
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Open").click()
    page.get_by_text("not the server's token").wait_for()
    assert page.locator("main").is_hidden()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Open").click()
    page.wait_for_selector("#now:not([hidden])")
    page.close()
    server.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_axe_finds_nothing(
    service: LawService, server: Server, page: Page, width: int, scheme: Literal["light", "dark"]
) -> None:
    """Contrast, names, roles and what the keyboard reaches, by the rules of WCAG that a program can check."""
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.goto(server.url)
    page.get_by_text("No law yet. The first").wait_for()
    assert violations(page) == []
    measure(service, 60)
    answered(page)
    page.wait_for_selector("#stopped li")
    assert violations(page) == []


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{rule['id']}: {[node['target'] for node in rule['nodes']]}" for rule in found]


def test_it_prints_dark_on_light(service: LawService, server: Server, page: Page) -> None:
    measure(service, 12)
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(server.url)
    answered(page)
    page.evaluate("document.fonts.ready")
    look = "getComputedStyle(document.querySelector('{}')).{}"
    assert page.evaluate(look.format("body", "backgroundColor")) == "rgb(255, 255, 255)"
    assert page.evaluate(look.format("body", "color")) == "rgb(28, 30, 33)"
    assert page.evaluate(look.format(":root", "colorScheme")) == "light"
    assert page.evaluate(look.format(".bar", "printColorAdjust")) == "exact"


@pytest.mark.parametrize("width", [360, 700, 1600])
def test_nothing_is_wider_than_the_screen(service: LawService, server: Server, page: Page, width: int) -> None:
    measure(service, 12)
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(server.url)
    answered(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
