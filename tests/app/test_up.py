"""`python -m app.up` with real processes: it starts, it stops, and it leaves nothing behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.up import START_SECONDS, Service, alive

IMPORT = {"name": "pets", "url": "https://example.org/pets.zip"}


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    services: list[Service] = []

    def start(**environment: str) -> Service:
        services.append(Service(tmp_path / "data", **environment))
        return services[-1]

    yield start
    for service in services:
        service.end()


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_it_serves_until_it_is_asked_to_stop_and_leaves_nothing(up) -> None:
    """By Ctrl-C; the other tests end theirs by SIGTERM."""
    service = up()
    assert httpx.get(f"{service.address()}/healthz").json() == {"status": "ok"}
    descendants = service.descendants()
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(30) == 0
    service.end()
    assert "Traceback" not in "".join(service.lines)
    assert not any(map(alive, descendants))


def test_a_child_that_dies_is_started_again(up) -> None:
    service = up()
    address = service.address()
    before = service.children()
    os.kill(before["app.server"], signal.SIGKILL)
    os.kill(before["valkey-server"], signal.SIGKILL)
    # The socket is still open, so that the request waits for the next API.
    assert httpx.get(f"{address}/healthz", timeout=START_SECONDS).status_code == 200
    service.wait_for(lambda: len(service.children()) == 4)
    after = service.children()
    assert after["app.server"] != before["app.server"]
    assert after["valkey-server"] != before["valkey-server"]
    for worker in ("worker.main train", "worker.main rest"):
        assert after[worker] == before[worker]


def test_what_it_uses_is_refused_to_others_and_nothing_outlives_it_when_it_is_killed(up) -> None:
    service = up()
    _check_that_its_port_is_taken(service.address().rpartition(":")[2])
    _check_that_its_folder_is_taken(up())
    descendants = service.descendants()
    service.process.kill()
    service.wait_for(lambda: not any(map(alive, descendants)), 30)


def test_the_api_alone_waits_for_its_engine_believes_no_stranger_and_ends_with_0(tmp_path) -> None:
    environment = {
        "DIFFUSION_DATA_DIR": str(tmp_path),
        "DIFFUSION_PROXIES": "10.0.0.1",
        "DIFFUSION_OPEN": "1",
    }
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    api = subprocess.Popen(
        [sys.executable, "-m", "app.server", "--fd", str(listener.fileno())],
        env={**os.environ, **environment},
        pass_fds=[listener.fileno()],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    try:
        deadline = time.monotonic() + START_SECONDS
        while (answer := httpx.get(f"{address}/readyz", timeout=START_SECONDS)).status_code != 200:
            assert answer.json()["components"]["engine"]["status"] == "down"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert answer.json()["components"]["engine"]["status"] == "up"
        forged = {"X-Forwarded-For": "192.0.2.1"}
        made = httpx.post(f"{address}/datasets", json=IMPORT, headers=forged, timeout=60)
        made.raise_for_status()
        (entry,) = httpx.get(f"{address}/audit", timeout=60).json()["items"]
        assert entry["address"] == "127.0.0.1", "this is not the proxy"
        api.terminate()
        assert api.wait(START_SECONDS) == 0
    finally:
        api.kill()
        api.wait()


def _check_that_its_port_is_taken(port: str) -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "app.server"],
        env={**os.environ, "DIFFUSION_PORT": port},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert refused.returncode == 1
    assert f"port {port} of 127.0.0.1 is in use" in refused.stderr
    assert "DIFFUSION_PORT" in refused.stderr
    assert "Traceback" not in refused.stderr


def _check_that_its_folder_is_taken(second: Service) -> None:
    assert second.process.wait(START_SECONDS) == 1
    second.wait_for(lambda: "DIFFUSION_DATA_DIR" in "".join(second.lines))


def test_a_redis_of_one_s_own_replaces_the_embedded_one(up) -> None:
    service = up(DIFFUSION_REDIS_URL="redis://127.0.0.1:1/0")
    address = service.address()
    service.wait_for(lambda: httpx.get(f"{address}/readyz", timeout=10).status_code == 200)
    ready = httpx.get(f"{address}/readyz", timeout=10).json()
    assert ready["status"] == "degraded"
    assert ready["components"]["redis"]["status"] == "down"
    assert "valkey-server" not in service.children()


def test_a_request_that_would_outlast_it_is_answered_503(up, model_archive) -> None:
    service = up()
    request = {"model": "slow", "num_images": 64, "num_inference_steps": 1000}
    with httpx.Client(base_url=service.address(), timeout=60) as client:
        archive = model_archive(image_size=(64, 64))
        assert client.put("/models/slow", content=archive).status_code == 201
        with ThreadPoolExecutor() as executor:
            waiting = executor.submit(client.post, "/sample", json=request)
            time.sleep(2)
            os.kill(service.children()["app.server"], signal.SIGTERM)
            answer = waiting.result()
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert answer.json()["detail"] == "the service is stopping"
    assert "Traceback" not in "".join(service.lines)
