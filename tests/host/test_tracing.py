"""Traces that nobody asks for cost nothing; those that cannot be sent hold nothing up."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOWHERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
PROCESS = """
import sys
from host import tracing

tracing.start_tracing("test")
with tracing.span("outer", {"a": 1}):
    tracing.annotate({"b": 2}, error="none")
    print(tracing.traceparent(), tracing.add_trace_ids(None, "info", {"event": "x"}))
"""
IDLE = "None {'event': 'x'}"
IS_UNLOADED = "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
SENDS_NOTHING = "assert not {'opentelemetry.exporter', 'opentelemetry.sdk.trace'} & {*sys.modules}"


def run(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {**NOWHERE, "OTEL_SDK_DISABLED": "true"},
        {**NOWHERE, "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_loaded_where_nobody_asks_for_traces(environment):
    done = run(PROCESS + IS_UNLOADED, **environment)
    assert (done.stdout.strip(), done.stderr) == (IDLE, "")


def test_jobs_and_the_engine_load_none_of_it_and_server_and_worker_no_exporter():
    run("import sys, app.engine.process, worker.train_job\n" + IS_UNLOADED)
    # FastAPI and redis-py load what they need to look for a provider.
    run("import sys, app.server, worker.main, worker.sample_job\n" + SENDS_NOTHING)


def test_without_the_extra_the_reason_is_logged_and_all_else_works():
    without = "import sys\nsys.modules['opentelemetry.sdk'] = None\n"
    done = run(without + PROCESS, **NOWHERE)
    assert done.stdout.strip() == IDLE
    assert "no traces: " in done.stderr
    assert "pip install '.[telemetry]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["", "TRACES_"])
def test_another_protocol_is_refused_by_name(name):
    variable = f"OTEL_EXPORTER_OTLP_{name}PROTOCOL"
    done = run(PROCESS + IS_UNLOADED, **NOWHERE, **{variable: "grpc"})
    assert done.stdout.strip() == IDLE
    assert f"no traces: {variable} is 'grpc'; it must be 'http/protobuf'" in done.stderr


def test_a_collector_that_is_away_holds_a_process_up_for_two_seconds_at_most():
    stop = "began = time.monotonic()\ntracing.stop_tracing()\nprint(time.monotonic() - began)\n"
    began = time.monotonic()
    done = run("import time\n" + PROCESS + stop, **NOWHERE)
    ids, seconds = done.stdout.splitlines()
    assert ids.startswith("00-")
    assert "'trace_id': " in ids
    assert 0 <= float(seconds) < 3
    assert time.monotonic() - began < 30


def test_the_name_of_the_service_is_that_of_its_process_unless_it_is_given():
    show = "print(tracing._provider.resource.attributes['service.name'])\n"
    named = {"OTEL_SERVICE_NAME": "pictures"}
    listed = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=images,host.name=a"}
    for given, expected in (({}, "diffusion-test"), (named, "pictures"), (listed, "images")):
        done = run(PROCESS + show, **NOWHERE, **given)
        assert done.stdout.splitlines()[-1] == expected
