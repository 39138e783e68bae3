"""Paged lists: the query parameters and the shape of the answer."""

from base64 import b64encode
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Annotated, Generic, Protocol, TypeVar

from fastapi import Query
from pydantic import BaseModel

from store.errors import ArtifactDamaged
from store.jobs.record import Status

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=100, description="the largest number of items")]
After = Annotated[str | None, Query(description="id or name of the last item of the previous page")]
Embed = Annotated[
    int,
    Query(
        ge=0,
        le=100,
        description="in so many of the first items `links.thumbnail` is a `data:` URL, which holds "
        "the picture, so that it need not be asked for",
    ),
]
OnlyStatus = Annotated[Status | None, Query(description="only jobs in this state")]


class HasThumbnail(Protocol):
    links: dict[str, str]


def embed_thumbnails(
    items: Iterable[HasThumbnail], pictures: Iterable[Callable[[], bytes]]
) -> None:
    """Put a PNG into the link to the thumbnail of each of the items, as long as there are
    `pictures`. One that is damaged keeps its link, which says so where it is asked for."""
    for item, picture in zip(items, pictures, strict=False):
        with suppress(ArtifactDamaged):
            item.links["thumbnail"] = f"data:image/png;base64,{b64encode(picture()).decode()}"


class Page(BaseModel, Generic[Item]):
    """One page of a list.

    The name, id or number of its last item is the `after` of the next page.
    """

    items: list[Item]
    has_more: bool
