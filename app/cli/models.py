"""`diffusion models`: models that were trained or uploaded."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app.cli.session import Private, Yes, session_of, size, table
from app.registry import facts
from client.answers import ModelAnswer, ModelFormat

cli = typer.Typer(help="Models that were trained or uploaded.", no_args_is_help=True)

_IN_WORDS = (
    "image_size",
    "scores",
    "num_parameters",
    "flops",
    "base_model",
    "base_digest",
    "steps",
)

Name = Annotated[str, typer.Argument(help="Name of the model.")]


@cli.command("list")
def list_(context: typer.Context) -> None:
    """List the models, newest first."""
    session = session_of(context)
    columns = ("name", "size", "#classes", "#parameters", "dataset", "made")
    session.output_list(
        session.client.models(),
        columns,
        lambda m: (
            m.name,
            _size(m),
            f"{len(m.details.get('class_names') or ())}",
            f"{m.details.get('num_parameters', 0) / 1e6:.1f}M",
            m.dataset or "",
            f"{m.created_at:%Y-%m-%d %H:%M}",
        ),
    )


@cli.command()
def show(context: typer.Context, name: Name) -> None:
    """Show a model's properties, license, origin, size, precisions and scores."""
    session = session_of(context)
    model = session.client.model(name)
    about = {
        "digest": model.digest[:12],
        "images": _size(model),
        "file": size(model.num_bytes),
        "license": model.license or "unknown",
        "origin": facts.origin(model),
        "network": facts.network(model),
        "precisions": facts.precisions(model),
        **({"damaged": model.damage} if model.damage else {}),
        **facts.scores(model),
        **{key: value for key, value in model.details.items() if key not in _IN_WORDS},
    }
    rows = [(key, f"{value}") for key, value in about.items()]
    session.output(model, lambda console: console.print(table((name, ""), rows)))


@cli.command()
def pull(
    context: typer.Context,
    name: Name,
    target: Annotated[
        Path | None,
        typer.Argument(help="File to write; NAME.zip or NAME-onnx.zip by default."),
    ] = None,
    file_format: Annotated[
        ModelFormat,
        typer.Option("--format", help="A folder that diffusers can load, or ONNX."),
    ] = "diffusers",
) -> None:
    """Download a model as a zip: a folder that diffusers can load, or ONNX for other programs."""
    session = session_of(context)
    target = target or Path(f"{name}.zip" if file_format == "diffusers" else f"{name}-onnx.zip")
    path = session.client.pull_model(name, target, file_format=file_format)
    message = f"{path}, {size(path.stat().st_size)}"
    session.output({"file": str(path)}, lambda console: console.print(message, markup=False))


@cli.command()
def push(
    context: typer.Context,
    name: Name,
    source: Annotated[
        Path,
        typer.Argument(exists=True, help="A folder in diffusers' format, or a zip of one."),
    ],
    license_: Annotated[
        str | None,
        typer.Option(
            "--license",
            help="Of the weights: an SPDX id or other text; by default that of its README.md.",
        ),
    ] = None,
    null_class: Annotated[
        int | None,
        typer.Option(help="Class embedding that stands for no class; by default all are classes."),
    ] = None,
) -> None:
    """Upload a model."""
    session = session_of(context)
    model = session.transferring(
        f"uploading {source.name}",
        lambda sent: session.client.push_model(
            name, source, license=license_, null_class=null_class, sent=sent
        ),
    )

    def show(console: Console) -> None:
        console.print(f"{model.name}: {_size(model)}", markup=False)
        for each in model.skipped:
            console.print(f"skipped {each.name}: {each.reason}", markup=False)

    session.output(model, show)


@cli.command("license")
def license_(
    context: typer.Context,
    name: Name,
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="[LICENSE]", help="An SPDX id or other text; without it, it is unknown."
        ),
    ] = None,
) -> None:
    """Say under which license the weights of a model are."""
    session = session_of(context)
    model = session.client.set_license(name, text)
    message = f"{model.name}: {model.license or 'unknown'}"
    session.output(model, lambda console: console.print(message, markup=False))


@cli.command()
def share(context: typer.Context, name: Name, private: Private = False) -> None:
    """Let every key see a model and use it; its owner alone can change it."""
    session = session_of(context)
    session.share(name, session.client.share_model, private=private)


@cli.command()
def delete(
    context: typer.Context,
    name: Name,
    yes: Yes = False,
) -> None:
    """Delete a model."""
    session = session_of(context)
    session.delete(f"model {name}", name, session.client.delete_model, sure=yes)


def _size(model: ModelAnswer) -> str:
    height, width = model.details["image_size"]
    return f"{width} x {height}"
