"""Archives of images as people send them, good entries and bad."""

import contextlib
import importlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.arrays import UInt8
from models.fields import Invalid
from models.images.contact_sheet import contact_sheet, shown_images
from models.images.dataset import (
    UNSORTED,
    index_archive,
    inspect_archive,
    open_dataset,
    prepare,
)
from models.images.formats import Reading
from models.images.labels import LabelRule
from models.images.parts import decode_frame, read_at, unpack
from models.images.readers import ArchiveLimits
from models.images.reading import MAX_PIXELS
from models.images.versions import Manifest

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "examples" / "digits" / "digits.zip"


def picture(value: int = 100, width: int = 12, height: int = 10, mode: str = "L") -> bytes:
    """Of one value everywhere, so that the pixels say which file they came from."""
    buffer = io.BytesIO()
    Image.new("L", (width, height), value).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def sheet_of(
    path: Path,
    size: tuple[int, int] = (64, 64),
    channels: int = 3,
    *,
    per_row: int,
    rule: LabelRule | None = None,
    reading: Reading | None = None,
    **fit: str,
) -> UInt8:
    """The contact sheet of an archive, each image read alone."""
    summary, index = index_archive(path, rule=rule, reading=reading)
    places, file = index.places, path
    if places is None:
        file = path.with_name("flat")
        places = unpack(path, index, file, ArchiveLimits())
    content = file.read_bytes()

    def image(row: int) -> UInt8:
        data = read_at(places[row], lambda start, end: content[start:end], 2**26)
        return decode_frame(data, index.frames[row], summary.reading, MAX_PIXELS)

    shown = shown_images(Manifest.of(summary.digest, index), per_row)
    rows = [[image(i) for i in row] for row in shown]
    return contact_sheet(rows, size, channels, per_row=per_row, **fit)


def coloured(rgb: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 10), rgb).save(buffer, "PNG")
    return buffer.getvalue()


