"""The network through OpenVINO, which computes it faster on CPUs than torch does.

A graph of models.nets.graph becomes a compiled model in a fraction of a second. Rows of a call are
independent: an image comes out the same, to the bit, at any width, in any slot, in any company, as
long as the precision and the number of threads are the same.

In int8 the inner convolutions multiply integers: 8 bits for each value that enters, with a zero
point, and 7 bits for a weight, by channels of the output. Two products of 8 by 8 bits would leave
the 16 bits in which processors without VNNI add them.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.arrays import Float32, Int64
from models.diffusion.config import ModelConfig
from models.fields import Invalid
from models.nets.config import UNetConfig
from models.nets.graph import Constant, Graph, Node, inner_convolutions, unet_graph
from models.nets.precision import FloatPrecision, Precision, PrecisionChoice, Ranges
from models.runtime.net import EngineModel

# Importing OpenVINO reports that to Google Analytics, unless this package is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino import opset15 as ops  # noqa: E402

NAME = f"OpenVINO {openvino.__version__.partition('-')[0]}"
NUM_CORES = len(os.sched_getaffinity(0))
WIDTHS = (1, 2, 4, 8, 16)  # wider calls take as long for each row
MIN_GAIN = 0.9  # of the time of float32: a smaller gain is not worth other pixels
_HINTS: dict[FloatPrecision, str] = {"float32": "f32", "bfloat16": "bf16"}
_CORE = openvino.Core()


def openvino_engine_model(
    config: ModelConfig, weights: Mapping[str, Float32], cache: Path | None = None
) -> EngineModel:
    """Return a model as the engine runs it; `cache` is a folder for what was measured.

    Raises RuntimeError where OpenVINO cannot.
    """
    graph = unet_graph(config.net, config.image_size)
    nets: dict[tuple[Precision, Ranges], OpenVinoNet] = {}

    def net(precision: Precision, ranges: Ranges = ()) -> OpenVinoNet:
        if (key := (precision, ranges)) not in nets:
            nets[key] = OpenVinoNet(graph, weights, precision, ranges)
        return nets[key]

    net("float32").prepare(WIDTHS[0])
    num_bytes = sum(array.nbytes for array in weights.values())
    return EngineModel(
        config,
        partial(resolve_precision, cache=cache),
        net,
        num_bytes,
        WIDTHS,
        same_rows=True,
        runtime="openvino",
    )


class OpenVinoNet:
    """A network in one precision, compiled for each width of calls when it is first needed.

    A model of one width is up to three times as fast as one for all widths, and gives the same rows
    as one of another width. Its threads are as many as OMP_NUM_THREADS says, or the cores.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Float32],
        precision: Precision = "float32",
        ranges: Ranges = (),
    ) -> None:
        """`ranges` are those of int8. Raises Invalid where there are not as many as are needed."""
        if precision == "int8" and len(ranges) != (count := len(inner_convolutions(graph))):
            rule = f"it needs the ranges of {count} convolutions, and has {len(ranges)}"
            raise Invalid("precision", precision, rule)
        self._graph, self._weights, self._ranges = graph, weights, ranges
        self._settings = {
            "INFERENCE_PRECISION_HINT": "f32" if precision == "int8" else _HINTS[precision],
            "INFERENCE_NUM_THREADS": num_threads(),
            "NUM_STREAMS": 1,
            # Processes with fewer threads than cores would all pin them to the same cores.
            "ENABLE_CPU_PINNING": num_threads() >= NUM_CORES,
        }
        self._requests: dict[int, openvino.InferRequest] = {}
        self.like = np.empty(0, np.float32)

    def prepare(self, width: int) -> bool:
        if width not in self._requests:
            model = openvino_model(self._graph, self._weights, width, self._ranges)
            compiled = _CORE.compile_model(model, "CPU", self._settings)
            self._requests[width] = compiled.create_infer_request()
        return False

    def __call__(self, x: Float32, c_noise: Float32, label: Int64 | None = None) -> Float32:
        self.prepare(len(x))
        inputs: dict[str, Float32 | Int64] = {
            "x": np.ascontiguousarray(x),
            "c_noise": np.ascontiguousarray(c_noise),
        }
        if label is not None:
            inputs["label"] = label
        y: Float32 = self._requests[len(x)].infer(inputs, share_inputs=True)["y"]
        return y

    def free_memory(self) -> None:
        self._requests.clear()


