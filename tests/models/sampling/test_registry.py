"""Every sampler and every spacing is one whole row of its table."""

import pytest

from models.diffusion.schedule import NoiseSchedule, ScheduleConfig
from models.sampling.samplers import (
    ABOUT_SPACINGS,
    SAMPLER_NAMES,
    SAMPLERS,
    SPACINGS,
    SamplerName,
    sampler_table,
    timestep_grid,
)


def test_every_name_has_a_row() -> None:
    assert tuple(SAMPLERS) == SAMPLER_NAMES
    assert tuple(ABOUT_SPACINGS) == SPACINGS


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_a_sampler_makes_as_many_rows_as_it_says(name: SamplerName) -> None:
    grid = timestep_grid(NoiseSchedule.from_config(ScheduleConfig("linear")), 20)
    evaluations = SAMPLERS[name].evaluations
    # The step to the clean image needs no second evaluation.
    assert len(sampler_table(name, grid)) == evaluations * (len(grid) - 1) + 1


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_a_sampler_says_what_it_is_and_what_it_is_for(name: SamplerName) -> None:
    assert SAMPLERS[name].about.endswith(".")
    assert SAMPLERS[name].good_for.endswith(".")
