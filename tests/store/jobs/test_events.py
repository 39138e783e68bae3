"""Each change of a job is told once, in order, together with the change or not at all."""

import threading

import pytest

from store.database import Database
from store.errors import LostLease, ModelConflict
from store.jobs import claims, requests
from store.jobs.checkpoints import Checkpoint, best_of, list_checkpoints
from store.jobs.events import LAST_EVENTS, JobEvent, NewEvent, events_after
from store.jobs.progress import Progress, TrainProgress
from store.jobs.record import Webhook
from store.models import create_model
from store.webhooks import deliveries_of, new_secret
from tests.store.records import a_job, a_model

EXPIRED = -1.0


def a_checkpoint(job_id: str, step: int, score: float | None = None) -> Checkpoint:
    return Checkpoint(
        job_id=job_id, step=step, key=f"kept/{step}", num_bytes=1, seconds=1.0, score=score
    )


def told(database: Database, job_id: str, after: int = 0) -> list[JobEvent]:
    return events_after(database, job_id, after, 1000)[0]


def types(database: Database, job_id: str) -> list[str]:
    return [event.type for event in told(database, job_id)]


def test_a_life_without_trouble_is_told_in_order(database):
    job = a_job(database)
    fence = claims.claim(database, job.id, "one", 60)
    claims.record_checkpoint(
        database,
        job.id,
        fence,
        "kept/10",
        10,
        checkpoint=a_checkpoint(job.id, 10, 0.5),
        events=[
            NewEvent("evaluation", {"step": 10, "score": 0.5}),
            NewEvent("checkpoint", {"step": 10}),
        ],
    )
    claims.succeed_with_model(database, job.id, fence, a_model(), TrainProgress(step=10))
    events = told(database, job.id)
    assert [event.number for event in events] == [1, 2, 3, 4, 5]
    assert [event.type for event in events] == [
        "queued",
        "started",
        "evaluation",
        "checkpoint",
        "completed",
    ]
    assert events[2].data == {"step": 10, "score": 0.5}
    assert events[-1].data == {"model": "faces"}
    assert [event.at for event in events] == sorted(event.at for event in events)


def test_losses_and_pauses_are_told_with_the_step_to_go_on_from(database):
    job = a_job(database)
    fence = claims.claim(database, job.id, "one", 60)
    claims.record_checkpoint(database, job.id, fence, "kept/10", 10, events=[])
    claims.give_back(database, job.id, fence)
    claims.claim(database, job.id, "one", EXPIRED)
    fence = claims.claim(database, job.id, "two", 60)
    requests.request_pause(database, job.id, "train")
    claims.give_back(database, job.id, fence)
    requests.resume(database, job.id, "train")
    requests.request_cancel(database, job.id)
    found = [(event.type, event.data.get("step")) for event in told(database, job.id)]
    assert found == [
        ("queued", 0),
        ("started", 0),
        ("requeued", 10),
        ("resumed", 10),
        ("lost", 10),
        ("resumed", 10),
        ("paused", 10),
        ("queued", 10),
        ("cancelled", None),
    ]


def test_the_last_event_says_why_a_job_failed(database):
    job = a_job(database)
    fence = claims.claim(database, job.id, "one", 60)
    claims.finish(database, job.id, fence, "failed", "disk_full", "the disk is full")
    last = told(database, job.id)[-1]
    assert (last.type, last.data) == (
        "error",
        {"code": "disk_full", "message": "the disk is full"},
    )
    assert last.type in LAST_EVENTS


def test_what_did_not_happen_is_not_told(database):
    job = a_job(database)
    stale = claims.claim(database, job.id, "one", EXPIRED)
    fence = claims.claim(database, job.id, "two", 60)
    before = types(database, job.id)
    with pytest.raises(LostLease):
        claims.record_checkpoint(
            database, job.id, stale, "kept/9", 9, events=[NewEvent("checkpoint", {"step": 9})]
        )
    create_model(database, a_model())
    with pytest.raises(ModelConflict):
        claims.succeed_with_model(database, job.id, fence, a_model(), Progress())
    assert types(database, job.id) == before


