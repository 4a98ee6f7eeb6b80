"""Parts of benchmarks/sweep/scalebench.py: its laws' derivatives, its fits and its rule for checkpoints."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from benchmarks.sweep.scalebench import (
    CHECKPOINTS,
    DATA_CONSTRAINED,
    FARSEER,
    OURS,
    Adaptive,
    Coordinates,
    Design,
    InOrder,
    Inputs,
    Law,
    Objective,
    Task,
    buy,
    descend,
    least_squares,
    misfit_factors,
    read_tasks,
)


@pytest.fixture(scope="module")
def tasks(shared_data: Path) -> tuple[Task, ...]:
    return read_tasks(shared_data / "scalebench")


def some_inputs(rng: np.random.Generator) -> Inputs:
    n, d = np.exp(rng.uniform(np.log(1e7), np.log(1e10), 12)), np.exp(rng.uniform(np.log(1e8), np.log(1e12), 12))
    return Inputs.of(d / np.exp(rng.uniform(0.1, 6.0, 12)), n, d)


@pytest.mark.parametrize("law", [*FARSEER, *DATA_CONSTRAINED], ids=lambda law: law.name)
def test_derivatives_are_those_of_the_loss(law: Law, rng: np.random.Generator) -> None:
    x, coordinates = some_inputs(rng), Coordinates(law)
    # The middle half of the bounds: at their ends powers reach 1e15 and differences see nothing but rounding.
    quarter = (coordinates.upper - coordinates.lower) / 4
    z = coordinates.lower + quarter * (1 + 2 * rng.random((6, len(law.bounds))))
    slopes = coordinates.derivatives(z, x)[1]
    for j in range(z.shape[1]):
        step = 1e-5 * quarter[j]
        up, down = z.copy(), z.copy()
        up[:, j] += step
        down[:, j] -= step
        difference = (coordinates.loss(up, x) - coordinates.loss(down, x)) / (2 * step)
        rounding = 1e-15 * np.abs(coordinates.loss(z, x)) / step
        np.testing.assert_array_less(
            np.abs(difference - slopes[:, j]), 1e-4 * np.abs(slopes[:, j]) + 1e3 * rounding + 1e-9
        )


def test_the_linear_parameters_are_linear_and_solved_for(rng: np.random.Generator) -> None:
    x = some_inputs(rng)
    for law in DATA_CONSTRAINED:
        coordinates = Coordinates(law)
        z = coordinates.draw(rng, 4)
        theta = coordinates.theta(z)
        linear = list(law.linear)
        halved, zero = theta.copy(), theta.copy()
        halved[:, linear] *= 0.5
        zero[:, linear] = 0.0
        middle = (law.loss(theta, x) + law.loss(zero, x)) / 2
        np.testing.assert_allclose(law.loss(halved, x), middle, rtol=1e-9)


def test_the_fast_fit_ends_where_l_bfgs_b_ends(tasks: Sequence[Task]) -> None:
    task = tasks[1]
    law = task.laws[4]
    runs = np.argsort(task.cost)[::5]
    x, y = task.pool.rows(runs), task.losses[runs]
    z, value = least_squares(Coordinates(law), x, y, np.random.default_rng(0), n_starts=16, scan=200)
    theta = Coordinates(law).theta(z[0])

    def square(theta: np.ndarray) -> tuple[float, np.ndarray]:
        loss, slopes = law(theta[None], x)
        r = loss[0] - y
        return float(r @ r), 2.0 * slopes[0] @ r

    end = minimize(square, theta, jac=True, method="L-BFGS-B", bounds=law.bounds, options={"ftol": 1e-15})
    assert square(theta)[0] == pytest.approx(value[0])
    assert end.fun > value[0] * (1 - 1e-6)


def test_a_law_without_noise_is_found(tasks: Sequence[Task]) -> None:
    task = tasks[1]
    law = task.laws[4]
    coordinates = Coordinates(law)
    truth = np.array([[500.0, 0.35, 2000.0, 0.4, 1.8, 0.3]])
    runs = np.argsort(task.cost)[10::6]
    x = task.pool.rows(runs)
    z, value = least_squares(coordinates, x, law.loss(truth, x)[0], np.random.default_rng(0), n_starts=32, scan=300)
    assert value[0] < 1e-12
    np.testing.assert_allclose(coordinates.loss(z[:1], task.target), law.loss(truth, task.target), rtol=1e-4)


def test_descending_never_ends_above_its_start(tasks: Sequence[Task], rng: np.random.Generator) -> None:
    task = tasks[0]
    coordinates = Coordinates(task.laws[0])
    objective = Objective(coordinates=coordinates, x=task.pool.rows(range(0, 404, 20)), y=task.losses[::20], prior=0.1)
    start = coordinates.draw(rng, 8)
    end, value = descend(objective, start.copy(), steps=30, tolerance=1e-8)
    assert (value <= objective.value(start)).all()
    assert ((end >= coordinates.lower) & (end <= coordinates.upper)).all()


def test_a_run_that_passes_a_checkpoint_is_kept_back_and_charged_at_the_next() -> None:
    assert CHECKPOINTS == (0.01, 0.05, 0.10)
    cost = np.array([0.004, 0.006, 0.045, 0.002, 0.06, 0.883])
    bought = buy(InOrder(np.arange(6)), cost)
    # 0 and 1 spend the first percent; 2 passes 5 % and is charged after it; with 3 that is 5.7 %, and 4 passes 10 %.
    assert [b.runs for b in bought] == [[0, 1], [0, 1], [0, 1, 2, 3]]


def test_a_design_that_wants_no_more_is_asked_again_at_the_next_checkpoint() -> None:
    class OneEach(Design):
        asked = -1.0

        def propose(self, bought: Sequence[int], spent: float, until: float) -> int | None:
            if until == self.asked:
                return None
            self.asked = until
            return len(bought)

    assert [b.runs for b in buy(OneEach(), np.full(200, 0.005))] == [[0], [0, 1], [0, 1, 2]]


def test_our_design_keeps_to_the_budget_and_never_sees_a_loss_that_it_has_not_bought(tasks: Sequence[Task]) -> None:
    task = tasks[1]
    known = buy(_ours(task), task.cost)
    assert all(task.cost[b.runs].sum() <= until for b, until in zip(known, CHECKPOINTS, strict=True))
    assert all(len(set(b.runs)) == len(b.runs) for b in known)
    hidden = np.full(len(task.losses), np.nan)
    first = known[0].runs
    hidden[first] = task.losses[first]
    blind = Task(
        name=task.name,
        laws=task.laws,
        pool=task.pool,
        losses=hidden,
        cost=task.cost,
        target=task.target,
        target_losses=np.full(len(task.target), np.nan),
    )

    class Stop(Exception):
        pass

    class UpToFirst(Design):
        def __init__(self) -> None:
            self.inner = _ours(blind)
            self.seen: list[int] = []

        def propose(self, bought: Sequence[int], spent: float, until: float) -> int | None:
            if until > CHECKPOINTS[0]:
                raise Stop
            run = self.inner.propose(bought, spent, until)
            if run is not None:
                self.seen.append(run)
            return run

    design = UpToFirst()
    with pytest.raises(Stop):
        buy(design, task.cost)
    assert design.seen == first


def _ours(task: Task) -> Adaptive:
    law = task.laws[4]
    return Adaptive(
        policy=OURS, task=task, law=law, rng=np.random.default_rng(0), together=misfit_factors(task, rank=20)
    )
