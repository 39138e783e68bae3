"""This service's network: one line of JSON on standard output for each on standard input.

`python -m benchmarks.denoise_process WAY` calls it in one of these ways:

    engine         as the engine does
    eager          by torch, without preparing anything
    openvino       by OpenVINO from an ONNX file, in its own loop: what the engine can come near to
    onnxruntime    the same by ONNX Runtime

The protocol is that of peers/denoise_process.py, but for `compiled`. Each way has a process of its
own, since threads of one library that wait for work would slow those of the other.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from models.arrays import AnyArray, Float32
from models.nets.graph import unet_graph
from models.nets.onnx_file import onnx_file
from models.nets.precision import Precision
from models.pipeline.engine_model import load_engine_model
from models.pipeline.folder import read_config, read_weights
from models.runtime.device import device_of_torch
from models.runtime.net import EngineModel

WARM_UP_CALLS = 8  # a GPU's graph of a width is captured after a few
FOLDER = Path(os.environ["MODEL_FOLDER"])
NUM_CORES = len(os.sched_getaffinity(0))

Call = Callable[[], Any]  # of the network, with inputs that are in place; returns y


def engine() -> Callable[[Precision, Float32, Float32], Call]:
    device = device_of_torch()
    model = load_engine_model(FOLDER, device)
    assert model.runtime == ("torch" if device == "cuda" else "openvino")
    return lambda dtype, x, c_noise: _through_engine(model, dtype, x, c_noise, prepares=True)


def eager() -> Callable[[Precision, Float32, Float32], Call]:
    from models.pipeline.torch_folder import load_model
    from models.runtime.torch_net import torch_engine_model

    model = torch_engine_model(load_model(FOLDER, device_of_torch()))
    return lambda dtype, x, c_noise: _through_engine(model, dtype, x, c_noise, prepares=False)


def _through_engine(
    model: EngineModel, dtype: Precision, x: AnyArray, c_noise: AnyArray, *, prepares: bool
) -> Call:
    net = model.net(dtype)
    is_torch = not isinstance(net.like, np.ndarray)
    if is_torch:
        import torch

        x, c_noise = (torch.from_numpy(array).to(net.like.device) for array in (x, c_noise))

    def call() -> Any:
        y = net(x, c_noise, None)
        if is_torch and net.like.is_cuda:
            torch.cuda.synchronize()
        return y

    for _ in range(WARM_UP_CALLS if prepares else 0):
        net.prepare(len(x))
        call()
    return call


def openvino() -> Callable[[Precision, Float32, Float32], Call]:
    import openvino

    import models.runtime.openvino  # noqa: F401  keeps OpenVINO from reporting that it is imported

    core, content = openvino.Core(), _onnx()

    def bare(dtype: Precision, x: Float32, c_noise: Float32) -> Call:
        network = core.read_model(content)
        network.reshape({"x": list(x.shape), "c_noise": list(c_noise.shape)})
        hints = {
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[dtype],
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = core.compile_model(network, "CPU", hints).create_infer_request()
        inputs = {"x": x, "c_noise": c_noise}
        return lambda: request.infer(inputs, share_inputs=True)["y"]

    return bare


def onnxruntime() -> Callable[[Precision, Float32, Float32], Call]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = NUM_CORES
    session = onnxruntime.InferenceSession(_onnx(), options, ["CPUExecutionProvider"])

    def bare(dtype: Precision, x: Float32, c_noise: Float32) -> Call:
        inputs = {"x": x, "c_noise": c_noise}  # always in float32
        return lambda: session.run(["y"], inputs)[0]

    return bare


def _onnx() -> bytes:
    config = read_config(FOLDER)
    graph = unet_graph(config.net, config.image_size)
    return b"".join(onnx_file(graph, read_weights(FOLDER, config)))


WAYS = {way.__name__: way for way in (engine, eager, openvino, onnxruntime)}


def main() -> None:
    load, calls = WAYS[sys.argv[1]](), dict[tuple[Precision, str], Call]()
    for line in sys.stdin:
        request = json.loads(line)
        dtype, inputs = request["dtype"], request["inputs"]
        if (dtype, inputs) not in calls:
            arrays = np.load(inputs)
            calls[dtype, inputs] = load(dtype, arrays["x"], arrays["c_noise"])
        answer = measured(calls[dtype, inputs], request["seconds"], request.get("output"))
        print(json.dumps({"seconds": answer}), flush=True)


def measured(call: Call, seconds: float, output: str | None) -> float:
    """Return the median time of calls that fill `seconds`, after one that is not timed, whose
    result is saved as `output`."""
    y = call()
    if output:
        np.save(output, y if isinstance(y, np.ndarray) else y.float().cpu().numpy())
    times: list[float] = []
    while sum(times) < seconds:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) if times else 0.0


if __name__ == "__main__":
    main()
