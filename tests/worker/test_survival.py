"""Jobs survive: real workers, a real Valkey, real kill -9, and the same weights to the last bit."""

import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.data import inspect_archive
from models.recipe import DatasetFacts, resolve_config
from store import jobs
from store.artifacts import ArtifactStore
from store.database import Database, open_database
from store.datasets import DatasetRecord, create_dataset
from store.jobs import Job
from store.locations import Locations, valkey_socket
from store.models import get_model
from store.valkey import start_valkey
from worker.queue import make_queue, submit

LEASE_SECONDS = 2.0
PATIENCE_SECONDS = 90.0


class Place:
    """One host's service, without the HTTP server."""

    def __init__(self, folder: Path) -> None:
        self.locations = Locations.of(folder)
        self.database: Database = open_database(self.locations.database_url)
        self.artifacts = ArtifactStore(self.locations.artifacts_url)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.valkey: subprocess.Popen[bytes] | None = None
        self.queue = make_queue(self.locations.redis_url)
        self._add_dataset(folder)

    def start_valkey(self) -> None:
        folder = self.locations.data_dir
        self.valkey = start_valkey(folder, valkey_socket(folder))

    def start_worker(self) -> "subprocess.Popen[bytes]":
        environment = {
            **os.environ,
            **self.locations.to_environment(),
            "DIFFUSION_LEASE_SECONDS": str(LEASE_SECONDS),
            "OMP_NUM_THREADS": "1",
        }
        with (self.locations.data_dir / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "worker.main"], env=environment, stdout=log, stderr=log
            )
        self.processes.append(worker)
        return worker

    def accept(self, steps: int = 600) -> Job:
        """What POST /train-jobs does."""
        facts = DatasetFacts(40, 1, (8, 8), ("dark", "light"))
        config = resolve_config(
            facts,
            steps=steps,
            batch_size=8,
            checkpoint_every=100,
            net={"block_out_channels": (8, 8), "norm_num_groups": 4, "attention_head_dim": 4},
        )
        number = len(jobs.model_names(self.database))
        job = jobs.create_job(
            self.database,
            kind="train",
            dataset="tones",
            model_name=f"model-{number}",
            config=config.to_dict(),
        )
        submit(self.queue, job.id)
        return job

    def wait(self, job: Job, until: Callable[[Job], bool]) -> Job:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not until(job := jobs.get_job(self.database, job.id)):
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

    def trainers(self, job: Job) -> list[int]:
        wanted = f"worker.train_job {job.id}"
        return [pid for pid, line in _command_lines() if wanted in line]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        if self.valkey:
            self.valkey.kill()
            self.valkey.wait()
        self.database.close()

    def _add_dataset(self, folder: Path) -> None:
        archive = folder / "tones.zip"
        noise = np.random.default_rng(0).normal(0, 12, (40, 8, 8))
        with zipfile.ZipFile(archive, "w") as file:
            for i, grain in enumerate(noise):
                tone = (grain + 60 + 120 * (i % 2)).clip(0, 255).astype(np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(tone).save(buffer, "PNG")
                file.writestr(f"{('dark', 'light')[i % 2]}/{i:02}.png", buffer.getvalue())
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
            ),
        )


def _command_lines() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, UnicodeDecodeError):
                continue
            if line:  # a zombie has none
                yield int(entry.name), line


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="dif-", ignore_cleanup_errors=True) as folder:
        place = Place(Path(folder))
        place.start_valkey()
        yield place
        place.close()


@pytest.fixture(scope="module")
def undisturbed() -> str:
    with tempfile.TemporaryDirectory(prefix="dif-", ignore_cleanup_errors=True) as folder:
        place = Place(Path(folder))
        place.start_valkey()
        place.start_worker()
        digest = place.finish(place.accept())
        place.close()
    return digest


def is_training(job: Job) -> bool:
    return job.status == "running" and bool(job.progress)


