"""diffusers without a server: one line of JSON on standard output for each on standard input.

{"seeds": [1, 2], "num_inference_steps": 10}      images by the pipeline
{"noise": FILE.npy, "num_inference_steps": 10}    the pipeline's loop from this noise
"""

import base64
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from ddim import best_device, generate, load


def main() -> None:
    pipeline = load(best_device())
    for line in sys.stdin:
        request = json.loads(line)
        started = time.perf_counter()
        if "noise" in request:
            images = from_noise(pipeline, **request)
        else:
            images = generate(pipeline, **request)
        seconds = time.perf_counter() - started
        pixels = np.stack([np.asarray(image) for image in images])
        encoded = base64.b64encode(pixels.tobytes()).decode()
        print(
            json.dumps({"seconds": seconds, "shape": pixels.shape, "pixels": encoded}), flush=True
        )


@torch.inference_mode()
def from_noise(pipeline: Any, noise: str, num_inference_steps: int) -> list[Any]:
    x = torch.from_numpy(np.load(noise)).to(pipeline.device)
    pipeline.scheduler.set_timesteps(num_inference_steps)
    for t in pipeline.scheduler.timesteps:
        output = pipeline.unet(x, t).sample
        x = pipeline.scheduler.step(output, t, x, use_clipped_model_output=True).prev_sample
    return pipeline.numpy_to_pil((x / 2 + 0.5).clamp(0, 1).cpu().permute(0, 2, 3, 1).numpy())


if __name__ == "__main__":
    main()
