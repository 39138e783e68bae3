"""From a request for training to what a job needs: its data set, its config, and what it begins
with. Every open choice is made here, and what cannot be is refused with the field and its bound.

A run starts anew, or with the weights of a model (fine-tuning), or goes on from a checkpoint of an
earlier job. One that goes on is the same run with a larger budget: whatever decides about its steps
stays.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from app.http.errors import InvalidInput, reported_at, reported_in
from app.services import Services
from app.training.request_schema import Hyperparameters, TrainRequest
from models.diffusion.model import ModelConfig
from models.pipeline.folder import read_config
from models.training.config import CHANGEABLE, TrainConfig, resolve_config
from models.training.defaults import DEVICES, DatasetFacts, Device
from store.datasets import DatasetRecord, get_dataset
from store.errors import ArtifactNotFound, CheckpointGone, DatasetConflict
from store.jobs import requests
from store.jobs.checkpoints import Checkpoint, list_checkpoints
from store.jobs.files import checkpoint_key
from store.jobs.options import FirstWeights, Origin, TrainOptions
from store.jobs.record import Job, Webhook
from store.models import get_model
from store.nodes import devices
from store.webhooks import check_secret, check_url, new_secret

HYPERPARAMETERS = set(Hyperparameters.model_fields)


@dataclass(frozen=True)
class Training:
    dataset: DatasetRecord
    config: TrainConfig
    options: TrainOptions
    device: str | None  # that the config was chosen for
    checkpoint: Checkpoint | None = None  # of an earlier job


def plan_training(services: Services, body: TrainRequest) -> Training:
    """Raises NotFound, Conflict and InvalidInput."""
    _check_beginnings(body)
    if body.resume_from:
        return _continued(services, body)
    dataset = get_dataset(services.database, _dataset_name(services, body))
    options = TrainOptions(body.keep, body.keep_checkpoints, dataset_digest=dataset.digest)
    given = body.model_dump(exclude_none=True, include=HYPERPARAMETERS)
    facts = _facts(dataset)
    given["device"] = _device(services)
    if name := body.fine_tune or body.distill:
        first, model = _model(services, name, "/fine_tune" if body.fine_tune else "/distill")
        options = replace(options, fine_tune=first)
        facts = replace(facts, channels=model.net.in_channels)
        given = _as_the_model(given, model)
        given["objective"] = "consistency" if body.distill else "denoising"
    with reported_in(TrainRequest):
        return Training(dataset, resolve_config(facts, **given), options, given["device"])


def _check_beginnings(body: TrainRequest) -> None:
    """A run begins in one way."""
    given = [name for name in ("resume_from", "fine_tune", "distill") if getattr(body, name)]
    if len(given) > 1:
        raise InvalidInput.pointer(f"/{given[1]}", f"{given[1]} does not go with {given[0]}")


def _dataset_name(services: Services, body: TrainRequest) -> str:
    name = body.dataset
    if name is None and body.distill:
        name = get_model(services.database, body.distill).dataset
    if name is None:
        raise InvalidInput.pointer(
            "/dataset",
            "dataset is missing; only resume_from and distill of a model trained here do without",
        )
    return name


def webhook_of(body: TrainRequest) -> Webhook | None:
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


def copy_checkpoint(services: Services, checkpoint: Checkpoint) -> Checkpoint:
    """The same as the first one of a new job, so that the earlier job may be deleted. Raises
    CheckpointGone where it is removed meanwhile."""
    job_id = requests.new_job_id()
    key = checkpoint_key(job_id, 0, checkpoint.step)
    with tempfile.TemporaryDirectory(dir=services.settings.locations.data_dir) as scratch:
        folder = Path(scratch) / "checkpoint"
        try:
            services.artifacts.download_folder(checkpoint.key, folder)
        except ArtifactNotFound:
            raise CheckpointGone(checkpoint.job_id, checkpoint.step) from None
        if sum(file.stat().st_size for file in folder.iterdir()) != checkpoint.num_bytes:
            raise CheckpointGone(checkpoint.job_id, checkpoint.step)  # half of it
        services.artifacts.upload_folder(folder, key)
    return Checkpoint(
        job_id=job_id,
        step=checkpoint.step,
        key=key,
        num_bytes=checkpoint.num_bytes,
        seconds=checkpoint.seconds,
        score=checkpoint.score,
    )


def _device(services: Services) -> Device:
    """The best that a live worker trains on; a CPU where none has said."""
    known = devices(services.database)
    return next((device for device in reversed(DEVICES) if device in known), "cpu")


def _facts(dataset: DatasetRecord) -> DatasetFacts:
    most_common = dataset.sizes[0]
    return DatasetFacts(
        num_images=dataset.num_images,
        channels=dataset.channels,
        image_size=(most_common["height"], most_common["width"]),
        class_names=tuple(dataset.classes),
    )


# Fine-tuning --------------------------------------------------------------------------------------


def _model(services: Services, name: str, pointer: str) -> tuple[FirstWeights, ModelConfig]:
    record = get_model(services.database, name)
    with tempfile.TemporaryDirectory(dir=services.settings.locations.data_dir) as scratch:
        folder = Path(scratch) / "model"
        for key in services.artifacts.keys(record.artifact_prefix):
            if key.endswith(".json"):  # the weights are for the worker
                name_in_folder = PurePosixPath(key).relative_to(record.artifact_prefix)
                services.artifacts.download(key, folder / name_in_folder)
        with reported_at(pointer):
            config = read_config(folder)
    return FirstWeights(name, record.digest, record.artifact_prefix), config


def _as_the_model(given: dict[str, Any], model: ModelConfig) -> dict[str, Any]:
    """What is given, completed by what the model decides."""
    net = {
        name: value
        for name, value in asdict(model.net).items()
        if name not in ("in_channels", "out_channels", "num_class_embeds")
    }
    dropout = given.get("net", {}).pop("dropout", net["dropout"])
    decided = {
        "net": net,
        "schedule": asdict(model.schedule),
        "prediction_type": model.prediction_type,
        "image_size": model.image_size,
        "preset": "edm" if model.prediction_type == "edm" else "ddpm",
    }
    kept = {name: given[name] for name in decided if name in given}
    _must_equal(kept, decided, "the model that it begins with has")
    net = {**net, "dropout": dropout}
    return {**given, **decided, "net": net, "sigma_data": model.sigma_data}


# Going on -----------------------------------------------------------------------------------------


def _continued(services: Services, body: TrainRequest) -> Training:
    assert body.resume_from is not None
    earlier = requests.get_job(services.database, body.resume_from.job, "train")
    assert earlier.dataset is not None
    if body.dataset not in (None, earlier.dataset):
        raise InvalidInput.pointer(
            "/dataset", f"dataset is {body.dataset!r}; the run that goes on has {earlier.dataset!r}"
        )
    checkpoint = _checkpoint(services, earlier, body.resume_from.step)
    config = _with_more_budget(earlier, checkpoint, body)
    dataset = get_dataset(services.database, earlier.dataset)
    digest = TrainOptions.from_dict(earlier.options).dataset_digest
    if digest not in (None, dataset.digest):
        raise DatasetConflict(
            f"dataset {dataset.name!r} has other images than job {earlier.id!r} learned from"
        )
    options = TrainOptions(
        body.keep,
        body.keep_checkpoints,
        resumed_from=Origin(earlier.id, checkpoint.step),
        dataset_digest=dataset.digest,
    )
    return Training(dataset, config, options, earlier.device, checkpoint)


def _checkpoint(services: Services, job: Job, step: int | None) -> Checkpoint:
    there = list_checkpoints(services.database, job.id)
    if not there:
        raise InvalidInput.pointer("/resume_from/job", f"job {job.id!r} has no checkpoint")
    if step is None:
        return there[-1]
    for checkpoint in there:
        if checkpoint.step == step:
            return checkpoint
    steps = ", ".join(str(checkpoint.step) for checkpoint in there)
    raise InvalidInput.pointer(
        "/resume_from/step", f"resume_from.step is {step}; job {job.id!r} has those of {steps}"
    )


def _with_more_budget(earlier: Job, checkpoint: Checkpoint, body: TrainRequest) -> TrainConfig:
    given = body.model_dump(
        mode="json", exclude_unset=True, exclude_none=True, include=HYPERPARAMETERS - CHANGEABLE
    )
    known = {**earlier.config, "class_conditional": bool(earlier.config["class_names"])}
    _must_equal(given, known, "the run that goes on has")
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


def _must_equal(
    given: Mapping[str, Any], known: Mapping[str, Any], whose: str, path: tuple[str, ...] = ()
) -> None:
    for name, value in given.items():
        place, there = (*path, name), known.get(name)
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            _must_equal(value, there, whose, place)
        elif _plain(value) != _plain(there):
            raise InvalidInput.pointer(
                "/" + "/".join(place),
                f"{'.'.join(place)} is {_plain(value)!r}; {whose} {_plain(there)!r}, "
                "which cannot change",
            )


def _plain(value: object) -> object:
    """As JSON has it."""
    return list(value) if isinstance(value, tuple) else value
