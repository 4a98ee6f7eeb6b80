"""JSON as people write it: every way of writing the same runs gives the same objects, and what is wrong is named."""

import gzip
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysplit.errors import TableError
from raysplit.tables import read_objects

RUNS: list[dict[str, Any]] = [{"name": "a", "n": 1, "loss": 3.5}, {"name": "b\u2028c\u0085", "n": 2, "loss": 3.25}]
COLUMNS = list(RUNS[0])

WRITTEN = {
    "a line a run": "\n".join(json.dumps(run, ensure_ascii=False) for run in RUNS),
    "lines of Windows": "".join(json.dumps(run) + "\r\n" for run in RUNS) + "\r\n",
    "an array": json.dumps(RUNS),
    "an indented array": json.dumps(RUNS, indent=2, ensure_ascii=False),
    "a list in an object": json.dumps({"project": "scaling", "runs": RUNS}, indent=1),
    "one after another": "\n".join(json.dumps(run, indent=4) for run in RUNS),
    "one after another on a line": "".join(json.dumps(run) for run in RUNS),
    "of pandas, columns": json.dumps({c: {str(i): run[c] for i, run in enumerate(RUNS)} for c in COLUMNS}),
    "of pandas, index": json.dumps({str(i): run for i, run in enumerate(RUNS)}),
    "of pandas, split": json.dumps({"columns": COLUMNS, "index": [0, 1], "data": [[*run.values()] for run in RUNS]}),
    "by their names": json.dumps({"a": RUNS[0], "second": RUNS[1]}),
    "by their names, in an object": json.dumps(
        {"runs": {run["name"]: {"n": run["n"], "loss": run["loss"]} for run in RUNS}}
    ),
    "lists by column": json.dumps({c: [run[c] for run in RUNS] for c in COLUMNS}),
}


def written(folder: Path, text: str, name: str = "runs.json") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("layout", WRITTEN)
def test_every_way_to_write_runs_gives_those_runs(layout: str, tmp_path: Path) -> None:
    path = written(tmp_path, WRITTEN[layout])
    assert [found for _, found in read_objects(path)] == RUNS
    packed = tmp_path / "runs.json.gz"
    packed.write_bytes(gzip.compress(("\ufeff" + WRITTEN[layout]).encode()))
    assert [found for _, found in read_objects(packed)] == RUNS


@pytest.mark.parametrize("text", ["", " \n", "[]", '{"runs": []}'])
def test_nothing_is_no_runs(text: str, tmp_path: Path) -> None:
    assert [found for _, found in read_objects(written(tmp_path, text))] in ([], [{"runs": []}])


def test_one_run_over_many_lines(tmp_path: Path) -> None:
    run = {"config": {"n": 1}, "summary": {"loss": 2}, "history": [{"loss": 3}, {"loss": 2}]}
    assert read_objects(written(tmp_path, json.dumps(run, indent=2))) == [(f"{tmp_path / 'runs.json'}: run 1", run)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"n": 1}\nnonsense\n', "line 2: is not JSON: Expecting value"),
        ('{"n": 1}\n{"n": 2, "lo', "line 2: is not JSON"),
        ('[\n{"n": 1},\n{"n": 2\n', "line 4: is not JSON"),
        ('{\n"n": 1\n}\n{\n"n": 2,,\n}', "line 5: is not JSON"),
        ("[1]", r"run 1: is no object .* got '1'"),
        ('{"n": 1, "n": 2}', "an object has 'n' twice"),
        ('{"n": 1}\n{"n": 1, "n": 2}', "line 2: .* an object has 'n' twice"),
        ('{"good": [{"n": 1}], "bad": [{"n": 2}]}', "several lists of objects: 'good', 'bad'; keep one"),
        ('{"columns": ["n", "loss"], "data": [[1, 2], [3]]}', "run 2: is no list of 2 cells"),
        ("[" * 100_000, "nested too deeply"),
        ('{"n": ' + "9" * 5000 + "}", "is not JSON: .*4300 digits"),
        ('{"n": "\\ud800"}', "holds half a character"),
    ],
)
def test_says_what_is_wrong_and_where(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"runs\.json: .*" + complaint):
        read_objects(written(tmp_path, text))


def test_names_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_bytes('{"name": "Größe"}'.encode("latin-1"))
    with pytest.raises(TableError, match=r"runs\.jsonl: is not UTF-8 text \(byte 0xf6.*--encoding cp1252"):
        read_objects(path)
    assert read_objects(path, encoding="latin-1")[0][1] == {"name": "Größe"}
    with pytest.raises(TableError, match="unknown encoding: klingon"):
        read_objects(path, encoding="klingon")


@given(st.recursive(st.none() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_json_is_objects_or_a_table_error(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = written(tmp_path_factory.mktemp("json"), json.dumps(value))
    with suppress(TableError):
        assert all(isinstance(found, dict) for _, found in read_objects(path))
