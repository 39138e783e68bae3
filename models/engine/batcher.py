"""Which images share the next network call: the engine's policy, in plain Python.

A ticket is a request for images of one group (one model, one way of running it). Each of its images
is a sample on its way from row to row of the ticket's plan, one row per network call, beside
samples of other tickets at whatever row of theirs. A guided row takes two evaluations of the
network, so budgets are in evaluations.

Within a group the most urgent tickets go first: those with the least work left, less with age, so
that none starves. How many samples join follows from the measured cost of a call, alpha + beta *
width: add a sample when the time that it saves its own request exceeds the delay that it causes the
others (Smith's rule for weighted completion times). Where alpha dominates, calls are wide; where
beta does, they are narrow. Groups take turns by time used (surplus round robin).

Callers share the device evenly, whatever they ask for: each call is led by the one that has used it
least (start-time fair queuing, Goyal et al. 1996), and tickets of others join after those of the
leader, as long as they make it little longer. A caller that comes back has saved up at most
`credit_seconds` of its share: enough for a short request to go before those of a caller who floods.

Knows nothing of tensors, devices or networks; time is a number that the caller passes in.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Batching = Literal["step", "request", "off"]

FORGET = 0.98  # weight of older measurements at each new one
PRIOR_WEIGHT = 1e-3
FORGOTTEN = 0.001  # weight kept by old measurements after a change


class Refused(Exception):
    """The ticket cannot be taken now, but perhaps `retry_after` seconds from now."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Policy:
    """`batching` of "request" admits new tickets only when all samples under way have ended, "off"
    runs one ticket at a time; both serve comparisons only."""

    max_waiting: int = 256  # tickets
    ageing: float = 0.05  # seconds of work that a second of waiting offsets
    quantum_seconds: float = 0.1
    credit_seconds: float = 0.1  # that a caller may be behind the others when it comes
    stretch: float = 1.5  # of a call, by samples of others than its leader
    batching: Batching = "step"


@dataclass(eq=False)
class Sample:
    """One image on its way: the next row of its plan is `at`. It holds a slot once it started."""

    ticket: "Ticket"
    image: int
    at: int = 0
    slot: int | None = None

    @property
    def evaluations(self) -> int:
        return self.ticket.evaluations[self.at]

    @property
    def done(self) -> bool:
        return self.at == len(self.ticket.evaluations)


@dataclass(eq=False)
class Ticket:
    """`evaluations` of each row of the plan; images from `first_image` on; `deadline` in the
    caller's time."""

    id: Hashable
    group: Hashable
    evaluations: tuple[int, ...]
    num_images: int
    arrived: float
    deadline: float | None = None
    first_image: int = 0
    caller: Hashable = ""
    samples: list[Sample] = field(init=False)
    remaining: int = field(init=False)  # evaluations, over all images

    def __post_init__(self) -> None:
        images = range(self.first_image, self.first_image + self.num_images)
        self.samples = [Sample(self, image) for image in images]
        self.remaining = sum(self.evaluations) * self.num_images


@dataclass(frozen=True)
class Batch:
    """Samples for one network call of `width` evaluations; they use `used` of these."""

    group: Hashable
    samples: tuple[Sample, ...]
    used: int
    width: int


