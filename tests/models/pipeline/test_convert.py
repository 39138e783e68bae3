"""Checkpoints of others, pickled as they pickle them: the net that comes out computes the same, and
nothing that a pickle names is run."""

import argparse
import os
import pickle
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel
from torch import Tensor, nn

from models.diffusion.config import SamplingConfig
from models.diffusion.schedule import ScheduleConfig
from models.fields import Invalid
from models.pipeline import convert as command
from models.pipeline.convert import Flags, convert
from models.pipeline.torch_folder import load_model

UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
}
ADM: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 2,
    "attention_head_dim": 16,
    "norm_num_groups": 32,
    "attn_norm_num_groups": 32,
}
OF_2021: dict[str, Any] = {  # Nichol and Dhariwal's
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}
RESAMPLED: dict[str, Any] = {  # Dhariwal and Nichol's
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "downsample_type": "resnet",
    "upsample_type": "resnet",
    "resnet_time_scale_shift": "scale_shift",
}
FLAGS = Flags(image_size=16, num_head_channels=16, noise_schedule="cosine")


def a_unet(seed: int = 0, **config: Any) -> UNet2DModel:
    torch.manual_seed(seed)
    unet = UNet2DModel(**{**UNET, **config}).eval()
    for parameter in unet.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return unet


@torch.inference_mode()
def assert_same(folder: Path, unet: UNet2DModel, scale: float = 1.0) -> None:
    """The folder's net computes what the other does; `scale` is of its input c_noise."""
    model = load_model(folder)
    x, t = torch.randn(2, 3, *model.config.image_size), scale * torch.tensor([3.0, 871.0])
    label = torch.tensor([0, 3]) if model.config.class_names else None
    expected = unet(x, t, class_labels=label).sample[:, :3]
    assert expected.std() > 1e-2
    assert (model.net(x, t, label) - expected).abs().max() < 1e-5


# diffusers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [{}, {"variant": "fp16"}, {"max_shard_size": "20KB"}], ids=["whole", "variant", "shards"]
)
def test_a_pickled_unet_becomes_safetensors(tmp_path: Path, how: dict[str, Any]) -> None:
    unet = a_unet()
    unet.save_pretrained(tmp_path / "peer", safe_serialization=False, **how)
    report = convert(tmp_path / "peer", tmp_path / "out")
    assert_same(tmp_path / "out", unet)
    assert_same(tmp_path / "out", UNet2DModel.from_pretrained(tmp_path / "out" / "unet").eval())
    assert report.num_tensors == len(unet.state_dict())
    assert ".bin" in report.took
    assert not list((tmp_path / "out").rglob("*.bin"))


def test_a_pickled_pipeline_keeps_its_scheduler_and_its_license(tmp_path: Path) -> None:
    unet = a_unet()
    scheduler = DDIMScheduler(num_train_timesteps=200, prediction_type="v_prediction")
    DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "peer", safe_serialization=False)
    (tmp_path / "peer" / "README.md").write_text("---\nlicense: mit\n---\n")
    convert(tmp_path / "peer", tmp_path / "out")
    assert_same(tmp_path / "out", unet)
    config = load_model(tmp_path / "out").config
    assert (config.schedule, config.prediction_type) == (ScheduleConfig("linear", 200), "v")
    assert (tmp_path / "out" / "README.md").read_text() == "---\nlicense: mit\n---\n"


def test_of_a_checkpoint_of_accelerate_the_average_is_taken(tmp_path: Path) -> None:
    trained, average = a_unet(0), a_unet(1)
    peer = tmp_path / "run" / "checkpoint-500"
    trained.save_pretrained(peer / "unet")
    average.save_pretrained(peer / "unet_ema", safe_serialization=False)
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl"):
        (peer / name).write_bytes(b"\x80\x04not for reading")
    DDIMScheduler(beta_schedule="squaredcos_cap_v2").save_pretrained(tmp_path / "run" / "scheduler")
    report = convert(peer, tmp_path / "out")
    assert_same(tmp_path / "out", average)
    assert load_model(tmp_path / "out").config.schedule.name == "cosine"
    assert report.took == "unet_ema/diffusion_pytorch_model.bin"
    assert {"optimizer.bin", "unet/diffusion_pytorch_model.safetensors"} <= set(report.left)
    shutil.rmtree(peer / "unet_ema")
    convert(peer, tmp_path / "trained")
    assert_same(tmp_path / "trained", trained)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    a_unet().save_config(tmp_path / "config")
    return tmp_path / "config" / "config.json"


