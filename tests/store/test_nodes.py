"""Who is alive, and that SQLite serves one host."""

from datetime import timedelta

import pytest

from store.database import Database, now, open_database
from store.errors import SecondHost
from store.nodes import (
    ALIVE_SECONDS,
    FORGET_SECONDS,
    Node,
    devices,
    heartbeat,
    leave,
    live_nodes,
    node_id,
)


def add_node(database: Database, name: str, host: str, seconds_ago: float) -> None:
    at = now() - timedelta(seconds=seconds_ago)
    with database.session() as session:
        session.add(Node(id=name, host=host, role="worker", started_at=at, last_seen=at))


def ids(database: Database) -> list[str]:
    return [node.id for node in live_nodes(database, "worker")]


def test_a_process_lives_from_its_heartbeat_until_it_leaves(database):
    heartbeat(database, "worker")
    assert ids(database) == [node_id("worker")]
    assert live_nodes(database, "api") == []
    leave(database, "worker")
    assert ids(database) == []


def test_workers_say_what_they_train_on(database):
    assert devices(database) == set()
    heartbeat(database, "worker", "cpu_bf16")
    assert devices(database) == {"cpu_bf16"}
    heartbeat(database, "worker", "cuda")
    assert devices(database) == {"cuda"}
    leave(database, "worker")
    assert devices(database) == set()


def test_a_second_heartbeat_keeps_when_the_process_started(database):
    heartbeat(database, "worker")
    (first,) = live_nodes(database, "worker")
    heartbeat(database, "worker")
    (second,) = live_nodes(database, "worker")
    assert second.started_at == first.started_at
    assert second.last_seen > first.last_seen


def test_a_process_that_fell_silent_is_not_alive(database):
    heartbeat(database, "worker")
    (node,) = live_nodes(database, "worker")
    add_node(database, "silent", node.host, ALIVE_SECONDS + 1)
    assert ids(database) == [node.id]


def test_a_process_long_silent_is_forgotten(database):
    add_node(database, "ancient", "elsewhere", FORGET_SECONDS + 1)
    add_node(database, "silent", "elsewhere", FORGET_SECONDS - 60)
    heartbeat(database, "worker")
    with database.session() as session:
        assert session.get(Node, "ancient") is None
        assert session.get(Node, "silent") is not None


def test_sqlite_refuses_a_second_host(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    add_node(database, "worker-elsewhere-1", "elsewhere", 1)
    with pytest.raises(SecondHost, match=r"'elsewhere'.*DIFFUSION_DATABASE_URL"):
        heartbeat(database, "worker")
    assert ids(database) == ["worker-elsewhere-1"]
    database.close()


def test_sqlite_may_move_to_another_host_that_is_alone(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    add_node(database, "worker-elsewhere-1", "elsewhere", ALIVE_SECONDS + 1)
    heartbeat(database, "worker")
    assert ids(database) == [node_id("worker")]
    database.close()
