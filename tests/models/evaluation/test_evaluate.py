"""Evaluation of models whose worth is known: one is exact, one is off, one copies."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from models.arrays import to_float
from models.diffusion.config import ModelConfig
from models.diffusion.model import DiffusionModel
from models.diffusion.schedule import NoiseSchedule, ScheduleConfig
from models.evaluation.calibration import measured_ranges
from models.evaluation.config import EvaluationConfig
from models.evaluation.evaluate import RealSplit, evaluate
from models.fields import Invalid
from models.images.dataset import Dataset
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.runtime.openvino import openvino_engine_model
from models.runtime.torch_net import torch_engine_model
from models.sampling.generate import Stopped

MEANS, STD, SIDE = (-0.5, 0.4), 0.2, 8
NAMES = ("dark", "light")


class KnownNet(nn.Module):
    """x0_hat by a formula, in place of a network; of a schedule that tells it t - 1."""

    def __init__(self):
        super().__init__()
        self.conv_in = nn.Conv2d(1, 1, 1)  # says which device it is on
        self.schedule = NoiseSchedule.from_config(ScheduleConfig())

    def forward(self, x, c_noise, label):
        r = self.schedule.sigma[1:] / self.schedule.alpha[1:]
        t = c_noise.double().numpy() + 1
        ratio = np.exp(np.interp(t, np.arange(1, len(r) + 1), np.log(r)))
        ratio = torch.from_numpy(ratio)[:, None, None, None]
        return self.x0_hat(x.double() * (1 + ratio**2).sqrt(), ratio, label)


class ExactNet(KnownNet):
    """Of pixels N(mean of the class + shift, STD^2)."""

    def __init__(self, shift=0.0):
        super().__init__()
        self.means = torch.tensor([*MEANS, 0.0]) + shift

    def x0_hat(self, x, ratio, label):
        mean = self.means[label][:, None, None, None]
        return (STD**2 * x + ratio**2 * mean) / (STD**2 + ratio**2)


class CopyingNet(KnownNet):
    """Of a model that has learned its training images by heart, and nothing else."""

    def __init__(self, images):
        super().__init__()
        self.images = to_float(torch.from_numpy(np.array(images))).double()

    def x0_hat(self, x, ratio, label):
        square = (x[:, None] - self.images[None]).square().sum(dim=(2, 3, 4))
        share = torch.softmax(-square / (2 * ratio[:, :, 0, 0] ** 2), dim=1)
        return torch.einsum("bn,nchw->bchw", share, self.images)


def model_of(net, names=NAMES):
    classes = len(names) + 1 if names else None
    config = UNetConfig(
        1, 1, (32,), 1, ("AttnDownBlock2D",), ("AttnUpBlock2D",), num_class_embeds=classes
    )
    return DiffusionModel(
        ModelConfig(config, ScheduleConfig(), "x0", 0.5, (SIDE, SIDE), names), net
    )


@pytest.fixture(scope="module")
def dataset():
    """300 images, a third of them light."""
    labels = (np.arange(300) % 3 == 0).astype(np.int64)
    noise = np.random.default_rng(0).normal(0, STD, (300, SIDE, SIDE, 1))
    x = np.array(MEANS)[labels][:, None, None, None] + noise
    return Dataset(((x + 1) * 127.5).round().clip(0, 255).astype(np.uint8), labels, NAMES)


HELD_OUT = np.arange(0, 300, 5)
# With so many steps the sampler adds no error of its own.
FEW = {"num_images": 120, "num_inference_steps": 200, "likelihood_images": 0, "features": "pixels"}


def steps_of(model, dataset, config, held_out=HELD_OUT, **options):
    return evaluate(model, torch_engine_model(model), dataset, held_out, config, **options)


def last_of(net, dataset, held_out=HELD_OUT, **settings):
    config = EvaluationConfig(**(FEW | settings))
    *_, last = steps_of(model_of(net), dataset, config, held_out)
    return last


@pytest.fixture(scope="module")
def exact(dataset):
    settings = {"features": "classifier", "likelihood_images": 20, "likelihood_steps": 10}
    with pytest.MonkeyPatch.context() as patch:  # bright and dark are soon told apart
        patch.setattr("models.evaluation.features._enough_images", lambda count: 2000)
        return last_of(ExactNet(), dataset, **settings).result


def test_a_model_that_knows_the_data_is_as_close_as_the_data_is_to_itself(exact):
    assert exact.made.num_images == exact.real.num_images == 120
    assert exact.made.num_reference == exact.real.num_reference == 180
    assert 0.8 < exact.made.pixel_frechet / exact.real.pixel_frechet < 1.25
    assert 0.6 < exact.made.frechet / exact.real.frechet < 1.6
    assert exact.made.precision == pytest.approx(exact.real.precision, abs=0.15)
    assert exact.made.recall == pytest.approx(exact.real.recall, abs=0.15)


def test_noise_is_farther_than_the_images_of_a_model_that_knows_the_data(exact):
    assert exact.noise.num_images == exact.made.num_images
    assert exact.noise.frechet > 10 * exact.made.frechet
    assert exact.noise.pixel_frechet > 10 * exact.made.pixel_frechet
    assert exact.noise.recall < 0.1


def test_its_images_are_of_the_classes_that_were_asked_for(exact):
    assert exact.features == "classifier"
    assert exact.feature_accuracy == 1.0
    assert exact.class_agreement == 1.0


def test_it_has_not_memorised(exact):
    memory = exact.memorisation
    assert memory.made == pytest.approx(memory.unseen, rel=0.05)
    assert memory.share_close < 0.1


def test_it_needs_the_bits_that_the_data_has(exact):
    # The entropy of N(0, STD^2 + r0^2) in steps of 1/127.5, r0 being the first level's noise.
    r0 = 0.01
    entropy = 0.5 * np.log2(2 * np.pi * np.e * (STD**2 + r0**2)) + np.log2(127.5)
    assert exact.likelihood.num_images == 20
    error = exact.likelihood.standard_error
    assert 0 < error < 0.05
    assert abs(exact.likelihood.bits_per_dimension - entropy) < 4 * error + 0.02


def test_a_model_that_is_off_is_farther_by_the_way_that_it_is_off(dataset, exact):
    off = last_of(ExactNet(shift=0.1), dataset).result
    way = SIDE**2 * 0.1**2
    assert off.made.pixel_frechet - exact.made.pixel_frechet == pytest.approx(way, rel=0.25)
    assert off.real.pixel_frechet == exact.real.pixel_frechet
    assert off.made.precision < off.real.precision - 0.3
    assert off.features == "pixels"
    assert off.class_agreement is None


def test_a_model_that_copies_is_caught(dataset):
    training = np.setdiff1d(np.arange(300), HELD_OUT)
    last = last_of(CopyingNet(dataset.images[training]), dataset)
    assert last.result.made.pixel_frechet < 1.5 * last.result.real.pixel_frechet
    assert last.result.memorisation.share_close == 1.0
    assert last.result.memorisation.made < 0.05 * last.result.memorisation.unseen
    # Its first picture stands beside itself: 8 pixels, 6 times enlarged, 2 apart.
    picture = last.neighbours_picture
    assert picture.shape == (8 * (48 + 8) - 8, 2 * (4 * 50 - 2) + 8, 1)
    made, copied, other = (picture[:48, i * 50 : i * 50 + 48].astype(int) for i in range(3))
    assert np.abs(made - copied).max() <= 2
    assert np.abs(made - other).max() > 20


def test_without_images_that_are_known_to_be_unseen_nothing_is_said_of_them(dataset):
    result = last_of(ExactNet(), dataset, held_out=None, likelihood_images=20).result
    assert result.memorisation.made > 0
    assert result.memorisation.unseen is None
    assert result.memorisation.share_close is None
    assert result.likelihood is None


def test_a_model_without_classes_is_judged_as_well(dataset):
    flat = Dataset(dataset.images, np.zeros(300, np.int64), ())
    training = np.setdiff1d(np.arange(300), HELD_OUT)
    model = model_of(CopyingNet(dataset.images[training]), ())
    config = EvaluationConfig(num_images=60, likelihood_images=4, likelihood_steps=4)
    *_, last = steps_of(model, flat, config)
    assert last.result.features == "random"
    assert last.result.class_agreement is None
    assert last.result.likelihood.num_images == 4
    assert last.result.memorisation.share_close == 1.0


def test_the_result_survives_json(exact):
    values = json.loads(json.dumps(exact.to_dict()))
    assert values["made"]["frechet"] == exact.made.frechet
    assert values["config"]["precision"] == "float32"
    assert EvaluationConfig.from_dict(values["config"]) == exact.config


QUICK = EvaluationConfig(
    num_images=16, num_inference_steps=5, likelihood_images=0, features="pixels"
)


def unet_model():
    """A model with random weights, of the images of the data set."""
    classes = len(NAMES) + 1
    config = UNetConfig(
        1, 1, (8, 8), norm_num_groups=4, attention_head_dim=4, num_class_embeds=classes
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet(config).eval().requires_grad_(False)
        nn.init.normal_(net.conv_out.weight, std=0.1)  # a fresh one says 0 to everything
    return DiffusionModel(
        ModelConfig(config, ScheduleConfig(), "x0", 0.5, (SIDE, SIDE), NAMES), net
    )


def test_each_precision_is_measured_and_the_result_says_which_it_was(dataset):
    model = unet_model()
    served = torch_engine_model(model)
    lacking = replace(served, precision=lambda choice: "float32")  # no bf16 on this machine

    def result(served, precision):
        settings = replace(QUICK, precision=precision)
        *_, last = evaluate(model, served, dataset, HELD_OUT, settings)
        return last.result

    exact, rounded = result(served, "float32"), result(served, "bfloat16")
    assert exact.config.precision == "float32"
    assert rounded.config.precision == "bfloat16"
    difference = abs(rounded.made.pixel_frechet - exact.made.pixel_frechet)
    assert 0 < difference < 0.1 * exact.made.pixel_frechet
    for asked in ("auto", "bfloat16"):
        instead = result(lacking, asked)
        assert instead.config.precision == "float32"
        assert instead.made == exact.made


def test_int8_is_calibrated_first_unless_its_ranges_are_known(dataset):
    model = unet_model()
    weights = {name: tensor.numpy() for name, tensor in model.net.state_dict().items()}
    served = openvino_engine_model(model.config, weights)

    def steps(**settings):
        settings = replace(QUICK, **settings)
        return list(evaluate(model, served, dataset, HELD_OUT, settings))

    exact, first = steps(precision="float32"), steps(precision="int8")
    found = first[-1].result.config
    assert (first[0].stage, exact[0].stage) == ("calibrating", "features")
    assert (found.precision, found.ranges) == ("int8", measured_ranges(model))
    assert EvaluationConfig.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    difference = abs(first[-1].result.made.pixel_frechet - exact[-1].result.made.pixel_frechet)
    assert 0 < difference < 0.1 * exact[-1].result.made.pixel_frechet
    again = steps(precision="int8", ranges=found.ranges)
    assert again[0].stage == "features"
    assert again[-1].result.made == first[-1].result.made


def test_every_stage_is_told_and_an_evaluation_is_a_function_of_its_seed(dataset):
    config = EvaluationConfig(num_images=130, features="random", likelihood_images=0)
    steps = list(steps_of(model_of(ExactNet()), dataset, config))
    stages = list(dict.fromkeys(step.stage for step in steps))
    assert stages == ["features", "sampling", "comparing", "neighbours", "done"]
    made = [s.progress for s in steps if s.stage == "sampling"]
    assert made == [count / 130 for count in range(131)]
    assert [s.result is None for s in steps] == [True] * (len(steps) - 1) + [False]
    *_, again = steps_of(model_of(ExactNet()), dataset, config)
    assert again.result.made == steps[-1].result.made
    assert np.array_equal(again.neighbours_picture, steps[-1].neighbours_picture)


@pytest.mark.parametrize("stage", ["features", "sampling", "comparing", "neighbours", "likelihood"])
def test_whoever_leaves_stops_it_at_any_stage(stage, dataset):
    reached = []
    features = "classifier" if stage == "features" else "random"
    config = EvaluationConfig(num_images=16, features=features, likelihood_images=2)
    model = model_of(ExactNet())
    steps = steps_of(model, dataset, config, stopped=lambda: stage in reached)

    def walk():
        for step in steps:
            reached.append(step.stage)

    with pytest.raises(Stopped):
        walk()
    assert reached[-1] == stage


# Which images -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    count: int
    unseen: int
    num_images: int
    num_reference: int
    apart: int
    reference: int


@pytest.mark.parametrize(
    "case",
    [
        Case(300, 60, 100, 10_000, 100, 200),
        Case(300, 60, 1000, 10_000, 150, 150),
        Case(300, 60, 40, 10_000, 40, 260),
        Case(5000, 500, 1000, 2000, 1000, 2000),
        Case(8, 0, 1000, 10_000, 4, 4),
    ],
    ids=str,
)
def test_unseen_images_are_set_apart_first_and_nothing_is_on_both_sides(case):
    unseen = np.random.default_rng(0).permutation(case.count)[: case.unseen]
    config = EvaluationConfig(num_images=case.num_images, num_reference=case.num_reference)
    labels = np.arange(case.count) % 4
    split = RealSplit.of(labels, unseen, config)
    assert (len(split.apart), len(split.reference)) == (case.apart, case.reference)
    assert len(np.unique(np.concatenate([split.apart, split.reference]))) == (
        case.apart + case.reference
    )
    assert np.isin(split.apart, unseen).sum() == min(case.unseen, case.apart)
    assert np.bincount(labels[split.reference]).min() >= case.reference / 4 - 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_images": 7}, r"num_images is 7; it must lie in 8\.\.50000"),
        ({"sampler": "magic"}, "sampler is 'magic'"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"precision": "int4"}, "precision is 'int4'; it must be one of"),
        ({"features": ""}, "features is ''"),
        ({"num_reference": 3}, "num_reference is 3"),
        ({"likelihood_images": -1}, "likelihood_images is -1"),
        ({"likelihood_steps": 0}, "likelihood_steps is 0"),
        ({"likelihood_probes": 100}, "likelihood_probes is 100"),
    ],
)
def test_numbers_out_of_bounds_are_refused(settings, message):
    with pytest.raises(Invalid, match=message):
        EvaluationConfig(**settings)


def test_data_that_does_not_fit_the_model_is_refused(dataset):
    def refusal(data, message, net=None):
        with pytest.raises(Invalid, match=message):
            last_of(net or ExactNet(), data)

    refusal(
        Dataset(dataset.images[:, :4], dataset.labels, NAMES),
        r"shape \(4, 8, 1\); the model's have \(8, 8, 1\)",
    )
    refusal(Dataset(dataset.images, dataset.labels, ("dark", "blue")), "the class 'blue'")
    refusal(Dataset(dataset.images, dataset.labels * 0, ()), "the data has no classes")
    few = Dataset(dataset.images[:6], dataset.labels[:6], NAMES)
    with pytest.raises(Invalid, match="the data has 6 images; at least 8"):
        last_of(ExactNet(), few, held_out=None)
