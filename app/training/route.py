"""/train-jobs: training, from the request to the model."""

from collections.abc import Iterator

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.http import problems
from app.http.conditional import conditional
from app.http.file_answers import file_answer
from app.http.root_path import link
from app.jobs.route import JobRoutes, JobTexts
from app.jobs.waiting import reason_to_wait
from app.services import Services, ServicesDep
from app.training.request import create_job, forecast_of, gather, plan_training, webhook_of
from app.training.request_schema import TrainRequest
from app.training.schema import SampleList, checkpoint_list, job_answer
from client.answers import CheckpointList, JobAnswer, JobMetrics, MetricLine, TrainPlan
from store.errors import ArtifactNotFound, NotFound
from store.jobs import requests
from store.jobs.checkpoints import list_checkpoints
from store.jobs.files import log_keys, metrics_key, newest_event_file, samples_key
from store.jobs.kinds import JOB_KINDS
from store.jobs.metrics import (
    EVALUATIONS_FILE,
    STEPS_FILE,
    EvaluationLine,
    StepLine,
    placed,
    with_seconds,
)
from store.jobs.record import Job
from store.webhooks import deliveries_of
from worker.queue import submit

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
    """Start a job. It is accepted once its record is written, even while the queue cannot be
    reached; it then starts when the queue is back. Poll `Location`; `?wait=30` answers at the
    next change."""
    found = gather(services, body)
    training, webhook = plan_training(found, body), webhook_of(body)
    expected = forecast_of(found, training)
    job = create_job(services, body, training, webhook, expected)
    submit(services.queue, job.id, KIND.name)  # if it fails, the reaper announces the job
    response.headers["Location"] = KIND.address(job.id)
    return job_answer(services.database, job, secret=webhook.secret if webhook else None)


@router.post(
    "/plan",
    summary="What a training job would be, without starting it",
    responses=problems.declare(
        problems.NOT_FOUND, problems.CONFLICT, problems.UNSUPPORTED, problems.INVALID
    ),
)
def plan_train_job(body: TrainRequest, services: ServicesDep) -> TrainPlan:
    """Resolve a request of POST /train-jobs: take and refuse the same, give every choice with its
    reason, and estimate what the training comes to."""
    webhook_of(body)
    found = gather(services, body)
    training = plan_training(found, body)
    expected = forecast_of(found, training)
    dataset = training.dataset.dataset
    return TrainPlan(
        dataset=dataset,
        dataset_version=training.dataset.number,
        model_name=body.model_name or requests.free_model_name(services.database, dataset),
        device=training.device,
        waiting=reason_to_wait(services.database, [KIND.name]),
        config=training.config.to_dict(),
        steps=expected.steps,
        seconds=expected.seconds,
        good_minutes=expected.good_minutes,
        warnings=list(expected.warnings),
    )


def _answer(services: Services, job: Job) -> JobAnswer:
    deliveries = deliveries_of(services.database, job.id) if job.webhook_url else ()
    return job_answer(services.database, job, deliveries)


JobRoutes(
    KIND,
    JobAnswer,
    _answer,
    JobTexts(
        cancel_details="One that waits is cancelled at once, a running one within seconds.",
        pause_details="A queued job is paused at once, a running one when it has written a "
        "checkpoint. The time of the pause does not count against `minutes`.",
        resume_details="From its last checkpoint, as if nothing had been. A pause that was asked "
        "for and not carried out yet is taken back.",
        delete="Delete a job that is done, with its checkpoints, samples and logs",
        delete_details="The model that it made stays.",
    ),
).add_to(router)


@router.get(
    "/{job_id}/checkpoints",
    summary="The checkpoints that are kept",
    responses=problems.declare(problems.NOT_FOUND),
)
def get_checkpoints(job_id: str, services: ServicesDep) -> CheckpointList:
    """List the last checkpoints, as many as `keep_checkpoints` says, and the best. `resume_from`
    takes any of them."""
    job = requests.get_job(services.database, job_id, KIND.name)
    return checkpoint_list(job.id, list_checkpoints(services.database, job.id))


@router.get(
    "/{job_id}/log",
    summary="What the job's processes said, over all attempts",
    response_class=Response,
    responses={
        **file_answer("text/plain", "a JSON object per line"),
        **problems.declare(problems.NOT_FOUND),
    },
)
def get_train_log(job_id: str, services: ServicesDep) -> Response:
    """Read the log, which is a few seconds behind while the job runs."""
    job = requests.get_job(services.database, job_id, KIND.name)
    keys = log_keys(services.artifacts, job.id)
    return StreamingResponse(_joined(services, keys), media_type="text/plain")


@router.get(
    "/{job_id}/tensorboard",
    summary="A file for TensorBoard: curves and sample grids",
    response_class=Response,
    responses={
        **file_answer("application/octet-stream", "events.out.tfevents..."),
        **problems.declare(problems.NOT_FOUND),
    },
)
def get_tensorboard_file(job_id: str, services: ServicesDep) -> Response:
    """Up to the last checkpoint. `curl -OJ` keeps its name, by which TensorBoard knows it."""
    job = requests.get_job(services.database, job_id, KIND.name)
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
def get_train_metrics(job_id: str, services: ServicesDep) -> JobMetrics:
    job = requests.get_job(services.database, job_id, KIND.name)
    kept, evaluations = [], []
    if key := job.checkpoint_key:
        kept = StepLine.all_of(_text(services, f"{key}/{STEPS_FILE}"))
        evaluations = EvaluationLine.all_of(_text(services, f"{key}/{EVALUATIONS_FILE}"))
    last = kept[-1].step if kept else 0
    newest = StepLine.all_of(_text(services, metrics_key(job.id, job.fence)))
    steps = with_seconds(kept + [line for line in newest if line.step > last])
    batch_size = job.config["batch_size"]
    return JobMetrics(
        steps=[MetricLine.model_validate(line, from_attributes=True) for line in steps],
        evaluations=[placed(line, steps, batch_size).to_dict() for line in evaluations],
    )


@router.get(
    "/{job_id}/samples",
    summary="The sample grids made so far",
    responses=problems.declare(problems.NOT_FOUND),
)
def list_train_samples(job_id: str, services: ServicesDep) -> SampleList:
    job = requests.get_job(services.database, job_id, KIND.name)
    keys = services.artifacts.keys(f"jobs/{job.id}/samples")
    steps = [int(key.rsplit("/", 1)[1].removesuffix(".png")) for key in keys]
    address = link(KIND.address(job.id))
    return SampleList(steps=steps, links=[f"{address}/samples/{s}" for s in steps])


@router.get(
    "/{job_id}/samples/{step}",
    summary="A grid of samples from the averaged weights at a step",
    response_class=Response,
    responses={
        **file_answer("image/png", "PNG"),
        **problems.declare(problems.NOT_FOUND),
    },
)
def get_train_samples(job_id: str, step: int, request: Request, services: ServicesDep) -> Response:
    job = requests.get_job(services.database, job_id, KIND.name)
    try:
        content = services.artifacts.get_bytes(samples_key(job.id, step))
    except ArtifactNotFound:
        raise NotFound(f"job {job.id!r} has no samples of step {step}") from None
    return conditional(request, content, "image/png", {})


def _joined(services: Services, keys: list[str]) -> Iterator[bytes]:
    for key in keys:
        yield from services.artifacts.stream(key)


def _text(services: Services, key: str) -> str:
    """Return a file of lines, empty where there is none yet."""
    try:
        return services.artifacts.get_bytes(key).decode()
    except ArtifactNotFound:
        return ""
