"""The body and the answers of POST /sample/grid."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from app.http.body import JsonBody
from app.http.names import Name
from app.http.refusal import refused_with
from app.sample.schema import Base64, SampleBody, SampleUsed

GridSetting = Literal[
    "model",
    "class_label",
    "sampler",
    "num_inference_steps",
    "spacing",
    "seed",
    "guidance_scale",
    "eta",
    "strength",
    "precision",
]
SETTINGS: tuple[GridSetting, ...] = get_args(GridSetting)
ALONE = ("num_images", "trajectory", "deadline_seconds")  # fields that a grid does not take


class GridAxis(JsonBody):
    """A setting, and its values along one side of the grid."""

    setting: GridSetting = Field(description="a field of POST /sample")
    values: list[
        Annotated[int | float | str | None, refused_with("it must be a number, a text or null")]
    ] = Field(
        min_length=1,
        description="of that field, one for each column or row; null as a `class_label` leaves the "
        "class open",
    )


class GridBody(SampleBody):
    """The fields of POST /sample, for all cells, and one or two settings that differ."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "digits-1",
                    "seed": 7,
                    "x": {"setting": "num_inference_steps", "values": [5, 10, 20]},
                    "y": {"setting": "class_label", "values": ["0", "1"]},
                }
            ]
        }
    )

    model: Name = Field(
        default="", description="GET /models lists them; may be left out where x or y has models"
    )
    x: GridAxis = Field(description="from left to right")
    y: GridAxis | None = Field(default=None, description="from top to bottom; one row without it")

    @field_validator(*ALONE)
    @classmethod
    def _refuse_several(cls, value: object) -> object:
        if value is True or value not in (None, False, 1):
            raise PydanticCustomError("grid", "a grid has one image in each cell, without this")
        return value


class GridCell(BaseModel):
    x: int = Field(description="its column, from 0")
    y: int = Field(description="its row, from 0")
    used: SampleUsed
    image: Base64 = Field(description="PNG, which carries its recipe as one of POST /sample does")


class GridAnswer(BaseModel):
    x: GridAxis
    y: GridAxis | None
    warnings: list[str] = Field(description="what looks odd in init_image or mask")
    media_type: str = "image/png"
    cells: list[GridCell] = Field(description="row by row")
    picture: Base64 = Field(description="all of them, with the axes written on it")


class GridStartedEvent(BaseModel):
    """How many cells there will be, and how many steps of all images together."""

    cells: int
    steps: int
    seed: int | None = Field(description="that all cells share; null where seeds are an axis")


class GridProgressEvent(BaseModel):
    steps_done: int
    steps: int


class GridCompletedEvent(BaseModel):
    media_type: str = "image/png"
    picture: Base64 = Field(description="all cells, with the axes written on it")
    warnings: list[str]
