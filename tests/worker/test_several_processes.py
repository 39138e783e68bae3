"""Several processes at one job: torchrun, gloo, real kill -9."""

import json
import os
import signal
import time

import pytest

from store.jobs import requests
from tests.worker.conftest import STEPS


def start_worker(place):
    return place.start_worker(DIFFUSION_TRAIN_PROCESSES="2")


def trainers(place, job):
    """The first process, the others, and torchrun itself."""
    return place.workers_on(job)


def all_gone(place, job):
    deadline = time.monotonic() + 10
    while trainers(place, job) and time.monotonic() < deadline:
        time.sleep(0.1)
    return trainers(place, job) == []


def losses(place, job):
    job = requests.get_job(place.database, job.id)
    lines = place.artifacts.get_bytes(f"{job.checkpoint_key}/metrics.jsonl").decode().splitlines()
    return {line["step"]: line["loss"] for line in map(json.loads, lines)}


def test_two_processes_make_the_model_of_one_and_a_lost_one_changes_nothing(place, undisturbed):
    start_worker(place)
    job = place.accept(steps=STEPS)
    digest = place.finish(job)
    together, alone = losses(place, job), undisturbed(STEPS).losses
    assert together.keys() == alone.keys()
    # Sums in another order differ in their last bits, and training makes more of that in time.
    early = [step for step in alone if step <= 20]
    assert [together[step] for step in early] == pytest.approx([alone[s] for s in early], rel=0.01)
    assert together[STEPS] == pytest.approx(alone[STEPS], rel=0.2)

    job = place.accept(steps=STEPS)
    place.wait(job, lambda j: (j.checkpoint_step or 0) >= 50)
    helper = max(trainers(place, job))
    os.kill(helper, signal.SIGKILL)
    assert place.finish(job) == digest
    assert requests.get_job(place.database, job.id).fence == 2
    assert all_gone(place, job)


def test_a_cancelled_job_leaves_no_process(place):
    start_worker(place)
    job = place.accept(steps=100_000)
    place.wait(job, lambda j: bool(j.progress))
    assert len(trainers(place, job)) == 3
    requests.request_cancel(place.database, job.id)
    place.wait(job, lambda j: j.done)
    assert all_gone(place, job)
    assert not place.job_folders()


def test_a_killed_worker_takes_all_of_them_along(place):
    worker = start_worker(place)
    job = place.accept(steps=100_000)
    place.wait(job, lambda j: bool(j.progress))
    worker.kill()
    worker.wait()
    assert all_gone(place, job)