def a_training(place: str, unet: UNet2DModel) -> dict[str, Tensor]:
    return {f"{place}{name}": tensor for name, tensor in unet.state_dict().items()}


@pytest.mark.parametrize("zipped", [True, False], ids=["torch 1.6", "before"])
def test_of_a_trainings_checkpoint_the_average_is_taken(
    tmp_path: Path, config: Path, zipped: bool
) -> None:
    trained, average = a_unet(0), a_unet(1)
    content = {
        "step": 500,
        "model": a_training("module.", trained),
        "ema": {**a_training("ema_model.", average), **a_training("online_model.", trained)},
        "opt": {"state": {0: {"exp_avg": torch.zeros(3)}}},
    }
    if zipped:
        content["args"] = argparse.Namespace(lr=1e-4)  # a class that torch.load does not allow
    path = tmp_path / "model-5.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    report = convert(path, tmp_path / "out", config=config)
    assert_same(tmp_path / "out", average)
    count = len(average.state_dict())
    assert report.took == "the net at 'ema.ema_model.' (an average)"
    assert report.num_tensors == count
    assert sum(int(each.split("(")[1][:-1]) for each in report.left) == 2 * count
    convert(path, tmp_path / "trained", config=config, prefix="model.module.")
    assert_same(tmp_path / "trained", trained)


def test_of_several_nets_none_is_guessed(tmp_path: Path, config: Path) -> None:
    path = tmp_path / "two.pt"
    torch.save({**a_training("a.", a_unet(0)), **a_training("b.", a_unet(1))}, path)
    with pytest.raises(Invalid, match=r"nets at \['a\.', 'b\.'\]; choose one with --prefix"):
        convert(path, tmp_path / "out", config=config)
    with pytest.raises(Invalid, match=r"prefix is 'c\.'; the file has nets at"):
        convert(path, tmp_path / "out", config=config, prefix="c.")
    convert(path, tmp_path / "out", config=config, prefix="b.")
    assert_same(tmp_path / "out", a_unet(1))


# guided-diffusion ---------------------------------------------------------------------------------

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def guided(unet: UNet2DModel, new_order: bool = False) -> dict[str, Tensor]:
    """The tensors of a UNet2DModel as guided-diffusion has them, block by block."""
    found: dict[str, Tensor] = {}

    def put(name: str, module: nn.Module) -> None:
        for kind, tensor in module.named_parameters():
            found[f"{name}.{kind}"] = tensor.detach().clone()

    def put_resnet(name: str, module: nn.Module) -> None:
        for part, layer in module.named_children():
            if part in RESNET:
                put(f"{name}.{RESNET[part]}", layer)

    def put_attention(name: str, module: Any) -> None:
        put(f"{name}.norm", module.group_norm)
        found[f"{name}.proj_out.weight"] = module.to_out[0].weight.detach()[:, :, None].clone()
        found[f"{name}.proj_out.bias"] = module.to_out[0].bias.detach().clone()
        layers = (module.to_q, module.to_k, module.to_v)
        for kind in ("weight", "bias"):
            rows = [getattr(layer, kind).detach() for layer in layers]
            if not new_order:  # head by head
                heads = zip(*(each.split(16) for each in rows), strict=True)
                rows = [each for head in heads for each in head]
            joined = torch.cat(rows)
            found[f"{name}.qkv.{kind}"] = joined[:, :, None] if kind == "weight" else joined

    def put_resampling(name: str, module: Any, conv: str) -> None:
        if hasattr(module, "norm1"):
            put_resnet(name, module)
        else:
            put(f"{name}.{conv}", module.conv)

    def put_layers(name: str, block: Any, i: int) -> int:
        put_resnet(f"{name}.0", block.resnets[i])
        if getattr(block, "attentions", None):
            put_attention(f"{name}.1", block.attentions[i])
            return 2
        return 1

    put("time_embed.0", unet.time_embedding.linear_1)
    put("time_embed.2", unet.time_embedding.linear_2)
    if unet.class_embedding is not None:
        put("label_emb", unet.class_embedding)
    put("input_blocks.0.0", unet.conv_in)
    n = 1
    for block in unet.down_blocks:
        for i in range(len(block.resnets)):
            put_layers(f"input_blocks.{n}", block, i)
            n += 1
        if block.downsamplers:
            put_resampling(f"input_blocks.{n}.0", block.downsamplers[0], "op")
            n += 1
    put_resnet("middle_block.0", unet.mid_block.resnets[0])
    put_attention("middle_block.1", unet.mid_block.attentions[0])
    put_resnet("middle_block.2", unet.mid_block.resnets[1])
    n = 0
    for block in unet.up_blocks:
        for i in range(len(block.resnets)):
            after = put_layers(f"output_blocks.{n}", block, i)
            n += 1
        if block.upsamplers:
            put_resampling(f"output_blocks.{n - 1}.{after}", block.upsamplers[0], "conv")
    put("out.0", unet.conv_norm_out)
    put("out.2", unet.conv_out)
    return found


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    torch.save(tensors, path)
    return path


