"""Runs one job: claims it, starts a process of its own for it, and watches both.

While the process lives the lease is renewed. Cancellation, a worker that is asked to leave and a
lost lease all end it: SIGTERM, which makes it write a checkpoint, then SIGKILL. How it ended is
read from the record, not from an exit code alone.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import structlog
from sqlalchemy.exc import SQLAlchemyError

from store import jobs
from store.database import Database
from store.errors import LostLease
from store.jobs import Kind
from worker.settings import WorkerSettings

POLL_SECONDS = 0.2
MODULES: dict[Kind, str] = {"train": "worker.train_job", "sample": "worker.sample_job"}

log = structlog.get_logger("worker")


class Supervisor:
    """`leaving` is set when the worker is asked to stop; all its jobs are then given back."""

    def __init__(self, database: Database, settings: WorkerSettings, owner: str) -> None:
        self._database, self._settings, self._owner = database, settings, owner
        self.leaving = threading.Event()

    def run(self, job_id: str, kind: Kind) -> bool:
        """Work on a job until it ends here, if it can be had. True: it was given back unfinished,
        and the workers should hear of it again."""
        if self.leaving.is_set():
            return True
        fence = jobs.claim(self._database, job_id, self._owner, self._settings.lease_seconds)
        if fence is None:
            return False
        say = log.bind(job=job_id, fence=fence)
        scratch = Path(tempfile.gettempdir(), f"diffusion-{job_id}-{fence}")  # the process makes it
        process = self._start(MODULES[kind], job_id, fence, scratch)
        say.info("job started", pid=process.pid)
        try:
            must_end = self._watch(process, job_id, fence)
        except LostLease:
            say.info("the job is not held here any more")  # done this moment, or another's by now
            self._stop(process, grace=0.0)
            return False
        finally:
            self._stop(process, self._settings.grace_seconds)
            shutil.rmtree(scratch, ignore_errors=True)
        return self._settle(job_id, fence, process.returncode, must_end)

    def _start(
        self, module: str, job_id: str, fence: int, scratch: Path
    ) -> subprocess.Popen[bytes]:
        settings = self._settings
        environment = {**os.environ, **settings.locations.to_environment()}
        if settings.threads:
            environment["OMP_NUM_THREADS"] = str(settings.threads)
        return subprocess.Popen(
            [sys.executable, "-m", module, job_id, str(fence), str(scratch)],
            stdin=subprocess.PIPE,  # its end tells the process that we are gone
            env=environment,
            start_new_session=True,
        )

    def _watch(self, process: subprocess.Popen[bytes], job_id: str, fence: int) -> bool:
        """Until the process ends or must end; True: it must. Raises LostLease."""
        renewed = time.monotonic()
        while process.poll() is None and not self.leaving.is_set():
            if time.monotonic() - renewed > self._settings.lease_seconds / 4:
                if self._renew(job_id, fence, renewed):
                    return True
                renewed = time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
        return False

    def _renew(self, job_id: str, fence: int, renewed: float) -> bool:
        """True: the process must end, or has told the record that it is about to."""
        lease = self._settings.lease_seconds
        while True:
            try:
                return jobs.renew(self._database, job_id, fence, lease)
            except LostLease:
                if jobs.get_job(self._database, job_id).fence == fence:
                    return True
                raise
            except SQLAlchemyError:
                # As long as the lease lasts nobody else can have the job.
                if time.monotonic() - renewed > 0.8 * lease:
                    raise LostLease(job_id, fence) from None
                time.sleep(POLL_SECONDS)

    def _stop(self, process: subprocess.Popen[bytes], grace: float) -> None:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it and whatever it started
        process.wait()
        if process.stdin:
            process.stdin.close()

    def _settle(self, job_id: str, fence: int, exit_code: int, must_end: bool) -> bool:
        job = jobs.get_job(self._database, job_id)
        say = log.bind(job=job_id, fence=fence)
        if job.fence != fence or job.status != "running":
            say.info("job ended", status=job.status)
            return False
        try:
            if must_end or job.cancel_requested:
                jobs.finish(self._database, job_id, fence, "cancelled")
                say.info("job cancelled")
                return False
            blameless = self.leaving.is_set()
            say.warning("process ended before its job", exit_code=exit_code, leaving=blameless)
            jobs.requeue(self._database, job_id, fence, blameless=blameless)
        except LostLease:
            return False
        return True
