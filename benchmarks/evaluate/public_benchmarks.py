"""What do routed experts gain on public benchmarks over pretraining only at equal FLOPs?

The models are those of `routed_gain.py`, whose folder of cells is read. Run again, it goes on where it was.

    .venv/bin/python benchmarks/evaluate/public_benchmarks.py --cells runs/routed-gain
    .venv/bin/python benchmarks/evaluate/public_benchmarks.py --cells runs/routed-gain --report

A context of 256 tokens of the space's tokenizer holds LAMBADA and HellaSwag. MBPP needs 512, and HumanEval 768:

    .venv/bin/python benchmarks/evaluate/routed_gain.py --context 768 --batch 2304 --budgets 4e12 --controls \
        --run runs/experts --out runs/routed-gain-768
    .venv/bin/python benchmarks/evaluate/public_benchmarks.py --cells runs/routed-gain-768

A benchmark of which too many items are longer than the context is not read, and the report says so.

A line is a subject on a benchmark: bits per byte of the right answer, and how much lower they are than those of
pretraining only (a minus means worse), with the interval over seeds. "Items" says in how many seeds the paired interval
over the items lies on the better and on the worse side. Accuracy is beside its chance; "at chance" means that chance
lies in the interval over the items of at least one seed. An expert alone reads every item. No label says which expert
an item is for, so there is no router by label.
"""

import argparse
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from routed_gain import DISCOVERED, with_interval

from raysplit.errors import TaskError
from raysplit.evaluate.metrics import Metric
from raysplit.evaluate.plan import Wanted, make_plan
from raysplit.evaluate.results import RESULTS, Evaluation, TaskFigure, read_evaluation
from raysplit.evaluate.run import evaluate
from raysplit.experts.folders import read_experts

TASKS = ("humaneval", "mbpp", "lambada", "hellaswag")
BASELINE_FOLDER = Path("variants") / "pretraining-only" / "seed"
BASELINE = "pretraining only"
EVALUATED = "public"


@dataclass(frozen=True, slots=True)
class Trained:
    """A cell of `routed_gain.py` of which the models are there."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / DISCOVERED

    @property
    def group(self) -> str:
        """What its cells have in common but the seed."""
        return self.folder.name.rpartition("-s")[0]

    @property
    def evaluated(self) -> Evaluation | None:
        return read_evaluation(self.folder / EVALUATED / RESULTS)


def trained_cells(cells: Path, pattern: str = "*") -> list[Trained]:
    """Cells of such a name with all their models, those of a size, budget and share beside each other."""
    folders = sorted(path.parents[1] for path in cells.glob(f"{pattern}/{DISCOVERED}/final.json"))
    return [Trained(folder) for folder in folders]


def wanted_of(cell: Trained, wanted: Wanted) -> Wanted:
    """Of a cell: each expert, the experts under each router but the label, and the model that was only pretrained."""
    baseline = cell.run / BASELINE_FOLDER
    return replace(
        wanted, sources=[cell.run, baseline], against=baseline.name, routers=["centre", "likelihood", "uniform"]
    )


def readable(cell: Trained, wanted: Wanted) -> dict[str, str]:
    """Benchmark -> why the cell's models cannot read it; empty where they can."""
    found = {}
    for task in wanted.task_names:
        try:
            make_plan(wanted_of(cell, replace(wanted, tasks=[task])))
            found[task] = ""
        except TaskError as error:
            found[task] = str(error).replace(str(cell.run), "these models").partition(";")[0]
    return found


def report(cells: Sequence[Trained], why_not: Mapping[str, str]) -> None:
    """Per size, budget and share: each benchmark, and each subject against pretraining only over the seeds."""
    for why in filter(None, why_not.values()):
        print(f"not read: {why}")
    for group in dict.fromkeys(cell.group for cell in cells):
        mine = [cell for cell in cells if cell.group == group]
        found = [evaluation for cell in mine if (evaluation := cell.evaluated) is not None]
        print(f"\n{group}, {len(found)} of {len(mine)} seeds evaluated")
        for task in [task for task in why_not if found and not why_not[task]]:
            _report_task(task, found)


