"""Networks compiled by the C++ compiler of this machine, and what happens where there is none."""

import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from host.devices import cpp_compiler
from models.compile.build_process import is_worth_it
from models.compile.compiler import Compiler
from models.compile.library import CompiledNet, Variant
from models.diffusion.model import DiffusionModel, ModelConfig
from models.diffusion.schedule import ScheduleConfig
from models.engine.engine import Engine
from models.engine.orders import Made, Order
from models.nets.unet import UNet, UNetConfig
from models.sampling.request import SampleRequest, plan_for

CONFIG = UNetConfig(1, 1, (8, 8), norm_num_groups=4, attention_head_dim=4, num_class_embeds=3)
WIDTH = 2
VARIANT = Variant(CONFIG, (8, 8), WIDTH, "float32", torch.get_num_threads())

needs_cpp = pytest.mark.skipif(cpp_compiler() is None, reason="there is no C++ compiler")


def net_of(seed):
    torch.manual_seed(seed)
    net = UNet(CONFIG).eval().requires_grad_(False)
    nn.init.normal_(net.conv_out.weight, std=0.1)
    return net.to(memory_format=torch.channels_last)


def model_of(seed):
    config = ModelConfig(CONFIG, ScheduleConfig(), "v", 0.5, (8, 8), ("low", "high"))
    return DiffusionModel(config, net_of(seed))


def until(done, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not (result := done()):
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.05)
    return result


