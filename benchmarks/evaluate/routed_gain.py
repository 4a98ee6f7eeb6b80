r"""What do routed experts gain over pretraining only at equal FLOPs, at two model sizes and two budgets?

A cell is a size, a budget, a share of the tokens in pretraining, and a seed. In it are trained, all at equal FLOPs:
seed and experts on discovered clusters, on the true labels and on random clusters; and a model that is only pretrained.
The routers are then held against that model on the same items. The benchmark needs the discovered corpus of a run. Run
again, it goes on where it was, be it in the midst of a training: first all cells with the discovered clusters, then all
with the controls.

    .venv/bin/raysplit corpus build search_spaces/experts.yaml --out runs/experts
    .venv/bin/python benchmarks/evaluate/routed_gain.py --run runs/experts --out runs/routed-gain
    .venv/bin/python benchmarks/evaluate/routed_gain.py --out runs/routed-gain --report

`public_benchmarks.py` evaluates the same models on public benchmarks. `gpu_experts.py` trains larger ones on one GPU.

**The budgets.** At equal FLOPs an expert has read about as much of its domain as the model that is only pretrained.
What it gains is capacity: all of N is for one domain. That counts where N is what limits the loss, far beyond the
tokens that are best for N; and each expert needs some hundred steps of its own. So models are small and budgets large.
The law of `benchmarks/data/surface-2026-11-23.csv`, three of its four domains taken twice to make seven, expects:

    N     FLOPs   tokens   tokens per N   passes over the text   best share   better than pretraining only
    13k   2e12     7.2M         540               1.0               36 %                7.2 %
    13k   4e12    14.5M       1,079               2.0               31 %                7.9 %
    28k   2e12     4.3M         156               0.6               35 %                5.8 %
    28k   4e12     8.7M         312               1.2               31 %                7.7 %

A text is read at most twice. Up to 4 times is nearly as good as new text (Muennighoff et al., arXiv:2305.16264), and
models this small cannot learn it by heart. Both sides read it equally often.

**The share in pretraining** is .3. By that law 22 to 44 % cost at most .5 % more loss than the best share, at each of
the four. A pilot says whether these clusters agree: seed 0, the smaller size and budget.

    .venv/bin/python benchmarks/evaluate/routed_gain.py --sizes 14000 --budgets 2e12 --seeds 0 --shares 0.3 0.15 0.6 \
        --controls

Rates and schedule are those of the space, the same for both sides.

A line is a variant: its held-out loss, how much lower that is than pretraining only's (a minus means worse), and how
far it is above the loss of the expert that the label names. An interval is over seeds.
"""

import argparse
import itertools
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from scipy import stats

from raysplit.corpus import Corpus, build_corpus
from raysplit.design.lane_shapes import lane_shape_of
from raysplit.design.resolved_spec import tree_of
from raysplit.discover.controls import control_spaces
from raysplit.evaluate.plan import Wanted
from raysplit.evaluate.results import RESULTS, Evaluation, read_evaluation
from raysplit.evaluate.run import evaluate
from raysplit.machines import ComputeSpec
from raysplit.run_folder.folder import existing_run
from raysplit.space import Space
from raysplit.sweep.final_plan import Variant, models_of, parts_of
from raysplit.train.run import Lane
from raysplit.train.runtime import become_only_rank

