"""The U-Net against diffusers' UNet2DModel with the same weights."""

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel

from models.fields import Invalid
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from tests.models.nets.shapes import NETS, THREE_LEVELS, TINY


def twins(config: UNetConfig) -> tuple[UNet, UNet2DModel]:
    """Ours and diffusers', with the same random weights."""
    torch.manual_seed(0)
    peer = UNet2DModel(**asdict(config)).eval()
    net = UNet(config).eval()
    net.load_state_dict(peer.state_dict())
    return net, peer


@torch.inference_mode()
def largest_difference(config: UNetConfig, size: tuple[int, int], label: bool = False) -> float:
    net, peer = twins(config)
    x = torch.randn(2, config.in_channels, *size)
    t = torch.tensor([3.0, 871.0])
    labels = torch.tensor([0, 2]) if label else None
    expected = peer(x, t, class_labels=labels).sample
    assert expected.std() > 1e-3  # else any two nets would agree
    return float((net(x, t, labels) - expected).abs().max())


@pytest.mark.parametrize("name", NETS)
def test_the_net_computes_what_diffusers_computes(name: str) -> None:
    config, size = NETS[name]
    assert largest_difference(config, size, label=config.num_class_embeds is not None) < 1e-5


@torch.inference_mode()
def test_the_label_changes_the_output() -> None:
    net, _ = twins(replace(TINY, num_class_embeds=3))
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([5.0])
    assert not torch.allclose(net(x, t, torch.tensor([0])), net(x, t, torch.tensor([1])))


@torch.inference_mode()
def test_a_fresh_net_says_nothing() -> None:
    y = UNet(TINY)(torch.randn(2, 3, 8, 8), torch.tensor([1.0, 500.0]))
    assert y.shape == (2, 3, 8, 8)
    assert torch.count_nonzero(y) == 0


@pytest.mark.parametrize("size", [(30, 32), (32, 30), (31, 31)])
def test_an_image_that_cannot_be_halved_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(Invalid, match=rf"image_size is \[{size[0]}, {size[1]}\]; .* multiple of 4"):
        THREE_LEVELS.check_image_size(*size)


def test_an_image_that_can_be_halved_is_accepted() -> None:
    THREE_LEVELS.check_image_size(28, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"down_block_types": ("DownBlock2D",)}, "down_block_types has 1 entries; .* has 2"),
        ({"up_block_types": ("UpBlock2D",) * 3}, "up_block_types has 3 entries; .* has 2"),
        (
            {"down_block_types": ("DownBlock2D", "SkipDownBlock2D")},
            "down_block_types holds 'SkipDownBlock2D'; supported are .*AttnDownBlock2D",
        ),
        (
            {"block_out_channels": (), "down_block_types": (), "up_block_types": ()},
            r"block_out_channels has 0 entries; it must have 1\.\.8",
        ),
        ({"block_out_channels": (16, 4096)}, r"block_out_channels holds 4096; .* 1\.\.2048"),
        ({"block_out_channels": (16, 20)}, "block_out_channels holds 20; .* norm_num_groups, 8"),
        ({"attention_head_dim": 12}, "attention_head_dim is 12; it must divide .* 32"),
        (
            {"attention_head_dim": 32, "down_block_types": ("AttnDownBlock2D",) * 2},
            "attention_head_dim is 32; it must divide .* 16",
        ),
        ({"layers_per_block": 0}, r"layers_per_block is 0; it must lie in 1\.\.8"),
        ({"attention_head_dim": -8}, r"attention_head_dim is -8; it must lie in 1\.\.2048"),
        ({"attention_head_dim": 0}, r"attention_head_dim is 0; it must lie in 1\.\.2048"),
        ({"norm_num_groups": 0}, r"norm_num_groups is 0; it must lie in 1\.\.2048"),
        ({"norm_num_groups": -8}, r"norm_num_groups is -8; it must lie in 1\.\.2048"),
        ({"block_out_channels": (True, 16)}, "block_out_channels holds True"),
        (
            {"block_out_channels": (9, 18), "norm_num_groups": 9, "attention_head_dim": None},
            "block_out_channels begins with 9; that must be even",
        ),
        ({"norm_eps": "x"}, "norm_eps is 'x'; it must be a number"),
        ({"norm_eps": float("inf")}, "norm_eps is inf; it must lie in"),
        ({"dropout": float("nan")}, r"dropout is nan; it must lie in 0\.\.0\.9"),
        ({"add_attention": "no"}, "add_attention is 'no'; it must be true or false"),
        ({"layers_per_block": 9}, r"layers_per_block is 9; it must lie in 1\.\.8"),
        ({"dropout": 1.0}, r"dropout is 1\.0; it must lie in 0\.\.0\.9"),
        ({"downsample_padding": 2}, "downsample_padding is 2; it must be 0 or 1"),
        ({"resnet_time_scale_shift": "ada_group"}, "resnet_time_scale_shift is 'ada_group'; it"),
    ],
)
def test_a_refusal_names_the_field_and_its_bound(change: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        replace(TINY, **change)


def test_a_config_survives_json() -> None:
    lists = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(THREE_LEVELS).items()}
    assert UNetConfig.from_dict(lists) == THREE_LEVELS


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        ((8, 8), 2),
        ((28, 28), 3),
        ((30, 30), 2),
        ((25, 25), 1),
        ((32, 32), 3),
        ((64, 64), 4),
        ((96, 64), 4),
        ((256, 256), 5),
    ],
)
def test_a_small_net_halves_its_images_evenly(size: tuple[int, int], levels: int) -> None:
    config = UNetConfig.small(size, channels=3, num_classes=10)
    config.check_image_size(*size)
    assert len(config.block_out_channels) == levels
    assert config.num_class_embeds == 11
    with torch.device("meta"):  # shapes without the arithmetic
        y = UNet(config)(torch.empty(1, 3, *size), torch.empty(1), torch.zeros(1).long())
    assert y.shape == (1, 3, *size)
