"""Which column of a source is which field of an observation: as told, by its own name, or guessed and shown.

The rule is the same for every tool. A column with a field's own name is that field. Else one is guessed from the names
under which people keep such values, in any container (``config.``, ``summary.``, ``params.``, ``metrics.``).
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raysplit.errors import TableError, unknown
from raysplit.imports.found import Found, FoundRow, kind_shown
from raysplit.imports.names import (
    ALIASES,
    BITS,
    CONTAINERS,
    LETTERS,
    LOSS_WORDS,
    NO_LOSS,
    is_no_domain,
    is_no_loss,
    plain_name,
    without_container,
    words_in,
)
from raysplit.imports.units import UNIT_NAMES, split_unit
from raysplit.runs import BASE, GENERAL_LOSS, OPTIONAL, REPLAY_SHARE, REQUIRED, required_columns

OF_CONTINUED = (BASE, REPLAY_SHARE, GENERAL_LOSS)
"""Fields of continued pretraining; the other two are read beside a base alone."""
FIELDS = (*REQUIRED, *(name for name in OPTIONAL if name != "trial"), "tokenizer", *OF_CONTINUED)
"""The fields of an observation that a source may have."""
DOMAIN = "{domain}"
"""Stands for a domain's name in the loss's column: one column a domain, as where a model is read on all of them."""

_TOKENS_SEEN = "num_input_tokens_seen"
"""Plain name of what transformers' Trainer counts."""
COUNTED = ("n_params", "pretrain_tokens", "specialize_tokens")
"""Fields whose column may count in thousands, millions or billions, as its name then says."""
_COUNTS_ALL = re.compile(r"(?<!non_embedding_)(num_param|parameters|model_size|model_params)")


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnChoice:
    """Where a field's values come from."""

    field: str
    column: str = ""
    """Name of the column; empty for a constant. The loss's may hold `DOMAIN`."""
    constant: str = ""
    how: str
    """How it was chosen: given, own name, or guessed."""
    note: str = ""
    """What is to be told of the choice."""
    power: int = 0
    """The column counts in ten to this power: 6 for millions."""
    by_domain: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Column by domain, of a loss whose ``column`` holds `DOMAIN`."""

    @property
    def source(self) -> str:
        return self.column or f"{self.constant!r} for every run"


def choose_columns(
    found: Found, *, columns: Mapping[str, str], constants: Mapping[str, str]
) -> dict[str, ColumnChoice]:
    """A choice for every field that the source has or that was told.

    Args:
        found: the source.
        columns: column by field, as told; the loss's may hold `DOMAIN`.
        constants: value by field, the same for every run.

    Raises:
        TableError: there are no runs, or none that ended well; a field or column is unknown; two columns could be the
            same field; a required field has no column.
    """
    for field in (*columns, *constants):
        if field not in FIELDS:
            raise TableError(f"{found.origin}: {unknown('field', field, FIELDS)}")
        if field in columns and field in constants:
            raise TableError(f"{found.origin}: {field}: has both a column and a value for every run; give one of them")
    read_as = f"{found.origin}: read as {kind_shown(found.kind)}"
    if not found.rows:
        pieces = "; ".join(f"{len(names)} {reason}" for reason, names in found.left_out.items())
        raise TableError(f"{read_as}, there are no runs in it{pieces and f' ({pieces})'}")
    if all(row.unusable for row in found.rows):
        reasons = "; ".join(f"{len(runs)} {reason}" for reason, runs in found.unusable().items())
        raise TableError(f"{found.origin}: no run is usable ({reasons})")
    names = found.names
    chosen = _chosen(found, OF_CONTINUED, columns, constants, names)
    if BASE not in chosen:
        if told := [field for field in OF_CONTINUED if field in columns or field in constants]:
            raise TableError(f"{found.origin}: {told[0]}: is read beside a base; say --column base=COLUMN too")
        chosen = {}
    if GENERAL_LOSS in chosen:  # which fits a pattern of domains too
        names = [name for name in names if name != chosen[GENERAL_LOSS].column]
    chosen |= _chosen(found, [field for field in FIELDS if field not in OF_CONTINUED], columns, constants, names)
    if "loss" in chosen and _is_in_bits_per_byte(chosen["loss"].column):
        chosen["bits_per_byte"] = dataclasses.replace(chosen["loss"], field="bits_per_byte")
    if BASE not in chosen:
        chosen |= _tokens_of_the_run(chosen, names)
    has_domain_columns = "loss" in chosen and DOMAIN in chosen["loss"].column
    required = required_columns(chosen)
    missing = [f for f in required if f not in chosen and not (f == "domain" and has_domain_columns)]
    if missing:
        raise TableError(f"{read_as}: {_looks_like(found) or _how_to_tell(missing, names)}")
    return {field: chosen[field] for field in FIELDS if field in chosen}


def _chosen(
    found: Found,
    fields: Sequence[str],
    columns: Mapping[str, str],
    constants: Mapping[str, str],
    names: Sequence[str],
) -> dict[str, ColumnChoice]:
    """Choices for those of the fields that were told or can be guessed; told ones are checked first."""
    chosen = {f: ColumnChoice(field=f, constant=constants[f], how="given") for f in fields if f in constants}
    for field in [f for f in columns if f in fields]:
        chosen[field] = _choice(field, _given(found, field, columns[field], names), how="given", names=names)
    for field in fields:
        if field not in chosen and (guess := _guess(found, field, names)) is not None:
            chosen[field] = guess
    return chosen


def columns_of_domains(pattern: str, names: Sequence[str]) -> dict[str, str]:
    """Column by domain, of the columns that fit a pattern with `DOMAIN`, but for names that are no domain's."""
    return {d: name for d, name in _fitting(pattern, names).items() if not is_no_domain(d)}


