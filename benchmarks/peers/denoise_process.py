"""diffusers' UNet2DModel: one line of JSON on standard output for each on standard input.

{"dtype": "float32", "compiled": false, "inputs": FILE.npz, "seconds": 0.5} calls the network with
the arrays `x` and `c_noise` of the file for the given seconds, after an untimed call, and answers
with the median time of a call. With "output": FILE.npy it saves the network's output there.
"""

import json
import os
import statistics
import sys
import time
from typing import Any

import numpy as np
import torch
from ddim import best_device
from diffusers import UNet2DModel

torch._dynamo.config.recompile_limit = 64  # each width is compiled separately


class Peer:
    def __init__(self) -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._nets: dict[tuple[str, bool], Any] = {}

    def net(self, dtype: str, compiled: bool) -> Any:
        """Load the net: eager, or compiled in channels_last as diffusers' documentation advises."""
        if (dtype, compiled) not in self._nets:
            net = UNet2DModel.from_pretrained(
                os.environ["MODEL_FOLDER"],
                subfolder="unet",
                use_safetensors=True,
                low_cpu_mem_usage=False,
                torch_dtype=getattr(torch, dtype),
            )
            net = net.eval().to(best_device())
            if compiled:
                net = torch.compile(net.to(memory_format=torch.channels_last), dynamic=False)
            self._nets[dtype, compiled] = net
        return self._nets[dtype, compiled]

    @torch.inference_mode()
    def answer(
        self, dtype: str, compiled: bool, inputs: str, seconds: float, output: str = ""
    ) -> dict[str, float]:
        net, arrays = self.net(dtype, compiled), np.load(inputs)
        device = best_device()
        x = torch.from_numpy(arrays["x"]).to(device, getattr(torch, dtype))
        if compiled:
            x = x.contiguous(memory_format=torch.channels_last)
        c_noise = torch.from_numpy(arrays["c_noise"]).to(device)
        y = net(x, c_noise).sample.float().cpu()
        if output:
            np.save(output, y.numpy())
        times: list[float] = []
        while sum(times) < seconds:
            started = time.perf_counter()
            net(x, c_noise)
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
        return {"seconds": statistics.median(times) if times else 0.0}


def main() -> None:
    peer = Peer()
    for line in sys.stdin:
        print(json.dumps(peer.answer(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
