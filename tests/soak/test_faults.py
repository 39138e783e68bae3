"""Each kind of process killed under load, Valkey emptied, the database away, a worker's clock an
hour off, the disk full: nothing is lost that was answered with 2xx, and /readyz is 200 again.

One service on PostgreSQL, with the embedded Valkey, stands all faults but the last, which has a
small file system of its own.
"""

import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from PIL import Image

from host.environment import to_environment
from store.locations import Locations, valkey_socket
from tests.postgres import PostgresServer
from tests.soak.conftest import PATIENCE_SECONDS, add_digits_and_tiny, client_of, processes_of, say
from tests.up import Service

AWAY_SECONDS = float(os.environ.get("DIFFUSION_SOAK_AWAY_SECONDS", "60"))  # of the database
LEASE_SECONDS = 5.0
JOB_SECONDS = 300.0  # until an accepted job is done
QUIET_SECONDS = 3.0  # of load before the fault and after it
NET = {"block_out_channels": [8, 8], "norm_num_groups": 4, "attention_head_dim": 4}
TRAINING = {"dataset": "digits", "steps": 20, "batch_size": 8, "checkpoint_every": 10, "net": NET}
FEW_IMAGES: dict[str, Any] = {"model": "tiny", "num_images": 2, "num_inference_steps": 10}
MANY_IMAGES: dict[str, Any] = {**FEW_IMAGES, "num_images": 200, "num_inference_steps": 50}
ASYNC = {"Prefer": "respond-async"}
KILLED = {
    "API": "app.server",
    "engine": "app.engine.process",
    "noise": "app.noise.process",
    "worker": "worker.main",
    "job": "_job job_",
    "valkey": "valkey-server",
}


def digits(count: int) -> bytes:
    """An archive of pictures, another for each count."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for n in range(8):
            picture = io.BytesIO()
            pixels = np.full((8, 8), 20 * n, np.uint8)
            pixels.flat[:32] = [int(bit) for bit in f"{count:032b}"]
            Image.fromarray(pixels).save(picture, "PNG")
            archive.writestr(f"{n % 2}/{n}.png", picture.getvalue())
    return buffer.getvalue()


@dataclass
class Load:
    """Callers of a service: pictures that become noisy, images at once, uploads and jobs."""

    address: str
    tag: str
    datasets: dict[str, str] = field(default_factory=dict)  # digests of what was accepted
    jobs: list[str] = field(default_factory=list)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    served: dict[str, float] = field(default_factory=dict)  # begin of the last request with 200
    unready: float = 0.0  # when /readyz was last not 200
    ready: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _errors: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> "Load":
        picture = io.BytesIO()
        Image.new("RGB", (32, 32), "teal").save(picture, "PNG")
        form = {"data": {"t": ["100"]}, "files": {"image": picture.getvalue()}}
        callers: list[tuple[float, Callable[[httpx.Client, int], object]]] = [
            (0.05, lambda client, _: self._look(client)),
            (0.05, lambda client, _: self._ask(client, "/noise", **form)),
            (0.1, lambda client, _: self._ask(client, "/sample", json=FEW_IMAGES)),
            (1.0, self._upload),
            (6.0, lambda client, _: self._order(client, "/sample", FEW_IMAGES)),
            (12.0, lambda client, _: self._order(client, "/sample", MANY_IMAGES)),
            (12.0, lambda client, n: self._order(client, "/train-jobs", self._training(n))),
        ]
        for pause, call in callers:
            thread = threading.Thread(target=self._repeat, args=(pause, call))
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def seconds_until_all_is_served(self, since: float) -> float:
        """Wait until each call has an answer that was asked for after `since`."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        calls = ("/noise", "/sample", "dataset", "order")
        while any(self.served.get(call, 0.0) < since for call in calls) or self.ready < since:
            assert time.monotonic() < deadline, f"{self.tag}: {self.served}, {self.statuses}"
            time.sleep(0.05)
        return max(self.served[call] for call in calls) - since

    def _training(self, number: int) -> dict[str, Any]:
        return {**TRAINING, "model_name": f"{self.tag}-{number}"}

    def _repeat(self, pause: float, call: Callable[[httpx.Client, int], object]) -> None:
        number = 0
        with httpx.Client(base_url=self.address, timeout=PATIENCE_SECONDS) as client:
            while not self._stop.is_set():
                try:
                    call(client, number)
                except httpx.TransportError:  # its process was killed
                    self.statuses["none", 0] += 1
                except BaseException as error:
                    self._errors.append(error)
                    return
                number += 1
                self._stop.wait(pause)

    def _look(self, client: httpx.Client) -> None:
        try:
            status = client.get("/readyz", timeout=5).status_code
        except httpx.TransportError:
            status = 0
        if status == 200:
            self.ready = time.monotonic()
        else:
            self.unready = time.monotonic()

    def _ask(self, client: httpx.Client, path: str, **request: Any) -> httpx.Response:
        begun = time.monotonic()
        answer = client.post(path, **request)
        self._note(path, answer, begun)
        return answer

    def _note(self, call: str, answer: httpx.Response, begun: float) -> None:
        self.statuses[call, answer.status_code] += 1
        if answer.is_success:
            self.served[call] = begun
        elif answer.status_code != 503:
            raise AssertionError(f"{self.tag}: {call} was answered {answer.text}")

    def _upload(self, client: httpx.Client, number: int) -> None:
        begun, name = time.monotonic(), f"{self.tag}-{number}"
        answer = client.put(f"/datasets/{name}", content=digits(number))
        self._note("dataset", answer, begun)
        if answer.is_success:
            self.datasets[name] = answer.json()["digest"]

    def _order(self, client: httpx.Client, path: str, body: dict[str, Any]) -> None:
        begun = time.monotonic()
        answer = client.post(path, json=body, headers=ASYNC)
        self._note("order", answer, begun)
        if answer.is_success:
            self.jobs.append(answer.headers["Location"])

    def check_that_nothing_is_lost(self, client: httpx.Client) -> None:
        for name, digest in self.datasets.items():
            assert client.get(f"/datasets/{name}").raise_for_status().json()["digest"] == digest
            client.get(f"/datasets/{name}/preview").raise_for_status()
        for address in self.jobs:
            job = finish(client, address)
            if address.startswith("/train-jobs"):
                client.get(f"/models/{job['model_name']}").raise_for_status()
            else:
                images = client.get(f"{address}/archive").raise_for_status().content
                with zipfile.ZipFile(io.BytesIO(images)) as archive:
                    assert len(archive.namelist()) >= FEW_IMAGES["num_images"]