def zip_of(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tar_of(path: Path, files: Mapping[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(params=["zip", "tar", "tar.gz"])
def pack(request, tmp_path):
    """pack(files): the path of an archive of each kind."""

    def pack(files: Mapping[str, bytes]) -> Path:
        path = tmp_path / f"archive.{request.param}"
        if request.param == "zip":
            return zip_of(path, files)
        return tar_of(path, files, "w" if request.param == "tar" else "w:gz")

    return pack


def reasons(path: Path, limits: ArchiveLimits | None = None) -> dict[str, str]:
    return {r["name"]: r["reason"] for r in inspect_archive(path, limits).rejected}


GOOD = {"good-1.png": picture(1), "good-2.png": picture(2)}


# Classes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["1.png", "2.png"], {}),
        (["cats/1.png", "dogs/1.png", "dogs/2.png"], {"cats": 1, "dogs": 2}),
        (["pets/cats/1.png", "pets/dogs/1.png"], {"cats": 1, "dogs": 1}),
        (["a/b/cats/1.png", "a/b/dogs/1.png"], {"cats": 1, "dogs": 1}),
        (["./cats/1.png", "./dogs/1.png"], {"cats": 1, "dogs": 1}),
        (["photos/1.png", "photos/2.png"], {}),
        (["cats/young/1.png", "cats/old/1.png", "dogs/1.png"], {"cats": 2, "dogs": 1}),
        (["cats/1.png", "stray.png"], {"cats": 1, UNSORTED: 1}),
        (["pets/cats/1.png", "pets/stray.png"], {"cats": 1, UNSORTED: 1}),
    ],
)
def test_folders_are_classes(pack, names, classes):
    summary = inspect_archive(pack({name: picture() for name in names}))
    assert summary.classes == classes
    assert summary.num_images == len(names)
    assert summary.num_rejected == 0


def test_what_is_rejected_makes_no_class(pack):
    files = {"photos/1.png": picture(), "photos/2.png": picture(), "notes/readme.txt": b"hello"}
    summary = inspect_archive(pack(files))
    assert (summary.classes, summary.num_images, summary.num_rejected) == ({}, 2, 1)


def test_sizes_are_counted_most_common_first(pack):
    files = {f"{i}.png": picture(width=20, height=10) for i in range(3)}
    summary = inspect_archive(pack(files | {"tall.png": picture(width=10, height=30)}))
    assert summary.sizes == [
        {"height": 10, "width": 20, "count": 3},
        {"height": 30, "width": 10, "count": 1},
    ]


@pytest.mark.parametrize(("modes", "channels"), [("L L", 1), ("L RGB", 3), ("RGB RGB", 3)])
def test_one_coloured_image_makes_a_coloured_dataset(pack, modes, channels):
    files = {f"{i}.png": picture(mode=mode) for i, mode in enumerate(modes.split())}
    assert inspect_archive(pack(files)).channels == channels


def test_the_digest_is_of_the_file(tmp_path):
    one, two = zip_of(tmp_path / "1", GOOD), zip_of(tmp_path / "2", GOOD | {"3.png": picture()})
    copy = tmp_path / "copy"
    shutil.copyfile(one, copy)
    assert inspect_archive(one).digest == inspect_archive(copy).digest
    assert inspect_archive(one).digest != inspect_archive(two).digest


# What is rejected ---------------------------------------------------------------------------------


def test_every_bad_entry_is_listed_with_its_reason(pack):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("1.png", picture())
    floating = io.BytesIO()
    Image.fromarray(np.zeros((10, 12), np.float32)).save(floating, "TIFF")
    bad = {
        "float.tiff": (floating.getvalue(), "pixels are floating point"),
        "text.png": (b"I am no picture", "not an image"),
        "notes.txt": (b"hello", "not an image"),
        "half.png": (picture()[:45], "truncated or damaged"),
        "empty.png": (b"", "not an image"),
        "inner.zip": (inner.getvalue(), "an archive inside"),
        "inner.tar.gz": (b"", "an archive inside"),
        "../climbing.png": (picture(), "leaves the archive"),
        "a/../../climbing.png": (picture(), "leaves the archive"),
        "/absolute.png": (picture(), "leaves the archive"),
        "..\\climbing.png": (picture(), "leaves the archive"),
        "small.png": (picture(width=7, height=9), "7 x 9 pixels; each side must have at least 8"),
    }
    archive = pack(GOOD | {name: data for name, (data, _) in bad.items()})
    summary = inspect_archive(archive)
    found = {entry["name"]: entry["reason"] for entry in summary.rejected}
    assert found.keys() == bad.keys()
    for name, (_, reason) in bad.items():
        assert reason in found[name], name
    assert (summary.num_images, summary.num_rejected) == (2, len(bad))


def test_an_image_of_too_many_pixels_is_rejected(pack):
    archive = pack(GOOD | {"large.png": picture(width=40, height=30)})
    found = reasons(archive, ArchiveLimits(max_pixels=1000))
    assert "40 x 30 = 1200 pixels; at most 1000" in found["large.png"]


def test_a_file_of_too_many_bytes_is_rejected(pack):
    archive = pack(GOOD | {"large.png": picture() + b"\0" * 5000})
    assert reasons(archive, ArchiveLimits(max_file_bytes=2000)) == {
        "large.png": "it is larger than 2000 bytes"
    }


def test_links_in_a_zip_are_rejected(tmp_path):
    path = zip_of(tmp_path / "links.zip", GOOD)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert reasons(path) == {"link.png": "it is a symbolic link"}


def test_links_and_devices_in_a_tar_are_rejected(tmp_path):
    path = tar_of(tmp_path / "links.tar", GOOD, "w")
    kinds = {"soft.png": tarfile.SYMTYPE, "hard.png": tarfile.LNKTYPE, "pipe.png": tarfile.FIFOTYPE}
    with tarfile.open(path, "a") as archive:
        for name, kind in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "good-1.png"
            archive.addfile(info)
    assert reasons(path) == {
        "soft.png": "it is a link",
        "hard.png": "it is a link",
        "pipe.png": "it is not a regular file",
    }


def test_names_that_are_not_utf_8_are_kept_as_text_that_is(tmp_path):
    path = tmp_path / "names.tar"
    files = {**GOOD, "caf\udce9/a.png": picture(), "caf\udce9/b.png": picture(), "\udcff.zip": b""}
    with tarfile.open(path, "w", encoding="utf-8", errors="surrogateescape") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    summary = inspect_archive(path)
    assert summary.classes["caf�"] == 2
    assert [entry["name"] for entry in summary.rejected] == ["�.zip"]


def test_a_zip_entry_without_a_name_is_rejected(tmp_path):
    path = zip_of(tmp_path / "nameless.zip", {**GOOD, "x.png": b"text"})
    path.write_bytes(path.read_bytes().replace(b"x.png", b"\0.png"))
    assert "" in reasons(path)


def test_an_entry_that_the_zip_damaged_is_rejected(tmp_path):
    path = zip_of(tmp_path / "damaged.zip", GOOD | {"bad.png": picture(77)})
    data = bytearray(path.read_bytes())
    data[data.index(picture(77)) + 50] ^= 0xFF  # stored as it is: now its checksum is wrong
    path.write_bytes(data)
    assert reasons(path) == {"bad.png": "it is damaged in the archive"}


def test_a_compression_that_cannot_be_read_is_named(tmp_path):
    path = zip_of(tmp_path / "windows.zip", GOOD | {"large.png": picture(77)})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            name = 30 if offset == 8 else 46
            if data[at + name :].startswith(b"large.png"):
                data[at + offset] = 9  # the method
    path.write_bytes(data)
    (reason,) = reasons(path).values()
    assert reason == (
        "it is compressed by Deflate64, as Windows does for large archives, which cannot be read "
        "here; pack the archive anew by Deflate"
    )


def test_a_tar_compressed_by_zstandard_is_read(tmp_path):
    zstd = importlib.import_module(
        "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    )
    noise = np.random.default_rng(0).integers(0, 256, (9, 20, 20), np.uint8)
    files = {f"{('cats', 'dogs')[i % 2]}/{i}.png": picture(i) for i in range(9)}
    tar = tar_of(tmp_path / "a.tar", files | {"noise.bin": noise.tobytes()}, "w").read_bytes()
    path = tmp_path / "a.tar.zst"
    path.write_bytes(zstd.compress(tar))
    assert inspect_archive(path).classes == {"cats": 5, "dogs": 4}
    assert sheet_of(path, (16, 16), per_row=1)[8, 8, 0] == 0
    dataset = prepare(path, tmp_path / "data", (8, 8), 1)
    assert dataset.images[:, 0, 0, 0].tolist() == list(range(9))
    whole, random = path.read_bytes(), np.random.default_rng(6)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Invalid, match="truncated or damaged"):
        inspect_archive(path)
    for _ in range(60):
        changed = bytearray(whole)
        changed[random.integers(4, len(whole))] ^= 1 << random.integers(8)
        path.write_bytes(changed)
        with contextlib.suppress(Invalid):
            inspect_archive(path)


def test_clutter_is_ignored(pack):
    clutter = {
        "__MACOSX/cats/._1.png": b"fork",
        "cats/.DS_Store": b"store",
        "cats/Thumbs.db": b"thumbs",
        "desktop.ini": b"ini",
        ".git/config": b"config",
    }
    summary = inspect_archive(pack({"cats/1.png": picture(), "dogs/1.png": picture()} | clutter))
    assert summary.classes == {"cats": 1, "dogs": 1}
    assert summary.num_rejected == 0


def test_the_list_of_rejected_is_bounded_and_their_number_is_not(pack):
    archive = pack(GOOD | {f"{i}.txt": b"hello" for i in range(8)})
    summary = inspect_archive(archive, ArchiveLimits(max_rejected_listed=3))
    assert (len(summary.rejected), summary.num_rejected) == (3, 8)


# What is refused as a whole -----------------------------------------------------------------------


@pytest.mark.parametrize("files", [{}, {"1.png": picture()}], ids=["none", "one"])
def test_fewer_than_two_images_are_too_few(pack, files):
    with pytest.raises(Invalid, match=f"holds {len(files)} usable images, at least 2"):
        inspect_archive(pack(files))


def test_where_too_few_are_usable_the_first_reason_is_told(pack):
    with pytest.raises(
        ValueError, match=r"1 entries were rejected; the first: a\.txt: this is not"
    ):
        inspect_archive(pack({"a.txt": b"hello", "b.png": picture()}))


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", picture(), b"PK\3\4 but nothing more"],
    ids=["none", "text", "png", "pk"],
)
def test_a_file_that_is_no_archive_is_refused(tmp_path, data):
    path = tmp_path / "archive.zip"
    path.write_bytes(data)
    with pytest.raises(Invalid, match="neither a zip nor a tar"):
        inspect_archive(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.7])
