"""`diffusion dataset`: images to learn from."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app.cli.front import Yes, front_of, size, table
from app.cli.pictures import show_pictures
from client.answers import DatasetAnswer

cli = typer.Typer(help="Images to learn from.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Of the data set.")]
SHOWN = 5  # rejected files


@cli.command()
def add(
    context: typer.Context,
    name: Name,
    source: Annotated[
        Path,
        typer.Argument(
            exists=True, help="A zip or tar of images, or a folder; its folders are the classes."
        ),
    ],
) -> None:
    """Upload images."""
    front = front_of(context)
    dataset = front.uploading(
        f"uploading {source.name}", lambda sent: front.client.add_dataset(name, source, sent=sent)
    )
    front.say(dataset, lambda console: _describe(console, dataset))


@cli.command("list")
def list_(context: typer.Context) -> None:
    """The data sets, newest first."""
    front = front_of(context)
    columns = ("name", "#images", "#classes", "size", "#bytes", "added")
    front.say_list(
        front.client.datasets(),
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
    """Its classes and sizes, what was rejected, and some of its images."""
    front = front_of(context)
    dataset = front.client.dataset(name)
    front.say(dataset, lambda console: _describe(console, dataset))
    if front.is_live:
        show_pictures(front.console, [front.client.preview(name)])


@cli.command()
def delete(
    context: typer.Context,
    name: Name,
    yes: Yes = False,
) -> None:
    """Delete a data set; models that learned from it stay."""
    front = front_of(context)
    front.delete(f"data set {name}", name, front.client.delete_dataset, sure=yes)


def _describe(console: Console, dataset: DatasetAnswer) -> None:
    channels = "greyscale" if dataset.channels == 1 else "RGB"
    console.print(
        f"{dataset.name}: {dataset.num_images} images, {_size(dataset)}, {channels}, "
        f"{size(dataset.num_bytes)}"
    )
    if dataset.classes:
        counts = ((label, f"{count}") for label, count in dataset.classes.items())
        console.print(table(("class", "#images"), counts))
    if dataset.num_rejected:
        console.print(f"{dataset.num_rejected} files were left out:")
        for rejected in dataset.rejected[:SHOWN]:
            console.print(f"  {rejected.name}: {rejected.reason}", markup=False)
        if dataset.num_rejected > SHOWN:
            console.print(f"  and {dataset.num_rejected - SHOWN} more")


def _size(dataset: DatasetAnswer) -> str:
    first = dataset.sizes[0]
    more = " and others" if len(dataset.sizes) > 1 else ""
    return f"{first.height} x {first.width}{more}"
