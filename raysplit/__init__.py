"""raysplit splits a training budget between pretraining one seed model and specializing it into domain experts.

Importing the package loads neither Ray nor torch: a table of runs, the law and the split need neither. Import what you
use from its own module (`raysplit.space`, `raysplit.runs`, `raysplit.law`, `raysplit.split`, ...). `connect` gives a
client of a running sweep's law, and loads Ray when it is called.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysplit.live.client import LiveLaw

__version__ = "0.1.0"


def connect(run: Any, **options: Any) -> "LiveLaw":
    """A client of the live law of a run folder or a sweep's name; see `raysplit.live.client.connect`."""
    from raysplit.live.client import connect as connect_to

    return connect_to(run, **options)
