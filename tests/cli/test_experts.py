"""`route`, `generate`, `eval` and `serve --experts` at the command line, and the mistakes that they refuse."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from raysplit.experts.expert_set import ExpertSet
from tests.cli.conftest import Command
from tests.experts.tiny_runs import programs, stories

Refusal = Callable[..., str]


def test_route_says_where_each_line_goes_and_what_it_costs(raysplit: Command, expert_run: Path, tmp_path: Path) -> None:
    text = tmp_path / "lines.txt"
    text.write_text(f"{stories(1, seed=4)[0]}\n\n{programs(1, seed=4)[0].splitlines()[0]}\n")
    result = raysplit("route", expert_run, "--text", text, "--lines", "--json", "--device", "cpu")
    assert result.exit_code == 0, result.output
    routes = [json.loads(line) for line in result.stdout.splitlines()]
    assert [list(route["weights"]) for route in routes] == [["stories"], ["programs"]]
    assert all(route["router_flops"] > 0 for route in routes)
    table = raysplit("route", expert_run, "--text", text, "--router", "label", "--label", "programs", "--device", "cpu")
    assert "programs 1.000" in table.stdout


def test_generate_goes_on_from_the_prompt(raysplit: Command, expert_run: Path) -> None:
    asked = ("generate", expert_run, "--prompt", "Ann saw", "--max-tokens", 12, "--temperature", 0, "--device", "cpu")
    routed, alone = raysplit(*asked), raysplit(*asked, "--expert", "stories")
    assert routed.stdout == alone.stdout
    assert routed.stdout.startswith("Ann saw")
    assert routed.stderr == "stories 1.000\n"
    mixed = raysplit(*asked, "--router", "uniform", "--top", "all", "--updated")
    assert mixed.stderr == "programs 0.500, stories 0.500\n"


def test_eval_prints_its_tables_and_says_where_they_lie(raysplit: Command, expert_run: Path, tmp_path: Path) -> None:
    asked = ("eval", expert_run, "--tasks", "held-out, pairs", "--limit", 2, "--out", tmp_path, "--device", "cpu")
    result = raysplit(*asked, "--routers", "label,uniform", "--top", "all", "--overlap")
    assert result.exit_code == 0, result.output
    assert "Bits per byte of the right answer" in result.stdout
    assert "held-out/stories" in result.stdout
    assert (tmp_path / "evaluation.json").exists()
    assert (tmp_path / "items.parquet").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["route", "RUN", "--text", "nowhere.txt"], "nowhere.txt: cannot be read: No such file"),
        (["route", "RUN", "--text", "TEXT", "--router", "centre"], "has no clusterer, which the router centre needs"),
        (["route", "RUN", "--text", "TEXT", "--router", "label"], "needs the domain of each text; known: stories"),
        (["route", "nowhere", "--text", "TEXT"], "nowhere: there is no such folder"),
        (["generate", "RUN", "--expert", "story"], "unknown expert 'story' (did you mean 'stories'?)"),
        (["generate", "RUN", "--prompt", "Ann saw a cat. " * 99], "the prompt has"),
        (["eval", "RUN", "--tasks", "arc"], "unknown task 'arc'"),
        (["eval", "RUN", "--tasks", ","], "--tasks: names no task"),
        (["eval", "RUN", "--limit", "0"], "limit = 0"),
        (["eval", "RUN", "--routers", "nearest"], "--routers: unknown router 'nearest'"),
        (["eval", "RUN/experts/seed", "--tasks", "piqa"], "give a folder with --out"),
        (["serve", "--experts", "RUN/experts/seed/nothing"], "there is no such file or folder"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(
    refusal: Refusal,
    expert_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    said: str,
) -> None:
    monkeypatch.setattr(ExpertSet, "context_log_likelihoods", lambda *_: pytest.fail("a model was read"))
    (tmp_path / "text.txt").write_text("Ann saw a cat.")
    named = {"TEXT": str(tmp_path / "text.txt")}
    arguments = [named.get(word, word.replace("RUN", str(expert_run)) if "RUN" in word else word) for word in command]
    assert said in refusal(*arguments)


@pytest.mark.parametrize("wrong", [("--top", "0"), ("--top", "few"), ("--router", "nearest")])
def test_click_refuses_what_no_routing_can_be(raysplit: Command, expert_run: Path, wrong: tuple[str, str]) -> None:
    result = raysplit("generate", expert_run, *wrong)
    assert result.exit_code == 2
    assert wrong[0] in result.stderr
