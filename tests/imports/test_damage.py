"""Whatever stands in the files of a tool, they are read or refused by a sentence."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysplit.errors import TableError
from raysplit.imports import import_runs
from tests.imports.layouts import RUNS, write_experiment, write_store
from tests.imports.test_trainer import TOLD, write_state
from tests.imports.test_tune import write_plan
from tests.imports.test_wandb import write_run

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
WRITERS = {
    "tune": lambda folder: write_experiment(folder, RUNS, ("TERMINATED",) * 2),
    "plan": write_plan,
    "mlflow": lambda folder: write_store(folder, RUNS, (3, 3)),
    "trainer": lambda folder: write_state(folder / "run"),
    "wandb": lambda folder: write_run(folder, "abcd", RUNS[0]),
}


def changed(value: Any, data: st.DataObject) -> Any:
    """One of the values inside another, replaced."""
    inside = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not inside or data.draw(st.integers(0, 4)) == 0:
        return data.draw(ANYTHING)
    at = data.draw(st.sampled_from(inside))
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at] = changed(value[at], data)
    return copy


@pytest.fixture(scope="module", params=WRITERS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    WRITERS[request.param](folder)
    return folder


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_other_values_and_bytes(written: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(path for path in written.rglob("*") if path.is_file())))
    whole = path.read_bytes()
    try:
        if path.suffix == ".json" and data.draw(st.booleans()):
            lines = whole.decode().splitlines() if path.name == "result.json" else [whole.decode()]
            path.write_text("\n".join(json.dumps(changed(json.loads(line), data)) for line in lines) + "\n")
        else:
            start = data.draw(st.integers(0, len(whole)))
            path.write_bytes(whole[:start] + data.draw(st.binary(max_size=12)) + whole[start + 3 :])
        for all_points in (False, True):
            with suppress(TableError):
                import_runs(written, constants=TOLD, all_points=all_points)
    finally:
        path.write_bytes(whole)
