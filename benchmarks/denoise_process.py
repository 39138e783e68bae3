"""This service's network: one line of JSON on standard output for each on standard input.

The protocol is that of peers/denoise_process.py, with `way` in place of `compiled`: `openvino`, as
the engine calls it, or `torch`, eager. Each way is measured in a process of its own, since threads
of one library that wait for work would slow those of the other.
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


class Ours:
    def __init__(self, way: str) -> None:
        self._way, self._folder = way, Path(os.environ["MODEL_FOLDER"])
        self._nets: dict[str, Callable[..., Any]] = {}

    def answer(self, dtype: str, inputs: str, seconds: float, output: str = "") -> dict[str, float]:
        net, arrays = self._net(dtype), np.load(inputs)
        x, c_noise = arrays["x"], arrays["c_noise"]
        if self._way == "torch":
            import torch

            x, c_noise = torch.from_numpy(x), torch.from_numpy(c_noise)
        y = net(x, c_noise, None)
        if output:
            np.save(output, np.asarray(y if self._way == "openvino" else y.float()))
        times: list[float] = []
        while sum(times) < seconds:
            started = time.perf_counter()
            net(x, c_noise, None)
            times.append(time.perf_counter() - started)
        return {"seconds": statistics.median(times) if times else 0.0}

    def _net(self, dtype: str) -> Callable[..., Any]:
        if dtype not in self._nets:
            self._nets[dtype] = self._load(dtype)
        return self._nets[dtype]

    def _load(self, dtype: str) -> Callable[..., Any]:
        if self._way == "torch":
            from models.pipeline.torch_folder import load_model
            from models.runtime.torch_net import torch_engine_model

            return torch_engine_model(load_model(self._folder)).net(dtype)  # type: ignore[arg-type]
        from models.pipeline.engine_model import load_engine_model

        model = load_engine_model(self._folder)
        assert model.runtime == "openvino"
        return model.net(dtype)  # type: ignore[arg-type]


def main() -> None:
    ours = Ours(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(ours.answer(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
