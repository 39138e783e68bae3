"""Common parts of the training benchmarks: images, this project's training, and the peers'.

Each peer trains in a separate process. All trainees train for given numbers of seconds, and their
clocks stand still in between, so that they can take turns.
"""

import json
import subprocess
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import HERE, PEER_PYTHON
from host.devices import device_of_host
from models.diffusion.model import DiffusionModel
from models.images.dataset import Dataset, prepare
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.pipeline.torch_folder import save_model
from models.sampling.generate import sample_images
from models.training.config import TrainConfig, resolve_config
from models.training.defaults import DatasetFacts, Device
from models.training.state import TrainState
from models.training.train import train

DIGITS = HERE.parent / "examples" / "digits" / "digits.zip"
EMOJI = HERE.parent / "examples" / "emoji" / "emoji.zip"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ENDLESS = 10**8  # steps: a budget that no benchmark comes near
TOLERANCE = 1e-4  # of the largest output, between our network and the peer's with our weights

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Task:
    """Images to train on, with settings of the peers.

    `readme_dim_mults` and `dim_mults` are the levels of denoising-diffusion-pytorch's net: as in
    its README, as far as the images can be halved, and as in our net. `flip` tells whether a
    mirrored image could be a real one.
    """

    name: str
    dataset: Dataset
    flip: bool
    readme_dim_mults: tuple[int, ...]
    dim_mults: tuple[int, ...]

    @property
    def side(self) -> int:
        return int(self.dataset.images.shape[1])

    @property
    def channels(self) -> int:
        return int(self.dataset.images.shape[3])

    def config(self, *, minutes: float | None = None, **overrides: Any) -> TrainConfig:
        """Return the config that the service chooses for these images on this machine, around the
        values of fields that are given."""
        images, classes = self.dataset.images, self.dataset.class_names
        facts = DatasetFacts(len(images), self.channels, (self.side, self.side), classes)
        return resolve_config(
            facts,
            device=cast(Device, device_of_host("")),
            minutes=minutes,
            steps=None if minutes else ENDLESS,
            **overrides,
        )


def digits() -> Task:
    with tempfile.TemporaryDirectory() as scratch:
        dataset = _in_memory(prepare(DIGITS, Path(scratch) / "digits", (8, 8), 1))
    return Task("digits", dataset, False, (1, 2), (1, 2))


def emoji(side: int) -> Task:
    with tempfile.TemporaryDirectory() as scratch:
        dataset = _in_memory(prepare(EMOJI, Path(scratch) / "emoji", (side, side), 3))
    return Task(f"emoji, {side} px", dataset, False, (1, 2, 4, 8), (1, 2, 2))


def cifar(archive: Path, per_class: int) -> Task:
    """Take the first `per_class` images of each of the archive's folders, 32 pixels, RGB."""
    with tempfile.TemporaryDirectory() as scratch:
        part = Path(scratch) / "part.zip"
        with zipfile.ZipFile(archive) as source, zipfile.ZipFile(part, "w") as target:
            folders: dict[str, list[str]] = defaultdict(list)
            for name in sorted(n for n in source.namelist() if not n.endswith("/")):
                folders[name.rpartition("/")[0]].append(name)
            for names in folders.values():
                for name in names[:per_class]:
                    target.writestr(name, source.read(name))
        dataset = _in_memory(prepare(part, Path(scratch) / "cifar", (32, 32), 3))
    return Task("CIFAR", dataset, True, (1, 2, 4, 8), (1, 2, 2))


