"""Configs and progress are the same on both sides of a record, and old records can be read."""

import pytest

from store.jobs.configs import EvaluateConfig, HeldOut, SampleJobConfig
from store.jobs.metrics import EvaluationLine, StepLine, placed, with_seconds
from store.jobs.progress import EvaluationProgress, Progress, SampleProgress, TrainProgress

EVALUATE = {
    "evaluation": {"num_images": 100},
    "prefix": "models/faces/0",
    "digest": "0",
    "held_out": {"seed": 3, "most": 64},
    "fit": "pad",
}
SAMPLE = {
    "prefix": "models/faces/0",
    "digest": "0",
    "request": {"seed": 1, "num_images": 3},
    "deterministic": True,
    "precision": "int8",
    "ranges": [[-0.25, 3.5]],
    "used": {"seed": 1},
    "recipe": {"format": 1},
}


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        (EvaluateConfig, EVALUATE),
        (EvaluateConfig, {**EVALUATE, "held_out": None}),
        (SampleJobConfig, SAMPLE),
    ],
)
def test_a_config_as_it_was_written_is_read_and_written_again(kind, record):
    assert kind.from_dict(record).to_dict() == record


def test_a_config_of_an_earlier_version_is_read():
    old = {name: value for name, value in EVALUATE.items() if name != "fit"}
    assert EvaluateConfig.from_dict(old).fit == "crop"
    old = {name: value for name, value in SAMPLE.items() if name != "ranges"}
    assert SampleJobConfig.from_dict(old).ranges == []


def test_a_config_says_what_its_entries_are():
    assert EvaluateConfig.from_dict(EVALUATE).held_out == HeldOut(3, 64)
    assert SampleJobConfig.from_dict(SAMPLE).num_images == 3
    assert HeldOut.of_training({"seed": 3, "held_out": 64, "steps": 10}) == HeldOut(3, 64)


@pytest.mark.parametrize(
    "progress",
    [
        Progress(progress=0.5),
        TrainProgress(step=10, steps=20, loss=0.5, progress=0.5),
        SampleProgress(images=1, num_images=2, progress=0.5, eta_seconds=3.0),
        EvaluationProgress(stage="sampling", progress=0.5),
        EvaluationProgress(stage="done", progress=1.0, result={"made": {}}),
    ],
)
def test_progress_is_read_as_it_was_written(progress):
    assert type(progress).from_dict(progress.to_dict()) == progress


def test_progress_of_other_versions_is_read():
    """Evaluations once left their result out until it was there."""
    old = {"stage": "sampling", "progress": 0.25, "of another version": 1}
    assert EvaluationProgress.from_dict(old) == EvaluationProgress(stage="sampling", progress=0.25)
    assert EvaluationProgress.from_dict({}).stage == "queued"
    assert TrainProgress.from_dict({}) == TrainProgress()


def test_lines_are_read_as_they_were_written():
    step = StepLine(
        step=10, loss=0.5, learning_rate=1e-3, images_seen=80, images_per_second=9.5, at=1.0
    )
    look = EvaluationLine(step=10, score=0.5, levels=[{"t": 1, "mse": 0.25}], at=1.0)
    assert StepLine.all_of(f"{step.to_json()}\n{step.to_json()}\n") == [step, step]
    assert EvaluationLine.all_of(look.to_json()) == [look]
    assert EvaluationLine.all_of('{"step": 5, "levels": []}') == [EvaluationLine(step=5)]
    assert StepLine.all_of("") == []


def test_lines_of_earlier_versions_get_images_and_seconds():
    old = {"loss": 0.5, "learning_rate": 1e-3}
    lines = [
        StepLine(step=1, images_seen=8, images_per_second=4.0, **old),
        StepLine(step=11, images_seen=88, images_per_second=8.0, **old),
        StepLine(step=21, images_seen=168, images_per_second=8.0, seconds=30.0, **old),
    ]
    steps = with_seconds(lines)
    assert [line.seconds for line in steps] == [2.0, 12.0, 30.0]
    look = placed(EvaluationLine(step=6), steps, batch_size=8)
    assert (look.images_seen, look.seconds) == (48, 7.0)
    last = placed(EvaluationLine(step=22), steps, batch_size=8)
    assert (last.images_seen, last.seconds) == (176, 31.0)
    new = EvaluationLine(step=5, images_seen=3, seconds=1.0)
    assert placed(new, steps, batch_size=8) == new
    alone = placed(EvaluationLine(step=6), [], batch_size=8)
    assert (alone.images_seen, alone.seconds) == (48, None)
