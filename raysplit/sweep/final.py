"""The final run: the seed and the experts at the advised split, and the rules of thumb beside them at equal FLOPs.

Each result goes into a journal as it comes, so that an interrupted final run goes on where it was.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from raysplit import __version__, strict_json
from raysplit.corpus import Corpus
from raysplit.corpus.by_base import corpus_of
from raysplit.design.tasks import Failed, Measured, Outcome, Task
from raysplit.design.tree import Trial
from raysplit.errors import RaysplitError, RunError
from raysplit.journal import Journal, Record
from raysplit.lanes.cluster import joined_cluster
from raysplit.lanes.lanes import running_lanes
from raysplit.law import Law
from raysplit.run_folder.folder import RunFolder, write_text
from raysplit.runs import bits_per_byte
from raysplit.space import Space
from raysplit.split import Advice, Interval
from raysplit.sweep.backend import Backend
from raysplit.sweep.final_plan import FinalPart, FinalPlan, Variant, expert_of, models_of, plan_final
from raysplit.sweep.final_run import RECOMMENDED, FinalRun, TrainedVariant
from raysplit.sweep.run_spec import bytes_per_token, recorded
from raysplit.train.base_card import render_base_card
from raysplit.train.card import CARD, ExportedModel, render_card
from raysplit.train.checkpoints import check_checkpoints
from raysplit.train.export import CONFIG, complete_export

_JOURNAL = "final_journal"
_AGREED = "agreed"
"""Kind of the record that a user has agreed to the cost of the parts that it names."""


def run_final(
    space: Space,
    folder: RunFolder,
    corpus: Corpus,
    advice: Advice,
    law: Law | None,
    *,
    seed: int,
    baseline_names: Sequence[str],
    console: Console,
    ray_address: str | None,
    wait_seconds: float = 0.0,
    with_cards: bool = True,
) -> FinalRun:
    """Train and export the variants, write and return what `RunFolder.final` holds.

    What has been trained before is not trained again. With ``with_cards`` each model of the advised split gets a model
    card at the end, when all losses are known. The baselines' models get none.

    Args:
        law: gives the predictions to compare the measured losses with; None predicts nothing.
        seed: of weights and data order; one that the sweep did not use makes the comparison out of sample.
        baseline_names: rules of thumb to train as well, out of `BASELINES`, or of `OF_BASES`.
        wait_seconds: how long to wait for nodes, where the cluster has no room for the smallest lane.
        with_cards: whether the advised split's models get cards.

    Raises:
        CorpusError: a domain has too few tokens for a variant.
        SpaceError: the model does not fit on the machines.
        RaysplitError: a training run failed, or machines were at fault.
    """
    corpus = corpus_of(space, corpus, advice.split.n_params)
    plan = plan_rest(
        space, folder, advice, vocab_size=corpus.vocab_size, seed=seed, baseline_names=baseline_names,
        domain_tokens=corpus.domain_tokens,
    )  # fmt: skip
    for variant in plan.variants:
        corpus.check_capacity(
            max_pretrain_tokens=0 if variant.starts_from_base else variant.pretrain_tokens,
            max_specialize_tokens=max(variant.specialize_tokens.values()),
            max_epochs=space.corpus.max_epochs,
            replay_share=variant.replay_share or space.training.replay_share,
        )
    exports = {part.name: part.task.export_to for part in plan.parts}
    checkpoints = folder.checkpoints_at(space.compute.storage)
    check_checkpoints(checkpoints, space, vocab_size=corpus.vocab_size)
    journal = Journal(folder.path / _JOURNAL)
    done = _done(journal.records, plan.parts)
    if plan.left:
        with (
            joined_cluster(space.compute, address=ray_address),
            running_lanes(
                space, folder, law=None, console=console, title="final run", wait_seconds=wait_seconds
            ) as lanes,
        ):
            for name, measured in carry_out(plan.left, set(done), lanes):
                about = {"task": name, "export_to": exports[name], **asdict(measured)}
                done[name] = journal.append("result", about).data
    journal.close()
    final = _summary(folder, corpus, plan, advice, law, done, seed=seed)
    write_text(folder.final, strict_json.dumps(final.model_dump(mode="json"), indent=1))
    for part in plan.parts:
        export = Path(part.task.export_to)
        if with_cards and export.parent == folder.experts and not (export / CARD).exists():
            _finish_export(part.task, done[part.name]["losses"], final, space=space, corpus=corpus, advice=advice)
    return final


def plan_rest(
    space: Space,
    folder: RunFolder,
    advice: Advice,
    *,
    vocab_size: int,
    seed: int,
    baseline_names: Sequence[str],
    seconds_per_token: Mapping[int, float] | None = None,
    domain_tokens: Mapping[str, float] | None = None,
) -> FinalPlan:
    """What a final run in a folder still has to train; arguments and errors as of `plan_final`."""
    plan = partial(
        plan_final,
        space,
        advice,
        vocab_size=vocab_size,
        seed=seed,
        baseline_names=baseline_names,
        experts=folder.experts,
        seconds_per_token=seconds_per_token,
        domain_tokens=domain_tokens,
    )
    return plan(done=_done(recorded(folder.path / _JOURNAL), plan().parts))


def is_agreed(folder: RunFolder, plan: FinalPlan) -> bool:
    """Whether a user has agreed to the cost of all that is left of a final run, before it was interrupted."""
    agreed = {
        name for record in recorded(folder.path / _JOURNAL) if record.kind == _AGREED for name in record.data["parts"]
    }
    return agreed >= {part.name for part in plan.left}


def agree(folder: RunFolder, plan: FinalPlan) -> None:
    """Record that a user has agreed to the cost of what is left."""
    journal = Journal(folder.path / _JOURNAL)
    journal.append(_AGREED, {"parts": [part.name for part in plan.left]})
    journal.close()


def _done(records: Iterable[Record], parts: Sequence[FinalPart]) -> dict[str, Mapping[str, Any]]:
    """Part -> its result; without those whose exported model was overwritten since by another advice's, or is gone."""
    done: dict[str, Mapping[str, Any]] = {}
    for record in records:
        if record.kind == _AGREED:
            continue
        if folder := record.data["export_to"]:
            done = {name: data for name, data in done.items() if data["export_to"] != folder}
        done[record.data["task"]] = record.data
    gone = {part.name for part in parts if part.task.export_to and not (Path(part.task.export_to) / CONFIG).exists()}
    return {name: data for name, data in done.items() if name not in gone}