def test_a_truncated_archive_is_refused(pack, part):
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32), np.uint8)
    files = {}
    for i, image in enumerate(noise):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        files[f"{i}.png"] = buffer.getvalue()
    path = pack(files)
    os.truncate(path, int(part * path.stat().st_size))
    with pytest.raises(Invalid, match=r"truncated or damaged|neither a zip nor a tar"):
        inspect_archive(path)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_damage_in_a_compressed_tar_is_an_archive_or_a_refusal(tmp_path, mode):
    intact = tar_of(tmp_path / "intact", {f"{i}.png": picture(i) for i in range(9)}, mode)
    data, damaged = intact.read_bytes(), tmp_path / "damaged"
    random = np.random.default_rng(3)
    refused = 0
    for _ in range(60):
        changed = bytearray(data)
        changed[random.integers(len(data))] ^= 1 << random.integers(8)
        damaged.write_bytes(changed)
        try:
            inspect_archive(damaged)
        except ValueError:
            refused += 1
    assert refused > 20


def test_damage_in_a_zip_is_an_archive_or_a_refusal(tmp_path):
    intact = zip_of(tmp_path / "intact", {f"{i}.png": picture(i) for i in range(4)})
    data, damaged = intact.read_bytes(), tmp_path / "damaged"
    directory = data.index(b"PK\1\2")
    random = np.random.default_rng(4)
    refused = 0
    for _ in range(300):
        changed = bytearray(data)
        changed[random.integers(directory, len(data))] ^= 1 << random.integers(8)
        damaged.write_bytes(changed)
        try:
            refused += inspect_archive(damaged).num_rejected > 0
        except ValueError:
            refused += 1
    assert refused > 20


