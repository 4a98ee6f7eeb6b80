"""The journal as a stream of server-sent events: resumable, with a sign of life while nothing happens."""

import asyncio
import threading
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool

from raysplit import strict_json
from raysplit.live.answers import Event
from raysplit.live.questions import AnsweringLaw

POLL_SECONDS = 0.25
HEARTBEAT_SECONDS = 15.0
_CHUNK = 200
"""Records written at once, so that a long history does not hold up the answers to others."""


async def stream(
    law: AnsweringLaw, *, after: int, kinds: Collection[str], closing: threading.Event
) -> AsyncIterator[bytes]:
    """Every record after one, then each as it comes, until the server closes.

    A number that the journal does not reach is of another journal: the stream then begins at the start.
    """
    if after >= 0 and not await run_in_threadpool(law.events, after - 1):
        after = -1
    yield b"retry: 1000\n"  # of the first event: a blank line here would be an empty one to some readers
    quiet = 0.0
    while True:
        events = await run_in_threadpool(law.events, after)
        for start in range(0, len(events), _CHUNK):
            chunk = events[start : start + _CHUNK]
            after = chunk[-1].seq
            if text := b"".join(_frame(event) for event in chunk if not kinds or event.kind in kinds):
                quiet = 0.0
                yield text
        if closing.is_set():
            return
        if quiet >= HEARTBEAT_SECONDS:
            quiet = 0.0
            yield b": still here\n"  # with no blank line after it, for the same reason
        await asyncio.sleep(POLL_SECONDS)
        quiet += POLL_SECONDS


def _frame(event: Event) -> bytes:
    fields = {"seq": event.seq, "time": event.time, "kind": event.kind, "data": _shown(event.data)}
    return f"id: {event.seq}\ndata: {strict_json.dumps(fields)}\n\n".encode()


def _shown(data: Mapping[str, Any]) -> dict[str, Any]:
    """Long lists of a record by their length: rows can be asked for at /v1/observations, trials at /v1/trials."""
    return {
        f"n_{name}" if (listed := name in ("rows", "trials", "planned")) else name: len(value) if listed else value
        for name, value in data.items()
    }