def resolve_precision(choice: PrecisionChoice, cache: Path | None = None) -> Precision:
    """Return the precision that OpenVINO computes in where this is asked for. Without instructions
    for bfloat16 that is float32. `auto` is never int8, which a model must have been measured in."""
    if choice == "int8":
        return "int8"
    has_bfloat16 = "BF16" in _CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if choice == "float32" or not has_bfloat16:
        return "float32"
    return "bfloat16" if choice == "bfloat16" else faster_precision(cache)


def faster_precision(cache: Path | None = None) -> FloatPrecision:
    """Return the precision in which this machine computes faster. It is measured once and kept in
    the folder `cache`, so that the same request gives the same pixels after a restart."""
    machine = f"{_CORE.get_property('CPU', 'FULL_DEVICE_NAME')}, OpenVINO {openvino.__version__}"
    file = cache / "precision.json" if cache else None
    with suppress(OSError, ValueError):
        known = json.loads(file.read_text()) if file else {}
        if known.get("machine") == machine and known.get("precision") in _HINTS:
            return known["precision"]  # type: ignore[no-any-return]
    seconds = {precision: _seconds_of_a_call(precision) for precision in _HINTS}
    faster = seconds["bfloat16"] < MIN_GAIN * seconds["float32"]
    precision: FloatPrecision = "bfloat16" if faster else "float32"
    if file:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            kept = {"machine": machine, "precision": precision, "seconds": seconds}
            file.write_text(json.dumps(kept) + "\n")
    return precision


def _seconds_of_a_call(precision: Precision) -> float:
    """Return the shortest of some calls of a net that is mostly convolutions, as large ones are."""
    config, draw, width = UNetConfig(3, 3, (64, 128)), np.random.default_rng(0), 4
    graph = unet_graph(config, (32, 32))
    weights = {
        name: 0.05 * draw.standard_normal(shape, np.float32)
        for name, shape in graph.parameters.items()
    }
    net, x = OpenVinoNet(graph, weights, precision), np.zeros((width, 3, 32, 32), np.float32)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        net(x, np.zeros(width, np.float32))
        times.append(time.perf_counter() - started)
    return min(times[1:])


def num_threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS") or NUM_CORES)


def openvino_model(
    graph: Graph, weights: Mapping[str, Float32], width: int, ranges: Ranges = ()
) -> openvino.Model:
    """Return the graph for calls of a width, with its weights, which must live as long as it. With
    `ranges` the inner convolutions are in int8."""
    names = inner_convolutions(graph) if ranges else []
    quantised = dict(zip(names, ranges, strict=True))
    inputs = {
        name: ops.parameter([width, *shape], dtype, name=name)
        for name, (dtype, shape) in graph.inputs.items()
    }
    values: dict[str, Any] = {name: parameter.output(0) for name, parameter in inputs.items()}
    for name in graph.parameters:
        values[name] = ops.constant(weights[name], shared_memory=True).output(0)
    constants = graph.constants
    for node in graph.nodes:
        arguments = [constants.get(name, values.get(name)) for name in node.inputs]
        if node.op == "Conv" and (name := node.inputs[1].removesuffix(".weight")) in quantised:
            arguments[0] = _levels_of_input(arguments[0], *quantised[name])
            arguments[1] = _levels_of_weight(arguments[1], weights[node.inputs[1]])
        made = _OPERATORS[node.op](node, *arguments).outputs()
        values.update(zip(node.outputs, made, strict=True))
    y = ops.result(values["y"], name="y")
    y.output(0).tensor.set_names({"y"})
    for name, parameter in inputs.items():
        parameter.output(0).tensor.set_names({name})
    return openvino.Model([y], list(inputs.values()), "unet")


