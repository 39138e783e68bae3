"""Quotas of an owner: each bound, what counts against it, and when there is more."""

import time

import pytest
import sqlalchemy as sa

from store.access.owners import Caller, Quotas
from store.access.quotas import (
    HOUR,
    Usage,
    charge_images,
    charge_training,
    check_space,
    set_quotas,
    usage_of,
)
from store.errors import QuotaExceeded
from store.jobs import requests
from store.models import create_model
from tests.store.records import a_dataset, a_model

QUOTAS = Quotas(quota_bytes=1000, quota_jobs=3, quota_train_minutes=60, quota_images=100)


@pytest.fixture
def alice(database):
    return database.for_caller(Caller("alice", quotas=QUOTAS))


@pytest.fixture
def bob(database):
    return database.for_caller(Caller("bob", quotas=QUOTAS))


def train(database, minutes):
    config = {} if minutes is None else {"minutes": minutes}
    return requests.create_job(database, "train", config=config, dataset="digits")


def move_back(database, hours):
    with database.session() as session:
        session.execute(sa.update(Usage).values(hour=Usage.hour - hours))


def test_space_is_that_of_datasets_and_models(alice, bob):
    a_dataset(alice, "digits")  # of one byte
    model = a_model("faces")
    model.num_bytes = 900
    create_model(alice, model)
    check_space(alice, 99)
    with pytest.raises(QuotaExceeded, match="1001 in all; your quota is 1000 bytes") as refusal:
        check_space(alice, 100)
    assert refusal.value.wait is None, "waiting does not help"
    check_space(bob, 1000)


def test_jobs_that_are_not_done_are_few(alice, bob):
    for who in (alice, bob):
        a_dataset(who, "digits")
    jobs = [train(alice, None) for _ in range(3)]
    with pytest.raises(QuotaExceeded, match="you have 3 jobs that are not done; your quota is 3"):
        train(alice, None)
    train(bob, None)
    requests.request_cancel(alice, jobs[0].id)
    train(alice, None)


def test_minutes_are_those_used_and_those_promised(alice, database):
    a_dataset(alice, "digits")
    charge_training(database, "alice", 20 * 60)
    job = train(alice, 30)
    with pytest.raises(
        QuotaExceeded, match=r"20\.0 were used .* 30 are promised .* 60 a day"
    ) as no:
        train(alice, 11)
    assert 22 * HOUR < no.value.wait <= 24 * HOUR
    train(alice, 10)
    requests.request_cancel(alice, job.id)
    train(alice, 30)
    with pytest.raises(QuotaExceeded) as never:
        train(alice, 61)
    assert never.value.wait is None


def test_images_of_a_day(alice, bob, database):
    charge_images(alice, 60)
    move_back(database, 20)
    charge_images(alice, 40)
    with pytest.raises(QuotaExceeded, match=r"100 were ordered .* your quota is 100") as refusal:
        charge_images(alice, 1)
    left = refusal.value.wait
    assert 3 * HOUR <= left <= 4 * HOUR
    assert (time.time() + left) % HOUR < 2, "at the end of an hour"
    charge_images(bob, 100)
    move_back(database, 4)
    charge_images(alice, 60)
    with pytest.raises(QuotaExceeded):
        charge_images(alice, 1)


def test_an_owner_may_have_others(alice, database):
    set_quotas(database, "alice", {"images": 5})
    assert set_quotas(database, "alice", {"jobs": 0}) == {"images": 5, "jobs": 0}
    charge_images(alice, 5)
    with pytest.raises(QuotaExceeded, match="your quota is 5"):
        charge_images(alice, 1)
    a_dataset(alice, "digits")
    for _ in range(5):
        train(alice, None)
    assert usage_of(alice) == {
        "bytes": {"used": 1, "quota": 1000},
        "jobs": {"used": 5, "quota": 0},
        "train_minutes": {"used": 0, "quota": 60},
        "images": {"used": 5, "quota": 5},
    }


def test_administrators_and_services_without_keys_have_none(database):
    admin = database.for_caller(Caller("root", sees_all=True, quotas=QUOTAS))
    for who in (admin, database):
        charge_images(who, 1000)
        check_space(who, 10**9)
        a_dataset(who, "digits")
        for _ in range(4):
            train(who, 100)
    assert usage_of(database) == {}
    assert usage_of(admin)["images"] == {"used": 1000, "quota": 0}
