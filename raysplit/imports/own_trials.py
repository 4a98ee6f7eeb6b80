"""Trials of raysplit's own searches, as Ray Tune keeps them: each of their reports is a measurement after a cooldown.

Two kinds report: the trials of a sweep (`raysplit.sweep.tune.TrialRunner`), and a user's own trainable in a plan
(`raysplit.sweep.tune_plan`). A trunk has no domain and reports a loss on each; a branch reports the loss on its own.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from raysplit.imports.found import flatten

OF_A_SWEEP = ("milestone_tokens", "pretrain_tokens", "specialize_tokens")
OF_A_PLAN = ("n_params", "pretrain_tokens", "milestones", "points", "domain", "seed")
"""The names in a report of a sweep's trial, and those in the config of a plan's trial."""
Point = tuple[int, int]
"""(pretrain_tokens, specialize_tokens)."""


def is_own(config: Mapping[str, Any], report: Mapping[str, Any]) -> bool:
    """Whether a trial is one of raysplit's own, by its config and one of its reports."""
    is_plan = all(name in config for name in OF_A_PLAN) and _points(config) is not None
    return is_plan or (all(name in report for name in OF_A_SWEEP) and "points" not in config)


def measurements(
    config: Mapping[str, Any], reports: Mapping[int, Mapping[str, Any]]
) -> Iterator[tuple[int, Point, dict[str, object], str]]:
    """(line, point, values, how it failed) of each measurement; of one point the last, since a retry reports it again.

    Args:
        config: of the trial.
        reports: the trial's reports, by line of ``result.json``.
    """
    wanted = _points(config)
    at: dict[Point, int] = {}
    for line, report in reports.items():
        point = (report.get("pretrain_tokens"), report.get("specialize_tokens"))
        if all(isinstance(tokens, int) for tokens in point) and (wanted is None or point in wanted):
            at[cast(Point, point)] = line
    for point, line in at.items():
        yield line, point, _values(config, reports[line]), str(reports[line].get("failed", ""))


def _points(config: Mapping[str, Any]) -> set[Point] | None:
    """The points that a plan's trial was asked for; None of any other trial."""
    points = config.get("points")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        return None
    return {(p, s) for p, s in points if isinstance(p, int) and isinstance(s, int)}


def _values(config: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, object]:
    if "points" not in config:
        return dict(flatten(report))
    # A trunk's losses and a branch's loss have names of their own: here they get those of a sweep's trials.
    losses = report.get("losses")
    told = losses if isinstance(losses, Mapping) else {str(config["domain"]): report.get("loss")}
    values = {name: config[name] for name in ("n_params", "seed", "domain")}
    values |= {name: report[name] for name in ("pretrain_tokens", "specialize_tokens")}
    return dict(flatten({**values, **{f"loss_on_{domain}": loss for domain, loss in told.items()}}))
