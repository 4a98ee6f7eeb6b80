"""The final run's splits on whole steps at equal cost, the order of its training, and what lies beside its models."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from raysplit.corpus import Corpus
from raysplit.design.tasks import Task
from raysplit.errors import RunError
from raysplit.journal import Journal
from raysplit.run_folder.folder import RunFolder
from raysplit.space import Space, parse_space
from raysplit.split import Advice, Problem, Split, advise, baselines
from raysplit.sweep.final import run_final
from raysplit.sweep.final_plan import BASELINES, FinalPlan, Variant, models_of, parts_of, plan_final, variants_of
from raysplit.sweep.final_run import RECOMMENDED, FinalRun
from tests.corpus.texts import small_corpus
from tests.split.doubles import known_law
from tests.test_space import SMALL, changed

N_PARAMS, BATCH = 36_000, 4096
SPACE: Space = parse_space(SMALL, origin="space.yaml")


def problem(n_domains: int, tokens: float, accounting: str) -> Problem:
    return Problem(
        budget_flops=6.0 * N_PARAMS * tokens,
        sizes={N_PARAMS: 6.0 * N_PARAMS},
        domains=tuple(f"domain-{k}" for k in range(n_domains)),
        accounting="shared" if accounting == "shared" else "per-expert",
    )


ADVICE = advise(known_law(n_domains=1), problem(1, 1e6, "shared"))


@st.composite
def asked(draw: st.DrawFn) -> tuple[Advice, dict[str, Split]]:
    """Any advice whose split costs its budget, corners included, and the rules of thumb at that budget."""
    n_domains = draw(st.integers(1, 8))
    accounting = draw(st.sampled_from(["shared", "per-expert"]))
    question = problem(n_domains, draw(st.floats(4e5, 1e8)), accounting)
    total = question.affordable_tokens(N_PARAMS)
    parts = [draw(st.sampled_from([0.0, 1.0]) | st.floats(1e-9, 1)) for _ in range(1 + n_domains)]
    if not sum(parts):
        parts[0] = 1.0
    unit = total / (sum(parts) if accounting == "shared" else parts[0] + max(parts[1:]))
    split = Split(
        n_params=N_PARAMS,
        pretrain_tokens=parts[0] * unit,
        specialize_tokens=dict(zip(question.domains, (part * unit for part in parts[1:]), strict=True)),
    )
    advice = replace(ADVICE, split=split, accounting=question.accounting, budget_flops=question.budget_flops)
    rules = baselines(question, n_params=N_PARAMS)
    return advice, {name: rules[name] for name in BASELINES}


@given(asked())
def test_independent_seeds_leave_a_few_steps_at_most(question: tuple[Advice, dict[str, Split]]) -> None:
    advice, _ = question
    if advice.accounting != "shared":
        return
    n_seeds = len(advice.split.specialize_tokens)
    split = replace(advice.split, pretrain_tokens=advice.split.pretrain_tokens / n_seeds)
    [whole, other] = variants_of(SPACE, replace(advice, seeds="shared"), {"independent seeds": split})
    left = whole.paid_tokens("shared") - other.paid_tokens("shared")
    assert other.seeds == "independent"
    assert 0 <= left < n_seeds * BATCH
    parts = parts_of([whole, other], n_params=N_PARAMS, seed=9, experts=Path("experts"))
    assert len({part.name for part in parts}) == len(parts)
    found = models_of(other, parts, n_params=N_PARAMS, seed=9)
    if other.pretrain_tokens:
        assert set(found) == set(other.specialize_tokens)
        seeds = {part.task.trial.seed for part in parts if Path(part.task.export_to) in found.values()}
        assert seeds == set(range(10, 10 + n_seeds))
    by_name = {part.name: part for part in parts}
    for part in parts:
        if part.after:
            assert by_name[part.after].task.trial.seed == part.task.trial.seed


@given(asked())
def test_every_variant_costs_the_same_to_the_step(question: tuple[Advice, dict[str, Split]]) -> None:
    advice, rules = question
    variants = variants_of(SPACE, advice, rules)
    assert [variant.name for variant in variants] == [RECOMMENDED, *BASELINES]
    costs = {variant.paid_tokens(advice.accounting) for variant in variants}
    assert len(costs) == 1
    for variant, split in zip(variants, [advice.split, *rules.values()], strict=True):
        rounded = {"": variant.pretrain_tokens, **variant.specialize_tokens}
        wanted = {"": split.pretrain_tokens, **split.specialize_tokens}
        assert list(rounded) == list(wanted)
        for name, tokens in rounded.items():
            assert tokens >= 0
            assert tokens % BATCH == 0
            assert tokens == pytest.approx(wanted[name], abs=2 * BATCH)


def test_a_rule_keeps_its_meaning() -> None:
    question = problem(3, 1e6, "shared")
    rules = {name: split for name, split in baselines(question, n_params=N_PARAMS).items() if name in BASELINES}
    advice = replace(ADVICE, split=rules["80/20"], accounting="shared")
    variants = {variant.name: variant for variant in variants_of(SPACE, advice, rules)}
    assert set(variants["pretraining only"].specialize_tokens.values()) == {0}
    assert variants["from scratch"].pretrain_tokens == 0
    assert variants["80/20"] == replace(variants[RECOMMENDED], name="80/20")


@given(asked(), st.booleans(), st.integers(0, 3))
def test_nothing_starts_before_the_checkpoint_that_it_starts_from(
    question: tuple[Advice, dict[str, Split]], with_baselines: bool, seed: int
) -> None:
    advice, rules = question
    variants = variants_of(SPACE, advice, rules if with_baselines else {})
    parts = parts_of(variants, n_params=N_PARAMS, seed=seed, experts=Path("experts"))
    by_name = {part.name: part for part in parts}
    assert len(by_name) == len(parts)
    started: list[str] = []
    for part in parts:
        assert part.after == "" or part.after in started
        started.append(part.name)
        trial = part.task.trial
        if trial.domain and trial.pretrain_tokens:
            trunk = by_name[part.after].task
            assert trunk.trial.is_trunk
            assert trial.pretrain_tokens == trunk.milestone
        elif trial.domain:
            assert part.after == ""  # weights of a seed are always there
        assert (trial.n_params, trial.seed) == (N_PARAMS, seed)
    check_that_all_is_trained(variants, [part.task for part in parts])


def check_that_all_is_trained(variants: list[Variant], tasks: list[Task]) -> None:
    points = {(task.trial.domain, *task.trial.point(task.milestone)) for task in tasks}
    for variant in variants:
        for domain, tokens in variant.specialize_tokens.items():
            at = (domain, variant.pretrain_tokens, tokens) if tokens else ("", variant.pretrain_tokens, 0)
            assert at in points or not (variant.pretrain_tokens or tokens)
    assert len({task.export_to for task in tasks}) == len(tasks)
    advised = variants[0]
    wanted = {f"experts/{domain}" for domain, tokens in advised.specialize_tokens.items() if tokens}
    exported = {task.export_to for task in tasks if task.export_to.startswith("experts/")}
    assert exported == wanted | ({"experts/seed"} if advised.pretrain_tokens else set())


def test_each_variants_models_are_found_and_what_several_have_once() -> None:
    question = problem(2, 1e6, "shared")
    rules = {name: split for name, split in baselines(question, n_params=N_PARAMS).items() if name in BASELINES}
    variants = variants_of(SPACE, replace(ADVICE, split=rules["80/20"], accounting="shared"), rules)
    parts = parts_of(variants, n_params=N_PARAMS, seed=1, experts=Path("experts"))
    found = {v.name: models_of(v, parts, n_params=N_PARAMS, seed=1) for v in variants}
    names = ("seed", *question.domains)
    assert found[RECOMMENDED] == found["80/20"] == {name: Path("experts") / name for name in names}
    assert found["pretraining only"] == {"seed": Path("variants/pretraining-only/seed")}
    assert found["from scratch"] == {name: Path("variants/from-scratch") / name for name in question.domains}


def test_a_result_is_not_taken_for_that_of_another_split_or_seed() -> None:
    question = problem(2, 1e6, "shared")
    rules = baselines(question, n_params=N_PARAMS)
    names = []
    for rule, seed in (("80/20", 0), ("50/50", 0), ("80/20", 1)):
        variants = variants_of(SPACE, replace(ADVICE, split=rules[rule], accounting="shared"), {})
        parts = parts_of(variants, n_params=N_PARAMS, seed=seed, experts=Path("experts"))
        names.append({part.name for part in parts})
    assert not names[0] & names[1]
    assert not names[0] & names[2]


OLD_CONFIG = {"max_position_embeddings": 128, "transformers_version": "5.0.0", "eos_token_id": 2, "use_cache": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A final run of which everything is trained, by a raysplit that wrote no cards."""

    space: Space
    folder: RunFolder
    corpus: Corpus
    advice: Advice

    def again(self) -> FinalRun:
        """The same command once more."""
        return run_final(
            self.space, self.folder, self.corpus, self.advice, None, seed=7, baseline_names=(), ray_address=None,
            console=Console(quiet=True),
        )  # fmt: skip


