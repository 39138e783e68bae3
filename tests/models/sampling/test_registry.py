"""Every sampler and every spacing is one entry of its registry, and all that is said of it is read
from there."""

import re
from pathlib import Path

import pytest

import models.sampling.samplers as module
from app.main import create_app
from app.settings import Settings
from models.diffusion.schedule import NoiseSchedule, ScheduleConfig
from models.sampling.grid import SPACINGS, timestep_grid
from models.sampling.samplers import (
    DEFAULT_SAMPLER,
    DISTILLED_SAMPLER,
    INVERTIBLE,
    SAMPLER_NAMES,
    SAMPLERS,
    SamplerName,
    about_spacing,
    default_spacing,
    sampler_table,
)

ROOT = Path(module.__file__).parents[2]


@pytest.fixture(scope="module")
def schemas() -> dict:
    return create_app(Settings()).openapi()["components"]["schemas"]


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


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_a_sampler_adds_fresh_noise_if_it_says_so(name: SamplerName) -> None:
    grid = timestep_grid(NoiseSchedule.from_config(ScheduleConfig("linear")), 50)
    assert SAMPLERS[name].is_stochastic == bool(sampler_table(name, grid).k_s.any())


@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_a_sampler_takes_eta_if_it_says_so(name: SamplerName) -> None:
    grid = timestep_grid(NoiseSchedule.from_config(ScheduleConfig("linear")), 5)
    if SAMPLERS[name].takes_eta:
        assert sampler_table(name, grid, eta=0.5).k_s.any()
    else:
        with pytest.raises(ValueError, match=r"eta is 0\.5; only sampler"):
            sampler_table(name, grid, eta=0.5)


def test_defaults_are_entries() -> None:
    assert DEFAULT_SAMPLER in SAMPLERS
    assert INVERTIBLE
    assert not SAMPLERS[DEFAULT_SAMPLER].for_distilled
    assert SAMPLERS[DISTILLED_SAMPLER].for_distilled
    assert all(default_spacing(name, "edm") in SPACINGS for name in SAMPLERS)


def test_the_api_offers_every_sampler_and_spacing(schemas) -> None:
    for name, entries in (("sampler", SAMPLERS), ("spacing", SPACINGS)):
        field = schemas["SampleBody"]["properties"][name]
        assert field["anyOf"][0]["enum"] == list(entries)
    assert schemas["SamplerSummary"]["properties"]["name"]["enum"] == list(SAMPLERS)
    for name in SPACINGS:
        assert (
            f"`{name}`: {about_spacing(name)}"
            in schemas["SampleBody"]["properties"]["spacing"]["description"]
        )


def test_no_code_but_the_registry_names_a_sampler() -> None:
    """Only whole strings count, not mentions in prose. Two names mean other things as well: an
    objective and a preset of trainings."""
    names = "|".join(set(SAMPLERS) - {"consistency", "ddpm"})
    quoted_name = re.compile(rf"""["'](?:{names})["']""")
    for folder in ("app", "models", "store", "worker"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "samplers.py":
                assert not quoted_name.search(path.read_text()), path
