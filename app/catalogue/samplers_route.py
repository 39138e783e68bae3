"""GET /samplers: what there is to choose from for POST /sample."""

from functools import cache

from fastapi import APIRouter

from app.catalogue.samplers_schema import SamplerList, SamplerSummary, SpacingSummary
from app.noise.picture import noise_schedule
from models.diffusion.schedule import SCHEDULE_NAMES, ScheduleConfig
from models.sampling.plan import INVERTIBLE
from models.sampling.samplers import (
    SAMPLER_NAMES,
    SPACINGS,
    SamplerName,
    Spacing,
    sampler_table,
    spacings_of,
    timestep_grid,
)

router = APIRouter(prefix="/samplers", tags=["sample"])

_SAMPLERS: dict[SamplerName, tuple[str, str]] = {
    "ddpm": (
        "Ancestral sampling with the posterior's variance (Ho et al. 2020, eq. 7).",
        "What the model was derived for, with as many steps as it was trained with; fresh noise at "
        "every step mends earlier errors, and needs hundreds of steps to be worth it.",
    ),
    "ddim": (
        "Implicit sampling; eta is the share of fresh noise (Song et al. 2021, eq. 12).",
        "Images that are a smooth function of their noise: interpolation (seed_to), inversion of "
        "a given image, img2img. 20 to 50 steps.",
    ),
    "euler": (
        "Euler's method on the probability-flow ODE; the same rows as ddim with eta 0.",
        "The plain reference for the ODE samplers.",
    ),
    "euler_ancestral": (
        "An Euler step further down than asked, then fresh noise; the same rows as ddim with "
        "eta 1.",
        "Variety at 20 to 50 steps; images change with the number of steps.",
    ),
    "heun": (
        "Two evaluations of the network a step, second order (Karras et al. 2022, algorithm 1).",
        "Precision where time does not matter; the default of the EDM paper.",
    ),
    "dpmpp_2m": (
        "DPM-Solver++(2M): second order from the last two estimates (Lu et al. 2022).",
        "The default: good images in 10 to 25 steps, one evaluation each.",
    ),
    "dpmpp_2m_sde": (
        "DPM-Solver++(2M) on the reverse SDE, with fresh noise (Lu et al. 2022).",
        "The detail of stochastic sampling in 20 to 50 steps.",
    ),
    "dpmpp_3m": (
        "DPM-Solver++(3M): a parabola through the last three estimates.",
        "Closest to the ODE's solution at 15 to 50 steps.",
    ),
    "deis": (
        "Exponential integrator of third order for x0_hat (after Zhang & Chen 2023).",
        "Few steps, 8 to 20, on smooth schedules.",
    ),
    "unipc": (
        "Predictor and corrector of order 2 in one evaluation (Zhao et al. 2023).",
        "Very few steps, 5 to 15.",
    ),
    "consistency": (
        "From each level straight to the clean image, and back up with fresh noise (Song et al. "
        "2023, algorithm 1).",
        "Models made by a job of kind `distill`, and only those: 1, 2 or 4 steps.",
    ),
}

_SPACINGS: dict[Spacing, str] = {
    "trailing": "even strides that begin at T; the safe choice where no signal is left there",
    "leading": "even strides that end at t = 1 and do not begin at T, as early code has them",
    "linspace": "evenly from T to 1, both included",
    "karras": "even in (sigma / alpha)^(1/7), most of them at low noise (Karras et al. 2022)",
    "logsnr": "even in ln(alpha / sigma), most of them at low noise (Lu et al. 2022)",
    "coarse": "as karras, without the last level; the default of sampler consistency",
}


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
                description=_SPACINGS[name],
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
    description, good_for = _SAMPLERS[name]
    return SamplerSummary(
        name=name,
        description=description,
        good_for=good_for,
        evaluations_per_step=round(len(table) / len(grid)),
        is_stochastic=bool(table.k_s.any()),
        takes_eta=name == "ddim",
        takes_invert=name in INVERTIBLE,
    )
