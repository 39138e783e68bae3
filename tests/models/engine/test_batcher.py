"""The policy, as properties of whole runs on a clock that only counts: nobody starves, no budget is
exceeded, every ticket ends exactly once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.engine.batcher import Batch, Batcher, CallCost, Group, Policy, Refused, Ticket

BUCKETS = (1, 2, 4, 8, 16)
ALPHA, BETA = 0.01, 0.004


def ticket(
    number, group="g", steps=10, images=1, arrived=0.0, guided=False, deadline=None, caller=""
):
    evaluations = (2 if guided else 1,) * steps
    return Ticket(number, group, evaluations, images, arrived, deadline, caller=caller)


def batcher_of(*groups, policy=None, slots=32, buckets=BUCKETS):
    batcher = Batcher(policy)
    for name in groups or ("g",):
        batcher.add_group(Group(name, buckets, slots))
    return batcher


class Run:
    """Drives a batcher through arrivals (time, ticket), calls taking ALPHA + BETA * width."""

    def __init__(self, batcher, arrivals, cancelled=()):
        self.batcher, self.now = batcher, 0.0
        self.arrivals = sorted(arrivals, key=lambda pair: pair[0])
        self.cancelled = dict(cancelled)  # at the how manieth call which ticket
        self.batches: list[Batch] = []
        self.finished: dict[int, float] = {}
        self.images: list[tuple[int, int]] = []

    def to_the_end(self):
        while self.arrivals or len(self.batcher):
            while self.arrivals and self.arrivals[0][0] <= self.now:
                self.batcher.add(self.arrivals.pop(0)[1], self.now)
            gone = self.cancelled.pop(len(self.batches), None)
            if gone is not None:
                self.batcher.remove(gone)
            batch = self.batcher.next_batch(self.now)
            if batch is None:
                if self.arrivals:
                    self.now = max(self.now, self.arrivals[0][0])
                continue
            self.call(batch)
        return self

    def call(self, batch):
        seconds = ALPHA + BETA * batch.width
        self.batches.append(batch)
        assert len(self.batches) < 50_000, "it does not end"
        self.now += seconds
        self.batcher.groups[batch.group].cost.measured(batch.width, seconds)
        for sample in self.batcher.done(batch, seconds):
            self.images.append((sample.ticket.id, sample.image))
            if self.batcher.finish(sample):
                assert sample.ticket.id not in self.finished
                self.finished[sample.ticket.id] = self.now


tickets = st.lists(
    st.tuples(
        st.floats(0, 3),
        st.sampled_from(["g", "h"]),
        st.integers(1, 30),
        st.integers(1, 40),
        st.booleans(),
    ),
    max_size=25,
)


@settings(deadline=None)  # the machine may be busy
@given(tickets, st.sampled_from(["step", "request", "off"]), st.integers(1, 40), st.integers(1, 3))
def test_every_ticket_ends_once_and_no_budget_is_exceeded(drawn, batching, slots, callers):
    policy = Policy(max_waiting=100, batching=batching)
    batcher = batcher_of("g", "h", policy=policy, slots=slots)
    arrivals = [
        (at, ticket(i, group, steps, images, at, guided, caller=i % callers))
        for i, (at, group, steps, images, guided) in enumerate(drawn)
    ]
    run = Run(batcher, arrivals).to_the_end()
    assert sorted(run.finished) == list(range(len(drawn)))
    assert sorted(run.images) == [(i, j) for i, d in enumerate(drawn) for j in range(d[3])]
    for batch in run.batches:
        assert batch.samples
        assert batch.used == sum(sample.ticket.evaluations[0] for sample in batch.samples)
        assert batch.used <= batch.width <= BUCKETS[-1]
        assert batch.width in BUCKETS
        assert len({id(sample) for sample in batch.samples}) == len(batch.samples)
    for group in batcher.groups.values():
        assert group.num_free_slots == slots


@settings(deadline=None)  # the machine may be busy
@given(tickets, st.dictionaries(st.integers(0, 60), st.integers(0, 24), max_size=15))
def test_whoever_leaves_gives_back_the_slots(drawn, cancelled):
    batcher = batcher_of("g", "h", policy=Policy(max_waiting=100), slots=12)
    arrivals = [
        (at, ticket(i, group, steps, images, at, guided))
        for i, (at, group, steps, images, guided) in enumerate(drawn)
    ]
    run = Run(batcher, arrivals, cancelled.items()).to_the_end()
    assert set(run.finished) | set(cancelled.values()) >= set(range(len(drawn)))
    assert all(group.num_free_slots == 12 for group in batcher.groups.values())
    assert len(batcher) == 0


def test_no_two_samples_under_way_share_a_slot():
    batcher = batcher_of(slots=6)
    for i in range(5):
        batcher.add(ticket(i, steps=7 + i, images=4), 0.0)
    run = Run(batcher, [])
    while len(batcher):
        batch = batcher.next_batch(run.now)
        under_way = [
            sample.slot
            for t in batcher.groups["g"].tickets.values()
            for sample in t.samples
            if sample.slot is not None
        ]
        assert len(set(under_way)) == len(under_way) <= 6
        run.call(batch)
    assert len(run.images) == 20


def test_a_short_request_overtakes_long_ones():
    long_ones = [(0.0, ticket(i, steps=200, arrived=0.0)) for i in range(8)]
    short = (1.0, ticket(99, steps=5, arrived=1.0))
    run = Run(batcher_of(), [*long_ones, short]).to_the_end()
    alone = 5 * (ALPHA + BETA)
    assert run.finished[99] - 1.0 < 3 * alone + (ALPHA + BETA * BUCKETS[-1])
    assert run.finished[99] < min(run.finished[i] for i in range(8))


def test_nobody_starves_behind_an_endless_row_of_short_requests():
    # Short ones arrive as fast as a call of one can serve them: without age the long one waits on.
    arrivals = [(0.0, ticket(0, steps=300, arrived=0.0))]
    every = 5 * (ALPHA + BETA)
    arrivals += [(i * every, ticket(1 + i, steps=5, arrived=i * every)) for i in range(3000)]
    run = Run(batcher_of(policy=Policy(max_waiting=10_000)), arrivals).to_the_end()
    assert run.finished[0] < 0.25 * run.now


def test_calls_are_wide_where_a_sample_costs_little_and_narrow_where_it_costs_all():
    widths = {}
    for name, alpha, beta in (("gpu", 1e-2, 1e-5), ("cpu", 1e-5, 1e-2)):
        batcher = batcher_of()
        group = batcher.groups["g"]
        for width in BUCKETS * 20:
            group.cost.measured(width, alpha + beta * width)
        for i in range(8):
            batcher.add(ticket(i, steps=10 * (i + 1)), 0.0)
        widths[name] = len(batcher.next_batch(0.0).samples)
    assert widths == {"gpu": 8, "cpu": 1}


def test_groups_share_the_device_by_time():
    batcher = batcher_of("g", "h")
    for i in range(4):
        batcher.add(ticket(i, "g", steps=300, images=4), 0.0)
    batcher.add(ticket(9, "h", steps=300), 0.0)
    used = {"g": 0.0, "h": 0.0}
    run = Run(batcher, [])
    while run.now < 6.0:
        batch = batcher.next_batch(run.now)
        used[batch.group] += ALPHA + BETA * batch.width
        run.call(batch)
    assert used["h"] / used["g"] == pytest.approx(1.0, abs=0.15)


def test_a_full_queue_refuses_and_says_when_to_come_again():
    batcher = batcher_of(policy=Policy(max_waiting=3))
    for i in range(3):
        batcher.add(ticket(i, steps=100), 0.0)
    with pytest.raises(Refused, match="3 requests for images are waiting already") as refusal:
        batcher.add(ticket(3), 0.0)
    assert 0 < refusal.value.retry_after <= batcher.backlog_seconds()
    batcher.remove(0)
    batcher.add(ticket(3), 0.0)


def test_a_deadline_that_cannot_be_met_is_refused_at_once():
    batcher = batcher_of()
    for width in BUCKETS * 20:
        batcher.groups["g"].cost.measured(width, ALPHA + BETA * width)
    batcher.add(ticket(0, steps=10, deadline=1.0), 0.0)  # takes 0.14 s alone
    with pytest.raises(Refused, match="deadline") as refusal:
        batcher.add(ticket(1, steps=1000, deadline=1.0), 0.0)
    assert refusal.value.retry_after == pytest.approx(1000 * (ALPHA + BETA) - 1.0, rel=0.2)


@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 60), st.integers(1, 16), st.integers(0, 12))
def test_a_predicted_finish_is_near_the_real_one(steps, images, others):
    batcher = batcher_of()
    for width in BUCKETS * 20:
        batcher.groups["g"].cost.measured(width, ALPHA + BETA * width)
    for i in range(others):
        batcher.add(ticket(i, steps=5 + 7 * i), 0.0)
    newcomer = ticket(99, steps=steps, images=images)
    predicted = batcher.predict(newcomer, 0.0)
    batcher.add(newcomer, 0.0)
    run = Run(batcher, []).to_the_end()
    # Rows of later tickets that share its calls make it later than alone, at most by this much.
    widest = (ALPHA + BETA * BUCKETS[-1]) / (ALPHA + BETA)
    assert predicted / widest <= run.finished[99] <= predicted * widest


def test_expired_tickets_are_named():
    batcher = batcher_of()
    batcher.add(ticket(0, deadline=5.0), 0.0)
    batcher.add(ticket(1), 0.0)
    assert batcher.expired(4.0) == []
    assert [t.id for t in batcher.expired(5.1)] == [0]


@settings(deadline=None)  # the machine may be busy
@given(st.floats(1e-4, 1.0), st.floats(1e-5, 0.5), st.lists(st.sampled_from(BUCKETS), min_size=2))
def test_the_cost_of_a_call_is_found_from_what_calls_took(alpha, beta, widths):
    cost = CallCost()
    for width in widths * 30:
        cost.measured(width, alpha + beta * width)
    for width in set(widths):
        assert cost.seconds(width) == pytest.approx(alpha + beta * width, rel=0.05)
    if len(set(widths)) > 1:
        assert cost.alpha == pytest.approx(alpha, rel=0.05, abs=0.05 * beta)
        assert cost.beta == pytest.approx(beta, rel=0.05, abs=0.01 * alpha)


def test_after_too_little_memory_calls_are_narrower():
    batcher = batcher_of()
    batcher.limit_width("g", 5)
    for i in range(20):
        batcher.add(ticket(i), 0.0)
    run = Run(batcher, []).to_the_end()
    assert max(batch.width for batch in run.batches) == 4
    assert len(run.finished) == 20


def test_when_calls_become_cheaper_a_few_of_them_outweigh_all_that_was_measured():
    cost = CallCost()
    for width in (1, 2, 4) * 100:
        cost.measured(width, 0.01 + 0.01 * width)
    cost.forget()
    for width in (1, 2, 4) * 2:
        cost.measured(width, 0.001 + 0.002 * width)
    for width in (1, 2, 4):
        assert cost.seconds(width) == pytest.approx(0.001 + 0.002 * width, rel=0.1)


# Callers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["g", "h"])
@pytest.mark.parametrize(("steps", "images"), [(50, 16), (10, 1)])
def test_short_requests_go_before_those_of_a_caller_who_floods(group, steps, images):
    """Of long orders and of short ones, of the same model and of another: one call of theirs may be
    under way."""
    count = 7000 // (steps * images)
    flood = [(0.0, ticket(i, steps=steps, images=images, caller="flood")) for i in range(count)]
    short = [
        (at, ticket(f"short {at}", group, steps=5, arrived=at, caller="other"))
        for at in (1.0, 7.5, 8.0, 20.0, 25.0)
    ]
    batcher = batcher_of("g", "h", policy=Policy(max_waiting=10_000), slots=64)
    run = Run(batcher, [*flood, *short]).to_the_end()
    alone = 5 * (ALPHA + BETA)
    for at, one in short:
        assert at < run.finished[one.id] < at + 1.5 * alone + (ALPHA + BETA * BUCKETS[-1])
    assert max(run.finished.values()) == max(run.finished[i] for i in range(count)) > 25.0


def test_callers_who_flood_share_the_device_whatever_they_send():
    """One sends ten times as many, and shorter ones."""
    batcher = batcher_of(policy=Policy(max_waiting=10_000), slots=64)
    for i in range(200):
        batcher.add(ticket(i, steps=20, caller="many"), 0.0)
    for i in range(20):
        batcher.add(ticket(-1 - i, steps=200, images=8, caller="few"), 0.0)
    run = Run(batcher, [])
    used = {"many": 0, "few": 0}
    while run.now < 15:
        batch = batcher.next_batch(run.now)
        for sample in batch.samples:
            used[sample.ticket.caller] += 1
        run.call(batch)
    assert 0.8 < used["many"] / used["few"] < 1.25


def test_nobody_starves_beside_a_caller_with_an_endless_row_of_short_requests():
    arrivals = [(0.0, ticket(0, steps=300, caller="long"))]
    every = 5 * (ALPHA + BETA)
    arrivals += [
        (i * every, ticket(1 + i, steps=5, arrived=i * every, caller="short")) for i in range(3000)
    ]
    run = Run(batcher_of(policy=Policy(max_waiting=10_000)), arrivals).to_the_end()
    assert run.finished[0] < 4 * 300 * (ALPHA + BETA)


def test_a_caller_cannot_take_all_places_and_all_slots():
    batcher = batcher_of(policy=Policy(max_waiting=8), slots=32)
    for i in range(8):
        batcher.add(ticket(i, steps=40 - i, images=16, caller="flood"), 0.0)
    with pytest.raises(Refused):
        batcher.add(ticket(8, caller="flood"), 0.0)
    for i in range(4):  # half of the places, as there are two callers
        batcher.add(ticket(10 + i, caller="other"), 0.0)
    with pytest.raises(Refused):
        batcher.add(ticket(14, caller="other"), 0.0)
    batcher.add(ticket(20, caller="third"), 0.0)

    group = Group("g", BUCKETS, 32)
    for i in range(40):
        one = ticket(i, caller="flood").samples[0]
        if group.has_slot_for("flood", 1):
            group.take_slot(one)
    assert group.num_free_slots == BUCKETS[-1]
    assert group.has_slot_for("other", BUCKETS[-1])


def test_a_deadline_is_met_beside_a_flood():
    batcher = batcher_of(policy=Policy(max_waiting=1000))
    for i in range(200):
        batcher.add(ticket(i, steps=100, images=8, caller="flood"), 0.0)
    soon = ticket("soon", steps=5, deadline=1.0, caller="other")
    with pytest.raises(Refused):
        batcher.add(ticket("late", steps=5, images=64, deadline=1.0, caller="other"), 0.0)
    batcher.add(soon, 0.0)
    run = Run(batcher, [])
    while "soon" not in run.finished:
        run.call(batcher.next_batch(run.now))
    assert run.now < 1.0
