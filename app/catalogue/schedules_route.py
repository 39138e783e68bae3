"""GET /schedules: the noise schedules as numbers and as plots."""

from functools import lru_cache
from typing import Annotated, cast

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from app.catalogue.schedules_schema import ScheduleList, ScheduleSummary, ScheduleTables
from app.http import problems
from app.http.accept import choose
from app.http.conditional import conditional
from app.http.errors import InvalidInput
from app.http.file_answers import content_of
from app.http.root_path import link
from app.noise.picture import noise_schedule
from app.services import services_of
from models.arrays import Float64
from models.diffusion.schedule import (
    BETA,
    MAX_TRAIN_TIMESTEPS,
    SCHEDULE_NAMES,
    SCHEDULES,
    SIGMA,
    ScheduleConfig,
    ScheduleName,
)
from models.fields import Invalid

router = APIRouter(prefix="/schedules", tags=["schedules"])

OFFERED = ("application/json", "image/svg+xml", "image/png")

_CACHE = {"Cache-Control": "public, max-age=3600", "Vary": "Accept"}
_NOT_MODIFIED: dict[int | str, dict[str, object]] = {
    304: {"description": "The caller's copy, named in If-None-Match, is current."}
}


@router.get("", summary="List the noise schedules")
async def list_schedules(request: Request) -> ScheduleList:
    return ScheduleList(
        schedules=[
            ScheduleSummary(
                name=name,
                description=SCHEDULES[name].about,
                is_variance_preserving=noise_schedule(ScheduleConfig(name)).is_variance_preserving,
                default_num_train_timesteps=ScheduleConfig(name).num_train_timesteps,
                url=link(f"/schedules/{name}"),
            )
            for name in SCHEDULE_NAMES
        ]
    )


@router.get(
    "/{name}",
    summary="A noise schedule as numbers, or as a plot",
    response_class=Response,
    responses={
        200: {
            "description": "The tables; with `Accept: image/svg+xml` or `image/png` a plot.",
            "model": ScheduleTables,
            "content": content_of(*OFFERED),
        },
        **_NOT_MODIFIED,
        **problems.declare(
            problems.NOT_ACCEPTABLE, problems.INVALID, problems.NOT_FOUND, problems.UNAVAILABLE
        ),
    },
)
async def get_schedule(
    request: Request,
    name: ScheduleName,
    num_train_timesteps: Annotated[
        int, Query(ge=1, le=MAX_TRAIN_TIMESTEPS, description="T, the number of steps")
    ] = 1000,
    rescale_zero_terminal_snr: Annotated[
        bool, Query(description="rescale so that no signal is left at t = T")
    ] = False,
    beta_start: Annotated[float, BETA, Query()] = ScheduleConfig.beta_start,
    beta_end: Annotated[float, BETA, Query()] = ScheduleConfig.beta_end,
    sigma_min: Annotated[float, SIGMA, Query()] = ScheduleConfig.sigma_min,
    sigma_max: Annotated[float, SIGMA, Query()] = ScheduleConfig.sigma_max,
    rho: Annotated[float, Query(ge=0.5, le=100.0)] = ScheduleConfig.rho,
) -> Response:
    """Return a schedule as numbers or as a plot. The query takes each field of `schedule` in a
    model's details, which gives the model's own schedule. `beta_*` belong to the linear ones,
    `sigma_*` and `rho` to `edm`."""
    media_type = choose(request.headers.get("accept"), OFFERED)
    try:
        config = ScheduleConfig(
            name,
            num_train_timesteps,
            beta_start,
            beta_end,
            rescale_zero_terminal_snr,
            sigma_min,
            sigma_max,
            rho,
        )
    except Invalid as error:
        raise InvalidInput.parameter(error.field, str(error), "query") from error
    content = await services_of(request).threads.run(lambda: _represent(config, media_type))
    return conditional(request, content, media_type, _CACHE)


@lru_cache(maxsize=32)  # up to 1 MB each
def _represent(config: ScheduleConfig, media_type: str) -> bytes:
    schedule = noise_schedule(config)
    if media_type == "application/json":
        tables = ScheduleTables(
            name=config.name,
            num_train_timesteps=config.num_train_timesteps,
            rescale_zero_terminal_snr=config.rescale_zero_terminal_snr,
            is_variance_preserving=schedule.is_variance_preserving,
            alphas=_numbers(schedule.alpha),
            sigmas=_numbers(schedule.sigma),
            snr=[None, *_numbers(schedule.snr[1:])],
            alphas_cumprod=_numbers(schedule.alphas_cumprod),
            betas=_numbers(schedule.betas),
        )
        return tables.model_dump_json().encode()
    from app.catalogue.plots import (
        plot_schedule,  # matplotlib takes longer to import than all else together
    )

    return plot_schedule(schedule, "svg" if media_type == "image/svg+xml" else "png")


def _numbers(values: Float64) -> list[float]:
    return cast(list[float], values.tolist())
