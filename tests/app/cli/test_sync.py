"""`diffusion dataset sync`: a dataset becomes like a folder, and only what changed is sent."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from client.client import Client
from models.images.reading import READABLE
from tests.models.images.test_dataset import picture
from tests.models.images.test_reading import gif

ROOT = Path(__file__).parents[3]
FILES = {f"{c}/{i}.png": picture(10 * i + len(c)) for c in ("cat", "doggy") for i in range(3)}


@pytest.fixture
def folder(tmp_path) -> Path:
    return filled(tmp_path / "pets", FILES)


def filled(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def service(base_url) -> Iterator[Client]:
    with Client(base_url) as service:
        yield service
        for dataset in list(service.datasets()):
            if dataset.name in ("synced", "fresh"):
                service.delete_dataset(dataset.name)


@pytest.fixture
def diffusion(base_url) -> Callable[..., str]:
    """diffusion("dataset", "ls", "synced"): what it printed; it must end with `code`."""

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli.main", "--url", base_url, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "160"},
            cwd=ROOT,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done.stdout if code == 0 else done.stderr

    return run


def contents(service: Client, name: str = "synced") -> dict[str, str | None]:
    """The class of each image by the sha256 of its file."""
    return {image.sha256: image.class_name for image in service.images(name)}


def test_images_are_listed_removed_moved_and_renamed(diffusion, service, folder):
    diffusion("dataset", "add", "synced", str(folder))
    ids = [image.id for image in service.images("synced")]
    listed = diffusion("dataset", "ls", "synced", "--class", "doggy").splitlines()
    assert [line.split()[0] for line in listed[1:]] == ids[3:]
    assert diffusion("dataset", "rm", "synced", ids[0]) == "synced: version 2, 5 images\n"
    diffusion("dataset", "mv", "synced", "bird", ids[1], ids[3])
    diffusion("dataset", "rename-class", "synced", "doggy", "dog")
    made = json.loads(diffusion("--json", "dataset", "show", "synced"))
    assert made["classes"] == {"bird": 2, "cat": 1, "dog": 2}
    assert "version 4" in diffusion("dataset", "show", "synced")
    assert "version 1" in diffusion("dataset", "show", "synced", "--version", "1")
    told = diffusion("dataset", "versions", "synced")
    assert "renamed 'doggy' to 'dog'" in told
    assert "moved 2 images to 'bird'" in told
    refused = diffusion("dataset", "rm", "synced", ids[0], code=1)
    assert "no image of this id" in refused


def test_what_is_the_same_is_not_sent(diffusion, service, folder):
    diffusion("dataset", "add", "synced", str(folder))
    done = json.loads(diffusion("--json", "dataset", "sync", "synced", str(folder)))
    assert done == {"added": 0, "removed": 0, "moved": 0, "skipped": [], "version": 1}
    assert service.dataset("synced").version == 1


def test_only_what_changed_is_sent(diffusion, service, folder):
    diffusion("dataset", "add", "synced", str(folder))
    before = service.dataset("synced")
    (folder / "cat/0.png").rename(folder / "doggy/was-a-cat.png")
    (folder / "cat/1.png").unlink()
    filled(folder, {"bird/1.png": picture(91), "bird/2.png": picture(92), "cat/2.png": picture(93)})
    filled(folder, {"notes.txt": b"hello", ".hidden.png": picture(1), "@eaDir/cat/0.png": b"x"})
    plan = diffusion("dataset", "sync", "synced", str(folder), "--dry-run")
    assert plan.splitlines() == [
        "add     bird/1.png (bird)",
        "add     bird/2.png (bird)",
        "add     cat/2.png (cat)",
        "remove  cat/1.png (cat)",
        "remove  cat/2.png (cat)",
        "move    cat/0.png (cat -> doggy)",
        "skip    notes.txt: this is not an image in any of " + ", ".join(READABLE),
        "synced: 3 added, 2 removed, 1 moved, 1 skipped; version 1 (dry run)",
    ]
    assert service.dataset("synced").version == 1
    done = diffusion("dataset", "sync", "synced", str(folder)).splitlines()
    assert done[-1] == "synced: 3 added, 2 removed, 1 moved, 1 skipped; version 3"
    after = service.dataset("synced")
    assert after.classes == {"bird": 2, "cat": 1, "doggy": 4}
    assert 0 < after.num_bytes - before.num_bytes < 3 * 1000
    again = diffusion("dataset", "sync", "synced", str(folder)).splitlines()
    assert again[1:] == ["synced: 0 added, 0 removed, 0 moved, 1 skipped; version 3"]
    service.add_dataset("fresh", folder)
    assert contents(service) == contents(service, "fresh")


def test_one_new_class_and_one_validation_image_are_what_they_are(diffusion, service, tmp_path):
    names = [f"train/{c}/{i}.png" for c in ("cat", "dog") for i in (1, 2)]
    files = {name: picture(10 * i) for i, name in enumerate(names)}
    folder = filled(tmp_path / "split", files | {"val/cat/1.png": picture(99)})
    service.add_dataset("synced", folder)
    filled(folder, {"val/dog/9.png": picture(98)})
    diffusion("dataset", "sync", "synced", str(folder))
    assert service.dataset("synced").splits == {"train": 4, "val": 2}
    filled(folder, {"train/bird/9.png": picture(97)})
    (folder / "train/cat/1.png").rename(folder / "val/cat/2.png")
    diffusion("dataset", "sync", "synced", str(folder))
    assert service.dataset("synced").splits == {"train": 4, "val": 3}
    assert service.dataset("synced").classes == {"bird": 1, "cat": 3, "dog": 3}
    again = diffusion("dataset", "sync", "synced", str(folder))
    assert again == "synced: 0 added, 0 removed, 0 moved, 0 skipped; version 4\n"


def test_equal_files_and_files_of_several_frames_stay_together(diffusion, service, tmp_path):
    files = {"a/1.gif": gif(["red", "lime"]), "a/2.png": picture(5), "b/2.png": picture(5)}
    folder = filled(tmp_path / "frames", files | {"b/3.gif": gif(["blue", "red"])})
    service.add_dataset("synced", folder, frames="all")
    assert service.dataset("synced").num_images == 6
    shutil.move(folder / "a/1.gif", folder / "b/1.gif")
    (folder / "a/2.png").rename(folder / "b/4.png")
    filled(folder, {"a/5.png": picture(5), "a/6.png": picture(6)})
    done = json.loads(diffusion("--json", "dataset", "sync", "synced", str(folder)))
    assert (done["added"], done["removed"], done["moved"]) == (2, 0, 1)
    assert service.dataset("synced").classes == {"a": 2, "b": 6}


def test_a_label_file_of_the_folder_says_the_classes(diffusion, service, tmp_path):
    files = {f"{i}.png": picture(10 * i) for i in range(4)}
    folder = filled(tmp_path / "table", files)

    def write(*classes: str) -> None:
        rows = [f"{i}.png,{name}" for i, name in enumerate(classes)]
        (folder / "labels.csv").write_text("\n".join(["file,label", *rows]))

    write("x", "x", "y", "y")
    service.add_dataset("synced", folder)
    write("x", "y", "y", "z")
    diffusion("dataset", "sync", "synced", str(folder))
    assert service.dataset("synced").classes == {"x": 1, "y": 2, "z": 1}
    wrong = diffusion("dataset", "sync", "synced", str(folder), "--labels", "other.csv", code=2)
    assert "no such file" in wrong


def test_files_that_the_service_refuses_are_named(diffusion, service, folder, settings):
    service.add_dataset("synced", folder)
    side = 1 + int(settings.max_pixels**0.5)  # more than this service takes
    filled(folder, {"cat/9.png": picture(9), "cat/large.png": picture(9, side, side)})
    *_, refused, done = diffusion("dataset", "sync", "synced", str(folder)).splitlines()
    assert refused.startswith("refused cat/large.png: the image has")
    assert done == "synced: 1 added, 0 removed, 0 moved, 1 skipped; version 2"


def test_a_dataset_that_is_not_there_is_refused(diffusion, folder):
    refused = diffusion("dataset", "sync", "none", str(folder), code=1)
    assert "there is no dataset 'none'" in refused
