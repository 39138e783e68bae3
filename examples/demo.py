"""New emoji of the model that the service begins with, then the whole loop on the digits, over
HTTP: noise, upload, train, sample, and a score.

`make demo` runs it with a minute of training, `make demo MINUTES=3` with three. It starts its own
service in demo/data, or uses the one at DIFFUSION_URL, and writes emoji.png, noise.png, loss.png
and samples.png to demo/.

The score consists of the share of samples in which a classifier of real digits sees the requested
digit, the Frechet distance of the samples' pixels to those of the real digits, and the median
distance of a sample to the nearest real digit, which is small if the model has memorised digits.
"""

import io
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC

from models.evaluation.distances import frechet_distance, nearest

HERE = Path(__file__).parent
OUT = Path("demo")
ARCHIVE = HERE / "digits" / "digits.zip"
MINUTES = float(os.environ.get("MINUTES") or 1)
PER_CLASS = 100
GUIDANCE = 1.1  # 1.5 shows the class more clearly, with less variety
SCALE = 8  # magnification of the pictures of 8 x 8 pixels


def main() -> None:
    OUT.mkdir(exist_ok=True)
    with service(OUT) as url, httpx.Client(base_url=url, timeout=120) as client:
        print(f"service at {url}")
        draw_emoji(client)
        draw_noise(client)
        upload(client)
        job = train(client)
        draw_loss(client, job["id"])
        score(client, job["model_name"])
    print(f"pictures are in {OUT}/")


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """Yield DIFFUSION_URL, or the address of a new service with its state in the folder."""
    if url := os.environ.get("DIFFUSION_URL"):
        yield url
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "DIFFUSION_PORT": str(port),
        "DIFFUSION_DATA_DIR": str(folder / "data"),
    }
    with (folder / "service.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.up"], env=environment, stdout=log, stderr=log
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, process, folder)
            yield url
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]", folder: Path) -> None:
    for _ in range(120):
        if process.poll() is not None:
            sys.exit(f"the service did not start; see {folder}/service.log")
        try:
            components = httpx.get(f"{url}/readyz").json()["components"].values()
            if all(component["status"] == "up" for component in components):
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    sys.exit(f"the service was not ready within a minute; see {folder}/service.log")


def draw_emoji(client: httpx.Client) -> None:
    """Draw a row of each class but the symbols; a service that had other models has none."""
    model = client.get("/models/emoji")
    if model.is_success:
        names = [name for name in model.json()["details"]["class_names"] if name != "symbols"]
        labels = [name for name in names for _ in names]
        request = {"model": "emoji", "num_images": len(labels), "class_label": labels, "seed": 1}
        request["guidance_scale"] = 2.0
        answer = client.post("/sample", json=request, headers={"Accept": "image/png"})
        (OUT / "emoji.png").write_bytes(answer.raise_for_status().content)


def draw_noise(client: httpx.Client) -> None:
    with zipfile.ZipFile(ARCHIVE) as archive:
        digit = Image.open(io.BytesIO(archive.read("3/0000.png")))
    buffer = io.BytesIO()
    digit.resize((64, 64), Image.Resampling.NEAREST).save(buffer, "PNG")
    ladder = client.post(
        "/noise",
        files={"image": buffer.getvalue()},
        data={"t": [0, 50, 100, 200, 300, 500, 700, 1000], "seed": 1},
    ).raise_for_status()
    (OUT / "noise.png").write_bytes(ladder.content)


def upload(client: httpx.Client) -> None:
    dataset = client.put("/datasets/digits", content=ARCHIVE.read_bytes()).raise_for_status().json()
    print(f"dataset digits: {dataset['num_images']} images, {len(dataset['classes'])} classes")


