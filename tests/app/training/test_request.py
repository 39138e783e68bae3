"""Planning a training from what was found: no database, no files."""

from dataclasses import replace
from typing import Any

import pytest

from app.http.errors import InvalidInput
from app.training.request import (
    EarlierJob,
    FirstModel,
    Found,
    Speed,
    Training,
    forecast_of,
    plan_training,
)
from app.training.request_schema import TrainRequest
from models.diffusion.config import ModelConfig
from models.diffusion.schedule import ScheduleConfig
from models.nets.config import UNetConfig
from models.training.config import resolve_config
from models.training.defaults import DatasetFacts
from models.training.speed import BENCHMARKED, flops_of, images_per_second
from store.datasets import DatasetVersion
from store.jobs.checkpoints import Checkpoint
from store.jobs.options import FirstWeights, TrainOptions
from store.jobs.record import Job

DIGITS = DatasetVersion(
    dataset="digits",
    number=2,
    digest="abc",
    num_images=40,
    channels=1,
    classes={"0": 20, "1": 20},
    splits={},
    sizes=[{"height": 8, "width": 8, "count": 40}],
)
CONFIG = resolve_config(
    DatasetFacts(40, 1, (8, 8), ("0", "1")), preset="ddpm", steps=40, batch_size=16
)
CHECKPOINTS = [
    Checkpoint(job_id="job_1", step=step, key="k", num_bytes=1, seconds=60.0 * step)
    for step in (20, 40)
]
MODEL = FirstModel(
    FirstWeights("little", "def", "models/little"),
    ModelConfig(
        UNetConfig(1, 1, (8, 8), norm_num_groups=4, attention_head_dim=4, dropout=0.1),
        ScheduleConfig("cosine"),
        "v",
        0.25,
        (8, 8),
    ),
)


NEW = Found(DIGITS)


def planned(found: Found = NEW, **body: Any) -> Training:
    return plan_training(found, TrainRequest.model_validate(body))


def going_on(
    checkpoints: list[Checkpoint] = CHECKPOINTS,
    fine_tune: FirstWeights | None = None,
) -> Found:
    options = TrainOptions(fine_tune=fine_tune).to_dict()
    job = Job(id="job_1", dataset="digits", config=CONFIG.to_dict(), options=options, device="cuda")
    return Found(DIGITS, earlier=EarlierJob(job, checkpoints))


def refused(found: Found, **body: Any) -> tuple[str | None, str]:
    with pytest.raises(InvalidInput) as refusal:
        planned(found, **body)
    (error,) = refusal.value.errors
    return error.pointer, error.detail


# A new run ----------------------------------------------------------------------------------------


def test_a_new_run_is_chosen_for_its_images_and_the_device_that_was_found():
    training = planned(Found(DIGITS, "cuda"), dataset="digits", minutes=3, warmup_steps=7)
    assert training.device == "cuda"
    assert training.config.class_names == ("0", "1")
    assert training.config.image_size == (8, 8)
    assert training.config.precision == "bfloat16"
    assert (training.config.minutes, training.config.warmup_steps) == (3, 7)
    assert training.options == TrainOptions()
    assert training.checkpoint is None


def test_parts_of_the_net_and_the_schedule_reach_the_config():
    config = planned(
        net={"block_out_channels": [16, 32], "norm_num_groups": 8, "attention_head_dim": 8},
        schedule={"name": "cosine", "num_train_timesteps": 50},
        class_conditional=False,
        image_size=16,
    ).config
    assert config.net.block_out_channels == (16, 32)
    assert (config.schedule, config.preset) == (ScheduleConfig("cosine", 50), "ddpm")
    assert (config.class_names, config.image_size) == ((), (16, 16))


def test_parts_that_do_not_fit_together_are_refused_at_their_field():
    pointer, detail = refused(Found(DIGITS), image_size=9, net={"block_out_channels": [32, 32]})
    assert (pointer, "multiple of" in detail) == ("/image_size", True)
    pointer, detail = refused(Found(DIGITS), net={"block_out_channels": [12]})
    assert (pointer, "norm_num_groups, 8" in detail) == ("/net/block_out_channels", True)


def test_the_plan_says_how_many_images_lose_much_of_themselves():
    sizes = [(8, 8, 30), (8, 9, 6), (8, 12, 4)]
    mixed = DatasetVersion(
        dataset="mixed",
        number=1,
        digest="abc",
        num_images=40,
        channels=1,
        classes={},
        splits={},
        sizes=[{"height": h, "width": w, "count": count} for h, w, count in sizes],
    )
    config = planned(Found(mixed)).config
    assert config.fit == "crop"
    assert config.reasons["fit"].startswith(
        "10 images of the most common sizes lose more than 10% of their area"
    )
    assert planned(NEW).config.reasons["fit"] == (
        "no image of the most common sizes loses more than 10% of its area"
    )
    padded = planned(Found(mixed), fit="pad").config
    assert (padded.fit, "fit" in padded.reasons) == ("pad", False)


# From a model -------------------------------------------------------------------------------------


