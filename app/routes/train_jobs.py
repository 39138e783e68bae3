"""/train-jobs: training, from the request to the model."""

import json
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app import problems
from app.conditional import conditional
from app.errors import blame_field
from app.paging import After, Limit, OnlyStatus
from app.polling import Wait, poll
from app.schemas.records import (
    JobAnswer,
    JobMetrics,
    MetricLine,
    Page,
    SampleList,
    TrainRequest,
)
from app.services import Services, ServicesDep
from models.recipe import DatasetFacts, TrainConfig, resolve_config
from store import jobs
from store.datasets import DatasetRecord, get_dataset
from store.errors import ArtifactNotFound, NotFound
from worker.queue import submit

router = APIRouter(prefix="/train-jobs", tags=["training"])


@router.post(
    "",
    summary="Start a training job",
    status_code=202,
    responses=problems.declare(
        problems.NOT_FOUND, problems.CONFLICT, problems.UNSUPPORTED, problems.INVALID
    ),
)
def create_train_job(body: TrainRequest, response: Response, services: ServicesDep) -> JobAnswer:
    """Accepted as soon as the record is written, even while the queue cannot be reached; the job
    then starts when it is back. Poll `Location`; `?wait=30` answers at the next change."""
    dataset = get_dataset(services.database, body.dataset)
    with blame_field(TrainRequest):
        config = _resolve(body, dataset)
    job = jobs.create_train_job(
        services.database,
        dataset=dataset.name,
        model_name=body.model_name or _model_name(services, dataset.name),
        config=config.to_dict(),
    )
    submit(services.queue, job.id, "train")  # if it fails, the reaper announces the job
    response.headers["Location"] = f"/train-jobs/{job.id}"
    return JobAnswer.of(job)


@router.get("", summary="List the jobs, newest first")
def list_train_jobs(
    services: ServicesDep,
    limit: Limit = 20,
    after: After = None,
    status: OnlyStatus = None,
) -> Page[JobAnswer]:
    found, has_more = jobs.list_jobs(
        services.database, "train", limit=limit, after=after, status=status
    )
    return Page(items=[JobAnswer.of(job) for job in found], has_more=has_more)


@router.get(
    "/{job_id}",
    summary="Poll a job",
    response_model=JobAnswer,
    responses={
        304: {"description": "Nothing has changed since the version in If-None-Match."},
        **problems.declare(problems.NOT_FOUND),
    },
)
async def get_train_job(
    job_id: str, request: Request, services: ServicesDep, wait: Wait = 0
) -> Response:
    """With If-None-Match, `wait` waits for a change from that version; without, for the job's
    end."""
    return await poll(services, request, "train", job_id, wait, JobAnswer.of)


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job that is not done",
    status_code=202,
    responses=problems.declare(problems.NOT_FOUND, problems.CONFLICT),
)
def cancel_train_job(job_id: str, services: ServicesDep) -> JobAnswer:
    """A queued job is cancelled at once, a running one within seconds."""
    return JobAnswer.of(jobs.request_cancel(services.database, job_id, "train"))


@router.get(
    "/{job_id}/metrics",
    summary="The loss curve, and how well the model denoises at which level",
    responses=problems.declare(problems.NOT_FOUND),
)
def get_metrics(job_id: str, services: ServicesDep) -> JobMetrics:
    job = jobs.get_job(services.database, job_id, "train")
    kept = _lines(services, f"{job.checkpoint_key}/metrics.jsonl") if job.checkpoint_key else []
    newest = _lines(services, f"jobs/{job.id}/attempt-{job.fence}/metrics.jsonl")
    last = kept[-1]["step"] if kept else 0
    steps = kept + [line for line in newest if line["step"] > last]
    evaluations = (
        _lines(services, f"{job.checkpoint_key}/evaluations.jsonl") if job.checkpoint_key else []
    )
    return JobMetrics(
        steps=[MetricLine.model_validate(line) for line in steps], evaluations=evaluations
    )


@router.get(
    "/{job_id}/samples",
    summary="The sample grids made so far",
    responses=problems.declare(problems.NOT_FOUND),
)
def list_samples(job_id: str, services: ServicesDep) -> SampleList:
    job = jobs.get_job(services.database, job_id, "train")
    keys = services.artifacts.keys(f"jobs/{job.id}/samples")
    steps = [int(key.rsplit("/", 1)[1].removesuffix(".png")) for key in keys]
    return SampleList(steps=steps, links=[f"/train-jobs/{job.id}/samples/{s}" for s in steps])


@router.get(
    "/{job_id}/samples/{step}",
    summary="A grid of samples from the averaged weights at a step",
    response_class=Response,
    responses={
        200: {"content": {"image/png": {}}, "description": "PNG"},
        **problems.declare(problems.NOT_FOUND),
    },
)
def get_samples(job_id: str, step: int, request: Request, services: ServicesDep) -> Response:
    job = jobs.get_job(services.database, job_id, "train")
    try:
        content = services.artifacts.get_bytes(f"jobs/{job.id}/samples/{step:08}.png")
    except ArtifactNotFound:
        raise NotFound(f"job {job.id!r} has no samples of step {step}") from None
    return conditional(request, content, "image/png", {})


def _resolve(body: TrainRequest, dataset: DatasetRecord) -> TrainConfig:
    """ValueError names the field and its bound."""
    most_common = dataset.sizes[0]
    facts = DatasetFacts(
        num_images=dataset.num_images,
        channels=dataset.channels,
        image_size=(most_common["height"], most_common["width"]),
        class_names=tuple(dataset.classes),
    )
    given = body.model_dump(exclude_none=True, exclude={"dataset", "model_name"})
    if "net" in given:
        given["net"] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given["net"].items()
        }
    return resolve_config(facts, **given)


def _model_name(services: Services, dataset: str) -> str:
    """The data set's name and a number that no model or job has taken: digits-1, digits-2, ..."""
    taken = jobs.model_names(services.database)
    number = 1
    while f"{dataset[:50]}-{number}" in taken:
        number += 1
    return f"{dataset[:50]}-{number}"


def _lines(services: Services, key: str) -> list[dict[str, Any]]:
    try:
        text = services.artifacts.get_bytes(key).decode()
    except ArtifactNotFound:
        return []
    return [json.loads(line) for line in text.splitlines() if line]
