"""Processes that start at once and share their loaded libraries.

Loading torch takes a process two seconds and 160 MB of its own. So one process does that, and forks
another for each socket that it is handed. It computes nothing itself: no thread runs in it that a
fork would lose.
"""

import gc
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable

# For every library that would otherwise start threads when it is loaded.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class ForkServer:
    """The process `python -m module`, whose main is `fork_for_each_socket`."""

    def __init__(self, module: str) -> None:
        self.module = module
        self._popen: subprocess.Popen[bytes] | None = None
        self._control: socket.socket

    def fork(self, end: socket.socket) -> None:
        """Start one more process, which has `end`, without waiting for it. Where it fails to start,
        the other end of the socket closes. Raises OSError."""
        if self._popen is None or self._popen.poll() is not None:
            self._start()
        socket.send_fds(self._control, [b"\0"], [end.fileno()])

    def close(self) -> None:
        """End the server; its forks end as their sockets close."""
        if self._popen is None:
            return
        self._control.close()
        self._popen.kill()
        self._popen.wait()
        self._popen = None

    def _start(self) -> None:
        if self._popen is not None:
            self._control.close()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", self.module],
                stdin=theirs.fileno(),
                start_new_session=True,
                env={**os.environ, **_ONE_THREAD},
            )


def fork_for_each_socket(serve: Callable[[socket.socket], None]) -> None:
    """Run serve(socket) in a process of its own for each socket that arrives on the standard input,
    and return when that closes. Processes that are still at work are ended then."""
    context = multiprocessing.get_context("fork")
    control = socket.socket(fileno=os.dup(0))

    def run(end: socket.socket) -> None:
        control.close()  # and the standard input has been closed already
        serve(end)

    gc.collect()
    gc.freeze()  # a collection in a fork would write to all shared pages
    while handed := socket.recv_fds(control, 1, 1)[1]:
        with socket.socket(fileno=handed[0]) as end:
            context.Process(target=run, args=(end,), daemon=True).start()
