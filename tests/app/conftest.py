"""A real server on a free port, once per session, pictures to send to it, and a browser."""

import io
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from fastapi import FastAPI
from PIL import Image
from playwright.sync_api import Browser, expect, sync_playwright

from app.main import create_app
from app.settings import Settings
from models.diffusion.config import ModelConfig, SamplingConfig
from models.diffusion.model import DiffusionModel
from models.diffusion.schedule import ScheduleConfig
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.pipeline.archive import write_model_archive
from models.pipeline.torch_folder import save_model
from store.locations import Locations

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
MakePicture = Callable[..., bytes]


@contextmanager
def _serve(app: FastAPI) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        assert time.monotonic() < deadline, "the server did not start in time"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


@pytest.fixture(scope="session")
def serve() -> Callable[[FastAPI], "contextmanager[str]"]:
    """serve(app): a context manager that gives the address of a running server."""
    return _serve


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    data_dir: Path = tmp_path_factory.mktemp("data")
    return Settings(
        locations=Locations(data_dir),
        example_model=False,
        max_upload_bytes=2_000_000,
        import_buckets=("photos",),
        max_pixels=1_000_000,
        max_images_per_request=8,
        max_step_pixels=4_000_000,
    )


@pytest.fixture(scope="session")
def base_url(settings: Settings) -> Iterator[str]:
    with _serve(create_app(settings)) as address:
        yield address


@pytest.fixture(scope="session")
def client(base_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def picture() -> MakePicture:
    """picture(width, height, mode, format): an image file with a gradient in it."""

    def make(
        width: int = 24, height: int = 16, mode: str = "RGB", file_format: str = "PNG"
    ) -> bytes:
        buffer = io.BytesIO()
        picture_of_pixels(width, height).convert(mode).save(buffer, file_format)
        return buffer.getvalue()

    return make


def picture_of_pixels(width: int, height: int) -> Image.Image:
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * x / width, 255 * y / height, 127 + 0 * x], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="session")
def model_archive(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """model_archive(image_size, ...): a zip of a small greyscale model with random weights."""

    def make(
        image_size: tuple[int, int] = (8, 8),
        class_names: tuple[str, ...] = (),
        norm_num_groups: int = 4,
        guidance_scale: float = 1.0,
    ) -> bytes:
        folder = tmp_path_factory.mktemp("model")
        net = UNetConfig(
            1,
            1,
            block_out_channels=(8, 8),
            norm_num_groups=norm_num_groups,
            attention_head_dim=4,
            num_class_embeds=len(class_names) + 1 if class_names else None,
        )
        schedule = ScheduleConfig("linear")
        sampling = SamplingConfig(guidance_scale=guidance_scale)
        config = ModelConfig(net, schedule, "v", 0.5, image_size, class_names, sampling=sampling)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = DiffusionModel(config, UNet(net))
            torch.nn.init.normal_(model.net.conv_out.weight, std=0.1)  # else it says 0 to all
        save_model(model, folder / "model", {})
        write_model_archive(folder / "model", folder / "model.zip")
        return (folder / "model.zip").read_bytes()

    return make


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    needs(CHROMIUM, "apt-get install chromium")
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def needs(path: Path, remedy: str) -> None:
    """Skip the test where something is missing that browsers need, or fail if it is required."""
    if not path.exists():
        missing = f"{path} is missing; {remedy}"
        if os.environ.get("DIFFUSION_TEST_BROWSER") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
