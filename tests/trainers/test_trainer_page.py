"""docs/trainer.md: its examples run, and its table of warnings is that of the code."""

import ast
import inspect
import logging
import re
from pathlib import Path

import pytest

import raysplit
from raysplit.http import client
from raysplit.trainers import callback, outside_run, reporter
from tests.trainers.laws_to_tell import FakeLaw

pytest.importorskip("accelerate", reason="transformers.Trainer needs the package accelerate")


def page(repository: Path) -> str:
    return (repository / "docs" / "trainer.md").read_text(encoding="utf-8")


def test_its_examples_run(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    law = FakeLaw()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYSPLIT_TOKEN", "anything")
    monkeypatch.setattr(raysplit, "connect", lambda run: law)
    monkeypatch.setattr(client, "HttpClient", lambda url, token: law)
    with_trainer, bare, over_http = re.findall(r"```python\n(.*?)```", page(repository), flags=re.DOTALL)
    with caplog.at_level(logging.WARNING, logger="raysplit"):
        names: dict[str, object] = {}
        exec(with_trainer.replace("TrainingArguments(\n", "TrainingArguments(\n        use_cpu=True,\n"), names)
        law_callback = names["law"]
        assert isinstance(law_callback, callback.LiveLawCallback)
        assert law_callback.run is not None
        law_callback.run.close()
        assert [(o.specialize_tokens, o.domain) for o in law.told.values()] == [(20 * 4 * 32, "law")]
        exec(bare, {})
        assert len(law.told) == 2
        exec(over_http, {})
    assert [r.getMessage() for r in caplog.records if r.name == "raysplit"] == []


def test_its_table_has_every_warning(repository: Path) -> None:
    table = page(repository).split("### Warnings")[1].split("## With a loop")[0]
    rows = re.findall(r"^\| `(.*?)` \|", table, flags=re.MULTILINE)
    listed = [text for row in rows for text in row.split("`, `")]
    given = [said for module in (callback, outside_run, reporter) for said in warnings_of(inspect.getsource(module))]
    assert [text for text in listed if not any(text in said for said in given)] == []
    assert [said for said in given if not any(text in said for text in listed)] == []


def warnings_of(source: str) -> list[str]:
    """The fixed words of every message that a module warns by."""
    tree = ast.parse(source)
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        called = ast.unparse(call.func)
        if called not in ("self._warn", "_log.warning"):
            continue
        message: ast.AST = call.args[called == "self._warn"]
        if isinstance(message, ast.Call):  # a function that makes the message
            message = functions[ast.unparse(message.func)]
        words = [n.value for n in ast.walk(message) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        if words:  # none where a message is handed on
            found.append("".join(words))
    return found
