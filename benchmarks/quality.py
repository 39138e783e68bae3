"""How good are new images after equal minutes of training, beside the same two peers?

Every contender gets the same images, the whole machine, and so many minutes of training; loading
and sampling do not count. Whoever lets its learning rate fall to 0 at the end of its budget (ours
and what is `tuned`) begins anew for each number of minutes; the peers' own settings do not know
their end, so that one run is looked at several times.

As many new images as the data set has (CIFAR: 500) are compared with the real ones:

    Frechet distance    of the digits' pixels in [-1, 1]; on CIFAR of the features of a small net
                        that learned its classes (models.evaluation.features)
    nearest real image  the median distance to it, pixels in [-1, 1]; a model that copies comes
                        nearer than images that nobody has learned from
    class seen          how often a classifier sees the class that was asked for, where the
                        contender knows classes; it was taught with 70% of the real images

The other 30% of the real images are measured likewise. On CIFAR the peers' own settings are left
out, for want of time.

    python -m benchmarks.quality --minutes 1 3 --all-steps 0     without the slowest samplers
    python -m benchmarks.quality --cifar cifar10-train.zip --cifar-minutes 10
    python -m benchmarks.quality --minutes 3 --ours            ours alone, by every sampler
    python -m benchmarks.quality --quick       seconds in place of minutes: shows that all works
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from sklearn.svm import SVC

from benchmarks.common import RESULTS, save, table
from benchmarks.training import Files, Ours, Pixels, Task, Trainee, cifar, digits, files_of
from models.arrays import Float64
from models.evaluation.distances import frechet_distance, nearest
from models.evaluation.features import Pixels as PixelFeatures
from models.evaluation.features import choose_features

OURS = "this service"
DIFFUSERS, DIFFUSERS_TUNED = "diffusers", "diffusers, tuned"
DDPM, DDPM_TUNED = "denoising-diffusion-pytorch", "denoising-diffusion-pytorch, tuned"
CONTENDERS = (OURS, DIFFUSERS, DIFFUSERS_TUNED, DDPM, DDPM_TUNED)
CONDITIONAL = (OURS, DIFFUSERS_TUNED, DDPM_TUNED)  # the others learn no classes

OUR_STEPS, PEER_STEPS = 20, 50  # DPM-Solver++ 2M; what suits each peer best
ALL_STEPS = 1000  # DDPM's, one for each level of training
GUIDANCE = 1.5
TAUGHT = 0.7  # of the real images, to the classifier
SPLITS = 10  # of the real images, whose mean distance is the reference
PIXELS = PixelFeatures()


@dataclass(frozen=True)
class Plan:
    """`num_images` are made for each score; `all_steps` of 0 leaves out what takes very long."""

    task: Task
    features: str  # of models.evaluation.features, which images are compared by
    minutes: tuple[float, ...]
    num_images: int
    all_steps: int
    contenders: tuple[str, ...] = CONTENDERS

    @property
    def labels(self) -> list[int]:
        """Of the images that are made: every so-many-th real one's."""
        labels = self.task.dataset.labels
        places = np.linspace(0, len(labels) - 1, self.num_images).round().astype(int)
        return [int(label) for label in np.sort(labels)[places]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[1 / 3, 2 / 3, 1, 2, 3])
    parser.add_argument("--cifar", type=Path, help="an archive of 32-pixel images in folders")
    parser.add_argument("--cifar-minutes", type=float, nargs="+", default=[10])
    parser.add_argument(
        "--all-steps", type=int, default=ALL_STEPS, help="of DDPM, at the end; 0 leaves it out"
    )
    parser.add_argument("--ours", action="store_true", help="without the peers")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    result = "quality-cifar" if options.cifar else "quality"
    if options.quick or options.ours:
        result += "-part" if options.quick else "-ours"
    report(result, measure(plan_of(options)))


def plan_of(options: argparse.Namespace) -> Plan:
    contenders: tuple[str, ...] = CONDITIONAL if options.cifar else CONTENDERS
    if options.ours:
        contenders = (OURS,)
    if options.cifar:
        minutes, per_class, count = tuple(sorted(options.cifar_minutes)), 500, 500
        if options.quick:
            minutes, per_class, count = (0.05,), 20, 10
        task = cifar(options.cifar, per_class)
        return Plan(task, "classifier", minutes, count, 0, contenders)
    task, minutes = digits(), tuple(sorted(options.minutes))
    count, all_steps = len(task.dataset.images), options.all_steps
    if options.quick:
        minutes, count, all_steps = (0.05, 0.1), 60, 60
    return Plan(task, "pixels", minutes, count, all_steps, contenders)


