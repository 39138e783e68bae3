"""The database of records: SQLite on one host, PostgreSQL where there are more."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Session

from store.access.owners import Caller, CallersSession, Quotas

JsonObject = dict[str, Any]  # a JSON column, or a part of one

BUSY_SECONDS = 30
RECYCLE_SECONDS = 600  # of a connection to PostgreSQL, since each new one compares the clocks
MIGRATIONS = Path(__file__).parent / "migrations"
# Advisory locks: arbitrary numbers that no other program uses in the same database.
_MIGRATION_LOCK = 0x0D1FF051
_NAMES_LOCK = 0x0D1FF052

_offset = timedelta()  # of the database's clock from this host's


class Record(DeclarativeBase):
    type_annotation_map: ClassVar = dict.fromkeys(
        (JsonObject, dict[str, int], dict[str, str], list[Any]), sa.JSON
    )


class UtcTime(sa.TypeDecorator[datetime]):
    """Aware datetimes in, aware datetimes out; SQLite keeps no time zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


class Database:
    """The records, as `caller` may see them: all of them without one."""

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self.caller: Caller | None = None
        self.claim: object = None  # of a request that is done once (store.access.idempotency)

    def for_caller(self, caller: Caller | None, claim: object = None) -> "Database":
        """Return the same database as this caller may see it, in this request."""
        seen = copy(self)
        seen.caller, seen.claim = caller, claim
        return seen

    def for_owner(self, owner: str | None, quotas: Quotas) -> "Database":
        """Return the same database for what is done in the name of a key's owner."""
        return self.for_caller(None if owner is None else Caller(owner, quotas=quotas))

    @contextmanager
    def session(self, *, names: bool = False) -> Iterator[Session]:
        """Open a session that commits at the end and rolls back on an exception; records stay
        readable afterwards.

        Sessions with `names`, which look whether a name is free and then take it, run one after the
        other. (On SQLite all sessions do.)
        """
        info = {"caller": self.caller, "claim": self.claim}
        session = CallersSession(self.engine, expire_on_commit=False, info=info)
        with session, session.begin():
            if names and self.engine.dialect.name == "postgresql":
                session.execute(sa.text(f"SELECT pg_advisory_xact_lock({_NAMES_LOCK})"))
            yield session

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """Open a connection that reads the records as they are at its first query, whatever is
        written meanwhile. Writers do not wait for it."""
        with self.engine.connect() as connection:
            if self.engine.dialect.name == "sqlite":
                connection = connection.execution_options(reads_only=True)
            else:
                connection = connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            with connection.begin():
                yield connection

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str) -> Database:
    """Connect and bring the schema to the newest revision; several processes may do so at once."""
    database = Database(url)
    with database.engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
        if revision_of(connection) != revisions()[-1]:
            migrate(connection)
    return database


def revisions() -> list[str]:
    """Return the revisions of the schema that this version knows, the oldest first."""
    return sorted(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def revision_of(connection: sa.Connection) -> str | None:
    """Return the revision of a database's schema, None where it has no tables yet."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return found


def migrate(connection: sa.Connection, revision: str = "head") -> None:
    """Bring the schema up to a revision, or down to "base", which has no tables."""
    from alembic import command  # a quarter of the CPU time in which a worker starts
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    (command.downgrade if revision == "base" else command.upgrade)(config, revision)


def now() -> datetime:
    """Return the time by the clock of the database, so that the clocks of hosts need not agree.

    SQLite's is this host's. PostgreSQL's is compared with it at each new connection.
    """
    return datetime.now(UTC) + _offset


def is_sqlite(url: str) -> bool:
    return url.startswith("sqlite")


def _engine(url: str) -> sa.Engine:
    if not is_sqlite(url):
        for prefix in ("postgresql://", "postgres://"):
            if url.startswith(prefix):
                url = "postgresql+psycopg://" + url.removeprefix(prefix)
        engine = sa.create_engine(url, pool_pre_ping=True, pool_recycle=RECYCLE_SECONDS)
        sa.event.listen(engine, "connect", _compare_clocks)
        return engine
    path = sa.make_url(url).database
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_immediate)
    return engine


def _compare_clocks(connection: Any, _: Any) -> None:
    global _offset
    with connection.cursor() as cursor:
        begun = datetime.now(UTC)
        (theirs,) = cursor.execute("SELECT clock_timestamp()").fetchone()
        took = datetime.now(UTC) - begun
    difference = theirs - begun - took / 2
    _offset = difference if abs(difference) > took else timedelta()
    connection.rollback()


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not by the driver
    for pragma in (
        f"busy_timeout={1000 * BUSY_SECONDS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: sa.Connection) -> None:
    # A transaction that begins by reading cannot wait for a writer; one that begins writing can.
    reads_only = connection.get_execution_options().get("reads_only")
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
