"""The life of a training: paused, resumed, killed and told about, by real processes."""

import json
import os
import signal
import time

import pytest

from models.training.config import TrainConfig
from store.jobs import requests
from store.jobs.checkpoints import best_of, list_checkpoints
from store.jobs.events import JobEvent, events_after
from store.jobs.files import log_keys, newest_event_file
from store.jobs.options import TrainOptions
from store.jobs.record import Job
from store.models import get_model
from tests.worker.conftest import STEPS
from tests.worker.tfrecord import read_events


def told(place, job: Job) -> list[JobEvent]:
    return events_after(place.database, job.id, 0, 1000)[0]


def life(place, job: Job) -> list[str]:
    """Without what is told at checkpoints."""
    often = {"preview", "evaluation", "checkpoint"}
    return [event.type for event in told(place, job) if event.type not in often]


def has_checkpoint(job: Job) -> bool:
    return bool(job.checkpoint_step)


def kill(place, job: Job) -> None:
    for pid in place.workers_on(job):
        os.kill(pid, signal.SIGKILL)


def log_lines(place, job: Job) -> list[dict]:
    keys = log_keys(place.artifacts, job.id)
    return [
        json.loads(line)
        for key in keys
        for line in place.artifacts.get_bytes(key).decode().splitlines()
    ]


def test_a_paused_job_goes_on_as_if_nothing_had_been(staffed, undisturbed):
    job = staffed.accept(STEPS)
    staffed.wait(job, has_checkpoint)
    requests.request_pause(staffed.database, job.id, "train")
    paused = staffed.wait(job, lambda j: j.status == "paused")
    assert (paused.owner, paused.attempts, paused.pause_requested) == (None, 0, False)
    assert staffed.workers_on(job) == []
    assert 0 < paused.checkpoint_step < STEPS
    time.sleep(1.0)
    assert requests.get_job(staffed.database, job.id).status == "paused"
    requests.resume(staffed.database, job.id, "train")  # without a message: the reaper brings it
    assert staffed.finish(job) == undisturbed(STEPS).digest
    assert life(staffed, job) == ["queued", "started", "paused", "queued", "resumed", "completed"]


def test_a_trainer_that_is_killed_while_it_pauses_leaves_a_paused_job(staffed):
    job = staffed.accept(100_000)
    staffed.wait(job, has_checkpoint)
    requests.request_pause(staffed.database, job.id, "train")
    kill(staffed, job)
    paused = staffed.wait(job, lambda j: j.status == "paused")
    assert paused.attempts == 0
    assert requests.request_cancel(staffed.database, job.id).status == "cancelled"


def test_a_worker_that_is_killed_while_its_job_pauses_leaves_a_paused_job(place):
    worker = place.start_worker("train")
    job = place.accept(100_000)
    place.wait(job, has_checkpoint)
    os.kill(worker.pid, signal.SIGSTOP)  # it hears nothing any more
    requests.request_pause(place.database, job.id, "train")
    worker.kill()
    worker.wait()
    place.start_worker("sample")  # one that does not even train
    place.wait(job, lambda j: j.status == "paused")
    assert life(place, job) == ["queued", "started", "lost", "paused"]


def test_the_most_urgent_job_runs_first_whichever_message_wakes_the_worker(place):
    late, urgent = (place.accept(10, priority=priority) for priority in (0, 9))
    place.start_worker("train")
    for job in (late, urgent):
        place.finish(job)
    started = [requests.get_job(place.database, job.id).started_at for job in (urgent, late)]
    assert started == sorted(started)


def test_whatever_is_killed_each_event_each_step_and_each_line_is_there_once(place, undisturbed):
    """A trainer, then a broker, then a worker."""
    worker = place.start_worker("train")
    job = place.accept(STEPS)
    place.wait(job, has_checkpoint)
    kill(place, job)
    place.valkey.kill()
    place.valkey.wait()
    place.start_valkey()
    place.wait(job, lambda j: j.done or (j.checkpoint_step or 0) >= 50)
    worker.kill()
    worker.wait()
    place.start_worker("train")
    assert place.finish(job) == undisturbed(STEPS).digest
    place.wait(job, lambda _: not place.job_folders())
    events = told(place, job)
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    for kind in ("preview", "evaluation", "checkpoint"):
        steps = [event.data["step"] for event in events if event.type == kind]
        assert steps == sorted(set(steps))
        assert {8, 50, 100, 150} <= set(steps)
    assert (events[0].type, events[-1].type) == ("queued", "completed")
    _check_board(place, job)
    _check_log(place, job)