DISCOVERED, LABELS, RANDOM = "discovered", "labels", "random"
PRETRAINING_ONLY = "pretraining only"
LABEL = "label top 1"
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Division:
    """One way to divide the text into domains."""

    space: Space
    corpus: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One size, budget, share of the tokens in pretraining, and seed."""

    n_params: int
    budget_flops: float
    share: float
    seed: int

    def folder(self, out: Path) -> Path:
        return out / f"n{self.n_params}-c{self.budget_flops:g}-p{self.share:g}-s{self.seed}"

    def checkpoints(self, out: Path, kind: str) -> Path:
        """Folder of the checkpoints, which all budgets and shares of a size and seed have in common: one trunk."""
        return out / "checkpoints" / f"n{self.n_params}-s{self.seed}-{kind}"

    def evaluated(self, out: Path) -> Evaluation | None:
        return read_evaluation(self.folder(out) / "evaluation" / RESULTS)


def divisions(
    run: Path, out: Path, *, controls: Sequence[str], context: int | None, batch: int | None, device: str
) -> dict[str, Division]:
    """The run's discovered corpus, and the same documents by their labels and at random, where wanted."""
    folder, space = existing_run(run)
    context = context or space.model.context_length
    batch = batch or space.training.batch_tokens
    changed = {
        "model": space.model.model_copy(update={"context_length": context}),
        "training": space.training.model_copy(
            update={"batch_tokens": batch, "micro_batch_sequences": min(16, batch // context)}
        ),
        "compute": space.compute.model_copy(update={"device": device}),
    }
    found = {DISCOVERED: Division(space.model_copy(update=changed), folder.corpus)}
    spaces = control_spaces(space, folder.discovery, out / "controls") if controls else {}
    for name, own in spaces.items():
        if name in controls:
            built = build_corpus(own.corpus, out / "controls" / name)
            found[name] = Division(own.model_copy(update=changed), built.folder)
    return found


def train(cell: Cell, division: Division, run: Path, *, checkpoints: Path, with_baseline: bool) -> None:
    """Train on one division of the text and leave a folder ``run`` that can be evaluated."""
    if (run / "final.json").exists():
        return
    space, corpus = division.space, Corpus.open(division.corpus)
    shape = space.shape(cell.n_params, corpus.vocab_size)
    batch = space.training.batch_tokens
    n_steps = round(cell.budget_flops / shape.flops_per_token / batch)
    variants = variants_at(space, n_steps=n_steps, share=cell.share)[: 1 + with_baseline]
    run.mkdir(parents=True, exist_ok=True)
    if not (run / "corpus").exists():
        (run / "corpus").symlink_to(division.corpus)
    size, experts = shape.n_params_non_embedding, run / "experts"
    parts = parts_of(variants, n_params=size, seed=1000 + cell.seed, experts=experts)
    lane = Lane(
        space, corpus, shape=lane_shape_of(space, cell.n_params), vocab_size=corpus.vocab_size, checkpoints=checkpoints
    )
    for part in parts:
        task = part.task
        if (Path(task.export_to) / "config.json").exists():
            continue
        tree = replace(tree_of(space), pretrain_grid=task.waypoints)
        lane.measure(task.trial, task.milestone, tree=tree, on_progress=lambda tokens, loss: False)
        lane.export(task.trial, Path(task.export_to), tokenizer_folder=corpus.tokenizer_path)
    record = {
        v.name: {
            "pretrain_tokens": v.pretrain_tokens,
            "specialize_tokens": dict(v.specialize_tokens),
            "flops": float(shape.flops_per_token) * v.paid_tokens("shared"),
            "models": {
                name: str(path.relative_to(run))
                for name, path in models_of(v, parts, n_params=size, seed=1000 + cell.seed).items()
            },
        }
        for v in variants
    }
    (run / "final.json").write_text(json.dumps({"variants": record}, indent=1))


def variants_at(space: Space, *, n_steps: int, share: float) -> list[Variant]:
    """Experts by the bytes of their domains, and everything in pretraining."""
    batch, weights = space.training.batch_tokens, space.weights()
    own = [max(2, round((1 - share) * n_steps * weight)) for weight in weights.values()]
    tokens = dict(zip(weights, (steps * batch for steps in own), strict=True))
    pretrain = (n_steps - sum(own)) * batch
    if pretrain < 2 * batch:
        raise SystemExit(f"{n_steps} steps of {batch} tokens are too few for {len(own)} experts; a larger --budgets")
    return [
        Variant(name="recommended", pretrain_tokens=pretrain, specialize_tokens=tokens),
        Variant(
            name=PRETRAINING_ONLY, pretrain_tokens=n_steps * batch, specialize_tokens=dict.fromkeys(weights, 0)
        ),
    ]  # fmt: skip


def measure(cell: Cell, of: Mapping[str, Division], out: Path, *, wanted: Wanted) -> None:
    """One cell from training to its evaluation, on the divisions ``of`` the text."""
    folder = cell.folder(out)
    for kind, division in of.items():
        checkpoints = cell.checkpoints(out, kind)
        checkpoints.mkdir(parents=True, exist_ok=True)
        train(cell, division, folder / kind, checkpoints=checkpoints, with_baseline=kind == DISCOVERED)
    evaluate(replace(wanted, sources=[folder / kind for kind in of]), folder / "evaluation")


def is_measured(cell: Cell, kinds: Sequence[str], out: Path) -> bool:
    """Whether the cell's evaluation has these divisions of the text."""
    evaluation = cell.evaluated(out)
    origins = {Path(subject.origin).name for subject in evaluation.subjects} if evaluation else set()
    return origins >= set(kinds)


def report(cells: Sequence[Cell], out: Path) -> None:
    """Per size, budget and share: each subject against pretraining only and the label's expert, over the seeds."""
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    groups: dict[tuple[int, float, float], list[Evaluation | None]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.n_params, cell.budget_flops, cell.share, cell.seed)):
        groups.setdefault((cell.n_params, cell.budget_flops, cell.share), []).append(cell.evaluated(out))
    n_missing = sum(evaluation is None for each in groups.values() for evaluation in each)
    print(f"{len(cells) - n_missing} of {len(cells)} cells measured")
    for (n_params, budget, share), evaluations in groups.items():
        found = [evaluation for evaluation in evaluations if evaluation is not None]
        title = f"\nN = {n_params:,}, C = {budget:.1e}, {share:.0%} in pretraining"
        if not found:
            print(f"{title}: not run")
            continue
        print(f"{title}; held-out loss, all domains together")
        losses = [_losses(evaluation) for evaluation in found]
        print(f"{'variant':<26} seeds  nats/token  {'better than pretraining only':>29}  above label")
        for name in dict.fromkeys(name for each in losses for name in each):
            having = [each for each in losses if name in each]
            mean = float(np.mean([each[name] for each in having]))
            gain = np.array([1 - each[name] / each[PRETRAINING_ONLY] for each in having])
            above = float(np.mean([each[name] / each[LABEL] - 1 for each in having]))
            print(f"{name:<26} {len(having):>5}  {mean:>10.4f}  {with_interval(gain):>29}  {above:>+11.2%}")


def _losses(evaluation: Evaluation) -> dict[str, float]:
    """Subject -> loss; one of the discovered clusters has the same name with controls and without."""
    return {
        PRETRAINING_ONLY if PRETRAINING_ONLY in f.subject else f.subject.removeprefix(f"{DISCOVERED}:"): f.value.mean
        for f in evaluation.findings
        if (f.task, f.metric) == ("held-out", "loss")
    }


def with_interval(gain: np.ndarray) -> str:
    """The mean with its interval over the seeds, by Student's t."""
    if len(gain) < 2:
        return f"{gain.mean():+.2%} (one seed)"
    half = stats.t.ppf(0.5 + LEVEL / 2, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain))
    return f"{gain.mean():+.2%} ({gain.mean() - half:+.2%} to {gain.mean() + half:+.2%})"


