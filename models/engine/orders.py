"""What an engine is asked for and what it tells: an order, and the events of its images.

All of it is plain data that crosses between processes as messages, a header and a payload
(app.processes.wire).
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from models.arrays import UInt8
from models.nets.precision import Precision, PrecisionChoice, Ranges, ranges_of
from models.sampling.plan import Plan


@dataclass(frozen=True)
class Order:
    """Images asked of an engine. `model` is the model's name, `prefix` and `digest` say where its
    weights are among the artifacts and which they are, `files` the sha256 of each file there where
    they are known. `watched` asks for a Preview after every
    row; `seconds` is how long the caller waits. Images are made from `first_image` on, `count` of
    them or all. `ranges` are those of int8. Callers take turns, each with all of its orders."""

    model: str
    prefix: str
    digest: str
    plan: Plan
    deterministic: bool = False
    precision: PrecisionChoice = "float32"
    ranges: Ranges = ()
    watched: bool = False
    seconds: float | None = None
    first_image: int = 0
    count: int | None = None
    files: Mapping[str, str] | None = None
    caller: str = ""

    @property
    def model_key(self) -> tuple[str, str]:
        """The key of the model's weights."""
        return self.prefix, self.digest

    def to_header(self) -> dict[str, object]:
        return {**vars(self), "plan": self.plan.to_dict()}

    @classmethod
    def from_header(cls, header: Mapping[str, Any]) -> "Order":
        ranges = ranges_of(header["ranges"])
        return cls(**{**header, "plan": Plan.from_dict(header["plan"]), "ranges": ranges})


# Events, by the id under which the order was submitted --------------------------------------------


@dataclass(frozen=True)
class Started:
    """The first row of an order is taken; its network computes in `precision`. `computed_by` is as
    in EngineModel; `exact`: the same pixels to the bit whatever else is sampled."""

    id: Hashable
    precision: Precision
    computed_by: str = ""
    exact: bool = True


@dataclass(frozen=True)
class Preview:
    """The input of the network at row `row` of image `image`, and its estimate of the clean image:
    (H, W, C). x_t is divided by its standard deviation where that is above 1."""

    id: Hashable
    image: int
    row: int
    x_t: UInt8
    x0_hat: UInt8


@dataclass(frozen=True)
class Made:
    """An image (H, W, C). `last`: the order has ended with it."""

    id: Hashable
    image: int
    pixels: UInt8
    last: bool


@dataclass(frozen=True)
class Failed:
    """The order has ended. `invalid`: it cannot be made; `busy`: not now, but after `retry_after`
    seconds; `out_of_memory`: not even a row of it fits the device; `damaged`: the `artifact` is not
    what was written, as the message says; `failed`: a fault of ours."""

    id: Hashable
    reason: Literal["invalid", "busy", "out_of_memory", "damaged", "failed"]
    message: str
    retry_after: float = 0.0
    artifact: str = ""


Event = Started | Preview | Made | Failed


def event_message(event: Event) -> tuple[dict[str, object], bytes]:
    """Pack an event into a header and a payload.

    Its id stays behind: a connection carries one order.
    """
    match event:
        case Started():
            return {**vars(event), "event": "started", "id": None}, b""
        case Preview():
            header = {"event": "preview", "image": event.image, "row": event.row}
            payload = event.x_t.tobytes() + event.x0_hat.tobytes()
            return {**header, "shape": event.x_t.shape}, payload
        case Made():
            header = {"event": "made", "image": event.image, "last": event.last}
            return {**header, "shape": event.pixels.shape}, event.pixels.tobytes()
        case Failed():
            return {**vars(event), "event": "failed", "id": None}, b""


def event_of(header: Mapping[str, Any], payload: bytes) -> Event:
    match header["event"]:
        case "started":
            return Started(None, header["precision"], header["computed_by"], header["exact"])
        case "preview":
            x_t, x0_hat = _pixels(payload, [2, *header["shape"]])
            return Preview(None, header["image"], header["row"], x_t, x0_hat)
        case "made":
            return Made(None, header["image"], _pixels(payload, header["shape"]), header["last"])
        case _:
            told = (header[name] for name in ("reason", "message", "retry_after", "artifact"))
            return Failed(None, *told)


def _pixels(payload: bytes, shape: list[int]) -> UInt8:
    return np.frombuffer(payload, np.uint8).reshape(shape)
