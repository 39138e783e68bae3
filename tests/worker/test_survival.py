"""Jobs survive: real workers, a real Valkey, real kill -9, and the same weights to the last bit."""

import time

from store.jobs import requests
from store.jobs.record import Job
from tests.worker.conftest import STEPS
from worker.queue import num_waiting, submit
from worker.reaper import Reaper


def is_training(job: Job) -> bool:
    return job.status == "running" and bool(job.progress)


def test_a_killed_worker_takes_its_trainer_along_and_another_goes_on(place, undisturbed):
    first = place.start_worker()
    job = place.accept(STEPS)
    place.wait(job, lambda j: (j.checkpoint_step or 0) >= 50)
    orphans = place.workers_on(job)
    first.kill()
    first.wait()
    time.sleep(1.0)
    assert not set(orphans) & set(place.workers_on(job))
    assert not place.job_folders()
    place.start_worker()
    assert place.finish(job) == undisturbed(STEPS).digest
    assert requests.get_job(place.database, job.id).fence == 2


def test_a_job_accepted_without_a_broker_starts_when_it_is_back(place):
    place.valkey.kill()
    place.valkey.wait()
    job = place.accept(steps=20)
    assert job.status == "queued"
    place.start_valkey()
    place.start_worker()
    place.finish(job)


def test_a_flushed_broker_loses_no_job(place):
    job = place.accept(steps=20)
    place.queue.control.purge()
    with place.queue.connection_for_write() as connection:
        connection.default_channel.client.flushall()
    place.start_worker()
    place.finish(job)


def test_jobs_that_wait_in_line_are_not_announced_over_and_over(place):
    waiting = [place.accept(steps=20) for _ in range(3)]
    reaper = Reaper(place.database, place.queue, "test", every_seconds=0.0)
    for _ in range(3):
        reaper.announce()
    assert num_waiting(place.queue, "train") == 3
    place.queue.control.purge()
    for _ in range(3):
        reaper.announce()
    assert num_waiting(place.queue, "train") == 3
    place.start_worker()
    place.finish(waiting[0])


def test_two_workers_and_many_messages_run_a_job_once(place):
    job = place.accept(STEPS)
    for _ in range(10):
        assert submit(place.queue, job.id, "train")
    place.start_worker()
    place.start_worker()
    place.wait(job, is_training)
    for _ in range(20):
        assert len(place.workers_on(job)) <= 1
        time.sleep(0.05)
    place.finish(job)
    assert requests.get_job(place.database, job.id).fence == 1


def test_a_worker_that_is_asked_to_leave_gives_its_job_back_with_a_checkpoint(place, undisturbed):
    worker = place.start_worker()
    job = place.accept(STEPS)
    place.wait(job, is_training)
    worker.terminate()
    assert worker.wait(20) == 0
    left = requests.get_job(place.database, job.id)
    assert left.status == "queued"
    assert left.checkpoint_step > 0
    assert left.attempts == 0
    assert place.workers_on(job) == []
    place.start_worker()
    assert place.finish(job) == undisturbed(STEPS).digest


def test_a_running_job_can_be_cancelled(staffed):
    job = staffed.accept(steps=100_000)
    staffed.wait(job, is_training)
    requests.request_cancel(staffed.database, job.id)
    cancelled = staffed.wait(job, lambda j: j.done)
    assert cancelled.status == "cancelled"
    assert staffed.workers_on(job) == []
