"""`diffusion trash`: what was deleted, and how it comes back."""

from typing import Annotated

import typer

from app.cli.session import Session, Yes, session_of, size
from client.answers import TrashAnswer

cli = typer.Typer(help="What was deleted, for a week.", no_args_is_help=True)

COLUMNS = ("id", "from", "name", "#size", "deleted")

Ident = Annotated[str, typer.Argument(metavar="ID", help="As `trash ls` shows it.")]


@cli.command("ls")
def list_(context: typer.Context) -> None:
    """List what was deleted, the last first."""
    session = session_of(context)
    session.output_list(session.client.trash(), COLUMNS, _row)


@cli.command()
def restore(context: typer.Context, entry_id: Ident) -> None:
    """Bring back what was deleted, under its name."""
    session = session_of(context)
    (found,) = _entries(session, entry_id)
    entry = session.client.restore(found.collection, found.id)
    said = f"{entry.collection}/{entry.name} is back"
    session.output(entry, lambda console: console.print(said, markup=False))


@cli.command()
def empty(
    context: typer.Context,
    entry_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Of one; all by default.")
    ] = None,
    yes: Yes = False,
) -> None:
    """Remove for good, which frees the space."""
    session = session_of(context)
    found = _entries(session, entry_id)
    if not yes:
        typer.confirm(f"Remove {entry_id or f'all {len(found)}'} for good?", abort=True)
    for each in found:
        session.client.remove(each.collection, each.id)
    removed = {"removed": [each.id for each in found]}
    session.output(removed, lambda console: console.print(f"removed {len(found)}"))


def _entries(session: Session, entry_id: str | None) -> list[TrashAnswer]:
    """Return one entry, or all."""
    found = [each for each in session.client.trash() if entry_id in (None, each.id)]
    if entry_id is not None and not found:
        raise typer.BadParameter(f"there is no {entry_id!r} in the trash")
    return found


def _row(entry: TrashAnswer) -> tuple[str, ...]:
    deleted = f"{entry.deleted_at:%Y-%m-%d %H:%M}"
    return (entry.id, entry.collection, entry.name, size(entry.num_bytes), deleted)
