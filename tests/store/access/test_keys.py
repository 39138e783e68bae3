"""Keys are secrets of which the database has only a digest, and they end when they are revoked."""

import pytest
import sqlalchemy as sa

from store.access.keys import Key, KeyNotFound, any_key, create_key, find_key, list_keys, revoke_key
from store.database import now
from store.errors import InvalidName


def test_a_key_is_found_by_its_secret_which_is_stored_nowhere(database):
    assert not any_key(database)
    record, text = create_key(database, "alice", ["train", "read"])
    found = find_key(database, text)
    assert (found.id, found.owner, found.scopes) == (record.id, "alice", ["read", "train"])
    secret = text.rpartition("_")[2] if text.count("_") == 2 else text.split("_", 2)[2]
    with database.engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT * FROM keys")).all()
    assert secret not in str(rows)
    assert any_key(database)


@pytest.mark.parametrize("change", ["secret", "id", "prefix", "short", "empty", "nul"])
def test_any_other_text_is_no_key(database, change):
    _, text = create_key(database, "alice", ["read"])
    prefix, key_id, secret = text.split("_", 2)
    other = {
        "secret": f"{prefix}_{key_id}_{'A' * 42}{'B' if secret[-1] != 'B' else 'C'}",
        "id": f"{prefix}_{'0' * 12}_{secret}",
        "prefix": f"xx_{key_id}_{secret}",
        "short": text[:-1],
        "empty": "",
        "nul": f"{text[:-1]}\0",
    }[change]
    assert find_key(database, other) is None
    assert find_key(database, text) is not None


def test_its_use_is_noted_and_a_revoked_one_is_refused(database):
    record, text = create_key(database, "alice", ["read"])
    assert list_keys(database)[0].last_used_at is None
    before = now()
    find_key(database, text)
    assert list_keys(database)[0].last_used_at >= before
    revoke_key(database, record.id)
    assert find_key(database, text) is None
    assert any_key(database), "from the first key on, a key is needed"
    first = list_keys(database)[0].revoked_at
    assert revoke_key(database, record.id).revoked_at == first
    with pytest.raises(KeyNotFound, match="'nothing'"):
        revoke_key(database, "nothing")


@pytest.mark.parametrize("owner", ["", "Alice", "a:b", "a" * 33, "../x", "-a"])
def test_an_owner_is_a_word(database, owner):
    with pytest.raises(InvalidName, match=r"it must have 1\.\.32 characters"):
        create_key(database, owner, ["read"])
    assert list_keys(database) == []


def test_the_newest_comes_first(database):
    made = [create_key(database, owner, ["read"])[0] for owner in ("alice", "bob", "alice")]
    assert [key.id for key in list_keys(database)] == [key.id for key in reversed(made)]
    assert all(isinstance(key, Key) for key in made)
