"""The network through OpenVINO against torch, and its rows against each other."""

import json
import os
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from models.nets.graph import Graph, Node, inner_convolutions
from models.runtime.openvino import (
    WIDTHS,
    faster_precision,
    openvino,
    openvino_model,
    resolve_precision,
)
from tests.models.nets.case import Case
from tests.models.nets.shapes import NETS

FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}


@pytest.mark.parametrize("name", NETS)
def test_it_computes_what_torch_computes(name):
    case = Case(name, 2)
    expected = case.torch()
    difference = np.abs(case.call(case.openvino(), slice(None)) - expected).max()
    assert difference < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("two levels", "float32"),
        ("scale", "float32"),
        ("classes", "bfloat16"),
        ("small 28", "float32"),
        ("small 28", "bfloat16"),
        ("classes", "int8"),
        ("scale", "int8"),
        ("padding right and bottom", "int8"),
        ("small 28", "int8"),
    ],
)
def test_a_row_is_the_same_at_any_width_in_any_slot_and_company(name, precision):
    case, draw = Case(name, 24), random.Random(0)
    net = case.openvino(precision)
    alone = np.concatenate([case.call(net, [row]) for row in range(24)])
    for width in WIDTHS[1:]:
        for _ in range(4):
            rows = draw.sample(range(24), width)
            assert np.array_equal(case.call(net, rows), alone[rows])


def test_a_net_made_again_gives_the_same():
    case = Case("classes", 4)
    one, two = (case.call(case.openvino(), slice(None)) for _ in range(2))
    assert np.array_equal(one, two)


def test_bfloat16_is_near_float32():
    case = Case("two levels", 4)
    whole, half = (case.call(case.openvino(p), slice(None)) for p in ("float32", "bfloat16"))
    assert np.abs(whole - half).max() < 0.1 * np.abs(whole).max()


@pytest.mark.parametrize("name", ["two levels", "padding right and bottom"])
def test_in_int8_all_convolutions_but_the_first_and_the_last_multiply_integers(name):
    case = Case(name, 1)
    inner = inner_convolutions(case.graph)
    model = openvino_model(case.graph, case.weights, 1, ((-0.3, 4.0),) * len(inner))
    found = [op for op in model.get_ordered_ops() if op.get_type_name() == "Convolution"]
    for op in found:
        sources = {op.input_value(i).get_node().get_type_name() for i in range(2)}
        outer = any(
            op.input_value(1).get_node().get_type_name() == "Constant"
            and np.array_equal(op.input_value(1).get_node().data, case.weights[f"{end}.weight"])
            for end in ("conv_in", "conv_out")
        )
        assert ("FakeQuantize" in sources) != outer
    assert len(found) == len(inner) + 2
    compiled = openvino.Core().compile_model(model, "CPU", FLOAT32).get_runtime_model()
    kinds = Counter(
        str(op.get_rt_info()["runtimePrecision"].value)
        for op in compiled.get_ops()
        if op.get_rt_info()["layerType"].value == "Convolution"
    )
    assert kinds == {"u8": len(inner), "f32": 2}


def test_int8_rounds_what_enters_and_what_it_is_multiplied_by():
    """Against numpy, one convolution whose numbers lie on no level; 0 does, as padding must."""
    draw = np.random.default_rng(0)
    x, weight = draw.normal(1.0, 1.0, (1, 2, 4, 4)), draw.normal(0.0, 1.0, (3, 2, 3, 3))
    low, high = -1.0, 3.0
    step = max(1.0 / 64, 3.0 / 191)  # 0 is the level round(255 / 4)
    levels = (np.round(x / step) + 64).clip(0, 255) - 64
    per_channel = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 63
    padded = np.pad(levels * step, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    expected = np.einsum("nchwij,ocij->nohw", windows, np.round(weight / per_channel) * per_channel)

    graph, parameters = Graph({"x": (np.float32, (2, 4, 4))}), {}
    how = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1] * 4}
    layers = {"conv_in": identity(2), "middle": weight, "conv_out": identity(3)}
    for (name, values), given, made in zip(layers.items(), "xab", "aby", strict=True):
        parameters[f"{name}.weight"] = values.astype(np.float32)
        parameters[f"{name}.bias"] = np.zeros(len(values), np.float32)
        graph.nodes.append(Node("Conv", (given, f"{name}.weight", f"{name}.bias"), (made,), how))
    graph.parameters = {name: values.shape for name, values in parameters.items()}
    model = openvino_model(graph, parameters, 1, ((low, high),))
    call = openvino.Core().compile_model(model, "CPU", FLOAT32)
    y = call({"x": x.astype(np.float32)})["y"]
    assert np.abs(y - expected).max() < 1e-4 * np.abs(expected).max()


def identity(channels):
    """Weights (C, C, 3, 3) that change nothing."""
    return np.eye(channels)[:, :, None, None] * np.eye(9)[4].reshape(3, 3)


def test_loading_it_tells_nobody_and_leaves_nothing_at_home(tmp_path):
    code = "import sys, models.runtime.openvino; print(sys.modules['openvino_telemetry'])"
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "None"
    assert list(tmp_path.iterdir()) == []


def test_the_faster_precision_is_measured_once(tmp_path, monkeypatch):
    found = faster_precision(tmp_path)
    assert found in ("float32", "bfloat16")
    monkeypatch.setattr("models.runtime.openvino._seconds_of_a_call", pytest.fail)
    assert faster_precision(tmp_path) == found


def test_a_damaged_note_of_the_precision_is_measured_again(tmp_path):
    (tmp_path / "precision.json").write_text("{")
    found = faster_precision(tmp_path)
    assert json.loads((tmp_path / "precision.json").read_text())["precision"] == found


def test_an_answer_says_float32_where_there_is_nothing_less():
    has_bfloat16 = resolve_precision("bfloat16") == "bfloat16"
    assert resolve_precision("float32") == "float32"
    assert has_bfloat16 or resolve_precision("auto") == "float32"
