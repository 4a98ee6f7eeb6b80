"""An example: raysplit's searcher, scheduler and stopper around a plain Ray Tune function of your own.

    .venv/bin/python benchmarks/sweep/own_trainable.py --out runs/own

No raysplit trainer is involved. What `train` does here is synthetic: in place of a model it keeps a count of tokens,
and its held-out loss is a known law with 1 % of noise, so that the advice can be compared with the best split there is.
Replace `advance`, `held_out_loss`, `save` and `load` by your own.
"""

import argparse
import json
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune

from raysplit.split import Problem, Split
from raysplit.sweep.grid_spec import spec_of_grid
from raysplit.sweep.tune_plan import TunePlan

DOMAINS = ("code", "law")
FLOPS_PER_TOKEN = {n: 6.0 * n for n in (10_000_000, 30_000_000, 100_000_000)}
PRETRAIN = (100_000_000, 200_000_000, 400_000_000, 800_000_000, 1_600_000_000)
SPECIALIZE = (25_000_000, 50_000_000, 100_000_000, 200_000_000)
TARGET_FLOPS = 1e18


def known_loss(domain: str, n_params: float, pretrain_tokens: float, specialize_tokens: float) -> float:
    """(synthetic) What pretraining leaves to learn falls as a power of D, and specializing takes off a share of it."""
    floor, gain, scale = {"code": (1.0, 0.15, 2e7), "law": (1.4, 0.1, 1e7)}[domain]
    left = 400.0 * (pretrain_tokens + 5e6) ** -0.28 * (1 + specialize_tokens / scale) ** -gain
    return floor + 90.0 * n_params**-0.32 + left


# The trainable: what a user writes.


def train(config: dict[str, Any], shared: str) -> None:
    """A trunk is pretrained on the mixture; a branch goes on from the trunk's checkpoint, on one domain.

    Each point begins at the furthest checkpoint on the way to it, whoever left it there: a trunk that an earlier round
    has trained less far, a branch that was stopped, or this trial itself before its worker died.
    """
    domain = config["domain"]
    for pretrain_tokens, specialize_tokens in config["points"]:
        at = furthest(Path(shared), config, pretrain_tokens, specialize_tokens)
        advance(at, pretrain_tokens, specialize_tokens)
        save(at, Path(shared) / f"{run_of(config, domain)}-{pretrain_tokens}-{specialize_tokens}.json")
        point = {"pretrain_tokens": pretrain_tokens, "specialize_tokens": specialize_tokens}
        if domain:
            tune.report({**point, "loss": held_out_loss(at, domain)})
        else:
            tune.report({**point, "losses": {name: held_out_loss(at, name) for name in DOMAINS}})


def run_of(config: dict[str, Any], domain: str) -> str:
    """How the checkpoints of a trunk (no domain) or of a domain's branches begin."""
    return f"{domain or 'trunk'}-n{config['n_params']}-s{config['seed']}"


def furthest(shared: Path, config: dict[str, Any], pretrain_tokens: int, specialize_tokens: int) -> dict[str, int]:
    """The checkpoint from which least is left to train; a new model where there is none."""
    found = list(shared.glob(f"{run_of(config, '')}-*.json"))
    if config["domain"]:
        found = [shared / f"{run_of(config, '')}-{pretrain_tokens}-0.json"]
        found += shared.glob(f"{run_of(config, config['domain'])}-{pretrain_tokens}-*.json")
    new = {"n_params": config["n_params"], "seed": config["seed"], "pretrain_tokens": 0, "specialize_tokens": 0}
    states = [new, *(load(path) for path in found)]
    on_the_way = [
        at for at in states if at["pretrain_tokens"] <= pretrain_tokens and at["specialize_tokens"] <= specialize_tokens
    ]
    return max(on_the_way, key=lambda at: (at["pretrain_tokens"], at["specialize_tokens"]))