def finish(client: httpx.Client, address: str) -> dict[str, Any]:
    deadline = time.monotonic() + JOB_SECONDS
    while True:
        job: dict[str, Any] = client.get(address, params={"wait": 10}).raise_for_status().json()
        if job["done"]:
            assert job["status"] == "succeeded", job
            return job
        assert time.monotonic() < deadline, job


@dataclass
class Ground:
    service: Service
    postgres: PostgresServer
    data_dir: Path


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with tempfile.TemporaryDirectory(prefix="dif-pg-", ignore_cleanup_errors=True) as folder:
        postgres = PostgresServer(Path(folder))
        postgres.start()
        data_dir = tmp_path_factory.mktemp("soak") / "data"
        service = Service(
            data_dir,
            DIFFUSION_DATABASE_URL=postgres.url,
            DIFFUSION_LEASE_SECONDS=str(LEASE_SECONDS),
            DIFFUSION_TRAIN_NICENESS="0",
        )
        yield Ground(service, postgres, data_dir)
        postgres.start()
        service.end()
        postgres.stop()


@pytest.fixture(scope="module")
def tiny(model_archive: Callable[..., bytes]) -> bytes:
    return model_archive()


def suffer(ground: Ground, name: str, fault: Callable[[], object], tiny: bytes) -> None:
    """Have a fault happen under load; say how long it was felt, and check what was accepted."""
    with client_of(ground.service) as client:
        add_digits_and_tiny(client, tiny)
        with Load(ground.service.address(), name.replace(" ", "-").lower()) as load:
            time.sleep(QUIET_SECONDS)
            begun = time.monotonic()
            fault()
            over = time.monotonic()
            served = load.seconds_until_all_is_served(over)
            time.sleep(QUIET_SECONDS)
        unready = max(0.0, load.unready - over) if load.unready > begun else None
        load.check_that_nothing_is_lost(client)
    shown = "never away" if unready is None else f"ready after {unready:.1f} s"
    refused = sum(n for (_, status), n in load.statuses.items() if status in (0, 503))
    accepted = len(load.datasets) + len(load.jobs)
    figures = (
        f"{shown}; all calls served after {served:.1f} s; of {load.statuses.total()} calls "
        f"{refused} refused or cut off; {accepted} uploads and jobs accepted and none lost"
    )
    say("faults", **{name: figures})


