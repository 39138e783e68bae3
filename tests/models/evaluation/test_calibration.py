"""int8 on a model that has learned the digits: its ranges, and its images beside float32's."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from models.arrays import to_float
from models.diffusion.noise import Stream, permutation
from models.engine.alone import engine_steps
from models.engine.engine import Engine
from models.engine.orders import Made, Order
from models.evaluation import calibration
from models.evaluation.calibration import measured_ranges
from models.fields import Invalid
from models.images.dataset import prepare
from models.nets.graph import inner_convolutions, unet_graph
from models.runtime.openvino import openvino_engine_model
from models.runtime.torch_net import torch_engine_model
from models.sampling.generate import Stopped
from models.sampling.request import SampleRequest, plan_for
from models.training.config import resolve_config
from models.training.defaults import DatasetFacts
from models.training.state import TrainState
from models.training.train import train

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "digits.zip"
NET = {"block_out_channels": (16, 32), "norm_num_groups": 8, "attention_head_dim": 16}
INT8, FLOAT32 = "int8", "float32"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return prepare(DIGITS, tmp_path_factory.mktemp("data") / "digits", (8, 8), 1)


@pytest.fixture(scope="module")
def model(digits):
    facts = DatasetFacts(len(digits.images), 1, (8, 8), digits.class_names)
    state = TrainState.create(resolve_config(facts, steps=300, batch_size=32, net=NET), digits)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    losses = [step.loss for step in train(state, digits)]
    torch.set_num_threads(threads)
    assert np.mean(losses[-50:]) < 0.6 * np.mean(losses[:50])
    return state.ema_model()


@pytest.fixture(scope="module")
def served(model):
    state = model.net.state_dict()
    weights = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in state.items()}
    return openvino_engine_model(model.config, weights)


@pytest.fixture(scope="module")
def ranges(model):
    return measured_ranges(model)


def made_by(served, request, precision, ranges=()):
    plan = plan_for(served.config, request)
    events = engine_steps(served, plan, precision=precision, ranges=ranges)
    made = {e.image: e.pixels for step in events for e in step if isinstance(e, Made)}
    return np.stack([made[image] for image in range(request.num_images)])


def test_the_ranges_are_a_function_of_the_model_and_leave_it_as_it_was(model, ranges):
    graph = unet_graph(model.config.net, model.config.image_size)
    assert len(ranges) == len(inner_convolutions(graph))
    assert all(low < 0 < high for low, high in ranges)
    assert measured_ranges(model) == ranges
    assert not any(module._forward_pre_hooks for module in model.net.modules())


def test_whoever_leaves_stops_the_calibration(model):
    with pytest.raises(Stopped):
        measured_ranges(model, lambda: True)


def test_a_range_is_the_mean_over_groups_drawn_from_all():
    high = np.arange(40, dtype=np.float32)
    groups = permutation(calibration._SEED, 40, Stream.ORDER)[:32].reshape(2, 16)
    expected = (-groups.max(1).mean(), groups.max(1).mean())
    assert calibration._range(np.stack([-high, high])) == expected
    assert calibration._range(np.full((2, 16), 2 / 3, np.float32)) == (0.666667, 0.666667)


def test_the_network_in_int8_is_near_float32(digits, model, served, ranges):
    draw, config = np.random.default_rng(0), model.config
    x0 = to_float(digits.images[:200])
    sigma = np.exp(draw.normal(-1.2, 1.2, 200)).astype(np.float32)[:, None, None, None]
    x = (x0 + sigma * draw.standard_normal(x0.shape, np.float32)) / np.hypot(
        sigma, np.float32(config.sigma_data)
    )
    c_noise = np.log(sigma).ravel() / 4
    exact, rounded = (
        np.concatenate(
            [
                net(x[i : i + 8], c_noise[i : i + 8], digits.labels[i : i + 8]).copy()
                for i in range(0, 200, 8)
            ]
        )
        for net in (served.net(FLOAT32), served.net(INT8, ranges))
    )
    error = np.sqrt(np.square(rounded - exact).mean() / np.square(exact).mean())
    assert 0.001 < error < 0.06


def test_images_in_int8_are_those_of_float32_to_a_few_grey_levels(served, ranges):
    request = SampleRequest(seed=1, num_images=40, labels=tuple(range(10)) * 4)
    exact = made_by(served, request, FLOAT32).astype(int)
    rounded = made_by(served, request, INT8, ranges).astype(int)
    assert 0 < np.abs(rounded - exact).mean() < 3


def test_an_image_in_int8_is_the_same_in_any_company(served, ranges):
    draw, engine = random.Random(0), Engine()
    requests = [
        SampleRequest(
            seed=number,
            num_images=draw.choice([1, 2, 5]),
            num_inference_steps=draw.choice([3, 8, 20]),
            labels=(number % 10,) * 5 if number % 2 else None,
            guidance_scale=draw.choice([1.0, 2.0]) if number % 2 else 1.0,
        )
        for number in range(12)
    ]
    requests = [
        SampleRequest(**{**vars(r), "labels": r.labels and r.labels[: r.num_images]})
        for r in requests
    ]
    for number, request in enumerate(requests):
        for precision, found in ((INT8, ranges), (FLOAT32, ())):
            order = Order("m", "m", "", plan_for(served.config, request), False, precision, found)
            engine.submit((number, precision), order, served)
    made, ended = {}, 0
    while ended < 2 * len(requests):
        for event in engine.step():
            if isinstance(event, Made):
                made[event.id, event.image] = event.pixels
                ended += event.last
    for number, request in enumerate(requests):
        alone = made_by(served, request, INT8, ranges)
        for image in range(request.num_images):
            assert np.array_equal(made[(number, INT8), image], alone[image])


def test_int8_needs_its_ranges_and_openvino(model, served, ranges):
    request = SampleRequest(seed=0, num_inference_steps=1)
    with pytest.raises(Invalid, match=rf"needs the ranges of {len(ranges)} .*, and has 0"):
        made_by(served, request, INT8)
    with pytest.raises(Invalid, match="precision is 'int8'; int8 is computed by OpenVINO on a CPU"):
        made_by(torch_engine_model(model), request, INT8, ranges)
