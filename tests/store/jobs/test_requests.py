"""A job is held by one worker at a time, and one that lost it can change nothing."""

import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from store import nodes
from store.access.owners import Quotas
from store.database import Database
from store.errors import (
    DatasetNotFound,
    IllegalTransition,
    JobNotFound,
    LostLease,
    ModelConflict,
    ModelNotFound,
)
from store.jobs import claims, requests
from store.jobs.configs import EvaluateConfig
from store.jobs.events import events_after
from store.jobs.progress import EvaluationProgress, Progress, TrainProgress
from store.jobs.record import Job
from store.models import create_model, get_model
from tests.store.records import a_job, a_model

ROOT = Path(__file__).parents[3]
EXPIRED = -1.0  # seconds: a lease that ended before it began

CLAIM_ALL = """
import sys
from store.jobs.configs import EvaluateConfig
from store.jobs import claims
from store.database import Database

database = Database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for job_id in sys.argv[3:]:
    fence = claims.claim(database, job_id, sys.argv[2], 60)
    if fence is not None:
        print(job_id, fence, flush=True)
"""

WRITES = {
    "renew": lambda database, job_id, fence: claims.renew(database, job_id, fence, 60),
    "progress": lambda database, job_id, fence: claims.record_progress(
        database, job_id, fence, TrainProgress(step=999)
    ),
    "checkpoint": lambda database, job_id, fence: claims.record_checkpoint(
        database, job_id, fence, "checkpoints/stale", 999
    ),
    "finish": lambda database, job_id, fence: claims.finish(
        database, job_id, fence, "failed", "stale", "stale"
    ),
    "succeed": lambda database, job_id, fence: claims.succeed_with_model(
        database, job_id, fence, a_model("faces"), TrainProgress(step=999)
    ),
    "succeed with scores": lambda database, job_id, fence: claims.succeed_with_scores(
        database, job_id, fence, EvaluationProgress(), "float32"
    ),
    "give back": lambda database, job_id, fence: claims.give_back(database, job_id, fence),
}


def a_claimed_job(database: Database, lease_seconds: float = 60.0) -> tuple[Job, int]:
    job = a_job(database)
    fence = claims.claim(database, job.id, "one", lease_seconds)
    assert fence is not None
    return job, fence


def told(database: Database, job_id: str) -> list[str]:
    return [event.type for event in events_after(database, job_id, 0, 100)[0]]


def facts(job: Job) -> dict[str, object]:
    return {column.key: getattr(job, column.key) for column in Job.__table__.columns}


def test_a_new_job_is_queued_and_keeps_its_config(database):
    job = requests.get_job(database, a_job(database).id)
    assert (job.status, job.fence, job.attempts, job.version) == ("queued", 0, 0, 1)
    assert job.config == {"steps": 10}
    assert not job.done


def test_a_job_needs_its_dataset(database):
    with pytest.raises(DatasetNotFound, match="'nowhere'"):
        requests.create_job(database, "train", dataset="nowhere", model_name="m", config={})


def test_a_job_cannot_make_a_model_that_exists(database):
    a_job(database, "other")
    create_model(database, a_model("faces"))
    with pytest.raises(ModelConflict, match="'faces' already"):
        a_job(database, "faces")


def test_two_unfinished_jobs_cannot_make_one_model(database):
    first = a_job(database)
    with pytest.raises(ModelConflict, match=first.id):
        a_job(database)
    requests.request_cancel(database, first.id)
    assert a_job(database).status == "queued"


def test_of_racing_callers_exactly_one_makes_the_job(database):
    a_job(database, "other")
    start = threading.Barrier(8)
    results: list[str] = []

    def race() -> None:
        start.wait()
        try:
            results.append(a_job(database).status)
        except ModelConflict:
            results.append("conflict")

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(results) == {"queued": 1, "conflict": 7}


def test_racing_callers_without_a_name_get_one_each(database):
    first = a_job(database, None)
    start = threading.Barrier(4)
    names = [first.model_name]

    def race() -> None:
        start.wait()
        names.append(a_job(database, None).model_name)

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == [f"photos-{number}" for number in range(1, 6)]
    requests.request_cancel(database, first.id)
    assert requests.free_model_name(database, "photos") == "photos-1"


