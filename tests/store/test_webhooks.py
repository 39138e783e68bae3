"""The outbox: written with the event, taken by one sender at a time, retried, at last given up."""

import base64
import threading
from datetime import timedelta

import pytest
import sqlalchemy as sa

from store.database import Database, now
from store.jobs.requests import version_of
from store.webhooks import (
    JITTER,
    KEEP_DAYS,
    MAX_ATTEMPTS,
    MAX_RETRY_AFTER,
    RETRY_SECONDS,
    Delivery,
    check_secret,
    check_url,
    claim_due,
    delivered,
    deliveries_of,
    enqueue,
    failed,
    forget_old,
    new_secret,
    secret_key,
)
from tests.store.records import a_job

EXPIRED = -1.0  # seconds: a lease that ended before it began


def a_delivery(database: Database, url: str = "https://hooks.example/a", job_id: str = "job_1"):
    with database.session() as session:
        return enqueue(
            session,
            job_id=job_id,
            url=url,
            secret=new_secret(),
            event="train_job.completed",
            payload={"id": job_id, "progress": {"step": 10}},
        )


def the_delivery(database: Database) -> Delivery:
    (delivery,) = deliveries_of(database, "job_1")
    return delivery


def change(database: Database, **values: object) -> None:
    """Time passes."""
    with database.session() as session:
        session.execute(sa.update(Delivery).values(**values))


def test_a_delivery_is_there_when_its_transaction_is(database):
    made = a_delivery(database)
    kept = the_delivery(database)
    assert kept.id == made.id
    assert (kept.event, kept.attempts) == ("train_job.completed", 0)
    assert kept.payload == {"id": "job_1", "progress": {"step": 10}}
    assert kept.due_at == kept.created_at


def test_a_transaction_that_fails_leaves_nothing_to_send(database):
    def fail_half_way() -> None:
        with database.session() as session:
            enqueue(session, job_id="job_1", url="u", secret="s", event="e", payload={})
            session.flush()
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert claim_due(database, "one", 60) is None


def test_a_job_s_deliveries_come_in_the_order_of_their_events(database):
    ids = [a_delivery(database).id for _ in range(3)]
    a_delivery(database, job_id="job_2")
    assert [delivery.id for delivery in deliveries_of(database, "job_1")] == ids


