"""The engine against the plain loop of models.sampling.generate, alone and in a crowd."""

import copy
import random
from dataclasses import replace

import msgpack
import numpy as np
import pytest
import torch
from torch import nn

from models.arrays import to_uint8
from models.diffusion.config import ModelConfig
from models.diffusion.model import DiffusionModel
from models.diffusion.schedule import ScheduleConfig
from models.engine.batcher import Policy
from models.engine.engine import Engine
from models.engine.orders import Failed, Made, Order, Preview, Started, event_message, event_of
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.runtime.openvino import openvino_engine_model
from models.runtime.torch_net import torch_engine_model
from models.sampling.generate import sample
from models.sampling.request import Disturbance, SampleRequest, plan_for
from models.sampling.samplers import SAMPLER_NAMES

CLASSES = ("low", "high")
HALF = np.repeat(np.array([[0, 255]], np.uint8), 4, axis=1).repeat(8, axis=0)  # keep left


def model_of(seed=0, channels=1, prediction="v"):
    config = UNetConfig(
        channels, channels, (8, 8), norm_num_groups=4, attention_head_dim=4, num_class_embeds=3
    )
    torch.manual_seed(seed)
    net = UNet(config).eval().requires_grad_(False)
    nn.init.normal_(net.conv_out.weight, std=0.1)  # a fresh one says 0 to everything
    config = ModelConfig(config, ScheduleConfig(), prediction, 0.5, (8, 8), CLASSES)
    return DiffusionModel(config, net)


class Model:
    """A model as the plain loop has it, and as the engine has it."""

    def __init__(self, plain, engine):
        self.plain, self.engine, self.config = plain, engine, plain.config


def on_torch(plain):
    return Model(plain, torch_engine_model(plain))


def on_openvino(plain):
    weights = {name: tensor.numpy() for name, tensor in plain.net.state_dict().items()}
    return Model(plain, openvino_engine_model(plain.config, weights))


def on_gpu(plain):
    """The engine on a GPU, the plain loop on the CPU."""
    net = copy.deepcopy(plain.net).to("cuda")
    return Model(plain, torch_engine_model(DiffusionModel(plain.config, net)))


ON_GPU = pytest.param(on_gpu, marks=pytest.mark.gpu)


@pytest.fixture(scope="module", params=[on_torch, on_openvino, ON_GPU])
def runtime(request):
    return request.param


@pytest.fixture(scope="module")
def model(runtime):
    return runtime(model_of())


def crowd(count, seed):
    """Requests of every kind."""
    draw = random.Random(seed)
    requests = {}
    for number in range(count):
        images = draw.choice([1, 1, 2, 5])
        settings = {
            "seed": draw.randrange(2**40),
            "num_images": images,
            "sampler": draw.choice(SAMPLER_NAMES),
            "num_inference_steps": draw.choice([4, 7, 12]),
        }
        if draw.random() < 0.5:
            settings["labels"] = tuple(draw.randrange(2) for _ in range(images))
            settings["guidance_scale"] = draw.choice([1.0, 2.5])
            settings["guidance_interval"] = draw.choice([None, (200.0, 800.0)])
        if draw.random() < 0.3:
            settings["disturb"] = Disturbance(1, 0.5)
        if draw.random() < 0.4:
            settings["init_image"] = np.full((8, 8, 1), draw.randrange(256), np.uint8)
            settings["strength"] = draw.choice([0.5, 1.0])
            settings["mask"] = draw.choice([None, HALF])
        if images > 1 and draw.random() < 0.3:
            settings["seed_to"] = draw.randrange(2**40)
        requests[number] = SampleRequest(**settings)
    return requests


def submit(engine, order_id, model_key, model, request, deadline=None, **options):
    plan = plan_for(model.config, request)
    order = Order(model_key, model_key, "", plan, **options)
    engine.submit(order_id, order, model.engine, deadline)


def run(engine, expected, events=None):
    """Steps until `expected` orders have ended: their images, and why others were not made."""
    made, failed = {}, {}
    ended = 0
    for _ in range(10_000):
        for event in engine.step():
            if events is not None:
                events.append(event)
            if isinstance(event, Made):
                assert (event.id, event.image) not in made
                made[event.id, event.image] = event.pixels
                ended += event.last
            elif isinstance(event, Failed):
                failed[event.id] = event
                ended += 1
        if ended == expected:
            return made, failed
    raise AssertionError("it does not end")


