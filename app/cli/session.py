"""The session of a command: its client, and its output for people or as JSON for programs."""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from client.answers import DatasetAnswer, ModelAnswer, Visibility
from client.client import Client

Result = TypeVar("Result")
Shared = DatasetAnswer | ModelAnswer
Moved = Callable[[int, int | None], None]  # called with the bytes moved so far, and in total

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any other field of the request, by its name in the API's documentation; a dot leads "
        "into an object (net.dropout=0.2). May be repeated.",
    ),
]

Private = Annotated[bool, typer.Option("--private", help="Take it back.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


@dataclass
class Session:
    """The state of one command.

    Output for people goes to `console`; with `as_json`, one JSON document goes to standard output
    instead.
    """

    url: str | None
    api_key: str | None
    as_json: bool
    console: Console = field(default_factory=Console)
    _client: Client | None = None

    @property
    def client(self) -> Client:
        if self._client is None:
            self._client = Client(self.url, api_key=self.api_key)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def output(self, data: object, show: Callable[[Console], None]) -> None:
        """Print `data` as JSON, or have `show` print it for people."""
        if self.as_json:
            print(json.dumps(_plain(data), indent=2, ensure_ascii=False))
        else:
            show(self.console)

    def output_list(
        self, items: Iterable[Any], columns: Sequence[str], row: Callable[[Any], Sequence[str]]
    ) -> None:
        found = list(items)
        self.output(found, lambda console: console.print(table(columns, map(row, found))))

    def delete(self, what: str, name: str, work: Callable[[str], None], *, sure: bool) -> None:
        """Delete by `work`; ask first unless the caller is `sure`."""
        if not sure:
            typer.confirm(f"Delete {what}?", abort=True)
        work(name)
        self.output({"deleted": name}, lambda console: console.print(f"deleted {name}"))

    def share(
        self,
        name: str,
        work: Callable[[str, Visibility], Shared],
        *,
        private: bool,
    ) -> None:
        """Share by `work`, or take that back."""
        answer = work(name, "private" if private else "shared")
        said = f"{answer.name} is {answer.visibility}"
        self.output(answer, lambda console: console.print(said, markup=False))

    def transferring(self, title: str, work: Callable[[Moved], Result]) -> Result:
        """Do `work`, which reports its progress, and show a progress bar."""
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        with Progress(
            *columns, TransferSpeedColumn(), console=self.console, disable=not self.is_live
        ) as bar:
            task = bar.add_task(title, total=None)
            return work(lambda moved, total: bar.update(task, completed=moved, total=total))

    def busy(self, what: str) -> AbstractContextManager[object]:
        """Show a spinner until there is something to see."""
        return self.console.status(what) if self.is_live else nullcontext()

    @property
    def is_live(self) -> bool:
        """Whether a person watches the terminal."""
        return self.console.is_terminal and not self.as_json


def session_of(context: typer.Context) -> Session:
    session = context.obj
    assert isinstance(session, Session)
    return session


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name.startswith("#") else "left")
        made.columns[-1].header = name.removeprefix("#")
    for row in rows:
        made.add_row(*row)
    return made


def request_of(settings: Sequence[str] | None, **given: Any) -> dict[str, Any]:
    """Merge `given`, without None, and each FIELD=VALUE; a value is JSON or else text."""
    request = {name: value for name, value in given.items() if value is not None}
    for setting in settings or ():
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise typer.BadParameter(f"{setting!r} is not FIELD=VALUE", param_hint="--set")
        *objects, last = path.split(".")
        place = request
        for name in objects:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise typer.BadParameter(f"{name} is not an object", param_hint="--set")
        place[last] = _value(text)
    return request


def size(num_bytes: int) -> str:
    value = float(num_bytes)
    for unit in ("B", "KB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _plain(data: object) -> object:
    if isinstance(data, BaseModel):
        return data.model_dump(mode="json")
    if isinstance(data, list):
        return [_plain(item) for item in data]
    return data
