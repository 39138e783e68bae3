"""Files from a bucket of S3, by the service's own credentials: one archive, or all objects below a
prefix, which become one zip. Which buckets may be read is decided where the job is accepted.
"""

import zipfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import obstore
import structlog
from obstore.exceptions import (
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import ObjectStore, from_url

from models.images.readers import ArchiveLimits
from store.artifacts import StorageError, retry_for
from store.urls import S3, bucket_and_key
from worker.job_process import JobFailed

AT_ONCE = 16  # requests for objects below a prefix
AHEAD_BYTES = 64 * 2**20  # of objects that wait to be written, beside the first
PIECE = 8 * 2**20  # bytes per request of a large object
PATIENCE_SECONDS = 60.0

Received = Callable[[int, int | None], None]

log = structlog.get_logger("import")


def fetch_from_bucket(url: str, path: Path, max_bytes: int, received: Received) -> int:
    """Write what s3://bucket/key names to `path`: that object, or, if the key is empty or ends with
    "/", a zip of all objects below it, by their keys. The same objects give the same zip.

    `received` is called with the bytes that are here and the total, and may end it by an exception.
    Return how many objects are left out, since no archive may hold a file so large. Raises
    JobFailed and OSError.
    """
    bucket, key = bucket_and_key(url)
    store = from_url(f"{S3}{bucket}", retry_config=retry_for(PATIENCE_SECONDS))
    with _failures(url):
        if key and not key.endswith("/"):
            _fetch_object(store, key, path, max_bytes, received)
            return 0
        return _fetch_prefix(store, key, path, max_bytes, received)


def _fetch_object(
    store: ObjectStore, key: str, path: Path, max_bytes: int, received: Received
) -> None:
    meta = obstore.head(store, key)
    size = meta["size"]
    _check_size(size, max_bytes)
    with path.open("wb") as file:
        for begin in range(0, size, PIECE):
            part = (begin, min(begin + PIECE, size))
            options: obstore.GetOptions = {"range": part, "if_match": meta["e_tag"]}
            file.write(obstore.get(store, key, options=options).bytes())
            received(file.tell(), size)


def _fetch_prefix(
    store: ObjectStore, prefix: str, path: Path, max_bytes: int, received: Received
) -> int:
    objects, num_skipped = _objects_below(store, prefix)
    total = sum(size for _, size in objects)
    _check_size(total, max_bytes)
    here = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for key, data in _contents(store, objects):
            here += len(data)
            _check_size(here, max_bytes)  # it may have grown
            # Without a date, so that the bytes are the same each time.
            archive.writestr(zipfile.ZipInfo(key.removeprefix(prefix)), data)
            received(here, total)
    return num_skipped


def _objects_below(store: ObjectStore, prefix: str) -> tuple[list[tuple[str, int]], int]:
    """Return (key, size) of the objects to fetch, by key, and how many others there are."""
    limits = ArchiveLimits()
    found: list[tuple[str, int]] = []
    num_skipped = 0
    for batch in obstore.list(store, prefix or None):
        for meta in batch:
            if meta["size"] > limits.max_file_bytes:
                num_skipped += 1
            elif meta["size"]:  # the key of an empty one may be that of a folder
                found.append((meta["path"], meta["size"]))
        if len(found) > limits.max_images:
            message = f"more than {limits.max_images} objects lie below the prefix"
            raise JobFailed("too_large", message)
    if not found:
        raise JobFailed(
            "source_not_found",
            f"there is no object of 1..{limits.max_file_bytes} bytes below the prefix; the key of "
            "one archive must not end with '/'",
        )
    return sorted(found), num_skipped


def _contents(
    store: ObjectStore, objects: Sequence[tuple[str, int]]
) -> Iterator[tuple[str, bytes]]:
    """Yield the objects in order; later ones are fetched meanwhile."""
    waiting: deque[tuple[str, int, Future[bytes]]] = deque()
    left = iter(objects)
    ahead = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while True:
            while len(waiting) < 2 * AT_ONCE and ahead < AHEAD_BYTES:
                if (following := next(left, None)) is None:
                    break
                key, size = following
                waiting.append((key, size, pool.submit(_content, store, key)))
                ahead += size
            if not waiting:
                return
            key, size, content = waiting.popleft()
            yield key, content.result()
            ahead -= size


def _content(store: ObjectStore, key: str) -> bytes:
    return bytes(obstore.get(store, key).bytes())


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise JobFailed(
            "too_large", f"the source has {size} bytes; at most {max_bytes} are allowed"
        )


@contextmanager
def _failures(url: str) -> Iterator[None]:
    """Say in words what the bucket refuses."""
    try:
        yield
    except FileNotFoundError:
        message = "there is no such object; a prefix must end with '/'"
        raise JobFailed("source_not_found", message) from None
    except (PermissionDeniedError, UnauthenticatedError):
        message = "the bucket does not let this service read it"
        raise JobFailed("source_refused", message) from None
    except InvalidPathError:
        message = (
            "below the prefix is a key with an empty part, '.' or '..', which no file can have"
        )
        raise JobFailed("source_refused", message) from None
    except PreconditionError:
        raise JobFailed("source_unavailable", "the object changed while it was read") from None
    except StorageError as error:
        log.warning("the bucket failed", source=url, reason=str(error))
        if "NoSuchBucket" in str(error):
            raise JobFailed("source_not_found", "there is no such bucket") from None
        raise JobFailed("source_unavailable", "the bucket cannot be reached") from None
