"""Single images of an archive, read where they lie; its index; thumbnails."""

import io
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.fields import Invalid
from models.images.dataset import index_archive
from models.images.formats import Reading
from models.images.index import Index, sha256_of
from models.images.parts import decode_frame, media_type_of, read_at, thumbnail, unpack
from models.images.readers import ArchiveLimits, Place
from models.images.reading import MAX_PIXELS
from tests.models.images.test_dataset import picture, tar_of, zip_of
from tests.models.images.test_files import file_of
from tests.models.images.test_reading import gif

FILES = {f"{c}/{i}.png": picture(10 * i + len(c)) for i in range(4) for c in ("a", "ä" * 9)}


def read(content: bytes, start: int, end: int) -> bytes:
    return content[start:end]


def deflated(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    return path


class Pipe(io.BytesIO):
    """What cannot seek: sizes come behind the data."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: int) -> int:
        raise io.UnsupportedOperation


def streamed(path: Path) -> Path:
    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    path.write_bytes(pipe.getvalue())
    return path


def with_long_fields(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in FILES.items():
            info = zipfile.ZipInfo(name)
            info.extra = b"\x99\x99" + (5000).to_bytes(2, "little") + bytes(5000)
            archive.writestr(info, data)
    return path


def behind_a_program(path: Path) -> Path:
    path.write_bytes(b"#!/bin/sh\n" * 99 + deflated(path).read_bytes())
    return path


@pytest.mark.parametrize(
    "pack",
    [
        partial(zip_of, files=FILES),
        deflated,
        streamed,
        with_long_fields,
        behind_a_program,
        partial(tar_of, files=FILES, mode="w"),
    ],
)
def test_each_file_is_read_where_it_lies(tmp_path, pack):
    path = pack(tmp_path / "archive")
    _, index = index_archive(path)
    assert index.places is not None
    content = path.read_bytes()
    for name, place, sha256 in zip(index.names, index.places, index.sha256, strict=True):
        data = read_at(place, partial(read, content), 10_000)
        assert data == FILES[name]
        assert sha256 == sha256_of(data)


def compressed_by_bzip2(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    "pack",
    [partial(tar_of, files=FILES, mode=f"w:{how}") for how in ("gz", "xz")] + [compressed_by_bzip2],
)
def test_other_archives_are_unpacked_once(tmp_path, pack):
    path = pack(tmp_path / "archive")
    _, index = index_archive(path)
    assert index.places is None
    places = unpack(path, index, tmp_path / "flat", ArchiveLimits())
    content = (tmp_path / "flat").read_bytes()
    for name, place in zip(index.names, places, strict=True):
        assert read_at(place, partial(read, content), 10_000) == FILES[name]


def test_files_of_the_same_name_are_told_apart(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w:gz") as archive:
        for value in (10, 20):
            info = tarfile.TarInfo("same.png")
            info.size = len(picture(value))
            archive.addfile(info, io.BytesIO(picture(value)))
    _, index = index_archive(path)
    places = unpack(path, index, tmp_path / "flat", ArchiveLimits())
    content = (tmp_path / "flat").read_bytes()
    files = [read_at(place, partial(read, content), 10_000) for place in places]
    assert files == [picture(10), picture(20)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content, place: content[: place.offset + 20], "truncated or damaged"),
        (lambda content, place: content[: place.offset + 60], "truncated or damaged"),
        (lambda content, place: content.replace(b"PK\3\4", b"PK\3\5"), "truncated or damaged"),
    ],
)
def test_a_damaged_archive_is_said_to_be_one(tmp_path, change, message):
    path = deflated(tmp_path / "a.zip")
    place = index_archive(path)[1].places[-1]
    content = change(path.read_bytes(), place)
    with pytest.raises(Invalid, match=message):
        read_at(place, partial(read, content), 10_000)


def test_a_file_that_is_larger_than_it_said_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(100_000))
    place = Place(0, path.stat().st_size - 100, True)
    with pytest.raises(Invalid, match="larger than 10000 bytes"):
        read_at(place, partial(read, path.read_bytes()), 10_000)


def test_an_index_has_a_row_for_each_usable_image_and_comes_back_from_its_file(tmp_path):
    files = {
        "cat/1.gif": gif(["red", "lime"]),
        "cat/2.png": picture(20, 30, 40),
        "dog/1.png": picture(30),
        "dog/notes.txt": b"hello",
    }
    summary, index = index_archive(zip_of(tmp_path / "a.zip", files), reading=Reading("all"))
    assert summary.num_images == len(index) == 4
    assert list(index.names) == ["cat/1.gif", "cat/1.gif", "cat/2.png", "dog/1.png"]
    assert list(index.frames) == [0, 1, 0, 0]
    assert index.shapes[2:].tolist() == [[40, 30, 1], [10, 12, 1]]
    assert list(index.classes) == ["cat", "cat", "cat", "dog"]
    assert list(index.sha256) == [sha256_of(files[name]) for name in index.names]
    content = index.to_bytes()
    again = Index.from_bytes(content)
    assert again.to_bytes() == content
    assert again.places == index.places
    frame = decode_frame(files["cat/1.gif"], 1, Reading("all"), MAX_PIXELS)
    assert frame[0, 0].tolist() == [0, 255, 0]
    with pytest.raises(Invalid, match="no frame 2"):
        decode_frame(files["cat/1.gif"], 2, Reading("all"), MAX_PIXELS)


def test_labels_that_are_decided_stay_and_so_do_levels(tmp_path):
    files = {f"{split}/{c}.png": picture() for split in ("train", "test") for c in "ab"}
    path = zip_of(tmp_path / "a.zip", files)
    summary, _ = index_archive(path)
    by_folders, _ = index_archive(path, choice="folders")
    _, again = index_archive(path, rule=by_folders.labels)
    assert summary.splits == {"train": 2, "test": 2}
    assert list(again.classes) == ["test", "test", "train", "train"]
    reading = Reading("refuse", "data", (7, 4000))
    assert index_archive(path, reading=reading)[0].reading == reading


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((8, 8), (64, 64)),
        ((8, 12), (40, 60)),
        ((64, 64), (64, 64)),
        ((33, 50), (33, 50)),
        ((256, 128), (64, 32)),
        ((4000, 9), (64, 1)),
    ],
)
def test_a_thumbnail_is_of_64_pixels_and_enlarges_by_whole_ones(size, wanted):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    shown = np.asarray(Image.open(io.BytesIO(thumbnail(image))))
    assert shown.shape == (*wanted, 3)
    if max(size) <= 64:
        scale = wanted[0] // size[0]
        np.testing.assert_array_equal(shown[::scale, ::scale], image)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_the_media_type_is_that_of_the_content(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    assert media_type_of(buffer.getvalue()) == f"image/{kind.lower()}"
    with pytest.raises(Invalid, match="not an image"):
        media_type_of(b"<svg onload='alert(1)'/>")
    assert media_type_of(file_of(Image.new("L", (8, 8)))) == "image/png"
