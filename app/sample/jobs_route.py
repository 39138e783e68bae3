"""/sample-jobs: images made by the workers, for POST /sample with `Prefer: respond-async` or with
more images than one answer may hold."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from app.http import problems
from app.http.conditional import conditional
from app.http.file_answers import file_answer, resumable_answer
from app.http.resumable import Resumable
from app.http.root_path import link
from app.jobs.route import JobRoutes, JobTexts
from app.sample.jobs_schema import MadeImage, MadeImages, SampleJobAnswer
from app.sample.request import Resolved
from app.services import Services, ServicesDep
from store.errors import ArtifactNotFound, IllegalTransition, NotFound
from store.jobs import requests
from store.jobs.configs import SampleJobConfig
from store.jobs.kinds import JOB_KINDS
from store.jobs.sample_images import archive_key, image_key, images_made
from worker.queue import submit

KIND = JOB_KINDS["sample"]
router = APIRouter(prefix=f"/{KIND.collection}", tags=["sample"])


def create_sample_job(services: Services, resolved: Resolved) -> SampleJobAnswer:
    """Create the job; it is accepted once its record is written, even while the queue cannot be
    reached. The record has the request and not its plan: a request outlives the form of rows."""
    order = resolved.order
    job = requests.create_job(
        services.database,
        KIND.name,
        model_name=order.model,
        config=SampleJobConfig(
            request=resolved.request.to_dict(),
            prefix=order.prefix,
            digest=order.digest,
            deterministic=order.deterministic,
            precision=order.precision,
            ranges=[list(ends) for ends in order.ranges],
            used=resolved.used.model_dump(mode="json"),
            recipe=dict(resolved.recipe) if resolved.recipe else None,
        ).to_dict(),
    )
    submit(services.queue, job.id, KIND.name)  # if it fails, the reaper announces the job
    return SampleJobAnswer.of(services.database, job)


JobRoutes(
    KIND,
    SampleJobAnswer,
    lambda services, job: SampleJobAnswer.of(services.database, job),
    JobTexts(
        list="List the jobs that make images, newest first",
        poll="Poll a job that makes images",
        cancel_details="The images that are made stay.",
        delete="Delete a job that is done, with its images",
    ),
).add_to(router)


@router.get(
    "/{job_id}/images",
    summary="The images made so far",
    responses=problems.declare(problems.NOT_FOUND),
)
def list_sample_job_images(
    job_id: str,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=1000, description="how many at most")] = 100,
    after: Annotated[int, Query(ge=-1, description="the index of the last one seen")] = -1,
) -> MadeImages:
    job = requests.get_job(services.database, job_id, KIND.name)
    made = [image for image in images_made(services.artifacts, job.id) if image > after]
    address = link(KIND.address(job.id))
    items = [MadeImage(index=image, href=f"{address}/images/{image}") for image in made[:limit]]
    return MadeImages(items=items, has_more=len(made) > limit)


@router.get(
    "/{job_id}/images/{index}",
    summary="One image, as soon as it is made",
    response_class=Response,
    responses={
        **file_answer("image/png", "PNG"),
        **problems.declare(problems.NOT_FOUND),
    },
)
def get_sample_job_image(
    job_id: str, index: int, request: Request, services: ServicesDep
) -> Response:
    job = requests.get_job(services.database, job_id, KIND.name)
    try:
        content = services.artifacts.get_bytes(image_key(job.id, index))
    except ArtifactNotFound:
        raise NotFound(f"image {index} of job {job.id!r} is not made, or not yet") from None
    return conditional(request, content, "image/png", {})


@router.get(
    "/{job_id}/archive",
    summary="A zip of all images of a job that has succeeded",
    response_class=Response,
    responses={
        **resumable_answer("application/zip", "zip"),
        **problems.declare(problems.NOT_FOUND, problems.CONFLICT),
    },
)
def get_sample_job_archive(job_id: str, request: Request, services: ServicesDep) -> Response:
    """Download the archive; a `Range` resumes an interrupted download."""
    job = requests.get_job(services.database, job_id, KIND.name)
    if job.status != "succeeded":
        raise IllegalTransition(job.id, job.status, "downloaded as a whole")
    key = archive_key(job.id)
    archive = Resumable(f"{job.id}.zip", f'"{job.id}"', "application/zip")  # written once
    stream = partial(services.artifacts.stream, key)
    return archive.answer(request, services.artifacts.size(key), stream)
