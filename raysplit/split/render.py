"""The advice as text for a person."""

from collections.abc import Iterable

from raysplit.split.advice import Advice
from raysplit.split.tables import AnswerTable, advice_facts, advice_tables, advice_title


def render_advice(advice: Advice) -> str:
    """Plain text, at most 100 columns wide unless a name is long."""
    lines = [advice_title(advice)]
    for fact in advice_facts(advice):
        interval = f" ({advice.level:.0%} interval {fact.interval})" if fact.interval else ""
        lines.append(f"  {fact.label:<15}{fact.value} {fact.note}{interval}")
    for table in advice_tables(advice):
        lines += ["", *_aligned(table)]
    lines += [f"\nwarning: {warning}" for warning in advice.warnings]
    return "\n".join(lines) + "\n"


def _aligned(table: AnswerTable) -> Iterable[str]:
    """Lines with the first column aligned to the left and the others to the right, or to the left in prose."""
    widths = [max(map(len, column)) for column in zip(table.head, *table.rows, strict=True)]
    for first, *others in (table.head, *table.rows):
        place = str.ljust if table.is_prose else str.rjust
        cells = [first.ljust(widths[0]), *(place(cell, w) for cell, w in zip(others, widths[1:], strict=True))]
        yield "  " + "  ".join(cells).rstrip()