def carry_out(parts: Sequence[FinalPart], done: set[str], backend: Backend) -> Iterator[tuple[str, Measured]]:
    """Yield (name of the part, outcome) as parts finish; a task is submitted once the part that it starts from is done.

    Raises:
        RaysplitError: training failed, or machines were at fault.
    """
    waiting = list(parts)
    running: dict[Future[Outcome], FinalPart] = {}
    while waiting or running:
        for part in [part for part in waiting if not part.after or part.after in done]:
            running[backend.submit(part.task)] = part
            waiting.remove(part)
        ready, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in ready:
            part, outcome = running.pop(future), future.result()
            if isinstance(outcome, Failed):
                raise RaysplitError(f"final run: {part.name}: {outcome.why}")
            done.add(part.name)
            yield part.name, outcome


def _finish_export(
    task: Task, losses: Mapping[str, float], final: FinalRun, *, space: Space, corpus: Corpus, advice: Advice
) -> None:
    """Write the card of an exported model that has none: a lane left it just now, or an older raysplit.

    The caller keeps a card that is there: its owner may have written more into it.

    Raises:
        RunError: the folder cannot be written, or what lies there is no exported model.
    """
    folder, trial = Path(task.export_to), task.trial
    pretrain_tokens, specialize_tokens = trial.point(task.milestone)
    advised = final.variants[RECOMMENDED]
    model = ExportedModel(
        domain=trial.domain,
        n_params=trial.n_params,
        pretrain_tokens=pretrain_tokens,
        specialize_tokens=specialize_tokens,
        seed=trial.seed,
        horizon_tokens=max(space.horizon_tokens, *task.waypoints),
        losses=losses,
        bytes_per_token=bytes_per_token(corpus),
        loss_unit=advice.loss_unit,
        seed_losses=final.seed_losses if trial.domain else {},
        # The law was asked about a domain's expert, which is the seed where the domain has no tokens of its own.
        predicted={
            name: guess
            for name, guess in advised.predicted.items()
            if (name == trial.domain if trial.domain else not advised.specialize_tokens[name])
        },
    )
    try:
        write_text(folder / CARD, _card(model, folder, space=space, corpus=corpus, advice=advice))
    except OSError as error:
        raise RunError(f"{folder}: its card cannot be written: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{folder / CONFIG}: is not what an export writes ({error!r}); delete {folder}, and the model is trained "
            "again"
        ) from error


