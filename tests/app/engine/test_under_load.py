"""The engine among many callers, some of whom leave, read slowly, or see it killed."""

import base64
import io
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from app.main import create_app
from app.settings import Settings
from store.locations import Locations

PATIENCE_SECONDS = 60.0
SAMPLERS = ("ddpm", "ddim", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        locations=Locations(tmp_path_factory.mktemp("data")), example_model=False, max_waiting=512
    )


@pytest.fixture(scope="module")
def service(
    serve: Callable, settings: Settings, model_archive: Callable[..., bytes]
) -> Iterator[httpx.Client]:
    limits = httpx.Limits(max_connections=300, keepalive_expiry=2.0)  # sooner than the server's
    with (
        serve(create_app(settings)) as address,
        httpx.Client(base_url=address, timeout=PATIENCE_SECONDS, limits=limits) as client,
    ):
        archive = model_archive(image_size=(16, 16), class_names=("dark", "light"))
        assert client.put("/models/tones", content=archive).status_code == 201
        assert client.put("/models/large", content=model_archive((64, 64))).status_code == 201
        assert client.post("/sample", json={"model": "tones"}).status_code == 200
        yield client


@pytest.fixture(scope="module")
def engine_pid(settings: Settings) -> Callable[[], int]:
    """Of this service: others may run in this process."""
    ours = f"DIFFUSION_DATA_DIR={settings.locations.data_dir}".encode()

    def find() -> int:
        for child in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
            for pid in child.read_text().split():
                process = Path("/proc", pid)
                if b"app.engine.process" in (process / "cmdline").read_bytes() and ours in (
                    process / "environ"
                ).read_bytes().split(b"\0"):
                    return int(pid)
        raise AssertionError("there is no engine")

    return find


