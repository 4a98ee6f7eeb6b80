"""Replay and forgetting, of losses whose truth is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from raysplit.errors import LawError, SplitError
from raysplit.law import Law
from raysplit.law.forgetting import fit_forgetting
from raysplit.runs import check_runs
from raysplit.split import advise, fit_for_decision
from raysplit.split.replay import replay_choices
from tests.split.test_bases import BUDGET, DOMAINS, SIZES, problem_of, true_loss

SHARES = (0.0, 0.05, 0.2)
TOKENS = (0.0, 5e7, 2e8, 8e8, 3.2e9)


def true_rise(base: str, tokens: float, share: float, taught: float = 0.0) -> float:
    """Of the general loss, as a share of the base's; replayed text may teach again."""
    size = (1 + 40 * share) * SIZES[base] / 1.4e9
    again = taught * np.log1p(share * tokens / 1e7)
    return float(np.expm1(0.03 * (tokens / 4e8) ** 0.5 * size**-0.35 - again)) if tokens else 0.0


def table(noise: float = 0.002, *, seed: int = 1, taught: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [
        {
            "base": base, "n_params": n_params, "specialize_tokens": int(tokens), "domain": domain,
            "replay_share": share if tokens else 0.0,
            "loss": true_loss(base, domain, (1 - share) * tokens) * np.exp(rng.normal(0, noise)),
            "general_loss": 2.6 * (n_params / 1e9) ** -0.06 * (1 + true_rise(base, tokens, share, taught))
            * np.exp(rng.normal(0, noise) * bool(tokens)),
        }
        for base, n_params in SIZES.items()
        for domain in DOMAINS
        for tokens in TOKENS
        for share in (SHARES if tokens else (0.0,))
    ]  # fmt: skip
    return check_runs(pd.DataFrame(rows), origin="table")


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    return table()


@pytest.mark.parametrize("taught", [0.0, 0.03])
def test_the_rise_of_runs_held_out_is_told_within_two_per_cent_of_the_loss(taught: float) -> None:
    """Where replayed text only slows forgetting, and where the rise falls with D' for it."""
    grown = [true_rise("small", tokens, 0.2, taught) for tokens in (2e8, 3.2e9)]
    assert (grown[1] > grown[0]) == (taught == 0.0)
    runs = table(taught=taught)
    longest = runs["specialize_tokens"] == max(TOKENS)
    forgetting = fit_forgetting(runs[~longest])
    for row in runs[longest].to_dict("records"):
        tokens, share = float(row["specialize_tokens"]), row["replay_share"]
        said = forgetting.rise(row["domain"], row["n_params"], tokens, share, pretrain_tokens=1).mean()
        assert abs(np.log((1 + said) / (1 + true_rise(row["base"], tokens, share, taught)))) < 0.02, row


def test_nine_in_ten_trained_experts_lie_in_the_interval_of_their_rise() -> None:
    forgetting = fit_forgetting(table(noise=0.01))
    inside = []
    for seed in (2, 3, 4):
        for row in table(noise=0.01, seed=seed).query("specialize_tokens > 0").to_dict("records"):
            n, tokens, share = row["n_params"], float(row["specialize_tokens"]), row["replay_share"]
            draws = forgetting.rise(row["domain"], n, tokens, share, pretrain_tokens=1)
            rise = row["general_loss"] / (2.6 * (n / 1e9) ** -0.06) - 1
            low, high = np.quantile(draws, [0.05, 0.95])
            inside.append(low <= rise <= high)
    assert 0.8 < np.mean(inside) < 0.98


def test_replay_and_size_lessen_forgetting_and_tokens_increase_it(runs: pd.DataFrame) -> None:
    forgetting = fit_forgetting(runs)

    def mean(n: float = 1.4e9, s: float = 8e8, p: float = 0.05) -> float:
        return float(forgetting.rise("law", n, s, p, pretrain_tokens=1).mean())

    assert mean(s=0.0) == 0.0
    assert mean(p=0.2) < mean(p=0.05) < mean(p=0.0)
    assert mean(n=3.6e9) < mean() < mean(s=2e9)


def test_a_limit_looks_no_nearer_to_nothing_than_the_runs_do() -> None:
    """Below the smallest D' the form may rise above a limit and fall again, which no run has shown."""
    forgetting = fit_forgetting(table(taught=0.03))
    assert forgetting.least_tokens == (min(filter(None, TOKENS)),) * len(DOMAINS)
    n_params = SIZES["small"]
    cap = forgetting.most_tokens("law", n_params, 0.2, pretrain_tokens=1, max_rise=0.02, most=3.2e9)
    assert cap == 3.2e9, "with a fifth replayed it falls with D' from there on"
    shorter = forgetting.most_tokens("law", n_params, 0.0, pretrain_tokens=1, max_rise=0.02, most=3.2e9)
    assert 0.0 <= shorter < cap


def test_a_limit_moves_tokens_and_the_share_the_right_way_and_is_met(runs: pd.DataFrame) -> None:
    problem = problem_of(*SIZES)
    law, _ = fit_for_decision(runs, problem, n_draws=16)
    assert law.replay_shares == SHARES
    (free, *_), _ = replay_choices(law, problem)
    (held, *_), why = replay_choices(law, replace(problem, max_general_rise=0.015))
    assert why == ["small at 0% replayed: any training is beyond max_general_rise: 0.015"]
    assert free.replay_share == 0.0
    assert max(rise.mean for rise in free.rise.values()) > 0.015
    trained, without = (sum(choice.split.specialize_tokens.values()) for choice in (held, free))
    assert held.replay_share > 0.0 or trained < without
    assert held.loss >= free.loss
    [base] = [base.name for base in held.problem.bases.values()]
    for tokens in held.split.specialize_tokens.values():
        assert true_rise(base, tokens, held.replay_share) <= 0.015 * 1.1
    assert free.split.flops(problem) == pytest.approx(BUDGET)
    told = advise(law, replace(problem, max_general_rise=0.015))
    assert (told.replay_share, told.split) == (held.replay_share, held.split)
    assert true_rise("small", min(filter(None, TOKENS)), 0.0) > 0.015
    assert len(told.replayed) == len(SIZES) * len(SHARES) - 1, "the shortest run of the small base is over it already"
    again = Law.from_json(law.to_json())
    assert advise(again, replace(problem, max_general_rise=0.015)) == told
    with pytest.raises(SplitError, match=r"^max_general_rise: 1e-09: leaves no base"):
        replay_choices(law, replace(problem, max_general_rise=1e-9))


def test_a_base_whose_general_loss_is_not_known_is_named(runs: pd.DataFrame) -> None:
    lost = runs[(runs["base"] != "small") | (runs["specialize_tokens"] > 0)]
    with pytest.raises(LawError, match="general_loss of base 'small' is not known"):
        fit_forgetting(lost)
    with pytest.raises(LawError, match="domain 'code' has 0 runs with a general_loss"):
        fit_forgetting(runs.assign(general_loss=runs["general_loss"].where(runs["domain"] != "code")))
