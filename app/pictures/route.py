"""/pictures: the gallery of what was sampled and kept.

Deleted pictures go to the trash as everything else does, and those that are deleted together are
one entry there, so that a single "undo" brings all of them back. What a full gallery removes for
new pictures does not: it would take the place of what was removed.
"""

from datetime import UTC, datetime
from functools import cache, partial
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import StringConstraints
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.http import problems
from app.http.conditional import conditional, matches
from app.http.errors import InvalidInput
from app.http.file_answers import BINARY, content_of, file_answer
from app.http.paging import Embed, Limit, Page, embed_thumbnails
from app.pictures.files import FIELD, MAX_PICTURES, files_of, new_pictures
from app.pictures.schema import (
    MAX_AT_ONCE,
    MAX_TAG,
    PictureChange,
    PictureId,
    PicturesChange,
    picture_answer,
    picture_details,
)
from app.pictures.settings import settings_of
from app.sample.recipe import read_recipe
from app.services import Services, ServicesDep
from app.trash.route import discard
from client.answers import (
    FacetAnswer,
    KeptPictures,
    PictureAnswer,
    PictureDetails,
    PictureFacets,
    RecipeSettings,
)
from models.images.formats import BY_MEDIA_TYPE, Reading
from models.images.labels import MAX_CLASS_NAME
from models.images.parts import thumbnail
from models.images.reading import read_pictures
from store import pictures
from store.errors import ModelNotFound
from store.models import ModelRecord, get_model
from store.pictures import Filters

router = APIRouter(prefix="/pictures", tags=["pictures"])

THUMBNAIL_SIDE = 128  # pixels, at most
# The id tells the bytes, so that a copy never has to be asked for again.
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
_CURRENT: dict[int | str, dict[str, object]] = {
    304: {"description": "The caller's copy, named in If-None-Match, is current."}
}
_FORM = {
    "type": "object",
    "properties": {FIELD: {"type": "array", "items": BINARY["schema"], "maxItems": MAX_PICTURES}},
    "required": [FIELD],
}
_FILE: dict[str, object] = {
    "requestBody": {"required": True, "content": {"application/octet-stream": BINARY}}
}
_FILES: dict[str, object] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": BINARY, "multipart/form-data": {"schema": _FORM}},
    }
}

_Text = StringConstraints(pattern=r"^[^\x00]*$")
OfModel = Annotated[
    str | None, Query(max_length=96, description="only pictures by this model"), _Text
]
OfClass = Annotated[
    str | None,
    Query(alias="class", max_length=MAX_CLASS_NAME, description="only pictures of this class"),
    _Text,
]
WithTag = Annotated[
    str | None, Query(max_length=MAX_TAG, description="only pictures with this tag"), _Text
]
Containing = Annotated[
    str | None,
    Query(max_length=200, description="only pictures with this text in their notes"),
    _Text,
]
Moment = Annotated[datetime | None, Query(description="a time, or a date: its first moment in UTC")]


@router.post(
    "",
    summary="Keep pictures that were sampled here",
    status_code=201,
    responses={
        200: {"description": "All of them are kept already.", "model": KeptPictures},
        **problems.declare(
            problems.MALFORMED,
            problems.CONFLICT,
            problems.TOO_LARGE,
            problems.UNSUPPORTED,
            problems.INVALID,
            problems.NO_SPACE,
        ),
    },
    openapi_extra=_FILES,
)
async def keep_pictures(
    request: Request, response: Response, services: ServicesDep
) -> KeptPictures:
    """`curl --data-binary @new.png .../pictures`, or `-F image=@1.png -F image=@2.png`, or the zip
    of an answer of POST /sample

    Each file is a PNG, WebP or JPEG that carries its recipe, and is kept once. Where the gallery is
    full the oldest pictures without a star are removed; 409 where there are too few of them.
    """
    settings = services.settings
    body, content_type = await request.body(), request.headers.get("content-type", "")
    read = partial(_read, content_type, body, services)
    kept = await run_in_threadpool(
        pictures.keep_pictures,
        services.database,
        services.artifacts,
        await services.threads.run(read),
        settings.keeping.keep_pictures,
    )
    if not kept.num_new:
        response.status_code = 200
    if len(kept.pictures) == 1:
        response.headers["Location"] = f"/pictures/{kept.pictures[0].id}"
    return KeptPictures(
        items=[picture_answer(each) for each in kept.pictures],
        num_new=kept.num_new,
        num_removed=kept.num_removed,
    )


