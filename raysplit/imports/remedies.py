"""What to do about a source that lacks columns: what it looks like, and how to tell each."""

from collections.abc import Sequence

from raysplit.imports.found import Found
from raysplit.imports.names import ALIASES, NO_LOSS, plain_name, words_in
from raysplit.imports.units import split_unit


def looks_like(found: Found) -> str:
    """What a table is that lacks columns, where it shows, and what to give instead."""
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


def how_to_tell(fields: Sequence[str], names: Sequence[str]) -> str:
    """Sentences on fields for which there is no column among these."""
    columns = ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "") or "none"
    bits = any(not words_in(name).isdisjoint(("bits", "bpb")) for name in names)
    scores = ", ".join(repr(name) for name in names if not words_in(name).isdisjoint(NO_LOSS))
    hints = {
        "domain": "; or, where each domain has a loss of its own, --column loss='eval/{domain}_loss'",
        "loss": ", a loss on held-out text in nats per token"
        + (f" (by their names no such: {scores[:200]})" if scores else "")
        + ("; bits per byte times ln 2 and the bytes of a token are one" if bits else ""),
        "specialize_tokens": " (0 for runs that were only pretrained)",
    }
    said = [
        f"{'no' if field == fields[0] else 'No'} column for {field}. Say --column {field}=COLUMN, or "
        f"--set {field}=VALUE for all runs{hints.get(field, '')}. "
        for field in fields
    ]
    return f"{''.join(said)}Columns: {columns}"
