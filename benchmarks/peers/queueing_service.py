"""A plain service with FastAPI and diffusers: POST /sample, one request after another.

A single thread runs the pipeline. A lock around the pipeline in endpoints of the thread pool would
do the same at half the speed, probably because each thread that calls torch has its own team of
OpenMP threads.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from ddim import best_device, generate, load, png
from fastapi import FastAPI, Response
from pydantic import BaseModel


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.pipeline = load(best_device())
    yield


app = FastAPI(lifespan=lifespan)
one_at_a_time = ThreadPoolExecutor(1)


class Body(BaseModel):
    num_inference_steps: int
    seed: int


@app.post("/sample")
async def sample(body: Body) -> Response:
    content = await asyncio.get_running_loop().run_in_executor(one_at_a_time, image, body)
    return Response(content, media_type="image/png")


def image(body: Body) -> bytes:
    return png(generate(app.state.pipeline, [body.seed], body.num_inference_steps)[0])