def _check_board(place, job: Job) -> None:
    job = requests.get_job(place.database, job.id)
    key = newest_event_file(place.artifacts, job.id)
    assert key.rsplit("/", 1)[1].startswith("events.out.tfevents.")
    scalars, images = read_events(place.artifacts.get_bytes(key))
    assert [step for step, _ in scalars["loss"]] == [1, *range(10, STEPS + 1, 10)]
    kept = place.artifacts.get_bytes(f"{job.checkpoint_key}/metrics.jsonl").decode()
    losses = [json.loads(line)["loss"] for line in kept.splitlines()]
    assert [value for _, value in scalars["loss"]] == pytest.approx(losses, rel=1e-6)
    looked = [step for step, _ in scalars["held_out/score"]]
    assert looked == sorted(set(looked))
    assert [step for step, _ in images["samples"]] == looked
    assert all(png.startswith(b"\x89PNG") for _, png in images["samples"])
    assert len([tag for tag in scalars if tag.startswith("held_out/t=")]) == 10


def _check_log(place, job: Job) -> None:
    """In order over all attempts, also of those that were killed."""
    lines = log_lines(place, job)
    fences = [line["fence"] for line in lines]
    assert fences == sorted(fences)
    assert len(set(fences)) >= 2
    assert all(line["job"] == job.id for line in lines)
    assert lines[-1]["event"] == "model made"


def test_a_job_that_fails_says_why_in_its_record_its_events_and_its_log(place):
    place.start_worker("train")
    place.artifacts.put_bytes("datasets/tones", b"not an archive any more")
    job = place.wait(place.accept(20), lambda j: j.done)
    assert (job.status, job.error_code) == ("failed", "invalid")
    assert "neither a zip nor a tar" in job.error_message
    failed = log_lines(place, job)[-1]
    assert (failed["event"], failed["code"]) == ("job failed", "invalid")
    assert "neither a zip nor a tar" in failed["exception"]
    last = told(place, job)[-1]
    assert (last.type, last.data["code"]) == ("error", "invalid")


def test_the_best_checkpoint_is_kept_and_becomes_the_model_where_that_is_wanted(staffed):
    options = TrainOptions(keep="best", keep_checkpoints=1).to_dict()
    job = staffed.accept(60, options=options)
    staffed.finish(job)
    scores = {e.data["step"]: e.data["score"] for e in told(staffed, job) if e.type == "evaluation"}
    kept = list_checkpoints(staffed.database, job.id)
    best = best_of(kept)
    assert scores[best.step] == min(scores.values()) == best.score
    assert {checkpoint.step for checkpoint in kept} == {best.step, 60}
    folders = {
        key.rsplit("/", 1)[0]
        for key in staffed.artifacts.keys(f"jobs/{job.id}")
        if "/checkpoint-" in key
    }
    assert folders == {checkpoint.key for checkpoint in kept}
    assert get_model(staffed.database, job.model_name).details["steps"] == best.step


def test_time_that_a_job_is_paused_does_not_count_against_its_minutes(staffed):
    job = staffed.accept(None, minutes=0.1)
    staffed.wait(job, lambda j: j.status == "running" and j.progress.get("step", 0) > 0)
    requests.request_pause(staffed.database, job.id, "train")
    staffed.wait(job, lambda j: j.status == "paused")
    checkpoint = list_checkpoints(staffed.database, job.id)[-1]
    time.sleep(6.0)  # all of the budget
    resumed = time.monotonic()
    requests.resume(staffed.database, job.id, "train")
    staffed.wait(job, lambda j: j.done)
    assert time.monotonic() - resumed > 6.0 - checkpoint.seconds > 0.0  # what was left is used
    assert TrainConfig.from_dict(job.config).minutes == 0.1
    # A checkpoint may begin just before the budget ends, so that the model tells the time.
    assert get_model(staffed.database, job.model_name).details["seconds"] >= 6.0
    last = list_checkpoints(staffed.database, job.id)[-1]
    assert last.step > checkpoint.step
