"""Tables as people have them, read alike for `raysplit import`, `fit`, `observe`, `compare` and `replay`."""

from raysplit.tables.objects import JSON_SUFFIXES, read_objects
from raysplit.tables.read import SUFFIXES, read_table, unknown_format
from raysplit.tables.states import EndColumns, bad_end, end_columns, is_well
from raysplit.tables.steps import step_column
from raysplit.tables.table import Row, Table, is_nothing

__all__ = [
    "JSON_SUFFIXES",
    "SUFFIXES",
    "EndColumns",
    "Row",
    "Table",
    "bad_end",
    "end_columns",
    "is_nothing",
    "is_well",
    "read_objects",
    "read_table",
    "step_column",
    "unknown_format",
]
