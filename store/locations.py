"""The addresses of all that lasts: inside one folder, or as the environment says."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typing_extensions import Doc

MAX_SOCKET_PATH = 100  # bytes that every system's socket address can hold


@dataclass(frozen=True)
class Locations:
    """Addresses that are left empty lie inside `data_dir`. Read by host.environment."""

    data_dir: Annotated[Path, Doc("the folder of all that has no address of its own below")] = Path(
        "data"
    )
    database_url: Annotated[
        str, Doc("`postgresql://...` for several hosts; by default SQLite in the data folder")
    ] = ""
    redis_url: Annotated[str, Doc("`redis://...`; by default the embedded Valkey")] = ""
    artifacts_url: Annotated[
        str, Doc("a path, or `s3://...`; by default a folder in the data folder")
    ] = ""

    def __post_init__(self) -> None:
        data_dir = self.data_dir.resolve()
        filled = {
            "data_dir": data_dir,
            "database_url": self.database_url or f"sqlite:///{data_dir / 'diffusion.sqlite3'}",
            "redis_url": self.redis_url or _embedded_valkey(data_dir),
            "artifacts_url": self.artifacts_url or str(data_dir / "artifacts"),
        }
        for name, value in filled.items():
            object.__setattr__(self, name, value)

    @property
    def embeds_valkey(self) -> bool:
        return self.redis_url == _embedded_valkey(self.data_dir)


def _embedded_valkey(data_dir: Path) -> str:
    return f"redis+socket://{valkey_socket(data_dir)}"


def valkey_socket(data_dir: Path) -> Path:
    return socket_path(data_dir, "valkey")


def socket_path(data_dir: Path, name: str) -> Path:
    """Return the path of a unix socket: in `data_dir`, or in the temporary directory where that is
    too deep for a socket's address."""
    socket = data_dir / f"{name}.sock"
    if len(os.fsencode(socket)) <= MAX_SOCKET_PATH:
        return socket
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"diffusion-{digest}-{name}.sock"


def for_kombu(redis_url: str) -> str:
    """Return the URL under the scheme that kombu, and so Celery, has for unix sockets."""
    return redis_url.replace("unix://", "redis+socket://", 1)


def for_redis_py(redis_url: str) -> str:
    """Return the URL under the scheme that redis-py has for unix sockets."""
    return redis_url.replace("redis+socket://", "unix://", 1)
