r"""What do routed experts gain over pretraining only at equal FLOPs, at two model sizes and two budgets?

A cell is a size, a budget and a seed. In it are trained, all at equal FLOPs: seed and experts at one share of
pretraining, on discovered clusters, on the true labels and on random clusters; and a model that is only pretrained. The
routers are then held against that model on the same items. The benchmark needs the discovered corpus of a run. All
cells take hours; run again, it goes on with those that are missing.

    .venv/bin/raysplit corpus build search_spaces/experts.yaml --out runs/experts
    .venv/bin/python benchmarks/evaluate/routed_gain.py --run runs/experts --out runs/routed-gain
    .venv/bin/python benchmarks/evaluate/routed_gain.py --out runs/routed-gain --report

On one GPU, within 8 minutes:

    .venv/bin/python benchmarks/evaluate/routed_gain.py --device cuda --context 512 --batch 16384 --sizes 10000000 \
        --budgets 2e14 --seeds 0 --tasks held-out humaneval mbpp lambada hellaswag --limit 100 --most-seconds 240

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
    """One size, budget and seed."""

    n_params: int
    budget_flops: float
    seed: int

    def folder(self, out: Path) -> Path:
        return out / f"n{self.n_params}-c{self.budget_flops:.0e}-s{self.seed}"


def divisions(run: Path, out: Path, *, context: int | None, batch: int | None, device: str) -> dict[str, Division]:
    """The run's discovered corpus, and the same documents by their labels and at random."""
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
    for name, own in control_spaces(space, folder.discovery, out / "controls").items():
        built = build_corpus(own.corpus, out / "controls" / name)
        found[name] = Division(own.model_copy(update=changed), built.folder)
    return found


def train(cell: Cell, division: Division, out: Path, *, share: float, with_baseline: bool) -> None:
    """Train on one division of the text and leave a run folder in ``out`` that can be evaluated."""
    if (out / "final.json").exists():
        return
    space, corpus = division.space, Corpus.open(division.corpus)
    shape = space.shape(cell.n_params, corpus.vocab_size)
    batch = space.training.batch_tokens
    n_steps = round(cell.budget_flops / shape.flops_per_token / batch)
    variants = variants_at(space, n_steps=n_steps, share=share)[: 1 + with_baseline]
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "corpus").exists():
        (out / "corpus").symlink_to(division.corpus)
    size, experts = shape.n_params_non_embedding, out / "experts"
    parts = parts_of(variants, n_params=size, seed=1000 + cell.seed, experts=experts)
    lane = Lane(
        space, corpus, shape=lane_shape_of(space, cell.n_params), vocab_size=corpus.vocab_size,
        checkpoints=out / "checkpoints",
    )  # fmt: skip
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
                name: str(path.relative_to(out))
                for name, path in models_of(v, parts, n_params=size, seed=1000 + cell.seed).items()
            },
        }
        for v in variants
    }
    (out / "final.json").write_text(json.dumps({"variants": record}, indent=1))


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


def measure(cell: Cell, of: Mapping[str, Division], out: Path, *, share: float, wanted: Wanted) -> None:
    """One cell from training to its evaluation."""
    for kind, division in of.items():
        train(cell, division, out / kind, share=share, with_baseline=kind == DISCOVERED)
    evaluate(replace(wanted, sources=[out / kind for kind in of]), out / "evaluation")


def report(cells: Sequence[Cell], out: Path) -> None:
    """Per size and budget: each subject against pretraining only and against the label's expert, over the seeds."""
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    missing = [c for c in cells if read_evaluation(c.folder(out) / "evaluation" / RESULTS) is None]
    print(f"{len(cells) - len(missing)} of {len(cells)} cells measured")
    for n_params, budget in sorted({(cell.n_params, cell.budget_flops) for cell in cells}):
        found = [
            evaluation
            for cell in cells
            if (cell.n_params, cell.budget_flops) == (n_params, budget)
            and (evaluation := read_evaluation(cell.folder(out) / "evaluation" / RESULTS)) is not None
        ]
        if not found:
            print(f"\nN = {n_params:,}, C = {budget:.1e}: not run")
            continue
        print(f"\nN = {n_params:,}, C = {budget:.1e}, {len(found)} seeds; held-out loss, all domains together")
        losses = [_losses(evaluation) for evaluation in found]
        names = [name for name in losses[0] if all(name in each for each in losses)]
        [label] = [name for name in names if name in (LABEL, f"{DISCOVERED}:{LABEL}")]
        print(f"{'variant':<44} {'nats/token':>10}  {'better than pretraining only':>29}  {'above label':>11}")
        for name in names:
            mean = float(np.mean([each[name] for each in losses]))
            gain = np.array(
                [1 - each[name] / each[evaluation.against] for each, evaluation in zip(losses, found, strict=True)]
            )
            above = float(np.mean([each[name] / each[label] - 1 for each in losses]))
            print(f"{name:<44} {mean:>10.4f}  {_with_interval(gain):>29}  {above:>+11.2%}")


def _losses(evaluation: Evaluation) -> dict[str, float]:
    return {f.subject: f.value.mean for f in evaluation.findings if (f.task, f.metric) == ("held-out", "loss")}


def _with_interval(gain: np.ndarray) -> str:
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
    parser.add_argument("--sizes", type=int, nargs="+", default=[28_000, 56_000])
    parser.add_argument("--budgets", type=float, nargs="+", default=[5e11, 1e12])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--share", type=float, default=0.5, help="of the tokens in pretraining")
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
        Cell(n_params=n, budget_flops=budget, seed=seed)
        for seed, n, budget in itertools.product(given.seeds, given.sizes, given.budgets)
    ]
    out, started = given.out.absolute(), time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    missing = (
        [] if given.report else [cell for cell in cells if not (cell.folder(out) / "evaluation" / RESULTS).exists()]
    )
    if missing:
        every = divisions(given.run, out, context=given.context, batch=given.batch, device=given.device)
        of = {kind: every[kind] for kind in (DISCOVERED, *given.controls)}
        wanted = Wanted(sources=[], tasks=given.tasks, limit=given.limit, variants=True, device=given.device)
        with one_rank(given.device):
            for cell in missing:
                if time.monotonic() - started > given.most_seconds:
                    break
                begun = time.monotonic()
                measure(cell, of, cell.folder(out), share=given.share, wanted=wanted)
                print(f"{cell}: {time.monotonic() - begun:.0f} s", flush=True)
    report(cells, out)


if __name__ == "__main__":
    main()
