"""The table of token log-probabilities: each expert scores each request once, and the scores are kept on disk.

Every router, top-k and temperature is arithmetic on this table. It is written in parts, so that an interrupted
evaluation goes on where it was.
"""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from raysplit.experts.folders import ExpertFolder
from raysplit.experts.loaded import LoadedExpert, Precision, TokenScores
from raysplit.files import read_arrays

_PART_SEQUENCES = 512


def kept_scores(
    folder: ExpertFolder,
    task_name: str,
    sequences: Sequence[np.ndarray],
    *,
    take: Callable[[], LoadedExpert],
    keep_in: Path,
    precision: Precision,
    batch_tokens: int,
    done: Callable[[int], None],
) -> TokenScores:
    """Scores of all tokens but the first of each sequence, one sequence after another: read from disk, or made.

    Args:
        folder: of the model.
        task_name: for the files' names.
        sequences: each (n,) integers.
        take: loads the model; it is called only where scores are missing.
        keep_in: folder of the table.
        precision: of the weights, which changes the scores too.
        batch_tokens: most tokens in one forward pass.
        done: is told how many tokens have been scored or read.
    """
    keep_in.mkdir(parents=True, exist_ok=True)
    log_probs, is_greedy = [], []
    for start in range(0, len(sequences), _PART_SEQUENCES):
        part = sequences[start : start + _PART_SEQUENCES]
        key = _key(folder, part, precision)
        path = keep_in / f"{_slug(task_name)}-{_slug(folder.name)}-{start // _PART_SEQUENCES:05d}-{key}.npz"
        found = _read(path)
        if found is None:
            each = take().score(part, batch_tokens=batch_tokens, done=done)
            found = np.concatenate([s.log_probs for s in each]), np.concatenate([s.is_greedy for s in each])
            _write(path, *found)
        else:
            done(len(found[0]))
        log_probs.append(found[0])
        is_greedy.append(found[1])
    return TokenScores(log_probs=np.concatenate(log_probs), is_greedy=np.concatenate(is_greedy))


def _key(folder: ExpertFolder, sequences: Sequence[np.ndarray], precision: Precision) -> str:
    digest = hashlib.sha256(f"{folder.fingerprint} {precision} {folder.context_length}".encode())
    for tokens in sequences:
        digest.update(len(tokens).to_bytes(8, "little") + np.asarray(tokens, dtype="<i8").tobytes())
    return digest.hexdigest()[:16]


def _read(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        arrays = read_arrays(path)
        return arrays["log_probs"], arrays["is_greedy"]
    except (FileNotFoundError, KeyError, ValueError):
        return None  # absent, or damaged by a full disk: it is computed again


def _write(path: Path, log_probs: np.ndarray, is_greedy: np.ndarray) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, log_probs=log_probs, is_greedy=is_greedy)
    os.replace(partial, path)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", name)
