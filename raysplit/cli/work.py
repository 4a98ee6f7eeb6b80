"""Commands that do work: build, plan, sweep, train, report, and all of them in a row."""

import functools
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from raysplit.cli.bases import with_counted_bases
from raysplit.cli.options import (
    KS,
    QUANTITY,
    allow_host_option,
    as_is_option,
    closed_reading_option,
    http_option,
    open_console,
    out_option,
    ray_address_option,
    read_json,
    read_table,
    run_argument,
    say,
    space_argument,
    steps_shown,
    take_over_option,
    wait_option,
)

if TYPE_CHECKING:
    from raysplit.corpus import Corpus
    from raysplit.design.resolved_spec import ResolvedSpec
    from raysplit.http.options import HttpOptions
    from raysplit.run_folder.folder import RunFolder
    from raysplit.space import Space
    from raysplit.split import Advice
    from raysplit.sweep.final_plan import FinalPlan

FINAL_SEED = 1000
"""Of the final run: not one of a sweep's, so that its losses are no part of what predicted them."""
NOT_AGREED = 3
"""Exit status where a final run waits for somebody to agree to its cost: nothing is wrong, and not all is done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """What a command works on, with what, and where it says so."""

    space: "Space"
    folder: "RunFolder"
    console: Console
    ray_address: str | None = None
    http: "HttpOptions | None" = None
    wait_seconds: float = 0.0
    """For nodes, where the cluster has no room for the smallest lane."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Final:
    """What is asked of a final run."""

    baselines: bool
    confirm_above: float
    """Of what the sweep has spent."""
    yes: bool
    seed: int = FINAL_SEED


_confirm_above_option = click.option(
    "--confirm-above",
    type=QUANTITY,
    default=1.0,
    show_default=True,
    help="Ask before a final run that costs more than this many times what the sweep has spent.",
)
_yes_option = click.option("--yes", is_flag=True, help="Go on with the final run, whatever it costs.")


def _final_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gathers the options of a final run into one argument ``final``."""

    @click.option(
        "--baselines",
        is_flag=True,
        help="Also train pretraining only, 80/20 and from scratch, at equal FLOPs each; "
        "from a base, equal tokens of every domain, and the base as it is.",
    )
    @_confirm_above_option
    @_yes_option
    @functools.wraps(command)
    def gather(baselines: bool, confirm_above: float, yes: bool, **others: Any) -> None:
        command(final=_Final(baselines=baselines, confirm_above=confirm_above, yes=yes), **others)

    return gather


def _on_a_space(command: Callable[..., None]) -> Callable[..., None]:
    """A command that sweeps, with its arguments; what can be wrong without building anything is said before it runs."""

    @space_argument
    @out_option
    @ray_address_option
    @http_option
    @closed_reading_option
    @allow_host_option
    @take_over_option
    @wait_option
    @functools.wraps(command)
    def begin(
        space_file: Path,
        out: Path,
        ray_address: str | None,
        http_address: str | None,
        closed_reading: bool,
        allowed_hosts: tuple[str, ...],
        take_over: bool,
        wait_seconds: float,
        **options: Any,
    ) -> None:
        http = _http(http_address, closed_reading, allowed_hosts)
        work = replace(
            _begin(space_file, out, take_over=take_over), ray_address=ray_address, http=http, wait_seconds=wait_seconds
        )
        _check_cluster(work)
        command(work, **options)

    return begin


@click.command()
@_final_options
@_on_a_space
def run(work: _Work, final: _Final) -> None:
    """The whole job: corpus, hyperparameters, plan, sweep, answer, final training, report.

    Before a final run that costs more than --confirm-above times the sweep it asks on a terminal. Elsewhere it ends
    with status 3 and says how to go on, unless --yes is given.
    """
    from raysplit.split import Advice

    _rule(work.console, "1/5  corpus")
    work = _discovered(work)
    corpus_ = _corpus(work)
    work = _tuned(work, corpus_)
    was_swept = work.folder.advice.exists()
    if not was_swept:  # run again, a finished sweep needs no plan
        _rule(work.console, "2/5  plan")
        _print_plan(work.space, corpus_.vocab_size, work.console)
    _rule(work.console, "3/5  sweep and answer")
    spent_flops = _sweep(work, corpus_)
    _rule(work.console, "4/5  final run: seed and experts at the advised split")
    advice = read_json(work.folder.advice, Advice.from_json)
    is_agreed = _agreed(work, corpus_, advice, final, advice_file=work.folder.advice, sweep_flops=spent_flops)
    if is_agreed:
        if was_swept:  # then nobody has looked at the machines yet
            _check_final(work, corpus_, advice, final)
        _train(work, corpus_, advice, final)
    _rule(work.console, "5/5  report")
    _report(work.folder, work.console)
    if not is_agreed:
        click.get_current_context().exit(NOT_AGREED)


@click.group()
def corpus() -> None:
    """Text in, token shards out."""


@corpus.command("build")
@space_argument
@out_option
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Processes that share the work; as many as there are cores by default.",
)
@take_over_option
def corpus_build(space_file: Path, out: Path, processes: int | None, take_over: bool) -> None:
    """Read, deduplicate, hold out, tokenize and pack the domains of SPACE into the run folder's corpus."""
    _corpus(_discovered(_begin(space_file, out, take_over=take_over)), n_processes=processes)


