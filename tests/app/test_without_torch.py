"""A host that only serves, for real: an environment with what `pip install .` brings and nothing
else, so without torch. Its trainings wait for a worker elsewhere, and it says so."""

import io
import os
import signal
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import httpx
import pytest
from packaging.requirements import Requirement
from PIL import Image
from playwright.sync_api import Browser, expect

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits.zip"
TINY_NET = {"block_out_channels": [8, 8], "norm_num_groups": 4, "attention_head_dim": 4}
TRAINING = {"dataset": "digits", "steps": 20, "batch_size": 16, "net": TINY_NET}
TRAININGS_WAIT = "no live worker takes train-jobs: such jobs wait for one"
BOTH_WAIT = "no live worker takes train-jobs or evaluations: such jobs wait for one"
PIP = "pip install '.[train]'"


def _installed_by(requirements: list[str]) -> dict[str, Distribution]:
    """The packages that these requirements bring, of those that are installed here."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    left = [Requirement(line) for line in requirements]
    while left:
        requirement = left.pop()
        for extra in ("", *requirement.extras):
            if (requirement.name, extra) in seen:
                continue
            seen.add((requirement.name, extra))
            try:
                found[requirement.name] = package = distribution(requirement.name)
            except PackageNotFoundError:
                continue
            for line in package.requires or ():
                further = Requirement(line)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    left.append(further)
    return found


def _environment(folder: Path, without: tuple[str, ...] = ()) -> str:
    """Make an environment of links to the packages of this one; return its Python."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = _installed_by(project["dependencies"])
    packages["diffusion-service"] = distribution("diffusion-service")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python3.*/site-packages")
    for name, package in packages.items():
        for part in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
            if name not in without and not (site / part).exists():
                (site / part).symlink_to(Path(str(package.locate_file(part))))
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("serving")


@pytest.fixture(scope="module")
def python(folder) -> str:
    return _environment(folder / "venv")


@pytest.fixture(scope="module")
def serving(folder, python, run_service) -> Iterator[httpx.Client]:
    states = {"workers": "up: 1 alive", "engine": "up: 0 requests; networks by OpenVINO"}
    with run_service(folder / "data", states, python, PYTHONPATH=str(ROOT)) as client:
        yield client


def run(python: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [python, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )


def finished(client: httpx.Client, address: str) -> dict:
    done = client.get(address, params={"wait": 60}).json()
    assert done["status"] == "succeeded", done
    return done


def test_torch_is_missing_there(python) -> None:
    assert "No module named 'torch'" in run(python, "-c", "import torch").stderr


def test_it_is_ready_and_says_which_jobs_wait(serving) -> None:
    answer = serving.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert answer.json()["components"]["workers"]["detail"] == f"1 alive; {BOTH_WAIT}"


def test_it_serves(serving, model_archive, picture) -> None:
    assert serving.put("/models/tiny", content=model_archive()).status_code == 201
    request = {"model": "tiny", "num_images": 2, "num_inference_steps": 3}
    made = serving.post("/sample", json=request, headers={"Accept": "image/png"})
    assert made.status_code == 200, made.text
    assert Image.open(io.BytesIO(made.content)).size == (16, 8)

    accepted = serving.post("/sample", json=request, headers={"Prefer": "respond-async"})
    assert accepted.json()["waiting"] is None
    done = finished(serving, accepted.headers["Location"])
    assert done["progress"]["images"] == 2

    for method in ("closed_form", "step_by_step"):
        form = {"t": 50, "method": method}
        noised = serving.post("/noise", data=form, files={"image": picture()})
        assert noised.status_code == 200, noised.text
    for address in ("/", "/schedules/linear", "/samplers", "/models/tiny/download", "/metrics"):
        assert serving.get(address).status_code == 200, address
    plot = serving.get("/schedules/linear", headers={"Accept": "image/png"})
    assert plot.headers["content-type"] == "image/png"


@pytest.fixture(scope="module")
def dataset(serving) -> None:
    assert serving.put("/datasets/digits", content=DIGITS.read_bytes()).status_code == 201


def test_the_console_says_that_a_training_waits(serving, dataset, browser: Browser) -> None:
    base = str(serving.base_url).rstrip("/")
    context = browser.new_context(base_url=base)
    page = context.new_page()
    page.goto("/#/training")
    expect(page.get_by_text(TRAININGS_WAIT)).to_be_visible()
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_label("Progress").get_by_text(TRAININGS_WAIT)).to_be_visible()
    context.close()
    (job,) = serving.get("/train-jobs").json()["items"]
    assert job["status"] == "queued"
    serving.post(f"/train-jobs/{job['id']}/cancel").raise_for_status()


