"""POST /train-jobs, from the request to the job, in three steps.

    gather            look up all that the request names, in the database and in files
    plan_training     make every open choice, or refuse with the field and its bound; reads nothing
    create_job        write the job

A run starts with random weights or with those of a model (fine-tuning, distilling), or it goes on
from a checkpoint of an earlier job. A run that goes on is the same run with a larger budget: only
the fields that models.training.config marks with MayChange may differ.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from app.http.errors import InvalidInput, reported_at, reported_in
from app.services import Services
from app.training.request_schema import Hyperparameters, TrainRequest
from models.diffusion.config import ModelConfig
from models.images.formats import Fit
from models.nets.config import UNetConfig
from models.pipeline.card import ModelCard
from models.pipeline.folder import read_config
from models.training.config import CHANGEABLE, TrainConfig, resolve_config
from models.training.defaults import DEVICES, DatasetFacts, Device
from models.training.forecast import Forecast, forecast
from models.training.speed import BENCHMARKED, flops_of
from store.access.quotas import usage_of
from store.datasets import DatasetVersion, get_version
from store.errors import (
    ArtifactDamaged,
    ArtifactNotFound,
    CheckpointGone,
    DatasetConflict,
    VersionNotFound,
)
from store.jobs import requests
from store.jobs.checkpoints import Checkpoint, list_checkpoints
from store.jobs.files import checkpoint_key
from store.jobs.options import FirstWeights, Origin, TrainOptions
from store.jobs.record import Job, Webhook
from store.models import ModelRecord, get_model
from store.nodes import devices
from store.webhooks import check_secret, check_url, new_secret

RECENT = 10  # trainings whose speed is known
SETTLED_STEPS = 50  # of a training, from which on its speed is

HYPERPARAMETERS = set(Hyperparameters.model_fields)


@dataclass(frozen=True)
class FirstModel:
    """The model that a run begins with, to fine-tune or to distill it."""

    weights: FirstWeights
    config: ModelConfig
    fit: Fit | None = None  # of the images that it learned from, where that is known


@dataclass(frozen=True)
class EarlierJob:
    """The job that a run goes on from, with its checkpoints, the oldest first."""

    job: Job
    checkpoints: Sequence[Checkpoint]


@dataclass(frozen=True)
class Speed:
    """The speed of an earlier training, as in models.training.speed. `flops` are its network's
    operations for an image."""

    flops: float
    flops_per_second: float


@dataclass(frozen=True)
class Found:
    """All that a request names. `device` is the best that a live worker trains on; `speeds` are
    those of recent trainings on it."""

    dataset: DatasetVersion
    device: Device = "cpu"
    model: FirstModel | None = None
    earlier: EarlierJob | None = None
    speeds: Sequence[Speed] = ()


@dataclass(frozen=True)
class Training:
    """A planned job. `device` is the one that the config was chosen for; `checkpoint` is that of
    the earlier job, where the run goes on."""

    dataset: DatasetVersion
    config: TrainConfig
    options: TrainOptions
    device: str | None
    checkpoint: Checkpoint | None = None


# Gather -------------------------------------------------------------------------------------------


def gather(services: Services, body: TrainRequest) -> Found:
    """Look up all that the request names.

    Raises NotFound for unknown names, DatasetConflict where a run that goes on would find other
    images, and InvalidInput for a request that names too much or too little, or a model that cannot
    be trained on.
    """
    _check_beginning(body)
    device = _device(services)
    speeds = _speeds(services, device)
    if body.resume_from:
        job = requests.get_job(services.database, body.resume_from.job, "train")
        earlier = EarlierJob(job, list_checkpoints(services.database, job.id))
        return Found(_version_of(services, job), device, earlier=earlier, speeds=speeds)
    name = body.fine_tune or body.distill
    record = get_model(services.database, name) if name else None
    dataset = _dataset(services, body, record)
    if record is None:
        return Found(dataset, device, speeds=speeds)
    with reported_at("/fine_tune" if body.fine_tune else "/distill"):
        return Found(dataset, device, model=_first_model(services, record), speeds=speeds)


def _check_beginning(body: TrainRequest) -> None:
    """Refuse a request that begins in two ways, or that has nothing to learn from."""
    given = [name for name in ("resume_from", "fine_tune", "distill") if getattr(body, name)]
    if len(given) > 1:
        raise InvalidInput.pointer(f"/{given[1]}", f"{given[1]} does not go with {given[0]}")
    if body.dataset is None and not (body.resume_from or body.distill):
        raise _dataset_missing()


def _dataset(services: Services, body: TrainRequest, model: ModelRecord | None) -> DatasetVersion:
    """Return the version to learn from: the one that the request names, the newest of its dataset,
    or, where it names none, the one that the model learned from."""
    if body.dataset is not None:
        return get_version(services.database, body.dataset, body.dataset_version)
    if model is None or model.dataset is None:
        raise _dataset_missing()
    version = body.dataset_version or model.dataset_digest
    return get_version(services.database, model.dataset, version)


def _version_of(services: Services, job: Job) -> DatasetVersion:
    """Return the version that an earlier job learned from. Raises DatasetConflict where it is no
    longer there."""
    assert job.dataset is not None
    try:
        return get_version(services.database, job.dataset, job.dataset_digest)
    except VersionNotFound:
        raise DatasetConflict(
            f"dataset {job.dataset!r} has other images than job {job.id!r} learned from"
        ) from None


def _dataset_missing() -> InvalidInput:
    return InvalidInput.pointer(
        "/dataset",
        "dataset is missing; only resume_from and distill of a model trained here do without",
    )


def _device(services: Services) -> Device:
    """Return the best device that a live worker trains on; a CPU where no worker trains."""
    known = devices(services.database, "train")
    return next((device for device in reversed(DEVICES) if device in known), "cpu")


def _speeds(services: Services, device: Device) -> list[Speed]:
    """Return the speeds of recent trainings, the newest first."""
    found = []
    for job in requests.newest_trainings(services.database, device, limit=RECENT):
        rate, step = job.progress.get("images_per_second"), job.progress.get("step", 0)
        if rate and step >= SETTLED_STEPS:
            height, width = job.config["image_size"]
            flops = flops_of(UNetConfig.from_dict(job.config["net"]), (height, width))
            found.append(Speed(flops, rate * flops))
    return found


def _first_model(services: Services, record: ModelRecord) -> FirstModel:
    """Read the model's config. Raises Invalid where it is not supported."""
    with tempfile.TemporaryDirectory(dir=services.settings.locations.data_dir) as scratch:
        folder = Path(scratch) / "model"
        for key in services.artifacts.keys(record.artifact_prefix):
            if key.endswith(".json"):  # the weights are for the worker
                name = str(PurePosixPath(key).relative_to(record.artifact_prefix))
                services.artifacts.download(key, folder / name, (record.files or {}).get(name))
        config = read_config(folder)
    weights = FirstWeights(record.name, record.digest, record.artifact_prefix)
    return FirstModel(weights, config, ModelCard.from_dict(record.details).fit)


