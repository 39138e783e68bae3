"""What a training comes to, before it starts."""

import pytest

from models.nets.graph import unet_graph
from models.training.config import TrainConfig, resolve_config
from models.training.defaults import DatasetFacts
from models.training.forecast import forecast, rounded
from models.training.speed import BENCHMARKED, images_needed, images_per_second

DIGITS = DatasetFacts(1797, 1, (8, 8), tuple("0123456789"))
PHOTOS = DatasetFacts(2000, 3, (64, 64), ())


def speed_for(config: TrainConfig, images: float) -> float:
    """The speed at which this net learns from so many images a second."""
    return images * unet_graph(config.net, config.image_size).flops


def test_minutes_become_steps_at_the_speed_of_the_network():
    config = resolve_config(DIGITS, minutes=2, batch_size=100)
    found = forecast(config, DIGITS.num_images, speed_for(config, 1000.0))
    assert (found.steps, found.seconds) == (1200, 120.0)
    assert found.good_minutes == 2  # 100,000 images, rounded up
    assert found.warnings == ()


def test_steps_become_seconds_and_the_smaller_budget_counts():
    steps = resolve_config(DIGITS, steps=600, batch_size=100)
    speed = speed_for(steps, 1000.0)
    assert forecast(steps, 1797, speed).seconds == pytest.approx(60.0)
    both = resolve_config(DIGITS, steps=600, minutes=0.5, batch_size=100)
    assert forecast(both, 1797, speed).steps == 300


def test_too_few_steps_are_warned_of_with_the_minutes_that_are_needed():
    config = resolve_config(PHOTOS, minutes=2)
    found = forecast(config, PHOTOS.num_images, speed_for(config, 39 * 32 / 120))
    assert found.steps == 39
    (warning,) = found.warnings
    assert warning == (
        "about 39 steps: expect noise or blobs of colour; images of 64 x 64 pixels need at least "
        "about 170 minutes here"
    )
    assert found.good_minutes == 170


@pytest.mark.parametrize(
    ("facts", "optimizer", "least"),
    [(DIGITS, "muon", 40), (DIGITS, "adam", 200), (PHOTOS, "muon", 320), (PHOTOS, "adam", 320)],
)
def test_leaving_noise_takes_two_warm_ups_and_more_where_images_are_large(facts, optimizer, least):
    for steps, expected in ((least - 1, "expect noise"), (least, "expect vague shapes")):
        config = resolve_config(facts, steps=steps, optimizer=optimizer)
        (warning,) = forecast(config, facts.num_images, BENCHMARKED["cpu"]).warnings
        assert expected in warning


def test_some_steps_promise_shapes_and_enough_promise_nothing():
    config = resolve_config(PHOTOS, minutes=20)
    speed = speed_for(config, 21.0)
    (warning,) = forecast(config, PHOTOS.num_images, speed).warnings
    assert "25,184 images are seen: expect vague shapes" in warning
    long = resolve_config(PHOTOS, minutes=80)
    assert long.net.block_out_channels == config.net.block_out_channels
    assert forecast(long, PHOTOS.num_images, speed).warnings == ()


def test_without_a_speed_only_what_is_certain_is_said():
    minutes = forecast(resolve_config(PHOTOS, minutes=2, device="cuda"), 2000, None)
    assert (minutes.steps, minutes.seconds, minutes.warnings) == (None, 120.0, ())
    steps = forecast(resolve_config(PHOTOS, steps=79, device="cuda"), 2000, None)
    assert (steps.steps, steps.seconds, steps.good_minutes) == (79, None, None)
    assert steps.warnings[0].startswith("about 79 steps: expect noise or blobs of colour; images")


def test_trained_weights_need_no_least_time():
    config = resolve_config(PHOTOS, steps=79)
    assert forecast(config, 2000, BENCHMARKED["cpu"], is_new=False).warnings == ()


def test_many_images_need_more_to_be_seen():
    assert images_needed(1797) == images_needed(10_000) == 100_000
    assert images_needed(50_000) == 500_000


@pytest.mark.parametrize("device", ["cpu", "cpu_bf16"])
def test_a_wider_net_is_chosen_where_it_sees_as_many_images_as_it_needs(device):
    narrow, wide = (
        resolve_config(PHOTOS, minutes=minutes, device=device) for minutes in (60, 10_000)
    )
    assert narrow.net.block_out_channels[0] < wide.net.block_out_channels[0]
    rate = images_per_second(wide.net, wide.image_size, BENCHMARKED[device])
    least = 100_000 / rate / 60
    for minutes, channels in ((0.99 * least, narrow), (1.01 * least, wide)):
        config = resolve_config(PHOTOS, minutes=minutes, device=device)
        assert config.net.block_out_channels == channels.net.block_out_channels


@pytest.mark.parametrize(
    ("minutes", "shown"),
    [(0.2, 1), (1.8, 2), (17.2, 18), (99.5, 100), (123.0, 130)],
)
def test_minutes_are_rounded_up_to_two_digits(minutes, shown):
    assert rounded(minutes) == shown
