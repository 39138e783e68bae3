"""The engine: the loop that owns one device and makes images for many requests at once.

Each step is one network call. Rows of different requests share it, whatever their samplers, step
counts, guidance, classes and seeds, since a row is a few numbers (models.sampling.plan) and its
noise a function of (seed, image, step). Rows that have finished leave and new ones join at every
step; which ones is the batcher's business (models.engine.batcher).

An image does not depend on its company: up to the last bits of a float, since a network call's
arithmetic depends on its width; and to the bit in `deterministic` requests, whose calls all have
one width. `submit`, `cancel` and `release` may be called from any thread, `step` from one only.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor

from models.arrays import UInt8, to_uint8
from models.diffusion.model import DiffusionModel
from models.engine.batcher import Batch, Batcher, Group, Policy, Refused, Row, Ticket
from models.engine.state import LaneRow, Lanes, NetCompiler, StepResult
from models.fields import Invalid
from models.nets.precision import Precision
from models.sampling.generate import Prepared
from models.sampling.plan import SampleRequest

# Widths of network calls. Few, so that what is prepared for a width (a compiled graph, a graph of
# CUDA, oneDNN's plans) is used again.
BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
DETERMINISTIC_WIDTH = 4


@dataclass(frozen=True)
class Order:
    """What is submitted. `model_key` names the model's weights; `watched` asks for a Seen after
    every row; `deadline` is in the clock's time; images before `first_image` are there already."""

    id: Hashable
    model_key: Hashable
    model: DiffusionModel
    request: SampleRequest
    deterministic: bool = False
    precision: Precision = "float32"
    watched: bool = False
    deadline: float | None = None
    first_image: int = 0


# What a step tells, by the id of the order -------------------------------------------------------


@dataclass(frozen=True)
class Started:
    id: Hashable