def test_events_are_read_on_from_any_of_them(database):
    job = a_job(database)
    for _ in range(3):
        requests.request_pause(database, job.id, "train")
        requests.resume(database, job.id, "train")
    whole = [event.number for event in told(database, job.id)]
    page, more = events_after(database, job.id, 2, 3)
    assert ([event.number for event in page], more) == (whole[2:5], True)
    rest, more = events_after(database, job.id, 5, 3)
    assert ([event.number for event in rest], more) == (whole[5:], False)


def test_whoever_tells_at_once_gives_no_number_twice(database):
    """A trainer's checkpoints against a caller who changes his mind."""
    job = a_job(database)
    fence = claims.claim(database, job.id, "one", 60)

    def keep() -> None:
        for step in range(1, 21):
            key = f"kept/{step}"
            told = [NewEvent("checkpoint", {"step": step})]
            claims.record_checkpoint(database, job.id, fence, key, step, events=told)

    trainers = [threading.Thread(target=keep) for _ in range(3)]
    for trainer in trainers:
        trainer.start()
    for trainer in trainers:
        trainer.join()
    assert [event.number for event in told(database, job.id)] == list(range(1, 63))


def test_events_go_with_their_job(database):
    job = a_job(database)
    requests.request_cancel(database, job.id)
    requests.delete_job(database, job.id, "train")
    assert told(database, job.id) == []


# Checkpoints --------------------------------------------------------------------------------------


def test_the_last_checkpoints_and_the_best_are_kept(database):
    job = a_job(database)
    fence = claims.claim(database, job.id, "one", 60)
    for step, score in ((1, 0.9), (2, 0.3), (3, 0.5), (4, None), (5, 0.4)):
        checkpoint = a_checkpoint(job.id, step, score)
        claims.record_checkpoint(
            database, job.id, fence, f"kept/{step}", step, checkpoint=checkpoint, keep=2
        )
    kept = list_checkpoints(database, job.id)
    assert [checkpoint.step for checkpoint in kept] == [2, 4, 5]
    assert best_of(kept).step == 2


def test_without_a_score_there_is_no_best():
    assert best_of([a_checkpoint("job", 1), a_checkpoint("job", 2)]) is None


def test_a_job_may_begin_with_the_checkpoint_of_another(database):
    job_id = requests.new_job_id()
    job = a_job(database, checkpoint=a_checkpoint(job_id, 30, 0.5))
    assert (job.id, job.checkpoint_key, job.checkpoint_step) == (job_id, "kept/30", 30)
    assert [checkpoint.step for checkpoint in list_checkpoints(database, job_id)] == [30]
    claims.claim(database, job_id, "one", 60)
    assert told(database, job_id)[-1].data == {"attempt": 1, "step": 30}


# Webhooks -----------------------------------------------------------------------------------------


def test_a_webhook_is_due_with_each_change_that_its_owner_waits_for(database):
    secret = new_secret()
    job = a_job(database, webhook=Webhook("https://example.org/hook", secret))
    requests.request_pause(database, job.id, "train")
    requests.resume(database, job.id, "train")
    fence = claims.claim(database, job.id, "one", 60)
    claims.succeed_with_model(database, job.id, fence, a_model(), TrainProgress(step=10))
    paused, completed = deliveries_of(database, job.id)
    assert (paused.event, completed.event) == ("train_job.paused", "train_job.completed")
    assert (completed.url, completed.secret) == ("https://example.org/hook", secret)
    assert paused.payload["status"] == "paused"
    assert completed.payload["status"] == "succeeded"
    assert completed.payload["links"] == {
        "self": f"/train-jobs/{job.id}",
        "model": "/models/faces",
    }
    assert secret not in str(completed.payload)


def test_a_change_that_is_rolled_back_is_told_to_nobody(database):
    job = a_job(database, webhook=Webhook("https://example.org/hook", new_secret()))
    fence = claims.claim(database, job.id, "one", 60)
    create_model(database, a_model())
    with pytest.raises(ModelConflict):
        claims.succeed_with_model(database, job.id, fence, a_model(), Progress())
    assert deliveries_of(database, job.id) == []
    claims.finish(database, job.id, fence, "failed", "model_exists", "there is one")
    (failed,) = deliveries_of(database, job.id)
    assert failed.event == "train_job.failed"
    assert failed.payload["error"] == {"code": "model_exists", "message": "there is one"}
