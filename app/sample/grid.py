"""The cells of a grid: a request for each, resolved before anything is made, and their images.

Cells are orders of their own, so that each image is the one that POST /sample gives. All have the
same seed, and so the same noise, unless seeds are an axis.
"""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from pydantic import ValidationError

from app.engine.client import EngineClient
from app.http.errors import InvalidInput, RequestError, invalid_input
from app.http.problems import FieldError
from app.sample.answer import Collected
from app.sample.grid_schema import ALONE, GridAxis, GridBody, GridSetting
from app.sample.request import Pictures, resolve
from app.sample.schema import SampleBody
from app.settings import Settings
from models.engine.orders import Event, Order
from models.images.labelled_grid import LabelledGrid
from models.pipeline.card import ModelCard
from store.models import ModelRecord

AT_ONCE = 16  # cells that the engine is asked for at the same time; other requests need its places

NAMES: Mapping[str, str] = {  # of settings, as people call them
    "class_label": "class",
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
}
Value = int | float | str | None
CHECKPOINT = "checkpoint"  # in place of the name of a model


@dataclass(frozen=True)
class Place:
    """Where a cell is: its column and row, and the values of both axes there."""

    x: int
    y: int
    values: Mapping[GridSetting, tuple[str, Value]]  # the JSON pointer of each, and the value

    @property
    def name(self) -> str:
        return ", ".join(
            f"{name_of(setting)} {shown(value)}" for setting, (_, value) in self.values.items()
        )

    def refusal(self, error: InvalidInput) -> InvalidInput:
        """Return an error about this cell: at the values of the axes where these are at fault."""
        return InvalidInput([self._moved(each) for each in error.errors])

    def _moved(self, error: FieldError) -> FieldError:
        field = (error.pointer or "").split("/")[1:2]
        for setting, (pointer, _) in self.values.items():
            if field == [setting]:
                return error.model_copy(update={"pointer": pointer})
        return error.model_copy(update={"detail": f"{error.detail} (in the cell of {self.name})"})


@dataclass(frozen=True)
class Request:
    """The request of one cell."""

    place: Place
    body: SampleBody

    @property
    def source(self) -> str | int:
        """The name of its model, or the step of its checkpoint."""
        _, step = self.place.values.get("checkpoint", ("", None))
        return self.body.model if step is None else int(step)


@dataclass(frozen=True)
class Cell:
    place: Place
    order: Order
    collected: Collected
    image_size: tuple[int, int]


def requests_of(body: GridBody, max_cells: int) -> list[Request]:
    """Return the requests of all cells, row by row. Raises InvalidInput."""
    if body.y is not None and body.y.setting == body.x.setting:
        raise InvalidInput.pointer("/y/setting", f"both x and y are {body.x.setting}")
    axes = [axis.setting for axis in (body.x, body.y) if axis is not None]
    _check_sources(body, axes)
    count = len(body.x.values) * len(body.y.values if body.y else [None])
    if count > max_cells:
        raise InvalidInput.pointer(
            "/x/values", f"there are {count} cells; their number must lie in 1..{max_cells}"
        )
    given = body.model_dump(exclude={"x", "y", "job", *ALONE}, exclude_unset=True)
    if "checkpoint" in axes:
        given["model"] = CHECKPOINT
    if body.seed is None:
        given["seed"] = secrets.randbits(32)
    requests: list[Request] = []
    errors: list[FieldError] = []
    for place in _places(body):
        try:
            requests.append(Request(place, _body_of(given, place)))
        except InvalidInput as error:
            errors += error.errors
    _raise_if(errors)
    return requests


def cells_of(
    requests: Sequence[Request],
    models: Mapping[str | int, tuple[ModelRecord, ModelCard]],
    settings: Settings,
    watched: bool,
) -> list[Cell]:
    """Resolve all requests. Raises InvalidInput with what is wrong with any cell."""
    cells: list[Cell] = []
    errors: list[FieldError] = []
    pictures: Pictures = {}
    if any("checkpoint" in request.place.values for request in requests):
        settings = replace(settings, recipe=False)  # no model by which to make the images again
    for request in requests:
        record, card = _model_of(request, models)
        try:
            resolved = resolve(request.body, record, card, settings, 1, watched, pictures)
        except InvalidInput as error:
            errors += request.place.refusal(error).errors
            continue
        order = resolved.order
        collected = Collected(
            resolved.used, order.plan.t, False, resolved.warnings, resolved.recipe
        )
        cells.append(Cell(request.place, order, collected, card.image_size))
    _raise_if(errors)
    return _of_one_request(cells)


async def made(
    engine: EngineClient, cells: Sequence[Cell]
) -> AsyncGenerator[tuple[Cell, Event], None]:
    """Have the engine make all cells, several at once, and yield their events, which are in
    `collected` then. Where one fails or the caller leaves, all others stop.

    Raises what the engine's client does; the message names the cell.
    """
    queue: asyncio.Queue[tuple[Cell, Event] | None] = asyncio.Queue()
    places = asyncio.Semaphore(AT_ONCE)

    async def make(cell: Cell) -> None:
        async with places, aclosing(engine.events(cell.order)) as events:
            async for event in events:
                cell.collected.add(event)
                queue.put_nowait((cell, event))

    async def make_all() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for cell in cells:
                    group.create_task(_naming(cell, make(cell)))
        except BaseExceptionGroup as failed:
            raise _first(failed) from None
        finally:
            queue.put_nowait(None)

    work = asyncio.create_task(make_all())
    try:
        while (item := await queue.get()) is not None:
            yield item
        await work
    finally:
        work.cancel()
        await asyncio.wait((work,))


