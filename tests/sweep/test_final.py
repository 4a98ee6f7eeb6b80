"""The final run's splits on whole steps at equal cost, and the order of its training."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.space import Space, parse_space
from raysplit.split import Advice, Problem, Split, advise, baselines
from raysplit.sweep.final import BASELINES, RECOMMENDED, Task, Variant, tasks_of, variants_of
from tests.split.doubles import known_law
from tests.test_space import SMALL

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
    tasks = tasks_of(variants, n_params=N_PARAMS, seed=seed, experts=Path("experts"), step_tokens=BATCH)
    by_name = {task.name: task for task in tasks}
    assert len(by_name) == len(tasks)
    started: list[str] = []
    for task in tasks:
        assert task.after == "" or task.after in started
        started.append(task.name)
        if task.trial.domain:
            trunk = by_name[task.after]
            assert trunk.trial.is_trunk
            # A trunk's checkpoint at zero comes with its beginning, any other with its milestone.
            assert task.trial.pretrain_tokens in (0, trunk.milestone)
        assert (task.trial.n_params, task.trial.seed) == (N_PARAMS, seed)
    assert [task.after for task in tasks].count("") == 1
    check_that_all_is_trained(variants, tasks)


def check_that_all_is_trained(variants: list[Variant], tasks: list[Task]) -> None:
    points = {(task.trial.domain, *task.trial.point(task.milestone)) for task in tasks}
    for variant in variants:
        for domain, tokens in variant.specialize_tokens.items():
            at = (domain, variant.pretrain_tokens, tokens) if tokens else ("", variant.pretrain_tokens, 0)
            assert at in points or not (variant.pretrain_tokens or tokens)
    exported = {task.export_to: task for task in tasks if task.export_to}
    advised = variants[0]
    wanted = {f"experts/{domain}" for domain, tokens in advised.specialize_tokens.items() if tokens}
    assert set(exported) == wanted | ({"experts/seed"} if advised.pretrain_tokens else set())


def test_a_result_is_not_taken_for_that_of_another_split_or_seed() -> None:
    question = problem(2, 1e6, "shared")
    rules = baselines(question, n_params=N_PARAMS)
    names = []
    for rule, seed in (("80/20", 0), ("50/50", 0), ("80/20", 1)):
        variants = variants_of(SPACE, replace(ADVICE, split=rules[rule], accounting="shared"), {})
        tasks = tasks_of(variants, n_params=N_PARAMS, seed=seed, experts=Path("experts"), step_tokens=BATCH)
        names.append({task.name for task in tasks})
    assert not names[0] & names[1]
    assert not names[0] & names[2]
