"""Quality of new images after equal minutes of training, beside the same two peers.

Every contender gets the same images, the whole machine, and the same minutes of training; loading
and sampling do not count. Contenders whose learning rate falls to 0 at the end of their budget
(ours and the `tuned` ones) train a new model for each number of minutes. The peers' own settings
have no such end, so one run of theirs is scored several times.

As many new images as the dataset has (CIFAR: 500) are compared with the real ones:

    Frechet distance    of the digits' pixels in [-1, 1]; on CIFAR of the features of a small net
                        that learned its classes (models.evaluation.features)
    nearest real image  the median distance to it, pixels in [-1, 1]; a model that copies is nearer
                        than images outside the training set
    class seen          how often a classifier sees the requested class, for contenders with
                        classes; the classifier was trained on 70% of the real images

The other 30% of the real images are measured in the same way. On CIFAR the peers' own settings are
left out, for lack of time.

    python -m benchmarks.quality --minutes 1 3 --all-steps 0     without the slowest samplers
    python -m benchmarks.quality --cifar cifar10-train.zip --cifar-minutes 10
    python -m benchmarks.quality --minutes 3 --ours            ours alone, with every sampler
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

OUR_STEPS, PEER_STEPS = 20, 50  # DPM-Solver++ 2M; each peer's best sampler
ALL_STEPS = 1000  # DDPM's, one for each level of training
GUIDANCE = 1.5  # where the service chooses none
TRAIN_SHARE = 0.7  # of the real images, for the classifier
SPLITS = 10  # of the real images; their mean distance is the reference
PIXELS = PixelFeatures()


@dataclass(frozen=True)
class Plan:
    """`num_images` are made for each score; `all_steps` of 0 leaves out the slowest samplers."""

    task: Task
    features: str  # of models.evaluation.features, for the comparison of images
    minutes: tuple[float, ...]
    num_images: int
    all_steps: int
    contenders: tuple[str, ...] = CONTENDERS

    @property
    def labels(self) -> list[int]:
        """The labels of the new images: those of real images at equal distances in sorted order."""
        labels = self.task.dataset.labels
        places = np.linspace(0, len(labels) - 1, self.num_images).round().astype(int)
        return [int(label) for label in np.sort(labels)[places]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, nargs="+", default=[1 / 3, 2 / 3, 1, 2, 3])
    parser.add_argument("--cifar", type=Path, help="an archive of 32-pixel images in folders")
    parser.add_argument("--cifar-minutes", type=float, nargs="+", default=[10])
    parser.add_argument(
        "--all-steps",
        type=int,
        default=ALL_STEPS,
        help="steps of DDPM, at the end; 0 leaves it out",
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
    """The scores of a set of images; `accuracy` is None if no class was requested."""

    frechet: float
    nearest: float
    accuracy: float | None


class Judge:
    """The real images and the classifier that new images are scored with."""

    def __init__(self, plan: Plan) -> None:
        images, self._labels = plan.task.dataset.images, plan.task.dataset.labels
        train, held_out = self._split(0)
        self._features = choose_features(plan.task.dataset, plan.features, held_out)
        self._pixels, self._real = PIXELS(images), self._features(images)
        self._classifier = SVC(C=10).fit(self._real[train], self._labels[train])
        splits = [self._split(seed) for seed in range(SPLITS)]
        distances = [frechet_distance(self._real[a], self._real[b]) for a, b in splits]
        self.real = Score(
            frechet=float(np.mean(distances)),
            nearest=median_distance(self._pixels[train], self._pixels[held_out]),
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
        cut = int(TRAIN_SHARE * len(order))
        return order[:cut], order[cut:]


def median_distance(real: Float64, made: Float64) -> float:
    """Return the median distance from a made image to its nearest real image."""
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
                more = 60 * (minutes - used)
                points.append(train_and_score(plan, judge, name, minutes, peer, more))
            for name, start in per_budget(files, minutes).items():
                if name not in plan.contenders:
                    continue
                with closing(start()) as trainee:
                    points.append(
                        train_and_score(plan, judge, name, minutes, trainee, 60 * minutes)
                    )
                    if minutes == last and isinstance(trainee, Ours):
                        samplers = by_sampler(plan, judge, trainee)
            used = minutes
        if plan.all_steps:
            for name, peer in going_on.items():
                points.append(train_and_score(plan, judge, name, last, peer, 0.0, plan.all_steps))
    return {
        "task": task.name,
        "num_real": len(task.dataset.images),
        "num_made": plan.num_images,
        "real": asdict(judge.real),
        "points": points,
        "samplers": samplers,
    }


def endless(files: Files, minutes: float) -> dict[str, Callable[[], Trainee]]:
    """Return the contenders without an end of their budget, which train on between scores."""
    return {
        DIFFUSERS: lambda: files.diffusers("default", 60 * minutes, conditional=False),
        DDPM: lambda: files.ddpm_pytorch("default", 60 * minutes, like_ours=False),
    }


def per_budget(files: Files, minutes: float) -> dict[str, Callable[[], Trainee]]:
    """Return the contenders that train anew for each budget, all with our batch size for it."""
    config, budget = files.task.config(minutes=minutes), 60 * minutes
    batch = config.batch_size
    return {
        OURS: lambda: Ours(files.task, config),
        DIFFUSERS_TUNED: lambda: files.diffusers(
            "tuned", budget, conditional=True, batch_size=batch
        ),
        DDPM_TUNED: lambda: files.ddpm_pytorch("tuned", budget, like_ours=True, batch_size=batch),
    }


def train_and_score(
    plan: Plan,
    judge: Judge,
    name: str,
    minutes: float,
    trainee: Trainee,
    more_seconds: float,
    num_inference_steps: int = 0,
) -> dict[str, Any]:
    """Train for `more_seconds`, make images, and score them."""
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
    """Score our model's images with few steps, with many, and with guidance."""
    cases: list[tuple[str, int, float]] = [
        ("dpmpp_2m", 5, 1.0),
        ("dpmpp_2m", 10, 1.0),
        ("unipc", 10, 1.0),
        ("dpmpp_2m", OUR_STEPS, 1.0),
        ("dpmpp_2m", OUR_STEPS, guidance_of(ours)),
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


def guidance_of(ours: Ours) -> float:
    """Return what the service chose for the model, or where it chose none what shows its effect."""
    chosen = ours.state.config.guidance_scale
    return GUIDANCE if chosen == 1.0 else chosen


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
    samplers = []
    for row in measured["samplers"]:
        guided = f", guidance {row['guidance_scale']:g}" if row["guidance_scale"] != 1.0 else ""
        taken = 1e3 * row["sampling_seconds"] / measured["num_made"]
        steps = f"{row['num_inference_steps']}"
        samplers.append([f"{row['sampler']}{guided}", steps, f"{taken:.1f}", *cells(row)])
    scores = ["Frechet distance", "nearest real image", "class seen"]
    print(table(["trained", "minutes", "1000 images", "steps of sampling", *scores], rows))
    print()
    print(table(["our model at the end", "steps", "ms / image", *scores], samplers))


def cells(score: dict[str, Any]) -> list[str]:
    accuracy = score["accuracy"]
    seen = "" if accuracy is None else f"{100 * accuracy:.1f}%"
    return [f"{score['frechet']:.3f}", f"{score['nearest']:.2f}", seen]


def plot(measured: dict[str, Any], path: Path) -> None:
    """Plot both scores over minutes of training; a dashed line shows the real images."""
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
