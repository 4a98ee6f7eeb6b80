"""The real thing: the seed and the experts at the advised split, and the rules of thumb beside them at equal FLOPs.

Each result is journalled as it comes, so that an interrupted final run continues where it was.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import ray
from ray.actor import ActorHandle
from rich.console import Console

from raysplit.corpus import Corpus
from raysplit.design.tree import Trial
from raysplit.errors import RaysplitError
from raysplit.law import Law
from raysplit.live.journal import Journal
from raysplit.space import Space
from raysplit.split import Advice, Split, baselines, target_problem
from raysplit.sweep.cluster import joined_cluster
from raysplit.sweep.display import Display
from raysplit.sweep.folder import RunFolder, write_text
from raysplit.sweep.launch import bytes_per_token
from raysplit.sweep.pool import Pool

RECOMMENDED = "recommended"
BASELINES = ("pretraining only", "80/20", "from scratch")


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One split to train, on whole optimizer steps."""

    name: str
    pretrain_tokens: int
    specialize_tokens: Mapping[str, int]

    @property
    def total_tokens(self) -> int:
        return self.pretrain_tokens + sum(self.specialize_tokens.values())


def variants_of(space: Space, advice: Advice, rules: Mapping[str, Split]) -> list[Variant]:
    """The advised split and the baselines that are wanted beside it, rounded to whole steps of equal total tokens."""
    out = [_rounded(space, RECOMMENDED, advice.split, total_steps=None)]
    # Every variant spends what the rounded advice does, to the token.
    total_steps = out[0].total_tokens // space.training.batch_tokens
    return out + [_rounded(space, name, split, total_steps=total_steps) for name, split in rules.items()]


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
    problem = replace(
        target_problem(space, vocab_size=corpus.vocab_size),
        budget_flops=advice.budget_flops,
        accounting=advice.accounting,
    )
    rules = baselines(problem, n_params=n_params)
    variants = variants_of(space, advice, {name: rules[name] for name in baseline_names})
    for variant in variants:
        corpus.check_capacity(
            max_pretrain_tokens=variant.pretrain_tokens,
            max_specialize_tokens=max(variant.specialize_tokens.values()),
            max_epochs=space.corpus.max_epochs,
        )
    journal = Journal(folder.path / "final.jsonl")
    tasks = _tasks(variants, n_params=n_params, seed=seed, folder=folder)
    done = {record.data["task"]: record.data for record in journal.records if record.kind == "result"}
    started = time.perf_counter()
    if missing := [task for task in tasks if task.name not in done]:
        with joined_cluster(space.compute, address=ray_address):
            pool = Pool(space, run_folder=folder.path, corpus_folder=folder.corpus, law=None)
            try:
                pool.wait_until_ready()
                with Display(console, law=None, broker=pool.broker, title="final run"):
                    for name, result in _carry_out(missing, set(done), pool):
                        done[name] = journal.append("result", {"task": name, **result}).data
            finally:
                pool.close()
    journal.close()
    final = _summary(space, corpus, variants, advice, law, done, seed=seed, flops_per_token=problem.sizes[n_params])
    final["wall_seconds"] = time.perf_counter() - started
    write_text(folder.final, json.dumps(final, indent=1))
    return final


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    name: str
    after: str
    """The task that leaves the checkpoint this one starts from; empty for the first."""
    trial: Trial
    milestone: int
    waypoints: tuple[int, ...]
    export_to: str


