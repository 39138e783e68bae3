"""What is a class and what is not: folders, splits, shards and files of labels."""

import hashlib
import io
import json
import tarfile
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.fields import Invalid
from models.images.dataset import inspect_archive, prepare
from models.images.formats import Reading
from models.images.labels import UNSORTED, LabelRule, Labels, decide_labels
from models.images.readers import ArchiveLimits, Entry
from tests.models.images.test_dataset import sheet_of


def picture(value: int = 100) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (12, 10), value).save(buffer, "PNG")
    return buffer.getvalue()


def decide(
    names: list[str], files: Mapping[str, str] | None = None, choice: str = "auto"
) -> Labels:
    images = [Entry(name, tuple(name.split("/")[:-1]), None) for name in names]
    return decide_labels(images, {n: t.encode() for n, t in (files or {}).items()}, choice)


def zip_of(path: Path, files: Mapping[str, bytes | str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def many(*folders: str, count: int = 10) -> list[str]:
    return [f"{folder}/{i}.png" for folder in folders for i in range(count)]


# Splits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "classes", "splits"),
    [
        (["train/cat", "train/dog", "test/cat"], {"cat", "dog"}, {"train": 20, "test": 10}),
        (["pets/train/cat", "pets/test/dog"], {"cat", "dog"}, {"train": 10, "test": 10}),
        (["pets/train", "pets/test"], set(), {"train": 10, "test": 10}),
        (["Training", "Validation"], set(), {"train": 10, "val": 10}),
        (["train/images/cat", "val/images/dog"], {"cat", "dog"}, {"train": 10, "val": 10}),
        (["cat/train", "cat/test", "dog/train"], {"cat", "dog"}, {"train": 20, "test": 10}),
        (["train", "car", "bus"], {"train", "car", "bus"}, {}),
        (["train/cat", "train/dog"], {"cat", "dog"}, {}),
        (["val/cat", "test/dog"], {"cat", "dog"}, {}),  # none to learn from: all are
    ],
)
def test_folders_of_splits_are_not_classes(folders, classes, splits):
    labels = decide(many(*folders))
    assert set(labels.counts) == classes
    assert labels.split_counts == splits


def test_each_image_has_its_split_and_its_class():
    labels = decide(["train/cat/1.png", "val/dog/1.png", "train/dog/2.png", "test/cat/3.png"])
    assert labels.classes == ["cat", "dog", "dog", "cat"]
    assert labels.splits == ["train", "val", "train", "test"]


def test_folders_that_look_like_splits_beside_others_are_warned_of():
    (warning,) = decide(many("train", "car")).warnings
    assert warning == "the class 'train' looks like a split of the data, not like a class"
    assert "all are trained on" in decide(many("val/cat", "test/dog")).warnings[0]


# Folders ------------------------------------------------------------------------------------------


def test_shards_are_no_classes():
    names = [f"{i // 1000:05}/img{i:08}.png" for i in range(0, 5000, 100)]
    labels = decide(names)
    assert (labels.counts, labels.rule.choice, labels.warnings) == ({}, "none", ())


@pytest.mark.parametrize(
    "names",
    [
        [f"{c:05}/{t:05}_{i:05}.ppm" for c in range(3) for t in range(2) for i in range(10)],
        [f"{c:03}/{c:03}_{i:04}.png" for c in range(3) for i in range(20)],
    ],
    ids=["traffic signs", "numbered classes"],
)
def test_classes_that_are_numbers_of_equal_length_stay_with_a_warning(names):
    labels = decide(names)
    assert len(labels.counts) == 3
    (warning,) = labels.warnings
    assert "numbers of equal length" in warning
    assert "labels=none" in warning


def test_digits_are_ten_classes_without_a_warning():
    labels = decide(many(*map(str, range(10))))
    assert (len(labels.counts), labels.rule.choice, labels.warnings) == (10, "folders", ())


def test_small_classes_are_warned_of_by_what_is_left_to_learn_from():
    names = many("train/cat", "test/dog", count=12) + many("train/dog", count=3)
    (warning,) = decide(names).warnings
    assert warning == "1 of 2 classes have fewer than 10 images to learn from: dog (3)"


@pytest.mark.parametrize(
    ("choice", "classes"),
    [
        ("folders", {"train", "test"}),
        ("deepest-folder", {"young", "old", "dog"}),
        ("none", set()),
        ("auto", {"cat", "dog"}),
    ],
)
def test_labels_says_which_folders_are_meant(choice, classes):
    names = many("train/cat/young", "train/cat/old", "test/dog")
    labels = decide(names, choice=choice)
    assert set(labels.counts) == classes
    assert labels.split_counts == ({} if choice == "folders" else {"train": 20, "test": 10})
    assert labels.rule.choice == ("folders" if choice == "auto" else choice)


@pytest.mark.parametrize(
    "choice", ["", "top-folder", "notes.txt", "labels.csv:", "folders:x", "folders ", ".txt"]
)
def test_a_choice_that_does_not_exist_is_refused_with_those_that_do(choice):
    with pytest.raises(Invalid, match=r"it must be auto, folders, deepest-folder, none, or a file"):
        decide(many("cat"), choice=choice)


# Label files --------------------------------------------------------------------------------------

NAMES = ["00000/img00000000.png", "00000/img00000001.png", "00000/img00000002.png"]
STYLEGAN = {"labels": [[NAMES[0], 6], [NAMES[1], 2], [NAMES[2], 6]]}
FLAT = ["1.png", "2.png", "3.png", "4.png"]


def test_labels_of_stylegan_and_edm_are_read():
    labels = decide(NAMES, {"dataset.json": json.dumps(STYLEGAN)})
    assert (labels.classes, labels.rule.choice) == (["6", "2", "6"], "dataset.json:label")
    within = decide([f"set/{n}" for n in NAMES], {"set/dataset.json": json.dumps(STYLEGAN)})
    assert within.classes == ["6", "2", "6"]


@pytest.mark.parametrize("none", [None, [], [[NAMES[0], [0.5, 0.1]]]])
def test_stylegan_s_file_without_classes_leaves_none(none):
    assert decide(NAMES, {"dataset.json": json.dumps({"labels": none})}).counts == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "metadata.jsonl",
            "".join(
                json.dumps({"file_name": n, "text": f"the {n}", "label": c}) + "\n"
                for n, c in zip(FLAT, "abab", strict=True)
            ),
        ),
        ("metadata.csv", "file_name,label\n1.png,a\n2.png,b\n3.png,a\n4.png,b\n"),
        ("labels.csv", "id,breed\n1,a\n2,b\n3,a\n4,b\n"),  # Kaggle's: without suffixes
        ("labels.csv", "breed,path\na,/home/me/1.png\nb,x/2.png\na,3.png\nb,4.png\n"),
        ("labels.csv", "\ufefffile_name,label\r\n1.png,a\r\n2.png,b\r\n3.png,a\r\n4.png,b\r\n"),
        ("dataset.json", '{"1.png": "a", "2.png": "b", "3.png": "a", "4.png": "b"}'),
    ],
)
def test_label_files_are_read(name, text):
    labels = decide(FLAT, {name: text})
    assert labels.classes == ["a", "b", "a", "b"]
    assert labels.rule.source == name
    assert labels.rule.apply([Entry(n, (), None) for n in FLAT[1:3]], {name: text.encode()}) == (
        ["b", "a"],
        ["train"] * 2,
    )