@corpus.command("discover")
@space_argument
@click.option("--k", "ks", type=KS, help="Numbers of clusters, such as 4,8,16; the space's own when left out.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to; discovered/NAME when left out.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of the clustering; the space's own when left out.")
@click.option("--ray", "on_ray", is_flag=True, help="Label the documents with Ray Data.")
@ray_address_option
def corpus_discover(
    space_file: Path,
    ks: tuple[int, ...] | None,
    out: Path | None,
    seed: int | None,
    on_ray: bool,
    ray_address: str | None,
) -> None:
    """Find domains in the text of SPACE, as clusters; labels that the space gives are only compared with.

    For each K of --k it writes a search space with these domains, ready for `raysplit run`, and a page that shows them.
    """
    from raysplit.cli.discovering import discover_spaces

    discover_spaces(
        space_file,
        ks=ks,
        out=out,
        seed=seed,
        on_ray=on_ray or ray_address is not None,
        ray_address=ray_address,
        console=open_console(),
    )


@click.command()
@space_argument
def plan(space_file: Path) -> None:
    """What a sweep of SPACE would train: trials, tokens, FLOPs, disk and time, timed by a few real steps."""
    from raysplit.discover.spaces import expected_space
    from raysplit.space import load_space

    space = expected_space(with_counted_bases(load_space(space_file)))
    _check_lanes(space, space_file)
    _print_plan(space, space.corpus.tokenizer.vocab_size, open_console())


@click.command()
@space_argument
@out_option
@ray_address_option
@take_over_option
def tune(space_file: Path, out: Path, ray_address: str | None, take_over: bool) -> None:
    """Find the hyperparameters that the section `tuning` of SPACE asks for, on its smallest models, with Optuna.

    Writes hyperparameters.json (the rule for the learning rate, with its evidence) and tuned_space.yaml into the run
    folder; `raysplit sweep` and `raysplit run` do this first and go on with what was found.
    """
    from raysplit.design.resolved_spec import spec_of
    from raysplit.errors import SpaceError
    from raysplit.report import draw_learning_rate
    from raysplit.tuning.tuned import read_tuned

    work = replace(_begin(space_file, out, take_over=take_over), ray_address=ray_address)
    folder, console = work.folder, work.console
    if work.space.tuning is None:
        raise SpaceError(f"{space_file}: there is no section tuning, so nothing to tune; see search_spaces/tuned.yaml")
    _check_cluster(work)
    work = _discovered(work)
    corpus_ = _corpus(work)
    tuned_space = _tuned(work, corpus_).space
    console.print(f"written: {folder.hyperparameters}, {folder.tuned_space}")
    tuned = read_tuned(folder.hyperparameters)
    assert tuned is not None
    sizes = spec_of(tuned_space, vocab_size=corpus_.vocab_size).sizes
    console.print(f"figure: {draw_learning_rate(tuned, sizes, folder)}")


@click.command()
@_on_a_space
def sweep(work: _Work) -> None:
    """Train the trials of SPACE under Ray Tune until the answer is certain enough or the budget is spent."""
    work = _discovered(work)
    corpus_ = _corpus(work)
    _sweep(_tuned(work, corpus_), corpus_)


