"""This service's network: one line of JSON on standard output for each on standard input.

`python -m benchmarks.denoise_process WAY`, where `engine` calls the network as the engine does, and
`eager` by torch without preparing anything. The protocol is that of peers/denoise_process.py, but
for `compiled`. Each way has a process of its own, since threads of one library that wait for work
would slow those of the other.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from models.nets.precision import Precision
from models.pipeline.engine_model import load_engine_model
from models.runtime.device import device_of_torch
from models.runtime.net import EngineModel, EngineNet

WARM_UP_CALLS = 8  # a GPU's graph of a width is captured after a few


class Ours:
    def __init__(self, way: str) -> None:
        self._prepares = way == "engine"
        self._model = _engine_model() if self._prepares else _eager_model()
        self._nets: dict[Precision, EngineNet] = {}
        self._warm: set[tuple[Precision, int]] = set()

    def answer(
        self, dtype: Precision, inputs: str, seconds: float, output: str = ""
    ) -> dict[str, float]:
        if dtype not in self._nets:
            self._nets[dtype] = self._model.net(dtype)
        net, arrays = self._nets[dtype], np.load(inputs)
        x, c_noise = (_like(net, arrays[name]) for name in ("x", "c_noise"))
        kind = dtype, len(x)
        for _ in range(1 if kind in self._warm else WARM_UP_CALLS):
            if self._prepares:
                net.prepare(len(x))
            y = net(x, c_noise, None)
        self._warm.add(kind)
        if output:
            np.save(output, y if isinstance(y, np.ndarray) else y.float().cpu().numpy())
        times: list[float] = []
        while sum(times) < seconds:
            started = time.perf_counter()
            net(x, c_noise, None)
            _wait_for(net)
            times.append(time.perf_counter() - started)
        return {"seconds": statistics.median(times) if times else 0.0}


def _engine_model() -> EngineModel:
    device = device_of_torch()
    model = load_engine_model(_folder(), device)
    assert model.runtime == ("torch" if device == "cuda" else "openvino")
    return model


def _eager_model() -> EngineModel:
    from models.pipeline.torch_folder import load_model
    from models.runtime.torch_net import torch_engine_model

    return torch_engine_model(load_model(_folder(), device_of_torch()))


def _folder() -> Path:
    return Path(os.environ["MODEL_FOLDER"])


def _like(net: EngineNet, array: np.ndarray) -> Any:
    if isinstance(net.like, np.ndarray):
        return array
    import torch

    return torch.from_numpy(array).to(net.like.device)


def _wait_for(net: EngineNet) -> None:
    if not isinstance(net.like, np.ndarray) and net.like.is_cuda:
        import torch

        torch.cuda.synchronize()


def main() -> None:
    ours = Ours(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(ours.answer(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
