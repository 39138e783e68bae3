"""The routes of /datasets: archives of images for training."""

from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.datasets.imports_route import KIND, create_import_job
from app.datasets.imports_schema import ImportRequest
from app.datasets.parts import manifest_of, read_image
from app.datasets.schema import VisibilityChange, dataset_answer
from app.http import problems
from app.http.conditional import conditional, matches
from app.http.errors import InvalidInput, reported_at
from app.http.file_answers import file_answer
from app.http.paging import After, Limit, Page
from app.http.uploads import BODY, uploaded_file
from app.services import Services, ServicesDep
from app.trash.route import discard
from client.answers import DatasetAnswer, ImportAnswer
from models.fields import Invalid, check_field
from models.images.contact_sheet import contact_sheet, shown_images
from models.images.files import encode_image
from models.images.formats import FITS, RANGES, Fit, Frames, Reading, ValueRange
from models.images.labels import KINDS, check_choice
from models.images.readers import READERS
from models.training.config import TrainConfig
from models.training.defaults import default_image_size
from store import datasets
from store.access.owners import new_name
from store.datasets import DatasetVersion
from store.named import bytes_of
from worker.dataset_archives import store_archive

router = APIRouter(prefix="/datasets", tags=["datasets"])

Choice = Annotated[
    str,
    Query(
        max_length=500,
        description=f"Where the classes come from: {', '.join(KINDS)}, or a file of the archive, "
        "FILE or FILE:COLUMN (.json, .jsonl, .csv, .tsv; .cls or .json for files beside the "
        "images; parquet:COLUMN for a table).",
    ),
]


FramesQuery = Annotated[
    Frames,
    Query(
        description="What becomes of animations and of TIFFs of several pages: they are refused, "
        "their first frame is an image, or all frames are. Of a picture with others that belong to "
        "it (previews, depth maps, smaller copies, masks) the first one is read in any case."
    ),
]
RangeQuery = Annotated[
    ValueRange,
    Query(
        alias="range",
        description="Which values become black and white, in files of more than 8 bits a value; "
        f"the same in all files of the dataset. {RANGES}.",
    ),
]
SizeQuery = Annotated[
    str | None,
    Query(
        pattern=r"^\d{1,4}(x\d{1,4})?$",
        description="A side, or height x width, of the net's images; where left out what a "
        "training would choose.",
        examples=["64", "48x64"],
    ),
]
VersionQuery = Annotated[
    str | None,
    Query(
        pattern=r"^(\d{1,9}|[0-9a-f]{64})$",
        description="the number or the digest of a version; where left out the newest",
    ),
]
FitQuery = Annotated[Fit, Query(description=f"How images of another shape come to it: {FITS}.")]