def train(client: httpx.Client, preset: str = "edm") -> dict[str, str]:
    request = {"dataset": "digits", "preset": preset, "minutes": MINUTES}
    job = client.post("/train-jobs", json=request).raise_for_status().json()
    print(f"job {job['id']} trains for {MINUTES:g} minutes")
    while not job["done"]:
        time.sleep(2)
        job = client.get(f"/train-jobs/{job['id']}").raise_for_status().json()
        if now := job["progress"]:
            print(
                f"\r  {now['progress']:4.0%}  step {now['step']}  loss {now['loss']:.3f}  "
                f"{now['images_per_second']:.0f} images/s  {now['eta_seconds']:.0f} s left ",
                end="",
                flush=True,
            )
    print()
    if job["status"] != "succeeded":
        sys.exit(f"the job {job['status']}: {job['error']}")
    return dict(job)


def draw_loss(client: httpx.Client, job_id: str) -> None:
    lines = client.get(f"/train-jobs/{job_id}/metrics").raise_for_status().json()["steps"]
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([line["step"] for line in lines], [line["loss"] for line in lines], linewidth=1)
    axes.set(xlabel="optimiser step", ylabel="loss")
    axes.spines[["top", "right"]].set_visible(False)
    FigureCanvasAgg(figure).print_png(OUT / "loss.png")


def score(client: httpx.Client, model: str) -> None:
    """Print the scores of samples, beside those of held-out real digits."""
    real = load_digits()
    order = np.random.default_rng(0).permutation(len(real.data))
    cut = int(0.7 * len(order))
    classifier = SVC().fit(real.data[order[:cut]], real.target[order[:cut]])
    on_real = classifier.score(real.data[order[cut:]], real.target[order[cut:]])

    images, labels = [], []
    for start in range(0, PER_CLASS, 5):
        requested = [digit for digit in range(10) for _ in range(5)]
        images.append(sample(client, model, requested, seed=start))
        labels += requested
    made = np.concatenate(images)
    flat = made.reshape(len(made), -1) / 255 * 16
    on_made = classifier.score(flat, labels)
    known, unseen = (pixels(real.data[part]) for part in (order[:cut], order[cut:]))
    every, mine = pixels(real.data), pixels(flat)
    print(f"{len(made)} samples, and in parentheses {len(unseen)} held-out real digits:")
    print(f"  the classifier agrees on {on_made:.1%} ({on_real:.1%})")
    distance = frechet_distance(every, mine)
    print(
        f"  Frechet distance of the pixels {distance:.2f} ({frechet_distance(known, unseen):.2f})"
    )
    print(
        f"  median distance to the nearest real digit {nearest_median(every, mine):.2f} "
        f"({nearest_median(known, unseen):.2f})"
    )
    shown = np.concatenate([made[start::5][:10] for start in range(5)])  # 5 rows of 0..9
    framed = np.pad(shown, ((0, 0), (1, 1), (1, 1))).reshape(5, 10, 10, 10)
    sheet = framed.transpose(0, 2, 1, 3).reshape(50, 100)
    Image.fromarray(sheet).resize((100 * SCALE, 50 * SCALE), Image.Resampling.NEAREST).save(
        OUT / "samples.png"
    )


def pixels(values: np.ndarray) -> np.ndarray:
    """Scale values from scikit-learn's 0..16 to [-1, 1]."""
    return values / 8 - 1


def nearest_median(known: np.ndarray, others: np.ndarray) -> float:
    return float(np.median(nearest(known, others)[1]))


def sample(client: httpx.Client, model: str, labels: list[int], seed: int) -> np.ndarray:
    request = {
        "model": model,
        "num_images": len(labels),
        "class_label": labels,
        "guidance_scale": GUIDANCE,
        "seed": seed,
    }
    answer = client.post("/sample", json=request, headers={"Accept": "application/zip"})
    with zipfile.ZipFile(io.BytesIO(answer.raise_for_status().content)) as archive:
        return np.stack(
            [np.asarray(Image.open(io.BytesIO(archive.read(n)))) for n in archive.namelist()]
        )


if __name__ == "__main__":
    main()
