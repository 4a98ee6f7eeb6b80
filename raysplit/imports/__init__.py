"""Tables of runs from what others recorded: tables of any kind, and what tools keep on disk (docs/tools.md).

Everything is read from files. Only two of the tools have to be installed: `tensorboard` to read its event files, and
`wandb` to read the logs of runs that were never synced.
"""

from raysplit.imports.columns import FIELDS, ColumnChoice
from raysplit.imports.read import KINDS, guess_kind, import_runs
from raysplit.imports.rows import Imported

__all__ = ["FIELDS", "KINDS", "ColumnChoice", "Imported", "guess_kind", "import_runs"]
