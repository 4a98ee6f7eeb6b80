"""A report of a replayed sweep: what stands on the page, what is drawn, and what it does with less than everything."""

import base64
import re
import shutil
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from raysplit.errors import CorpusError, RunError
from raysplit.evaluate.results import write_evaluation
from raysplit.http.app import create_app
from raysplit.journal import Journal
from raysplit.live.service import LawService
from raysplit.pictures.images import svg_of
from raysplit.pictures.style import PAGE_PIXELS, PHONE_PIXELS, darkened, style_sheet
from raysplit.quantities import format_count
from raysplit.report import write_report
from raysplit.report.budget_line import measured_variants, weighted
from raysplit.report.costs import costs_of
from raysplit.report.figures import figures_of, moved_picture, runs_picture, split_picture
from raysplit.report.prediction_figure import in_sample, prediction_picture
from raysplit.report.rate_figure import rate_picture
from raysplit.report.story import Story, read_story
from raysplit.report.words import answer, outcome, path_caption, warnings_of
from raysplit.report.write import render_page
from raysplit.run_folder.folder import RunFolder
from raysplit.split.advice import ALL, SHARE
from raysplit.tuning.tuned import read_tuned
from tests.evaluate.test_benchmark_law import evaluation
from tests.report.synthetic import add_final, space_of, synthetic_run
from tests.tuning.test_tuning import space_of as space_of_tuning
from tests.tuning.test_tuning import tuned_in

FIGURES = ("split", "prediction", "tree", "path")
WHY_FAILED = 'loss is NaN <at> step 31 & "later"'
OPENING_ONLY: dict[str, Any] = {"policy": "adaptive", "regret_tolerance": 0.5}


@pytest.fixture(scope="module")
def opening(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A sweep that was certain enough after its opening: one advice, one failed branch, no final run."""
    path = tmp_path_factory.mktemp("opening") / "run"
    return synthetic_run(path, space_of(**OPENING_ONLY), fails={("drama", 249856): WHY_FAILED})


@pytest.fixture(scope="module")
def reported(opening: RunFolder) -> tuple[RunFolder, str]:
    """The same with a stopped branch and a final run, and its page."""
    folder = copy_of(opening, "full")
    stop_one_branch(folder)
    add_final(folder, error=0.01)
    return folder, write_report(folder).read_text(encoding="utf-8")


def copy_of(folder: RunFolder, name: str) -> RunFolder:
    return RunFolder(path=Path(shutil.copytree(folder.path, folder.path.with_name(name))))


def stop_one_branch(folder: RunFolder) -> None:
    """Add the record of a stop to the journal, of the first branch that has more grid before it."""
    story = read_story(folder)
    trial = next(c for c, measured in story.history.chains.items() if c.domain and measured)
    skipped = tuple(m for m in story.spec.specialize_grid if m not in story.history.chains[trial])
    assert skipped
    data = {
        "trial": {**asdict(trial), "milestones": story.spec.specialize_grid}, "milestone": min(skipped) - 1,
        "why": "not worth <its> price", "n_observations": 12, "skipped": skipped,
    }  # fmt: skip
    journal = Journal(folder.journal)
    journal.append("stop", data)
    journal.close()


def text_of(page: str) -> str:
    """What a reader sees, without markup."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", body)))


