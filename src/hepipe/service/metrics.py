"""Counters for Prometheus: routes by their pattern, never a key, tenant, input or id."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter("hepipe_requests", "Requests answered", labels, registry=registry)
        self.seconds = Histogram(
            "hepipe_seconds", "Seconds to an answer", ("route",), buckets=_BUCKETS, registry=registry
        )
        self.rows = Counter("hepipe_rows", "Rows predicted", ("model", "scheme"), registry=registry)
        self.rounds = Counter("hepipe_rounds", "Rounds with key holders", ("model",), registry=registry)
        self.replays = Counter("hepipe_replays", "Requests answered from a stored reply", registry=registry)
        self.blindings = Counter(
            "hepipe_blindings", "Blinding factors of results, made ahead or while a request waited", ("made",),
            registry=registry,
        )  # fmt: skip
        self.workers = Gauge("hepipe_workers_started", "Worker processes started so far", registry=registry)

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return bytes(generate_latest(self._registry))
