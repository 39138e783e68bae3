"""Folders that appear whole or not at all, whatever happens while they are written."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to, which becomes `folder` at the end, on disk, or is gone after an
    exception. Raises OSError where `folder` exists and holds something."""
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        for path in [*part.rglob("*"), part]:
            fsync(path)
        part.rename(folder)
        fsync(folder.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def fsync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
