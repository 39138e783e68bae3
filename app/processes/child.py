"""Child processes that are kept running, and that end when this process does."""

import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from app.logs import log

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
HEALTHY_SECONDS = 60.0  # a child that ran this long starts again without a pause

Start = Callable[[], "subprocess.Popen[bytes]"]


@dataclass
class Child:
    """A process that `start` starts. `watch`, called now and then, starts it again after it has
    died and a pause that doubles each time."""

    name: str
    start: Start
    process: "subprocess.Popen[bytes] | None" = None
    _pause: float = FIRST_PAUSE_SECONDS
    _started: float = 0.0
    _due: float = field(default=0.0)

    def watch(self) -> None:
        now = time.monotonic()
        if self.process is None:
            if now >= self._due:
                self._launch(now)
        elif (code := self.process.poll()) is not None:
            if now - self._started >= HEALTHY_SECONDS:
                self._pause = FIRST_PAUSE_SECONDS
            log.error("process ended", process=self.name, code=code, again_in_seconds=self._pause)
            self._forget()
            self._due = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def stop(self, seconds: float) -> None:
        """Send SIGTERM, and SIGKILL where the process still runs after `seconds`."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            log.warning("process had to be killed", process=self.name)
            self.process.kill()
            self.process.wait()
        self._forget()

    def _forget(self) -> None:
        if self.process and self.process.stdin:
            self.process.stdin.close()
        self.process = None

    def _launch(self, now: float) -> None:
        try:
            self.process = self.start()
        except (OSError, RuntimeError) as error:
            log.error("process does not start", process=self.name, reason=str(error))
            self._due = now + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            return
        self._started = now
