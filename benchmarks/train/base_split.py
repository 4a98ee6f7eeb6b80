"""What does an advised split of a budget gain, from a base that exists, over the four baselines at equal FLOPs?

    python benchmarks/train/make_bases.py --out bases
    python benchmarks/train/base_split.py --bases bases --out runs/forgetting        # half an hour

The grid of `forgetting.py` stands for a finished sweep; what is missing of it is measured first. At each budget its law
advises a base, the replayed share p and a D' for each domain. These experts are trained with seeds that no run had, and
so are, from the same base: equal tokens, one pass over each domain's text, and one model of the union of the domains.
The fourth baseline trains nothing. A second advice limits what an expert may lose on the other domains.

Seeds are of the data's order: all variants of a seed begin at the same weights, so that differences are paired.
Everything measured is kept in OUT/measured.jsonl, and the script goes on where it was.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch.distributed as dist
from forgetting import Measurements, general, grid_table, measured_grid, n_missing

from raysplit.design.resolved_spec import ResolvedSpec
from raysplit.quantities import format_count, format_flops
from raysplit.space import Space
from raysplit.split import Advice, Interval, advise, baselines, fit_for_decision
from raysplit.sweep.final_plan import Variant, expert_of, parts_of, variants_of
from raysplit.sweep.final_run import RECOMMENDED

FIRST_SEED = 1000
LIMIT = 0.05
"""Of the rise of an expert's general loss."""
LIMITED = f"limit {LIMIT:.0%}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One way to spend a budget."""

    variant: Variant
    n_params: int
    foretold: Mapping[str, Interval]
    """``loss``, and the rise of each domain's expert, as far as the law says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """The experts of one variant and seed."""

    own: Mapping[str, float]
    """Domain -> held-out loss of its expert, nats per token."""
    rise: Mapping[str, float]
    """Domain -> rise of its expert's mean loss on the other domains over the base's, as a share of it."""


def candidates_at(space: Space, spec: ResolvedSpec, advices: Mapping[str, Advice]) -> list[Candidate]:
    """The advised split, its baselines, and the split under a limit."""
    advised, limited = advices[RECOMMENDED], advices[LIMITED]
    n_params = advised.split.n_params
    problem = replace(spec.problem, budget_flops=advised.budget_flops)
    at_base = replace(problem, bases={n_params: problem.bases[n_params]})
    foretold = {gain.baseline: {"loss": gain.loss} for gain in advised.gains}
    foretold |= {name: {"loss": advice.loss, **advice.general_rise} for name, advice in advices.items()}
    found = variants_of(space, advised, baselines(at_base, n_params=n_params), with_union=True)
    [under_limit] = variants_of(space, limited, {})
    sizes = {LIMITED: limited.split.n_params}
    return [
        Candidate(variant=v, n_params=sizes.get(v.name, n_params), foretold=foretold.get(v.name, {}))
        for v in (*found, replace(under_limit, name=LIMITED))
    ]


def trained(measured: Measurements, candidate: Candidate, seed: int) -> Trained | None:
    """Train what is missing of a variant's experts; None where time has run out."""
    variant, n_params = candidate.variant, candidate.n_params
    for part in parts_of([variant], n_params=n_params, seed=seed, experts=Path()):
        if measured.of(part.task.trial, part.task.milestone) is None:
            return None
    own, rise = {}, {}
    untrained = replace(variant, specialize_tokens=dict.fromkeys(variant.specialize_tokens, 0))
    for domain in variant.specialize_tokens:
        base = measured.of(*expert_of(untrained, domain, n_params=n_params, seed=seed))
        losses = measured.of(*expert_of(variant, domain, n_params=n_params, seed=seed))
        if base is None or losses is None:
            return None
        own[domain], rise[domain] = losses[domain], general(losses, domain) / general(base, domain) - 1
    return Trained(own=own, rise=rise)


