"""How the runs in a table ended: what leaves a run out, and what is assumed of the others; one rule for every table."""

from collections.abc import Mapping, Sequence

from raysplit.quantities import counted
from raysplit.tables import EndColumns, Row, bad_end, is_nothing

_LONGEST = 40
"""Most characters of a state that a message shows; some people write the whole error there."""


def unusable(cells: Mapping[str, object], columns: EndColumns) -> str:
    """Why a row is no run that ended well; empty where its columns say nothing against it."""
    found = bad_end(cells, columns)
    return f"with {found[0]} {str(found[1])[:_LONGEST]}" if found else ""


def notes_on_ends(rows: Sequence[Row], columns: EndColumns) -> list[str]:
    """What was assumed of runs whose end is not told, or told in a word that is not known."""
    if not columns:
        return ["no column says how runs ended (status, state): every row is taken as a finished run"]
    untold = sum(all(is_nothing(row.cells.get(name)) for name in columns) for row in rows)
    notes = [f"{counted(untold, 'row')} without a {' or '.join(columns)}: taken as finished"] if untold else []
    for name, judge in columns.items():
        cells = [cell for row in rows if not is_nothing(cell := row.cells.get(name)) and judge(cell) is None]
        if cells:
            words = list(dict.fromkeys(repr(str(cell)[:_LONGEST]) for cell in cells))
            said = ", ".join(words[:3]) + ", ..." * (len(words) > 3)
            notes.append(f"the {name} of {counted(len(cells), 'row')} is not known ({said}): taken as finished")
    return notes
