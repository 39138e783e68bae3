"""Where the files of a job are among the artefacts. What an attempt writes is its own, so that one
which lost its lease spoils nothing of the next."""

import re

from store.artifacts import ArtifactStore

EVENT_FILE = "events.out.tfevents"  # how the name of a file for TensorBoard begins

_ATTEMPT = re.compile(r"/attempt-(\d+)/")


def attempt_prefix(job_id: str, fence: int) -> str:
    return f"jobs/{job_id}/attempt-{fence}"


def checkpoint_key(job_id: str, fence: int, step: int) -> str:
    return f"{attempt_prefix(job_id, fence)}/checkpoint-{step:08}"


def metrics_key(job_id: str, fence: int) -> str:
    """The newest lines of an attempt; those before are in its checkpoint."""
    return f"{attempt_prefix(job_id, fence)}/metrics.jsonl"


def log_key(job_id: str, fence: int) -> str:
    return f"{attempt_prefix(job_id, fence)}/log.jsonl"


def event_file_key(job_id: str, fence: int, created_at: float) -> str:
    return f"{attempt_prefix(job_id, fence)}/{EVENT_FILE}.{created_at:.0f}.{job_id}"


def samples_key(job_id: str, step: int) -> str:
    return f"jobs/{job_id}/samples/{step:08}.png"


def neighbours_key(job_id: str) -> str:
    """Of an evaluation: a picture of what the model made beside what it learned from."""
    return f"jobs/{job_id}/neighbours.png"


def log_keys(artifacts: ArtifactStore, job_id: str) -> list[str]:
    """In the order of the attempts."""
    return _by_attempt(artifacts, job_id, "log.jsonl")


def newest_event_file(artifacts: ArtifactStore, job_id: str) -> str | None:
    """It has all steps up to a checkpoint, those of earlier attempts included."""
    found = _by_attempt(artifacts, job_id, EVENT_FILE)
    return found[-1] if found else None


def delete_files(artifacts: ArtifactStore, job_id: str) -> None:
    """Remove everything that a job has among the artifacts."""
    artifacts.delete_prefix(f"jobs/{job_id}")


def attempt_of(key: str) -> int:
    """The fence of the attempt that wrote it; -1 where it is no attempt's."""
    found = _ATTEMPT.search(key)
    return int(found[1]) if found else -1


def _by_attempt(artifacts: ArtifactStore, job_id: str, name: str) -> list[str]:
    keys = [
        key
        for key in artifacts.keys(f"jobs/{job_id}")
        if attempt_of(key) >= 0 and key.rsplit("/", 1)[1].startswith(name)
    ]
    return sorted(keys, key=attempt_of)
