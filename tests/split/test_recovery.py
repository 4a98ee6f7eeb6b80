"""A quick part of benchmarks/law/split_recovery.py: laws that are known are found, and the intervals hold them."""

import numpy as np

from benchmarks.law.split_recovery import BUDGET_FACTORS, recover


def test_advice_from_noisy_runs_is_nearly_as_good_as_the_truth_and_knows_how_sure_it_is() -> None:
    results = [recover("law-8", seed=seed, n_draws=32) for seed in range(6)]
    for j, _ in enumerate(BUDGET_FACTORS):
        assert np.mean([result[j].regret for result in results]) < 0.003
        assert sum(result[j].covered for result in results) >= 4
        assert np.mean([result[j].width for result in results]) < 0.15
