"""What is stored is compared with its records, by a walk over all of it."""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from PIL import Image

from host.environment import to_environment
from store.artifacts import ArtifactStore
from store.database import Database, open_database
from store.datasets import (
    CONTENTS,
    DatasetRecord,
    Part,
    add_version,
    create_dataset,
    get_dataset,
    get_version,
    new_version,
)
from store.errors import ArtifactDamaged, ArtifactNotFound
from store.jobs.checkpoints import Checkpoint, list_checkpoints
from store.locations import Locations
from store.model_files import fetch_model
from store.models import ModelRecord, create_model, get_model
from store.pictures import Picture, keep_pictures
from store.upkeep.verify import Verifier
from tests.store.records import a_job, a_model, a_picture

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    return Locations(tmp_path)


@pytest.fixture
def database(locations: Locations):
    database = open_database(locations.database_url)
    yield database
    database.close()


@pytest.fixture
def artifacts(locations: Locations) -> ArtifactStore:
    return ArtifactStore(locations.artifacts_url)


@pytest.fixture
def invert(locations: Locations) -> Callable[[str], None]:
    """invert(key): some bytes of an artifact are changed on disk."""

    def change(key: str) -> None:
        path = Path(locations.artifacts_url) / key
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        for i in range(middle, min(middle + 4000, len(content))):
            content[i] ^= 0xFF
        path.write_bytes(content)

    return change


def fill(database: Database, artifacts: ArtifactStore, folder: Path) -> dict[str, str]:
    """One of each that has a record; the key of a file of each."""
    job = a_job(database)  # with a dataset, photos, that has no artifacts
    with database.session() as session:
        session.delete(session.get(DatasetRecord, "photos"))
    (folder / "unet").mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(os.urandom(10_000))
    (folder / "diffusion.json").write_text('{"sigma_data": 0.5}')
    files = artifacts.upload_folder(folder, "models/faces")
    new, old = a_model("faces"), a_model("old")
    new.files, old.digest = files, files[WEIGHTS]
    artifacts.upload_folder(folder, "models/old")
    for model in (new, old):
        create_model(database, model)
    with database.session() as session:
        key = f"jobs/{job.id}/attempt-1/checkpoint-00000010"
        written = artifacts.upload_folder(folder, key)
        session.add(
            Checkpoint(
                job_id=job.id, step=10, key=key, num_bytes=1, seconds=1.0, score=None, files=written
            )
        )
    fill_dataset(database, artifacts)
    kept = keep_pictures(database, artifacts, [a_picture("a" * 100)], 1).pictures[0]
    picture, packed = io.BytesIO(), io.BytesIO()
    Image.effect_noise((64, 64), 50).save(picture, "PNG")
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("0.png", picture.getvalue())
    artifacts.put_bytes(f"jobs/{job.id}/images/00000000.png", picture.getvalue())
    artifacts.put_bytes(f"jobs/{job.id}/images.zip", packed.getvalue())
    artifacts.put_bytes(f"jobs/{job.id}/attempt-1/log.jsonl", b"{}")
    return {
        "weights": f"models/faces/{WEIGHTS}",
        "config": "models/faces/diffusion.json",
        "old": f"models/old/{WEIGHTS}",
        "archive": "datasets/pets/a",
        "index": "datasets/pets/a.index",
        "fingerprints": "datasets/pets/a.fingerprints",
        "manifest": "datasets/pets/m.manifest",
        "checkpoint": f"{key}/{WEIGHTS}",
        "picture": kept.key,
        "image": f"jobs/{job.id}/images/00000000.png",
        "zip": f"jobs/{job.id}/images.zip",
    }


def fill_dataset(database: Database, artifacts: ArtifactStore) -> None:
    """An upload, and an edit of it."""
    contents = {
        "datasets/pets/a": os.urandom(9000),
        "datasets/pets/a.index": gzip.compress(b"{}" * 5000),
        "datasets/pets/a.fingerprints": os.urandom(100),
    }
    files = {key: artifacts.put_bytes(key, content) for key, content in contents.items()}
    counts = {"num_bytes": 1, "num_images": 2, "channels": 1, "num_rejected": 0}
    empty = {"classes": {}, "sizes": [], "rejected": [], "reading": {}, "warnings": []}
    record = DatasetRecord(
        name="pets", digest="d", artifact_key="datasets/pets/a", **counts, **empty
    )
    create_dataset(database, record, files=files)
    manifest = os.urandom(500).hex().encode()
    artifacts.put_bytes("datasets/pets/m.manifest", gzip.compress(manifest))
    first = get_version(database, "pets", 1)
    values = {name: getattr(first, name) for name in CONTENTS}
    values["digest"] = hashlib.sha256(manifest).hexdigest()
    manifest_key = "datasets/pets/m.manifest"
    add_version(
        database,
        new_version("pets", 2, first.parts, change="", manifest_key=manifest_key, **values),
    )


def marks(database: Database) -> set[str]:
    """Whose records say that something is damaged."""
    found = {name: get_model(database, name).damage for name in ("faces", "old")}
    found["pets"] = get_dataset(database, "pets").damage
    with database.session() as session:
        (checkpoint,) = session.query(Checkpoint)
        (picture,) = session.query(Picture)
    found |= {"checkpoint": checkpoint.damage, "picture": picture.damage}
    return {name for name, damage in found.items() if damage is not None}


