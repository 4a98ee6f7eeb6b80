"""Figures for Prometheus: of the sweep, its law and its advice, and of the requests that the server has answered."""

import time
from collections import Counter as Counting
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raysplit.errors import LawError, SplitError
from raysplit.live.questions import AnsweringLaw
from raysplit.split.tables import spelled

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.1, 0.25, 1.0, 5.0)


class Metrics:
    """What a server tells of its law and of itself."""

    def __init__(self, law: AnsweringLaw) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Sweep(law))
        self._requests = Counter(
            "raysplit_http_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "raysplit_http_request_seconds", "Time to answer.", ("route",), buckets=_BUCKETS, registry=self._registry
        )

    def count(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count an answer; of a stream, which has no time, only that it has ended."""
        self._requests.labels(method, route, str(status)).inc()
        if seconds is not None:
            self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class Counted:
    """ASGI middleware that tells `Metrics` of every answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

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
            self._metrics.count(scope["method"] if route != "none" else "any", route, status, seconds)


class _Sweep(Collector):
    """The sweep, its law and, where there is one, the advice at its own target, as they are when asked."""

    def __init__(self, law: AnsweringLaw) -> None:
        self._law = law

    def collect(self) -> Iterator[Metric]:
        status, stamp = self._law.status(), self._law.stamp()
        gauges: list[tuple[str, str, float]] = [
            ("observations", "Observations on disk.", status.n_observations),
            ("round", "Round of the sweep, from 1.", status.round),
            ("spent_flops", "FLOPs trained by the sweep.", status.spent_flops),
            ("budget_flops", "FLOPs that the sweep may train.", status.budget_flops),
            ("finished", "1 once the sweep has ended.", bool(status.finished)),
        ]
        if stamp is not None:
            gauges += [
                ("law_version", "Version of the law that answers.", stamp.version),
                ("law_observations", "Observations that the law was fitted to.", stamp.n_observations),
                ("law_age_seconds", "Time since the law was fitted.", stamp.age_seconds),
            ]
            gauges += self._advised()
        for name, about, value in gauges:
            yield GaugeMetricFamily(f"raysplit_{name}", about, value=value)
        trials = GaugeMetricFamily("raysplit_trials", "Trials by state.", labels=["state"])
        for state, n in sorted(Counting(trial.state for trial in self._law.trials()).items()):
            trials.add_metric([state], n)
        yield trials

    def _advised(self) -> list[tuple[str, str, float]]:
        try:
            advice = self._law.advise().advice
        except (LawError, SplitError):  # the other figures do not hang on it
            return []
        return [
            ("advised_pretrain_share", "D / T of the advised split.", advice.pretrain_share.mean),
            ("advised_n_params", "N of the advised split.", advice.split.n_params),
            ("advised_loss", f"Expected weighted loss, {spelled(advice.loss_unit)}.", advice.loss.mean),
            ("expected_regret", "Expected regret as a share of the loss.", advice.expected_regret),
        ]
