"""What routes share for the life of the application, typed; held on `app.state.services`."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from app.lane import Lane
from app.settings import Settings


@dataclass(frozen=True)
class Check:
    """`ask` gives a line on the component's state, and raises where it is down."""

    ask: Callable[[], Awaitable[str]]
    required: bool = False


@dataclass
class Services:
    settings: Settings
    quick: Lane  # CPU work of well under a second
    walks: Lane  # noising step by step, which takes seconds: one at a time beside the quick ones
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  # streams end when it is set
    checks: dict[str, Check] = field(default_factory=dict)  # what /readyz asks, by component

    @classmethod
    def start(cls, settings: Settings) -> "Services":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return cls(
            settings=settings,
            quick=Lane("images", cores or 1, settings.max_waiting),
            walks=Lane("noising step by step", 1, settings.max_waiting_walks),
        )

    def close(self) -> None:
        self.quick.close()
        self.walks.close()


async def services(request: Request) -> Services:
    return services_of(request)


def services_of(request: Request) -> Services:
    found: Services = request.app.state.services
    return found


ServicesDep = Annotated[Services, Depends(services)]
