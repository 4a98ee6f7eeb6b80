"""The real thing: the seed and the experts at the advised split, and the rules of thumb beside them at equal FLOPs.

Each result is journalled as it comes, so that an interrupted final run continues where it was.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from raysplit import __version__, strict_json
from raysplit.corpus import Corpus
from raysplit.design.tasks import Failed, Measured, Outcome, Task
from raysplit.design.tree import Trial
from raysplit.errors import RaysplitError, RunError
from raysplit.journal import Journal
from raysplit.law import Law
from raysplit.space import SEED_FOLDER, Space
from raysplit.split import Advice, Interval, Split, baselines, target_problem
from raysplit.split.problem import Accounting
from raysplit.sweep.backend import Backend
from raysplit.sweep.cluster import joined_cluster
from raysplit.sweep.folder import RunFolder, write_text
from raysplit.sweep.lanes import running_lanes
from raysplit.sweep.run_setup import bytes_per_token
from raysplit.train.card import CARD, ExportedModel, render_card
from raysplit.train.checkpoints import check_checkpoints
from raysplit.train.export import CONFIG, complete_export

RECOMMENDED = "recommended"
BASELINES = ("pretraining only", "80/20", "from scratch")


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One split to train, on whole optimizer steps."""

    name: str
    pretrain_tokens: int
    specialize_tokens: Mapping[str, int]

    def paid_tokens(self, accounting: Accounting) -> int:
        """What the budget pays for: D + sum_k D'_k, or D and the longest D'_k where each expert is reckoned alone."""
        experts = self.specialize_tokens.values()
        return self.pretrain_tokens + (sum(experts) if accounting == "shared" else max(experts))


def variants_of(space: Space, advice: Advice, rules: Mapping[str, Split]) -> list[Variant]:
    """The advised split and the baselines that are wanted beside it, on whole steps, at the same cost to the token."""
    batch, shared = space.training.batch_tokens, advice.accounting == "shared"
    experts = advice.split.specialize_tokens.values()
    n_steps = max(1, round((advice.split.pretrain_tokens + (sum(experts) if shared else max(experts))) / batch))
    return [
        _on_steps(name, split, n_steps=n_steps, batch_tokens=batch, shared=shared)
        for name, split in {RECOMMENDED: advice.split, **rules}.items()
    ]


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
) -> dict[str, Any]:
    """Train the variants, export seed and experts of the advised one, write and return what `RunFolder.final` holds.

    What has been trained before is not trained again. Each exported model gets its card at the end, when all losses
    are known.

    Args:
        space: the sweep's space.
        folder: of the run; the models go to `RunFolder.experts`.
        corpus: the sweep's corpus.
        advice: what to train.
        law: gives the predictions to hold against the measured losses.
        seed: of weights and data order; one that the sweep did not use makes the comparison out of sample.
        baseline_names: rules of thumb to train as well, out of `BASELINES`.
        console: where to say how it goes.
        ray_address: of the cluster; None for this machine.

    Raises:
        CorpusError: a domain has too few tokens for a variant.
        RaysplitError: a training run failed.
    """
    n_params = advice.split.n_params
    # The advice may be about a size that the search space does not name.
    flops_per_token = float(space.shape(n_params, corpus.vocab_size).flops_per_token)
    problem = replace(
        target_problem(space, vocab_size=corpus.vocab_size),
        budget_flops=advice.budget_flops,
        accounting=advice.accounting,
        sizes={n_params: flops_per_token},
    )
    rules = baselines(problem, n_params=n_params)
    variants = variants_of(space, advice, {name: rules[name] for name in baseline_names})
    for variant in variants:
        corpus.check_capacity(
            max_pretrain_tokens=variant.pretrain_tokens,
            max_specialize_tokens=max(variant.specialize_tokens.values()),
            max_epochs=space.corpus.max_epochs,
            replay_share=space.training.replay_share,
        )
    journal = Journal(folder.path / "final_journal")
    parts = parts_of(
        variants, n_params=n_params, seed=seed, experts=folder.experts, step_tokens=space.training.batch_tokens
    )
    exports = {part.name: part.task.export_to for part in parts}
    done = {
        name: result
        for name, result in _done(journal).items()
        # A model that was taken away since is trained again.
        if not exports.get(name) or (Path(exports[name]) / CONFIG).exists()
    }
    checkpoints = folder.checkpoints_at(space.compute.storage)
    check_checkpoints(checkpoints, space, vocab_size=corpus.vocab_size)
    if missing := [part for part in parts if part.name not in done]:
        with (
            joined_cluster(space.compute, address=ray_address),
            running_lanes(space, folder, law=None, console=console, title="final run") as lanes,
        ):
            for name, measured in carry_out(missing, set(done), lanes):
                about = {"task": name, "export_to": exports[name], **asdict(measured)}
                done[name] = journal.append("result", about).data
    journal.close()
    losses = {(part.task.trial.name, part.task.milestone): done[part.name]["losses"] for part in parts}
    final = _summary(corpus, variants, advice, law, losses, seed=seed, flops_per_token=flops_per_token)
    # Of the lanes together, so that a final run in two parts says the same as one in one.
    final["wall_seconds"] = sum(done[part.name]["wall_seconds"] for part in parts)
    write_text(folder.final, strict_json.dumps(final, indent=1))
    for part in parts:
        if (export := part.task.export_to) and not (Path(export) / CARD).exists():
            _finish_export(part.task, done[part.name]["losses"], final, space=space, corpus=corpus, advice=advice)
    return final


