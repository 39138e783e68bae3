"""Where everything lies: one folder by default, or what the environment says."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MAX_SOCKET_PATH = 100  # bytes that every system's socket address can hold


@dataclass(frozen=True)
class Locations:
    data_dir: Path
    database_url: str
    redis_url: str
    artifacts_url: str

    @classmethod
    def of(
        cls,
        data_dir: Path,
        database_url: str = "",
        redis_url: str = "",
        artifacts_url: str = "",
    ) -> "Locations":
        """What is empty lies inside `data_dir`."""
        data_dir = data_dir.resolve()
        return cls(
            data_dir=data_dir,
            database_url=database_url or f"sqlite:///{data_dir / 'diffusion.sqlite3'}",
            redis_url=redis_url or f"redis+socket://{valkey_socket(data_dir)}",
            artifacts_url=artifacts_url or str(data_dir / "artifacts"),
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Locations":
        return cls.of(
            Path(environment.get("DIFFUSION_DATA_DIR") or "data"),
            environment.get("DIFFUSION_DATABASE_URL", ""),
            environment.get("DIFFUSION_REDIS_URL", ""),
            environment.get("DIFFUSION_ARTIFACTS_URL", ""),
        )

    def to_environment(self) -> dict[str, str]:
        """For a child process."""
        return {
            "DIFFUSION_DATA_DIR": str(self.data_dir),
            "DIFFUSION_DATABASE_URL": self.database_url,
            "DIFFUSION_REDIS_URL": self.redis_url,
            "DIFFUSION_ARTIFACTS_URL": self.artifacts_url,
        }


def valkey_socket(data_dir: Path) -> Path:
    return socket_path(data_dir, "valkey")


def socket_path(data_dir: Path, name: str) -> Path:
    """For a unix socket, in the temporary directory where `data_dir` is too deep for one."""
    socket = data_dir / f"{name}.sock"
    if len(os.fsencode(socket)) <= MAX_SOCKET_PATH:
        return socket
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"diffusion-{digest}-{name}.sock"
