"""What is stored beside the archives of datasets: indexes, manifests, and the files in them."""

import fcntl
import json
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from app.logs import log
from app.services import Services
from host.folders import staged_folder
from models.arrays import UInt8
from models.fields import Invalid
from models.images.dataset import index_archive
from models.images.fingerprints import FINGERPRINT, Fingerprints
from models.images.formats import Reading
from models.images.index import Index, sha256_of
from models.images.labels import LabelRule
from models.images.parts import decode_frame, read_at, unpack
from models.images.readers import ArchiveLimits, Place
from models.images.reading import MAX_PIXELS
from models.images.versions import Manifest
from store.artifacts import ArtifactStore
from store.datasets import DatasetVersion, Part
from store.errors import ArtifactDamaged, ArtifactNotFound, DatasetConflict
from store.integrity import read_index, read_manifest
from worker.dataset_archives import store_index

MAX_ROWS = 2_000_000  # of the indexes in memory: about 1 GB
UNPACKED_BYTES = 16 * 2**30  # of the files of archives that can only be read from their beginning
_UNPACKED = "files"  # the name of their folder in the cache of a part


def index_of(services: Services, part: Part) -> Index:
    """Return the index of a part, which is made now if the part is from before there were any."""
    if known := INDEXES.get(services.artifacts, part.index_key):
        return known
    with suppress(ArtifactNotFound):
        index = Index.from_bytes(read_index(services.artifacts, part))
        INDEXES.add(services.artifacts, part.index_key, index)
        return index
    with tempfile.TemporaryDirectory(dir=services.settings.locations.data_dir) as scratch:
        archive = Path(scratch) / "archive"
        services.artifacts.download(part.key, archive, part.sha256_of(part.key))
        _, index = index_archive(
            archive,
            limits_of(part),
            rule=LabelRule(**(part.labels or {})),
            reading=Reading.from_dict(part.reading),
            at_least=0,
        )
    store_index(services.artifacts, part, index)
    INDEXES.add(services.artifacts, part.index_key, index)
    return index


def fingerprints_of(services: Services, version: DatasetVersion) -> Fingerprints:
    """Return the fingerprints of a version's images, in its order."""
    manifest = manifest_of(services, version)
    rows = np.empty(len(manifest), FINGERPRINT)
    for number, part in enumerate(version.parts):
        index_of(services, part)  # made now, with the fingerprints, where there is none
        key = part.fingerprints_key
        content = services.artifacts.get_bytes(key, part.sha256_of(key))
        here = manifest.part == number
        rows[here] = np.frombuffer(content, FINGERPRINT)[manifest.row[here]]
    return rows


def manifest_of(services: Services, version: DatasetVersion) -> Manifest:
    """Return the manifest of a version. Raises DatasetConflict if it is an upload from before, in
    which other images are found now."""
    if version.manifest_key is not None:
        return _stored_manifest(services.artifacts, version.manifest_key, version.digest)
    (part,) = version.parts
    manifest = Manifest.of(part.digest, index_of(services, part))
    if len(manifest) != version.num_images or manifest.counts != version.classes:
        raise DatasetConflict(
            f"dataset {version.dataset!r} was uploaded to another version of the service, which "
            "found other images in it; upload it again"
        )
    return manifest


def read_file(services: Services, part: Part, row: int) -> bytes:
    """Return the file of an image, as it was uploaded. It is compared with the sha256 in the index,
    so that an archive need not be read whole. Raises ArtifactDamaged."""
    index, limits = index_of(services, part), limits_of(part)
    if index.places is not None:
        read = partial(services.artifacts.read, part.key)
        try:
            data = read_at(index.places[row], read, limits.max_file_bytes)
        except Invalid as error:
            raise ArtifactDamaged(part.key, f"{index.names[row]!r}: {error}") from None
        if (found := sha256_of(data)) != index.sha256[row]:
            why = ArtifactDamaged.differs(part.key, found, index.sha256[row]).why
            raise ArtifactDamaged(part.key, f"{index.names[row]!r} in it: {why}")
        return data
    while True:
        folder = _unpacked(services, part, index)
        with suppress(FileNotFoundError):  # another part has just taken its room
            place = _places(folder)[row]
            with (folder / "files").open("rb") as file:
                file.seek(place.offset)
                data = file.read(place.length)
            if sha256_of(data) == index.sha256[row]:
                return data
            log.warning("unpacked files are damaged; they are unpacked again", folder=str(folder))
            shutil.rmtree(folder, ignore_errors=True)


def read_image(services: Services, part: Part, row: int) -> UInt8:
    """Return an image, (H, W, C), as its dataset is read. Raises ArtifactDamaged."""
    frame = index_of(services, part).frames[row]
    data, reading = read_file(services, part, row), Reading.from_dict(part.reading)
    return decode_frame(data, frame, reading, limits_of(part).max_pixels)


def limits_of(part: Part) -> ArchiveLimits:
    return ArchiveLimits(max_pixels=part.max_pixels or MAX_PIXELS)


class Indexes:
    """Indexes in memory, the last used, of at most `max_rows` rows together: a dataset may have one
    large part and hundreds of small ones."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._known: OrderedDict[tuple[ArtifactStore, str], Index] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, artifacts: ArtifactStore, key: str) -> Index | None:
        with self._lock:
            index = self._known.get((artifacts, key))
            if index is not None:
                self._known.move_to_end((artifacts, key))
            return index

    def add(self, artifacts: ArtifactStore, key: str, index: Index) -> None:
        with self._lock:
            if index.fingerprints is not None:  # as large as all else, and not needed again
                index = replace(index, fingerprints=None)
            self._known[artifacts, key] = index
            rows = sum(map(len, self._known.values()))
            while rows > self._max_rows and len(self._known) > 1:
                rows -= len(self._known.popitem(last=False)[1])


INDEXES = Indexes(MAX_ROWS)


@lru_cache(maxsize=8)
def _stored_manifest(artifacts: ArtifactStore, key: str, digest: str) -> Manifest:
    return Manifest.from_bytes(read_manifest(artifacts, key, digest))


# Archives that can only be read from their beginning ----------------------------------------------


def _unpacked(services: Services, part: Part, index: Index) -> Path:
    """Return a folder of this host with the files of a part, one after the other, and their places.
    It is made when it is first needed; others go where all together take too much room."""
    cache = services.settings.locations.data_dir / "cache"
    folder = cache / part.digest / _UNPACKED
    folder.parent.mkdir(parents=True, exist_ok=True)
    (folder.parent / "lock").touch()  # the mark of such folders, for store.upkeep.orphans
    with (folder.parent / "files.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with staged_folder(folder) as staged:
                archive = staged / "archive"
                services.artifacts.download(part.key, archive, part.sha256_of(part.key))
                places = unpack(archive, index, staged / "files", limits_of(part))
                archive.unlink()
                (staged / "places.json").write_text(json.dumps(places))
            _make_room(cache, folder)
    return folder


@lru_cache(maxsize=8)
def _places(folder: Path) -> Sequence[Place]:
    return [Place(*place) for place in json.loads((folder / "places.json").read_text())]


def _make_room(cache: Path, newest: Path) -> None:
    """Delete the folders that were unpacked first, until the rest takes UNPACKED_BYTES at most."""
    folders = sorted(cache.glob(f"*/{_UNPACKED}"), key=lambda f: f.stat().st_mtime)
    sizes = {folder: (folder / "files").stat().st_size for folder in folders}
    for folder in folders:
        if sum(sizes.values()) > UNPACKED_BYTES and folder != newest:
            shutil.rmtree(folder)
            del sizes[folder]
