"""Trunks that raysplit has trained, and the same ones as revisions of a Hugging Face folder: one table, one law."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from raysplit.design.lane_shapes import lane_shape_of
from raysplit.design.resolved_spec import spec_of, tree_of
from raysplit.design.tree import Trial
from raysplit.runs import check_runs
from raysplit.space import Space, parse_space
from raysplit.split import fit_for_decision
from raysplit.train.bases import with_bases
from raysplit.train.checkpoints import stored
from raysplit.train.engine import Engine
from raysplit.train.run import Lane
from raysplit.train.saving import open_checkpoint
from tests.train.conftest import Texts, read_text
from tests.train.tiny_bases import BASE_CONTEXT, ROWS, bases_space, write_tokenizer

PRETRAIN, SPECIALIZE = (2048, 4096), (1024, 2048)
BATCH = 8 * BASE_CONTEXT


class SameStream(Texts):
    """A text whose branches all begin at the start of their domain's stream, as those from a base do.

    A branch of an own trunk goes on where the trunk left the stream; that is the one thing that else would differ.
    """

    def batch(self, **asked: Any) -> np.ndarray:
        return super().batch(**{**asked, "branch_tokens": 0})


@pytest.mark.usefixtures("one_rank")
def test_revisions_of_an_own_trunk_give_its_law_to_the_last_digit(tmp_path: Path) -> None:
    given = bases_space({"path": "own"}, branch_optimizer="reset").model_dump()
    given["model"] = {"sizes": ["14k"], "context_length": BASE_CONTEXT}
    given["sweep"] |= {"pretrain_tokens": PRETRAIN, "specialize_tokens": SPECIALIZE}
    own_space = parse_space(given, origin="tests")
    own = lane_of(own_space, tmp_path / "kept")
    n_params = own_space.shape(14_000, ROWS).n_params_non_embedding
    for tokens in PRETRAIN:
        measure(own, own_space, Trial(**trunk(n_params, tokens)), tokens)
    of_own = branches(own, own_space, n_params) + waypoints(own, own_space, n_params, tmp_path / "own")

    family = {"path": str(tmp_path / "own"), "tokens_per_step": BATCH}
    family["revisions"] = [f"step{tokens // BATCH}" for tokens in PRETRAIN]
    space = with_bases(bases_space(family))
    assert space.model.sizes == (n_params,)
    revised = lane_of(space, tmp_path / "kept-of-revisions")
    of_revisions = branches(revised, space, n_params)
    for tokens in PRETRAIN:
        losses = measure(revised, space, Trial(**trunk(n_params, tokens)), tokens)
        of_revisions += [row(n_params, tokens, 0, domain, loss) for domain, loss in losses.items()]

    one, other = (check_runs(pd.DataFrame(rows), origin="tests") for rows in (of_own, of_revisions))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    points = [(n_params, d, s) for d in PRETRAIN for s in (0, *SPECIALIZE, 4096)]
    assert np.array_equal(losses_at(one, own_space, points), losses_at(other, space, points))


def lane_of(space: Space, checkpoints: Path) -> Lane:
    shape = lane_shape_of(space, space.model.sizes[0])
    return Lane(space, SameStream(read_text()), shape=shape, vocab_size=ROWS, checkpoints=checkpoints)


def trunk(n_params: int, tokens: int) -> dict[str, Any]:
    return {"n_params": n_params, "seed": 0, "domain": "", "pretrain_tokens": tokens, "milestones": (tokens,)}


def measure(lane: Lane, space: Space, trial: Trial, milestone: int) -> dict[str, float]:
    return dict(lane.measure(trial, milestone, tree=tree_of(space), on_progress=lambda tokens, loss: None).losses)


def row(n_params: int, pretrain: int, specialize: int, domain: str, loss: float) -> dict[str, Any]:
    at = {"n_params": n_params, "pretrain_tokens": pretrain, "specialize_tokens": specialize}
    return at | {"domain": domain, "loss": loss}


def branches(lane: Lane, space: Space, n_params: int) -> list[dict[str, Any]]:
    """Every branch of the grid, as rows of a table."""
    found = []
    for pretrain in PRETRAIN:
        for domain in space.domains:
            trial = Trial(**{**trunk(n_params, pretrain), "domain": domain, "milestones": SPECIALIZE})
            for tokens in SPECIALIZE:
                loss = measure(lane, space, trial, tokens)[domain]
                found.append(row(n_params, pretrain, tokens, domain, loss))
    return found


def waypoints(lane: Lane, space: Space, n_params: int, folder: Path) -> list[dict[str, Any]]:
    """The trunk as branches leave it, not cooled down: exported as a revision for each D, and read, as rows."""
    shape = space.shape(14_000, ROWS)
    engine = Engine(shape, space.training, lane=lane.shape, seed=1, device="cpu")
    found = []
    with ThreadPoolExecutor(1) as reader:
        for node, manifest in stored(lane.storage)[0].items():
            if node.domain or node.cooldown_to or node.pretrain_tokens not in PRETRAIN:
                continue
            open_checkpoint(engine, lane.storage, manifest, reader=reader)
            revision = folder / f"step{node.pretrain_tokens // BATCH}"
            revision.parent.mkdir(exist_ok=True)
            engine.export(revision, tokenizer_folder=None)
            write_tokenizer(revision)
            for domain in space.domains:
                windows = lane.corpus.validation(domain, context_length=BASE_CONTEXT, max_tokens=1024)
                found.append(row(n_params, node.pretrain_tokens, 0, domain, engine.loss_on(windows)))
    engine.close()
    return found


def losses_at(table: pd.DataFrame, space: Space, points: list[tuple[int, int, int]]) -> np.ndarray:
    """(draws, points, domains) losses at points (n_params, D, D') of the law that a sweep of this space answers by."""
    spec = spec_of(space, vocab_size=ROWS)
    law, _ = fit_for_decision(table, spec.problem, step_tokens=spec.step_tokens, n_draws=4)
    n, d, s = (np.array(each, dtype=float)[None, :, None] for each in zip(*points, strict=True))
    return law.loss(n, d, s)
