"""Processes that start at once and share what they have loaded.

A process that has loaded torch holds 160 MB of its own and took two seconds. So one does that, and
forks another whenever it is handed a socket to talk on. It computes nothing itself: no thread runs
in it that a fork would lose.
"""

import gc
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable

# Of every library that would start threads of its own on being loaded.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class ForkServer:
    """`python -m module`, whose main is `fork_for_each_socket`."""

    def __init__(self, module: str) -> None:
        self.module = module
        self._popen: subprocess.Popen[bytes] | None = None
        self._control: socket.socket

    def fork(self, end: socket.socket) -> None:
        """One more process, which has `end`. Does not wait until it is there; where it never will
        be, the other end of the socket closes. Raises OSError."""
        if self._popen is None or self._popen.poll() is not None:
            self._start()
        socket.send_fds(self._control, [b"\0"], [end.fileno()])

    def close(self) -> None:
        """Those it has forked leave as their sockets close."""
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
    """Runs serve(socket) in a process of its own for each that arrives on the standard input, and
    returns when that closes. Those that are still at work are ended then."""
    context = multiprocessing.get_context("fork")
    control = socket.socket(fileno=os.dup(0))

    def run(end: socket.socket) -> None:
        control.close()  # and the standard input has been closed already
        serve(end)

    gc.collect()
    gc.freeze()  # a collection in a fork would write to all that it shares
    while handed := socket.recv_fds(control, 1, 1)[1]:
        with socket.socket(fileno=handed[0]) as end:
            context.Process(target=run, args=(end,), daemon=True).start()
