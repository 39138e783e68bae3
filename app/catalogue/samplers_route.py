"""GET /samplers: what there is to choose from for POST /sample."""

from functools import cache

from fastapi import APIRouter

from app.catalogue.samplers_schema import SamplerList, SamplerSummary, SpacingSummary
from app.noise.picture import noise_schedule
from models.diffusion.schedule import SCHEDULE_NAMES, ScheduleConfig
from models.sampling.plan import INVERTIBLE
from models.sampling.samplers import (
    ABOUT_SPACINGS,
    SAMPLER_NAMES,
    SAMPLERS,
    SPACINGS,
    SamplerName,
    sampler_table,
    spacings_of,
    timestep_grid,
)

router = APIRouter(prefix="/samplers", tags=["sample"])


@router.get("", summary="List the samplers and spacings, and what each is for")
async def list_samplers() -> SamplerList:
    return _listed()


@cache
def _listed() -> SamplerList:
    return SamplerList(
        samplers=[_summary(name) for name in SAMPLER_NAMES],
        spacings=[
            SpacingSummary(
                name=name,
                description=ABOUT_SPACINGS[name],
                schedules=[s for s in SCHEDULE_NAMES if name in spacings_of(s)],
                default_of=[s for s in SCHEDULE_NAMES if spacings_of(s)[0] == name],
            )
            for name in SPACINGS
        ],
    )


def _summary(name: SamplerName) -> SamplerSummary:
    """What can be read off a table is."""
    grid = timestep_grid(noise_schedule(ScheduleConfig("linear")), 50)
    table = sampler_table(name, grid)
    sampler = SAMPLERS[name]
    return SamplerSummary(
        name=name,
        description=sampler.about,
        good_for=sampler.good_for,
        evaluations_per_step=sampler.evaluations,
        is_stochastic=bool(table.k_s.any()),
        takes_eta=name == "ddim",
        takes_invert=name in INVERTIBLE,
    )
