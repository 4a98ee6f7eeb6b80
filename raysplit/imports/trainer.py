"""Hugging Face's ``Trainer``: the ``trainer_state.json`` of a run or of its checkpoints, with the log of its losses.

Only losses after a cooldown compare. So a run is usable where its schedule has ended with the learning rate down, and
it was evaluated at its last step. The file does not say N, the domain, or whether its tokens are D or D': the user
tells. Seen with transformers 5.23.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysplit.errors import TableError
from raysplit.imports.documents import read_json
from raysplit.imports.found import Found, FoundRow, shown
from raysplit.imports.source import Source

FILE = "trainer_state.json"
TOKENS_SEEN = "num_input_tokens_seen"
COOLED = 0.2
"""A learning rate of at most this share of its peak counts as down: schedules end at zero or, often, at a tenth."""
_STILL_UP, _STILL_AT_PEAK = 0.02, 0.1
"""A run has no cooldown where its last logged rate is not down, or is at its peak, within this share of its steps from
the end."""
_CHECKPOINT = re.compile(r"checkpoint-\d+")
_PARTS = re.compile(
    r"(^|/)checkpoint-\d+/|tfevents|(^|/)trainer_state\.json$|(^|/)(all|train|eval|test|predict)_results\.json$|"
    r"(^|/)[^/]*\.(safetensors|bin|pt|pth|model|jinja|md|txt)$|"
    r"(^|/)(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|preprocessor_config"
    r"|model\.safetensors\.index)\.json$"
)
_OF_A_SET = re.compile(r"eval_.+_loss")
"""The loss on one of several evaluation sets, which are named by their domains."""
_LOSS = re.compile(r"eval_(.+_)?loss")
_Log = list[Mapping[str, Any]]


def recognises(source: Source) -> bool:
    """Whether a source is or holds the state of a Trainer."""
    return any(_states(source))


def is_part(name: str) -> bool:
    """Whether a file that was not read is one of the Trainer's own, and no run."""
    return _PARTS.search(name) is not None


def read_trainer(source: Source, *, all_points: bool) -> Found:
    """One row a run: what its last evaluation measured, and the tokens that it has seen, if it counted them.

    Args:
        source: a state, a checkpoint, a run with its checkpoints (the last counts), or a folder of runs.
        all_points: whether every evaluation is a measurement after a cooldown, whatever the learning rate.
    """
    newest: dict[Path, _State] = {}
    damaged: list[str] = []
    for path in _states(source):
        try:
            state = _State.read(path)
        except TableError:
            damaged.append(source.name_of(path))
            continue
        if state.step >= newest.setdefault(state.run, state).step:
            newest[state.run] = state
    rows: list[FoundRow] = []
    assumed: list[str] = []
    for run, state in newest.items():
        name = source.name_of(run)
        unusable, is_assumed = ("", False) if all_points else state.ended()
        if is_assumed:
            assumed.append(name)
        for values in state.evaluations() if all_points else [state.last()]:
            rows.append(FoundRow(run=name, where=str(state.path), values=values, unusable=unusable))
    names = {name for row in rows for name in row.values}
    note = f"the learning rate of {shown(assumed)} is not logged near its end: taken as down"
    return Found(
        kind="trainer",
        are_runs=True,
        origin=str(source.path),
        rows=rows,
        loss_columns="" if "eval_loss" in names or not any(map(_OF_A_SET.fullmatch, names)) else "eval_{domain}_loss",
        left_out={"damaged or cut short": damaged} if damaged else {},
        notes=[note] if assumed else [],
    )


def _states(source: Source) -> Iterator[Path]:
    for path in source.files:
        if path.name == FILE or (not source.is_folder and path.suffix == ".json" and _is_state(path)):
            yield path


def _is_state(path: Path) -> bool:
    try:
        found = read_json(path)
    except TableError:
        return False
    return isinstance(found.get("log_history"), list) and "global_step" in found


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """A ``trainer_state.json``, checked."""

    path: Path
    whole: Mapping[str, Any]
    log: _Log
    step: int
    max_steps: int

    @classmethod
    def read(cls, path: Path) -> "_State":
        """Read and check a file.

        Raises:
            TableError: the file is damaged, or no Trainer wrote it.
        """
        whole = read_json(path)
        log = whole.get("log_history")
        try:
            step, max_steps = int(whole["global_step"]), int(whole["max_steps"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise TableError(f"{path}: has no global_step or max_steps") from error
        if not isinstance(log, list) or not all(isinstance(entry, dict) for entry in log):
            raise TableError(f"{path}: its log_history is no list of logs")
        return cls(path=path, whole=whole, log=log, step=step, max_steps=max_steps)

    @property
    def run(self) -> Path:
        """The run's folder; the file itself where it has another name than `FILE`."""
        folder = self.path.parent
        if _CHECKPOINT.fullmatch(folder.name):
            return folder.parent
        return folder if self.path.name == FILE else self.path

    def evaluations(self) -> list[dict[str, object]]:
        """What each evaluation measured, with the tokens seen by then; evaluations of one step are one."""
        by_step: dict[str, dict[str, object]] = {}
        tokens: object = None
        for entry in self.log:
            tokens = entry.get(TOKENS_SEEN, tokens)
            if any(name.startswith("eval_") for name in entry):
                values = by_step.setdefault(str(entry.get("step")), {})
                # The first of a step counts: a later one is of another set, or of earlier, better weights.
                values |= {n: value for n, value in entry.items() if _is_number(value) and n not in values}
                if tokens is not None:
                    values[TOKENS_SEEN] = tokens
        return list(by_step.values())

    def last(self) -> dict[str, object]:
        """What the last evaluation measured, and the run's own counts."""
        values = dict((self.evaluations() or [{}])[-1])
        trained = [entry["train_loss"] for entry in self.log if "train_loss" in entry]
        values |= {"train_loss": trained[-1]} if trained else {}
        values |= {
            name: self.whole[name] for name in ("global_step", "max_steps", "epoch", "total_flos") if name in self.whole
        }
        return values | ({TOKENS_SEEN: self.whole[TOKENS_SEEN]} if self.whole.get(TOKENS_SEEN) else {})

    def ended(self) -> tuple[str, bool]:
        """(reason, is_assumed): why the run cannot be compared, empty where it can; whether its cooldown is assumed."""
        if self.step < self.max_steps:
            return "not at the end of their schedule (global_step is less than max_steps)", False
        evaluated = [entry.get("step") for entry in self.log if any(map(_LOSS.fullmatch, entry))]
        if not evaluated:
            return "without an evaluation: a training loss is no held-out loss", False
        if evaluated[-1] != self.step:
            return "without an evaluation at the last step, after the cooldown", False
        rates = [e for e in self.log if _is_number(e.get("learning_rate")) and _is_number(e.get("step"))]
        peak = max((entry["learning_rate"] for entry in rates), default=0.0)
        if rates and rates[-1]["learning_rate"] <= COOLED * peak:
            return "", False
        to_the_end = 1 - rates[-1]["step"] / max(self.step, 1) if rates else 1.0
        if rates and to_the_end <= (_STILL_AT_PEAK if rates[-1]["learning_rate"] > 0.99 * peak else _STILL_UP):
            return f"with a learning rate that did not come down to {COOLED:.0%} of its peak: no cooldown", False
        return "", True


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
