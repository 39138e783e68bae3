"""`diffusion noise`, `sample` and `again`: write image files, and show them in the terminal."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.pictures import show_pictures
from app.cli.session import Settings, request_of, session_of
from client.client import Samples
from models.images.formats import BY_MEDIA_TYPE, BY_SUFFIX

DEFAULT_TIMESTEPS = (0, 50, 100, 200, 300, 500, 700, 1000)


def noise(
    context: typer.Context,
    image: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="An image file.")],
    t: Annotated[
        list[int] | None,
        typer.Option("-t", help="Timestep; 0 is the image itself. May be repeated."),
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="Noise schedule; linear by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same noise.")] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help=f"File to write: {', '.join(BY_SUFFIX)}.")
    ] = Path("noise.png"),
    settings: Settings = None,
) -> None:
    """Add noise to an image: x_t for each t, side by side."""
    session = session_of(context)
    file_format = BY_SUFFIX.get(out.suffix.lower())
    if file_format is None:
        raise typer.BadParameter(
            f"{out} must end in one of {', '.join(BY_SUFFIX)}", param_hint="--out"
        )
    made = session.client.noise(
        image,
        t or DEFAULT_TIMESTEPS,
        accept=file_format.media_type,
        **request_of(settings, schedule=schedule, seed=seed),
    )
    out.write_bytes(made.content)
    session.output(
        {"file": str(out), "used": made.used},
        lambda console: console.print(f"{out}, seed {made.used['seed']}", markup=False),
    )
    if session.is_live:
        show_pictures(session.console, [made.content])


def sample(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A model; see `diffusion models list`.")],
    num_images: Annotated[int, typer.Option("--num-images", "-n")] = 1,
    class_label: Annotated[
        str | None,
        typer.Option("--class", "-c", help="Name of the class; any class by default."),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            "--guidance", "-g", help="Emphasises the class; 1 is off, the model's own if left out."
        ),
    ] = None,
    num_inference_steps: Annotated[int | None, typer.Option("--steps")] = None,
    sampler: Annotated[str | None, typer.Option(help="Sampler; GET /samplers lists them.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same images.")] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the files.", file_okay=False)
    ] = Path("."),
    settings: Settings = None,
) -> None:
    """Make new images, one PNG file each."""
    session = session_of(context)
    request = request_of(
        settings,
        num_images=num_images,
        class_label=class_label,
        guidance_scale=guidance_scale,
        num_inference_steps=num_inference_steps,
        sampler=sampler,
        seed=seed,
    )
    with session.busy("sampling"):
        made = session.client.sample(model, **request)
    paths = _write(made, model, out)
    first, last = paths[0], paths[-1]
    message = f"{first}" if first == last else f"{first} .. {last.name}"
    session.output(
        {"files": [str(path) for path in paths], "used": made.used},
        lambda console: console.print(f"{message}, seed {made.used['seed']}", markup=False),
    )
    if session.is_live:
        show_pictures(session.console, made.images)


def again(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="An image that the service made.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; NAME-again by default.")
    ] = None,
    init_image: Annotated[
        Path | None, typer.Option(exists=True, help="The image that it was made from, if any.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(exists=True, help="Its mask, if any.")] = None,
) -> None:
    """Make an image again from its file, which carries how it was made."""
    session = session_of(context)
    with session.busy("sampling"):
        made = session.client.again(file, init_image=init_image, mask=mask)
    out = out or Path(f"{file.stem}-again{file.suffix}")
    out.write_bytes(made.content)
    how = "the same to the bit" if made.exact else f"perhaps not the same: {made.warning}"
    session.output(
        {"file": str(out), "exact": made.exact, "warning": made.warning},
        lambda console: console.print(f"{out}, {how}", markup=False),
    )
    if session.is_live and made.media_type in BY_MEDIA_TYPE:
        show_pictures(session.console, [made.content])


def _write(made: Samples, model: str, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    digits = len(str(len(made.images) - 1))
    seed = made.used["seed"]
    paths = [folder / f"{model}-{seed}-{i:0{digits}}.png" for i in range(len(made.images))]
    for path, image in zip(paths, made.images, strict=True):
        path.write_bytes(image)
    return paths
