"""Tables of runs: what raysplit measures, and what a user brings to `raysplit fit`.

One row is one observation: a model of N parameters, pretrained on D tokens of the mixture, then specialized on D'
tokens of one domain, and its loss on that domain's held-out text. D' = 0 is the pretrained model read on the domain.
"""

import hashlib
import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raysplit.errors import TableError
from raysplit.quantities import ROUNDED_FROM, counted, parse_count, parse_quantity, parse_share
from raysplit.tables import Table, bad_end, end_columns, is_nothing, read_table, step_column

KEY = ("n_params", "pretrain_tokens", "specialize_tokens", "domain", "seed")
"""The columns that say which run a row measured; no two rows may agree on all of them."""
REQUIRED = ("n_params", "pretrain_tokens", "specialize_tokens", "domain", "loss")
OPTIONAL: dict[str, Any] = {
    "seed": 0,
    "weight": 1.0,
    "flops": np.nan,
    "bits_per_byte": np.nan,
    "wall_seconds": np.nan,
    "trial": "",
}
"""Optional columns, and the value that stands in for each where it is missing."""
_COLUMNS = (*REQUIRED, *OPTIONAL, "tokenizer", "base", "replay_share", "general_loss")
_TEXTS = ("domain", "trial", "tokenizer", "base")
_COUNTS = ("n_params", "pretrain_tokens", "specialize_tokens", "seed")
_POSITIVE = ("n_params", "loss", "weight")
_MAY_BE_UNKNOWN = ("flops", "bits_per_byte", "wall_seconds")
BASE, REPLAY_SHARE, GENERAL_LOSS = "base", "replay_share", "general_loss"
"""Columns of a table of continued pretraining. A table with the first may leave out D."""
UNTOLD_TOKENS = 1
"""Stands for a base's D that nobody knows: where each base has one D alone, the law does not depend on it."""
MAX_ROWS = 20_000
"""Most rows that a live law fits, a sample of all (`raysplit.live.observations`): its refits must stay quick."""
MAX_ROWS_READ, MAX_ROWS_FITTED = 1_000_000, 40_000
"""Most rows of a table that is read, and of one that is fitted; a longer one is thinned (`thinned`)."""
_SPACINGS = (2**0.125, 2**0.25, 2**0.5, 2.0, 4.0)
"""Least ratios of the tokens of two points of one run in a thinned table, tried in this order."""
MAX_COUNT = 2**53
"""The largest count: floating point does not tell whole numbers beyond it apart."""
MAX_RATIO_SPREAD = 0.01
"""How far, as a share, bits per byte over loss may differ within a domain: three significant digits leave as much."""
LossUnit = Literal["nats/token", "bits/byte"]
"""What a loss is counted in. Losses of two tokenizers can be compared in bits a byte alone."""
_INCOMPARABLE = (
    "losses per token of two tokenizers or two held-out texts cannot be compared; of two tokenizers bits a byte can, "
    "which columns loss and bits_per_byte then both hold"
)


def bits_per_byte(loss: float, bytes_per_token: float, unit: LossUnit) -> float:
    """A loss in bits a byte, of text with so many bytes a token."""
    return loss if unit == "bits/byte" else loss / math.log(2) / bytes_per_token


