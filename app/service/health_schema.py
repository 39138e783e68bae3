"""The answers of /healthz and /readyz."""

from typing import Literal

from pydantic import BaseModel, Field


class ComponentDown(Exception):
    """A component is down, for a reason that callers may read."""


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Component(BaseModel):
    """The state of one component.

    The service is not ready while a required component is down; it is degraded, but serves, while
    another one is.
    """

    status: Literal["up", "down"]
    required: bool
    detail: str = Field(description="the result of the check")


class Readiness(BaseModel):
    status: Literal["ready", "degraded", "unavailable"]
    components: dict[str, Component]
