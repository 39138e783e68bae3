"""Paged lists: the query parameters and the shape of the answer."""

from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel

from store.jobs.record import Status

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=100, description="the largest number of items")]
After = Annotated[str | None, Query(description="id or name of the last item of the previous page")]
OnlyStatus = Annotated[Status | None, Query(description="only jobs in this state")]


class Page(BaseModel, Generic[Item]):
    """One page of a list.

    The name, id or number of its last item is the `after` of the next page.
    """

    items: list[Item]
    has_more: bool
