"""Rows of tables as JSON, and back."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

Row = tuple[str, dict[str, Any]]  # the name of its table, and its columns


def to_json(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the columns of a row with values that JSON has."""
    return {name: _value_to_json(value) for name, value in row.items()}


def from_json(table: sa.Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a row as the table takes them."""
    read = dict(values)
    for name, value in values.items():
        kind = table.c[name].type
        if isinstance(kind, sa.TypeDecorator):
            kind = kind.impl_instance
        if value is not None and isinstance(kind, sa.DateTime):
            read[name] = datetime.fromisoformat(value)
        elif value is not None and isinstance(kind, sa.LargeBinary):
            read[name] = base64.b64decode(value)
    return read


def _value_to_json(value: Any) -> Any:
    if isinstance(value, datetime):  # SQLite keeps no time zone; all are UTC
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