def test_page_and_figures_are_written(reported: tuple[RunFolder, str]) -> None:
    folder, page = reported
    assert (folder.report / "report.html").read_text(encoding="utf-8") == page
    assert {path.name for path in folder.report.iterdir()} == {"report.html", *(f"{name}.png" for name in FIGURES)}
    for name in FIGURES:
        png = (folder.report / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert int.from_bytes(png[16:20], "big") >= 300 * 7  # the IHDR chunk: pixels wide, at 300 dpi
        assert len(png) > 20_000


def test_the_answer_stands_first_with_its_numbers(reported: tuple[RunFolder, str]) -> None:
    folder, page = reported
    story = read_story(folder)
    text = text_of(page)
    split, share = story.advice.split, story.advice.pretrain_share
    assert answer(story.advice) in text
    assert text.index(answer(story.advice)) < text.index("Figure 1")
    for number in (
        f"N = {format_count(split.n_params)} ", f"D = {format_count(split.pretrain_tokens)} ", f"({share.mean:.0%} ",
        *(format_count(tokens) for tokens in split.specialize_tokens.values()), f"{story.advice.loss.mean:.3f} ",
        *(f"{gain.gain.mean:.1%} below {gain.baseline}" for gain in story.advice.gains),
    ):  # fmt: skip
        assert number in answer(story.advice)


def test_the_answer_names_no_share_that_the_runs_do_not_tell(reported: tuple[RunFolder, str]) -> None:
    advice = read_story(reported[0]).advice
    assert f"{advice.pretrain_share.mean:.0%} of the tokens" in answer(advice)
    without = answer(replace(advice, withheld={SHARE: "no run varies D'"}))
    assert "of the tokens" not in without
    assert "share not told by the runs" in without
    assert answer(replace(advice, withheld={ALL: "two runs"})) == "No split is told by these runs."


def test_the_page_needs_nothing_but_itself(reported: tuple[RunFolder, str]) -> None:
    _, page = reported
    assert "://" not in page
    assert "<script" not in page
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    assert len([s for s in sources if s.startswith("data:image/svg+xml;base64,")]) == 4 * len(FIGURES)
    assert all(s.startswith(("data:", "#")) for s in sources)
    assert all(f'id="{s[1:]}"' in page for s in sources if s.startswith("#"))


def test_dark_figures_are_the_light_ones_in_other_colours(reported: tuple[RunFolder, str]) -> None:
    _, page = reported
    dark, light = (
        base64.b64decode(re.findall(rf'{attribute}="data:image/svg\+xml;base64,([^"]*)"', page)[which]).decode()
        for attribute, which in (("srcset", 2), ("src", 0))
    )
    assert dark == darkened(light) != light
    assert {"#1c1e21", "#ffffff", "#0072b2"} & set(re.findall("#[0-9a-f]{6}", light))
    assert not set(re.findall("#[0-9a-f]{6}", dark)) - set(re.findall("#[0-9a-f]{6}", style_sheet().split("@media")[1]))


def test_every_text_is_escaped(reported: tuple[RunFolder, str]) -> None:
    _, page = reported
    assert WHY_FAILED not in page
    assert "<at>" not in page
    assert "<its>" not in page
    text = text_of(page)
    assert WHY_FAILED in text
    assert "not worth <its> price" in text
    assert "PSF-2.0 <or later> & others" in text


def test_measured_and_predicted_losses_of_the_final_run_are_told(reported: tuple[RunFolder, str]) -> None:
    folder, page = reported
    story = read_story(folder)
    assert story.final is not None
    text = text_of(page)
    for variant in story.final.variants.values():
        for domain, loss in variant.losses.items():
            assert f"{loss:.4f} ({variant.bits_per_byte[domain]:.4f})" in text
    assert "+1.00%" in text
    mean = weighted(story, story.final.variants["recommended"].losses)
    assert f"Measured at that split: {mean:.3f} nats/token" in text
    assert [point.name for point in measured_variants(story)] == list(story.final.variants)
    assert measured_variants(story)[0].pretrain_share == pytest.approx(story.advice.pretrain_share.mean, abs=1e-4)


def test_the_search_space_is_shown_whole(reported: tuple[RunFolder, str]) -> None:
    folder, page = reported
    assert folder.space.read_text(encoding="utf-8") in unescape(page)


def test_without_a_final_run_the_page_says_that_nothing_was_checked(opening: RunFolder) -> None:
    story = read_story(opening)
    text = text_of(render_page(story, costs_of(story.spec, story.history), []))
    assert outcome(story) == ""
    assert measured_variants(story) == []
    assert "no final run was trained" in text
    assert "Measured at that split" not in text


def test_a_final_run_of_another_budget_is_left_out_of_the_curve(opening: RunFolder) -> None:
    folder = copy_of(opening, "other-budget")
    add_final(folder)
    text = folder.final.read_text(encoding="utf-8")
    folder.final.write_text(text.replace('"budget_flops": ', '"budget_flops": 1'), encoding="utf-8")
    story = read_story(folder)
    assert measured_variants(story) == []
    assert any("another size or budget" in warning for warning in warnings_of(story))


@pytest.mark.parametrize("width", [PAGE_PIXELS, PHONE_PIXELS])
def test_figures_show_their_data_without_a_final_run(opening: RunFolder, width: float) -> None:
    story = read_story(opening)
    dots = [
        row for row in marks_of(prediction_picture(story, width), "point") if row.keys() >= {"predicted", "measured"}
    ]
    assert sorted(row["measured"] for row in dots) == sorted(story.observations["loss"])
    assert len(marks_of(split_picture(story, width), "line")) > 100
    measured = [
        row for row in marks_of(runs_picture(story, width), "point") if row.get("fill") not in (None, "#ffffff")
    ]
    assert len(measured) >= len(story.history.losses)
    for figure in figures_of(story, costs_of(story.spec, story.history)):
        drawn = re.search(r'width="(\d+)"', svg_of(figure.picture(width)))
        assert drawn is not None
        assert float(drawn[1]) == pytest.approx(width, rel=0.06), figure.file


def marks_of(picture: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The rows of every layer of this type of mark, legends too."""
    found = []
    for part in (*picture.get("vconcat", ()), *picture.get("hconcat", ()), *picture.get("layer", ())):
        found += marks_of(part, kind)
    return found + (picture["data"]["values"] if picture.get("mark", {}).get("type") == kind else [])


def domain_of(panel: dict[str, Any], channel: str) -> tuple[float, float]:
    """The limits of a panel's axis."""
    low, high = next(
        layer["encoding"][channel]["scale"]["domain"] for layer in panel["layer"] if channel in layer["encoding"]
    )
    return low, high


def words_of(picture: dict[str, Any]) -> set[str]:
    return {row["text"] for row in marks_of(picture, "text")}


def test_one_recommendation_looks_sensible(opening: RunFolder) -> None:
    story = read_story(opening)
    assert len(story.history.advices) == 1
    assert path_caption(story).startswith("One recommendation, after")
    share, size, regret = moved_picture(story, PAGE_PIXELS)["vconcat"]
    low, high = domain_of(share, "y")
    assert low < story.history.advices[0].pretrain_share.mean < high
    assert high - low >= 0.29
    assert domain_of(size, "y")[0] < story.advice.split.n_params < domain_of(size, "y")[1]
    assert domain_of(regret, "x")[0] == 0


def test_stops_and_failures_are_in_the_tree_and_the_tables(reported: tuple[RunFolder, str]) -> None:
    folder, _ = reported
    story = read_story(folder)
    assert len(story.history.stops) == len(story.history.failures) == 1
    picture = runs_picture(story, PAGE_PIXELS)
    assert {"stopped there", "failed", "not trained", *story.problem.domains} <= words_of(picture)
    spoken = [row["text"] for row in marks_of(picture, "rule") if "name" in row]
    assert len(spoken) == len(story.history.chains)
    assert sum(": stopped; " in words and "not worth <its> price" in words for words in spoken) == 1
    assert sum(": failed; " in words and WHY_FAILED in words for words in spoken) == 1


def test_costs_are_those_of_the_tree(reported: tuple[RunFolder, str]) -> None:
    story = read_story(reported[0])
    costs = costs_of(story.spec, story.history)
    assert costs.spent.n_points == len(story.history.losses)
    assert 0 < costs.spent.flops < costs.independent.flops
    assert costs.spent.flops == pytest.approx(story.history.advices[-1].spent_flops)
    assert costs.spent.n_points < costs.grid.n_points
    (stop,) = story.history.stops
    assert costs.stopped.n_points == len(stop.skipped)
    # A branch that goes on trains at most its way from the last cooldown's start, and the new cooldowns.
    assert 0 < costs.stopped.tokens <= sum(stop.skipped)
    assert costs.stopped.flops == costs.stopped.tokens * story.spec.flops_per_token[stop.trial.n_params]


def test_in_sample_errors_are_those_of_the_law(opening: RunFolder) -> None:
    story = read_story(opening)
    known = in_sample(story)
    row = story.observations.iloc[3]
    one = story.law.predict(row["domain"], row["n_params"], row["pretrain_tokens"], row["specialize_tokens"])
    assert known.predicted[3] == pytest.approx(float(one.mean))
    assert known.measured[3] == row["loss"]
    assert abs(known.error).mean() < 0.03


def test_an_unfinished_sweep_is_refused_by_name(opening: RunFolder) -> None:
    folder = copy_of(opening, "unfinished")
    folder.advice.unlink()
    with pytest.raises(RunError, match=r"advice\.json: is missing; a report needs a finished sweep"):
        write_report(folder)


def test_a_missing_corpus_is_refused_by_name(opening: RunFolder) -> None:
    folder = copy_of(opening, "no-corpus")
    shutil.rmtree(folder.corpus)
    with pytest.raises(CorpusError, match="holds no finished corpus"):
        write_report(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("{", r"final\.json: cannot be read: Invalid JSON"),
        ('{"schema_version": 2}', "schema_version: Input should be 1"),
    ],
)
def test_a_damaged_final_run_is_refused_by_name(opening: RunFolder, damage: str, message: str) -> None:
    folder = copy_of(opening, f"damaged-{len(damage)}")
    folder.final.write_text(damage, encoding="utf-8")
    with pytest.raises(RunError, match=message):
        read_story(folder)


def test_many_rounds_tell_how_the_share_moved(tmp_path: Path) -> None:
    space = space_of(policy="adaptive", regret_tolerance=0.0, budget_flops=1.2e12)
    story: Story = read_story(synthetic_run(tmp_path / "run", space))
    past = story.history.advices
    assert len(past) > 1
    assert f"to {past[-1].pretrain_share.mean:.0%}" in path_caption(story)
    share = moved_picture(story, PHONE_PIXELS)["vconcat"][0]
    assert [row["mean"] for row in marks_of(share, "line")] == [advice.pretrain_share.mean for advice in past]


@pytest.fixture(scope="module")
def tuned_run(opening: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The opening, its hyperparameters tuned on a stub of the lanes."""
    folder = copy_of(opening, "tuned")
    space = space_of_tuning(learning_rate=[2e-3, 0.5], replay_share=[0, 0.3], n_trials=8)
    tuned = tuned_in(tmp_path_factory.mktemp("tuning") / "run", space)
    folder.hyperparameters.write_text(tuned.to_json())
    secret = "\ntuning:\n  storage: postgresql://me:secret@host/optuna\n"
    folder.space.write_text(folder.space.read_text().replace("\ntuning: null\n", secret))
    folder.tuned_space.write_text((opening.path / "space.yaml").read_text())
    return folder


def test_what_was_tuned_is_told_with_its_evidence(tuned_run: RunFolder) -> None:
    page = text_of(write_report(tuned_run).read_text(encoding="utf-8"))
    tuned = read_tuned(tuned_run.hyperparameters)
    assert tuned is not None
    assert (tuned_run.report / "learning_rate.png").stat().st_size > 10_000
    for sentence in (
        "the law is fitted to tuned runs only",
        f"lr = {tuned.rule.reference:.3g}",
        f"A rate off by a factor of two costs {np.mean([o.doubling_penalty for o in tuned.optima]):.1%}",
        "Fitted without a size, the rule misses its best rates by a factor of",
        "The best learning rate at each size and number of tokens",
        "replay_share",
        "Optuna's database: sqlite:///",
    ):
        assert sentence in page, sentence
    assert "secret" not in page
    assert "postgresql://me:***@host/optuna" in page


def test_a_sweep_without_tuning_says_nothing_of_it(reported: tuple[RunFolder, str]) -> None:
    assert "Hyperparameters" not in reported[1]


@pytest.mark.parametrize("width", [PAGE_PIXELS, PHONE_PIXELS])
def test_the_rates_and_their_rule_are_drawn(tuned_run: RunFolder, width: float) -> None:
    tuned = read_tuned(tuned_run.hyperparameters)
    assert tuned is not None
    sizes = [13_000, 28_000, 110_000]
    picture = rate_picture(tuned, sizes, width)
    tried = [row for row in marks_of(picture, "point") if "excess" in row]
    assert len(tried) == np.isfinite([t.loss for t in tuned.tried]).sum()
    trunks = marks_of(picture, "tick")
    assert [(row["n_params"], row["rate"]) for row in trunks] == [(n, tuned.rate(n)) for n in sizes]


def test_the_page_shows_the_numbers_of_the_report(reported: tuple[RunFolder, str]) -> None:
    """The live law of the same journal, asked as the page asks it: the same rows, curve and tree, each written once."""
    folder, html = reported
    story, text = read_story(folder), text_of(html)
    journal = Journal(folder.journal)
    service = LawService(story.history.run, journal)
    page = TestClient(create_app(service))
    shown = page.get("/page/advice", params={"width": PAGE_PIXELS}).json()
    tree = page.get("/page/tree", params={"width": PAGE_PIXELS}).json()
    service.close()
    journal.close()
    assert story.advice.to_json() == service.advise().advice.to_json()
    for fact in shown["facts"]:
        assert f"{fact['label']} {fact['value']} {fact['note']}" in text
    for table in shown["tables"]:
        for row in table["rows"]:
            assert " ".join(cell for cell in row if cell) in text
    ours, theirs = (
        {row["share"]: row for row in marks_of(picture, "area")}
        for picture in (split_picture(story, PAGE_PIXELS), shown["curve"])
    )
    common = ours.keys() & theirs.keys()
    assert len(common) > 10
    assert {share: pytest.approx(row) for share, row in ours.items() if share in common} == {
        share: theirs[share] for share in common
    }
    spoken = [
        {row["text"] for row in marks_of(picture, "rule") if "name" in row}
        for picture in (runs_picture(story, PAGE_PIXELS), tree)
    ]
    assert spoken[0] == spoken[1]


def test_an_evaluation_has_a_section_with_a_row_a_subject(opening: RunFolder) -> None:
    folder = copy_of(opening, "evaluated")
    folder.evaluation.mkdir()
    found = evaluation(3)
    whole = replace(found, subjects=[replace(subject, training_flops=1e12) for subject in found.subjects])
    write_evaluation(whole, pd.DataFrame(), folder.evaluation)
    story = read_story(folder)
    said = text_of(render_page(story, costs_of(story.spec, story.history), []))
    assert "Every variant at its training budget" in said
    assert re.search(r"model 2 [0-9.]+ .*1\.00e12", said)
    (folder.evaluation / "evaluation.json").write_text("{")
    with pytest.raises(RunError, match=r"evaluation.json: cannot be read"):
        read_story(folder)
    assert "Every variant" not in text_of(render_page(read_story(opening), costs_of(story.spec, story.history), []))
