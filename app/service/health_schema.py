"""What /healthz and /readyz give."""

from typing import Literal

from pydantic import BaseModel, Field


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Component(BaseModel):
    """`down` and required: not ready. `down` and not required: degraded, and serving."""

    status: Literal["up", "down"]
    required: bool
    detail: str = Field(description="what was asked and what came back")


class Readiness(BaseModel):
    status: Literal["ready", "degraded", "unavailable"]
    components: dict[str, Component]
