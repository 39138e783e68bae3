"""GET /samplers."""

from models.sampling.grid import SPACINGS
from models.sampling.request import DEFAULT_CONSISTENCY_STEPS, DEFAULT_STEPS
from models.sampling.samplers import DEFAULT_SAMPLER, DISTILLED_SAMPLER, SAMPLER_NAMES


def test_every_sampler_and_spacing_is_listed_with_what_it_is_for(client):
    answer = client.get("/samplers").json()
    assert [s["name"] for s in answer["samplers"]] == list(SAMPLER_NAMES)
    assert [s["name"] for s in answer["spacings"]] == list(SPACINGS)
    assert all(s["description"] and s["good_for"] for s in answer["samplers"])


def test_what_is_said_of_a_sampler_is_so(client):
    of = {s["name"]: s for s in client.get("/samplers").json()["samplers"]}
    assert {name for name, s in of.items() if s["is_stochastic"]} == {
        "ddpm",
        "euler_ancestral",
        "dpmpp_2m_sde",
        "consistency",
    }
    assert [name for name, s in of.items() if s["evaluations_per_step"] != 1] == ["heun"]
    assert of["heun"]["evaluations_per_step"] == 2
    assert [name for name, s in of.items() if s["takes_invert"]] == ["ddim", "euler"]


def test_spacings_name_the_schedules_that_they_fit(client):
    of = {s["name"]: s for s in client.get("/samplers").json()["spacings"]}
    assert "edm" not in of["trailing"]["schedules"]
    assert of["karras"]["default_of"] == ["edm"]
    assert "linear" in of["karras"]["schedules"]


def test_there_is_a_default_for_models_of_each_kind(client):
    samplers = client.get("/samplers").json()["samplers"]
    usual = {s["for_distilled"]: s for s in samplers if s["is_default"]}
    assert usual[False]["name"] == DEFAULT_SAMPLER
    assert usual[False]["num_inference_steps"] == DEFAULT_STEPS
    assert usual[True]["name"] == DISTILLED_SAMPLER
    assert usual[True]["num_inference_steps"] == DEFAULT_CONSISTENCY_STEPS
    assert [s["name"] for s in samplers if s["for_distilled"]] == [DISTILLED_SAMPLER]
