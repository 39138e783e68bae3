"""How a process lets others go first."""

import contextlib
import os
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")


def yield_to_others(niceness: int) -> None:
    """Niceness 0..19 for this process and, on Linux, for its session: where the kernel groups
    processes by session, niceness alone counts only within a group. Never raises."""
    with contextlib.suppress(OSError):
        os.nice(niceness)
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text(str(niceness))
