"""`diffusion audit`: who made, changed, deleted or downloaded what, and who asked for an image."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from app.cli.session import session_of
from client.answers import AuditAnswer

COLUMNS = ("when", "who", "what", "made", "from", "request")


def audit(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(exists=True, dir_okay=False, help="An image: who asked for it."),
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Only what was done with their keys.")] = None,
    limit: Annotated[int, typer.Option("-n", min=1, help="How many entries.")] = 50,
) -> None:
    """List what was done, newest first, or who asked for an image. Needs an administrator's key."""
    session = session_of(context)
    if file is None:
        found = session.client.audit(owner)
    else:
        asked = session.client.who_asked_for(file)
        found = (entry for entry in asked if owner in (None, entry.owner))
    session.output_list(islice(found, limit), COLUMNS, _row)


def _row(entry: AuditAnswer) -> tuple[str, ...]:
    return (
        f"{entry.at:%Y-%m-%d %H:%M:%S}",
        entry.owner or "",
        f"{entry.action.partition(' ')[0]} {entry.path}",
        entry.made or "",
        entry.address or "",
        entry.request_id,
    )
