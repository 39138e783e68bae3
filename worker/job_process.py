"""What the processes that do jobs have in common: `python -m worker.<kind>_job JOB FENCE SCRATCH`,
one process per attempt at a job, which makes the folder SCRATCH for itself.

It leaves on SIGTERM, when it has kept what it has, and at once when its standard input ends, that
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
from pathlib import Path

import structlog
import torch

from models.priority import yield_to_others
from store import jobs
from store.artifacts import ArtifactStore
from store.database import Database, open_database
from store.errors import LostLease, ModelConflict
from worker.logs import configure_logs
from worker.settings import WorkerSettings

EXIT_STOPPED = 75  # asked to leave; the job goes on elsewhere

log = structlog.get_logger("job")


class ModelGone(Exception):
    """The model that images were to be made of was deleted."""


class JobProcess(ABC):
    """One attempt. `stop` is set when it is asked to leave; `scratch` goes when it ends."""

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
        self.device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.artifacts = ArtifactStore(settings.locations.artifacts_url)
        scratch.mkdir(mode=0o700)

    @abstractmethod
    def work(self) -> bool:
        """True: the job is done. False: stopped, with a checkpoint."""


def main(kind: type[JobProcess]) -> None:
    job_id, fence, scratch = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    configure_logs()
    _die_with_worker(scratch)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    settings = WorkerSettings.from_environment()
    yield_to_others(settings.niceness)
    structlog.contextvars.bind_contextvars(job=job_id, fence=fence)
    database = open_database(settings.locations.database_url)
    try:
        finished = kind(database, settings, job_id, fence, scratch, stop).work()
    except LostLease:
        log.warning("another worker holds this job by now")
        sys.exit(EXIT_STOPPED)
    except Exception as error:
        code, message = classify(error)
        log.exception("job failed", code=code)
        with contextlib.suppress(LostLease):
            jobs.finish(database, job_id, fence, "failed", code, message)
        sys.exit(1)
    sys.exit(0 if finished else EXIT_STOPPED)


def classify(error: Exception) -> tuple[str, str]:
    """(code, message) for the record; what nobody foresaw is told to the log only."""
    if isinstance(error, ValueError):
        return "invalid", str(error)
    if isinstance(error, ModelConflict):
        return "model_exists", str(error)
    if isinstance(error, ModelGone):
        return "model_deleted", str(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "out_of_memory", "the device has too little memory for this model or batch"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full", "the disk is full"
    return "internal", "the job's process failed; its log has the details"


def _die_with_worker(scratch: Path) -> None:
    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):  # a buffered read would hold its lock at exit
            pass
        shutil.rmtree(scratch, ignore_errors=True)  # nobody else is left to do it
        os._exit(EXIT_STOPPED)

    threading.Thread(target=watch, daemon=True).start()