OWNERS = {
    "weights": {"faces"},
    "config": {"faces"},
    "old": {"old"},
    "archive": {"pets"},
    "index": {"pets"},
    "fingerprints": {"pets"},
    "manifest": {"pets"},
    "checkpoint": {"checkpoint"},
    "picture": {"picture"},
    "image": set(),
    "zip": set(),
}


@pytest.mark.parametrize("how", ["changed", "missing"])
def test_each_damaged_file_is_found_and_marked_and_the_mark_goes_when_it_is_restored(
    database, artifacts, locations, invert, tmp_path, how
):
    keys = fill(database, artifacts, tmp_path / "model")

    def walk() -> list[str]:
        verifier = Verifier(database, artifacts, tmp_path)
        found = [error.key for error in verifier.walk()]
        assert verifier.num_unknown == 1  # the log
        return found

    assert walk() == []
    for what, key in keys.items():
        path = Path(locations.artifacts_url) / key
        content = path.read_bytes()
        if how == "changed":
            invert(key)
            expected = [key]
        else:
            if what in ("image", "zip"):
                continue  # no record says that there was one
            path.unlink()
            expected = ["models/old"] if what == "old" else [key]
        found = walk()
        if (what, how) == ("old", "missing"):  # another file is there, without weights
            assert found == expected
        else:
            assert found == [key], what
        assert marks(database) == OWNERS[what], what
        path.write_bytes(content)
        assert walk() == []
        assert marks(database) == set()


def test_the_command_prints_what_is_damaged_and_exits_with_one(
    database, artifacts, locations, invert, tmp_path
):
    keys = fill(database, artifacts, tmp_path / "model")

    def run() -> tuple[int, list[str]]:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli.main", "verify"],
            env={**os.environ, **to_environment(locations)},
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    code, lines = run()
    assert code == 0
    assert lines == [
        "1 files are well, by the sha256 of weights alone",
        "2 files are well, by their own checksums",
        "9 files are well, by their sha256",
        "1 files have no digest and no checksum of their own",
        "0 files are damaged",
    ]
    invert(keys["weights"])
    invert(keys["zip"])
    code, lines = run()
    assert code == 1
    assert lines[0].startswith(f"damaged  {keys['weights']}: its sha256 is ")
    assert lines[1].startswith(f"damaged  {keys['zip']}: ")
    assert lines[-1] == "2 files are damaged"
    assert "its sha256 is" in (get_model(database, "faces").damage or "")


def test_a_part_of_an_earlier_version_is_compared_with_its_digest_where_that_is_of_the_file_alone(
    database, artifacts, tmp_path
):
    fill_dataset(database, artifacts)
    (part,) = get_version(database, "pets", 1).parts
    old = replace(part, files=None)
    verifier = Verifier(database, artifacts, tmp_path)
    assert list(verifier._part(old)) == []
    assert (verifier.num_unknown, verifier.counts.total()) == (3, 0)
    plain = Part(**{**asdict(old), "digest": artifacts.sha256(part.key)})
    assert list(verifier._part(plain)) == []
    assert (verifier.num_unknown, verifier.counts.total()) == (5, 1)


# Fetching ----------------------------------------------------------------------------------------


def test_a_model_is_fetched_only_as_it_was_written(database, artifacts, invert, tmp_path):
    keys = fill(database, artifacts, tmp_path / "model")
    model: ModelRecord = get_model(database, "faces")

    def fetch(files: dict[str, str] | None) -> None:
        fetch_model(artifacts, model.artifact_prefix, old.digest, files, tmp_path / "fetched")

    old = get_model(database, "old")
    fetch(model.files)
    assert (tmp_path / "fetched" / WEIGHTS).read_bytes() == (
        tmp_path / "model" / WEIGHTS
    ).read_bytes()
    invert(keys["config"])
    fetch(None)  # only the weights have a digest
    with pytest.raises(ArtifactDamaged) as refused:
        fetch(model.files)
    assert refused.value.key == keys["config"]
    invert(keys["weights"])
    with pytest.raises(ArtifactDamaged) as refused:
        fetch(None)
    assert refused.value.key == keys["weights"]
    artifacts.delete_prefix("models/faces")
    for files in (None, model.files):
        with pytest.raises(ArtifactNotFound):
            fetch(files)


def test_shards_are_compared_with_the_digest_of_all_of_them(artifacts, tmp_path):
    shards = [os.urandom(100), os.urandom(100)]
    for i, shard in enumerate(shards):
        artifacts.put_bytes(f"models/m/unet/w-0000{i}-of-00002.safetensors", shard)
    digest = hashlib.sha256(b"".join(shards)).hexdigest()
    fetch_model(artifacts, "models/m", digest, None, tmp_path / "m")
    artifacts.put_bytes("models/m/unet/w-00000-of-00002.safetensors", shards[1])
    with pytest.raises(ArtifactDamaged, match="'models/m' is damaged"):
        fetch_model(artifacts, "models/m", digest, None, tmp_path / "m")


def test_checkpoints_keep_the_digests_of_their_files(database, artifacts, tmp_path):
    fill(database, artifacts, tmp_path / "model")
    with database.session() as session:
        (checkpoint,) = session.query(Checkpoint)
    (listed,) = list_checkpoints(database, checkpoint.job_id)
    assert set(listed.files) == {WEIGHTS, "diffusion.json"}
