"""Recognises a training loss that has run away, and nothing else.

A window is the mean over some steps. Training counts as diverged when `WINDOWS` of them in a row lie above

    max((best + blind) / 2, RISE * best)

where blind = log(vocabulary) is the loss of a guess that knows nothing, and best the lowest window so far, blind at
most: the model has lost half of what it had learned, and by more than text differs from text. A loss that is merely
poor and falls, stays or rises less is never diverged. The verdict follows from the losses alone, not from clocks.
"""

import math
from collections.abc import Sequence

STEPS = 10
"""Optimizer steps in one window."""
WINDOWS = 5
RISE = 1.25


class Watch:
    """Sees the losses of one segment, in order."""

    def __init__(self, *, vocab_size: int) -> None:
        self._blind = math.log(vocab_size)
        self._best = self._blind
        self._n_above = 0

    @property
    def limit(self) -> float:
        """Windows above it are suspicious, nats per token."""
        return max((self._best + self._blind) / 2, RISE * self._best)

    def complaint(self, windows: Sequence[float], last: float) -> str:
        """What is wrong with these new windows or the last step's own loss, nats per token; empty when nothing is."""
        for loss in (*windows, last):
            if not math.isfinite(loss):
                return f"training loss is {loss}"
        for loss in windows:
            self._n_above = self._n_above + 1 if loss > self.limit else 0
            self._best = min(self._best, loss)
            if self._n_above >= WINDOWS:
                return f"training loss is {loss:.4g}, above {self.limit:.4g} for {STEPS * WINDOWS} steps,"
        return ""