def reference(model, request):
    *_, last = sample(model.plain, plan_for(model.config, request), range(request.num_images))
    return to_uint8(last.x).astype(int)


def alone(model, request, **options):
    engine = Engine()
    submit(engine, 0, "m", model, request, **options)
    made, _ = run(engine, 1)
    return np.stack([made[0, i] for i in range(request.num_images)])


def test_in_a_crowd_every_image_is_what_the_plain_loop_makes(model):
    requests = crowd(24, seed=1)
    engine = Engine()
    for number, request in requests.items():
        submit(engine, number, "m", model, request)
    made, failed = run(engine, len(requests))
    assert not failed
    off, total = 0, 0
    for number, request in requests.items():
        expected = reference(model, request)
        for image in range(request.num_images):
            difference = np.abs(made[number, image].astype(int) - expected[image])
            assert difference.max() <= 1
            off, total = off + (difference > 0).sum(), total + difference.size
    assert off <= total / 1000


def test_deterministic_pixels_are_the_same_alone_in_a_crowd_and_in_another_order(model):
    requests = crowd(12, seed=2)
    pixels = []
    for order in (list(requests), list(requests)[::-1]):
        engine = Engine()
        for number in order:
            submit(engine, number, "m", model, requests[number], deterministic=True)
            submit(engine, f"beside {number}", "m", model, requests[number])
        made, _ = run(engine, 2 * len(requests))
        pixels.append({key: value for key, value in made.items() if isinstance(key[0], int)})
    for (number, image), one in pixels[0].items():
        assert np.array_equal(one, pixels[1][number, image])
        assert np.array_equal(one, alone(model, requests[number], deterministic=True)[image])


def test_where_rows_are_the_same_at_any_width_so_are_images_in_any_company():
    model = on_openvino(model_of())
    requests = crowd(24, seed=3)
    engine = Engine()
    for number, request in requests.items():
        submit(engine, number, "m", model, request)
    made, failed = run(engine, len(requests))
    assert not failed
    for number, request in requests.items():
        images = np.stack([made[number, i] for i in range(request.num_images)])
        assert np.array_equal(images, alone(model, request))


def test_rows_leave_and_join_at_every_step(model):
    engine, events = Engine(), []
    submit(engine, "long", "m", model, SampleRequest(seed=0, num_inference_steps=40))
    for _ in range(10):
        events += engine.step()
    submit(engine, "short", "m", model, SampleRequest(seed=0, num_inference_steps=3))
    run(engine, 2, events)
    assert [event.id for event in events if isinstance(event, Made)] == ["short", "long"]


def test_every_step_of_a_watched_order_is_shown(model):
    engine, events = Engine(), []
    request = SampleRequest(seed=4, num_images=2, num_inference_steps=5, sampler="ddim")
    submit(engine, "w", "m", model, request, watched=True)
    made, _ = run(engine, 1, events)
    assert isinstance(events[0], Started)
    seen = {(e.image, e.row): e for e in events if isinstance(e, Preview)}
    assert sorted(seen) == [(image, row) for image in range(2) for row in range(5)]
    for image in range(2):
        assert np.array_equal(seen[image, 4].x0_hat, made["w", image])
    steps = list(sample(model.plain, plan_for(model.config, request), range(2)))
    for row, step in enumerate(steps[:-1]):
        assert np.array_equal(to_uint8(step.x)[1], seen[1, row + 1].x_t)


def test_a_disturbance_shows_at_its_step_and_not_before(model):
    calm, upset = (
        SampleRequest(seed=4, num_inference_steps=6, sampler="ddim", disturb=disturb)
        for disturb in (None, Disturbance(3, 1.0))
    )
    engine, events = Engine(), []
    submit(engine, "calm", "m", model, calm, watched=True)
    submit(engine, "upset", "m", model, upset, watched=True)
    run(engine, 2, events)
    x_t = {(e.id, e.row): e.x_t for e in events if isinstance(e, Preview)}
    same = [np.array_equal(x_t["calm", row], x_t["upset", row]) for row in range(6)]
    assert same == [True] * 3 + [False] * 3


def test_the_kept_part_of_an_image_stays(model):
    picture = np.arange(64, dtype=np.uint8).reshape(8, 8, 1) * 3
    request = SampleRequest(seed=1, init_image=picture, mask=HALF, num_inference_steps=6)
    image = alone(model, request)[0]
    assert np.array_equal(image[:, :4], picture[:, :4])
    assert not np.array_equal(image[:, 4:], picture[:, 4:])