def test_a_model_decides_the_net_and_the_process_of_its_fine_tuning():
    training = planned(Found(DIGITS, model=MODEL), fine_tune="little", minutes=1)
    assert training.options.fine_tune == MODEL.weights
    config = training.config
    assert config.objective == "denoising"
    assert (config.prediction_type, config.schedule) == ("v", MODEL.config.schedule)
    assert config.sigma_data == 0.25
    assert config.net.block_out_channels == (8, 8)
    assert config.net.num_class_embeds == 3  # of these images, not of the model


def test_images_come_to_their_size_as_those_of_the_first_model_unless_asked_otherwise():
    found = Found(DIGITS, model=replace(MODEL, fit="stretch"))
    assert planned(found, fine_tune="little", minutes=1).config.fit == "stretch"
    assert planned(found, fine_tune="little", minutes=1, fit="pad").config.fit == "pad"
    assert planned(Found(DIGITS, model=MODEL), fine_tune="little", minutes=1).config.fit == "crop"


def test_dropout_is_the_one_part_of_a_model_that_may_differ():
    request = {"distill": "little", "minutes": 1}
    found = Found(DIGITS, model=MODEL)
    config = planned(found, **request, net={"dropout": 0.3}).config
    assert (config.net.dropout, config.objective) == (0.3, "consistency")
    assert planned(found, **request).config.net.dropout == 0.1
    pointer, detail = refused(found, **request, net={"norm_num_groups": 8})
    assert pointer == "/net/norm_num_groups"
    assert detail == (
        "net.norm_num_groups is 8; the model that it begins with has 4, which cannot change"
    )


# Going on -----------------------------------------------------------------------------------------


def test_a_run_goes_on_from_its_last_checkpoint_or_the_one_that_is_named():
    training = planned(going_on(), resume_from={"job": "job_1"}, steps=60, learning_rate=0.5)
    assert training.checkpoint is CHECKPOINTS[1]
    assert (training.config.steps, training.config.learning_rate) == (60, 0.5)
    assert training.config.batch_size == 16
    assert training.device == "cuda"  # as it was, whatever is there now
    first = {"job": "job_1", "step": 20}
    assert planned(going_on(), resume_from=first, steps=30).checkpoint is CHECKPOINTS[0]


def test_a_run_that_goes_on_still_says_the_model_that_it_began_with():
    training = planned(going_on(fine_tune=MODEL.weights), resume_from={"job": "job_1"}, steps=60)
    assert training.options.fine_tune == MODEL.weights


@pytest.mark.parametrize(
    ("given", "pointer", "words"),
    [
        ({}, "/steps", "new total"),
        ({"steps": 40}, "/steps", "must exceed the 40"),
        ({"minutes": 40}, "/minutes", "must exceed the 40.00"),
        ({"steps": 60, "batch_size": 8}, "/batch_size", "16, which cannot change"),
        ({"steps": 60, "warmup_steps": 8}, "/warmup_steps", "20, which cannot change"),
        ({"steps": 60, "seed": 3}, "/seed", "0, which cannot change"),
        ({"steps": 60, "net": {"dropout": 0.5}}, "/net/dropout", "cannot change"),
        ({"steps": 60, "class_conditional": False}, "/class_conditional", "True, which"),
        ({"steps": 60, "dataset": "other"}, "/dataset", "'digits'"),
    ],
)
def test_a_run_that_goes_on_is_the_same_run(given, pointer, words):
    place, detail = refused(going_on(), resume_from={"job": "job_1"}, **given)
    assert place == pointer
    assert words in detail


def test_a_run_does_not_go_on_without_its_checkpoint_or_on_another_version():
    request = {"resume_from": {"job": "job_1"}, "steps": 60}
    assert refused(going_on(checkpoints=[]), **request)[0] == "/resume_from/job"
    missing = {**request, "resume_from": {"job": "job_1", "step": 7}}
    assert refused(going_on(), **missing) == (
        "/resume_from/step",
        "resume_from.step is 7; job 'job_1' has those of 20, 40",
    )
    assert refused(going_on(), **request, dataset_version=1) == (
        "/dataset_version",
        "dataset_version is 1; the run that goes on has 2",
    )


# What it comes to ---------------------------------------------------------------------------------


def test_the_speed_is_that_of_the_recent_training_that_is_most_alike():
    training = planned(dataset="digits", minutes=1)
    flops = flops_of(training.config.net, (8, 8))
    speeds = (Speed(50 * flops, 1e12), Speed(2 * flops, 320.0 * flops), Speed(flops / 30, 1e3))
    batch = training.config.batch_size
    here = forecast_of(Found(DIGITS, speeds=speeds), training)
    assert here.steps == pytest.approx(60 * 320 / batch, abs=1)
    benchmark = images_per_second(training.config.net, (8, 8), BENCHMARKED["cpu"])
    elsewhere = forecast_of(Found(DIGITS), training)
    assert elsewhere.steps == pytest.approx(60 * benchmark / batch, abs=1)
    assert (
        forecast_of(Found(DIGITS, "cuda"), planned(Found(DIGITS, "cuda"), dataset="digits")).steps
        is None
    )


def test_a_model_to_begin_with_needs_no_least_time():
    found = Found(DIGITS, model=MODEL)
    training = planned(found, fine_tune="little", steps=5)
    assert forecast_of(found, training).warnings == ()
