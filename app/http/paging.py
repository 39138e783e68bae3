"""Lists, a page at a time: the parameters of a request and the shape of an answer."""

from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel

from store.jobs.record import Status

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=100, description="how many at most")]
After = Annotated[str | None, Query(description="the last one of the page before: its id or name")]
OnlyStatus = Annotated[Status | None, Query(description="only those in this state")]


class Page(BaseModel, Generic[Item]):
    """Newest first; the last item's name or id is the next page's `after`."""

    items: list[Item]
    has_more: bool