def memory_of(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def engine_metrics(service: httpx.Client) -> dict[str, float]:
    """Summed over models."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(service.get("/metrics").text):
        for sample in family.samples:
            if sample.name.startswith("diffusion_engine"):
                found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def wait_until_idle(service: httpx.Client) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        metrics = engine_metrics(service)
        if metrics["diffusion_engine_up"] == 1 and not metrics["diffusion_engine_queue_depth"]:
            assert metrics["diffusion_engine_backlog_seconds"] == 0
            assert metrics.get("diffusion_engine_slots", 0) == 0  # of no model if it is a new one
            return
        assert time.monotonic() < deadline, metrics
        time.sleep(0.05)


def pixels(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    files = (io.BytesIO(base64.b64decode(data)) for data in answer.json()["images"])
    return np.stack([np.asarray(Image.open(file)) for file in files]).astype(int)


def body(number: int, **more: object) -> dict[str, object]:
    """One of a crowd of requests of all sorts."""
    return {
        "model": "tones",
        "num_images": 1 + number % 3,
        "num_inference_steps": (5, 10, 20, 30)[number % 4],
        "sampler": SAMPLERS[number % len(SAMPLERS)],
        "class_label": number % 2,
        "guidance_scale": (1.0, 3.0)[number // 2 % 2],
        "seed": number,
        **more,
    }


def ask(service: httpx.Client, request: dict[str, object]) -> httpx.Response:
    return service.post("/sample", json=request, headers={"Accept": "application/json"})


def test_a_crowd_changes_no_pixel(service, engine_pid):
    """To the bit where `deterministic` asks for it, beside neighbours and after the engine's end;
    otherwise by one grey level in one of a thousand pixels at most."""
    numbers = range(24)
    exact = [body(n, deterministic=n % 2 == 0) for n in numbers]
    alone = [pixels(ask(service, request)) for request in exact]
    with ThreadPoolExecutor(24) as crowd:
        together = list(crowd.map(lambda request: pixels(ask(service, request)), exact))
    os.kill(engine_pid(), signal.SIGKILL)
    after = [pixels(ask(service, request)) for request in exact]
    for n in numbers[::2]:
        assert np.array_equal(together[n], alone[n])
        assert np.array_equal(after[n], alone[n])
    differences = np.concatenate([abs(together[n] - alone[n]).ravel() for n in numbers[1::2]])
    assert differences.max() <= 1
    assert (differences > 0).mean() <= 0.001


def test_a_killed_engine_leaves_nobody_without_an_answer(service, engine_pid, picture):
    stop = threading.Event()
    seen: list[int] = []

    def keep_asking() -> None:
        while not stop.is_set():
            seen.append(service.get("/healthz").status_code)
            form = {"t": ["100"]}
            seen.append(service.post("/noise", data=form, files={"image": picture()}).status_code)

    with ThreadPoolExecutor(33) as crowd:
        asking = crowd.submit(keep_asking)
        waiting = [
            crowd.submit(ask, service, body(n, num_inference_steps=60, num_images=2))
            for n in range(32)
        ]
        try:
            for _ in range(2):
                time.sleep(0.5)
                os.kill(engine_pid(), signal.SIGKILL)
                _wait_for_engine(service)
            answers = [future.result() for future in waiting]
        finally:
            stop.set()
        asking.result()
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert all(int(a.headers["Retry-After"]) >= 1 for a in answers if a.status_code == 503)
    assert any(answer.status_code == 200 for answer in answers)
    assert set(seen) == {200}
    wait_until_idle(service)


def _wait_for_engine(service: httpx.Client) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    time.sleep(0.5)  # until its end is noticed
    while engine_metrics(service)["diffusion_engine_up"] != 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_another_service_on_the_same_data_has_an_engine_of_its_own(service, serve, settings):
    request = body(1, deterministic=True)
    with (
        serve(create_app(settings)) as address,
        httpx.Client(base_url=address, timeout=PATIENCE_SECONDS) as other,
    ):
        theirs = pixels(ask(other, request))
        assert np.array_equal(pixels(ask(service, request)), theirs)
    assert np.array_equal(pixels(ask(service, request)), theirs)


def test_clients_who_leave_free_their_place(service, engine_pid):
    wait_until_idle(service)
    before = memory_of(engine_pid())
    moments = random.Random(1)
    address = (service.base_url.host, service.base_url.port)

    def come_and_go(number: int) -> None:
        time.sleep(moments.uniform(0.0, 3.0))
        request = httpx.Request(
            "POST",
            service.base_url.join("/sample"),
            json=body(number, num_inference_steps=1000, num_images=8),
            headers={"Accept": "text/event-stream" if number % 2 else "application/zip"},
        )
        head = b"".join(b"%s: %s\r\n" % header for header in request.headers.raw)
        with socket.create_connection(address) as connection:
            connection.sendall(b"POST /sample HTTP/1.1\r\n" + head + b"\r\n" + request.read())
            time.sleep(moments.uniform(0.0, 1.0))

    staying = body(1, deterministic=True)
    alone = pixels(ask(service, staying))
    with ThreadPoolExecutor(200) as crowd:
        leaving = [crowd.submit(come_and_go, n) for n in range(200)]
        assert np.array_equal(pixels(ask(service, staying)), alone)
        for future in leaving:
            future.result()
    wait_until_idle(service)
    assert memory_of(engine_pid()) < before + 100 * 2**20


def test_a_slow_reader_holds_up_nobody(service, engine_pid):
    wait_until_idle(service)
    request = {"model": "large", "num_images": 16, "num_inference_steps": 300}
    headers = {"Accept": "text/event-stream"}
    before = memory_of(engine_pid())
    with service.stream("POST", "/sample", json=request, headers=headers) as slow:
        assert slow.status_code == 200
        next(slow.iter_raw(64))  # and no more of it
        for n in range(8):
            assert ask(service, body(n)).status_code == 200
        deadline = time.monotonic() + PATIENCE_SECONDS
        while engine_metrics(service)["diffusion_engine_queue_depth"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert memory_of(engine_pid()) < before + 100 * 2**20
    wait_until_idle(service)
