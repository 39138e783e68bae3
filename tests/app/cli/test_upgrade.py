"""`diffusion upgrade`, on databases of earlier versions, and its check beforehand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from store.artifacts import ArtifactStore
from store.database import Database, migrate, open_database, revision_of, revisions
from store.locations import Locations
from store.nodes import heartbeat
from tests.store.test_database import OLD, insert

NEWEST = revisions()[-1]


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    return Locations(tmp_path)


def upgrade(locations: Locations, *options: str, **settings: str) -> tuple[int, list[list[str]]]:
    """The exit code and the findings, each as what, found, and whether it is ok."""
    done = subprocess.run(
        [sys.executable, "-m", "app.cli.main", "--json", "upgrade", *options],
        env={**os.environ, "DIFFUSION_DATA_DIR": str(locations.data_dir), **settings},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    findings = json.loads(done.stdout)
    return done.returncode, [[each["what"], each["found"], each["ok"]] for each in findings]


def database_at(locations: Locations, revision: str) -> Database:
    database = Database(locations.database_url)
    with database.engine.begin() as connection:
        migrate(connection, revision)
    return database


def card(**changes: object) -> dict[str, object]:
    schedule = {"name": "linear", "num_train_timesteps": 1000}
    return {
        "image_size": [8, 8],
        "channels": 1,
        "class_names": [],
        "num_parameters": 10,
        "schedule": schedule,
        "prediction_type": "v",
        "sigma_data": 0.5,
        **changes,
    }


def test_the_check_names_what_would_be_done_and_changes_nothing(locations):
    database = database_at(locations, "0012")
    insert(database, "models", name="faces", details=card(), **OLD)
    code, findings = upgrade(locations, "--check")
    assert code == 0, findings
    assert findings[0] == ["settings", "all are known and valid", True]
    about = (
        "Records have the sha256 of the files that they stand for, and say what was found damaged."
    )
    assert findings[1:3] == [
        ["would migrate", f"0013: {about}", True],
        ["would migrate", "0014: Keys, and the owners of datasets, models and jobs.", True],
    ]
    assert ["models", "1 are readable", True] in findings
    with database.engine.connect() as connection:
        assert revision_of(connection) == "0012"
        assert connection.scalar(sa.text("SELECT count(*) FROM models")) == 1
    code, findings = upgrade(locations)
    assert (code, len(findings)) == (0, 1)
    assert findings[0][1].startswith("0013: Records have the sha256")
    with database.engine.connect() as connection:
        assert revision_of(connection) == NEWEST
    assert upgrade(locations) == (0, [["database", "nothing to migrate", True]])
    database.close()


def test_records_and_artifacts_that_this_version_cannot_read_are_named(locations):
    database = open_database(locations.database_url)
    artifacts = ArtifactStore(locations.artifacts_url)
    row = {"digest": "0", "artifact_prefix": "m", "num_bytes": 1, "created_at": "2026-01-01"}
    insert(database, "models", name="faces", details=card(schedule={"shape": 1}), **row)
    reading = {"frames": "refuse", "range": "full", "levels": None}
    part = {"digest": "d", "key": "datasets/pets/d", "num_bytes": 1, "num_images": 1}
    part |= {"labels": None, "reading": reading, "max_pixels": 1, "files": None}
    texts = {"change": "uploaded", "digest": "d", "created_at": "2026-01-01"}
    lists = dict.fromkeys(("parts", "sizes", "rejected", "warnings"), "[]")
    numbers = {"number": 1, "num_bytes": 1, "num_images": 1, "channels": 1, "num_rejected": 0}
    jsons = {"classes": {}, "splits": {}, "reading": reading}
    lists["parts"] = json.dumps([part])
    insert(database, "dataset_versions", dataset="pets", **texts, **lists, **numbers, **jsons)
    artifacts.put_bytes("datasets/pets/d.index", b"not zipped")
    code, findings = upgrade(locations, "--check")
    assert code == 1
    models, datasets = (found for found in findings if not found[2])
    assert models[1].startswith("1 of 1 are not readable: model 'faces' (TypeError: ")
    assert datasets[1].startswith("1 of 1 are not readable: version 1 of dataset 'pets' (artifact")
    database.close()


def test_a_database_of_a_later_version_is_not_touched(locations):
    database = open_database(locations.database_url)
    with database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    for options in (("--check",), ()):
        code, findings = upgrade(locations, *options)
        assert code == 1
        assert findings[-1] == [
            "database",
            f"its schema 9999 is newer than this version's, {NEWEST}",
            False,
        ]
    database.close()


def test_a_service_that_runs_is_named(locations):
    database = database_at(locations, "0016")
    heartbeat(database, "worker")
    _, findings = upgrade(locations, "--check")
    assert {"would migrate", "running"} <= {found[0] for found in findings}
    database.close()


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("DIFFUSION_GRACE_SECOND", "3", "DIFFUSION_GRACE_SECOND is no setting of this version"),
        ("DIFFUSION_LEASE_SECONDS", "0", "DIFFUSION_LEASE_SECONDS is '0'; it must be a number, "),
    ],
)
def test_settings_that_are_misspelt_or_out_of_bounds_are_named(locations, name, value, found):
    open_database(locations.database_url).close()
    code, findings = upgrade(locations, "--check", **{name: value})
    assert code == 1
    assert len(findings) == 1
    assert findings[0][1].startswith(found)
