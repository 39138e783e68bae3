"""The supervisor runs one job: it claims it, starts a process for it, and watches both.

While the process lives, the lease is renewed. A cancel, a pause, a worker that is asked to leave
and a lost lease all end the process: by SIGTERM, on which it writes a checkpoint, then by SIGKILL.
How it ended is read from the record, not from an exit code alone.
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
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from uuid import uuid4

import structlog
from sqlalchemy.exc import SQLAlchemyError

from host.devices import device_of_host, num_gpus
from host.environment import to_environment
from host.tracing import TRACEPARENT, annotate, span, traceparent
from store.access.quotas import charge_training
from store.artifacts import ArtifactStore
from store.database import Database
from store.errors import JobNotFound, LostLease
from store.jobs import claims, parts, requests
from store.jobs.files import log_key
from store.jobs.kinds import JOB_KINDS, JobKind, Kind
from worker.logs import LOG_FILE
from worker.settings import WorkerSettings

POLL_SECONDS = 0.2
REQUEST_SECONDS = 2.0  # until a running job notices that a pause or a cancel is requested
SPINS = "1000"  # of an OpenMP thread that waits, before it sleeps (docs/architecture.md)

log = structlog.get_logger("worker")


class Supervisor:
    """Runs jobs, in as many threads as the worker has.

    `leaving` is set when the worker is asked to stop; all its jobs are then given back.
    """

    def __init__(self, database: Database, settings: WorkerSettings, owner: str) -> None:
        self._database, self._settings, self._owner = database, settings, owner
        self._device = device_of_host(settings.device)
        self._artifacts = ArtifactStore(settings.locations.artifacts_url)
        self._renew_seconds = min(REQUEST_SECONDS, settings.lease_seconds / 4)
        self.leaving = threading.Event()

    def run(self, kind: Kind) -> bool:
        """Work on the first waiting job, if there is one, until it ends here; else help another
        worker with its job.

        Return True if the work was given back unfinished, and should be announced again.
        """
        if self.leaving.is_set():
            return True
        claimed = claims.claim_next(
            self._database, kind, self._owner, self._settings.lease_seconds, self._device
        )
        if claimed is None:
            return self._help(JOB_KINDS[kind].helper)
        job_id, fence = claimed
        with self._span(f"attempt {kind}", job_id, fence):
            return self._attempt(kind, job_id, fence)

    def _span(self, name: str, job_id: str, fence: int) -> AbstractContextManager[object]:
        """Return the context of a span in the trace of the job."""
        return span(
            name,
            {"diffusion.job": job_id, "diffusion.attempt": fence},
            kind="consumer",
            parent=requests.traceparent_of(self._database, job_id),
        )

    def _attempt(self, kind: Kind, job_id: str, fence: int) -> bool:
        """Do a job that is claimed; return as `run`."""
        job_log = log.bind(job=job_id, fence=fence)
        scratch = Path(tempfile.gettempdir(), f"diffusion-{job_id}-{fence}")  # the process makes it
        row = JOB_KINDS[kind]
        process = self._start([*self._launcher(row), row.module], job_id, fence, scratch)
        begun = time.monotonic()
        job_log.info("job started", pid=process.pid)
        try:
            must_end = self._watch(process, job_id, fence)
        except LostLease:
            job_log.info("the job is not held here any more")  # done, or another worker has it
            self._stop(process, 0.0)
            return False
        finally:
            self._stop(process, self._settings.grace_seconds, partial(self._hold, job_id, fence))
            self._keep_log(job_id, fence, scratch)
            shutil.rmtree(scratch, ignore_errors=True)
            if kind == "train":
                self._charge(job_id, time.monotonic() - begun)
        return self._settle(job_id, fence, process.returncode, must_end)

    def _help(self, module: str | None) -> bool:
        """Make parts of the images of a job that another worker is in charge of, if there is one;
        True if there are more to make."""
        job_id = parts.job_to_help(self._database, self._device) if module else None
        if module is None or job_id is None:
            return False
        with self._span("help", job_id, 0):
            return self._help_with(module, job_id)

    def _help_with(self, module: str, job_id: str) -> bool:
        scratch = Path(tempfile.gettempdir(), f"diffusion-{job_id}-helper-{uuid4().hex}")
        process = self._start([sys.executable, "-m", module], job_id, 0, scratch)
        log.info("helping with a job", job=job_id, pid=process.pid)
        try:
            while process.poll() is None and not self.leaving.is_set():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
        finally:
            self._stop(process, self._settings.grace_seconds)
            shutil.rmtree(scratch, ignore_errors=True)
        if process.returncode and not self.leaving.is_set():
            log.warning("could not help with a job", job=job_id, exit_code=process.returncode)
            annotate(error=f"exit code {process.returncode}")
            return False
        return parts.job_to_help(self._database, self._device) is not None

    def _start(
        self, command: list[str], job_id: str, fence: int, scratch: Path
    ) -> subprocess.Popen[bytes]:
        settings = self._settings
        environment = {**os.environ, **to_environment(settings.locations)}
        environment.setdefault("GOMP_SPINCOUNT", SPINS)
        if settings.train_threads:
            environment["OMP_NUM_THREADS"] = str(settings.train_threads)
        if parent := traceparent():
            environment[TRACEPARENT] = parent
        return subprocess.Popen(
            [*command, job_id, str(fence), str(scratch)],
            stdin=subprocess.PIPE,  # the process exits when it ends
            env=environment,
            start_new_session=True,
        )

    def _launcher(self, kind: JobKind) -> list[str]:
        """Return the command that starts Python, or torchrun where several processes share a
        training."""
        settings = self._settings
        processes = settings.train_processes or (1 if settings.device else max(1, num_gpus()))
        if not kind.shares_processes or processes == 1:
            return [sys.executable, "-m"]
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        return [sys.executable, *torchrun, "-m"]

    def _watch(self, process: subprocess.Popen[bytes], job_id: str, fence: int) -> bool:
        """Wait until the process ends or must end, and return whether it must. Raises LostLease."""
        renewed = time.monotonic()
        while process.poll() is None and not self.leaving.is_set():
            if time.monotonic() - renewed > self._renew_seconds:
                if self._renew(job_id, fence, renewed):
                    return True
                renewed = time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
        return False

    def _renew(self, job_id: str, fence: int, renewed: float) -> bool:
        """Renew the lease; return True if the process must end, or has written its end into the
        record. Raises LostLease."""
        lease = self._settings.lease_seconds
        while True:
            try:
                return claims.renew(self._database, job_id, fence, lease) is not None
            except LostLease:
                if requests.get_job(self._database, job_id).fence == fence:
                    return True
                raise
            except SQLAlchemyError:
                # As long as the lease lasts no other worker can have the job.
                if time.monotonic() - renewed > 0.8 * lease:
                    raise LostLease(job_id, fence) from None
                time.sleep(POLL_SECONDS)

    def _stop(
        self,
        process: subprocess.Popen[bytes],
        grace: float,
        hold: Callable[[], None] = lambda: None,
    ) -> None:
        """End the process: it has `grace` seconds to write its checkpoint, during which `hold`
        keeps other workers from the job."""
        if process.poll() is None:
            process.terminate()
            deadline = time.monotonic() + grace
            while process.poll() is None and (left := deadline - time.monotonic()) > 0:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(min(left, self._renew_seconds))
                hold()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it and its children
        process.wait()
        if process.stdin:
            process.stdin.close()

    def _hold(self, job_id: str, fence: int) -> None:
        with contextlib.suppress(LostLease, SQLAlchemyError):
            claims.renew(self._database, job_id, fence, self._settings.lease_seconds)

    def _keep_log(self, job_id: str, fence: int, scratch: Path) -> None:
        """Keep the log, with the lines that the process wrote right before it was killed."""
        try:
            if (scratch / LOG_FILE).exists():
                self._artifacts.put_file(log_key(job_id, fence), scratch / LOG_FILE)
        except Exception:  # the store is full or out of reach; other workers may still have the job
            log.exception("the job's log could not be kept", job=job_id, fence=fence)

    def _charge(self, job_id: str, seconds: float) -> None:
        """Count the time of an attempt for the job's owner."""
        try:
            owner = requests.get_job(self._database, job_id).made_by
            charge_training(self._database, owner, seconds)
        except (JobNotFound, SQLAlchemyError) as error:  # deleted as soon as it was done
            log.info("its time is not counted", job=job_id, reason=str(error))

    def _settle(self, job_id: str, fence: int, exit_code: int, must_end: bool) -> bool:
        job_log = log.bind(job=job_id, fence=fence)
        blameless = must_end or self.leaving.is_set()
        try:
            status = claims.give_back(self._database, job_id, fence, blameless=blameless)
        except LostLease:
            with contextlib.suppress(JobNotFound):  # deleted as soon as it was done
                job_log.info("job ended", status=requests.get_job(self._database, job_id).status)
            return False
        job_log.warning("process ended before its job", exit_code=exit_code, status=status)
        annotate({"diffusion.status": status}, error="" if blameless else f"exit code {exit_code}")
        return status == "queued"