def test_model_names_are_those_made_and_those_to_come(database):
    cancelled = a_job(database, "cancelled")
    requests.request_cancel(database, cancelled.id)
    a_job(database, "to-come")
    create_model(database, a_model("made"))
    assert requests.model_names(database) == {"made", "to-come"}


def test_an_unknown_job_is_not_found(database):
    with pytest.raises(JobNotFound, match="'job_0'"):
        requests.get_job(database, "job_0")
    with pytest.raises(JobNotFound, match="'job_0'"):
        requests.request_cancel(database, "job_0")
    assert claims.claim(database, "job_0", "one", 60) is None


def test_jobs_come_in_pages_newest_first(database):
    ids = [a_job(database, f"model-{i}").id for i in range(5)]
    assert ids == sorted(ids)
    seen, after, more = [], None, True
    while more:
        page, more = requests.list_jobs(database, "train", limit=2, after=after)
        seen += [job.id for job in page]
        after = seen[-1]
    assert seen == ids[::-1]


def test_nothing_has_a_name_with_a_nul_in_it(database):
    with pytest.raises(JobNotFound):
        requests.get_job(database, "a\0b")
    with pytest.raises(JobNotFound):
        requests.request_cancel(database, "a\0b")
    with pytest.raises(JobNotFound):
        requests.list_jobs(database, "train", limit=1, after="a\0b")


def test_what_follows_no_job_is_not_found(database):
    a_job(database)
    with pytest.raises(JobNotFound, match="'nobody'"):
        requests.list_jobs(database, "train", limit=2, after="nobody")


def test_jobs_are_listed_by_status(database):
    ids = [a_job(database, f"model-{i}").id for i in range(3)]
    claims.claim(database, ids[1], "one", 60)
    running, more = requests.list_jobs(database, "train", limit=10, status="running")
    assert ([job.id for job in running], more) == ([ids[1]], False)


# Claims -------------------------------------------------------------------------------------------