def _done(journal: Journal) -> dict[str, Mapping[str, Any]]:
    """Results by task; without those whose model another advice's has overwritten since."""
    done: dict[str, Mapping[str, Any]] = {}
    for record in journal.records:
        if folder := record.data["export_to"]:
            done = {name: data for name, data in done.items() if data["export_to"] != folder}
        done[record.data["task"]] = record.data
    return done


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One measurement of the final run."""

    after: str
    """Name of the part that leaves the checkpoint this one starts from; empty for the first."""
    task: Task

    @property
    def name(self) -> str:
        """Says what is trained, so that a final run of another split or seed does not take its result for its own."""
        return f"{self.task.trial.name} at {self.task.milestone}" + (", exported" if self.task.export_to else "")


def parts_of(variants: Sequence[Variant], *, n_params: int, seed: int, experts: Path, step_tokens: int) -> list[Part]:
    """One trunk through every variant's D, its branches as soon as it has passed; the advised split, the first of
    ``variants``, is exported to the folder ``experts``.
    """
    # Where nothing is pretrained, a trunk of one step leaves the checkpoint at zero that branches start from.
    waypoints = tuple(sorted({v.pretrain_tokens for v in variants if v.pretrain_tokens})) or (step_tokens,)
    trunks: dict[int, Part] = {}
    for tokens in waypoints:
        trunks[tokens] = Part(
            after=trunks[max(trunks)].name if trunks else "",
            task=Task(
                trial=Trial(n_params=n_params, seed=seed, domain="", pretrain_tokens=tokens, milestones=(tokens,)),
                milestone=tokens,
                waypoints=waypoints,
                export_to=str(experts / SEED_FOLDER) if tokens == variants[0].pretrain_tokens else "",
            ),
        )
    branches: dict[tuple[Trial, int], Part] = {}
    for variant in variants:
        for domain, tokens in variant.specialize_tokens.items():
            branch = _branch(variant, domain, n_params=n_params, seed=seed)
            if tokens and (branch, tokens) not in branches:
                branches[branch, tokens] = Part(
                    after=trunks[variant.pretrain_tokens or waypoints[0]].name,
                    task=Task(
                        trial=branch,
                        milestone=tokens,
                        waypoints=waypoints,
                        export_to=str(experts / domain) if variant is variants[0] else "",
                    ),
                )
    return [*trunks.values(), *branches.values()]


def _branch(variant: Variant, domain: str, *, n_params: int, seed: int) -> Trial:
    return Trial(
        n_params=n_params,
        seed=seed,
        domain=domain,
        pretrain_tokens=variant.pretrain_tokens,
        milestones=(variant.specialize_tokens[domain],),
    )


def carry_out(parts: Sequence[Part], done: set[str], backend: Backend) -> Iterator[tuple[str, Measured]]:
    """Yield (part, outcome) as they finish, each task handed in once what it starts from is there.

    Raises:
        RaysplitError: training failed, or machines were at fault.
    """
    waiting = list(parts)
    running: dict[Future[Outcome], Part] = {}
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
    task: Task, losses: Mapping[str, float], final: Mapping[str, Any], *, space: Space, corpus: Corpus, advice: Advice
) -> None:
    """Write the card of an exported model that has none, which an older raysplit left, or a lane just now.

    A card that is there stays as it is: somebody may have written more into it.

    Raises:
        RunError: the folder cannot be written, or what lies there is no exported model.
    """
    folder, trial = Path(task.export_to), task.trial
    pretrain_tokens, specialize_tokens = trial.point(task.milestone)
    predicted = final["variants"][RECOMMENDED]["predicted"]
    trained_on = final["variants"][RECOMMENDED]["specialize_tokens"]
    model = ExportedModel(
        domain=trial.domain,
        n_params=trial.n_params,
        pretrain_tokens=pretrain_tokens,
        specialize_tokens=specialize_tokens,
        seed=trial.seed,
        horizon_tokens=max(space.horizon_tokens, *task.waypoints),
        losses=losses,
        bytes_per_token=bytes_per_token(corpus),
        seed_losses=final["seed_losses"] if trial.domain else {},
        # The law was asked about a domain's expert, which is the seed where the domain has no tokens of its own.
        predicted={
            name: Interval(**guess)
            for name, guess in predicted.items()
            if (name == trial.domain if trial.domain else not trained_on[name])
        },
    )
    try:
        complete_export(folder, tokenizer_folder=corpus.tokenizer_path)
        write_text(
            folder / CARD, render_card(model, space=space, manifest=corpus.manifest, advice=advice, version=__version__)
        )
    except OSError as error:
        raise RunError(f"{folder}: its card cannot be written: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{folder / CONFIG}: is not what an export writes ({error!r}); delete {folder}, and the model is trained "
            "again"
        ) from error


def _on_steps(name: str, split: Split, *, n_steps: int, batch_tokens: int, shared: bool) -> Variant:
    """A split in so many whole steps: rounded down, and what is left to the parts that lost most."""
    experts = split.specialize_tokens
    if shared:
        pretrain, *own = _apportioned(n_steps, [split.pretrain_tokens, *experts.values()])
    else:
        longest = max(experts.values())
        pretrain, most = _apportioned(n_steps, [split.pretrain_tokens, longest])
        own = [round(most * tokens / longest) if longest else 0 for tokens in experts.values()]
    return Variant(
        name=name,
        pretrain_tokens=pretrain * batch_tokens,
        specialize_tokens={domain: steps * batch_tokens for domain, steps in zip(experts, own, strict=True)},
    )


def _apportioned(n_steps: int, tokens: Sequence[float]) -> list[int]:
    """Whole steps in proportion to tokens, ``n_steps`` in all, by largest remainders."""
    exact = [n_steps * part / math.fsum(tokens) for part in tokens]
    steps = [math.floor(part) for part in exact]
    short = sorted(range(len(exact)), key=lambda i: steps[i] - exact[i])
    for i in short[: n_steps - sum(steps)]:
        steps[i] += 1
    return steps


def _summary(
    corpus: Corpus,
    variants: Sequence[Variant],
    advice: Advice,
    law: Law | None,
    measured: Mapping[tuple[str, int], Mapping[str, float]],
    *,
    seed: int,
    flops_per_token: float,
) -> dict[str, Any]:
    n_params = advice.split.n_params
    trunk = Trial(n_params=n_params, seed=seed, domain="", pretrain_tokens=0, milestones=()).name
    bytes_each = bytes_per_token(corpus)
    out: dict[str, Any] = {"schema_version": 1, "seed": seed, "n_params": n_params, "variants": {}}
    for variant in variants:
        losses = {
            domain: (
                measured[_branch(variant, domain, n_params=n_params, seed=seed).name, tokens]
                if tokens
                else measured[trunk, variant.pretrain_tokens]
            )[domain]
            for domain, tokens in variant.specialize_tokens.items()
        }
        predicted = (
            {}
            if law is None
            else {
                domain: {
                    name: float(value)
                    for name, value in asdict(
                        law.predict(
                            domain,
                            n_params,
                            variant.pretrain_tokens,
                            variant.specialize_tokens[domain],
                            level=advice.level,
                        )
                    ).items()
                }
                for domain in losses
            }
        )
        out["variants"][variant.name] = {
            "pretrain_tokens": variant.pretrain_tokens,
            "specialize_tokens": dict(variant.specialize_tokens),
            "flops": flops_per_token * variant.paid_tokens(advice.accounting),
            "losses": losses,
            "predicted": predicted,
            "bits_per_byte": {domain: loss / math.log(2) / bytes_each[domain] for domain, loss in losses.items()},
        }
    advised = variants[0]
    out["budget_flops"] = flops_per_token * advised.paid_tokens(advice.accounting)
    out["seed_losses"] = measured.get((trunk, advised.pretrain_tokens), {})
    return out
