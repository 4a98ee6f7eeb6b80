"""From the losses of domains to a benchmark: what is found again, what is not trusted, what is refused."""

import math

import numpy as np
import pytest

from raysplit.errors import TaskError
from raysplit.evaluate.benchmark_law import fit_benchmark, sentences
from raysplit.evaluate.metrics import Metric
from raysplit.evaluate.results import Evaluation, SubjectRecord, TaskFigure, TaskRecord
from raysplit.split import Interval

SLOPES = {"code": 0.8, "law": 0.3, "verse": 0.0}
BYTES = {"code": 3.0, "law": 4.0, "verse": 2.0}


def evaluation(n_subjects: int, *, noise: float = 0.0, accuracy: float | None = None) -> Evaluation:
    """Subjects whose benchmark follows `SLOPES` with an intercept of 0.5, and accuracy if it is not given."""
    draw = np.random.default_rng(3)
    findings = []

    def find(task: str, subject: str, metric: Metric, value: float) -> None:
        around = Interval(mean=value, low=value - 0.01, high=value + 0.01)
        findings.append(
            TaskFigure(task=task, subject=subject, metric=metric, value=around, difference=None, flops_per_token=1.0)
        )

    subjects = [f"model {number}" for number in range(n_subjects)]
    for subject in subjects:
        own = {name: draw.uniform(1.5, 3.0) for name in SLOPES}
        for name, bits in own.items():
            find(f"held-out/{name}", subject, "bits_per_byte", bits)
        bits = 0.5 + sum(SLOPES[name] * own[name] for name in SLOPES) + noise * draw.standard_normal()
        find("quiz", subject, "bits_per_byte", bits)
        right = 0.25 + 0.75 / (1 + math.exp((bits - 2.0) / 0.4)) if accuracy is None else accuracy
        find("quiz", subject, "accuracy", right)
    tasks = [
        TaskRecord(
            name=name, source="", n_items=9, n_choices=4, chance=0.25 if name == "quiz" else None, n_truncated={},
            n_overlapping=None,
        )
        for name in (*(f"held-out/{name}" for name in SLOPES), "quiz")
    ]  # fmt: skip
    return Evaluation(
        against=subjects[0], level=0.95, tasks=tasks, findings=findings, left_out={},
        subjects=[SubjectRecord(name=name, origin="", temperature=None) for name in subjects],
    )  # fmt: skip


def test_slopes_weights_and_accuracy_are_found_again() -> None:
    law = fit_benchmark(evaluation(30), "quiz")
    for name, slope in SLOPES.items():
        assert law.slopes[name] == pytest.approx(slope, abs=0.03)
    assert law.error < 0.02
    assert law.is_trusted
    weights = law.weights(BYTES)
    assert weights["code"] == 1.0
    assert weights["law"] == pytest.approx(0.3 / 4 / (0.8 / 3), abs=0.03)
    assert 0 < weights["verse"] < 0.05
    assert law.accuracy is not None
    assert (law.accuracy.middle, law.accuracy.width) == pytest.approx((2.0, 0.4), abs=0.01)
    here = {"code": 2.0, "law": 2.0, "verse": 2.0}
    assert law.bits(here) == pytest.approx(0.5 + 1.1 * 2, abs=0.02)
    said = " ".join(sentences(law, here))
    assert "objective quiz: 2.7" in said
    assert "DO NOT TRUST" not in said


def test_what_the_losses_do_not_tell_is_not_trusted() -> None:
    law = fit_benchmark(evaluation(30, noise=5.0), "quiz")
    assert not law.is_trusted
    assert "DO NOT TRUST this split for quiz" in " ".join(sentences(law, dict.fromkeys(SLOPES, 2.0)))


def test_accuracy_at_chance_is_not_foretold() -> None:
    law = fit_benchmark(evaluation(30, accuracy=0.25), "quiz")
    assert law.accuracy is None
    assert "accuracy: at chance" in " ".join(sentences(law, dict.fromkeys(SLOPES, 2.0)))


@pytest.mark.parametrize(
    ("n_subjects", "task", "said"),
    [
        (30, "quizz", r"--objective: unknown evaluated task 'quizz' \(did you mean 'quiz'\?\)"),
        (4, "quiz", r"--objective quiz: 4 models and mixtures were evaluated, and the losses of 3 domains need 5"),
    ],
)
def test_what_was_not_evaluated_is_named(n_subjects: int, task: str, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        fit_benchmark(evaluation(n_subjects), task)