def no_build_runs(compiler):
    return compiler._thread is not None and not compiler._thread.is_alive()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With the library of VARIANT in it."""
    if cpp_compiler() is None:
        pytest.skip("there is no C++ compiler")
    folder = tmp_path_factory.mktemp("compiled")
    compiler = Compiler(folder, min_calls=2)
    net = net_of(0)
    assert compiler.call(VARIANT, net) is None
    assert compiler._thread is None
    until(lambda: compiler.call(VARIANT, net))
    until(lambda: no_build_runs(compiler))
    assert [file.name for file in folder.iterdir()] == [VARIANT.name]
    return folder


def images_of(engine, model, **options):
    request = SampleRequest(seed=1, num_images=8, labels=(0, 1) * 4)
    engine.submit(0, Order("m", "m", "", plan_for(model.config, request), **options), model)
    made = {}
    while len(made) < 8:
        made |= {event.image: event.pixels for event in engine.step() if isinstance(event, Made)}
    return np.stack([made[image] for image in range(8)]).astype(int)


@pytest.mark.parametrize("seed", [0, 1])
def test_one_library_gives_what_any_weights_of_its_architecture_give(folder, seed):
    net = net_of(seed)
    compiled = CompiledNet(folder / VARIANT.name, net)
    with torch.inference_mode():
        y, compiled_y = net(*VARIANT.inputs()), compiled(*VARIANT.inputs())
    assert y.abs().max() > 0.1
    torch.testing.assert_close(compiled_y, y, rtol=1e-4, atol=1e-5)


def test_images_of_compiled_calls_are_those_of_eager_ones(folder, monkeypatch):
    monkeypatch.setenv("PATH", "")  # nothing is built here
    model = model_of(0)
    eager = images_of(Engine(buckets=(WIDTH,)), model)
    engine = Engine(buckets=(WIDTH,), compiler=Compiler(folder))
    difference = np.abs(images_of(engine, model) - eager)
    (state,) = engine._states.values()
    assert isinstance(state._compiled[WIDTH], CompiledNet)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-3


def test_deterministic_calls_stay_eager(folder):
    variants = []

    class Listening(Compiler):
        def call(self, variant, net):
            variants.append(variant)

    engine = Engine(compiler=Listening(folder))
    images_of(engine, model_of(0), deterministic=True)
    assert not variants
    images_of(engine, model_of(0))
    assert {variant.image_size for variant in variants} == {(8, 8)}


def test_without_a_compiler_calls_are_eager_and_it_is_said_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    compiler = Compiler(tmp_path / "compiled", min_calls=1)
    assert [compiler.call(VARIANT, net_of(0)) for _ in range(5)] == [None] * 5
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "no C++ compiler" in caplog.text
    assert not (tmp_path / "compiled").exists()


def test_a_build_that_fails_is_said_once_and_not_tried_again(tmp_path, monkeypatch, caplog):
    broken = tmp_path / "broken"
    broken.write_text(f"#!/bin/sh\necho called >> {tmp_path}/calls\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    compiler, net = Compiler(tmp_path / "compiled", min_calls=1), net_of(0)
    assert compiler.call(VARIANT, net) is None
    until(lambda: no_build_runs(compiler))
    calls = (tmp_path / "calls").read_text()
    for _ in range(5):
        assert compiler.call(VARIANT, net) is None
        assert no_build_runs(compiler)
    assert (tmp_path / "calls").read_text() == calls
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert list((tmp_path / "compiled").iterdir()) == []


def test_a_file_that_is_no_library_is_removed_and_not_used(tmp_path, caplog):
    file = tmp_path / VARIANT.name
    file.write_bytes(b"not a library")
    compiler = Compiler(tmp_path)
    assert compiler.call(VARIANT, net_of(0)) is None
    assert not file.exists()
    assert len(caplog.records) == 1


def test_a_network_that_is_no_faster_compiled_stays_eager(tmp_path, caplog):
    (tmp_path / VARIANT.name).touch()
    compiler = Compiler(tmp_path, min_calls=1)
    assert [compiler.call(VARIANT, net_of(0)) for _ in range(3)] == [None] * 3
    assert compiler._thread is None
    assert not caplog.records


@pytest.mark.parametrize(("gain", "worth_it"), [(0.0, False), (1e6, True)])
def test_only_what_gains_is_worth_it(gain, worth_it, folder, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setattr("models.compile.build_process.MIN_GAIN", gain)
    assert is_worth_it(VARIANT, net_of(1), folder / VARIANT.name) == worth_it


def test_a_library_that_says_something_else_is_not_used(folder, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    other = UNet(replace(CONFIG, flip_sin_to_cos=False)).eval()
    other.load_state_dict(net_of(1).state_dict())
    with pytest.raises(RuntimeError, match="is off by"):
        is_worth_it(VARIANT, other, folder / VARIANT.name)


def test_a_library_of_another_architecture_is_not_loaded(folder):
    other = UNet(
        UNetConfig(1, 1, (8, 8), layers_per_block=2, norm_num_groups=4, attention_head_dim=4)
    ).eval()
    with pytest.raises(RuntimeError, match="differs"):
        CompiledNet(folder / VARIANT.name, other)


@needs_cpp
def test_closing_ends_the_build(tmp_path):
    compiler = Compiler(tmp_path, min_calls=1)
    compiler.call(VARIANT, net_of(0))
    until(lambda: compiler._process)
    compiler.close()
    assert compiler._process.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


PARENT = """
import sys, time
from pathlib import Path
from models.compile.compiler import Compiler
from tests.models.compile.test_compiler import VARIANT, net_of
compiler = Compiler(Path(sys.argv[1]), min_calls=1)
compiler.call(VARIANT, net_of(0))
while compiler._process is None:
    time.sleep(0.01)
print(compiler._process.pid, flush=True)
time.sleep(600)
"""


@needs_cpp
def test_a_build_does_not_outlive_a_process_that_is_killed(tmp_path):
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        group = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not _group_exists(group), 60)


def _group_exists(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return any(
        stat.read_text().rpartition(")")[2].split()[2] == str(group)
        and stat.read_text().rpartition(")")[2].split()[0] != "Z"
        for stat in Path("/proc").glob("[0-9]*/stat")
    )


def test_names_differ_with_whatever_changes_the_code():
    variants = [
        VARIANT,
        Variant(CONFIG, (8, 8), 1, "float32", 1),
        Variant(CONFIG, (8, 8), WIDTH, "bfloat16", VARIANT.threads),
        Variant(CONFIG, (8, 16), WIDTH, "float32", VARIANT.threads),
        Variant(UNetConfig.small((8, 8), 1, 2), (8, 8), WIDTH, "float32", VARIANT.threads),
    ]
    assert len({variant.name for variant in variants}) == len(variants)
    for variant in variants:
        assert Variant.from_json(variant.to_json()) == variant
