"""/train-jobs: training, from the request to the model."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.http import problems
from app.http.accept import choose
from app.http.conditional import conditional
from app.http.paging import After, Limit, OnlyStatus
from app.http.records import Page
from app.http.streams import EVENT_STREAM
from app.jobs.events import event_stream
from app.jobs.polling import Wait, poll
from app.services import Services, ServicesDep
from app.training.request import copy_checkpoint, plan_training, webhook_of
from app.training.request_schema import TrainRequest
from app.training.schema import (
    CheckpointList,
    JobAnswer,
    JobEventAnswer,
    JobEvents,
    JobMetrics,
    MetricLine,
    SampleList,
    TrainPlan,
)
from store.errors import ArtifactNotFound, NotFound
from store.jobs import requests
from store.jobs.checkpoints import list_checkpoints
from store.jobs.events import events_after
from store.jobs.files import log_keys, metrics_key, newest_event_file, samples_key
from store.jobs.kinds import JOB_KINDS
from store.jobs.record import Job
from store.webhooks import deliveries_of
from worker.queue import submit

JSON = "application/json"
LAST_NUMBER = 2**31 - 1

EventNumber = Annotated[
    int, Query(ge=0, le=LAST_NUMBER, description="the number of the last one seen")
]
LastEventId = Annotated[int | None, Header(alias="Last-Event-ID", ge=0, le=LAST_NUMBER)]

KIND = JOB_KINDS["train"]
router = APIRouter(prefix=f"/{KIND.collection}", tags=["training"])


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
    training, webhook = plan_training(services, body), webhook_of(body)
    checkpoint = copy_checkpoint(services, training.checkpoint) if training.checkpoint else None
    try:
        job = requests.create_train_job(
            services.database,
            dataset=training.dataset.name,
            model_name=body.model_name,
            config=training.config.to_dict(),
            options=training.options.to_dict(),
            device=training.device,
            priority=body.priority,
            webhook=webhook,
            checkpoint=checkpoint,
        )
    except Exception:
        if checkpoint:
            services.artifacts.delete_prefix(f"jobs/{checkpoint.job_id}")
        raise
    submit(services.queue, job.id, "train")  # if it fails, the reaper announces the job
    response.headers["Location"] = KIND.address(job.id)
    return JobAnswer.of(job, secret=webhook.secret if webhook else None)


@router.post(
    "/plan",
    summary="What a training job would be, without starting it",
    responses=problems.declare(
        problems.NOT_FOUND, problems.CONFLICT, problems.UNSUPPORTED, problems.INVALID
    ),
)
def plan_train_job(body: TrainRequest, services: ServicesDep) -> TrainPlan:
    """Takes what POST /train-jobs takes, and refuses what it refuses: every choice with its
    reason."""
    webhook_of(body)
    training = plan_training(services, body)
    dataset = training.dataset.name
    return TrainPlan(
        dataset=dataset,
        model_name=body.model_name or requests.free_model_name(services.database, dataset),
        device=training.device,
        config=training.config.to_dict(),
    )


@router.get("", summary="List the jobs, newest first")
def list_train_jobs(
    services: ServicesDep,
    limit: Limit = 20,
    after: After = None,
    status: OnlyStatus = None,
) -> Page[JobAnswer]:
    found, has_more = requests.list_jobs(
        services.database, "train", limit=limit, after=after, status=status
    )
    return Page(items=[_answer(services, job) for job in found], has_more=has_more)


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
    return await poll(services, request, "train", job_id, wait, partial(_answer, services))


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job that is not done",
    status_code=202,
    responses=problems.declare(problems.NOT_FOUND, problems.CONFLICT),
)
def cancel_train_job(job_id: str, services: ServicesDep) -> JobAnswer:
    """One that waits is cancelled at once, a running one within seconds."""
    return _answer(services, requests.request_cancel(services.database, job_id, "train"))


@router.post(
    "/{job_id}/pause",
    summary="Pause a job",
    status_code=202,
    responses=problems.declare(problems.NOT_FOUND, problems.CONFLICT),
)
def pause_train_job(job_id: str, services: ServicesDep) -> JobAnswer:
    """A queued job is paused at once, a running one when it has written a checkpoint. The time of
    the pause does not count against `minutes`."""
    return _answer(services, requests.request_pause(services.database, job_id, "train"))


@router.post(
    "/{job_id}/resume",
    summary="Let a paused job go on",
    status_code=202,
    responses=problems.declare(problems.NOT_FOUND, problems.CONFLICT),
)
def resume_train_job(job_id: str, services: ServicesDep) -> JobAnswer:
    """From its last checkpoint, as if nothing had been. A pause that was asked for and not carried
    out yet is taken back."""
    job = requests.resume(services.database, job_id, "train")
    submit(services.queue, job.id, "train")
    return _answer(services, job)


@router.delete(
    "/{job_id}",
    summary="Delete a job that is done, with its checkpoints, samples and logs",
    status_code=204,
    responses=problems.declare(problems.NOT_FOUND, problems.CONFLICT),
)
def delete_train_job(job_id: str, services: ServicesDep) -> None:
    """The model that it made stays."""
    requests.delete_job(services.database, job_id, "train")
    services.artifacts.delete_prefix(f"jobs/{job_id}")


@router.get(
    "/{job_id}/events",
    summary="What happened to a job, as it happens",
    response_model=JobEvents,
    responses={
        200: {"content": {EVENT_STREAM: {}}},
        204: {"description": "Nothing follows, and nothing will: the job is done."},
        **problems.declare(problems.NOT_FOUND, problems.NOT_ACCEPTABLE),
    },
)
async def get_events(
    job_id: str,
    request: Request,
    services: ServicesDep,
    after: EventNumber = 0,
    last_event_id: LastEventId = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="how many at most, as JSON")] = 1000,
) -> Response:
    """A stream (`text/event-stream`) that ends with the job, or with `Accept: application/json` the
    list so far. Events are numbered; `Last-Event-ID`, or `after`, is the last one seen. A stream
    also has `progress` in between, without a number: how far the job is as of now."""
    media_type = choose(request.headers.get("accept"), (EVENT_STREAM, JSON))
    job = await run_in_threadpool(requests.get_job, services.database, job_id, "train")
    after = after if last_event_id is None else last_event_id
    events, more = await run_in_threadpool(
        events_after, services.database, job.id, after, limit if media_type == JSON else 1
    )
    headers = {"Cache-Control": "no-cache", "Vary": "Accept"}
    if media_type == JSON:
        answer = JobEvents(items=[JobEventAnswer.of(event) for event in events], has_more=more)
        return Response(answer.model_dump_json(), headers=headers, media_type=JSON)
    if job.done and not events:
        return Response(status_code=204, headers=headers)  # tells a browser not to come back
    stream = event_stream(services, job.id, after)
    return StreamingResponse(stream, media_type=EVENT_STREAM, headers=headers)


@router.get(
    "/{job_id}/checkpoints",
    summary="The checkpoints that are kept",
    responses=problems.declare(problems.NOT_FOUND),
)
def get_checkpoints(job_id: str, services: ServicesDep) -> CheckpointList:
    """The last ones, as many as `keep_checkpoints` says, and the best. `resume_from` takes any."""
    job = requests.get_job(services.database, job_id, "train")
    return CheckpointList.of(job.id, list_checkpoints(services.database, job.id))


@router.get(
    "/{job_id}/log",
    summary="What the job's processes said, over all attempts",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {}}, "description": "a JSON object per line"},
        **problems.declare(problems.NOT_FOUND),
    },
)
def get_log(job_id: str, services: ServicesDep) -> Response:
    """A few seconds behind while it runs."""
    job = requests.get_job(services.database, job_id, "train")
    keys = log_keys(services.artifacts, job.id)
    return StreamingResponse(_joined(services, keys), media_type="text/plain")


@router.get(
    "/{job_id}/tensorboard",
    summary="A file for TensorBoard: curves and sample grids",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {}}, "description": "events.out.tfevents..."},
        **problems.declare(problems.NOT_FOUND),
    },
)
def get_event_file(job_id: str, services: ServicesDep) -> Response:
    """Up to the last checkpoint. `curl -OJ` keeps its name, by which TensorBoard knows it."""
    job = requests.get_job(services.database, job_id, "train")
    key = newest_event_file(services.artifacts, job.id)
    if key is None:
        raise NotFound(f"job {job.id!r} has no checkpoint yet, and so no file for TensorBoard")
    headers = {
        "Content-Length": str(services.artifacts.size(key)),
        "Content-Disposition": f'attachment; filename="{key.rsplit("/", 1)[1]}"',
    }
    content = services.artifacts.stream(key)
    return StreamingResponse(content, media_type="application/octet-stream", headers=headers)


@router.get(
    "/{job_id}/metrics",
    summary="The loss curve, and how well the model denoises at which level",
    responses=problems.declare(problems.NOT_FOUND),
)
def get_metrics(job_id: str, services: ServicesDep) -> JobMetrics:
    job = requests.get_job(services.database, job_id, "train")
    kept = _lines(services, f"{job.checkpoint_key}/metrics.jsonl") if job.checkpoint_key else []
    newest = _lines(services, metrics_key(job.id, job.fence))
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
    job = requests.get_job(services.database, job_id, "train")
    keys = services.artifacts.keys(f"jobs/{job.id}/samples")
    steps = [int(key.rsplit("/", 1)[1].removesuffix(".png")) for key in keys]
    return SampleList(steps=steps, links=[f"{KIND.address(job.id)}/samples/{s}" for s in steps])


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
    job = requests.get_job(services.database, job_id, "train")
    try:
        content = services.artifacts.get_bytes(samples_key(job.id, step))
    except ArtifactNotFound:
        raise NotFound(f"job {job.id!r} has no samples of step {step}") from None
    return conditional(request, content, "image/png", {})


def _answer(services: Services, job: Job) -> JobAnswer:
    deliveries = deliveries_of(services.database, job.id) if job.webhook_url else ()
    return JobAnswer.of(job, deliveries)


def _joined(services: Services, keys: list[str]) -> Iterator[bytes]:
    for key in keys:
        yield from services.artifacts.stream(key)


def _lines(services: Services, key: str) -> list[dict[str, Any]]:
    try:
        text = services.artifacts.get_bytes(key).decode()
    except ArtifactNotFound:
        return []
    return [json.loads(line) for line in text.splitlines() if line]
