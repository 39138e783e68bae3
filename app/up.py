"""`python -m app.up`: the embedded Valkey, the API and a worker for each pool of jobs
(store.jobs.kinds), until Ctrl-C or SIGTERM.

Each child has a session of its own, so that Ctrl-C reaches only this process, which then stops them
in order. If this process is killed, the API and the workers see their standard input end, and the
kernel ends Valkey. The listening socket is opened here and inherited: an API that starts again
loses no connection, and a port in use is known at once.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import IO

from app.http.listener import address_of, listen
from app.logs import configure_logs, log
from app.processes.child import Child
from app.settings import Settings
from host.environment import InvalidSetting, read_settings, to_environment
from host.lifeline import DIES_WITH_PARENT
from store.jobs.kinds import POOLS
from store.locations import Locations, valkey_socket
from store.valkey import start_valkey

WORKERS = {pool: f"worker {pool}" for pool in POOLS}
STOP_SECONDS = {"api": 15.0, **dict.fromkeys(WORKERS.values(), 30.0), "valkey": 10.0}  # in order
POLL_SECONDS = 0.1


def main() -> int:
    try:
        settings = read_settings(Settings)
    except InvalidSetting as error:
        print(error, file=sys.stderr)
        return 1
    configure_logs(settings.log_level, settings.log_format)
    locations = settings.locations
    locations.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        lock = _lock(locations.data_dir)
        listener = listen(settings.host, settings.port)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    with lock, listener:
        stop = _Stop()
        children = _children(locations, listener)
        try:
            _run(children, stop, address_of(listener))
        finally:
            for name, seconds in STOP_SECONDS.items():
                if name in children:
                    children[name].stop(seconds)
            log.info("stopped")
    return 0


class _Stop:
    """True from the first SIGINT or SIGTERM on."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def __bool__(self) -> bool:
        return self.asked


def _children(locations: Locations, listener: socket.socket) -> dict[str, Child]:
    """In the order in which they are started."""
    environment = {**os.environ, **to_environment(locations), DIES_WITH_PARENT: "1"}
    children = {}
    if locations.embeds_valkey:
        unix_socket = valkey_socket(locations.data_dir)
        children["valkey"] = Child("valkey", lambda: start_valkey(locations.data_dir, unix_socket))
    children["api"] = Child(
        "api",
        lambda: _python(["app.server", "--fd", str(listener.fileno())], environment, listener),
    )
    for pool, name in WORKERS.items():
        children[name] = Child(name, partial(_python, ["worker.main", pool], environment))
    return children


def _python(
    module: Sequence[str], environment: Mapping[str, str], listener: socket.socket | None = None
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", *module],
        env=environment,
        stdin=subprocess.PIPE,  # held open by this process; its end tells the child to leave
        pass_fds=[listener.fileno()] if listener else [],
        start_new_session=True,
    )


def _run(children: Mapping[str, Child], stop: _Stop, address: str) -> None:
    announced = False
    while not stop:
        for child in children.values():
            child.watch()
        if not announced and _answers(address):
            print(f"Listening on {address} (documentation at {address}/docs)", flush=True)
            announced = True
        time.sleep(POLL_SECONDS)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/healthz", timeout=1.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _lock(data_dir: Path) -> IO[str]:
    """Two services in one folder would write over each other's files."""
    lock = (data_dir / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise OSError(
            f"a service is running on {data_dir} already; set DIFFUSION_DATA_DIR for another"
        ) from None
    return lock


if __name__ == "__main__":
    sys.exit(main())
