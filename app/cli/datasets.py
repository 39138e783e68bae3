"""`diffusion dataset`: images for training."""

from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from app.cli.pictures import show_pictures
from app.cli.session import Moved, Private, Yes, session_of, size, table
from client.answers import DatasetAnswer, DatasetReport, Rejected
from client.client import Client, JobEnded

cli = typer.Typer(help="Images for training.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the dataset.")]
Ids = Annotated[
    list[str], typer.Argument(metavar="ID...", help="Images, as `dataset ls` names them.")
]
ClassName = Annotated[str, typer.Argument(metavar="CLASS", help="Name of a class.")]
Version = Annotated[
    str | None, typer.Option(help="Number or digest of a version; by default the newest.")
]
MAX_FOUND_SHOWN = 20  # images or groups of a finding
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
def show(context: typer.Context, name: Name, version: Version = None) -> None:
    """Show its classes and sizes, rejected files, and some of its images."""
    session = session_of(context)
    dataset = session.client.dataset(name, version)
    session.output(dataset, lambda console: _describe(console, dataset))
    if session.is_live:
        show_pictures(session.console, [session.client.preview(name, version=dataset.digest)])


@cli.command()
def share(context: typer.Context, name: Name, private: Private = False) -> None:
    """Let every key see a dataset and use it; its owner alone can change it."""
    session = session_of(context)
    session.share(name, session.client.share_dataset, private=private)


@cli.command()
def delete(
    context: typer.Context,
    name: Name,
    yes: Yes = False,
) -> None:
    """Delete a dataset; models that were trained on it stay."""
    session = session_of(context)
    session.delete(f"dataset {name}", name, session.client.delete_dataset, sure=yes)


@cli.command()
def ls(
    context: typer.Context,
    name: Name,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Only images of this class.")
    ] = None,
    version: Version = None,
) -> None:
    """List the images of a dataset, with their ids."""
    session = session_of(context)
    columns = ("id", "name", "class", "split", "#size")
    session.output_list(
        session.client.images(name, class_name=class_name, version=version),
        columns,
        lambda i: (
            i.id,
            escape(i.name),
            escape(i.class_name or ""),
            i.split,
            f"{i.width} x {i.height}",
        ),
    )


@cli.command()
def rm(context: typer.Context, name: Name, images: Ids) -> None:
    """Remove images; earlier versions keep them."""
    _change(context, name, remove=images)


@cli.command()
def mv(context: typer.Context, name: Name, class_name: ClassName, images: Ids) -> None:
    """Move images to a class, which may be new."""
    _change(context, name, move={class_name: images})


@cli.command()
def rename_class(
    context: typer.Context,
    name: Name,
    old: Annotated[str, typer.Argument(help="Name of a class.")],
    new: Annotated[str, typer.Argument(help="Its new name; that of another class merges them.")],
) -> None:
    """Rename a class, or merge it with another."""
    _change(context, name, rename={old: new})


@cli.command()
def report(context: typer.Context, name: Name, version: Version = None) -> None:
    """Find duplicates, blurred, tiny and odd images, with the ids that `rm` and `mv` take."""
    session = session_of(context)
    found = session.client.report(name, version)
    session.output(found, lambda console: _findings(console, found))


@cli.command()
def versions(context: typer.Context, name: Name) -> None:
    """List the versions of a dataset, newest first."""
    session = session_of(context)
    session.output_list(
        session.client.versions(name),
        ("#version", "#images", "#classes", "digest", "made", "change"),
        lambda v: (
            f"{v.number}",
            f"{v.num_images}",
            f"{len(v.classes)}",
            v.digest[:12],
            f"{v.created_at:%Y-%m-%d %H:%M}",
            escape(v.change),
        ),
    )


@cli.command()
def sync(
    context: typer.Context,
    name: Name,
    folder: Annotated[
        Path, typer.Argument(exists=True, file_okay=False, help="The images as they should be.")
    ],
    labels: Annotated[
        str, typer.Option(help="Where the folder's classes come from, as for `dataset add`.")
    ] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")
    ] = False,
) -> None:
    """Make a dataset like a folder: send new files, remove missing ones, move those whose class has
    changed. Nothing else is sent."""
    from app.cli.sync import LABELS, plan_sync, write_additions  # numpy and Pillow

    session = session_of(context)
    client, before = session.client, session.client.dataset(name)
    version, refused = before.version, list[Rejected]()
    try:
        plan = plan_sync(folder, client.images(name), labels, before.reading.frames)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not session.as_json:
        for line in plan.lines():
            session.console.print(line, markup=False, highlight=False)
    if plan.add and not dry_run:
        with NamedTemporaryFile(suffix=".zip") as file:
            write_additions(folder, plan.add, file)
            added = session.transferring(
                f"uploading {len(plan.add)} files",
                lambda sent: client.add_images(
                    name, file.name, labels=LABELS, parent=version, sent=sent
                ),
            )
        version = added.version
        refused = added.rejected[: added.num_rejected - before.num_rejected]  # the newest first
    if (plan.remove or plan.move) and not dry_run:
        removed = [image for remote in plan.remove for image in remote.images]
        version = client.change_dataset(
            name, remove=removed, move=plan.moves(), parent=version
        ).version
    done = {
        "added": len(plan.add) - len(refused),
        "removed": len(plan.remove),
        "moved": len(plan.move),
    }
    skipped = [*(path for path, _ in plan.skipped), *(file.name for file in refused)]
    counts = ", ".join(f"{count} {what}" for what, count in done.items())

    def show(console: Console) -> None:
        for file in refused:
            console.print(f"refused {file.name}: {file.reason}", markup=False, highlight=False)
        message = f"{name}: {counts}, {len(skipped)} skipped; version {version}"
        console.print(f"{message} (dry run)" if dry_run else message)

    session.output({**done, "skipped": skipped, "version": version}, show)


def _change(context: typer.Context, name: str, **changes: Any) -> None:
    session = session_of(context)
    dataset = session.client.change_dataset(name, **changes)
    message = f"{name}: version {dataset.version}, {dataset.num_images} images"
    session.output(dataset, lambda console: console.print(message))


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
        f"{size(dataset.num_bytes)}, version {dataset.version}"
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


def _findings(console: Console, report: DatasetReport) -> None:
    if not report.findings:
        console.print("nothing was found")
    for finding in report.findings:
        console.print(f"{finding.kind}: {finding.sentence}", markup=False, highlight=False)
        if finding.groups:  # the first of each is the best to keep
            rows = [(group.images[0], " ".join(group.images[1:])) for group in finding.groups]
            console.print(table(("keep", "the same"), rows[:MAX_FOUND_SHOWN]))
        else:
            rows = [(image.id, escape(image.name)) for image in finding.images]
            console.print(table(("id", "name"), rows[:MAX_FOUND_SHOWN]))


def _size(dataset: DatasetAnswer) -> str:
    first = dataset.sizes[0]
    more = " and others" if len(dataset.sizes) > 1 else ""
    return f"{first.width} x {first.height}{more}"
