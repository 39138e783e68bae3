"""The errors of the store.

StoreError
├── InvalidName         a name that breaks the rule for names
├── InvalidWebhook      a URL or a secret that cannot be used (a ValueError, too)
├── NotFound
│   ├── JobNotFound
│   ├── DatasetNotFound
│   ├── VersionNotFound     of a dataset
│   ├── ImageNotFound       of a dataset
│   ├── ModelNotFound
│   └── ArtifactNotFound
├── Conflict
│   ├── IllegalTransition   the job's status does not allow it
│   ├── CheckpointGone      it was removed a moment ago
│   ├── DatasetConflict
│   │   └── StaleVersion    of a dataset: another edit was faster
│   └── ModelConflict
├── LostLease           another worker holds the job by now
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


class ArtifactNotFound(NotFound):
    def __init__(self, key: str) -> None:
        super().__init__(f"there is no artifact {key!r}")


class Conflict(StoreError):
    pass


class IllegalTransition(Conflict):
    def __init__(self, job_id: str, status: str, wanted: str) -> None:
        super().__init__(f"job {job_id!r} is {status}; it cannot be {wanted}")


class CheckpointGone(Conflict):
    def __init__(self, job_id: str, step: int) -> None:
        super().__init__(f"the checkpoint of step {step} of job {job_id!r} is not kept any more")


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