def test_of_racing_senders_exactly_one_has_each_delivery(database):
    ids = {a_delivery(database).id for _ in range(24)}
    start = threading.Barrier(6)
    taken: list[str] = []

    def race(owner: str) -> None:
        start.wait()
        misses = 0
        while misses < 20:  # one that another has locked is passed over
            delivery = claim_due(database, owner, 60)
            if delivery is None:
                misses += 1
            else:
                taken.append(delivery.id)

    threads = [threading.Thread(target=race, args=(str(i),)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(ids)


def test_what_has_been_due_for_longest_is_sent_first(database):
    first, second = a_delivery(database), a_delivery(database)
    failed(database, claim_due(database, "one", 60), "answered 500")
    change(database, due_at=now() - timedelta(seconds=1))
    with database.session() as session:
        session.get(Delivery, second.id).due_at = now() - timedelta(seconds=2)
    assert [claim_due(database, "one", 60).id for _ in range(2)] == [second.id, first.id]


def test_a_busy_receiver_is_passed_over(database):
    a_delivery(database, "https://slow.example:8443/a")
    quick = a_delivery(database, "https://quick.example/a")
    busy = ["slow.example:8443"]
    assert claim_due(database, "one", 60, busy=busy).id == quick.id
    assert claim_due(database, "one", 60, busy=busy) is None
    assert claim_due(database, "one", 60).receiver == "slow.example:8443"


def test_a_claimed_delivery_is_nobody_else_s_until_the_lease_ends(database):
    made = a_delivery(database)
    assert claim_due(database, "one", 60).id == made.id
    assert claim_due(database, "two", 60) is None
    change(database, lease_expires_at=now() - timedelta(seconds=1))
    again = claim_due(database, "two", 60)
    assert (again.id, again.owner, again.attempts) == (made.id, "two", 2)


@pytest.mark.parametrize(
    "end",
    [
        delivered,
        lambda database, delivery: failed(database, delivery, "answered 500"),
        lambda database, delivery: failed(database, delivery, "answered 410", gone=True),
    ],
    ids=["delivered", "to be tried again", "given up"],
)
def test_who_polls_the_job_learns_what_became_of_its_message(database, end):
    job = a_job(database)
    a_delivery(database, job_id=job.id)
    delivery = claim_due(database, "one", 60)
    before = version_of(database, job.id)
    end(database, delivery)
    assert version_of(database, job.id) == before + 1


def test_what_is_delivered_is_over(database):
    a_delivery(database)
    delivered(database, claim_due(database, "one", 60))
    delivery = the_delivery(database)
    assert delivery.delivered_at is not None
    assert (delivery.due_at, delivery.failed_at, delivery.last_error) == (None, None, None)
    assert claim_due(database, "one", 60) is None


def test_each_failure_waits_longer_until_the_last_gives_up(database):
    a_delivery(database)
    for seconds in RETRY_SECONDS:
        failed(database, claim_due(database, "one", 60), "answered 500")
        delivery = the_delivery(database)
        delay = (delivery.due_at - now()).total_seconds()
        assert seconds * (1 - JITTER) - 5 < delay <= seconds * (1 + JITTER)
        assert (delivery.last_error, delivery.failed_at) == ("answered 500", None)
        assert claim_due(database, "one", 60) is None
        change(database, due_at=now())
    failed(database, claim_due(database, "one", 60), "answered 502")
    delivery = the_delivery(database)
    assert (delivery.attempts, delivery.due_at) == (MAX_ATTEMPTS, None)
    assert (delivery.last_error, delivery.delivered_at) == ("answered 502", None)
    assert delivery.failed_at is not None


def test_what_failed_together_does_not_come_back_together(database):
    for _ in range(8):
        a_delivery(database)
    change(database, attempts=4)
    while delivery := claim_due(database, "one", 60):
        failed(database, delivery, "answered 500")
    times = sorted(delivery.due_at for delivery in deliveries_of(database, "job_1"))
    assert times[-1] - times[0] > timedelta(minutes=10)  # of 5 hours


def test_a_receiver_that_is_gone_is_not_tried_again(database):
    a_delivery(database)
    failed(database, claim_due(database, "one", 60), "answered 410", gone=True)
    delivery = the_delivery(database)
    assert (delivery.attempts, delivery.due_at, delivery.last_error) == (1, None, "answered 410")
    assert delivery.failed_at is not None


@pytest.mark.parametrize(
    ("asked", "given"), [(-5.0, RETRY_SECONDS[0]), (900.0, 900.0), (1e9, MAX_RETRY_AFTER)]
)
def test_a_receiver_may_ask_for_a_later_time_but_not_for_never(database, asked, given):
    a_delivery(database)
    failed(database, claim_due(database, "one", 60), "answered 503", retry_after=asked)
    assert (the_delivery(database).due_at - now()).total_seconds() == pytest.approx(given, abs=4)


def test_a_sender_that_lost_its_lease_cannot_fail_what_another_sends(database):
    a_delivery(database)
    stale = claim_due(database, "one", EXPIRED)
    claim_due(database, "two", 60)
    failed(database, stale, "answered 410", gone=True)
    delivery = the_delivery(database)
    assert (delivery.owner, delivery.failed_at, delivery.last_error) == ("two", None, None)


def test_a_success_counts_whoever_had_it(database):
    a_delivery(database)
    stale = claim_due(database, "one", EXPIRED)
    current = claim_due(database, "two", 60)
    delivered(database, stale)
    failed(database, current, "answered 500")
    delivery = the_delivery(database)
    assert delivery.delivered_at is not None
    assert (delivery.due_at, delivery.last_error) == (None, None)


def test_a_delivery_that_kills_its_senders_is_given_up(database):
    a_delivery(database)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert claim_due(database, "one", EXPIRED).attempts == attempt
    assert claim_due(database, "one", 60) is None
    delivery = the_delivery(database)
    assert (delivery.due_at, delivery.attempts) == (None, MAX_ATTEMPTS)
    assert delivery.failed_at is not None
    assert "lost" in delivery.last_error


def test_what_is_over_is_forgotten_after_a_while_and_what_is_due_never(database):
    over = a_delivery(database)
    delivered(database, claim_due(database, "one", 60))
    due = a_delivery(database)
    change(database, created_at=now() - timedelta(days=KEEP_DAYS + 2))
    forget_old(database)
    assert {d.id for d in deliveries_of(database, "job_1")} == {over.id, due.id}
    with database.session() as session:
        session.get(Delivery, over.id).delivered_at = now() - timedelta(days=KEEP_DAYS + 1)
    forget_old(database)
    assert [d.id for d in deliveries_of(database, "job_1")] == [due.id]


# What callers give --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example",
        "http://hooks.example:8080/a/b?c=d&e=%20",
        "https://[2606:4700::1111]:8443/",
        "HTTPS://xn--bcher-kva.example/@me",
        "https://hooks.example/" + "a" * (2048 - 22),
    ],
)
def test_an_address_that_can_be_called_is_taken_as_it_is(url):
    assert check_url(url) == url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "begin with http:// or https://"),
        ("ftp://hooks.example", "begin with http:// or https://"),
        ("file:///etc/passwd", "begin with http:// or https://"),
        ("hooks.example/a", "begin with http:// or https://"),
        ("https://", "host of 1..253 characters"),
        ("https://:443/", "host of 1..253 characters"),
        ("https://" + "a" * 254, "host of 1..253 characters"),
        ("https://hooks.example:0/", "port 0; it must be in 1..65535"),
        ("https://hooks.example:65536/", "cannot be read"),
        ("https://hooks.example:x/", "cannot be read"),
        ("https://[::1/", "cannot be read"),
        ("https://me:open-sesame@hooks.example/", "credentials"),
        ("https://me@hooks.example/", "credentials"),
        ("https://hooks.example/\r\nX-Other: 1", r"'\\r' in it"),
        ("https://hooks.example/a b", "' ' in it"),
        ("https://b\u00fccher.example/", "'\u00fc' in it"),
        ("https://hooks.example\\@other.example/", "in it"),
        ("https://hooks.example/" + "a" * 2048, "2070 characters; it may have 2048"),
    ],
)
def test_an_address_that_cannot_be_called_is_refused_with_the_reason(url, said):
    with pytest.raises(ValueError, match=said) as refusal:
        check_url(url)
    assert "open-sesame" not in str(refusal.value)


