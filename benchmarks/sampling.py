"""Common parts of the sampling benchmarks: nets, this service, diffusers, and checks of images.

The service runs with one of the nets; diffusers runs without a server. Weights are random, since
speed does not depend on them. The prediction is v, with which a random net gives images that are
neither black nor white, so that comparing them is meaningful.
"""

import base64
import io
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from benchmarks.common import HERE, PEER_PYTHON, Server, free_port, server
from models.diffusion.config import ModelConfig
from models.diffusion.model import DiffusionModel
from models.diffusion.noise import normal
from models.diffusion.schedule import ScheduleConfig
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.pipeline.archive import write_model_archive
from models.pipeline.torch_folder import load_model, save_model
from models.sampling.generate import sample_images

CONFIGS = {
    "8 px": ModelConfig(UNetConfig.small((8, 8), 1, 0), ScheduleConfig(), "v", 0.5, (8, 8)),
    "32 px": ModelConfig(
        UNetConfig(
            block_out_channels=(64, 128, 128),
            layers_per_block=2,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        ),
        ScheduleConfig(),
        "v",
        0.5,
        (32, 32),
    ),
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CHECKED_SEED = 7
PEERS_TOLERANCE = 4 if DEVICE == "cuda" else 2  # grey levels; torch rounds to 10 bits on a GPU
MEAN_TOLERANCE = 2.0  # grey levels, of images in the service's own precision

Pixels = NDArray[np.uint8]
Network = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Net:
    """A net of CONFIGS, saved as a diffusers folder."""

    name: str
    folder: Path
    num_parameters: int

    def load(self) -> DiffusionModel:
        # As the service computes float32.
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
        return load_model(self.folder, DEVICE)

    def __str__(self) -> str:
        return f"{self.name}, {self.num_parameters / 1e6:.1f}M parameters"


@contextmanager
def random_net(name: str) -> Iterator[Net]:
    """Save a net of CONFIGS with random weights as a diffusers folder, the same at every call."""
    torch.manual_seed(0)
    net = UNet(CONFIGS[name].net)
    fan_in = net.conv_out.weight[0].numel()
    nn.init.normal_(net.conv_out.weight, std=fan_in**-0.5)  # a fresh one outputs 0 for every input
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "net"
        save_model(DiffusionModel(CONFIGS[name], net), folder, {})
        yield Net(name, folder, sum(p.numel() for p in net.parameters()))


@contextmanager
def our_service(net: Net, **variables: str) -> Iterator[Server]:
    """Run the service with the net under the name in `body`."""
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as data_dir,
        server(
            [sys.executable, "-m", "app.up"],
            port,
            "/readyz",
            DIFFUSION_DATA_DIR=data_dir,
            DIFFUSION_PORT=str(port),
            **variables,
        ) as running,
    ):
        archive = Path(data_dir) / "net.zip"
        write_model_archive(net.folder, archive)
        request = urllib.request.Request(
            f"{running.base}/models/net", archive.read_bytes(), method="PUT"
        )
        urllib.request.urlopen(request, timeout=60).close()
        yield running


def body(num_inference_steps: int, seed: int, **more: object) -> bytes:
    """Build the JSON of a request for this service; the peers read two of its fields."""
    settings = {"model": "net", "sampler": "ddim", "num_inference_steps": num_inference_steps}
    return json.dumps({**settings, "seed": seed, **more}).encode()


def post(url: str, content: bytes, accept: str = "image/png") -> bytes:
    headers = {"Content-Type": "application/json", "Accept": accept}
    with urllib.request.urlopen(
        urllib.request.Request(url, content, headers), timeout=600
    ) as answer:
        return bytes(answer.read())


def offline(model: DiffusionModel, num_images: int, num_inference_steps: int, seed: int) -> Pixels:
    """Make the same images by the sampling loop alone, (N, H, W, C)."""
    return sample_images(
        model,
        num_images=num_images,
        seed=seed,
        sampler="ddim",
        num_inference_steps=num_inference_steps,
    )