# Plan ---------------------------------------------------------------------------------------------


def plan_training(found: Found, body: TrainRequest) -> Training:
    """Make every open choice. Raises InvalidInput."""
    if found.earlier:
        return _plan_continuation(found.dataset, found.earlier, body)
    options = TrainOptions(body.keep, body.keep_checkpoints)
    given = body.model_dump(exclude_none=True, include=HYPERPARAMETERS)
    facts = _facts(found.dataset)
    if model := found.model:
        options = replace(options, fine_tune=model.weights)
        facts = replace(facts, channels=model.config.net.in_channels)
        given = _completed_by(model.config, given)
        given.setdefault("fit", model.fit)
        given["objective"] = "consistency" if body.distill else "denoising"
    with reported_in(TrainRequest):
        config = resolve_config(facts, device=found.device, is_new=found.model is None, **given)
    return Training(found.dataset, config, options, found.device)


def forecast_of(found: Found, training: Training) -> Forecast:
    """Estimate what the training comes to here: at the speed of the recent one whose network is the
    most alike in size, else at that of the benchmark for the device."""
    config = training.config
    flops = flops_of(config.net, config.image_size)
    alike = min(found.speeds, key=lambda speed: abs(math.log(speed.flops / flops)), default=None)
    speed = alike.flops_per_second if alike else BENCHMARKED.get(training.device or "")
    is_new = training.options.fine_tune is None
    return forecast(config, _num_images(training.dataset), speed, is_new=is_new)


