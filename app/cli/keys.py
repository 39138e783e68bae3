"""`diffusion keys`: make, list and revoke keys, in the database of the service on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from app.cli.session import session_of
from host.environment import read_settings
from store.access import keys
from store.access.keys import SCOPES, Scope
from store.access.owners import Quotas
from store.access.quotas import NAMES, set_quotas, usage_of
from store.database import Database, open_database
from store.errors import StoreError
from store.locations import Locations

cli = typer.Typer(help="Who may call the service, and for what.", no_args_is_help=True)

USED = ("bytes", "jobs", "train_minutes", "images")
COLUMNS = ("id", "owner", "scopes", "made", "last used", "revoked")


@cli.command()
def create(
    context: typer.Context,
    owner: Annotated[str, typer.Argument(help="Whose key it is; they own what they make with it.")],
    scopes: Annotated[
        str, typer.Option(help=f"What it is for, separated by commas: {', '.join(SCOPES)}.")
    ] = "read,sample",
) -> None:
    """Make a key and print it, once. From the first one on, every request needs a key."""
    wanted = _scopes(scopes)
    with _database() as database:
        record, text = keys.create_key(database, owner, wanted)
    session = session_of(context)
    made = {"id": record.id, "owner": record.owner, "scopes": record.scopes, "key": text}
    session.output(made, lambda console: console.print(text, highlight=False, soft_wrap=True))


@cli.command("ls")
def list_keys(context: typer.Context) -> None:
    """List the keys, newest first."""
    with _database() as database:
        found = keys.list_keys(database)
    session_of(context).output_list([_described(key) for key in found], COLUMNS, _row)


@cli.command()
def revoke(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(help="The id of a key, or an owner for all of theirs.")],
) -> None:
    """Have keys refused, within a second; what was made with them stays."""
    with _database() as database:
        found = [key.id for key in keys.list_keys(database) if key_id in (key.id, key.owner)]
        revoked = [keys.revoke_key(database, each).id for each in found or [key_id]]
    session_of(context).output(
        {"revoked": revoked}, lambda console: console.print(f"revoked {', '.join(revoked)}")
    )


@cli.command()
def limit(
    context: typer.Context,
    owner: Annotated[str, typer.Argument(help="Whose quotas these are.")],
    quotas: Annotated[
        list[str],
        typer.Argument(metavar="NAME=NUMBER...", help=f"Of {', '.join(NAMES)}; 0 is no limit."),
    ],
) -> None:
    """Give an owner quotas of its own, in place of those of the environment."""
    values = dict(map(_quota, quotas))
    with _database() as database:
        found = set_quotas(database, owner, values)
    session_of(context).output(
        {"owner": owner, "quotas": found},
        lambda console: console.print(*(f"{name}={value}" for name, value in found.items())),
    )


@cli.command()
def usage(context: typer.Context) -> None:
    """List what each owner of a key uses, of which quota."""
    quotas = read_settings(Quotas)
    with _database() as database:
        owners = sorted({key.owner for key in keys.list_keys(database)})
        found = [
            {"owner": owner, **usage_of(database.for_owner(owner, quotas))} for owner in owners
        ]
    session_of(context).output_list(found, ("owner", *(f"#{name}" for name in USED)), _use)


@contextmanager
def _database() -> Iterator[Database]:
    database = open_database(read_settings(Locations).database_url)
    try:
        yield database
    except StoreError as error:
        raise typer.BadParameter(str(error)) from None
    finally:
        database.close()


def _scopes(text: str) -> list[Scope]:
    found = [scope for scope in SCOPES if scope in text.split(",")]
    if unknown := set(text.split(",")).difference(found):
        raise typer.BadParameter(
            f"{', '.join(sorted(unknown))!r} is none of {', '.join(SCOPES)}", param_hint="--scopes"
        )
    return found


def _quota(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if name not in NAMES or not value.isdecimal():
        raise typer.BadParameter(
            f"{text!r} is not NAME=NUMBER with a name of {', '.join(NAMES)} and a whole number"
        )
    return name, int(value)


def _use(owners: dict[str, Any]) -> list[str]:
    texts = [f"{owners[name]['used']:,.0f} of {owners[name]['quota']:,}" for name in USED]
    return [owners["owner"], *(text.removesuffix(" of 0") for text in texts)]


def _described(key: keys.Key) -> dict[str, object]:
    times = {
        name: at and at.isoformat(" ", "minutes")
        for name, at in (
            ("created_at", key.created_at),
            ("last_used_at", key.last_used_at),
            ("revoked_at", key.revoked_at),
        )
    }
    return {"id": key.id, "owner": key.owner, "scopes": key.scopes, **times}


def _row(key: dict[str, object]) -> list[str]:
    scopes = key["scopes"]
    assert isinstance(scopes, list)
    minutes = len("2026-01-01 00:00")
    times = [
        str(key[name] or "")[:minutes] for name in ("created_at", "last_used_at", "revoked_at")
    ]
    return [str(key["id"]), str(key["owner"]), ",".join(scopes), *times]