@router.put(
    "/{name}",
    summary=f"Upload a {', '.join(r.name for r in READERS[:-1])} or {READERS[-1].name} of images",
    status_code=201,
    responses={
        200: {"description": "The same content was already there.", "model": DatasetAnswer},
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
async def put_dataset(
    name: str,
    request: Request,
    response: Response,
    services: ServicesDep,
    labels: Choice = "auto",
    frames: FramesQuery = "refuse",
    value_range: RangeQuery = "full",
) -> DatasetAnswer:
    """Upload the archive as the body; its classes are its top folders, or those of a label file.

    `curl -T digits.zip .../datasets/digits`

    Folders named train, val or test are splits. The answer's `labels` says where the classes come
    from, and `warnings` what looks odd, such as images that come out dark.

    Images may have any size from 8 pixels a side, up to 16 megapixels unless the service is set
    otherwise; others are rejected, and listed in the answer. They are kept as they are. A training
    brings them to the side of its model, 8 to 256 pixels (`image_size`).
    """
    name = new_name(services.database.caller, "name", name)
    with reported_at("labels", "query"):
        check_choice(labels)
    known_bytes = await run_in_threadpool(bytes_of, services.database, datasets.DatasetRecord, name)
    async with uploaded_file(request, services, known_bytes) as path:
        record, is_new = await run_in_threadpool(
            _store, services, name, path, labels, Reading(frames, value_range)
        )
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/datasets/{name}"
    return dataset_answer(record)


@router.post(
    "",
    summary="Fetch a dataset from a URL or a bucket",
    status_code=202,
    responses=problems.declare(problems.CONFLICT, problems.UNSUPPORTED, problems.INVALID),
)
def create_import(body: ImportRequest, response: Response, services: ServicesDep) -> ImportAnswer:
    """Have a worker fetch an archive, and make it a dataset as if it had been uploaded. Accepted as
    soon as the record is written; poll `Location`.

    Hosts must have public addresses, and buckets must be listed in DIFFUSION_IMPORT_BUCKETS.
    """
    answer = create_import_job(services, body)
    response.headers["Location"] = KIND.address(answer.id)
    return answer


@router.get("", summary="List the datasets, newest first")
def list_datasets(
    services: ServicesDep,
    limit: Limit = 20,
    after: After = None,
) -> Page[DatasetAnswer]:
    records, has_more = datasets.list_datasets(services.database, limit=limit, after=after)
    return Page(items=[dataset_answer(record) for record in records], has_more=has_more)


@router.get(
    "/{name}",
    summary="Show a dataset: counts, sizes, classes, rejected files",
    responses=problems.declare(problems.NOT_FOUND),
)
def get_dataset(name: str, services: ServicesDep, version: VersionQuery = None) -> DatasetAnswer:
    """Show the newest version, or the one that `version` names: the digest that a model has leads
    to exactly the images that it learned from."""
    record = datasets.get_dataset(services.database, name)
    if version is None:
        return dataset_answer(record)
    return dataset_answer(record, find_version(services, name, version))


@router.patch(
    "/{name}",
    summary="Change who sees a dataset",
    responses=problems.declare(
        problems.FORBIDDEN, problems.NOT_FOUND, problems.UNSUPPORTED, problems.INVALID
    ),
)
def change_dataset_visibility(
    name: str, body: VisibilityChange, services: ServicesDep
) -> DatasetAnswer:
    return dataset_answer(datasets.set_visibility(services.database, name, body.visibility))


@router.get(
    "/{name}/preview",
    summary="Show a contact sheet: the first images of each class, as a net sees them",
    response_class=Response,
    responses={
        **file_answer("image/png", "PNG"),
        **problems.declare(problems.NOT_FOUND),
    },
)
async def preview_dataset(
    name: str,
    request: Request,
    services: ServicesDep,
    image_size: SizeQuery = None,
    fit: FitQuery = "crop",
    version: VersionQuery = None,
) -> Response:
    record = await run_in_threadpool(find_version, services, name, version)
    size = _preview_size(record, image_size)
    etag = f'"{record.digest[:24]}-{size[0]}x{size[1]}-{fit}"'
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers={"ETag": etag})
    content = await services.threads.run(partial(_contact_sheet, services, record, size, fit))
    return conditional(request, content, "image/png", {}, etag=etag)


@router.delete(
    "/{name}",
    summary="Delete a dataset that no unfinished job uses",
    status_code=204,
    responses=problems.declare(problems.NOT_FOUND, problems.CONFLICT),
)
def delete_dataset(name: str, services: ServicesDep) -> None:
    """Move it with all its versions to the trash, from where it can be restored for a while; models
    that were trained on it stay."""
    discard(services, datasets.delete_dataset(services.database, name))


def find_version(services: Services, name: str, version: str | None) -> DatasetVersion:
    """Return the version that a query names. Raises DatasetNotFound and VersionNotFound."""
    is_number = version is not None and len(version) < 64
    return datasets.get_version(
        services.database, name, int(version or 0) if is_number else version
    )


def _store(
    services: Services, name: str, path: Path, labels: str, reading: Reading
) -> tuple[datasets.DatasetRecord, bool]:
    try:
        return store_archive(
            services.database,
            services.artifacts,
            name,
            path,
            labels=labels,
            reading=reading,
            max_pixels=services.settings.max_pixels,
        )
    except Invalid as error:
        if error.field == "labels":
            raise InvalidInput.parameter("labels", str(error), "query") from error
        raise InvalidInput.pointer("", str(error)) from error


def _preview_size(record: DatasetVersion, asked: str | None) -> tuple[int, int]:
    if asked is None:
        return default_image_size((record.sizes[0]["height"], record.sizes[0]["width"]))
    sides = [int(side) for side in asked.split("x")]
    with reported_at("image_size", "query"):
        check_field(TrainConfig, "image_size", (sides[0], sides[-1]))
    return sides[0], sides[-1]


def _contact_sheet(
    services: Services, version: DatasetVersion, size: tuple[int, int], fit: Fit
) -> bytes:
    manifest, parts = manifest_of(services, version), version.parts
    rows = [
        [read_image(services, parts[manifest.part[i]], int(manifest.row[i])) for i in positions]
        for positions in shown_images(manifest)
    ]
    return encode_image(contact_sheet(rows, size, version.channels, fit=fit), "png")
