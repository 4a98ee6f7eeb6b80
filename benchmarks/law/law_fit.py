"""Does the fit find published optima, and how fast beside other tools? On the Chinchilla points and datablations runs.

    python benchmarks/law/law_fit.py --data DIR [--scipy-starts 450] [--toolkit-starts 450]

DIR holds `chinchilla-245/svg_extracted_data.csv` (Hoffmann 2203.15556, figure 4, digitised by Besiroglu et al.
2404.10102) and `datablations/runs_c4_val_outliers_removed.csv` (Muennighoff 2305.16264). Everything runs in this
process on one core (set OMP_NUM_THREADS=1), but for the PyPI package `chinchilla`, which forks a process a core.

It prints each fit's parameters beside the published ones, how many seeds reach the known optimum, standard errors of a
bootstrap, and seconds of every tool on the same rows.
"""

import argparse
import itertools
import logging
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize as scipy_minimize

from raysplit.law import FORMS, Form, Parameter, fit_form
from raysplit.law.fit import fit_sample, sample_of
from raysplit.law.form import Array
from raysplit.law.minimize import minimize

OPTIMUM = 0.0010182740178
PUBLISHED = {
    "E": (1.8169, 0.0257),
    "A": (482.01, 124.5),
    "a": (0.3478, 0.0154),
    "B": (2085.43, 1293.3),
    "b": (0.3659, 0.0206),
}
HOFFMANN_GRID = {
    "e": np.arange(-1, 1.5, 0.5), "a": np.arange(0, 30, 5.0), "b": np.arange(0, 30, 5.0),
    "alpha": np.arange(0, 2.5, 0.5), "beta": np.arange(0, 2.5, 0.5),
}  # fmt: skip
"""The 4,500 starts of Hoffmann (appendix D.2); e, a and b are logarithms."""