def test_of_racing_threads_exactly_one_wins(database):
    job = a_job(database)
    start = threading.Barrier(8)
    fences: list[int | None] = []

    def race(owner: str) -> None:
        start.wait()
        fences.append(claims.claim(database, job.id, owner, 60))

    threads = [threading.Thread(target=race, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(fences) == {None: 7, 1: 1}


def test_of_racing_processes_exactly_one_wins_each_job(database, database_url):
    ids = [a_job(database, f"model-{i}").id for i in range(20)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM_ALL, database_url, f"worker-{i}", *ids],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for i in range(3)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    won = [line.split() for worker in workers for line in worker.communicate()[0].splitlines()]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert sorted(won) == [[job_id, "1"] for job_id in ids]


def test_a_claimed_job_runs_under_its_owner(database):
    job, fence = a_claimed_job(database)
    claimed = requests.get_job(database, job.id)
    assert (claimed.status, claimed.owner, claimed.fence, fence) == ("running", "one", 1, 1)
    assert claimed.lease_expires_at > claimed.started_at
    assert claimed.version == job.version + 1


def test_a_held_job_cannot_be_claimed(database):
    job, _ = a_claimed_job(database)
    assert claims.claim(database, job.id, "two", 60) is None
    assert requests.get_job(database, job.id).owner == "one"


def test_a_job_whose_lease_expired_can_be_claimed_again(database):
    job, fence = a_claimed_job(database, EXPIRED)
    started_at = requests.get_job(database, job.id).started_at
    assert claims.claim(database, job.id, "two", 60) == fence + 1
    again = requests.get_job(database, job.id)
    assert (again.owner, again.attempts, again.started_at) == ("two", 2, started_at)


def test_renewing_holds_a_job_and_is_no_change_to_a_poller(database):
    job, fence = a_claimed_job(database, EXPIRED)
    version = requests.get_job(database, job.id).version
    assert claims.renew(database, job.id, fence, 60) is None
    assert claims.claim(database, job.id, "two", 60) is None
    assert requests.get_job(database, job.id).version == version


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_an_old_fence_can_write_nothing(database, write):
    job, stale = a_claimed_job(database, EXPIRED)
    claims.claim(database, job.id, "two", 60)
    before = facts(requests.get_job(database, job.id))
    with pytest.raises(LostLease, match=f"{job.id}.*fence {stale}"):
        write(database, job.id, stale)
    assert facts(requests.get_job(database, job.id)) == before
    with pytest.raises(ModelNotFound):
        get_model(database, "faces")


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_nothing_can_be_written_to_a_job_that_is_done(database, write):
    job, fence = a_claimed_job(database)
    claims.finish(database, job.id, fence, "cancelled")
    before = facts(requests.get_job(database, job.id))
    with pytest.raises(LostLease):
        write(database, job.id, fence)
    assert facts(requests.get_job(database, job.id)) == before


def test_the_sixth_attempt_fails_the_job_as_crashed(database):
    job = a_job(database)
    for attempt in range(1, claims.MAX_ATTEMPTS + 1):
        assert claims.claim(database, job.id, "one", EXPIRED) == attempt
    assert claims.claim(database, job.id, "one", 60) is None
    failed = requests.get_job(database, job.id)
    assert (failed.status, failed.error_code, failed.attempts) == ("failed", "crashed", 5)
    assert failed.finished_at is not None
    assert failed.owner is None


def test_a_checkpoint_makes_the_attempts_count_anew(database):
    job = a_job(database)
    for _ in range(claims.MAX_ATTEMPTS):
        fence = claims.claim(database, job.id, "one", EXPIRED)
    claims.record_checkpoint(database, job.id, fence, "checkpoints/10", 10)
    assert claims.claim(database, job.id, "one", EXPIRED) == fence + 1
    job = requests.get_job(database, job.id)
    assert (job.attempts, job.checkpoint_key, job.checkpoint_step) == (1, "checkpoints/10", 10)


@pytest.mark.parametrize(("blameless", "attempts"), [(False, 1), (True, 0)])
def test_a_job_given_back_is_queued_and_blamed_only_for_a_crash(database, blameless, attempts):
    job, fence = a_claimed_job(database)
    assert claims.give_back(database, job.id, fence, blameless=blameless) == "queued"
    job = requests.get_job(database, job.id)
    assert (job.status, job.owner, job.attempts) == ("queued", None, attempts)
    assert claims.claim(database, job.id, "two", 60) == fence + 1


def test_every_recorded_progress_is_a_new_version(database):
    job, fence = a_claimed_job(database)
    version = requests.get_job(database, job.id).version
    claims.record_progress(database, job.id, fence, TrainProgress(step=5))
    job = requests.get_job(database, job.id)
    assert (job.progress, job.version) == (TrainProgress(step=5).to_dict(), version + 1)


def test_a_job_succeeds_together_with_its_model(database):
    job, fence = a_claimed_job(database)
    progress = TrainProgress(step=10)
    claims.succeed_with_model(database, job.id, fence, a_model("faces"), progress)
    job = requests.get_job(database, job.id)
    assert (job.status, job.progress, job.owner) == ("succeeded", progress.to_dict(), None)
    assert job.done
    assert get_model(database, "faces").name == "faces"


def test_a_job_whose_model_cannot_be_stored_has_not_succeeded(database):
    job, fence = a_claimed_job(database)
    create_model(database, a_model("faces"))  # uploaded in the meantime
    with pytest.raises(ModelConflict, match="'faces' already"):
        claims.succeed_with_model(database, job.id, fence, a_model("faces"), Progress())
    assert requests.get_job(database, job.id).status == "running"


@pytest.mark.parametrize(("digest", "is_told"), [("0", True), ("other", False)])
def test_an_evaluation_succeeds_together_with_the_scores_of_the_weights_it_saw(
    database, digest, is_told
):
    create_model(database, a_model("faces"))
    job = an_evaluation(database, "float32", digest=digest, frechet=0.5)
    assert requests.get_job(database, job.id).status == "succeeded"
    scores = {"float32": {"frechet": 0.5, "evaluation": job.id}}
    assert get_model(database, "faces").details == ({"scores": scores} if is_told else {})


def test_a_model_keeps_its_latest_scores_in_each_precision(database):
    create_model(database, a_model("faces"))
    an_evaluation(database, "float32", frechet=0.5)
    other = an_evaluation(database, "bfloat16", frechet=0.6)
    latest = an_evaluation(database, "float32", frechet=0.4)
    assert get_model(database, "faces").details["scores"] == {
        "float32": {"frechet": 0.4, "evaluation": latest.id},
        "bfloat16": {"frechet": 0.6, "evaluation": other.id},
    }


def an_evaluation(database, precision, digest="0", **result):
    """One of the model "faces" that has succeeded."""
    config = EvaluateConfig({}, prefix="models/faces", digest=digest).to_dict()
    job = requests.create_job(
        database, "evaluate", model_name="faces", dataset="photos", config=config
    )
    fence = claims.claim(database, job.id, "one", 60)
    assert fence is not None
    progress = EvaluationProgress(result=result)
    claims.succeed_with_scores(database, job.id, fence, progress, precision)
    return job


# The line -----------------------------------------------------------------------------------------


def test_the_most_urgent_job_is_next_and_of_equals_the_oldest(database):
    later, urgent, first, second = (
        a_job(database, f"model-{i}", priority=priority).id
        for i, priority in enumerate((0, 9, 5, 5))
    )
    order = [claims.claim_next(database, "train", "one", 60) for _ in range(5)]
    assert order == [(urgent, 1), (first, 1), (second, 1), (later, 1), None]


def test_owners_take_turns_whatever_the_number_of_their_jobs_and_their_priorities(database):
    alice, bob, carol = (database.for_owner(who, Quotas()) for who in ("alice", "bob", "carol"))
    late, *hers = (a_job(alice, f"a-{i}", priority=8 + (i > 0)).id for i in range(4))
    his = [a_job(bob, f"b-{i}", priority=0).id for i in range(2)]
    (nobodys,) = (a_job(database, "n-0").id,)

    def work(count):
        """Have a worker take that many jobs and be done with each before the next."""
        for _ in range(count):
            job_id, fence = claims.claim_next(database, "train", "one", 60)
            claims.finish(database, job_id, fence, "failed", "crashed", "")
            yield job_id

    assert list(work(4)) == [hers[0], his[0], nobodys, hers[1]]
    her_own = a_job(carol, "c-0").id  # who comes later waits for none of theirs
    assert list(work(4)) == [her_own, his[1], hers[2], late]


def test_who_has_a_job_running_is_behind_who_has_none(database):
    alice, bob = (database.for_owner(who, Quotas()) for who in ("alice", "bob"))
    first = a_job(alice, "a-0").id
    assert claims.claim_next(database, "train", "one", 60) == (first, 1)
    again = a_job(alice, "a-1", priority=9).id
    his = [a_job(bob, f"b-{i}").id for i in range(2)]
    assert claims.claim_next(database, "train", "two", 60) == (his[0], 1)
    # Both have one that runs, and alice's was started longer ago.
    assert claims.claim_next(database, "train", "three", 60) == (again, 1)
    assert claims.claim_next(database, "train", "four", 60) == (his[1], 1)


def test_a_lost_job_keeps_its_place_in_the_line(database):
    lost = a_job(database, "lost").id
    claims.claim(database, lost, "one", EXPIRED)
    a_job(database, "next")
    assert claims.claim_next(database, "train", "two", 60) == (lost, 2)


def test_a_job_that_has_failed_too_often_does_not_hold_up_the_line(database):
    broken = a_job(database, "broken", priority=9).id
    for _ in range(claims.MAX_ATTEMPTS):
        claims.claim(database, broken, "one", EXPIRED)
    good = a_job(database, "good").id
    assert claims.claim_next(database, "train", "two", 60) == (good, 1)
    assert requests.get_job(database, broken).status == "failed"


def test_what_was_planned_for_a_gpu_waits_for_the_worker_that_has_one(database):
    planned = a_job(database, "planned", device="cuda").id
    nodes.heartbeat(database, "worker", "cuda", ["train"])
    assert claims.claim_next(database, "train", "one", 60, "cpu") is None
    any_device = a_job(database, "any", device="cpu").id
    assert claims.claim_next(database, "train", "one", 60, "cpu") == (any_device, 1)
    assert claims.claim_next(database, "train", "two", 60, "cuda") == (planned, 1)


def test_without_a_live_gpu_any_worker_takes_what_was_planned_for_one(database, monkeypatch):
    planned = a_job(database, device="cuda").id
    nodes.heartbeat(database, "worker", "cuda", ["train"])
    monkeypatch.setattr(nodes, "ALIVE_SECONDS", -1.0)
    assert claims.claim_next(database, "train", "one", 60, "cpu") == (planned, 1)


def test_a_gpu_whose_worker_takes_other_jobs_is_not_waited_for(database):
    planned = a_job(database, device="cuda").id
    nodes.heartbeat(database, "worker", "cuda", ["sample"])
    assert claims.claim_next(database, "train", "one", 60, "cpu") == (planned, 1)


def test_of_racing_workers_each_has_a_job_of_its_own(database):
    ids = [a_job(database, f"model-{i}").id for i in range(4)]
    start = threading.Barrier(8)
    got: list[tuple[str, int] | None] = []

    def race(owner: str) -> None:
        start.wait()
        got.append(claims.claim_next(database, "train", owner, 60))

    threads = [threading.Thread(target=race, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(got) == {None: 4, **{(job_id, 1): 1 for job_id in ids}}


# Pausing ------------------------------------------------------------------------------------------


def test_a_queued_job_is_paused_at_once_and_waits_until_it_is_resumed(database):
    job = a_job(database)
    assert requests.request_pause(database, job.id, "train").status == "paused"
    assert claims.claim_next(database, "train", "one", 60) is None
    assert claims.unclaimed_jobs(database, "train", 0) == []
    assert requests.resume(database, job.id, "train").status == "queued"
    assert claims.claim_next(database, "train", "one", 60) == (job.id, 1)


def test_a_running_job_is_paused_when_its_process_has_ended(database):
    job, fence = a_claimed_job(database)
    asked = requests.request_pause(database, job.id, "train")
    assert (asked.status, asked.pause_requested) == ("running", True)
    assert claims.renew(database, job.id, fence, 60) == "pause"
    assert claims.give_back(database, job.id, fence) == "paused"
    paused = requests.get_job(database, job.id)
    assert (paused.owner, paused.lease_expires_at, paused.pause_requested) == (None, None, False)


def test_a_pause_is_no_attempt(database):
    job = a_job(database)
    for _ in range(2 * claims.MAX_ATTEMPTS):
        fence = claims.claim(database, job.id, "one", 60)
        requests.request_pause(database, job.id, "train")
        claims.give_back(database, job.id, fence)
        requests.resume(database, job.id, "train")
    assert requests.get_job(database, job.id).attempts == 0


def test_a_job_whose_worker_is_lost_while_it_pauses_is_paused(database):
    claimed, announced = (a_job(database, f"model-{i}").id for i in range(2))
    for job_id in (claimed, announced):
        claims.claim(database, job_id, "one", EXPIRED)
        requests.request_pause(database, job_id, "train")
    assert claims.claim(database, claimed, "two", 60) is None
    assert claims.unclaimed_jobs(database, "train", 0) == []
    for job_id in (claimed, announced):
        assert requests.get_job(database, job_id).status == "paused"
        assert told(database, job_id)[-2:] == ["lost", "paused"]


def test_a_pause_that_is_not_carried_out_yet_can_be_taken_back(database):
    job, fence = a_claimed_job(database)
    requests.request_pause(database, job.id, "train")
    assert requests.resume(database, job.id, "train").status == "running"
    assert claims.renew(database, job.id, fence, 60) is None
    assert claims.give_back(database, job.id, fence, blameless=True) == "queued"


def test_a_paused_job_can_be_cancelled(database):
    job = a_job(database)
    requests.request_pause(database, job.id, "train")
    assert requests.request_cancel(database, job.id).status == "cancelled"


def test_to_be_cancelled_counts_more_than_to_be_paused(database):
    job, fence = a_claimed_job(database)
    requests.request_pause(database, job.id, "train")
    requests.request_cancel(database, job.id)
    assert claims.renew(database, job.id, fence, 60) == "cancel"
    assert claims.give_back(database, job.id, fence) == "cancelled"


def test_a_job_that_is_being_cancelled_cannot_be_paused(database):
    job, _ = a_claimed_job(database)
    requests.request_cancel(database, job.id)
    with pytest.raises(IllegalTransition, match="being cancelled; it cannot be paused"):
        requests.request_pause(database, job.id, "train")


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_job_that_is_done_can_neither_be_paused_nor_resumed(database, status):
    job, fence = a_claimed_job(database)
    claims.finish(database, job.id, fence, status)
    with pytest.raises(IllegalTransition, match=f"is {status}; it cannot be paused"):
        requests.request_pause(database, job.id, "train")
    with pytest.raises(IllegalTransition, match=f"is {status}; it cannot be resumed"):
        requests.resume(database, job.id, "train")


def test_a_job_that_is_not_paused_cannot_be_resumed_nor_a_paused_one_paused(database):
    job = a_job(database)
    with pytest.raises(IllegalTransition, match="is queued; it cannot be resumed"):
        requests.resume(database, job.id, "train")
    requests.request_pause(database, job.id, "train")
    with pytest.raises(IllegalTransition, match="is paused; it cannot be paused"):
        requests.request_pause(database, job.id, "train")


# Cancelling and announcing ------------------------------------------------------------------------


def test_a_queued_job_is_cancelled_at_once(database):
    job = requests.request_cancel(database, a_job(database).id)
    assert job.status == "cancelled"
    assert job.finished_at is not None
    assert claims.claim(database, job.id, "one", 60) is None


def test_a_running_job_learns_of_its_cancellation_when_it_renews(database):
    job, fence = a_claimed_job(database)
    assert requests.request_cancel(database, job.id).status == "running"
    assert claims.renew(database, job.id, fence, 60) == "cancel"
    claims.finish(database, job.id, fence, "cancelled")
    assert requests.get_job(database, job.id).status == "cancelled"


def test_a_cancellation_survives_the_worker_that_was_asked(database):
    job, _ = a_claimed_job(database, EXPIRED)
    requests.request_cancel(database, job.id)
    assert claims.claim(database, job.id, "two", 60) is None
    assert requests.get_job(database, job.id).status == "cancelled"


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_job_that_is_done_cannot_be_cancelled(database, status):
    job, fence = a_claimed_job(database)
    claims.finish(database, job.id, fence, status, "code", "message")
    before = facts(requests.get_job(database, job.id))
    with pytest.raises(IllegalTransition, match=f"is {status}; it cannot be cancelled"):
        requests.request_cancel(database, job.id)
    assert facts(requests.get_job(database, job.id)) == before


def test_unclaimed_are_the_forgotten_and_the_orphaned(database):
    forgotten, orphaned, held, cancelled = (a_job(database, f"model-{i}").id for i in range(4))
    claims.claim(database, orphaned, "one", 0.05)
    claims.claim(database, held, "one", 60)
    requests.request_cancel(database, cancelled)
    time.sleep(0.1)
    assert claims.unclaimed_kinds(database, 60) == {"train"}
    assert claims.unclaimed_jobs(database, "sample", 0) == []
    assert claims.unclaimed_jobs(database, "train", 60) == [orphaned]
    assert claims.unclaimed_jobs(database, "train", 0) == [forgotten, orphaned]


def test_an_announced_job_is_not_announced_again_at_once(database):
    job = a_job(database)
    assert claims.unclaimed_kinds(database, 60) == set()
    assert claims.unclaimed_jobs(database, "train", 0) == [job.id]
    assert claims.unclaimed_jobs(database, "train", 60) == []


def test_a_lease_that_expires_is_a_reason_to_announce_once(database):
    job, fence = a_claimed_job(database)
    assert claims.unclaimed_jobs(database, "train", 60) == []
    claims.renew(database, job.id, fence, 0.0)  # ends now, after the job was queued
    assert claims.unclaimed_jobs(database, "train", 60) == [job.id]
    assert claims.unclaimed_jobs(database, "train", 60) == []
