"""A large run on your own archive of images, from the upload to a score.

    python examples/train_archive.py ARCHIVE --minutes 25 --out demo/cifar

starts its own service in the output folder, or uses the one at DIFFUSION_URL. It uploads the
archive, trains for the given minutes on the workers' device, evaluates the model, and writes
samples.png (a row for each of the first ten classes), neighbours.png and report.json: images per
second, the share of the machine's measured peak of matrix products, and the distances beside those
of real images.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.nets.config import UNetConfig
from models.nets.unet import UNet

from demo import service

PER_CLASS = 10
PEAK_SECONDS = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--num-images", type=int, help="images to make for the score")
    parser.add_argument("--out", type=Path, default=Path("demo/archive"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with service(options.out) as url, httpx.Client(base_url=url, timeout=600) as client:
        dataset = upload(client, options.archive)
        job = train(client, dataset["name"], options.minutes, options.image_size)
        draw_samples(client, job, options.out / "samples.png")
        evaluation = evaluate(client, job["model_name"], options.num_images)
        neighbours = client.get(evaluation["links"]["neighbours"]).raise_for_status()
        (options.out / "neighbours.png").write_bytes(neighbours.content)
        model = client.get(f"/models/{job['model_name']}").raise_for_status().json()
    report = summary(dataset, job, model, evaluation)
    (options.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    print(f"pictures are in {options.out}/")


def upload(client: httpx.Client, archive: Path) -> dict[str, Any]:
    with archive.open("rb") as file:
        answer = client.put("/datasets/own", content=file)
    dataset: dict[str, Any] = answer.raise_for_status().json()
    print(f"{dataset['num_images']} images, {len(dataset['classes'])} classes")
    return dataset


def train(
    client: httpx.Client, dataset: str, minutes: float, image_size: int | None
) -> dict[str, Any]:
    request = {"dataset": dataset, "minutes": minutes, "image_size": image_size}
    answer = client.post("/train-jobs", json={k: v for k, v in request.items() if v is not None})
    job = finished(client, answer)
    for name, reason in job["config"]["reasons"].items():
        print(f"  {name}: {reason}")
    return job


def evaluate(client: httpx.Client, model: str, num_images: int | None) -> dict[str, Any]:
    request = {"model": model} | ({"num_images": num_images} if num_images else {})
    return finished(client, client.post("/evaluations", json=request))


def finished(client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        sys.exit(f"{answer.status_code}: {answer.text}")
    address = answer.headers["Location"]
    while not (job := client.get(address).raise_for_status().json())["done"]:
        print(f"\r  {shown(job['progress']):<100}", end="", flush=True)
        time.sleep(2)
    print()
    if job["status"] != "succeeded":
        sys.exit(f"the job {job['status']}: {job['error']}")
    return dict(job)


def shown(progress: dict[str, Any]) -> str:
    kept = ("stage", "step", "steps", "loss", "images_per_second", "eta_seconds")
    return "  ".join(f"{name} {progress[name]}" for name in kept if name in progress)


def draw_samples(client: httpx.Client, job: dict[str, Any], path: Path) -> None:
    names = job["config"]["class_names"][:10]
    request: dict[str, Any] = {"model": job["model_name"], "num_images": 60, "seed": 1}
    if names:
        labels = [i % len(names) for i in range(PER_CLASS * len(names))][:60]
        request |= {"num_images": len(labels), "class_label": labels}
    answer = client.post("/sample", json=request, headers={"Accept": "image/png"})
    path.write_bytes(answer.raise_for_status().content)


def summary(
    dataset: dict[str, Any],
    job: dict[str, Any],
    model: dict[str, Any],
    evaluation: dict[str, Any],
) -> dict[str, Any]:
    config, details = job["config"], model["details"]
    images_per_second = details["images_seen"] / details["seconds"]
    operations = 3 * images_per_second * operations_of(config)  # backward is two forwards
    peak = measured_peak(config["precision"])
    return {
        "images": dataset["num_images"],
        "minutes": config["minutes"],
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "parameters": details["num_parameters"],
        "batch_size": config["batch_size"],
        "precision": config["precision"],
        "images_per_second": round(images_per_second, 1),
        "operations_per_second": operations,
        "peak_of_products": peak,
        "share_of_peak": round(operations / peak, 3),
        "evaluation": evaluation["result"],
    }


def operations_of(config: dict[str, Any]) -> int:
    """Count the operations of one image's forward pass; a multiply-add counts as two."""
    net = UNet(UNetConfig.from_dict(config["net"]))
    x = torch.zeros(1, net.config.in_channels, *config["image_size"])
    label = torch.zeros(1, dtype=torch.int64) if net.config.num_class_embeds else None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(x, torch.zeros(1), label)
    return int(counter.get_total_flops())


def measured_peak(precision: str) -> float:
    """Measure a large product of square matrices on an idle machine, in operations a second."""
    device, side = ("cuda", 8192) if torch.cuda.is_available() else ("cpu", 2048)
    a = torch.randn(side, side, device=device, dtype=getattr(torch, precision))
    best, started = 0.0, time.perf_counter()
    while time.perf_counter() - started < PEAK_SECONDS:
        began = time.perf_counter()
        (a @ a).sum().item()  # waits for the device
        best = max(best, 2.0 * side**3 / (time.perf_counter() - began))
    return best


if __name__ == "__main__":
    main()
