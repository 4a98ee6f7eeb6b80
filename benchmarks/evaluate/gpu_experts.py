"""What do routed experts of 10 to 20M parameters gain over pretraining only, on one GPU in at most 8 minutes?

    .venv/bin/python benchmarks/evaluate/gpu_experts.py --out runs/gpu-experts
    .venv/bin/python benchmarks/evaluate/gpu_experts.py --out runs/gpu-small --small    # the same path on a CPU

First the text of `search_spaces/experts.yaml`, three times as much of it, is divided into clusters and tokenized, and
the first items of the benchmarks are written down. That takes minutes of a CPU and a package registry. With `--prepare`
the command ends there, so that a GPU machine without a network is lent for the rest alone: bring `--out` along.

Then a few steps are timed, and the budget is set to what both variants take `--seconds` to train. Seed and experts on
the clusters, and a model that is only pretrained, get that budget each, at most four passes over the text. All are
evaluated as by `public_benchmarks.py`, whose lines these are, and on held-out text.

**What to expect.** Experts gain where the parameters are what limits the loss, far beyond the tokens that are best for
N (`routed_gain.py`). Minutes of one GPU give 10M parameters a few tokens each. So six tenths of them go to pretraining,
and that the experts gain nothing is as likely as that they gain.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from public_benchmarks import TASKS, evaluate_and_report
from routed_gain import DISCOVERED, Cell, Division, divisions, one_rank, train

from raysplit.corpus import Corpus
from raysplit.corpus.manifest import MANIFEST_FILE
from raysplit.evaluate.plan import Wanted
from raysplit.evaluate.public import BENCHMARKS
from raysplit.evaluate.rows import archived_rows
from raysplit.quantities import format_count, format_flops
from raysplit.space import parse_space
from raysplit.train.calibrate import seconds_per_token

SPACE = Path(__file__).parents[2] / "search_spaces" / "experts.yaml"
CONTEXT = 768
"""Tokens; of the prompts of HumanEval at most 5 % may be longer."""
SHARE = 0.6
"""Of the tokens in pretraining."""
MOST_PASSES = 4.0
"""Over the text: up to four are nearly as good as new text (Muennighoff et al., arXiv:2305.16264)."""


def space_of(*, size: str, small: bool) -> dict[str, Any]:
    """The space of `SPACE` with the text, vocabulary, context and batch that a size of the GPU wants, or in small."""
    raw: dict[str, Any] = yaml.safe_load(SPACE.read_text())
    corpus, training = raw["corpus"], raw["training"]
    for source in corpus["sources"].values():
        source["max_bytes"] = "1M" if small else "6M"
    corpus["tokenizer"]["vocab_size"] = 512 if small else 2048
    raw["model"] = {"sizes": [size], "context_length": CONTEXT}
    sequences = 3 if small else 32
    training |= {"batch_tokens": sequences * CONTEXT, "micro_batch_sequences": min(16, sequences)}
    training |= {"warmup_tokens": sequences * CONTEXT * 20}
    # A space must have a grid that its text can fill, though nothing is swept here.
    raw["sweep"] = {"pretrain_tokens": ["500k", "1M"], "specialize_tokens": ["100k", "200k"], "budget_flops": "1e18"}
    raw["target"] = {"budget_flops": "1e16"}
    raw["compute"] |= {"lanes": 1}
    return raw


def prepare(out: Path, *, size: str, small: bool, limit: int) -> None:
    """Write the run folder with its corpus, and the benchmarks' first items, where they are missing."""
    out.mkdir(parents=True, exist_ok=True)
    space_file, run, items = out / "space.yaml", out / "run", out / "benchmarks"
    if not (run / "corpus" / MANIFEST_FILE).exists():
        space_file.write_text(yaml.safe_dump(space_of(size=size, small=small), sort_keys=False))
        command = [sys.executable, "-m", "raysplit", "corpus", "build", str(space_file), "--out", str(run)]
        if failed := subprocess.run(command, check=False).returncode:
            raise SystemExit(failed)
    items.mkdir(exist_ok=True)
    for task in TASKS:
        if not (items / f"{task}.jsonl").exists():
            rows = itertools.islice(archived_rows(BENCHMARKS[task]), limit)
            (items / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def on(division: Division, *, device: str) -> Division:
    """The division with the precision that suits a device."""
    raw = division.space.model_dump(mode="json")
    raw["training"] |= {"precision": "bf16" if device == "cuda" else "fp32"}
    return Division(parse_space(raw, origin="the prepared space"), division.corpus)


def budget(division: Division, n_params: int, *, seconds: float) -> float:
    """FLOPs that each of two variants has if both together train for so long."""
    corpus = Corpus.open(division.corpus)
    shape = division.space.shape(n_params, corpus.vocab_size)
    [per_token] = seconds_per_token(division.space, [shape], n_steps=8).values()
    n_text = sum(corpus.domain_tokens.values())
    n_tokens = min(seconds / per_token / 2, MOST_PASSES * n_text)
    print(
        f"{format_count(shape.n_params_non_embedding)} parameters, {1 / per_token:,.0f} tokens/s; "
        f"{format_count(n_tokens)} tokens a variant, {n_tokens / n_text:.1f} passes over the text, "
        f"{format_flops(n_tokens * shape.flops_per_token)}",
        flush=True,
    )
    return n_tokens * shape.flops_per_token


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-experts"))
    parser.add_argument("--size", help="parameters; 10M when left out, or 28k in small")
    parser.add_argument("--seconds", type=float, help="of training; 200 when left out, or 20 in small")
    parser.add_argument("--limit", type=int, help="items of each task; 200 when left out, or 20 in small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prepare", action="store_true", help="end before anything needs a GPU")
    parser.add_argument("--small", action="store_true", help="a CPU's size: figures of the path alone")
    given = parser.parse_args()
    small, device = given.small, "cpu" if given.small else "cuda"
    size, seconds, limit = (
        given.size or ("28k" if small else "10M"),
        given.seconds or (20.0 if small else 200.0),
        given.limit or (20 if small else 200),
    )
    out, started = given.out.absolute(), time.monotonic()
    prepare(out, size=size, small=small, limit=limit)
    if given.prepare:
        return
    where = torch.cuda.get_device_name() if device == "cuda" else "a CPU, small: figures of the path alone"
    print(f"{time.strftime('%Y-%m-%d')}, {where}; prepared after {time.monotonic() - started:.0f} s", flush=True)
    found = divisions(out / "run", out, controls=[], context=None, batch=None, device=device)[DISCOVERED]
    division = on(found, device=device)
    [n_params] = division.space.model.sizes
    with one_rank(device):
        # A cell that an interrupted try has begun is gone on with, whatever the speed is by now.
        begun = sorted((out / "cells").glob(f"n{n_params}-c*-s{given.seed}"))
        if begun:
            flops = float(begun[0].name.split("-c")[1].split("-p")[0])
        else:
            flops = budget(division, n_params, seconds=seconds)
        cell = Cell(n_params=n_params, budget_flops=float(f"{flops:.2g}"), share=SHARE, seed=given.seed)
        checkpoints = cell.checkpoints(out / "cells", DISCOVERED)
        checkpoints.mkdir(parents=True, exist_ok=True)
        train(cell, division, cell.folder(out / "cells") / DISCOVERED, checkpoints=checkpoints, with_baseline=True)
    print(f"trained after {time.monotonic() - started:.0f} s", flush=True)
    wanted = Wanted(
        sources=[], tasks=["held-out", *TASKS], limit=limit, data=str(out / "benchmarks"), device=device
    )  # fmt: skip
    evaluate_and_report(out / "cells", wanted)
    print(f"({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main()
