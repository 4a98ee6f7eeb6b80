"""Trials of raysplit's own searches, as Ray Tune keeps them: every report of theirs is a measurement after a cooldown.

Two kinds report: the trials of a sweep (`raysplit.sweep.tune.TrialRunner`), and a user's own trainable in a plan
(`raysplit.sweep.tune_plan`). A trunk has no domain and tells a loss on each; a branch tells one of its own.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from raysplit.imports.found import flatten

OF_A_SWEEP = ("milestone_tokens", "pretrain_tokens", "specialize_tokens")
OF_A_PLAN = ("n_params", "pretrain_tokens", "milestones", "points", "domain", "seed")
"""Names in a report of a sweep's trial, and in the config of a plan's."""
Point = tuple[int, int]
"""(pretrain_tokens, specialize_tokens)."""


def is_own(config: Mapping[str, Any], report: Mapping[str, Any]) -> bool:
    """Whether a trial is of raysplit's own, by its config and a report."""
    is_plan = all(name in config for name in OF_A_PLAN) and _points(config) is not None
    return is_plan or (all(name in report for name in OF_A_SWEEP) and "points" not in config)


def measurements(
    config: Mapping[str, Any], reports: Mapping[int, Mapping[str, Any]]
) -> Iterator[tuple[int, Point, dict[str, object], str]]:
    """(line, point, values, how it failed) of each measurement; the last of a point, which a retry reports again.

    Args:
        config: of the trial.
        reports: by line.
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
    """What a plan's trial was asked for; None of any other's."""
    points = config.get("points")
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        return None
    return {(p, s) for p, s in points if isinstance(p, int) and isinstance(s, int)}


def _values(config: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, object]:
    if "points" not in config:
        return dict(flatten(report))
    # What a trunk tells lies under one name, a branch's loss under another: here as a sweep's trials tell it.
    losses = report.get("losses")
    told = losses if isinstance(losses, Mapping) else {str(config["domain"]): report.get("loss")}
    values = {name: config[name] for name in ("n_params", "seed", "domain")}
    values |= {name: report[name] for name in ("pretrain_tokens", "specialize_tokens")}
    return dict(flatten({**values, **{f"loss_on_{domain}": loss for domain, loss in told.items()}}))
