"""Commands that answer: fit a table, advise, predict, and say where a sweep stands."""

import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from raysplit import strict_json
from raysplit.cli.elsewhere import AskedAnywhere
from raysplit.cli.options import (
    COUNT,
    NOT_TOLD,
    OF_DOMAIN,
    QUANTITY,
    RUN_OR_URL,
    SHARE,
    AccountingName,
    SeedsName,
    accounting_option,
    as_is_option,
    once,
    open_console,
    read_json,
    read_table,
    say,
    seeds_option,
    show,
    sizes_of,
    strict_option,
    version_option,
)
from raysplit.errors import RunError, unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from raysplit.law import Law, Repetition
    from raysplit.runs import LossUnit
    from raysplit.split import Base, Choice, Problem
    from raysplit.split.price import Price

weight_option = click.option(
    "--weight",
    "weights",
    type=OF_DOMAIN,
    multiple=True,
    help="How much a domain's loss counts, as DOMAIN=WEIGHT; 1 where not given.",
)


@click.command()
@click.argument("table", metavar="RUNS.csv|parquet", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("law.json"),
    show_default=True,
    help="Where to write the law.",
)
@click.option("--budget-flops", type=QUANTITY, help="Also answer for this target budget.")
@click.option(
    "--n-params",
    type=COUNT,
    multiple=True,
    help="Sizes the answer may choose between; repeat for several. Default: any size that the runs span.",
)
@accounting_option
@seeds_option
@weight_option
@click.option(
    "--max-tokens",
    type=OF_DOMAIN,
    multiple=True,
    help="The most tokens that a domain's expert may see, as DOMAIN=TOKENS; repeat for several.",
)
@click.option(
    "--unique-tokens",
    type=OF_DOMAIN,
    multiple=True,
    help="Unique tokens there are of a domain, as DOMAIN=TOKENS: more are counted as repetitions.",
)
@click.option(
    "--seed-tokens",
    type=COUNT,
    help="The seed exists: it was pretrained on so many tokens, has the one --n-params, and costs nothing more.",
)
@click.option(
    "--max-general-rise",
    type=SHARE,
    help="Of a table with general_loss: by which share an expert's may be above its base's, such as 0.02 or 2%.",
)
@click.option(
    "--suggest",
    "n_suggested",
    type=click.IntRange(1, 50),
    help="Also name so many runs to add, priced, the most useful first; needs --budget-flops.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the law's draws.")
