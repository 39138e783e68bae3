"""What /metrics tells, in Prometheus' text format.

Counts of requests and latencies of samples are kept here, by the process that serves HTTP; the
engine keeps its own and is asked when somebody looks. Counters begin at 0 when their process does.
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
            "From a request to the end of its answer",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._sample_seconds = Histogram(
            "diffusion_sample_seconds",
            "From an order of images to the last of them, by model and by its number of steps",
            ("model", "steps"),
            buckets=SECONDS,
            registry=self.registry,
        )

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        """`status` 0: the caller has left. Addresses that are no route count as one."""
        route = getattr(scope.get("route"), "path", "none")
        self._requests.labels(scope["method"], route, status or "disconnected").inc()
        self._request_seconds.labels(route).observe(seconds)

    def sampled(self, model: str, steps: int, seconds: float) -> None:
        self._sample_seconds.labels(model, step_class(steps)).observe(seconds)


def step_class(steps: int) -> str:
    """'25' is 11..25 steps."""
    return next((str(bound) for bound in STEP_CLASSES if steps <= bound), "more")


def exposition(
    metrics: Metrics, engine: Mapping[str, Any] | None, jobs: Mapping[tuple[str, str], int]
) -> bytes:
    """`engine` is what EngineClient.statistics gives, None where it does not answer; `jobs` counts
    them by kind and status."""
    asked = CollectorRegistry()
    asked.register(_Given([*_engine_metrics(engine), _job_metric(jobs)]))
    return generate_latest(metrics.registry) + generate_latest(asked)


class _Given(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _engine_metrics(engine: Mapping[str, Any] | None) -> Iterable[Metric]:
    yield GaugeMetricFamily("diffusion_engine_up", "1: the engine answers", int(engine is not None))
    if engine is None:
        return
    yield GaugeMetricFamily(
        "diffusion_engine_queue_depth", "Orders waiting or under way", engine["waiting"]
    )
    yield GaugeMetricFamily(
        "diffusion_engine_backlog_seconds",
        "How long all of them will take the device",
        engine["backlog_seconds"],
    )
    yield _by_group(GaugeMetricFamily, engine, "slots", "slots", "Images under way")
    for name, key, text in (
        ("steps", "steps", "Network calls"),
        ("rows", "rows", "Rows in them: an image one step further"),
        ("evaluations", "evaluations", "Places in them in use: a guided row takes two"),
        ("padding", "padding", "Places in them without use"),
        ("step_seconds", "seconds", "Time of them, with what belongs to each"),
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