@pytest.fixture
def finished(tmp_path: Path) -> Finished:
    question = problem(2, 1e5, "shared")
    corpus = small_corpus(tmp_path, n_documents=dict.fromkeys(question.domains, 40))
    raw = changed("corpus.domains", {name: {"kind": "files", "path": str(tmp_path)} for name in question.domains})
    raw["corpus"]["max_epochs"] = 1000
    space = parse_space(raw, origin="tests")
    size = space.shape(N_PARAMS, corpus.vocab_size).n_params_non_embedding
    question = replace(question, sizes={size: 6.0 * size})
    split = replace(baselines(question, n_params=size)["50/50"], n_params=size)
    advice = replace(
        advise(known_law(n_domains=2), question), split=split, accounting="shared", budget_flops=question.budget_flops
    )
    run = Finished(space=space, folder=RunFolder(path=tmp_path), corpus=corpus, advice=advice)
    journal = Journal(tmp_path / "final_journal")
    for part in parts_of(variants_of(space, advice, {}), n_params=size, seed=7, experts=run.folder.experts):
        task = part.task
        losses = {name: 3.0 + len(task.trial.domain) / 10 for name in question.domains}
        journal.append(
            "result",
            {"task": part.name, "export_to": task.export_to, "losses": losses, "tokens": BATCH, "wall_seconds": 1.0},
        )
        if task.export_to:
            export = Path(task.export_to)
            export.mkdir(parents=True)
            (export / "config.json").write_text(json.dumps(OLD_CONFIG))
            (export / "model.safetensors").write_bytes(b"weights")
    journal.close()
    return run


