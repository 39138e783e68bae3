"""Event streams: keep-alives in long pauses, and an end when the service stops."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

KEEP_ALIVE_SECONDS = 15.0
EVENT_STREAM = "text/event-stream"

Item = TypeVar("Item")


class Stopping(Exception):
    """The service is stopping; streams must end before it does."""


async def with_pauses(
    items: AsyncGenerator[Item, None], stopping: asyncio.Event
) -> AsyncGenerator[Item | None, None]:
    """Yield the items, and None after each KEEP_ALIVE_SECONDS without one.

    Raises Stopping once `stopping` is set and no item is there.
    """
    stop = asyncio.ensure_future(stopping.wait())
    upcoming: asyncio.Future[Item] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(items))
            await asyncio.wait(
                (upcoming, stop), timeout=KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if upcoming.done():
                try:
                    item = upcoming.result()
                except StopAsyncIteration:
                    return
                upcoming = None
                yield item
            elif stop.done():
                raise Stopping
            else:
                yield None
    finally:
        stop.cancel()
        if upcoming is not None:
            upcoming.cancel()
            await asyncio.wait((upcoming,))
        await items.aclose()
