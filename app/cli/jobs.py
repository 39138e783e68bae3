"""`diffusion train` and `diffusion jobs`: starts, watches and controls training jobs."""

import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from app.cli.session import Session, Settings, duration, request_of, session_of
from client.answers import JobAnswer, QueuedJob
from client.client import Client, JobEnded

cli = typer.Typer(help="Training jobs, past and present.", no_args_is_help=True)

JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="Id of a job; see `diffusion jobs list`.")
]


def train(
    context: typer.Context,
    dataset: Annotated[
        str | None,
        typer.Argument(help="Dataset to train on; not needed with --resume-from and --distill."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Minutes of training; 10 by default.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps, instead of minutes.")] = None,
    model_name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the model; chosen by default."),
    ] = None,
    resume_from: Annotated[
        str | None,
        typer.Option(metavar="JOB", help="Continue from the last checkpoint of this job."),
    ] = None,
    fine_tune: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Start from the weights of this model.")
    ] = None,
    distill: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Distil this model to sample in 1 to 4 steps."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Do not wait for the job.")
    ] = False,
    settings: Settings = None,
) -> None:
    """Train a model and watch. Ctrl-C asks whether to keep the job running or to cancel it."""
    session = session_of(context)
    request = request_of(
        settings,
        minutes=minutes,
        steps=steps,
        model_name=model_name,
        resume_from={"job": resume_from} if resume_from else None,
        fine_tune=fine_tune,
        distill=distill,
    )
    job = session.client.train(dataset, **request)
    if not session.as_json:
        session.console.print(f"{job.id} trains {job.model_name}", markup=False)
    if detach:
        if session.as_json:
            session.output(job, lambda console: None)
        return
    _watch(session, job, may_cancel=True)


@cli.command("list")
def list_(
    context: typer.Context,
    status: Annotated[
        str | None, typer.Option(help="queued, running, paused, succeeded, failed, cancelled")
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Only jobs with this tag.")] = None,
) -> None:
    """List the jobs, newest first."""
    session = session_of(context)
    columns = ("job", "status", "#done", "model", "dataset", "#loss", "#left", "started", "tags")
    session.output_list(session.client.jobs(status, tag), columns, _row)


@cli.command()
def note(
    context: typer.Context,
    job_id: JobId,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", help="Repeat it for several; they replace the tags of the job."),
    ] = None,
    untag: Annotated[bool, typer.Option(help="Remove all tags.")] = False,
    notes: Annotated[str | None, typer.Option(help="Replace the notes of the job.")] = None,
) -> None:
    """Give a job tags and notes."""
    session = session_of(context)
    given = [] if untag else tags or None
    job = session.client.annotate(job_id, tags=given, notes=notes)
    message = f"{job.id}: {', '.join(job.tags) or 'no tags'}"
    session.output(job, lambda console: console.print(message, markup=False))


@cli.command()
def queue(context: typer.Context) -> None:
    """Show what runs and what waits, with places and times."""
    session = session_of(context)
    columns = ("job", "#place", "name", "kind", "#done", "#begins in", "#takes")
    session.output_list(session.client.queue().items, columns, _queue_row)


@cli.command()
def watch(context: typer.Context, job_id: JobId) -> None:
    """Follow a job to its end. Ctrl-C leaves it running."""
    session = session_of(context)
    _watch(session, session.client.job(job_id), may_cancel=False)


@cli.command()
def pause(context: typer.Context, job_id: JobId) -> None:
    """Pause a job after its next step, with a checkpoint."""
    _request_action(context, job_id, Client.pause)


@cli.command()
def resume(context: typer.Context, job_id: JobId) -> None:
    """Resume a paused job."""
    _request_action(context, job_id, Client.resume)


@cli.command()
def cancel(context: typer.Context, job_id: JobId) -> None:
    """Cancel a job for good."""
    _request_action(context, job_id, Client.cancel)


