"""Plans: a request for images, as numbers of rows."""

import json
from dataclasses import replace

import msgpack
import numpy as np
import pytest

from models.diffusion.config import ModelConfig
from models.diffusion.prediction import Prediction
from models.diffusion.schedule import NoiseSchedule, ScheduleConfig
from models.fields import Invalid
from models.nets.config import UNetConfig
from models.sampling.plan import K, Plan
from models.sampling.request import Disturbance, SampleRequest, check_labels, make_plan, plan_for

SCHEDULE = NoiseSchedule.from_config(ScheduleConfig())
EPSILON = Prediction("epsilon")
PICTURE = np.zeros((8, 8, 1), np.uint8)


def plan_of(**settings):
    return make_plan(SCHEDULE, EPSILON, SampleRequest(seed=0, **settings))


@pytest.mark.parametrize(("sampler", "rows"), [("ddim", 10), ("heun", 19), ("unipc", 10)])
def test_a_row_is_an_evaluation(sampler, rows):
    assert len(plan_of(sampler=sampler, num_inference_steps=10)) == rows


def test_guidance_takes_two_evaluations_where_it_is_on():
    plan = plan_of(num_inference_steps=10, guidance_scale=2.0, guidance_interval=(300, 700))
    inside = (np.array(plan.t) >= 300) & (np.array(plan.t) <= 700)
    assert 0 < inside.sum() < 10
    assert plan.evaluations == tuple(np.where(inside, 2, 1))
    assert np.array_equal(plan.rows[:, K.GUIDANCE], np.where(inside, 2.0, 1.0))


def test_an_interval_without_steps_is_no_guidance():
    never = plan_of(guidance_scale=5.0, guidance_interval=(-2, -1))
    assert np.array_equal(never.rows, plan_of().rows)
    assert never.evaluations == plan_of().evaluations


def test_img2img_starts_from_the_image_at_the_level_that_leaves_its_strength():
    plan = plan_of(num_inference_steps=10, init_image=PICTURE, strength=0.3)
    assert len(plan) == 3
    t = int(plan.t[0])
    assert plan.from_image == SCHEDULE.alpha[t]
    assert plan.from_noise == SCHEDULE.sigma[t]


def test_strength_one_starts_from_noise_alone():
    plan = plan_of(init_image=PICTURE)
    assert plan.from_image == 0.0
    assert plan.from_noise == pytest.approx(1.0)


def test_inversion_comes_first_open_and_unclipped():
    plan = plan_of(
        sampler="ddim", num_inference_steps=6, init_image=PICTURE, invert=True, guidance_scale=3.0
    )
    assert len(plan) == 12
    assert plan.rows[:, K.UNCONDITIONAL].tolist() == [1.0] * 6 + [0.0] * 6
    assert plan.evaluations == (1,) * 6 + (2,) * 6
    assert np.isinf(plan.rows[:, K.CLIP]).all()
    assert np.all(np.diff(plan.t[:6]) >= 0)
    assert np.all(np.diff(plan.t[6:]) < 0)
    assert plan.from_noise == 0.0


