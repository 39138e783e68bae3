"""The services that all routes share, kept on `app.state.services` while the application runs."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Annotated

import redis.asyncio
import sqlalchemy as sa
from celery import Celery
from fastapi import Depends
from starlette.requests import Request

from app.access.rate_limit import RateLimits
from app.engine.client import EngineClient
from app.jobs.waiting import reason_to_wait
from app.metrics import Metrics
from app.processes.fork_server import ForkServer
from app.processes.pool import ProcessPool
from app.processes.threads import ThreadPool
from app.service.health_schema import ComponentDown
from app.settings import Settings
from host.environment import to_environment
from store.artifacts import ArtifactStore
from store.database import Database, open_database
from store.locations import for_redis_py
from store.nodes import live_nodes
from worker.queue import make_queue


@dataclass(frozen=True)
class HealthCheck:
    """A check of one component: `probe` returns a line on its state, and raises if it is down.
    `starts`: required until it has answered once, be it that it is down."""

    probe: Callable[[], Awaitable[str]]
    required: bool = False
    starts: bool = False


@dataclass
class Services:
    settings: Settings
    database: Database
    artifacts: ArtifactStore
    redis: redis.asyncio.Redis
    rate_limits: RateLimits
    queue: Celery
    engine: EngineClient
    metrics: Metrics
    threads: ThreadPool  # CPU work of well under a second
    noise_server: ForkServer
    noise_pool: ProcessPool
    step_by_step_pool: ProcessPool  # noise in steps takes seconds: one at a time beside the others
    stopping: asyncio.Event = field(default_factory=asyncio.Event)  # streams without end end
    drained: asyncio.Event = field(default_factory=asyncio.Event)  # and then those of answers
    checks: dict[str, HealthCheck] = field(default_factory=dict)  # of /readyz, by component
    answered: set[str] = field(default_factory=set)  # components of these, since the start

    @classmethod
    def start(cls, settings: Settings, metrics: Metrics) -> "Services":
        """Open the database, migrate its schema, and connect everything else."""
        locations = settings.locations
        database = open_database(locations.database_url)
        queue = make_queue(locations.redis_url)
        engine = EngineClient(settings, metrics)
        noise_server = ForkServer("app.noise.process")
        artifacts = ArtifactStore(locations.artifacts_url)
        client = redis.asyncio.Redis.from_url(for_redis_py(locations.redis_url))
        return cls(
            settings=settings,
            database=database,
            artifacts=artifacts,
            redis=client,
            rate_limits=RateLimits(locations.redis_url),
            queue=queue,
            engine=engine,
            metrics=metrics,
            threads=ThreadPool("images", available_cores(), settings.max_waiting),
            noise_server=noise_server,
            noise_pool=_noise_processes(
                noise_server,
                settings,
                settings.noise_processes or 1 + available_cores(),
                settings.max_waiting,
            ),
            step_by_step_pool=_noise_processes(
                noise_server, settings, 1, settings.max_waiting_walks
            ),
            checks={
                "database": HealthCheck(lambda: asyncio.to_thread(_probe_database, database), True),
                "artifacts": HealthCheck(lambda: asyncio.to_thread(artifacts.state)),
                "redis": HealthCheck(lambda: _probe_redis(client)),
                "engine": HealthCheck(engine.state, starts=True),
                "workers": HealthCheck(lambda: asyncio.to_thread(_probe_workers, database)),
            },
        )

    def for_request(self, request: Request) -> "Services":
        """Return the same services, with the records that its caller may see."""
        state = request.state
        database = self.database.for_caller(state.caller, getattr(state, "claim", None))
        return replace(self, database=database)

    async def close(self) -> None:
        await self.engine.close()
        self.threads.close()
        self.noise_pool.close()
        self.step_by_step_pool.close()
        self.noise_server.close()
        await self.rate_limits.close()
        await self.redis.aclose()
        self.database.close()


async def services(request: Request) -> Services:
    """Return the services as the caller of this request may use them."""
    return services_of(request).for_request(request)


def services_of(request: Request) -> Services:
    """Return the services with everybody's records."""
    found: Services = request.app.state.services
    return found


ServicesDep = Annotated[Services, Depends(services)]


def available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _noise_processes(
    server: ForkServer, settings: Settings, size: int, max_waiting: int
) -> ProcessPool:
    greeting = to_environment(settings)
    return ProcessPool(server, greeting, size, max_waiting, settings.noise_seconds)


def _probe_database(database: Database) -> str:
    with database.engine.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    return database.engine.dialect.name


async def _probe_redis(client: redis.asyncio.Redis) -> str:
    await client.ping()
    return "answers"


def _probe_workers(database: Database) -> str:
    alive, waiting = live_nodes(database, "worker"), reason_to_wait(database)
    if not alive:
        raise ComponentDown(waiting)
    return f"{len(alive)} alive" + (f"; {waiting}" if waiting else "")