def test_what_needs_torch_waits_for_a_worker_elsewhere(folder, serving, dataset) -> None:
    plan = serving.post("/train-jobs/plan", json=TRAINING)
    assert plan.json()["waiting"] == TRAININGS_WAIT
    accepted = serving.post("/train-jobs", json=TRAINING | {"model_name": "little"})
    assert accepted.status_code == 202
    assert accepted.json()["waiting"] == TRAININGS_WAIT
    address = accepted.headers["Location"]
    polled = serving.get(address, params={"wait": 1})
    assert (polled.json()["status"], polled.json()["waiting"]) == ("queued", TRAININGS_WAIT)

    worker = subprocess.Popen(
        [sys.executable, "-m", "worker.main", "train", "evaluate"],
        env={
            **os.environ,
            "DIFFUSION_DATA_DIR": str(folder / "data"),
            "DIFFUSION_TRAIN_NICENESS": "0",  # beside other tests it would hardly get its turn
        },
        cwd=ROOT,
    )
    try:
        known = {"If-None-Match": polled.headers["ETag"]}
        changed = serving.get(address, params={"wait": 60}, headers=known).json()
        assert changed["waiting"] is None
        assert serving.get("/readyz").json()["components"]["workers"]["detail"] == "2 alive"
        finished(serving, address)
        request = {"model": "little", "num_images": 100, "likelihood_images": 0}
        request |= {"features": "pixels", "num_inference_steps": 5}
        evaluation = serving.post("/evaluations", json=request).json()
        assert evaluation["waiting"] is None
        finished(serving, evaluation["links"]["self"])
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0

    again = serving.post("/evaluations", json={"model": "little"}).json()
    assert (again["status"], "evaluations" in again["waiting"]) == ("queued", True)
    serving.post(again["links"]["cancel"]).raise_for_status()


@pytest.mark.parametrize("names", [["train"], ["evaluate"], ["rest", "train"]])
def test_a_worker_for_what_needs_torch_ends_at_once(python, tmp_path, names) -> None:
    ended = run(python, "-m", "worker.main", *names, DIFFUSION_DATA_DIR=str(tmp_path))
    assert ended.returncode == 1
    assert "the worker cannot start" in ended.stderr
    assert f"no job of '{names[-1]}' runs here: torch is not installed" in ended.stderr
    assert PIP in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_doctor_says_what_is_missing_and_finds_nothing_wrong(python, serving) -> None:
    told = run(python, "-m", "app.cli.main", "doctor", "--url", str(serving.base_url))
    assert told.returncode == 0, told.stdout
    for words in ("torch not installed", "trainings and evaluations to others", PIP, BOTH_WAIT):
        assert words in " ".join(told.stdout.split())


def test_without_openvino_either_both_are_named(folder, run_service, model_archive) -> None:
    python = _environment(folder / "bare", without=("openvino",))
    missing = "OpenVINO cannot be loaded: No module named 'openvino'; torch is not installed"
    states = {"engine": f"down: {missing}"}
    with run_service(folder / "bare-data", states, python, PYTHONPATH=str(ROOT)) as client:
        engine = client.get("/readyz").json()["components"]["engine"]
        assert (engine["status"], missing in engine["detail"]) == ("down", True)
        refused = client.put("/models/tiny", content=model_archive())
        assert refused.status_code == 422
        assert "No module named 'openvino'; torch is not installed" in refused.json()["detail"]
        assert PIP in refused.json()["detail"]
        told = run(python, "-m", "app.cli.main", "doctor", "--url", str(client.base_url))
    assert told.returncode == 1
    assert missing in " ".join(told.stdout.split())
