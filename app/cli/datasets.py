"""`diffusion dataset`: images for training."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app.cli.pictures import show_pictures
from app.cli.session import Moved, Yes, session_of, size, table
from client.answers import DatasetAnswer
from client.client import Client, JobEnded

cli = typer.Typer(help="Images for training.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the dataset.")]
MAX_REJECTED_SHOWN = 5  # files
URLS = ("http://", "https://", "s3://")


def _is_url(source: str) -> bool:
    return source.startswith(URLS)


def _checked_source(source: str) -> str:
    if not (_is_url(source) or Path(source).exists()):
        raise typer.BadParameter(f"{source!r} does not exist")
    return source


@cli.command()
def add(
    context: typer.Context,
    name: Name,
    source: Annotated[
        str,
        typer.Argument(
            callback=_checked_source,
            help="A zip, tar or parquet table of images, or a folder; its subfolders are the "
            "classes, unless a label file tells them. Or what the service fetches itself: "
            "https://..., s3://bucket/key or s3://bucket/prefix/.",
        ),
    ],
    labels: Annotated[
        str | None,
        typer.Option(
            help="Where the classes come from: auto, folders, deepest-folder, none, or FILE or "
            "FILE:COLUMN in the archive, as metadata.csv:breed."
        ),
    ] = None,
    frames: Annotated[
        str | None, typer.Option(help="Of animations: refuse, first or all; refuse by default.")
    ] = None,
    value_range: Annotated[
        str | None,
        typer.Option(
            "--range",
            help="Black and white in images of more than 8 bits a value: full, bits or data; "
            "full by default.",
        ),
    ] = None,
) -> None:
    """Upload images, or have the service fetch them. Ctrl-C leaves the service fetching."""
    session = session_of(context)
    client, options = session.client, {"labels": labels, "frames": frames, "range": value_range}
    if _is_url(source):
        job = client.import_dataset(name, source, **options)
        session.transferring(f"{job.id} fetches", lambda moved: _follow(client, job.id, moved))
        dataset = client.dataset(name)
    else:
        dataset = session.transferring(
            f"uploading {Path(source).name}",
            lambda moved: client.add_dataset(name, source, sent=moved, **options),
        )
    session.output(dataset, lambda console: _describe(console, dataset))


@cli.command("list")
def list_(context: typer.Context) -> None:
    """List the datasets, newest first."""
    session = session_of(context)
    columns = ("name", "#images", "#classes", "size", "#bytes", "added")
    session.output_list(
        session.client.datasets(),
        columns,
        lambda d: (
            d.name,
            f"{d.num_images}",
            f"{len(d.classes)}",
            _size(d),
            size(d.num_bytes),
            f"{d.created_at:%Y-%m-%d %H:%M}",
        ),
    )


@cli.command()
def show(context: typer.Context, name: Name) -> None:
    """Show its classes and sizes, rejected files, and some of its images."""
    session = session_of(context)
    dataset = session.client.dataset(name)
    session.output(dataset, lambda console: _describe(console, dataset))
    if session.is_live:
        show_pictures(session.console, [session.client.preview(name)])


@cli.command()
def delete(
    context: typer.Context,
    name: Name,
    yes: Yes = False,
) -> None:
    """Delete a dataset; models that were trained on it stay."""
    session = session_of(context)
    session.delete(f"dataset {name}", name, session.client.delete_dataset, sure=yes)


def _follow(client: Client, job_id: str, moved: Moved) -> None:
    """Wait for a job that fetches a dataset. Raises JobEnded."""
    for job in client.watch_import(job_id):
        moved(job.progress.num_bytes, job.progress.total_bytes)
    if job.status != "succeeded":
        raise JobEnded(f"{job.id} {job.status}" + (f": {job.error.message}" if job.error else ""))


def _describe(console: Console, dataset: DatasetAnswer) -> None:
    channels = "greyscale" if dataset.channels == 1 else "RGB"
    console.print(
        f"{dataset.name}: {dataset.num_images} images, {_size(dataset)}, {channels}, "
        f"{size(dataset.num_bytes)}"
    )
    if dataset.splits:
        console.print("splits: " + ", ".join(f"{s} {n}" for s, n in dataset.splits.items()))
    console.print(f"classes from: {dataset.labels}", markup=False, highlight=False)
    for warning in dataset.warnings:
        console.print(f"warning: {warning}", markup=False)
    if dataset.classes:
        counts = ((label, f"{count}") for label, count in dataset.classes.items())
        console.print(table(("class", "#images"), counts))
    if dataset.num_rejected:
        console.print(f"{dataset.num_rejected} files were rejected:")
        for rejected in dataset.rejected[:MAX_REJECTED_SHOWN]:
            console.print(f"  {rejected.name}: {rejected.reason}", markup=False)
        if dataset.num_rejected > MAX_REJECTED_SHOWN:
            console.print(f"  and {dataset.num_rejected - MAX_REJECTED_SHOWN} more")


def _size(dataset: DatasetAnswer) -> str:
    first = dataset.sizes[0]
    more = " and others" if len(dataset.sizes) > 1 else ""
    return f"{first.height} x {first.width}{more}"