def test_each_split_may_have_its_own_label_file():
    names = ["train/1.png", "train/2.png", "test/1.png"]
    files = {
        "train/metadata.csv": "file_name,label\n1.png,a\n2.png,b\n",
        "test/metadata.csv": "file_name,label\n1.png,b\n",
    }
    labels = decide(names, files)
    assert labels.classes == ["a", "b", "b"]
    assert labels.splits == ["train", "train", "test"]


def test_a_column_of_splits_is_one():
    text = "file_name,label,split\n1.png,a,train\n2.png,b,train\n3.png,a,validation\n4.png,b,test\n"
    assert decide(FLAT, {"metadata.csv": text}).splits == ["train", "train", "val", "test"]


def test_a_column_can_be_named():
    text = "file_name,breed,owner\n1.png,a,x\n2.png,b,x\n3.png,a,y\n4.png,b,y\n"
    assert decide(FLAT, {"pets.csv": text}, "pets.csv:owner").classes == ["x", "x", "y", "y"]
    tabs = {"pets.tsv": text.replace(",", "\t")}
    assert decide(FLAT, tabs, "pets.tsv:breed").classes == ["a", "b", "a", "b"]
    with pytest.raises(Invalid, match=r"as in labels=pets\.csv:COLUMN; they are breed, owner"):
        decide(FLAT, {"pets.csv": text}, "pets.csv")
    with pytest.raises(Invalid, match="they are breed, owner"):
        decide(FLAT, {"pets.csv": text}, "pets.csv:colour")
    with pytest.raises(Invalid, match="the archive has no such file"):
        decide(FLAT, {}, "pets.csv")


