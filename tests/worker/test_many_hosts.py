"""Hosts that share a PostgreSQL, a Valkey and a bucket, and nothing else: each has a data folder of
its own. Real servers, real kill -9."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from host.environment import to_environment
from store.jobs import requests
from tests.worker.conftest import STEPS, Place


@pytest.fixture
def open_host(
    open_place: Callable[..., AbstractContextManager[Place]],
    postgres_url: str,
    s3_url: str,
    valkey: Path,
) -> Iterator[Callable[[], Place]]:
    with ExitStack() as hosts:
        yield lambda: hosts.enter_context(
            open_place(
                database_url=postgres_url,
                redis_url=f"redis+socket://{valkey}",
                artifacts_url=s3_url,
            )
        )


@contextmanager
def api_on(host: Place) -> Iterator[httpx.Client]:
    environment = {
        **os.environ,
        **to_environment(host.locations),
        "DIFFUSION_DIE_WITH_PARENT": "yes",
    }
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, fd = listener.getsockname()[1], listener.fileno()
        api = subprocess.Popen(
            [sys.executable, "-m", "app.server", "--fd", str(fd)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[fd],
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        api.communicate()  # the end of its input


def test_a_host_that_vanishes_is_replaced_and_the_weights_are_the_same(open_host, undisturbed):
    lost, other = open_host(), open_host()
    worker = lost.start_worker()
    job = lost.accept(steps=STEPS)
    lost.wait(job, lambda j: (j.checkpoint_step or 0) >= 50)
    other.start_worker()
    for pid in (worker.pid, *lost.workers_on(job)):
        os.kill(pid, signal.SIGKILL)
    worker.wait()
    lost.wait(job, lambda j: not lost.workers_on(j))
    shutil.rmtree(lost.locations.data_dir)

    assert other.finish(job) == undisturbed(STEPS).digest
    job = requests.get_job(other.database, job.id)
    assert job.fence == 2
    assert "resumed" in (other.locations.data_dir / "worker.log").read_text()
    lines = other.artifacts.get_bytes(f"{job.checkpoint_key}/metrics.jsonl").decode().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, *range(10, STEPS + 1, 10)]


def test_what_one_host_trained_another_serves(open_host):
    trains, serves = open_host(), open_host()
    trains.start_worker()
    job = trains.accept(steps=20)
    trains.finish(job)
    trains.wait(job, lambda _: not trains.job_folders())
    trains.close()
    shutil.rmtree(trains.locations.data_dir)
    with api_on(serves) as client:
        assert client.get(f"/train-jobs/{job.id}").json()["status"] == "succeeded"
        assert client.get(f"/train-jobs/{job.id}/metrics").is_success
        request = {"model": job.model_name, "num_images": 2, "num_inference_steps": 2}
        assert client.post("/sample", json=request).raise_for_status().content
        archive = client.get(f"/models/{job.model_name}/download").raise_for_status()
        assert archive.content.startswith(b"PK")
