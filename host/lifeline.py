"""A child process that ends with its parent, however the parent ends.

The parent holds the child's standard input open and never writes to it. When the parent ends,
even by SIGKILL, the kernel closes that pipe, and the child reads EOF.
"""

import os
import threading
from collections.abc import Callable

DIES_WITH_PARENT = "DIFFUSION_DIE_WITH_PARENT"  # set for a child that has such a standard input

_STDIN = 0


def end_with_parent(leave: Callable[[], object]) -> None:
    """Call `leave` on EOF of standard input, in a daemon thread (not the main thread)."""

    def watch() -> None:
        # A read of sys.stdin would still hold its lock when the interpreter exits.
        while os.read(_STDIN, 4096):
            pass
        leave()

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