def noise_images(side: int, channels: int, count: int = 5000) -> Dataset:
    """Make random images to train on, for measurements of speed."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, side, side, channels), np.uint8)
    names = tuple(str(label) for label in range(10))
    return Dataset(images, np.arange(count, dtype=np.int64) % len(names), names)


def _in_memory(dataset: Dataset) -> Dataset:
    return replace(dataset, images=np.array(dataset.images))


# Trainees -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """The steps and images of a turn, and its duration."""

    steps: int
    images: int
    seconds: float

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds

    def __add__(self, other: "Turn") -> "Turn":
        return Turn(
            self.steps + other.steps, self.images + other.images, self.seconds + other.seconds
        )


class Trainee(Protocol):
    """A contender; `num_operations` is of one image's forward pass, `trained` sums up its turns."""

    num_parameters: int
    num_operations: int
    images_per_step: int
    trained: Turn

    def train(self, seconds: float) -> Turn:
        """Take steps until `seconds` have passed, at least one, or until a given budget is used."""
        ...

    def sample(self, labels: Sequence[int], num_inference_steps: int) -> Pixels:
        """Make images (N, H, W, C) with the averaged weights; labels are used if it has classes."""
        ...

    def close(self) -> None: ...


class Ours:
    """This project's training (models.training.train), in this process."""

    def __init__(self, task: Task, config: TrainConfig) -> None:
        self.state = TrainState.create(config, task.dataset, DEVICE)
        self._steps = train(self.state, task.dataset)
        self.num_parameters = sum(p.numel() for p in self.state.model.net.parameters())
        self.num_operations = count_operations(self.state.model)
        self.images_per_step = config.batch_size
        self.trained = Turn(0, 0, 0.0)

    def train(self, seconds: float) -> Turn:
        steps, started, past = 0, time.perf_counter(), 0.0
        for _ in self._steps:
            steps += 1
            past = time.perf_counter() - started
            if past >= seconds and self.state.config.minutes is None:
                break
        turn = Turn(steps, steps * self.images_per_step, past)
        self.trained += turn
        return turn

    def sample(self, labels: Sequence[int], num_inference_steps: int) -> Pixels:
        return self.sample_by("dpmpp_2m", labels, num_inference_steps)

    def sample_by(
        self,
        sampler: str,
        labels: Sequence[int],
        num_inference_steps: int,
        guidance_scale: float = 1.0,
    ) -> Pixels:
        return sample_images(
            self.state.ema_model(),
            seed=1,
            num_images=len(labels),
            labels=labels,
            sampler=sampler,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        )

    def close(self) -> None:
        pass


