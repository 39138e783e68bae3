"""Images of one job made by several workers: real processes, some of them killed."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

from host.environment import to_environment
from models.evaluation.config import EvaluationConfig
from models.evaluation.evaluate import evaluate
from models.images.dataset import open_dataset, prepare
from models.runtime.openvino import openvino_engine_model
from models.sampling.request import SampleRequest
from store.jobs import claims, parts, requests
from store.jobs.configs import EvaluateConfig, SampleJobConfig
from store.jobs.parts import MIN_PART
from store.jobs.sample_images import images_made
from tests.worker.test_sample_jobs import by_the_engine, read
from worker.queue import submit

N, STEPS = 4 * MIN_PART, 25
HELPER = "worker.image_helper"


@pytest.fixture(scope="module")
def crew(open_place):
    """A place with two workers and a model of images of 32 pixels."""
    with open_place() as place:
        for _ in range(2):
            place.start_worker("rest")
        place.model = place.add_model(image_size=(32, 32))
        place.expected = by_the_engine(place.model, N, STEPS)
        place.await_workers(2)
        yield place


def helped(place) -> list[int]:
    """How many images each helper made, by the workers' log."""
    log = (place.locations.data_dir / "worker.log").read_text()
    return [int(found) for found in re.findall(r'"images": (\d+), "event": "helped"', log)]


def test_two_workers_make_the_images_of_one_to_the_bit(crew):
    before = len(helped(crew))
    job = crew.wait(crew.accept_images(N, STEPS), lambda j: j.done)
    assert job.status == "succeeded", job.error_message
    assert np.array_equal(read(crew, job), crew.expected)
    crew.until(lambda: len(helped(crew)) > before)
    assert sum(helped(crew)[before:]) >= MIN_PART
    assert job.progress["images"] == N


@pytest.mark.parametrize("module", ["worker.sample_job", HELPER])
def test_the_part_of_a_process_that_is_killed_is_made_by_another(crew, module):
    job = crew.accept_images(N, STEPS)
    crew.until(lambda: any(part.by_helper for part in parts.list_parts(crew.database, job.id)))
    for pid in crew.processes_on(job, module):
        os.kill(pid, signal.SIGKILL)
    job = crew.wait(job, lambda j: j.done)
    assert job.status == "succeeded", job.error_message
    assert np.array_equal(read(crew, job), crew.expected)


def test_a_helper_leaves_when_a_job_waits_for_its_worker(crew):
    long = crew.accept_images(100 * MIN_PART, STEPS)
    crew.until(lambda: crew.processes_on(long, HELPER))
    short = crew.wait(crew.accept_images(3), lambda j: j.done)
    assert short.status == "succeeded"
    assert not requests.get_job(crew.database, long.id).done
    crew.until(lambda: crew.processes_on(long, HELPER))  # it is back
    requests.request_cancel(crew.database, long.id)
    crew.wait(long, lambda j: j.done)
    crew.until(lambda: not crew.processes_on(long, HELPER))


def test_a_worker_that_starts_helps_with_a_job_that_runs(place):
    place.start_worker("rest")
    place.add_model(image_size=(32, 32))
    job = place.accept_images(100 * MIN_PART, STEPS)
    place.until(lambda: parts.num_made(place.database, job.id))
    place.start_worker("rest")
    place.until(lambda: place.processes_on(job, HELPER))


def test_an_evaluation_has_its_images_made_by_two_and_its_scores_are_those_of_one(crew):
    served = crew.add_model()
    config = EvaluationConfig(
        num_images=3 * MIN_PART, features="pixels", num_inference_steps=400, precision="float32"
    )
    job = requests.create_job(
        crew.database,
        "evaluate",
        model_name="tiny",
        dataset="tones",
        config=EvaluateConfig(config.to_dict(), "models/tiny", crew.model_digest).to_dict(),
    )
    before = len(helped(crew))
    submit(crew.queue, job.id, "evaluate")
    job = crew.wait(job, lambda j: j.done)
    assert job.status == "succeeded", job.error_message
    assert images_made(crew.artifacts, job.id) == []
    assert parts.list_parts(crew.database, job.id) == []
    crew.until(lambda: len(helped(crew)) > before)
    assert sum(helped(crew)[before:]) >= MIN_PART

    archive, folder = crew.locations.data_dir / "tones.zip", crew.scratch / "tones"
    prepare(archive, folder, (8, 8), 1)
    weights = {name: tensor.numpy() for name, tensor in served.net.state_dict().items()}
    engine = openvino_engine_model(served.config, weights)
    *_, alone = evaluate(served, engine, open_dataset(folder), None, config)
    result = job.progress["result"]
    assert result["made"] == asdict(alone.result.made)
    assert result["memorisation"] == asdict(alone.result.memorisation)


@pytest.mark.parametrize(("deterministic", "made"), [(True, 0), (False, N)])
def test_deterministic_images_are_not_made_where_they_would_differ(crew, deterministic, made):
    crew.save(crew.model)
    request = SampleRequest(seed=7, num_images=N, num_inference_steps=1).to_dict()
    config = SampleJobConfig(request, "models/tiny", crew.model_digest, deterministic)
    job = requests.create_job(crew.database, "sample", model_name="tiny", config=config.to_dict())
    claims.claim(crew.database, job.id, "this test", 60)
    parts.lay_out(crew.database, job.id, config, "cpu", "another processor")
    with subprocess.Popen(
        [sys.executable, "-m", HELPER, job.id, "0", str(crew.scratch / "helper")],
        env={**os.environ, **to_environment(crew.locations)},
        stdin=subprocess.PIPE,  # it leaves when this ends
    ) as helper:
        assert (helper.wait(60) == 0) == bool(made)
    assert parts.num_made(crew.database, job.id) == made
