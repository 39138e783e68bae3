"""Pictures as callers see them, and the changes to them; client.answers has the fields."""

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from app.http.body import JsonBody
from app.http.root_path import link
from app.pictures.settings import settings_of
from app.sample.schema import Recipe
from client.answers import PictureAnswer, PictureDetails
from store.models import ModelRecord
from store.pictures import MAX_TAGS, Picture

MAX_NOTES = 2000  # characters
MAX_TAG = 40
MAX_AT_ONCE = 100  # pictures of one request

PictureId = Annotated[str, StringConstraints(pattern="^[0-9a-f]{17}$")]
Tag = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, min_length=1, max_length=MAX_TAG, pattern=r"^[^\x00-\x1f\x7f,]+$"
    ),
]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS)]
Notes = Annotated[str, StringConstraints(max_length=MAX_NOTES, pattern=r"^[^\x00]*$")]


class PictureChange(JsonBody):
    """What is left out stays."""

    starred: bool = Field(default=False, description="pictures with a star are never removed")
    notes: Notes = Field(default="", description="any text")
    tags: Tags = Field(default=[], description="all of them; without commas")


class PicturesChange(JsonBody):
    """What is left out stays."""

    ids: list[PictureId] = Field(min_length=1, max_length=MAX_AT_ONCE)
    starred: bool | None = Field(default=None, description="null: it stays as it is")
    add_tags: Tags = Field(default=[])
    remove_tags: Tags = Field(default=[])


def picture_answer(record: Picture) -> PictureAnswer:
    return PictureAnswer(**_fields(record))


def picture_details(record: Picture, model: ModelRecord | None) -> PictureDetails:
    """Describe a picture with its settings; `model` is the one that has its model's name now."""
    recipe = Recipe.model_validate(record.recipe)
    return PictureDetails(**_fields(record), settings=settings_of(recipe, model))


def _fields(record: Picture) -> dict[str, Any]:
    address = link(f"/pictures/{record.id}")
    plain = PictureAnswer.model_fields.keys() - {"owner", "links"}
    return {
        **{name: getattr(record, name) for name in plain},
        "owner": record.made_by,
        "links": {
            "self": address,
            "file": f"{address}/file",
            "thumbnail": f"{address}/thumbnail",
        },
    }
