"""The models in the engine's memory; the least recently used make room for others."""

import asyncio
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

from app.engine.checkpoint import make_model_folder
from models.pipeline.engine_model import load_checked, load_engine_model
from models.runtime.net import EngineModel
from store.artifacts import ArtifactStore
from store.model_files import fetch_model

Key = tuple[str, str]  # an artifact prefix, and the digest of the weights below it


class ModelCache:
    """`max_bytes` of weights on `device`; the newest model stays whatever it weighs. `forgotten` is
    called with each key that made room; users of such a model keep it until they are done."""

    def __init__(
        self,
        artifacts: ArtifactStore,
        folder: Path,
        device: str,
        max_bytes: int,
        forgotten: Callable[[Key], None],
    ) -> None:
        self._artifacts, self._folder, self._device = artifacts, folder, device
        self._max_bytes, self._forgotten = max_bytes, forgotten
        self._models: OrderedDict[Key, EngineModel] = OrderedDict()
        self._loading: dict[Key, asyncio.Task[EngineModel]] = {}

    async def get(self, key: Key, files: Mapping[str, str] | None = None) -> EngineModel:
        """Return a model, loading it once however many callers wait; `files` are as in
        fetch_model. Raises ValueError, ArtifactNotFound and ArtifactDamaged."""
        if key in self._models:
            self._models.move_to_end(key)
            return self._models[key]
        if key not in self._loading:
            task = asyncio.create_task(asyncio.to_thread(self._load, key, files))
            task.add_done_callback(lambda task: self._keep(key, task))
            self._loading[key] = task
        return await asyncio.shield(self._loading[key])

    async def check(self, key: Key, folder: Path) -> None:
        """Load a model that is about to be stored under this key, and call its network once. It is
        kept: it will be used soon. Raises Invalid."""
        cache = self._folder.parent
        model = await asyncio.to_thread(load_checked, folder, self._device, cache)
        self._add(key, model)

    def _keep(self, key: Key, task: "asyncio.Task[EngineModel]") -> None:
        del self._loading[key]
        if task.cancelled() or task.exception():
            return
        self._add(key, task.result())

    def _add(self, key: Key, model: EngineModel) -> None:
        self._models[key] = model
        sizes = {key: model.num_bytes for key, model in self._models.items()}
        while len(sizes) > 1 and sum(sizes.values()) > self._max_bytes:
            oldest, _ = self._models.popitem(last=False)
            del sizes[oldest]
            self._forgotten(oldest)

    def _load(self, key: Key, files: Mapping[str, str] | None) -> EngineModel:
        prefix, digest = key
        folder = self._folder / f"{digest}-{os.getpid()}"
        shutil.rmtree(folder, ignore_errors=True)
        try:
            fetch_model(self._artifacts, prefix, digest, files, folder)
            make_model_folder(folder)
            return load_engine_model(folder, self._device, self._folder.parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
