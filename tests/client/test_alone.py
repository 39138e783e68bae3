"""The client needs httpx and pydantic, and nothing of the service."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import get_args

from client.answers import JobAnswer, Status
from store.jobs import record
from store.jobs.options import KEEPS

ROOT = Path(__file__).parents[2]
SERVICE = {"app", "host", "models", "store", "worker", "torch", "sqlalchemy", "fastapi", "celery"}
LOADED = "import sys, client.client; print(*{name.partition('.')[0] for name in sys.modules})"


def test_it_loads_nothing_of_the_service():
    command = [sys.executable, "-c", LOADED]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert {"httpx", "pydantic"} <= set(loaded.split())
    assert not SERVICE & set(loaded.split())


def test_its_own_distribution_is_these_modules(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", tmp_path, ROOT / "client"], check=True)
    (wheel,) = tmp_path.iterdir()
    with zipfile.ZipFile(wheel) as content:
        modules = {name for name in content.namelist() if name.endswith(".py")}
    assert modules == {f"client/{path.name}" for path in (ROOT / "client").glob("*.py")}


def test_both_distributions_ask_for_the_same_releases():
    def wanted(folder: Path) -> tuple[str, set[str]]:
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        return project["version"], set(project["dependencies"])

    (service_version, service), (version, alone) = wanted(ROOT), wanted(ROOT / "client")
    assert version == service_version
    assert alone <= service


def test_it_knows_the_states_of_jobs_that_the_service_has():
    assert get_args(Status) == get_args(record.Status)
    assert get_args(JobAnswer.model_fields["keep"].annotation) == KEEPS
