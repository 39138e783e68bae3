"""Records as lines of JSON: every table of a database in one state of it, and back.

Tables are read and written as they are in the database, not as the newest records describe them:
a dump of any revision of the schema is loaded at that revision, into SQLite or PostgreSQL whichever
it came from, and migrated there.
"""

import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter

import sqlalchemy as sa

from store import models, nodes, pictures, webhooks  # noqa: F401
from store.access import audit, idempotency, keys, quotas  # noqa: F401
from store.database import Database, Record, migrate, revision_of
from store.jobs import checkpoints, events, requests  # noqa: F401
from store.upkeep import trash  # noqa: F401
from store.upkeep.rows import Row, from_json, to_json

AT_ONCE = 500  # rows that are inserted together
LEFT_OUT = ("nodes",)  # which processes are alive


def rows(connection: sa.Connection, only: Collection[str] | None = None) -> Iterator[Row]:
    """Yield all records but those of processes, or those of some tables, with values that JSON
    has."""
    for table in tables(connection):
        if table.name not in LEFT_OUT and (only is None or table.name in only):
            found = connection.execution_options(yield_per=AT_ONCE).execute(sa.select(table))
            for row in found.mappings():
                yield table.name, to_json(row)


def to_line(row: Row) -> str:
    return json.dumps(row, separators=(",", ":")) + "\n"


def from_line(line: str | bytes) -> Row:
    table, values = json.loads(line)
    return table, values


def load(connection: sa.Connection, revision: str, found: Iterable[Row]) -> dict[str, int]:
    """Make the tables of this revision, fill them, and migrate them to the newest; return the
    number of records of each. The database has no tables yet."""
    migrate(connection, revision)
    there = {table.name: table for table in tables(connection)}
    counts: dict[str, int] = {}
    for name, group in groupby(found, itemgetter(0)):
        table = there[name]
        counts[name] = 0
        while batch := [from_json(table, values) for _, values in islice(group, AT_ONCE)]:
            connection.execute(table.insert(), batch)
            counts[name] += len(batch)
        _continue_numbers(connection, table)
    migrate(connection)
    return counts


def migrated(found: Sequence[Row], revision: str) -> list[Row]:
    """Return rows of an earlier revision as they are at the newest, migrated in a database of their
    own."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Database(f"sqlite:///{folder}/records.sqlite3")
        with scratch.engine.begin() as connection:
            load(connection, revision, found)
            newest = list(rows(connection))
        scratch.close()
    return newest


def is_empty(connection: sa.Connection) -> bool:
    """Return whether there is no record but those of processes."""
    return all(
        table.name in LEFT_OUT or connection.execute(sa.select(table).limit(1)).first() is None
        for table in tables(connection)
    )


def clear(connection: sa.Connection) -> None:
    """Remove all records and tables."""
    for table in tables(connection):
        connection.execute(table.delete())
    if revision_of(connection) is not None:
        migrate(connection, "base")


def tables(connection: sa.Connection) -> list[sa.Table]:
    """Return the tables of the service as the database has them."""
    known, found = Record.metadata.tables, sa.MetaData()
    found.reflect(connection, only=lambda name, _: name in known)
    for table in found.tables.values():
        for column in table.columns:
            if isinstance(column.type, sa.JSON):
                column.type.none_as_null = bool(column.nullable)
    return found.sorted_tables


def _continue_numbers(connection: sa.Connection, table: sa.Table) -> None:
    """Let a column that numbers its rows go on after those that were inserted."""
    column = table.autoincrement_column
    if connection.dialect.name == "postgresql" and column is not None and column.server_default:
        sequence = sa.func.pg_get_serial_sequence(table.name, column.name)
        highest = sa.select(sa.func.max(column)).scalar_subquery()
        connection.execute(sa.select(sa.func.setval(sequence, highest)))
