"""`diffusion models`: models that were trained or uploaded."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.session import Yes, session_of, size, table
from client.answers import ModelAnswer, ModelFormat

cli = typer.Typer(help="Models that were trained or uploaded.", no_args_is_help=True)

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
    """Show the properties and the origin of a model."""
    session = session_of(context)
    model = session.client.model(name)
    about = {
        "digest": model.digest[:12],
        "file": size(model.num_bytes),
        "from": " ".join(part for part in (model.dataset, model.job_id) if part) or "an upload",
        **{key: value for key, value in model.details.items() if key != "scores"},
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
) -> None:
    """Upload a model."""
    session = session_of(context)
    model = session.uploading(
        f"uploading {source.name}", lambda sent: session.client.push_model(name, source, sent=sent)
    )
    session.output(model, lambda console: console.print(f"{model.name}: {_size(model)}"))


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
    return f"{height} x {width}"
