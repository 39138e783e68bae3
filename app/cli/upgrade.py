"""`diffusion upgrade [--check]`: bring the database of this machine's service to this version, or
say beforehand what that would find.

The check runs the migrations on a copy of the records, and reads the result as this version would.
"""

import ast
import difflib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from app.cli.doctor import Finding, report
from app.cli.session import Session, size
from app.settings import Settings
from client.connection import KEY_VARIABLE, URL_VARIABLE
from host.environment import PREFIX, InvalidSetting, read_settings, variables
from models.images.formats import Reading
from models.images.index import Index
from models.images.labels import LabelRule
from models.images.versions import Manifest
from models.pipeline.card import ModelCard
from models.training.config import TrainConfig
from store.artifacts import ArtifactStore, StorageError
from store.database import MIGRATIONS, Database, open_database, revision_of, revisions
from store.datasets import DatasetVersion
from store.errors import ArtifactNotFound, StoreError
from store.integrity import read_index, read_manifest
from store.jobs.configs import EvaluateConfig, ImportConfig, SampleJobConfig
from store.jobs.kinds import Kind
from store.jobs.record import Job
from store.locations import Locations
from store.models import ModelRecord
from store.nodes import live_node
from store.upkeep.dump import load, rows
from worker.settings import WorkerSettings

OTHERS = (URL_VARIABLE, KEY_VARIABLE, "DIFFUSION_DIE_WITH_PARENT")
FOR_TESTS = "DIFFUSION_TEST_"
SHOWN = 5  # records that cannot be read
CONFIGS: Mapping[Kind, Callable[[Mapping[str, object]], object]] = {
    "train": TrainConfig.from_dict,
    "sample": SampleJobConfig.from_dict,
    "evaluate": EvaluateConfig.from_dict,
    "import": ImportConfig.from_dict,
}


def run(session: Session, *, check: bool) -> None:
    """Migrate the database, or check what that would find; exit with 1 if something is wrong."""
    with session.busy("checking"):
        findings = list(_examine() if check else _upgrade())
    report(session, findings)


def _upgrade() -> Iterator[Finding]:
    locations = read_settings(Locations)
    database = Database(locations.database_url)
    with database.engine.connect() as connection:
        before = revision_of(connection)
    database.close()
    if before not in (None, *revisions()):
        yield _newer(before)
        return
    open_database(locations.database_url).close()
    done = [f"{revision}: {_about(revision)}" for revision in _revisions_after(before)]
    yield Finding("database", "; ".join(done) if done else "nothing to migrate")


# Settings -----------------------------------------------------------------------------------------


def _examine() -> Iterator[Finding]:
    settings = list(_settings(os.environ))
    yield from settings or [Finding("settings", "all are known and valid")]
    if all(finding.ok for finding in settings):
        yield from _stored(read_settings(Locations))


def _settings(environment: Mapping[str, str]) -> Iterator[Finding]:
    known = {*variables(Settings, WorkerSettings), *OTHERS}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and not name.startswith(FOR_TESTS):
            near = difflib.get_close_matches(name, known, 1, 0.8)
            advice = f"Is it {near[0]}?" if near else "It is not read: remove it."
            yield Finding("settings", f"{name} is no setting of this version", False, advice)
    for kind in (Settings, WorkerSettings):
        try:
            read_settings(kind, environment)
        except InvalidSetting as error:
            yield Finding("settings", str(error), ok=False, advice="See docs/settings.md.")
            return


# Records ------------------------------------------------------------------------------------------


def _stored(locations: Locations) -> Iterator[Finding]:
    try:
        database = Database(locations.database_url)
        with database.snapshot() as connection:
            revision = revision_of(connection)
            yield from _schema(connection, revision)
            if revision not in revisions():  # newer, or there is none yet
                return
            yield _space(connection, locations)
            with tempfile.TemporaryDirectory() as folder:
                copy = Database(f"sqlite:///{Path(folder) / 'copy.sqlite3'}")
                with copy.engine.begin() as copied:
                    load(copied, str(revision), rows(connection))
                yield from _Readable(copy, ArtifactStore(locations.artifacts_url)).findings()
                copy.close()
    except (OSError, SQLAlchemyError, StorageError) as error:
        advice = "The migrations, or reading what is stored, fail: do not upgrade yet."
        yield Finding("database", f"{type(error).__name__}: {error}", ok=False, advice=advice)