class Pipeline:
    """diffusers' DDIMPipeline in a separate process, with the peers' packages."""

    def __init__(self, net: Net, *, compiled: bool = False) -> None:
        self._process = subprocess.Popen(
            [PEER_PYTHON, HERE / "peers" / "pipeline_process.py"],
            env={**os.environ, "MODEL_FOLDER": str(net.folder), "COMPILED": "1" * compiled},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, at which it exits

    def images(self, seeds: Sequence[int], num_inference_steps: int) -> Pixels:
        return self._pixels(seeds=list(seeds), num_inference_steps=num_inference_steps)

    def images_from(self, noise: torch.Tensor, num_inference_steps: int) -> Pixels:
        """Make images from the noise x_T (N, C, H, W)."""
        with tempfile.NamedTemporaryFile(suffix=".npy") as file:
            np.save(file.name, noise.numpy())
            return self._pixels(noise=file.name, num_inference_steps=num_inference_steps)

    def seconds(self, num_images: int, num_inference_steps: int) -> float:
        """Return the seconds of a call of the pipeline, measured in its process."""
        seeds = list(range(num_images))
        answer = self._request(seeds=seeds, num_inference_steps=num_inference_steps)
        return float(answer["seconds"])

    def _pixels(self, **request: object) -> Pixels:
        answer = self._request(**request)
        pixels = np.frombuffer(base64.b64decode(answer["pixels"]), np.uint8)
        return pixels.reshape(answer["shape"])

    def _request(self, **request: object) -> dict[str, Any]:
        requests, answers = self._process.stdin, self._process.stdout
        assert requests is not None
        assert answers is not None
        requests.write(json.dumps(request) + "\n")
        requests.flush()
        answer: dict[str, Any] = json.loads(answers.readline())
        return answer


# Checks of images ---------------------------------------------------------------------------------


def check_ours(url: str, model: DiffusionModel, num_inference_steps: int) -> None:
    """Check that POST /sample gives the pixels of the sampling loop.

    In float32 they are at most one grey level off, in the precision that the service chooses
    MEAN_TOLERANCE in the mean.
    """
    expected = offline(model, 4, num_inference_steps, CHECKED_SEED)
    for precision in ("float32", "auto"):
        content = body(num_inference_steps, CHECKED_SEED, num_images=4, precision=precision)
        answer = json.loads(post(url, content, "application/json"))
        served = np.stack([decode(base64.b64decode(image)) for image in answer["images"]])
        what = f"POST /sample, {num_inference_steps} steps, {precision}"
        if precision == "float32":
            compare(what, served, expected, 1)
        off = np.abs(served.reshape(expected.shape).astype(int) - expected).mean()
        if off > MEAN_TOLERANCE:
            raise AssertionError(f"{what}: {off} grey levels off; {MEAN_TOLERANCE} are allowed")


def check_pipeline(pipeline: Pipeline, model: DiffusionModel, num_inference_steps: int) -> None:
    """Check that diffusers makes the same images from the same noise, within PEERS_TOLERANCE."""
    shape = (model.config.net.in_channels, *model.config.image_size)
    noise = normal(CHECKED_SEED, torch.arange(4), 0, shape)
    theirs = pipeline.images_from(noise, num_inference_steps)
    expected = offline(model, 4, num_inference_steps, CHECKED_SEED)
    compare(f"diffusers, {num_inference_steps} steps", theirs, expected, PEERS_TOLERANCE)


def decode(image: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(image)))


def compare(what: str, found: Pixels, expected: Pixels, tolerance: int) -> None:
    """Raise AssertionError if a pixel is more than `tolerance` grey levels off."""
    off = int(np.abs(found.reshape(expected.shape).astype(int) - expected.astype(int)).max())
    if off > tolerance:
        raise AssertionError(f"{what}: {off} grey levels off; at most {tolerance} are allowed")
    if expected.std() < 10 or np.isin(expected, (0, 255)).mean() > 0.5:
        raise AssertionError(f"{what}: the images have too little contrast to compare them")
