"""Latency and throughput under an open-loop Poisson trace of requests with mixed steps.

Every contender gets the same traces: DDIM with 10, 25, 50 or 100 steps, one image each, arriving
at a share of the serial capacity of the bare sampling loop. Latency counts from the time when a
request is due. One server runs at a time and has all cores, except for the sender's share. `burst`
sends a trace's requests all at once: it shows the throughput if the server chooses the order. A
shared machine changes its speed within minutes, so the contenders take turns at each trace; all
processes of the others are stopped (SIGSTOP).

`--quick` uses one seed and two loads, `--net "32 px"` the larger net, `--only WORD ...` the
contenders with one of these words in their name, `--loads` and `--seeds` others than the usual;
parts of the benchmark write separate result files.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import (
    HERE,
    PEER_PYTHON,
    RESULTS,
    Server,
    free_port,
    save,
    seconds,
    server,
    table,
)
from benchmarks.load import Hit, Shot, replay
from benchmarks.sampling import (
    CHECKED_SEED,
    CONFIGS,
    DEVICE,
    Net,
    Pipeline,
    Pixels,
    body,
    check_pipeline,
    compare,
    decode,
    offline,
    our_service,
    random_net,
)
from models.diffusion.model import DiffusionModel

SHARES = {10: 0.4, 25: 0.3, 50: 0.2, 100: 0.1}  # of requests, by number of steps
LOADS = (0.2, 0.5, 0.8, 1.0, 1.2, math.inf)  # of the serial capacity; the last is the burst
QUICK_LOADS = (0.5, 1.0)
SEEDS = 3
WARM_UPS = 2
MODES = ("step", "request", "off")

US = "this service"
OURS = f"{US}, {MODES[0]}"
QUEUEING = "FastAPI + diffusers, one at a time"
QUEUEING_COMPILED = f"{QUEUEING}, torch.compile"
BATCHING = "LitServe, dynamic batching"
CONTINUOUS = "LitServe, its continuous batching"

Points = list[dict[str, Any]]


@dataclass(frozen=True)
class Arrival:
    """A request of a trace; `at` is its due time, in seconds from the start."""

    at: float
    num_inference_steps: int
    seed: int


class Start(Protocol):
    """A function that starts a server for a net."""

    def __call__(self, net: Net) -> AbstractContextManager[Server]: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--net", choices=list(CONFIGS), default=next(iter(CONFIGS)))
    parser.add_argument("--seconds", type=float, default=8.0, help="of a trace")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD")
    parser.add_argument("--loads", nargs="+", type=float, default=LOADS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    starts = {
        name: start
        for name, start in contenders().items()
        if any(word in name for word in options.only)
    }
    loads, seeds = (QUICK_LOADS, 1) if options.quick else (options.loads, options.seeds)
    with random_net(options.net) as net, ExitStack() as stack:
        model = net.load()
        images = expected_images(net, model)
        servers: dict[str, Server] = {}
        for name, start in starts.items():
            print(f"starting {name}", file=sys.stderr)
            servers[name] = stack.enter_context(start(net))
            check(servers[name], images[name.startswith(US)])
            warm_up(servers[name])
            servers[name].pause()
        per_second = 1 / (
            bare_step_seconds(model, 11) * np.dot(list(SHARES), list(SHARES.values()))
        )
        points: Points = []
        for turn, (seed, load) in enumerate(itertools.product(range(seeds), loads)):
            arrivals = trace(seed, load, per_second, options.seconds)
            bare = bare_step_seconds(model, 3)
            print(f"seed {seed}, load {load}: {1e3 * bare:.2f} ms a step", file=sys.stderr)
            for name in rotated(list(servers), turn):
                measured = measure(servers[name], arrivals)
                point = {"contender": name, "seed": seed, "load": label(load)}
                points.append({**point, "bare_step_seconds": bare, **measured})
    setting = {"net": str(net), "serial_capacity": per_second, "trace_seconds": options.seconds}
    part = "-part" if options.quick or options.only != [""] else ""
    large = "" if options.net == next(iter(CONFIGS)) else "-large"
    report(f"serve{large}{part}", setting, points)


# Contenders ---------------------------------------------------------------------------------------


def contenders() -> dict[str, Start]:
    uvicorn = ["-m", "uvicorn", "queueing_service:app", "--app-dir", str(HERE / "peers")]
    queueing = partial(peer, [*uvicorn, "--no-access-log", "--port"], "/docs")
    starts: dict[str, Start] = {
        QUEUEING: queueing,
        BATCHING: partial(peer, [str(HERE / "peers" / "batching_service.py")], "/health"),
        CONTINUOUS: partial(peer, [str(HERE / "peers" / "continuous_service.py")], "/health"),
    }
    if DEVICE == "cuda":
        starts[QUEUEING_COMPILED] = partial(queueing, COMPILED="1")
    for mode in MODES:
        starts[f"{US}, {mode}"] = partial(our_service, DIFFUSION_ENGINE_BATCHING=mode)
    return starts


def peer(
    arguments: Sequence[str], ready: str, net: Net, **variables: str
) -> AbstractContextManager[Server]:
    port = free_port()
    command: list[str | Path] = [PEER_PYTHON, *arguments, str(port)]
    return server(command, port, ready, MODEL_FOLDER=str(net.folder), **variables)


def label(load: float) -> float | str:
    return "burst" if math.isinf(load) else load


def rotated(names: list[str], by: int) -> list[str]:
    by %= len(names)
    return names[by:] + names[:by]


# Checks of images ---------------------------------------------------------------------------------


def expected_images(net: Net, model: DiffusionModel) -> dict[bool, dict[int, Pixels]]:
    """Make the images of CHECKED_SEED by number of steps; under True ours, under False theirs.

    Ours are the sampling loop's, theirs the pipeline's, whose noise is different. From the same
    noise both make the same images, which is checked too.
    """
    with Pipeline(net) as pipeline:
        for n in SHARES:
            check_pipeline(pipeline, model, n)
        theirs = {n: pipeline.images([CHECKED_SEED], n)[0] for n in SHARES}
    return {True: {n: offline(model, 1, n, CHECKED_SEED)[0] for n in SHARES}, False: theirs}


def check(running: Server, expected: Mapping[int, Pixels]) -> None:
    """Check that images requested all at once are the same as images made alone."""
    hits = send(running, [Arrival(0.0, n, CHECKED_SEED) for n in expected], precision="float32")
    for n, hit in zip(expected, hits, strict=True):
        if hit.status != 200:
            raise AssertionError(f"{running.base}, {n} steps: {hit.status} {hit.body[:500]!r}")
        compare(f"{running.base}, {n} steps", decode(hit.body), expected[n], 1)


# Measuring ----------------------------------------------------------------------------------------


def bare_step_seconds(model: DiffusionModel, times: int) -> float:
    """Measure a step of one image by the sampling loop in this process."""
    n = max(SHARES)
    return median(seconds(partial(offline, model, 1, n, seed)) for seed in range(times)) / n


def warm_up(running: Server) -> None:
    """Send requests one after another, then in wide batches."""
    for n in SHARES:
        send(running, [Arrival(0.0, n, 0)])
    for _ in range(WARM_UPS):
        send(running, [Arrival(0.0, n, seed) for n in SHARES for seed in range(8)])


def send(running: Server, arrivals: Sequence[Arrival], **more: object) -> list[Hit]:
    shots = [Shot(a.at, body(a.num_inference_steps, a.seed, **more)) for a in arrivals]
    return replay(f"{running.base}/sample", shots, "application/json")


def trace(seed: int, load: float, per_second: float, duration: float) -> list[Arrival]:
    """Draw a Poisson process of `duration` seconds with `load` times a rate.

    A seed has the same requests at any load; at a higher load they are closer together.
    """
    random = np.random.default_rng(seed)
    burst = math.isinf(load)
    rate = per_second * (1.0 if burst else load)
    count = 2 * math.ceil(rate * duration) + 100  # more than will fit
    at = np.cumsum(random.exponential(1 / rate, count))
    steps = np.random.default_rng((seed, 1)).choice(list(SHARES), count, p=list(SHARES.values()))
    return [
        Arrival(0.0 if burst else float(at[i]), int(steps[i]), i)
        for i in range(int((at < duration).sum()))
    ]


def measure(running: Server, arrivals: Sequence[Arrival]) -> dict[str, Any]:
    running.resume()
    try:
        for n in SHARES:  # untimed, to recover from the pause
            send(running, [Arrival(0.0, n, 0)])
        hits = send(running, arrivals)
    finally:
        running.pause()
    served = [(a, hit) for a, hit in zip(arrivals, hits, strict=True) if hit.status == 200]
    end = max((arrival.at + hit.seconds for arrival, hit in served), default=math.inf)
    return {
        "requests": len(hits),
        "rejected": sum(hit.status == 503 for hit in hits),
        "failed": sum(hit.status not in (200, 503) for hit in hits),
        "completed_per_second": len(served) / end,
        "seconds": {n: latencies(served, n) for n in SHARES},
    }


def latencies(served: Sequence[tuple[Arrival, Hit]], num_inference_steps: int) -> list[float]:
    return [round(h.seconds, 4) for a, h in served if a.num_inference_steps == num_inference_steps]


# Reporting ----------------------------------------------------------------------------------------


def report(result: str, setting: dict[str, Any], points: Points) -> None:
    save(result, {**setting, "shares": SHARES, "points": points})
    bare = [1e3 * point["bare_step_seconds"] for point in points]
    print(
        f"{setting['net']}; serial capacity {setting['serial_capacity']:.2f} requests / s; ", end=""
    )
    print(f"bare step {min(bare):.2f} to {max(bare):.2f} ms, median {median(bare):.2f}\n")
    loads = list(dict.fromkeys(point["load"] for point in points))
    names = sorted({point["contender"] for point in points}, key=list(contenders()).index)
    rows = [row(chosen(points, name, load)) for load in loads for name in names]
    header = ["load: p50 / p95 / p99, ms", "completed / s", "rejected", "failed"]
    print(table([*header, *(f"{n} steps" for n in SHARES)], rows))
    if {OURS, QUEUEING, BATCHING, CONTINUOUS} <= set(names):
        print("\n" + headline(points, loads))
    plot(points, names, loads, setting, RESULTS / f"{result}.png")


def chosen(points: Points, contender: str, load: float | str) -> Points:
    return [p for p in points if p["contender"] == contender and p["load"] == load]


def row(points: Points) -> list[str]:
    counts = [str(sum(point[what] for point in points)) for what in ("rejected", "failed")]
    cells = []
    for n in SHARES:
        numbers = [f"{1e3 * percentile(points, n, q):.0f}" for q in (50, 95, 99)]
        cells.append(" / ".join(numbers))
    first = f"{points[0]['load']}: {points[0]['contender']}"
    return [first, f"{throughput(points):.2f}", *counts, *cells]


def headline(points: Points, loads: Sequence[float | str]) -> str:
    """Format the ratios with targets, ours to the peers': p95 of 10 steps, and throughput."""
    rows = []
    for load in loads:
        ours, continuous = chosen(points, OURS, load), chosen(points, CONTINUOUS, load)
        request_level = [chosen(points, name, load) for name in (QUEUEING, BATCHING)]
        p95 = percentile(ours, 10, 95)
        best = min(percentile(peer, 10, 95) for peer in request_level)
        most = max(throughput(peer) for peer in (*request_level, continuous))
        ratios = (best / p95, percentile(continuous, 10, 95) / p95, throughput(ours) / most)
        rows.append([str(load), *(f"{ratio:.2f}" for ratio in ratios)])
    times = "p95 of 10 steps: {} / ours"
    header = ["load", times.format("best request-level peer"), times.format("LitServe's loop")]
    return table([*header, "throughput: ours / best peer"], rows)


