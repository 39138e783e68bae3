"""/models: the registry of trained and uploaded models."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.http import problems
from app.http.errors import InvalidInput, reported_at
from app.http.paging import After, Limit, Page
from app.http.resumable import RESPONSES, Resumable
from app.http.uploads import BODY, uploaded_file
from app.registry.download import diffusers_download, portable_download
from app.registry.schema import License, ModelChange, model_answer
from app.services import Services, ServicesDep
from client.answers import ModelAnswer, ModelFormat, Rejected, UploadedModel
from models.nets.precision import Precision
from models.pipeline.archive import Skipped, extract_model_archive
from models.pipeline.card import ModelCard
from models.pipeline.folder import (
    SCHEDULER,
    choose_null_class,
    read_config,
    read_weights,
    unused_scheduler_fields,
    weights_digest,
)
from models.pipeline.portable import CONSISTENCY_STEPS, STEPS
from models.pipeline.readme import read_license
from models.sampling.samplers import SamplerName
from store import models
from store.errors import ModelConflict, ModelNotFound
from store.jobs.requests import model_names
from store.models import ModelRecord
from store.names import check_name

router = APIRouter(prefix="/models", tags=["models"])

MAX_SKIPPED = 50  # files in an answer


async def _precisions(services: ServicesDep) -> dict[str, Precision] | None:
    return await services.engine.precisions()


Precisions = Annotated[dict[str, Precision] | None, Depends(_precisions)]


@router.get("", summary="List the models, newest first")
def list_models(
    services: ServicesDep,
    precisions: Precisions,
    limit: Limit = 20,
    after: After = None,
) -> Page[ModelAnswer]:
    records, has_more = models.list_models(services.database, limit=limit, after=after)
    return Page(items=[model_answer(each, precisions) for each in records], has_more=has_more)


@router.get(
    "/{name}",
    summary="A model: images, classes, process, origin, license, size",
    responses=problems.declare(problems.NOT_FOUND),
)
def get_model(name: str, services: ServicesDep, precisions: Precisions) -> ModelAnswer:
    return model_answer(models.get_model(services.database, name), precisions)


@router.patch(
    "/{name}",
    summary="Change what is said of a model: its license",
    responses=problems.declare(problems.NOT_FOUND, problems.UNSUPPORTED, problems.INVALID),
)
def change_model(
    name: str, body: ModelChange, services: ServicesDep, precisions: Precisions
) -> ModelAnswer:
    """Change it here and in the README of later downloads."""
    return model_answer(models.set_license(services.database, name, body.license), precisions)


@router.get(
    "/{name}/download",
    summary="The model as a zip: a diffusers pipeline folder, or ONNX with the samplers' tables",
    response_class=Response,
    responses={
        200: {"content": {"application/zip": {}}, "description": "zip"},
        **RESPONSES,
        **problems.declare(problems.NOT_FOUND, problems.INVALID),
    },
)
def download_model(
    name: str,
    request: Request,
    services: ServicesDep,
    file_format: Annotated[
        ModelFormat,
        Query(
            alias="format",
            description="`diffusers`: a folder that diffusers loads and `PUT` takes. `onnx`: the "
            "network as network.onnx, tables of samplers as samplers.json, card.json, and "
            "README.md, which defines the rest",
        ),
    ] = "diffusers",
    sampler: Annotated[
        list[SamplerName] | None,
        Query(description="of `onnx`: whose tables; without it those of all that suit the model"),
    ] = None,
    num_inference_steps: Annotated[
        list[int] | None,
        Query(
            max_length=5,
            description="of `onnx`: tables for how many steps; without it for "
            f"{', '.join(map(str, STEPS))}, and for "
            f"{', '.join(map(str, CONSISTENCY_STEPS))} of a distilled model",
        ),
    ] = None,
) -> Response:
    """Download the model. Its ETag tells the bytes, so that a `Range` resumes an interrupted
    download."""
    record = models.get_model(services.database, name)
    if file_format == "onnx":
        download = portable_download(services, record, sampler or (), num_inference_steps or ())
    else:
        for field, given in (("sampler", sampler), ("num_inference_steps", num_inference_steps)):
            if given is not None:
                raise InvalidInput.parameter(field, f"{field} goes with format=onnx only", "query")
        download = diffusers_download(record)
    file = Resumable(download.name, download.etag, "application/zip")
    if (answer := file.without_content(request)) is not None:
        return answer
    scratch = tempfile.TemporaryDirectory(dir=services.settings.locations.data_dir)
    folder, archive = Path(scratch.name) / "model", Path(scratch.name) / "model.zip"
    try:
        services.artifacts.download_folder(record.artifact_prefix, folder)
        with reported_at("format", "query"):
            download.write(folder, archive)
        cleanup = BackgroundTask(scratch.cleanup)
        return file.answer(request, archive.stat().st_size, partial(_bytes_of, archive), cleanup)
    except BaseException:
        scratch.cleanup()
        raise


@router.put(
    "/{name}",
    summary="Upload a zip of a diffusers folder (UNet2DModel or pipeline, safetensors)",
    status_code=201,
    responses={
        200: {"description": "The same weights are there already.", "model": UploadedModel},
        **problems.declare(
            problems.CONFLICT,
            problems.TOO_LARGE,
            problems.UNSUPPORTED,
            problems.INVALID,
            problems.NO_SPACE,
        ),
    },
    openapi_extra=BODY,
)
async def put_model(
    name: str,
    request: Request,
    response: Response,
    services: ServicesDep,
    precisions: Precisions,
    license_: Annotated[
        License | None,
        Query(alias="license", description="of the weights; by default that of its README.md"),
    ] = None,
    null_class: Annotated[
        int | None,
        Query(
            description="which class embedding of a model from elsewhere stands for no class, as "
            "guidance needs it; without it all of them are classes"
        ),
    ] = None,
) -> UploadedModel:
    """Upload the archive as the body. Files that are no part of the model are skipped and listed;
    the folder may lie inside others.

    The front matter of its README.md may give the `license`, as on the Hugging Face Hub. PATCH
    changes it later.
    """
    check_name("name", name)
    data_dir = services.settings.locations.data_dir
    with tempfile.TemporaryDirectory(dir=data_dir) as scratch:
        folder = Path(scratch) / "model"
        async with uploaded_file(request, data_dir) as archive:
            card, digest, theirs, skipped = await run_in_threadpool(
                _read_model, services, archive, folder, null_class
            )
        prefix = _prefix(name, digest, card)
        await services.engine.check(folder, prefix, digest)
        record, is_new = await run_in_threadpool(
            _store_model, services, folder, name, prefix, digest, card, license_ or theirs
        )
    if license_ not in (None, record.license):
        raise ModelConflict(
            f"there is a model {name!r} with these weights, but another license; PATCH changes it"
        )
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/models/{name}"
    return UploadedModel(
        **model_answer(record, precisions).model_dump(),
        num_skipped=len(skipped),
        skipped=[Rejected(name=s.name, reason=s.reason) for s in skipped[:MAX_SKIPPED]],
    )


@router.delete(
    "/{name}",
    summary="Delete a model",
    status_code=204,
    responses=problems.declare(problems.NOT_FOUND),
)
def delete_model(name: str, services: ServicesDep) -> None:
    record = models.delete_model(services.database, name)
    services.artifacts.delete_prefix(record.artifact_prefix)


def _bytes_of(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(min(1 << 20, end - file.tell())):
            yield chunk


def _read_model(
    services: Services, archive: Path, folder: Path, null_class: int | None
) -> tuple[ModelCard, str, str | None, list[Skipped]]:
    """Extract an uploaded model, and check its config and its weights; return its card, the digest
    of the weights, their license, and the files that are no part of it."""
    with reported_at(""):
        skipped = extract_model_archive(
            archive, folder, max_bytes=services.settings.max_model_bytes
        )
        if null_class is not None:
            with reported_at("null_class", "query"):
                choose_null_class(folder, null_class)
        config = read_config(folder)
        read_weights(folder, config)
        skipped += [
            Skipped(f"{SCHEDULER}: {field}", "a request chooses its sampler")
            for field in unused_scheduler_fields(folder)
        ]
        return ModelCard.of(config), weights_digest(folder), read_license(folder), skipped


def _prefix(name: str, digest: str, card: ModelCard) -> str:
    """Return where the artifacts of a model are. It differs with the weights and with the config,
    so that what the engine keeps under it is right even if the model is replaced."""
    config = hashlib.sha256(json.dumps(card.to_dict(), sort_keys=True).encode()).hexdigest()
    return f"models/{name}/{digest[:16]}-{config[:8]}"


def _store_model(
    services: Services,
    folder: Path,
    name: str,
    prefix: str,
    digest: str,
    card: ModelCard,
    license_: str | None,
) -> tuple[ModelRecord, bool]:
    """Store an uploaded model; return its record and whether it is new."""
    try:
        known = models.get_model(services.database, name)
    except ModelNotFound:
        pass
    else:
        if known.digest != digest:
            raise ModelConflict(f"there is a model {name!r} with other weights")
        if differing := ModelCard.from_dict(known.details).first_difference(card):
            raise ModelConflict(
                f"there is a model {name!r} with these weights, but another {differing}"
            )
        return known, False
    if name in model_names(services.database):
        raise ModelConflict(f"a job is about to make a model {name!r}")
    services.artifacts.upload_folder(folder, prefix)
    record = ModelRecord(
        name=name,
        digest=digest,
        details=card.to_dict(),
        artifact_prefix=prefix,
        num_bytes=sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()),
        license=license_,
    )
    return models.create_model(services.database, record), True
