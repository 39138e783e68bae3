"""The reader of all settings, from the variables DIFFUSION_* of the environment.

Settings are frozen dataclasses. A field declares its variable once, with its bound and a sentence:

    port: Annotated[int, Interval(ge=0, le=65535), Doc("where the API listens")] = 8000

is DIFFUSION_PORT. A field whose type is a dataclass is read from the same environment. The reader
does without pydantic, whose import would add 200 ms to the start of every worker and every job.
"""

import dataclasses
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from annotated_types import Ge, GroupedMetadata, Gt, Le
from typing_extensions import Doc

PREFIX = "DIFFUSION_"

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Items:
    """The mark of a text, or of a list, written with commas: the regular expression of the text or
    of an item, and the rule in words."""

    pattern: str
    rule: str


class InvalidSetting(ValueError):
    """An invalid variable of the environment; the message names the variable and its bound."""


def read_settings(kind: type[T], environment: Mapping[str, str] = os.environ) -> T:
    """Return the settings of dataclass `kind`; an unset or empty variable gives the default.

    Raises InvalidSetting.
    """
    values: dict[str, Any] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            values[name] = read_settings(hint, environment)
        elif text := environment.get(variable(name)):
            values[name] = _value(variable(name), text, hint)
    return kind(**values)


def to_environment(settings: Any) -> dict[str, str]:
    """Return the variables that give a child process equal settings by `read_settings`."""
    variables: dict[str, str] = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            variables |= to_environment(value)
        else:
            variables[variable(field.name)] = _text(value)
    return variables


def variable(field: str) -> str:
    """Return the variable of a field: DIFFUSION_PORT for port."""
    return PREFIX + field.upper()


def variables(*kinds: type) -> set[str]:
    """Return the variables of all settings of `kinds`."""
    return {name for kind in kinds for name, *_ in _rows(kind)}


def table(*kinds: type) -> Iterator[str]:
    """Yield the lines of a Markdown table of the settings of all `kinds`, each variable once."""
    yield "| variable | default | meaning | must be |"
    yield "|---|---|---|---|"
    seen: set[str] = set()
    for name, default, about, rule in (row for kind in kinds for row in _rows(kind)):
        if name not in seen:
            seen.add(name)
            shown = f"`{default}`" if default else ""
            yield f"| `{name}` | {shown} | {about} | {rule} |"


def _rows(kind: Any) -> Iterator[tuple[str, str, str, str]]:
    """Yield (variable, default, sentence, bound) of each setting."""
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _rows(hint)
            continue
        base, marks = _parts(hint)
        about = next(mark.documentation for mark in marks if isinstance(mark, Doc))
        yield variable(field.name), _text(field.default), about, _rule(base, marks)


def _value(name: str, text: str, hint: Any) -> Any:
    base, marks = _parts(hint)
    rule = f"{name} is {text!r}; it must be {_rule(base, marks)}"
    if base is bool:
        if text not in ("0", "1"):
            raise InvalidSetting(rule)
        return text == "1"
    if base in (int, float):
        try:
            number = base(text)
        except ValueError:
            raise InvalidSetting(rule) from None
        if not (math.isfinite(number) and all(_holds(mark, number) for mark in marks)):
            raise InvalidSetting(rule)
        return number
    if get_origin(base) is Literal and text not in get_args(base):
        raise InvalidSetting(rule)
    is_list = get_origin(base) is tuple
    items = tuple(item.strip() for item in text.split(",")) if is_list else (text,)
    patterns = [mark.pattern for mark in marks if isinstance(mark, Items)]
    if not all(re.fullmatch(pattern, item) for pattern in patterns for item in items):
        raise InvalidSetting(rule)
    if is_list:
        return items
    return Path(text) if base is Path else text


def _parts(hint: Any) -> tuple[Any, list[Any]]:
    """Return the type, without None, and the marks of an annotation.

    An interval is split into its bounds.
    """
    base, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if get_origin(base) in (Union, UnionType):
        base = next(part for part in get_args(base) if part is not type(None))
    flat: list[Any] = []
    for mark in marks:
        flat += mark if isinstance(mark, GroupedMetadata) else [mark]
    return base, flat


def _holds(mark: Any, number: float) -> bool:
    if isinstance(mark, Ge):
        return number >= cast(float, mark.ge)
    if isinstance(mark, Gt):
        return number > cast(float, mark.gt)
    return not isinstance(mark, Le) or number <= cast(float, mark.le)


def _rule(base: Any, marks: list[Any]) -> str:
    """Return the rule for a value, as "a whole number, at least 1"; empty if any value will do."""
    if base is bool:
        return "0 or 1"
    if get_origin(base) is Literal:
        *others, last = get_args(base)
        return f"{', '.join(others)} or {last}"
    if (items := next((mark for mark in marks if isinstance(mark, Items)), None)) is not None:
        return items.rule
    if base not in (int, float):
        return ""
    bounds = ["a whole number" if base is int else "a number"]
    for mark in marks:
        if isinstance(mark, Ge):
            bounds.append(f"at least {mark.ge}")
        elif isinstance(mark, Gt):
            bounds.append(f"above {mark.gt}")
        elif isinstance(mark, Le):
            bounds.append(f"at most {mark.le}")
    return ", ".join(bounds)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(int(value)) if isinstance(value, bool) else str(value)
