"""Files of ONNX: the checker of onnx reads them, and onnxruntime computes what OpenVINO does."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

from models.fields import Invalid
from models.nets.graph import unet_graph
from models.nets.onnx_file import IR_VERSION, MAX_BYTES, OPSET, onnx_file
from tests.models.nets.case import Case
from tests.models.nets.shapes import NETS, TINY

ONE_THREAD = onnxruntime.SessionOptions()
ONE_THREAD.intra_op_num_threads = 1


def content_of(case):
    return b"".join(onnx_file(case.graph, case.weights))


@pytest.mark.parametrize("name", NETS)
def test_it_is_a_valid_file(name):
    case = Case(name, 1)
    model = onnx.load_from_string(content_of(case))
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    assert model.ir_version == IR_VERSION
    shapes = {
        value.name: [each.dim_param or each.dim_value for each in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    images = ["N", case.config.in_channels, *case.size]
    expected = {"x": images, "c_noise": ["N"], "y": images}
    assert shapes == (expected if case.label is None else {**expected, "label": ["N"]})
    kept = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert all(np.array_equal(kept[name], array) for name, array in case.weights.items())


@pytest.mark.parametrize("name", NETS)
def test_it_computes_what_openvino_computes_in_calls_of_any_width(name):
    case = Case(name, 16)
    session = onnxruntime.InferenceSession(content_of(case), ONE_THREAD)
    expected = case.call(case.openvino(), slice(None))
    for width in (1, 3, 16):
        rows = slice(width)
        inputs = {"x": case.x[rows], "c_noise": case.c_noise[rows]}
        if case.label is not None:
            inputs["label"] = case.label[rows]
        (found,) = session.run(["y"], inputs)
        difference = np.abs(found - expected[rows]).max()
        assert difference < 1e-5 * np.abs(expected[rows]).max()


def test_numbers_that_json_holds_as_whole_ones_are_floats():
    graph = unet_graph(replace(TINY, norm_eps=1), (8, 8))
    weights = {name: np.zeros(shape, np.float32) for name, shape in graph.parameters.items()}
    model = onnx.load_from_string(b"".join(onnx_file(graph, weights)))
    onnx.checker.check_model(model, full_check=True)


def test_a_network_too_large_for_a_file_is_refused(monkeypatch):
    case = Case("two levels", 1)
    size = len(content_of(case))
    assert size < MAX_BYTES
    monkeypatch.setattr("models.nets.onnx_file.MAX_BYTES", size)
    content_of(case)
    monkeypatch.setattr("models.nets.onnx_file.MAX_BYTES", size - 1)
    with pytest.raises(Invalid, match=f"{size} bytes.*at most {size - 1}"):
        content_of(case)
