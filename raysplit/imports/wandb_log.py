"""The log that W&B writes of a run before anything else, ``run-ID.wandb``: config, last values and the exit code.

It holds protobuf records, framed as LevelDB frames its logs: in blocks of 32 KiB, the first of which begins with a head
of seven bytes (github.com/wandb/wandb, core/internal/transactionlog; seen with W&B 0.31). W&B's package decodes them.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_BLOCK, _HEAD, _FRAME = 32_768, 7, 7
"""Bytes of a block, of what stands before the first record, and of what stands before each fragment."""
_MAGIC = b":W&B"
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass(kw_only=True, slots=True)
class Log:
    """What a log tells of its run."""

    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0
    has_ended: bool = False
    """Whether the exit code was written."""
    is_damaged: bool = True
    """Whether not one record can be read."""


def can_read_logs() -> bool:
    """Whether the package ``wandb``, which decodes the records, is installed."""
    return find_spec("wandb") is not None


def read_log(path: Path) -> Log:
    """What a log tells up to where it ends or is cut short."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    log = Log()
    for raw in _records(path):
        try:
            record = Record.FromString(raw)
        except DecodeError:
            break
        log.is_damaged = False
        if record.HasField("run"):
            log.name = record.run.display_name or log.name
            _update(log.config, record.run.config.update)
        elif record.HasField("config"):
            _update(log.config, record.config.update)
        elif record.HasField("history"):
            _update(log.summary, record.history.item)
        elif record.HasField("summary"):
            _update(log.summary, record.summary.update)
        elif record.HasField("exit"):
            log.exit_code, log.has_ended = record.exit.exit_code, True
    return log


def _update(values: dict[str, Any], items: Any) -> None:
    """Enter items into nested values; an item has a key or a path of keys, and its value as JSON."""
    for item in items:
        *outer, last = item.nested_key or [item.key]
        at = values
        for key in outer:
            inner = at.get(key)
            at[key] = at = inner if isinstance(inner, dict) else {}
        try:
            at[last] = json.loads(item.value_json)
        except ValueError:
            at.pop(last, None)


def _records(path: Path) -> Iterator[bytes]:
    """Whole records up to the first frame that is damaged or cut short; none of a file that cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        if len(head := file.read(_HEAD)) < _HEAD or not head.startswith(_MAGIC):
            return
        parts = b""
        while True:
            left = _BLOCK - file.tell() % _BLOCK
            if left < _FRAME:
                file.seek(left, os.SEEK_CUR)
            frame = file.read(_FRAME)
            length, kind = int.from_bytes(frame[4:6], "little"), frame[6] if len(frame) == _FRAME else 0
            fragment = file.read(length)
            if kind not in (_FULL, _FIRST, _MIDDLE, _LAST) or len(fragment) < length:
                return
            parts = fragment if kind in (_FULL, _FIRST) else parts + fragment
            if kind in (_FULL, _LAST):
                yield parts