def test_too_many_entries_are_refused(pack):
    archive = pack({f"{i}.png": picture() for i in range(5)})
    with pytest.raises(Invalid, match="more than 4 entries"):
        inspect_archive(archive, ArchiveLimits(max_images=4))


def test_an_archive_that_unpacks_to_too_much_is_refused(pack):
    archive = pack({f"{i}.png": picture() + b"\0" * 1000 for i in range(5)})
    with pytest.raises(Invalid, match="unpacks to more than 3000 bytes"):
        inspect_archive(archive, ArchiveLimits(max_total_bytes=3000))


# Writing ------------------------------------------------------------------------------------------


def test_images_and_labels_belong_together(pack, tmp_path):
    files = {"dogs/1.png": picture(10), "cats/1.png": picture(20), "cats/2.png": picture(30)}
    dataset = prepare(pack(files), tmp_path / "data", (8, 8), 1)
    assert dataset.class_names == ("cats", "dogs")
    assert dataset.images.dtype == np.uint8
    assert dataset.images.shape == (3, 8, 8, 1)
    assert dataset.labels.dtype == np.int64
    class_of_value = {10: "dogs", 20: "cats", 30: "cats"}
    for image, label in zip(dataset.images, dataset.labels, strict=True):
        assert image.min() == image.max()
        assert class_of_value[int(image.max())] == dataset.class_names[label]
    assert sorted(int(image.max()) for image in dataset.images) == [10, 20, 30]


def test_images_of_a_zip_come_in_the_order_of_their_names(tmp_path):
    files = {"b.png": picture(2), "c.png": picture(3), "a.png": picture(1)}
    dataset = prepare(zip_of(tmp_path / "a.zip", files), tmp_path / "data", (8, 8), 1)
    assert dataset.images[:, 0, 0, 0].tolist() == [1, 2, 3]


def test_without_folders_there_are_no_classes(pack, tmp_path):
    dataset = prepare(pack(GOOD), tmp_path / "data", (8, 8), 1)
    assert dataset.class_names == ()
    assert dataset.labels.tolist() == [0, 0]


def test_stray_images_are_a_class_of_their_own(pack, tmp_path):
    files = {"cats/1.png": picture(10), "stray.png": picture(20), "zebras/1.png": picture(30)}
    dataset = prepare(pack(files), tmp_path / "data", (8, 8), 1)
    assert dataset.class_names == ("cats", UNSORTED, "zebras")
    label_of = {int(i.max()): int(n) for i, n in zip(dataset.images, dataset.labels, strict=True)}
    assert label_of == {10: 0, 20: 1, 30: 2}


def test_bad_entries_are_left_out(pack, tmp_path):
    dataset = prepare(pack(GOOD | {"a.txt": b"hello"}), tmp_path / "data", (8, 8), 1)
    assert dataset.images[:, 0, 0, 0].tolist() == [1, 2]


def test_an_image_size_need_not_be_square(pack, tmp_path):
    dataset = prepare(pack(GOOD), tmp_path / "data", (8, 24), 3)
    assert dataset.images.shape == (2, 8, 24, 3)


def test_colour_becomes_grey_and_grey_becomes_colour(tmp_path):
    archive = zip_of(tmp_path / "a.zip", {"1.png": coloured((255, 0, 0)), "2.png": picture(200)})
    grey = prepare(archive, tmp_path / "grey", (8, 8), 1)
    assert grey.images[:, 0, 0].tolist() == [[76], [200]]  # 0.299 * 255 = 76
    colour = prepare(archive, tmp_path / "colour", (8, 8), 3)
    assert colour.images[:, 0, 0].tolist() == [[255, 0, 0], [200, 200, 200]]


