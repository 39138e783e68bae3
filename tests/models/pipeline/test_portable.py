"""Portable models: their tables are those of the plans, and the README tells the truth."""

import json
import re
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.diffusion.config import ModelConfig
from models.diffusion.model import DiffusionModel
from models.diffusion.noise import bits, normal
from models.diffusion.schedule import ScheduleConfig
from models.fields import Invalid
from models.nets.config import UNetConfig
from models.nets.onnx_file import IR_VERSION, OPSET
from models.nets.unet import UNet
from models.pipeline.card import ModelCard
from models.pipeline.portable import COLUMNS, README, portable_files, write_portable_archive
from models.pipeline.torch_folder import save_model
from models.sampling.plan import K
from models.sampling.request import SampleRequest, plan_for
from models.sampling.samplers import SAMPLERS

NET = UNetConfig(1, 1, (8, 8), norm_num_groups=4, attention_head_dim=4)
CONFIG = ModelConfig(NET, ScheduleConfig("linear"), "v", 0.5, (8, 8))
CARD = ModelCard.of(CONFIG)
EDM = replace(CARD, schedule=ScheduleConfig("edm"), prediction_type="edm")
FLOW = replace(CARD, schedule=ScheduleConfig("flow"), prediction_type="flow")
DISTILLED = replace(EDM, consistency=True)


def tables_of(card, *given, **options):
    return json.loads(portable_files(card, {}, *given, **options)["samplers.json"])["tables"]


def names_of(tables):
    return {(table["sampler"], table["num_inference_steps"]) for table in tables}


@pytest.mark.parametrize("card", [CARD, EDM, FLOW, DISTILLED])
def test_the_numbers_are_those_of_the_plan(card):
    for table in tables_of(card):
        request = SampleRequest(
            0, sampler=table["sampler"], num_inference_steps=table["num_inference_steps"]
        )
        plan = plan_for(card, request)
        rows = np.array(table["rows"], np.float32)
        assert np.array_equal(rows, plan.rows[:, list(COLUMNS.values())])
        assert np.float32(table["start"]) == np.float32(plan.from_noise)
        # What a reader is not told is the same in every row.
        assert set(plan.rows[:, K.CLIP]) == {1.0}
        assert not plan.rows[:, [K.UNCONDITIONAL, K.PERTURBATION]].any()
        assert plan.from_image == 0.0


def test_every_sampler_that_suits_the_model_is_there():
    others = {name for name, entry in SAMPLERS.items() if not entry.for_distilled}
    assert names_of(tables_of(CARD)) == {(name, n) for name in others for n in (10, 20, 50)}
    assert names_of(tables_of(FLOW)) == {
        (name, n) for name in others if not SAMPLERS[name].needs_signal for n in (10, 20, 50)
    }
    assert names_of(tables_of(DISTILLED)) == {("consistency", n) for n in (1, 2, 4)}


def test_the_first_table_is_what_the_service_takes_where_nothing_is_said():
    first = tables_of(CARD)[0]
    assert (first["sampler"], first["num_inference_steps"]) == ("dpmpp_2m", 20)
    assert tables_of(DISTILLED)[0]["num_inference_steps"] == 2


def test_tables_that_are_asked_for_are_the_only_ones():
    found = names_of(tables_of(CARD, ["ddim", "heun", "ddim"], [7, 100]))
    assert found == {("ddim", 7), ("ddim", 100), ("heun", 7), ("heun", 100)}


def test_a_short_schedule_has_tables_of_its_length():
    card = replace(CARD, schedule=ScheduleConfig("linear", num_train_timesteps=5))
    assert {steps for _, steps in names_of(tables_of(card))} == {5}


@pytest.mark.parametrize(
    ("card", "samplers", "steps", "message"),
    [
        (CARD, ["consistency"], [], "sampler is 'consistency'; this model takes one of"),
        (DISTILLED, ["ddim"], [], "sampler is 'ddim'; this model takes one of ('consistency',)"),
        (FLOW, ["heun"], [], "sampler is 'heun'; this model takes one of"),
        (CARD, [], [0], "num_inference_steps is 0; it must lie in 1..500"),
        (CARD, [], [10, 501], "num_inference_steps is 501; it must lie in 1..500"),
        (DISTILLED, [], [9], "num_inference_steps is 9; it must lie in 1..8"),
    ],
)
def test_what_does_not_suit_the_model_is_refused(card, samplers, steps, message):
    with pytest.raises(Invalid, match=re.escape(message)):
        tables_of(card, samplers, steps, max_steps=500)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    torch.manual_seed(0)
    save_model(DiffusionModel(CONFIG, UNet(NET)), tmp_path / "model", {})
    files = portable_files(CARD, {"name": "m"})
    for name in ("one.zip", "two.zip"):
        write_portable_archive(files, tmp_path / "model", tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {*files, "network.onnx"}
        assert all(archive.read(name) == content for name, content in files.items())


def test_the_readme_states_the_noise_and_the_versions():
    text = README.read_text()
    assert f"opset {OPSET}, IR version {IR_VERSION}" in text
    assert ", ".join(COLUMNS) in text
    image = np.array([1])
    words = " ".join(f"{word:08x}" for word in bits(7, image, 2, 8)[0])
    noise = " ".join(f"{number:.5f}" for number in normal(7, image, 2, (6,))[0])
    assert f"w     = {words}\n    noise = {noise}\n" in text
