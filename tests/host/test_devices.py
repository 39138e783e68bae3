"""What a host trains on."""

from host.devices import device_of_host
from models.training.defaults import DEVICES


def test_a_setting_decides():
    assert device_of_host("cuda:1") == "cuda"
    assert device_of_host("cpu") in ("cpu", "cpu_bf16")


def test_what_is_found_is_a_device_that_choices_know():
    assert device_of_host("") in DEVICES
