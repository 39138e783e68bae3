"""The life of a training job over HTTP: its events, its checkpoints, what follows from it."""

import base64
import hashlib
import hmac
import http.server
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "examples" / "digits" / "digits.zip"
JSON = {"Accept": "application/json"}
TINY_NET = {"block_out_channels": [8, 8], "norm_num_groups": 4, "attention_head_dim": 4}
SMALL = {
    "dataset": "digits",
    "preset": "ddpm",
    "steps": 40,
    "batch_size": 16,
    "checkpoint_every": 20,
}


def events_in(text: str) -> list[dict]:
    """Of a stream: the event's name, its id and its data."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and line[0] != ":")
        if fields:
            data = json.loads(fields["data"])
            events.append({"event": fields["event"], "id": fields.get("id"), "data": data})
    return events


def finished(service: httpx.Client, request: dict) -> dict:
    accepted = service.post("/train-jobs", json=request)
    assert accepted.status_code == 202, accepted.text
    done = service.get(accepted.headers["Location"], params={"wait": 60}).json()
    assert done["status"] == "succeeded", done
    return done


@pytest.fixture(scope="module")
def dataset(service: httpx.Client) -> None:
    assert service.put("/datasets/digits", content=DIGITS.read_bytes()).status_code == 201


@pytest.fixture(scope="module")
def streamed(service: httpx.Client, dataset: None) -> tuple[dict, list[dict]]:
    """A job, and the events of it that a caller saw who watched from the start."""
    request = {**SMALL, "model_name": "little", "net": TINY_NET}
    job = service.post("/train-jobs", json=request).json()
    stream = service.get(job["links"]["events"], headers={"Accept": "text/event-stream"})
    assert stream.headers["content-type"].startswith("text/event-stream")
    done = service.get(job["links"]["self"]).json()
    assert done["status"] == "succeeded", done
    return done, events_in(stream.text)


# Events -------------------------------------------------------------------------------------------


def test_a_stream_tells_a_job_from_its_beginning_to_its_end(streamed):
    _, events = streamed
    told = [event for event in events if event["id"]]
    assert [int(event["id"]) for event in told] == list(range(1, len(told) + 1))
    assert [event["event"] for event in told[:2]] == ["queued", "started"]
    assert (events[-1]["event"], events[-1]["data"]["data"]) == ("completed", {"model": "little"})
    steps = [e["data"]["data"]["step"] for e in told if e["event"] == "checkpoint"]
    assert steps == [2, 20, 40]
    assert {event["event"] for event in events if event["id"] is None} <= {"progress"}


def test_each_evaluation_and_each_preview_is_there_when_it_is_told(service, streamed):
    _, events = streamed
    previews = [event["data"]["data"] for event in events if event["event"] == "preview"]
    assert service.get(previews[-1]["href"]).headers["content-type"] == "image/png"
    scores = [e["data"]["data"]["score"] for e in events if e["event"] == "evaluation"]
    assert len(scores) == len(previews) == 3
    assert all(score > 0 for score in scores)


def test_who_comes_back_gets_what_was_missed_and_no_more(service, streamed):
    job, events = streamed
    told = [event for event in events if event["id"]]
    address = job["links"]["events"]
    again = service.get(address, headers={"Last-Event-ID": "3"})
    assert events_in(again.text) == told[3:]
    assert events_in(service.get(address, params={"after": 3}).text) == told[3:]
    assert service.get(address, headers={"Last-Event-ID": str(len(told))}).status_code == 204


def test_as_json_the_events_are_a_list_in_pages(service, streamed):
    job, events = streamed
    address, told = job["links"]["events"], [e["data"] for e in events if e["id"]]
    page = service.get(address, headers=JSON, params={"limit": 4}).json()
    assert page == {"items": told[:4], "has_more": True}
    rest = service.get(address, headers=JSON, params={"after": 4}).json()
    assert rest == {"items": told[4:], "has_more": False}
    assert service.get(address, headers={"Accept": "image/png"}).status_code == 406
    assert service.get(address, headers={"Last-Event-ID": "x"}).status_code == 422
    assert service.get("/train-jobs/job_0/events").status_code == 404


def test_many_may_watch_and_others_are_still_served(service, dataset):
    request = {**SMALL, "steps": 10**6, "net": TINY_NET, "model_name": "watched"}
    job = service.post("/train-jobs", json=request).json()
    texts: list[str] = []

    def watch() -> None:
        with httpx.Client(base_url=service.base_url, timeout=90) as client:
            texts.append(client.get(job["links"]["events"]).text)

    watchers = [threading.Thread(target=watch) for _ in range(100)]
    for watcher in watchers:
        watcher.start()
    _wait_for(service, job, lambda j: j["progress"].get("step", 0) > 20)
    assert service.get("/healthz").status_code == 200
    assert service.post(job["links"]["cancel"]).status_code == 202
    for watcher in watchers:
        watcher.join(60)
    assert len(texts) == 100
    told = {text: [e for e in events_in(text) if e["id"]] for text in texts}
    assert all(events == told[texts[0]] for events in told.values())
    assert told[texts[0]][-1]["event"] == "cancelled"
    assert any(event["event"] == "progress" for event in events_in(texts[0]))


def test_streams_end_when_the_service_stops(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "DIFFUSION_PORT": str(port),
        "DIFFUSION_DATA_DIR": str(tmp_path),
        "DIFFUSION_REDIS_URL": "redis://127.0.0.1:1",
        "OMP_NUM_THREADS": "1",
    }
    api = subprocess.Popen([sys.executable, "-m", "app.server"], env=environment, cwd=ROOT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            _wait_until_up(client)
            client.put("/datasets/digits", content=DIGITS.read_bytes())
            job = client.post("/train-jobs", json=SMALL).json()
            with client.stream("GET", job["links"]["events"]) as stream:
                chunks = stream.iter_text()
                assert next(chunks).startswith("event: queued")
                api.send_signal(signal.SIGTERM)
                assert list(chunks) == []  # ends, and is not torn off
        assert api.wait(30) in (0, -signal.SIGTERM)
    finally:
        api.kill()
        api.wait()


# What a job leaves --------------------------------------------------------------------------------


def test_the_checkpoints_that_are_kept_are_listed(service, streamed):
    job, events = streamed
    scores = {
        event["data"]["data"]["step"]: event["data"]["data"]["score"]
        for event in events
        if event["event"] == "evaluation"
    }
    items = service.get(job["links"]["checkpoints"]).json()["items"]
    assert [item["step"] for item in items if item["last"]] == [40]
    (best,) = (item for item in items if item["best"])
    assert best["score"] == min(scores.values()) == scores[best["step"]]
    assert {20, 40} <= {item["step"] for item in items}
    assert all(item["num_bytes"] > 0 for item in items)
    assert service.get(items[-1]["links"]["samples"]).status_code == 200


def test_the_log_and_the_file_for_tensorboard_can_be_read(service, streamed):
    job, _ = streamed
    log = service.get(job["links"]["log"])
    assert log.headers["content-type"].startswith("text/plain")
    lines = [json.loads(line) for line in log.text.splitlines()]
    assert [line["step"] for line in lines if line["event"] == "checkpoint"] == [2, 20, 40]
    board = service.get(job["links"]["tensorboard"])
    assert 'filename="events.out.tfevents.' in board.headers["content-disposition"]
    assert b"brain.Event:2" in board.content[:64]


def test_before_a_job_has_begun_there_is_nothing_to_read(client):
    """Of a server without workers."""
    client.put("/datasets/digits", content=DIGITS.read_bytes())
    job = client.post("/train-jobs", json={**SMALL, "model_name": "unread"}).json()
    assert client.get(job["links"]["log"]).text == ""
    assert client.get(job["links"]["checkpoints"]).json() == {"items": []}
    assert client.get(job["links"]["tensorboard"]).status_code == 404
    client.post(job["links"]["cancel"])


# Pausing ------------------------------------------------------------------------------------------


def test_a_job_is_paused_resumed_and_cancelled_and_nothing_else_is_allowed(client):
    client.put("/datasets/digits", content=DIGITS.read_bytes())
    job = client.post("/train-jobs", json={**SMALL, "model_name": "moody", "priority": 7}).json()
    assert job["priority"] == 7
    pause, resume = (f"/train-jobs/{job['id']}/{verb}" for verb in ("pause", "resume"))
    assert client.post(resume).status_code == 409
    paused = client.post(pause)
    assert (paused.status_code, paused.json()["status"]) == (202, "paused")
    assert "resume" in paused.json()["links"]
    assert client.post(pause).status_code == 409
    assert (
        client.get("/train-jobs", params={"status": "paused"}).json()["items"][0]["id"]
        == (job["id"])
    )
    assert client.post(resume).json()["status"] == "queued"
    client.post(pause)
    assert client.delete(f"/train-jobs/{job['id']}").status_code == 409
    assert client.post(f"/train-jobs/{job['id']}/cancel").json()["status"] == "cancelled"
    again = client.post(pause)
    assert again.status_code == 409
    assert "is cancelled; it cannot be paused" in again.json()["detail"]
    assert client.post("/train-jobs/job_0/pause").status_code == 404
    assert client.delete(f"/train-jobs/{job['id']}").status_code == 204
    assert client.get(f"/train-jobs/{job['id']}").status_code == 404


# Going on -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def continued(service: httpx.Client, streamed: tuple[dict, list[dict]]) -> dict:
    earlier, _ = streamed
    request = {"resume_from": {"job": earlier["id"]}, "steps": 60, "model_name": "longer"}
    return finished(service, request)


def test_a_run_goes_on_with_a_larger_budget(service, streamed, continued):
    earlier, _ = streamed
    assert continued["resumed_from"] == {"job": earlier["id"], "step": 40}
    assert continued["progress"]["step"] == 60
    own = {"steps", "minutes"}
    for name in continued["config"].keys() - own:
        assert continued["config"][name] == earlier["config"][name]
    metrics = service.get(continued["links"]["metrics"]).json()
    assert [line["step"] for line in metrics["steps"]] == [1, 10, 20, 30, 40, 50, 60]
    assert [e["step"] for e in metrics["evaluations"]] == [2, 20, 40, 60]
    started = service.get(continued["links"]["events"], headers=JSON).json()["items"][1]
    assert (started["type"], started["data"]["step"]) == ("started", 40)


def test_a_run_goes_on_from_any_checkpoint_though_the_earlier_job_is_deleted(service, dataset):
    request = {**SMALL, "net": TINY_NET, "model_name": "first", "keep_checkpoints": 3}
    first = finished(service, request)
    origin = {"job": first["id"], "step": 20}
    request = {"resume_from": origin, "steps": 30, "model_name": "second", "learning_rate": 0.001}
    urgent = {"dataset": "digits", "steps": 10**6, "priority": 9, "net": TINY_NET}
    hold = service.post("/train-jobs", json={**urgent, "model_name": "hold"}).json()
    second = service.post("/train-jobs", json=request).json()
    assert service.delete(first["links"]["self"]).status_code == 204
    service.post(hold["links"]["cancel"])
    done = service.get(second["links"]["self"], params={"wait": 60}).json()
    assert done["status"] == "succeeded", done
    assert done["config"]["learning_rate"] == 0.001
    assert service.get("/models/first").status_code == 200


@pytest.mark.parametrize(
    ("given", "pointer", "words"),
    [
        ({}, "/steps", "new total"),
        ({"steps": 40}, "/steps", "steps is 40; it must exceed the 40"),
        ({"minutes": 0.01}, "/minutes", "must exceed the"),
        ({"steps": 60, "batch_size": 8}, "/batch_size", "16, which cannot change"),
        ({"steps": 60, "net": {"dropout": 0.5}}, "/net/dropout", "cannot change"),
        ({"steps": 60, "schedule": {"name": "cosine"}}, "/schedule/name", "'linear'"),
        ({"steps": 60, "class_conditional": False}, "/class_conditional", "cannot change"),
        ({"steps": 60, "image_size": 16}, "/image_size", "[8, 8]"),
        ({"steps": 60, "dataset": "other"}, "/dataset", "'digits'"),
        ({"steps": 60, "fine_tune": "little"}, "/fine_tune", "does not go with"),
        ({"steps": 60, "learning_rate": 5}, "/learning_rate", ""),
    ],
)
def test_a_run_that_goes_on_is_the_same_run(service, continued, given, pointer, words):
    origin = {"job": continued["id"], "step": 40}
    answer = service.post("/train-jobs", json={"resume_from": origin, **given})
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert words in error["detail"]


def test_what_was_given_before_may_be_given_again(service, continued):
    same = {**SMALL, "steps": 70, "net": TINY_NET, "preset": "ddpm", "image_size": 8}
    request = {**same, "resume_from": {"job": continued["id"]}, "model_name": "again"}
    assert finished(service, request)["progress"]["step"] == 70


def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(service, continued):
    request = {"resume_from": {"job": continued["id"], "step": 7}, "steps": 99}
    answer = service.post("/train-jobs", json=request)
    assert answer.json()["errors"][0]["pointer"] == "/resume_from/step"
    assert "60" in answer.json()["detail"]
    unknown = {"resume_from": {"job": "job_0"}, "steps": 99}
    assert service.post("/train-jobs", json=unknown).status_code == 404


def test_without_a_dataset_nothing_starts(client):
    answer = client.post("/train-jobs", json={"steps": 3})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/dataset"


# Planning -----------------------------------------------------------------------------------------


def test_a_plan_is_what_the_job_would_be_and_starts_nothing(client):
    client.put("/datasets/digits", content=DIGITS.read_bytes())
    before = client.get("/train-jobs").json()
    request = {"dataset": "digits", "minutes": 3, "batch_size": 48, "model_name": "planned"}
    plan = client.post("/train-jobs/plan", json=request).raise_for_status().json()
    assert client.get("/train-jobs").json() == before
    job = client.post("/train-jobs", json=request).json()
    client.post(job["links"]["cancel"])
    assert plan["config"] == job["config"]
    assert (plan["dataset"], plan["model_name"]) == (job["dataset"], job["model_name"])
    assert "dropout" in plan["config"]["reasons"]["net"]
    assert "batch_size" not in plan["config"]["reasons"]
    assert plan["steps"] > 0
    assert plan["seconds"] == 180.0


def test_too_few_steps_are_warned_of_by_the_plan_and_by_the_job(client):
    client.put("/datasets/digits", content=DIGITS.read_bytes())
    request = {"dataset": "digits", "steps": 39}
    plan = client.post("/train-jobs/plan", json=request).raise_for_status().json()
    assert plan["warnings"] == [
        "about 39 steps: expect noise or blobs of colour; images of 8 x 8 pixels need at least "
        f"about {plan['good_minutes']} minutes here"
    ]
    assert plan["steps"] == 39
    job = client.post("/train-jobs", json=request).json()
    client.post(job["links"]["cancel"])
    assert job["warnings"] == plan["warnings"]
    assert client.get(job["links"]["self"]).json()["warnings"] == plan["warnings"]
    enough = {"dataset": "digits", "minutes": plan["good_minutes"] + 1}
    assert client.post("/train-jobs/plan", json=enough).json()["warnings"] == []


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"minutes": -1}, "/minutes"),
        ({"net": {"dropout": 2}}, "/net/dropout"),
        ({"webhook_url": "ftp://example.org/"}, "/webhook_url"),
    ],
)
def test_a_plan_is_refused_as_the_job_would_be(client, given, pointer):
    client.put("/datasets/digits", content=DIGITS.read_bytes())
    answers = [
        client.post(address, json={"dataset": "digits", **given})
        for address in ("/train-jobs/plan", "/train-jobs")
    ]
    assert [answer.status_code for answer in answers] == [422, 422]
    plan, job = (answer.json()["errors"] for answer in answers)
    assert plan == job
    assert plan[0]["pointer"] == pointer


# Fine-tuning --------------------------------------------------------------------------------------


def _some_digits(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(DIGITS) as whole, zipfile.ZipFile(buffer, "w") as part:
        for entry in whole.namelist():
            if any(f"{name}/" in entry for name in names):
                part.writestr(entry, whole.read(entry))
    return buffer.getvalue()


def test_a_model_is_fine_tuned_on_new_images(service, streamed):
    earlier, _ = streamed
    answer = service.put("/datasets/few", content=_some_digits("3", "5"))
    assert answer.status_code == 201, answer.text
    assert set(answer.json()["classes"]) == {"3", "5"}
    request = {"dataset": "few", "fine_tune": "little", "steps": 10, "batch_size": 16}
    tuned = finished(service, {**request, "model_name": "tuned"})
    assert tuned["begins_with"] == "little"
    assert tuned["config"]["class_names"] == ["3", "5"]
    net, known = tuned["config"]["net"], earlier["config"]["net"]
    assert {**net, "num_class_embeds": None} == {**known, "num_class_embeds": None}
    losses = [
        service.get(job["links"]["metrics"]).json()["steps"][0]["loss"] for job in (earlier, tuned)
    ]
    assert losses[1] < losses[0]  # it does not begin with nothing
    origins = [service.get(f"/models/{name}").json()["origin"] for name in ("little", "tuned")]
    digest = service.get("/models/little").json()["digest"]
    assert origins == [
        {"kind": "trained", "base_model": None, "base_digest": None},
        {"kind": "fine_tuned", "base_model": "little", "base_digest": digest},
    ]


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"net": {"block_out_channels": [16, 16]}}, "/net/block_out_channels"),
        ({"image_size": 16}, "/image_size"),
        ({"prediction_type": "v"}, "/prediction_type"),
        ({"schedule": {"beta_end": 0.03}}, "/schedule/beta_end"),
        ({"preset": "edm"}, "/preset"),
    ],
)
def test_what_the_model_decides_cannot_be_given(service, streamed, given, pointer):
    request = {"dataset": "digits", "fine_tune": "little", "steps": 3, **given}
    answer = service.post("/train-jobs", json=request)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert "cannot change" in answer.json()["detail"]


def test_only_a_model_that_exists_can_be_fine_tuned(client):
    client.put("/datasets/digits", content=DIGITS.read_bytes())
    answer = client.post("/train-jobs", json={**SMALL, "fine_tune": "nobody"})
    assert answer.status_code == 404


# Webhooks -----------------------------------------------------------------------------------------


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[tuple[dict, bytes]]]]:
    """An address, and what is sent to it: headers and body."""
    received: list[tuple[dict, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()
    server.server_close()
    thread.join()


def test_whoever_asked_for_it_is_told_that_the_model_is_made(service, dataset, receiver):
    url, received = receiver
    request = {**SMALL, "steps": 3, "net": TINY_NET, "model_name": "hooked", "webhook_url": url}
    accepted = service.post("/train-jobs", json=request).json()
    secret = accepted["webhook"]["secret"]
    assert accepted["webhook"]["url"] == url
    service.get(accepted["links"]["self"], params={"wait": 60})
    job = _wait_for(service, accepted, lambda j: j["webhook"]["delivered_at"])
    assert job["webhook"]["secret"] is None
    ((headers, body),) = received
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert f"v1,{signature}" in headers["webhook-signature"].split()
    message = json.loads(body)
    assert message["type"] == "train_job.completed"
    assert message["data"]["id"] == accepted["id"]
    assert message["data"]["links"]["model"] == "/models/hooked"


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"webhook_url": "ftp://example.org/"}, "/webhook_url"),
        ({"webhook_url": "https://me:pass@example.org/"}, "/webhook_url"),
        ({"webhook_url": "https://example.org/", "webhook_secret": "abc"}, "/webhook_secret"),
        ({"webhook_secret": "whsec_abc"}, "/webhook_secret"),
        ({"priority": 10}, "/priority"),
        ({"keep": "worst"}, "/keep"),
        ({"keep_checkpoints": 0}, "/keep_checkpoints"),
    ],
)
def test_what_cannot_be_is_refused_by_field(client, given, pointer):
    client.put("/datasets/digits", content=DIGITS.read_bytes())
    answer = client.post("/train-jobs", json={**SMALL, **given})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert "whsec_abc" not in answer.text


def _wait_for(service: httpx.Client, job: dict, until) -> dict:
    deadline = time.monotonic() + 60
    while not until(found := service.get(f"/train-jobs/{job['id']}").json()):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def _wait_until_up(client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            client.get("/healthz")
            return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail("the server did not start")


# Distilling ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def distilled(service: httpx.Client, streamed: tuple[dict, list[dict]]) -> dict:
    return finished(service, {"distill": "little", "steps": 10, "model_name": "quick"})


def test_a_distilled_model_has_its_teachers_net_and_classes(service, streamed, distilled):
    teacher, _ = streamed
    assert (distilled["kind"], distilled["begins_with"]) == ("distill", "little")
    assert distilled["dataset"] == teacher["dataset"]
    assert distilled["config"]["objective"] == "consistency"
    for name in ("net", "schedule", "prediction_type", "class_names"):
        assert distilled["config"][name] == teacher["config"][name], name
    assert service.get("/models/quick").json()["details"]["consistency"] is True
    assert service.get("/models/little").json()["details"]["consistency"] is False


def test_a_distilled_model_samples_in_few_steps_where_nothing_is_asked(service, distilled):
    request = {"model": "quick", "seed": 1, "class_label": "3"}
    answer = service.post("/sample", json=request, headers=JSON)
    used = answer.json()["used"]
    assert (used["sampler"], used["num_inference_steps"], used["spacing"]) == (
        "consistency",
        2,
        "coarse",
    )
    for steps in (1, 4):
        request = {"model": "quick", "seed": 1, "num_inference_steps": steps}
        answer = service.post("/sample", json=request, headers=JSON)
        assert answer.json()["used"]["num_inference_steps"] == steps


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"model": "quick", "sampler": "dpmpp_2m"}, "/sampler"),
        ({"model": "quick", "num_inference_steps": 9}, "/num_inference_steps"),
        ({"model": "little", "sampler": "consistency"}, "/sampler"),
    ],
    ids=str,
)
def test_a_model_is_sampled_as_it_was_made_to_be(service, distilled, given, pointer):
    answer = service.post("/sample", json=given)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_a_distilled_model_that_was_downloaded_and_uploaded_is_still_one(service, distilled):
    archive = service.get("/models/quick/download").content
    service.put("/models/quick-again", content=archive).raise_for_status()
    assert service.get("/models/quick-again").json()["details"]["consistency"] is True


def test_a_run_begins_in_one_way(client):
    answer = client.post("/train-jobs", json={"distill": "a", "fine_tune": "b"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/distill"


def test_only_a_model_that_exists_can_be_distilled(client):
    assert client.post("/train-jobs", json={"distill": "nobody"}).status_code == 404