def _fitting(pattern: str, names: Sequence[str]) -> dict[str, str]:
    before, _, after = pattern.partition(DOMAIN)
    fits = re.compile(re.escape(before) + "(?P<domain>.+)" + re.escape(after))
    return {match["domain"]: name for name in names if (match := fits.fullmatch(name))}


def losses_of(row: FoundRow, choices: Mapping[str, ColumnChoice]) -> list[tuple[str | None, str]]:
    """(domain, column) of each loss in a row: one loss, or one a domain where the run has no domain of its own."""
    loss, domain = choices["loss"], choices.get("domain")
    value = None if domain is None else row.values.get(domain.column) if domain.column else domain.constant
    own = None if value is None or value != value else str(value).strip()
    if DOMAIN not in loss.column:
        return [(own, loss.column)]
    if own is not None:
        return [(own, loss.by_domain[own])] if own in loss.by_domain else []
    return [(name, column) for name, column in loss.by_domain.items() if column in row.values]


def _choice(field: str, column: str, *, how: str, names: Sequence[str], note: str = "") -> ColumnChoice:
    """A column for a field, with what its name says of its unit or meaning."""
    power = split_unit(column).power if field in COUNTED else 0
    notes = [note] if note else []
    if power:
        notes.append(f"in {UNIT_NAMES[power]}, as its name says")
    by_domain = columns_of_domains(column, names) if DOMAIN in column else {}
    if by_domain:
        notes.append(f"domains {', '.join(sorted(by_domain))}")
        if others := sorted(_fitting(column, names).keys() - by_domain.keys()):
            notes.append(f"no domains by their names: {', '.join(others)}")
    if field == "loss" and not words_in(column).isdisjoint(("best", "min", "lowest")):
        notes.append("the lowest along the run? what compares is the last, after its cooldown")
    if field == "loss" and _is_in_bits_per_byte(column):
        notes.append("bits per byte, as all losses of this table then are")
    elif field == "loss" and (words := words_in(column) & NO_LOSS):
        notes.append(f"{', '.join(sorted(words))}? the loss is in nats per token")
    return ColumnChoice(field=field, column=column, how=how, note="; ".join(notes), power=power, by_domain=by_domain)


def _is_in_bits_per_byte(column: str) -> bool:
    plain = plain_name(column)
    return DOMAIN not in column and ("bits_per_byte" in plain or "bpb" in plain.split("_"))


def _given(found: Found, field: str, column: str, names: Sequence[str]) -> str:
    words = words_in(column) & NO_LOSS
    is_another = bool(words) and (not words_in(column) & LOSS_WORDS or bool(words & BITS))
    if field == "loss" and is_another and not _is_in_bits_per_byte(column):
        raise TableError(
            f"{found.origin}: --column loss={column}: {', '.join(sorted(words))} by its name; the loss is in nats per "
            "token, a perplexity's logarithm, or bits per token times ln 2 (rename the column if it is such a loss)"
        )
    if DOMAIN in column:
        if field != "loss":
            raise TableError(f"{found.origin}: --column {field}={column}: only the loss may have a column a domain")
        fitting = [column, *(f"{container}.{column}" for container in CONTAINERS)]
        for pattern in fitting:
            if columns_of_domains(pattern, names):
                return pattern
    elif column in names:
        return column
    else:
        # A setting may be told by its name within the tool, without the container that the export put it in.
        inside = [name for name in names if without_container(name) == column]
        if len(inside) == 1:
            return inside[0]
    raise TableError(f"{found.origin}: {field}: {unknown('column', column, names)}")


