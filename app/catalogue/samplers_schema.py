"""The answer of GET /samplers."""

from pydantic import BaseModel, Field

from models.diffusion.schedule import ScheduleName
from models.sampling.grid import SpacingName
from models.sampling.samplers import SamplerName


class SamplerSummary(BaseModel):
    name: SamplerName
    description: str
    good_for: str
    evaluations_per_step: int = Field(description="of the network; twice that with guidance")
    is_stochastic: bool = Field(description="fresh noise at every step, at eta 0")
    takes_eta: bool
    takes_invert: bool
    for_distilled: bool = Field(description="distilled models take it and no other; others do not")
    is_default: bool = Field(description="taken where a request names none")
    num_inference_steps: int = Field(description="taken where a request does not say")


class SpacingSummary(BaseModel):
    """Which noise levels the steps visit."""

    name: SpacingName
    description: str
    schedules: list[ScheduleName] = Field(description="of models that it fits")
    default_of: list[ScheduleName]


class SamplerList(BaseModel):
    samplers: list[SamplerSummary]
    spacings: list[SpacingSummary]
