"""The U-Net that denoises: ResNet blocks at several resolutions, attention at some of them.

Ho et al. 2020, appendix B. Parameter names and block types are diffusers' UNet2DModel's, so that
weights travel both ways; no part of it is needed here.

    x --conv_in--> down blocks --> mid block --> up blocks --conv_out--> y
                       \\________ skip connections ________/
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention, silu

from models.fields import Invalid, check_number, check_whole
from models.nets.dropout import Dropout

BlockType = Literal["DownBlock2D", "AttnDownBlock2D", "UpBlock2D", "AttnUpBlock2D"]
DOWN_BLOCK_TYPES = ("DownBlock2D", "AttnDownBlock2D")
UP_BLOCK_TYPES = ("UpBlock2D", "AttnUpBlock2D")

MAX_CHANNELS = 2048
MAX_CLASSES = 1_000_000  # as many as an archive may hold images
MAX_PERIOD = 10_000.0  # of the time embedding's slowest wave


@dataclass(frozen=True)
class UNetConfig:
    """Named as in diffusers. `num_class_embeds` is K + 1, the last being "no class"; None means
    unconditional. `attention_head_dim` of None means one head."""

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (32, 64)
    layers_per_block: int = 1
    down_block_types: tuple[str, ...] = ("DownBlock2D", "AttnDownBlock2D")
    up_block_types: tuple[str, ...] = ("AttnUpBlock2D", "UpBlock2D")
    attention_head_dim: int | None = 32
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    downsample_padding: int = 1
    flip_sin_to_cos: bool = True
    freq_shift: float = 0.0
    dropout: float = 0.0
    num_class_embeds: int | None = None
    add_attention: bool = True
    resnet_time_scale_shift: str = "default"

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        for field, kinds in (
            ("down_block_types", DOWN_BLOCK_TYPES),
            ("up_block_types", UP_BLOCK_TYPES),
        ):
            value = getattr(self, field)
            if len(value) != levels:
                raise Invalid.because(
                    f"{field} has {len(value)} entries; block_out_channels has {levels}",
                    field=field,
                )
            for kind in value:
                if kind not in kinds:
                    raise Invalid.because(
                        f"{field} holds {kind!r}; supported are {kinds}", field=field
                    )
        if not 1 <= levels <= 8:
            raise Invalid.because(
                f"block_out_channels has {levels} entries; it must have 1..8",
                field="block_out_channels",
            )
        self._check_numbers()
        for channels in self.block_out_channels:
            known = type(channels) is int and 1 <= channels <= MAX_CHANNELS
            if not known or channels % self.norm_num_groups:
                raise Invalid.because(
                    f"block_out_channels holds {channels!r}; each must lie in 1..{MAX_CHANNELS} "
                    f"and be a multiple of norm_num_groups, {self.norm_num_groups}",
                    field="block_out_channels",
                )
            if self.attention_head_dim and channels % self.attention_head_dim:
                raise Invalid(
                    "attention_head_dim",
                    self.attention_head_dim,
                    f"it must divide block_out_channels, which hold {channels}",
                )
        if self.block_out_channels[0] % 2:
            raise Invalid.because(
                f"block_out_channels begins with {self.block_out_channels[0]}; that must be even, "
                "for a sine and a cosine of each wave of the time embedding",
                field="block_out_channels",
            )
        if self.downsample_padding not in (0, 1):
            raise Invalid("downsample_padding", self.downsample_padding, "it must be 0 or 1")
        if self.resnet_time_scale_shift not in ("default", "scale_shift"):
            raise Invalid(
                "resnet_time_scale_shift",
                self.resnet_time_scale_shift,
                "it must be 'default' or 'scale_shift'",
            )

    def _check_numbers(self) -> None:
        """A file may hold anything where a number belongs."""
        check_whole("in_channels", self.in_channels, 1, MAX_CHANNELS)
        check_whole("out_channels", self.out_channels, 1, MAX_CHANNELS)
        check_whole("layers_per_block", self.layers_per_block, 1, 8)
        check_whole("norm_num_groups", self.norm_num_groups, 1, MAX_CHANNELS)
        if self.attention_head_dim is not None:
            check_whole("attention_head_dim", self.attention_head_dim, 1, MAX_CHANNELS)
        if self.num_class_embeds is not None:
            check_whole("num_class_embeds", self.num_class_embeds, 1, MAX_CLASSES + 1)
        check_number("dropout", self.dropout, 0.0, 0.9)
        check_number("norm_eps", self.norm_eps, 1e-12, 1.0)
        check_number("freq_shift", self.freq_shift, 0.0, 1.0)
        for field in ("flip_sin_to_cos", "add_attention"):
            if not isinstance(getattr(self, field), bool):
                raise Invalid(field, getattr(self, field), "it must be true or false")

    @classmethod
    def small(cls, image_size: tuple[int, int], channels: int, num_classes: int) -> "UNetConfig":
        """A net that learns such images in minutes: 32 channels and about a million parameters up
        to 28 pixels, wider and deeper beyond. Attention stands at the lowest resolution."""
        longest = max(image_size)
        width = 32 if longest < 32 else 64
        multiples = {True: (1, 2), longest > 16: (1, 2, 2), longest >= 64: (1, 2, 2, 4)}[True]
        if longest >= 128:
            multiples = (1, 1, 2, 2, 4)
        while len(multiples) > 1 and any(s % 2 ** (len(multiples) - 1) for s in image_size):
            multiples = multiples[:-1]
        levels = len(multiples)
        return cls(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=tuple(width * m for m in multiples),
            down_block_types=("DownBlock2D",) * (levels - 1) + ("AttnDownBlock2D",),
            up_block_types=("AttnUpBlock2D",) + ("UpBlock2D",) * (levels - 1),
            num_class_embeds=num_classes + 1 if num_classes else None,
        )

    @classmethod
    def large(cls, image_size: tuple[int, int], channels: int, num_classes: int) -> "UNetConfig":
        """A net for a GPU: 128 channels and 36 million parameters at 32 pixels, with attention at
        16 pixels and below, where there are such levels."""
        longest = max(image_size)
        multiples: tuple[int, ...] = (1, 2) if longest <= 16 else (1, 2, 2, 2)
        if longest >= 128:
            multiples = (1, 1, 2, 2, 2)
        while len(multiples) > 1 and any(s % 2 ** (len(multiples) - 1) for s in image_size):
            multiples = multiples[:-1]
        looks = [longest >> level <= 16 for level in range(len(multiples))]
        down = tuple("AttnDownBlock2D" if look else "DownBlock2D" for look in looks)
        up = tuple("AttnUpBlock2D" if look else "UpBlock2D" for look in reversed(looks))
        return cls(
            in_channels=channels,
            out_channels=channels,
            block_out_channels=tuple(128 * m for m in multiples),
            layers_per_block=2,
            down_block_types=down,
            up_block_types=up,
            attention_head_dim=64,
            num_class_embeds=num_classes + 1 if num_classes else None,
            resnet_time_scale_shift="scale_shift",
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "UNetConfig":
        """From JSON, where tuples are lists."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**fields)

    def check_image_size(self, height: int, width: int) -> None:
        """ValueError unless each of the net's halvings gives whole pixels."""
        multiple = 2 ** (len(self.block_out_channels) - 1)
        for side in (height, width):
            if side % multiple:
                raise Invalid.because(
                    f"image_size is {height} x {width}; each side must be a multiple of "
                    f"{multiple}, since the net halves it {len(self.block_out_channels) - 1} times",
                    field="image_size",
                )