def test_captions_are_no_classes():
    names = [f"{c}/{i}.png" for c in "ab" for i in range(10)]
    text = "file_name,text\n" + "".join(f"{n},picture {n}\n" for n in names)
    labels = decide(names, {"metadata.csv": text})
    assert (set(labels.counts), labels.rule.choice) == ({"a", "b"}, "folders")
    (warning,) = labels.warnings
    assert "no column that looks like a class (its columns: text)" in warning


def test_a_class_name_is_not_a_story():
    text = f"file_name,text\n1.png,{'x' * 201}\n"
    with pytest.raises(Invalid, match="201 characters; the name of a class has at most 200"):
        decide(FLAT, {"a.csv": text}, "a.csv:text")


def test_a_label_file_that_matches_nothing_is_warned_of_or_refused():
    text = "file_name,label\nx.png,a\ny.png,b\n"
    labels = decide(FLAT, {"metadata.csv": text})
    assert (labels.counts, labels.rule.choice) == ({}, "none")
    assert labels.warnings == ("metadata.csv says nothing of any image of the archive",)
    with pytest.raises(Invalid, match="it says nothing of any image of the archive"):
        decide(FLAT, {"metadata.csv": text}, "metadata.csv")


def test_a_reference_with_another_folder_is_another_image():
    labels = decide(["cat/1.png", "cat/2.png"], {"labels.csv": "file,label\ndog/1.png,a\n"})
    assert "says nothing" in labels.warnings[0]


def test_images_without_a_label_are_unsorted_and_said():
    labels = decide(FLAT, {"labels.csv": "file,label\n1.png,a\n2.png,b\n3.png,\n"})
    assert labels.classes == ["a", "b", UNSORTED, UNSORTED]
    assert "2 of 4 images have no label in labels.csv:label" in labels.warnings[0]


def test_one_class_for_all_is_warned_of():
    text = "file_name,label\n" + "".join(f"{n},a\n" for n in FLAT)
    labels = decide(FLAT, {"metadata.csv": text})
    assert labels.counts == {}
    assert labels.warnings == ("metadata.csv has one class for all images, 'a'",)
    assert (
        "there is one class, 'a'" in decide(FLAT, {"metadata.csv": text}, "metadata.csv").warnings
    )


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("dataset.json", b"{", "it is not JSON"),
        ("dataset.json", b"5", "neither a list nor an object"),
        ("dataset.json", b"[1, 2]", "neither an object nor a pair"),
        ("dataset.json", b"[" * 100_000, "nested too deeply"),
        ("metadata.jsonl", b'{"file_name": "1.png", "label": "a"}\nhello\n', "it is not JSON"),
        ("metadata.jsonl", b"[1]\n", "a line is not an object"),
        ("metadata.csv", b"\xff\xfe", "it is not UTF-8"),
        ("labels.csv", b"file,label\n1.png," + b"x" * 200_000, "field larger than"),
    ],
)
def test_a_broken_label_file_is_warned_of_or_refused(name, data, reason):
    images = [Entry(n, (), None) for n in FLAT]
    labels = decide_labels(images, {name: data})
    assert labels.counts == {}
    assert labels.warnings[0].startswith(f"{name} is not read: ")
    assert reason in labels.warnings[0]
    with pytest.raises(Invalid, match=reason):
        decide_labels(images, {name: data}, name)


def test_numbers_are_as_pandas_writes_them_beside_gaps():
    rows = zip(FLAT, ("3.0", "NaN", "null", "true"), strict=True)
    text = "".join(f'{{"file_name": "{name}", "label": {value}}}\n' for name, value in rows)
    assert decide(FLAT, {"metadata.jsonl": text}).classes == ["3", UNSORTED, UNSORTED, "true"]


def test_splits_are_looked_for_in_sixteen_levels():
    for depth, splits in ((15, {"train": 10, "test": 10}), (16, {})):
        names = many(*("x/" * depth + split for split in ("train", "test")))
        assert decide(names).split_counts == splits


def test_names_are_text_that_a_database_takes():
    line = '{"file_name": "%s", "label": "%s"}\n'
    text = line % ("1.png", r"a\u0000\ud800") + line % ("2.png", "b")
    assert decide(FLAT[:2], {"metadata.jsonl": text}).classes == ["a�?", "b"]


