"""One order on an engine of its own, as jobs use it: the images that POST /sample would give."""

from collections.abc import Callable, Iterator

from models.engine.engine import Engine
from models.engine.orders import Event, Failed, Made, Order
from models.fields import Invalid
from models.nets.precision import PrecisionChoice, Ranges
from models.runtime.net import EngineModel
from models.sampling.plan import Plan

_FAILURES: dict[str, Callable[[str], Exception]] = {
    "invalid": Invalid.because,
    "out_of_memory": MemoryError,
    "failed": RuntimeError,
}


def engine_steps(
    model: EngineModel,
    plan: Plan,
    *,
    precision: PrecisionChoice = "float32",
    ranges: Ranges = (),
    deterministic: bool = False,
    first_image: int = 0,
    count: int | None = None,
) -> Iterator[list[Event]]:
    """Make the images of a plan from `first_image` on, `count` of them or all, in any order; yield
    the events of each network call.

    Raises Invalid, MemoryError or RuntimeError where an image cannot be made.
    """
    # The names of an order tell models apart, and this engine has one.
    order = Order(
        "", "", "", plan, deterministic, precision, ranges, first_image=first_image, count=count
    )
    engine = Engine()
    engine.submit(None, order, model)
    while True:
        events = engine.step()
        for event in events:
            if isinstance(event, Failed):
                raise _FAILURES[event.reason](event.message)
        yield events
        if any(isinstance(event, Made) and event.last for event in events):
            return