def _guess(found: Found, field: str, names: Sequence[str]) -> ColumnChoice | None:
    if field == "loss" and found.loss_columns:
        return _choice(field, found.loss_columns, how="own name", names=names)
    if field in names:
        if field == "loss" and (other := _held_out_beside(found, names)):
            raise TableError(
                f"{found.origin}: loss: beside {other!r} a column 'loss' is most often that of training; say which "
                f"with --column loss={other} or --column loss=loss"
            )
        return ColumnChoice(field=field, column=field, how="own name")
    stems = {split_unit(name).stem: name for name in names}
    letters = [letter for letter in LETTERS.get(field, ()) if letter in stems] if {"N", "D"} <= stems.keys() else []
    if letters:
        return _choice(field, stems[letters[0]], how="guessed", names=names, note="the law's letter")
    plain = {name: plain_name(split_unit(name).stem if field in COUNTED else name) for name in names}
    for alias in ALIASES.get(field, (field,)):
        for fits in (_is, _ends_a_path, _ends):
            if field == "loss" and fits is _ends_a_path:
                continue  # train.loss is not held out
            fitting = [n for n in names if fits(n, plain[n], alias) and not (field == "loss" and is_no_loss(n))]
            fitting = [n for n in fitting if field != BASE or _are_names(found, n)]
            if fitting and not _agree(found, fitting):
                raise TableError(
                    f"{found.origin}: {field}: {' and '.join(map(repr, fitting))} could each be it; "
                    f"say which with --column {field}=COLUMN"
                )
            if fitting:
                counts_all = field == "n_params" and _COUNTS_ALL.search(plain[fitting[0]])
                note = "counts embeddings too?" if counts_all else ""
                return _choice(field, fitting[0], how="guessed", names=names, note=note)
    if field == "loss" and found.objective in names:
        return ColumnChoice(
            field=field, column=found.objective, how="guessed", note="the objective: a loss on held-out text?"
        )
    return None


def _held_out_beside(found: Found, names: Sequence[str]) -> str | None:
    """A column that is a held-out loss by its name, and differs from the column ``loss``; None if there is none."""
    for name in names:
        if plain_name(name) in ALIASES["loss"][:-1]:
            both = [row.values for row in found.rows if name in row.values and "loss" in row.values]
            if not both or any(str(values[name]) != str(values["loss"]) for values in both):
                return name
    return None


def _is(name: str, plain: str, alias: str) -> bool:
    return plain == alias


def _ends_a_path(name: str, plain: str, alias: str) -> bool:
    return plain_name(re.split(r"[./]", name)[-1]) == alias


def _ends(name: str, plain: str, alias: str) -> bool:
    return "_" in alias and plain.endswith("_" + alias)


def _are_names(found: Found, name: str) -> bool:
    """Whether a column holds names alone: ``base`` may be that of a rotary embedding too."""
    return all(isinstance(row.values.get(name, ""), str) for row in found.rows)


def _agree(found: Found, names: Sequence[str]) -> bool:
    """Whether columns say the same wherever several of them say anything."""
    return all(len({str(row.values[n]) for n in names if n in row.values}) <= 1 for row in found.rows)


def _tokens_of_the_run(chosen: Mapping[str, ColumnChoice], names: Sequence[str]) -> dict[str, ColumnChoice]:
    """Where one of D and D' has a column and the other has none, the other is the tokens that the run has counted."""
    unknown = [field for field in ("pretrain_tokens", "specialize_tokens") if field not in chosen]
    counted = [name for name in names if plain_name(name).endswith(_TOKENS_SEEN)]
    if len(unknown) != 1 or len(counted) != 1:
        return {}
    return {
        unknown[0]: ColumnChoice(
            field=unknown[0], column=counted[0], how="guessed", note="tokens that the run has seen"
        )
    }


def _looks_like(found: Found) -> str:
    """What a table without the required columns seems to be, and what to give instead; empty where nothing shows."""
    names = found.names
    if {"Wall time", "Step", "Value"} <= set(names):
        return (
            "it is one curve of TensorBoard, without the settings of its run; give the folder of event files, or say "
            "all of them with --set, and --column loss=Value"
        )
    if any(name.endswith(("__MIN", "__MAX")) for name in names):
        return "it is a chart of W&B, with a column a run; give the table of runs, as its own export button writes it"
    known = {alias for aliases in ALIASES.values() for alias in aliases}
    for row in found.rows[:3]:
        said = {plain_name(split_unit(value).stem) for value in row.values.values() if isinstance(value, str)}
        if len(said & known) > 1:
            return f"{row.where.rpartition(': ')[2]} looks like the header; delete what stands above it"
    return ""


def _how_to_tell(fields: Sequence[str], names: Sequence[str]) -> str:
    """Sentences on fields for which there is no column among these."""
    columns = ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "") or "none"
    bits = any(not words_in(name).isdisjoint(("bits", "bpb")) for name in names)
    scores = ", ".join(repr(name) for name in names if not words_in(name).isdisjoint(NO_LOSS))
    hints = {
        "domain": "; or, where each domain has a loss of its own, --column loss='eval/{domain}_loss'",
        "loss": ", a loss on held-out text in nats per token"
        + (f" (by their names no such: {scores[:200]})" if scores else "")
        + ("; bits per byte times ln 2 and the bytes of a token are one" if bits else ""),
        "pretrain_tokens": "; or, where runs start from models that exist, --column base=COLUMN",
        "specialize_tokens": " (0 for runs that were only pretrained)",
    }
    said = [
        f"{'no' if field == fields[0] else 'No'} column for {field}. Say --column {field}=COLUMN, or "
        f"--set {field}=VALUE for all runs{hints.get(field, '')}. "
        for field in fields
    ]
    return f"{''.join(said)}Columns: {columns}"
