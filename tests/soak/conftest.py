"""A whole service that is worn out: `make soak`, and not a part of `make test`."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.app.conftest import model_archive  # noqa: F401
from tests.up import Service, descendants_of

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits.zip"
PATIENCE_SECONDS = 120.0

StartService = Callable[..., Service]


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[StartService]:
    """start_service(SETTING=...): `python -m app.up` in this test's folder, with both workers."""
    services: list[Service] = []

    def start(**environment: str) -> Service:
        given = {"DIFFUSION_TRAIN_NICENESS": "0", **environment}
        services.append(Service(tmp_path / "data", **given))
        return services[-1]

    yield start
    for service in services:
        service.end()


@contextmanager
def client_of(service: Service, key: str | None = None) -> Iterator[httpx.Client]:
    """Yield a client, once everything is there."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    address = service.address()
    with httpx.Client(base_url=address, headers=headers, timeout=PATIENCE_SECONDS) as client:
        service.wait_for(lambda: is_whole(client), PATIENCE_SECONDS)
        yield client


def is_whole(client: httpx.Client) -> bool:
    """Tell whether /readyz is 200 and both workers are there."""
    try:
        answer = client.get("/readyz", timeout=5)
    except httpx.TransportError:
        return False
    workers = answer.json().get("components", {}).get("workers", {}).get("detail", "")
    return answer.status_code == 200 and workers.startswith("2 alive")


def add_digits_and_tiny(client: httpx.Client, archive: bytes) -> None:
    """Upload the dataset `digits` and the model `tiny`, whatever is there."""
    client.put("/datasets/digits", content=DIGITS.read_bytes()).raise_for_status()
    client.put("/models/tiny", content=archive).raise_for_status()


def say(row: str, **figures: object) -> None:
    """Print the figures of a row of docs/soak.md, as one line."""
    line = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items())
    print(f"\n{row}: {line}", flush=True)


def resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def processes_of(service: Service, words: str) -> list[int]:
    """Return the processes of the service whose command lines have these words."""
    found = []
    for pid in descendants_of(service.process.pid):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except FileNotFoundError:
            continue
        if words in command:
            found.append(pid)
    return found
