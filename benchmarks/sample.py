"""Seconds of one request for images, beside diffusers' pipeline and the bare sampling loop.

The benchmark sends one request at a time, with DDIM and all cores. Our time is that of POST /sample
and includes HTTP, the engine's process and PNG. The pipeline is called in its own process and the
loop in this one, without these costs. On a GPU a pipeline with a compiled network is measured too.
`--quick` measures the small net with fewer rounds, and writes separate result files.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

from benchmarks.common import RESULTS, in_turn, ratio, save, seconds, table
from benchmarks.sampling import (
    CONFIGS,
    DEVICE,
    Net,
    Pipeline,
    body,
    check_ours,
    check_pipeline,
    offline,
    our_service,
    post,
    random_net,
)

CASES = [(1, 10), (1, 50), (16, 10), (16, 50)]  # images, steps
MIN_SECONDS = 0.5  # per turn: short requests are repeated
OURS, BARE = "this service", "bare loop"
DIFFUSERS, DIFFUSERS_COMPILED = "diffusers", "diffusers, torch.compile"
PIPELINES = {DIFFUSERS: False} | ({DIFFUSERS_COMPILED: True} if DEVICE == "cuda" else {})
COLUMNS = (OURS, *PIPELINES, BARE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--nets", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    options = parser.parse_args()
    rounds = 3 if options.quick else 5
    names = ["8 px"] if options.quick else options.nets
    cases = [case for name in names for case in measure(name, rounds)]
    report("sample-part" if options.quick else "sample", cases, rounds)


def measure(name: str, rounds: int) -> list[dict[str, Any]]:
    with random_net(name) as net, ExitStack() as stack:
        service = stack.enter_context(our_service(net))
        pipelines = {
            column: stack.enter_context(Pipeline(net, compiled=compiled))
            for column, compiled in PIPELINES.items()
        }
        url, model = f"{service.base}/sample", net.load()
        for num_inference_steps in sorted({steps for _, steps in CASES}):
            check_ours(url, model, num_inference_steps)
            for pipeline in pipelines.values():
                check_pipeline(pipeline, model, num_inference_steps)
        cases = []
        for num_images, num_inference_steps in CASES:
            request = body(num_inference_steps, 1, num_images=num_images)
            contenders: dict[str, Callable[[], float]] = {
                OURS: partial(seconds, partial(post, url, request)),
                **{
                    column: partial(pipeline.seconds, num_images, num_inference_steps)
                    for column, pipeline in pipelines.items()
                },
                BARE: partial(seconds, partial(offline, model, num_images, num_inference_steps, 1)),
            }
            figures = in_turn({n: warm(contender) for n, contender in contenders.items()}, rounds)
            cases.append(case(net, num_images, num_inference_steps, figures))
            print(f"{net}: {num_images} images, {num_inference_steps} steps", file=sys.stderr)
    return cases


def warm(contender: Callable[[], float]) -> Callable[[], float]:
    """Return a turn: the median of as many calls as fill MIN_SECONDS.

    A turn of several short calls starts with an untimed one, since the previous contender has left
    its data in the caches.
    """
    contender()  # a first request of its size may compile something
    count = max(1, round(MIN_SECONDS / contender()))

    def turn() -> float:
        if count > 1:
            contender()
        return median(contender() for _ in range(count))

    return turn


def case(
    net: Net, num_images: int, num_inference_steps: int, figures: dict[str, list[float]]
) -> dict[str, Any]:
    return {
        "net": str(net),
        "num_images": num_images,
        "num_inference_steps": num_inference_steps,
        "seconds": figures,
        "speed_up_over": {column: ratio(figures, column, OURS) for column in PIPELINES},
        "ratio_to_bare": ratio(figures, OURS, BARE),
    }


def report(result: str, cases: list[dict[str, Any]], rounds: int) -> None:
    save(result, {"rounds": rounds, "cases": cases})
    rows = []
    for entry in cases:
        times = [f"{1e3 * median(entry['seconds'][name]):.1f}" for name in COLUMNS]
        ratios = [*entry["speed_up_over"].values(), entry["ratio_to_bare"]]
        rows.append([entry["net"], label(entry), *times, *(f"{value:.2f}" for value in ratios)])
    header = ["net", "images x steps", *(f"{name}, ms" for name in COLUMNS)]
    header += [f"speed-up over {name}" for name in PIPELINES]
    print(table([*header, "time to bare"], rows))
    plot(cases, RESULTS / f"{result}.png")


def label(entry: dict[str, Any]) -> str:
    return f"{entry['num_images']} x {entry['num_inference_steps']}"


def plot(cases: list[dict[str, Any]], path: Path) -> None:
    matplotlib.use("Agg")
    nets = list(dict.fromkeys(entry["net"] for entry in cases))
    figure, panels = plt.subplots(
        1, len(nets), figsize=(1 + 4 * len(nets), 4), layout="constrained", squeeze=False
    )
    for axes, net in zip(panels[0], nets, strict=True):
        entries = [entry for entry in cases if entry["net"] == net]
        for name, marker in zip(COLUMNS, ("o", "s", "D", "_"), strict=False):
            middle = [median(entry["seconds"][name]) for entry in entries]
            axes.semilogy(range(len(entries)), middle, marker, label=name, alpha=0.8)
        axes.set_xticks(range(len(entries)), [label(entry) for entry in entries])
        axes.set(title=net, xlabel="images x steps", ylabel="seconds")
        axes.grid(alpha=0.3, axis="y")
    panels[0][0].legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
