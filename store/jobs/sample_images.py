"""The keys of a job's images among the artifacts."""

from pathlib import PurePosixPath

from store.artifacts import ArtifactStore


def images_prefix(job_id: str) -> str:
    return f"jobs/{job_id}/images"


def image_key(job_id: str, image: int) -> str:
    return f"{images_prefix(job_id)}/{image:08}.png"


def archive_key(job_id: str) -> str:
    """Return the key of a zip of all images, which exists when the job has succeeded."""
    return f"jobs/{job_id}/images.zip"


def images_made(artifacts: ArtifactStore, job_id: str) -> list[int]:
    """Return the indices of the images made so far, in order; they can be read while the job
    runs."""
    return [int(PurePosixPath(key).stem) for key in artifacts.keys(images_prefix(job_id))]