def _tasks(variants: Sequence[Variant], *, n_params: int, seed: int, folder: RunFolder) -> list[_Task]:
    """One trunk through every variant's D, its branches as soon as it has passed; the advised split first."""
    waypoints = tuple(sorted({v.pretrain_tokens for v in variants if v.pretrain_tokens}))
    advised = variants[0].pretrain_tokens
    tasks: list[_Task] = []
    last = ""
    for tokens in waypoints:
        trunk = Trial(n_params=n_params, seed=seed, domain="", pretrain_tokens=tokens, milestones=(tokens,))
        last, after = f"trunk {tokens}", last
        tasks.append(
            _Task(
                name=last,
                after=after,
                trial=trunk,
                milestone=tokens,
                waypoints=waypoints,
                export_to=str(folder.experts / "seed") if tokens == advised else "",
            )
        )
    for variant in variants:
        # A trunk leaves its checkpoint at zero when it begins.
        after = f"trunk {variant.pretrain_tokens or waypoints[0]}"
        for domain, tokens in variant.specialize_tokens.items():
            if tokens:
                branch = Trial(
                    n_params=n_params,
                    seed=seed,
                    domain=domain,
                    pretrain_tokens=variant.pretrain_tokens,
                    milestones=(tokens,),
                )
                tasks.append(
                    _Task(
                        name=f"{variant.name} {domain}",
                        after=after,
                        trial=branch,
                        milestone=tokens,
                        waypoints=waypoints,
                        export_to=str(folder.experts / domain) if variant.name == RECOMMENDED else "",
                    )
                )
    return tasks


def _carry_out(tasks: list[_Task], done: set[str], pool: Pool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (task, result) as they finish, each task handed in once what it starts from is there."""
    waiting = list(tasks)
    running: dict[Any, _Task] = {}
    broker: ActorHandle = pool.broker
    while waiting or running:
        for task in [t for t in waiting if not t.after or t.after in done]:
            body = {
                "kind": "measure",
                "trial": asdict(task.trial),
                "milestone": task.milestone,
                "waypoints": task.waypoints,
                "export_to": task.export_to,
            }
            running[broker.run.remote(body)] = task
            waiting.remove(task)
        ready, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
        pool.check()
        for future in ready:
            task, result = running.pop(future), ray.get(future)
            if "failed" in result:
                raise RaysplitError(f"final run: {task.name}: {result['failed']}")
            done.add(task.name)
            yield task.name, result


def _rounded(space: Space, name: str, split: Split, *, total_steps: int | None) -> Variant:
    """A split on whole steps; where ``total_steps`` is given, of exactly so many, the remainder going to pretraining
    or, without pretraining, to the first domains.
    """
    batch = space.training.batch_tokens
    steps = {domain: round(tokens / batch) for domain, tokens in split.specialize_tokens.items()}
    pretrain_steps = round(split.pretrain_tokens / batch)
    if total_steps is not None:
        left = total_steps - sum(steps.values())
        if pretrain_steps or not any(steps.values()):
            pretrain_steps = left
        else:
            base, extra = divmod(total_steps, len(steps))
            steps = {domain: base + (i < extra) for i, domain in enumerate(steps)}
    return Variant(
        name=name,
        pretrain_tokens=pretrain_steps * batch,
        specialize_tokens={domain: n * batch for domain, n in steps.items()},
    )


def _summary(
    space: Space,
    corpus: Corpus,
    variants: Sequence[Variant],
    advice: Advice,
    law: Law | None,
    done: Mapping[str, Mapping[str, Any]],
    *,
    seed: int,
    flops_per_token: float,
) -> dict[str, Any]:
    n_params = advice.split.n_params
    bytes_each = bytes_per_token(corpus)
    out: dict[str, Any] = {"schema_version": 1, "seed": seed, "n_params": n_params, "variants": {}}
    for variant in variants:
        trunk = done.get(f"trunk {variant.pretrain_tokens}", {}).get("losses", {})
        losses = {
            domain: done[f"{variant.name} {domain}"]["losses"][domain] if tokens else trunk[domain]
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
            "flops": flops_per_token * variant.total_tokens,
            "losses": losses,
            "predicted": predicted,
            "bits_per_byte": {domain: loss / math.log(2) / bytes_each[domain] for domain, loss in losses.items()},
        }
    advised = variants[0]
    out["budget_flops"] = flops_per_token * advised.total_tokens
    out["seed_losses"] = done.get(f"trunk {advised.pretrain_tokens}", {}).get("losses", {})
    return out
