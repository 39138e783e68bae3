"""A folder loaded for the engine: which library computes it, and what is wrong with it."""

import logging
import sys

import numpy as np
import pytest
import torch

from models.diffusion.config import ModelConfig
from models.diffusion.model import DiffusionModel
from models.diffusion.schedule import ScheduleConfig
from models.fields import Invalid
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.pipeline.engine_model import (
    load_checked,
    load_engine_model,
    precisions,
    runtime_name,
)
from models.pipeline.torch_folder import save_model

NET = UNetConfig(1, 1, (8, 8), norm_num_groups=4, attention_head_dim=4, num_class_embeds=3)
CONFIG = ModelConfig(NET, ScheduleConfig("linear"), "v", 0.5, (8, 8), ("a", "b"))


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = DiffusionModel(CONFIG, UNet(NET).eval().requires_grad_(False))
    torch.nn.init.normal_(model.net.conv_out.weight, std=0.1)
    return model


@pytest.fixture
def folder(model, tmp_path):
    save_model(model, tmp_path / "model", {})
    return tmp_path / "model"


def inputs(library):
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 8), np.float32)
    c_noise, label = np.array([3.0, 900.0], np.float32), np.array([0, 2])
    arrays = (x, c_noise, label)
    return arrays if library == "openvino" else tuple(map(torch.from_numpy, arrays))


def test_each_choice_of_precision_comes_to_what_a_model_computes_in(folder, tmp_path, monkeypatch):
    found = precisions("cpu", tmp_path)
    model = load_engine_model(folder, "cpu", tmp_path)
    assert found == {choice: model.precision(choice) for choice in found}
    assert (found["float32"], found["int8"]) == ("float32", "int8")
    monkeypatch.setitem(sys.modules, "models.runtime.openvino", None)
    assert precisions() == {"auto": "float32", "float32": "float32", "bfloat16": "bfloat16"}


def test_on_a_cpu_it_is_openvino(folder, model):
    loaded = load_engine_model(folder)
    assert (loaded.runtime, loaded.config) == ("openvino", CONFIG)
    y = loaded.net("float32")(*inputs("openvino"))
    expected = model.net(*inputs("torch")).numpy()
    assert np.abs(y - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("reason", ["missing", "refuses"])
def test_where_openvino_cannot_torch_does_and_the_log_says_so(folder, reason, monkeypatch, caplog):
    if reason == "missing":
        monkeypatch.setitem(sys.modules, "models.runtime.openvino", None)
    else:

        def refuse(*_):
            raise RuntimeError("no such operator")

        monkeypatch.setattr("models.runtime.openvino.openvino_engine_model", refuse)
    with caplog.at_level(logging.WARNING):
        loaded = load_engine_model(folder)
    assert loaded.runtime == "torch"
    assert "torch does, slower" in caplog.text
    assert loaded.net("float32")(*inputs("torch")).isfinite().all()
    assert load_checked(folder).runtime == "torch"


def test_the_library_is_named_with_its_version(monkeypatch):
    assert runtime_name().startswith("OpenVINO 20")
    monkeypatch.setitem(sys.modules, "models.runtime.openvino", None)
    assert runtime_name() == f"torch {torch.__version__}"


def test_without_torch_what_openvino_refuses_is_an_error_that_names_both(folder, monkeypatch):
    def refuse(*_):
        raise RuntimeError("no such operator")

    monkeypatch.setattr("models.runtime.openvino.openvino_engine_model", refuse)
    monkeypatch.setattr("models.pipeline.engine_model.has_torch", lambda: False)
    with pytest.raises(Invalid, match=r"OpenVINO .*no such operator; torch is not installed"):
        load_engine_model(folder)
    with pytest.raises(Invalid, match="on cuda torch runs networks; torch is not installed"):
        load_engine_model(folder, "cuda")


def test_an_output_that_is_not_finite_is_said(model, tmp_path):
    with torch.no_grad():
        for parameter in model.net.conv_in.parameters():
            parameter.fill_(1e38)  # what follows overflows
    save_model(model, tmp_path / "model", {})
    with pytest.raises(Invalid, match="the network's output is not finite"):
        load_checked(tmp_path / "model")


def test_a_folder_that_is_no_model_is_said(tmp_path):
    with pytest.raises(Invalid, match=r"config\.json is missing"):
        load_checked(tmp_path)
