"""Recognises a training loss that has run away, and nothing else.

A window is the mean over some steps. Training counts as diverged when `WINDOWS` of them in a row lie above

    max((best + blind) / 2, RISE * best)

where blind = log(vocabulary) is the loss of a guess that knows nothing, and best is the lowest window so far, blind at
most. So the model has lost half of what it had learned, and more than texts differ in loss. A loss that is only high,
and falls, stays or rises less, never counts as diverged. The verdict depends on the losses alone, not on clocks.
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
        """Loss above which a window counts towards divergence, nats per token."""
        return max((self._best + self._blind) / 2, RISE * self._best)

    def complaint(self, windows: Sequence[float], last: float) -> str:
        """What is wrong with new windows or the last step's loss, both in nats per token; empty when nothing is."""
        for loss in (*windows, last):
            if not math.isfinite(loss):
                return f"training loss is {loss}"
        for loss in windows:
            self._n_above = self._n_above + 1 if loss > self.limit else 0
            self._best = min(self._best, loss)
            if self._n_above >= WINDOWS:
                return f"training loss is {loss:.4g}, above {self.limit:.4g} for {STEPS * WINDOWS} steps,"
        return ""
