"""The time that a training will still take. A budget in minutes gives it directly. A budget in
steps takes the time of its steps and of the checkpoints on the way, as measured so far."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator

WINDOW_SECONDS = 30.0  # of stepping, or the second half of it: older speeds say little
MARK_SECONDS = 0.5  # between two marks at least
PAUSES = 3  # the last ones whose mean duration is used


class TimeLeft:
    """An estimate that is updated step by step.

    There is a checkpoint every `checkpoint_every` steps, and at least every `checkpoint_seconds`.
    """

    def __init__(
        self,
        steps: int | None,
        minutes: float | None,
        checkpoint_every: int,
        checkpoint_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps, self._minutes = steps, minutes
        self._every, self._every_seconds = checkpoint_every, checkpoint_seconds
        self._clock, self._begun = clock, clock()
        self._paused = 0.0
        self._pauses: deque[float] = deque(maxlen=PAUSES)
        self._marks: deque[tuple[float, int]] = deque()

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leave out the time within, in which a checkpoint is made, of the time per step."""
        begun = self._clock()
        yield
        self._pauses.append(self._clock() - begun)
        self._paused += self._pauses[-1]

    def mark(self, step: int) -> None:
        """Note that this step is done."""
        stepping = self._clock() - self._begun - self._paused
        if self._marks and stepping - self._marks[-1][0] < MARK_SECONDS:
            return
        self._marks.append((stepping, step))
        window = max(WINDOW_SECONDS, stepping / 2)
        while len(self._marks) > 2 and stepping - self._marks[0][0] > window:
            self._marks.popleft()

    def seconds(self, step: int, elapsed: float) -> float | None:
        """Return the seconds left from this step, `elapsed` seconds into the training; None until
        there is an estimate."""
        left = []
        if self._minutes is not None:
            left.append(60.0 * self._minutes - elapsed)
        if self._steps is not None and (rate := self._rate()):
            stepping = (self._steps - step) / rate
            cost = sum(self._pauses) / len(self._pauses) if self._pauses else 0.0
            left.append(stepping + cost * self._pauses_left(step, self._steps, stepping))
        return max(0.0, min(left)) if left else None

    def _rate(self) -> float | None:
        """Return the steps per second, None until they were measured."""
        if len(self._marks) < 2:
            return None
        (then, before), (now, after) = self._marks[0], self._marks[-1]
        return (after - before) / (now - then)

    def _pauses_left(self, step: int, steps: int, stepping: float) -> int:
        by_steps = (steps - 1) // self._every - step // self._every
        return 1 + max(by_steps, int(stepping / self._every_seconds))  # plus one at the end
