"""docs/runs.md: every row of its table of what can be brought, tried as it says."""

import gzip
import io
import re
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
from click.testing import CliRunner

from raysplit.cli import main
from tests.conftest import REPOSITORY

FRAME = pd.DataFrame(
    {
        "n_params": [8_200_000, 20_000_000],
        "pretrain_tokens": [400_000_000, 1_600_000_000],
        "specialize_tokens": [0, 0],
        "domain": ["law", "law"],
        "loss": [4.07, 3.5],
    }
)
CSV = FRAME.to_csv(index=False)
HEADER = "n_params,pretrain_tokens,specialize_tokens,domain,loss"


def _stored(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def _formulas() -> bytes:
    book = openpyxl.Workbook()
    for row in (HEADER.split(","), ["=20*10^6", 1_000_000_000, 0, "law", 4]):
        book.worksheets[0].append(row)
    return _stored(book.save)


def _book(*sheets: str) -> bytes:
    buffer = io.BytesIO()
    with pd.ExcelWriter(buffer, engine="openpyxl") as writer:
        for sheet in sheets:
            FRAME.to_excel(writer, sheet_name=sheet, index=False)
    return buffer.getvalue()


BROUGHT: dict[str, tuple[str | bytes, Sequence[str]]] = {
    "mine.csv": (CSV, ()),
    "MINE.CSV": (CSV, ()),
    "excel-de.csv": (FRAME.to_csv(index=False, sep=";", decimal=","), ()),
    "mine.tsv": (FRAME.to_csv(index=False, sep="\t"), ()),
    "notes.md": (f"|{HEADER.replace(',', ' | ')}|\n|---|---|---|---|---|\n| 20M | 2B | 0 | law | 3.5 |\n", ()),
    "padded.csv": ("\n".join(line.replace(",", ", ") + ",," for line in [*CSV.splitlines(), ",,,,"]) + "\n\n", ()),
    "mine.csv.gz": (gzip.compress(CSV.encode()), ()),
    "unicode.txt": (FRAME.to_csv(index=False, sep="\t").encode("utf-16"), ()),
    "latin.csv": (CSV.replace("law", "größe").encode("cp1252"), ()),
    "mine.xlsx": (_book("runs"), ()),
    "sheets.xlsx": (_book("runs", "copy"), ()),
    "mine.parquet": (_stored(FRAME.to_parquet), ()),
    "mine.jsonl": (FRAME.to_json(orient="records", lines=True), ()),
    "mine.json": (FRAME.to_json(indent=2), ()),
    "units.csv": ("params (M),tokens [B],domain,loss\n8.2,0.4,law,4\n", ("--column", "pretrain_tokens=tokens [B]")),
    "isoflops.csv": (CSV.replace("00000,0,", "00000.5,0,"), ()),
    "wide.csv": (
        "n_params,pretrain_tokens,eval/law_loss,eval/code_loss\n20M,2B,3,2\n",
        ("--column", "loss=eval/{domain}_loss"),
    ),
    "status.csv": (f"run,status,{HEADER}\na,done,20M,1B,0,law,4\nc,OOM,20M,2B,0,law,9\n", ()),
    "codes.csv": (f"run,ExitCode,{HEADER}\na,0:0,20M,1B,0,law,4\nc,0:9,20M,2B,0,law,9\n", ()),
    "joined.csv": (f"{HEADER}\n20M,1B,0,law,4\n{HEADER}\n20M,2B,0,law,3\n", ()),
    "steps.csv": (f"step,{HEADER}\n1000,20M,1B,0,law,4\n2000,20M,2B,0,law,3\n4000,20M,4B,0,law,2\n", ()),
    "both.csv": (f"{HEADER},eval_loss\n20M,1B,0,law,3,4\n", ()),
    "formulas.xlsx": (_formulas(), ()),
    "chart.csv": ("Step,a - eval/loss,a - eval/loss__MIN\n100,4,4\n", ()),
    "curve.csv": ("Wall time,Step,Value\n1.5,100,4\n", ()),
    "trials.csv": (
        "number,value,params_n_params,user_attrs_domain,user_attrs_pretrain_tokens,state\n0,3,20000000,law,2B,COMPLETE\n",
        (),
    ),
    "history.csv": (f"_step,{HEADER}\n1,20M,1B,0,law,4\n2,20M,2B,0,law,3\n3,20M,3B,0,law,2\n", ()),
    "repeats.csv": (f"{HEADER}\n20M,1B,0,law,4\n20M,1B,0,law,3\n", ()),
    "scores.csv": ("n_params,pretrain_tokens,domain,val_ppl\n20M,2B,law,30\n", ()),
    "twice.csv": (f"{HEADER},loss\n20M,1B,0,law,4,4\n", ()),
    "ragged.csv": (f"{HEADER}\n20M,1B,0,law,4\n20M,1B,0,law,4,5\n", ()),
}
"""An example of each row, and what is said with it."""
PAGE = (REPOSITORY / "docs" / "runs.md").read_text(encoding="utf-8")


def _rows() -> dict[str, str]:
    """What becomes of it, by example, as the page says."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| ")]
    return {example.strip("`"): outcome for _, example, _, outcome in cells[1:]}


def test_every_row_has_an_example() -> None:
    assert set(_rows()) == set(BROUGHT)


@pytest.mark.parametrize("tool", ["pandas", "openpyxl", "pyarrow", "Optuna"])
def test_names_the_versions_that_it_was_tried_with(tool: str) -> None:
    assert f"| {tool} {'.'.join(version(tool).split('.')[:2])}" in PAGE


@pytest.mark.parametrize("name", BROUGHT)
def test_becomes_what_the_page_says(name: str, tmp_path: Path) -> None:
    content, told = BROUGHT[name]
    (source := tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    arguments = ["import", str(source), "--out", str(tmp_path / "out.csv"), "--set", "specialize_tokens=0", *told]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    outcome = _rows()[name]
    assert result.exit_code == (2 if outcome.startswith("refused") else 0), result.output
    said = " ".join(result.output.split())
    for phrase in re.findall(r"`([^`]+)`", outcome):
        assert phrase in said or phrase == "{domain}"
