"""SIGTERM under load: what was begun is answered, and nothing new is accepted."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx
import pytest
from PIL import Image

from store.database import open_database
from store.datasets import get_dataset
from store.jobs.events import events_after
from store.jobs.requests import get_job
from store.locations import Locations

ROOT = Path(__file__).parents[2]
DIGITS = (ROOT / "examples" / "digits" / "digits.zip").read_bytes()
TINY_NET = {"block_out_channels": [8, 8], "norm_num_groups": 4, "attention_head_dim": 4}
LONG = {"model": "tones", "num_images": 8, "num_inference_steps": 1000, "precision": "float32"}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def started(data_dir) -> Iterator[tuple[subprocess.Popen, httpx.Client]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    settings = {"DIFFUSION_DATA_DIR": str(data_dir), "DIFFUSION_PORT": port}
    settings |= {"DIFFUSION_DRAIN_SECONDS": "60"}  # beside other tests
    process = subprocess.Popen(
        [sys.executable, "-m", "app.up"],
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        for _ in range(300):
            try:
                parts = client.get("/readyz").json()["components"]
                if parts["workers"]["detail"].startswith("2 alive"):
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        yield process, client
    if process.poll() is None:
        process.kill()
        process.wait()


def read_stream(
    client: httpx.Client, method: str, address: str, begun: Event, **given: object
) -> list[tuple[str, str]]:
    """The names and the data of the events of a stream; `begun` is set at the second."""
    names, found = [], []
    headers = {"Accept": "text/event-stream"}
    with client.stream(method, address, headers=headers, **given) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                names.append(value)
            elif field == "data":
                found.append((names[-1], value))
            if len(found) == 2:
                begun.set()
    return found


def test_sigterm_under_load_loses_no_answer_that_was_begun(started, data_dir, model_archive):
    process, client = started
    client.put("/models/tones", content=model_archive()).raise_for_status()
    client.put("/datasets/digits", content=DIGITS).raise_for_status()
    training = {"dataset": "digits", "steps": 1_000_000, "net": TINY_NET, "batch_size": 8}
    job = client.post("/train-jobs", json=training).json()
    begun, half_sent, go_on = [Event(), Event()], Event(), Event()

    def halves() -> Iterator[bytes]:
        yield DIGITS[: len(DIGITS) // 2]
        half_sent.set()
        assert go_on.wait(60)
        yield DIGITS[len(DIGITS) // 2 :]

    def sample() -> httpx.Response:
        return client.post("/sample", json=LONG, headers={"Accept": "image/png"})

    with ThreadPoolExecutor() as pool:
        events = pool.submit(
            read_stream, client, "GET", f"/train-jobs/{job['id']}/events", begun[0]
        )
        stream: Future = pool.submit(
            read_stream, client, "POST", "/sample", begun[1], json={**LONG, "num_images": 1}
        )
        upload = pool.submit(client.put, "/datasets/again", content=halves())
        assert all(event.wait(60) for event in (*begun, half_sent))
        samples = [pool.submit(sample) for _ in range(3)]
        time.sleep(0.5)  # they are sent
        assert not any(sent.done() for sent in (*samples, stream, upload))
        process.send_signal(signal.SIGTERM)
        events.result(20)  # it ends, and may be continued elsewhere
        time.sleep(0.5)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{client.base_url}/healthz")
        go_on.set()
        for sent in samples:
            assert sent.result().status_code == 200
            assert Image.open(io.BytesIO(sent.result().content)).size[0] > 8
        assert stream.result()[-1][0] == "completed"
        assert len(json.loads(stream.result()[-1][1])["images"]) == 1
        assert upload.result().status_code == 201
    assert process.wait(90) == 0
    database = open_database(Locations(data_dir).database_url)
    assert get_dataset(database, "again").num_images == 1797
    assert get_job(database, job["id"]).status == "queued"
    types = [event.type for event in events_after(database, job["id"], 0, 100)[0]]
    assert (types[0], types[-1]) == ("queued", "requeued")
    database.close()
