"""The images of a job, made in parts by its own process and by helpers (store.jobs.parts).

Each image is an artifact as soon as it is made, whoever makes it.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

from models.engine.alone import engine_steps
from models.engine.orders import Made, Started
from models.images.files import encode_image
from models.images.recipe import Recipe, as_made, of_image
from models.nets.precision import PrecisionChoice, ranges_of
from models.pipeline.engine_model import load_engine_model
from models.runtime.net import EngineModel
from models.sampling.request import SampleRequest, plan_for
from store import nodes
from store.jobs import parts, requests
from store.jobs.configs import SampleJobConfig
from store.jobs.parts import ImagePart
from store.jobs.sample_images import image_key
from worker.job_process import JobProcess, Stopped
from worker.queue import make_queue, submit

KEEP_SECONDS = 1.0  # between two writes of how far a part is
WAIT_SECONDS = 0.2  # between two looks at the parts that others make


class SharedOrder:
    """The images of a job, for its own process: made here, and by helpers where there are any. An
    attempt goes on with what the one before it left."""

    def __init__(self, process: JobProcess, config: SampleJobConfig, model: EngineModel) -> None:
        precision = model.precision(cast(PrecisionChoice, config.precision))
        config = replace(config, precision=precision)
        order = parts.lay_out(
            process.database, process.job_id, config, process.device, model.computed_by
        )
        self.config = SampleJobConfig.from_dict(order.config)
        self._process, self._maker = process, ImageMaker(process, self.config, model)

    def images(self) -> Iterator[list[Made]]:
        """Make the images until all of them are there; yield those made here, after each network
        call, and an empty list now and then while helpers make the last. Raises Stopped."""
        process = self._process
        invite_helpers(process)
        while True:
            for part in self._maker.parts():
                yield from self._maker.make(part)
            if process.stop.is_set():
                raise Stopped
            if self.num_made() == self.config.num_images:
                return
            process.stop.wait(WAIT_SECONDS)
            yield []

    def num_made(self) -> int:
        return parts.num_made(self._process.database, self._process.job_id)


class ImageMaker:
    """Makes the parts that it can have, one after the other, in any process of a job."""

    def __init__(self, process: JobProcess, config: SampleJobConfig, model: EngineModel) -> None:
        self._process, self._config, self._model = process, config, model
        self._plan = plan_for(model.config, SampleRequest.from_dict(config.request))
        self._recipe: Recipe | None = config.recipe

    def parts(self) -> Iterator[ImagePart]:
        """Yield each part that this process holds from now on, until there is none to take."""
        process = self._process
        lease, by_helper = process.settings.lease_seconds, not process.in_charge
        while not process.stop.is_set():
            part = parts.take_part(process.database, process.job_id, lease, by_helper=by_helper)
            if part is None:
                return
            yield part

    def make(self, part: ImagePart) -> Iterator[list[Made]]:
        """Make the rest of a part, and yield the images after each network call. It ends early
        where the process is asked to leave or the job needs no more images; what is made is then
        recorded, and the part free for others."""
        process, kept_at = self._process, time.monotonic()
        made, beyond = part.made, set[int]()
        for images in self._calls(part):
            beyond.update(image.image for image in images)
            while part.first + made in beyond:
                beyond.remove(part.first + made)
                made += 1
            yield images
            if process.stop.is_set() or time.monotonic() - kept_at > KEEP_SECONDS:
                goes_on = self._keep(part, made)
                kept_at = time.monotonic()
                if process.stop.is_set() or not goes_on:
                    parts.give_up_part(process.database, part)
                    return
        self._keep(part, made)

    def _keep(self, part: ImagePart, made: int) -> bool:
        lease = self._process.settings.lease_seconds
        return parts.keep_part(self._process.database, part, made, lease)

    def _calls(self, part: ImagePart) -> Iterator[list[Made]]:
        """Make and store the rest of a part, in any order; yield what each network call made."""
        config = self._config
        steps = engine_steps(
            self._model,
            self._plan,
            deterministic=config.deterministic,
            precision=cast(PrecisionChoice, config.precision),
            ranges=ranges_of(config.ranges),
            first_image=part.first + part.made,
            count=part.count - part.made,
        )
        for events in steps:
            for event in events:
                if isinstance(event, Started) and self._recipe is not None:
                    computed = (event.precision, event.computed_by, event.exact)
                    self._recipe = as_made(self._recipe, *computed)
                if isinstance(event, Made):
                    self._store(event)
            yield [event for event in events if isinstance(event, Made)]

    def _store(self, image: Made) -> None:
        recipe = None if self._recipe is None else of_image(self._recipe, image.image)
        key = image_key(self._process.job_id, image.image)
        self._process.artifacts.put_bytes(key, encode_image(image.pixels, "png", recipe))


def load_model(process: JobProcess, config: SampleJobConfig) -> EngineModel:
    """Load the model of an order, for the process's device. Raises JobFailed and
    ArtifactDamaged."""
    cache = process.settings.locations.data_dir / "cache"

    def load(folder: Path, device: str) -> EngineModel:
        return load_engine_model(folder, "cpu" if config.precision == "int8" else device, cache)

    return process.fetch_model(config.prefix, config.digest, load)


def num_helpers(process: JobProcess) -> int:
    """Return how many workers other than the job's own could help with its images."""
    owner = requests.get_job(process.database, process.job_id).owner
    workers = nodes.live_nodes(process.database, "worker")
    return sum("sample" in node.kinds and node.id != owner for node in workers)


def invite_helpers(process: JobProcess) -> None:
    """Wake as many workers as could help and have a part to make; who is busy comes later."""
    left = sum(
        part.made < part.count for part in parts.list_parts(process.database, process.job_id)
    )
    if others := min(num_helpers(process), left - 1):
        queue = make_queue(process.settings.locations.redis_url)
        for _ in range(others):
            submit(queue, process.job_id, "sample")