# Whole archives -----------------------------------------------------------------------------------


def gif(values: Sequence[int]) -> bytes:
    """An animation whose frames are of one value each."""
    first, *others = (Image.new("L", (12, 10), value) for value in values)
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others)
    return buffer.getvalue()


def test_a_zip_of_stylegan_is_read_as_it_was_meant(tmp_path):
    names = [f"{i // 1000:05}/img{i:08}.png" for i in range(0, 4000, 500)]
    table = json.dumps({"labels": [[name, at % 2 + 3] for at, name in enumerate(names)]})
    files = {name: picture(10 * at) for at, name in enumerate(names)}
    archive = zip_of(tmp_path / "a.zip", files | {"dataset.json": table})
    summary = inspect_archive(archive)
    assert (summary.classes, summary.num_rejected) == ({"3": 4, "4": 4}, 0)
    dataset = prepare(archive, tmp_path / "data", (8, 8), 1, rule=summary.labels)
    assert dataset.class_names == ("3", "4")
    assert dataset.labels.tolist() == [0, 1] * 4
    assert dataset.images[:, 0, 0, 0].tolist() == list(range(0, 80, 10))
    sheet = sheet_of(archive, (8, 8), per_row=2, rule=summary.labels)
    assert sheet[[32, 98], 32].tolist() == [[0] * 3, [10] * 3]


def test_splits_are_set_apart(tmp_path):
    files = {f"train/{c}/{i}.png": picture(i) for c in ("cat", "dog") for i in range(3)}
    files |= {"test/cat/1.png": picture(200), "val/dog/1.png": picture(201)}
    archive = zip_of(tmp_path / "a.zip", files)
    summary = inspect_archive(archive)
    assert summary.classes == {"cat": 4, "dog": 4}
    assert summary.splits == {"train": 6, "val": 1, "test": 1}
    dataset = prepare(
        archive, tmp_path / "data", (8, 8), 1, rule=LabelRule(**asdict(summary.labels))
    )
    assert dataset.images[dataset.set_apart, 0, 0, 0].tolist() == [200, 201]


@pytest.mark.parametrize(
    "table",
    [
        {"labels.csv": "file,label,split\na.gif,cat,train\nb.gif,dog,train\nc.gif,cat,test\n"},
        {
            f"{name}.json": json.dumps({"label": breed, "split": split})
            for name, breed, split in (
                ("a", "cat", "train"),
                ("b", "dog", ""),
                ("c", "cat", "test"),
            )
        },
    ],
    ids=["one file", "beside"],
)
def test_all_frames_have_the_label_and_the_split_of_their_file(tmp_path, table):
    files = {"a.gif": gif([10, 20, 30]), "b.gif": gif([40, 50]), "c.gif": gif([60, 70, 80, 90])}
    archive = zip_of(tmp_path / "a.zip", files | table)
    summary = inspect_archive(archive, reading=Reading("all"))
    assert (summary.num_images, summary.num_rejected) == (9, 0)
    assert summary.classes == {"cat": 7, "dog": 2}
    assert summary.splits == {"train": 5, "test": 4}
    known = {"rule": summary.labels, "reading": summary.reading}
    dataset = prepare(archive, tmp_path / "data", (8, 8), 1, **known)
    assert dataset.images[:, 0, 0, 0].tolist() == list(range(10, 100, 10))
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 0, 0, 0, 0]
    assert dataset.set_apart.tolist() == [5, 6, 7, 8]
    sheet = sheet_of(archive, (8, 8), 1, per_row=4, **known)
    assert sheet[32, 32::66, 0].tolist() == [10, 20, 30, 60]
    assert sheet[98, 32::66, 0].tolist() == [40, 50, 255, 255]
    assert inspect_archive(archive, reading=Reading("first")).classes == {"cat": 2, "dog": 1}


def test_what_differs_in_each_file_is_no_class_however_many_frames_there_are(tmp_path):
    files = {f"{name}.gif": gif([10, 20, 30]) for name in "abc"}
    table = "file_name,owner\na.gif,ann\nb.gif,ben\nc.gif,cem\n"
    archive = zip_of(tmp_path / "a.zip", files | {"metadata.csv": table})
    summary = inspect_archive(archive, reading=Reading("all"))
    assert (summary.num_images, summary.classes) == (9, {})
    assert "no column that looks like a class" in summary.warnings[0]


