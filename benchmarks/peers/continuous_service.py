"""LitServe with its loop for continuous batching: `python continuous_service.py PORT`.

One call of the network takes every row one step, each at its own timestep, and new rows join before
the next call.

The design follows from reading and measuring the loop. It looks at requests that it holds back only
when another one arrives or a second has passed, so all are admitted and the queue is here. It calls
`step` from changing threads, each with its own OpenMP team, so a single thread runs the network. It
sleeps 10 ms after a step without outputs, and outputs at each step cost milliseconds too, so `step`
returns when an image is finished; requests are admitted meanwhile. The output that ends an answer
carries no data, so it follows the image.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import litserve as ls
import torch
from ddim import load, png
from litserve.loops import ContinuousBatchingLoop, Output
from litserve.utils import LitAPIStatus
from torch import Tensor

MAX_BATCH_SIZE = 16


@dataclass
class Row:
    """An image on its way: x (C, H, W) before it is denoised at the first of `timesteps`."""

    x: Tensor
    timesteps: list[int]
    stride: int


class Sample(ls.LitAPI):
    def setup(self, device: str) -> None:
        pipeline = load(device)
        self.pipeline, self.unet = pipeline, pipeline.unet
        self.scheduler = pipeline.scheduler
        # One more level at the end, at index -1: the clean image.
        self.alphas_cumprod = torch.cat(
            [self.scheduler.alphas_cumprod, self.scheduler.final_alpha_cumprod[None]]
        ).to(device)
        self.rows: dict[str, Row] = {}
        self.thread = ThreadPoolExecutor(1)

    def add_request(self, uid: str, request: dict[str, Any]) -> None:
        config = self.unet.config
        shape = (1, config.in_channels, config.sample_size, config.sample_size)
        generator = torch.Generator().manual_seed(request["seed"])
        num_inference_steps = request["num_inference_steps"]
        self.scheduler.set_timesteps(num_inference_steps)
        self.rows[uid] = Row(
            torch.randn(shape, generator=generator)[0].to(self.unet.device),
            self.scheduler.timesteps.tolist(),
            self.scheduler.config.num_train_timesteps // num_inference_steps,
        )

    def has_capacity(self) -> bool:
        return True

    def has_active_requests(self) -> bool:
        return bool(self.rows)

    def step(self, previous: list[Output] | None) -> list[Output]:
        outputs = []
        for uid in self.thread.submit(self.denoise_until_one_is_finished).result():
            outputs.append(Output(uid, self.rows.pop(uid).x, LitAPIStatus.OK))
            outputs.append(Output(uid, None, LitAPIStatus.FINISH_STREAMING))
        return outputs

    def denoise_until_one_is_finished(self) -> list[str]:
        finished: list[str] = []
        while not finished:
            batch = list(self.rows.items())[:MAX_BATCH_SIZE]  # first come, first served
            self.denoise([row for _, row in batch])
            finished = [uid for uid, row in batch if not row.timesteps]
        return finished

    @torch.inference_mode()
    def denoise(self, rows: list[Row]) -> None:
        """Take DDIM's step (eta 0) with all rows, each from its own timestep to its next."""
        x = torch.stack([row.x for row in rows])
        t = torch.tensor([row.timesteps.pop(0) for row in rows], device=x.device)
        stride = torch.tensor([row.stride for row in rows], device=x.device)
        output = self.unet(x, t).sample
        alpha, sigma = self.levels(t)
        next_alpha, next_sigma = self.levels((t - stride).clamp(min=-1))
        if self.scheduler.config.prediction_type == "v_prediction":
            x0 = alpha * x - sigma * output
        else:
            x0 = (x - sigma * output) / alpha
        x0 = x0.clamp(-1, 1)
        x = next_alpha * x0 + next_sigma * (x - alpha * x0) / sigma
        for row, denoised in zip(rows, x, strict=True):
            row.x = denoised

    def levels(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alphas_cumprod = self.alphas_cumprod[t][:, None, None, None]
        return alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt()

    def encode_response(self, x: Tensor | None) -> bytes:
        if x is None:
            return b""
        pixels = (x[None] / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
        return png(self.pipeline.numpy_to_pil(pixels)[0])


if __name__ == "__main__":
    api = Sample(stream=True, loop=ContinuousBatchingLoop(), api_path="/sample")
    ls.LitServer(api, fast_queue=True).run(
        port=int(sys.argv[1]), host="127.0.0.1", generate_client_file=False, log_level="warning"
    )
