"""/dataset-imports: datasets that the workers fetch, for POST /datasets."""

from fastapi import APIRouter

from app.datasets.imports_schema import ImportRequest, import_answer
from app.http.errors import InvalidInput, reported_at
from app.jobs.route import JobRoutes, JobTexts
from app.services import Services
from client.answers import ImportAnswer
from models.images.labels import check_choice
from store.access.owners import new_name
from store.datasets import get_dataset
from store.errors import DatasetConflict, DatasetNotFound
from store.jobs import requests
from store.jobs.configs import ImportConfig
from store.jobs.kinds import JOB_KINDS
from store.urls import S3, bucket_and_key, check_url
from worker.queue import submit

KIND = JOB_KINDS["import"]
router = APIRouter(prefix=f"/{KIND.collection}", tags=["datasets"])


def create_import_job(services: Services, body: ImportRequest) -> ImportAnswer:
    """Create the job. Raises InvalidInput, and DatasetConflict where the name is taken."""
    settings = services.settings
    _check_source(body.url, settings.import_buckets)
    with reported_at("/labels"):
        check_choice(body.labels)
    name = _free_name(services, body.name)
    job = requests.create_job(
        services.database,
        KIND.name,
        config=ImportConfig(
            **{**body.model_dump(), "name": name},
            max_bytes=settings.max_dataset_bytes,
            max_pixels=settings.max_pixels,
        ).to_dict(),
    )
    submit(services.queue, job.id, KIND.name)  # if it fails, the reaper announces the job
    return import_answer(services.database, job)


JobRoutes(
    KIND,
    ImportAnswer,
    lambda services, job: import_answer(services.database, job),
    JobTexts(
        list="List the jobs that fetch datasets, newest first",
        poll="Poll a job that fetches a dataset",
        cancel="Cancel a job that fetches a dataset",
        delete="Delete a job that is done",
        delete_details="The dataset stays.",
    ),
).add_to(router)


def _check_source(url: str, allowed_buckets: tuple[str, ...]) -> None:
    """Check the address, and whether its bucket may be read; its host is checked when it is called.
    Raises InvalidInput."""
    try:
        if not url.startswith(S3):
            check_url(url, "url")
            return
        bucket, _ = bucket_and_key(url)
    except ValueError as refusal:
        raise InvalidInput.pointer("/url", str(refusal)) from None
    if bucket not in allowed_buckets:
        raise InvalidInput.pointer(
            "/url",
            f"url names bucket {bucket!r}, which DIFFUSION_IMPORT_BUCKETS does not list: this "
            "service's credentials may read more than its callers",
        )


def _free_name(services: Services, wanted: str) -> str:
    """Return the name in full; one that is taken is refused before the download, since the content
    that would make it the same dataset is not known."""
    with reported_at("/name"):
        name = new_name(services.database.caller, "name", wanted)
    try:
        get_dataset(services.database, name)
    except DatasetNotFound:
        return name
    raise DatasetConflict(
        f"there is a dataset {name!r} already; delete it first or choose another name"
    )