def test_killed_trainers_change_nothing(place, undisturbed):
    place.start_worker()
    job = place.accept()
    moments = random.Random(1)
    for _ in range(3):
        place.wait(job, lambda j: j.done or bool(place.trainers(j)))
        time.sleep(moments.uniform(1.5, 4.0))
        for pid in place.trainers(job):
            os.kill(pid, signal.SIGKILL)
    assert place.finish(job) == undisturbed


def test_a_killed_worker_takes_its_trainer_along_and_another_goes_on(place, undisturbed):
    first = place.start_worker()
    job = place.accept()
    place.wait(job, lambda j: (j.checkpoint_step or 0) >= 100)
    orphans = place.trainers(job)
    first.kill()
    first.wait()
    time.sleep(1.0)
    assert not set(orphans) & set(place.trainers(job))
    place.start_worker()
    assert place.finish(job) == undisturbed
    assert jobs.get_job(place.database, job.id).fence == 2


def test_a_killed_broker_changes_nothing(place, undisturbed):
    place.start_worker()
    job = place.accept()
    place.wait(job, is_training)
    place.valkey.kill()
    place.valkey.wait()
    time.sleep(1.0)
    place.start_valkey()
    assert place.finish(job) == undisturbed


def test_a_job_accepted_without_a_broker_starts_when_it_is_back(place):
    place.valkey.kill()
    place.valkey.wait()
    job = place.accept(steps=20)
    assert job.status == "queued"
    place.start_valkey()
    place.start_worker()
    place.finish(job)


def test_a_flushed_broker_loses_no_job(place):
    job = place.accept(steps=20)
    place.queue.control.purge()
    with place.queue.connection_for_write() as connection:
        connection.default_channel.client.flushall()
    place.start_worker()
    place.finish(job)


def test_two_workers_and_many_messages_run_a_job_once(place):
    job = place.accept(steps=300)
    for _ in range(10):
        assert submit(place.queue, job.id)
    place.start_worker()
    place.start_worker()
    place.wait(job, is_training)
    for _ in range(20):
        assert len(place.trainers(job)) <= 1
        time.sleep(0.05)
    place.finish(job)
    assert jobs.get_job(place.database, job.id).fence == 1


def test_a_worker_that_is_asked_to_leave_gives_its_job_back_with_a_checkpoint(place, undisturbed):
    worker = place.start_worker()
    job = place.accept()
    place.wait(job, is_training)
    worker.terminate()
    assert worker.wait(20) == 0
    left = jobs.get_job(place.database, job.id)
    assert left.status == "queued"
    assert left.checkpoint_step > 0
    assert left.attempts == 0
    assert place.trainers(job) == []
    place.start_worker()
    assert place.finish(job) == undisturbed


def test_a_running_job_can_be_cancelled(place):
    place.start_worker()
    job = place.accept(steps=100_000)
    place.wait(job, is_training)
    jobs.request_cancel(place.database, job.id)
    cancelled = place.wait(job, lambda j: j.done)
    assert cancelled.status == "cancelled"
    assert place.trainers(job) == []


def test_no_step_is_logged_twice(place):
    import json

    place.start_worker()
    job = place.accept()
    place.wait(job, lambda j: (j.checkpoint_step or 0) >= 100)
    for pid in place.trainers(job):
        os.kill(pid, signal.SIGKILL)
    place.finish(job)
    job = jobs.get_job(place.database, job.id)
    lines = place.artifacts.get_bytes(f"{job.checkpoint_key}/metrics.jsonl").decode().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, *range(10, 601, 10)]


def test_a_job_that_cannot_work_fails_with_the_reason(place):
    place.start_worker()
    place.artifacts.put_bytes("datasets/tones", b"not an archive any more")
    failed = place.wait(place.accept(steps=20), lambda j: j.done)
    assert failed.status == "failed"
    assert failed.error_code == "invalid"
    assert "neither a zip nor a tar" in failed.error_message
