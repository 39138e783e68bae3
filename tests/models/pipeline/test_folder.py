"""Models on disk, against diffusers: it reads what we write, and we read what it writes."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    ScoreSdeVeScheduler,
    UNet2DModel,
)
from safetensors.torch import load_file, save_file

from models.diffusion.config import ModelConfig, SamplingConfig
from models.diffusion.model import DiffusionModel
from models.diffusion.prediction import PredictionType
from models.diffusion.schedule import NoiseSchedule, ScheduleConfig
from models.fields import Invalid
from models.nets.config import MAX_CLASSES, UNetConfig
from models.nets.unet import UNet
from models.pipeline.folder import (
    WEIGHTS,
    choose_null_class,
    read_metadata,
    unused_scheduler_fields,
    weights_digest,
)
from models.pipeline.torch_folder import load_model, save_model

NET = UNetConfig(
    in_channels=1,
    out_channels=1,
    block_out_channels=(8, 16),
    norm_num_groups=4,
    attention_head_dim=8,
)
# NET in diffusers' words.
PEER = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
}
LINEAR = ScheduleConfig(num_train_timesteps=100)


def a_model(
    prediction_type: PredictionType = "epsilon",
    schedule: ScheduleConfig = LINEAR,
    class_names: tuple[str, ...] = (),
    image_size: tuple[int, int] = (8, 8),
) -> DiffusionModel:
    """A small net with random weights, the last layer's too."""
    net_config = replace(NET, num_class_embeds=len(class_names) + 1 if class_names else None)
    torch.manual_seed(0)
    net = UNet(net_config).eval()
    torch.nn.init.normal_(net.conv_out.weight, std=0.05)
    config = ModelConfig(net_config, schedule, prediction_type, 0.3, image_size, class_names)
    return DiffusionModel(config, net)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(a_model(), tmp_path / "model", {})
    return tmp_path / "model"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A bare UNet2DModel, written by diffusers."""
    torch.manual_seed(0)
    UNet2DModel(**PEER).save_pretrained(tmp_path / "foreign")
    return tmp_path / "foreign"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


@torch.inference_mode()
def largest_difference(model: DiffusionModel, peer: UNet2DModel) -> float:
    config = model.config
    x = torch.randn(2, config.net.in_channels, *config.image_size)
    t = torch.tensor([3.0, 87.0])
    last = (config.net.num_class_embeds or 0) - 1
    label = torch.tensor([0, last]) if config.class_names else None
    expected = peer.eval()(x, t, class_labels=label).sample
    assert expected.std() > 1e-3
    return float((model.net(x, t, label) - expected).abs().max())


# diffusers reads what we write --------------------------------------------------------------------


@pytest.mark.parametrize("prediction_type", ["epsilon", "x0", "v"])
def test_diffusers_runs_an_exported_model(tmp_path: Path, prediction_type: PredictionType) -> None:
    model = a_model(prediction_type, image_size=(8, 12))
    save_model(model, tmp_path / "model", {})
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "model")
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=2, num_inference_steps=3, output_type="np").images
    assert images.shape == (2, 8, 12, 1)
    assert np.isfinite(images).all()
    assert largest_difference(model, pipeline.unet) < 1e-5
    expected = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
    assert pipeline.scheduler.config.prediction_type == expected[prediction_type]


@pytest.mark.parametrize("steps", [50, 1000])
@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine", "sigmoid"])
def test_diffusers_has_the_same_alphas_cumprod(
    tmp_path: Path, name: Any, zero_snr: bool, steps: int
) -> None:
    schedule = ScheduleConfig(name, steps, rescale_zero_terminal_snr=zero_snr)
    save_model(a_model("v", schedule), tmp_path / "model", {})
    scheduler = DDPMScheduler.from_pretrained(tmp_path / "model", subfolder="scheduler")
    expected = NoiseSchedule.from_config(schedule).alphas_cumprod[1:]
    np.testing.assert_allclose(scheduler.alphas_cumprod.numpy(), expected, rtol=0, atol=1e-6)
    if zero_snr:
        assert scheduler.alphas_cumprod[-1] == 0


def test_diffusers_knows_an_edm_models_noise_levels(tmp_path: Path) -> None:
    schedule = ScheduleConfig("edm", 50, sigma_min=0.01, sigma_max=20.0, rho=5.0)
    save_model(a_model("edm", schedule), tmp_path / "model", {})
    scheduler = EDMEulerScheduler.from_pretrained(tmp_path / "model", subfolder="scheduler")
    scheduler.set_timesteps(50)
    expected = NoiseSchedule.from_config(schedule).sigma[::-1]
    np.testing.assert_allclose(scheduler.sigmas.numpy(), expected, rtol=1e-5)
    assert scheduler.config.sigma_data == 0.3


def test_diffusers_knows_a_flow_models_noise_levels(tmp_path: Path) -> None:
    schedule = ScheduleConfig("flow", 50)
    save_model(a_model("flow", schedule), tmp_path / "model", {})
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(
        tmp_path / "model", subfolder="scheduler"
    )
    expected = NoiseSchedule.from_config(schedule).sigma[:0:-1]
    np.testing.assert_allclose(scheduler.sigmas.numpy(), expected, atol=1e-6)


# We read what we write ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction_type", "schedule"),
    [
        ("epsilon", LINEAR),
        ("x0", ScheduleConfig("cosine", 100)),
        ("v", ScheduleConfig("sigmoid", 100, rescale_zero_terminal_snr=True)),
        ("flow", ScheduleConfig("flow", 100)),
        ("edm", ScheduleConfig("edm", 100, sigma_min=0.01, sigma_max=20.0, rho=5.0)),
    ],
)
@pytest.mark.parametrize("class_names", [(), ("cat", "dog")])
def test_a_model_comes_back_bit_for_bit(
    tmp_path: Path,
    prediction_type: PredictionType,
    schedule: ScheduleConfig,
    class_names: tuple[str, ...],
) -> None:
    model = a_model(prediction_type, schedule, class_names, image_size=(8, 12))
    save_model(model, tmp_path / "model", {})
    loaded = load_model(tmp_path / "model")
    assert loaded.config == model.config
    assert not loaded.net.training
    before, after = model.net.state_dict(), loaded.net.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_metadata_comes_back(tmp_path: Path, foreign: Path) -> None:
    save_model(a_model(), tmp_path / "model", {"dataset": "digits", "steps": 100})
    assert read_metadata(tmp_path / "model") == {"dataset": "digits", "steps": 100}
    assert read_metadata(foreign) == {}


def test_the_digest_is_that_of_the_weights(tmp_path: Path, saved: Path, foreign: Path) -> None:
    data = (saved / "unet" / WEIGHTS).read_bytes()
    assert weights_digest(saved) == hashlib.sha256(data).hexdigest()
    save_model(a_model(), tmp_path / "again", {"note": "same weights"})
    assert weights_digest(tmp_path / "again") == weights_digest(saved)
    assert weights_digest(foreign) != weights_digest(saved)


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save_model(a_model(), tmp_path / "model", {"not json": object()})
    assert list(tmp_path.iterdir()) == []


def test_a_saved_model_is_not_overwritten(tmp_path: Path, saved: Path) -> None:
    before = contents(saved)
    with pytest.raises(OSError, match="not empty"):
        save_model(a_model("v"), saved, {})
    assert contents(saved) == before
    assert list(tmp_path.iterdir()) == [saved]


# We read what diffusers writes --------------------------------------------------------------------


def test_a_bare_unet_loads(foreign: Path) -> None:
    model = load_model(foreign)
    assert model.config.schedule == ScheduleConfig("linear", 1000, 1e-4, 0.02)
    assert model.config.prediction_type == "epsilon"
    assert model.config.image_size == (8, 8)
    assert model.config.class_names == ()
    assert largest_difference(model, UNet2DModel.from_pretrained(foreign)) < 1e-5


@pytest.mark.parametrize(
    ("scheduler", "schedule", "prediction_type"),
    [
        (
            DDPMScheduler(num_train_timesteps=200, beta_end=0.03, prediction_type="sample"),
            ScheduleConfig("linear", 200, 1e-4, 0.03),
            "x0",
        ),
        (
            DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
            ScheduleConfig("cosine", 1000),
            "epsilon",
        ),
        (
            DDIMScheduler(
                beta_schedule="scaled_linear",
                prediction_type="v_prediction",
                rescale_betas_zero_snr=True,
            ),
            ScheduleConfig("scaled_linear", rescale_zero_terminal_snr=True),
            "v",
        ),
    ],
    ids=["linear", "cosine", "scaled_linear"],
)
def test_a_pipeline_loads_with_its_schedule(
    tmp_path: Path, scheduler: Any, schedule: ScheduleConfig, prediction_type: str
) -> None:
    unet = UNet2DModel(**PEER)
    DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "pipeline")
    model = load_model(tmp_path / "pipeline")
    assert model.config.schedule == schedule
    assert model.config.prediction_type == prediction_type
    np.testing.assert_allclose(
        scheduler.alphas_cumprod.numpy(), model.schedule.alphas_cumprod[1:], rtol=0, atol=1e-5
    )
    assert largest_difference(model, unet) < 1e-5


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine", "sigmoid"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_betas_as_numbers_are_known_by_their_schedule(
    tmp_path: Path, name: Any, zero_snr: bool
) -> None:
    schedule = ScheduleConfig(name, 100, 2e-4, 0.03, zero_snr)
    betas = NoiseSchedule.from_config(schedule).betas.tolist()
    scheduler = DDPMScheduler(
        num_train_timesteps=100,
        beta_start=2e-4,
        beta_end=0.03,
        trained_betas=betas,
        prediction_type="v_prediction",
    )
    DDPMPipeline(UNet2DModel(**PEER), scheduler).save_pretrained(tmp_path / "pipeline")
    found = load_model(tmp_path / "pipeline").schedule
    np.testing.assert_allclose(
        found.alphas_cumprod[1:], scheduler.alphas_cumprod.numpy(), rtol=0, atol=2e-6
    )
    assert found.config.name == name
    assert found.config.rescale_zero_terminal_snr is zero_snr


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (DDPMScheduler(), SamplingConfig(spacing="leading")),
        (DDIMScheduler(clip_sample=False), SamplingConfig(clip=None, spacing="leading")),
        (
            DDPMScheduler(clip_sample_range=2.0, variance_type="fixed_large", steps_offset=1),
            SamplingConfig(2.0, "leading", 1, "fixed_large"),
        ),
        (DDPMScheduler(timestep_spacing="linspace"), SamplingConfig(spacing="linspace")),
        (DPMSolverMultistepScheduler(timestep_spacing="trailing"), SamplingConfig(1.0, "trailing")),
        (DPMSolverMultistepScheduler(), SamplingConfig()),  # its linspace is not ours
        (EDMEulerScheduler(), SamplingConfig()),
        (None, SamplingConfig()),
    ],
)
def test_a_scheduler_says_how_a_model_is_sampled(
    foreign: Path, scheduler: Any, expected: SamplingConfig
) -> None:
    if scheduler is not None:
        scheduler.save_pretrained(foreign / "scheduler")
    model = load_model(foreign)
    assert model.config.sampling == expected
    save_model(model, foreign.parent / "again", {})
    assert load_model(foreign.parent / "again").config == model.config
    if not isinstance(scheduler, EDMEulerScheduler):
        peer = DDPMScheduler.from_pretrained(foreign.parent / "again", subfolder="scheduler")
        assert peer.config.timestep_spacing == (expected.spacing or "trailing")
        assert peer.config.clip_sample is (expected.clip is not None)


def test_an_old_config_that_says_less_has_the_defaults_of_its_class(foreign: Path) -> None:
    (foreign / "scheduler").mkdir()
    said = {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "variance_type": None}
    (foreign / "scheduler" / "scheduler_config.json").write_text(json.dumps(said))
    assert load_model(foreign).config.sampling == SamplingConfig(spacing="leading")


def test_fields_of_a_sampler_that_are_not_taken_are_named(foreign: Path) -> None:
    assert unused_scheduler_fields(foreign) == []
    DPMSolverMultistepScheduler().save_pretrained(foreign / "scheduler")
    unused = unused_scheduler_fields(foreign)
    assert {"solver_order", "timestep_spacing", "final_sigmas_type"} <= set(unused)
    assert not {"beta_start", "prediction_type", "thresholding"} & set(unused)
    DDPMScheduler().save_pretrained(foreign / "scheduler")
    assert unused_scheduler_fields(foreign) == []


def test_an_edm_scheduler_says_what_the_net_predicts(foreign: Path) -> None:
    scheduler = EDMEulerScheduler(sigma_min=0.01, sigma_max=10.0, sigma_data=0.4, rho=6.0)
    scheduler.save_pretrained(foreign / "scheduler")
    config = load_model(foreign).config
    assert config.schedule == ScheduleConfig("edm", sigma_min=0.01, sigma_max=10.0, rho=6.0)
    assert (config.prediction_type, config.sigma_data) == ("edm", 0.4)


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    peer = UNet2DModel(**PEER, num_class_embeds=4)
    peer.save_pretrained(tmp_path / "peer")
    model = load_model(tmp_path / "peer")
    assert model.config.class_names == ("0", "1", "2", "3")
    assert not model.config.has_null_class
    assert largest_difference(model, peer) < 1e-5


def test_one_embedding_is_one_class(tmp_path: Path) -> None:
    UNet2DModel(**PEER, num_class_embeds=1).save_pretrained(tmp_path / "peer")
    model = load_model(tmp_path / "peer")
    assert (model.config.class_names, model.config.has_null_class) == (("0",), False)
    with pytest.raises(Invalid, match="null_class is 0; the model's one embedding is a class"):
        choose_null_class(tmp_path / "peer", 0)


@pytest.mark.parametrize("null_class", [0, 2, 3])
def test_whoever_knows_the_null_class_says_which_it_is(tmp_path: Path, null_class: int) -> None:
    torch.manual_seed(0)
    peer = UNet2DModel(**PEER, num_class_embeds=4).eval()
    peer.save_pretrained(tmp_path / "peer")
    choose_null_class(tmp_path / "peer", null_class)
    model = load_model(tmp_path / "peer")
    kept = [i for i in range(4) if i != null_class]
    assert model.config.class_names == tuple(map(str, kept))
    assert model.config.has_null_class
    x, t = torch.randn(4, 1, 8, 8), torch.full((4,), 5.0)
    with torch.inference_mode():
        expected = peer(x, t, class_labels=torch.tensor([*kept, null_class])).sample
        assert (model.net(x, t, torch.arange(4)) - expected).abs().max() < 1e-5
        assert (model.net(x, t, torch.arange(4).flip(0)) - expected).abs().max() > 1e-4
    save_model(model, tmp_path / "again", {})  # the null class is the last there
    again = load_model(tmp_path / "again")
    assert again.config == model.config
    assert torch.equal(again.net.class_embedding.weight, model.net.class_embedding.weight)
    choose_null_class(tmp_path / "again", 3)
    with pytest.raises(Invalid, match=r"null_class is 0; diffusion\.json of the model says 3"):
        choose_null_class(tmp_path / "again", 0)


@pytest.mark.parametrize(
    ("embeddings", "null_class", "message"),
    [
        (None, 0, "null_class is given, but the model has no classes"),
        (4, 4, r"null_class is 4; it must lie in 0\.\.3"),
        (4, -1, r"null_class is -1; it must lie in 0\.\.3"),
    ],
)
def test_a_null_class_that_is_none_is_refused(
    tmp_path: Path, embeddings: int | None, null_class: int, message: str
) -> None:
    UNet2DModel(**PEER, num_class_embeds=embeddings).save_pretrained(tmp_path / "peer")
    with pytest.raises(Invalid, match=message):
        choose_null_class(tmp_path / "peer", null_class)
    assert not (tmp_path / "peer" / "diffusion.json").exists()


def test_what_a_config_leaves_out_is_diffusers_default(foreign: Path) -> None:
    path = foreign / "config.json"
    said = json.loads(path.read_text())
    for field in ("attention_head_dim", "norm_eps", "freq_shift", "flip_sin_to_cos"):
        del said[field]
    path.write_text(json.dumps(said))
    assert largest_difference(load_model(foreign), UNet2DModel.from_pretrained(foreign)) < 1e-5


@pytest.mark.parametrize("convolutions", [False, True])
def test_attention_names_of_old_are_understood(foreign: Path, convolutions: bool) -> None:
    expected = load_model(foreign).net.state_dict()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def age(weights: dict[str, torch.Tensor]) -> None:
        for name in [n for n in weights if ".to_" in n]:
            tensor = weights.pop(name)
            for new, former in old.items():
                name = name.replace(f".{new}.", f".{former}.")
            if convolutions and tensor.ndim == 2:
                tensor = tensor[:, :, None, None].contiguous()
            weights[name] = tensor

    edit_weights(foreign / WEIGHTS, age)
    assert any(".query." in name for name in load_file(foreign / WEIGHTS))
    loaded = load_model(foreign).net.state_dict()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_half_precision_weights_become_single(foreign: Path) -> None:
    edit_weights(foreign / WEIGHTS, lambda w: w.update({k: v.half() for k, v in w.items()}))
    assert {p.dtype for p in load_model(foreign).net.parameters()} == {torch.float32}


# As people save them: UNet2DModel.save_pretrained with a variant, in shards, or both.
SAVED = {
    "variant": ({"variant": "fp16"}, 1),
    "shards": ({"max_shard_size": "20KB"}, 3),
    "shards of a variant": ({"variant": "fp16", "max_shard_size": "20KB"}, 3),
}


@pytest.mark.parametrize(("how", "least"), SAVED.values(), ids=list(SAVED))
def test_variants_and_shards_are_read(tmp_path: Path, how: dict[str, Any], least: int) -> None:
    torch.manual_seed(0)
    peer = UNet2DModel(**PEER)
    peer.save_pretrained(tmp_path / "peer", **how)
    shards = sorted((tmp_path / "peer").glob("*.safetensors"))
    assert len(shards) >= least
    assert not (tmp_path / "peer" / WEIGHTS).exists()
    assert largest_difference(load_model(tmp_path / "peer"), peer) < 1e-5
    data = b"".join(path.read_bytes() for path in shards)
    assert weights_digest(tmp_path / "peer") == hashlib.sha256(data).hexdigest()
    peer.half().save_pretrained(tmp_path / "peer")  # whole, and of other bytes
    data = (tmp_path / "peer" / WEIGHTS).read_bytes()
    assert weights_digest(tmp_path / "peer") == hashlib.sha256(data).hexdigest()


def test_of_several_variants_none_is_guessed(foreign: Path) -> None:
    data = (foreign / WEIGHTS).read_bytes()
    (foreign / WEIGHTS).unlink()
    for variant in ("fp16", "non_ema"):
        (foreign / f"diffusion_pytorch_model.{variant}.safetensors").write_bytes(data)
    with pytest.raises(Invalid, match=r"several variants: .*fp16.*non_ema.*; keep one"):
        load_model(foreign)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"conv_in.bias": "a.safetensors"}, "lists 'a.safetensors', which is missing"),
        ({"conv_in.bias": "../secret.safetensors"}, "lists '../secret.safetensors', which is miss"),
        ({"conv_in.bias": 3}, "has no weight_map"),
        ({"conv_in.bias": "b.safetensors"}, "lack the tensor 'time_embedding"),
    ],
)
def test_an_index_that_leads_nowhere_is_refused(
    foreign: Path, places: dict[str, object], message: str
) -> None:
    (foreign / WEIGHTS).rename(foreign.parent / "secret.safetensors")
    save_file({"conv_in.bias": torch.zeros(8)}, foreign / "b.safetensors")
    (foreign / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(Invalid, match=message):
        load_model(foreign)


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("act_fn", "mish", "act_fn is 'mish'"),
        ("time_embedding_type", "fourier", "time_embedding_type is 'fourier'"),
        ("class_embed_type", "timestep", "class_embed_type is 'timestep'"),
        ("center_input_sample", True, "center_input_sample is True"),
        ("downsample_type", "fir", "downsample_type is 'fir'; it must be"),
        ("mid_block_scale_factor", 1.4, "mid_block_scale_factor is 1.4"),
        ("down_block_types", ["SkipDownBlock2D", "DownBlock2D"], "holds 'SkipDownBlock2D'"),
        ("out_channels", 2, "out_channels is 2; it must equal in_channels, 1"),
        ("sample_size", 9, r"image_size is \[9, 9\]"),
        ("layers_per_block", 100, r"layers_per_block is 100; it must lie in 1\.\.8"),
        ("layers_per_block", "two", "layers_per_block is 'two'; it must be a whole number"),
        ("norm_num_groups", None, "norm_num_groups is None; it must be a whole number"),
        ("norm_num_groups", 0, "norm_num_groups is 0; it must lie in"),
        ("block_out_channels", None, "malformed"),
        ("sample_size", -8, "image_size is -8; it must lie in 1..512"),
        ("sample_size", [8.0, 8.0], "image_size is 8.0; it must be a whole number"),
        ("sample_size", [8, 8, 8], "image_size has 3 entries"),
    ],
)
def test_an_unsupported_net_is_refused_by_name(
    foreign: Path, field: str, value: object, message: str
) -> None:
    edit_json(foreign / "config.json", **{field: value})
    with pytest.raises(Invalid, match=message):
        load_model(foreign)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (DDPMScheduler(trained_betas=[0.1, 0.2]), "trained_betas is"),
        (DDPMScheduler(beta_schedule="sigmoid"), "beta_schedule is 'sigmoid'"),
        (DDPMScheduler(thresholding=True), "thresholding is True"),
        (DDPMScheduler(variance_type="learned_range"), "variance_type is 'learned_range'"),
        (DDPMScheduler(variance_type="fixed_large_log"), "variance_type is 'fixed_large_log'"),
        (DDIMScheduler(set_alpha_to_one=False), "set_alpha_to_one is False"),
        (DDPMScheduler(steps_offset=-1), "steps_offset is -1; it must lie in"),
        (DDPMScheduler(clip_sample_range=-1.0), r"clip is -1\.0; it must lie in"),
        (EDMEulerScheduler(final_sigmas_type="sigma_min"), "final_sigmas_type is 'sigma_min'"),
        (ScoreSdeVeScheduler(), "_class_name is 'ScoreSdeVeScheduler'"),
        (FlowMatchEulerDiscreteScheduler(), "_class_name is 'FlowMatchEulerDiscreteScheduler'"),
        (EDMEulerScheduler(prediction_type="v_prediction"), "prediction_type is 'v_prediction'"),
        (EDMEulerScheduler(sigma_schedule="exponential"), "sigma_schedule is 'exponential'"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_an_unsupported_scheduler_is_refused_by_name(
    foreign: Path, scheduler: Any, message: str
) -> None:
    scheduler.save_pretrained(foreign / "scheduler")
    with pytest.raises(Invalid, match=message):
        load_model(foreign)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    UNet2DModel(**PEER).save_pretrained(tmp_path / "peer", safe_serialization=False)
    with pytest.raises(
        ValueError, match=r"there is diffusion_pytorch_model\.bin.*safetensors only"
    ):
        load_model(tmp_path / "peer")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("conv_in.bias"), "lack the tensor 'conv_in.bias'"),
        (lambda w: w.update({"extra.weight": torch.zeros(1)}), "hold 'extra.weight'"),
        (
            lambda w: w.update({"conv_in.bias": torch.zeros(9)}),
            r"'conv_in.bias' has shape \(9,\); the net needs \(8,\)",
        ),
        (
            lambda w: w.update({"conv_in.weight": torch.zeros(1, 8, 3, 3)}),
            r"'conv_in.weight' has shape \(1, 8, 3, 3\)",
        ),
        (lambda w: w["conv_in.bias"].fill_(torch.nan), "'conv_in.bias' holds NaN"),
    ],
    ids=["missing", "surplus", "size", "transposed", "nan"],
)
def test_a_wrong_tensor_is_named(saved: Path, change: Any, message: str) -> None:
    edit_weights(saved / "unet" / WEIGHTS, change)
    with pytest.raises(Invalid, match=message):
        load_model(saved)


def test_a_config_larger_than_its_weights_costs_no_memory(foreign: Path) -> None:
    edit_json(foreign / "config.json", block_out_channels=[2048, 2048], layers_per_block=8)
    with pytest.raises(Invalid, match=r"has shape .*; the net needs \(8192"):
        load_model(foreign)


def test_a_config_with_text_in_place_of_a_number_is_refused(saved: Path) -> None:
    edit_json(saved / "diffusion.json", sigma_data="about a half")
    with pytest.raises(Invalid, match="config is malformed"):
        load_model(saved)


def test_more_classes_than_images_can_have_are_refused_before_they_are_named(foreign: Path) -> None:
    edit_json(foreign / "config.json", num_class_embeds=MAX_CLASSES + 2)
    with pytest.raises(Invalid, match="num_class_embeds") as refusal:
        load_model(foreign)
    assert refusal.value.field == "num_class_embeds"


def test_damaged_files_are_named(saved: Path) -> None:
    weights = saved / "unet" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(Invalid, match=f"{WEIGHTS} is not a safetensors file"):
        load_model(saved)
    (saved / "diffusion.json").write_text("{}")
    with pytest.raises(Invalid, match=r"diffusion\.json is incomplete.*schedule"):
        load_model(saved)
    (saved / "unet" / "config.json").write_text("not json")
    with pytest.raises(Invalid, match=r"config\.json is not valid JSON"):
        load_model(saved)
    (saved / "unet" / "config.json").unlink()
    with pytest.raises(Invalid, match=r"config\.json is missing"):
        load_model(saved)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"in_channels": ' + "9" * 5000 + "}"])
def test_json_that_python_cannot_hold_is_refused(foreign: Path, text: str) -> None:
    (foreign / "config.json").write_text(text)
    with pytest.raises(Invalid, match=r"config\.json is not valid JSON"):
        load_model(foreign)
