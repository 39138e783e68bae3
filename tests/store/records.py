"""Records that tests begin with."""

from store.database import Database
from store.datasets import DatasetRecord, create_dataset
from store.jobs import requests
from store.jobs.record import Job
from store.models import ModelRecord


def a_model(name: str = "faces") -> ModelRecord:
    return ModelRecord(
        name=name, digest="0", details={}, artifact_prefix=f"models/{name}", num_bytes=1
    )


def a_job(database: Database, model_name: str | None = "faces", **given: object) -> Job:
    create_dataset(
        database,
        DatasetRecord(
            name="photos",
            digest="d",
            num_bytes=1,
            num_images=2,
            channels=1,
            classes={},
            sizes=[],
            rejected=[],
            num_rejected=0,
            artifact_key="datasets/photos.zip",
        ),
    )
    return requests.create_train_job(
        database, dataset="photos", model_name=model_name, config={"steps": 10}, **given
    )
