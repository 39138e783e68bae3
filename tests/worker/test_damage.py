"""Jobs that read a file which was changed on disk fail with the reason, and use nothing of it."""

from pathlib import Path

import pytest

from store.database import Database
from store.datasets import get_dataset
from store.jobs import requests
from store.jobs.checkpoints import list_checkpoints
from store.models import ModelRecord, create_model, get_model
from worker.dataset_cache import SUMS

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def invert(path: Path, count: int = 4000) -> bytes:
    """Change bytes in the middle of a file; return what it was."""
    before = path.read_bytes()
    begin = max(0, (len(before) - count) // 2)
    changed = bytes(b ^ 0xFF for b in before[begin : begin + count])
    path.write_bytes(before[:begin] + changed + before[begin + count :])
    return before


def path_of(place, key: str) -> Path:
    return Path(place.locations.artifacts_url) / key


def add_record(database: Database, digest: str, files: dict[str, str]) -> None:
    create_model(
        database,
        ModelRecord(
            name="tiny",
            digest=digest,
            details={},
            artifact_prefix="models/tiny",
            num_bytes=1,
            files=files,
        ),
    )


def check_failed(place, job, key: str) -> None:
    job = place.wait(job, lambda j: j.done)
    assert (job.status, job.error_code) == ("failed", "damaged_artifact"), job.error_message
    assert f"{key}' is damaged where it is stored" in job.error_message


def test_a_job_makes_no_images_with_weights_that_were_changed(staffed):
    staffed.add_model()
    keys = staffed.artifacts.keys("models/tiny")
    files = {key.removeprefix("models/tiny/"): staffed.artifacts.sha256(key) for key in keys}
    before = invert(path_of(staffed, f"models/tiny/{WEIGHTS}"))
    check_failed(staffed, staffed.accept_images(2), WEIGHTS)  # by the digest of the model alone
    add_record(staffed.database, staffed.model_digest, files)
    check_failed(staffed, staffed.accept_images(2), WEIGHTS)
    assert WEIGHTS in get_model(staffed.database, "tiny").damage
    path_of(staffed, f"models/tiny/{WEIGHTS}").write_bytes(before)
    config = path_of(staffed, "models/tiny/diffusion.json")
    text = config.read_text()
    config.write_text(text.replace("0.5", "0.6"))
    check_failed(staffed, staffed.accept_images(2), "diffusion.json")
    config.write_text(text)
    job = staffed.wait(staffed.accept_images(2), lambda j: j.done)
    assert job.status == "succeeded", job.error_message


@pytest.fixture
def trainer(place):
    """A place with a worker, whose dataset has the digests of an upload."""
    place.start_worker("train")
    with place.database.session() as session:
        version = session.get_one(*_first_version())
        key = "datasets/tones"
        files = {key: place.artifacts.sha256(key)}
        version.parts_json = [{**version.parts_json[0], "files": files}]
    return place


def _first_version():
    from store.datasets import DatasetVersion

    return DatasetVersion, ("tones", 1)


def test_a_training_learns_from_no_damaged_archive_and_from_no_damaged_copy(trainer):
    archive = path_of(trainer, "datasets/tones")
    before = invert(archive, 10)
    check_failed(trainer, trainer.accept(steps=1), "datasets/tones")
    assert "datasets/tones" in get_dataset(trainer.database, "tones").damage
    archive.unlink()
    check_failed(trainer, trainer.accept(steps=1), "datasets/tones")
    archive.write_bytes(before)
    trainer.finish(trainer.accept(steps=1))
    (images,) = (trainer.locations.data_dir / "cache").rglob("images.npy")
    prepared = invert(images, 100)  # prepared images are a cache: they are made again
    trainer.finish(trainer.accept(steps=1))
    assert images.read_bytes() == prepared
    (images.parent / SUMS).unlink()  # as of an earlier version
    trainer.finish(trainer.accept(steps=1))
    assert (images.parent / SUMS).exists()


def test_a_training_goes_on_from_no_damaged_checkpoint(trainer):
    job = trainer.wait(trainer.accept(steps=100_000), lambda j: bool(j.checkpoint_key))
    requests.request_pause(trainer.database, job.id, "train")
    job = trainer.wait(job, lambda j: j.status == "paused")
    key = f"{job.checkpoint_key}/optimizer.safetensors"
    invert(path_of(trainer, key))
    requests.resume(trainer.database, job.id, "train")
    check_failed(trainer, job, "optimizer.safetensors")
    damaged = [c.step for c in list_checkpoints(trainer.database, job.id) if c.damage]
    assert damaged == [job.checkpoint_step]