# Scores -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """`accuracy` is None where no class was asked for."""

    frechet: float
    nearest: float
    accuracy: float | None


class Judge:
    def __init__(self, plan: Plan) -> None:
        images, self._labels = plan.task.dataset.images, plan.task.dataset.labels
        taught, held_out = self._split(0)
        self._features = choose_features(plan.task.dataset, plan.features, held_out)
        self._pixels, self._real = PIXELS(images), self._features(images)
        self._classifier = SVC(C=10).fit(self._real[taught], self._labels[taught])
        splits = [self._split(seed) for seed in range(SPLITS)]
        distances = [frechet_distance(self._real[a], self._real[b]) for a, b in splits]
        self.real = Score(
            frechet=float(np.mean(distances)),
            nearest=median_distance(self._pixels[taught], self._pixels[held_out]),
            accuracy=self._accuracy(self._real[held_out], self._labels[held_out]),
        )

    def score(self, made: Pixels, labels: Sequence[int] | None) -> Score:
        features = self._features(made)
        return Score(
            frechet=frechet_distance(self._real, features),
            nearest=median_distance(self._pixels, PIXELS(made)),
            accuracy=None if labels is None else self._accuracy(features, np.array(labels)),
        )

    def _accuracy(self, features: Float64, labels: NDArray[np.int64]) -> float:
        return float(self._classifier.score(features, labels))

    def _split(self, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = np.random.default_rng(seed).permutation(len(self._labels))
        taught = int(TAUGHT * len(order))
        return order[:taught], order[taught:]


def median_distance(real: Float64, made: Float64) -> float:
    """From each of the made ones to the nearest of the real ones."""
    return float(np.median(nearest(real, made)[1]))


# Runs ---------------------------------------------------------------------------------------------


def measure(plan: Plan) -> dict[str, Any]:
    task, judge = plan.task, Judge(plan)
    last = plan.minutes[-1]
    with files_of(task, task.config(minutes=last)) as files, ExitStack() as stack:
        going_on = {
            name: start() for name, start in endless(files, last).items() if name in plan.contenders
        }
        for peer in going_on.values():
            stack.callback(peer.close)
        points, used = [], 0.0
        for minutes in plan.minutes:
            for name, peer in going_on.items():
                points.append(look(plan, judge, name, minutes, peer, 60 * (minutes - used)))
            for name, start in anew(files, minutes).items():
                if name not in plan.contenders:
                    continue
                with closing(start()) as trainee:
                    points.append(look(plan, judge, name, minutes, trainee, 60 * minutes))
                    if minutes == last and isinstance(trainee, Ours):
                        samplers = by_sampler(plan, judge, trainee)
            used = minutes
        if plan.all_steps:
            for name, peer in going_on.items():
                points.append(look(plan, judge, name, last, peer, 0.0, plan.all_steps))
    return {
        "task": task.name,
        "num_real": len(task.dataset.images),
        "num_made": plan.num_images,
        "real": asdict(judge.real),
        "points": points,
        "samplers": samplers,
    }


def endless(files: Files, minutes: float) -> dict[str, Callable[[], Trainee]]:
    """Those that do not know the end of their budget, and train on from one look to the next."""
    return {
        DIFFUSERS: lambda: files.diffusers("default", 60 * minutes, conditional=False),
        DDPM: lambda: files.ddpm_pytorch("default", 60 * minutes, like_ours=False),
    }


def anew(files: Files, minutes: float) -> dict[str, Callable[[], Trainee]]:
    """Those that begin again for each budget, all with the batch that ours chooses for it."""
    config, budget = files.task.config(minutes=minutes), 60 * minutes
    batch = config.batch_size
    return {
        OURS: lambda: Ours(files.task, config),
        DIFFUSERS_TUNED: lambda: files.diffusers(
            "tuned", budget, conditional=True, batch_size=batch
        ),
        DDPM_TUNED: lambda: files.ddpm_pytorch("tuned", budget, like_ours=True, batch_size=batch),
    }


def look(
    plan: Plan,
    judge: Judge,
    name: str,
    minutes: float,
    trainee: Trainee,
    more_seconds: float,
    num_inference_steps: int = 0,
) -> dict[str, Any]:
    """Train so much more, make images, and score them."""
    if more_seconds:
        trainee.train(more_seconds)
    steps = num_inference_steps or (OUR_STEPS if name == OURS else PEER_STEPS)
    labels = plan.labels
    started = time.perf_counter()
    made = trainee.sample(labels, steps)
    taken = time.perf_counter() - started
    score = judge.score(made, labels if name in CONDITIONAL else None)
    point = {
        "contender": name,
        "minutes": minutes,
        "num_parameters": trainee.num_parameters,
        "batch_size": trainee.images_per_step,
        "steps": trainee.trained.steps,
        "images": trainee.trained.images,
        "seconds": trainee.trained.seconds,
        "num_inference_steps": steps,
        "sampling_seconds": taken,
        **asdict(score),
    }
    print(point, file=sys.stderr)
    return point


def by_sampler(plan: Plan, judge: Judge, ours: Ours) -> list[dict[str, Any]]:
    """Our model's images by few steps, by many, and with guidance."""
    cases: list[tuple[str, int, float]] = [
        ("dpmpp_2m", 5, 1.0),
        ("dpmpp_2m", 10, 1.0),
        ("unipc", 10, 1.0),
        ("dpmpp_2m", OUR_STEPS, 1.0),
        ("dpmpp_2m", OUR_STEPS, GUIDANCE),
        ("ddim", PEER_STEPS, 1.0),
    ]
    if plan.all_steps:
        cases.append(("ddpm", plan.all_steps, 1.0))
    rows = []
    for sampler, steps, guidance_scale in cases:
        started = time.perf_counter()
        made = ours.sample_by(sampler, plan.labels, steps, guidance_scale)
        taken = time.perf_counter() - started
        row = {
            "sampler": sampler,
            "num_inference_steps": steps,
            "guidance_scale": guidance_scale,
            "sampling_seconds": taken,
            **asdict(judge.score(made, plan.labels)),
        }
        print(row, file=sys.stderr)
        rows.append(row)
    return rows


# Reports ------------------------------------------------------------------------------------------


def report(result: str, measured: dict[str, Any]) -> None:
    save(result, measured)
    points = measured["points"]
    if all(len({point[of] for point in points}) > 1 for of in ("contender", "minutes")):
        plot(measured, RESULTS / f"{result}.png")
    rows = []
    for point in sorted(points, key=lambda p: CONTENDERS.index(p["contender"])):
        trained = [f"{point['minutes']:.2f}", f"{point['images'] / 1000:.0f}"]
        rows.append(
            [point["contender"], *trained, f"{point['num_inference_steps']}", *cells(point)]
        )
    rows.append(["real images set apart", "", "", "", *cells(measured["real"])])
    walks = []
    for row in measured["samplers"]:
        guided = f", guidance {row['guidance_scale']:g}" if row["guidance_scale"] != 1.0 else ""
        taken = 1e3 * row["sampling_seconds"] / measured["num_made"]
        steps = f"{row['num_inference_steps']}"
        walks.append([f"{row['sampler']}{guided}", steps, f"{taken:.1f}", *cells(row)])
    scores = ["Frechet distance", "nearest real image", "class seen"]
    print(table(["trained", "minutes", "1000 images", "steps of sampling", *scores], rows))
    print()
    print(table(["our model at the end", "steps", "ms / image", *scores], walks))


def cells(score: dict[str, Any]) -> list[str]:
    accuracy = score["accuracy"]
    seen = "" if accuracy is None else f"{100 * accuracy:.1f}%"
    return [f"{score['frechet']:.3f}", f"{score['nearest']:.2f}", seen]


def plot(measured: dict[str, Any], path: Path) -> None:
    """Both scores over minutes of training; a dashed line is where real images lie."""
    matplotlib.use("Agg")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
    for i, name in enumerate(CONTENDERS):
        usual = OUR_STEPS if name == OURS else PEER_STEPS
        points = [
            point
            for point in measured["points"]
            if point["contender"] == name and point["num_inference_steps"] == usual
        ]
        minutes = [point["minutes"] for point in points]
        style = {"label": name, "alpha": 0.8, "color": f"C{i}", "marker": "o"}
        left.semilogy(minutes, [point["frechet"] for point in points], **style)
        if name in CONDITIONAL:
            right.plot(minutes, [100 * point["accuracy"] for point in points], **style)
    left.axhline(measured["real"]["frechet"], color="grey", ls="--", lw=1)
    right.axhline(100 * measured["real"]["accuracy"], color="grey", ls="--", lw=1)
    left.set(title=measured["task"], xlabel="minutes", ylabel="Frechet distance")
    right.set(title=measured["task"], xlabel="minutes", ylabel="% whose class is seen")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
