"""Runs that others recorded, as a table of runs: tables of any kind, and what tools keep on disk (docs/tools.md).

Everything is read from files. Of the tools only two are needed: `tensorboard` for its event files, and `wandb` for the
logs of runs that were never synced.
"""

from raysplit.imports.columns import FIELDS, ColumnChoice
from raysplit.imports.read import KINDS, guess_kind, import_runs
from raysplit.imports.rows import Imported

__all__ = ["FIELDS", "KINDS", "ColumnChoice", "Imported", "guess_kind", "import_runs"]
