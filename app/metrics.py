"""The metrics of the service, in Prometheus' text format.

The process that serves HTTP counts requests and the latency of samples here. The engine keeps its
own metrics, which are fetched on each scrape. Counters start at 0 with their process.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import Scope

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
STEP_CLASSES = (10, 25, 50, 100, 250, 1000)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "diffusion_requests",
            "Requests answered",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._request_seconds = Histogram(
            "diffusion_request_seconds",
            "Time from a request to the end of its answer",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._sample_seconds = Histogram(
            "diffusion_sample_seconds",
            "Time from an order of images to its last image, by model and number of steps",
            ("model", "steps"),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._uncounted = Counter(
            "diffusion_rate_uncounted",
            "Requests that no limit on the rate counted, since Valkey did not answer",
            registry=self.registry,
        )

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request. `status` 0 means that the client disconnected.

        Unknown paths share one label.
        """
        route = getattr(scope.get("route"), "path", "none")
        self._requests.labels(scope["method"], route, status or "disconnected").inc()
        self._request_seconds.labels(route).observe(seconds)

    def uncounted(self) -> None:
        self._uncounted.inc()

    def sampled(self, model: str, steps: int, seconds: float) -> None:
        self._sample_seconds.labels(model, step_class(steps)).observe(seconds)


def step_class(steps: int) -> str:
    """Return the label of a number of steps: '25' stands for 11..25 steps."""
    return next((str(bound) for bound in STEP_CLASSES if steps <= bound), "more")


def exposition(
    metrics: Metrics, engine: Mapping[str, Any] | None, jobs: Mapping[tuple[str, str], int]
) -> bytes:
    """Write the metrics in Prometheus' text format.

    `engine` is the result of EngineClient.statistics, None if the engine does not answer; `jobs`
    has the number of jobs by kind and status.
    """
    fetched = CollectorRegistry()
    fetched.register(_FixedCollector([*_engine_metrics(engine), _job_metric(jobs)]))
    return generate_latest(metrics.registry) + generate_latest(fetched)


class _FixedCollector(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _engine_metrics(engine: Mapping[str, Any] | None) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "diffusion_engine_up", "1 if the engine answers", int(engine is not None)
    )
    if engine is None:
        return
    yield GaugeMetricFamily(
        "diffusion_engine_queue_depth", "Orders that wait or are being sampled", engine["waiting"]
    )
    yield GaugeMetricFamily(
        "diffusion_engine_backlog_seconds",
        "Device time that all of these orders will take",
        engine["backlog_seconds"],
    )
    yield _by_group(GaugeMetricFamily, engine, "slots", "slots", "Images being sampled")
    for name, key, text in (
        ("steps", "steps", "Network calls"),
        ("rows", "rows", "Rows in network calls; each takes an image one step further"),
        ("evaluations", "evaluations", "Used places in network calls; a guided row takes two"),
        ("padding", "padding", "Unused places in network calls"),
        ("step_seconds", "seconds", "Time of network calls, with the work around each"),
    ):
        yield _by_group(CounterMetricFamily, engine, name, key, text)


def _by_group(
    kind: type[GaugeMetricFamily] | type[CounterMetricFamily],
    engine: Mapping[str, Any],
    name: str,
    key: str,
    text: str,
) -> Metric:
    labels = ("model", "precision", "deterministic")
    family = kind(f"diffusion_engine_{name}", text, labels=labels)
    for group in engine["groups"]:
        values = [group["model"], group["precision"], str(group["deterministic"]).lower()]
        family.add_metric(values, group[key])
    return family


def _job_metric(jobs: Mapping[tuple[str, str], int]) -> Metric:
    family = GaugeMetricFamily(
        "diffusion_jobs", "Jobs by kind and status", labels=("kind", "status")
    )
    for (kind, status), count in sorted(jobs.items()):
        family.add_metric([kind, status], count)
    return family
