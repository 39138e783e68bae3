"""A caller sees its own records and shared ones, under names of its own."""

import pytest

from store.access.owners import Caller
from store.database import Database
from store.datasets import delete_dataset, get_dataset, get_version, list_datasets, set_visibility
from store.errors import (
    DatasetNotFound,
    InvalidName,
    JobNotFound,
    ModelConflict,
    ModelNotFound,
    NotYours,
)
from store.jobs import requests
from store.models import change_model, create_model, delete_model, get_model
from tests.store.records import a_dataset, a_model

ALICE, BOB, ADMIN = Caller("alice"), Caller("bob"), Caller("root", sees_all=True)


@pytest.fixture
def alice(database) -> Database:
    return database.for_caller(ALICE)


@pytest.fixture
def bob(database) -> Database:
    return database.for_caller(BOB)


def test_a_name_is_its_owners(database, alice, bob):
    assert create_model(alice, a_model("faces", "d1")).name == "alice:faces"
    assert create_model(bob, a_model("faces", "d2")).name == "bob:faces"
    assert create_model(database, a_model("faces", "d3")).name == "faces"
    assert [get_model(who, "faces").digest for who in (alice, bob, database)] == ["d1", "d2", "d3"]
    with pytest.raises(ModelConflict):
        create_model(alice, a_model("alice:faces"))
    with pytest.raises(InvalidName, match="names of your own, alice:"):
        create_model(alice, a_model("bob:other"))


def test_what_is_not_ones_own_is_not_there(database, alice, bob):
    create_model(alice, a_model("faces"))
    a_dataset(alice, "digits")
    job = requests.create_job(alice, "train", config={}, dataset="digits")
    assert (job.dataset, job.model_name, job.made_by) == ("alice:digits", "alice:digits-1", "alice")
    for call in (
        lambda: get_model(bob, "alice:faces"),
        lambda: change_model(bob, "alice:faces", license="MIT"),
        lambda: delete_model(bob, "alice:faces"),
    ):
        with pytest.raises(ModelNotFound):
            call()
    for call in (
        lambda: get_dataset(bob, "alice:digits"),
        lambda: get_version(bob, "alice:digits"),
        lambda: delete_dataset(bob, "alice:digits"),
        lambda: requests.create_job(bob, "train", config={}, dataset="alice:digits"),
    ):
        with pytest.raises(DatasetNotFound):
            call()
    for call in (
        lambda: requests.get_job(bob, job.id),
        lambda: requests.version_of(bob, job.id),
        lambda: requests.request_cancel(bob, job.id),
        lambda: requests.request_pause(bob, job.id, "train"),
        lambda: requests.delete_job(bob, job.id, "train"),
    ):
        with pytest.raises(JobNotFound):
            call()
    assert requests.list_jobs(bob, "train", limit=10) == ([], False)
    assert list_datasets(bob, limit=10) == ([], False)
    assert requests.get_job(database, job.id).status == "queued"
    admin = database.for_caller(ADMIN)
    assert get_dataset(admin, "alice:digits").made_by == "alice"
    assert requests.get_job(admin, job.id).id == job.id


def test_what_is_shared_is_read_by_all_and_changed_by_its_owner(alice, bob):
    a_dataset(alice, "digits")
    create_model(alice, a_model("faces"))
    set_visibility(alice, "digits", "shared")
    change_model(alice, "faces", visibility="shared")
    assert get_version(bob, "alice:digits").dataset == "alice:digits"
    assert get_model(bob, "alice:faces").made_by == "alice"
    job = requests.create_job(bob, "train", config={}, dataset="alice:digits")
    assert (job.dataset, job.model_name, job.made_by) == ("alice:digits", "bob:digits-1", "bob")
    for change in (
        lambda: set_visibility(bob, "alice:digits", "private"),
        lambda: delete_dataset(bob, "alice:digits"),
        lambda: get_version(bob, "alice:digits", to_change=True),
        lambda: change_model(bob, "alice:faces", license="MIT"),
        lambda: delete_model(bob, "alice:faces"),
    ):
        with pytest.raises(NotYours, match="only its owner can change it"):
            change()
    set_visibility(alice, "digits", "private")
    with pytest.raises(DatasetNotFound):
        get_dataset(bob, "alice:digits")


def test_what_belongs_to_nobody_is_the_administrators(database, alice):
    a_dataset(database, "digits")
    admin = database.for_caller(ADMIN)
    assert get_dataset(admin, "digits").made_by is None
    with pytest.raises(DatasetNotFound):
        get_dataset(alice, "digits")
    set_visibility(admin, "digits", "shared")
    assert get_dataset(alice, "digits").name == "digits"
    a_dataset(alice, "digits")
    assert get_dataset(alice, "digits").name == "alice:digits", "one's own comes first"
