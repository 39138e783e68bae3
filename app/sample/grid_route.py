"""POST /sample/grid: images that differ in two settings, as one picture with its axes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import monotonic

from fastapi import APIRouter
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Scope

from app.http import problems
from app.http.accept import choose
from app.http.file_answers import content_of
from app.http.streams import EVENT_STREAM, with_pauses
from app.registry.card import model_card
from app.sample.events import problem_of
from app.sample.grid import Cell, cells_of, layout_of, made, requests_of
from app.sample.grid_answer import (
    cell_answer,
    check_grid_size,
    completed,
    represent_grid,
    warnings_of,
)
from app.sample.grid_schema import GridAnswer, GridBody, GridProgressEvent, GridStartedEvent
from app.sample.route import CLIENT_CLOSED_REQUEST, OFFERED, charge, unless_disconnected
from app.services import Services, ServicesDep
from host.tracing import span
from models.engine.orders import Event, Made, Preview
from models.images.labelled_grid import LabelledGrid
from models.pipeline.card import ModelCard
from store.models import ModelRecord, get_model

router = APIRouter(tags=["sample"])

PROGRESS_SECONDS = 0.2  # between two events that only say how far it is


@router.post(
    "/sample/grid",
    summary="A grid of images over any two settings, from the same noise",
    response_class=Response,
    responses={
        200: {
            "description": "One picture with the axes written on it, a zip of it and of all cells, "
            "JSON with base64, or events as it goes: started, progress, cell, completed, error.",
            "model": GridAnswer,
            "content": content_of(*OFFERED),
        },
        **problems.declare(
            problems.NOT_FOUND,
            problems.NOT_ACCEPTABLE,
            problems.UNSUPPORTED,
            problems.INVALID,
            problems.DAMAGED,
            problems.UNAVAILABLE,
        ),
    },
)
async def sample_grid(body: GridBody, request: Request, services: ServicesDep) -> Response:
    """`curl --json '{"model": "digits-1", "x": {"setting": "num_inference_steps", "values": [5, 10,
    20]}, "y": {"setting": "class_label", "values": ["0", "1"]}}' .../sample/grid -o grid.png`

    Every cell is the image that POST /sample gives for its settings. All have the same seed, and so
    the same noise, unless seeds are an axis. All are checked before any is made; if one fails, none
    is answered. Nothing more is made for a caller that leaves.
    """
    media_type = choose(request.headers.get("accept"), OFFERED)
    watched = media_type == EVENT_STREAM
    cells = await _cells(body, services, watched)
    grid = Grid(body, cells, await services.threads.run(partial(layout_of, body, cells)))
    check_grid_size(grid.layout, media_type)
    if request.state.caller is not None and (recipe := cells[0].collected.recipe) is not None:
        request.state.request_digest = recipe["request_digest"]
    await charge(services, len(cells))
    headers = grid.headers()
    if watched:
        events = _events(services, grid, request.scope)
        headers["Cache-Control"] = "no-cache"
        return StreamingResponse(events, media_type=EVENT_STREAM, headers=headers)
    if await unless_disconnected(request, _all_made(services, cells)) is None:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    with span("answer"):
        content = await services.threads.run(
            partial(represent_grid, body, cells, grid.layout, media_type)
        )
    return Response(content, media_type=media_type, headers=headers)


@dataclass(frozen=True)
class Grid:
    """A request, its cells and the layout of their picture."""

    body: GridBody
    cells: Sequence[Cell]
    layout: LabelledGrid

    @property
    def seed(self) -> int | None:
        """The seed that all cells share."""
        seeds = {cell.collected.used.seed for cell in self.cells}
        return seeds.pop() if len(seeds) == 1 else None

    @property
    def steps(self) -> int:
        return sum(len(cell.order.plan) for cell in self.cells)

    def headers(self) -> dict[str, str]:
        headers = {"Vary": "Accept"}
        if self.seed is not None:
            headers["Diffusion-Seed"] = str(self.seed)
        if warnings := warnings_of(self.cells):
            headers["Diffusion-Warning"] = "; ".join(warnings)
        return headers


async def _cells(body: GridBody, services: Services, watched: bool) -> list[Cell]:
    settings = services.settings
    requests = await services.threads.run(
        partial(requests_of, body, settings.max_images_per_request)
    )
    names = dict.fromkeys(each.body.model for each in requests)
    models = await run_in_threadpool(lambda: {name: _model(services, name) for name in names})
    return await services.threads.run(partial(cells_of, requests, models, settings, watched))


def _model(services: Services, name: str) -> tuple[ModelRecord, ModelCard]:
    record = get_model(services.database, name)
    return record, model_card(services.artifacts, record)


async def _all_made(services: Services, cells: Sequence[Cell]) -> bool:
    async with aclosing(made(services.engine, cells)) as events:
        async for _ in events:
            pass
    return True


async def _events(services: Services, grid: Grid, scope: Scope) -> AsyncIterator[bytes]:
    """Yield encoded events, and a comment where there has been none for a while."""
    numbers = count()

    def event(name: str, data: str) -> bytes:
        return format_sse_event(event=name, data_str=data, id=str(next(numbers)))

    started = GridStartedEvent(cells=len(grid.cells), steps=grid.steps, seed=grid.seed)
    yield event("started", started.model_dump_json())
    progress = Progress(grid.steps)
    try:
        events = made(services.engine, grid.cells)
        async with aclosing(with_pauses(events, services.drained)) as items:
            async for item in items:
                if item is None:
                    yield KEEPALIVE_COMMENT
                    continue
                cell, what = item
                if isinstance(what, Made):
                    yield event("cell", cell_answer(cell).model_dump_json())
                if (told := progress.after(cell, what)) is not None:
                    yield event("progress", told.model_dump_json())
        with span("answer"):
            result = await services.threads.run(
                partial(completed, grid.body, grid.cells, grid.layout)
            )
        yield event("completed", result.model_dump_json())
    except Exception as error:
        yield event("error", await problem_of(error, services, scope))


class Progress:
    """The steps that were made of all images, told now and then."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done: dict[tuple[int, int], int] = {}  # by cell; the engine may start one anew
        self._told = monotonic()

    def after(self, cell: Cell, event: Event) -> GridProgressEvent | None:
        place = cell.place.x, cell.place.y
        if isinstance(event, Made):
            self._done[place] = len(cell.order.plan)
        elif isinstance(event, Preview):
            self._done[place] = event.row + 1
        if monotonic() < self._told + PROGRESS_SECONDS:
            return None
        self._told = monotonic()
        return GridProgressEvent(steps_done=sum(self._done.values()), steps=self._steps)
