"""What a list is asked for, a page at a time."""

from typing import Annotated

from fastapi import Query

from store.jobs.record import Status

Limit = Annotated[int, Query(ge=1, le=100, description="how many at most")]
After = Annotated[str | None, Query(description="the last one of the page before: its id or name")]
OnlyStatus = Annotated[Status | None, Query(description="only those in this state")]
