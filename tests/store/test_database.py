"""One schema, whoever opens the database first; times that know their zone."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

import store.database
from models.images.formats import Reading
from store.database import Database, Record, open_database
from store.datasets import (
    DatasetRecord,  # noqa: F401  every table is known
    Part,
    get_dataset,
    get_version,
)
from store.jobs.requests import (
    Job,
    get_job,
)
from store.models import ModelRecord, create_model, get_model, list_models
from store.nodes import Node  # noqa: F401

ROOT = Path(__file__).parents[2]

OPEN = """
import sys
from store.database import open_database

sys.stdin.readline()
open_database(sys.argv[1]).close()
"""


def a_model(name: str, **values: object) -> ModelRecord:
    return ModelRecord(
        name=name, digest="0", details={}, artifact_prefix="m", num_bytes=1, **values
    )


def test_four_processes_may_create_the_schema_at_once(database_url):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, database_url],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(4)
    ]
    complaints = [process.communicate("go\n")[1] for process in processes]
    assert complaints == [""] * 4
    assert [process.returncode for process in processes] == [0] * 4
    database = open_database(database_url)
    assert list_models(database, limit=1) == ([], False)
    database.close()


def test_the_newest_schema_is_recognised_without_loading_alembic(database_url):
    open_database(database_url).close()
    code = f"{OPEN}\nassert 'alembic' not in sys.modules"
    command_line = [sys.executable, "-c", code, database_url]
    subprocess.run(command_line, input=b"go\n", cwd=ROOT, check=True)


def test_the_migrations_make_the_tables_that_the_records_describe(database):
    found = sa.inspect(database.engine)
    for table in Record.metadata.sorted_tables:
        columns = {column["name"]: column["nullable"] for column in found.get_columns(table.name)}
        assert columns == {column.name: column.nullable for column in table.columns}, table.name


@contextmanager
def migrating(folder: Path) -> Iterator[tuple[Database, Callable[..., None]]]:
    """A database without tables, and what brings it to a revision."""
    config = Config()
    config.set_main_option("script_location", str(ROOT / "store" / "migrations"))
    database = Database(f"sqlite:///{folder / 'records.sqlite3'}")

    def bring_to(revision, bring=command.upgrade):
        with database.engine.begin() as connection:
            config.attributes["connection"] = connection
            bring(config, revision)

    yield database, bring_to
    database.close()


def insert(database: Database, table: str, **values: object) -> None:
    """Insert a record as an earlier version did; a mapping is JSON."""
    names = ", ".join(values)
    query = f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in values)})"
    plain = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in values.items()}
    with database.engine.begin() as connection:
        connection.execute(sa.text(query), plain)


def details_of(database: Database) -> dict[str, object]:
    with database.engine.begin() as connection:
        rows = connection.execute(sa.text("SELECT name, details FROM models")).all()
    return {name: json.loads(details) for name, details in rows}


OLD = {"digest": "0", "artifact_prefix": "m", "num_bytes": 1, "created_at": "2026-01-01"}


def test_scores_of_earlier_versions_are_those_of_float32(tmp_path):
    scores, details = {"made": {"frechet": 0.5}}, {"image_size": [8, 8]}
    with migrating(tmp_path) as (database, bring_to):
        bring_to("0006")
        insert(database, "models", name="old", details={**details, "scores": scores}, **OLD)
        insert(database, "models", name="young", details=details, **OLD)
        before = details_of(database)
        bring_to("0007")
        new = {"old": {**details, "scores": {"float32": scores}}, "young": details}
        assert details_of(database) == new
        bring_to("0006", command.downgrade)
        assert details_of(database) == before


def test_jobs_of_earlier_versions_have_no_tags_and_no_notes(tmp_path):
    row = {"id": "job_1", "kind": "train", "status": "failed", "model_name": "m", "config": {}}
    row |= {"options": {}, "priority": 5, "progress": {}, "fence": 0, "attempts": 0, "version": 1}
    row |= dict.fromkeys(("cancel_requested", "pause_requested"), 0) | {"visibility": "private"}
    row |= dict.fromkeys(("created_at", "queued_at", "updated_at"), "2026-01-01")
    with migrating(tmp_path) as (database, bring_to):
        bring_to("0021")
        insert(database, "jobs", **row)
        bring_to("head")
        with database.session() as session:
            job = session.get_one(Job, "job_1")
        assert (job.tags, job.notes) == ([], "")
        bring_to("0021", command.downgrade)


def test_datasets_of_earlier_versions_were_read_as_by_default(tmp_path):
    known = {"num_images": 2, "channels": 1, "num_rejected": 0, "artifact_key": "a"}
    lists = {"classes": "{}", "sizes": "[]", "rejected": "[]"}
    with migrating(tmp_path) as (database, bring_to):
        bring_to("0008")
        row = {"name": "old", "digest": "0", "num_bytes": 1, "created_at": "2026-01-01"}
        insert(database, "datasets", **row, **known, **lists)
        bring_to("0011")
        with database.engine.begin() as connection:
            rows = connection.execute(sa.text("SELECT reading, warnings FROM datasets")).all()
        ((reading, warnings),) = rows
        assert Reading.from_dict(json.loads(reading)) == Reading()
        assert json.loads(warnings) == []
        bring_to("0008", command.downgrade)


def test_models_of_earlier_versions_say_what_they_began_with(tmp_path):
    first = {"model": "faces", "digest": "d1", "prefix": "models/faces"}
    with migrating(tmp_path) as (database, bring_to):
        bring_to("0007")
        for job_id, options in (("job_1", {}), ("job_2", {"fine_tune": first})):
            create_job(database, job_id, options)
            insert(database, "models", name=f"by-{job_id}", job_id=job_id, details={}, **OLD)
        insert(database, "models", name="uploaded", details={}, **OLD)
        bring_to("0008")
        assert details_of(database) == {
            "by-job_1": {},
            "by-job_2": {"base_model": "faces", "base_digest": "d1"},
            "uploaded": {},
        }
        bring_to("head")
        assert get_model(database, "by-job_2").license is None
        bring_to("0007", command.downgrade)


def test_datasets_of_earlier_versions_have_no_rule_of_labels(tmp_path):
    jsons = {"classes": {"test": 2, "train": 2}, "sizes": {}, "rejected": {}}
    numbers = {"num_bytes": 1, "num_images": 4, "channels": 1, "num_rejected": 0}
    with migrating(tmp_path) as (database, bring_to):
        bring_to("0008")
        insert(
            database,
            "datasets",
            name="pets",
            digest="d",
            artifact_key="k",
            created_at="2026-01-01",
            **jsons,
            **numbers,
        )
        bring_to("head")
        pets = get_dataset(database, "pets")
        assert (pets.labels, pets.splits, pets.warnings) == (None, {}, [])
        assert pets.classes == jsons["classes"]
        bring_to("0008", command.downgrade)


def test_datasets_of_earlier_versions_are_their_own_first_version(tmp_path):
    reading = {"frames": "refuse", "range": "full", "levels": None}
    jsons = {"classes": {"a": 2}, "reading": reading, "labels": {"source": "folders"}}
    lists = {"sizes": "[]", "rejected": "[]", "splits": "{}", "warnings": "[]"}
    numbers = {"num_bytes": 5, "num_images": 2, "channels": 1, "num_rejected": 0}
    with migrating(tmp_path) as (database, bring_to):
        bring_to("0011")
        row = {"digest": "d", "artifact_key": "datasets/pets/d", "created_at": "2026-01-01"}
        insert(database, "datasets", name="pets", **row, **jsons, **lists, **numbers)
        same, other = {"dataset_digest": "d"}, {"dataset_digest": "before"}
        for job_id, dataset, options in (
            ("job_1", "pets", same),
            ("job_2", "pets", other),
            ("job_3", "gone", same),
            ("job_4", "pets", {}),
            ("job_5", None, {}),
        ):
            create_job(database, job_id, options, dataset)
            named = {"job_id": job_id, "dataset": dataset, "details": {}}
            insert(database, "models", name=f"by-{job_id}", **named, **OLD)
        insert(
            database,
            "models",
            name="deleted-job",
            job_id="job_0",
            dataset="pets",
            details={},
            **OLD,
        )
        bring_to("head")
        version = get_version(database, "pets")
        assert get_dataset(database, "pets").version == version.number == 1
        assert version.digest == "d"
        assert version.parts == [
            Part("d", "datasets/pets/d", 5, None, {"source": "folders"}, reading)
        ]
        assert version.created_at == get_dataset(database, "pets").created_at
        wanted = {
            "job_1": (1, "d"),
            "job_2": (None, "before"),
            "job_3": (None, "d"),
            "job_4": (1, "d"),
            "job_5": (None, None),
        }
        for job_id, named in wanted.items():
            for record in (get_job(database, job_id), get_model(database, f"by-{job_id}")):
                assert (record.dataset_version, record.dataset_digest) == named, job_id
        assert get_model(database, "deleted-job").dataset_digest == "d"
        bring_to("0011", command.downgrade)


def test_what_is_from_before_there_were_keys_belongs_to_nobody(tmp_path):
    with migrating(tmp_path) as (database, bring_to):
        bring_to("0012")
        insert(database, "models", name="old", details={}, **OLD)
        bring_to("head")
        old = get_model(database, "old")
        assert (old.made_by, old.visibility) == (None, "private")
        bring_to("0012", command.downgrade)
        assert details_of(database) == {"old": {}}


def create_job(
    database: Database, job_id: str, options: dict[str, object], dataset: str | None = None
) -> None:
    times = dict.fromkeys(("created_at", "queued_at", "updated_at"), "2026-01-01")
    numbers = dict.fromkeys(("fence", "attempts", "cancel_requested", "version"), 0)
    texts = {"kind": "train", "status": "succeeded", "model_name": "m"}
    jsons = {"config": {}, "progress": {}, "options": options}
    insert(database, "jobs", id=job_id, dataset=dataset, **texts, **jsons, **numbers, **times)


def test_what_is_written_is_there_when_the_database_is_opened_again(database_url):
    first = open_database(database_url)
    create_model(first, a_model("faces"))
    first.close()
    second = open_database(database_url)
    assert get_model(second, "faces").name == "faces"
    second.close()


def test_times_come_back_aware_and_in_utc(database):
    there = timezone(timedelta(hours=5, minutes=30))
    at = datetime(2024, 2, 29, 3, 4, 5, 678901, there)
    create_model(database, a_model("faces", created_at=at))
    kept = get_model(database, "faces").created_at
    assert kept == at
    assert kept.utcoffset() == timedelta(0)


def test_times_of_other_zones_are_ordered_by_the_moment(database):
    earlier = datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=9)))
    later = datetime(2024, 1, 1, 4, tzinfo=UTC)
    create_model(database, a_model("earlier", created_at=earlier))
    create_model(database, a_model("later", created_at=later))
    models, _ = list_models(database, limit=2)
    assert [model.name for model in models] == ["later", "earlier"]


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clock_of_a_host_may_be_off(hours, postgres_url, monkeypatch):
    class Off(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=hours)

    monkeypatch.setattr(store.database, "datetime", Off)
    monkeypatch.setattr(store.database, "_offset", timedelta())  # given back afterwards
    assert abs(store.database.now() - datetime.now(UTC)) > timedelta(minutes=59)
    open_database(postgres_url).close()
    assert abs(store.database.now() - datetime.now(UTC)) < timedelta(seconds=5)


def test_a_session_that_fails_writes_nothing(database):
    def fail_half_way() -> None:
        with database.session() as session:
            session.add(a_model("faces"))
            session.flush()
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert list_models(database, limit=1) == ([], False)


def test_a_folder_that_is_missing_is_made(tmp_path):
    path = tmp_path / "deep" / "er" / "records.sqlite3"
    open_database(f"sqlite:///{path}").close()
    assert path.exists()


def test_sqlite_waits_for_the_disk_and_lets_readers_by(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    database.close()