@click.command()
@click.option(
    "--advice",
    "advice_file",
    type=click.Path(path_type=Path),
    required=True,
    help="advice.json, as a sweep or `raysplit advise --json` wrote it.",
)
@click.option(
    "--run",
    "run_folder",
    type=click.Path(path_type=Path),
    help="Run folder with corpus and law; the advice's own folder when left out.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=FINAL_SEED,
    show_default=True,
    help="Of weights and data order; a sweep's own seed (0) continues its checkpoints.",
)
@_final_options
@ray_address_option
@take_over_option
def train(
    advice_file: Path, run_folder: Path | None, seed: int, final: _Final, ray_address: str | None, take_over: bool
) -> None:
    """Train the seed and the experts at the advised split; write each as a Hugging Face folder.

    Asks before what costs more than --confirm-above times the run's sweep, as `raysplit run` does.
    """
    from raysplit.corpus import Corpus
    from raysplit.run_folder.folder import existing_run
    from raysplit.split import Advice

    advice = read_json(advice_file, Advice.from_json)
    folder, space = existing_run(run_folder or advice_file.parent)
    _hold(folder.path, take_over=take_over)
    work = _Work(space=space, folder=folder, console=open_console(), ray_address=ray_address)
    corpus_, final = Corpus.open(folder.corpus), replace(final, seed=seed)
    if not _agreed(work, corpus_, advice, final, advice_file=advice_file, sweep_flops=_spent_flops(folder)):
        click.get_current_context().exit(NOT_AGREED)
    _check_final(work, corpus_, advice, final)
    _train(work, corpus_, advice, final)


@click.command()
@run_argument
@_confirm_above_option
@_yes_option
@ray_address_option
@take_over_option
def controls(run_folder: Path, confirm_above: float, yes: bool, ray_address: str | None, take_over: bool) -> None:
    """Train the advised split again with the text divided otherwise: by the sources that RUN's clusters did not see,
    and at random.

    Each is a run folder of its own in RUN/controls, which `raysplit eval RUN RUN/controls/*` compares. Asks before all
    of them together cost more than --confirm-above times the run's sweep, as `raysplit run` does.
    """
    from raysplit.discover.controls import control_spaces
    from raysplit.run_folder.folder import existing_run, open_run
    from raysplit.split import Advice
    from raysplit.sweep.controls import CONTROLS_FOLDER, check_controls, control_advice

    folder, space = existing_run(run_folder)
    advice = read_json(folder.advice, Advice.from_json)
    check_controls(folder, space, advice)
    _hold(folder.path, take_over=take_over)
    console, out = open_console(), folder.path / CONTROLS_FOLDER
    final = _Final(baselines=False, confirm_above=confirm_above, yes=yes)
    found: list[tuple[_Work, Corpus, Advice]] = []
    for name, own in control_spaces(space, folder.discovery, out).items():
        _rule(console, f"control: {name}")
        work = _Work(space=own, folder=open_run(out / name, own), console=console, ray_address=ray_address)
        found.append((work, _corpus(work), control_advice(advice, own)))
    rests = {work.folder: _rest(work, corpus_, of_control, final) for work, corpus_, of_control in found}
    words = ["raysplit", "controls", str(run_folder), "--yes"]
    if not _allowed(rests, final, console, sweep_flops=_spent_flops(folder), go_on=_on_ray(words, ray_address)):
        click.get_current_context().exit(NOT_AGREED)
    for work, corpus_, of_control in found:
        _train_control(work, corpus_, of_control)


@click.command()
@run_argument
def report(run_folder: Path) -> None:
    """Draw the run's figures and write its page."""
    from raysplit.run_folder.folder import existing_run

    _report(existing_run(run_folder)[0], open_console())


