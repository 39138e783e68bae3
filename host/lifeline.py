"""A child process that ends with its parent, however the parent ends.

The parent holds the child's standard input open and never writes to it. When the parent is gone,
even by SIGKILL, the kernel closes that pipe, and the child reads its end.
"""

import os
import threading
from collections.abc import Callable

DIES_WITH_PARENT = "DIFFUSION_DIE_WITH_PARENT"  # set for a child that has such a standard input

_STDIN = 0


def end_with_parent(leave: Callable[[], object]) -> None:
    """Call `leave` once standard input ends, in a daemon thread, which is not the main thread."""

    def watch() -> None:
        while os.read(_STDIN, 4096):  # sys.stdin would hold its lock when the interpreter exits
            pass
        leave()

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