@strict_option
@as_is_option
def fit(
    table: Path,
    out: Path,
    budget_flops: float | None,
    n_params: tuple[int, ...],
    accounting: AccountingName | None,
    seeds: SeedsName | None,
    weights: tuple[tuple[str, float], ...],
    max_tokens: tuple[tuple[str, float], ...],
    unique_tokens: tuple[tuple[str, float], ...],
    seed_tokens: int | None,
    max_general_rise: float | None,
    n_suggested: int | None,
    seed: int,
    is_strict: bool,
    as_is: bool,
) -> None:
    """Fit the law to a table of runs, with no training at all.

    Columns: n_params, pretrain_tokens, specialize_tokens, domain, loss; optional flops, seed, weight. Numbers may be
    written as 160M or 2B tokens. With a column base, of models that exist, pretrain_tokens may be left out: the answer
    says from which of them to go on. With replay_share and general_loss it says how much general text to replay, and
    what each expert loses elsewhere.
    """
    from raysplit.design.suggest import render_suggestions, suggest
    from raysplit.doubts import gaps_in
    from raysplit.law import Repetition
    from raysplit.law.forgetting import fit_forgetting
    from raysplit.runs import BASE, GENERAL_LOSS
    from raysplit.split import advise, fit_for_decision, render_advice

    console = open_console()
    if seed_tokens is not None and (len(n_params) != 1 or budget_flops is None):
        raise RunError("--seed-tokens: needs the seed's size as one --n-params, and --budget-flops")
    if n_suggested is not None and budget_flops is None:
        raise RunError("--suggest: needs --budget-flops, as a run is worth what it tells of a split")
    if max_general_rise is not None and budget_flops is None:
        raise RunError("--max-general-rise: needs --budget-flops, as it is a limit on what a budget is spent on")
    runs = read_table(table, as_is=as_is, is_all=True)
    if BASE in runs and n_suggested is not None:
        raise RunError(
            f"--suggest: the runs of {table} start from bases that exist, and what to add to them is not known"
        )
    if max_general_rise is not None and not (BASE in runs and GENERAL_LOSS in runs):
        raise RunError("--max-general-rise: the table has no columns base and general_loss to tell it by")
    if not out.parent.is_dir() or out.is_dir():
        reason = f"{out.parent} is not a folder" if not out.parent.is_dir() else "it is a folder"
        raise RunError(f"{out}: cannot be written: {reason}")
    price = _price_of(runs, table)
    problem = _problem_of(runs, price, budget_flops, accounting, seeds, weights)
    bases = _bases_of(runs, n_params, seed_tokens)
    problem = replace(
        problem,
        sizes=price.of(sorted(bases)) or problem.sizes,
        bases=bases,
        max_specialize_tokens=once("--max-tokens", max_tokens),
    )
    repetition = Repetition(unique_specialize_tokens=once("--unique-tokens", unique_tokens)) if unique_tokens else None
    if max_general_rise is not None:
        problem = replace(problem, max_general_rise=max_general_rise)
    law, choice = fit_for_decision(runs, problem, repetition=repetition, seed=seed)
    if max_general_rise is not None and law.forgetting is None:
        fit_forgetting(runs)  # raises, and says why
    scores = Table("form", "weight", "regret", "worst", "held-out error", "fit", box=None, padding=(0, 2))
    for score in choice.scores:
        statuses = sorted({f.status.name.lower().replace("_", " ") for f in law.fits.get(score.form, {}).values()})
        scores.add_row(
            score.form,
            f"{choice.weights.get(score.form, 0):.2f}",
            *(
                "" if x is None else f"{100 * x:.2f} %"
                for x in (score.regret, score.worst_regret, score.held_out_error)
            ),
            score.note or ", ".join(statuses),
        )
    console.print(sizes_of(runs))
    console.print(scores)
    console.print(choice.sentence)
    for gap in gaps_in(runs):  # told as a warning too: neither who keeps the answer alone may miss it, nor who watches
        console.print(f"NOTE: {gap}")
    written = law.to_dict()
    written["choice"] = asdict(choice)
    written["loss_unit"] = problem.loss_unit
    written["flops_per_token"] = {str(n): flops for n, flops in price.known.items()}
    if BASE in runs:
        written["bases"] = {str(n): asdict(base) for n, base in bases.items()}
    try:
        out.write_text(strict_json.dumps(written, indent=1), encoding="utf-8")
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from error
    console.print(f"law: {out}")
    if budget_flops is not None:
        problem = _sized(law, problem, price, n_params)
        console.print()
        advice = advise(law, problem, withheld=_told_by_priors(law, runs, problem, choice, repetition, seed))
        console.print(render_advice(advice))
        if n_suggested is not None:
            console.print(render_suggestions(suggest(law, runs, problem, price, n_runs=n_suggested, seed=seed)))
        if is_strict and advice.withheld:
            sys.exit(NOT_TOLD)


@click.command()
@click.argument("tables", metavar="RUN|A.csv RUN|B.csv ...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--budget-flops", type=QUANTITY, required=True, help="Target budget, the same for all.")
@click.option("--n-params", type=COUNT, multiple=True, help="Sizes to choose between; repeat for several.")
@accounting_option
@seeds_option
@weight_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the law's draws.")
@as_is_option
def compare(
    tables: tuple[Path, ...],
    budget_flops: float,
    n_params: tuple[int, ...],
    accounting: AccountingName | None,
    seeds: SeedsName | None,
    weights: tuple[tuple[str, float], ...],
    seed: int,
    as_is: bool,
) -> None:
    """Into how many domains? One table of runs for each way to divide the same text, compared at their best splits.

    Weights are each domain's share of the text; a RUN folder has them in its search space. The losses must be of the
    same held-out text and tokenizer.
    """
    from raysplit.runs import BASE
    from raysplit.split import compare_partitions, fit_for_decision, render_partitions

    of_run = {str(table): observations_and_weights(table) for table in tables}
    runs_of = {name: read_table(table, as_is=as_is, is_all=True) for name, (table, _) in of_run.items()}
    for name, runs in runs_of.items():
        if BASE in runs:
            raise RunError(f"{name}: its runs start from bases that exist; compare takes runs that were pretrained")
    known = {domain for runs in runs_of.values() for domain in runs["domain"].unique()}
    for domain, _ in weights:
        if domain not in known:
            raise RunError("--weight: " + unknown("domain", domain, sorted(known)))
    candidates = {}
    for name, runs in runs_of.items():
        given = of_run[name][1] | once("--weight", weights)
        own = tuple((domain, weight) for domain, weight in given.items() if domain in set(runs["domain"]))
        price = _price_of(runs, Path(name))
        problem = _problem_of(runs, price, budget_flops, accounting, seeds, own)
        law, _ = fit_for_decision(runs, problem, seed=seed)
        candidates[name] = (law, _sized(law, problem, price, n_params))
    show(render_partitions(compare_partitions(candidates)))


