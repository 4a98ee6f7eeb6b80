"""The column of steps, which counts along a run's history."""

import re
from collections.abc import Iterable

_STEPS = ("step", "global_step", "trainer_global_step", "train_global_step", "iteration", "iter", "training_iteration",
          "epoch", "train_epoch")  # fmt: skip
"""Plain names of such columns, the finest first."""


def step_column(names: Iterable[str]) -> str | None:
    """The finest of the columns that count along a run, by its name: ``_step``, ``trainer/global_step``, ``Epoch``."""
    plain = {re.sub(r"[^a-z0-9]+", "_", name.rpartition(".")[2].lower()).strip("_"): name for name in names}
    return next((plain[step] for step in _STEPS if step in plain), None)
