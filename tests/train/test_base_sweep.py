"""A sweep, an answer and a final run that start from three bases of three architectures, without Ray."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from raysplit.design.lane_shapes import lane_shape_of
from raysplit.design.resolved_spec import spec_of, tree_of
from raysplit.design.tree import Trial
from raysplit.errors import LawError
from raysplit.journal import Journal
from raysplit.law.forgetting import SURE
from raysplit.live.run_spec import RunSpec
from raysplit.live.service import LawService
from raysplit.runs import UNTOLD_TOKENS
from raysplit.space import parse_space
from raysplit.split.decision import GIVEN_FORMS
from raysplit.sweep.final_plan import OF_BASES, plan_final
from raysplit.sweep.replay import replay
from raysplit.train.bases import with_bases
from raysplit.train.run import Lane
from tests.train.conftest import Texts, read_text
from tests.train.tiny_bases import ROWS, bases_space, write_base

pytestmark = pytest.mark.usefixtures("one_rank")


class TextsAndGeneral(Texts):
    """Those, with held-out text of a general set."""

    def __init__(self, text: np.ndarray) -> None:
        super().__init__(text)
        self._of["general"] = text[::-1] ^ 2


def test_the_general_loss_is_that_on_the_general_set_where_there_is_one(tmp_path: Path) -> None:
    write_base(tmp_path / "llama", "llama")
    given = bases_space({"path": str(tmp_path / "llama")}).model_dump()
    given["corpus"]["general"] = {"kind": "files", "path": "."}
    space = with_bases(parse_space(given, origin="tests"))
    spec = spec_of(space, vocab_size=ROWS)
    assert spec.domains == ("library", "license")
    shape = lane_shape_of(space, space.model.sizes[0])
    lane = Lane(space, TextsAndGeneral(read_text()), shape=shape, vocab_size=ROWS, checkpoints=tmp_path / "kept")
    [size] = space.model.sizes
    at = {"n_params": size, "seed": 0, "pretrain_tokens": UNTOLD_TOKENS}
    base = Trial(**at, domain="", milestones=(UNTOLD_TOKENS,))
    branch = Trial(**at, domain="library", milestones=space.specialize_grid)
    read: dict[int, float] = {}
    run = RunSpec(spec=spec, bytes_per_token=dict.fromkeys(spec.domains, 1.0))
    with closing(Journal(tmp_path / "journal")) as journal:
        service = LawService(run, journal)
        for trial, milestone in ((base, UNTOLD_TOKENS), *((branch, tokens) for tokens in space.specialize_grid)):
            measured = lane.measure(trial, milestone, tree=tree_of(space), on_progress=lambda tokens, loss: None)
            service.record(trial, milestone, measured)
            read[milestone if trial.domain else 0] = measured.losses["general"]
        table = service.observations()
    assert sorted(table["domain"]) == ["library", "library", "library", "license"]
    for row in table.to_dict("records"):
        assert row["general_loss"] == read[row["specialize_tokens"]]
    assert len(set(read.values())) == 3, "the base as it is, and a branch at two D'"


def test_three_bases_are_swept_answered_for_and_trained(tmp_path: Path) -> None:
    write_base(tmp_path / "llama", "llama")
    write_base(tmp_path / "neox", "gpt_neox", hidden_size=48, intermediate_size=64)
    write_base(tmp_path / "qwen", "qwen3", num_hidden_layers=3, hidden_size=64, intermediate_size=96)
    given = bases_space(*({"path": str(tmp_path / name)} for name in ("llama", "neox", "qwen"))).model_dump()
    given["sweep"]["replay_shares"] = (0.0, 0.25)
    space = with_bases(parse_space(given, origin="tests"))
    text_tokens = {"library": 2e4, "license": 1e4}
    spec = spec_of(space, vocab_size=ROWS, domain_tokens=text_tokens)
    assert [base.name for base in spec.problem.bases.values()] == ["llama", "neox", "qwen"]
    shape = lane_shape_of(space, space.model.sizes[0])
    lane = Lane(space, Texts(read_text()), shape=shape, vocab_size=ROWS, checkpoints=tmp_path / "kept")
    trained: dict[tuple[str, int], int] = {}

    def measure(trial: Trial, milestone: int) -> dict[str, float]:
        measured = lane.measure(trial, milestone, tree=tree_of(space), on_progress=lambda tokens, loss: None)
        trained[trial.name, milestone] = measured.tokens
        return dict(measured.losses)

    run = RunSpec(spec=spec, bytes_per_token=dict.fromkeys(spec.domains, 1.0))
    with closing(Journal(tmp_path / "journal")) as journal:
        service = LawService(run, journal)
        replay(service, measure)
        status, advice = service.status(), service.advise().advice
        held = service.advise(max_general_rise=0.2).advice
        with pytest.raises(LawError, match=r"unknown replay_share '0\.1'"):
            service.predict("license", n_params=1e4, pretrain_tokens=1, specialize_tokens=1e4, replay_share=0.1)
        table, forgetting = service.observations(), service.law().forgetting
        assert set(service.law().form_weights) <= set(GIVEN_FORMS)
    assert status.n_observations == 3 * (2 + 2 * 2 * 2)
    flops = {n: spec.flops_per_token[n] for n in spec.sizes}
    paid = sum(flops[int(name[1:].partition("-")[0])] * tokens for (name, _), tokens in trained.items())
    assert status.spent_flops == pytest.approx(paid)
    assert advice.bases[advice.split.n_params] in ("llama", "neox", "qwen")
    assert advice.withheld == {}
    assert [gain.baseline for gain in advice.gains] == ["no training", "equal tokens", "one pass"]
    assert advice.replay_share in (0.0, 0.25)
    assert set(advice.general_rise) == {"library", "license"}
    assert len(advice.replayed) == 3 * 2
    assert forgetting is not None
    for name, tokens in held.split.specialize_tokens.items():
        rise = forgetting.rise(name, held.split.n_params, tokens, held.replay_share, pretrain_tokens=UNTOLD_TOKENS)
        assert np.quantile(rise, SURE) <= 0.2 * 1.05, name
    branches = table[table["specialize_tokens"] > 0]
    assert sorted(branches["replay_share"].unique()) == [0.0, 0.25]
    elsewhere = branches[branches["domain"] == "library"].groupby("replay_share")["general_loss"].mean()
    assert elsewhere[0.25] < elsewhere[0.0], "a quarter of other text keeps its loss down"
    assert advice.split.flops(spec.problem) == pytest.approx(space.target.budget_flops, rel=1e-6)

    plan = plan_final(
        space, advice, vocab_size=ROWS, seed=1000, baseline_names=OF_BASES, experts=tmp_path / "experts",
        domain_tokens=text_tokens,
    )  # fmt: skip
    assert [variant.name for variant in plan.variants] == ["recommended", *OF_BASES]
    recommended, _, equal, once, union = plan.variants
    assert union.paid_tokens("shared") == recommended.paid_tokens("shared") == equal.paid_tokens("shared")
    assert once.paid_tokens("shared") <= recommended.paid_tokens("shared")
    assert once.specialize_tokens["library"] == pytest.approx(2 * once.specialize_tokens["license"], rel=0.1)
    assert plan.left_flops == pytest.approx(plan.flops_per_token * sum(p.task.milestone for p in plan.parts if p.after))
    for part in plan.parts:
        measure(part.task.trial, part.task.milestone)
        if part.task.export_to:
            lane.export(part.task.trial, Path(part.task.export_to), tokenizer_folder=None)
    assert trained[plan.parts[0].task.trial.name, plan.parts[0].task.milestone] == 0
    for name in ("seed", "library", "license"):
        kind = AutoModelForCausalLM.from_pretrained(tmp_path / "experts" / name).config.model_type
        assert (
            kind
            == AutoModelForCausalLM.from_pretrained(tmp_path / advice.bases[advice.split.n_params]).config.model_type
        )