@pytest.mark.parametrize("new_order", [False, True])
@pytest.mark.parametrize("out_channels", [3, 6])
@pytest.mark.parametrize("kind", [OF_2021, RESAMPLED], ids=["2021", "resampled by ResNet blocks"])
def test_a_net_of_guided_diffusion_computes_the_same(
    tmp_path: Path, kind: dict[str, Any], out_channels: int, new_order: bool
) -> None:
    unet = a_unet(**ADM, **kind, out_channels=out_channels, num_class_embeds=4)
    path = saved(tmp_path / "ema_0.9999_500000.pt", guided(unet, new_order))
    flags = Flags(
        image_size=16,
        num_head_channels=16,
        use_new_attention_order=new_order,
        noise_schedule="linear",
        diffusion_steps=500,
    )
    report = convert(path, tmp_path / "out", flags=flags)
    assert_same(tmp_path / "out", unet)
    model = load_model(tmp_path / "out")
    assert model.config.class_names == ("0", "1", "2", "3")
    assert model.config.schedule == ScheduleConfig("linear", 500, 2e-4, 0.04)
    learned = out_channels == 6
    assert report.left == ["the learned variance: output channels 3..5"] * learned
    assert model.config.sampling.variance == ("fixed_small" if learned else "fixed_large")
    peer = UNet2DModel.from_pretrained(tmp_path / "out" / "unet")
    assert_same(tmp_path / "out", peer.eval())


def test_heads_may_be_counted_where_attention_is_equally_wide(tmp_path: Path) -> None:
    unet = a_unet(**ADM, **RESAMPLED)
    path = saved(tmp_path / "net.pt", guided(unet))
    flags = Flags(image_size=16, num_heads=4, noise_schedule="cosine", predict_xstart=True)
    convert(path, tmp_path / "out", flags=flags)
    assert_same(tmp_path / "out", unet)
    config = load_model(tmp_path / "out").config
    assert (config.schedule.name, config.prediction_type) == ("cosine", "x0")


def without(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(part)}