def _levels_of_input(x: Any, low: float, high: float) -> Any:
    """Round to 256 levels over low..high, of which 0 is one, since padding is 0."""
    low, high = min(low, 0.0), max(high, 0.0, 1e-6)
    zero = round(-low / (high - low) * 255)
    step = max(-low / zero if zero else 0.0, high / (255 - zero) if zero < 255 else 0.0)
    ends = np.float32(-step * zero), np.float32(step * (255 - zero))
    return ops.fake_quantize(x, *ends, *ends, 256)


def _levels_of_weight(weight: Any, values: Float32) -> Any:
    """Round to the 127 levels -63..63 of 8 bits, over the largest weight of each output channel."""
    largest = np.abs(values).max(axis=(1, 2, 3), keepdims=True).clip(1e-12)
    end = (largest * np.float32(127 / 63)).astype(np.float32)
    return ops.fake_quantize(weight, -end, end, -end, end, 255)


# Operators of ONNX by those of OpenVINO. Arguments are outputs of nodes, or constants. ------------


def _conv(node: Node, x: Any, weight: Any, bias: Any) -> Any:
    strides, pads = node.attributes["strides"], node.attributes["pads"]
    begin, end = pads[:2], pads[2:]  # type: ignore[index]
    y = ops.convolution(x, weight, strides, begin, end, [1, 1])
    return ops.add(y, ops.reshape(bias, np.array([1, -1, 1, 1]), special_zero=False))


def _gemm(node: Node, x: Any, weight: Any, bias: Any) -> Any:
    return ops.add(ops.matmul(x, weight, False, True), bias)


def _pad(node: Node, x: Any, widths: Constant) -> Any:
    begin, end = np.split(widths, 2)
    return ops.pad(x, begin, end, "constant", np.float32(0.0))


def _average_pool(node: Node, x: Any) -> Any:
    kernel, strides = node.attributes["kernel_shape"], node.attributes["strides"]
    return ops.avg_pool(x, strides, [0, 0], [0, 0], kernel, exclude_pad=False)


def _resize(node: Node, x: Any, region: None, scales: Constant) -> Any:
    how = {**node.attributes, "shape_calculation_mode": "scales"}
    return ops.interpolate(x, scales, axes=np.arange(4), **how)


_OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": lambda node, a, b: ops.add(a, b),
    "AveragePool": _average_pool,
    "Concat": lambda node, *parts: ops.concat(list(parts), node.attributes["axis"]),
    "Conv": _conv,
    "Cos": lambda node, x: ops.cos(x),
    "Gather": lambda node, table, index: ops.gather(table, index, np.int64(0)),
    "Gemm": _gemm,
    "GroupNormalization": lambda node, x, scale, shift: ops.group_normalization(
        x, scale, shift, node.attributes["num_groups"], node.attributes["epsilon"]
    ),
    "MatMul": lambda node, a, b: ops.matmul(a, b, False, False),
    "Mul": lambda node, a, b: ops.multiply(a, b),
    "Pad": _pad,
    "Reshape": lambda node, x, shape: ops.reshape(x, shape, special_zero=True),
    "Resize": _resize,
    "Sigmoid": lambda node, x: ops.sigmoid(x),
    "Sin": lambda node, x: ops.sin(x),
    "Softmax": lambda node, x: ops.softmax(x, node.attributes["axis"]),
    "Split": lambda node, x: ops.split(
        x, np.int64(node.attributes["axis"]), node.attributes["num_outputs"]
    ),
    "Transpose": lambda node, x: ops.transpose(x, np.array(node.attributes["perm"])),
    "Unsqueeze": lambda node, x, axes: ops.unsqueeze(x, axes),
}
