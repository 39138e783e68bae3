"""Folders that appear whole or not at all, even if their writer fails or is killed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to write to, and rename it to `folder` at the end.

    It is synced to disk before; after an exception it is deleted. Raises OSError if `folder` exists
    and is not empty.
    """
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