def loss_unit_of(runs: pd.DataFrame) -> LossUnit:
    """What the losses of checked runs are counted in: bits a byte, where all equal their own ``bits_per_byte``."""
    return "bits/byte" if (runs["loss"] == runs["bits_per_byte"]).all() else "nats/token"


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """One measured loss."""

    n_params: int
    """N, non-embedding parameters."""
    pretrain_tokens: int
    """D, tokens of the mixture."""
    specialize_tokens: int
    """D', tokens of the domain after branching; 0 for the pretrained model itself."""
    domain: str
    loss: float
    """On the domain's held-out text, after the cooldown: nats per token, or bits per byte in all runs of a table."""
    seed: int = 0
    weight: float = 1.0
    """How much the fit trusts the row; the rule for points of few steps comes on top."""
    flops: float = float("nan")
    """FLOPs of the whole path from initialisation, as if nothing were shared."""
    bits_per_byte: float = float("nan")
    """The same loss in bits per byte of text; NaN where it is not known."""
    wall_seconds: float = float("nan")
    """Time spent on the part of the path that no earlier observation had trained."""
    trial: str = ""
    """Name of the run, for people."""
    replay_share: float = 0.0
    """p of a branch from a base: the share of its tokens that were of the mixture, or of a general set."""
    general_loss: float = float("nan")
    """Loss of a base, or a branch of one, on held-out text of the general set, or in the mean on the other domains; NaN
    where it is not known."""

    @property
    def identity(self) -> str:
        """Hash of the run's key and its loss, by which a report that is repeated is recognised."""
        loss: object = self.loss
        if isinstance(loss, Real):  # numpy's have a repr of their own
            loss = float(loss)
        text = "|".join(str(getattr(self, name)) for name in KEY) + f"|{loss!r}"
        text += f"|{self.replay_share!r}" if self.replay_share else ""
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def to_frame(observations: Sequence[Observation]) -> pd.DataFrame:
    """Observations as a table, sorted by key so that equal sets give equal tables whatever their order.

    It has the columns of the replayed share and the general loss where some observation has either.
    """
    columns = list(Observation.__dataclass_fields__)
    frame = pd.DataFrame(list(map(attrgetter(*columns), observations)), columns=columns)
    if not (frame[REPLAY_SHARE].any() or frame[GENERAL_LOSS].notna().any()):
        frame = frame.drop(columns=[REPLAY_SHARE, GENERAL_LOSS])
    return frame.sort_values([*KEY, *({REPLAY_SHARE} & set(frame))], ignore_index=True)


def read_runs(path: Path | str, *, note: Callable[[str], None] | None = None) -> pd.DataFrame:
    """Read and check a table of runs from a file of any of `raysplit.tables.SUFFIXES`; see `check_runs`.

    Columns have the names of `Observation`, in upper or lower case; `raysplit.imports` reads tables with other names.

    Args:
        path: of the file.
        note: is given a sentence for each assumption, as in `check_runs`.

    Raises:
        TableError: the file cannot be read, a column is missing, a run ended badly, or the table is unusable.
    """
    path = Path(path)
    table = read_table(path)
    column_of = {name.casefold(): name for name in reversed(table.names)}
    column_of |= {name: name for name in table.names}
    known = {name: column_of[name] for name in _COLUMNS if name in column_of}
    required = required_columns(known)
    if missing := [name for name in required if name not in known]:
        raise TableError(
            f"{path}: no column {missing[0]!r}. Required: {', '.join(required)}. Found: {', '.join(table.names)}. "
            f"`raysplit import {shlex.quote(str(path))}` makes a table of runs where columns have other names"
        )
    _refuse_bad_ends(table, path)
    if note is not None:
        for sentence in (*table.notes, *_steps_not_read(table, path)):
            note(f"{path}: {sentence}")
    cells = {name: [row.cells.get(column) for row in table.rows] for name, column in known.items()}
    frame = pd.DataFrame({name: c if name in _TEXTS else [_plain(cell) for cell in c] for name, c in cells.items()})
    return check_runs(frame, origin=str(path), note=note)


def required_columns(known: Iterable[Any]) -> tuple[str, ...]:
    """The columns that a table with these columns must have."""
    return tuple(name for name in REQUIRED if name != "pretrain_tokens") if BASE in known else REQUIRED


def _steps_not_read(table: Table, path: Path) -> Iterator[str]:
    if (column := step_column(table.names)) is not None:
        yield (
            f"its column {column!r} is not read; where rows are steps of one run, of which only the last is from after "
            f"its cooldown, `raysplit import {shlex.quote(str(path))}` keeps that alone"
        )


def _refuse_bad_ends(table: Table, path: Path) -> None:
    columns = end_columns(table.names, table.rows)
    for row in table.rows:
        if (found := bad_end(row.cells, columns)) is not None:
            raise TableError(
                f"{path}: {row.place}: {found[0]} = {found[1]!r}: no finished run; drop it, or let `raysplit import "
                f"{path}` leave out all that did not end well"
            )