class CallCost:
    """Seconds of a call as alpha + beta * width, fitted to measurements, the latest most."""

    def __init__(self, alpha: float = 0.005, beta: float = 0.005) -> None:
        self._n, self._w, self._ww, self._s, self._ws = 0.0, 0.0, 0.0, 0.0, 0.0
        self.alpha, self.beta = alpha, beta
        for width in (1, 2):
            self._add(width, alpha + beta * width, PRIOR_WEIGHT)

    def measured(self, width: int, seconds: float) -> None:
        self._n, self._w, self._ww = FORGET * self._n, FORGET * self._w, FORGET * self._ww
        self._s, self._ws = FORGET * self._s, FORGET * self._ws
        self._add(width, seconds, 1.0)
        spread = self._n * self._ww - self._w**2
        mean_width, mean_seconds = self._w / self._n, self._s / self._n
        if spread > 1e-3 * self._w**2:
            self.beta = max(0.0, (self._n * self._ws - self._w * self._s) / spread)
        else:  # a single width tells nothing about the share that grows: take half
            self.beta = 0.5 * mean_seconds / mean_width
        self.beta = min(self.beta, mean_seconds / mean_width)
        self.alpha = max(1e-6, mean_seconds - self.beta * mean_width)

    def forget(self) -> None:
        """Let coming measurements outweigh all earlier ones: calls have become cheaper."""
        self._n, self._w, self._ww = (FORGOTTEN * sum_ for sum_ in (self._n, self._w, self._ww))
        self._s, self._ws = FORGOTTEN * self._s, FORGOTTEN * self._ws

    def seconds(self, width: int) -> float:
        return self.alpha + self.beta * width

    def _add(self, width: int, seconds: float, weight: float) -> None:
        self._n += weight
        self._w += weight * width
        self._ww += weight * width * width
        self._s += weight * seconds
        self._ws += weight * width * seconds


class Group:
    """Tickets that can share calls. Widths are rounded up to one of `buckets`, ascending; at most
    `slots` samples are under way at once. Where these are many, a caller cannot take those of the
    last call."""

    def __init__(self, name: Hashable, buckets: Sequence[int], slots: int) -> None:
        if not buckets or buckets[-1] < 2 or slots < 1:
            raise ValueError("a group needs a slot and a bucket of at least 2, for a guided row")
        self.name = name
        self.buckets = tuple(buckets)
        self.slots = slots
        self.cost = CallCost()
        self.deficit = 0.0  # seconds of the device left to it in this turn
        self.tickets: dict[Hashable, Ticket] = {}
        self.cohort: set[Hashable] = set()  # of "request" and "off": tickets that run to their ends
        self._free = list(range(slots))[::-1]
        self._taken: Counter[Hashable] = Counter()  # slots of each caller

    @property
    def max_width(self) -> int:
        return self.buckets[-1]

    @property
    def num_free_slots(self) -> int:
        return len(self._free)

    def has_slot_for(self, caller: Hashable, count: int) -> bool:
        """Return whether a caller may take so many more slots."""
        kept = self.max_width if self.slots >= 2 * self.max_width else 0
        return self._taken[caller] + count <= self.slots - kept

    @property
    def num_taken_slots(self) -> int:
        return self.slots - len(self._free)

    def bucket(self, width: int) -> int:
        return next(b for b in self.buckets if b >= width)

    def seconds_of(self, evaluations: int) -> float:
        """Return the time of so many evaluations in calls as wide as possible."""
        return evaluations * self.cost.seconds(self.max_width) / self.max_width

    def take_slot(self, sample: Sample) -> None:
        if sample.slot is None:
            sample.slot = self._free.pop()
            self._taken[sample.ticket.caller] += 1

    def give_slot(self, sample: Sample) -> None:
        if sample.slot is not None:
            self._free.append(sample.slot)
            self._taken[sample.ticket.caller] -= 1
            sample.slot = None


