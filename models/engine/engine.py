"""The engine: the loop that owns one device and makes images for many requests at once.

Each step is one network call. Images of different requests share it, whatever their samplers, step
counts, guidance, classes and seeds, since the row of a plan is a few numbers (models.sampling.plan)
and noise is a function of (seed, image, step). Finished images leave and new ones join at every
step; the batcher decides which (models.engine.batcher).

Batching does not change an image, to the last bit, where the network's rows are the same at any
width (EngineModel.same_rows). Elsewhere a call's rounding depends on its width, and `deterministic`
orders are bit-identical, since their calls all have one width. `submit`, `cancel` and `release` may
be called from any thread, `step` from one only.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import NamedTuple, cast

from models.arrays import AnyArray, library, to_uint8
from models.engine.batcher import Batch, Batcher, Group, Policy, Refused, Sample, Ticket
from models.engine.orders import Event, Failed, Made, Order, Preview, Started
from models.engine.state import GroupState
from models.fields import Invalid
from models.nets.precision import Precision, Ranges
from models.runtime.device import is_out_of_memory
from models.runtime.net import EngineModel
from models.sampling.update import Pictures, Rows, Updated

DETERMINISTIC_WIDTH = 4


@dataclass
class GroupStats:
    """Counts since the group was made; `seconds` are of network calls with their updates."""

    steps: int = 0
    rows: int = 0
    evaluations: int = 0
    padding: int = 0
    seconds: float = 0.0


class GroupKey(NamedTuple):
    """The facts that orders must share to share network calls."""

    model_key: Hashable
    precision: Precision
    ranges: Ranges
    deterministic: bool


@dataclass
class _Submit:
    id: Hashable
    order: Order
    model: EngineModel
    deadline: float | None


@dataclass
class _Cancel:
    id: Hashable


@dataclass
class _Release:
    model_key: Hashable


class Engine:
    """`clock` gives seconds. Orders of one model, precision and mode form a group. `widths` of
    calls are by default those of the model."""

    def __init__(
        self,
        policy: Policy | None = None,
        widths: Sequence[int] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.batcher = Batcher(policy)
        self.stats: dict[GroupKey, GroupStats] = {}
        self._widths = tuple(widths)
        self._clock = clock
        self._inbox: SimpleQueue[_Submit | _Cancel | _Release | None] = SimpleQueue()
        self._states: dict[GroupKey, GroupState] = {}
        self._orders: dict[Hashable, tuple[Order, Pictures]] = {}
        self._released: set[Hashable] = set()

    def submit(
        self,
        order_id: Hashable,
        order: Order,
        model: EngineModel,
        deadline: float | None = None,
    ) -> None:
        """Take an order of a model; `deadline` is in the clock's time. Its events come out of
        `step` with its id, the last being Made or Failed."""
        self._inbox.put(_Submit(order_id, order, model, deadline))

    def cancel(self, order_id: Hashable) -> None:
        """Send no further event; its slots are free at the next step."""
        self._inbox.put(_Cancel(order_id))

    def release(self, model_key: Hashable) -> None:
        """Forget the model as soon as no order needs it."""
        self._inbox.put(_Release(model_key))

    def wake(self) -> None:
        """End the wait of `step`."""
        self._inbox.put(None)

    def step(self, wait: float = 0.0) -> list[Event]:
        """Make one network call and return the events that follow from it. Where there is nothing
        to do, wait up to so many seconds for an order."""
        events = self._read_inbox(wait)
        now = self._clock()
        for ticket in self.batcher.expired(now):
            self._drop(ticket.id)
            late = "the images were not ready by the deadline"
            events.append(Failed(ticket.id, "busy", late, self.batcher.backlog_seconds()))
        batch = self.batcher.next_batch(now)
        if batch is not None:
            events += self._run(batch)
        self._free_states()
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
                events += self._admit(message)
            elif isinstance(message, _Cancel):
                self._drop(message.id)
            elif isinstance(message, _Release):
                self._released.add(message.model_key)
            else:
                wait = 0.0

    def _admit(self, submitted: _Submit) -> list[Event]:
        now, order, plan = self._clock(), submitted.order, submitted.order.plan
        config = submitted.model.config
        try:
            plan.check_fits(
                config.image_size, config.channels, len(config.class_names), config.has_null_class
            )
            key = self._group_for(order, submitted.model)
            pictures = Pictures.of(plan, self._states[key].like)
            ticket = Ticket(
                submitted.id,
                key,
                plan.evaluations,
                order.count or plan.num_images - order.first_image,
                now,
                submitted.deadline,
                order.first_image,
                order.caller,
            )
            self.batcher.add(ticket, now)
        except Refused as error:
            return [Failed(submitted.id, "busy", str(error), error.retry_after)]
        except Invalid as error:
            return [Failed(submitted.id, "invalid", str(error))]
        except (ValueError, RuntimeError, ArithmeticError, TypeError) as error:
            # Nothing has run on the device yet: it is this order's fault, and others go on.
            return [Failed(submitted.id, "failed", f"the request cannot be prepared: {error}")]
        self._orders[submitted.id] = order, pictures
        return []

    def _group_for(self, order: Order, model: EngineModel) -> GroupKey:
        deterministic = order.deterministic and not model.same_rows
        precision = model.precision(order.precision)
        key = GroupKey(order.model_key, precision, order.ranges, deterministic)
        self._released.discard(order.model_key)
        if key not in self._states:
            # A prepared call differs in its last bits, and when it is ready is chance.
            state = GroupState(model, precision, key.ranges, can_prepare=not deterministic)
            widths = (DETERMINISTIC_WIDTH,) if deterministic else self._widths or model.widths
            self.batcher.add_group(Group(key, widths, state.slots))
            self._states[key] = state
            self.stats[key] = GroupStats()
        return key

    def _drop(self, order_id: Hashable) -> None:
        self.batcher.remove(order_id)
        self._orders.pop(order_id, None)

    def _free_states(self) -> None:
        if not self._released:
            return
        for key in [key for key in self._states if key.model_key in self._released]:
            if not self.batcher.groups[key].tickets:
                self.batcher.drop_group(key)
                del self._states[key], self.stats[key]
        self._released &= {key.model_key for key in self._states}

    # A network call ---------------------------------------------------------------------------

    def _run(self, batch: Batch) -> list[Event]:
        try:
            updated, seconds = self._call(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return self._make_room(batch)
        events = self._started(batch)
        finished = self.batcher.done(batch, seconds)
        events += self._previews(batch.samples, updated)
        if finished:
            where = [b for b, sample in enumerate(batch.samples) if sample in finished]
            events += self._hand_out(finished, updated.x[where])
        return events

    def _started(self, batch: Batch) -> list[Event]:
        """Return an event for each order whose very first row was taken."""
        key = cast(GroupKey, batch.group)
        model = self._states[key].model
        exact = model.same_rows or key.deterministic
        return [
            Started(sample.ticket.id, key.precision, model.computed_by, exact)
            for sample in batch.samples
            if sample.at == 0 and sample.image == sample.ticket.first_image
        ]

    def _call(self, batch: Batch) -> tuple[Updated, float]:
        """Take the samples of a batch one row further; return that and the seconds it took."""
        key = cast(GroupKey, batch.group)
        state, cost = self._states[key], self.batcher.groups[key].cost
        rows = self._rows(batch.samples)
        if state.prepare(batch.width):
            cost.forget()
        started = self._clock()
        updated = state.step(rows, [sample.slot for sample in batch.samples], batch.width)
        seconds = self._clock() - started
        if state.is_warm(batch.width):
            cost.measured(batch.width, seconds)
        self._count(key, batch, seconds)
        return updated, seconds

    def _rows(self, samples: Sequence[Sample]) -> Rows:
        orders = [self._orders[sample.ticket.id] for sample in samples]
        return Rows(
            [order.plan for order, _ in orders],
            [pictures for _, pictures in orders],
            [sample.image for sample in samples],
            [sample.at for sample in samples],
        )

    def _previews(self, samples: Sequence[Sample], updated: Updated) -> list[Event]:
        where = [b for b, sample in enumerate(samples) if self._orders[sample.ticket.id][0].watched]
        if not where:
            return []
        x_t = to_uint8(updated.x_t[where] / updated.display_scale[where])
        x0_hat = to_uint8(updated.x0_hat[where])
        return [
            Preview(samples[b].ticket.id, samples[b].image, samples[b].at - 1, x_t[i], x0_hat[i])
            for i, b in enumerate(where)
        ]

    def _hand_out(self, samples: Sequence[Sample], x: AnyArray) -> list[Event]:
        events: list[Event] = []
        finite = library(x).isfinite(x).reshape(len(x), -1).all(1).tolist()
        for sample, pixels, is_finite in zip(samples, to_uint8(x), finite, strict=True):
            order_id = sample.ticket.id
            if order_id not in self._orders:
                continue  # another of its images failed a moment ago
            if not is_finite:
                self._drop(order_id)
                message = f"the model's output for image {sample.image} is not finite"
                events.append(Failed(order_id, "invalid", message))
                continue
            last = self.batcher.finish(sample)
            if last:
                del self._orders[order_id]
            events.append(Made(order_id, sample.image, pixels, last))
        return events

    def _make_room(self, batch: Batch) -> list[Event]:
        """Make calls narrower from now on. Orders fail where a single one of their images does not
        fit."""
        self._states[cast(GroupKey, batch.group)].free_memory()
        if len(batch.samples) > 1 and batch.width > self.batcher.groups[batch.group].buckets[0]:
            self.batcher.limit_width(batch.group, batch.width // 2)
            return []
        events: list[Event] = []
        for order_id in {sample.ticket.id for sample in batch.samples}:
            self._drop(order_id)
            events.append(Failed(order_id, "out_of_memory", "the device has too little memory"))
        return events

    def _count(self, key: GroupKey, batch: Batch, seconds: float) -> None:
        stats = self.stats[key]
        stats.steps += 1
        stats.rows += len(batch.samples)
        stats.evaluations += batch.used
        stats.padding += batch.width - batch.used
        stats.seconds += seconds