@click.command()
@click.argument("table", type=click.Path(path_type=Path))
@click.option("--budget-flops", type=QUANTITY, required=True, help="Target budget, at 6N FLOPs a token.")
@click.option("--sweep-budget-flops", type=QUANTITY, help="What the replayed sweep may spend; unlimited by default.")
@click.option(
    "--policy",
    type=click.Choice(["adaptive", "grid"]),
    default="adaptive",
    show_default=True,
    help="How trials are chosen.",
)
@click.option("--lanes", type=click.IntRange(min=1), default=2, show_default=True, help="Trials at a time.")
@as_is_option
def replay(
    table: Path,
    budget_flops: float,
    sweep_budget_flops: float | None,
    policy: Literal["adaptive", "grid"],
    lanes: int,
    as_is: bool,
) -> None:
    """Run the sweep's decisions on a TABLE of measured losses, without training."""
    import tempfile
    from contextlib import closing

    from raysplit.errors import RunError
    from raysplit.journal import Journal
    from raysplit.live.run_spec import RunSpec
    from raysplit.live.service import LawService
    from raysplit.quantities import counted, format_flops
    from raysplit.runs import BASE
    from raysplit.split import render_advice
    from raysplit.sweep.replay import replay as run_replay
    from raysplit.sweep.replay import spec_of_table, table_losses

    console = open_console()
    runs = read_table(table, as_is=as_is, is_all=True)
    if BASE in runs:
        raise RunError(f"{table}: its runs start from bases that exist; replay takes runs that were pretrained")
    spec = spec_of_table(
        runs,
        budget_flops=budget_flops,
        policy=policy,
        lanes=lanes,
        sweep_budget_flops=sweep_budget_flops or float("inf"),
    )
    with tempfile.TemporaryDirectory() as scratch, closing(Journal(Path(scratch) / "journal")) as journal:
        run = RunSpec(spec=spec, bytes_per_token=dict.fromkeys(spec.domains, 1.0))
        service = LawService(run, journal)
        why = run_replay(service, table_losses(runs, spec.domains)).finished
        status = service.status()
        console.print(
            f"{why}: {status.n_observations} of {counted(len(runs), 'row')} used, "
            f"{counted(status.n_stopped, 'trial')} stopped, {format_flops(status.spent_flops)}\n"
        )
        console.print(render_advice(service.advise().advice))


def _rule(console: Console, title: str) -> None:
    console.rule(Text(title, style="bold"), align="left")


def _begin(space_file: Path, out: Path, *, take_over: bool) -> _Work:
    """Everything that can be wrong without building anything; from here on the folder is this command's."""
    from raysplit.design.resolved_spec import spec_of
    from raysplit.discover.spaces import expected_space
    from raysplit.run_folder.folder import open_run
    from raysplit.space import load_space

    space = with_counted_bases(load_space(space_file))
    expected = expected_space(space)
    spec_of(expected, vocab_size=space.corpus.tokenizer.vocab_size)  # a target that no split meets
    _check_lanes(expected, space_file)
    _hold(out, take_over=take_over)
    return _Work(space=space, folder=open_run(out, space), console=open_console())


def _check_lanes(space: "Space", space_file: Path) -> None:
    """Refuse sizes that the machines cannot train, by the name of the file."""
    from raysplit.design.lane_shapes import check_lanes
    from raysplit.errors import SpaceError

    try:
        check_lanes(space)
    except SpaceError as error:
        raise SpaceError(f"{space_file}: {error}") from error


def _hold(run_folder: Path, *, take_over: bool) -> None:
    """Hold the run folder until the command has ended."""
    from raysplit.run_folder.holder import held

    context = click.get_current_context()
    context.with_resource(held(run_folder, command=context.command_path, take_over=take_over, tell=say))


def _check_cluster(work: _Work) -> None:
    """Refuse machines that cannot train, before a corpus is built for them; a sweep that has ended needs none."""
    if not work.folder.advice.exists():
        _check_machines(work)


def _check_final(work: _Work, corpus: "Corpus", advice: "Advice", final: _Final) -> None:
    """Refuse machines that cannot train, where anything is left of a final run."""
    if _rest(work, corpus, advice, final).left:
        _check_machines(work)


def _check_machines(work: _Work) -> None:
    """Refuse machines that cannot train.

    Nodes of a cluster are asked where there are several: what one of them writes, it can read. Room for lanes is not
    looked for, as nodes may come later.
    """
    from raysplit import ray_private
    from raysplit.cli.cluster import examine
    from raysplit.errors import RunError
    from raysplit.lanes.cluster import check_cluster
    from raysplit.live.addresses import check_address

    if chosen := check_cluster(work.ray_address):
        work.console.print(chosen)
    if work.ray_address is not None and ray_private.n_nodes(check_address(work.ray_address)) < 2:
        return
    findings, _ = examine(work.space, work.folder.path, work.ray_address, looks_for_room=False)
    for finding in findings:
        if finding.severity == "warning":
            say(str(finding))
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise RunError("\n".join(f"{each.where}: {each.what}; {each.remedy}" for each in errors))