def _schema(connection: sa.Connection, revision: str | None) -> Iterator[Finding]:
    if revision is not None and revision not in revisions():
        yield _newer(revision)
        return
    waiting = _revisions_after(revision)
    for each in waiting:
        yield Finding("would migrate", f"{each}: {_about(each)}")
    if not waiting:
        yield Finding("database", f"its schema is this version's, {revision}")
    elif node := live_node(connection):
        advice = "Stop the service before the upgrade: one version runs everywhere."
        yield Finding("running", node, advice=advice)


def _newer(revision: str | None) -> Finding:
    found = f"its schema {revision} is newer than this version's, {revisions()[-1]}"
    advice = "Install the version that it belongs to, or restore a backup."
    return Finding("database", found, ok=False, advice=advice)


def _revisions_after(revision: str | None) -> list[str]:
    return [each for each in revisions() if each > (revision or "")]


def _about(revision: str) -> str:
    """Return the first line of a migration's docstring."""
    (path,) = (MIGRATIONS / "versions").glob(f"{revision}_*.py")
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]


def _space(connection: sa.Connection, locations: Locations) -> Finding:
    """Compare free space with what SQLite may need: it rewrites tables, and logs what it writes."""
    database = connection.engine.url.database
    path = locations.data_dir
    needed = 0
    if connection.dialect.name == "sqlite" and database:
        path = Path(database).parent
        needed = 2 * Path(database).stat().st_size
    free = min(shutil.disk_usage(each).free for each in (path, tempfile.gettempdir()))
    found = f"{size(free)} free; the migration takes up to {size(needed)}"
    if free < needed:
        return Finding("disk", found, ok=False, advice="Make room for the database and its copy.")
    return Finding("disk", found)


@dataclass(frozen=True)
class _Readable:
    """Whether this version reads what the migrated records and their artifacts say."""

    database: Database
    artifacts: ArtifactStore

    def findings(self) -> Iterator[Finding]:
        with self.database.session() as session:
            models = session.scalars(sa.select(ModelRecord)).all()
            versions = session.scalars(sa.select(DatasetVersion)).all()
            jobs = session.scalars(sa.select(Job)).all()
        yield self._of("models", {f"model {each.name!r}": _model(each) for each in models})
        yield self._of("jobs", {f"job {each.id!r}": _job(each) for each in jobs})
        yield self._of(
            "datasets",
            {f"version {v.number} of dataset {v.dataset!r}": self._version(v) for v in versions},
        )

    def _of(self, what: str, reads: Mapping[str, Callable[[], None]]) -> Finding:
        failed = []
        for name, read in reads.items():
            try:
                read()
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                failed.append(f"{name} ({type(error).__name__}: {error})")
            except StoreError as error:
                failed.append(f"{name} ({error})")
        if not failed:
            return Finding(what, f"{len(reads)} are readable")
        found = f"{len(failed)} of {len(reads)} are not readable: {', '.join(failed[:SHOWN])}"
        return Finding(what, found, ok=False, advice="Keep the earlier version, and report this.")

    def _version(self, version: DatasetVersion) -> Callable[[], None]:
        def read() -> None:
            Reading.from_dict(version.reading)
            for part in version.parts:
                Reading.from_dict(part.reading)
                LabelRule(**(part.labels or {}))
                with suppress(ArtifactNotFound):  # there was none before 0012
                    Index.from_bytes(read_index(self.artifacts, part))
            if version.manifest_key:
                content = read_manifest(self.artifacts, version.manifest_key, version.digest)
                Manifest.from_bytes(content)

        return read


def _model(record: ModelRecord) -> Callable[[], None]:
    def read() -> None:
        ModelCard.from_dict(record.details)

    return read


def _job(job: Job) -> Callable[[], None]:
    def read() -> None:
        CONFIGS[job.kind](job.config)  # a checkpoint has the same config

    return read