def test_labels_and_reading_both_make_another_dataset(tmp_path):
    archive = zip_of(tmp_path / "a.zip", {f"{c}/1.png": picture() for c in "ab"})
    digests = [
        inspect_archive(archive, choice=choice, reading=reading).digest
        for choice in ("auto", "none")
        for reading in (None, Reading(), Reading("first"))
    ]
    assert digests[0] == digests[1] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert digests[3] == digests[4]
    assert len(set(digests)) == 4


def test_another_choice_of_labels_is_another_dataset(tmp_path):
    archive = zip_of(tmp_path / "a.zip", {f"{c}/1.png": picture() for c in "ab"})
    auto, none = inspect_archive(archive), inspect_archive(archive, choice="none")
    assert (auto.classes, none.classes) == ({"a": 1, "b": 1}, {})
    assert auto.digest != none.digest
    assert auto.digest == inspect_archive(archive, choice="auto").digest


def test_label_files_that_are_not_used_are_listed_with_a_way_to_use_them(tmp_path):
    files = {f"{i}.png": picture() for i in range(4)}
    extra = {"pets.csv": "file,breed\n0.png,a\n", "dataset.json": "{", "notes.txt": "hello"}
    summary = inspect_archive(zip_of(tmp_path / "a.zip", files | extra))
    reasons = {r["name"]: r["reason"] for r in summary.rejected}
    assert reasons.keys() == extra.keys()
    assert "; labels=pets.csv reads its labels" in reasons["pets.csv"]
    assert "labels=" not in reasons["notes.txt"]


def test_label_files_are_bounded(tmp_path):
    files = {f"{i}.png": picture() for i in range(2)} | {f"{i}.json": '{"a": 1}' for i in range(9)}
    archive = zip_of(tmp_path / "a.zip", files)
    with pytest.raises(Invalid, match="more than 50 bytes of labels"):
        inspect_archive(archive, ArchiveLimits(max_label_bytes=50))
    assert inspect_archive(archive, ArchiveLimits(max_label_bytes=72)).num_images == 2


