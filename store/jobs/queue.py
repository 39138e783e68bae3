"""The queue as it stands: which jobs run, and when each waiting job will be next.

The rule by which workers claim jobs (store.jobs.claims) is played forward: whenever a worker is
free it takes the job that it would claim then. The order among the jobs of a kind is that of the
claims. The times are estimates: those of jobs come from their budgets, their progress and earlier
jobs of their kind. A worker of several kinds is taken to do the oldest first.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store.database import Database, now
from store.jobs import transitions
from store.jobs.kinds import KINDS, Kind
from store.jobs.record import Job, Status
from store.jobs.turns import UNUSED, Owner, Use, next_owner, used_by
from store.nodes import Node, live_nodes

GPU = "cuda"
NOMINAL_SECONDS = 600.0  # of a job whose length nothing tells; what follows it has no time
RECENT = 10  # jobs of a kind, whose lengths tell that of the next


@dataclass(frozen=True)
class Entry:
    """A job that runs or waits. `seconds` are left of it, None if nothing tells; `worker` holds
    it."""

    id: str
    kind: Kind
    status: Status
    owner: Owner
    name: str  # of its model, or of the dataset that it fetches
    dataset: str | None
    priority: int
    device: str | None
    created_at: datetime
    started_at: datetime | None
    progress: float
    seconds: float | None
    worker: str | None = None


@dataclass(frozen=True)
class Place:
    """`position` is 1 for the next job of its kind; `starts_in` is in seconds, None if nothing
    tells."""

    position: int
    starts_in: float | None


@dataclass(frozen=True)
class Slot:
    """One job at a time, of these kinds, on this device. One that is not real stands for the worker
    that a kind has not got."""

    kinds: tuple[Kind, ...]
    device: str | None
    is_real: bool = True


@dataclass(frozen=True)
class Queue:
    """`running` in the order in which they were started, and `waiting` in the order in which they
    will be."""

    running: list[Entry]
    waiting: list[Entry]
    places: Mapping[str, Place]


def read_queue(database: Database) -> Queue:
    """Return the jobs of all owners that run or wait; `database` has no caller."""
    at = now()
    workers = live_nodes(database, "worker")
    with database.session() as session:
        rows = session.execute(_rows()).all()
        kinds = {row.kind for row in rows}
        lengths = {kind: _usual_seconds(session, kind) for kind in kinds - {"train"}}
        used = used_by(session, kinds)
    entries = [_entry(row, lengths.get(row.kind), at) for row in rows]
    waits = {row.id for row in rows if row.claimable}
    running = [entry for entry in entries if entry.id not in waits]
    waiting = [entry for entry in entries if entry.id in waits]
    places = places_of(waiting, running, workers, used, at)
    running.sort(key=lambda entry: (entry.started_at or at, entry.id))
    order = {job_id: number for number, job_id in enumerate(places)}
    waiting.sort(key=lambda entry: order[entry.id])
    return Queue(running, waiting, places)


def places_of(
    waiting: Iterable[Entry],
    running: Sequence[Entry],
    workers: Sequence[Node],
    used: Mapping[Kind, Mapping[Owner, Use]],
    at: datetime,
) -> dict[str, Place]:
    """Return the place of each waiting job, the next one first. A kind that no worker takes has an
    order, too, but no times."""
    return _Simulation(waiting, running, workers, used, at).run()


# Played forward -----------------------------------------------------------------------------------


class _Line:
    """The waiting jobs of one owner and kind that need the same device."""

    def __init__(self) -> None:
        self._by_turn: list[tuple[int, str, Entry]] = []
        self._ages: list[str] = []
        self._taken: set[str] = set()

    def add(self, entry: Entry) -> None:
        heapq.heappush(self._by_turn, (-entry.priority, entry.id, entry))
        heapq.heappush(self._ages, entry.id)

    def __bool__(self) -> bool:
        return bool(self._by_turn)

    @property
    def oldest(self) -> str:
        while self._ages[0] in self._taken:
            heapq.heappop(self._ages)
        return self._ages[0]

    def first(self) -> tuple[int, str]:
        return self._by_turn[0][:2]

    def take(self) -> Entry:
        _, _, entry = heapq.heappop(self._by_turn)
        self._taken.add(entry.id)
        return entry


@dataclass
class _Simulation:
    waiting: Iterable[Entry]
    running: Sequence[Entry]
    workers: Sequence[Node]
    used: Mapping[Kind, Mapping[Owner, Use]]
    at: datetime
    # By kind, owner and whether a GPU is waited for.
    lines: dict[Kind, dict[tuple[Owner, bool], _Line]] = field(init=False)
    # When a slot is free, its number, whether that is known, and whose job it ends then.
    free: list[tuple[float, int, bool, Slot, tuple[Kind, Owner] | None]] = field(init=False)
    count: int = field(init=False)  # of all that was free: a heap compares no slots

    def __post_init__(self) -> None:
        self.lines = defaultdict(lambda: defaultdict(_Line))
        self.use = {kind: dict(of) for kind, of in self.used.items()}
        self.free, self.count = [], 0
        gpu_kinds = {kind for node in self.workers if node.device == GPU for kind in node.kinds}
        for entry in self.waiting:
            needs_gpu = entry.device == GPU and entry.kind in gpu_kinds
            self.lines[entry.kind][entry.owner, needs_gpu].add(entry)
        for slot, job in self._slots():
            if job is not None:
                self._occupy(0.0, slot, job)
            else:
                self._push(0.0, slot.is_real, slot, None)

    def run(self) -> dict[str, Place]:
        positions: Counter[Kind] = Counter()
        places: dict[str, Place] = {}
        unknown: set[Kind] = set()  # kinds of which one time is not known, and so no later one
        while self.free:
            seconds, _, is_known, slot, ended = heapq.heappop(self.free)
            if ended is not None:
                self._release(*ended)
            entry = self._claim(slot)
            if entry is None:
                continue
            if not is_known:
                unknown |= set(slot.kinds)
            positions[entry.kind] += 1
            starts_in = None if entry.kind in unknown else seconds
            places[entry.id] = Place(positions[entry.kind], starts_in)
            self._use(entry, seconds)
            self._occupy(seconds, slot, entry)
        return places

    def _slots(self) -> Iterator[tuple[Slot, Entry | None]]:
        """Yield the slots, each with the job that occupies it now: one for each live worker, more
        for one that runs several jobs, and one for each kind that no worker takes."""
        held: dict[str | None, list[Entry]] = defaultdict(list)
        for entry in self.running:
            held[entry.worker].append(entry)
        for node in self.workers:
            slot = Slot(tuple(kind for kind in KINDS if kind in node.kinds), node.device)
            jobs: list[Entry | None] = [*held.get(node.id, [])]
            for job in jobs or [None]:
                yield slot, job
        taken = {kind for node in self.workers for kind in node.kinds}
        for kind in set(self.lines) - taken:
            yield Slot((kind,), None, is_real=False), None

    def _claim(self, slot: Slot) -> Entry | None:
        """Take the job that a worker claims now: of its kinds that which has waited longest."""
        kinds = [(kind, lines) for kind in slot.kinds if (lines := self._lines(kind, slot))]
        if not kinds:
            return None
        kind, lines = min(kinds, key=lambda each: min(line.oldest for _, line in each[1]))
        ages: dict[Owner, str] = {}
        for owner, line in lines:
            ages[owner] = min(ages.get(owner, line.oldest), line.oldest)
        owners = sorted(ages, key=lambda owner: ages[owner])
        turn = next_owner(owners, self.use.get(kind, {}))
        return min((line for owner, line in lines if owner == turn), key=_Line.first).take()

    def _lines(self, kind: Kind, slot: Slot) -> list[tuple[Owner, _Line]]:
        """Return the lines of a kind in which a job waits that this slot may take."""
        return [
            (owner, line)
            for (owner, needs_gpu), line in self.lines[kind].items()
            if line and (slot.device == GPU or not needs_gpu)
        ]

    def _use(self, entry: Entry, seconds: float) -> None:
        of = self.use.setdefault(entry.kind, {})
        count, last = of.get(entry.owner, UNUSED)
        later = timedelta(seconds=seconds, microseconds=self.count)  # two begin one after the other
        started = entry.started_at or self.at + later
        of[entry.owner] = (count + 1, max(last, started))

    def _release(self, kind: Kind, owner: Owner) -> None:
        of = self.use.setdefault(kind, {})
        count, last = of.get(owner, UNUSED)
        of[owner] = (max(0, count - 1), last)

    def _occupy(self, begins: float, slot: Slot, entry: Entry) -> None:
        left = NOMINAL_SECONDS if entry.seconds is None else entry.seconds
        is_known = entry.seconds is not None and slot.is_real
        self._push(begins + left, is_known, slot, (entry.kind, entry.owner))

    def _push(
        self, free_at: float, is_known: bool, slot: Slot, ended: tuple[Kind, Owner] | None
    ) -> None:
        self.count += 1
        heapq.heappush(self.free, (free_at, self.count, is_known, slot, ended))


# From records -------------------------------------------------------------------------------------


def _rows() -> sa.Select[*tuple[Any, ...]]:
    """Select the jobs that run or wait, without what is large of them."""
    return sa.select(
        Job.id,
        Job.kind,
        Job.status,
        Job.made_by,
        Job.model_name,
        Job.dataset,
        Job.priority,
        Job.device,
        Job.owner,
        Job.created_at,
        Job.started_at,
        Job.progress,
        transitions.claimable().label("claimable"),
        Job.options["seconds"].as_float().label("planned"),
        Job.config["minutes"].as_float().label("minutes"),
        Job.config["name"].as_string().label("fetched"),
        Job.config[("request", "num_images")].as_float().label("num_images"),
    ).where(Job.status.in_(("queued", "running")))


def _entry(row: Any, usual: float | None, at: datetime) -> Entry:
    progress = float(row.progress.get("progress") or 0.0)
    return Entry(
        id=row.id,
        kind=row.kind,
        status=row.status,
        owner=row.made_by,
        name=row.model_name or row.fetched or "",
        dataset=row.dataset,
        priority=row.priority,
        device=row.device,
        created_at=row.created_at,
        started_at=row.started_at,
        progress=progress,
        seconds=_seconds_left(row, usual, at),
        worker=None if row.claimable else row.owner,
    )


def _seconds_left(row: Any, usual: float | None, at: datetime) -> float | None:
    """Return how long a job will take from now or from its start on, None if nothing tells. `usual`
    is the length of such jobs, of an order of images that of one image."""
    if not row.claimable and (left := row.progress.get("eta_seconds")) is not None:
        return float(left)
    total: float | None = usual
    if row.kind == "train":
        total = row.planned or (None if row.minutes is None else 60.0 * row.minutes)
    elif row.kind == "sample" and usual is not None:
        total = usual * (row.num_images or 1.0)
    if total is None:
        return None
    if row.kind in ("train", "sample"):  # whose progress is that of the whole job
        return total * (1.0 - float(row.progress.get("progress") or 0.0))
    if row.claimable:
        return total
    left = total - (at - row.started_at).total_seconds()
    return left if left > 0 else None


def _usual_seconds(session: Session, kind: Kind) -> float | None:
    """Return the median length of the last jobs of a kind, of orders of images that of one image;
    None where there were none."""
    images = Job.config[("request", "num_images")].as_float()
    query = (
        sa.select(Job.started_at, Job.finished_at, images)
        .where(Job.kind == kind, Job.status == "succeeded")
        .order_by(Job.id.desc())
        .limit(RECENT)
    )
    lengths = [
        (finished - started).total_seconds() / (count or 1.0 if kind == "sample" else 1.0)
        for started, finished, count in session.execute(query)
    ]
    return median(lengths) if lengths else None
