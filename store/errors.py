"""The errors of the store.

StoreError
├── InvalidName         a name that breaks the rule for names
├── InvalidWebhook      a URL or a secret that cannot be used (a ValueError, too)
├── OtherRequest        with the same idempotency key
├── QuotaExceeded       of a key's owner
├── NotYours            it is shared, and belongs to another
├── NotFound
│   ├── JobNotFound
│   ├── DatasetNotFound
│   ├── VersionNotFound     of a dataset
│   ├── ImageNotFound       of a dataset
│   ├── ModelNotFound
│   ├── PictureNotFound
│   ├── NotInTrash
│   └── ArtifactNotFound
├── Conflict
│   ├── NameTaken           of what should return from the trash
│   ├── IllegalTransition   the job's status does not allow it
│   ├── CheckpointGone      it was removed a moment ago
│   ├── GalleryFull         all pictures in it have a star
│   ├── AlreadyRunning      the first request with an idempotency key
│   ├── AlreadyMade         by such a request, whose answer was lost
│   ├── DatasetConflict
│   │   └── StaleVersion    of a dataset: another edit was faster
│   └── ModelConflict
├── LostLease           another worker holds the job by now
├── ArtifactDamaged     what is stored is not what was written
└── SecondHost          SQLite serves one host only
"""


class StoreError(Exception):
    """The base of all; its text is meant for the caller."""


class InvalidName(StoreError):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class InvalidWebhook(StoreError, ValueError):
    pass


class QuotaExceeded(StoreError):
    """`wait` is in how many seconds it will be possible, None where that is not a matter of
    time."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class NotYours(StoreError):
    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is shared with you; only its owner can change it")


class NotFound(StoreError):
    pass


class JobNotFound(NotFound):
    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {_shown(job_id)}")


class DatasetNotFound(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"there is no dataset {_shown(name)}")


class VersionNotFound(NotFound):
    def __init__(self, dataset: str, version: int | str) -> None:
        super().__init__(f"dataset {_shown(dataset)} has no version {version}")


class ImageNotFound(NotFound):
    def __init__(self, dataset: str, image: str) -> None:
        super().__init__(f"dataset {_shown(dataset)} has no image {_shown(image)}")


class ModelNotFound(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"there is no model {_shown(name)}")


class PictureNotFound(NotFound):
    def __init__(self, picture_id: str) -> None:
        super().__init__(f"there is no picture {_shown(picture_id)}")


class NotInTrash(NotFound):
    def __init__(self, entry_id: str) -> None:
        super().__init__(f"there is no {_shown(entry_id)} in the trash")


class ArtifactNotFound(NotFound):
    def __init__(self, key: str) -> None:
        super().__init__(f"there is no artifact {key!r}")


class ArtifactDamaged(StoreError):
    """`key` is that of the artifact; `why` completes a sentence about it."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(f"artifact {key!r} is damaged where it is stored: {why}")
        self.key, self.why = key, why

    @classmethod
    def differs(cls, key: str, found: str, written: str) -> "ArtifactDamaged":
        """Say that an artifact has another sha256 than when it was written."""
        return cls(key, f"its sha256 is {found[:12]}..., and was {written[:12]}...")


class Conflict(StoreError):
    pass


class NameTaken(Conflict):
    pass


class IllegalTransition(Conflict):
    def __init__(self, job_id: str, status: str, wanted: str) -> None:
        super().__init__(f"job {job_id!r} is {status}; it cannot be {wanted}")


class CheckpointGone(Conflict):
    def __init__(self, job_id: str, step: int) -> None:
        super().__init__(f"the checkpoint of step {step} of job {job_id!r} is not kept any more")


class GalleryFull(Conflict):
    """`limit` pictures are kept at most; of `num_new` ones there is room for `room`."""

    def __init__(self, limit: int, num_new: int, room: int) -> None:
        super().__init__(
            f"{num_new} pictures more are too many: the gallery keeps {limit}, and there is room "
            f"for {room}; those with a star are not removed for others"
        )


class AlreadyRunning(Conflict):
    def __init__(self, key: str) -> None:
        super().__init__(f"the first request with the key {_shown(key)} is not answered yet")


class AlreadyMade(Conflict):
    def __init__(self, key: str, made: str) -> None:
        super().__init__(
            f"the first request with the key {_shown(key)} made {made}; its answer is not kept"
        )
        self.made = made


class OtherRequest(StoreError):
    def __init__(self, key: str) -> None:
        super().__init__(f"another request has the key {_shown(key)}")


class DatasetConflict(Conflict):
    pass


class StaleVersion(DatasetConflict):
    def __init__(self, dataset: str, parent: int, newest: int) -> None:
        super().__init__(
            f"the edit is of version {parent} of dataset {_shown(dataset)}; the newest is {newest}"
        )


class ModelConflict(Conflict):
    pass


class LostLease(StoreError):
    def __init__(self, job_id: str, fence: int) -> None:
        super().__init__(f"job {job_id!r} is no longer held under fence {fence}")


class SecondHost(StoreError):
    pass


def _shown(name: str) -> str:
    """Return the name in quotes, cut where it is long: callers may ask for any length."""
    return repr(name if len(name) <= 80 else f"{name[:80]}…")