def test_what_was_prepared_can_be_opened_again(pack, tmp_path):
    files = {"cats/1.png": picture(10), "dogs/1.png": picture(20)}
    prepared = prepare(pack(files), tmp_path / "data", (8, 8), 1)
    opened = open_dataset(tmp_path / "data")
    np.testing.assert_array_equal(opened.images, prepared.images)
    np.testing.assert_array_equal(opened.labels, prepared.labels)
    assert opened.class_names == ("cats", "dogs")
    assert not opened.images.flags.writeable


def test_an_archive_that_breaks_off_leaves_nothing_behind(tmp_path):
    path = tar_of(tmp_path / "a.tar", {f"{i}.png": picture() for i in range(9)}, "w")
    os.truncate(path, 5000)
    with pytest.raises(Invalid, match="truncated or damaged"):
        prepare(path, tmp_path / "data", (8, 8), 1)
    assert os.listdir(tmp_path) == ["a.tar"]


PREPARE = """
import json, os, sys
from pathlib import Path
from models.images.dataset import prepare

archive, folder = Path(sys.argv[1]), Path(sys.argv[2])
try:
    prepare(archive, folder, (64, 64), 3)
except OSError as error:
    print(json.dumps({"errno": error.errno, "left": os.listdir(folder.parent)}))
"""


def test_a_file_that_may_not_grow_leaves_nothing_behind(tmp_path):
    archive = zip_of(tmp_path / "a.zip", {f"{i}.png": picture(i) for i in range(40)})
    (tmp_path / "out").mkdir()
    run = subprocess.run(
        [sys.executable, "-c", PREPARE, str(archive), str(tmp_path / "out" / "data")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
    )
    assert run.returncode == 0
    assert json.loads(run.stdout)["left"] == []


def may_mount() -> bool:
    command = ["unshare", "-rm", "true"]
    return shutil.which("unshare") is not None and subprocess.run(command).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="no file system can be mounted here")
def test_a_full_disk_is_an_error_and_leaves_nothing_behind(tmp_path):
    archive = zip_of(tmp_path / "a.zip", {f"{i}.png": picture(i) for i in range(40)})
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = 'mount -t tmpfs -o size=200k none "$1" && exec "$2" -c "$3" "$4" "$1/data"'
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mounted, "sh", disk, sys.executable, PREPARE, archive],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.returncode == 0, "the process did not live to see the error"
    assert json.loads(run.stdout) == {"errno": 28, "left": []}  # ENOSPC


# Showing ------------------------------------------------------------------------------------------


def test_a_contact_sheet_has_a_row_for_each_class(pack):
    files = {f"cats/{i}.png": picture(10) for i in range(5)} | {"dogs/1.png": picture(20)}
    sheet = sheet_of(pack(files), per_row=3)
    assert sheet.shape == (2 * 64 + 2, 3 * 64 + 2 * 2, 3)
    assert sheet[8, [8, 74, 140]].tolist() == [[10] * 3] * 3
    assert sheet[74, [8, 74, 140]].tolist() == [[20] * 3, [255] * 3, [255] * 3]


def test_a_contact_sheet_has_the_classes_of_the_dataset_whatever_else_is_there(pack):
    files = {"all/cats/1.png": picture(10), "all/dogs/1.png": picture(20), "read.me": b"hello"}
    archive = pack(files)
    sheet = sheet_of(archive, per_row=1)
    assert sheet[[8, 74], 8].tolist() == [[10] * 3, [20] * 3]


def test_a_contact_sheet_of_images_without_classes_is_one_row(pack):
    archive = pack({f"all/{i}.png": picture(10) for i in range(3)} | {"read.me": b"hello"})
    assert inspect_archive(archive).classes == {}
    assert sheet_of(archive, per_row=3).shape == (64, 3 * 64 + 2 * 2, 3)


def test_the_digits_are_1797_images_of_ten_classes():
    summary = inspect_archive(DIGITS)
    assert (summary.num_images, summary.channels, summary.num_rejected) == (1797, 1, 0)
    assert list(summary.classes) == [str(digit) for digit in range(10)]
    assert sum(summary.classes.values()) == 1797
    assert summary.sizes == [{"height": 8, "width": 8, "count": 1797}]


def test_the_emoji_are_what_their_readme_says():
    summary = inspect_archive(ROOT / "examples" / "emoji" / "emoji.zip")
    assert (summary.num_images, summary.channels, summary.num_rejected) == (1906, 3, 0)
    assert list(summary.classes) == [
        *("activities", "animals", "flags", "food", "objects"),
        *("people", "smileys", "symbols", "travel"),
    ]
    assert summary.sizes == [{"height": 64, "width": 64, "count": 1906}]
    assert summary.warnings == []
