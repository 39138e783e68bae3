"""The common part of the processes that do jobs: `python -m worker.<kind>_job JOB FENCE SCRATCH`,
one process per attempt at a job, which makes the folder SCRATCH for itself.

It leaves on SIGTERM, after it has saved its work, and at once when its standard input ends, that
is, when the worker that started it is gone.
"""

import contextlib
import errno
import os
import shutil
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar, NoReturn, TypeVar

import structlog
from sqlalchemy.exc import OperationalError

from host.environment import read_settings
from host.lifeline import end_with_parent
from host.priority import yield_to_others
from host.tracing import TRACEPARENT, annotate, span, start_tracing, stop_tracing
from models.fields import Invalid
from models.runtime.device import device_of_torch, is_out_of_memory
from store.artifacts import ArtifactStore, StorageError
from store.database import Database
from store.errors import (
    ArtifactDamaged,
    ArtifactNotFound,
    DatasetConflict,
    LostLease,
    ModelConflict,
)
from store.integrity import mark_damage
from store.jobs import claims
from store.jobs.files import log_key
from store.model_files import fetch_model
from store.models import model_files
from worker.logs import LOG_FILE, configure_logs
from worker.settings import WorkerSettings

PATIENCE_SECONDS = 240.0  # for which calls of a bucket that does not answer are repeated
RANK_ON_HOST = "LOCAL_RANK"  # the name of torchrun's variable
EXIT_STOPPED = 75  # asked to leave; another attempt continues the job

log = structlog.get_logger("job")

Model = TypeVar("Model")


class JobFailed(Exception):
    """The failure of a job that is not the service's own; `code` is for programs, the text for the
    caller."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Stopped(Exception):
    """The end of an attempt that was asked to leave."""


class JobProcess(ABC):
    """One attempt at a job.

    `stop` is set when it is asked to leave; `scratch` is removed when it ends. A process that is
    not `in_charge` helps another process with its job, and leaves the record to that one.
    `outages` are errors for which the job is not to blame.
    """

    in_charge: ClassVar[bool] = True
    outages: ClassVar[tuple[type[Exception], ...]] = (StorageError,)

    def __init__(
        self,
        database: Database,
        settings: WorkerSettings,
        job_id: str,
        fence: int,
        scratch: Path,
        stop: threading.Event,
    ) -> None:
        self.database, self.settings, self.stop = database, settings, stop
        self.job_id, self.fence, self.scratch = job_id, fence, scratch
        self.device = settings.device or device_of_torch()
        if self.device == "cuda" and RANK_ON_HOST in os.environ:
            self.device = f"cuda:{os.environ[RANK_ON_HOST]}"
        self.artifacts = ArtifactStore(
            settings.locations.artifacts_url, patience_seconds=PATIENCE_SECONDS
        )
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        configure_logs(scratch / LOG_FILE)

    @abstractmethod
    def work(self) -> bool:
        """Do the job; True if it is done, False if it was stopped, with a checkpoint."""

    def fetch_model(self, prefix: str, digest: str, load: Callable[[Path, str], Model]) -> Model:
        """Load the model of this digest whose artifacts have this prefix, for the device. Raises
        JobFailed and ArtifactDamaged."""
        folder = self.scratch / "model-to-begin-with"
        files = model_files(self.database, prefix)
        try:
            fetch_model(self.artifacts, prefix, digest, files, folder)
        except ArtifactNotFound:
            raise JobFailed("model_deleted", "the model was deleted before the job began") from None
        return load(folder, self.device)

    def publish_log(self) -> None:
        """Put the log so far where readers find it."""
        self.artifacts.put_file(log_key(self.job_id, self.fence), self.scratch / LOG_FILE)


def main(kind: type[JobProcess]) -> NoReturn:
    start_tracing("job")
    with span(f"run {kind.__name__}", parent=os.environ.get(TRACEPARENT)):
        code = _attempt(kind)
    stop_tracing()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # skips torch's half-second teardown


def _attempt(kind: type[JobProcess]) -> int:
    job_id, fence, scratch = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    configure_logs()
    end_with_parent(partial(_leave, scratch))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the worker handles Ctrl-C
    settings = read_settings(WorkerSettings)
    yield_to_others(settings.train_niceness)
    structlog.contextvars.bind_contextvars(job=job_id, fence=fence)
    database = Database(settings.locations.database_url)  # the worker has upgraded its schema
    job: JobProcess | None = None
    try:
        job = kind(database, settings, job_id, fence, scratch, stop)
        finished = job.work()
    except LostLease:
        log.warning("another worker holds this job by now")
        return EXIT_STOPPED
    except Exception as error:
        if _is_outage(error, kind, database):
            annotate(error="outage")
            log.warning(
                "a server cannot be reached; the job continues when it can", reason=str(error)
            )
            return EXIT_STOPPED
        if not kind.in_charge:
            log.warning("left", reason=repr(error))
            return EXIT_STOPPED
        code, message = classify(error)
        annotate(error=code)
        log.exception("job failed", code=code)
        with contextlib.suppress(Exception):  # a failing log upload must not keep the job alive
            if job:
                job.publish_log()
        if isinstance(error, ArtifactDamaged):
            mark_damage(database, error)
        with contextlib.suppress(LostLease):
            claims.finish(database, job_id, fence, "failed", code, message)
        return 1
    return 0 if finished else EXIT_STOPPED


def classify(error: Exception) -> tuple[str, str]:
    """Return (code, message) for the record.

    Only a refusal that was written for the caller is shown; any other error goes to the log only.
    """
    if isinstance(error, Invalid):
        return "invalid", str(error)
    if isinstance(error, ArtifactDamaged):
        return "damaged_artifact", str(error)
    if isinstance(error, ModelConflict):
        return "model_exists", str(error)
    if isinstance(error, DatasetConflict):
        return "dataset_exists", str(error)
    if isinstance(error, JobFailed):
        return error.code, str(error)
    if is_out_of_memory(error):
        return "out_of_memory", "the device has too little memory for this model or batch"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full", "the disk is full"
    return "internal", "the job's process failed; its log has the details"


def _is_outage(error: Exception, kind: type[JobProcess], database: Database) -> bool:
    """Tell whether the job itself is fine: a server that it needs was killed or is out of reach, or
    another process at it was lost."""
    has_server = database.engine.dialect.name != "sqlite"
    return isinstance(error, (*kind.outages, *((OperationalError,) if has_server else ())))


def _leave(scratch: Path) -> None:
    shutil.rmtree(scratch, ignore_errors=True)  # the worker, which would do it, is gone
    os._exit(EXIT_STOPPED)
