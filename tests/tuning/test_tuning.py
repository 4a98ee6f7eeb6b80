"""Tuning on a stub of the lanes whose best hyperparameters are known: found, widened, interrupted, written, applied."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from raysplit.design.tasks import Failed, Measured, Outcome, Task
from raysplit.errors import RunError, SpaceError
from raysplit.run_folder.folder import RunFolder, existing_run, open_run
from raysplit.space import Space, dump_space, load_space, parse_space
from raysplit.tuning.objectives import BRANCH, judged
from raysplit.tuning.stages import STEPS, expected_flops, other_parameters, points_of, rate_parameter, tune
from raysplit.tuning.storage import StudyStore, masked, open_storage, open_store, storage_url
from raysplit.tuning.tuned import Tuned, read_tuned
from tests.test_space import SMALL

VOCAB = 512
TUNING: dict[str, Any] = {"n_trials": 6, "learning_rate": [2e-3, 4e-2]}
BEST_RATE, BEST_FACTOR = 8e-3, 0.7


def space_of(**tuning: Any) -> Space:
    return parse_space(
        SMALL
        | {
            "training": SMALL["training"] | {"micro_batch_sequences": 16},
            "sweep": {"pretrain_tokens": ["125k", "250k", "500k"], "specialize_tokens": ["62500", "125k"]},
            "tuning": TUNING | tuning,
        },
        origin="small",
        base=Path("/"),
    )


def best_rate(n_params: int, tokens: int) -> float:
    return float(BEST_RATE * (n_params / 14_000) ** -0.5 * (tokens / 125e3) ** -0.1)


class Lanes:
    """Losses of a known bowl in place of training."""

    def __init__(self, *, at_rate: Callable[[int, int], float] = best_rate, dies_after: float = math.inf) -> None:
        self.at_rate, self.left = at_rate, dies_after
        self.tasks: list[Task] = []

    def __call__(self, tasks: Sequence[Task]) -> list[Outcome]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        self.tasks += tasks
        return [self.outcome(task) for task in tasks]

    def outcome(self, task: Task) -> Outcome:
        trial, training, folder = task.trial, task.training, Path(task.checkpoints)
        assert training is not None
        rate = training.learning_rate.peak(trial.n_params, 1)
        if rate > 0.2:
            return Failed(why="training loss is nan")
        x = math.log(rate / self.at_rate(trial.n_params, task.milestone))
        loss = 3.0 * (1 + 0.02 * x**2) * (1 + 0.01 * math.log(training.batch_tokens / 2048) ** 2)
        loss *= 1 + 0.01 * (training.warmup_tokens / 40e3 - 1) ** 2
        (folder / replace_milestone(trial, task.milestone)).mkdir(parents=True, exist_ok=True)
        if trial.domain:
            assert (folder / trial.root.folder).exists(), "its trunk's checkpoint"
            loss *= 1 + 0.05 * math.log(training.branch_rate_factor / BEST_FACTOR) ** 2
            loss *= 1 + 0.2 * (training.replay_share - 0.1) ** 2
        general = loss * (1.2 - 0.4 * training.replay_share) if trial.domain else loss
        losses = {name: loss if name == (trial.domain or name) else general for name in ("code", "law")}
        return Measured(losses=losses, tokens=task.milestone, wall_seconds=0.0)


def replace_milestone(trial: Any, milestone: int) -> str:
    return str(
        replace(trial.root, pretrain_tokens=milestone).folder if trial.is_trunk else f"{trial.domain}-{milestone}"
    )


def tuned_in(
    path: Path, space: Space, lanes: Lanes | None = None, said: list[str] | None = None, storage: Any = None
) -> Tuned:
    """Tune with trials kept in memory, which is quicker, unless a storage is given."""
    folder = open_run(path, space)
    named = space.tuning.storage if space.tuning else None
    store = StudyStore(
        storage=storage or optuna.storages.InMemoryStorage(),
        url=masked(storage_url(named, default=folder.optuna)),
        prefix=f"{folder.sweep_id} " if named else "",
    )
    return tune(
        space,
        store,
        checkpoints=folder.tuning,
        vocab_size=VOCAB,
        train_all=lanes or Lanes(),
        tell=(said if said is not None else []).append,
    )


def storage_of(space: Space, folder: RunFolder) -> Any:
    return open_store(space, default=folder.optuna, run_name=folder.sweep_id).storage


def trials_of(storage: Any) -> dict[tuple[str, int], tuple[dict[str, float], float | None, str]]:
    """What a storage holds of every trial that counts, by study and place."""
    return {
        (name, trial.user_attrs["place"]): (trial.params, trial.value, trial.state.name)
        for name in optuna.get_all_study_names(storage)
        for trial in optuna.load_study(study_name=name, storage=storage).trials
        if trial.state.name != "FAIL"
    }


ALL: dict[str, Any] = {
    "batch_tokens": [2048, 8192],
    "warmup_tokens": [0, 60_000],
    "branch_rate_factor": [0.3, 1.5],
    "replay_share": [0, 0.3],
}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Space, Tuned]:
    """A run that tuned all it could, undisturbed, its trials in a SQLite file."""
    path, space = tmp_path_factory.mktemp("tuning") / "run", space_of(**ALL)
    return path, space, tuned_in(path, space, storage=storage_of(space, open_run(path, space)))


def test_the_known_rule_is_found_and_applied(tmp_path: Path) -> None:
    space = space_of(n_trials=8)
    tuned = tuned_in(tmp_path, space)
    n, horizon = max(points_of(space, vocab_size=VOCAB).sizes), space.horizon_tokens
    assert tuned.rate(n) == pytest.approx(best_rate(n, horizon), rel=0.15)
    assert tuned.rule.exponent == pytest.approx(-0.5, abs=0.2)
    assert {(o.n_params, o.pretrain_tokens) for o in tuned.optima} == {
        (size, tokens) for size in points_of(space, vocab_size=VOCAB).sizes for tokens in space.pretrain_grid[:2]
    }
    applied = tuned.apply(space)
    assert applied.tuning is None
    assert applied.training.learning_rate.peak(n, horizon) == pytest.approx(tuned.rate(n))
    assert applied.training.model_copy(update={"learning_rate": space.training.learning_rate}) == space.training


def test_everything_else_is_chosen_by_its_study(everything: tuple[Path, Space, Tuned]) -> None:
    path, space, tuned = everything
    chosen = {c.name: c for c in tuned.chosen}
    assert set(chosen) == set(ALL)
    assert chosen["batch_tokens"].value % space.micro_step_tokens == 0
    assert chosen["branch_rate_factor"].value == pytest.approx(BEST_FACTOR, rel=0.4)
    assert [s.name.partition("-n")[0] for s in tuned.studies] == [STEPS, "rate", "rate", BRANCH]
    assert all(s.best_loss <= s.own_loss for s in tuned.studies)
    assert not (path / "tuning").exists()
    training = tuned.apply(space).training
    assert training.replay_share == chosen["replay_share"].value
    assert training.batch_tokens == chosen["batch_tokens"].value


def test_a_value_outside_its_range_is_not_told_as_tried(tmp_path: Path) -> None:
    said: list[str] = []
    tuned_in(tmp_path / "outside", space_of(learning_rate=[1e-3, 2e-3]), said=said)
    assert any("(moved into the range, the space's own, learning_rate 0.002, 3." in line for line in said), said
    within: list[str] = []
    tuned_in(tmp_path / "within", space_of(), said=within)
    assert any("(the space's own 3." in line for line in within), within


def test_what_was_found_is_a_file_that_reads_back(everything: tuple[Path, Space, Tuned], tmp_path: Path) -> None:
    _, _, tuned = everything
    spoiled = replace(tuned, tried=(replace(tuned.tried[0], loss=math.inf), *tuned.tried[1:]))
    for each in (tuned, spoiled):
        (tmp_path / "hyperparameters.json").write_text(each.to_json())
        json.loads(each.to_json(), parse_constant=pytest.fail)
        assert read_tuned(tmp_path / "hyperparameters.json") == each
    assert read_tuned(tmp_path / "none.json") is None
    for text in ("{", "{}", json.dumps(json.loads(tuned.to_json()) | {"schema_version": 7})):
        (tmp_path / "hyperparameters.json").write_text(text)
        with pytest.raises(RunError, match=r"hyperparameters\.json"):
            read_tuned(tmp_path / "hyperparameters.json")


@pytest.mark.parametrize(("dies_after", "kept"), [(0, "memory"), (3, "memory"), (8, "file"), (23, "memory")])
def test_a_killed_study_taken_up_again_tries_what_an_undisturbed_one_does(
    everything: tuple[Path, Space, Tuned], tmp_path: Path, dies_after: int, kept: str
) -> None:
    path, space, tuned = everything

    def storage() -> Any:
        return storage_of(space, open_run(tmp_path, space)) if kept == "file" else memory

    memory = optuna.storages.InMemoryStorage()
    with pytest.raises(KeyboardInterrupt):
        tuned_in(tmp_path, space, Lanes(dies_after=dies_after), storage=storage())
    again = tuned_in(tmp_path, space, storage=storage())
    assert replace(again, storage=tuned.storage) == tuned
    assert trials_of(storage()) == trials_of(storage_of(space, RunFolder(path=path)))


def test_a_finished_tuning_trains_nothing_again(everything: tuple[Path, Space, Tuned]) -> None:
    path, space, tuned = everything
    lanes = Lanes()
    assert tuned_in(path, space, lanes, storage=storage_of(space, RunFolder(path=path))) == tuned
    assert lanes.tasks == []


def test_two_lanes_try_the_same_however_fast_they_are(tmp_path: Path) -> None:
    space = space_of().model_copy(update={"compute": space_of().compute.model_copy(update={"lanes": 2})})
    storages = [optuna.storages.InMemoryStorage() for _ in range(2)]
    rules = [tuned_in(tmp_path / str(i), space, storage=storage).rule for i, storage in enumerate(storages)]
    assert rules[0] == rules[1]
    assert trials_of(storages[0]) == trials_of(storages[1])


@pytest.mark.parametrize(("factor", "side"), [(20.0, "high"), (1 / 30, "low")])
def test_an_optimum_at_the_end_of_the_range_widens_it(tmp_path: Path, factor: float, side: str) -> None:
    said: list[str] = []
    lanes = Lanes(at_rate=lambda n, tokens: factor * best_rate(n, tokens))
    tuned = tuned_in(tmp_path, space_of(), lanes, said)
    low, high = TUNING["learning_rate"]
    for optimum in tuned.optima:
        assert (optimum.high > high) == (side == "high")
        assert (optimum.low < low) == (side == "low")
        best = factor * best_rate(optimum.n_params, optimum.pretrain_tokens)
        assert optimum.learning_rate == pytest.approx(best, rel=0.5)
    assert any("learning_rate widened to" in line for line in said)


def test_rates_that_diverge_are_no_optimum_and_no_end(tmp_path: Path) -> None:
    tuned = tuned_in(tmp_path, space_of(learning_rate=[2e-3, 5.0], n_trials=10))
    assert sum(study.n_failed for study in tuned.studies) > 0
    assert all(optimum.learning_rate < 0.05 for optimum in tuned.optima)
    assert all(optimum.n_lost > 0 for optimum in tuned.optima)


def test_a_range_in_which_all_diverges_is_lowered_and_then_refused(tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(RunError, match=r"'rate-n\d+' ran to its end \(training loss is nan\)"):
        tuned_in(tmp_path, space_of(learning_rate=[10, 20]), said=said)
    assert sum("widened" in line for line in said) == 2


def test_a_weight_on_general_text_asks_for_replay(tmp_path: Path) -> None:
    found = {}
    for weight in (0.0, 0.9):
        tuned = tuned_in(tmp_path / str(weight), space_of(replay_share=[0, 0.8], general_weight=weight, n_trials=12))
        found[weight] = next(c.value for c in tuned.chosen if c.name == "replay_share")
    assert found[0.9] > found[0.0]


def test_each_trial_has_its_own_folder_and_hyperparameters(tmp_path: Path) -> None:
    lanes = Lanes()
    tuned_in(tmp_path, space_of(**ALL), lanes)
    rates: dict[str, set[object]] = {}
    for task in lanes.tasks:
        assert task.training is not None
        assert task.milestone % task.training.batch_tokens == 0
        assert Path(task.checkpoints).is_relative_to(tmp_path / "tuning")
        rates.setdefault(task.checkpoints, set()).add(json.dumps(task.training.model_dump(), sort_keys=True))
    assert all(len(different) == 1 for different in rates.values())


def test_points_and_ranges_left_out_are_the_cheap_ones_of_the_sweep() -> None:
    space = space_of(learning_rate=None)
    points = points_of(space, vocab_size=VOCAB)
    assert points.sizes == tuple(space.shape(n, VOCAB).n_params_non_embedding for n in (14_000, 28_000))
    assert points.pretrain_tokens == space.pretrain_grid[:2]
    assert points.specialize_tokens == space.specialize_grid[:1]
    rate = rate_parameter(space, points.sizes[0])
    assert (rate.range.low, rate.range.high) == pytest.approx((rate.own / 4, rate.own * 4))
    assert other_parameters(space, points) == {}


def test_the_expected_price_is_what_an_undisturbed_tuning_trains(everything: tuple[Path, Space, Tuned]) -> None:
    _, space, tuned = everything
    # The stub counts no cooldowns beside a milestone, pruned trials train less, and widened ranges train more.
    assert 0.4 < expected_flops(space, vocab_size=VOCAB) / tuned.trained_flops < 2.5


def test_a_batch_is_never_widened_beyond_what_the_shortest_run_can_cool_down_with() -> None:
    space = space_of(batch_tokens=[2048, 8192])
    batch = other_parameters(space, points_of(space, vocab_size=VOCAB))["batch_tokens"]
    assert batch.range.least == space.micro_step_tokens
    widest = replace(batch.range, high=batch.range.most)
    space.with_training(batch_tokens=int(widest.high))
    assert widest.edge(widest.high) == ""


def test_a_tuned_run_is_read_by_its_tuned_space(everything: tuple[Path, Space, Tuned], tmp_path: Path) -> None:
    _, space, tuned = everything
    folder = open_run(tmp_path, space)
    assert existing_run(tmp_path)[1] == space
    folder.tuned_space.write_text(dump_space(tuned.apply(space)))
    assert existing_run(tmp_path)[1] == tuned.apply(space) == load_space(folder.tuned_space)
    assert open_run(tmp_path, space) == folder, "and taken up with the space that it was begun with"


def test_studies_of_runs_that_share_a_database_do_not_mix(tmp_path: Path) -> None:
    space = space_of(storage=f"sqlite:///{tmp_path / 'shared.db'}")
    storage = optuna.storages.InMemoryStorage()
    one = tuned_in(tmp_path / "one", space, storage=storage)
    lanes = Lanes(at_rate=lambda n, tokens: 2 * best_rate(n, tokens))
    other = tuned_in(tmp_path / "other", space, lanes, storage=storage)
    assert lanes.tasks
    assert other.rate(14_000) > 1.5 * one.rate(14_000)
    assert one.storage == space.tuning.storage  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://me:secret@host/db", ["mysql://me:***@host/db", "needs the package mysqlclient"]),
        ("nonsense", ["nonsense: cannot be used"]),
        ("sqlite:////no/such/folder/x.db", ["cannot be used", "unable to open database file"]),
        ("postgresql+psycopg://${NO_SUCH_NAME}@host/db", ["environment variable NO_SUCH_NAME is not set"]),
    ],
)
def test_a_database_that_cannot_be_used_is_named_without_its_password(
    tmp_path: Path, url: str, said: list[str]
) -> None:
    with pytest.raises(RunError) as refused:
        open_storage(storage_url(url, default=tmp_path / "optuna.db"))
    for words in said:
        assert words in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_password_may_come_from_the_environment_and_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "se@cret")
    url = storage_url("postgresql://me:${DB_PASSWORD}@host/db", default=Path("unused"))
    assert url == "postgresql://me:se@cret@host/db"
    assert masked(url) == "postgresql://me:***@host/db"
    assert masked("postgresql://me@host/db") == "postgresql://me@host/db"
    for name in ("password", "sslpassword", "Pwd", "auth_token"):
        in_query = masked(f"storage: 'postgresql://host/db?user=me&{name}=s3cr%40t&sslmode=require'")
        assert in_query == f"storage: 'postgresql://host/db?user=me&{name}=***&sslmode=require'"
    assert masked("sqlite:////tmp/a b/optuna.db") == "sqlite:////tmp/a b/optuna.db"


def test_what_a_branch_loses_is_that_on_the_general_set_where_there_is_one() -> None:
    space = bases_of(14_000, general_weight=0.25)
    losses = {"code": 2.0, "law": 4.0, "general": 6.0}
    assert judged(space, "code", losses) == 0.75 * 2.0 + 0.25 * 3.0
    given = space.model_dump()
    given["corpus"]["general"] = {"kind": "files", "path": "."}
    assert judged(parse_space(given, origin="bases"), "code", losses) == 0.75 * 2.0 + 0.25 * 6.0


def bases_of(*sizes: int, **tuning: Any) -> Space:
    """A space whose trunks are bases that exist, each looked at and counted."""
    counted = {
        "forward_flops_per_token": 40_000, "hidden_size": 32, "n_layers": 2, "n_heads": 2, "feed_forward_size": 96,
        "vocab_size": VOCAB, "n_params_total": 50_000,
    }  # fmt: skip
    checkpoints = [
        {
            "path": f"base-{n}", "revision": f"step{d}", "pretrain_tokens": d,
            "counted": {**counted, "folder": f"base-{n}", "n_params": n},
        }
        for n in sizes
        for d in (500_000, 1_000_000)
    ]  # fmt: skip
    return parse_space(
        SMALL
        | {
            "model": {"sizes": sizes, "context_length": 128, "checkpoints": checkpoints},
            "training": SMALL["training"] | {"micro_batch_sequences": 16},
            "sweep": {"specialize_tokens": ["62500", "125k"]},
            "tuning": {"n_trials": 6, "learning_rate": [2e-3, 4e-2]} | tuning,
        },
        origin="bases",
        base=Path("/"),
    )


def test_of_bases_the_rate_and_the_replay_of_branches_are_tuned_and_nothing_is_pretrained(tmp_path: Path) -> None:
    space = bases_of(14_000, 36_000, replay_share=[0.0, 0.3], general_weight=0.5)

    class Branched(Lanes):
        def outcome(self, task: Task) -> Outcome:
            assert not task.trial.is_trunk
            assert task.trial.pretrain_tokens == 1_000_000, "the last revision"
            (Path(task.checkpoints) / task.trial.root.folder).mkdir(exist_ok=True)
            return super().outcome(task)

    lanes = Branched(at_rate=lambda n_params, tokens: best_rate(n_params, 125_000))
    tuned = tuned_in(tmp_path / "run", space, lanes)
    assert {task.trial.n_params for task in lanes.tasks} == {14_000, 36_000}
    assert tuned.rate(14_000) == pytest.approx(BEST_RATE, rel=0.3)
    assert tuned.rate(36_000) < tuned.rate(14_000)
    (replay,) = (chosen for chosen in tuned.chosen if chosen.name == "replay_share")
    assert replay.value > 0.1, "general text counts half"
    found = tuned.apply(space)
    assert found.training.replay_share == replay.value
    assert found.model.checkpoints == space.model.checkpoints
    assert tuned.trained_flops <= 1.3 * expected_flops(space, vocab_size=VOCAB)
    with pytest.raises(SpaceError, match=r"tuning\.warmup_tokens: leave it out: it is of pretraining"):
        bases_of(14_000, warmup_tokens=[0, 1000])