def _num_images(dataset: DatasetVersion) -> int:
    return dataset.splits.get("train", dataset.num_images)


def _facts(dataset: DatasetVersion) -> DatasetFacts:
    most_common = dataset.sizes[0]
    return DatasetFacts(
        num_images=_num_images(dataset),
        channels=dataset.channels,
        image_size=(most_common["height"], most_common["width"]),
        class_names=tuple(dataset.classes),
        sizes={(size["height"], size["width"]): size["count"] for size in dataset.sizes},
    )


def _completed_by(model: ModelConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """Add the hyperparameters that the model decides; refuse others than it has."""
    net = {
        name: value
        for name, value in asdict(model.net).items()
        if name not in ("in_channels", "out_channels", "num_class_embeds")
    }
    decided = {
        "net": net,
        "schedule": asdict(model.schedule),
        "prediction_type": model.prediction_type,
        "image_size": model.image_size,
        "preset": "edm" if model.prediction_type == "edm" else "ddpm",
    }
    asked = dict(given.get("net", {}))
    net["dropout"] = asked.pop("dropout", net["dropout"])  # the one part that may differ
    kept = {name: given[name] for name in decided if name in given}
    _check_equal({**kept, "net": asked}, decided, "the model that it begins with has")
    return {**given, **decided, "sigma_data": model.sigma_data}


def _plan_continuation(
    dataset: DatasetVersion, earlier: EarlierJob, body: TrainRequest
) -> Training:
    job = earlier.job
    if body.dataset not in (None, job.dataset):
        raise InvalidInput.pointer(
            "/dataset", f"dataset is {body.dataset!r}; the run that goes on has {job.dataset!r}"
        )
    if body.dataset_version not in (None, dataset.number):
        raise InvalidInput.pointer(
            "/dataset_version",
            f"dataset_version is {body.dataset_version}; the run that goes on has {dataset.number}",
        )
    checkpoint = _checkpoint(earlier, body.resume_from.step if body.resume_from else None)
    config = _with_more_budget(job, checkpoint, body)
    known = TrainOptions.from_dict(job.options)
    options = TrainOptions(
        body.keep,
        body.keep_checkpoints,
        fine_tune=known.fine_tune,
        resumed_from=Origin(job.id, checkpoint.step),
    )
    return Training(dataset, config, options, job.device, checkpoint)


def _checkpoint(earlier: EarlierJob, step: int | None) -> Checkpoint:
    """Return the checkpoint of this step, by default the last one."""
    job_id, checkpoints = earlier.job.id, earlier.checkpoints
    if not checkpoints:
        raise InvalidInput.pointer("/resume_from/job", f"job {job_id!r} has no checkpoint")
    if step is None:
        return checkpoints[-1]
    for checkpoint in checkpoints:
        if checkpoint.step == step:
            return checkpoint
    steps = ", ".join(str(checkpoint.step) for checkpoint in checkpoints)
    raise InvalidInput.pointer(
        "/resume_from/step", f"resume_from.step is {step}; job {job_id!r} has those of {steps}"
    )


def _with_more_budget(earlier: Job, checkpoint: Checkpoint, body: TrainRequest) -> TrainConfig:
    given = body.model_dump(
        mode="json", exclude_unset=True, exclude_none=True, include=HYPERPARAMETERS - CHANGEABLE
    )
    known = {**earlier.config, "class_conditional": bool(earlier.config["class_names"])}
    _check_equal(given, known, "the run that goes on has")
    changes = body.model_dump(exclude_none=True, include=CHANGEABLE)
    steps, minutes = (changes.pop(name, None) for name in ("steps", "minutes"))
    _check_budget(steps, minutes, checkpoint)
    with reported_in(TrainRequest):
        config = TrainConfig.from_dict(earlier.config)
        return replace(config, steps=steps, minutes=minutes, **changes)


def _check_budget(steps: int | None, minutes: float | None, checkpoint: Checkpoint) -> None:
    if steps is None and minutes is None:
        raise InvalidInput.pointer(
            "/steps", "steps and minutes are both missing; with resume_from give the new total"
        )
    if steps is not None and steps <= checkpoint.step:
        raise InvalidInput.pointer(
            "/steps",
            f"steps is {steps}; it must exceed the {checkpoint.step} that are done",
        )
    if minutes is not None and 60.0 * minutes <= checkpoint.seconds:
        raise InvalidInput.pointer(
            "/minutes",
            f"minutes is {minutes:g}; it must exceed the {checkpoint.seconds / 60:.2f} "
            "that are used",
        )


def _check_equal(
    given: Mapping[str, Any], known: Mapping[str, Any], owner: str, path: tuple[str, ...] = ()
) -> None:
    """Refuse the first given value, at any depth, that differs from the known one."""
    for name, value in given.items():
        place, there = (*path, name), known.get(name)
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            _check_equal(value, there, owner, place)
        elif _as_json(value) != _as_json(there):
            raise InvalidInput.pointer(
                "/" + "/".join(place),
                f"{'.'.join(place)} is {_as_json(value)!r}; {owner} {_as_json(there)!r}, "
                "which cannot change",
            )


def _as_json(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


# Create -------------------------------------------------------------------------------------------


def webhook_of(body: TrainRequest) -> Webhook | None:
    """Return the webhook that the request asks for, with a new secret where it gives none."""
    if body.webhook_url is None:
        if body.webhook_secret is not None:
            raise InvalidInput.pointer(
                "/webhook_secret", "webhook_secret needs a webhook_url to go with"
            )
        return None
    with reported_at("/webhook_url"):
        url = check_url(body.webhook_url)
    with reported_at("/webhook_secret"):
        secret = check_secret(body.webhook_secret) if body.webhook_secret else new_secret()
    return Webhook(url, secret)


def create_job(
    services: Services,
    body: TrainRequest,
    training: Training,
    webhook: Webhook | None,
    expected: Forecast,
) -> Job:
    """Write the job, with the warnings and the time of its forecast.

    Raises Conflict where the name of its model is taken, or where its checkpoint was removed
    meanwhile.
    """
    if training.config.minutes is None:
        _check_has_minutes(services)
    options = replace(training.options, warnings=expected.warnings, seconds=expected.seconds)
    checkpoint = _copy_checkpoint(services, training.checkpoint) if training.checkpoint else None
    try:
        return requests.create_job(
            services.database,
            "train",
            dataset=training.dataset.dataset,
            version=training.dataset.number,
            model_name=body.model_name,
            config=training.config.to_dict(),
            options=options.to_dict(),
            device=training.device,
            priority=body.priority,
            webhook=webhook,
            checkpoint=checkpoint,
        )
    except Exception:
        if checkpoint:
            services.artifacts.delete_prefix(f"jobs/{checkpoint.job_id}")
        raise


def _check_has_minutes(services: Services) -> None:
    """Refuse a budget in steps alone where the caller's quota is in minutes."""
    quota = usage_of(services.database).get("train_minutes")
    if quota and quota["quota"]:
        raise InvalidInput.pointer(
            "/minutes",
            "minutes is missing; your quota is in minutes, so that a job in steps needs them, too",
        )


def _copy_checkpoint(services: Services, checkpoint: Checkpoint) -> Checkpoint:
    """Copy a checkpoint into a new job, as its first, so that the earlier job can be deleted.

    Raises CheckpointGone where it is removed meanwhile, and ArtifactDamaged.
    """
    job_id = requests.new_job_id()
    key = checkpoint_key(job_id, 0, checkpoint.step)
    with tempfile.TemporaryDirectory(dir=services.settings.locations.data_dir) as scratch:
        folder = Path(scratch) / "checkpoint"
        try:
            services.artifacts.download_folder(checkpoint.key, folder, checkpoint.files)
        except (ArtifactNotFound, ArtifactDamaged) as error:
            kept = list_checkpoints(services.database, checkpoint.job_id)
            if isinstance(error, ArtifactDamaged) and checkpoint.key in (c.key for c in kept):
                raise
            raise CheckpointGone(checkpoint.job_id, checkpoint.step) from None
        if sum(file.stat().st_size for file in folder.iterdir()) != checkpoint.num_bytes:
            raise CheckpointGone(checkpoint.job_id, checkpoint.step)  # half of it
        files = services.artifacts.upload_folder(folder, key)
    return Checkpoint(
        job_id=job_id,
        step=checkpoint.step,
        key=key,
        num_bytes=checkpoint.num_bytes,
        seconds=checkpoint.seconds,
        score=checkpoint.score,
        files=files,
    )
