"""Common parts of the benchmarks: taking turns, servers, and saved results."""

import contextlib
import json
import os
import platform
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
PEER_PYTHON = HERE / ".venv" / "bin" / "python"


def gpu_name() -> str:
    """Return the name of the GPU as its driver gives it, or nothing where none is visible."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return ""
    with contextlib.suppress(OSError):
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        names = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if names.returncode == 0:
            return names.stdout.partition("\n")[0].strip()
    return ""


# A GPU's results have a folder of their own.
RESULTS = HERE / "results" / gpu_name().lower().replace(" ", "-")


def in_turn(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure one figure of each contender in every round; each round starts with another one."""
    names = list(contenders)
    figures: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            figures[name].append(contenders[name]())
    return figures


def ratio(figures: Mapping[str, Sequence[float]], ours: str, theirs: str) -> float:
    """Return the median over rounds of the ratio within a round."""
    return median(a / b for a, b in zip(figures[ours], figures[theirs], strict=True))


def seconds(call: Callable[[], object]) -> float:
    """Return the duration of the call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


@dataclass(frozen=True)
class Server:
    """A running server: its base URL and the process id of its parent process."""

    base: str
    process_id: int

    def cpu_seconds(self) -> float:
        """Return the CPU time of all its processes so far."""
        return cpu_seconds(_tree(self.process_id))

    def pause(self) -> None:
        """Stop all its processes, so that they do not disturb the measurement of another server."""
        for process_id in _tree(self.process_id):
            os.kill(process_id, signal.SIGSTOP)

    def resume(self) -> None:
        """Continue all its processes, children first: a supervisor must find them running."""
        for process_id in reversed(_tree(self.process_id)):
            os.kill(process_id, signal.SIGCONT)


@contextlib.contextmanager
def server(
    command: Sequence[str | Path], port: int, ready: str, **variables: str
) -> Iterator[Server]:
    """Run a command that serves on `port`, and yield once GET `ready` answers 200.

    At the end the command is terminated, and the remaining processes of its session are killed.
    """
    process = subprocess.Popen(
        list(command),
        env={**os.environ, **variables},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    running = Server(f"http://127.0.0.1:{port}", process.pid)
    try:
        _wait_until_ready(process, running.base + ready)
        yield running
    finally:
        running.resume()
        process.terminate()
        process.wait(60)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def cpu_seconds(process_ids: Iterable[int]) -> float:
    """Return the CPU time of the processes so far, in user and in system mode.

    Unlike wall-clock time, it depends little on other work on the machine.
    """
    ticks = 0
    for process_id in process_ids:
        with contextlib.suppress(OSError):  # it may have ended
            fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime and stime of proc(5)
    return ticks / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def machine() -> dict[str, Any]:
    """Describe the machine and the package versions of a measurement."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((li.split(": ")[1] for li in lines if li.startswith("model name")), model)
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "gpu": gpu_name(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("torch", "numpy", "pillow", "fastapi")},
        "date": datetime.now(UTC).date().isoformat(),
    }


def save(name: str, result: Mapping[str, Any]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({**machine(), **result}, indent=1) + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table; the first column is left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return f"| {' | '.join(cells)} |"

    return "\n".join(line(row) for row in (header, rule, *rows))


def _tree(process_id: int) -> list[int]:
    """Return the ids of a process and its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may have ended
            parent = path.read_text().rpartition(")")[2].split()[1]  # a name may hold anything
            children.setdefault(int(parent), []).append(int(path.parent.name))
    tree = [process_id]
    for member in tree:
        tree += children.get(member, [])
    return tree


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with exit status {process.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{url} did not answer in 120 seconds")