class Datablations(Form):
    """Muennighoff 2305.16264, section 3: Hoffmann's law on the worth of parameters and tokens, s being unique tokens.

    x = U + U R (1 - exp(-r / R)), r = X / U - 1 for X in (N, D), where U_N is the size that Hoffmann's law calls
    optimal for the unique tokens. Derivatives by central differences: the fit needs no others.
    """

    name = "datablations"
    parameters = (
        Parameter(name="E", lower=0.1, upper=10.0, log=True),
        Parameter(name="A", lower=1.0, upper=1e5, log=True),
        Parameter(name="B", lower=1.0, upper=1e6, log=True),
        Parameter(name="a", lower=0.05, upper=1.5, log=True),
        Parameter(name="RD", lower=1.0, upper=200.0, log=True),
        Parameter(name="RN", lower=0.5, upper=200.0, log=True),
    )
    published = np.array([np.exp(0.6254804), np.exp(6.255414), np.exp(7.3049974), 0.3526596, 15.387756, 5.309743])

    def loss(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        E, A, B, a, rd, rn = (theta[..., j] for j in range(6))
        fresh_d = np.minimum(d, s)
        # N that balances A/N^a and B/D^a at C = 6ND: D = (B/A)^(1/a) N.
        fresh_n = np.minimum(n, fresh_d * (A / B) ** (1.0 / a))
        worth_d = fresh_d + fresh_d * rd * -np.expm1(-(d / fresh_d - 1.0) / rd)
        worth_n = fresh_n + fresh_n * rn * -np.expm1(-(n / fresh_n - 1.0) / rn)
        return E + A * worth_n**-a + B * worth_d**-a

    def gradient(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        columns = []
        for j in range(theta.shape[-1]):
            step = np.zeros(theta.shape[-1])
            step[j] = 1.0
            h = 1e-6 * theta[..., j]
            high, low = (self.loss(theta + sign * h[..., None] * step, n, d, s) for sign in (1, -1))
            columns.append((high - low) / (2 * h))
        return np.stack(columns, axis=-1)

    def slope(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        raise NotImplementedError("s is not a number of tokens trained on here")


class DatablationsDecay(Datablations):
    """The same with Hoffmann's part as published, so that only the worth of repetition is fitted."""

    name = "datablations-decay"
    parameters = Datablations.parameters[4:]

    def loss(self, theta: Array, n: Array, d: Array, s: Array) -> Array:
        held = np.broadcast_to(self.published[:4], (*theta.shape[:-1], 4))
        return super().loss(np.concatenate([held, theta], axis=-1), n, d, s)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--seeds", type=int, default=100)
    arguments.add_argument("--resamples", type=int, default=4000)
    arguments.add_argument("--scipy-starts", type=int, default=450, help="of Hoffmann's 4,500, evenly spaced; 0 skips")
    arguments.add_argument("--toolkit-starts", type=int, default=450, help="the same for the package chinchilla")
    options = arguments.parse_args()
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"numpy {np.__version__}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}\n"
    )
    runs = chinchilla_points(options.data)
    exactness(runs, options.seeds)
    standard_errors(runs, options.resamples)
    side_by_side(runs, options.scipy_starts, options.toolkit_starts)
    datablations(options.data)


def chinchilla_points(data: Path) -> pd.DataFrame:
    raw = pd.read_csv(data / "chinchilla-245" / "svg_extracted_data.csv")
    n = raw["Model Size"]
    tokens = raw["Training FLOP"] / (6 * n)
    runs = pd.DataFrame({"n_params": n, "pretrain_tokens": tokens, "specialize_tokens": 0.0, "loss": raw["loss"]})
    return runs[runs["loss"] < np.sort(raw["loss"])[-5]].reset_index(drop=True)


def exactness(runs: pd.DataFrame, n_seeds: int) -> None:
    seconds, fits = [], []
    for seed in range(n_seeds):
        began = time.process_time()
        fits.append(fit_form(FORMS["hoffmann"], runs, prior_strength=0, seed=seed))
        seconds.append(time.process_time() - began)
    theta = np.array([fit.theta for fit in fits])
    print(f"Log-Huber, delta 1e-3, {len(runs)} points, {n_seeds} seeds")
    print(
        f"  objective   {fits[0].objective:.13g} (known optimum {OPTIMUM}), "
        f"seeds within 1e-9 of it: {sum(abs(f.objective / OPTIMUM - 1) < 1e-9 for f in fits)}/{n_seeds}"
    )
    for j, p in enumerate(FORMS["hoffmann"].parameters):
        print(f"  {p.name:10s}  {theta[0, j]:.7g}, spread over seeds {np.ptp(theta[:, j]) / theta[0, j]:.1e}")
    status = fits[0].status.name
    print(f"  a fit       {np.median(seconds):.3f} s median, {max(seconds):.3f} s at most (processor time); {status}")
    lad = fit_form(FORMS["hoffmann"], runs, huber_delta=1e-6, prior_strength=0)
    print("Least absolute deviations (delta 1e-6) against the published refit")
    for p, value in zip(FORMS["hoffmann"].parameters, lad.theta, strict=True):
        published = PUBLISHED[p.name][0]
        print(f"  {p.name:10s}  {value:.6g}, published {published:.6g}, {value / published - 1:+.3%}")
    print()


def standard_errors(runs: pd.DataFrame, n_resamples: int) -> None:
    """Pairs bootstrap, every resample refitted to convergence from the best fit."""
    fit, problem = fit_sample(FORMS["hoffmann"], sample_of(runs), huber_delta=1e-6, prior_strength=0.0)
    best = problem.coordinates.to_phi(fit.theta)[None]
    rng = np.random.default_rng(0)
    began, processor = time.perf_counter(), time.process_time()
    theta, converged = [], 0
    for first in range(0, n_resamples, 500):
        count = min(500, n_resamples - first)
        picks = rng.integers(0, len(runs), (count, len(runs)))
        weight = np.stack([np.bincount(row, minlength=len(runs)) for row in picks]).astype(float)
        end = minimize(replace(problem, weight=weight), np.repeat(best, count, axis=0), tolerance=1e-7)
        theta.append(problem.coordinates.to_theta(end.phi))
        converged += int(end.converged.sum())
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    errors = np.concatenate(theta).std(axis=0)
    print(
        f"Bootstrap of the least absolute deviations, {n_resamples} refits in {seconds:.1f} s "
        f"({processor:.1f} s of processor time), {converged} converged"
    )
    for p, error in zip(FORMS["hoffmann"].parameters, errors, strict=True):
        published = PUBLISHED[p.name][1]
        print(f"  se of {p.name:4s}  {error:.4g}, published {published:.4g}, {error / published - 1:+.1%}")
    print()


def side_by_side(runs: pd.DataFrame, scipy_starts: int, toolkit_starts: int) -> None:
    print("Side by side: seconds, objective above the optimum, share of starts within 0.1 % of it")
    began = time.perf_counter()
    fit = fit_form(FORMS["hoffmann"], runs, prior_strength=0)
    report("raysplit", time.perf_counter() - began, fit.objective, fit.starts_agreeing)
    if scipy_starts:
        log_n, log_d, log_y = (np.log(runs[c].to_numpy()) for c in ("n_params", "pretrain_tokens", "loss"))

        def objective(x: Array) -> float:
            terms = np.stack([x[1] - x[3] * log_n, x[2] - x[4] * log_d, np.full_like(log_n, x[0])])
            residual = np.abs(np.logaddexp.reduce(terms) - log_y)
            return float(np.where(residual < 1e-3, 0.5 * residual**2, 1e-3 * (residual - 0.5e-3)).sum())

        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ends = np.array([scipy_minimize(objective, x, method="L-BFGS-B").fun for x in grid(scipy_starts)])
        report(
            f"scipy L-BFGS-B, {len(ends)} starts",
            time.perf_counter() - began,
            ends.min(),
            float(np.mean(ends < 1.001 * OPTIMUM)),
        )
    if toolkit_starts:
        toolkit(runs, toolkit_starts)
    print()


def toolkit(runs: pd.DataFrame, n_starts: int) -> None:
    try:
        from chinchilla import Chinchilla
    except ImportError:
        print("  chinchilla: not installed (pip install chinchilla==0.2.0)")
        return

    def log_huber(y_true: Array, y_pred: Array) -> Array:
        residual = np.abs(np.log(y_true) - np.log(y_pred))
        return np.where(residual < 1e-3, 0.5 * residual**2, 1e-3 * (residual - 0.5e-3))

    # The package takes a full grid: thin each axis until the product is about what was asked for.
    keep = (n_starts / 4500) ** (1 / 5)
    thinned = {
        k: v[np.unique(np.linspace(0, len(v) - 1, max(2, round(keep * len(v)))).round().astype(int))]
        for k, v in HOFFMANN_GRID.items()
    }
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Chinchilla(project_dir=folder, param_grid=thinned, loss_fn=log_huber, log_level=logging.CRITICAL)
        for row in runs.itertuples():
            model.database.append(
                N=row.n_params, D=row.pretrain_tokens, C=6 * row.n_params * row.pretrain_tokens, loss=row.loss
            )
        began = time.perf_counter()
        model.fit()
        seconds = time.perf_counter() - began
        n, d = runs["n_params"].to_numpy(), runs["pretrain_tokens"].to_numpy()
        theta = np.array([model.E, model.A, model.alpha, model.B, model.beta], dtype=float)
    reached = log_huber(runs["loss"].to_numpy(), FORMS["hoffmann"].loss(theta, n, d, np.zeros_like(n))).sum()
    count = int(np.prod([len(v) for v in thinned.values()]))
    report(f"chinchilla 0.2.0, {count} starts", seconds, float(reached), None)


def grid(n_starts: int) -> Iterator[Array]:
    every = np.array(list(itertools.product(*HOFFMANN_GRID.values())))
    yield from every[np.linspace(0, len(every) - 1, min(n_starts, len(every))).round().astype(int)]


def report(name: str, seconds: float, objective: float, share: float | None) -> None:
    reached = "" if share is None else f"{share:8.0%}"
    print(f"  {name:34s} {seconds:8.2f} s   {objective / OPTIMUM - 1:+9.2e}  {reached}")


def datablations(data: Path) -> None:
    raw = pd.read_csv(data / "datablations" / "runs_c4_val_outliers_removed.csv")
    runs = pd.DataFrame(
        {
            "n_params": raw["params"],
            "pretrain_tokens": raw["tokens"],
            "specialize_tokens": raw["unique_tokens"],
            "loss": raw["val_loss"],
        }
    )
    inputs = [runs[name].to_numpy() for name in ("n_params", "pretrain_tokens", "specialize_tokens")]
    loss = runs["loss"].to_numpy()

    def r2(predicted: Array) -> float:
        return float(1 - np.sum((loss - predicted) ** 2) / np.sum((loss - loss.mean()) ** 2))

    print(f"Datablations, {len(runs)} runs, law with repetition of N and D")
    published = Datablations().loss(Datablations.published, *inputs)
    print(f"  published parameters                     R2 {r2(published):.7f} (known 0.7722046)")
    for form, name, delta in (
        (DatablationsDecay(), "repetition only, log-Huber 1e-3", 1e-3),
        (DatablationsDecay(), "repetition only, squares of log loss", np.inf),
        (Datablations(), "all parameters, log-Huber 1e-3", 1e-3),
        (Datablations(), "all parameters, squares of log loss", np.inf),
    ):
        fit = fit_form(form, runs, huber_delta=delta, prior_strength=0)
        values = ", ".join(f"{k} {v:.4g}" for k, v in fit.parameters(form).items())
        print(f"  {name:40s} R2 {r2(form.loss(fit.theta, *inputs)):.7f}, {fit.status.name}: {values}")


if __name__ == "__main__":
    main()