@router.post(
    "/recipe",
    summary="Read the settings that a file carries, and keep nothing",
    responses=problems.declare(problems.INVALID),
    openapi_extra=_FILE,
)
async def read_picture_recipe(request: Request, services: ServicesDep) -> RecipeSettings:
    """`curl --data-binary @new.png .../pictures/recipe`

    The file is an image (PNG, WebP, JPEG) of this service, the JSON of an answer, or its `recipe`.
    """
    body = await request.body()
    recipe = await services.threads.run(partial(read_recipe, body))
    record = await run_in_threadpool(_model, services, recipe.request.model)
    return settings_of(recipe, record)


@router.get(
    "", summary="List the pictures, newest first", responses=problems.declare(problems.INVALID)
)
async def list_pictures(
    services: ServicesDep,
    limit: Limit = 20,
    after: Annotated[
        PictureId | None,
        Query(description="id of the last item of the previous page, which may be gone by now"),
    ] = None,
    model: OfModel = None,
    class_name: OfClass = None,
    tag: WithTag = None,
    starred: Annotated[bool | None, Query(description="only those with a star, or without")] = None,
    since: Moment = None,
    until: Moment = None,
    text: Containing = None,
    embed: Embed = 0,
) -> Page[PictureAnswer]:
    """Those kept at `since` or later and before `until`."""
    filters = Filters(model, class_name, tag, starred, _aware(since), _aware(until), text)
    found, more = await run_in_threadpool(
        pictures.list_pictures, services.database, filters, limit=limit, after=after
    )
    items = [picture_answer(each) for each in found]
    if embed:
        made = [partial(_thumbnail_of, services, each) for each in found[:embed]]
        await services.threads.run(partial(embed_thumbnails, items, made))
    return Page(items=items, has_more=more)


@router.get(
    "/facets",
    summary="Count the pictures by model, class and tag",
    responses=problems.declare(problems.INVALID),
)
def get_picture_facets(services: ServicesDep, model: OfModel = None) -> PictureFacets:
    """With `model` the classes are those of its pictures."""
    found = pictures.facets(services.database, model)
    return PictureFacets(
        num_pictures=found.num_pictures,
        num_starred=found.num_starred,
        max_pictures=services.settings.keeping.keep_pictures,
        models=_counts(found.models),
        classes=_counts(found.classes),
        tags=_counts(found.tags),
    )


@router.patch(
    "",
    summary="Star and tag several pictures",
    responses=problems.declare(problems.NOT_FOUND, problems.UNSUPPORTED, problems.INVALID),
)
def change_pictures(body: PicturesChange, services: ServicesDep) -> list[PictureAnswer]:
    """All of them are changed, or none."""
    changed = pictures.change_pictures(
        services.database,
        body.ids,
        starred=body.starred,
        add_tags=body.add_tags,
        remove_tags=body.remove_tags,
    )
    return [picture_answer(each) for each in changed]


@router.delete(
    "",
    summary="Delete several pictures",
    status_code=204,
    responses=problems.declare(problems.NOT_FOUND, problems.INVALID),
)
def delete_pictures(
    services: ServicesDep,
    ids: Annotated[list[PictureId], Query(alias="id", min_length=1, max_length=MAX_AT_ONCE)],
) -> None:
    """Move all of them, or none, to the trash as one entry, which has the name of the first."""
    _delete(services, ids)


@router.get(
    "/{picture_id}",
    summary="A picture with its settings",
    responses=problems.declare(problems.NOT_FOUND),
)
def get_picture(picture_id: str, services: ServicesDep) -> PictureDetails:
    record = pictures.get_picture(services.database, picture_id)
    return picture_details(record, _model(services, record.model))


