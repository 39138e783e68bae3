"""What streams of events have in common: a sign of life in long pauses, and an end when the service
stops."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

KEEP_ALIVE_SECONDS = 15.0
EVENT_STREAM = "text/event-stream"

Item = TypeVar("Item")


class Stopping(Exception):
    """The service leaves; streams end before it does."""


async def with_pauses(
    items: AsyncGenerator[Item, None], stopping: asyncio.Event
) -> AsyncGenerator[Item | None, None]:
    """The items, and None where the next one is long in coming. Raises Stopping."""
    stop = asyncio.ensure_future(stopping.wait())
    coming: asyncio.Future[Item] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(items))
            await asyncio.wait(
                (coming, stop), timeout=KEEP_ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if coming.done():
                try:
                    item = coming.result()
                except StopAsyncIteration:
                    return
                coming = None
                yield item
            elif stop.done():
                raise Stopping
            else:
                yield None
    finally:
        stop.cancel()
        if coming is not None:
            coming.cancel()
            await asyncio.wait((coming,))
        await items.aclose()