def test_every_exported_model_gets_a_card_even_where_an_older_raysplit_exported_it(finished: Finished) -> None:
    final = finished.again()
    folders = sorted(finished.folder.experts.iterdir())
    assert [folder.name for folder in folders] == ["domain-0", "domain-1", "seed"]
    for folder in folders:
        config = json.loads((folder / "config.json").read_text())
        assert (config["eos_token_id"], config["use_cache"]) == (0, True)
        assert (folder / "tokenizer.json").exists()
        card = (folder / "README.md").read_text()
        assert f"# small: {'seed' if folder.name == 'seed' else f'expert of {folder.name}'}" in card
        losses = final.seed_losses if folder.name == "seed" else final.variants[RECOMMENDED].losses
        assert f"| domain-0 | {losses['domain-0']:.4f} |" in card


def test_a_rerun_leaves_a_finished_model_and_its_card_alone(finished: Finished) -> None:
    finished.again()
    card, config = (finished.folder.experts / "domain-0" / name for name in ("README.md", "config.json"))
    card.write_text(card.read_text() + "\nSomebody's own words.\n")
    config.write_text(config.read_text().replace("}", ', "somebody": "likes it so"}'))
    before = {path: path.read_bytes() for path in finished.folder.experts.rglob("*") if path.is_file()}
    finished.again()
    assert {path: path.read_bytes() for path in finished.folder.experts.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("config", ["{", "[]", "{}"])
def test_a_damaged_export_is_named_with_the_way_out(finished: Finished, config: str) -> None:
    (finished.folder.experts / "domain-1" / "config.json").write_text(config)
    with pytest.raises(RunError, match=r"domain-1/config.json: is not what .*; delete .*domain-1, and the model is"):
        finished.again()


def test_a_model_that_was_taken_away_is_trained_again(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result alone would end the run at once, without it."""
    finished.again()
    shutil.rmtree(finished.folder.experts / "domain-1")

    class Training(Exception):
        pass

    def train(*_: object, **__: object) -> None:
        raise Training

    monkeypatch.setattr("raysplit.sweep.final.joined_cluster", train)
    with pytest.raises(Training):
        finished.again()


def plan_of(space: Space, n_domains: int, **changes: Any) -> FinalPlan:
    question = replace(problem(n_domains, 1e6, "shared"), domains=tuple(f"domain-{k}" for k in range(n_domains)))
    split = baselines(question, n_params=N_PARAMS)["50/50"]
    advice = replace(ADVICE, split=split, accounting="shared", budget_flops=question.budget_flops)
    asked: dict[str, Any] = {"vocab_size": 512, "seed": 7, "baseline_names": (), "experts": Path("experts")} | changes
    return plan_final(space, advice, **asked)


def space_with(n_domains: int, compute: dict[str, Any]) -> Space:
    raw = changed("corpus.domains", {f"domain-{k}": {"kind": "files", "path": "texts"} for k in range(n_domains)})
    raw["training"]["micro_batch_sequences"] = 8
    return parse_space(raw | {"compute": compute}, origin="tests")


@pytest.mark.parametrize(
    ("n_domains", "lanes", "seed_workers", "expert_workers", "n_at_once"),
    [(2, 4, 4, 2, 2), (4, 4, 4, 1, 4), (8, 4, 4, 1, 4), (1, 4, 4, 4, 1), (2, 1, 1, 1, 1)],
)
def test_the_seed_has_all_machines_and_the_experts_share_them(
    n_domains: int, lanes: int, seed_workers: int, expert_workers: int, n_at_once: int
) -> None:
    plan = plan_of(space_with(n_domains, {"lanes": lanes}), n_domains)
    assert plan.seed_lane.n_workers == seed_workers
    assert (plan.expert_lane.n_workers, plan.n_at_once) == (expert_workers, n_at_once)
    for part in plan.parts:
        assert part.task.lane_shape == (plan.seed_lane if part.task.trial.is_trunk else plan.expert_lane)


def test_a_final_run_costs_what_its_parts_train_and_the_rest_of_it_less() -> None:
    space = space_with(2, {"lanes": 2})
    whole = plan_of(space, 2, seconds_per_token={28_000: 0.0})
    seed, *experts = whole.parts
    tokens = seed.task.milestone + sum(part.task.milestone for part in experts)
    cooldown = seed.task.milestone - space.cooldown_start(seed.task.milestone)
    assert whole.left_flops == pytest.approx(whole.flops_per_token * (tokens + cooldown))
    rest = plan_of(space, 2, done={seed.name})
    assert rest.parts == whole.parts
    assert rest.left == whole.parts[1:]
    assert rest.left_flops == pytest.approx(rest.flops_per_token * sum(part.task.milestone for part in experts))
    assert plan_of(space, 2, done={part.name for part in whole.parts}).left_flops == 0


def test_a_final_run_takes_as_long_as_its_seed_and_then_its_longest_lane() -> None:
    space = space_with(3, {"lanes": 2})
    size = space.shape(N_PARAMS, 512).n_params_non_embedding
    assert plan_of(space, 3).left_seconds is None
    plan = plan_of(space, 3, seconds_per_token={size: 1e-3})
    seed, *experts = plan.parts
    trained = 2 * seed.task.milestone - space.cooldown_start(seed.task.milestone)
    each = experts[0].task.milestone
    assert plan.left_seconds == pytest.approx(1e-3 * (trained / 2 + 2 * each), rel=0.05)  # two lanes, three experts
