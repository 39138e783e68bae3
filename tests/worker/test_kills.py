"""Trainer, worker, Valkey and PostgreSQL, each killed with SIGKILL at random moments of one job:
the weights are those of an undisturbed run, no step is logged twice, no event is missing. Eight
kills in `make test`, twenty in `make soak-kills`.
"""

import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from store.jobs import requests
from store.jobs.events import events_after
from store.jobs.record import Job
from tests.postgres import PostgresServer
from tests.worker.conftest import CHECKPOINT_EVERY, Place

TARGETS = ("trainer", "worker", "valkey", "postgres")
KILLS_EACH = int(os.environ.get("DIFFUSION_TEST_KILLS_EACH", "1"))
STEPS = 250 * KILLS_EACH


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """One of its own: it will be killed."""
    with tempfile.TemporaryDirectory(prefix="dif-pg-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder))
        server.start()
        yield server
        server.stop()


class Ground:
    """A service whose parts are killed, and started again as their supervisor would."""

    def __init__(self, place: Place, postgres: PostgresServer) -> None:
        self.place, self.postgres = place, postgres
        self.worker = place.start_worker()

    def kill(self, target: str, job: Job) -> None:
        match target:
            case "trainer":
                for pid in self.place.workers_on(job):
                    os.kill(pid, signal.SIGKILL)
            case "worker":
                self.worker.kill()
                self.worker.wait()
            case "valkey":
                assert self.place.valkey
                self.place.valkey.kill()
                self.place.valkey.wait()
            case "postgres":
                self.postgres.kill()
        time.sleep(0.2)
        self.restore()

    def restore(self) -> None:
        self.postgres.start()
        assert self.place.valkey
        if self.place.valkey.poll() is not None:
            self.place.start_valkey()
        if self.worker.poll() is not None:
            self.worker = self.place.start_worker()

    def look(self, job: Job) -> Job:
        for _ in range(20):
            try:
                return requests.get_job(self.place.database, job.id)
            except OperationalError:  # a connection from before the server was killed
                time.sleep(0.1)
        return requests.get_job(self.place.database, job.id)

    def wait_for_work(self, job: Job, checkpoint: int) -> None:
        """Until there is a checkpoint beyond this one, and a trainer at work."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            self.restore()
            now = self.look(job)
            if now.done or ((now.checkpoint_step or 0) > checkpoint and self.place.workers_on(now)):
                return
            time.sleep(0.05)
        log = (self.place.locations.data_dir / "worker.log").read_text()[-3000:]
        pytest.fail(f"no checkpoint after {checkpoint}; {log}")


def test_kills_at_random_moments_change_nothing(open_place, postgres, undisturbed):
    moments = random.Random(7)
    targets = [target for target in TARGETS for _ in range(KILLS_EACH)]
    moments.shuffle(targets)
    with open_place(database_url=postgres.url) as place:
        ground = Ground(place, postgres)
        job = place.accept(steps=STEPS)
        killed, checkpoint = 0, -1
        for target in targets:
            if killed % 2 == 0:  # five attempts in a row without a checkpoint would fail the job
                ground.wait_for_work(job, checkpoint)
            time.sleep(moments.uniform(0.0, 0.4))
            now = ground.look(job)
            if now.done:
                break
            checkpoint = now.checkpoint_step or 0
            ground.kill(target, job)
            killed += 1
        assert killed == len(targets), f"the job was done after {killed} kills"
        ground.restore()
        assert place.finish(job) == undisturbed(STEPS).digest
        check_metrics(place, ground.look(job))
        check_events(place, ground.look(job))


def check_metrics(place: Place, job: Job) -> None:
    lines = place.artifacts.get_bytes(f"{job.checkpoint_key}/metrics.jsonl").decode().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, *range(10, STEPS + 1, 10)]


def check_events(place: Place, job: Job) -> None:
    events, has_more = events_after(place.database, job.id, 0, 10_000)
    assert not has_more
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    types = [event.type for event in events]
    assert types[0] == "queued"
    assert types.count("started") == 1
    assert types[-1] == "completed"
    assert types.count("completed") == 1
    checkpoints = [event.data["step"] for event in events if event.type == "checkpoint"]
    assert all(before < after for before, after in pairwise(checkpoints))
    assert set(range(CHECKPOINT_EVERY, STEPS + 1, CHECKPOINT_EVERY)) <= set(checkpoints)
    assert types.count("resumed") == job.fence - 1