def _discovered(work: _Work) -> _Work:
    """With the space's domains, which are found where it has none."""
    if work.space.corpus.discover is None:
        return work
    from raysplit.cli.discovering import discover_in_run

    return replace(work, space=discover_in_run(work.space, work.folder, work.console))


def _corpus(work: _Work, *, n_processes: int | None = None) -> "Corpus":
    from raysplit.corpus import build_in_tokens_of
    from raysplit.corpus.by_base import every_corpus
    from raysplit.corpus.manifest import MANIFEST_FILE
    from raysplit.quantities import format_count
    from raysplit.sweep.run_spec import held_out_tokens, longest_path_epochs

    space, folder, console = work.space, work.folder, work.console
    if (folder.corpus / MANIFEST_FILE).exists():
        console.print(f"  as built before; to read the text anew, delete {folder.corpus}")
    with steps_shown(console) as show:
        built = build_in_tokens_of(
            space.corpus, [space.tokenizer_of(n) for n in space.model.sizes], folder.corpus,
            progress=show, n_processes=n_processes,
        )  # fmt: skip
    for name, record in built.manifest.texts.items():
        per_token = built.bytes_per_token(name)
        bytes_said = "bytes a token unknown" if per_token != per_token else f"{per_token:.2f} bytes a token"
        console.print(
            f"  {name:<12} {format_count(record.train.n_tokens):>6} tokens to train on, "
            f"{format_count(record.validation.n_tokens):>6} held out, {bytes_said}, "
            f"{record.licence or 'no licence given'}"
        )
        for note in record.notes:
            console.print(f"  {'':<12} {note}")
    for other in every_corpus(space, built)[1:]:
        each = ", ".join(f"{name} {other.bytes_per_token(name):.2f}" for name in other.manifest.texts)
        console.print(f"  the same in the tokens of {other.manifest.spec.tokenizer.name}, bytes a token: {each}")
    for name, epochs in longest_path_epochs(space, built).items():
        if epochs > 1:
            console.print(f"  {name}: read up to {epochs:.1f} times on one path through trunk and branch")
        if (n_tokens := held_out_tokens(space, built, name)) <= space.training.validation_tokens // 2:
            console.print(
                f"  {name}: its losses are read on {n_tokens:,} held-out tokens, where training.validation_tokens = "
                f"{space.training.validation_tokens:,}; a larger corpus.validation_fraction holds out more"
            )
    return built


def _tuned(work: _Work, corpus: "Corpus") -> _Work:
    """With the space to sweep: tuned, where it asks for that."""
    if work.space.tuning is None:
        return work
    from raysplit.sweep.launch import run_tuning
    from raysplit.tuning.stages import rule_sentence
    from raysplit.tuning.tuned import read_tuned

    known = read_tuned(work.folder.hyperparameters)
    space = run_tuning(
        work.space, work.folder, corpus, console=work.console, ray_address=work.ray_address,
        wait_seconds=work.wait_seconds,
    )  # fmt: skip
    if known is not None:
        work.console.print(f"hyperparameters as tuned before: {rule_sentence(known)}")
    return replace(work, space=space)


def _print_plan(space: "Space", vocab_size: int, console: Console) -> None:
    from raysplit.design.resolved_spec import spec_of
    from raysplit.sweep.plan import describe_plan, make_plan, plan_notes, text_notes

    spec = spec_of(space, vocab_size=vocab_size)
    plan_ = make_plan(space, spec, vocab_size=vocab_size, seconds_per_token=_timed(space, spec, vocab_size, console))
    for title, rows in describe_plan(plan_):
        table = Table(*rows[0], title=title, title_justify="left", box=None, padding=(0, 2))
        for row in rows[1:]:
            table.add_row(*row)
        console.print(table)
    notes = plan_notes(plan_) + text_notes(space)
    if space.tuning is not None:
        from raysplit.quantities import format_flops
        from raysplit.tuning.stages import expected_flops

        trained = format_flops(expected_flops(space, vocab_size=vocab_size))
        notes.append(f"before that, hyperparameters are tuned: about {trained}, more where a range is widened")
    for note in notes:
        console.print(note)