@pytest.mark.parametrize(
    ("change", "flags", "message"),
    [
        (dict, None, "--image-size, --noise-schedule, and --num-head-channels or --num-heads"),
        (
            dict,
            Flags(16, 4, noise_schedule="cosine", diffusion_steps=4000, rescale_timesteps=True),
            "rescale_timesteps is True; with 4000 diffusion_steps the net was told 1000 t/4000",
        ),
        (
            lambda t: {**t, "output_blocks.8.1.qkv.weight": torch.zeros(96, 32, 1)},
            Flags(16, 4, noise_schedule="cosine"),
            r"4 heads, for \[32, 64\] channels",
        ),
        (lambda t: without(t, "input_blocks.4.1"), FLAGS, "1 of the 2 layers of down_blocks.1 hav"),
        (lambda t: without(t, "output_blocks.8"), FLAGS, "9 input_blocks and 8 output_blocks"),
        (lambda t: without(t, "out.0"), FLAGS, "the weights lack the tensor 'conv_norm_out"),
        (lambda t: without(t, "out.2"), FLAGS, "the net lacks the tensor 'conv_out.weight'"),
        (
            lambda t: {**t, "input_blocks.4.1.transformer_blocks.0.ff.weight": torch.zeros(1)},
            FLAGS,
            "transformer_blocks.0.ff.weight', which no UNet2DModel has",
        ),
        (
            lambda t: {**t, "first_stage_model.decoder.conv_in.weight": torch.zeros(1)},
            FLAGS,
            "latent diffusion",
        ),
        (
            lambda t: {
                **t,
                "input_blocks.0.0.weight": torch.zeros(32, 4, 3, 3),
                "out.2.weight": torch.zeros(4, 32, 3, 3),
            },
            FLAGS,
            "the net has 4 channels, and images have 1 or 3",
        ),
        (lambda t: {**t, "out.2.bias": torch.full((3,), torch.nan)}, FLAGS, "holds NaN"),
    ],
)
def test_a_net_that_is_no_unet_is_refused_and_nothing_is_written(
    tmp_path: Path, change: Any, flags: Flags | None, message: str
) -> None:
    path = saved(tmp_path / "net.pt", change(guided(a_unet(**ADM, **RESAMPLED))))
    with pytest.raises(Invalid, match=message):
        convert(path, tmp_path / "out", flags=flags)
    assert list(tmp_path.iterdir()) == [path]


# EDM ----------------------------------------------------------------------------------------------


class Persistent(nn.Module):
    """A module that is pickled with its class's source code, as EDM's are."""

    def __init__(self, kind: str, **state: Any) -> None:
        super().__init__()
        self.kind, self.meta = kind, state

    def __reduce__(self) -> Any:
        state = {**self.__dict__, **self.meta}
        source = "raise SystemExit('this must not be run')"
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": self.kind}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (
            {**meta, "state": state},
        )


@pytest.fixture
def edm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module that EDM's pickles name."""
    package, module = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")

    def rebuild(meta: Any) -> None:
        raise AssertionError

    rebuild.__module__, rebuild.__qualname__ = module.__name__, "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = rebuild  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_utils", package)
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)


BLOCK_OF_EDM = {
    "norm1": "norm0",
    "conv1": "conv0",
    "time_emb_proj": "affine",
    "norm2": "norm1",
    "conv2": "conv1",
    "conv_shortcut": "skip",
}


def dhariwal(unet: UNet2DModel) -> Persistent:
    """The parts of a UNet2DModel as EDM's DhariwalUNet has them."""
    net = Persistent("DhariwalUNet", label_dropout=0.0)
    net.map_layer0, net.map_layer1 = unet.time_embedding.linear_1, unet.time_embedding.linear_2
    net.map_label = nn.Linear(4, 512, bias=False)
    net.map_label.weight.data = unet.class_embedding.weight.data.T
    net.map_augment = nn.Linear(9, 128, bias=False)
    net.enc, net.dec = nn.ModuleDict(), nn.ModuleDict()

    def block(resnet: nn.Module, attention: Any = None) -> Persistent:
        made = Persistent("UNetBlock")
        for part, layer in resnet.named_children():
            if part in BLOCK_OF_EDM:
                setattr(made, BLOCK_OF_EDM[part], layer)
        if attention is not None:
            made.norm2, made.proj = attention.group_norm, nn.Conv2d(128, 128, 1)
            made.proj.weight.data = attention.to_out[0].weight.data[:, :, None, None]
            made.proj.bias.data = attention.to_out[0].bias.data
            made.qkv = nn.Conv2d(128, 384, 1)
            layers = (attention.to_q, attention.to_k, attention.to_v)
            weights = torch.stack([layer.weight.data for layer in layers], dim=1)
            made.qkv.weight.data = weights.flatten(0, 1)[:, :, None, None]  # q k v q k v ...
            made.qkv.bias.data = torch.stack([layer.bias.data for layer in layers], 1).flatten()
        return made

    def resampled(resnet: nn.Module) -> Persistent:
        made = block(resnet)
        made.register_buffer("resample_filter", torch.full((1, 1, 2, 2), 0.25))
        return made

    high, low = unet.down_blocks
    net.enc["16x16_conv"] = unet.conv_in
    net.enc["16x16_block0"] = block(high.resnets[0])
    net.enc["8x8_down"] = resampled(high.downsamplers[0])
    net.enc["8x8_block0"] = block(low.resnets[0], low.attentions[0])
    middle = unet.mid_block
    net.dec["8x8_in0"] = block(middle.resnets[0], middle.attentions[0])
    net.dec["8x8_in1"] = block(middle.resnets[1])
    low, high = unet.up_blocks
    for i in range(2):
        net.dec[f"8x8_block{i}"] = block(low.resnets[i], low.attentions[i])
    net.dec["16x16_up"] = resampled(low.upsamplers[0])
    for i in range(2):
        net.dec[f"16x16_block{i}"] = block(high.resnets[i])
    net.out_norm, net.out_conv = unet.conv_norm_out, unet.conv_out
    return net


