"""The answers of POST /sample/grid: from cells to a picture, a zip or JSON."""

import io
import zipfile
from collections.abc import Sequence
from typing import Any

from app.http.errors import InvalidInput
from app.sample.answer import base64_png
from app.sample.grid import Cell
from app.sample.grid_schema import ALONE, GridAnswer, GridBody, GridCell, GridCompletedEvent
from app.sample.recipe import version
from app.sample.schema import PICTURES
from models.arrays import UInt8
from models.images.files import encode_image
from models.images.formats import BY_MEDIA_TYPE
from models.images.labelled_grid import LabelledGrid


def represent_grid(
    body: GridBody, cells: Sequence[Cell], layout: LabelledGrid, media_type: str
) -> bytes:
    if media_type == "application/json":
        return _answer(body, cells, layout).model_dump_json().encode()
    if media_type == "application/zip":
        return _zip(body, cells, layout)
    return _picture(body, cells, layout, media_type)


def completed(body: GridBody, cells: Sequence[Cell], layout: LabelledGrid) -> GridCompletedEvent:
    picture = _picture_base64(body, cells, layout)
    return GridCompletedEvent(picture=picture, warnings=warnings_of(cells))


def cell_answer(cell: Cell) -> GridCell:
    collected = cell.collected
    image = base64_png(collected.images[0], collected.recipe_of(0))
    return GridCell(x=cell.place.x, y=cell.place.y, used=collected.used, image=image)


def check_grid_size(layout: LabelledGrid, media_type: str) -> None:
    """Raise InvalidInput where the picture is larger than its format holds."""
    kind, (height, width) = BY_MEDIA_TYPE.get(media_type, BY_MEDIA_TYPE["image/png"]), layout.size
    if max(height, width) > kind.max_side:
        raise InvalidInput.pointer(
            "/x/values" if width > height else "/y/values",
            f"the answer is a picture of {height} x {width} pixels; "
            f"{kind.media_type} holds at most {kind.max_side} a side",
        )


def warnings_of(cells: Sequence[Cell]) -> list[str]:
    """Return the warnings of all cells, each once."""
    return list(dict.fromkeys(text for cell in cells for text in cell.collected.warnings))


def _answer(body: GridBody, cells: Sequence[Cell], layout: LabelledGrid) -> GridAnswer:
    return GridAnswer(
        x=body.x,
        y=body.y,
        warnings=warnings_of(cells),
        cells=[cell_answer(cell) for cell in cells],
        picture=_picture_base64(body, cells, layout),
    )


def _zip(body: GridBody, cells: Sequence[Cell], layout: LabelledGrid) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        picture = _picture(body, cells, layout, "image/png")
        archive.writestr(zipfile.ZipInfo("grid.png"), picture)
        for cell in cells:
            collected = cell.collected
            image = encode_image(collected.images[0], "png", collected.recipe_of(0))
            name = f"row-{cell.place.y + 1:02}-column-{cell.place.x + 1:02}.png"
            archive.writestr(zipfile.ZipInfo(name), image)
    return buffer.getvalue()


def _picture(body: GridBody, cells: Sequence[Cell], layout: LabelledGrid, media_type: str) -> bytes:
    recipe = _recipe(body, cells)
    return encode_image(_drawn(cells, layout), BY_MEDIA_TYPE[media_type].name, recipe)


def _picture_base64(body: GridBody, cells: Sequence[Cell], layout: LabelledGrid) -> str:
    return base64_png(_drawn(cells, layout), _recipe(body, cells))


def _drawn(cells: Sequence[Cell], layout: LabelledGrid) -> UInt8:
    return layout.draw({(cell.place.y, cell.place.x): cell.collected.images[0] for cell in cells})


def _recipe(body: GridBody, cells: Sequence[Cell]) -> dict[str, Any] | None:
    """Return what makes the grid again: the request with its seed, without the pictures in it."""
    first = cells[0].collected
    if first.recipe is None:
        return None
    request = body.model_dump(mode="json", exclude_unset=True, exclude={*PICTURES, *ALONE})
    axes = {axis.setting for axis in (body.x, body.y) if axis}
    seed = {} if "seed" in axes else {"seed": first.used.seed}
    used = [cell.collected.used for cell in cells]
    return {
        "format": 1,
        "service": version(),
        "grid": request | seed,
        "models": {each.model: each.model_digest for each in used},
        "request_digest": first.recipe["request_digest"],
    }