def _plain(cell: Any) -> Any:
    """A cell for a number: None where it is empty, a number where a program wrote it, else the cell as it is."""
    if is_nothing(cell):
        return None
    try:
        return cell if not isinstance(cell, str) else int(cell) if cell.isdecimal() else float(cell)
    except ValueError:
        return cell


def check_runs(frame: pd.DataFrame, *, origin: str, note: Callable[[str], None] | None = None) -> pd.DataFrame:
    """Check a table of runs and fill in its optional columns.

    Numbers may be written in any way that `raysplit.quantities` reads. Blanks around the name of a domain are dropped.
    A table of continued pretraining names the ``base`` of each run, and may leave out D, which is then `UNTOLD_TOKENS`.
    Its columns ``base`` and, where they are given, ``replay_share`` and ``general_loss`` are kept.

    All runs must have one tokenizer: a column ``tokenizer``, where there is one, holds one value, unless losses are in
    bits a byte (`loss_unit_of`). Where both are known, bits per byte over loss is one number in each domain, to within
    `MAX_RATIO_SPREAD`.

    Args:
        frame: the table.
        origin: what errors and notes call the table.
        note: is given a sentence for each assumption. With it parameters and tokens with a fraction, as C / 6N gives,
            are rounded. Without it they are refused.

    Returns:
        The rows sorted by key, with the columns of `REQUIRED` and `OPTIONAL` in their types.

    Raises:
        TableError: a required column is missing; there are no rows or too many; a value is no finite number, negative,
            or zero where it must be positive; a count is not whole or above `MAX_COUNT`; a run saw no tokens; a domain
            or a base has no name; two bases have one size; two rows measure the same run; runs have several
            tokenizers.
    """
    required = required_columns(frame.columns)
    for name in required:
        if name not in frame.columns:
            raise TableError(
                f"{origin}: no column {name!r}. Required: {', '.join(required)}. "
                f"Found: {', '.join(map(str, frame.columns)) or 'none'}"
            )
    if frame.empty:
        raise TableError(f"{origin}: the table has no rows")
    if len(frame) > MAX_ROWS_READ:
        raise TableError(
            f"{origin}: {len(frame)} rows; at most {MAX_ROWS_READ} are read; keep one row per measured point"
        )
    if BASE in frame.columns and ("pretrain_tokens" not in frame.columns or frame["pretrain_tokens"].isna().all()):
        frame = frame.assign(pretrain_tokens=UNTOLD_TOKENS)
    out = pd.DataFrame({name: frame[name] for name in REQUIRED})
    for name, default in OPTIONAL.items():
        # As objects, since a column that is empty throughout is read as numbers, which pandas will not fill with text.
        out[name] = frame[name].astype(object).fillna(default) if name in frame.columns else default

    def refuse(bad: Any, name: str, rule: str) -> None:
        rows = np.flatnonzero(np.asarray(bad))
        if rows.size:
            value = frame[name].tolist()[rows[0]]  # as Python shows it, not numpy
            more = f" (and {counted(rows.size - 1, 'more row')})" if rows.size > 1 else ""
            raise TableError(f"{origin}: row {rows[0] + 1}: {name} = {value!r} {rule}{more}")

    rounded: dict[str, list[int]] = {}
    for name in (*_COUNTS, "loss", "weight", *_MAY_BE_UNKNOWN):
        numbers, rounded[name] = _numbers(out[name], name, origin=origin, may_round=note is not None)
        is_unknown = np.isnan(numbers) if name in _MAY_BE_UNKNOWN else False
        refuse(~(np.isfinite(numbers) | is_unknown), name, "is not a finite number")
        if name in _POSITIVE:
            refuse(numbers <= 0, name, "must be positive")
        else:
            refuse(numbers < 0, name, "must not be negative")
        if name in _COUNTS:
            refuse(numbers > MAX_COUNT, name, f"is more than {MAX_COUNT}")
        out[name] = numbers.astype("int64") if name in _COUNTS else numbers
    refuse(
        out["pretrain_tokens"] + out["specialize_tokens"] <= 0,
        "pretrain_tokens",
        "with specialize_tokens = 0 is a model that saw no tokens",
    )
    missing_domain = out["domain"].isna() | (out["domain"].astype(str).str.strip() == "")
    refuse(missing_domain, "domain", "is empty")
    out["domain"] = out["domain"].astype(str).str.strip()
    out["trial"] = out["trial"].astype(str)
    key = list(KEY)
    if BASE in frame.columns:
        _add_continued(out, frame, refuse, origin=origin)
        key += [REPLAY_SHARE] * (REPLAY_SHARE in out)
    if note is not None:
        for sentence in _assumed(frame, out, rounded):
            note(f"{origin}: {sentence}")
    if "tokenizer" in frame.columns and loss_unit_of(out) != "bits/byte":
        names = frame["tokenizer"].astype(object).fillna("").astype(str)
        refuse(names != names.iloc[0], "tokenizer", f"is not that of row 1, {names.iloc[0]!r}; {_INCOMPARABLE}")
    ratio = out["bits_per_byte"] / out["loss"]
    first_ratio = ratio.groupby(out["domain"]).transform("first")
    refuse(
        (ratio - first_ratio).abs() > MAX_RATIO_SPREAD * first_ratio,
        "bits_per_byte",
        f"is another multiple of the loss than in the rows above of its domain; {_INCOMPARABLE}",
    )
    repeated = np.flatnonzero(out.duplicated(key, keep="first"))
    if repeated.size:
        row = out.iloc[repeated[0]]
        first = np.flatnonzero((out[key] == row[key]).all(axis=1))[0]
        what = ", ".join(f"{name}={row[name]}" for name in key)
        raise TableError(
            f"{origin}: row {repeated[0] + 1} repeats row {first + 1} ({what}); "
            "give repeated runs different seeds, or drop one"
        )
    return out.sort_values(key, ignore_index=True)