@pytest.mark.parametrize(("sampler", "row"), [("ddim", 3), ("heun", 6)])
def test_a_disturbance_stands_where_its_step_begins(sampler, row):
    plan = plan_of(sampler=sampler, num_inference_steps=8, disturb=Disturbance(3, 0.5))
    assert np.flatnonzero(plan.rows[:, K.PERTURBATION]).tolist() == [row]
    assert plan.rows[row, K.PERTURBATION] == 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_images": 0}, "num_images is 0"),
        ({"seed_to": -1, "num_images": 2}, "seed_to is -1"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"strength": 0.5}, "strength is 0.5; without an init_image"),
        ({"strength": 0.0, "init_image": PICTURE}, "strength is 0.0"),
        ({"mask": PICTURE[:, :, 0]}, "mask is given without"),
        ({"seed_to": 3}, "seed_to is given for one image"),
        ({"guidance_interval": (5.0, 1.0)}, "guidance_interval is 5.0, 1.0"),
        ({"disturb": Disturbance(20, 1.0)}, r"disturb.at is 20; it must lie in 0\.\.19"),
        ({"invert": True}, "invert is true, but there is no init_image"),
        ({"invert": True, "init_image": PICTURE}, "sampler is 'dpmpp_2m'"),
        ({"eta": 0.5}, "eta is 0.5"),
        ({"num_inference_steps": 1001}, r"num_inference_steps is 1001; it must lie in 1\.\.1000"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(settings, message):
    with pytest.raises(Invalid, match=f"^{message}"):
        plan_of(**settings)


@pytest.mark.parametrize(
    ("settings", "classes", "message"),
    [
        ({"labels": (1,)}, 0, "class_label is given, but the model has no classes"),
        ({"labels": (3,)}, 3, r"class_label is 3; it must lie in 0\.\.2"),
        ({"labels": (0, 1)}, 3, "class_label has 2 entries; num_images is 1"),
        ({"guidance_scale": 2.0}, 3, "guidance_scale is 2; without a class_label it must be 1"),
    ],
)
def test_classes_that_do_not_fit_are_refused(settings, classes, message):
    with pytest.raises(Invalid, match=message):
        check_labels(SampleRequest(seed=0, **settings), classes)


def test_a_request_survives_json():
    request = SampleRequest(
        seed=2**62,
        num_images=2,
        labels=(1, 2),
        guidance_interval=(1.0, 2.0),
        disturb=Disturbance(1, 0.5),
        init_image=np.arange(192, dtype=np.uint8).reshape(8, 8, 3),
        mask=np.arange(64, dtype=np.uint8).reshape(8, 8),
    )
    again = SampleRequest.from_dict(json.loads(json.dumps(request.to_dict())))
    assert again == request
    assert np.array_equal(again.init_image, request.init_image)
    assert np.array_equal(again.mask, request.mask)


def test_a_plan_survives_messagepack():
    plan = plan_of(
        num_images=2,
        labels=(1, 2),
        seed_to=2**62,
        num_inference_steps=5,
        init_image=np.arange(192, dtype=np.uint8).reshape(8, 8, 3),
        mask=np.arange(64, dtype=np.uint8).reshape(8, 8),
    )
    again = Plan.from_dict(msgpack.unpackb(msgpack.packb(plan.to_dict())))
    for name in ("rows", "init_image", "mask"):
        assert np.array_equal(getattr(again, name), getattr(plan, name))
        assert getattr(again, name).dtype == getattr(plan, name).dtype
    without_arrays = {"rows": None, "init_image": None, "mask": None}
    assert vars(replace(again, **without_arrays)) == vars(replace(plan, **without_arrays))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": (3,)}, r"class_label is 3; it must lie in 0\.\.2"),
        ({"init_image": PICTURE[:4]}, r"init_image has the shape \(4, 8, 1\)"),
        ({"init_image": PICTURE, "mask": PICTURE}, r"mask has the shape \(8, 8, 1\)"),
    ],
)
def test_a_plan_for_another_model_does_not_fit(settings, message):
    with pytest.raises(Invalid, match=message):
        plan_of(**settings).check_fits((8, 8), channels=1, num_classes=3)


NO_NULL = ModelConfig(
    UNetConfig(1, 1, (8, 8), norm_num_groups=4, attention_head_dim=4, num_class_embeds=3),
    SCHEDULE.config,
    "epsilon",
    0.5,
    (8, 8),
    ("0", "1", "2"),
)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"class_label is missing; each embedding .* one of 0\.\.2 must be given"),
        ({"labels": (2,), "guidance_scale": 2.0}, "guidance_scale is 2.0; it must be 1: each"),
        ({"labels": (2,), "invert": True, "init_image": PICTURE, "sampler": "ddim"}, "invert is"),
    ],
)
def test_a_model_whose_embeddings_are_all_classes_needs_one_and_takes_no_guidance(
    settings, message
):
    with pytest.raises(Invalid, match=message):
        plan_for(NO_NULL, SampleRequest(seed=0, **settings))
    with pytest.raises(Invalid, match="no null class, which this plan needs"):
        plan_of(**settings).check_fits((8, 8), 1, 3, has_null_class=False)
    assert plan_for(NO_NULL, SampleRequest(seed=0, labels=(2,))).labels == (2,)
