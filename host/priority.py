"""The priority of a process relative to others."""

import contextlib
import os
from pathlib import Path

AUTOGROUP = Path("/proc/self/autogroup")


def yield_to_others(niceness: int) -> None:
    """Set niceness 0..19 for this process and, on Linux, for its session. Never raises.

    If the kernel groups processes by session, niceness alone counts only within a group.
    """
    with contextlib.suppress(OSError):
        os.nice(niceness)
    with contextlib.suppress(OSError):
        AUTOGROUP.write_text(str(niceness))