def _add_continued(
    out: pd.DataFrame, frame: pd.DataFrame, refuse: Callable[[Any, str, str], None], *, origin: str
) -> None:
    """Add the columns of continued pretraining that ``frame`` has.

    Raises:
        TableError: a base has no name or two sizes, or two bases have one; a share or a loss is out of its range.
    """
    out[BASE] = frame[BASE].astype(object).fillna("").astype(str).str.strip()
    refuse(out[BASE] == "", BASE, "is empty")
    one_size = out.groupby(BASE)["n_params"].transform("nunique") == 1
    refuse(~one_size, BASE, "has several n_params; a base is one model")
    alone = out.groupby("n_params")[BASE].transform("nunique") == 1
    refuse(
        ~alone, BASE,
        "has the n_params of another base; give the exact counts without embeddings, or fit a table for each",
    )  # fmt: skip
    for name, highest in ((REPLAY_SHARE, 1.0), (GENERAL_LOSS, math.inf)):
        if name in frame.columns:
            values, _ = _numbers(frame[name].astype(object), name, origin=origin, may_round=False)
            values = np.nan_to_num(values, nan=0.0) if name == REPLAY_SHARE else values
            is_share = name == REPLAY_SHARE
            allowed = (values >= 0 if is_share else values > 0) & (values < highest)
            refuse(
                ~(np.isnan(values) | allowed),
                name,
                "is not within 0 to 1; a share in per cent has its sign, as 5 %" if is_share else "must be positive",
            )
            out[name] = values


