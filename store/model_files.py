"""The folder of a model among the artifacts, fetched and compared with its record.

Knows no database, so that processes without one need not load its library.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from store.artifacts import ArtifactStore
from store.errors import ArtifactDamaged

WEIGHTS = ".safetensors"


def fetch_model(
    artifacts: ArtifactStore,
    prefix: str,
    digest: str,
    files: Mapping[str, str] | None,
    folder: Path,
) -> None:
    """Copy the folder of a model. `files` has the sha256 of each file, None for a model of an
    earlier version; of that the weights are compared with its `digest`.

    Raises ArtifactNotFound where all of it is gone, and ArtifactDamaged.
    """
    found = artifacts.download_folder(prefix, folder, files)
    if files is not None:
        return
    weights = sorted(name for name in found if name.endswith(WEIGHTS))
    sha256 = found[weights[0]] if len(weights) == 1 else _joined(folder, weights)
    if digest not in (sha256, *(found[name] for name in weights)):  # one of several variants
        where = f"{prefix}/{weights[0]}" if len(weights) == 1 else prefix
        raise ArtifactDamaged.differs(where, sha256, digest)


def _joined(folder: Path, names: list[str]) -> str:
    """Return the sha256 of files one after the other, as shards of weights are hashed."""
    sha256 = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            while chunk := file.read(1 << 20):
                sha256.update(chunk)
    return sha256.hexdigest()
