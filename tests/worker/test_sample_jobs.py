"""Images made by workers: real processes, and the pixels that POST /sample would give."""

import io
import os
import signal
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from models.diffusion.model import DiffusionModel
from models.engine.engine import Engine
from models.engine.orders import Made, Order
from models.runtime.openvino import openvino_engine_model
from models.sampling.request import SampleRequest, plan_for
from store.jobs import requests
from store.jobs.sample_images import archive_key, image_key, images_made


def by_the_engine(model: DiffusionModel, num_images: int, steps: int) -> np.ndarray:
    """(N, H, W): the request that Place.accept_images makes, in this process."""
    engine = Engine()
    request = SampleRequest(seed=7, num_images=num_images, num_inference_steps=steps)
    plan = plan_for(model.config, request)
    weights = {name: tensor.numpy() for name, tensor in model.net.state_dict().items()}
    served = openvino_engine_model(model.config, weights)
    engine.submit("one", Order("tiny", "tiny", "", plan, deterministic=True), served)
    images = {}
    while len(images) < num_images:
        images |= {e.image: e.pixels[:, :, 0] for e in engine.step() if isinstance(e, Made)}
    return np.stack([images[i] for i in range(num_images)])


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def read(place, job) -> np.ndarray:
    made = images_made(place.artifacts, job.id)
    return np.stack([pixels(place.artifacts.get_bytes(image_key(job.id, i))) for i in made])


def test_its_images_are_those_of_the_engine_to_the_bit(staffed):
    model = staffed.add_model()
    job = staffed.wait(staffed.accept_images(9), lambda j: j.done)
    assert job.status == "succeeded", job.error_message
    assert job.progress["images"] == job.progress["num_images"] == 9
    expected = by_the_engine(model, 9, 20)
    assert np.array_equal(read(staffed, job), expected)
    with zipfile.ZipFile(io.BytesIO(staffed.artifacts.get_bytes(archive_key(job.id)))) as archive:
        assert np.array_equal([pixels(archive.read(n)) for n in archive.namelist()], expected)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_lost_process_loses_no_image_and_makes_none_twice(staffed, number):
    """120 images one after the other; those that the record knows of are left as they are."""
    model = staffed.add_model(image_size=(32, 32))
    job = staffed.accept_images(120, num_inference_steps=8)
    job = staffed.wait(job, lambda j: (j.checkpoint_step or 0) >= 20)
    first_times = _times(staffed, job, range(20))
    for pid in staffed.workers_on(job):
        os.kill(pid, number)
    job = staffed.wait(job, lambda j: j.done)
    assert job.status == "succeeded", job.error_message
    assert job.fence == 2
    assert _times(staffed, job, range(20)) == first_times
    expected = by_the_engine(model, 120, 8)
    assert np.array_equal(read(staffed, job), expected)


def test_images_can_be_read_while_the_job_runs_and_stay_when_it_is_cancelled(staffed):
    staffed.add_model(image_size=(32, 32))
    job = staffed.accept_images(5000)
    staffed.wait(job, lambda j: (j.checkpoint_step or 0) >= 4)
    assert read(staffed, job).shape[1:] == (32, 32)
    requests.request_cancel(staffed.database, job.id)
    job = staffed.wait(job, lambda j: j.done)
    assert job.status == "cancelled"
    assert staffed.workers_on(job) == []
    assert len(images_made(staffed.artifacts, job.id)) >= 4


def test_images_do_not_wait_for_a_training(place):
    place.add_model()
    place.start_worker("train")
    place.start_worker("sample")
    training = place.accept(steps=100_000)
    place.wait(training, lambda j: j.status == "running")
    job = place.wait(place.accept_images(3), lambda j: j.done)
    assert job.status == "succeeded"
    assert requests.get_job(place.database, training.id).status == "running"
    requests.request_cancel(place.database, training.id)


def test_a_model_that_is_deleted_meanwhile_fails_the_job_with_the_reason(staffed):
    job = staffed.wait(staffed.accept_images(3, prefix="models/gone"), lambda j: j.done)
    assert (job.status, job.error_code) == ("failed", "model_deleted")
    assert "deleted" in job.error_message


def test_a_model_that_gives_no_numbers_fails_the_job_with_the_reason(staffed):
    model = staffed.add_model()
    with torch.no_grad():
        for parameter in model.net.conv_in.parameters():
            parameter.fill_(1e38)  # what follows overflows
    staffed.save(model)
    job = staffed.wait(staffed.accept_images(3), lambda j: j.done)
    assert (job.status, job.error_code) == ("failed", "invalid")
    assert "not finite" in job.error_message


def test_a_fault_of_ours_fails_the_job_without_its_text(staffed):
    staffed.add_model()
    request = {
        **SampleRequest(seed=1, num_images=3).to_dict(),
        "guidance_interval": [1.0, 2.0, 3.0],
    }
    job = staffed.wait(staffed.accept_images(3, request=request), lambda j: j.done)
    assert (job.status, job.error_code) == ("failed", "internal")
    assert "unpack" not in job.error_message


def _times(place, job, images) -> list[int]:
    root = place.locations.data_dir / "artifacts"
    return [(root / image_key(job.id, image)).stat().st_mtime_ns for image in images]
