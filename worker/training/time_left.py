"""How long a training will still take. A budget in minutes says so itself; one in steps takes the
time of its steps, and that of the checkpoints on the way, as measured so far."""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator

WINDOW_SECONDS = 30.0  # of stepping, or the second half of it: what was long ago says little
MARK_SECONDS = 0.5
PAUSES = 3  # the last ones count


class TimeLeft:
    """`checkpoint_seconds` is how often there is a checkpoint at least."""

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
        """While a checkpoint is made."""
        begun = self._clock()
        yield
        self._pauses.append(self._clock() - begun)
        self._paused += self._pauses[-1]

    def mark(self, step: int) -> None:
        """This step is done."""
        stepping = self._clock() - self._begun - self._paused
        if self._marks and stepping - self._marks[-1][0] < MARK_SECONDS:
            return
        self._marks.append((stepping, step))
        window = max(WINDOW_SECONDS, stepping / 2)
        while len(self._marks) > 2 and stepping - self._marks[0][0] > window:
            self._marks.popleft()

    def seconds(self, step: int, elapsed: float) -> float | None:
        """From this step, `elapsed` seconds into the training; None until that can be told."""
        left = []
        if self._minutes is not None:
            left.append(60.0 * self._minutes - elapsed)
        if self._steps is not None and (rate := self._rate()):
            stepping = (self._steps - step) / rate
            cost = sum(self._pauses) / len(self._pauses) if self._pauses else 0.0
            left.append(stepping + cost * self._pauses_left(step, self._steps, stepping))
        return max(0.0, min(left)) if left else None

    def _rate(self) -> float | None:
        """Steps per second."""
        if len(self._marks) < 2:
            return None
        (then, before), (now, after) = self._marks[0], self._marks[-1]
        return (after - before) / (now - then)

    def _pauses_left(self, step: int, steps: int, stepping: float) -> int:
        by_steps = (steps - 1) // self._every - step // self._every
        return 1 + max(by_steps, int(stepping / self._every_seconds))  # one is at the end
