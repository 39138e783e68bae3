"""Records that tests begin with."""

from hashlib import sha256

from store.database import Database
from store.datasets import DatasetRecord, create_dataset
from store.jobs import requests
from store.jobs.record import Job
from store.models import ModelRecord
from store.pictures import NewPicture


def a_model(name: str = "faces", digest: str = "0") -> ModelRecord:
    return ModelRecord(
        name=name, digest=digest, details={}, artifact_prefix=f"models/{name}", num_bytes=1
    )


def a_job(database: Database, model_name: str | None = "faces", **given: object) -> Job:
    a_dataset(database)
    return requests.create_job(
        database, "train", dataset="photos", model_name=model_name, config={"steps": 10}, **given
    )


def a_dataset(database: Database, name: str = "photos") -> None:
    """Add a dataset, unless it is there."""
    create_dataset(
        database,
        DatasetRecord(
            name=name,
            digest="d",
            num_bytes=1,
            num_images=2,
            channels=1,
            classes={},
            sizes=[],
            rejected=[],
            num_rejected=0,
            artifact_key=f"datasets/{name}.zip",
            reading={"frames": "refuse", "range": "full", "levels": None},
            warnings=[],
        ),
    )


def a_picture(content: str, **values: object) -> NewPicture:
    """Return a file to keep; the store does not look into it."""
    data = content.encode()
    columns = {
        "media_type": "image/png",
        "width": 8,
        "height": 8,
        "model": "faces",
        "model_digest": "0",
        "class_name": None,
        "seed": 2**63 - 1,
        "sampler": "any",
        "recipe": {"request": {"model": "faces"}},
    }
    return NewPicture(data, sha256(data).hexdigest(), columns | values)
