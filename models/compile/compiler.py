"""Compiled networks as files: built in the background, one at a time, the most called first.

Until a file exists its callers use the network itself. A file once built is used from the first
call on, also after a restart. A failed build is logged once and not tried again.
"""

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from host.devices import cpp_compiler
from models.compile.library import CompiledNet, Variant
from models.nets.unet import UNet

log = logging.getLogger(__name__)

MIN_CALLS = 100  # of a variant, before it is worth half a minute of a core
MAX_SECONDS = 1800.0  # of a build: all other work on the machine goes first
MAX_FILES = 500  # a few megabytes each; the oldest make room


class Compiler:
    """The compiler of one process; several may share `folder`. All methods but `close` are for one
    thread."""

    def __init__(self, folder: Path, min_calls: int = MIN_CALLS) -> None:
        self._folder, self._min_calls = folder, min_calls
        self._calls: Counter[Variant] = Counter()
        self._files: dict[Variant, Path] = {}
        self._given_up: set[Variant] = set()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def call(self, variant: Variant, net: UNet) -> CompiledNet | None:
        """Count a call of `net` and return its compiled form, if there is one by now."""
        if variant in self._given_up:
            return None
        if file := self._built(variant):
            return self._load(file, variant, net)
        self._calls[variant] += 1
        if self._thread is None or not self._thread.is_alive():
            self._build_next()
        return None

    def knows(self, variant: Variant) -> bool:
        """Tell whether further calls of a variant change nothing."""
        return variant in self._given_up or self._built(variant) is not None

    def close(self) -> None:
        """End the build under way."""
        self._closed = True
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        if self._thread is not None:
            self._thread.join()

    def _built(self, variant: Variant) -> Path | None:
        if variant not in self._files:
            self._files[variant] = self._folder / variant.name
        file = self._files[variant]
        return file if file.exists() else None

    def _load(self, file: Path, variant: Variant, net: UNet) -> CompiledNet | None:
        try:
            if not file.stat().st_size:  # no faster: see models.compile.build_process
                self._given_up.add(variant)
                return None
            compiled = CompiledNet(file, net)
            os.utime(file)  # the last use, for `_make_room`
        except (
            RuntimeError,
            OSError,
            AttributeError,
            TypeError,
        ) as error:  # or another torch
            self._give_up(variant, error)
            file.unlink(missing_ok=True)
            return None
        return compiled

    def _build_next(self) -> None:
        wanted = [v for v, calls in self._calls.most_common() if calls >= self._min_calls]
        if not wanted or self._closed:
            return
        if cpp_compiler() is None:
            log.warning("networks are not compiled: there is no C++ compiler")
            self._closed = True
            return
        self._calls.pop(wanted[0])
        self._thread = threading.Thread(target=self._build, args=wanted[:1], daemon=True)
        self._thread.start()

    def _build(self, variant: Variant) -> None:
        started = time.monotonic()
        scratch = self._folder / f"build-{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._make_room()
            shutil.rmtree(scratch, ignore_errors=True)  # process ids repeat in containers
            scratch.mkdir()
            self._run(variant, scratch)
        except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
            if not self._closed:
                self._give_up(variant, error)
        else:
            seconds = time.monotonic() - started
            log.info("calls of %d are compiled: %.0f s", variant.width, seconds)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _run(self, variant: Variant, scratch: Path) -> None:
        """Build a variant in a process of its own. Raises RuntimeError where that fails."""
        command = [sys.executable, "-m", "models.compile.build_process"]
        arguments = [variant.to_json(), str(self._files[variant]), str(scratch)]
        with (scratch / "log").open("wb") as output:
            self._process = subprocess.Popen(
                [*command, *arguments],
                stdin=subprocess.PIPE,  # the process ends when it closes
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        with self._process:  # closes its standard input
            if not self._closed:
                self._process.wait(MAX_SECONDS)
        if self._process.returncode:
            lines = (scratch / "log").read_text(errors="replace").split("\n")
            raise RuntimeError(next((line for line in reversed(lines) if line.strip()), "killed"))

    def _make_room(self) -> None:
        """Delete the oldest files, and temporary folders of killed builds."""
        for left in self._folder.glob("build-*"):
            if not Path("/proc", left.name.removeprefix("build-")).exists():
                shutil.rmtree(left, ignore_errors=True)
        files = sorted(self._folder.glob("*.so"), key=lambda file: file.stat().st_mtime)
        for file in files[: max(0, len(files) - MAX_FILES)]:
            file.unlink(missing_ok=True)

    def _give_up(self, variant: Variant, error: Exception) -> None:
        self._given_up.add(variant)
        log.warning("calls of %d stay uncompiled: %s", variant.width, error)
