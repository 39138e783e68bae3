"""GET /samplers: the samplers and spacings that POST /sample can be asked for."""

from functools import cache

from fastapi import APIRouter

from app.catalogue.samplers_schema import SamplerList, SamplerSummary, SpacingSummary
from models.diffusion.schedule import SCHEDULE_NAMES
from models.sampling.grid import SPACINGS, spacings_of
from models.sampling.request import DEFAULT_CONSISTENCY_STEPS, DEFAULT_STEPS
from models.sampling.samplers import (
    DEFAULT_SAMPLER,
    DISTILLED_SAMPLER,
    SAMPLERS,
    about_spacing,
)

router = APIRouter(prefix="/samplers", tags=["sample"])


@router.get("", summary="List the samplers and spacings, and what each is for")
async def list_samplers() -> SamplerList:
    return _list()


@cache
def _list() -> SamplerList:
    return SamplerList(
        samplers=[
            SamplerSummary(
                name=name,
                description=sampler.about,
                good_for=sampler.good_for,
                evaluations_per_step=sampler.evaluations,
                is_stochastic=sampler.is_stochastic,
                takes_eta=sampler.takes_eta,
                takes_invert=sampler.invertible,
                for_distilled=sampler.for_distilled,
                is_default=name in (DEFAULT_SAMPLER, DISTILLED_SAMPLER),
                num_inference_steps=(
                    DEFAULT_CONSISTENCY_STEPS if sampler.for_distilled else DEFAULT_STEPS
                ),
            )
            for name, sampler in SAMPLERS.items()
        ],
        spacings=[
            SpacingSummary(
                name=name,
                description=about_spacing(name),
                schedules=[s for s in SCHEDULE_NAMES if name in spacings_of(s)],
                default_of=[s for s in SCHEDULE_NAMES if spacings_of(s)[0] == name],
            )
            for name in SPACINGS
        ],
    )
