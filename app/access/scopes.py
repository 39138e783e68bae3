"""The scope that each address needs. What is not listed needs that of an administrator."""

from collections.abc import Mapping
from dataclasses import dataclass

from store.access.keys import Scope

READING = ("GET", "HEAD", "OPTIONS")
# Without a key: what tells nothing of anybody's work, and the way in.
OPEN = ("", "console", "docs", "healthz", "openapi.json", "problems", "readyz", "redoc", "session")
OPEN_FOLDERS = ("console", "problems", "static")
COUNTED = ("session",)  # of these, since it asks the database


@dataclass(frozen=True)
class Needs:
    """One of these scopes to read, and one to change."""

    to_read: tuple[Scope, ...]
    to_change: Scope


_IMAGES = Needs(("sample", "read"), "sample")
_DATASETS = Needs(("datasets", "read"), "datasets")
_TRAINING = Needs(("train", "read"), "train")
_NEEDS: Mapping[str, Needs] = {  # by the first part of the path
    "noise": _IMAGES,
    "sample": _IMAGES,
    "sample-jobs": _IMAGES,
    "samplers": _IMAGES,
    "pictures": _IMAGES,
    "schedules": _IMAGES,
    "datasets": _DATASETS,
    "dataset-imports": _DATASETS,
    "train-jobs": _TRAINING,
    "evaluations": _TRAINING,
    "models": Needs(("read", "sample", "train"), "train"),
    "queue": Needs(("read", "sample", "train", "datasets"), "admin"),
    "trash": Needs(("read", "sample", "train", "datasets"), "admin"),
}


def is_open(path: str) -> bool:
    first, _, rest = path.removeprefix("/").partition("/")
    return (first in OPEN and not rest) or first in OPEN_FOLDERS


def is_free(path: str) -> bool:
    """Return whether no limit on the rate of requests counts this path."""
    return is_open(path) and path.removeprefix("/") not in COUNTED


def scopes_for(method: str, path: str) -> tuple[Scope, ...]:
    """Return the scopes of which a request needs one, beside that of an administrator."""
    if path.startswith("/trash/"):  # as for what was deleted
        path = path.removeprefix("/trash")
    needs = _NEEDS.get(path.removeprefix("/").partition("/")[0])
    if needs is None:
        return ()
    return needs.to_read if method in READING else (needs.to_change,)