@cli.command()
def log(context: typer.Context, job_id: JobId) -> None:
    """Print the log of a job's processes."""
    session = session_of(context)
    lines = [json.loads(line) for line in session.client.log(job_id).splitlines()]

    def show(console: Console) -> None:
        for line in lines:
            rest = " ".join(
                f"{name}={value}" for name, value in line.items() if name not in _LEADING_KEYS
            )
            leading = (str(line.get(name, "")) for name in _LEADING_KEYS)
            console.print(" ".join([*leading, rest]), markup=False, highlight=False)

    session.output(lines, show)


_LEADING_KEYS = ("timestamp", "level", "event")


def _request_action(
    context: typer.Context, job_id: str, action: Callable[[Client, str], JobAnswer]
) -> None:
    session = session_of(context)
    job = action(session.client, job_id)
    pending = "cancelling" if job.cancel_requested else "pausing" if job.pause_requested else ""
    message = f"{job.id}: {pending if pending and not job.done else job.status}"
    session.output(job, lambda console: console.print(message, markup=False))


# Watching -----------------------------------------------------------------------------------------


def _watch(session: Session, job: JobAnswer, *, may_cancel: bool) -> None:
    """Watch a job until it is done or paused. Raises JobEnded if it failed or was cancelled."""
    columns = (
        TextColumn("{task.fields[status]}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[message]}"),
    )
    with Progress(*columns, console=session.console, disable=not session.is_live) as bar:
        task = bar.add_task("", total=1.0, status=job.status, message="")
        job = _follow(session, job, may_cancel, bar, task)
    if job.status in ("failed", "cancelled"):
        if session.as_json:
            session.output(job, lambda console: None)
        raise JobEnded(f"{job.id} {job.status}" + (f": {job.error.message}" if job.error else ""))
    session.output(job, lambda console: console.print(_outcome(job), markup=False))


def _follow(
    session: Session, job: JobAnswer, may_cancel: bool, bar: Progress, task: TaskID
) -> JobAnswer:
    while True:
        try:
            for job in session.client.watch(job.id):  # noqa: B020  the latest state of the same job
                bar.update(task, **_bar_fields(job))
                if job.status == "paused":
                    break
            return job
        except KeyboardInterrupt:
            bar.stop()
            if not (may_cancel and _wants_to_cancel(job)):
                raise
            job = session.client.cancel(job.id)
            bar.start()


def _wants_to_cancel(job: JobAnswer) -> bool:
    """Ask once whether to cancel; without a terminal the job keeps running."""
    if job.cancel_requested or not sys.stdin.isatty():
        return False
    answer = typer.prompt(
        f"\nLeave {job.id} running, or cancel it? [l/c]", default="l", show_default=False
    )
    return str(answer).strip().lower().startswith("c")


def _bar_fields(job: JobAnswer) -> dict[str, Any]:
    now = job.progress
    if not now:
        return {"status": job.status, "message": job.waiting or ""}
    parts = [f"step {now['step']}", f"loss {now['loss']:.3f}"]
    if job.status == "running":
        parts.append(f"{now['images_per_second']:.0f} images/s")
        if now["eta_seconds"] is not None:
            parts.append(f"{duration(now['eta_seconds'])} left")
    return {"status": job.status, "completed": now["progress"], "message": "  ".join(parts)}


def _outcome(job: JobAnswer) -> str:
    if job.status == "paused":
        return f"paused; `diffusion jobs resume {job.id}` resumes it"
    return f"{job.model_name} is made; `diffusion sample {job.model_name}` makes images"


def _queue_row(job: QueuedJob) -> tuple[str, ...]:
    return (
        job.id,
        "runs" if job.position is None else f"{job.position}",
        job.name,
        job.collection,
        f"{job.progress:.0%}",
        "" if job.starts_in_seconds is None else duration(job.starts_in_seconds),
        "" if job.seconds_left is None else duration(job.seconds_left),
    )


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
        ", ".join(job.tags),
    )
