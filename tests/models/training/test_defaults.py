"""What is chosen for which data, time and device."""

import pytest

from models.training.config import resolve_config
from models.training.defaults import (
    DEVICES,
    GUIDANCE,
    ChoiceInputs,
    DatasetFacts,
    choose,
    default_image_size,
)

DIGITS = DatasetFacts(1797, 1, (8, 8), tuple("0123456789"))
PHOTOS = DatasetFacts(60_000, 3, (32, 32), ())
FEW = DatasetFacts(200, 3, (256, 256), ("a", "b"))


@pytest.mark.parametrize("facts", [DIGITS, PHOTOS, FEW])
@pytest.mark.parametrize("minutes", [0.5, 10.0, 600.0, None])
@pytest.mark.parametrize("device", DEVICES)
def test_every_choice_has_a_reason_and_makes_a_config(facts, minutes, device):
    budget = {"steps": 100} if minutes is None else {"minutes": minutes}
    config = resolve_config(facts, device=device, **budget)
    chosen = choose(
        ChoiceInputs(
            facts, config.image_size, len(facts.class_names), minutes, budget.get("steps"), device
        )
    )
    for name, choice in chosen.items():
        assert getattr(config, name) == choice.value
        assert config.reasons[name] == choice.reason
        assert choice.reason


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("facts", [DIGITS, PHOTOS, FEW])
def test_a_reason_that_names_a_time_goes_with_a_choice_that_follows_from_it(facts, device):
    short, long, in_steps = (
        resolve_config(facts, device=device, **budget)
        for budget in ({"minutes": 0.5}, {"minutes": 600.0}, {"steps": 100})
    )
    for name, reason in short.reasons.items():
        if name != "net" and "minutes" in reason:
            assert getattr(short, name) != getattr(long, name)
    assert "estimate" not in in_steps.reasons["net"]
    assert short.reasons["augmentation"] == long.reasons["augmentation"]


def test_reasons_do_not_contradict_each_other():
    reasons = resolve_config(DIGITS, minutes=10).reasons
    assert "each image is seen about 501 times, by an estimate for two cores" in reasons["net"]
    assert "time" not in reasons["augmentation"]
    assert "about 7.1 times: less than 100" in resolve_config(DIGITS, steps=100).reasons["net"]


def test_what_has_no_effect_says_so():
    assert "no classes" in resolve_config(PHOTOS, minutes=1).reasons["class_dropout"]
    assert "guidance" in resolve_config(DIGITS, minutes=1).reasons["class_dropout"]


def test_classes_of_larger_images_are_guided():
    assert resolve_config(FEW, minutes=1).guidance_scale == GUIDANCE
    assert resolve_config(FEW, minutes=1, guidance_scale=1).guidance_scale == 1.0
    for facts, other in (
        (PHOTOS, {}),
        (DIGITS, {}),
        (FEW, {"device": "cuda"}),
        (FEW, {"objective": "consistency"}),
        (FEW, {"class_conditional": False}),
    ):
        assert resolve_config(facts, minutes=1, **other).guidance_scale == 1.0


def test_the_model_keeps_the_guidance_of_its_training():
    config = resolve_config(FEW, minutes=1, guidance_scale=2.5)
    assert config.model_config(0.5).sampling.guidance_scale == 2.5


def test_a_batch_of_all_images_says_so():
    few = DatasetFacts(20, 1, (8, 8), ())
    config = resolve_config(few, minutes=1)
    assert (config.batch_size, config.reasons["batch_size"]) == (
        20,
        "all images at once, since there are fewer than 128",
    )


def test_what_the_caller_insists_on_needs_no_reason():
    config = resolve_config(DIGITS, minutes=1, batch_size=7, net={"dropout": 0.5})
    assert config.batch_size == 7
    assert config.net.dropout == 0.5
    assert config.net.block_out_channels == resolve_config(DIGITS, minutes=1).net.block_out_channels
    assert not {"batch_size", "net"} & set(config.reasons)
    assert "learning_rate" in resolve_config(DIGITS, minutes=1).reasons


def test_a_net_that_is_trained_already_takes_smaller_steps_and_says_why():
    new, distilled = (
        resolve_config(DIGITS, minutes=1, optimizer="adam", objective=objective)
        for objective in ("denoising", "consistency")
    )
    assert distilled.learning_rate == new.learning_rate / 2
    assert "trained already" in distilled.reasons["learning_rate"]