@click.command(cls=AskedAnywhere)
@click.argument("run_folder", metavar="[RUN|URL]", type=RUN_OR_URL, required=False)
@click.option("--law", "law_file", type=click.Path(path_type=Path), help="A law.json instead of a run folder.")
@click.option("--budget-flops", type=QUANTITY, help="Target budget; a run's own target when left out.")
@click.option("--n-params", type=COUNT, multiple=True, help="Sizes to choose between; repeat for several.")
@accounting_option
@seeds_option
@weight_option
@click.option(
    "--objective",
    metavar="TASK",
    help="In place of weights: a benchmark that `raysplit eval RUN` has measured, through the domains' losses.",
)
@click.option(
    "--max-general-loss",
    type=QUANTITY,
    help="The most loss of the seed over all domains; from bases, of each expert on general text. In nats per token, "
    "or as the space's target.loss_unit says.",
)
@click.option(
    "--max-general-rise",
    type=SHARE,
    help="From bases: by which share that loss of each expert may be above its base's, such as 0.02 or 2%.",
)
@version_option
@strict_option
@click.option("--json", "output", flag_value="json", default="table", help="Print the advice as JSON.")
def advise(
    run_folder: Path | str | None,
    law_file: Path | None,
    budget_flops: float | None,
    n_params: tuple[int, ...],
    accounting: AccountingName | None,
    seeds: SeedsName | None,
    weights: tuple[tuple[str, float], ...],
    objective: str | None,
    max_general_loss: float | None,
    max_general_rise: float | None,
    version: int | None,
    is_strict: bool,
    output: str,
) -> None:
    """Which split is best at a budget: from a finished or a running sweep's RUN folder, or from a law."""
    from raysplit.law import Law
    from raysplit.split import Problem, render_advice
    from raysplit.split import advise as advise_on

    if (run_folder is None) == (law_file is None):
        raise RunError("give either a RUN folder or --law law.json")
    if objective is not None and (not isinstance(run_folder, Path) or weights):
        raise RunError("--objective: needs a RUN folder with an evaluation, and stands in place of --weight")
    of_benchmark = None
    if law_file is None:
        assert run_folder is not None
        from raysplit.cli.live import ask_run

        if objective is not None:
            assert isinstance(run_folder, Path)
            from raysplit.cli.objective import read_objective

            of_benchmark = read_objective(run_folder, objective)
            weights = tuple(of_benchmark.weights.items())
        asked = ask_run(run_folder)
        live = asked.law.advise(
            budget_flops=budget_flops,
            n_params=n_params,
            weights=once("--weight", weights),
            accounting=accounting,
            seeds=seeds,
            max_general_loss=max_general_loss,
            max_general_rise=max_general_rise,
            version=version,
        )
        show(asked.told(live.law), err=True)
        advice = live.advice
        rests_on = {"law": asdict(live.law), "source": asked.source}
    else:
        if version is not None:
            raise RunError(f"--version {version}: --law is one law; versions are those of a RUN")
        law = read_json(law_file, Law.from_json)
        if budget_flops is None:
            raise RunError("--law has no budget of its own: give --budget-flops")
        domains = law.at_share().domains
        given = _weights_of(domains, weights)
        price, bases, loss_unit = read_json(law_file, _beside_a_law)
        bases = _asked_of(bases, n_params) if bases else {}
        problem = Problem(
            budget_flops=budget_flops,
            sizes=price.of(sorted(bases)) or {1: price(1)},
            bases=bases,
            domains=domains,
            weights=given,
            accounting=accounting or "shared",
            seeds=seeds or "shared",
            max_general_loss=max_general_loss or math.inf,
            max_general_rise=max_general_rise or math.inf,
            loss_unit=loss_unit,
        )
        advice, rests_on = advise_on(law, _sized(law, problem, price, n_params)), {}
    if of_benchmark is not None:
        rests_on["objective"] = of_benchmark.to_json(advice)
    if output == "json":
        show(strict_json.dumps({**json.loads(advice.to_json()), **rests_on}, indent=2))
    else:
        show(render_advice(advice))
        for sentence in of_benchmark.said_of(advice) if of_benchmark is not None else ():
            show(sentence)
    if is_strict and advice.withheld:
        sys.exit(NOT_TOLD)


def observations_and_weights(path: Path) -> tuple[Path, dict[str, float]]:
    """A table as it is; of a run folder the observations, with the weights of its domains."""
    if not (path / "space.yaml").is_file():
        return path, {}
    from raysplit.run_folder.folder import existing_run

    folder, space = existing_run(path)
    return folder.observations("parquet"), space.weights()


