"""One schema, whoever opens the database first; times that know their zone."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from store.database import Database, Record, open_database
from store.datasets import DatasetRecord  # noqa: F401  every table is known
from store.jobs.requests import Job  # noqa: F401
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
    given = {"details": {}, **values}
    return ModelRecord(name=name, digest="0", artifact_prefix="m", num_bytes=1, **given)


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


def test_the_migrations_make_the_tables_that_the_records_describe(database):
    found = sa.inspect(database.engine)
    for table in Record.metadata.sorted_tables:
        columns = {column["name"]: column["nullable"] for column in found.get_columns(table.name)}
        assert columns == {column.name: column.nullable for column in table.columns}, table.name


def test_scores_of_earlier_versions_are_those_of_float32(tmp_path):
    config = Config()
    config.set_main_option("script_location", str(ROOT / "store" / "migrations"))
    scores, details = {"made": {"frechet": 0.5}}, {"image_size": [8, 8]}
    database = Database(f"sqlite:///{tmp_path / 'records.sqlite3'}")

    def bring_to(revision, bring=command.upgrade):
        with database.engine.begin() as connection:
            config.attributes["connection"] = connection
            bring(config, revision)

    bring_to("0006")
    for name, more in (("old", {"scores": scores}), ("young", {})):
        create_model(database, a_model(name, details={**details, **more}))
    bring_to("0007")
    assert get_model(database, "old").details == {**details, "scores": {"float32": scores}}
    assert get_model(database, "young").details == details
    bring_to("0006", command.downgrade)
    assert get_model(database, "old").details == {**details, "scores": scores}
    database.close()


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