def test_new_secrets_are_good_ones_and_never_the_same():
    secrets = {check_secret(new_secret()) for _ in range(50)}
    assert len(secrets) == 50
    assert {len(secret_key(secret)) for secret in secrets} == {32}


@pytest.mark.parametrize("size", [24, 64])
def test_a_caller_s_own_secret_may_have_24_to_64_bytes(size):
    key = bytes(range(size))
    assert secret_key(check_secret("whsec_" + base64.b64encode(key).decode())) == key


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("", "does not begin with 'whsec_'"),
        (base64.b64encode(b"open sesame, it is me, 24").decode(), "does not begin with 'whsec_'"),
        ("whsec_open!sesame", "is not base64"),
        ("whsec_opensesame\u00fc", "is not base64"),
        ("whsec_" + base64.b64encode(b"a" * 23).decode(), "has 23 bytes.*24..64"),
        ("whsec_" + base64.b64encode(b"a" * 65).decode(), "has 65 bytes.*24..64"),
        ("whsec_" + base64.urlsafe_b64encode(b"\xff" * 32).decode(), "is not base64"),
    ],
)
def test_a_secret_that_is_none_is_refused_without_being_shown(secret, said):
    with pytest.raises(ValueError, match=said) as refusal:
        check_secret(secret)
    assert not secret or secret.removeprefix("whsec_") not in str(refusal.value)
