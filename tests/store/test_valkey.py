"""The embedded server keeps what was written, and never outlives who started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from store.locations import valkey_socket
from store.valkey import answers, find_binary, start_valkey

ROOT = Path(__file__).parents[2]
FSYNC_SECONDS = 1.2  # appendfsync everysec, and a little

START = """
import sys, time
from pathlib import Path
from store.valkey import start_valkey

print(start_valkey(Path(sys.argv[1]), Path(sys.argv[2])).pid, flush=True)
time.sleep(600)
"""


def connect(socket: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(socket))


def eventually(condition, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_the_server_answers_on_a_socket_for_its_owner_only(valkey):
    assert answers(valkey)
    assert valkey.stat().st_mode & 0o777 == 0o700
    with connect(valkey) as client:
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_nobody_answers_where_there_is_no_server(tmp_path):
    assert not answers(tmp_path / "nothing.sock")


def test_what_was_written_survives_kill_9(tmp_path):
    socket = valkey_socket(tmp_path)
    server = start_valkey(tmp_path, socket)
    try:
        with connect(socket) as client:
            client.rpush("queue", *range(100))
        time.sleep(FSYNC_SECONDS)
        server.kill()
        assert server.wait() == -signal.SIGKILL
        assert not answers(socket)
        server = start_valkey(tmp_path, socket)  # over the socket file that was left behind
        with connect(socket) as client:
            assert [int(item) for item in client.lrange("queue", 0, -1)] == list(range(100))
    finally:
        server.kill()
        server.wait()
        socket.unlink(missing_ok=True)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_the_server_dies_with_its_parent(tmp_path):
    socket = valkey_socket(tmp_path)
    parent = subprocess.Popen(
        [sys.executable, "-c", START, str(tmp_path), str(socket)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    pid = int(parent.stdout.readline())
    assert answers(socket)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert eventually(lambda: not answers(socket)), f"valkey-server {pid} still answers"
    socket.unlink(missing_ok=True)


def test_a_server_that_cannot_start_says_where_to_look(tmp_path):
    with pytest.raises(RuntimeError, match=r"did not start; see .*valkey\.log"):
        start_valkey(tmp_path, tmp_path / "no-such-folder" / "valkey.sock")


def test_the_binary_can_be_run():
    assert os.access(find_binary(), os.X_OK)