def test_an_inverted_image_comes_back(model):
    picture = alone(model, SampleRequest(seed=3, num_inference_steps=20))[0]
    errors = []
    for steps in (10, 100):
        request = SampleRequest(
            seed=0, sampler="ddim", num_inference_steps=steps, init_image=picture, invert=True
        )
        errors.append(np.abs(alone(model, request)[0].astype(int) - picture).mean())
    assert errors[1] < 0.5 * errors[0]
    assert errors[1] < 12


def test_between_two_seeds_lie_their_images(model):
    several = SampleRequest(seed=5, seed_to=6, num_images=5, sampler="ddim")
    images = alone(model, several).astype(int)
    for end, seed in ((0, 5), (4, 6)):
        one = alone(model, SampleRequest(seed=seed, sampler="ddim"))[0].astype(int)
        assert np.abs(images[end] - one).max() <= 1
    steps = np.abs(np.diff(images, axis=0)).mean(axis=(1, 2, 3))
    assert np.all(steps > 0)
    assert steps.max() < np.abs(images[4] - images[0]).mean() * 1.5


class Sick(nn.Module):
    """A network that is beside itself about one class."""

    def __init__(self, net, ill):
        super().__init__()
        self.net, self.conv_in, self.ill = net, net.conv_in, ill

    def forward(self, x, c_noise, label):
        y = self.net(x, c_noise, label)
        return torch.where((label == self.ill)[:, None, None, None], torch.nan, y)


def test_a_row_that_is_not_finite_harms_no_neighbour(model):
    ill = on_torch(DiffusionModel(model.config, Sick(model.plain.net, ill=1)))
    engine = Engine()
    requests = {i: SampleRequest(seed=i, num_images=2, labels=(i % 2,) * 2) for i in range(8)}
    for number, request in requests.items():
        submit(engine, number, "m", ill, request)
    made, failed = run(engine, 8)
    assert sorted(failed) == [1, 3, 5, 7]
    assert all(event.reason == "invalid" for event in failed.values())
    for number in (0, 2, 4, 6):
        expected = reference(model, requests[number])
        assert np.abs(np.stack([made[number, i] for i in range(2)]) - expected).max() <= 1
    assert len(engine.batcher) == 0


class Small(nn.Module):
    """A device with room for a few rows only."""

    def __init__(self, net, room):
        super().__init__()
        self.net, self.conv_in, self.room = net, net.conv_in, room

    def forward(self, x, c_noise, label):
        if len(x) > self.room:
            raise torch.OutOfMemoryError("no room")
        return self.net(x, c_noise, label)


def test_too_little_memory_makes_calls_narrower(model):
    small = on_torch(DiffusionModel(model.config, Small(model.plain.net, room=3)))
    engine = Engine()
    request = SampleRequest(seed=0, num_images=20, num_inference_steps=4)
    submit(engine, 0, "m", small, request)
    made, _ = run(engine, 1)
    expected = reference(model, request)
    assert np.abs(np.stack([made[0, i] for i in range(20)]) - expected).max() <= 1


def test_no_memory_for_one_row_is_said(model):
    engine = Engine()
    none = on_torch(DiffusionModel(model.config, Small(model.plain.net, room=0)))
    submit(engine, 0, "m", none, SampleRequest(seed=0, num_images=3))
    submit(engine, 1, "n", model, SampleRequest(seed=0))
    made, failed = run(engine, 2)
    assert failed[0].reason == "out_of_memory"
    assert (1, 0) in made


def test_whoever_leaves_frees_the_rows_at_the_next_step(model):
    engine = Engine()
    submit(engine, 0, "m", model, SampleRequest(seed=0, num_images=40))
    submit(engine, 1, "m", model, SampleRequest(seed=0, num_inference_steps=5))
    engine.step()
    engine.cancel(0)
    events = []
    run(engine, 1, events)
    assert {event.id for event in events} == {1}
    group = next(iter(engine.batcher.groups.values()))
    assert group.num_free_slots == group.slots


def test_an_order_counts_its_own_rows_and_the_calls_that_it_shares(model):
    engine = Engine(widths=(4,))
    orders = []
    for number, (images, steps) in enumerate([(3, 5), (1, 4)]):
        plan = plan_for(
            model.config,
            SampleRequest(seed=0, num_images=images, num_inference_steps=steps, sampler="ddim"),
        )
        orders.append(engine.submit(number, Order("m", "m", "", plan), model.engine))
    run(engine, 2)
    many, one = orders
    assert (many.rows, one.rows) == (3 * 5, 4)
    assert (many.calls, one.calls) == (5, 4)  # all four images fit into a call
    (group,) = engine.stats.values()
    assert many.call_seconds == pytest.approx(group.seconds)
    assert 0 < one.call_seconds < many.call_seconds
    assert 0 <= many.waited_seconds < 60


