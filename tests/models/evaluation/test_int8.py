"""Which scores allow int8."""

import copy

import pytest

from models.evaluation.config import EvaluationConfig
from models.evaluation.int8 import int8_ranges, int8_refusal

RANGES = ((-0.25, 3.5), (-1.0, 2.0))


def score(frechet, precision, **settings):
    config = EvaluationConfig(precision=precision, **settings).to_dict()
    made, real = {"frechet": frechet}, {"frechet": 0.5, "num_reference": 500}
    return {"features": "classifier", "made": made, "real": real, "config": config}


def scores(ratio, **settings):
    settings = {"ranges": RANGES} | settings
    return {"float32": score(2.0, "float32"), "int8": score(2.0 * ratio, "int8", **settings)}


@pytest.mark.parametrize("ratio", [0.9, 1.0, 1.03])
def test_images_as_good_as_in_float32_are_offered(ratio):
    assert int8_refusal(scores(ratio)) is None
    assert int8_refusal(scores(ratio, likelihood_images=0)) is None  # computed in float32


@pytest.mark.parametrize("ratio", [1.031, 2.0, float("nan")])
def test_worse_images_are_not_and_the_ratio_is_said(ratio):
    assert f"in int8 is {ratio:.3f} times that in float32" in int8_refusal(scores(ratio))


def test_a_model_must_have_been_evaluated_in_both():
    both = scores(1.0)
    assert "not been evaluated in float32 and int8" in int8_refusal({})
    assert int8_refusal({"int8": both["int8"]}).endswith("evaluated in float32")
    assert int8_refusal({"float32": both["float32"]}).endswith("evaluated in int8")


@pytest.mark.parametrize(
    "settings", [{"num_images": 50}, {"seed": 1}, {"features": "random"}], ids=str
)
def test_evaluations_with_other_settings_do_not_compare(settings):
    assert int8_refusal(scores(1.0, **settings)).endswith(f"differ in {next(iter(settings))}")


@pytest.mark.parametrize(("name", "value"), [("frechet", 0.6), ("num_reference", 400)])
def test_evaluations_by_other_images_do_not_compare(name, value):
    found = copy.deepcopy(scores(1.0))
    found["int8"]["real"][name] = value
    assert int8_refusal(found).endswith("differ in their real images")


def test_the_ranges_are_those_of_the_scores():
    assert int8_ranges(scores(1.0)) == RANGES
    assert int8_ranges({}) == ()