@dataclass(frozen=True)
class Seen:
    """What the network saw at row `row` of image `image`, and the clean image that it saw in it:
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
class NotMade:
    """The order has ended. `invalid`: it cannot be made; `busy`: not now, but after `retry_after`
    seconds; `out_of_memory`: not even a row of it fits the device; `failed`: a fault of ours."""

    id: Hashable
    reason: Literal["invalid", "busy", "out_of_memory", "failed"]
    message: str
    retry_after: float = 0.0


Event = Started | Seen | Made | NotMade


@dataclass
class GroupStats:
    """Counts since the group was made; seconds are of network calls with all that belongs to
    them."""

    steps: int = 0
    rows: int = 0
    evaluations: int = 0
    padding: int = 0
    seconds: float = 0.0


class GroupKey(NamedTuple):
    """What orders must have in common to share network calls."""

    model_key: Hashable
    precision: Precision
    deterministic: bool


@dataclass
class _Submit:
    order: Order


@dataclass
class _Cancel:
    id: Hashable


@dataclass
class _Release:
    model_key: Hashable


class Engine:
    """`clock` gives seconds. Orders of one model, precision and mode form a group. With `compiler`
    their calls are compiled in time."""

    def __init__(
        self,
        policy: Policy | None = None,
        buckets: Sequence[int] = BUCKETS,
        clock: Callable[[], float] = time.monotonic,
        compiler: NetCompiler | None = None,
    ) -> None:
        self.batcher = Batcher(policy)
        self.stats: dict[GroupKey, GroupStats] = {}
        self._buckets = tuple(buckets)
        self._clock = clock
        self._compiler = compiler
        self._inbox: SimpleQueue[_Submit | _Cancel | _Release | None] = SimpleQueue()
        self._lanes: dict[GroupKey, Lanes] = {}
        self._orders: dict[Hashable, tuple[Order, Prepared]] = {}
        self._released: set[Hashable] = set()

    def submit(self, order: Order) -> None:
        """Its events come out of `step`, the last being Made or NotMade."""
        self._inbox.put(_Submit(order))

    def cancel(self, order_id: Hashable) -> None:
        """No further event; its rows are free at the next step."""
        self._inbox.put(_Cancel(order_id))

    def release(self, model_key: Hashable) -> None:
        """Forget the model as soon as no order needs it."""
        self._inbox.put(_Release(model_key))

    def wake(self) -> None:
        """Ends the wait of `step`."""
        self._inbox.put(None)

    @torch.inference_mode()
    def step(self, wait: float = 0.0) -> list[Event]:
        """One network call and what came of it. Where there is nothing to do, waits up to so many
        seconds for an order."""
        events = self._read_inbox(wait)
        now = self._clock()
        for ticket in self.batcher.expired(now):
            self._drop(ticket.id)
            late = "the images were not ready by the deadline"
            events.append(NotMade(ticket.id, "busy", late, self.batcher.backlog_seconds()))
        batch = self.batcher.next_batch(now)
        if batch is not None:
            events += self._run(batch)
        self._free_lanes()
        return events

    # Orders -----------------------------------------------------------------------------------

    def _read_inbox(self, wait: float) -> list[Event]:
        events: list[Event] = []
        while True:
            idle = not len(self.batcher) and not events
            try:
                message = self._inbox.get(timeout=wait) if idle and wait else self._inbox.get(False)
            except Empty:
                return events
            if isinstance(message, _Submit):
                events += self._admit(message.order)
            elif isinstance(message, _Cancel):
                self._drop(message.id)
            elif isinstance(message, _Release):
                self._released.add(message.model_key)
            else:
                wait = 0.0

    def _admit(self, order: Order) -> list[Event]:
        now, request = self._clock(), order.request
        try:
            prepared = Prepared.of(order.model, request)
            key = self._group_for(order)
            ticket = Ticket(
                order.id,
                key,
                prepared.plan.evaluations,
                request.num_images - order.first_image,
                now,
                order.deadline,
                order.first_image,
            )
            self.batcher.add(ticket, now)
        except Refused as error:
            return [NotMade(order.id, "busy", str(error), error.retry_after)]
        except Invalid as error:
            return [NotMade(order.id, "invalid", str(error))]
        except (ValueError, RuntimeError, ArithmeticError, TypeError) as error:
            # Nothing has run on the device yet: it is this order's fault, and others go on.
            return [NotMade(order.id, "failed", f"the request cannot be prepared: {error}")]
        self._orders[order.id] = order, prepared
        return []

    def _group_for(self, order: Order) -> GroupKey:
        key = GroupKey(order.model_key, order.precision, order.deterministic)
        self._released.discard(order.model_key)
        if key not in self._lanes:
            # A compiled call differs in its last bits, and when it is ready is chance.
            compiler = None if order.deterministic else self._compiler
            lanes = Lanes(order.model, order.precision, compiler)
            buckets = (DETERMINISTIC_WIDTH,) if order.deterministic else self._buckets
            self.batcher.add_group(Group(key, buckets, lanes.slots))
            self._lanes[key] = lanes
            self.stats[key] = GroupStats()
        return key

    def _drop(self, order_id: Hashable) -> None:
        self.batcher.remove(order_id)
        self._orders.pop(order_id, None)

    def _free_lanes(self) -> None:
        if not self._released:
            return
        for key in [key for key in self._lanes if key.model_key in self._released]:
            if not self.batcher.groups[key].tickets:
                self.batcher.drop_group(key)
                del self._lanes[key], self.stats[key]
        self._released &= {key.model_key for key in self._lanes}

    # A network call ---------------------------------------------------------------------------

    def _run(self, batch: Batch) -> list[Event]:
        key = cast(GroupKey, batch.group)
        lanes = self._lanes[key]
        orders = [self._orders[row.ticket.id] for row in batch.rows]
        rows = [
            LaneRow(row, prepared) for row, (_, prepared) in zip(batch.rows, orders, strict=True)
        ]
        events: list[Event] = [
            Started(row.ticket.id)
            for row in batch.rows
            if row.at == 0 and row.image == row.ticket.first_image
        ]
        if lanes.prepare(batch.width):
            self.batcher.groups[key].cost.forget()
        started = self._clock()
        try:
            result = lanes.step(rows, batch.width)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            return self._make_room(batch)
        seconds = self._clock() - started
        if lanes.is_warm(batch.width):
            self.batcher.groups[key].cost.measured(batch.width, seconds)
        self._count(key, batch, seconds)
        finished = self.batcher.done(batch, seconds)
        watched = [b for b, (order, _) in enumerate(orders) if order.watched]
        if watched:
            events += self._show([batch.rows[b] for b in watched], result, watched)
        if finished:
            where = [b for b, row in enumerate(batch.rows) if row in finished]
            events += self._hand_out(finished, result.x[where])
        return events

    def _show(self, rows: Sequence[Row], result: StepResult, where: list[int]) -> list[Event]:
        x_t = to_uint8(result.x_t[where] / result.shown[where])
        x0_hat = to_uint8(result.x0_hat[where])
        return [
            Seen(row.ticket.id, row.image, row.at - 1, x_t[i], x0_hat[i])
            for i, row in enumerate(rows)
        ]

    def _hand_out(self, rows: Sequence[Row], x: Tensor) -> list[Event]:
        events: list[Event] = []
        finite = x.isfinite().flatten(1).all(1).tolist()
        for row, pixels, is_finite in zip(rows, to_uint8(x), finite, strict=True):
            order_id = row.ticket.id
            if order_id not in self._orders:
                continue  # another of its images came to nothing a moment ago
            if not is_finite:
                self._drop(order_id)
                message = f"the model's output for image {row.image} is not finite"
                events.append(NotMade(order_id, "invalid", message))
                continue
            last = self.batcher.finish(row)
            if last:
                del self._orders[order_id]
            events.append(Made(order_id, row.image, pixels, last))
        return events

    def _make_room(self, batch: Batch) -> list[Event]:
        """Narrower calls from now on; a single row that does not fit cannot be helped."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(batch.rows) > 1 and batch.width > self.batcher.groups[batch.group].buckets[0]:
            self.batcher.limit_width(batch.group, batch.width // 2)
            return []
        events: list[Event] = []
        for order_id in {row.ticket.id for row in batch.rows}:
            self._drop(order_id)
            events.append(NotMade(order_id, "out_of_memory", "the device has too little memory"))
        return events

    def _count(self, key: GroupKey, batch: Batch, seconds: float) -> None:
        stats = self.stats[key]
        stats.steps += 1
        stats.rows += len(batch.rows)
        stats.evaluations += batch.used
        stats.padding += batch.width - batch.used
        stats.seconds += seconds


def _is_out_of_memory(error: Exception) -> bool:
    # The allocator of the CPU has no exception of its own.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(
        error
    )