class Batcher:
    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.groups: dict[Hashable, Group] = {}
        self._turn: deque[Hashable] = deque()  # groups with work, the next one first
        self._group_of: dict[Hashable, Group] = {}  # by ticket
        self._waiting: Counter[Hashable] = Counter()  # tickets of each caller
        self._used: dict[Hashable, float] = {}  # seconds of each caller, from a common start
        self._now_used = 0.0  # by the leader of the last call

    def __len__(self) -> int:
        return len(self._group_of)

    def add_group(self, group: Group) -> None:
        self.groups[group.name] = group

    def drop_group(self, name: Hashable) -> None:
        """Forget a group. Raises ValueError where it has tickets."""
        if self.groups[name].tickets:
            raise ValueError(f"group {name!r} has tickets")
        del self.groups[name]

    def add(self, ticket: Ticket, now: float) -> None:
        """Take a ticket. Raises Refused where too many wait or the deadline cannot be met."""
        if len(self) >= self.policy.max_waiting and not self._may_still_wait(ticket.caller):
            place_free_in = self.backlog_seconds() / len(self)
            raise Refused(f"{len(self)} requests for images are waiting already", place_free_in)
        if ticket.deadline is not None:
            late = now + self.predict(ticket, now) - ticket.deadline
            if late > 0.0:
                raise Refused("the images would not be ready by the deadline", late)
        group = self.groups[ticket.group]
        self._welcome(ticket.caller)
        group.tickets[ticket.id] = ticket
        self._group_of[ticket.id] = group
        if group.name not in self._turn:
            group.deficit = 0.0
            self._turn.append(group.name)

    def remove(self, ticket_id: Hashable) -> Ticket | None:
        """Take a ticket out and free its slots. Returns None where it has ended already."""
        group = self._group_of.pop(ticket_id, None)
        if group is None:
            return None
        ticket = group.tickets.pop(ticket_id)
        self._waiting[ticket.caller] -= 1
        if not self._waiting[ticket.caller]:
            del self._waiting[ticket.caller]
        group.cohort.discard(ticket_id)
        for sample in ticket.samples:
            group.give_slot(sample)
        return ticket

    def expired(self, now: float) -> list[Ticket]:
        """Return the tickets past their deadlines; they are not removed."""
        return [
            ticket
            for group in self.groups.values()
            for ticket in group.tickets.values()
            if ticket.deadline is not None and ticket.deadline < now
        ]

    def next_batch(self, now: float) -> Batch | None:
        """Choose the samples of the next call. Returns None where there is nothing to do."""
        leader = self._leader()
        while self._turn:
            group = self.groups.get(self._turn[0])
            if group is None or not group.tickets:
                self._turn.popleft()
            elif all(ticket.caller != leader for ticket in group.tickets.values()):
                self._turn.rotate(-1)
            elif group.deficit <= 0.0:
                group.deficit += self.policy.quantum_seconds
                self._turn.rotate(-1)
            else:
                return self._batch(group, now)
        return None

    def done(self, batch: Batch, seconds: float) -> list[Sample]:
        """Take the samples of a call that was made one row further, and return those at their end;
        they keep their slots until `finish`. Samples whose ticket was removed meanwhile are left
        alone."""
        group = self.groups[batch.group]
        group.deficit -= seconds
        finished = []
        for sample in batch.samples:
            self._charge(sample.ticket.caller, seconds * sample.evaluations / batch.used)
            if sample.ticket.id not in group.tickets:
                continue
            sample.ticket.remaining -= sample.evaluations
            sample.at += 1
            if sample.done:
                finished.append(sample)
        return finished

    def finish(self, sample: Sample) -> bool:
        """Free the slot of a finished image. Returns True where its ticket has ended with it."""
        group = self._group_of[sample.ticket.id]
        group.give_slot(sample)
        sample.ticket.samples.remove(sample)
        if not sample.ticket.samples:
            self.remove(sample.ticket.id)
            return True
        return False

    def limit_width(self, name: Hashable, width: int) -> None:
        """Make calls of a group no wider from now on: the device has no room."""
        group = self.groups[name]
        group.buckets = tuple(b for b in group.buckets if b <= width) or group.buckets[:1]

    def predict(self, ticket: Ticket, now: float) -> float:
        """Estimate the seconds until a new ticket would be done: its own steps, those of more
        urgent tickets of its caller and group, and those of other groups and of other callers for
        as long as they last."""
        group = self.groups[ticket.group]
        urgency = self._urgency(group, ticket, now)
        ahead = sum(
            other.remaining
            for other in group.tickets.values()
            if other.caller == ticket.caller and self._urgency(group, other, now) <= urgency
        )
        width = min(group.max_width, max(ticket.evaluations) * ticket.num_images)
        alone = sum(ticket.evaluations) * group.cost.seconds(group.bucket(width))
        alone *= max(1.0, max(ticket.evaluations) * ticket.num_images / group.max_width)
        mine = alone / max(ticket.evaluations) + group.seconds_of(ahead)
        beside: defaultdict[Hashable, float] = defaultdict(float)
        for name, group in self.groups.items():
            for other in group.tickets.values():
                if other.caller != ticket.caller:
                    beside["caller", other.caller] += group.seconds_of(other.remaining)
                elif name != ticket.group:
                    beside["group", name] += group.seconds_of(other.remaining)
        return mine + sum(min(mine, seconds) for seconds in beside.values())

    def backlog_seconds(self) -> float:
        """Return the time of all waiting work, at the speed of full calls."""
        return sum(
            group.seconds_of(sum(ticket.remaining for ticket in group.tickets.values()))
            for group in self.groups.values()
        )

    # Callers ----------------------------------------------------------------------------------

    def _may_still_wait(self, caller: Hashable) -> bool:
        """Return whether a caller has less than its share of the places of those who wait."""
        callers = len(self._waiting) + (caller not in self._waiting)
        return self._waiting[caller] * callers < self.policy.max_waiting

    def _welcome(self, caller: Hashable) -> None:
        if caller not in self._waiting:
            least = self._now_used - self.policy.credit_seconds
            self._used = {c: s for c, s in self._used.items() if c in self._waiting or s > least}
            self._used.setdefault(caller, least)
        self._waiting[caller] += 1

    def _leader(self) -> Hashable:
        """Return the caller that has used least, of those that wait."""
        if not self._waiting:
            return None
        leader = min(self._waiting, key=lambda caller: self._used[caller])
        self._now_used = max(self._now_used, self._used[leader])
        return leader

    def _charge(self, caller: Hashable, seconds: float) -> None:
        if caller in self._used:
            self._used[caller] += seconds

    # Calls ------------------------------------------------------------------------------------

    def _batch(self, group: Group, now: float) -> Batch:
        samples = self._choose(group, now)
        for sample in samples:
            group.take_slot(sample)
        used = sum(sample.evaluations for sample in samples)
        return Batch(group.name, tuple(samples), used, group.bucket(used))

    def _choose(self, group: Group, now: float) -> list[Sample]:
        chosen: list[Sample] = []
        width, gain, best_rate, best = 0, 0.0, 0.0, 0
        longest = 0.0  # seconds
        for sample, weight in self._candidates(group, now):
            if width + sample.evaluations > group.max_width:
                break
            seconds = group.cost.seconds(group.bucket(width + sample.evaluations))
            if not chosen or sample.ticket.caller == chosen[0].ticket.caller:
                longest = self.policy.stretch * seconds
            elif seconds > longest and self.policy.batching == "step":
                break
            chosen.append(sample)
            width += sample.evaluations
            gain += sample.evaluations * weight
            rate = gain / seconds
            if rate >= best_rate or self.policy.batching != "step":
                best_rate, best = rate, len(chosen)
        return chosen[:best]

    def _candidates(self, group: Group, now: float) -> Iterator[tuple[Sample, float]]:
        """Yield samples, the most urgent first, with the worth of a second nearer to their end."""
        free, new = group.num_free_slots, Counter[Hashable]()
        for ticket in self._by_urgency(group, now):
            for sample in ticket.samples:
                if sample.slot is None:
                    if free == 0 or not group.has_slot_for(ticket.caller, new[ticket.caller] + 1):
                        continue
                    free -= 1
                    new[ticket.caller] += 1
                yield sample, 1.0 / ticket.remaining

    def _by_urgency(self, group: Group, now: float) -> list[Ticket]:
        if self.policy.batching == "step":
            return sorted(
                group.tickets.values(),
                key=lambda t: (self._used[t.caller], self._urgency(group, t, now)),
            )
        if not group.cohort:
            group.cohort = self._next_cohort(group)
        return [ticket for ticket in group.tickets.values() if ticket.id in group.cohort]

    def _next_cohort(self, group: Group) -> set[Hashable]:
        """Return the oldest ticket, and in "request" the following ones that fit beside it."""
        cohort: set[Hashable] = set()
        width = 0
        for ticket in group.tickets.values():
            width += max(ticket.evaluations) * ticket.num_images
            if cohort and (width > group.max_width or self.policy.batching == "off"):
                break
            cohort.add(ticket.id)
        return cohort

    def _urgency(self, group: Group, ticket: Ticket, now: float) -> float:
        """Return the seconds of work left, less a credit for waiting; the smallest goes first."""
        waited = now - ticket.arrived
        return group.seconds_of(ticket.remaining) - self.policy.ageing * waited