def _timed(space: "Space", spec: "ResolvedSpec", vocab_size: int, console: Console) -> "dict[int, float]":
    """Seconds a token of the sizes that this machine can time: it has the device, and the device holds them alone."""
    from raysplit.train.calibrate import can_train_on, fitting_alone, seconds_per_token

    if not can_train_on(space.compute.device):
        return {}
    models = [space.shape(n, vocab_size) for n in spec.sizes]
    with console.status("timing a few real steps of each size ...", spinner="line"):
        return seconds_per_token(space, fitting_alone(space, models))


def _http(address: str | None, closed_reading: bool, allowed_hosts: tuple[str, ...]) -> "HttpOptions | None":
    from raysplit.http.options import read_http_options

    if address is None:
        return None
    return read_http_options(address, open_reading=not closed_reading, allowed_hosts=allowed_hosts)


def _sweep(work: _Work, corpus: "Corpus") -> float:
    """Sweep to the end and show the answer; FLOPs that the sweep has spent."""
    from raysplit.quantities import counted, format_flops, format_seconds
    from raysplit.split import Advice, render_advice
    from raysplit.sweep.launch import run_sweep

    folder, console = work.folder, work.console
    end = run_sweep(
        work.space, folder, corpus, console=console, ray_address=work.ray_address, http=work.http,
        wait_seconds=work.wait_seconds,
    )  # fmt: skip
    status = end.status
    if not status.finished:  # Tune returns early, in good order, on SIGUSR1
        raise KeyboardInterrupt
    when = f"after {format_seconds(end.wall_seconds)}" if end.wall_seconds else "before this start"
    console.print(f"sweep ended {when}: {status.finished}")
    console.print(
        f"{counted(status.n_observations, 'observation')}, {format_flops(status.spent_flops)}, "
        f"{counted(status.n_stopped, 'trial')} stopped early, {status.n_failed} failed"
        + (f" (why: raysplit status {shlex.quote(str(folder.path))})\n" if status.n_failed else "\n")
    )
    console.print(render_advice(read_json(folder.advice, Advice.from_json)))
    return float(status.spent_flops)


def _spent_flops(folder: "RunFolder") -> float | None:
    """By the sweep of a run folder, where it holds one."""
    from raysplit.journal import has_journal
    from raysplit.sweep.launch import read_service

    return float(read_service(folder.path).status().spent_flops) if has_journal(folder.journal) else None


def _agreed(
    work: _Work,
    corpus: "Corpus",
    advice: "Advice",
    final: _Final,
    *,
    advice_file: Path,
    sweep_flops: float | None,
) -> bool:
    """Say what the final run costs; whether somebody agrees, where that is more than goes without saying."""
    rests = {work.folder: _rest(work, corpus, advice, final)}
    go_on = _train_command(work, advice_file, final)
    return _allowed(rests, final, work.console, sweep_flops=sweep_flops, go_on=go_on)


def _allowed(
    rests: "Mapping[RunFolder, FinalPlan]", final: _Final, console: Console, *, sweep_flops: float | None, go_on: str
) -> bool:
    """Say what is left of the final runs of some folders; whether somebody agrees to all of it together.

    Args:
        rests: folder -> what is left there.
        final: what is asked of them.
        console: where it is said.
        sweep_flops: what the sweep has spent; None where no sweep is known.
        go_on: the command that does it without asking.
    """
    from raysplit.sweep.final import agree, is_agreed
    from raysplit.sweep.final_plan import final_notes

    for rest in rests.values():
        for note in final_notes(rest, sweep_flops=sweep_flops) if rest.left else ():
            console.print(note)
    left_flops = sum(rest.left_flops for rest in rests.values())
    goes_without_saying = left_flops <= final.confirm_above * (sweep_flops or 0.0)
    if goes_without_saying or all(is_agreed(folder, rest) for folder, rest in rests.items()):
        return True
    if not final.yes and not (console.is_terminal and sys.stdin.isatty() and click.confirm("train it?")):
        console.print(f"not begun, as nobody has agreed to it; the answer is kept. To go on: {go_on}")
        return False
    for folder, rest in rests.items():
        agree(folder, rest)
    return True


