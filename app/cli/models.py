"""`diffusion models`: what was trained or uploaded."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.front import Yes, front_of, size, table
from client.answers import ModelAnswer

cli = typer.Typer(help="What was trained or uploaded.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Of the model.")]


@cli.command("list")
def list_(context: typer.Context) -> None:
    """The models, newest first."""
    front = front_of(context)
    columns = ("name", "size", "#classes", "#parameters", "data set", "made")
    front.say_list(
        front.client.models(),
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
    """What a model can do and where it comes from."""
    front = front_of(context)
    model = front.client.model(name)
    about = {
        "digest": model.digest[:12],
        "file": size(model.num_bytes),
        "from": " ".join(part for part in (model.dataset, model.job_id) if part) or "an upload",
        **{key: value for key, value in model.details.items() if key != "scores"},
    }
    rows = [(key, f"{value}") for key, value in about.items()]
    front.say(model, lambda console: console.print(table((name, ""), rows)))


@cli.command()
def pull(
    context: typer.Context,
    name: Name,
    target: Annotated[
        Path | None, typer.Argument(help="The file to write; NAME.zip where left out.")
    ] = None,
) -> None:
    """Download a model as a zip of a folder that diffusers can load."""
    front = front_of(context)
    path = front.client.pull_model(name, target or Path(f"{name}.zip"))
    said = f"{path}, {size(path.stat().st_size)}"
    front.say({"file": str(path)}, lambda console: console.print(said, markup=False))


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
    front = front_of(context)
    model = front.uploading(
        f"uploading {source.name}", lambda sent: front.client.push_model(name, source, sent=sent)
    )
    front.say(model, lambda console: console.print(f"{model.name}: {_size(model)}"))


@cli.command()
def delete(
    context: typer.Context,
    name: Name,
    yes: Yes = False,
) -> None:
    """Delete a model."""
    front = front_of(context)
    front.delete(f"model {name}", name, front.client.delete_model, sure=yes)


def _size(model: ModelAnswer) -> str:
    height, width = model.details["image_size"]
    return f"{height} x {width}"
