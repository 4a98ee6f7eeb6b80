"""The table of token log-probabilities: each expert reads each request once, and what it said is kept on disk.

Every router, top-k and temperature is arithmetic on this table. It is written in parts, so that an interrupted
evaluation goes on where it was.
"""

import hashlib
import os
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raysplit.evaluate.requests import Requests
from raysplit.experts.folders import ExpertFolder
from raysplit.experts.loaded import LoadedExpert, Precision

_PART_SEQUENCES = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """What one model says of a task's requests."""

    log_probs: np.ndarray
    """(n,) float32 nats of every token but the first of each request, one request after another."""
    is_greedy: np.ndarray
    """(n,) whether no token was likelier."""
    context_log_likelihoods: np.ndarray
    """(items,) nats of the contexts that routers may read."""


def score_task(
    folder: ExpertFolder,
    task_name: str,
    requests: Requests,
    *,
    take: Callable[[], LoadedExpert],
    keep_in: Path,
    precision: Precision,
    batch_tokens: int,
    done: Callable[[int], None],
) -> Scores:
    """Score what is not on disk yet, and read what is.

    Args:
        folder: of the model.
        task_name: for the files' names.
        requests: of the task.
        take: loads the model; called only where something is missing.
        keep_in: folder of the table.
        precision: of the weights, which decides the numbers too.
        batch_tokens: in one forward pass.
        done: told how many tokens have been scored or read.
    """
    sequences = [*requests.tokens, *requests.contexts]
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
    return _apart(np.concatenate(log_probs), np.concatenate(is_greedy), requests)


def n_tokens(requests: Requests) -> int:
    """Tokens that one model scores for a task."""
    return sum(len(tokens) - 1 for tokens in (*requests.tokens, *requests.contexts))


def offsets_of(sequences: Sequence[np.ndarray]) -> np.ndarray:
    """(r + 1,) where each sequence's scored tokens begin."""
    return np.cumsum([0, *(len(tokens) - 1 for tokens in sequences)])


def _apart(log_probs: np.ndarray, is_greedy: np.ndarray, requests: Requests) -> Scores:
    n = int(offsets_of(requests.tokens)[-1])
    ends = offsets_of(requests.contexts)
    sums = np.concatenate([[0.0], np.cumsum(log_probs[n:], dtype=np.float64)])
    return Scores(
        log_probs=log_probs[:n], is_greedy=is_greedy[:n], context_log_likelihoods=sums[ends[1:]] - sums[ends[:-1]]
    )


def _key(folder: ExpertFolder, sequences: Sequence[np.ndarray], precision: Precision) -> str:
    digest = hashlib.sha256(f"{folder.fingerprint} {precision} {folder.context_length}".encode())
    for tokens in sequences:
        digest.update(len(tokens).to_bytes(8, "little") + np.asarray(tokens, dtype="<i8").tobytes())
    return digest.hexdigest()[:16]


def _read(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    try:
        with path.open("rb") as file, np.load(file) as arrays:  # of a damaged file numpy itself leaves one open
            return arrays["log_probs"], arrays["is_greedy"]
    except (FileNotFoundError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None  # absent, or damaged by a full disk: it is computed again


def _write(path: Path, log_probs: np.ndarray, is_greedy: np.ndarray) -> None:
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, log_probs=log_probs, is_greedy=is_greedy)
    os.replace(partial, path)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", name)
