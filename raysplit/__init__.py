"""Splits a training budget between pretraining one seed model and specializing it into domain experts.

Importing the package loads neither Ray nor torch: a table of runs, the law and the split need neither. Import what you
use from its own module (`raysplit.space`, `raysplit.runs`, `raysplit.law`, `raysplit.split`, ...).
"""

__version__ = "0.1.0"
