"""Tables as people have them, read for every door alike: `raysplit import`, `fit`, `observe`, `compare`, `replay`."""

from raysplit.tables.objects import JSON_SUFFIXES, read_objects
from raysplit.tables.read import SUFFIXES, read_table
from raysplit.tables.states import is_well, state_column
from raysplit.tables.table import Row, Table, is_nothing

__all__ = [
    "JSON_SUFFIXES",
    "SUFFIXES",
    "Row",
    "Table",
    "is_nothing",
    "is_well",
    "read_objects",
    "read_table",
    "state_column",
]
