"""Runs that other tools recorded, as a table of runs: CSV and Parquet, Weights & Biases, MLflow, Ray Tune.

Everything is read from files; none of those tools is needed.
"""

from raysplit.imports.columns import FIELDS, Choice
from raysplit.imports.read import KINDS, guess_kind, import_runs
from raysplit.imports.rows import Imported

__all__ = ["FIELDS", "KINDS", "Choice", "Imported", "guess_kind", "import_runs"]
