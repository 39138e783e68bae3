"""What every command has: the client, and two ways to speak, to people and to programs."""

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

from client.client import Client

Result = TypeVar("Result")

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Any other field of the request, as the API's documentation names it; a dot goes into "
        "an object (net.dropout=0.2). May be repeated.",
    ),
]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dataclass
class Front:
    """`console` is for people; with `as_json` one JSON document goes to standard output instead."""

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

    def say(self, data: object, show: Callable[[Console], None]) -> None:
        if self.as_json:
            print(json.dumps(_plain(data), indent=2, ensure_ascii=False))
        else:
            show(self.console)

    def say_list(
        self, items: Iterable[Any], columns: Sequence[str], row: Callable[[Any], Sequence[str]]
    ) -> None:
        found = list(items)
        self.say(found, lambda console: console.print(table(columns, map(row, found))))

    def delete(self, what: str, name: str, work: Callable[[str], None], *, sure: bool) -> None:
        """After a question, where the caller is not sure yet."""
        if not sure:
            typer.confirm(f"Delete {what}?", abort=True)
        work(name)
        self.say({"deleted": name}, lambda console: console.print(f"deleted {name}"))

    def uploading(self, title: str, work: Callable[[Callable[[int, int], None]], Result]) -> Result:
        """Do `work`, which tells how far it is, under a bar."""
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        with Progress(
            *columns, TransferSpeedColumn(), console=self.console, disable=not self.is_live
        ) as bar:
            task = bar.add_task(title, total=None)
            return work(lambda sent, total: bar.update(task, completed=sent, total=total))

    def busy(self, what: str) -> AbstractContextManager[object]:
        """A sign of life while nothing is to be seen."""
        return self.console.status(what) if self.is_live else nullcontext()

    @property
    def is_live(self) -> bool:
        """Whether somebody watches."""
        return self.console.is_terminal and not self.as_json


def front_of(context: typer.Context) -> Front:
    front = context.obj
    assert isinstance(front, Front)
    return front


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name.startswith("#") else "left")
        made.columns[-1].header = name.removeprefix("#")
    for row in rows:
        made.add_row(*row)
    return made


def request_of(settings: Sequence[str] | None, **given: Any) -> dict[str, Any]:
    """What is `given`, and each FIELD=VALUE, whose value is JSON or else text."""
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
                raise typer.BadParameter(f"{name} is no object", param_hint="--set")
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
