"""The routes of edits: a change of images and classes makes a new version of a dataset."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.datasets import edits
from app.datasets.route import Choice
from app.datasets.schema import DatasetChange, dataset_answer, version_answer
from app.http import problems
from app.http.errors import InvalidInput, reported_in
from app.http.paging import Limit, Page
from app.http.uploads import BODY, uploaded_file
from app.services import Services, ServicesDep
from client.answers import DatasetAnswer, VersionAnswer
from models.fields import Invalid
from models.images.labels import MAX_CLASS_NAME
from store import datasets
from store.datasets import MAX_VERSION, DatasetVersion

router = APIRouter(prefix="/datasets", tags=["datasets"])

_REFUSALS = (problems.NOT_FOUND, problems.CONFLICT, problems.UNSUPPORTED, problems.INVALID)
_UNCHANGED: dict[int | str, dict[str, object]] = {
    200: {"description": "The edit changes nothing.", "model": DatasetAnswer}
}


@router.get(
    "/{name}/versions",
    summary="List the versions of a dataset, newest first",
    responses=problems.declare(problems.NOT_FOUND),
)
def list_versions(
    name: str,
    services: ServicesDep,
    limit: Limit = 20,
    after: Annotated[
        int | None,
        Query(ge=1, le=MAX_VERSION, description="number of the last item of the previous page"),
    ] = None,
) -> Page[VersionAnswer]:
    found, has_more = datasets.list_versions(services.database, name, limit=limit, after=after)
    return Page(items=[version_answer(version) for version in found], has_more=has_more)


@router.post(
    "/{name}/versions",
    summary="Remove images, move them to other classes, rename and merge classes",
    status_code=201,
    responses={**_UNCHANGED, **problems.declare(*_REFUSALS)},
)
def change_dataset(
    name: str, body: DatasetChange, response: Response, services: ServicesDep
) -> DatasetAnswer:
    """Make a new version. Earlier ones stay, for the jobs and models that name them; nothing is
    copied."""
    with reported_in(DatasetChange):
        version, is_new = edits.change_images(services, name, body.changes(), body.parent)
    return _answer(services, version, is_new, response)


@router.post(
    "/{name}/images",
    summary="Add the images of an archive, or one image",
    status_code=201,
    responses={
        **_UNCHANGED,
        **problems.declare(*_REFUSALS, problems.TOO_LARGE, problems.NO_SPACE),
    },
    openapi_extra=BODY,
)
async def add_images(
    name: str,
    request: Request,
    response: Response,
    services: ServicesDep,
    class_name: Annotated[
        str | None,
        Query(
            alias="class",
            min_length=1,
            max_length=MAX_CLASS_NAME,
            description="the class of all of them; where left out `labels` says it",
        ),
    ] = None,
    labels: Choice = "auto",
    filename: Annotated[
        str, Query(max_length=edits.MAX_FILE_NAME, description="of an image that comes alone")
    ] = "image",
    parent: Annotated[
        int | None,
        Query(
            ge=1,
            description="the version that they are added to; 409 if it is no longer the newest",
        ),
    ] = None,
) -> DatasetAnswer:
    """Upload the archive or the image file as the body; the answer is the new version.

    `curl --data-binary @cat.jpg '.../datasets/pets/images?class=cat'`

    They are read as the dataset's other images are. A folder of the name of a class is that class.
    """
    await run_in_threadpool(edits.newest_version, services, name, parent)  # before the upload
    async with uploaded_file(request, services) as path:

        def add() -> tuple[DatasetVersion, bool]:
            try:
                return edits.add_images(
                    services,
                    name,
                    path,
                    choice=labels,
                    class_name=class_name,
                    file_name=filename,
                    parent=parent,
                )
            except Invalid as error:
                if error.field in ("labels", "class", "filename"):
                    raise InvalidInput.parameter(error.field, str(error), "query") from error
                raise InvalidInput.pointer("", str(error)) from error

        version, is_new = await run_in_threadpool(add)
        return await run_in_threadpool(_answer, services, version, is_new, response)


@router.delete(
    "/{name}/versions/{number}",
    summary="Delete a version that is not the newest and that no job or model names",
    status_code=204,
    responses=problems.declare(problems.NOT_FOUND, problems.CONFLICT),
)
def delete_version(
    name: str, number: Annotated[int, Path(ge=1, le=MAX_VERSION)], services: ServicesDep
) -> None:
    """Delete it, with the archives that no other version needs."""
    for key in datasets.delete_version(services.database, name, number):
        services.artifacts.delete(key)


def _answer(
    services: Services, version: DatasetVersion, is_new: bool, response: Response
) -> DatasetAnswer:
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/datasets/{version.dataset}?version={version.number}"
    record = datasets.get_dataset(services.database, version.dataset)
    return dataset_answer(record, version)
