"""Requests per second of POST /noise, beside FastAPI + diffusers and the limit of the cores.

`bare` decodes, adds noise and encodes with the service's own functions in one process per core,
without anything between the picture and the answer: the limit of any server on these cores.
"""

import io
import multiprocessing
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from app.noise.answer import answer
from app.noise.schema import NoiseForm
from app.settings import Settings
from benchmarks.common import (
    HERE,
    PEER_PYTHON,
    RESULTS,
    Server,
    cpu_seconds,
    free_port,
    in_turn,
    ratio,
    save,
    server,
    table,
)
from benchmarks.load import requests_per_second
from host.environment import read_settings
from models.diffusion.noise import normal

SIZES = (32, 64, 128, 256, 512)
CLIENTS = 16
ROUNDS = 5
SECONDS = 1.5
T = 500
SEED = 1
OURS, ALONE, PLAIN, TUNED, BARE = (
    "this service",
    "FastAPI + diffusers, one process",
    "a process per core",
    "a process per core, tuned",
    "bare",
)
BOUNDARY = "c0ffee"

FloatArray = NDArray[np.float64]


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    with ExitStack() as stack:
        data_dir = stack.enter_context(tempfile.TemporaryDirectory())
        port = free_port()
        ours = stack.enter_context(
            server(
                [sys.executable, "-m", "app.up"],
                port,
                "/readyz",
                DIFFUSION_DATA_DIR=data_dir,
                DIFFUSION_PORT=str(port),
            )
        )
        alone = stack.enter_context(peer_service())
        peer = stack.enter_context(
            peer_service("--workers", str(cores), "--no-access-log", OMP_NUM_THREADS="1")
        )
        bare = stack.enter_context(Bare(cores))
        sizes = []
        for size in SIZES:
            image = photograph(size)
            addresses = {
                OURS: f"{ours.base}/noise",
                ALONE: f"{alone.base}/plain/noise",
                PLAIN: f"{peer.base}/plain/noise",
                TUNED: f"{peer.base}/tuned/noise",
            }
            check(image, addresses)
            spent = dict.fromkeys((PLAIN, TUNED), peer.cpu_seconds)
            spent |= {OURS: ours.cpu_seconds, ALONE: alone.cpu_seconds, BARE: bare.cpu_seconds}
            rates: dict[str, Callable[[], float]] = {
                name: partial(serve, url, image) for name, url in addresses.items()
            }
            rates[BARE] = partial(bare.per_second, image)
            for rate in rates.values():  # warm up
                rate()
            cpu: dict[str, list[float]] = {name: [] for name in rates}
            contenders = {
                name: partial(with_cpu, rate, spent[name], cpu[name])
                for name, rate in rates.items()
            }
            figures = in_turn(contenders, ROUNDS)
            sizes.append({"size": size, "requests_per_second": figures, "cpu_milliseconds": cpu})
            print(f"{size} px measured", file=sys.stderr)
    report(sizes)


def peer_service(*options: str, **variables: str) -> AbstractContextManager[Server]:
    port, where = free_port(), HERE / "peers"
    command: list[str | Path] = [PEER_PYTHON, "-m", "uvicorn", "noise_service:app", *options]
    return server([*command, "--app-dir", where, "--port", str(port)], port, "/docs", **variables)


