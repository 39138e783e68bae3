"""The places in the queue are those in which jobs are claimed."""

import random
from datetime import timedelta

import pytest
import sqlalchemy as sa

from store import nodes
from store.access.owners import Quotas
from store.database import Database
from store.jobs import claims, queue, requests
from store.jobs.kinds import Kind
from store.jobs.progress import ImportProgress, TrainProgress
from store.jobs.queue import Place, read_queue
from store.jobs.record import Job
from tests.store.records import a_job

OWNERS = ("alice", "bob", None)
LEASE = 600.0


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that several live workers can have in one process."""
    monkeypatch.setattr(nodes, "node_id", lambda role: role)


def a_worker(database: Database, name: str, device: str = "cpu", kinds=("train",)) -> None:
    nodes.heartbeat(database, name, device, kinds)
    with database.session() as session:  # `role` made its id
        session.execute(sa.update(nodes.Node).where(nodes.Node.id == name).values(role="worker"))


def line_of(database: Database) -> list[str]:
    return [entry.id for entry in read_queue(database).waiting]


def some_jobs(database: Database, seed: int, count: int) -> None:
    chance = random.Random(seed)
    for number in range(count):
        owner = chance.choice(OWNERS)
        mine = database if owner is None else database.for_owner(owner, Quotas())
        a_job(mine, f"model-{number}", priority=chance.choice((0, 5, 5, 9)))


@pytest.mark.parametrize("seed", range(4))
def test_one_worker_takes_jobs_in_the_order_of_their_places(database, workers, seed):
    some_jobs(database, seed, 9)
    a_worker(database, "one")
    if seed % 2:  # somebody has had a turn already
        job_id, fence = claims.claim_next(database, "train", "one", LEASE)
        claims.finish(database, job_id, fence, "failed", "crashed", "")
    expected = line_of(database)
    assert len(expected) == 9 - seed % 2
    taken = []
    while claimed := claims.claim_next(database, "train", "one", LEASE):
        taken.append(claimed[0])
        claims.finish(database, *claimed, "failed", "crashed", "")
    assert taken == expected


@pytest.mark.parametrize("seed", range(3))
def test_two_workers_take_jobs_in_the_order_of_their_places(database, workers, seed):
    """All jobs are equally long, so that the worker that began first is free first."""
    some_jobs(database, seed, 8)
    for name in ("one", "two"):
        a_worker(database, name)
    expected = line_of(database)
    positions = [place.position for place in read_queue(database).places.values()]
    assert positions == [*range(1, 9)]
    taken, busy = [], []
    while len(taken) < 8:
        if len(busy) == 2:
            claims.finish(database, *busy.pop(0), "failed", "crashed", "")
        claimed = claims.claim_next(database, "train", "any", LEASE)
        assert claimed
        busy.append(claimed)
        taken.append(claimed[0])
    assert taken == expected


def test_a_lost_job_is_in_the_line_and_not_among_those_that_run(database, workers):
    a_worker(database, "one")
    lost = a_job(database, "lost").id
    claims.claim(database, lost, "gone", -1.0)
    later = a_job(database, "later").id
    found = read_queue(database)
    assert found.running == []
    assert [entry.id for entry in found.waiting] == [lost, later]
    assert claims.claim_next(database, "train", "one", LEASE)[0] == lost


def test_what_was_planned_for_a_gpu_has_the_place_that_the_gpu_gives_it(database, workers):
    a_worker(database, "cpu", "cpu")
    planned = [a_job(database, f"gpu-{i}", device="cuda").id for i in range(2)]
    others = [a_job(database, f"cpu-{i}", device="cpu").id for i in range(2)]
    assert line_of(database) == [*planned, *others]  # without a GPU the CPU takes any
    a_worker(database, "gpu", "cuda")
    assert claims.claim_next(database, "train", "cpu", LEASE, "cpu")[0] == others[0]
    assert claims.claim_next(database, "train", "gpu", LEASE, "cuda")[0] == planned[0]
    assert set(line_of(database)) == {planned[1], others[1]}


def with_minutes(database: Database, job: Job, minutes: float | None, **options: object) -> str:
    with database.session() as session:
        values = {"config": {"minutes": minutes}, "options": options}
        session.execute(sa.update(Job).where(Job.id == job.id).values(**values))
    return job.id


def starts(database: Database) -> dict[str, float | None]:
    return {job_id: place.starts_in for job_id, place in read_queue(database).places.items()}


def test_a_job_begins_when_those_before_it_are_done(database, workers):
    a_worker(database, "one")
    running = with_minutes(database, a_job(database, "running"), 10)
    _, fence = claims.claim_next(database, "train", "one", LEASE)
    first, second, third = (
        with_minutes(database, a_job(database, f"model-{i}"), minutes, **options)
        for i, (minutes, options) in enumerate(((3, {}), (None, {"seconds": 50}), (1, {})))
    )
    assert starts(database) == {first: 600, second: 780, third: 830}
    progress = TrainProgress(step=1, progress=0.5, eta_seconds=290.0)
    claims.record_progress(database, running, fence, progress)
    assert starts(database) == {first: 290, second: 470, third: 520}
    a_worker(database, "two")  # takes the first two, and is done before the job that runs
    assert starts(database) == {first: 0, second: 180, third: 230}


def test_what_nothing_tells_makes_no_time_up(database, workers):
    a_worker(database, "one")
    with_minutes(database, a_job(database, "running"), None)
    claims.claim_next(database, "train", "one", LEASE)
    first = a_job(database, "first").id
    assert read_queue(database).places == {first: Place(1, None)}


def test_without_a_worker_jobs_have_places_and_no_times(database):
    first, second = (with_minutes(database, a_job(database, f"m-{i}"), 1) for i in range(2))
    assert read_queue(database).places == {first: Place(1, None), second: Place(2, None)}


def test_a_job_that_was_paused_takes_what_is_left_of_it(database, workers):
    a_worker(database, "one")
    paused = with_minutes(database, a_job(database, "paused"), 10)
    _, fence = claims.claim_next(database, "train", "one", LEASE)
    claims.record_progress(database, paused, fence, TrainProgress(step=1, progress=0.75))
    requests.request_pause(database, paused, "train")
    claims.give_back(database, paused, fence)
    later = with_minutes(database, a_job(database, "later"), 1)
    requests.resume(database, paused, "train")
    assert starts(database) == {paused: 0, later: 150}


def of_kind(database: Database, kind: Kind, **config: object) -> str:
    return requests.create_job(database, kind, config=config, model_name="faces").id


def test_kinds_share_a_worker_and_each_has_places_of_its_own(database, workers):
    kinds = ("sample", "evaluate", "import")
    a_worker(database, "rest", kinds=kinds)
    ids = [of_kind(database, kind, name="photos") for kind in ("sample", "import", "sample")]
    found = read_queue(database)
    assert [entry.id for entry in found.waiting] == ids
    assert [found.places[job_id].position for job_id in ids] == [1, 1, 2]
    assert [entry.name for entry in found.waiting] == ["faces"] * 3


def test_the_length_of_an_order_is_told_by_earlier_orders(database, workers):
    a_worker(database, "rest", kinds=("sample",))
    for seconds in (100, 20, 30):
        job_id = of_kind(database, "sample", request={"num_images": 10})
        _, fence = claims.claim_next(database, "sample", "rest", LEASE)
        claims.succeed(database, job_id, fence, ImportProgress())
        with database.session() as session:
            job = session.get_one(Job, job_id)
            job.finished_at = job.started_at + timedelta(seconds=seconds)
    first, second = (of_kind(database, "sample", request={"num_images": n}) for n in (50, 5))
    assert starts(database) == {first: 0, second: 150}


def test_a_thousand_waiting_jobs_are_read_with_a_few_queries(database, workers):
    a_worker(database, "one")
    some_jobs(database, 0, 3)
    template = requests.list_jobs(database, "train", limit=1)[0][0]
    columns = {c.name: getattr(template, c.name) for c in Job.__table__.columns}
    with database.session() as session:
        copies = [{**columns, "id": f"{template.id}-{i}"} for i in range(1000)]
        session.execute(sa.insert(Job), copies)
    asked: list[str] = []
    listener = lambda *args: asked.append(args[2])  # noqa: E731
    sa.event.listen(database.engine, "before_cursor_execute", listener)
    assert len(queue.read_queue(database).places) == 1003
    assert sum("SELECT" in statement.upper() for statement in asked) <= 4