def _problem_of(
    runs: "pd.DataFrame",
    price: "Price",
    budget_flops: float | None,
    accounting: AccountingName | None,
    seeds: SeedsName | None,
    weights: tuple[tuple[str, float], ...],
) -> "Problem":
    """The question about a table of runs, at its own sizes; without a budget, one of the size of its runs."""
    from raysplit.runs import loss_unit_of
    from raysplit.split import Problem

    domains = tuple(sorted(runs["domain"].unique()))
    return Problem(
        budget_flops=budget_flops
        or float(6 * runs["n_params"].max() * (runs["pretrain_tokens"] + runs["specialize_tokens"]).max()),
        sizes=price.of(sorted(runs["n_params"].unique())),
        domains=domains,
        weights=_weights_of(domains, weights),
        accounting=accounting or "shared",
        seeds=seeds or "shared",
        loss_unit=loss_unit_of(runs),
        price=price.source,
    )


def _bases_of(runs: "pd.DataFrame", n_params: tuple[int, ...], seed_tokens: int | None) -> "dict[int, Base]":
    """What there is to start from: the seed of --seed-tokens, or a table's bases at their last D; none otherwise.

    Raises:
        RunError: a size asked for is that of no base.
    """
    from raysplit.runs import BASE
    from raysplit.split import Base

    if seed_tokens is not None:
        return {n_params[0]: Base(pretrain_tokens=float(seed_tokens))}
    if BASE not in runs:
        return {}
    last = runs.sort_values("pretrain_tokens").groupby("n_params").last()
    bases = {
        int(n): Base(name=name, pretrain_tokens=float(tokens))
        for n, name, tokens in zip(last.index, last[BASE], last["pretrain_tokens"], strict=True)
    }
    return _asked_of(bases, n_params)


def _asked_of(bases: "Mapping[int, Base]", n_params: tuple[int, ...]) -> "dict[int, Base]":
    """The bases of the sizes that --n-params names, or all.

    Raises:
        RunError: a size is that of no base.
    """
    for n in n_params:
        if n not in bases:
            known = [f"{size} ({base.name})" for size, base in bases.items()]
            raise RunError("--n-params: " + unknown("base of size", n, known))
    return {n: base for n, base in bases.items() if not n_params or n in n_params}


def _weights_of(domains: tuple[str, ...], weights: tuple[tuple[str, float], ...]) -> list[float]:
    """One a domain; 1 where none is given."""
    given = once("--weight", weights)
    for name in given:
        if name not in domains:
            raise RunError("--weight: " + unknown("domain", name, domains))
    return [given.get(name, 1.0) for name in domains]


def _price_of(runs: "pd.DataFrame", table: Path) -> "Price":
    """What the runs say that a token costs; a doubt about it goes to the error stream."""
    from raysplit.split.price import price_of

    price, doubt = price_of(runs)
    if doubt:
        say(f"warning: {table}: {doubt}")
    return price


def _told_by_priors(
    law: "Law", runs: "pd.DataFrame", problem: "Problem", choice: "Choice", repetition: "Repetition | None", seed: int
) -> dict[str, str]:
    """What is mostly the priors', where the domains are few enough to fit twice."""
    from raysplit.law import fit_law
    from raysplit.split.decision import MOST_JUDGED
    from raysplit.split.telling import told_by_priors

    def wider(prior_strength: float) -> "Law":
        return fit_law(
            runs, forms=list(choice.weights), form_weights=choice.weights, repetition=repetition, seed=seed,
            prior_strength=prior_strength, n_draws=law.n_draws, start=law.warm_start(explores=False),
        )  # fmt: skip

    return told_by_priors(law, problem, wider) if len(law.domains) <= MOST_JUDGED else {}


def _beside_a_law(text: str) -> "tuple[Price, dict[int, Base], LossUnit]":
    """What `raysplit fit` wrote with a law: its price, its bases where runs began from some, and the unit of losses."""
    from raysplit.split import Base
    from raysplit.split.price import RULE, TABLE, Price

    beside = json.loads(text)
    known = {int(n): float(flops) for n, flops in beside.get("flops_per_token", {}).items()}
    bases = {int(n): Base(**base) for n, base in beside.get("bases", {}).items()}
    return Price(known=known, source=TABLE if known else RULE), bases, beside.get("loss_unit", "nats/token")


def _sized(law: "Law", problem: "Problem", price: "Price", n_params: tuple[int, ...]) -> "Problem":
    """The problem over the sizes asked for, or over all that the law's runs span."""
    from raysplit.split import with_best_size

    if problem.bases:
        return problem
    low, high = (round(n) for n in law.support.n_params)
    if n_params or low == high:
        return replace(problem, sizes=price.of(n_params or (low,)), price=price.source)
    return replace(with_best_size(law, problem, flops_per_token=price, low=low, high=high), price=price.source)
