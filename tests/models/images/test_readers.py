"""Sources of images: a reader yields names, labels and bytes, and a row of the table suffices."""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from models.fields import Invalid
from models.images.dataset import inspect_archive, prepare
from models.images.readers import READERS, ArchiveLimits, Entry, Reader, read_entries
from tests.models.images.test_dataset import sheet_of


def picture(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (12, 10), value).save(buffer, "PNG")
    return buffer.getvalue()


ROWS = {"0": ("dog", picture(10)), "1": ("cat", picture(20)), "2": ("dog", picture(30))}


def _is_table(path: Path) -> bool:
    return path.read_bytes() == b"table"


def _rows(path: Path, limits: ArchiveLimits, only: set[str] | None) -> Iterator[Entry]:
    for name, (label, data) in ROWS.items():
        if only is None or name in only:
            yield Entry(name, (label,), data)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """A file of a new kind, whose classes are not folders."""
    monkeypatch.setattr(
        "models.images.readers.READERS", (*READERS, Reader("table", _is_table, _rows))
    )
    (tmp_path / "table").write_bytes(b"table")
    return tmp_path / "table"


def test_a_new_source_of_images_is_one_row(table, tmp_path):
    assert inspect_archive(table).classes == {"cat": 1, "dog": 2}
    dataset = prepare(table, tmp_path / "data", (8, 8), 1)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [1, 0, 1]
    assert dataset.images[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert sheet_of(table, (8, 8), per_row=2).shape == (130, 130, 3)


def test_a_refusal_names_every_kind(table, tmp_path):
    (tmp_path / "text").write_text("hello")
    with pytest.raises(Invalid, match="neither a zip nor a tar nor a parquet nor a table archive"):
        list(read_entries(tmp_path / "text", ArchiveLimits()))


def test_the_label_of_an_entry_is_its_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("pets/cats/1.png", picture(1))
        archive.writestr("2.png", picture(2))
    labels = {e.name: e.label for e in read_entries(tmp_path / "a.zip", ArchiveLimits())}
    assert labels == {"pets/cats/1.png": ("pets", "cats"), "2.png": ()}


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path):
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as inner:
        inner.writestr("1.png", picture(1))
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "inner.zip", "inner.zip")
    (entry,) = read_entries(tmp_path / "a.tar", ArchiveLimits())
    assert (entry.name, entry.data) == ("inner.zip", None)
    assert entry.reason == "it is an archive inside the archive"
