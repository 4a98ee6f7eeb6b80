"""The advice: consistent with the law's draws, readable by machines and by people."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from raysplit.errors import SplitError
from raysplit.law import fit_law
from raysplit.split import (
    Advice,
    Base,
    Problem,
    Split,
    advise,
    baselines,
    best_split,
    best_split_per_draw,
    domain_losses,
    expected_regret,
    loss_curve,
    losses_of,
    render_advice,
)
from tests.split.doubles import known_law, measured_table
from tests.split.strategies import SIZES

LAW = known_law(n_draws=32, jitter=0.1)
PROBLEM = Problem(budget_flops=2e12, sizes=SIZES, domains=LAW.domains, weights=[1, 1, 1, 2])
ADVICE = advise(LAW, PROBLEM)


def seed_losses(splits: Sequence[Split]) -> np.ndarray:
    """Weighted mean loss of the seeds of some splits before they are branched, (n_splits,)."""
    bare = [replace(split, specialize_tokens=dict.fromkeys(PROBLEM.domains, 0.0)) for split in splits]
    return losses_of(LAW, bare, PROBLEM).mean(axis=0)


def test_it_advises_the_best_split_under_the_mean_of_the_draws() -> None:
    assert ADVICE.split == best_split(LAW, PROBLEM)
    draws = losses_of(LAW, [ADVICE.split], PROBLEM)[:, 0]
    assert ADVICE.loss.mean == pytest.approx(draws.mean())
    quiet = advise(replace(LAW, noise=np.zeros(4)), PROBLEM).loss
    assert (quiet.low, quiet.high) == pytest.approx(tuple(np.quantile(draws, [0.05, 0.95])), rel=0.05)
    weighted = sum(ADVICE.weights[name] * loss.mean for name, loss in ADVICE.losses.items())
    assert weighted == pytest.approx(ADVICE.loss.mean)


def test_the_interval_of_a_domain_is_for_a_measurement_and_so_wider_than_that_of_the_law() -> None:
    noisy = known_law(n_draws=32, jitter=0.003)
    sure = replace(noisy, noise=np.zeros(4))
    wide, narrow = (advise(law, PROBLEM).losses for law in (noisy, sure))
    draws = domain_losses(noisy, [best_split(noisy, PROBLEM)], PROBLEM)[:, 0]
    for k, name in enumerate(PROBLEM.domains):
        assert narrow[name].low == pytest.approx(np.quantile(draws[:, k], 0.05), rel=1e-3)
        assert wide[name].low < narrow[name].low < narrow[name].high < wide[name].high
        assert wide[name].high / wide[name].low > np.exp(2 * 1.6 * 0.01)


def test_regret_and_probability_come_from_the_draws_own_optima() -> None:
    per_draw = best_split_per_draw(LAW, PROBLEM)
    draws = losses_of(LAW, [ADVICE.split], PROBLEM)[:, 0]
    assert ADVICE.expected_regret == pytest.approx((draws / per_draw.loss - 1).mean(), abs=1e-7)
    assert 0 < ADVICE.expected_regret < 0.01
    assert sum(size.probability for size in ADVICE.sizes) == pytest.approx(1.0)
    agreeing = np.mean([split.n_params == ADVICE.split.n_params for split in per_draw])
    assert ADVICE.probability == pytest.approx(agreeing)
    assert ADVICE.pretrain_share.low < ADVICE.pretrain_share.mean < ADVICE.pretrain_share.high


def test_the_advised_split_has_the_least_expected_regret_among_the_rules_of_thumb() -> None:
    named = baselines(PROBLEM, n_params=ADVICE.split.n_params)
    regrets = expected_regret(LAW, [ADVICE.split, *named.values()], PROBLEM)
    assert (regrets >= 0).all()
    assert regrets.argmin() == 0


def test_the_flat_region_is_where_the_curve_is_within_the_tolerance() -> None:
    low, high = ADVICE.flat
    step = 0.01
    shares = [low - step, low, high, high + step]
    curve = loss_curve(LAW, PROBLEM, n_params=ADVICE.split.n_params, shares=shares)
    draws = losses_of(LAW, [ADVICE.split], PROBLEM)
    excess = (curve.draws / draws - 1).mean(axis=0)
    assert list(excess <= 0.005) == [False, True, True, False]
    assert ADVICE.flat[0] <= ADVICE.indistinguishable[0] <= ADVICE.pretrain_share.mean
    assert ADVICE.pretrain_share.mean <= ADVICE.indistinguishable[1] <= ADVICE.flat[1]


def test_what_breaks_the_limit_on_the_seed_is_not_offered() -> None:
    """Neither as a size, nor as a rule of thumb to compare with, nor as a split that is as good."""
    rules = {gain.baseline: gain.split for gain in ADVICE.gains}
    limit = float(seed_losses([rules["80/20"], rules["50/50"]]).mean())
    free = replace(PROBLEM, sizes={100: 600.0, **SIZES})
    held = advise(LAW, replace(free, max_general_loss=limit))
    assert [size.split.n_params for size in advise(LAW, free).sizes] == list(free.sizes)
    assert [size.split.n_params for size in held.sizes] == list(SIZES)
    assert [gain.baseline for gain in held.gains] == ["pretraining only", "80/20"]
    for low, high in (held.flat, held.indistinguishable):
        ends = [replace(held.split, pretrain_tokens=share * PROBLEM.tokens(held.split)) for share in (low, high)]
        assert (seed_losses(ends) <= limit * (1 + 1e-6)).all()


def test_gains_are_against_each_rule_at_the_same_size_and_budget() -> None:
    assert [gain.baseline for gain in ADVICE.gains] == ["pretraining only", "80/20", "50/50"]
    for gain in ADVICE.gains:
        assert gain.split.n_params == ADVICE.split.n_params
        assert gain.split.flops(PROBLEM) == pytest.approx(PROBLEM.budget_flops)
        assert gain.gain.low < gain.gain.mean < gain.gain.high
        assert gain.gain.mean > 0


def test_intervals_between_splits_are_for_models_that_are_trained() -> None:
    """Each split in runs of its own, whose luck widens a gain and leaves the advised split equal to itself."""
    law = known_law(n_draws=32, jitter=0.003)
    noisy, sure = (advise(replace(law, noise=np.full(4, sd)), PROBLEM) for sd in (0.02, 0.0))
    for wide, narrow in zip([g.gain for g in noisy.gains], [g.gain for g in sure.gains], strict=True):
        assert wide.mean == pytest.approx(narrow.mean)
        assert wide.high - wide.low > narrow.high - narrow.low
    own = next(size for size in noisy.sizes if size.split == noisy.split)
    assert (own.excess.low, own.excess.mean, own.excess.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-12)
    assert [size.probability for size in noisy.sizes] == [size.probability for size in sure.sizes]
    assert noisy.expected_regret == sure.expected_regret


def test_a_gain_over_from_scratch_is_only_told_where_every_domain_was_trained_so() -> None:
    seen = replace(LAW, support=replace(LAW.support, pretrain_tokens=(0.0, 4e6)))
    assert [gain.baseline for gain in advise(seen, PROBLEM).gains][-1] == "from scratch"
    assert any("domain-0" in warning and "nothing is said of that" in warning for warning in ADVICE.warnings)


def test_other_budgets_get_their_own_best_split() -> None:
    for other in ADVICE.budgets:
        exact = best_split(LAW, replace(PROBLEM, budget_flops=other.budget_flops))
        assert other.split.n_params == exact.n_params
        assert other.split.pretrain_tokens == pytest.approx(exact.pretrain_tokens, rel=1e-3)
        assert other.split.specialize_tokens == pytest.approx(exact.specialize_tokens, rel=1e-3)
    assert [other.budget_flops for other in ADVICE.budgets] == [1e12, 4e12]


def test_json_reads_back_equal_and_names_what_is_wrong() -> None:
    assert Advice.from_json(ADVICE.to_json()) == ADVICE
    raw = json.loads(ADVICE.to_json())
    assert raw["schema_version"] == 1
    with pytest.raises(SplitError, match="schema version 1: schema_version"):
        Advice.from_json(json.dumps({**raw, "schema_version": 2}))
    with pytest.raises(SplitError, match=r"schema version 1: split\.n_params"):
        Advice.from_json(json.dumps({**raw, "split": {"n_params": "many"}}))
    with pytest.raises(SplitError, match="not an advice"):
        Advice.from_json("{")


def test_the_table_says_every_part_of_the_answer() -> None:
    text = render_advice(ADVICE)
    for part in ("2.00e12 FLOPs", "110k", "domain-3", "0.40", "pretraining only", "from scratch", "4.00e12 FLOPs"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 120
    assert render_advice(replace(ADVICE, warnings=["look here"])).rstrip().endswith("warning: look here")


def test_it_warns_of_what_the_answer_leans_on() -> None:
    one_draw = advise(known_law(), replace(PROBLEM, budget_flops=1e14), warnings=["said before"])
    assert one_draw.warnings[0] == "said before"
    assert any("single draw" in warning for warning in one_draw.warnings)
    assert any("largest allowed" in warning for warning in one_draw.warnings)
    assert any("from scratch" in warning for warning in one_draw.warnings)
    starved = replace(
        PROBLEM, max_pretrain_tokens=1e6, max_specialize_tokens=dict.fromkeys(LAW.domains, 2e5), weights=()
    )
    answer = advise(LAW, starved)
    assert answer.unspent_flops == pytest.approx(2e12 - SIZES[110_000] * 1.8e6)
    for part in (
        "35% of the budget is left: the caps leave nothing",
        "pretraining is held back",
        "specialization is held back",
    ):
        assert any(part in warning for warning in answer.warnings), part


def test_it_says_how_far_it_extrapolates_and_what_it_rests_on() -> None:
    far = advise(LAW, replace(PROBLEM, budget_flops=1e14))
    assert far.extrapolation["pretrain_tokens"] == pytest.approx(far.split.pretrain_tokens / 4e6)
    assert any("extrapolates pretrain_tokens" in warning for warning in far.warnings)
    fitted = advise(fit_law(measured_table(LAW, noise=0.01), forms=["law-2"], n_draws=8), PROBLEM)
    assert list(fitted.forms) == ["law-2"]
    assert fitted.forms["law-2"].weight == pytest.approx(1.0)
    assert set(fitted.forms["law-2"].fits) == set(PROBLEM.domains)
    assert "law-2" in render_advice(fitted)
    assert Advice.from_json(fitted.to_json()) == fitted


def test_a_base_has_no_share_to_choose() -> None:
    answer = advise(LAW, replace(PROBLEM, bases={36_000: Base(pretrain_tokens=2e6)}))
    assert [gain.baseline for gain in answer.gains] == ["no training", "equal tokens"]
    assert answer.flat == (answer.pretrain_share.mean,) * 2
    assert Advice.from_json(answer.to_json()) == answer


def test_an_unmeasured_zero_is_no_number_in_the_json() -> None:
    branched = replace(LAW, support=replace(LAW.support, specialize_tokens=(1e5, 1e6)))
    answer = advise(branched, replace(PROBLEM, max_specialize_tokens={"domain-0": 0}))
    assert answer.extrapolation["specialize_tokens"] is None
    assert Advice.from_json(answer.to_json()) == answer


def test_experts_reckoned_alone_share_one_seed_and_spend_the_rest_each() -> None:
    alone = replace(PROBLEM, accounting="per-expert", max_specialize_tokens={"domain-0": 1e5})
    answer = advise(LAW, alone)
    rest = alone.affordable_tokens(answer.split.n_params) - answer.split.pretrain_tokens
    assert answer.split.specialize_tokens["domain-0"] == 1e5
    for name in PROBLEM.domains[1:]:
        assert answer.split.specialize_tokens[name] == pytest.approx(rest)
    assert answer.pretrain_share.mean == pytest.approx(1 - rest / alone.affordable_tokens(answer.split.n_params))
    assert answer.flat[0] < answer.pretrain_share.mean < answer.flat[1]
    assert [gain.baseline for gain in answer.gains] == ["pretraining only"]


def test_both_kinds_of_seeds_are_compared_at_the_same_budget() -> None:
    other = ADVICE.other_seeds
    assert other is not None
    assert other.baseline == "independent seeds"
    independent = replace(PROBLEM, seeds="independent")
    assert independent.flops(other.split) == pytest.approx(PROBLEM.budget_flops, rel=1e-6)
    assert other.loss.mean > ADVICE.loss.mean  # the same losses cost more where every seed is paid for
    size = other.split.n_params
    assert size == ADVICE.split.n_params
    answer = advise(LAW, replace(independent, sizes={size: SIZES[size]}))
    assert answer.seeds == "independent"
    assert answer.loss.mean <= other.loss.mean == pytest.approx(answer.loss.mean, rel=2e-3)
    assert answer.other_seeds is not None
    assert answer.other_seeds.baseline == "shared seeds"
    assert answer.other_seeds.gain.mean < 0
    assert "independent seeds" in render_advice(ADVICE)
    assert "all experts, each with a seed of its own" in render_advice(answer)
    assert Advice.from_json(answer.to_json()) == answer
    assert advise(LAW, replace(PROBLEM, accounting="per-expert")).other_seeds is None
