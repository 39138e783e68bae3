"""One host's workers, database, artifacts and Valkey, without the HTTP server; or what several
hosts share."""

import io
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from host.environment import to_environment
from models.diffusion.config import ModelConfig
from models.diffusion.model import DiffusionModel
from models.diffusion.schedule import ScheduleConfig
from models.images.dataset import inspect_archive, open_dataset, prepare
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.pipeline.folder import weights_digest
from models.pipeline.torch_folder import save_model
from models.sampling.request import SampleRequest
from models.training.config import TrainConfig, resolve_config
from models.training.defaults import DatasetFacts
from models.training.state import TrainState
from models.training.train import train
from store.artifacts import ArtifactStore
from store.database import Database, open_database
from store.datasets import DatasetRecord, create_dataset
from store.jobs import requests
from store.jobs.record import Job
from store.locations import Locations, valkey_socket
from store.models import get_model
from store.nodes import live_nodes
from store.valkey import start_valkey
from worker.queue import make_queue, submit
from worker.train_job import LOG_EVERY

LEASE_SECONDS = 2.0
PATIENCE_SECONDS = 90.0
STEPS, CHECKPOINT_EVERY = 150, 50  # of a training that is disturbed


class Place:
    """One host's service, without the HTTP server. `shared` is what lies outside its folder."""

    def __init__(self, folder: Path, **shared: str) -> None:
        self.locations = Locations(folder, **shared)
        self.database: Database = open_database(self.locations.database_url)
        self.artifacts = ArtifactStore(self.locations.artifacts_url)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.valkey: subprocess.Popen[bytes] | None = None
        self.queue = make_queue(self.locations.redis_url)
        self.model_digest = ""  # of the model saved last
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self._add_dataset(folder)

    def start_valkey(self) -> None:
        folder = self.locations.data_dir
        self.valkey = start_valkey(folder, valkey_socket(folder))

    def start_worker(self, *kinds: str, **settings: str) -> "subprocess.Popen[bytes]":
        environment = {
            **os.environ,
            **to_environment(self.locations),
            "DIFFUSION_LEASE_SECONDS": str(LEASE_SECONDS),
            "DIFFUSION_TRAIN_NICENESS": "0",  # beside other tests it would hardly get its turn
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(self.scratch),
            **settings,
        }
        with (self.locations.data_dir / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "worker.main", *kinds],
                env=environment,
                stdout=log,
                stderr=log,
            )
        self.processes.append(worker)
        return worker

    def accept(self, steps: int | None = STEPS, minutes: float | None = None, **given: Any) -> Job:
        """What POST /train-jobs does; `given` is what its record has beside its config."""
        number = len(requests.model_names(self.database))
        job = requests.create_job(
            self.database,
            "train",
            dataset="tones",
            model_name=f"model-{number}",
            config=_config(steps, minutes).to_dict(),
            **given,
        )
        submit(self.queue, job.id, "train")
        return job

    def accept_images(self, num_images: int, num_inference_steps: int = 20, **given: object) -> Job:
        """What POST /sample does where it becomes a job."""
        request = SampleRequest(
            seed=7, num_images=num_images, num_inference_steps=num_inference_steps
        )
        config = {
            "request": request.to_dict(),
            "prefix": "models/tiny",
            "digest": self.model_digest,
            "deterministic": True,
            "precision": "float32",
            **given,
        }
        job = requests.create_job(self.database, "sample", model_name="tiny", config=config)
        submit(self.queue, job.id, "sample")
        return job

    def add_model(self, image_size: tuple[int, int] = (8, 8)) -> DiffusionModel:
        """A net with random weights among the artifacts."""
        net = UNetConfig(1, 1, block_out_channels=(8, 8), norm_num_groups=4, attention_head_dim=4)
        config = ModelConfig(net, ScheduleConfig("linear"), "epsilon", 0.5, image_size, ())
        model = DiffusionModel(config, UNet(net))
        self.save(model)
        return model

    def save(self, model: DiffusionModel) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            save_model(model, Path(scratch) / "tiny", {})
            self.model_digest = weights_digest(Path(scratch) / "tiny")
            self.artifacts.upload_folder(Path(scratch) / "tiny", "models/tiny")

    def wait(self, job: Job, until: Callable[[Job], bool]) -> Job:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not until(job := requests.get_job(self.database, job.id)):
            if time.monotonic() > deadline:
                log = (self.locations.data_dir / "worker.log").read_text()[-3000:]
                pytest.fail(f"job is {job.status} at {job.progress} after a long wait; {log}")
            time.sleep(0.05)
        return job

    def finish(self, job: Job) -> str:
        """The digest of the finished model's weights."""
        job = self.wait(job, lambda j: j.done)
        assert job.status == "succeeded", job.error_message
        return get_model(self.database, job.model_name).digest

    def workers_on(self, job: Job) -> list[int]:
        """The processes at work on it."""
        return self.processes_on(job, f"worker.{job.kind}_job")

    def processes_on(self, job: Job, module: str) -> list[int]:
        return [pid for pid, line in _command_lines() if f"{module} {job.id}" in line]

    def until(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not what():
            assert time.monotonic() < deadline, (self.locations.data_dir / "worker.log").read_text()
            time.sleep(0.05)

    def await_workers(self, count: int) -> None:
        self.until(lambda: len(live_nodes(self.database, "worker")) == count)

    def job_folders(self) -> list[Path]:
        """What the processes at work have for themselves."""
        return list(self.scratch.glob("diffusion-job*"))

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        if self.valkey:
            self.valkey.kill()
            self.valkey.wait()
        self.database.close()

    def _add_dataset(self, folder: Path) -> None:
        archive = _write_images(folder / "tones.zip")
        summary = inspect_archive(archive)
        self.artifacts.put_file("datasets/tones", archive)
        create_dataset(
            self.database,
            DatasetRecord(
                name="tones",
                digest=summary.digest,
                num_bytes=archive.stat().st_size,
                num_images=summary.num_images,
                channels=summary.channels,
                classes=summary.classes,
                sizes=summary.sizes,
                rejected=[],
                num_rejected=0,
                artifact_key="datasets/tones",
                reading=asdict(summary.reading),
                warnings=summary.warnings,
            ),
        )


def _config(steps: int | None, minutes: float | None = None) -> TrainConfig:
    return resolve_config(
        DatasetFacts(40, 1, (8, 8), ("dark", "light")),
        steps=steps,
        minutes=minutes,
        batch_size=8,
        checkpoint_every=CHECKPOINT_EVERY,
        net={
            "block_out_channels": (8, 8),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "attention_head_dim": 4,
        },
    )


def _write_images(archive: Path) -> Path:
    noise = np.random.default_rng(0).normal(0, 12, (40, 8, 8))
    with zipfile.ZipFile(archive, "w") as file:
        for i, grain in enumerate(noise):
            tone = (grain + 60 + 120 * (i % 2)).clip(0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(tone).save(buffer, "PNG")
            entry = zipfile.ZipInfo(f"{('dark', 'light')[i % 2]}/{i:02}.png")  # without a date
            file.writestr(entry, buffer.getvalue())
    return archive


@dataclass(frozen=True)
class Training:
    """`losses` are those of the lines of metrics, by step."""

    digest: str
    losses: dict[int, float]


@cache
def _train_undisturbed(steps: int) -> Training:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(_write_images(folder / "tones.zip"), folder / "images", (8, 8), 1)
        images = open_dataset(folder / "images")
        state = TrainState.create(_config(steps), images)
        losses: dict[int, float] = {}
        window: list[float] = []
        for step in train(state, images):
            window.append(step.loss)
            if step.step == 1 or step.step % LOG_EVERY == 0:
                losses[step.step] = sum(window) / len(window)
                window.clear()
        save_model(state.ema_model(), folder / "model", {})
        return Training(weights_digest(folder / "model"), losses)


@pytest.fixture(scope="session")
def undisturbed() -> Callable[[int], Training]:
    """undisturbed(steps): what `accept(steps)` has to come to, trained here in one go."""
    return _train_undisturbed


def _command_lines() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, UnicodeDecodeError):
                continue
            if line:  # a zombie has none
                yield int(entry.name), line


@contextmanager
def _open_place(**shared: str) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="dif-", ignore_cleanup_errors=True) as folder:
        place = Place(Path(folder), **shared)
        if "redis_url" not in shared:
            place.start_valkey()
        try:
            yield place
        finally:
            place.close()


@pytest.fixture(scope="session")
def open_place() -> Callable[..., AbstractContextManager[Place]]:
    return _open_place


@pytest.fixture(scope="module")
def staffed() -> Iterator[Place]:
    """A place with a worker, for tests that leave both as they found them."""
    with _open_place() as place:
        place.start_worker()
        yield place


@pytest.fixture
def place() -> Iterator[Place]:
    with _open_place() as place:
        yield place
