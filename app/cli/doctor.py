"""`diffusion doctor`: checks the installation, the device, disk space and the service.

Each problem comes with advice on what to do.
"""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import typer
from rich.console import Console

from app.cli.session import Session, session_of, size
from client.client import Client, ClientError
from host.devices import NO_TORCH, has_torch, num_gpus
from host.environment import read_settings
from models.fields import Invalid
from models.pipeline.engine_model import runtime_name
from store.locations import Locations

LITTLE_SPACE = 2 * 10**9  # bytes; less free space than this is reported
PACKAGES = ("torch", "fastapi", "celery", "sqlalchemy", "pillow")


@dataclass(frozen=True)
class Finding:
    """The result of one check; `advice` says what to do if something is wrong."""

    what: str
    found: str
    ok: bool = True
    advice: str = ""


def examine(context: typer.Context) -> None:
    """Check whether everything works, and say what to do if it does not."""
    session = session_of(context)
    with session.busy("checking"):
        findings = [*_this_machine(), *_service(session.client)]
    report(session, findings)


def report(session: Session, findings: Sequence[Finding]) -> None:
    """Print findings, and exit with 1 if something is wrong."""

    def show(console: Console) -> None:
        for finding in findings:
            mark = "[green]ok[/]" if finding.ok else "[red]no[/]"
            console.print(f"{mark}  {finding.what}: ", end="")
            console.print(finding.found, markup=False, highlight=False)
            if finding.advice:
                console.print(f"    {finding.advice}", markup=False, highlight=False)

    session.output([asdict(finding) for finding in findings], show)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _this_machine() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", f"{version}, {sys.executable}")
    yield Finding("packages", ", ".join(map(_installed, PACKAGES)))
    yield _device()
    yield _network_calls()
    yield _space()


def _installed(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{package} not installed"


def _device() -> Finding:
    cores = f"CPU, {len(os.sched_getaffinity(0))} cores"
    if not has_torch():
        advice = f"This machine serves, and leaves trainings and evaluations to others: {NO_TORCH}"
        unused = "; a GPU, which needs torch, is not used" if num_gpus() else ""
        return Finding("device", cores + unused, advice=advice)
    import torch  # takes a second to import; nothing else here needs it

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        others = f", {torch.cuda.device_count()} GPUs" if torch.cuda.device_count() > 1 else ""
        return Finding("device", f"{torch.cuda.get_device_name(0)}, {size(memory)}{others}")
    if not num_gpus():
        return Finding("device", f"{cores}; no GPU found")
    advice = "The driver shows a GPU, but this torch cannot use it: install a build for CUDA."
    return Finding("device", cores, ok=False, advice=advice)


def _network_calls() -> Finding:
    try:
        name = runtime_name()
    except Invalid as error:
        return Finding("networks on CPUs", "none", ok=False, advice=f"{error}")
    advice = "" if name.startswith("OpenVINO") else "With OpenVINO, sampling on a CPU is faster."
    return Finding("networks on CPUs", name, advice=advice)


def _space() -> Finding:
    folder = read_settings(Locations).data_dir
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    what, found = "data folder", f"{folder}, {size(free)} free"
    if not os.access(there, os.W_OK):
        advice = "Set DIFFUSION_DATA_DIR to a writable folder."
        return Finding(what, f"{found}, not writable", ok=False, advice=advice)
    if free < LITTLE_SPACE:
        advice = "Make room: checkpoints and datasets are kept there."
        return Finding(what, found, ok=False, advice=advice)
    return Finding(what, found)


def _service(client: Client) -> Iterator[Finding]:
    try:
        answer = client.ready()
    except ClientError as error:
        advice = "Start one with `diffusion up`, or choose another with --url or DIFFUSION_URL."
        yield Finding("service", str(error), ok=False, advice=advice)
        return
    yield Finding("service", f"{client.url}, {answer['status']}")
    for name, component in answer["components"].items():
        up = component["status"] == "up"
        advice = "" if up else "`diffusion up` starts all parts; its log says why this one is down."
        yield Finding(name, f"{component['status']}, {component['detail']}", ok=up, advice=advice)