def layout_of(body: GridBody, cells: Sequence[Cell]) -> LabelledGrid:
    """Return the layout of the picture."""
    axes = {axis.setting for axis in (body.x, body.y) if axis}
    used = cells[0].collected.used
    facts = {
        "model": used.model.partition("@")[0],
        "class_label": body.class_label,
        "sampler": used.sampler,
        "num_inference_steps": used.num_inference_steps,
        "guidance_scale": used.guidance_scale if used.class_label else None,
        "strength": used.strength,
        "seed": used.seed,
    }
    # A model that differs may bring its own defaults.
    if "model" in axes:
        facts |= {
            name: getattr(body, name)
            for name in ("sampler", "num_inference_steps", "guidance_scale")
            if not _is_same(name, cells)
        }
    caption = ", ".join(
        f"{name_of(setting)} {shown(value)}"
        for setting, value in facts.items()
        if setting not in axes and value is not None
    )
    return LabelledGrid(
        x=name_of(body.x.setting),
        columns=[shown(value) for value in body.x.values],
        image_sizes=sorted({cell.image_size for cell in cells}),
        y=name_of(body.y.setting) if body.y else "",
        rows=[shown(value) for value in body.y.values] if body.y else [""],
        caption=caption,
    )


def name_of(setting: str) -> str:
    """Return the name of a setting as it is written on the picture."""
    return NAMES.get(setting, setting)


def shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    return "any" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _places(body: GridBody) -> Iterator[Place]:
    for y, row in enumerate(_values(body.y, "y")):
        for x, column in enumerate(_values(body.x, "x")):
            yield Place(x, y, column | row)


def _values(axis: GridAxis | None, name: str) -> Iterator[dict[GridSetting, tuple[str, Value]]]:
    if axis is None:
        yield {}
        return
    for i, value in enumerate(axis.values):
        yield {axis.setting: (f"/{name}/values/{i}", value)}


def _body_of(given: Mapping[str, object], place: Place) -> SampleBody:
    """Return the request of a cell. Raises InvalidInput."""
    for setting, (pointer, value) in place.values.items():
        if setting == "checkpoint" and (not isinstance(value, int) or value < 0):
            raise InvalidInput.pointer(pointer, f"checkpoint is {value!r}; it must be a step, 0..")
        if value is None and setting != "class_label":
            raise InvalidInput.pointer(pointer, f"{setting} is null; only a class may be left open")
    values = {s: value for s, (_, value) in place.values.items() if s != "checkpoint"}
    try:
        return SampleBody.model_validate({**given, **values})
    except ValidationError as error:
        raise place.refusal(invalid_input(error, "body")) from None


def _check_sources(body: GridBody, axes: Sequence[GridSetting]) -> None:
    """Raise InvalidInput unless each cell has one model, or one checkpoint."""
    if "checkpoint" in axes:
        if body.job is None:
            raise InvalidInput.pointer("/job", "job is missing, the training of the checkpoints")
        if body.model or "model" in axes:
            raise InvalidInput.pointer("/model", "a grid has either models or checkpoints")
    elif body.job is not None:
        raise InvalidInput.pointer("/job", "job is given, but neither x nor y has checkpoints")
    elif not body.model and "model" not in axes:
        raise InvalidInput.pointer("/model", "model is missing, and neither x nor y has models")


def _model_of(
    request: Request, models: Mapping[str | int, tuple[ModelRecord, ModelCard]]
) -> tuple[ModelRecord, ModelCard]:
    """Raise InvalidInput where a checkpoint is not among those that are kept."""
    if request.source in models:
        return models[request.source]
    pointer, step = request.place.values["checkpoint"]
    raise InvalidInput.pointer(pointer, f"checkpoint is {step}; no such one is kept")


def _raise_if(errors: Sequence[FieldError]) -> None:
    """Raise InvalidInput with the first error at each pointer."""
    if errors:
        raise InvalidInput(list({each.pointer: each for each in reversed(errors)}.values())[::-1])


def _of_one_request(cells: Sequence[Cell]) -> list[Cell]:
    """Give the recipes of all cells the digest of the whole, by which the audit log knows it."""
    recipes = [cell.collected.recipe for cell in cells]
    digests = [recipe["request_digest"] for recipe in recipes if recipe is not None]
    if not digests:
        return list(cells)
    digest = hashlib.sha256(json.dumps(digests).encode()).hexdigest()
    return [
        replace(
            cell, collected=replace(cell.collected, recipe={**recipe, "request_digest": digest})
        )
        for cell, recipe in zip(cells, recipes, strict=True)
        if recipe is not None
    ]


def _is_same(name: str, cells: Sequence[Cell]) -> bool:
    return len({getattr(cell.collected.used, name) for cell in cells}) == 1


async def _naming(cell: Cell, work: Awaitable[None]) -> None:
    try:
        await work
    except InvalidInput as error:
        raise cell.place.refusal(error) from error
    except RequestError as error:
        error.args = (f"{error} (in the cell of {cell.place.name})",)
        raise


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failed.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
