"""Images per second of training, beside diffusers' example and denoising-diffusion-pytorch.

All contenders use the same images and batches. diffusers trains our network, with classes if its
setting has them; denoising-diffusion-pytorch trains its own network, at the size with the nearest
number of parameters (its operations per image are in the table). They take turns with whole
training steps: reading images, adding noise, network, optimiser, averaging of the weights. Ours and
the tuned ones compute in the precision that the service chooses on this machine, the peers' own
settings in float32. On a GPU diffusers' tuned training is also measured with a compiled network, as
ours is there. `--quick` measures the small net with fewer rounds, and writes separate result files.
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

from benchmarks.common import RESULTS, in_turn, ratio, save, table
from benchmarks.training import (
    DEVICE,
    Files,
    Ours,
    Task,
    Trainee,
    check_same_net,
    digits,
    files_of,
    noise_images,
)

OURS = "this service"
DIFFUSERS, DIFFUSERS_TUNED = "diffusers", "diffusers, tuned"
DIFFUSERS_COMPILED = "diffusers, tuned, torch.compile"
DDPM, DDPM_TUNED = "denoising-diffusion-pytorch", "denoising-diffusion-pytorch, tuned"
CASES = {
    f"{name} x {batch_size}": (name, batch_size)
    for name, batch_sizes in {"8 px": (16, 128), "32 px": (16, 64, 256)}.items()
    for batch_size in batch_sizes
}
BUDGET = 1e9  # seconds: so long that learning rates stay constant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--diffusers", action="store_true", help="no other peers")
    options = parser.parse_args()
    rounds, seconds, warm_up = (3, 1.0, 2.0) if options.quick else (5, 4.0, 20.0)
    chosen = ["8 px x 128"] if options.quick else options.cases
    tasks = {"8 px": digits(), "32 px": Task("32 px", noise_images(32, 3), True, *2 * [(1, 2, 2)])}
    cases = [
        measure(tasks[name], batch_size, options.diffusers, rounds, seconds, warm_up)
        for name, batch_size in (CASES[case] for case in chosen)
    ]
    report("train-part" if options.quick else "train", cases, rounds)


def measure(
    task: Task,
    batch_size: int,
    only_diffusers: bool,
    rounds: int,
    seconds: float,
    warm_up: float,
) -> dict[str, Any]:
    config = task.config(batch_size=batch_size)
    with files_of(task, config) as files, ExitStack() as stack:
        diffusers = files.diffusers("default", BUDGET, conditional=False, batch_size=batch_size)
        stack.callback(diffusers.close)
        check_same_net(diffusers, files, config)
        trainees: dict[str, Trainee] = {OURS: Ours(task, config), DIFFUSERS: diffusers}
        for name, start in others(files, batch_size).items():
            if not (only_diffusers and name.startswith(DDPM)):
                trainees[name] = start()
                stack.callback(trainees[name].close)
        for trainee in trainees.values():
            trainee.train(warm_up)
        turns = {name: turn(trainee, seconds) for name, trainee in trainees.items()}
        figures = in_turn(turns, rounds)
    entry = {
        "net": f"{task.side} px, {trainees[OURS].num_parameters / 1e6:.1f}M, {config.precision}",
        "batch_size": batch_size,
        "images_per_second": figures,
        "num_parameters": {name: each.num_parameters for name, each in trainees.items()},
        "num_operations": {name: each.num_operations for name, each in trainees.items()},
        "speed_up_over": {name: ratio(figures, OURS, name) for name in figures if name != OURS},
    }
    print(
        {key: value for key, value in entry.items() if key != "images_per_second"}, file=sys.stderr
    )
    return entry


def others(files: Files, batch_size: int) -> dict[str, Callable[[], Trainee]]:
    def tuned(compiled: bool = False) -> Trainee:
        return files.diffusers(
            "tuned", BUDGET, conditional=True, batch_size=batch_size, compiled=compiled
        )

    return {
        DIFFUSERS_TUNED: tuned,
        **({DIFFUSERS_COMPILED: partial(tuned, compiled=True)} if DEVICE == "cuda" else {}),
        DDPM: lambda: files.ddpm_pytorch("default", BUDGET, like_ours=True, batch_size=batch_size),
        DDPM_TUNED: lambda: files.ddpm_pytorch(
            "tuned", BUDGET, like_ours=True, batch_size=batch_size
        ),
    }


def turn(trainee: Trainee, seconds: float) -> Callable[[], float]:
    """Return a turn, which starts with an untimed step: the previous contender fills the caches."""

    def images_per_second() -> float:
        trainee.train(0.0)
        return trainee.train(seconds).images_per_second

    return images_per_second


def report(result: str, cases: list[dict[str, Any]], rounds: int) -> None:
    save(result, {"rounds": rounds, "cases": cases})
    rows, columns = [], list(cases[0]["images_per_second"])
    for entry in cases:
        speeds = [f"{median(entry['images_per_second'][name]):.0f}" for name in columns]
        ratios = [f"{value:.2f}" for value in entry["speed_up_over"].values()]
        rows.append([label(entry), *speeds, *ratios])
    header = ["images / s, net x batch", *columns, *(f"to {name}" for name in columns[1:])]
    print(table(header, rows))
    print(table(["net", *columns], nets(cases)))
    plot(cases, RESULTS / f"{result}.png")


def nets(cases: list[dict[str, Any]]) -> list[list[str]]:
    """Return a table of the nets that contenders train, from the first case of each net."""
    rows = []
    for net in dict.fromkeys(entry["net"] for entry in cases):
        entry = next(entry for entry in cases if entry["net"] == net)
        counts = [f"{count / 1e6:.2f}" for count in entry["num_parameters"].values()]
        costs = [f"{count / 1e6:.0f}" for count in entry["num_operations"].values()]
        rows.append([f"{net}: million parameters", *counts])
        rows.append([f"{net}: million operations per image, forward", *costs])
    return rows


def label(entry: dict[str, Any]) -> str:
    return f"{entry['net']} x {entry['batch_size']}"


def plot(cases: list[dict[str, Any]], path: Path) -> None:
    """Plot the images per second of each contender, with separate axes for each case."""
    matplotlib.use("Agg")
    figure, panels = plt.subplots(
        1,
        len(cases),
        figsize=(max(7.0, 1 + 3.2 * len(cases)), 4.5),
        layout="constrained",
        squeeze=False,
    )
    for axes, entry in zip(panels[0], cases, strict=True):
        for place, (name, figures) in enumerate(entry["images_per_second"].items()):
            axes.bar(place, median(figures), label=name, alpha=0.8)
            axes.vlines(place, min(figures), max(figures), color="black", lw=1)
        axes.set_xticks([])
        axes.set(title=label(entry), ylabel="images / s")
        axes.title.set_fontsize(9)
        axes.grid(alpha=0.3, axis="y")
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
