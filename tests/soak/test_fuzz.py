"""Schemathesis in all of its phases against a whole service: without keys, with a key of an
administrator, and with one of a small scope. No 5xx, and no answer that the description does not
allow."""

import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from store.access.keys import create_key
from store.database import open_database
from store.locations import Locations
from tests.soak.conftest import add_digits_and_tiny, client_of, say
from tests.up import Service

MAX_EXAMPLES = int(os.environ.get("DIFFUSION_SOAK_EXAMPLES", "10"))
CALLS = 10_000  # of all runs
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
NET = {"block_out_channels": [8, 8], "norm_num_groups": 4, "attention_head_dim": 4}
SMALL = {
    "DIFFUSION_MAX_IMAGES_PER_REQUEST": "4",
    "DIFFUSION_MAX_INFERENCE_STEPS": "50",
    "DIFFUSION_MAX_STEP_PIXELS": "1000000",
    "DIFFUSION_MAX_UPLOAD_BYTES": "2000000",
    "DIFFUSION_TRAIN_THREADS": "1",
}


def test_no_call_is_answered_by_what_the_description_does_not_allow(
    start_service, model_archive, tmp_path
):
    service = start_service(**SMALL)
    keys = {"without a key": None}
    faults, counts = [], {}
    for who in ("without a key", "admin", "read and sample"):
        if who == "admin":
            keys |= make_keys(service, tmp_path / "data")
        with client_of(service, keys.get("admin")) as client:
            description = write_description(client, model_archive(), tmp_path)
            before = answers(client)
            report = run(client, description, tmp_path / f"{who}.txt", keys[who])
            after = answers(client)
        faults += report
        counts[who] = {status: after[status] - before.get(status, 0) for status in after}
    calls = {who: int(sum(found.values())) for who, found in counts.items()}
    server_errors = sum(
        number
        for found in counts.values()
        for status, number in found.items()
        if status.startswith("5")
    )
    say("fuzz", calls=sum(calls.values()), **calls, **{"5xx": int(server_errors)})
    assert not faults, "\n".join(faults)
    assert server_errors == 0
    assert sum(calls.values()) >= CALLS


def make_keys(service: Service, data_dir: Path) -> dict[str, str]:
    database = open_database(Locations(data_dir).database_url)
    keys = {
        "admin": create_key(database, "root", ["admin"])[1],
        "read and sample": create_key(database, "root", ["read", "sample"])[1],
    }
    database.close()
    with httpx.Client(base_url=service.address()) as client:  # until the key is needed
        service.wait_for(lambda: client.get("/models").status_code == 401)
    return keys


def write_description(client: httpx.Client, archive: bytes, folder: Path) -> Path:
    """Have something of every kind, and write the description with its names among those that
    are tried, except where they would be deleted."""
    cancel_jobs(client)
    add_digits_and_tiny(client, archive)
    names = {"datasets": ["digits"], "models": ["tiny"]}
    training = {"dataset": "digits", "model_name": "t", "steps": 4, "batch_size": 4, "net": NET}
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "train-jobs": ("/train-jobs", training),
        "evaluations": ("/evaluations", {"model": "tiny", "dataset": "digits", "num_images": 64}),
        "dataset-imports": ("/datasets", {"name": "pets", "url": "https://192.0.2.1/pets.zip"}),
        "sample-jobs": ("/sample", {"model": "tiny", "num_inference_steps": 4}),
    }
    for kind, (path, body) in bodies.items():
        if kind == "train-jobs" and client.get("/models/t").status_code == 200:
            client.delete("/models/t").raise_for_status()
        answer = client.post(path, json=body, headers={"Prefer": "respond-async"})
        names[kind] = [answer.raise_for_status().json()["id"]]
        if kind == "train-jobs":  # so that there are checkpoints, samples and a model
            client.get(f"/{kind}/{names[kind][0]}", params={"wait": 60}).raise_for_status()
    image = client.get("/datasets/digits/images").json()["items"][0]["id"]
    description = deepcopy(client.get("/openapi.json").raise_for_status().json())
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", []):
                name, schema = parameter["name"], parameter["schema"]
                if name == "wait":
                    schema["maximum"] = 1
                known = names.get(path.split("/")[1], []) if name in ("name", "job_id") else []
                known = [image] if name == "image" else known
                if known and method != "delete" and "/cancel" not in path:
                    parameter["schema"] = {"anyOf": [{"enum": known}, schema]}
            if (method, path) == ("post", "/sample"):
                patch_model(description)
    file = folder / "openapi.json"
    file.write_text(json.dumps(description))
    return file


def cancel_jobs(client: httpx.Client) -> None:
    """End what earlier calls have started, which would take the cores for minutes."""
    for kind in ("train-jobs", "sample-jobs", "evaluations", "dataset-imports"):
        for status in ("queued", "running", "paused"):
            page = client.get(f"/{kind}", params={"status": status, "limit": 100})
            for job in page.raise_for_status().json()["items"]:
                client.post(f"/{kind}/{job['id']}/cancel")  # or it is done by now


def patch_model(description: dict[str, Any]) -> None:
    """Have the fields `model` and `dataset` of bodies be those that are there, half of the time."""
    for schema in description["components"]["schemas"].values():
        for field, known in (("model", "tiny"), ("dataset", "digits")):
            if field in schema.get("properties", {}) and "default" not in schema:
                schema["properties"][field] = {
                    "anyOf": [{"enum": [known]}, schema["properties"][field]]
                }


def run(client: httpx.Client, description: Path, log: Path, key: str | None) -> list[str]:
    """Return what was wrong, in schemathesis' words."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", str(description)),
        *("--url", str(client.base_url).rstrip("/"), "--phases=examples,coverage,fuzzing,stateful"),
        *("--checks", ",".join(CHECKS), "--continue-on-failure", "--no-color", "--no-shrink"),
        *("--max-examples", str(MAX_EXAMPLES), "--seed", "1", "--workers", "2", "--warnings=off"),
        *("--generation-database=none", "--request-timeout=60", "--suppress-health-check=all"),
        *(["--header", f"Authorization: Bearer {key}"] if key else []),
    ]
    with log.open("w") as file:
        code = subprocess.run(command, stdout=file, stderr=file, cwd=log.parent).returncode
    return [] if code == 0 else [log.read_text()]


def answers(client: httpx.Client) -> dict[str, float]:
    """Return how many requests had an answer of each status so far."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == "diffusion_requests_total":
                status = sample.labels["status"]
                found[status] = found.get(status, 0) + sample.value
    return found