def percentile(points: Points, num_inference_steps: int, q: float) -> float:
    """Return the percentile over all seeds; NaN if no request was answered."""
    pooled = [s for point in points for s in point["seconds"][num_inference_steps]]
    return float(np.percentile(pooled, q)) if pooled else math.nan


def throughput(points: Points) -> float:
    return float(median(point["completed_per_second"] for point in points))


def plot(
    points: Points,
    names: Sequence[str],
    loads: Sequence[float | str],
    setting: Mapping[str, Any],
    path: Path,
) -> None:
    matplotlib.use("Agg")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    shares = [load for load in loads if load != "burst"]
    for name in names:
        of_name = [chosen(points, name, load) for load in shares]
        style = "o-" if name.startswith(US) else "s--"
        middle = [percentile(at_load, 10, 95) for at_load in of_name]
        line = left.semilogy(shares, middle, style, label=name)[0]
        by_seed = np.array([[percentile([p], 10, 95) for p in at_load] for at_load in of_name])
        band(left, shares, by_seed, line.get_color())
        rates = np.array([[p["completed_per_second"] for p in at_load] for at_load in of_name])
        right.plot(shares, np.median(rates, axis=1), style, color=line.get_color())
        band(right, shares, rates, line.get_color())
    left.set(ylabel="95th percentile of 10-step requests, seconds")
    right.set(ylabel="completed requests per second", ylim=(0, None))
    for axes in (left, right):
        axes.set(xlabel="offered load, share of the bare loop's serial capacity")
        axes.grid(alpha=0.3)
    figure.suptitle(f"POST /sample, {setting['net']}: Poisson trace of mixed steps", fontsize=11)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False
    )
    figure.savefig(path, dpi=120)


def band(axes: Any, x: Sequence[float | str], values: NDArray[np.float64], color: str) -> None:
    axes.fill_between(x, values.min(axis=1), values.max(axis=1), color=color, alpha=0.12, lw=0)


if __name__ == "__main__":
    main()
