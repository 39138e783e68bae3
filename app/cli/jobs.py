"""`diffusion train` and `diffusion jobs`: start trainings and watch them."""

import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from app.cli.front import Front, Settings, duration, front_of, request_of
from client.answers import JobAnswer
from client.client import Client, JobEnded

cli = typer.Typer(help="Trainings, past and present.", no_args_is_help=True)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="`diffusion jobs list` has them.")]


def train(
    context: typer.Context,
    dataset: Annotated[
        str | None,
        typer.Argument(help="Dataset to learn from; not needed with --resume-from and --distill."),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Of training; 10 if left out.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, in place of minutes.")] = None,
    model_name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the model; chosen if left out."),
    ] = None,
    resume_from: Annotated[
        str | None, typer.Option(metavar="JOB", help="Go on from the last checkpoint of this job.")
    ] = None,
    fine_tune: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Begin with the weights of this model.")
    ] = None,
    distill: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Tune this model to sample in 1 to 4 steps."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait.")] = False,
    settings: Settings = None,
) -> None:
    """Train a model and watch. Ctrl-C asks whether to leave the job running or to cancel it."""
    front = front_of(context)
    request = request_of(
        settings,
        minutes=minutes,
        steps=steps,
        model_name=model_name,
        resume_from={"job": resume_from} if resume_from else None,
        fine_tune=fine_tune,
        distill=distill,
    )
    job = front.client.train(dataset, **request)
    if not front.as_json:
        front.console.print(f"{job.id} makes {job.model_name}", markup=False)
    if detach:
        if front.as_json:
            front.say(job, lambda console: None)
        return
    _watch(front, job, may_cancel=True)


@cli.command("list")
def list_(
    context: typer.Context,
    status: Annotated[
        str | None, typer.Option(help="queued, running, paused, succeeded, failed, cancelled")
    ] = None,
) -> None:
    """List the jobs, newest first."""
    front = front_of(context)
    columns = ("job", "status", "#done", "model", "dataset", "#loss", "#left", "begun")
    front.say_list(front.client.jobs(status), columns, _row)


@cli.command()
def watch(context: typer.Context, job_id: JobId) -> None:
    """Follow a job to its end. Ctrl-C leaves it running."""
    front = front_of(context)
    _watch(front, front.client.job(job_id), may_cancel=False)


@cli.command()
def pause(context: typer.Context, job_id: JobId) -> None:
    """Stop after the next step, with a checkpoint."""
    _do(context, job_id, Client.pause)


@cli.command()
def resume(context: typer.Context, job_id: JobId) -> None:
    """Let a paused job go on."""
    _do(context, job_id, Client.resume)


@cli.command()
def cancel(context: typer.Context, job_id: JobId) -> None:
    """End a job for good."""
    _do(context, job_id, Client.cancel)


@cli.command()
def log(context: typer.Context, job_id: JobId) -> None:
    """Show the log of a job."""
    front = front_of(context)
    lines = [json.loads(line) for line in front.client.log(job_id).splitlines()]

    def show(console: Console) -> None:
        for line in lines:
            rest = " ".join(f"{name}={value}" for name, value in line.items() if name not in _FIRST)
            heads = (str(line.get(name, "")) for name in _FIRST)
            console.print(" ".join([*heads, rest]), markup=False, highlight=False)

    front.say(lines, show)


_FIRST = ("timestamp", "level", "event")


def _do(context: typer.Context, job_id: str, what: Callable[[Client, str], JobAnswer]) -> None:
    front = front_of(context)
    job = what(front.client, job_id)
    asked = "cancelling" if job.cancel_requested else "pausing" if job.pause_requested else ""
    said = f"{job.id}: {asked if asked and not job.done else job.status}"
    front.say(job, lambda console: console.print(said, markup=False))


# Watching -----------------------------------------------------------------------------------------


def _watch(front: Front, job: JobAnswer, *, may_cancel: bool) -> None:
    """Follow a job until it is done or paused. Raises JobEnded where it made no model."""
    columns = (
        TextColumn("{task.fields[status]}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=front.console, disable=not front.is_live) as bar:
        task = bar.add_task("", total=1.0, status=job.status, said="")
        job = _followed(front, job, may_cancel, bar, task)
    if job.status in ("failed", "cancelled"):
        if front.as_json:
            front.say(job, lambda console: None)
        raise JobEnded(f"{job.id} {job.status}" + (f": {job.error.message}" if job.error else ""))
    front.say(job, lambda console: console.print(_told(job), markup=False))


def _followed(
    front: Front, job: JobAnswer, may_cancel: bool, bar: Progress, task: TaskID
) -> JobAnswer:
    while True:
        try:
            for job in front.client.watch(job.id):  # noqa: B020  its newest state
                bar.update(task, **_shown(job))
                if job.status == "paused":
                    break
            return job
        except KeyboardInterrupt:
            bar.stop()
            if not (may_cancel and _is_to_cancel(job)):
                raise
            job = front.client.cancel(job.id)
            bar.start()


def _is_to_cancel(job: JobAnswer) -> bool:
    """Ask once whether to cancel; where no terminal can be asked, leave the job alone."""
    if job.cancel_requested or not sys.stdin.isatty():
        return False
    answer = typer.prompt(
        f"\nLeave {job.id} running, or cancel it? [l/c]", default="l", show_default=False
    )
    return str(answer).strip().lower().startswith("c")


def _shown(job: JobAnswer) -> dict[str, Any]:
    now = job.progress
    if not now:
        return {"status": job.status}
    said = [f"step {now['step']}", f"loss {now['loss']:.3f}"]
    if job.status == "running":
        said.append(f"{now['images_per_second']:.0f} images/s")
        if now["eta_seconds"] is not None:
            said.append(f"{duration(now['eta_seconds'])} left")
    return {"status": job.status, "completed": now["progress"], "said": "  ".join(said)}


def _told(job: JobAnswer) -> str:
    if job.status == "paused":
        return f"paused; `diffusion jobs resume {job.id}` lets it go on"
    return f"{job.model_name} is made; `diffusion sample {job.model_name}` tries it"


def _row(job: JobAnswer) -> tuple[str, ...]:
    now = job.progress
    left = now.get("eta_seconds") if job.status == "running" else None
    return (
        job.id,
        job.status,
        f"{now.get('progress', 0.0):.0%}",
        job.model_name,
        job.dataset,
        f"{now['loss']:.3f}" if now else "",
        duration(left) if left is not None else "",
        f"{job.started_at:%Y-%m-%d %H:%M}" if job.started_at else "",
    )
