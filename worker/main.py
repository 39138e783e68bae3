"""A worker: `python -m worker.main [KIND ...]`, for jobs of these kinds or pools of kinds
(store.jobs.kinds), by default of all kinds; without torch, for those that do not need it. Celery
delivers wake-ups, the supervisor does the work, and a thread sends webhooks.

Environment: the variables of store.locations and of worker.settings.
"""

import os
import signal
import sys
import warnings
from functools import partial
from typing import Any

import structlog
from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import worker_shutting_down

from host.devices import NO_TORCH, device_of_host
from host.environment import read_settings
from host.lifeline import DIES_WITH_PARENT, end_with_parent
from store import nodes
from store.artifacts import ArtifactStore
from store.database import open_database
from store.errors import StoreError
from store.jobs.kinds import JOB_KINDS, Kind, kinds_named, kinds_run_here
from worker.logs import configure_logs
from worker.queue import RUN_JOB, make_queue, submit
from worker.reaper import Reaper
from worker.settings import WorkerSettings
from worker.supervisor import Supervisor
from worker.sweeper import Sweeper
from worker.webhooks.sender import Sender

log = structlog.get_logger("worker")


def main() -> None:
    configure_logs()
    warnings.simplefilter("ignore", SecurityWarning)  # about pickles for root; ours are JSON
    try:
        kinds = kinds_run_here(sys.argv[1:])
        settings = read_settings(WorkerSettings)
        database = open_database(settings.locations.database_url)
        device = device_of_host(settings.device)
        nodes.heartbeat(database, "worker", device, kinds)
    except (ValueError, StoreError) as error:
        sys.exit(f"the worker cannot start: {error}")
    queue = make_queue(settings.locations.redis_url)
    supervisor = Supervisor(database, settings, nodes.node_id("worker"))
    every = min(5.0, settings.lease_seconds / 3)
    reaper = Reaper(database, queue, "worker", every, device, kinds)
    artifacts = ArtifactStore(settings.locations.artifacts_url)
    sweeper = Sweeper(database, artifacts, settings.keeping)
    sender = Sender(
        database,
        nodes.node_id("worker"),
        allow_private=settings.webhook_allow_private,
        root_path=settings.root_path,
    )
    _add_task(queue, supervisor)
    _leave_on_shutdown(supervisor)
    if DIES_WITH_PARENT in os.environ:
        end_with_parent(partial(_leave, supervisor))
    reaper.start()
    sweeper.start()
    sender.start()
    if left := [kind for kind in kinds_named(sys.argv[1:]) if kind not in kinds]:
        log.warning("left to other workers: " + NO_TORCH, kinds=left)
    for kind in kinds:
        if JOB_KINDS[kind].helper:
            submit(queue, "", kind)  # there may be a job to help with
    log.info("worker ready", owner=nodes.node_id("worker"), kinds=kinds)
    queue.worker_main(
        [
            "--quiet",
            "worker",
            "--pool=threads",
            f"--concurrency={settings.worker_concurrency}",
            f"--queues={','.join(JOB_KINDS[kind].queue for kind in kinds)}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            "--loglevel=WARNING",
        ]
    )
    reaper.stop()
    sweeper.stop()
    sender.stop()
    nodes.leave(database, "worker")


def _add_task(queue: Celery, supervisor: Supervisor) -> None:
    @queue.task(name=RUN_JOB)  # type: ignore[untyped-decorator]
    def run_job(job_id: str, kind: Kind) -> None:
        if supervisor.run(kind):
            submit(queue, job_id, kind)


def _leave_on_shutdown(supervisor: Supervisor) -> None:
    def leave(**_: Any) -> None:
        supervisor.leaving.set()

    worker_shutting_down.connect(leave, weak=False)


def _leave(supervisor: Supervisor) -> None:
    supervisor.leaving.set()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