def test_the_learning_rate_is_that_of_the_net_and_the_optimizer_that_were_asked_for():
    net = {"block_out_channels": (128, 128)}
    by_adam = resolve_config(DIGITS, minutes=1, optimizer="adam", net=net)
    assert by_adam.learning_rate == pytest.approx(1e-3)
    assert by_adam.reasons["learning_rate"].endswith("at 128")
    wide, narrow = (resolve_config(DIGITS, minutes=1, net=given) for given in (net, None))
    assert wide.learning_rate == narrow.learning_rate > by_adam.learning_rate
    assert "Muon" in wide.reasons["learning_rate"]


@pytest.mark.parametrize(
    ("device", "given", "chosen"),
    [
        ("cpu", {}, "muon"),
        ("cpu_bf16", {}, "muon"),
        ("cuda", {}, "adam"),
        ("cpu", {"is_new": False}, "adam"),
        ("cpu", {"objective": "consistency"}, "adam"),
        ("cuda", {"optimizer": "muon"}, "muon"),
    ],
)
def test_muon_is_chosen_where_it_was_found_better(device, given, chosen):
    config = resolve_config(DIGITS, minutes=1, device=device, **given)
    assert config.optimizer == chosen
    assert ("optimizer" in config.reasons) == ("optimizer" not in given)


def test_muon_warms_up_in_fewer_steps_than_adam():
    muon, adam = (resolve_config(DIGITS, minutes=1, optimizer=by) for by in ("muon", "adam"))
    assert (muon.warmup_steps, adam.warmup_steps) == (20, 100)
    assert "Muon" in muon.reasons["warmup_steps"]
    assert "Adam" in adam.reasons["warmup_steps"]
    assert resolve_config(DIGITS, minutes=1, warmup_steps=7).warmup_steps == 7


@pytest.mark.parametrize(
    ("facts", "given", "chosen"),
    [
        (DIGITS, {}, "uniform"),
        (PHOTOS, {}, "learned"),
        (PHOTOS, {"preset": "ddpm"}, "uniform"),  # the classic objective is what it is
        (PHOTOS, {"objective": "consistency"}, "uniform"),  # which has weights of its own
        (PHOTOS, {"loss_weighting": "min_snr"}, "min_snr"),
    ],
)
def test_the_weight_of_a_noise_level_is_learned_for_photographs(facts, given, chosen):
    assert resolve_config(facts, minutes=10, **given).loss_weighting == chosen


def test_a_gpu_gets_a_wider_net_and_half_precision():
    cpu, gpu = (resolve_config(PHOTOS, minutes=30, device=d) for d in ("cpu", "cuda"))
    assert gpu.net.block_out_channels[0] > cpu.net.block_out_channels[0]
    assert (cpu.precision, gpu.precision) == ("float32", "bfloat16")
    assert (cpu.compile, gpu.compile) == (False, True)


def test_few_images_are_varied_on_a_gpu():
    few, many = (resolve_config(f, minutes=30, device="cuda") for f in (FEW, PHOTOS))
    assert few.augmentation > 0.0 == many.augmentation
    assert few.net.dropout > many.net.dropout
    assert resolve_config(FEW, minutes=30).augmentation == 0.0


def test_a_net_that_sees_each_image_very_often_drops_some_of_what_it_sees():
    assert resolve_config(DIGITS, minutes=1).net.dropout == 0.0
    assert resolve_config(DIGITS, minutes=3).net.dropout == 0.25
    assert resolve_config(DIGITS, steps=100).net.dropout == 0.0
    assert resolve_config(DIGITS, steps=10_000).net.dropout == 0.25
    assert resolve_config(PHOTOS, minutes=30).net.dropout == 0.0


def test_a_batch_is_never_wider_than_the_data():
    assert all(
        resolve_config(FEW, minutes=1, device=d).batch_size <= FEW.num_images for d in DEVICES
    )


@pytest.mark.parametrize(
    ("size", "chosen"),
    [((8, 8), (8, 8)), ((28, 28), (28, 28)), ((1000, 500), (64, 32)), ((33, 47), (32, 48))],
)
def test_the_default_size_can_be_halved(size, chosen):
    assert default_image_size(size) == chosen
