"""Work that a thread has done by the time it is wanted."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


def done_ahead(work: Callable[[Item], Done], items: Iterable[Item], *, thread: Executor) -> Iterator[Done]:
    """Results of the work on each item, in order; the thread works on the next item while one result is used."""
    pending: deque[Future[Done]] = deque()
    try:
        for item in items:
            pending.append(thread.submit(work, item))
            if len(pending) == 2:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for each in pending:
            each.cancel()
