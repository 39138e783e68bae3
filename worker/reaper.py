"""Announces jobs again that no worker holds although one should: their message was lost with a
broker, their worker was lost with its host. Runs in every worker and in the API; a job announced
twice is claimed once. What was to be paused or cancelled when its worker was lost needs no other
worker, and is so here.

A job that waits in a line has a message in it, most likely, so that there is no hurry as long as
the line is not empty: else hours of waiting would fill it with copies.
"""

import threading

import structlog
from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from store import nodes
from store.database import Database
from store.errors import SecondHost
from store.jobs import claims
from store.jobs.kinds import KINDS
from worker.queue import num_waiting, submit

IN_LINE_SECONDS = 600.0

log = structlog.get_logger("reaper")


class Reaper(threading.Thread):
    """Also says, in the same rhythm, that this process lives."""

    def __init__(
        self,
        database: Database,
        queue: Celery,
        role: str,
        every_seconds: float = 5.0,
        device: str | None = None,
    ) -> None:
        super().__init__(name="reaper", daemon=True)
        self._database, self._queue, self._role = database, queue, role
        self._every, self._device = every_seconds, device
        self._stopped = threading.Event()

    def run(self) -> None:
        while True:
            try:
                nodes.heartbeat(self._database, self._role, self._device)
                self.announce()
            except (SQLAlchemyError, SecondHost):
                log.exception("this round of announcing jobs failed")
            if self._stopped.wait(self._every):
                return

    def announce(self) -> None:
        for kind in KINDS:
            in_line = num_waiting(self._queue, kind)
            if in_line is None:
                return  # nobody would hear of it
            seconds = IN_LINE_SECONDS if in_line else 3 * self._every
            for job_id in claims.unclaimed_jobs(self._database, kind, seconds):
                announced = submit(self._queue, job_id, kind)
                log.info("job announced again", job=job_id, reached_the_broker=announced)

    def stop(self) -> None:
        self._stopped.set()