@pytest.mark.parametrize("name", KILLED)
def test_kill(name: str, ground: Ground, tiny: bytes) -> None:
    def killed() -> int:
        count = 0
        for pid in processes_of(ground.service, KILLED[name]):
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, signal.SIGKILL)
                count += 1
        return count

    suffer(ground, name, lambda: ground.service.wait_for(killed), tiny)


def test_valkey_emptied(ground: Ground, tiny: bytes) -> None:
    def empty() -> None:
        with redis.Redis(unix_socket_path=str(valkey_socket(ground.data_dir))) as client:
            assert client.flushall()

    suffer(ground, "Valkey emptied", empty, tiny)


def test_database_away(ground: Ground, tiny: bytes) -> None:
    def take_away() -> None:
        ground.postgres.stop()
        time.sleep(AWAY_SECONDS)
        ground.postgres.start()

    suffer(ground, "database away", take_away, tiny)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_off(hours: int, ground: Ground, tiny: bytes) -> None:
    """A worker more, which libfaketime gives another time; killed while it may have a job."""
    found = glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not found:
        pytest.skip("apt-get install libfaketime")
    locations = Locations(ground.data_dir, database_url=ground.postgres.url)
    environment = {
        **os.environ,
        **to_environment(locations),
        "DIFFUSION_LEASE_SECONDS": str(LEASE_SECONDS),
        "LD_PRELOAD": found[0],
        "FAKETIME": f"{hours:+d}h",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "OMP_NUM_THREADS": "1",
    }

    def join_and_die() -> None:
        worker = subprocess.Popen(
            [sys.executable, "-m", "worker.main", "train", "rest"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            time.sleep(30.0)
            assert worker.poll() is None
        finally:
            worker.kill()
            worker.wait()

    suffer(ground, f"clock an hour {'fast' if hours > 0 else 'slow'}", join_and_die, tiny)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of its own, which needs root."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk(tmp_path: Path, tiny: bytes) -> None:
    with small_disk(tmp_path / "disk", "96m") as disk:
        service = Service(disk, DIFFUSION_LEASE_SECONDS=str(LEASE_SECONDS))
        try:
            _fill_and_free(service, disk, tiny)
        finally:
            service.end()


def _fill_and_free(service: Service, disk: Path, tiny: bytes) -> None:
    with client_of(service) as client:
        add_digits_and_tiny(client, tiny)
        accepted = [
            client.post("/train-jobs", json={**TRAINING, "steps": 200, "model_name": "before"}),
            client.post("/sample", json=MANY_IMAGES, headers=ASYNC),
        ]
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        uploads = [client.put(f"/datasets/full-{n}", content=digits(n)) for n in range(3)]
        jobs = [client.post("/sample", json=FEW_IMAGES, headers=ASYNC) for _ in range(3)]
        statuses = Counter(answer.status_code for answer in (*uploads, *jobs))
        assert set(statuses) <= {201, 202, 507}, [a.text for a in (*uploads, *jobs)]
        assert all(answer.status_code == 507 for answer in uploads)
        assert client.get("/readyz").status_code == 200
        assert client.get("/datasets/digits").status_code == 200
        assert client.post("/sample", json=FEW_IMAGES).status_code == 200
        time.sleep(10.0)
        filler.unlink()
        freed = time.monotonic()
        client.put("/datasets/after", content=digits(1)).raise_for_status()
        for answer in (*accepted, *(job for job in jobs if job.is_success)):
            finish(client, answer.headers["Location"])
        say(
            "faults",
            disk_full=f"{statuses[507]} of {statuses.total()} writes answered 507, reading and "
            f"images 200, /readyz 200; all accepted jobs done {time.monotonic() - freed:.0f} s "
            "after there was space",
        )
