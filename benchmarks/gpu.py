"""One command for a GPU: its tests, and all that is measured beside diffusers, in eight minutes.

Every part is a process with a limit of its own; the others go on where one fails, and the exit
status tells. Results are in a folder named after the GPU. `--photographs` names an archive of
images to train on and to score, as `make train` does; without one that part is left out.
`--check` only lists what is missing here, as the command does before it begins.
"""

import argparse
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

from benchmarks.common import HERE, PEER_PYTHON, RESULTS, gpu_name, table

ROOT = HERE.parent
PEERS = ("accelerate", "diffusers", "fastapi", "litserve", "torchvision", "uvicorn")
TEST_TOOLS = ("pytest", "pytest-xdist", "psycopg", "hypothesis")


@dataclass(frozen=True)
class Part:
    """A command, and the seconds after which it is stopped."""

    name: str
    limit: int
    arguments: tuple[str, ...]


def parts(photographs: Path | None) -> list[Part]:
    pytest = ("-m", "pytest", "-q", "-W", "default")
    denoise = ("-m", "benchmarks.denoise", "--nets", "32 px", "--widths", "1", "16", "64")
    serve = ("-m", "benchmarks.serve", "--net", "32 px", "--seconds", "3", "--seeds", "1")
    loads = ("--loads", "0.5", "1.0", "inf")
    contenders = ("--only", "service, step", "one at a time", "dynamic batching")
    found = [
        Part("tests", 120, (*pytest, "-n", "4", "-m", "gpu", "tests/models")),
        Part("loop", 180, (*pytest, "tests/app/test_loop.py")),
        Part("denoise", 180, denoise),
        Part("sample", 120, ("-m", "benchmarks.sample", "--nets", "32 px")),
        Part("serve", 120, (*serve, *loads, *contenders)),
        Part("train", 180, ("-m", "benchmarks.train", "--diffusers", "--cases", "32 px x 256")),
    ]
    if photographs:
        out = str(RESULTS / "photographs")
        command = ("examples/train_archive.py", str(photographs), "--minutes", "1", "--out", out)
        found.append(Part("photographs", 240, command))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=Path, metavar="ARCHIVE")
    parser.add_argument("--only", nargs="+", metavar="PART")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    lacking = missing()
    if lacking:
        sys.exit("missing here: " + ", ".join(lacking))
    if options.check:
        sys.exit()
    RESULTS.mkdir(parents=True, exist_ok=True)
    chosen = [
        part for part in parts(options.photographs) if part.name in (options.only or part.name)
    ]
    rows = [run(part) for part in chosen]
    print(table(["part", "seconds", "result"], rows))
    sys.exit(any(result != "done" for _, _, result in rows))


def run(part: Part) -> Sequence[str]:
    """Run a part with its output in a file beside the results; return its row of the table."""
    started = time.monotonic()
    log = RESULTS / f"{part.name}.log"
    with log.open("w") as file:
        try:
            status = subprocess.run(
                [sys.executable, *part.arguments],
                cwd=ROOT,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=part.limit,
            ).returncode
            result = "done" if status == 0 else f"exit status {status}"
        except subprocess.TimeoutExpired:
            result = f"stopped after {part.limit} s"
    print(f"== {part.name}: {result}\n{tail(log)}", flush=True)
    return part.name, f"{time.monotonic() - started:.0f}", result


def tail(log: Path, lines: int = 12) -> str:
    return "\n".join(log.read_text().splitlines()[-lines:])


def missing() -> list[str]:
    """List what a bare machine lacks: the GPU, and packages of this Python and of the peers'."""
    lacking = [] if gpu_name() else ["a GPU (nvidia-smi shows none)"]
    lacking += [f"{name} (pip)" for name in own_packages() if not installed(name)]
    if not PEER_PYTHON.exists():
        return [*lacking, f"the peers' environment, {PEER_PYTHON.parents[1]} (make bench-gpu)"]
    code = "import sys, importlib.metadata as m; [m.version(name) for name in sys.argv[1:]]"
    for name in PEERS:
        if subprocess.run([PEER_PYTHON, "-c", code, name], capture_output=True).returncode:
            lacking.append(f"{name} (pip, in the peers' environment)")
    return lacking


def own_packages() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [project["name"], *project["dependencies"], *TEST_TOOLS]
    return [Requirement(line).name for line in lines]


def installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    main()
