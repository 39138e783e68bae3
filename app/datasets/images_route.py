"""The routes of single images: the listing, thumbnails and files."""

from functools import partial
from typing import Annotated
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.datasets.parts import index_of, manifest_of, read_file, read_image
from app.datasets.route import VersionQuery, find_version
from app.datasets.schema import image_answer
from app.http import problems
from app.http.conditional import conditional, matches
from app.http.file_answers import content_of, file_answer
from app.http.paging import Embed, Page, embed_thumbnails
from app.services import Services, ServicesDep
from client.answers import ImageAnswer
from models.images.labels import MAX_CLASS_NAME, SPLIT_NAMES, SplitName
from models.images.parts import MEDIA_TYPES, media_type_of, thumbnail
from models.images.readers import path_of
from models.images.versions import parse_id
from store.datasets import Part, find_part
from store.errors import ImageNotFound

router = APIRouter(prefix="/datasets", tags=["datasets"])

MAX_LIMIT = 1000
# The id tells the bytes, so that a copy never has to be asked for again.
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}


@router.get(
    "/{name}/images",
    summary="List the images of a dataset, in its order",
    responses=problems.declare(problems.NOT_FOUND, problems.INVALID),
)
async def list_dataset_images(
    name: str,
    services: ServicesDep,
    limit: Annotated[
        int, Query(ge=1, le=MAX_LIMIT, description="the largest number of items")
    ] = 20,
    after: Annotated[
        str | None, Query(description="id of the last item of the previous page")
    ] = None,
    class_name: Annotated[
        str | None,
        Query(alias="class", max_length=MAX_CLASS_NAME, description="only images of this class"),
    ] = None,
    split: Annotated[SplitName | None, Query(description="only images of this split")] = None,
    version: VersionQuery = None,
    embed: Embed = 0,
) -> Page[ImageAnswer]:
    images = partial(_list, services, name, limit, after, class_name, split, version)
    page, places = await run_in_threadpool(images)
    if embed:
        made = [partial(_thumbnail_of, services, *place) for place in places[:embed]]
        await services.threads.run(partial(embed_thumbnails, page.items, made))
    return page


@router.get(
    "/{name}/images/{image}/thumbnail",
    summary="Show an image, of 64 pixels at most; small ones have their pixels enlarged",
    response_class=Response,
    responses={
        **file_answer("image/png", "PNG"),
        304: {"description": "The caller's copy, named in If-None-Match, is current."},
        **problems.declare(problems.NOT_FOUND),
    },
)
async def get_thumbnail(name: str, image: str, request: Request, services: ServicesDep) -> Response:
    return await services.threads.run(partial(_thumbnail, name, image, request, services))


@router.get(
    "/{name}/images/{image}/file",
    summary="Download the file of an image, as it was uploaded",
    response_class=Response,
    responses={
        200: {"content": content_of(*MEDIA_TYPES), "description": "The file"},
        304: {"description": "The caller's copy, named in If-None-Match, is current."},
        **problems.declare(problems.NOT_FOUND),
    },
)
def get_image_file(name: str, image: str, request: Request, services: ServicesDep) -> Response:
    part, row = _find(services, name, image)
    index = index_of(services, part)
    etag = f'"{index.sha256[row]}"'
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers={**_FOREVER, "ETag": etag})
    content = read_file(services, part, row)
    file_name = path_of(index.names[row]).name
    headers = {
        **_FOREVER,
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file_name, safe='')}",
    }
    return conditional(request, content, media_type_of(content), headers, etag)


def _list(
    services: Services,
    name: str,
    limit: int,
    after: str | None,
    class_name: str | None,
    split: SplitName | None,
    version: str | None,
) -> tuple[Page[ImageAnswer], list[tuple[Part, int]]]:
    """Return a page of images, and where they are: their parts and rows there."""
    found = find_version(services, name, version)
    manifest = manifest_of(services, found)
    wanted = np.ones(len(manifest), np.bool_)
    if after is not None:
        position = manifest.find(after)
        if position is None:
            raise ImageNotFound(name, after)
        wanted[: position + 1] = False
    if class_name is not None:
        names = manifest.class_names
        wanted &= manifest.label == (names.index(class_name) if class_name in names else -1)
    if split is not None:
        wanted &= manifest.split == SPLIT_NAMES.index(split)
    listed = np.flatnonzero(wanted)[: limit + 1].tolist()
    places = [(found.parts[manifest.part[i]], int(manifest.row[i])) for i in listed[:limit]]
    items = [
        image_answer(name, manifest, i, index_of(services, part))
        for i, (part, _) in zip(listed, places, strict=False)
    ]
    return Page(items=items, has_more=len(listed) > limit), places


def _thumbnail(name: str, image: str, request: Request, services: Services) -> Response:
    part, row = _find(services, name, image)
    etag = f'"{part.digest[:24]}-{row}"'
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers={**_FOREVER, "ETag": etag})
    return conditional(request, _thumbnail_of(services, part, row), "image/png", _FOREVER, etag)


def _thumbnail_of(services: Services, part: Part, row: int) -> bytes:
    """Return a PNG. Raises ArtifactDamaged."""
    return thumbnail(read_image(services, part, row))


def _find(services: Services, name: str, image: str) -> tuple[Part, int]:
    """Return the part of an image and its row there. Raises DatasetNotFound and ImageNotFound."""
    named = parse_id(image)
    part = find_part(services.database, name, named[0]) if named else None
    if named is None or part is None or named[1] >= len(index_of(services, part)):
        raise ImageNotFound(name, image)
    return part, named[1]
