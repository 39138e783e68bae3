"""What lasts, for real: a database, a place for artefacts and a Valkey per test, servers that are
started for the tests."""

import gc
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

# Tests run side by side: more threads than cores would wait for each other. Read when torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Services of tests begin with no model.
os.environ["DIFFUSION_EXAMPLE_MODEL"] = "0"

from models.runtime.device import device_of_torch
from store.artifacts import ArtifactStore
from store.database import Database, open_database
from store.locations import valkey_socket
from store.valkey import start_valkey
from tests.postgres import PostgresServer
from tests.s3 import S3Server

gc.disable()  # while the tests and what they test are loaded; see host.loading


ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and device_of_torch() != "cuda":
            item.add_marker(pytest.mark.skip(reason="there is no GPU"))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a database on a server that is only for tests, started the first time one asks."""
    if url := os.environ.get("DIFFUSION_TEST_POSTGRES_URL"):
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="dif-pg-") as folder:
        server = PostgresServer(Path(folder))
        server.start()
        yield server.url
        server.stop()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A schema of its own in that database."""
    schema = f"test_{secrets.token_hex(6)}"
    admin = Database(postgres_server)
    with admin.engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    separator = "&" if "?" in postgres_server else "?"
    yield f"{postgres_server}{separator}options=-csearch_path%3D{schema}"
    with admin.engine.begin() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
    admin.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'records.sqlite3'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder in an empty bucket, which this process and its children may use."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.new_bucket()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = open_database(database_url)
    yield database
    database.close()


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"))


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Path]:
    """The unix socket of a running server."""
    socket = valkey_socket(tmp_path)
    server = start_valkey(tmp_path, socket)
    yield socket
    server.kill()
    server.wait()
    socket.unlink(missing_ok=True)


@contextmanager
def _run_service(
    data_dir: Path, states: dict[str, str], python: str = sys.executable, **settings: str
) -> Iterator[httpx.Client]:
    with socket.create_server(("127.0.0.1", int(settings.pop("DIFFUSION_PORT", "0")))) as probe:
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "DIFFUSION_PORT": str(port),
        "DIFFUSION_DATA_DIR": str(data_dir),
        "OMP_NUM_THREADS": "1",
        **settings,
    }
    process = subprocess.Popen(
        [python, "-m", "app.up"], env=environment, stdout=subprocess.DEVNULL, cwd=ROOT
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90) as client:
            for _ in range(300):
                try:
                    parts = client.get("/readyz").json()["components"].items()
                    found = {name: f"{part['status']}: {part['detail']}" for name, part in parts}
                    if all(text.startswith(states.get(name, "up")) for name, text in found.items()):
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.2)
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        ended = process.wait(60)
    assert ended == 0


@pytest.fixture(scope="session")
def run_service() -> Callable[..., AbstractContextManager[httpx.Client]]:
    """run_service(data_dir, states): all of it, as `make run` starts it. `states` has how a
    component's line of /readyz begins once it is there, where "up" does not say enough."""
    return _run_service


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory,
    run_service: Callable[..., AbstractContextManager[httpx.Client]],
) -> Iterator[httpx.Client]:
    """All of it, with workers; webhooks may go to this host, and datasets come from it."""
    settings = {
        "DIFFUSION_IMPORT_ALLOW_PRIVATE": "1",
        "DIFFUSION_WEBHOOK_ALLOW_PRIVATE": "1",
        "DIFFUSION_TRAIN_NICENESS": "0",  # beside other tests it would hardly get its turn
    }
    states = {"workers": "up: 2 alive"}
    with run_service(tmp_path_factory.mktemp("data"), states, **settings) as client:
        yield client
