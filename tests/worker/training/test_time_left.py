"""How long a training still takes, on a clock that the test holds in its hands."""

import pytest

from worker.training.time_left import TimeLeft


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(clock: Clock, left: TimeLeft, steps: int, every: int, step: float, cost: float) -> list:
    """(what was said, what was true) after each step of a run whose checkpoints, of which the first
    comes after a twentieth, take `cost` seconds."""
    said = []
    for n in range(1, steps + 1):
        clock.now += step
        left.mark(n)
        said.append((left.seconds(n, clock.now), clock.now))
        if n == steps // 20 or n % every == 0 or n == steps:
            with left.pause():
                clock.now += cost
    return [(seconds, clock.now - then) for seconds, then in said]


@pytest.mark.parametrize(("every", "cost"), [(100, 0.0), (100, 3.0), (250, 20.0), (10_000, 8.0)])
def test_it_is_right_within_a_tenth_after_a_tenth_of_the_run(clock, every, cost):
    left = TimeLeft(1000, None, every, 10_000.0, clock)
    said = run(clock, left, 1000, every, 0.1, cost)
    for seconds, truth in said[100:]:
        assert seconds == pytest.approx(truth, rel=0.1, abs=cost + 0.1)


def test_a_machine_that_becomes_slower_is_noticed(clock):
    left = TimeLeft(1000, None, 10_000, 10_000.0, clock)
    for n in range(1, 401):
        clock.now += 0.1 if n <= 100 else 0.4
        left.mark(n)
    assert left.seconds(400, clock.now) == pytest.approx(600 * 0.4, rel=0.05)


def test_a_budget_in_minutes_ends_with_them_and_of_two_budgets_the_first_counts(clock):
    left = TimeLeft(None, 2.0, 1000, 60.0, clock)
    assert left.seconds(1, 30.0) == 90.0
    both = TimeLeft(1000, 2.0, 10_000, 10_000.0, clock)
    for n in range(1, 101):
        clock.now += 0.1
        both.mark(n)
    assert both.seconds(100, clock.now) == pytest.approx(90.0, rel=0.02)
    assert both.seconds(100, 119.0) == 1.0


def test_before_two_steps_are_timed_nothing_is_said(clock):
    left = TimeLeft(1000, None, 100, 60.0, clock)
    assert left.seconds(0, 0.0) is None
