"""A plain service with FastAPI and diffusers: POST /noise takes an image and t, returns a PNG.

`/plain/noise` is written as in the tutorials of both. `/tuned/noise` is optimised for small images:
no change of threads, and the fastest PNG level.
"""

import io
from typing import Annotated

import cpu_torchvision  # noqa: F401  lets diffusers import torchvision with torch for a CPU
import numpy as np
import torch
from diffusers import DDPMScheduler
from fastapi import FastAPI, File, Form, Response, UploadFile
from PIL import Image

app = FastAPI()
scheduler = DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02)

Timestep = Annotated[int, Form(ge=0, le=999)]


@app.post("/plain/noise")
def plain(image: Annotated[UploadFile, File()], t: Timestep) -> Response:
    return Response(add_noise(image.file.read(), t, 6), media_type="image/png")


@app.post("/tuned/noise")
async def tuned(image: Annotated[UploadFile, File()], t: Timestep) -> Response:
    return Response(add_noise(await image.read(), t, 1), media_type="image/png")


def add_noise(data: bytes, t: int, compress_level: int) -> bytes:
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    x_0 = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
    x_t = scheduler.add_noise(x_0, torch.randn_like(x_0), torch.tensor([t]))
    pixels = ((x_t[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=compress_level)
    return buffer.getvalue()