def snapshot(path: Path, net: Persistent, kind: str = "EDMPrecond") -> Path:
    network = Persistent(kind, img_resolution=16, label_dim=4, sigma_data=0.4)
    network.model = net
    content = {"ema": network, "loss_fn": Persistent("EDMLoss"), "augment_pipe": None}
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.fixture(scope="module")
def of_edm() -> UNet2DModel:
    two = {name: kinds[:2] for name, kinds in RESAMPLED.items() if name == "down_block_types"}
    return a_unet(
        **{
            **ADM,
            **RESAMPLED,
            **two,
            "up_block_types": RESAMPLED["up_block_types"][1:],
            "block_out_channels": (128, 128),  # at least 128, for 32 groups
            "layers_per_block": 1,
            "attention_head_dim": 64,
            "num_class_embeds": 4,
        }
    )


@pytest.mark.parametrize("label_dropout", [0.0, 0.1])
def test_a_network_of_edm_computes_the_same(
    tmp_path: Path, edm: None, of_edm: UNet2DModel, label_dropout: float
) -> None:
    net = dhariwal(of_edm)
    net.meta["label_dropout"] = label_dropout
    report = convert(snapshot(tmp_path / "network-snapshot-1.pkl", net), tmp_path / "out")
    assert_same(tmp_path / "out", of_edm, scale=1e-3)  # c_noise of EDM is near 0
    model = load_model(tmp_path / "out")
    assert model.config.schedule == ScheduleConfig("edm")
    assert (model.config.prediction_type, model.config.sigma_data) == ("edm", 0.4)
    assert model.config.sampling == SamplingConfig()
    assert model.config.has_null_class is (label_dropout > 0)
    if label_dropout:
        assert torch.equal(model.net.class_embedding.weight[4], torch.zeros(512))
    assert report.left == ["map_augment.weight (1)", "enc.8x8_down (1)", "dec.16x16_up (1)"]


def test_other_networks_of_edm_are_refused(tmp_path: Path, edm: None, of_edm: UNet2DModel) -> None:
    for net, kind, message in (
        (Persistent("SongUNet"), "EDMPrecond", "SongUNet .* cannot express: .* in their shortcut"),
        (Persistent("MyNet"), "EDMPrecond", "a MyNet; supported is DhariwalUNet"),
        (dhariwal(of_edm), "VPPrecond", "a VPPrecond; supported is EDMPrecond"),
    ):
        with pytest.raises(Invalid, match=message):
            convert(snapshot(tmp_path / "net.pkl", net, kind), tmp_path / "out")
    narrow = dhariwal(of_edm)
    narrow.enc["16x16_block0"].norm0 = nn.GroupNorm(16, 64)
    with pytest.raises(Invalid, match="64 channels wide; below 128"):
        convert(snapshot(tmp_path / "net.pkl", narrow), tmp_path / "out")


# denoising-diffusion-pytorch ----------------------------------------------------------------------


