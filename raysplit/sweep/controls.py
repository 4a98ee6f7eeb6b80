"""What an advised split reaches if the same text is divided otherwise: a final run for each control, at equal cost."""

import math
from dataclasses import replace

from raysplit.errors import RunError
from raysplit.run_folder.folder import RunFolder
from raysplit.space import Space
from raysplit.split import Advice

CONTROLS_FOLDER = "controls"


def control_advice(advice: Advice, space: Space) -> Advice:
    """The advice for a control: the same N, D and tokens of all experts together, shared by the domains' bytes.

    No law knows the control's domains, so nothing is predicted.
    """
    weights = space.weights()
    n_tokens = math.fsum(advice.split.specialize_tokens.values())
    split = replace(advice.split, specialize_tokens={name: n_tokens * weight for name, weight in weights.items()})
    return replace(advice, split=split, weights=weights, losses={}, gains=[], warnings=[])


def check_controls(folder: RunFolder, space: Space, advice: Advice) -> None:
    """Refuse a run for which there is no control.

    Raises:
        RunError: its domains were given and not discovered, or each expert is reckoned alone or has its own seed.
    """
    if not folder.discovery.is_dir() or space.corpus.clusterer is None:
        raise RunError(
            f"{folder.path}: its domains were given; controls divide text anew whose domains were discovered"
        )
    if advice.accounting != "shared":
        raise RunError(f"{folder.path}: its budget pays for each expert alone; controls share one budget out")
    if advice.seeds != "shared":
        raise RunError(f"{folder.path}: each of its experts has a seed of its own; controls are of experts of one seed")