def photograph(size: int) -> bytes:
    """Make a PNG with the spectrum of photographs (amplitude 1 / frequency).

    The spectrum determines the time that decoding takes.
    """
    random = np.random.default_rng(size)
    fy, fx = np.fft.fftfreq(size)[:, None, None], np.fft.fftfreq(size)[None, :, None]
    amplitude = 1 / np.maximum(np.hypot(fy, fx), 1 / size)
    phases = random.uniform(0, 2 * np.pi, (size, size, 3))
    waves = np.fft.ifft2(amplitude * np.exp(1j * phases), axes=(0, 1)).real
    pixels = np.clip(127.5 + 50 * waves / waves.std(), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def form(image: bytes) -> bytes:
    """Build the body of a request, which every contender accepts."""
    fields = [(b'name="t"', str(T).encode()), (b'name="seed"', str(SEED).encode())]
    fields.append((b'name="image"; filename="image.png"', image))
    parts = [
        b"--%b\r\nContent-Disposition: form-data; %b\r\n\r\n%b\r\n" % (BOUNDARY.encode(), *field)
        for field in fields
    ]
    return b"".join(parts) + b"--%b--\r\n" % BOUNDARY.encode()


def serve(url: str, image: bytes) -> float:
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    return requests_per_second(url, form(image), content_type, CLIENTS, SECONDS)


def with_cpu(
    rate: Callable[[], float], cpu_seconds: Callable[[], float], milliseconds: list[float]
) -> float:
    """Measure the rate of one turn; append the server's CPU time per request to the list."""
    before = cpu_seconds()
    requests_per_second = rate()
    spent = cpu_seconds() - before
    milliseconds.append(1000 * spent / (requests_per_second * SECONDS))
    return requests_per_second


def post(url: str, image: bytes) -> bytes:
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    with urllib.request.urlopen(
        urllib.request.Request(url, form(image), headers), timeout=60
    ) as response:
        return bytes(response.read())


def check(image: bytes, addresses: Mapping[str, str]) -> None:
    """Raise AssertionError if an answer is wrong.

    Our picture must be exactly alpha x_0 + sigma noise with the noise of its seed. The peer's must
    have the same mean, standard deviation and correlation with the clean image.
    """
    x_0, x_t = pixels(image), pixels(post(addresses[OURS], image))
    abar = np.prod(1 - np.linspace(1e-4, 0.02, 1000)[:T])
    shape = (3, *x_0.shape[:2])
    noise = normal(SEED, torch.zeros(1, dtype=torch.int64), 0, shape)[0].permute(1, 2, 0).numpy()
    exact = np.sqrt(abar) * (x_0 - 127.5) + np.sqrt(1 - abar) * noise * 127.5 + 127.5
    off = np.abs(np.clip(exact, 0, 255) - x_t).max()
    if off > 0.51:
        raise AssertionError(f"POST /noise is {off} grey levels off")
    for name in (ALONE, PLAIN, TUNED):
        theirs = pixels(post(addresses[name], image))
        likeness = partial(correlation, x_0)
        for what, figure in (("mean", np.mean), ("deviation", np.std), ("correlation", likeness)):
            if not np.isclose(figure(theirs), figure(x_t), rtol=0.1, atol=0.05):
                raise AssertionError(f"{name}: {what} {figure(theirs)}, ours {figure(x_t)}")


def pixels(image: bytes) -> FloatArray:
    return np.asarray(Image.open(io.BytesIO(image)), np.float64)


def correlation(x_0: FloatArray, x_t: FloatArray) -> float:
    return float(np.corrcoef(x_0.ravel(), x_t.ravel())[0, 1])


class Bare:
    """Processes that repeatedly decode, add noise to and encode one picture, all at once."""

    def __init__(self, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes = []
        self._processes = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_repeat, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> "Bare":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()

    def cpu_seconds(self) -> float:
        return cpu_seconds([int(process.pid or 0) for process in self._processes])

    def per_second(self, image: bytes) -> float:
        for pipe in self._pipes:
            pipe.send(image)
        return sum(float(pipe.recv()) for pipe in self._pipes)


def _repeat(pipe: Connection) -> None:
    torch.set_num_threads(1)
    settings = read_settings(Settings)
    while True:
        image = pipe.recv()
        request = NoiseForm.model_validate({"image": image, "t": [str(T)], "seed": SEED})
        count, started = 0, time.perf_counter()
        while time.perf_counter() < started + SECONDS:
            answer(request, "image/png", settings)
            count += 1
        pipe.send(count / (time.perf_counter() - started))


def report(sizes: list[dict[str, Any]]) -> None:
    names = (OURS, ALONE, PLAIN, TUNED, BARE)
    rates, costs = [], []
    for entry in sizes:
        size = f"{entry['size']} px"
        figures, cpu = entry["requests_per_second"], entry["cpu_milliseconds"]
        entry["ratio_to"] = {name: ratio(figures, OURS, name) for name in names[1:]}
        ratios = [f"{value:.2f}" for value in entry["ratio_to"].values()]
        rates.append([size, *(f"{median(figures[name]):.0f}" for name in names), *ratios])
        entry["cpu_ratio_of"] = {name: ratio(cpu, name, OURS) for name in names[1:]}
        ratios = [f"{value:.2f}" for value in entry["cpu_ratio_of"].values()]
        costs.append([size, *(f"{median(cpu[name]):.2f}" for name in names), *ratios])
    save("noise", {"clients": CLIENTS, "rounds": ROUNDS, "seconds": SECONDS, "sizes": sizes})
    ours_to = ["ours to one process", "to one per core", "to tuned", "to bare"]
    header = ["requests / s", *names, *ours_to]
    print(table(header, rates), end="\n\n")
    to_ours = ["one process to ours", "one per core to ours", "tuned to ours", "bare to ours"]
    header = ["CPU ms / request", *names, *to_ours]
    print(table(header, costs))
    plot(sizes, RESULTS / "noise.png")


def plot(sizes: list[dict[str, Any]], path: Path) -> None:
    matplotlib.use("Agg")
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, style in ((OURS, "o-"), (ALONE, "v--"), (PLAIN, "s--"), (TUNED, "^--"), (BARE, ":")):
        rates = np.array([entry["requests_per_second"][name] for entry in sizes])
        middle = np.median(rates, axis=1)
        line = axes.loglog([entry["size"] for entry in sizes], middle, style, label=name)[0]
        x = [entry["size"] for entry in sizes]
        axes.fill_between(x, rates.min(1), rates.max(1), color=line.get_color(), alpha=0.15, lw=0)
    axes.set(xlabel="side of the image, pixels", ylabel="requests per second")
    axes.set_title(
        f"POST /noise, {CLIENTS} clients: median and range of {ROUNDS} turns", fontsize=11
    )
    axes.set_xticks(SIZES, [str(size) for size in SIZES])
    axes.minorticks_off()
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
