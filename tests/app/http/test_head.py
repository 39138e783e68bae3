"""HEAD has the status and the headers of GET, and no body."""

import io
import re
import socket
import time
import zipfile
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from app.settings import Settings
from store.artifacts import ArtifactStore
from store.database import Database
from store.jobs import claims
from store.jobs.files import event_file_key, log_key, neighbours_key, samples_key
from store.jobs.kinds import JOB_KINDS
from store.jobs.progress import Progress
from store.jobs.sample_images import archive_key, image_key
from tests.app.conftest import picture_of_pixels
from tests.app.jobs.test_route import a_job_of

CHANGING = {"date", "x-request-id", "transfer-encoding"}  # the last frames the body alone
UNDOCUMENTED = ["/", "/docs", "/redoc", "/openapi.json", "/static/docs.js", "/console/main.js"]


@pytest.fixture(scope="module")
def found(client: httpx.Client, settings: Settings, model_archive) -> Iterator[dict[str, str]]:
    """What stands for the parameters of paths, by the beginning of the path."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for i in range(4):
            picture = io.BytesIO()
            picture_of_pixels(8 + i, 8).save(picture, "PNG")
            file.writestr(f"a/{i}.png", picture.getvalue())
    client.put("/datasets/head", content=buffer.getvalue()).raise_for_status()
    client.put("/models/head", content=model_archive()).raise_for_status()
    database = Database(settings.locations.database_url)
    artifacts = ArtifactStore(settings.locations.artifacts_url)
    values = {"/datasets": "head", "/models": "head", "/schedules": "linear"}
    for kind, entry in JOB_KINDS.items():
        job = a_job_of(kind, database)
        keys = (
            neighbours_key(job.id),
            samples_key(job.id, 1),
            image_key(job.id, 1),
            event_file_key(job.id, 1, 1.0),
            log_key(job.id, 1),
        )
        for key in keys:
            artifacts.put_bytes(key, b"content")
        artifacts.put_bytes(archive_key(job.id), buffer.getvalue())
        if not entry.makes_model:
            fence = claims.claim(database, job.id, "one", 60)
            assert fence is not None
            claims.succeed(database, job.id, fence, Progress())
        values[f"/{entry.collection}"] = job.id
    request = {"model": "head", "num_inference_steps": 1, "seed": 0}
    made = client.post("/sample", json=request, headers={"Accept": "image/png"}).raise_for_status()
    kept = client.post("/pictures", content=made.content).raise_for_status()
    values["/pictures"] = kept.json()["items"][0]["id"]
    values["image"] = client.get("/datasets/head/images").json()["items"][0]["id"]
    yield values
    for entry in JOB_KINDS.values():
        address = entry.address(values[f"/{entry.collection}"])
        client.post(f"{address}/cancel")  # only the training is not done
        client.delete(address).raise_for_status()
    for path in ("/datasets/head", "/models/head", f"/pictures/{values['/pictures']}"):
        client.delete(path).raise_for_status()
    database.close()


def head(client: httpx.Client, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers and all that follows them on the wire until the connection ends."""
    address = urlsplit(str(client.base_url))
    lines = [f"HEAD {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    top, _, body = received.partition(b"\r\n\r\n")
    status, *fields = top.decode().split("\r\n")
    named = (field.split(": ", 1) for field in fields)
    return int(status.split()[1]), {name.lower(): value for name, value in named}, body


def documented(client: httpx.Client) -> list[str]:
    paths = client.get("/openapi.json").json()["paths"]
    return [path for path, operations in paths.items() if "get" in operations]


def filled(path: str, values: dict[str, str]) -> str:
    """Put values in place of the parameters of a path."""
    path = path.replace("{kind}", "invalid-input").replace("{step}", "1").replace("{index}", "1")
    path = path.replace("{image}", values["image"])
    return re.sub(r"\{\w+\}", values.get("/" + path.split("/")[1], ""), path)


def test_every_address_with_get_has_head_with_the_same_headers(client, found):
    walked = 0
    for path in [*documented(client), *UNDOCUMENTED]:
        address = filled(path, found)
        if address.endswith("/events"):
            continue  # the next test
        get = client.get(address, headers={"Connection": "close", "Accept-Encoding": "identity"})
        status, headers, body = head(client, address)
        assert get.status_code == 200, (address, get.text)
        assert (status, body) == (200, b""), address
        expected = dict(get.headers)
        if path in ("/metrics", "/models/{name}/download"):  # counts on; is not made for HEAD
            del expected["content-length"]
            headers.pop("content-length", None)
        for name in CHANGING:
            headers.pop(name, None)
            expected.pop(name, None)
        assert headers == expected, address
        walked += 1
    assert walked > 30


def test_a_stream_of_events_ends_with_its_headers(client, found):
    address = f"{JOB_KINDS['train'].address(found['/train-jobs'])}/events"
    begun = time.monotonic()
    status, headers, body = head(client, address)
    assert time.monotonic() - begun < 5
    assert (status, body) == (200, b"")
    assert headers["content-type"].startswith("text/event-stream")


def test_a_problem_has_no_body_either(client):
    status, headers, body = head(client, "/models/nobody")
    assert (status, body) == (404, b"")
    assert headers["content-type"] == "application/problem+json"
    status, headers, body = head(client, "/noise")
    assert (status, headers["allow"], body) == (405, "POST", b"")


def test_head_is_not_listed_beside_get(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert [path for path, operations in paths.items() if "head" in operations] == []


def test_a_method_that_an_address_lacks_is_told_all_that_it_has(client):
    answer = client.post("/models/any")
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, HEAD, PATCH, PUT")


def test_head_is_counted_as_head_of_its_route(client, found):
    head(client, "/models/head")
    labels = 'diffusion_requests_total{method="HEAD",route="/models/{name}",status="200"}'
    assert labels in client.get("/metrics").text
