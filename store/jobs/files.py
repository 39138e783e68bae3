"""The keys of a job's files among the artifacts.

Each attempt writes under a prefix of its own: one that lost its lease cannot damage the files of
the next.
"""

import re

from store.artifacts import ArtifactStore
from store.jobs.metrics import STEPS_FILE

EVENT_FILE = "events.out.tfevents"  # the beginning of the name of a file for TensorBoard

_ATTEMPT = re.compile(r"/attempt-(\d+)/")


def attempt_prefix(job_id: str, fence: int) -> str:
    return f"jobs/{job_id}/attempt-{fence}"


def checkpoint_key(job_id: str, fence: int, step: int) -> str:
    return f"{attempt_prefix(job_id, fence)}/checkpoint-{step:08}"


def metrics_key(job_id: str, fence: int) -> str:
    """Return the key of the newest lines of an attempt; earlier ones are in its checkpoint."""
    return f"{attempt_prefix(job_id, fence)}/{STEPS_FILE}"


def log_key(job_id: str, fence: int) -> str:
    return f"{attempt_prefix(job_id, fence)}/log.jsonl"


def event_file_key(job_id: str, fence: int, created_at: float) -> str:
    return f"{attempt_prefix(job_id, fence)}/{EVENT_FILE}.{created_at:.0f}.{job_id}"


def samples_key(job_id: str, step: int) -> str:
    return f"jobs/{job_id}/samples/{step:08}.png"


def neighbours_key(job_id: str) -> str:
    """Return the key of an evaluation's picture: images of the model beside training images."""
    return f"jobs/{job_id}/neighbours.png"


def log_keys(artifacts: ArtifactStore, job_id: str) -> list[str]:
    """Return the keys of the logs in the order of the attempts."""
    return _by_attempt(artifacts, job_id, "log.jsonl")


def newest_event_file(artifacts: ArtifactStore, job_id: str) -> str | None:
    """Return the key of the file that has all steps up to a checkpoint, those of earlier attempts
    included."""
    found = _by_attempt(artifacts, job_id, EVENT_FILE)
    return found[-1] if found else None


def delete_files(artifacts: ArtifactStore, job_id: str) -> None:
    """Remove all artifacts of a job."""
    artifacts.delete_prefix(f"jobs/{job_id}")


def attempt_of(key: str) -> int:
    """Return the fence of the attempt that wrote the artifact, -1 where no attempt did."""
    found = _ATTEMPT.search(key)
    return int(found[1]) if found else -1


def _by_attempt(artifacts: ArtifactStore, job_id: str, name: str) -> list[str]:
    keys = [
        key
        for key in artifacts.keys(f"jobs/{job_id}")
        if attempt_of(key) >= 0 and key.rsplit("/", 1)[1].startswith(name)
    ]
    return sorted(keys, key=attempt_of)
