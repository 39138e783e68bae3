"""The reaper announces jobs again that no worker holds although one should: their message was lost
with a broker, or their worker with its host. It runs in every worker and in the API; a job
announced twice is claimed once. A pause or a cancel that was requested before the worker was lost
needs no other worker, and is carried out here.

A waiting job most likely has a message in its queue, so that there is no hurry while the queue is
not empty: otherwise hours of waiting would fill it with copies.
"""

import threading
from collections.abc import Collection

import structlog
from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from store import nodes
from store.database import Database
from store.errors import SecondHost
from store.jobs import claims
from store.jobs.kinds import Kind
from worker.queue import num_waiting, submit

QUEUED_SECONDS = 600.0  # between two announcements of a job while its queue is not empty

log = structlog.get_logger("reaper")


class Reaper(threading.Thread):
    """A thread that announces jobs and, in the same rhythm, records that this process is alive."""

    def __init__(
        self,
        database: Database,
        queue: Celery,
        role: str,
        every_seconds: float = 5.0,
        device: str | None = None,
        kinds: Collection[Kind] = (),
    ) -> None:
        super().__init__(name="reaper", daemon=True)
        self._database, self._queue, self._role = database, queue, role
        self._every, self._device, self._kinds = every_seconds, device, kinds
        self._stopped = threading.Event()

    def run(self) -> None:
        while True:
            try:
                nodes.heartbeat(self._database, self._role, self._device, self._kinds)
                self.announce()
            except (SQLAlchemyError, SecondHost):
                log.exception("this round of announcing jobs failed")
            if self._stopped.wait(self._every):
                return

    def announce(self) -> None:
        soon = 3 * self._every
        for kind in claims.unclaimed_kinds(self._database, soon):
            waiting = num_waiting(self._queue, kind)
            if waiting is None:
                return  # no worker would get the message
            seconds = QUEUED_SECONDS if waiting else soon
            for job_id in claims.unclaimed_jobs(self._database, kind, seconds):
                announced = submit(self._queue, job_id, kind)
                log.info("job announced again", job=job_id, reached_the_broker=announced)

    def stop(self) -> None:
        self._stopped.set()