@contextmanager
def one_rank(device: str) -> Iterator[None]:
    """This process as the only worker of a lane."""
    become_only_rank(ComputeSpec(device=device))
    yield
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/experts"))
    parser.add_argument("--out", type=Path, default=Path("runs/routed-gain"))
    parser.add_argument("--sizes", type=int, nargs="+", default=[14_000, 28_000])
    parser.add_argument("--budgets", type=float, nargs="+", default=[2e12, 4e12])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.3], help="of the tokens in pretraining")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--controls", choices=[LABELS, RANDOM], nargs="*", default=[LABELS, RANDOM])
    parser.add_argument("--tasks", nargs="+", default=["held-out"])
    parser.add_argument("--limit", type=int, help="items of each task")
    parser.add_argument("--context", type=int, help="tokens; the space's own when left out")
    parser.add_argument("--batch", type=int, help="tokens of a step; the space's own when left out")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--most-seconds", type=float, default=float("inf"), help="no cell is begun after these")
    parser.add_argument("--report", action="store_true", help="train nothing")
    given = parser.parse_args()
    cells = [
        Cell(n_params=n, budget_flops=budget, share=share, seed=seed)
        for budget, seed, n, share in itertools.product(given.budgets, given.seeds, given.sizes, given.shares)
    ]
    out, started = given.out.absolute(), time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    stages = list(dict.fromkeys([(DISCOVERED,), (DISCOVERED, *given.controls)]))
    missing = [(cell, kinds) for kinds in stages for cell in cells if not is_measured(cell, kinds, out)]
    if missing and not given.report:
        every = divisions(
            given.run, out, controls=given.controls, context=given.context, batch=given.batch, device=given.device
        )
        wanted = Wanted(sources=[], tasks=given.tasks, limit=given.limit, variants=True, device=given.device)
        with one_rank(given.device):
            for cell, kinds in missing:
                if time.monotonic() - started > given.most_seconds:
                    break
                begun = time.monotonic()
                measure(cell, {kind: every[kind] for kind in kinds}, out, wanted=wanted)
                print(f"{cell}, {', '.join(kinds)}: {time.monotonic() - begun:.0f} s", flush=True)
                report([cell], out)
    report(cells, out)


if __name__ == "__main__":
    main()