def _report_task(task: str, found: Sequence[Evaluation]) -> None:
    [record] = [record for record in found[0].tasks if record.name == task]
    chance = "" if record.chance is None else f", chance {record.chance:.3f}"
    print(f"\n{task}: {record.n_items} items, {max(record.n_truncated.values())} cut{chance}")
    print(f"{'subject':<28} bits/byte  {'better than pretraining only':>28}  {'items':>11}  {'accuracy':>18}")
    for subject in [subject.name for subject in found[0].subjects]:
        bits = [_figure(each, task, subject, "bits_per_byte") for each in found]
        held_against = [_figure(each, task, each.against, "bits_per_byte") for each in found]
        gain = np.array([1 - a.value.mean / b.value.mean for a, b in zip(bits, held_against, strict=True)])
        is_baseline = subject == found[0].against
        name = BASELINE if is_baseline else subject.removeprefix(f"{DISCOVERED}:")
        print(
            f"{name:<28} {np.mean([each.value.mean for each in bits]):>9.3f}  "
            f"{'' if is_baseline else with_interval(gain):>28}  {'' if is_baseline else _sides(bits):>11}  "
            f"{_accuracy(found, task, subject, record.chance):>18}"
        )


def _figure(evaluation: Evaluation, task: str, subject: str, metric: Metric) -> TaskFigure:
    [found] = [f for f in evaluation.findings if (f.task, f.subject, f.metric) == (task, subject, metric)]
    return found


def _sides(bits: Sequence[TaskFigure]) -> str:
    """Seeds in which the paired interval over the items lies on the better and on the worse side."""
    differences = [each.difference for each in bits if each.difference is not None]
    return f"{sum(d.high < 0 for d in differences)} +, {sum(d.low > 0 for d in differences)} -"


def _accuracy(found: Sequence[Evaluation], task: str, subject: str, chance: float | None) -> str:
    """Mean accuracy over the seeds, and whether it is at chance; empty where greedy decoding is all that there is."""
    if chance is None:
        return ""
    values = [_figure(each, task, subject, "accuracy").value for each in found]
    is_at_chance = any(value.low <= chance for value in values)
    return f"{np.mean([value.mean for value in values]):.3f}{' at chance' if is_at_chance else ''}"


def evaluate_and_report(folder: Path, wanted: Wanted, *, pattern: str = "*", evaluates: bool = True) -> None:
    """Evaluate the cells of a folder that were not, and print all of them."""
    cells = trained_cells(folder, pattern)
    if not cells:
        raise SystemExit(f"{folder}: holds no cells with models; routed_gain.py trains them")
    why_not = readable(cells[0], wanted)
    tasks = [task for task, why in why_not.items() if not why]
    for cell in cells if tasks and evaluates else []:
        if cell.evaluated is None:
            begun = time.monotonic()
            evaluate(wanted_of(cell, replace(wanted, tasks=tasks)), cell.folder / EVALUATED)
            print(f"{cell.folder.name}: {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(f"context of {', '.join(map(str, _context_lengths(cells)))} tokens")
    report(cells, why_not)


def _context_lengths(cells: Sequence[Trained]) -> Iterator[int]:
    yield from sorted({read_experts(cell.run).context_length for cell in cells})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=Path, default=Path("runs/routed-gain"), help="folder of routed_gain.py")
    parser.add_argument("--pattern", default="*", help="of the cells' names")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--limit", type=int, default=200, help="items of each benchmark")
    parser.add_argument("--data", default="package", help="as of `raysplit eval`")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--report", action="store_true", help="evaluate nothing")
    given = parser.parse_args()
    wanted = Wanted(sources=[], tasks=given.tasks, limit=given.limit, data=given.data, device=given.device)
    evaluate_and_report(given.cells.absolute(), wanted, pattern=given.pattern, evaluates=not given.report)


if __name__ == "__main__":
    main()