class UNet(nn.Module):
    """y (B, C_out, H, W) of x (B, C_in, H, W), c_noise (B,) float and label (B,) int64 or None.

    `augmentation` (B, 4 block_out_channels[0]) or None is added to the embeddings of both. It is
    used in training only (models.training.augment).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.block_out_channels
        embedding = 4 * widths[0]
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], embedding)
        if config.num_class_embeds is not None:
            self.class_embedding = nn.Embedding(config.num_class_embeds, embedding)
        self.down_blocks = nn.ModuleList()
        skips = [widths[0]]
        for level, width in enumerate(widths):
            last = level == len(widths) - 1
            attention = config.down_block_types[level] == "AttnDownBlock2D"
            self.down_blocks.append(DownBlock(config, skips[-1], width, attention, not last))
            skips += [width] * (config.layers_per_block + (not last))
        self.mid_block = MidBlock(config, widths[-1])
        self.up_blocks = nn.ModuleList()
        channels = widths[-1]
        for level, width in enumerate(reversed(widths)):
            last = level == len(widths) - 1
            attention = config.up_block_types[level] == "AttnUpBlock2D"
            joined = [skips.pop() for _ in range(config.layers_per_block + 1)]
            self.up_blocks.append(UpBlock(config, channels, joined, width, attention, not last))
            channels = width
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[0], config.norm_eps)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)  # start from the estimate "nothing to add"
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        label: Tensor | None = None,
        augmentation: Tensor | None = None,
    ) -> Tensor:
        config = self.config
        waves = sinusoids(c_noise, config.block_out_channels[0], config)
        embedding = self.time_embedding(waves.to(x.dtype))
        if label is not None:
            embedding = embedding + self.class_embedding(label)
        if augmentation is not None:
            embedding = embedding + augmentation
        embedding = silu(embedding)
        x = self.conv_in(x)
        skips = [x]
        for down in self.down_blocks:
            x = down(x, embedding, skips)
        x = self.mid_block(x, embedding)
        for up in self.up_blocks:
            x = up(x, embedding, skips)
        y: Tensor = self.conv_out(silu(self.conv_norm_out(x)))
        return y


def sinusoids(c_noise: Tensor, width: int, config: UNetConfig) -> Tensor:
    """(B, width): sines and cosines of c_noise at frequencies from 1 to 1 / MAX_PERIOD."""
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float32, device=c_noise.device)
    frequencies = MAX_PERIOD ** (-exponent / (half - config.freq_shift))
    phase = c_noise.float()[:, None] * frequencies[None, :]
    pair = [phase.cos(), phase.sin()] if config.flip_sin_to_cos else [phase.sin(), phase.cos()]
    return torch.cat(pair, dim=1)


class TimeEmbedding(nn.Module):
    def __init__(self, waves: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(waves, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, waves: Tensor) -> Tensor:
        out: Tensor = self.linear_2(silu(self.linear_1(waves)))
        return out


class ResnetBlock(nn.Module):
    def __init__(self, config: UNetConfig, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.scale_shift = config.resnet_time_scale_shift == "scale_shift"
        embedding = 4 * config.block_out_channels[0]
        groups, eps = config.norm_num_groups, config.norm_eps
        self.norm1 = nn.GroupNorm(groups, channels_in, eps)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, channels_out * (1 + self.scale_shift))
        self.norm2 = nn.GroupNorm(groups, channels_out, eps)
        self.dropout = Dropout(config.dropout)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        if channels_in != channels_out:
            self.conv_shortcut = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x)))
        e = self.time_emb_proj(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = e.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + e)
        h = self.conv2(self.dropout(silu(h)))
        if hasattr(self, "conv_shortcut"):
            x = self.conv_shortcut(x)
        return x + h  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Every pixel looks at every other."""

    def __init__(self, config: UNetConfig, channels: int, normalised: bool = True) -> None:
        super().__init__()
        self.heads = channels // (config.attention_head_dim or channels)
        if normalised:
            self.group_norm = nn.GroupNorm(config.norm_num_groups, channels, config.norm_eps)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        normed = self.group_norm(x) if hasattr(self, "group_norm") else x
        pixels = normed.flatten(2).transpose(1, 2)  # (B, H W, C)
        q, k, v = (
            to(pixels).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, H W, C / heads)
            for to in (self.to_q, self.to_k, self.to_v)
        )
        seen = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = self.to_out[0](seen).transpose(1, 2).unflatten(2, (height, width))
        return x + out


