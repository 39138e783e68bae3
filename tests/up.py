"""A running `python -m app.up` that tests may disturb."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

START_SECONDS = 60.0


class Service:
    """A running `python -m app.up`, its address and what it prints."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.up"],
            env={
                **os.environ,
                "DIFFUSION_DATA_DIR": str(data_dir),
                "DIFFUSION_PORT": "0",
                "OMP_NUM_THREADS": "1",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def address(self) -> str:
        return str(self.wait_for(lambda: self._found(r"Listening on (http://\S+)")))

    def children(self) -> dict[str, int]:
        """The process ids of the children, by what they are."""
        found = {}
        for pid in children_of(self.process.pid):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            for name in ("app.server", "worker.main train", "worker.main rest", "valkey-server"):
                if name in command:
                    found[name] = pid
        return found

    def descendants(self) -> list[int]:
        """Every process below it, once all are there: the API has some of its own."""
        self.wait_for(lambda: len(self.children()) == 4)
        self.wait_for(lambda: len(descendants_of(self.children()["app.server"])) >= 2)
        return descendants_of(self.process.pid)

    def wait_for(self, condition: Callable[[], object], seconds: float = START_SECONDS) -> object:
        deadline = time.monotonic() + seconds
        while not (result := condition()):
            assert time.monotonic() < deadline, "".join(self.lines)
            time.sleep(0.05)
        return result

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            assert self.process.wait(60) == 0
        self._reader.join(60)
        assert self.process.stdout
        self.process.stdout.close()

    def _found(self, pattern: str) -> str | None:
        match = re.search(pattern, "".join(self.lines))
        return match[1] if match else None

    def _read(self) -> None:
        assert self.process.stdout
        self.lines.extend(iter(self.process.stdout.readline, ""))


def children_of(pid: int) -> list[int]:
    """Return what any of its threads has started: the kernel lists children by thread."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def descendants_of(pid: int) -> list[int]:
    children = children_of(pid)
    return children + [further for child in children for further in descendants_of(child)]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
