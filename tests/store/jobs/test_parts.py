"""The parts of a job's images: each is made by one process at a time, and none is left out."""

from store.database import Database
from store.jobs import claims, parts, requests
from store.jobs.configs import SampleJobConfig
from store.jobs.parts import MIN_PART, PARTS
from store.jobs.record import Job
from tests.store.records import a_job

GONE = -1.0  # seconds: held until a moment ago
N = 3 * MIN_PART + 5
FIRSTS = [0, MIN_PART, 2 * MIN_PART, 3 * MIN_PART]


def an_order(database: Database, num_images: int = N) -> tuple[Job, int]:
    config = SampleJobConfig({"num_images": num_images}, "models/tiny", "0")
    job = requests.create_job(database, "sample", model_name="tiny", config=config.to_dict())
    fence = claims.claim(database, job.id, "one", 60)
    parts.lay_out(database, job.id, config, "cpu", "a processor")
    return job, fence


def take(database, job, *, by_helper=False, seconds=60.0):
    return parts.take_part(database, job.id, seconds, by_helper=by_helper)


def test_parts_cover_an_order_once_and_are_few(database):
    for num_images in (1, MIN_PART, N, 10_001, 50_000):
        job, _ = an_order(database, num_images)
        there = parts.list_parts(database, job.id)
        images = [i for part in there for i in range(part.first, part.first + part.count)]
        assert images == list(range(num_images))
        assert len(there) <= PARTS
        assert all(part.count >= MIN_PART for part in there[:-1])


def test_a_part_is_held_by_one_until_it_is_made_or_its_holder_is_lost(database):
    job, _ = an_order(database)
    first, second = take(database, job), take(database, job, by_helper=True)
    assert [first.first, second.first] == FIRSTS[:2]
    assert parts.keep_part(database, first, first.count, 60)
    assert parts.keep_part(database, second, 10, GONE)
    again = take(database, job)
    assert (again.first, again.made) == (second.first, 10)
    assert [take(database, job).first for _ in FIRSTS[2:]] == FIRSTS[2:]
    assert take(database, job) is None
    parts.give_up_part(database, again)
    assert take(database, job).first == again.first
    assert parts.num_made(database, job.id) == first.count + 10


def test_who_is_slow_does_not_undo_what_another_made(database):
    job, _ = an_order(database)
    slow = take(database, job, seconds=GONE)
    parts.keep_part(database, take(database, job), 30, 60)
    parts.keep_part(database, slow, 20, 60)
    assert parts.list_parts(database, job.id)[0].made == 30


def test_a_new_attempt_frees_the_part_of_the_one_before_it_and_no_helpers(database):
    job, _ = an_order(database)
    take(database, job), take(database, job, by_helper=True)
    config = SampleJobConfig({"num_images": 1}, "models/other", "1")
    order = parts.lay_out(database, job.id, config, "cuda", "another processor")
    assert (order.config["digest"], order.device) == ("0", "cpu")
    assert [take(database, job).first for _ in range(3)] == [FIRSTS[0], *FIRSTS[2:]]


def test_helpers_find_the_oldest_job_of_their_device_with_a_part_to_make(database):
    older, _ = an_order(database, 2 * MIN_PART)
    newer, _ = an_order(database)
    assert parts.job_to_help(database, "cuda") is None
    assert parts.job_to_help(database, "cpu") == older.id
    take(database, older), take(database, older)
    assert parts.job_to_help(database, "cpu") == newer.id
    claims.finish(database, newer.id, 1, "cancelled")
    assert parts.job_to_help(database, "cpu") is None


def test_a_job_that_is_to_end_needs_no_more_images(database):
    job, fence = an_order(database)
    part = take(database, job)
    requests.request_cancel(database, job.id)
    assert take(database, job, by_helper=True) is None
    assert not parts.keep_part(database, part, 3, 60)
    claims.give_back(database, job.id, fence)
    requests.delete_job(database, job.id, "sample")
    assert parts.list_parts(database, job.id) == []
    assert parts.get_order(database, job.id) is None


def test_a_job_that_waits_for_a_worker_of_the_pool_is_seen(database):
    an_order(database)
    a_job(database)
    assert claims.is_one_queued(database, "train")
    assert not claims.is_one_queued(database, "rest")
    requests.create_job(database, "evaluate", model_name="tiny", config={})
    assert claims.is_one_queued(database, "rest")
