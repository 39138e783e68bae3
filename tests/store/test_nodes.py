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
    kinds_taken,
    leave,
    live_nodes,
    node_id,
)


def add_node(database: Database, name: str, host: str, seconds_ago: float) -> None:
    at = now() - timedelta(seconds=seconds_ago)
    with database.session() as session:
        node = Node(id=name, host=host, role="worker", kinds=["train"], started_at=at, last_seen=at)
        session.add(node)


def ids(database: Database) -> list[str]:
    return [node.id for node in live_nodes(database, "worker")]


def test_a_process_lives_from_its_heartbeat_until_it_leaves(database):
    heartbeat(database, "worker")
    assert ids(database) == [node_id("worker")]
    assert live_nodes(database, "api") == []
    leave(database, "worker")
    assert ids(database) == []


def test_workers_say_which_jobs_they_take_and_on_what(database):
    assert devices(database, "train") == kinds_taken(database) == set()
    heartbeat(database, "worker", "cpu_bf16", ["train", "sample"])
    assert devices(database, "train") == devices(database, "sample") == {"cpu_bf16"}
    assert devices(database, "evaluate") == set()
    assert kinds_taken(database) == {"train", "sample"}
    heartbeat(database, "worker", "cuda", ["evaluate"])
    assert devices(database, "evaluate") == {"cuda"}
    assert kinds_taken(database) == {"evaluate"}
    leave(database, "worker")
    assert devices(database, "evaluate") == kinds_taken(database) == set()


def test_a_worker_that_fell_silent_takes_nothing(database):
    add_node(database, "silent", "elsewhere", ALIVE_SECONDS + 1)
    assert kinds_taken(database) == set()


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
