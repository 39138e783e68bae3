"""The network through OpenVINO against torch, and its rows against each other."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest

from models.runtime.openvino import WIDTHS, faster_precision, resolve_precision
from tests.models.nets.case import Case
from tests.models.nets.shapes import NETS


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
