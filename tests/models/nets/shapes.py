"""Nets of every kind: config and image size by what is special about them."""

from dataclasses import replace

from models.nets.config import UNetConfig

TINY = UNetConfig(block_out_channels=(16, 32), norm_num_groups=8, attention_head_dim=8)
THREE_LEVELS = replace(
    TINY,
    block_out_channels=(16, 32, 32),
    down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
)
CIFAR10 = UNetConfig(  # google/ddpm-cifar10-32
    block_out_channels=(128, 256, 256, 256),
    layers_per_block=2,
    down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    attention_head_dim=None,
    norm_eps=1e-6,
    downsample_padding=0,
    flip_sin_to_cos=False,
    freq_shift=1,
)
NETS: dict[str, tuple[UNetConfig, tuple[int, int]]] = {
    "two levels": (TINY, (8, 8)),
    "three levels": (THREE_LEVELS, (16, 16)),
    "two layers": (replace(TINY, layers_per_block=2), (8, 8)),
    "one head": (replace(TINY, attention_head_dim=None), (8, 8)),
    "heads wider than a level without attention": (replace(TINY, attention_head_dim=32), (8, 8)),
    "no attention between": (replace(TINY, add_attention=False), (8, 8)),
    "scale": (replace(TINY, resnet_time_scale_shift="scale_shift"), (8, 8)),
    "ADM-like": (
        replace(
            THREE_LEVELS,
            down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
            downsample_type="resnet",
            upsample_type="resnet",
            resnet_time_scale_shift="scale_shift",
            attn_norm_num_groups=4,
        ),
        (16, 16),
    ),
    "padding right and bottom": (replace(TINY, downsample_padding=0), (8, 8)),
    "sine first": (replace(TINY, flip_sin_to_cos=False, freq_shift=1), (8, 8)),
    "greyscale": (replace(TINY, in_channels=1, out_channels=1), (8, 8)),
    "not square": (THREE_LEVELS, (24, 16)),
    "small 28": (UNetConfig.small((28, 28), 1, 0), (28, 28)),
    "ddpm-cifar10-32": (CIFAR10, (32, 32)),
    "classes": (replace(TINY, num_class_embeds=3), (8, 8)),
}
