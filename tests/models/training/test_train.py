"""Training: exact resume (oracle 9), the floor of the loss (oracle 7), the order of the data."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from models.arrays import to_float
from models.evaluation.denoising_error import denoising_error
from models.fields import Invalid
from models.images.dataset import Dataset
from models.sampling.generate import sample_images
from models.training.checkpoint import load_checkpoint, save_checkpoint
from models.training.config import TrainConfig, resolve_config
from models.training.defaults import DatasetFacts
from models.training.state import TrainState
from models.training.train import train

TINY_NET = {"block_out_channels": (8, 8), "norm_num_groups": 4, "attention_head_dim": 4}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def dataset():
    """Two classes that differ in brightness, 40 images of 8 x 8."""
    labels = np.arange(40) % 2
    noise = np.random.default_rng(0).normal(0, 12, (40, 8, 8, 1))
    images = (labels[:, None, None, None] * 120 + 60 + noise).clip(0, 255).astype(np.uint8)
    return Dataset(images, labels.astype(np.int64), ("dark", "light"))


def config(dataset, **overrides):
    facts = DatasetFacts(len(dataset.images), 1, (8, 8), dataset.class_names)
    settings = {"steps": 12, "batch_size": 8, "seed": 3, "net": TINY_NET} | overrides
    return resolve_config(facts, **settings)


def run(state, dataset, steps):
    for step in train(state, dataset):
        if step.step == steps:
            break
    return state


def weights(state):
    return {
        f"{name}/{key}": tensor.clone()
        for name, net in (("net", state.model.net), ("ema", state.ema))
        for key, tensor in net.state_dict().items()
    }


@pytest.mark.parametrize("preset", ["ddpm", "edm"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_stopped_run_goes_on_as_if_it_had_not(preset, dropout, dataset, tmp_path):
    settings = config(dataset, preset=preset, net=TINY_NET | {"dropout": dropout})
    whole = run(TrainState.create(settings, dataset), dataset, 12)

    state = TrainState.create(settings, dataset)
    for stop in (5, 6):
        run(state, dataset, stop)
        save_checkpoint(state, tmp_path / str(stop))
        torch.manual_seed(999)  # whatever else happened in between
        state = load_checkpoint(tmp_path / str(stop))
        assert state.step == stop
    run(state, dataset, 12)

    expected = weights(whole)
    for name, tensor in weights(state).items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize(
    "settings",
    [
        {"preset": "edm", "loss_weighting": "learned"},
        {"loss_weighting": "min_snr", "lr_schedule": "cosine"},
        {"preset": "edm", "augmentation": 0.5, "horizontal_flip": True},
        {"preset": "edm", "objective": "consistency"},
        {"stratified": False, "micro_batch_size": 3},
        {"precision": "bfloat16"},
    ],
    ids=str,
)
def test_every_way_to_train_goes_on_as_if_it_had_not_stopped(settings, dataset, tmp_path):
    settings = config(dataset, **settings)
    whole = run(TrainState.create(settings, dataset), dataset, 12)
    state = run(TrainState.create(settings, dataset), dataset, 5)
    save_checkpoint(state, tmp_path / "5")
    state = run(load_checkpoint(tmp_path / "5"), dataset, 12)
    for (name, tensor), expected in zip(
        state.parameters().items(), whole.parameters().values(), strict=True
    ):
        assert torch.equal(tensor, expected), name


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 2e-2)])
def test_a_gpu_sees_the_same_losses(compiled, precision, tolerance, dataset):
    losses = []
    for device in ("cpu", "cuda"):
        settings = config(dataset, compile=compiled and device == "cuda")
        settings = replace(settings, precision=precision if device == "cuda" else "float32")
        steps = train(TrainState.create(settings, dataset, device), dataset)
        losses.append([step.loss for step in steps])
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)


@pytest.mark.gpu
def test_a_stopped_run_goes_on_on_a_gpu(dataset, tmp_path):
    settings = config(dataset, preset="edm")
    whole = run(TrainState.create(settings, dataset, "cuda"), dataset, 12)
    state = run(TrainState.create(settings, dataset, "cuda"), dataset, 5)
    save_checkpoint(state, tmp_path / "5")
    state = run(load_checkpoint(tmp_path / "5", "cuda"), dataset, 12)
    expected = weights(whole)
    for name, tensor in weights(state).items():  # its gradients are sums in any order
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4)


def test_a_batch_in_parts_has_the_gradient_of_the_whole(dataset):
    states = []
    for micro_batch_size in (None, 3):
        settings = config(dataset, preset="edm", micro_batch_size=micro_batch_size)
        states.append(run(TrainState.create(settings, dataset), dataset, 12))
    whole, parts = (s.parameters() for s in states)
    assert states[1].images_seen == 12 * 8
    for name in whole:
        assert torch.allclose(whole[name], parts[name], atol=1e-5), name


@pytest.mark.parametrize(
    ("lr_schedule", "half"), [("linear", 0.5), ("cosine", 0.5), ("constant", 1)]
)
def test_the_learning_rate_falls_to_nothing_at_the_end(lr_schedule, half, dataset):
    settings = config(dataset, steps=100, warmup_steps=1, lr_schedule=lr_schedule)
    rates = [step.learning_rate for step in train(TrainState.create(settings, dataset), dataset)]
    assert rates[0] == pytest.approx(settings.learning_rate)
    assert rates[50] == pytest.approx(half * settings.learning_rate)
    if lr_schedule != "constant":
        assert rates[-1] < 0.011 * settings.learning_rate


def test_a_checkpoint_appears_whole_or_not_at_all(dataset, tmp_path, monkeypatch):
    state = TrainState.create(config(dataset), dataset)
    (tmp_path / "taken").write_text("a file where the checkpoint's folder should go")
    with pytest.raises(OSError):  # noqa: PT011 - any of the system's refusals
        save_checkpoint(state, tmp_path / "taken")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["taken"]


@pytest.mark.parametrize("preset", ["ddpm", "edm"])
def test_training_learns_the_classes(preset, dataset):
    settings = config(dataset, preset=preset, steps=400, batch_size=16, learning_rate=5e-3)
    state = TrainState.create(settings, dataset)
    images, labels = (
        to_float(torch.from_numpy(np.array(dataset.images))),
        torch.from_numpy(dataset.labels),
    )
    before = denoising_error(state.ema_model(), images, labels, 0)
    *_, last = train(state, dataset)
    assert last.step == 400
    assert last.progress == 1.0
    after = denoising_error(state.ema_model(), images, labels, 0)
    assert np.mean([e.mse for e in after]) < 0.5 * np.mean([e.mse for e in before])
    made = sample_images(state.ema_model(), num_images=32, seed=1, labels=[0] * 16 + [1] * 16)
    dark, light = made[:16].mean(), made[16:].mean()
    assert light - dark > 60


def test_the_error_at_the_noisiest_level_is_the_datas_own_spread(dataset):
    """With no signal left, the best guess is the mean: its error is the variance (x0's floor)."""
    state = TrainState.create(config(dataset, prediction_type="x0", net=TINY_NET), dataset)
    images = to_float(torch.from_numpy(np.array(dataset.images)))
    untrained = denoising_error(state.ema_model(), images, torch.from_numpy(dataset.labels), 0)
    # a fresh x0-net says 0 everywhere
    assert np.isclose(untrained[-1].mse, float(images.square().mean()), rtol=1e-5)


def test_a_minutes_budget_ends_on_time_with_the_learning_rate_decayed(dataset):
    state = TrainState.create(config(dataset, steps=None, minutes=0.03), dataset)
    *_, last = train(state, dataset)
    assert 1.75 < state.elapsed() < 8.0  # the last step may be slow on a busy machine
    assert last.learning_rate < 0.1 * state.config.learning_rate


def test_a_config_survives_json(dataset):
    import json

    settings = config(dataset, preset="edm")
    assert TrainConfig.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@dataclass(frozen=True)
class Refusal:
    overrides: dict
    message: str


@pytest.mark.parametrize(
    "case",
    [
        Refusal({"preset": "gan"}, "preset is 'gan'"),
        Refusal({"image_size": (7, 8)}, "image_size is 7.*8..256"),
        Refusal({"image_size": (9, 8)}, None),
        Refusal({"batch_size": 0}, "batch_size is 0.*1..4096"),
        Refusal({"learning_rate": float("nan")}, "learning_rate is nan"),
        Refusal({"net": {"dropout": 1.0}}, r"^net\.dropout is 1\.0"),
        Refusal({"net": {"norm_num_groups": 0}}, r"^net\.norm_num_groups is 0"),
        Refusal({"net": {"block_out_channels": ()}}, r"^net\.down_block_types has 1 entries"),
        Refusal(
            {"net": {"block_out_channels": (2048,) * 3, "layers_per_block": 8}},
            r"^net\.block_out_channels .* at most 1000000000",
        ),
        Refusal({"schedule": {"beta_start": 0.5}}, r"^schedule\.beta_start is 0\.5; .* 0\.02"),
        Refusal({"schedule": {"name": "edm", "rho": 0.0}}, r"^schedule\.rho is 0\.0"),
        Refusal({"schedule": {"name": "flow"}}, "use 'flow', 'v' or 'x0'"),
        Refusal({"steps": 0}, "steps is 0"),
        Refusal({"seed": -1}, "seed is -1"),
        Refusal({"preset": "ddpm", "prediction_type": "edm"}, "'edm' goes with 'edm'"),
        Refusal({"schedule": {"name": "linear", "rescale_zero_terminal_snr": True}}, "no signal"),
    ],
    ids=lambda case: str(case.overrides),
)
def test_a_bad_recipe_is_refused_by_name_and_bound(case, dataset):
    if case.message is None:  # an odd size is fine for a net that need not halve it
        assert config(dataset, **case.overrides, net=None).image_size == (9, 8)
        return
    with pytest.raises(Invalid, match=case.message):
        config(dataset, **case.overrides)


def test_without_a_preset_it_is_edm_unless_what_is_asked_for_is_not_its(dataset):
    assert config(dataset).preset == "edm"
    assert config(dataset, schedule={"sigma_max": 40.0}).preset == "edm"
    assert config(dataset, prediction_type="v").preset == "ddpm"
    assert config(dataset, schedule={"name": "cosine"}).preset == "ddpm"


def test_part_of_a_schedule_belongs_to_the_preset_s(dataset):
    schedule = config(dataset, preset="edm", schedule={"sigma_max": 40.0}).schedule
    assert (schedule.name, schedule.sigma_max) == ("edm", 40.0)


def test_classes_cannot_be_asked_of_data_without_any():
    with pytest.raises(Invalid, match="class_conditional"):
        resolve_config(DatasetFacts(10, 3, (32, 32), ()), class_conditional=True)
