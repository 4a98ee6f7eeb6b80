"""Models in memory, loaded when first asked for; the one that was used longest ago goes when there are too many."""

from collections import OrderedDict
from threading import Lock

import torch

from raysplit.experts.folders import ExpertFolder, Experts
from raysplit.experts.loaded import LoadedExpert, Precision


class Shelf:
    """Holds at most ``n_kept`` models; whoever has taken one keeps it as long as needed."""

    def __init__(self, experts: Experts, *, device: torch.device, precision: Precision, n_kept: int) -> None:
        self._folders, self._device, self._precision, self._n_kept = experts.folders, device, precision, n_kept
        self._models: OrderedDict[str, LoadedExpert] = OrderedDict()
        self._lock = Lock()

    def take(self, name: str) -> LoadedExpert:
        """The model of that name, loaded if it is not here.

        Raises:
            ExpertError: it cannot be loaded.
        """
        with self._lock:  # so that two requests do not load the same one twice
            if name not in self._models:
                while len(self._models) >= self._n_kept:  # before, or for a moment there would be one more
                    self._models.popitem(last=False)
                self._models[name] = self._load(self._folders[name])
            self._models.move_to_end(name)
            return self._models[name]

    @property
    def held(self) -> tuple[str, ...]:
        """Names of the models in memory, the one used last at the end."""
        return tuple(self._models)

    def _load(self, folder: ExpertFolder) -> LoadedExpert:
        return LoadedExpert(folder, device=self._device, precision=self._precision)
