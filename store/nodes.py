"""The processes of the service that are alive."""

import os
import socket
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from store.database import Database, Record, UtcTime, now
from store.errors import SecondHost
from store.jobs.kinds import Kind

ALIVE_SECONDS = 20.0
FORGET_SECONDS = 3600.0


class Node(Record):
    __tablename__ = "nodes"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    role: Mapped[str]
    device: Mapped[str | None]  # that a worker computes on
    kinds: Mapped[list[Any]]  # of jobs that a worker takes
    started_at: Mapped[datetime] = mapped_column(UtcTime)
    last_seen: Mapped[datetime] = mapped_column(UtcTime)


def node_id(role: str) -> str:
    return f"{role}-{socket.gethostname()}-{os.getpid()}"


def heartbeat(
    database: Database, role: str, device: str | None = None, kinds: Collection[Kind] = ()
) -> None:
    """Record that this process is alive, the device on which it computes, and the kinds of jobs
    that it takes.

    Raises SecondHost where the database is SQLite, which serves one host only, and another host's
    process is alive.
    """
    at, host = now(), socket.gethostname()
    with database.session() as session:
        if database.engine.dialect.name == "sqlite":
            query = sa.select(Node.host).where(_alive(), Node.host != host)
            other = session.scalars(query).first()
            if other:
                raise SecondHost(
                    f"host {other!r} uses this SQLite database; for several hosts set "
                    "DIFFUSION_DATABASE_URL to a PostgreSQL database"
                )
        node = session.get(Node, node_id(role))
        if node is None:
            node = Node(id=node_id(role), host=host, role=role, started_at=at)
            session.add(node)
        node.last_seen, node.device, node.kinds = at, device, list(kinds)
        session.execute(
            sa.delete(Node).where(Node.last_seen < at - timedelta(seconds=FORGET_SECONDS))
        )


def live_nodes(database: Database, role: str) -> list[Node]:
    with database.session() as session:
        return list(session.scalars(sa.select(Node).where(_alive(), Node.role == role)))


def devices(database: Database, kind: Kind) -> set[str]:
    """Return the devices of the live workers that take jobs of this kind."""
    workers = live_nodes(database, "worker")
    return {node.device for node in workers if node.device and kind in node.kinds}


def kinds_taken(database: Database) -> set[Kind]:
    """Return the kinds of jobs that live workers take."""
    return {kind for node in live_nodes(database, "worker") for kind in node.kinds}


def is_alive(session: Session, node: str) -> bool:
    return bool(session.scalar(sa.select(sa.exists().where(_alive(), Node.id == node))))


def live_node(connection: sa.Connection) -> str | None:
    """Return a live process of the service, if there is one, in a database of any revision."""
    if not sa.inspect(connection).has_table(Node.__tablename__):
        return None
    found: str | None = connection.scalar(sa.select(Node.id).where(_alive()))
    return found


def leave(database: Database, role: str) -> None:
    with database.session() as session:
        session.execute(sa.delete(Node).where(Node.id == node_id(role)))


def _alive() -> sa.ColumnElement[bool]:
    return Node.last_seen > now() - timedelta(seconds=ALIVE_SECONDS)
