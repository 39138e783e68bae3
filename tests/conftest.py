"""What lasts, for real: a database, a place for artefacts and a Valkey per test."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

# Tests run side by side: more threads than cores would wait for each other. Read when torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from store.artifacts import ArtifactStore
from store.database import Database, open_database
from store.locations import valkey_socket
from store.valkey import start_valkey

POSTGRES_URL = os.environ.get("DIFFUSION_TEST_POSTGRES_URL", "")


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param(
            "postgresql",
            marks=pytest.mark.skipif(
                not POSTGRES_URL, reason="DIFFUSION_TEST_POSTGRES_URL is not set"
            ),
        ),
    ]
)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database; on PostgreSQL a schema of its own in the one that is named."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'records.sqlite3'}"
        return
    schema = f"test_{secrets.token_hex(6)}"
    admin = Database(POSTGRES_URL)
    with admin.engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    separator = "&" if "?" in POSTGRES_URL else "?"
    yield f"{POSTGRES_URL}{separator}options=-csearch_path%3D{schema}"
    with admin.engine.begin() as connection:
        connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))
    admin.close()


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
