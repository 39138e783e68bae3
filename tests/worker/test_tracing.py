"""One trace over the server, the worker, the process of a job and the engine, as real processes
send it to a collector; also over a worker that is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from host.environment import to_environment
from store.jobs import requests
from store.jobs.files import log_key
from store.jobs.record import Job
from tests.otlp import Collector, Span, collector
from tests.worker.conftest import Place

TRACE_ID, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRAINING = {
    "dataset": "tones",
    "model_name": "traced",
    "steps": 300,
    "batch_size": 8,
    "checkpoint_every": 50,
    "net": {"block_out_channels": [8, 8], "norm_num_groups": 4, "attention_head_dim": 4},
}


@dataclass
class Service:
    place: Place
    client: httpx.Client
    collector: Collector
    log: Path  # of the server

    def one(self, trace_id: str, name: str, **attributes: object) -> Span:
        """The span of this name, as soon as it is sent."""
        wanted = {f"diffusion.{key}": value for key, value in attributes.items()}.items()
        found: list[Span] = []

        def is_there() -> bool:
            spans = self.collector.spans_of(trace_id, name)
            found[:] = [span for span in spans if wanted <= span.attributes.items()]
            return bool(found)

        self.place.until(is_there)
        (span,) = found
        return span


@pytest.fixture(scope="module")
def service(open_place) -> Iterator[Service]:
    with open_place() as place, collector() as spans:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        log = place.locations.data_dir / "server.log"
        environment = {
            **os.environ,
            **to_environment(place.locations),
            **spans.environment,
            "DIFFUSION_PORT": str(port),
            "DIFFUSION_EXAMPLE_MODEL": "0",
        }
        with log.open("wb") as file:
            server = subprocess.Popen(
                [sys.executable, "-m", "app.server"], env=environment, stderr=file
            )
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            place.until(lambda: _is_ready(client))
            yield Service(place, client, spans, log)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").json()["components"]["engine"]["status"] == "up"
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def trained(service: Service) -> Job:
    """A training whose first worker was killed after a checkpoint, for a caller with a trace of its
    own."""
    place = service.place
    worker = place.start_worker("train", **service.collector.environment)
    caller = {"traceparent": f"00-{TRACE_ID}-{CALLER}-01"}
    answer = service.client.post("/train-jobs", json=TRAINING, headers=caller)
    assert answer.status_code == 202, answer.text
    job = requests.get_job(place.database, answer.json()["id"])
    place.wait(job, lambda j: (j.checkpoint_step or 0) >= 50)
    service.one(TRACE_ID, "fetch dataset")
    worker.kill()
    worker.wait()
    place.start_worker(**service.collector.environment)
    place.finish(job)
    return requests.get_job(place.database, job.id)


def test_a_training_is_one_trace_from_the_caller_to_the_model(service, trained):
    http = service.one(TRACE_ID, "POST /train-jobs")
    queue = service.one(TRACE_ID, "queue train", job=trained.id)
    attempt = service.one(TRACE_ID, "attempt train", job=trained.id, attempt=2)
    process = service.one(TRACE_ID, "run TrainJob")
    train = service.one(TRACE_ID, "train")
    upload = service.one(TRACE_ID, "upload model", model="traced")
    assert http.parent_id == CALLER
    assert queue.parent_id == http.span_id
    assert attempt.parent_id == queue.span_id
    assert process.parent_id == attempt.span_id
    assert train.parent_id == upload.parent_id == process.span_id
    services = [span.service for span in (http, queue, attempt, process, upload)]
    assert services == [f"diffusion-{name}" for name in ("api", "api", "worker", "job", "job")]
    assert http.attributes["http.response.status_code"] == 202
    assert train.attributes["diffusion.last_step"] == 300
    assert train.attributes["diffusion.first_step"] >= 50
    assert not any(span.failed for span in service.collector.spans_of(TRACE_ID))


def test_both_attempts_are_in_it_and_the_checkpoints_belong_to_the_training(service, trained):
    process = service.one(TRACE_ID, "run TrainJob")
    train = service.one(TRACE_ID, "train")
    fetched = service.collector.spans_of(TRACE_ID, "fetch dataset")
    assert len(fetched) == 2
    assert len({span.parent_id for span in fetched}) == 2  # the first one's was killed
    assert process.span_id in {span.parent_id for span in fetched}
    steps = {
        span.attributes["diffusion.step"]: span.parent_id == train.span_id
        for span in service.collector.spans_of(TRACE_ID, "checkpoint")
    }
    assert steps[300]
    assert min(step for step, of_second in steps.items() if of_second) > 50


def test_the_logs_of_all_processes_have_the_ids(service, trained):
    (asked,) = (line for line in _lines(service.log.read_bytes()) if _is_of_post(line))
    http = service.one(TRACE_ID, "POST /train-jobs")
    assert (asked["trace_id"], asked["span_id"]) == (TRACE_ID, http.span_id)
    worker_log = (service.place.locations.data_dir / "worker.log").read_bytes()
    started = [line for line in _lines(worker_log) if line.get("event") == "job started"]
    assert [line["trace_id"] for line in started] == [TRACE_ID] * 2
    attempt = service.one(TRACE_ID, "attempt train")
    assert started[1]["span_id"] == attempt.span_id
    kept = service.place.artifacts.get_bytes(log_key(trained.id, 2))
    lines = _lines(kept)
    assert lines
    assert {line["trace_id"] for line in lines} == {TRACE_ID}
    ids = {span.span_id for span in service.collector.spans_of(TRACE_ID)}
    assert {line["span_id"] for line in lines} <= ids
    assert "trace_id" not in _lines(service.log.read_bytes())[0]  # at the start


def _lines(content: bytes) -> list[dict]:
    return [json.loads(line) for line in content.splitlines() if line.startswith(b"{")]


def _is_of_post(line: dict) -> bool:
    return line.get("path") == "/train-jobs" and line["method"] == "POST"


def test_images_are_one_trace_from_the_request_through_the_engine(service, trained):
    trace_id = "1" * 32
    request = {"model": "traced", "num_images": 3, "num_inference_steps": 5}
    answer = _sample(service, trace_id, request)
    assert answer.status_code == 200, answer.text
    http = service.one(trace_id, "POST /sample")
    engine = service.one(trace_id, "engine", model="traced", images=3)
    loaded = service.one(trace_id, "load model")
    calls = service.one(trace_id, "network calls")
    answered = service.one(trace_id, "answer")
    assert (http.parent_id, http.service) == (CALLER, "diffusion-api")
    assert (engine.parent_id, engine.service) == (http.span_id, "diffusion-engine")
    assert loaded.parent_id == calls.parent_id == engine.span_id
    assert answered.parent_id == http.span_id
    assert calls.attributes["diffusion.rows"] == 3 * 5
    assert 5 <= calls.attributes["diffusion.calls"] <= 3 * 5
    assert calls.attributes["diffusion.call_seconds"] > 0
    assert calls.attributes["diffusion.waited_seconds"] >= 0
    assert len(service.collector.spans_of(trace_id)) == 5


def _sample(service: Service, trace_id: str, request: dict, **headers: str) -> httpx.Response:
    headers |= {"traceparent": f"00-{trace_id}-{CALLER}-01", "accept": "image/png"}
    return service.client.post("/sample", json=request, headers=headers)


def test_images_that_a_worker_makes_are_one_trace(service, trained):
    trace_id = "2" * 32
    request = {"model": "traced", "num_images": 3, "num_inference_steps": 5}
    answer = _sample(service, trace_id, request, prefer="respond-async")
    assert answer.status_code == 202, answer.text
    attempt = service.one(trace_id, "attempt sample")
    assert attempt.parent_id == service.one(trace_id, "queue sample").span_id
    process = service.one(trace_id, "run SampleJob")
    assert process.parent_id == attempt.span_id
    for stage in ("make images", "zip"):
        assert service.one(trace_id, stage).parent_id == process.span_id


def test_what_fails_is_marked(service, trained):
    trace_id = "3" * 32
    place = service.place
    archive = place.artifacts.get_bytes("datasets/tones")
    place.artifacts.put_bytes("datasets/tones", b"not an archive any more")
    try:
        body = TRAINING | {"model_name": "none", "image_size": 16}  # not prepared yet
        caller = {"traceparent": f"00-{trace_id}-{CALLER}-01"}
        answer = service.client.post("/train-jobs", json=body, headers=caller)
        assert answer.status_code == 202, answer.text
        job = requests.get_job(place.database, answer.json()["id"])
        place.wait(job, lambda j: j.done)
        process = service.one(trace_id, "run TrainJob")
        assert process.failed
        assert process.attributes["error.type"] == "invalid"
        assert service.one(trace_id, "fetch dataset").failed
        (line,) = (
            line
            for line in _lines(place.artifacts.get_bytes(log_key(job.id, 1)))
            if line["event"] == "job failed"
        )
        assert (line["trace_id"], line["span_id"]) == (trace_id, process.span_id)
    finally:
        place.artifacts.put_bytes("datasets/tones", archive)


def test_a_trace_that_the_caller_does_not_sample_is_not_sent(service, trained):
    trace_id = "4" * 32
    headers = {"traceparent": f"00-{trace_id}-{CALLER}-00"}
    assert service.client.get("/samplers", headers=headers).status_code == 200
    assert service.client.get("/healthz").status_code == 200
    service.client.get("/models", headers={"traceparent": f"00-{'5' * 32}-{CALLER}-01"})
    service.one("5" * 32, "GET /models")
    time.sleep(0.3)  # whatever ended before has been sent
    assert service.collector.spans_of(trace_id) == []
    assert not [span for span in service.collector.spans if span.name.endswith("healthz")]


def test_a_traceparent_that_is_none_begins_a_new_trace(service, trained):
    before = len(service.collector.spans)
    service.client.get("/samplers", headers={"traceparent": "00-what-ever-01"})
    service.place.until(lambda: len(service.collector.spans) > before)
    (span,) = service.collector.spans[before:]
    assert (span.name, span.parent_id) == ("GET /samplers", "")