def thinned(runs: pd.DataFrame, *, max_rows: int = MAX_ROWS_FITTED) -> tuple[pd.DataFrame, str]:
    """(table, sentence): a checked table of at most ``max_rows`` rows, and how it was thinned; empty if it was not.

    Along one trunk or branch the last point is kept. The other points are put into steps of a ratio of tokens, and of
    each step the last point is kept. The ratio is the smallest of `_SPACINGS` that leaves few enough rows. Points that
    lie close along one run share its luck, and tell little more than one of them. If too many rows are left even so,
    those at even distances are kept.
    """
    if len(runs) <= max_rows:
        return runs, ""
    is_branch = runs["specialize_tokens"] > 0
    tokens = np.where(is_branch, runs["specialize_tokens"], runs["pretrain_tokens"]).astype(float)
    run = [
        runs["n_params"], runs["seed"], runs["domain"], is_branch, runs["pretrain_tokens"].where(is_branch, -1),
        *(runs[name] for name in (REPLAY_SHARE,) if name in runs),
    ]  # fmt: skip
    last = pd.Series(tokens, index=runs.index).groupby(run).transform("max")
    kept = runs
    for ratio in _SPACINGS:
        step = np.floor(np.log(last / tokens) / math.log(ratio) + 1e-9)
        kept = runs.loc[np.sort(pd.Series(tokens, index=runs.index).groupby([*run, step]).idxmax().to_numpy())]
        if len(kept) <= max_rows:
            break
    n_points = len(kept)
    if n_points > max_rows:
        kept = kept.iloc[np.linspace(0, n_points - 1, max_rows).astype(int)]
    sentence = f"{len(runs)} rows are more than the {max_rows} that are fitted: of the points along one run those are "
    sentence += f"kept whose tokens differ by a factor of {ratio:.3g}, {n_points}"
    return kept.reset_index(drop=True), sentence + ("" if len(kept) == n_points else f", and of these {len(kept)}")


def _assumed(frame: pd.DataFrame, out: pd.DataFrame, rounded: Mapping[str, Sequence[int]]) -> Iterator[str]:
    """Sentences on what was assumed of the cells of ``frame``; ``rounded`` has positions of rounded cells by column."""
    for name, rows in rounded.items():
        if rows:
            before, after = frame[name].tolist()[rows[0]], out[name].tolist()[rows[0]]
            yield f"{name} has a fraction in {counted(len(rows), 'row')} and is rounded, as from {before} to {after}"
    written = frame["domain"].astype(str).tolist()
    if blank := next((name for name, own in zip(written, out["domain"], strict=True) if name != own), None):
        yield f"blanks around the names of domains are dropped, as from {blank!r}"


def _numbers(
    cells: "pd.Series[Any]", name: str, *, origin: str, may_round: bool
) -> tuple[NDArray[np.float64], list[int]]:
    """The numbers of a column, NaN where a cell is empty, and the positions of those that were rounded.

    Raises:
        TableError: a cell cannot be read; the first is named and the others are counted.
    """
    numbers, rounded, faults = np.full(len(cells), np.nan), [], []
    for position, cell in enumerate(cells.tolist()):
        is_float = type(cell) is float and (name not in _COUNTS or cell.is_integer() or not math.isfinite(cell))
        if is_float or (type(cell) is int and abs(cell) <= MAX_COUNT):  # most are, and need no reading
            numbers[position] = cell
        elif cell is not None and cell is not pd.NA and cell is not pd.NaT:
            try:
                numbers[position], was_rounded = _number(cell, name, may_round=may_round)
            except ValueError as error:
                faults.append(f"{origin}: row {position + 1}: {name}: {error}")
            else:
                rounded += [position] * was_rounded
    if faults:
        raise TableError(faults[0] + (f" (and {counted(len(faults) - 1, 'more row')})" if len(faults) > 1 else ""))
    return numbers, rounded


def _number(cell: object, name: str, *, may_round: bool) -> tuple[float, bool]:
    """(number, was_rounded) of a cell.

    Raises:
        ValueError: the cell is no number, or no whole one where that is needed.
    """
    if name not in _COUNTS:
        return parse_share(cell) if name == REPLAY_SHARE else parse_quantity(cell), False
    return (parse_count(cell), False) if name == "seed" else read_count(cell, may_round=may_round)


def read_count(cell: object, *, may_round: bool) -> tuple[int, bool]:
    """(count, was_rounded) of a cell with parameters or tokens.

    Raises:
        ValueError: the cell is no number; or it has a fraction and ``may_round`` is false, or it is below
            `raysplit.quantities.ROUNDED_FROM`, where a fraction is a mistake.
    """
    try:
        return parse_count(cell), False
    except ValueError as error:
        number = parse_quantity(cell)  # raises where it is no number at all
        if abs(number) < ROUNDED_FROM:
            raise ValueError(f"{error}; where millions or billions are meant, write {cell}M or {cell}B") from None
        if not may_round or not math.isfinite(number):
            raise
        return parse_count(cell, rounded=True), True