@router.patch(
    "/{picture_id}",
    summary="Star a picture, write notes, tag it",
    responses=problems.declare(problems.NOT_FOUND, problems.UNSUPPORTED, problems.INVALID),
)
def change_picture(picture_id: str, body: PictureChange, services: ServicesDep) -> PictureDetails:
    changes = body.model_dump(exclude_unset=True)
    record = pictures.change_picture(services.database, picture_id, **changes)
    return picture_details(record, _model(services, record.model))


@router.delete(
    "/{picture_id}",
    summary="Delete a picture",
    status_code=204,
    responses=problems.declare(problems.NOT_FOUND),
)
def delete_picture(picture_id: str, services: ServicesDep) -> None:
    """Move it to the trash, from where it can be restored for a while."""
    _delete(services, [picture_id])


@router.get(
    "/{picture_id}/file",
    summary="Download the file of a picture, with its recipe",
    response_class=Response,
    responses={
        200: {"content": content_of(*BY_MEDIA_TYPE), "description": "The file"},
        **_CURRENT,
        **problems.declare(problems.NOT_FOUND, problems.DAMAGED),
    },
)
def get_picture_file(picture_id: str, request: Request, services: ServicesDep) -> Response:
    record = pictures.get_picture(services.database, picture_id)
    etag = f'"{record.sha256}"'
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers={**_FOREVER, "ETag": etag})
    content = pictures.read_picture(services.artifacts, record)
    suffix = BY_MEDIA_TYPE[record.media_type].suffixes[0]
    name = f"{record.model}-{record.seed}-{record.recipe.get('image', 'all')}{suffix}"
    headers = {
        **_FOREVER,
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": f'attachment; filename="{name.replace(":", "-")}"',
    }
    return conditional(request, content, record.media_type, headers, etag)


@router.get(
    "/{picture_id}/thumbnail",
    summary="Show a picture, of 128 pixels at most; small ones have their pixels enlarged",
    response_class=Response,
    responses={
        **file_answer("image/png", "PNG"),
        **_CURRENT,
        **problems.declare(problems.NOT_FOUND, problems.DAMAGED),
    },
)
async def get_picture_thumbnail(
    picture_id: str, request: Request, services: ServicesDep
) -> Response:
    return await services.threads.run(partial(_thumbnail, picture_id, request, services))


def _thumbnail(picture_id: str, request: Request, services: Services) -> Response:
    record = pictures.get_picture(services.database, picture_id)
    etag = f'"{record.sha256[:24]}-{THUMBNAIL_SIDE}"'
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers={**_FOREVER, "ETag": etag})
    return conditional(request, _thumbnail_of(services, record), "image/png", _FOREVER, etag)


def _thumbnail_of(services: Services, record: pictures.Picture) -> bytes:
    """Return a PNG. Raises ArtifactDamaged."""
    content = pictures.read_picture(services.artifacts, record)
    picture = next(read_pictures(content, record.width * record.height, "first"))
    return thumbnail(picture.to_uint8(Reading()), THUMBNAIL_SIDE)


def _read(content_type: str, body: bytes, services: Services) -> list[pictures.NewPicture]:
    """Read the pictures of a body. Raises InvalidInput, also where nothing is kept here."""
    settings = services.settings
    if not settings.keeping.keep_pictures:
        raise InvalidInput.pointer(
            "", "this service keeps no pictures: DIFFUSION_KEEP_PICTURES is 0"
        )
    files = files_of(content_type, body, settings.max_upload_bytes)
    return new_pictures(files, settings.max_pixels, cache(partial(_model, services)))


def _model(services: Services, name: str) -> ModelRecord | None:
    try:
        return get_model(services.database, name)
    except ModelNotFound:
        return None


def _delete(services: Services, ids: list[str]) -> None:
    for entry in pictures.delete_pictures(services.database, ids):
        discard(services, entry)


def _counts(found: dict[str, int]) -> list[FacetAnswer]:
    return [FacetAnswer(name=name, num_pictures=count) for name, count in found.items()]


def _aware(time: datetime | None) -> datetime | None:
    return time if time is None or time.tzinfo else time.replace(tzinfo=UTC)
