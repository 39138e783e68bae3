"""Jobs that fetch datasets, as callers ask for them and see them."""

from pydantic import ConfigDict, Field

from app.http.body import JsonBody
from app.http.names import Name
from app.http.root_path import link
from app.jobs.schema import described
from client.answers import ImportAnswer
from models.images.formats import Frames, ValueRange
from store.database import Database
from store.jobs.configs import ImportConfig
from store.jobs.kinds import JOB_KINDS
from store.jobs.progress import ImportProgress
from store.jobs.record import Job
from store.urls import MAX_URL, without_query


class ImportRequest(JsonBody):
    """`name` and `url` are enough."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "pets", "url": "https://example.org/pets.zip"}]}
    )

    name: Name = Field(description="of the dataset")
    url: str = Field(
        max_length=MAX_URL,
        pattern="^(https?|s3)://",
        description="of an archive, by http, https or s3 (s3://bucket/key). s3://bucket/prefix/, "
        "with '/' at the end, is all objects below the prefix; their keys give the folders.",
    )
    labels: str = Field(
        default="auto", max_length=500, description="where the classes come from, as in an upload"
    )
    frames: Frames = Field(default="refuse", description="of animations, as in an upload")
    range: ValueRange = Field(
        default="full", description="which values become black and white, as in an upload"
    )


def import_answer(database: Database, job: Job) -> ImportAnswer:
    address = link(JOB_KINDS["import"].address(job.id))
    config = ImportConfig.from_dict(job.config)
    links = {"self": address, **{part: f"{address}/{part}" for part in ("events", "cancel")}}
    if job.status == "succeeded":
        links["dataset"] = link(f"/datasets/{config.name}")
    return described(
        ImportAnswer,
        database,
        job,
        dataset=config.name,
        url=without_query(config.url),
        progress=ImportProgress.from_dict(job.progress).to_dict(),
        links=links,
    )
