"""A claim is begun once; what its work makes is known even if the work never ends."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from store.access.idempotency import KEPT, Claim, Idempotent, begin, forget, keep_answer
from store.access.keys import create_key
from store.database import now
from store.errors import AlreadyMade, AlreadyRunning, OtherRequest
from store.jobs import requests
from store.nodes import heartbeat, leave, node_id
from tests.store.records import a_dataset

CLAIM = Claim.of("alice", "k1", b"/train-jobs", b"", b"{}")
HERE = node_id("api")


@pytest.fixture
def alive(database):
    """The node of another process that is alive."""
    heartbeat(database, "api")
    yield HERE
    leave(database, "api")


def test_the_answer_is_given_again(database):
    assert begin(database, CLAIM, HERE, False) is None
    keep_answer(database, CLAIM, 202, [("location", "/train-jobs/job_1")], b"{}")
    first = begin(database, CLAIM, "other", False)
    assert (first.status, first.headers, first.body) == (
        202,
        [["location", "/train-jobs/job_1"]],
        b"{}",
    )


def test_the_parts_of_a_request_are_told_apart():
    assert Claim.of("a", "k", b"ab", b"c") != Claim.of("a", "k", b"a", b"bc")
    assert Claim.of("a", "k", b"ab") == Claim.of("a", "k", b"ab")
    assert Claim.of(None, "k", b"ab") != Claim.of("a", "k", b"ab")


def test_another_request_may_not_have_the_same_key_but_another_owner_may(database):
    begin(database, CLAIM, HERE, False)
    with pytest.raises(OtherRequest, match="another request has the key 'k1'"):
        begin(database, Claim.of("alice", "k1", b"/train-jobs", b"", b"[]"), HERE, False)
    assert begin(database, Claim.of("bob", "k1", b"/train-jobs", b"", b"[]"), HERE, False) is None


def test_one_that_runs_is_not_begun_again(database, alive):
    begin(database, CLAIM, alive, False)
    with pytest.raises(AlreadyRunning):
        begin(database, CLAIM, alive, True)
    with pytest.raises(AlreadyRunning):
        begin(database, CLAIM, "other", False)
    assert begin(database, CLAIM, alive, False) is None, "this process was started anew"


def test_one_whose_process_died_is_begun_again_unless_it_made_something(database):
    begin(database, CLAIM, "dead", False)
    assert begin(database, CLAIM, HERE, False) is None
    a_dataset(database, "digits")
    mine = database.for_caller(None, CLAIM)
    job = requests.create_job(mine, "train", config={}, dataset="digits")
    with pytest.raises(AlreadyMade, match=job.id) as made:
        begin(database, CLAIM, "other", False)
    assert made.value.made == f"/train-jobs/{job.id}"
    forget(database, CLAIM)
    with pytest.raises(AlreadyMade):
        begin(database, CLAIM, "other", False)


def test_what_is_rolled_back_was_not_made(database):
    begin(database, CLAIM, "dead", False)

    def fail() -> None:
        with database.for_caller(None, CLAIM).session() as session:
            session.add(requests._new_job("train", {}, "m", None))
            session.flush()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert begin(database, CLAIM, HERE, False) is None


def test_a_key_is_noted_and_its_secret_is_not(database):
    begin(database, CLAIM, "dead", False)
    key, _ = create_key(database.for_caller(None, CLAIM), "bob", ["read"])
    with pytest.raises(AlreadyMade, match=f"/keys/{key.id}"):
        begin(database, CLAIM, HERE, False)


def test_it_is_kept_for_a_day(database):
    begin(database, CLAIM, HERE, False)
    keep_answer(database, CLAIM, 201, [], b"")
    for age, kept in ((KEPT - timedelta(minutes=1), True), (KEPT + timedelta(minutes=1), False)):
        with database.session() as session:
            session.execute(sa.update(Idempotent).values(created_at=now() - age))
        assert (begin(database, CLAIM, HERE, False) is not None) == kept