def _card(model: ExportedModel, folder: Path, *, space: Space, corpus: Corpus, advice: Advice) -> str:
    """The card of an exported model. Its other files are completed first, but for a base, whose files are its own."""
    for base in space.model.revisions(model.n_params):
        if base.trunk_tokens == model.pretrain_tokens:
            return render_base_card(
                model, space=space, base=base, manifest=corpus.manifest, advice=advice, version=__version__
            )
    complete_export(folder, tokenizer_folder=corpus.tokenizer_path)
    return render_card(model, space=space, manifest=corpus.manifest, advice=advice, version=__version__)


def _summary(
    folder: RunFolder,
    corpus: Corpus,
    plan: FinalPlan,
    advice: Advice,
    law: Law | None,
    done: Mapping[str, Mapping[str, Any]],
    *,
    seed: int,
) -> FinalRun:
    n_params, bytes_each = advice.split.n_params, bytes_per_token(corpus)
    at_share = None if law is None else law.at_share(advice.replay_share)
    measured = {(part.task.trial.name, part.task.milestone): done[part.name]["losses"] for part in plan.parts}
    flops = {v.name: plan.flops_per_token * v.paid_tokens(advice.accounting) for v in plan.variants}
    variants = {}
    for variant in plan.variants:
        experts = {d: expert_of(variant, d, n_params=n_params, seed=seed) for d in variant.specialize_tokens}
        losses = {domain: measured[trial.name, tokens][domain] for domain, (trial, tokens) in experts.items()}
        models = models_of(variant, plan.parts, n_params=n_params, seed=seed)
        variants[variant.name] = TrainedVariant(
            pretrain_tokens=variant.pretrain_tokens,
            specialize_tokens=dict(variant.specialize_tokens),
            seeds=variant.seeds,
            flops=flops[variant.name],
            losses=losses,
            # No run tells anything of the union.
            predicted={}
            if at_share is None or variant.is_union
            else {domain: _predicted(at_share, domain, variant, advice) for domain in losses},
            bits_per_byte={
                domain: bits_per_byte(loss, bytes_each[domain], advice.loss_unit) for domain, loss in losses.items()
            },
            models={name: str(path.relative_to(folder.path)) for name, path in models.items()},
        )
    trunk = Trial(n_params=n_params, seed=seed, domain="", pretrain_tokens=0, milestones=()).name
    advised = plan.variants[0]
    return FinalRun(
        schema_version=1,
        seed=seed,
        budget_flops=flops[advised.name],
        n_params=n_params,
        seed_losses=measured.get((trunk, advised.pretrain_tokens), {}),
        variants=variants,
        # Of the lanes together, so that a final run in two parts says the same as one in one.
        wall_seconds=sum(done[part.name]["wall_seconds"] for part in plan.parts),
    )


def _predicted(law: Law, domain: str, variant: Variant, advice: Advice) -> Interval:
    at = (advice.split.n_params, variant.pretrain_tokens, variant.specialize_tokens[domain])
    said = law.predict(domain, *at, level=advice.level)
    return Interval(mean=float(said.mean), low=float(said.low), high=float(said.high))
