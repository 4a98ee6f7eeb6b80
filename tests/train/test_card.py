"""The card: metadata that Hugging Face reads, and what a reader asks of a model; nothing of where its text lay."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from raysplit.corpus.manifest import DomainRecord, Manifest, SideRecord, TokenizerRecord
from raysplit.space import SourceSpec, Space, parse_space
from raysplit.split import Advice, Interval, Problem, advise
from raysplit.train.card import ExportedModel, render_card
from tests.split.doubles import known_law
from tests.test_space import changed

DOMAINS = ("domain-0", "domain-1")
SIDE = SideRecord(n_tokens=400_000, n_text_bytes=1_000_000, n_documents=100, shards=())
N_PARAMS = 13_408
EXPERT = ExportedModel(
    domain="domain-1",
    n_params=N_PARAMS,
    pretrain_tokens=122_880,
    specialize_tokens=40_960,
    seed=1000,
    horizon_tokens=122_880,
    losses={"domain-0": 4.0, "domain-1": 3.0},
    bytes_per_token={"domain-0": 2.5, "domain-1": 2.0},
    seed_losses={"domain-0": 3.9, "domain-1": 3.5},
    predicted={"domain-1": Interval(mean=3.1, low=2.9, high=3.3)},
)
SEED = replace(EXPERT, domain="", specialize_tokens=0, seed_losses={}, predicted={})
FROM_SCRATCH = replace(EXPERT, pretrain_tokens=0, seed_losses={})


def space_of(*sources: SourceSpec, **training: Any) -> Space:
    domains = {name: source.model_dump() for name, source in zip(DOMAINS, sources, strict=True)}
    raw = changed("corpus.domains", domains)
    raw["training"] |= training
    return parse_space(raw, origin="tests")


def advice() -> Advice:
    problem = Problem(budget_flops=6.0 * N_PARAMS * 2e5, sizes={N_PARAMS: 6.0 * N_PARAMS}, domains=DOMAINS)
    return advise(known_law(n_domains=2), problem)


def card(
    model: ExportedModel,
    *,
    licences: tuple[str | None, str | None] = ("MIT", None),
    sources: tuple[SourceSpec, SourceSpec] = (
        SourceSpec(kind="files", path="/home/somebody/secret/novels"),
        SourceSpec(kind="huggingface", path="allenai/c4", config_name="en"),
    ),
    **training: Any,
) -> str:
    space = space_of(*sources, **training)
    records = {
        name: DomainRecord(
            train=SIDE, validation=SIDE, n_duplicates=0, duplicates_of={}, source=source, edition="", licence=licence
        )
        for name, source, licence in zip(DOMAINS, sources, licences, strict=True)
    }
    manifest = Manifest(
        spec_hash="",
        spec=space.corpus,
        dtype="uint16",
        tokenizer=TokenizerRecord(folder="tokenizer", sha256="", vocab_size=512, end_of_text=0),
        domains=records,
        versions={},
        build_seconds={},
    )
    return render_card(model, space=space, manifest=manifest, advice=advice(), version="0.1")


def metadata(text: str) -> dict[str, Any]:
    _, front, _ = text.split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(front)
    return found


def row(text: str, first: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_the_metadata_is_what_hugging_face_reads() -> None:
    from huggingface_hub import ModelCard

    text = card(EXPERT)
    found = ModelCard(text).data.to_dict()
    assert found == metadata(text)
    assert found["library_name"] == "transformers"
    assert found["pipeline_tag"] == "text-generation"
    assert found["base_model"] == "seed"
    assert found["datasets"] == ["allenai/c4"]
    assert found["tags"] == ["raysplit", "domain-1"]
    assert "language" not in found
    assert "base_model" not in metadata(card(SEED))
    assert "base_model" not in metadata(card(FROM_SCRATCH)), "nothing of a seed is in it"


def test_no_licence_is_claimed_that_was_not_given() -> None:
    text = card(EXPERT)
    assert metadata(text)["license"] == "other"
    assert row(text, "domain-0")[2] != "MIT", "the first table is of the losses"
    assert "| files `novels` | MIT |" in text
    assert "The licence of domain-1 was not given." in text
    unknown = card(EXPERT, licences=(None, None))
    assert metadata(unknown)["license"] == "unknown"
    assert "The licence of domain-0 and domain-1 was not given." in unknown
    assert "was not given" not in card(EXPERT, licences=("MIT", "ODC-BY"))
    assert metadata(card(FROM_SCRATCH))["license"] == "unknown", "it has read domain-1 alone"


def test_it_does_not_tell_where_the_text_lay() -> None:
    assert "somebody" not in card(EXPERT)
    odd = SourceSpec(kind="files", path="/data/a|b", licence="mine |\nand yours")
    text = card(EXPERT, sources=(odd, odd), licences=("mine |\nand yours",) * 2)
    assert "| files `a\\|b` | mine \\| and yours |" in text, "a table stays a table"


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (EXPERT, ["# small: expert of domain-1", "pretrained on 122,880 tokens of a mixture of domain-0 and domain-1",
                  "then specialized on 40,960 tokens of domain-1", "over the last 25% of D' |"]),
        (SEED, ["# small: seed", "It is the seed: pretrained on 122,880 tokens", "over the last 25% of D |"]),
        (FROM_SCRATCH, ["# small: expert of domain-1", "from scratch on 40,960 tokens of domain-1 alone"]),
    ],
    ids=["expert", "seed", "from scratch"],
)  # fmt: skip
def test_it_says_what_was_trained_and_how(model: ExportedModel, wanted: list[str]) -> None:
    text = card(model)
    for words in wanted:
        assert words in text
    assert "13,408 non-embedding parameters" in text
    told = {name: row(text, name)[1] for name in ("context", "batch", "precision", "seed of weights and data order")}
    assert told == {
        "context": "128 tokens", "batch": "4,096 tokens", "precision": "fp32", "seed of weights and data order": "1000"
    }  # fmt: skip
    assert text.count("raysplit advised N = 13.4k") == 1


def test_losses_are_told_for_every_domain_in_nats_and_bits() -> None:
    text = card(EXPERT)
    assert row(text, "domain-1") == ["domain-1", "3.0000", "2.1640", "3.5000", "3.1000", "2.9000 to 3.3000"]
    assert row(text, "domain-0") == ["domain-0", "4.0000", "2.3083", "3.9000", "", ""]
    assert "predicted" not in card(replace(EXPERT, predicted={}))
    assert row(card(SEED), "domain-1") == ["domain-1", "3.0000", "2.1640"]


def test_losses_by_the_byte_are_told_once() -> None:
    text = card(replace(EXPERT, loss_unit="bits/byte"))
    assert row(text, "domain") == ["domain", "bits per byte", "seed", "predicted", "90% interval"]
    assert row(text, "domain-1") == ["domain-1", "3.0000", "3.5000", "3.1000", "2.9000 to 3.3000"]
    assert "nats" not in text


def test_tokens_read_follow_the_mixture_and_the_replay() -> None:
    def read(text: str) -> list[str]:
        lines = [line for line in text.splitlines() if "| 400k |" in line]
        return [line.split(" | ")[-2] for line in lines]

    assert read(card(EXPERT)) == ["61.4k", "102k"]
    assert read(card(EXPERT, replay_share=0.5)) == ["71.7k", "92.2k"]
    assert read(card(SEED)) == ["61.4k", "61.4k"]
    assert read(card(FROM_SCRATCH, replay_share=0.5)) == ["41k"], "a branch from nothing replays nothing"
