"""Variants of our own training after equal minutes: what docs/recipes.md is made of.

    python -m benchmarks.recipes emoji --minutes 25 today= wide='{"batch_size": 64}'
    python -m benchmarks.recipes photographs --archive cifar10-train.zip --seeds 3 today= ...

A variant is a name and, as JSON, the fields of models.training.config.TrainConfig in which it
differs from what the service chooses. The variants take turns, for one seed after another, each
with the whole machine; the scores are those of benchmarks.quality, without guidance and with it.
Each run is printed as a line of JSON when it is done, and at the end a table has the means over
the seeds, with their standard deviations.
"""

import argparse
import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common import table
from benchmarks.quality import OUR_STEPS, Judge, Plan, guidance_of
from benchmarks.training import Ours, Task, cifar, digits, emoji

PER_CLASS = 500  # photographs
NUM_IMAGES = 1000  # that are scored
Run = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", choices=["digits", "emoji", "emoji-64", "photographs"])
    parser.add_argument("variants", nargs="+", help="NAME=JSON, for all as chosen NAME=")
    parser.add_argument("--archive", type=Path, help="of the photographs, in folders by class")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--num-images", type=int, default=NUM_IMAGES)
    options = parser.parse_args()
    variants = {
        name: json.loads(fields or "{}")
        for name, _, fields in (each.partition("=") for each in options.variants)
    }
    task = task_of(options.images, options.archive)
    features = "pixels" if options.images == "digits" else "classifier"
    plan = Plan(task, features, (options.minutes,), options.num_images, 0)
    judge, runs = Judge(plan), []
    print(json.dumps({"real": asdict(judge.real)}), flush=True)
    for seed in range(options.seeds):
        for name, fields in variants.items():
            run = {"variant": name, "seed": seed, **measure(plan, judge, {**fields, "seed": seed})}
            print(json.dumps(run), flush=True)
            runs.append(run)
    report(list(variants), runs)


def task_of(images: str, archive: Path | None) -> Task:
    if images == "photographs":
        if archive is None:
            sys.exit("photographs need --archive")
        return cifar(archive, PER_CLASS)
    return digits() if images == "digits" else emoji(64 if images == "emoji-64" else 32)


def measure(plan: Plan, judge: Judge, fields: dict[str, Any]) -> Run:
    """Train once, and return the scores."""
    (minutes,) = plan.minutes
    trainee = Ours(plan.task, plan.task.config(minutes=minutes, **fields))
    turn = trainee.train(60 * minutes)
    plain, guided = (
        judge.score(trainee.sample_by("dpmpp_2m", plan.labels, OUR_STEPS, guidance), plan.labels)
        for guidance in (1.0, guidance_of(trainee))
    )
    return {
        "steps": turn.steps,
        "images_per_second": round(turn.images_per_second, 1),
        "parameters": trainee.num_parameters,
        "frechet": plain.frechet,
        "class_seen": plain.accuracy,
        "nearest": plain.nearest,
        "guided_frechet": guided.frechet,
        "guided_class_seen": guided.accuracy,
    }


def report(variants: list[str], runs: list[Run]) -> None:
    columns = {
        "steps": "steps",
        "images_per_second": "images/s",
        "frechet": "Frechet",
        "class_seen": "class seen",
        "nearest": "nearest",
        "guided_frechet": "guided Frechet",
        "guided_class_seen": "guided class",
    }
    rows = [
        [name, *(spread([run[of] for run in runs if run["variant"] == name]) for of in columns)]
        for name in variants
    ]
    print(table(("variant", *columns.values()), rows))


def spread(values: list[float]) -> str:
    """Return the mean, and the standard deviation where there are several."""
    mean = statistics.mean(values)
    if len(values) == 1:
        return f"{mean:.3g}"
    return f"{mean:.3g} ± {statistics.stdev(values):.2g}"


if __name__ == "__main__":
    main()