def said_of(
    candidates: Sequence[Candidate], found: Mapping[str, list[Trained]], weights: Mapping[str, float]
) -> Iterator[str]:
    """One line for each variant, and two for what its experts reach: alone, and beside the advised ones."""
    losses = {name: np.array([_weighted(each.own, weights) for each in runs]) for name, runs in found.items()}
    for candidate in candidates:
        variant = candidate.variant
        if not (runs := found[variant.name]):
            yield f"  {variant.name}: not trained yet"
            continue
        own = losses[variant.name]
        line = f"  {variant.name:<17} {format_count(variant.paid_tokens('shared')):>6} tokens"
        line += f"  loss {own.mean():.4f} ({_each(own, '.4f')}){_foretold(candidate, 'loss', '.4f')}"
        if variant.name != RECOMMENDED:
            both = min(len(own), len(losses[RECOMMENDED]))
            above = own[:both] / losses[RECOMMENDED][:both] - 1
            line += f"; above the advised {above.mean():+.2%} ({_each(above, '+.2%')})"
        yield line
        for domain in weights:
            mine = np.array([each.own[domain] for each in runs])
            rise = np.array([each.rise[domain] for each in runs])
            tokens = format_count(variant.specialize_tokens[domain])
            yield (
                f"      {domain:<6} D' {tokens:>6}  own {mine.mean():.4f} ({_each(mine, '.4f')})  "
                f"general {rise.mean():+.2%} ({_each(rise, '+.2%')}){_foretold(candidate, domain, '+.2%')}"
            )


def _weighted(own: Mapping[str, float], weights: Mapping[str, float]) -> float:
    return sum(weights[domain] * loss for domain, loss in own.items())


def _each(values: np.ndarray, form: str) -> str:
    return ", ".join(format(value, form) for value in values)


def _foretold(candidate: Candidate, what: str, form: str) -> str:
    if (told := candidate.foretold.get(what)) is None:
        return ""
    return f" [foretold {told.mean:{form}}, {told.low:{form}} to {told.high:{form}}]"


@click.command()
@click.option("--bases", type=click.Path(path_type=Path, exists=True), default=Path("bases"), show_default=True)
@click.option("--only", multiple=True, help="Names of the bases to choose from, repeated; all when left out.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/forgetting"), show_default=True)
@click.option("--budget", "budgets", type=float, multiple=True, default=(6e10, 2e11), show_default=True)
@click.option("--seeds", "n_seeds", type=int, default=3, show_default=True)
@click.option("--most-seconds", type=float, default=math.inf, help="Nothing is begun after these.")
def main(
    bases: Path, only: tuple[str, ...], out: Path, budgets: tuple[float, ...], n_seeds: int, most_seconds: float
) -> None:
    """Measure what is missing of the grid, advise, train, and say what is known so far after each seed."""
    space, spec, measured = measured_grid(bases, out, only=only, most_seconds=most_seconds)
    if missing := n_missing(spec, measured):
        click.echo(f"{missing} points of the grid are missing, so nothing is advised yet")
        return
    table = grid_table(spec, measured)
    weights = space.weights()
    found: dict[tuple[float, str], list[Trained]] = {}
    asked: dict[float, list[Candidate]] = {}
    for budget in budgets:
        problem = replace(spec.problem, budget_flops=budget)
        law, _ = fit_for_decision(table, problem, step_tokens=spec.step_tokens)
        advices = {
            RECOMMENDED: advise(law, problem),
            LIMITED: advise(law, replace(problem, max_general_rise=LIMIT)),
        }
        asked[budget] = candidates_at(space, spec, advices)
        for name, advice in advices.items():
            base = advice.bases[advice.split.n_params]
            click.echo(f"{format_flops(budget)}, {name}: {base}, p = {advice.replay_share:.0%}")
    for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
        for budget, candidates in asked.items():
            for candidate in candidates:
                runs = found.setdefault((budget, candidate.variant.name), [])
                if (one := trained(measured, candidate, seed)) is not None:
                    runs.append(one)
        click.echo(f"\n{seed - FIRST_SEED + 1} of {n_seeds} seeds")
        for budget, candidates in asked.items():
            click.echo(f"budget {format_flops(budget)}")
            of_budget = {c.variant.name: found[budget, c.variant.name] for c in candidates}
            for line in said_of(candidates, of_budget, weights):
                click.echo(line)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
