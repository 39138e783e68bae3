"""What a host trains on."""

from models.choices import DEVICES
from worker.device import device_of_host


def test_a_setting_decides():
    assert device_of_host("cuda:1") == "cuda"
    assert device_of_host("cpu") in ("cpu", "cpu_bf16")


def test_what_is_found_is_a_device_that_choices_know():
    assert device_of_host("") in DEVICES
