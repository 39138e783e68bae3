"""/evaluations: measure how good a model is, on the workers."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.evaluations.schema import EvaluationAnswer, EvaluationRequest
from app.http import problems
from app.http.conditional import conditional
from app.http.errors import InvalidInput, reported_in
from app.http.file_answers import file_answer
from app.jobs.route import JobRoutes, JobTexts
from app.sample.request import sampler_and_steps
from app.services import Services, ServicesDep
from models.evaluation.config import EvaluationConfig
from models.evaluation.int8 import int8_ranges
from models.pipeline.card import ModelCard
from store.datasets import DatasetVersion, get_version
from store.errors import ArtifactNotFound, NotFound, VersionNotFound
from store.jobs import requests
from store.jobs.configs import EvaluateConfig, HeldOut
from store.jobs.files import neighbours_key
from store.jobs.kinds import JOB_KINDS
from store.jobs.options import TrainOptions
from store.models import ModelRecord, get_model
from worker.queue import submit

KIND = JOB_KINDS["evaluate"]
router = APIRouter(prefix=f"/{KIND.collection}", tags=["models"])

LARGE_SIDE, FEW_IMAGES, MANY_IMAGES = 64, 200, 1000


@router.post(
    "",
    summary="Evaluate a model",
    status_code=202,
    responses=problems.declare(
        problems.FORBIDDEN, problems.NOT_FOUND, problems.UNSUPPORTED, problems.INVALID
    ),
)
def create_evaluation(
    body: EvaluationRequest, response: Response, services: ServicesDep
) -> EvaluationAnswer:
    """Make images and compare them with real ones: Frechet and kernel distance, precision and
    recall, the nearest training images, and the bits per dimension of held-out images. Accepted as
    soon as the record is written; poll `Location`."""
    model = get_model(services.database, body.model, to_change=True)  # it keeps the scores
    version = _version(services, body, model)
    job = requests.create_job(
        services.database,
        KIND.name,
        model_name=model.name,
        dataset=version.dataset,
        version=version.number,
        config=EvaluateConfig(
            evaluation=_config(body, model, services).to_dict(),
            prefix=model.artifact_prefix,
            digest=model.digest,
            held_out=_held_out(services, version, model),
            fit=ModelCard.from_dict(model.details).fit or "crop",
        ).to_dict(),
    )
    submit(services.queue, job.id, KIND.name)  # if it fails, the reaper announces the job
    response.headers["Location"] = KIND.address(job.id)
    return EvaluationAnswer.of(services.database, job)


JobRoutes(
    KIND,
    EvaluationAnswer,
    lambda services, job: EvaluationAnswer.of(services.database, job),
    JobTexts(
        list="List the evaluations, newest first",
        poll="Poll an evaluation",
        cancel="Cancel an evaluation that is not done",
        delete="Delete an evaluation that is done, with its picture",
        delete_details="The scores that it gave its model stay.",
    ),
).add_to(router)


@router.get(
    "/{job_id}/neighbours",
    summary="What the model made, beside the training images that are nearest to it",
    response_class=Response,
    responses={
        **file_answer("image/png", "PNG"),
        **problems.declare(problems.NOT_FOUND),
    },
)
def get_neighbours(job_id: str, request: Request, services: ServicesDep) -> Response:
    """Two to a row: one of the images that came nearest to a training image, and its three nearest.
    Copies would show here first."""
    job = requests.get_job(services.database, job_id, KIND.name)
    try:
        content = services.artifacts.get_bytes(neighbours_key(job.id))
    except ArtifactNotFound:
        raise NotFound(f"evaluation {job.id!r} has no picture, or not yet") from None
    return conditional(request, content, "image/png", {})


def _version(services: Services, body: EvaluationRequest, model: ModelRecord) -> DatasetVersion:
    """Return the version to compare with: the one that the request names, or the one that the model
    learned from; of a dataset that it did not learn from, the newest."""
    name = body.dataset or model.dataset
    if name is None:
        raise InvalidInput.pointer(
            "/dataset", "dataset is missing; the model was uploaded, so it has none of its own"
        )
    learned = model.dataset_digest if name == model.dataset else None
    try:
        return get_version(services.database, name, body.dataset_version or learned)
    except VersionNotFound:
        if body.dataset is None or body.dataset_version is not None:
            raise
        return get_version(services.database, name)


def _config(body: EvaluationRequest, model: ModelRecord, services: Services) -> EvaluationConfig:
    card = ModelCard.from_dict(model.details)
    sampler, steps = sampler_and_steps(body.sampler, body.num_inference_steps, card.consistency)
    features: str = body.features
    if features == "vision_transformer":
        folder = services.settings.features_folder
        if folder is None:
            raise InvalidInput.pointer(
                "/features",
                "features is 'vision_transformer', which needs DIFFUSION_FEATURES_FOLDER to be set",
            )
        features = str(folder)
    precision = body.precision or services.settings.engine_precision
    many = MANY_IMAGES if max(card.image_size) < LARGE_SIDE else FEW_IMAGES
    with reported_in(EvaluationRequest):
        return EvaluationConfig(
            num_images=body.num_images or many,
            sampler=sampler,
            num_inference_steps=steps,
            guidance_scale=body.guidance_scale,
            seed=body.seed,
            precision=precision,
            ranges=int8_ranges(model.details.get("scores", {})) if precision == "int8" else (),
            features=features,
            likelihood_images=body.likelihood_images,
        )


def _held_out(services: Services, version: DatasetVersion, model: ModelRecord) -> HeldOut | None:
    """Return which images of the version the model has not seen, None where that is not known.

    They are the images that its own job held out, if the job of the model that it began with, where
    there was one, held out the same.
    """
    if model.job_id is None or not _learned_from(model, version):
        return None
    try:
        job = requests.get_job(services.database, model.job_id)
        split = HeldOut.of_training(job.config)
        first = TrainOptions.from_dict(job.options).fine_tune
        if first is None:
            return split
        before = get_model(services.database, first.model)
    except NotFound:
        return None
    if before.digest != first.digest:  # another model has that name now
        return None
    if before.dataset not in (None, model.dataset):
        return split
    return split if _held_out(services, version, before) == split else None


def _learned_from(model: ModelRecord, version: DatasetVersion) -> bool:
    return (model.dataset, model.dataset_digest) == (version.dataset, version.digest)