def test_a_net_of_denoising_diffusion_pytorch_is_refused_by_its_layers(tmp_path: Path) -> None:
    names = (
        *("init_conv.weight", "time_mlp.1.weight", "downs.0.0.block1.norm.g", "downs.0.2.mem_kv"),
        *("downs.0.2.to_qkv.weight", "downs.0.3.1.weight", "final_res_block.mlp.1.weight"),
    )
    net = {f"model.{name}": torch.zeros(1) for name in names}
    path = tmp_path / "model-1.pt"
    ema = {f"{kind}.{name}": t for kind in ("ema_model", "online_model") for name, t in net.items()}
    torch.save({"step": 1, "model": net, "ema": ema, "scaler": None, "version": "2.3.4"}, path)
    with pytest.raises(Invalid, match=r"at 'ema\.ema_model\.model\.' \(an average\)") as refusal:
        convert(path, tmp_path / "out")
    assert "which a UNet2DModel cannot express" in str(refusal.value)
    lines = str(refusal.value).splitlines()[1:]
    assert {line.split(":")[0].strip() for line in lines} == {*names} - {"time_mlp.1.weight"}


# Pickles ------------------------------------------------------------------------------------------


class Harmful:
    """It makes a folder when it is unpickled, by one function or another."""

    def __init__(self, path: Path, by: Any) -> None:
        self.path, self.by = path, by

    def __reduce__(self) -> Any:
        return self.by, (str(self.path),)


def plainly_pickled(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def makes_a_folder(path: str) -> None:
    Path(path).mkdir()


@pytest.mark.parametrize("save", [torch.save, plainly_pickled])
@pytest.mark.parametrize("by", [makes_a_folder, os.mkdir])
def test_nothing_in_a_pickle_is_run(tmp_path: Path, config: Path, save: Any, by: Any) -> None:
    path, harm = tmp_path / "net.pt", tmp_path / "harm"
    content = {**a_training("ema.", a_unet()), "more": Harmful(harm, by)}
    save(content, path)
    if save is torch.save and by is os.mkdir:  # torch reads no file that names a system call
        with pytest.raises(Invalid, match="cannot be read as weights alone"):
            convert(path, tmp_path / "out", config=config)
    else:
        convert(path, tmp_path / "out", config=config)
        assert_same(tmp_path / "out", a_unet())
    assert not harm.exists()
    pickle.loads(pickle.dumps(Harmful(harm, by)))
    assert harm.exists()  # another reader would have run it


NO_CHECKPOINTS = [b"", b"\x80\x04", b"GIF89a", b"\x80\x04K\x05.", b"cos\nsystem\n."]


@pytest.mark.parametrize("content", NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.pt").write_bytes(content)
    with pytest.raises(Invalid, match=r"cannot be read as weights alone|no net that is known"):
        convert(tmp_path / "net.pt", tmp_path / "out")


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        convert(tmp_path / "net.pt", tmp_path / "out")
    with pytest.raises(Invalid, match=r"no config\.json with weights beside it"):
        convert(tmp_path, tmp_path / "out")
    path = saved(tmp_path / "net.pt", a_unet().state_dict())
    with pytest.raises(Invalid, match=r"give its config\.json \(--config\)"):
        convert(path, tmp_path / "out")
    torch.save({"decay": 0.9, "shadow_params": [torch.zeros(3)]}, path)
    with pytest.raises(Invalid, match="averages without names"):
        convert(path, tmp_path / "out")
    for variant in ("fp16", "ema"):
        a_unet().save_pretrained(tmp_path / "two", variant=variant, safe_serialization=False)
    with pytest.raises(Invalid, match=r"several variants: .*ema\.bin.*fp16\.bin"):
        convert(tmp_path / "two", tmp_path / "out")


def test_the_command_says_what_it_took_and_what_it_left(
    tmp_path: Path,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = saved(
        tmp_path / "net.pt", {**a_training("unet.", a_unet()), "vae.weight": torch.ones(1)}
    )
    out = tmp_path / "out"
    said = ["convert", str(path), str(out), "--config", str(config)]
    monkeypatch.setattr(sys, "argv", said)
    assert command.main() == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("took the net at 'unet.': ")
    assert printed[1:] == ["left vae.weight (1)", f"wrote {out}"]
    assert command.main() == 1  # it is there
    assert "not empty" in capsys.readouterr().err
