"""diffusers' UNet2DModel: one line of JSON on standard output for each on standard input.

{"dtype": "float32", "compiled": false, "inputs": FILE.npz, "seconds": 0.5} calls the network with
the arrays `x` and `c_noise` of the file for the given seconds, after untimed ones, and answers
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
from ddim import compiled as compiled_net
from diffusers import UNet2DModel

WARM_UP_CALLS = 8  # compiling and capturing take the first few


class Peer:
    def __init__(self) -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._nets: dict[tuple[str, bool], Any] = {}
        self._warm: set[tuple[str, bool, int]] = set()

    def net(self, dtype: str, compiled: bool) -> Any:
        """Load the net: eager, or compiled."""
        if (dtype, compiled) not in self._nets:
            net = UNet2DModel.from_pretrained(
                os.environ["MODEL_FOLDER"],
                subfolder="unet",
                use_safetensors=True,
                low_cpu_mem_usage=False,
                torch_dtype=getattr(torch, dtype),
            )
            net = net.eval().to(best_device())
            self._nets[dtype, compiled] = compiled_net(net) if compiled else net
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
        for _ in range(1 if (dtype, compiled, len(x)) in self._warm else WARM_UP_CALLS):
            y = net(x, c_noise).sample.float().cpu()
        self._warm.add((dtype, compiled, len(x)))
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
