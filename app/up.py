"""`python -m app.up`: runs the whole service until Ctrl-C or SIGTERM.

It starts the embedded Valkey, the API and a worker for each pool of jobs (store.jobs.kinds);
without torch, only workers for jobs that do not need it. Each child has its own session, so that
Ctrl-C reaches only this process, which then stops the children in order. If this process is killed,
the API and the workers exit on EOF of their standard input, and the kernel ends Valkey. The
listening socket is opened here and inherited: no connection is lost when the API restarts, and a
port in use is reported at once.
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

from app.access.exposure import is_exposed
from app.http.listener import address_of, listen
from app.logs import configure_logs, log
from app.processes.child import Child
from app.settings import Settings
from host.environment import InvalidSetting, read_settings, to_environment
from host.lifeline import DIES_WITH_PARENT
from store.jobs.kinds import POOLS, Pool, kinds_run_here
from store.locations import Locations, valkey_socket
from store.valkey import start_valkey

WORKERS = {pool: f"worker {pool}" for pool in POOLS}
# How long each child may take to stop, the API after its drain; they are stopped in this order.
STOP_SECONDS = {"api": 5.0, **dict.fromkeys(WORKERS.values(), 30.0), "valkey": 10.0}
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
        lock = _lock_folder(locations.data_dir)
        listener = listen(settings.host, settings.port)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    if is_exposed(settings) and _run_python("app.access.exposure") != 0:
        return 1
    with lock, listener:
        stop = _StopSignal()
        children = _children(locations, listener)
        try:
            _run(children, stop, address_of(listener))
        finally:
            listener.close()  # else connections would be accepted that nobody answers
            for name, seconds in STOP_SECONDS.items():
                if name in children:
                    drain = settings.drain_seconds if name == "api" else 0
                    children[name].stop(seconds + drain)
            log.info("stopped")
    return 0


class _StopSignal:
    """A flag that is true after the first SIGINT or SIGTERM."""

    def __init__(self) -> None:
        self.received = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def __bool__(self) -> bool:
        return self.received


def _children(locations: Locations, listener: socket.socket) -> dict[str, Child]:
    """Return the children by name, in the order in which they are started."""
    environment = {**os.environ, **to_environment(locations), DIES_WITH_PARENT: "1"}
    children = {}
    if locations.embeds_valkey:
        unix_socket = valkey_socket(locations.data_dir)
        children["valkey"] = Child("valkey", lambda: start_valkey(locations.data_dir, unix_socket))
    children["api"] = Child(
        "api",
        lambda: _start_python(
            ["app.server", "--fd", str(listener.fileno())], environment, listener
        ),
    )
    for pool, name in WORKERS.items():
        if not _runs_here(pool):
            continue
        children[name] = Child(name, partial(_start_python, ["worker.main", pool], environment))
    return children


def _runs_here(pool: Pool) -> bool:
    try:
        return bool(kinds_run_here([pool]))
    except ValueError as error:
        log.info("this worker is not started", pool=pool, reason=str(error))
        return False


def _start_python(
    module: Sequence[str], environment: Mapping[str, str], listener: socket.socket | None = None
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", *module],
        env=environment,
        stdin=subprocess.PIPE,  # this process holds it open; the child exits on EOF
        pass_fds=[listener.fileno()] if listener else [],
        start_new_session=True,
    )


def _run_python(module: str) -> int:
    return subprocess.run([sys.executable, "-m", module], check=False).returncode


def _run(children: Mapping[str, Child], stop: _StopSignal, address: str) -> None:
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


def _lock_folder(data_dir: Path) -> IO[str]:
    """Lock the data folder: two services in one folder would overwrite each other's files."""
    lock = (data_dir / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise OSError(
            f"another service is using {data_dir}; set DIFFUSION_DATA_DIR to another folder"
        ) from None
    return lock


if __name__ == "__main__":
    sys.exit(main())