class Peer:
    """A trainer of `peers/` with the peers' packages; it reads lines of JSON (peers/trainee.py)."""

    def __init__(self, script: str, *, budget: float, **arguments: object) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  lives as long as the process
        self._process = subprocess.Popen(
            [PEER_PYTHON, HERE / "peers" / script, json.dumps({"budget": budget, **arguments})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        facts = self._answer()
        self.num_parameters = int(facts["num_parameters"])
        self.num_operations = int(facts["num_operations"])
        self.images_per_step = int(facts["images_per_step"])
        self.trained = Turn(0, 0, 0.0)

    def train(self, seconds: float) -> Turn:
        answer = self._request(train=seconds)
        turn = Turn(int(answer["steps"]), int(answer["images"]), answer["seconds"])
        self.trained += turn
        return turn

    def sample(self, labels: Sequence[int], num_inference_steps: int) -> Pixels:
        with tempfile.NamedTemporaryFile(suffix=".npy") as file:
            numbers = [int(label) for label in labels]
            self._request(sample=file.name, labels=numbers, num_inference_steps=num_inference_steps)
            return np.asarray(np.load(file.name))

    def check(self, weights: Path, inputs: str, output: str) -> None:
        self._request(weights=str(weights), inputs=inputs, output=output)

    def close(self) -> None:
        self._process.communicate()  # closes its input, at which it exits
        self._log.close()

    def _request(self, **request: object) -> dict[str, float]:
        requests = self._process.stdin
        assert requests is not None
        requests.write(json.dumps(request) + "\n")
        requests.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        answers = self._process.stdout
        assert answers is not None
        line = answers.readline()
        if not line:
            self._log.seek(0)
            raise RuntimeError(f"{self._process.args!r} ended: {self._log.read()[-2000:]}")
        answer: dict[str, float] = json.loads(line)
        return answer


def count_operations(model: DiffusionModel) -> int:
    """Count an image's operations in convolutions and matrix products; a multiply-add is two."""
    height, width = model.config.image_size
    x = torch.zeros(1, model.config.net.in_channels, height, width, device=model.device)
    t = torch.zeros(1, device=model.device)
    label = t.long() if model.config.class_names else None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.net(x, t, label)
    return int(counter.get_total_flops())


# Peers --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Files:
    """Files for the peers' processes: the images in folders by class, and our net as a diffusers
    model, with classes and without."""

    task: Task
    images: Path
    conditional: Path
    unconditional: Path
    num_parameters: int
    bfloat16: bool  # the precision of ours, else float32

    def diffusers(
        self,
        settings: str,
        budget: float,
        *,
        conditional: bool,
        batch_size: int | None = None,
        compiled: bool = False,
    ) -> Peer:
        net = self.conditional if conditional else self.unconditional
        return Peer(
            "train_diffusers.py",
            budget=budget,
            images=str(self.images),
            net=str(net / "unet"),
            settings=settings,
            flip=self.task.flip,
            bfloat16=self.bfloat16,
            batch_size=batch_size,
            compiled=compiled,
        )

    def ddpm_pytorch(
        self, settings: str, budget: float, *, like_ours: bool, batch_size: int | None = None
    ) -> Peer:
        """Start the trainer; `like_ours` gives its net about our number of parameters."""
        task = self.task
        return Peer(
            "train_ddpm_pytorch.py",
            budget=budget,
            images=str(self.images),
            size=task.side,
            channels=task.channels,
            dim_mults=task.dim_mults if like_ours else task.readme_dim_mults,
            parameters=self.num_parameters if like_ours else None,
            settings=settings,
            flip=task.flip,
            bfloat16=self.bfloat16,
            batch_size=batch_size,
        )


@contextmanager
def files_of(task: Task, config: TrainConfig) -> Iterator[Files]:
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        _write_images(task.dataset, images)
        folders = {}
        for conditional in (True, False):
            folders[conditional] = Path(scratch) / f"net-{conditional}"
            save_model(_random_model(config, conditional), folders[conditional], {})
        count = sum(p.numel() for p in UNet(config.net).parameters())
        bfloat16 = config.precision == "bfloat16"
        yield Files(task, images, folders[True], folders[False], count, bfloat16)


def _write_images(dataset: Dataset, folder: Path) -> None:
    for i, (image, label) in enumerate(
        zip(np.asarray(dataset.images), dataset.labels, strict=True)
    ):
        path = folder / f"{label:03}" / f"{i:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(path)


def _random_model(config: TrainConfig, conditional: bool) -> DiffusionModel:
    net: UNetConfig = config.net
    if not conditional:
        net = replace(net, num_class_embeds=None)
        config = replace(config, net=net, class_names=())
    torch.manual_seed(0)
    own = UNet(net)
    torch.nn.init.normal_(own.conv_out.weight, std=0.02)  # a fresh one outputs 0 for every input
    return DiffusionModel(config.model_config(0.5), own)


def check_same_net(peer: Peer, files: Files, config: TrainConfig) -> None:
    """Raise AssertionError if diffusers' network differs from ours with the same weights."""
    model = _random_model(config, conditional=True)
    model.net.eval()
    torch.manual_seed(1)
    x = torch.randn(4, config.channels, *config.image_size)
    c_noise, labels = torch.tensor([0.0, 3.0, 250.0, 999.0]), torch.arange(4)
    with tempfile.NamedTemporaryFile(suffix=".npz") as inputs, torch.no_grad():
        np.savez(inputs, x=x.numpy(), c_noise=c_noise.numpy(), labels=labels.numpy())
        inputs.flush()
        with tempfile.NamedTemporaryFile(suffix=".npy") as output:
            peer.check(files.conditional / "unet", inputs.name, output.name)
            theirs = np.load(output.name)
        ours = model.net(x, c_noise, labels).numpy()
    error = float(np.abs(ours - theirs).max() / np.abs(ours).max())
    if not error <= TOLERANCE:
        raise AssertionError(f"the networks are {error} of the largest output apart")
