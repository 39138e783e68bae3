"""The sampling engine: `python -m app.engine_process SOCKET`, a process of its own.

A loop that launches network calls would hold the interpreter lock against the HTTP server, and what
brings it down must not bring down the API. One request per connection; a caller that closes its
connection is not sampled for any further. It leaves when its standard input ends.
"""

import asyncio
import os
import shutil
import sys
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from app.engine_wire import SampleRequest, receive, send
from app.logs import configure_logs, log
from app.settings import Settings
from models.folder import load_model
from models.generate import Stopped, sample_images
from models.model import DiffusionModel
from store.artifacts import ArtifactStore

MAX_MODELS = 4


def main() -> None:
    settings = Settings()
    configure_logs(settings.log_level, settings.log_format)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    asyncio.run(_serve(Path(sys.argv[1]), Engine(settings)))


class Engine:
    def __init__(self, settings: Settings) -> None:
        self._artifacts = ArtifactStore(settings.locations.artifacts_url)
        self._cache = settings.locations.data_dir / "cache" / "models"
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._models: OrderedDict[str, DiffusionModel] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")  # one device, one at once

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = threading.Event()
        watching: asyncio.Task[None] | None = None
        try:
            header, _ = await receive(reader)
            request = SampleRequest(**header)
            watching = asyncio.create_task(_watch(reader, left))
            loop = asyncio.get_running_loop()
            try:
                images = await loop.run_in_executor(self._thread, self._sample, request, left)
            except ValueError as error:
                await send(writer, {"error": str(error)})
            else:
                await send(writer, {"shape": images.shape}, images.tobytes())
        except (ConnectionError, asyncio.IncompleteReadError, Stopped):
            pass
        except Exception:
            log.exception("sampling failed")
            with suppress(ConnectionError):
                await send(writer, {"failed": True})
        finally:
            if watching:
                watching.cancel()
            writer.close()

    def _sample(self, request: SampleRequest, left: threading.Event) -> NDArray[np.uint8]:
        if left.is_set():
            raise Stopped
        return sample_images(
            self._model(request),
            num_images=request.num_images,
            seed=request.seed,
            sampler=request.sampler,
            num_inference_steps=request.num_inference_steps,
            labels=request.labels,
            guidance_scale=request.guidance_scale,
            eta=request.eta,
            stopped=left.is_set,
        )

    def _model(self, request: SampleRequest) -> DiffusionModel:
        """The least recently used makes room."""
        key = f"{request.prefix}@{request.digest}"
        if key not in self._models:
            folder = self._cache / request.digest
            if not folder.exists():
                part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
                shutil.rmtree(part, ignore_errors=True)
                self._artifacts.download_folder(request.prefix, part)
                part.rename(folder)
            try:
                self._models[key] = load_model(folder, self._device)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            while len(self._models) > MAX_MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(key)
        return self._models[key]


async def _serve(path: Path, engine: Engine) -> None:
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(engine.answer, path)
    async with server:
        await server.serve_forever()


async def _watch(reader: asyncio.StreamReader, left: threading.Event) -> None:
    await reader.read()
    left.set()


def _leave_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 4096):  # a buffered read would hold its lock at exit
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
