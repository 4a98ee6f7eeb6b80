"""Bad observations and questions: an error that names the field, and nothing stored."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raysplit.errors import LawError, RaysplitError, SplitError, TableError
from raysplit.live.observations import MAX_BATCH
from raysplit.live.service import LawService
from raysplit.runs import Observation
from tests.http.served import ASKED, measure, opened

GOOD = Observation(n_params=14_001, pretrain_tokens=777, specialize_tokens=333, domain=ASKED.domains[0], loss=3.25)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[LawService]:
    with opened(tmp_path / "journal.jsonl") as service:
        yield service


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"loss": float("nan")}, "loss = nan"),
        ({"loss": float("inf")}, "loss = inf"),
        ({"loss": 0.0}, "loss = 0.0"),
        ({"loss": "high"}, "loss: expected a number such as 250k, 2M or 3e21, got 'high'"),
        ({"loss": [3.0]}, "loss: expected a number such as 250k, 2M or 3e21, got [3.0]"),
        ({"n_params": -1}, "n_params = -1"),
        ({"n_params": 10**400}, "n_params: expected a number below 1e308"),
        ({"n_params": 10**5000}, "a number is too large"),
        ({"n_params": 1.5}, "n_params: expected a whole number, got 1.5"),
        ({"n_params": True}, "n_params: expected a number such as 250k, 2M or 3e21, got True"),
        ({"pretrain_tokens": -1}, "pretrain_tokens = -1"),
        ({"specialize_tokens": None}, "specialize_tokens = None"),
        ({"seed": -1}, "seed = -1"),
        ({"weight": 0}, "weight = 0"),
        ({"domain": 5}, "domain = 5"),
        ({"domain": ""}, "domain"),
        ({"domain": "../../etc/passwd"}, "unknown domain"),
        ({"trial": None}, "trial = None"),
    ],
)
def test_an_observation_that_cannot_be(service: LawService, change: dict[str, Any], complaint: str) -> None:
    for batch in ([replace(GOOD, **change)], [GOOD, replace(GOOD, **{"seed": 2, **change})]):
        with pytest.raises(TableError) as refused:
            service.observe(batch)
        assert complaint in str(refused.value)
    assert [record.kind for record in service.journal.records] == ["spec"]


@pytest.mark.parametrize(
    ("batch", "complaint"),
    [
        ([], "no rows"),
        (GOOD, "a list"),
        (5, "int where a list"),
        ([{"loss": 3.0}], "row 1 is dict"),
        ([GOOD] * (MAX_BATCH + 1), f"at most {MAX_BATCH}"),
        ([GOOD] * 1_000_000, f"at most {MAX_BATCH}"),
        ([GOOD, replace(GOOD, loss=9.0)], "repeats row"),
    ],
)
def test_a_batch_that_cannot_be(service: LawService, batch: Any, complaint: str) -> None:
    with pytest.raises(TableError, match=complaint):
        service.observe(batch)
    assert [record.kind for record in service.journal.records] == ["spec"]


def test_the_same_observation_twice_in_a_batch_is_one(service: LawService) -> None:
    accepted = service.observe([GOOD, GOOD])
    assert (accepted.n_new, accepted.n_repeated, accepted.n_known) == (1, 1, 1)


@pytest.mark.parametrize(
    ("question", "complaint"),
    [
        ({"budget_flops": "lots"}, "budget_flops: expected a number such as 250k, 2M or 3e21, got 'lots'"),
        ({"budget_flops": -1.0}, "budget_flops: Input should be greater than 0"),
        ({"budget_flops": float("nan")}, "budget_flops"),
        ({"n_params": (5,)}, "unknown model size '5'"),
        ({"n_params": (0,)}, "n_params.0: Input should be greater than or equal to 1"),
        ({"n_params": "lots"}, "n_params.0: expected a number"),
        ({"weights": [1, 2]}, "weights: must be DOMAIN=WEIGHT with a positive number"),
        ({"weights": {"law": 1.0}}, "unknown domain 'law'"),
        ({"weights": {ASKED.domains[0]: -1.0}}, "weights: must be DOMAIN=WEIGHT with a positive number"),
        ({"accounting": "free"}, "accounting: Input should be 'shared' or 'per-expert', got free"),
        ({"budget": 3e21}, "unknown field of this question 'budget' (did you mean 'budget_flops'?)"),
    ],
)
def test_a_question_that_cannot_be(service: LawService, question: dict[str, Any], complaint: str) -> None:
    measure(service, 8)
    for ask in (service.advise, service.curve):
        with pytest.raises(SplitError) as refused:
            ask(**question)
        assert complaint in str(refused.value)


def test_sizes_may_be_one_or_several_and_written_as_people_do(service: LawService) -> None:
    measure(service, 8)
    sizes = tuple(ASKED.problem.sizes)
    asked = service.advise(n_params=sizes).advice
    assert service.advise(n_params=list(sizes)).advice == asked  # type: ignore[arg-type]
    assert service.advise(n_params=[f"{n / 1000}k" for n in sizes]).advice == asked  # type: ignore[arg-type]
    assert service.advise(n_params=sizes[0]).advice == service.advise(n_params=sizes[:1]).advice  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"domain": "law"}, "unknown domain"),
        ({"n_params": 0}, "n_params: Input should be greater than 0"),
        ({"n_params": "many"}, "n_params: expected a number"),
        ({"pretrain_tokens": float("nan")}, "pretrain_tokens: Input should be a finite number"),
        ({"specialize_tokens": -1}, "specialize_tokens: Input should be greater than or equal to 0"),
        ({"pretrain_tokens": 0, "specialize_tokens": 0}, "saw no tokens"),
        ({"level": 1.5}, "level"),
        ({"version": 99}, "version of the law '99'"),
        ({"version": [1]}, "version: Input should be a valid integer"),
    ],
)
def test_a_prediction_that_cannot_be(service: LawService, change: dict[str, Any], complaint: str) -> None:
    measure(service, 8)
    point = {"domain": ASKED.domains[0], "n_params": 14_000, "pretrain_tokens": 1e6, "specialize_tokens": 0}
    with pytest.raises(LawError) as refused:
        service.predict(**{**point, **change})
    assert complaint in str(refused.value)
    assert isinstance(refused.value, RaysplitError)
