"""/models: the registry of trained and uploaded models."""

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
from app.http.file_answers import resumable_answer
from app.http.paging import After, Limit, Page
from app.http.resumable import Resumable
from app.http.uploads import BODY, uploaded_file
from app.registry.download import diffusers_download, portable_download
from app.registry.schema import License, ModelChange, model_answer
from app.registry.upload import read_upload, store_upload
from app.services import ServicesDep
from app.trash.route import discard
from client.answers import ModelAnswer, ModelFormat, Rejected, UploadedModel
from models.nets.precision import Precision
from models.pipeline.portable import CONSISTENCY_STEPS, STEPS
from models.sampling.samplers import SamplerName
from store import models
from store.access.owners import new_name
from store.errors import ModelConflict
from store.model_files import fetch_model
from store.named import bytes_of

router = APIRouter(prefix="/models", tags=["models"])

MAX_SKIPPED = 50  # files in an answer
ZIP_FACTOR = 2  # of a model's bytes: its zip may have other files, too


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
    summary="Change what is said of a model, and who sees it",
    responses=problems.declare(problems.NOT_FOUND, problems.UNSUPPORTED, problems.INVALID),
)
def change_model(
    name: str, body: ModelChange, services: ServicesDep, precisions: Precisions
) -> ModelAnswer:
    """Change the license here and in the README of later downloads."""
    changes = body.model_dump(exclude_unset=True)
    return model_answer(models.change_model(services.database, name, **changes), precisions)


@router.get(
    "/{name}/download",
    summary="The model as a zip: a diffusers pipeline folder, or ONNX with the samplers' tables",
    response_class=Response,
    responses={
        **resumable_answer("application/zip", "zip"),
        **problems.declare(problems.NOT_FOUND, problems.INVALID, problems.DAMAGED),
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
        fetch_model(services.artifacts, record.artifact_prefix, record.digest, record.files, folder)
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
    name = new_name(services.database.caller, "name", name)
    data_dir = services.settings.locations.data_dir
    with tempfile.TemporaryDirectory(dir=data_dir) as scratch:
        folder = Path(scratch) / "model"
        known_bytes = await run_in_threadpool(bytes_of, services.database, models.ModelRecord, name)
        async with uploaded_file(request, services, ZIP_FACTOR * known_bytes) as archive:
            uploaded = await run_in_threadpool(
                read_upload, archive, folder, services.settings.max_model_bytes, null_class
            )
        await services.engine.check(folder, uploaded.prefix(name), uploaded.digest)
        record, is_new = await run_in_threadpool(
            store_upload,
            services.database,
            services.artifacts,
            uploaded,
            name,
            license_ or uploaded.license,
        )
    if license_ not in (None, record.license):
        raise ModelConflict(
            f"there is a model {name!r} with these weights, but another license; PATCH changes it"
        )
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/models/{name}"
    return UploadedModel(
        **model_answer(record, precisions).model_dump(),
        num_skipped=len(uploaded.skipped),
        skipped=[Rejected(name=s.name, reason=s.reason) for s in uploaded.skipped[:MAX_SKIPPED]],
    )


@router.delete(
    "/{name}",
    summary="Delete a model",
    status_code=204,
    responses=problems.declare(problems.NOT_FOUND),
)
def delete_model(name: str, services: ServicesDep) -> None:
    """Move it to the trash, from where it can be restored for a while."""
    discard(services, models.delete_model(services.database, name))


def _bytes_of(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(min(1 << 20, end - file.tell())):
            yield chunk