class Downsample(nn.Module):
    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.pads_right_and_bottom = padding == 0
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        if self.pads_right_and_bottom:
            x = pad(x, (0, 1, 0, 1))
        out: Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class DownBlock(nn.Module):
    def __init__(
        self, config: UNetConfig, channels_in: int, width: int, attention: bool, halve: bool
    ) -> None:
        super().__init__()
        layers = range(config.layers_per_block)
        self.resnets = nn.ModuleList(
            ResnetBlock(config, width if i else channels_in, width) for i in layers
        )
        if attention:
            self.attentions = nn.ModuleList(Attention(config, width) for _ in layers)
        if halve:
            self.downsamplers = nn.ModuleList([Downsample(width, config.downsample_padding)])

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, embedding)
            if hasattr(self, "attentions"):
                x = self.attentions[i](x)
            skips.append(x)
        if hasattr(self, "downsamplers"):
            x = self.downsamplers[0](x)
            skips.append(x)
        return x


class MidBlock(nn.Module):
    def __init__(self, config: UNetConfig, width: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(config, width, width) for _ in range(2))
        if config.add_attention:
            normalised = config.resnet_time_scale_shift == "default"  # as diffusers has it
            self.attentions = nn.ModuleList([Attention(config, width, normalised)])

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.resnets[0](x, embedding)
        if hasattr(self, "attentions"):
            x = self.attentions[0](x)
        out: Tensor = self.resnets[1](x, embedding)
        return out


class UpBlock(nn.Module):
    """`skips` are the channels that its ResNet blocks take over from the way down, in order."""

    def __init__(
        self,
        config: UNetConfig,
        channels_in: int,
        skips: list[int],
        width: int,
        attention: bool,
        double: bool,
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(config, (width if i else channels_in) + skip, width)
            for i, skip in enumerate(skips)
        )
        if attention:
            self.attentions = nn.ModuleList(Attention(config, width) for _ in skips)
        if double:
            self.upsamplers = nn.ModuleList([Upsample(width)])

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for i, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), embedding)
            if hasattr(self, "attentions"):
                x = self.attentions[i](x)
        if hasattr(self, "upsamplers"):
            x = self.upsamplers[0](x)
        return x