def _rest(work: _Work, corpus: "Corpus", advice: "Advice", final: _Final) -> "FinalPlan":
    """What is left to train of a final run."""
    from raysplit.corpus.by_base import corpus_of
    from raysplit.sweep.final import plan_rest

    of_base = corpus_of(work.space, corpus, advice.split.n_params)
    return plan_rest(
        work.space, work.folder, advice, vocab_size=corpus.vocab_size, seed=final.seed,
        baseline_names=_baseline_names(final, work.space), domain_tokens=of_base.domain_tokens,
    )  # fmt: skip


def _train_command(work: _Work, advice_file: Path, final: _Final) -> str:
    """What trains the final run of a folder without asking."""
    words = ["raysplit", "train", "--advice", str(advice_file), "--run", str(work.folder.path), "--yes"]
    if final.seed != FINAL_SEED:
        words += ["--seed", str(final.seed)]
    if final.baselines:
        words.append("--baselines")
    return _on_ray(words, work.ray_address)


def _on_ray(words: list[str], ray_address: str | None) -> str:
    """A command, on the Ray cluster that this one is on."""
    return shlex.join([*words, *(["--ray-address", ray_address] if ray_address is not None else [])])


def _baseline_names(final: _Final, space: "Space") -> tuple[str, ...]:
    from raysplit.sweep.final_plan import BASELINES, OF_BASES

    every = OF_BASES if space.model.checkpoints else BASELINES
    return every if final.baselines else ()


def _train(work: _Work, corpus: "Corpus", advice: "Advice", asked: _Final) -> None:
    from raysplit.law import Law
    from raysplit.sweep.final import run_final

    folder, console = work.folder, work.console
    law = read_json(folder.law, Law.from_json) if folder.law.exists() else None
    final = run_final(
        work.space,
        folder,
        corpus,
        advice,
        law,
        seed=asked.seed,
        baseline_names=_baseline_names(asked, work.space),
        console=console,
        ray_address=work.ray_address,
        wait_seconds=work.wait_seconds,
    )
    advised = final.variants["recommended"]
    baselines = [name for name in final.variants if name != "recommended"]
    table = Table(
        "domain",
        "predicted",
        f"{advice.level:.0%} interval",
        "measured",
        "",
        "bits/byte",
        "seed model",
        *baselines,
        box=None,
        padding=(0, 2),
    )
    inside = 0
    for domain, loss in advised.losses.items():
        predicted = advised.predicted.get(domain)
        within = predicted is not None and predicted.low <= loss <= predicted.high
        inside += within
        table.add_row(
            domain,
            f"{predicted.mean:.3f}" if predicted else "",
            f"{predicted.low:.3f} to {predicted.high:.3f}" if predicted else "",
            f"{loss:.3f}",
            "inside" if within else "outside" if predicted else "",
            f"{advised.bits_per_byte[domain]:.3f}",
            f"{final.seed_losses.get(domain, float('nan')):.3f}",
            *(f"{final.variants[name].losses[domain]:.3f}" for name in baselines),
        )
    console.print(table)
    weights = advice.weights
    ours = sum(weights[d] * loss for d, loss in advised.losses.items())
    for name in baselines:
        theirs = sum(weights[d] * loss for d, loss in final.variants[name].losses.items())
        console.print(f"measured {100 * (1 - ours / theirs):+.2f} % loss saved against {name} at equal FLOPs")
    console.print(
        f"{inside} of {len(advised.losses)} measured losses inside the predicted interval; models in {folder.experts}"
    )


def _train_control(work: _Work, corpus: "Corpus", advice: "Advice") -> None:
    from raysplit.quantities import counted
    from raysplit.sweep.final import run_final

    _rule(work.console, f"control: {work.folder.path.name}")
    final = run_final(
        work.space, work.folder, corpus, advice, None, seed=FINAL_SEED, baseline_names=(), console=work.console,
        ray_address=work.ray_address, with_cards=False,
    )  # fmt: skip
    losses, weights = final.variants["recommended"].losses, work.space.weights()
    mean = sum(weights[domain] * loss for domain, loss in losses.items())
    work.console.print(
        f"measured {mean:.4f} {work.space.target.loss_unit.replace('/', ' a ')} over its "
        f"{counted(len(losses), 'domain')}; models in {work.folder.experts}"
    )


def _report(folder: "RunFolder", console: Console) -> None:
    from raysplit.report import write_report

    console.print(f"report: {write_report(folder)}")
