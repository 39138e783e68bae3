"""Runs one job: claims it, starts its trainer as a process of its own, and watches both.

While the trainer lives the lease is renewed. Cancellation, a worker that is asked to leave and a
lost lease all end the trainer: SIGTERM, which makes it write a checkpoint, then SIGKILL. How it
ended is read from the record, not from an exit code alone.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import structlog
from sqlalchemy.exc import SQLAlchemyError

from store import jobs
from store.database import Database
from store.errors import LostLease
from worker.settings import WorkerSettings

POLL_SECONDS = 0.2

log = structlog.get_logger("worker")


class Supervisor:
    """`leaving` is set when the worker is asked to stop; all its jobs are then given back."""

    def __init__(self, database: Database, settings: WorkerSettings, owner: str) -> None:
        self._database, self._settings, self._owner = database, settings, owner
        self.leaving = threading.Event()

    def run(self, job_id: str) -> bool:
        """Work on a job until it ends here, if it can be had. True: it was given back unfinished,
        and the workers should hear of it again."""
        if self.leaving.is_set():
            return True
        fence = jobs.claim(self._database, job_id, self._owner, self._settings.lease_seconds)
        if fence is None:
            return False
        say = log.bind(job=job_id, fence=fence)
        trainer = self._start(job_id, fence)
        say.info("job started", pid=trainer.pid)
        try:
            cancelled = self._watch(trainer, job_id, fence)
        except LostLease:
            say.info("the job is not held here any more")  # done this moment, or another's by now
            self._stop(trainer, grace=0.0)
            return False
        finally:
            self._stop(trainer, self._settings.grace_seconds)
        return self._settle(job_id, fence, trainer.returncode, cancelled)

    def _start(self, job_id: str, fence: int) -> subprocess.Popen[bytes]:
        settings = self._settings
        environment = {**os.environ, **settings.locations.to_environment()}
        if settings.threads:
            environment["OMP_NUM_THREADS"] = str(settings.threads)
        return subprocess.Popen(
            [sys.executable, "-m", "worker.train_job", job_id, str(fence)],
            stdin=subprocess.PIPE,  # its end tells the trainer that we are gone
            env=environment,
            start_new_session=True,
        )

    def _watch(self, trainer: subprocess.Popen[bytes], job_id: str, fence: int) -> bool:
        """Until the trainer ends or must end; True: it was cancelled. Raises LostLease."""
        renewed = time.monotonic()
        while trainer.poll() is None and not self.leaving.is_set():
            if time.monotonic() - renewed > self._settings.lease_seconds / 4:
                if self._renew(job_id, fence, renewed):
                    return True
                renewed = time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                trainer.wait(POLL_SECONDS)
        return False

    def _renew(self, job_id: str, fence: int, renewed: float) -> bool:
        lease = self._settings.lease_seconds
        while True:
            try:
                return jobs.renew(self._database, job_id, fence, lease)
            except SQLAlchemyError:
                # As long as the lease lasts nobody else can have the job.
                if time.monotonic() - renewed > 0.8 * lease:
                    raise LostLease(job_id, fence) from None
                time.sleep(POLL_SECONDS)

    def _stop(self, trainer: subprocess.Popen[bytes], grace: float) -> None:
        if trainer.poll() is None:
            trainer.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                trainer.wait(grace)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(trainer.pid, signal.SIGKILL)  # it and whatever it started
        trainer.wait()
        if trainer.stdin:
            trainer.stdin.close()

    def _settle(self, job_id: str, fence: int, exit_code: int, cancelled: bool) -> bool:
        job = jobs.get_job(self._database, job_id)
        say = log.bind(job=job_id, fence=fence)
        if job.fence != fence or job.status != "running":
            say.info("job ended", status=job.status)
            return False
        try:
            if cancelled or job.cancel_requested:
                jobs.finish(self._database, job_id, fence, "cancelled")
                say.info("job cancelled")
                return False
            blameless = self.leaving.is_set()
            say.warning("trainer ended before its job", exit_code=exit_code, leaving=blameless)
            jobs.requeue(self._database, job_id, fence, blameless=blameless)
        except LostLease:
            return False
        return True
