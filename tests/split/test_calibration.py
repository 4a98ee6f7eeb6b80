"""Where runs held out lay outside, the misfit is widened, and elsewhere it is not. All tables here are synthetic."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from raysplit.law import Calibration, Law, fit_law
from raysplit.split import Problem, advise, fit_for_decision, render_advice
from raysplit.split.calibration import calibrate
from tests.law.tables import synthetic

SIZES = (14e3, 28e3, 56e3, 111e3)
PROBLEM = Problem(budget_flops=6 * 111e3 * 8e6, sizes={int(n): 6.0 * n for n in SIZES}, domains=("domain0", "domain1"))


def table(form: str, *, seed: int = 0) -> pd.DataFrame:
    return synthetic(form, n_domains=2, sizes=SIZES, noise=0.005, seed=seed)


def test_the_right_form_is_little_stretched_and_a_wrong_one_much() -> None:
    """Where the forms are taken to be right; what a law knows of its misfit spares the wrong one most of it."""
    stretch = {}
    for form, scale in (("law-2", 0.0), ("law-1", 0.0), ("law-1", 1.0)):
        fit = partial(fit_law, forms=[form], n_draws=32, pooling=1.0, misfit_scale=scale)
        found = calibrate(table("law-2"), PROBLEM, fit)
        assert found is not None
        assert (found.coverage >= 0.9) <= (found.stretch < 1.05)
        stretch[form, scale] = found.stretch
    assert stretch["law-2", 0.0] < 1.3 < 1.4 < stretch["law-1", 0.0]
    assert stretch["law-1", 1.0] < 0.7 * stretch["law-1", 0.0]


def test_a_law_for_decisions_is_calibrated_and_says_so() -> None:
    law, _ = fit_for_decision(table("law-2"), PROBLEM, n_draws=16)
    assert law.calibration is not None
    assert law.calibration.n_losses > 50
    assert Law.from_json(law.to_json()).calibration == law.calibration
    assert f"of {law.calibration.n_losses} held-out losses" in render_advice(advise(law, PROBLEM))


def test_what_was_held_out_widens_the_law_itself() -> None:
    """Far out by the whole factor or more, where the runs are by little; and a quick refit goes on with it."""
    runs = table("law-2")
    plain, wide = (fit_law(runs, forms=["law-2"], n_draws=64, pooling=1.0, misfit_scale=scale) for scale in (1.0, 3.0))
    widened = []
    for point in ((56e3, 1e6, 1e5), (890e3, 64e6, 4e6)):
        said = [one.predict("domain0", *point, noise=False) for one in (plain, wide)]
        widened.append(np.log(said[1].high / said[1].low) / np.log(said[0].high / said[0].low))
    assert widened[0] < widened[1]
    assert widened[1] > 1.5
    told = replace(plain, calibration=Calibration(level=0.9, coverage=0.5, n_losses=9, stretch=3.0))
    assert told.warm_start().misfit_scale == 3.0


def test_too_few_runs_to_hold_out_leave_a_law_uncalibrated() -> None:
    few = table("law-2").groupby("domain").head(3)
    assert calibrate(few, PROBLEM, partial(fit_law, forms=["law-2"], n_draws=8)) is None
    law, _ = fit_for_decision(few, PROBLEM, n_draws=8)
    assert law.calibration is None
    assert "calibration" not in render_advice(advise(law, PROBLEM))