def test_what_cannot_be_is_refused_and_nothing_else(model):
    engine = Engine(Policy(max_waiting=2))
    plan = plan_for(model.config, SampleRequest(seed=0))
    unfit = [replace(plan, labels=(7,)), replace(plan, init_image=np.zeros((9, 9, 1), np.uint8))]
    for number, one in enumerate([*unfit, plan, plan, plan]):
        engine.submit(number, Order("m", "m", "", one), model.engine)
    made, failed = run(engine, 5)
    assert {n: event.reason for n, event in failed.items()} == {
        0: "invalid",
        1: "invalid",
        4: "busy",
    }
    assert failed[4].retry_after > 0
    assert sorted(made) == [(2, 0), (3, 0)]


def test_an_order_that_cannot_be_prepared_ends_alone(model):
    engine = Engine()
    picture = np.full((8, 8, 1), "grey", dtype=object)  # no numbers
    submit(engine, "odd", "m", model, SampleRequest(0, init_image=picture))
    submit(engine, "well", "m", model, SampleRequest(0, num_inference_steps=2))
    made, failed = run(engine, 2)
    assert failed["odd"].reason == "failed"
    assert list(made) == [("well", 0)]


def test_orders_and_events_survive_the_wire(model):
    request = SampleRequest(seed=1, num_images=2, labels=(0, 1), num_inference_steps=3)
    settings = {"precision": "int8", "ranges": ((-0.25, 3.5), (-1.0, 2.0)), "seconds": 2.5}
    order = Order("m", "p", "d", plan_for(model.config, request), **settings)
    again = Order.from_header(msgpack.unpackb(msgpack.packb(order.to_header())))
    assert np.array_equal(again.plan.rows, order.plan.rows)
    assert replace(again, plan=order.plan) == order
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for event in (
        Started(None, "bfloat16"),
        Preview(None, 1, 2, picture, picture[::-1]),
        Made(None, 3, picture, True),
        Failed(None, "busy", "later", 1.5),
    ):
        found = event_of(*event_message(event))
        assert type(found) is type(event)
        for name, value in vars(event).items():
            assert np.array_equal(getattr(found, name), value)


def test_a_deadline_that_passes_ends_an_order(model):
    now = [0.0]
    engine = Engine(clock=lambda: now[0])
    request = SampleRequest(seed=0, num_inference_steps=50)
    submit(engine, 0, "m", model, request, deadline=5.0)
    submit(engine, 1, "m", model, request)
    engine.step()
    now[0] = 6.0
    made, failed = run(engine, 2)
    assert failed[0].reason == "busy"
    assert list(made) == [(1, 0)]


def test_models_take_turns_and_are_forgotten_when_released(model, runtime):
    other = runtime(model_of(seed=1))
    engine = Engine()
    request = SampleRequest(seed=0, num_inference_steps=4)
    submit(engine, 0, "m", model, request)
    submit(engine, 1, "n", other, request)
    engine.release(("m", ""))
    made, _ = run(engine, 2)
    assert np.abs(made[0, 0].astype(int) - reference(model, request)[0]).max() <= 1
    assert np.abs(made[1, 0].astype(int) - reference(other, request)[0]).max() <= 1
    engine.step()
    assert {key.model_key for key in engine.stats} == {("n", "")}


def test_half_precision_changes_an_image_a_little(model):
    request = SampleRequest(seed=0, num_images=4)
    whole = alone(model, request).astype(int)
    half = alone(model, request, precision="bfloat16").astype(int)
    assert np.abs(whole - half).mean() < 10
    if model.engine.runtime == "torch":  # OpenVINO keeps to float32 where a CPU has nothing less
        assert np.any(whole != half)


def test_padding_and_rows_are_counted(model):
    engine = Engine()
    submit(engine, 0, "m", model, SampleRequest(seed=0, num_images=5, num_inference_steps=4))
    run(engine, 1)
    (stats,) = engine.stats.values()
    assert stats.rows == stats.evaluations == 20
    assert stats.padding >= 0
    assert stats.seconds > 0
