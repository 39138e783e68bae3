"""`diffusion`: the service on the command line.

All requests to the service go through client.client. Exit codes: 0 done, 1 refused or failed,
2 wrong usage, 3 no service answers, 130 interrupted. With --json an error is an object on standard
error: a problem (RFC 9457), that of the service where it refused, else with `title` and `detail`.
"""

import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from app.cli.session import Session, session_of
from client.connection import (
    DEFAULT_URL,
    KEY_VARIABLE,
    URL_VARIABLE,
    ClientError,
    Refused,
    Unreachable,
)
from store.jobs.kinds import KINDS, POOLS

REFUSED, UNREACHABLE, INTERRUPTED = 1, 3, 130
GLOBAL_OPTIONS = {"--url": True, "--api-key": True, "--json": False}  # whether a value follows

COMMANDS = {  # where each is, or the group of them
    "dataset": ("app.cli.datasets", "cli"),
    "jobs": ("app.cli.jobs", "cli"),
    "models": ("app.cli.models", "cli"),
    "keys": ("app.cli.keys", "cli"),
    "trash": ("app.cli.trash", "cli"),
    "audit": ("app.cli.audit", "audit"),
    "train": ("app.cli.jobs", "train"),
    "noise": ("app.cli.images", "noise"),
    "sample": ("app.cli.images", "sample"),
    "again": ("app.cli.images", "again"),
    "doctor": ("app.cli.doctor", "examine"),
}


class Commands(TyperGroup):
    """Commands whose modules are loaded when they are used: all of them take as long again as what
    most commands need."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, name = COMMANDS[cmd_name]
        found = getattr(import_module(module), name)
        if isinstance(found, typer.Typer):
            command: Any = get_group(found)
        else:
            alone = typer.Typer(add_completion=False)
            alone.command()(found)
            command = get_command(alone)
        command.name = cmd_name
        return command


cli = typer.Typer(
    name="diffusion",
    cls=Commands,
    help="Train diffusion models on your own images and make new ones. --url, --api-key and --json "
    "may be given anywhere.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; errors are printed in one line, without a traceback, or as JSON."""
    arguments = _global_options_first(sys.argv[1:])
    if "--json" in arguments:
        sys.exit(_run_for_programs(arguments))
    try:
        cli(arguments, prog_name="diffusion")
    except Unreachable as error:
        _exit(
            f"{error}\nIs it running? `diffusion up` starts one here; --url chooses another.",
            UNREACHABLE,
        )
    except (ClientError, OSError) as error:
        _exit(str(error), REFUSED)
    except KeyboardInterrupt:
        _exit("interrupted", INTERRUPTED)


def _run_for_programs(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; an error is printed as an object of JSON."""
    try:
        code = cli(arguments, prog_name="diffusion", standalone_mode=False)
    except Refused as error:
        problem = {"title": "Refused", "status": error.status, "detail": str(error)}
        code = _failed(REFUSED, **{**problem, **error.problem})
    except Unreachable as error:
        code = _failed(UNREACHABLE, title="Unreachable", detail=str(error))
    except (ClientError, OSError) as error:
        code = _failed(REFUSED, title="Failed", detail=str(error))
    except typer.TyperException as error:
        code = _failed(error.exit_code, title="Wrong usage", detail=error.format_message())
    except typer.Abort:
        code = _failed(REFUSED, title="Aborted", detail="it was not confirmed")
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        _failed(INTERRUPTED, title="Interrupted", detail="interrupted")
    return code if isinstance(code, int) else 0


def _failed(code: int, /, **problem: object) -> int:
    print(json.dumps(problem, ensure_ascii=False), file=sys.stderr)
    return code


@cli.callback()
def options(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(envvar=URL_VARIABLE, help="Address of the service.", show_default=DEFAULT_URL),
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar=KEY_VARIABLE, help="Sent as a bearer token.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result, or the error, as JSON, for programs.")
    ] = False,
) -> None:
    context.obj = session = Session(url, api_key, as_json)
    context.call_on_close(session.close)


# The service itself -------------------------------------------------------------------------------


@cli.command()
def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="8000 by default.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of all data; ./data by default.")
    ] = None,
) -> None:
    """Run the whole service here until Ctrl-C: the API, workers and a broker."""
    _exec_module("app.up", host=host, port=port, data_dir=data_dir)


@cli.command()
def api(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="8000 by default.")] = None,
) -> None:
    """Run the API alone; DIFFUSION_REDIS_URL is the broker that its workers share."""
    _exec_module("app.server", host=host, port=port)


@cli.command()
def worker(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            metavar=" ".join(f"[{name}]" for name in dict.fromkeys((*POOLS, *KINDS))),
            help="Pools or kinds of jobs; all by default.",
        ),
    ] = None,
) -> None:
    """Run a worker; DIFFUSION_REDIS_URL is the broker that it shares with the API."""
    _exec_module("worker.main", *kinds or ())


@cli.command()
def verify() -> None:
    """Read all that the service on this machine stores, and print what is damaged."""
    _exec_module("store.upkeep.verify")


@cli.command()
def backup(
    target: Annotated[
        Path, typer.Argument(help="A folder, which is completed, or a new file: a tar.")
    ],
) -> None:
    """Copy all that the service on this machine stores, while it runs."""
    _exec_module("store.upkeep.backup", str(target))


@cli.command()
def restore(
    source: Annotated[Path, typer.Argument(help="What `diffusion backup` made.")],
    replace: Annotated[bool, typer.Option("--replace", help="Delete what is there.")] = False,
) -> None:
    """Bring back a backup, on this machine or another, while no service runs on its data."""
    _exec_module("store.upkeep.restore", str(source), *["--replace"] * replace)


@cli.command()
def upgrade(
    context: typer.Context,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 if something is wrong.")
    ] = False,
) -> None:
    """Migrate the database to this version; the first process of a new version does so, too."""
    from app.cli.upgrade import run  # doubles the time in which a command starts

    run(session_of(context), check=check)


def _exec_module(module: str, *arguments: str, **settings: object) -> NoReturn:
    for name, value in settings.items():
        if value is not None:
            os.environ[f"DIFFUSION_{name.upper()}"] = str(value)
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


def _global_options_first(arguments: list[str]) -> list[str]:
    """Move the options of all commands to the front, wherever they were given."""
    first, rest = [], []
    left = iter(arguments)
    for argument in left:
        if argument == "--":
            rest += [argument, *left]
        elif argument.partition("=")[0] in GLOBAL_OPTIONS:
            first.append(argument)
            if GLOBAL_OPTIONS[argument.partition("=")[0]] and "=" not in argument:
                first += [value for value in [next(left, None)] if value is not None]
        else:
            rest.append(argument)
    return first + rest


def _exit(message: str, code: int) -> NoReturn:
    print(f"diffusion: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
