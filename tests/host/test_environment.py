"""Settings come from the environment, or are refused with their bound."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from annotated_types import Gt, Interval
from typing_extensions import Doc

from app.settings import Settings
from host.environment import InvalidSetting, Items, read_settings, table, to_environment, variable
from store.locations import Locations
from worker.settings import WorkerSettings

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Oven:
    degrees: Annotated[int, Interval(ge=30, le=275), Doc("how hot it is")] = 180
    hours: Annotated[float, Gt(0), Doc("how long it stays on")] = 0.5
    heat: Annotated[Literal["top", "bottom", "both"], Doc("where it comes from")] = "both"
    light: Annotated[bool, Doc("whether one sees the cake")] = True
    rack: Annotated[Path | None, Doc("where the cake stands")] = None
    label: Annotated[str, Doc("what is written on the door")] = ""
    cakes: Annotated[tuple[str, ...], Items("[a-z]+", "names of cakes"), Doc("what is in it")] = ()


@dataclass(frozen=True)
class Kitchen:
    oven: Oven = field(default_factory=Oven)
    chairs: Annotated[int, Doc("to sit on")] = 4


def test_what_is_unset_or_empty_has_its_default():
    assert read_settings(Oven, {}) == read_settings(Oven, {"DIFFUSION_DEGREES": ""}) == Oven()


def test_what_is_set_is_read_with_its_type():
    environment = {
        "DIFFUSION_DEGREES": "200",
        "DIFFUSION_HOURS": "1.5",
        "DIFFUSION_HEAT": "top",
        "DIFFUSION_LIGHT": "0",
        "DIFFUSION_RACK": "/middle",
        "DIFFUSION_LABEL": "hot",
        "DIFFUSION_CAKES": "apple, plum",
    }
    assert read_settings(Oven, environment) == Oven(
        200, 1.5, "top", False, Path("/middle"), "hot", ("apple", "plum")
    )


def test_a_part_is_read_from_the_same_environment():
    environment = {"DIFFUSION_DEGREES": "90", "DIFFUSION_CHAIRS": "6"}
    assert read_settings(Kitchen, environment) == Kitchen(Oven(degrees=90), 6)


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("DEGREES", "20", "a whole number, at least 30, at most 275"),
        ("DEGREES", "276", "a whole number, at least 30, at most 275"),
        ("DEGREES", "180.5", "a whole number"),
        ("DEGREES", "warm", "a whole number"),
        ("HOURS", "0", "a number, above 0"),
        ("HOURS", "nan", "a number, above 0"),
        ("HOURS", "inf", "a number, above 0"),
        ("HEAT", "left", "top, bottom or both"),
        ("LIGHT", "yes", "0 or 1"),
        ("CAKES", "apple,,plum", "names of cakes"),
        ("CAKES", "apple,7", "names of cakes"),
    ],
)
def test_what_has_no_meaning_is_refused_with_its_bound(name, text, rule):
    with pytest.raises(InvalidSetting, match=f"DIFFUSION_{name} is '{text}'; it must be {rule}"):
        read_settings(Oven, {f"DIFFUSION_{name}": text})


def test_a_child_process_reads_what_its_parent_has():
    kitchen = Kitchen(Oven(200, 1.5, "top", False, Path("/middle"), "hot", ("plum", "apple")), 6)
    assert read_settings(Kitchen, to_environment(kitchen)) == kitchen
    assert read_settings(Kitchen, to_environment(Kitchen())) == Kitchen()


@pytest.mark.parametrize("kind", [Settings, WorkerSettings, Locations])
def test_so_do_those_of_the_service(kind):
    assert read_settings(kind, to_environment(kind())) == kind()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("WORKER_CONCURRENCY", "1.9"),  # not 1, without a word
        ("WORKER_CONCURRENCY", "inf"),
        ("LEASE_SECONDS", "inf"),  # a lost job would wait for ever
        ("TRAIN_NICENESS", "20"),
    ],
)
def test_a_worker_does_not_start_with_settings_that_mean_something_else(name, text):
    with pytest.raises(InvalidSetting, match=f"DIFFUSION_{name} is '{text}'"):
        read_settings(WorkerSettings, {f"DIFFUSION_{name}": text})


def test_locations_lie_in_the_data_folder_unless_they_are_elsewhere(tmp_path):
    local = Locations(tmp_path)
    assert local.database_url == f"sqlite:///{tmp_path / 'diffusion.sqlite3'}"
    assert local.artifacts_url == str(tmp_path / "artifacts")
    assert local.embeds_valkey
    shared = Locations(tmp_path, redis_url="redis://valkey:6379/0")
    assert not shared.embeds_valkey
    assert shared.redis_url == "redis://valkey:6379/0"


def test_the_documented_table_is_what_the_declarations_say():
    documented = (ROOT / "docs" / "settings.md").read_text()
    assert documented.endswith("\n".join(table(Settings, WorkerSettings)) + "\n")


def test_readme_names_no_setting_that_is_not_there():
    there = {line.split("`")[1] for line in table(Settings, WorkerSettings) if "`" in line}
    named = set(re.findall(r"`(DIFFUSION_[A-Z_]+)`", (ROOT / "README.md").read_text()))
    assert named <= there
    assert variable("port") in named