def advance(at: dict[str, int], pretrain_tokens: int, specialize_tokens: int) -> None:
    """Here the training would be."""
    assert at["pretrain_tokens"] <= pretrain_tokens
    assert at["specialize_tokens"] <= specialize_tokens
    at |= {"pretrain_tokens": pretrain_tokens, "specialize_tokens": specialize_tokens}


def held_out_loss(at: dict[str, int], domain: str) -> float:
    """(synthetic) The known law with 1 % of noise, the same for the same run."""
    rng = np.random.default_rng([*at.values(), zlib.crc32(domain.encode())])
    loss = known_loss(domain, at["n_params"], at["pretrain_tokens"], at["specialize_tokens"])
    return loss * math.exp(0.01 * float(rng.standard_normal()))


def save(at: dict[str, int], path: Path) -> None:
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(at))
    os.replace(partial, path)


def load(path: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads(path.read_text())
    return found


# The search.


def search(out: Path, *, lanes: int, budget_share: float) -> TunePlan:
    """Run the search on the Ray cluster that this process is connected to; goes on where one in `out` was left."""
    grid_flops = sum(
        f * (PRETRAIN[-1] + len(PRETRAIN) * len(DOMAINS) * SPECIALIZE[-1]) for f in FLOPS_PER_TOKEN.values()
    )
    plan = TunePlan(
        spec_of_grid(
            flops_per_token=FLOPS_PER_TOKEN,
            pretrain_tokens=PRETRAIN,
            specialize_tokens=SPECIALIZE,
            domains=DOMAINS,
            target_flops=TARGET_FLOPS,
            budget_flops=budget_share * grid_flops,
            lanes=lanes,
        ),
        out,
    )
    shared = out / "checkpoints"
    shared.mkdir(exist_ok=True)
    tune.Tuner(
        tune.with_resources(
            tune.with_parameters(train, shared=str(shared)),
            # Sizes may ask for different resources: here the largest takes two CPUs, the others one.
            lambda config: tune.PlacementGroupFactory([{"CPU": 2 if config["n_params"] > 50_000_000 else 1}]),
        ),
        tune_config=tune.TuneConfig(
            search_alg=plan.searcher(), scheduler=plan.scheduler(), num_samples=-1, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(out.absolute()), stop=plan.stopper(), verbose=0,
            failure_config=tune.FailureConfig(max_failures=2),  # a worker that dies is not a failed training
        ),
    ).fit()  # fmt: skip
    return plan


def known_regret(problem: Problem, split: Split) -> float:
    """How far the split's known loss lies above that of the best one on a fine grid, as a share."""

    def loss(n: int, d: float, experts: Sequence[float]) -> float:
        return sum(known_loss(domain, n, d, s) for domain, s in zip(DOMAINS, experts, strict=True)) / len(DOMAINS)

    best = math.inf
    for n in problem.sizes:
        tokens = problem.affordable_tokens(n)
        for share in np.linspace(0.005, 0.995, 199):
            for part in np.linspace(0.05, 0.95, 37):
                rest = (1 - share) * tokens
                best = min(best, loss(n, share * tokens, (part * rest, (1 - part) * rest)))
    advised = loss(split.n_params, split.pretrain_tokens, [split.specialize_tokens[domain] for domain in DOMAINS])
    return advised / best - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/own"))
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--budget-share", type=float, default=0.1, help="of the whole grid's FLOPs")
    asked = parser.parse_args()
    ray.init(log_to_driver=False)
    with search(asked.out, lanes=asked.lanes, budget_share=asked.budget_share) as plan:
        status, advice = plan.law.status(), plan.advise()
        print(
            f"ended: {plan.finished}\n"
            f"{status.n_observations} losses in {status.round} rounds, {status.n_stopped} trials stopped early, "
            f"{status.spent_flops:.3g} FLOPs\n"
            f"advice: N = {advice.split.n_params}, {100 * advice.split.pretrain_share:.0f} % in pretraining\n"
            f"(synthetic) its known loss is {100 * known_regret(plan.spec.problem, advice.split):.2f} % above the best"
        )


if __name__ == "__main__":
    main()
