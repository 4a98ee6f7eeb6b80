"""Figures for Prometheus, in its text format 0.0.4."""

import threading
import time
from collections import Counter
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raysplit.live.answers import LawStamp, LiveAdvice
from raysplit.live.service import Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.1, 0.25, 1.0, 5.0)


class Requests:
    """Counts requests and their times by route; a stream counts when it ends, and its time not at all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: Counter[tuple[str, str, int]] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()
        self._seconds: Counter[str] = Counter()

    def count(self, method: str, route: str, status: int, seconds: float | None) -> None:
        with self._lock:
            self._ended[method, route, status] += 1
            if seconds is not None:
                self._buckets[route, next((b for b in _BUCKETS if seconds <= b), float("inf"))] += 1
                self._seconds[route] += seconds  # type: ignore[assignment]

    def lines(self) -> Iterable[str]:
        with self._lock:
            ended, buckets, seconds = Counter(self._ended), Counter(self._buckets), dict(self._seconds)
        yield from _head("raysplit_http_requests_total", "counter", "Requests answered.")
        for (method, route, status), n in sorted(ended.items()):
            yield f'raysplit_http_requests_total{{method="{method}",route="{route}",status="{status}"}} {n}'
        yield from _head("raysplit_http_request_seconds", "histogram", "Time to answer.")
        for route in sorted(seconds):
            total = 0
            for bound in (*_BUCKETS, float("inf")):
                total += buckets[route, bound]
                name = "+Inf" if bound == float("inf") else f"{bound:g}"
                yield f'raysplit_http_request_seconds_bucket{{route="{route}",le="{name}"}} {total}'
            yield f'raysplit_http_request_seconds_sum{{route="{route}"}} {seconds[route]:.6f}'
            yield f'raysplit_http_request_seconds_count{{route="{route}"}} {total}'


class Counted:
    """ASGI middleware that tells `Requests` of every answer."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app, self._requests = app, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status, streams = time.perf_counter(), 500, False

        async def watch(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = message["status"]
                streams = any(value.startswith(b"text/event-stream") for _, value in message["headers"])
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", "none")  # not the path asked for, of which there is no end
            seconds = None if streams else time.perf_counter() - began
            self._requests.count(scope["method"] if route != "none" else "any", route, status, seconds)


def sweep_lines(
    status: Status, stamp: LawStamp | None, states: Iterable[str], live: LiveAdvice | None
) -> Iterable[str]:
    """The sweep, its law and, where there is one, the advice at its own target."""
    gauges: list[tuple[str, str, float]] = [
        ("raysplit_observations", "Observations on disk.", status.n_observations),
        ("raysplit_round", "Round of the sweep, from 1.", status.round),
        ("raysplit_spent_flops", "FLOPs trained by the sweep.", status.spent_flops),
        ("raysplit_budget_flops", "FLOPs that the sweep may train.", status.budget_flops),
        ("raysplit_finished", "1 once the sweep has ended.", bool(status.finished)),
    ]
    if stamp is not None:
        gauges += [
            ("raysplit_law_version", "Version of the law that answers.", stamp.version),
            ("raysplit_law_observations", "Observations that the law was fitted to.", stamp.n_observations),
            ("raysplit_law_age_seconds", "Time since the law was fitted.", stamp.age_seconds),
        ]
    if live is not None:
        advice = live.advice
        gauges += [
            ("raysplit_advised_pretrain_share", "D / T of the advised split.", advice.pretrain_share.mean),
            ("raysplit_advised_n_params", "N of the advised split.", advice.split.n_params),
            ("raysplit_advised_loss", "Expected weighted loss, nats per token.", advice.loss.mean),
            ("raysplit_expected_regret", "Expected regret as a share of the loss.", advice.expected_regret),
        ]
    for name, about, value in gauges:
        yield from _head(name, "gauge", about)
        yield f"{name} {_number(value)}"
    yield from _head("raysplit_trials", "gauge", "Trials by state.")
    for state, n in sorted(Counter(states).items()):
        yield f'raysplit_trials{{state="{state}"}} {n}'


def _head(name: str, kind: str, about: str) -> Iterable[str]:
    return (f"# HELP {name} {about}", f"# TYPE {name} {kind}")


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(float(value))