@pytest.mark.parametrize("suffix", [".cls", ".json"])
@pytest.mark.parametrize("folder", ["", "set/"])
def test_a_webdataset_has_its_labels_beside_the_images(tmp_path, suffix, folder):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as file:
        for i in range(12):
            label = f"{i % 3}" if suffix == ".cls" else json.dumps({"label": i % 3, "text": f"{i}"})
            for end, data in ((".jpg", picture(i)), (suffix, label.encode())):
                info = tarfile.TarInfo(f"{folder}{i:06}{end}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    summary = inspect_archive(archive)
    assert summary.classes == {"0": 4, "1": 4, "2": 4}
    assert summary.num_rejected == 0
    assert summary.labels.choice == {".cls": ".cls", ".json": ".json:label"}[suffix]
    dataset = prepare(archive, tmp_path / "data", (8, 8), 1, rule=summary.labels)
    assert dataset.labels.tolist() == [i % 3 for i in range(12)]
    assert dataset.images[:, 0, 0, 0].tolist() == list(range(12))
    sheet = sheet_of(archive, (8, 8), per_row=1, rule=summary.labels)
    assert sheet[[32, 98, 164], 32, 0].tolist() == [0, 1, 2]


def test_clutter_of_nas_and_sync_programs_is_neither_a_class_nor_rejected(tmp_path):
    clutter = [
        "@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg",
        "cats/@eaDir/1.png/SYNOPHOTO_THUMB_XL.jpg",
        "#recycle/old.png",
        ".stfolder/marker.png",
        ".stversions/1.png",
        ".@__thumb/1.png",
        "@Recycle/1.png",
        "$RECYCLE.BIN/1.png",
        "System Volume Information/1.png",
        "__MACOSX/cats/._1.png",
        "cats/Thumbs.db",
        "cats/THUMBS.DB",
        "Desktop.ini",
        "cats/.DS_Store",
        "cats/Icon\r",
        "sync.ffs_db",
    ]
    files = {f"{c}/{i}.png": picture() for c in ("cats", "dogs") for i in range(2)}
    summary = inspect_archive(zip_of(tmp_path / "a.zip", files | dict.fromkeys(clutter, picture())))
    assert summary.classes == {"cats": 2, "dogs": 2}
    assert (summary.num_images, summary.num_rejected) == (4, 0)


# Tables -------------------------------------------------------------------------------------------


@pytest.fixture
def parquet(tmp_path):
    """parquet(columns, names, **features): the path of a table as Hugging Face's datasets write
    it."""
    arrow = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")

    def write(columns: Mapping[str, list[object]], features: object = None, **options) -> Path:
        made = arrow.table(dict(columns))
        if features is not None:
            about = json.dumps({"info": {"features": features}})
            made = made.replace_schema_metadata({"huggingface": about})
        pq.write_table(made, tmp_path / "a.parquet", **options)
        return tmp_path / "a.parquet"

    return write


def images_of(values: list[int]) -> list[dict[str, object]]:
    return [{"bytes": picture(value), "path": f"../{value}.png"} for value in values]


def test_a_table_of_hugging_face_is_read(parquet, tmp_path):
    features = {
        "image": {"_type": "Image"},
        "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
    }
    values = list(range(40))
    columns = {"image": images_of(values), "label": [v % 2 for v in values[:-1]] + [-1]}
    archive = parquet(columns, features, row_group_size=7)
    summary = inspect_archive(archive)
    assert summary.classes == {"cat": 20, "dog": 19, UNSORTED: 1}
    assert (summary.num_images, summary.labels.choice) == (40, "parquet:label")
    dataset = prepare(archive, tmp_path / "data", (8, 8), 1, rule=summary.labels)
    assert dataset.images[:, 0, 0, 0].tolist() == values
    assert [dataset.class_names[i] for i in dataset.labels[:2]] == ["cat", "dog"]
    sheet = sheet_of(archive, (8, 8), per_row=1, rule=summary.labels)
    assert sheet[[32, 98], 32, 0].tolist() == [0, 1]


def test_a_table_may_have_bytes_text_and_splits(parquet):
    columns = {
        "img": [picture(i) for i in range(6)],
        "fine_label": [0, 1, 2, 3, 0, 1],
        "coarse": list("ababab"),
        "split": ["train"] * 4 + ["test"] * 2,
    }
    archive = parquet(columns)
    assert inspect_archive(archive).labels.choice == "parquet:fine_label"
    summary = inspect_archive(archive, choice="parquet:coarse")
    assert (summary.classes, summary.splits) == ({"a": 3, "b": 3}, {"train": 4, "test": 2})


def test_rows_without_a_usable_image_are_rejected(parquet):
    rows = [*images_of([1, 2]), {"bytes": None, "path": "x.png"}, {"bytes": b"text", "path": None}]
    summary = inspect_archive(parquet({"image": rows}))
    reasons = {r["name"]: r["reason"] for r in summary.rejected}
    assert reasons["row 2"] == "the table has no bytes of it"
    assert "not an image" in reasons["row 3"]
    with pytest.raises(Invalid, match=r"has no column of images: .* its columns are a, b"):
        inspect_archive(parquet({"a": [1], "b": ["x"]}))


def test_a_table_keeps_to_the_limits(parquet):
    archive = parquet({"image": images_of([1, 2, 3]), "text": ["x" * 40] * 3})
    for limits, message in (
        ({"max_images": 2}, "more than 2 entries"),
        ({"max_total_bytes": 150}, "unpacks to more than 150 bytes"),
        ({"max_label_bytes": 100}, "more than 100 characters of labels"),
        ({"max_row_group_bytes": 100}, "a row group of the table unpacks to"),
        ({"max_file_bytes": 20}, "larger than 20 bytes"),
    ):
        with pytest.raises(Invalid, match=message):
            inspect_archive(archive, ArchiveLimits(**limits))


def test_damage_in_a_table_is_a_table_or_a_refusal(parquet, tmp_path):
    values = list(range(20))
    data = parquet({"image": images_of(values), "label": [v % 2 for v in values]}).read_bytes()
    random, damaged, refused = np.random.default_rng(5), tmp_path / "damaged", Counter()
    for n in range(150):
        changed = bytearray(data)
        changed[random.integers(4, len(data))] ^= 1 << random.integers(8)
        damaged.write_bytes(bytes(changed) if n else data[:500])
        try:
            refused[inspect_archive(damaged).num_rejected > 0] += 1
        except Invalid:
            refused[True] += 1
    assert refused[True] > 5


def test_without_its_library_a_table_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + b"\0" * 20 + b"PAR1")
    with pytest.raises(Invalid, match=r"pip install 'diffusion-service\[parquet\]'"):
        inspect_archive(tmp_path / "a.parquet")
