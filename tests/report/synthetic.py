"""Run folders of sweeps over a law that is known, without training: what `raysplit sweep` would have left behind."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from raysplit.corpus.manifest import DomainRecord, Manifest, SideRecord, TokenizerRecord, write_manifest
from raysplit.design.resolved_spec import ResolvedSpec, spec_of
from raysplit.design.tasks import Failed
from raysplit.design.tree import Trial
from raysplit.journal import Journal
from raysplit.live.run_spec import RunSpec
from raysplit.live.service import LawService
from raysplit.report.story import read_story
from raysplit.run_folder.folder import RunFolder, open_run
from raysplit.space import Space, parse_space
from raysplit.split import Split, baselines
from raysplit.sweep.final_run import RECOMMENDED
from raysplit.sweep.launch import write_results
from raysplit.sweep.replay import known_law_losses, replay

BYTES_PER_TOKEN = 2.0
DOMAIN_TOKENS = 4_000_000
_FLOORS = (1.1, 1.0, 1.4, 0.6, 0.9)


def space_of(domains: tuple[str, ...] = ("code", "drama"), **sweep: Any) -> Space:
    """A space of two sizes on package texts; ``sweep`` overrides the fields of its sweep section."""
    return parse_space(
        {
            "name": "synthetic",
            "corpus": {"domains": {name: {"kind": "package", "package": "python-stdlib"} for name in domains}},
            "model": {"sizes": ["14k", "28k"], "context_length": 128},
            "training": {
                "batch_tokens": 4096, "micro_batch_sequences": 32, "validation_tokens": 32768, "warmup_tokens": 40960,
                "learning_rate": {"reference": 1e-2, "reference_params": "14k"},
            },
            "sweep": {
                "pretrain_tokens": ["125k", "250k", "500k"], "specialize_tokens": ["62.5k", "125k", "250k"],
                "policy": "grid",
                **sweep,
            },
            "target": {"budget_flops": 2e11},
        },
        origin="synthetic",
    )  # fmt: skip


def loss_at(domain: int, n_params: float, pretrain_tokens: float, specialize_tokens: float) -> float:
    """Law 2 of the pilot's kind: pretraining and specialization multiply, domains differ in floor and in reach."""
    data = 60.0 * (pretrain_tokens + 2e4) ** -0.26 * (1 + specialize_tokens / 6e4) ** (-0.12 - 0.02 * domain)
    return _FLOORS[domain % len(_FLOORS)] + 12.0 * n_params**-0.3 + float(data)


def synthetic_run(path: Path, space: Space, *, fails: Mapping[tuple[str, int], str] | None = None) -> RunFolder:
    """Replay a whole sweep into a run folder.

    Args:
        path: of the folder.
        space: the search space.
        fails: (domain, D) of branches of the smallest size that fail, each with its reason.
    """
    folder = open_run(path, space)
    vocab_size = space.corpus.tokenizer.vocab_size
    _write_corpus(folder, space)
    spec = spec_of(space, vocab_size=vocab_size, domain_tokens=dict.fromkeys(space.domains, float(DOMAIN_TOKENS)))
    journal = Journal(folder.journal)
    run = RunSpec(spec=spec, bytes_per_token=dict.fromkeys(space.domains, BYTES_PER_TOKEN))
    service = LawService(run, journal)
    service_losses = known_law_losses(
        lambda name, n, d, s: loss_at(space.domains.index(name), n, d, s), space.domains, noise=0.008, seed=0
    )
    replay(_with_failures(service, spec, fails or {}), service_losses)
    write_results(service, folder)
    journal.close()
    return folder


def _with_failures(service: LawService, spec: ResolvedSpec, fails: Mapping[tuple[str, int], str]) -> LawService:
    """The service with some branches closed before they begin, as a lane's crash would close them."""
    for (domain, pretrain_tokens), why in fails.items():
        trial = Trial(
            n_params=spec.sizes[0], seed=0, domain=domain, pretrain_tokens=pretrain_tokens,
            milestones=spec.specialize_grid,
        )  # fmt: skip
        service.record(trial, trial.milestones[0], Failed(why=why))
    return service


def add_final(folder: RunFolder, *, error: float = 0.01) -> dict[str, Any]:
    """Write a final run whose every loss is ``error`` above what the law predicts, and return it."""
    story = read_story(folder)
    splits: dict[str, Split] = {
        RECOMMENDED: story.advice.split,
        **baselines(story.problem, n_params=story.advice.split.n_params),
    }
    variants = {}
    for name, split in splits.items():
        predicted = {
            domain: story.law.predict(domain, split.n_params, split.pretrain_tokens, tokens)
            for domain, tokens in split.specialize_tokens.items()
        }
        losses = {domain: float(p.mean) * (1 + error) for domain, p in predicted.items()}
        variants[name] = {
            "pretrain_tokens": round(split.pretrain_tokens),
            "specialize_tokens": {domain: round(tokens) for domain, tokens in split.specialize_tokens.items()},
            "flops": story.problem.flops(split),
            "losses": losses,
            "bits_per_byte": {domain: loss / np.log(2) / BYTES_PER_TOKEN for domain, loss in losses.items()},
            "predicted": {
                domain: {"mean": float(p.mean), "low": float(p.low), "high": float(p.high)}
                for domain, p in predicted.items()
            },
        }
    final = {
        "schema_version": 1, "seed": 1000, "budget_flops": story.advice.budget_flops,
        "n_params": story.advice.split.n_params, "seed_losses": dict.fromkeys(story.problem.domains, 3.2),
        "variants": variants, "wall_seconds": 61.0,
    }  # fmt: skip
    folder.final.write_text(json.dumps(final), encoding="utf-8")
    return final


def _write_corpus(folder: RunFolder, space: Space) -> None:
    side = SideRecord(
        n_tokens=DOMAIN_TOKENS, n_text_bytes=int(BYTES_PER_TOKEN * DOMAIN_TOKENS), n_documents=100, shards=()
    )
    folder.corpus.mkdir()
    write_manifest(
        Manifest(
            spec_hash="", spec=space.corpus, dtype="uint16", versions={}, build_seconds={},
            tokenizer=TokenizerRecord(
                folder="tokenizer", sha256="", vocab_size=space.corpus.tokenizer.vocab_size, end_of_text=0
            ),
            domains={
                name: DomainRecord(
                    train=side, validation=side, n_duplicates=0, duplicates_of={}, source=source, edition="1",
                    licence="PSF-2.0 <or later> & others",
                )
                for name, source in space.corpus.domains.items()
            },
        ),
        folder.corpus,
    )  # fmt: skip
